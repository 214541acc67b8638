//! Lends a kernel or a delegate its tensors.

use crate::error::RegionError;
use crate::memory::{Carved, carve, no_bytes, no_bytes_mut, recycle};
use crate::region::RegionCall;
use crate::step::{Io, KernelStep, Operand, Source};
use crate::tensors::{Shapes, Slot, SlotId, same_sizes};
use alloc::vec::Vec;
use delegraph_kernels::{Arg, Buffer, Call, Growable, KernelError, Out, Scratch, Tensor};
use delegraph_pte::model::{Dynamism, EValue, Plan};
use delegraph_types::{Dims, Parallel, Scalar};

/// A number at run time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    None,
    Int(i64),
    Bool(bool),
    Float(f64),
}

impl From<Scalar> for Number {
    fn from(scalar: Scalar) -> Number {
        match scalar {
            Scalar::Int(i) => Number::Int(i),
            Scalar::Bool(b) => Number::Bool(b),
            Scalar::Float(f) => Number::Float(f),
        }
    }
}

/// The mutable part of a run: memories, sizes, and vectors that are kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// Arenas, then own memories.
    pub memories: Vec<Growable>,
    /// Present sizes of each tensor.
    pub shapes: Shapes,
    copies: Vec<Growable>,
    scratch: Scratch,
    parallel: Parallel,
    pools: Pools,
}

#[derive(Debug, Default)]
struct Pools {
    carved: Vec<Carved<'static>>,
    tensors: Vec<Tensor<'static>>,
    outs: Vec<Out<'static>>,
    optional: Vec<Option<Tensor<'static>>>,
    args: Vec<Arg<'static>>,
    ints: Vec<i64>,
    /// By output: the sizes that it was given.
    made: Vec<Dims>,
}

/// What a call reads besides memories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'c> {
    pub plan: &'c Plan,
    pub slots: &'c [Slot],
    pub memory_lens: &'c [usize],
    pub file: &'c [u8],
    pub external: &'c [&'c [u8]],
    pub numbers: &'c [Number],
    /// By tensor: the input that it is, if it may be lent.
    pub lendable: &'c [Option<u32>],
    /// By input: the bytes that the caller lends for this run.
    pub lent: &'c [Option<&'c [u8]>],
}

impl<'c> Context<'c> {
    /// The caller's bytes of a tensor that is read where it lies.
    fn lent(&self, slot: SlotId) -> Option<&'c [u8]> {
        let input = (*self.lendable.get(slot.0 as usize)?)?;
        *self.lent.get(input as usize)?
    }
}

