//! A program for one set of sizes: steps with everything resolved, and one piece of memory that their results share.
//!
//! A value has a place for as long as somebody reads it. A view (`aten::view`, a slice along the outermost dimension) is its operand's place.
//! An output of the region is made where the caller wants it, unless it is an input, a weight, or a view.

use crate::place::{Span, place};
use crate::steps::{self, Arithmetic, Step};
use crate::sys::{Io, Memory, Slot, copy};
use crate::threads::Threads;
use crate::view;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{ImageView, NodeIndex, Sizes, Source, ValueIndex};
use delegraph_sdk::{Context, DType, Error, ProfileEvent};

/// Sizes of all values of a program.
pub struct Shapes {
    sizes: Vec<Vec<usize>>,
    dtypes: Vec<DType>,
}

impl Shapes {
    /// Those that follow from the sizes of the inputs.
    ///
    /// # Errors
    /// A size that does not, or that fits no memory.
    pub fn new(view: &ImageView<'_>, sizes: &Sizes) -> Result<Shapes, Error> {
        let mut all = Shapes {
            sizes: Vec::with_capacity(view.value_count() as usize),
            dtypes: Vec::with_capacity(view.value_count() as usize),
        };
        for value in view.values() {
            let dims = sizes.dims(view, value.index());
            let dims: Option<Vec<usize>> = dims
                .map(|dims| dims.iter().map(|d| usize::try_from(*d).ok()).collect())
                .unwrap_or(None);
            let dtype = value.dtype();
            let (Some(dims), Some(dtype)) = (dims, dtype) else {
                let text = format!("the sizes of `{}` are not known from those of the inputs", value.name());
                return Err(Error::invalid(text));
            };
            let bytes = dims
                .iter()
                .try_fold(dtype.size().unwrap_or(0), |bytes, dim| bytes.checked_mul(*dim));
            if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
                return Err(Error::invalid(format!(
                    "`{}` of sizes {dims:?} fits no memory",
                    value.name()
                )));
            }
            all.sizes.push(dims);
            all.dtypes.push(dtype);
        }
        Ok(all)
    }

    /// The sizes of a value.
    pub fn of(&self, value: ValueIndex) -> &[usize] {
        &self.sizes[value.0 as usize]
    }

    /// Its element type.
    pub fn dtype(&self, value: ValueIndex) -> DType {
        self.dtypes[value.0 as usize]
    }

    /// How many elements it has.
    pub fn count(&self, value: ValueIndex) -> usize {
        self.of(value).iter().product()
    }

    /// How many bytes it has.
    pub fn bytes(&self, value: ValueIndex) -> usize {
        self.count(value) * self.dtype(value).size().unwrap_or(0)
    }
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// Nowhere yet.
    None,
    /// With the caller's input.
    Input(u32),
    /// In the caller's output.
    Output(u32),
    /// In a weight, of which the slot is known.
    Weight,
    /// In the plan's memory.
    Memory,
}

struct Ready {
    step: Box<dyn Step>,
    inputs: Box<[u32]>,
    outputs: Box<[u32]>,
    /// What the step has for itself.
    scratch: Slot,
    node: NodeIndex,
    /// Of the step, in events: the operator, and ` int8` where that is what it multiplies.
    name: String,
    in_place: bool,
    bytes: u64,
    operations: u64,
}

/// A program for one set of sizes.
pub struct Plan {
    inputs: Vec<Vec<i64>>,
    /// Threads that scratch is enough for.
    threads: usize,
    steps: Vec<Ready>,
    /// One a value.
    slots: Vec<Slot>,
    /// Values that lie in the caller's inputs and outputs: value, position, first byte.
    borrowed: Vec<(u32, Root, usize, usize)>,
    /// Outputs that are copied at the end: value and position.
    copied: Vec<(u32, u32)>,
    output_sizes: Vec<Vec<i64>>,
    kernels: delegraph_kernels::Scratch,
    /// What the slots lie in.
    _memory: Memory,
}

