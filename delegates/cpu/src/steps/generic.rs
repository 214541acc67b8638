//! Any operator, by its portable kernel.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use crate::threads::lend;
use delegraph_cpu_kernels::Pool;
use delegraph_kernels::{Arg, Buffer, Call, Kernel, Out, Scratch, Tensor};
use delegraph_opset::{BaseType, Default, Op, Param};
use delegraph_sdk::arguments::{Arguments, Scalar};
use delegraph_sdk::image::{ArgView, ValueIndex};
use delegraph_sdk::{Error, Status};
use delegraph_types::{DType, Dims};
use smallvec::SmallVec;

/// The kernel that computes a functional operator, and the parameters that it takes.
///
/// `None`: there is none.
pub fn kernel_of(op: &str) -> Option<(Kernel, Op, Op)> {
    let op = Op::find(op)?;
    let schema = op.schema();
    let is_tensors = schema.returns.iter().all(|r| r.ty.base == BaseType::Tensor);
    if !is_tensors || schema.outs().next().is_some() || op.is_random() {
        return None;
    }
    let out = op.out_variant()?;
    Some((delegraph_kernels::find(out.name())?, op, out))
}

/// An element type of the contract as the kernels' one.
pub fn dtype_of(dtype: delegraph_sdk::DType) -> Option<DType> {
    DType::from_pte(i8::try_from(dtype.0).ok()?)
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    dtype: DType,
    sizes: Dims,
    strides: Dims,
}

enum Argument {
    None,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    /// The step's input of this position.
    Tensor(usize, Shape),
    Tensors(Vec<(usize, Shape)>),
    OptionalTensors(Vec<Option<(usize, Shape)>>),
}

/// A call of a portable kernel.
struct Generic {
    name: String,
    kernel: Kernel,
    arguments: Vec<Argument>,
    outputs: Vec<Shape>,
}

struct Reader<'a> {
    node: &'a Arguments<'a>,
    shapes: &'a Shapes,
    /// Inputs so far, in the order in which the node's arguments name them.
    position: usize,
}

/// Makes the call.
///
/// # Errors
/// No kernel, or arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let unknown = || Error::unsupported(format!("`{}` has no kernel", node.op()));
    let (kernel, op, out) = kernel_of(node.op()).ok_or_else(unknown)?;
    let (schema, target) = (op.schema(), out.schema());
    let mut reader = Reader {
        node,
        shapes,
        position: 0,
    };
    // Positions count every tensor of the node, in its own order, whether the kernel takes it or not.
    let mut given: Vec<Option<Argument>> = Vec::new();
    for at in 0..node.view().arg_count() {
        let param = schema.params.get(at).ok_or_else(|| node.misfit(at, "a parameter"))?;
        given.push(Some(reader.read(at, param)?));
    }
    let mut arguments = Vec::new();
    for param in target.inputs() {
        let found = schema.position(&param.name).and_then(|at| given.get_mut(at)?.take());
        arguments.push(match found {
            Some(argument) => argument,
            None => default(param).ok_or_else(unknown)?,
        });
    }
    let outputs = node
        .view()
        .outputs()
        .iter()
        .map(|value| shape(shapes, value))
        .collect::<Result<_, _>>()?;
    Ok(Box::new(Generic {
        name: node.op().to_string(),
        kernel,
        arguments,
        outputs,
    }))
}

fn shape(shapes: &Shapes, value: ValueIndex) -> Result<Shape, Error> {
    let dtype = shapes.dtype(value);
    let sizes: SmallVec<[i64; 8]> = shapes.of(value).iter().map(|s| *s as i64).collect();
    let sizes = Dims::new(&sizes).map_err(|e| Error::unsupported(e.to_string()))?;
    Ok(Shape {
        dtype: dtype_of(dtype).ok_or_else(|| Error::unsupported(format!("no kernel has {dtype}")))?,
        sizes,
        strides: sizes.contiguous_strides(),
    })
}