/// Who is called.
pub(crate) enum Callee<'c> {
    Kernel(&'c KernelStep),
    Region(&'c mut dyn RegionCall),
    /// Copies the only input to the only output.
    Copy,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum CallError {
    Kernel(KernelError),
    Region(RegionError),
    /// An output of fixed sizes was given others.
    Resized {
        index: usize,
        got: Dims,
        want: Dims,
    },
    /// The plan and the memories disagree.
    Bug(&'static str),
}

impl From<KernelError> for CallError {
    fn from(error: KernelError) -> CallError {
        CallError::Kernel(error)
    }
}

impl Engine {
    /// Without memories; random operators start with `seed`, kernels run on the threads of `parallel`.
    pub fn new(seed: u64, parallel: Parallel) -> Engine {
        let mut engine = Engine {
            parallel,
            ..Engine::default()
        };
        engine.scratch.seed(seed);
        engine
    }

    /// Gives the kernels' working memory back.
    pub fn free_scratch(&mut self) {
        self.scratch.free();
    }

    /// Borrows the tensors of `io` and calls. Returns the number that a kernel returns.
    pub fn call(&mut self, io: &Io, callee: Callee<'_>, context: &Context<'_>) -> Result<Option<Scalar>, CallError> {
        self.prepare(io, context.memory_lens)?;
        let Engine {
            memories,
            shapes,
            copies,
            scratch,
            parallel,
            pools,
        } = self;
        let mut carved = recycle(core::mem::take(&mut pools.carved));
        carve(memories, &io.pieces, &mut carved).ok_or(CallError::Bug("operands do not fit their memories"))?;

        let mut outs = recycle(core::mem::take(&mut pools.outs));
        for write in &io.writes {
            let slot = &context.slots[write.slot.0 as usize];
            let buffer = match write.piece.and_then(|piece| carved.get_mut(piece)) {
                None => Buffer::Fixed(no_bytes_mut()),
                Some(Carved::Write(bytes)) => Buffer::Fixed(bytes.take().ok_or(CallError::Bug("output lent twice"))?),
                Some(Carved::Grow(memory)) => {
                    Buffer::Growable(memory.take().ok_or(CallError::Bug("output lent twice"))?)
                }
                Some(Carved::Read(_)) => return Err(CallError::Bug("output lent to read")),
            };
            let out = Out::new(slot.dtype, *shapes.sizes(write.slot), &slot.dim_order, buffer);
            outs.push(out.on(*parallel).within(slot.capacity));
        }
        let mut tensors = recycle(core::mem::take(&mut pools.tensors));
        for read in &io.reads {
            let here = || match &read.source {
                Source::Empty => Some(no_bytes()),
                Source::Constant(range) => context.file.get(range.clone()),
                Source::External(index) => context.external.get(*index as usize).copied(),
                Source::LeftOut(_) => None,
                Source::Copy(index) => copies.get(*index).map(Growable::bytes),
                Source::Piece { index, range } => match carved.get(*index) {
                    Some(Carved::Read(bytes)) => bytes.get(range.start..range.end.min(bytes.len())),
                    _ => None,
                },
            };
            let bytes = context.lent(read.slot).or_else(here);
            let bytes = bytes.ok_or(CallError::Bug("input has no bytes"))?;
            let dtype = context.slots[read.slot.0 as usize].dtype;
            let (sizes, strides) = (shapes.sizes(read.slot), shapes.strides(read.slot));
            tensors.push(Tensor::new(dtype, sizes, strides, bytes)?);
        }

        let mut result = None;
        let called = match callee {
            Callee::Kernel(step) => {
                let mut ints = core::mem::take(&mut pools.ints);
                ints.clear();
                for &value in &step.ints {
                    match context.numbers.get(value as usize) {
                        Some(Number::Int(i)) => ints.push(*i),
                        _ => return Err(CallError::Bug("a list item is no integer")),
                    }
                }
                let mut optional = recycle(core::mem::take(&mut pools.optional));
                optional.extend(
                    step.optional
                        .iter()
                        .map(|item| item.and_then(|i| tensors.get(i as usize).copied())),
                );
                let mut args = recycle(core::mem::take(&mut pools.args));
                for operand in &step.operands {
                    args.push(argument(operand, &tensors, &optional, &ints, context)?);
                }
                let mut call = Call {
                    args: &args,
                    outs: &mut outs,
                    scratch,
                    result: None,
                };
                let called = (step.kernel)(&mut call).map_err(CallError::Kernel);
                result = call.result;
                pools.args = recycle(args);
                let called = called.and_then(|()| check_sizes(io, &outs, context.slots, shapes, &mut pools.made));
                pools.outs = recycle(outs);
                pools.optional = recycle(optional);
                pools.ints = ints;
                called
            }
            Callee::Region(region) => {
                let called = region.execute(&tensors, &mut outs).map_err(CallError::Region);
                let called = called.and_then(|()| check_sizes(io, &outs, context.slots, shapes, &mut pools.made));
                pools.outs = recycle(outs);
                called
            }
            Callee::Copy => {
                let called = copy(&tensors, &mut outs).map_err(CallError::Kernel);
                let called = called.and_then(|()| check_sizes(io, &outs, context.slots, shapes, &mut pools.made));
                pools.outs = recycle(outs);
                called
            }
        };
        pools.tensors = recycle(tensors);
        pools.carved = recycle(carved);
        called?;
        for (write, sizes) in io.writes.iter().zip(&pools.made) {
            shapes.set(context.slots, write.slot, sizes);
        }
        Ok(result)
    }

    /// Allocates what a first portable run of a region needs, and copies the inputs that share bytes with outputs.
    fn prepare(&mut self, io: &Io, memory_lens: &[usize]) -> Result<(), CallError> {
        for memory in &io.lazy {
            let index = memory.0 as usize;
            if let (Some(memory), Some(len)) = (self.memories.get_mut(index), memory_lens.get(index))
                && memory.bytes().len() < *len
            {
                memory.reserve(*len)?;
            }
        }
        for (index, copy) in io.copies.iter().enumerate() {
            if self.copies.len() <= index {
                self.copies.resize_with(index + 1, Growable::default);
            }
            let all = self.memories.get(copy.memory.0 as usize).map(Growable::bytes);
            let from = match (&copy.range, all) {
                (Some(range), Some(all)) => all.get(range.clone()),
                (None, all) => all,
                _ => None,
            };
            let from = from.ok_or(CallError::Bug("input has no bytes"))?;
            self.copies[index].reserve(from.len())?.copy_from_slice(from);
        }
        Ok(())
    }
}

/// Lists the outputs' sizes, and refuses others than a file of fixed sizes promises: what reads them relies on it. The list stays empty
/// where all are the present ones.
fn check_sizes(
    io: &Io,
    outs: &[Out<'_>],
    slots: &[Slot],
    shapes: &Shapes,
    made: &mut Vec<Dims>,
) -> Result<(), CallError> {
    made.clear();
    let mut all_same = true;
    for (index, (write, out)) in io.writes.iter().zip(outs).enumerate() {
        let slot = &slots[write.slot.0 as usize];
        if slot.dynamism == Dynamism::Static && !same_sizes(out.sizes(), &slot.sizes) {
            return Err(CallError::Resized {
                index,
                got: *out.sizes(),
                want: slot.sizes,
            });
        }
        all_same &= same_sizes(out.sizes(), shapes.sizes(write.slot));
    }
    if !all_same {
        made.extend(outs.iter().map(|out| *out.sizes()));
    }
    Ok(())
}

fn argument<'a>(
    operand: &Operand,
    tensors: &'a [Tensor<'a>],
    optional: &'a [Option<Tensor<'a>>],
    ints: &'a [i64],
    context: &Context<'a>,
) -> Result<Arg<'a>, CallError> {
    let value = |index: u32| context.plan.values.get(index as usize);
    let arg = match operand {
        Operand::None => Some(Arg::None),
        Operand::Number(index) => context.numbers.get(*index as usize).map(|number| match number {
            Number::None => Arg::None,
            Number::Int(i) => Arg::Int(*i),
            Number::Bool(b) => Arg::Bool(*b),
            Number::Float(f) => Arg::Float(*f),
        }),
        Operand::Str(index) => match value(*index) {
            Some(EValue::String(text)) => Some(Arg::Str(text)),
            _ => None,
        },
        Operand::Doubles(index) => match value(*index) {
            Some(EValue::DoubleList(items)) => Some(Arg::Floats(items)),
            _ => None,
        },
        Operand::Bools(index) => match value(*index) {
            Some(EValue::BoolList(items)) => Some(Arg::Bools(items)),
            _ => None,
        },
        Operand::Ints(range) => ints.get(range.clone()).map(Arg::Ints),
        Operand::Tensor(index) => tensors.get(*index).copied().map(Arg::Tensor),
        Operand::Tensors(range) => tensors.get(range.clone()).map(Arg::Tensors),
        Operand::OptionalTensors(range) => optional.get(range.clone()).map(Arg::OptionalTensors),
    };
    arg.ok_or(CallError::Bug("an argument is of another kind"))
}

/// Copies one tensor into another of the same dtype and layout.
fn copy(tensors: &[Tensor<'_>], outs: &mut [Out<'_>]) -> Result<(), KernelError> {
    let ([from], [to]) = (tensors, outs) else {
        return Err(KernelError::invalid("self", "a move of one tensor to one other"));
    };
    to.resize(from.sizes())?;
    let target = to.bytes_mut();
    let source = from.bytes();
    if source.len() != target.len() {
        return Err(KernelError::invalid("self", "a move between layouts"));
    }
    target.copy_from_slice(source);
    Ok(())
}