impl Plan {
    /// Makes the steps of a program and gives every value its place. `slots` has the weights' places.
    ///
    /// # Errors
    /// A node that cannot be run by these sizes, or no memory.
    pub fn new(
        view: &ImageView<'_>,
        sizes: &Sizes,
        mut slots: Vec<Slot>,
        inputs: Vec<Vec<i64>>,
        threads: usize,
    ) -> Result<Plan, Error> {
        let shapes = Shapes::new(view, sizes)?;
        let count = view.value_count() as usize;
        // What a view is a part of, and from which byte on.
        let mut whole: Vec<(u32, usize)> = (0..count as u32).map(|value| (value, 0)).collect();
        let mut steps: Vec<Ready> = Vec::new();
        let nodes: Vec<Arguments<'_>> = view.nodes().map(|node| Arguments::new(node, sizes)).collect();
        let readers = readers(view);
        let mut next = 0;
        while let Some(arguments) = nodes.get(next) {
            let node = arguments.view();
            let source = node.name().parse().map_or(node.index(), NodeIndex);
            // What is written in place is what it writes to.
            if node.op() == steps::state::NAME {
                let state = arguments.value(0)?;
                let (root, offset) = whole[state.0 as usize];
                let output = arguments.output(0)?;
                let is_state = view.states().any(|kept| {
                    let input = view.inputs().get(kept.input as usize);
                    input == Some(ValueIndex(root)) && view.outputs().get(kept.output as usize) == Some(output)
                });
                if !is_state || offset != 0 {
                    return Err(Error::corrupt("what is written in place is no state"));
                }
                whole[output.0 as usize] = (root, 0);
            }
            if let Some(views) = view::parts(arguments, &shapes) {
                for part in views {
                    let (root, offset) = whole[part.of.0 as usize];
                    whole[part.value.0 as usize] = (root, offset + part.offset);
                }
                next += 1;
                continue;
            }
            let chain = steps::bands::find(&nodes[next..], &shapes, &readers).map_err(|e| e.at(source))?;
            let (step, name, members) = match chain {
                Some((step, count)) => (step, steps::bands::NAME, &nodes[next..next + count]),
                None => {
                    let step = steps::make(arguments, &shapes, &slots).map_err(|e| e.at(source))?;
                    (step, node.op(), &nodes[next..=next])
                }
            };
            next += members.len();
            // Of a chain, what one makes and the next one reads has no place.
            let (last, bytes) = (members[members.len() - 1].view(), steps::moved(members, &shapes));
            let later = members[1..].iter().flat_map(|node| node.view().inputs().skip(1));
            let values = |list: &mut dyn Iterator<Item = ValueIndex>| -> Box<[u32]> { list.map(|v| v.0).collect() };
            let (reads, writes) = (
                values(&mut node.inputs().chain(later)),
                values(&mut last.outputs().iter()),
            );
            let work = step.work();
            steps.push(Ready {
                scratch: Slot::NONE,
                step,
                inputs: reads,
                outputs: writes,
                node: last.name().parse().map_or(last.index(), NodeIndex),
                name: match work.arithmetic {
                    Arithmetic::F32 => name.to_string(),
                    Arithmetic::Int8 => format!("{name} int8"),
                },
                in_place: node.op() == steps::state::NAME,
                bytes,
                operations: work.operations,
            });
        }
        let mut roots = vec![Root::None; count];
        for value in view.values() {
            roots[value.index().0 as usize] = match value.source() {
                Source::Input(at) => Root::Input(at),
                Source::Weight(_) => Root::Weight,
                Source::Node(_) => Root::None,
            };
        }
        let mut copied = Vec::new();
        for (position, output) in view.outputs().iter().enumerate() {
            let (root, offset) = whole[output.0 as usize];
            let same = offset == 0 && shapes.bytes(ValueIndex(root)) == shapes.bytes(output);
            match roots[root as usize] == Root::None && same {
                true => roots[root as usize] = Root::Output(position as u32),
                false => copied.push((output.0, position as u32)),
            }
        }
        let last = last_reads(view, &steps, &whole);
        let mut spans = Vec::new();
        // By value, what it is among the spans.
        let mut of_value: Vec<usize> = vec![0; count];
        for (at, ready) in steps.iter().enumerate() {
            for output in &ready.outputs {
                // What is written in place lies with what it writes to.
                if roots[*output as usize] == Root::None && whole[*output as usize].0 == *output {
                    roots[*output as usize] = Root::Memory;
                    of_value[*output as usize] = spans.len();
                    spans.push(Span {
                        bytes: shapes.bytes(ValueIndex(*output)),
                        first: at,
                        last: last[*output as usize],
                    });
                }
            }
        }
        let scratch: Vec<(usize, usize)> = steps
            .iter()
            .map(|ready| ready.step.scratch(threads))
            .enumerate()
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        let own = spans.len();
        spans.extend(scratch.iter().map(|&(at, bytes)| Span {
            bytes,
            first: at,
            last: at,
        }));
        let (starts, end) = place(&spans);
        let mut memory = Memory::working(end)?;
        for (&(at, bytes), &start) in scratch.iter().zip(&starts[own..]) {
            steps[at].scratch = memory.slot(start, bytes);
        }
        let mut borrowed = Vec::new();
        for value in 0..count {
            let (root, offset) = whole[value];
            let bytes = shapes.bytes(ValueIndex(value as u32));
            match roots[root as usize] {
                Root::Memory => slots[value] = memory.slot(starts[of_value[root as usize]] + offset, bytes),
                Root::Weight if root as usize != value => {
                    let part = slots[root as usize].part(offset, bytes);
                    slots[value] = part.ok_or_else(|| Error::internal("a view is not in its weight"))?;
                }
                Root::Weight | Root::None => {}
                place => borrowed.push((value as u32, place, offset, bytes)),
            }
        }
        let numbers = |value: ValueIndex| shapes.of(value).iter().map(|s| *s as i64).collect();
        Ok(Plan {
            inputs,
            threads,
            steps,
            slots,
            borrowed,
            copied,
            output_sizes: view.outputs().iter().map(numbers).collect(),
            kernels: delegraph_kernels::Scratch::default(),
            _memory: memory,
        })
    }