impl Reader<'_> {
    fn tensor(&mut self, value: ValueIndex) -> Result<(usize, Shape), Error> {
        self.position += 1;
        Ok((self.position - 1, shape(self.shapes, value)?))
    }

    fn read(&mut self, at: usize, param: &Param) -> Result<Argument, Error> {
        let base = param.ty.base;
        let number = |scalar: Scalar| match (scalar, base) {
            (Scalar::Bool(b), BaseType::Bool | BaseType::Scalar) => Argument::Bool(b),
            (Scalar::Int(i), BaseType::Bool) => Argument::Bool(i != 0),
            (Scalar::Int(i), BaseType::Float) => Argument::Float(i as f64),
            (Scalar::Bool(b), _) => Argument::Int(i64::from(b)),
            (Scalar::Int(i), _) => Argument::Int(i),
            (Scalar::Float(f), _) => Argument::Float(f),
        };
        Ok(match self.node.view().arg(at) {
            ArgView::None => Argument::None,
            ArgView::Int(_) | ArgView::Expr(_) | ArgView::Float(_) | ArgView::Bool(_) => {
                let scalar = self.node.scalar(at)?;
                match (scalar, param.ty.list, base) {
                    (Scalar::Int(i), true, BaseType::Int) => Argument::Ints(vec![i]),
                    _ => number(scalar),
                }
            }
            ArgView::Str(text) => Argument::Str(text.to_string()),
            ArgView::DType(dtype) => Argument::Int(i64::from(dtype.0)),
            ArgView::MemoryFormat(format) => Argument::Int(i64::from(format.0)),
            ArgView::Value(value) => {
                let (at, shape) = self.tensor(value)?;
                Argument::Tensor(at, shape)
            }
            ArgView::Ints(_) if base == BaseType::Float => {
                Argument::Floats(self.node.ints(at)?.into_iter().map(|i| i as f64).collect())
            }
            ArgView::Ints(_) => Argument::Ints(self.node.ints(at)?),
            ArgView::Numbers(items) => {
                let items: Vec<ArgView<'_>> = items.iter().collect();
                let ints: Option<Vec<i64>> = items
                    .iter()
                    .map(|i| if let ArgView::Int(i) = i { Some(*i) } else { None })
                    .collect();
                let bools: Option<Vec<bool>> = items
                    .iter()
                    .map(|i| if let ArgView::Bool(b) = i { Some(*b) } else { None })
                    .collect();
                match (ints, bools) {
                    (Some(ints), _) if base != BaseType::Float => Argument::Ints(ints),
                    (_, Some(bools)) => Argument::Bools(bools),
                    _ => {
                        let floats: Option<Vec<f64>> = items.iter().map(ArgView::float).collect();
                        Argument::Floats(floats.ok_or_else(|| self.node.misfit(at, "a list of numbers"))?)
                    }
                }
            }
            ArgView::Values(list) => {
                let all: Result<Vec<_>, Error> = list.iter().map(|v| self.tensor(v)).collect();
                match param.ty.optional_items {
                    true => Argument::OptionalTensors(all?.into_iter().map(Some).collect()),
                    false => Argument::Tensors(all?),
                }
            }
            ArgView::OptionalValues(list) => {
                let all: Result<Vec<_>, Error> = list.iter().map(|v| v.map(|v| self.tensor(v)).transpose()).collect();
                Argument::OptionalTensors(all?)
            }
            ArgView::Unknown(_) => {
                return Err(Error::corrupt(format!(
                    "`{}` has an argument of an unknown kind",
                    self.node.op()
                )));
            }
        })
    }
}