    /// Whether it was made for these sizes, and at least as many threads.
    pub fn is_for<'s>(&self, inputs: impl Iterator<Item = &'s [i64]>, threads: usize) -> bool {
        // Sizes are few: compared one by one, they need no call.
        let same = |have: &[i64], given: &[i64]| {
            have.len() == given.len() && have.iter().zip(given).all(|(have, given)| have == given)
        };
        let mut given = inputs;
        self.threads >= threads
            && self
                .inputs
                .iter()
                .all(|have| given.next().is_some_and(|given| same(have, given)))
            && given.next().is_none()
    }

    /// The sizes of an output.
    pub fn output_sizes(&self, at: usize) -> &[i64] {
        &self.output_sizes[at]
    }

    /// The last run counts.
    pub fn accept(&self) {
        self.steps.iter().for_each(|ready| ready.step.accept());
    }

    /// The last run does not count: states that were written in place are as they were before it. They lie where they lay in that run.
    pub fn undo(&mut self) {
        for ready in self.steps.iter().rev() {
            if ready.in_place {
                // SAFETY: as in a run.
                let mut io = unsafe { Io::new(&ready.inputs, &ready.outputs, &self.slots, ready.scratch) };
                ready.step.undo(io.output_bytes(0));
            }
        }
    }

    /// Runs it on the tensors of the caller, in order.
    ///
    /// # Errors
    /// Tensors that are too short, or a value that an operator does not allow.
    pub fn run(
        &mut self,
        inputs: &[Slot],
        outputs: &[Slot],
        pool: &Threads<'_>,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let short = || Error::invalid("a tensor has fewer bytes than its sizes say");
        for (value, root, offset, bytes) in &self.borrowed {
            let whole = match root {
                Root::Input(at) => inputs.get(*at as usize),
                Root::Output(at) => outputs.get(*at as usize),
                _ => continue,
            };
            let part = whole.and_then(|whole| whole.part(*offset, *bytes));
            self.slots[*value as usize] = part.ok_or_else(short)?;
        }
        let profile = context.profiling();
        let mut events = Vec::new();
        for ready in &self.steps {
            let start_ns = if profile { context.now_ns() } else { 0 };
            // SAFETY: the caller's tensors and this plan's memory outlive the step, nobody else uses them meanwhile, and the plan gave what is
            // written a place of its own.
            let io = unsafe { Io::new(&ready.inputs, &ready.outputs, &self.slots, ready.scratch) };
            ready
                .step
                .run(io, pool, &mut self.kernels)
                .map_err(|e| e.at(ready.node))?;
            if profile {
                events.push(ProfileEvent {
                    name: &ready.name,
                    node: Some(ready.node),
                    start_ns,
                    end_ns: context.now_ns(),
                    bytes: ready.bytes,
                    operations: ready.operations,
                    ..ProfileEvent::default()
                });
            }
        }
        for (value, position) in &self.copied {
            let to = outputs.get(*position as usize).copied().ok_or_else(short)?;
            let from = self.slots[*value as usize];
            let to = to.part(0, from.size()).ok_or_else(short)?;
            // SAFETY: both are alive; an output is the caller's own, or the state that it is.
            unsafe { copy(from, to) };
        }
        if profile {
            context.profile(&events);
        }
        Ok(())
    }
}

/// For each value, how many arguments of nodes and outputs of the program it is.
fn readers(view: &ImageView<'_>) -> Vec<u32> {
    let mut readers = vec![0; view.value_count() as usize];
    let read = view.nodes().flat_map(|node| node.inputs());
    for value in read.chain(view.outputs().iter()) {
        readers[value.0 as usize] += 1;
    }
    readers
}

/// For each value, the last step that reads it or a view of it, or makes it; outputs are read at the end.
fn last_reads(view: &ImageView<'_>, steps: &[Ready], whole: &[(u32, usize)]) -> Vec<usize> {
    let mut last = vec![usize::MAX; whole.len()];
    for (at, ready) in steps.iter().enumerate() {
        for value in ready.inputs.iter().chain(&ready.outputs) {
            last[whole[*value as usize].0 as usize] = at;
        }
    }
    for output in view.outputs().iter() {
        last[whole[output.0 as usize].0 as usize] = usize::MAX;
    }
    last
}