fn default(param: &Param) -> Option<Argument> {
    Some(match &param.default {
        None if param.ty.optional => Argument::None,
        None => return None,
        Some(Default::None) => Argument::None,
        Some(Default::Bool(b)) => Argument::Bool(*b),
        Some(Default::Int(i)) => Argument::Int(*i),
        Some(Default::Float(f)) => Argument::Float(*f),
        Some(Default::Str(s)) => Argument::Str(s.clone()),
        Some(Default::Ints(items)) => Argument::Ints(items.clone()),
        Some(Default::Floats(items)) => Argument::Floats(items.clone()),
        Some(Default::Bools(items)) => Argument::Bools(items.clone()),
    })
}

impl Generic {
    /// The step's input of this position.
    fn tensor<'t>(&self, io: &Io<'t>, at: usize, shape: &'t Shape) -> Result<Tensor<'t>, Error> {
        let tensor = Tensor::new(shape.dtype, &shape.sizes, &shape.strides, io.bytes(at));
        tensor.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &delegraph_kernels::KernelError) -> Error {
        Error::new(Status::INVALID_ARGUMENT, format!("`{}`: {error}", self.name))
    }
}

impl Step for Generic {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, kernels: &mut Scratch) -> Result<(), Error> {
        let mut io = io;
        // Lists of tensors first, since arguments borrow them.
        let mut lists: SmallVec<[SmallVec<[Tensor<'_>; 8]>; 1]> = SmallVec::new();
        let mut optional: SmallVec<[SmallVec<[Option<Tensor<'_>>; 8]>; 1]> = SmallVec::new();
        for argument in &self.arguments {
            match argument {
                Argument::Tensors(list) => {
                    let list = list
                        .iter()
                        .map(|(at, shape)| self.tensor(&io, *at, shape))
                        .collect::<Result<_, _>>()?;
                    lists.push(list);
                }
                Argument::OptionalTensors(list) => {
                    let one = list.iter().map(|item| {
                        let item = item.as_ref();
                        item.map(|(at, shape)| self.tensor(&io, *at, shape)).transpose()
                    });
                    optional.push(one.collect::<Result<_, _>>()?);
                }
                _ => {}
            }
        }
        let (mut next_list, mut next_optional) = (lists.iter(), optional.iter());
        let mut args: SmallVec<[Arg<'_>; 12]> = SmallVec::new();
        for argument in &self.arguments {
            args.push(match argument {
                Argument::None => Arg::None,
                Argument::Int(i) => Arg::Int(*i),
                Argument::Float(f) => Arg::Float(*f),
                Argument::Bool(b) => Arg::Bool(*b),
                Argument::Str(s) => Arg::Str(s),
                Argument::Ints(items) => Arg::Ints(items),
                Argument::Floats(items) => Arg::Floats(items),
                Argument::Bools(items) => Arg::Bools(items),
                Argument::Tensor(at, shape) => Arg::Tensor(self.tensor(&io, *at, shape)?),
                Argument::Tensors(_) => Arg::Tensors(next_list.next().map_or(&[], |list| list.as_slice())),
                Argument::OptionalTensors(_) => {
                    Arg::OptionalTensors(next_optional.next().map_or(&[], |list| list.as_slice()))
                }
            });
        }
        lend(pool, |parallel| {
            let mut outs: SmallVec<[Out<'_>; 2]> = SmallVec::new();
            for (at, shape) in self.outputs.iter().enumerate() {
                let out = Out::new(
                    shape.dtype,
                    shape.sizes,
                    &Dims::SCALAR,
                    Buffer::Fixed(io.output_bytes(at)),
                );
                outs.push(out.on(parallel));
            }
            let mut call = Call {
                args: &args,
                outs: &mut outs,
                scratch: kernels,
                result: None,
            };
            (self.kernel)(&mut call).map_err(|e| self.failed(&e))?;
            for (out, shape) in outs.iter().zip(&self.outputs) {
                if *out.sizes() != shape.sizes {
                    let text = format!(
                        "`{}` made sizes {}, the graph says {}",
                        self.name,
                        out.sizes(),
                        shape.sizes
                    );
                    return Err(Error::internal(text));
                }
            }
            Ok(())
        })
    }
}
