//! Inputs of a run.

use crate::RunError;
use crate::copy::relayout;
use crate::engine::{Engine, Number};
use crate::load::Loaded;
use crate::step::Step;
use crate::tensors::{Place, Slot, same_sizes};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use delegraph_kernels::Tensor;
use delegraph_pte::model::{Dynamism, EValue};
use delegraph_types::{DType, Dims};

/// An input, in the order of the method's flattened arguments. Data that the method reads only is read where it lies, if its layout is
/// that of the plan and planners gave its memory to nobody else; other data is copied once, into the method's memory.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A tensor of any strides.
    Tensor(Tensor<'a>),
    /// A row-major tensor whose bytes may lie at any address.
    Bytes {
        /// Element type.
        dtype: DType,
        /// Sizes.
        sizes: &'a [i64],
        /// Exactly its elements.
        data: &'a [u8],
    },
    /// A tensor of these sizes that lies in the method's memory already (`Executor::input_mut`).
    InPlace(&'a [i64]),
    /// An integer.
    Int(i64),
    /// A boolean.
    Bool(bool),
    /// A float.
    Float(f64),
    /// A string.
    Str(&'a str),
    /// `None`.
    None,
}

/// For each input, whether its memory holds the input, or what was last written to it, when the method ends: planners give
/// the memory of an input that is not read any more to other tensors.
pub(crate) fn kept(loaded: &Loaded) -> Vec<bool> {
    let tensors = &loaded.tensors;
    let inputs = loaded.plan().inputs.iter().map(|&value| tensors.slot(value));
    let mut kept = alloc::vec![true; inputs.len()];
    let places: Vec<_> = inputs
        .map(|slot| slot.and_then(|slot| Some((slot, tensors.slots[slot.0 as usize].arena_range()?))))
        .collect();
    for write in loaded.steps.iter().filter_map(Step::io).flat_map(|io| &io.writes) {
        let Some((memory, range)) = tensors.slots[write.slot.0 as usize].arena_range() else {
            continue;
        };
        for (kept, place) in kept.iter_mut().zip(&places) {
            if let Some((slot, (home, bytes))) = place
                && *home == memory
                && bytes.start < range.end
                && range.start < bytes.end
            {
                *kept = *slot == write.slot;
            }
        }
    }
    kept
}

/// For each tensor of the method the input that it is, if a run may read that where the caller has it: nothing writes to it, and
/// no other tensor has bytes of its memory, as views of it and what is put there later do.
pub(crate) fn lendable(loaded: &Loaded) -> Vec<Option<u32>> {
    let tensors = &loaded.tensors;
    let plan = loaded.plan();
    let mut lendable = alloc::vec![None; tensors.slots.len()];
    // Ranges of every arena in order, so that neighbours show what overlaps.
    let mut ranges: Vec<_> = tensors
        .slots
        .iter()
        .enumerate()
        .filter_map(|(slot, tensor)| {
            tensor
                .arena_range()
                .map(|(memory, range)| (memory, range.start, range.end, slot))
        })
        .filter(|(_, start, end, _)| start < end)
        .collect();
    ranges.sort_unstable();
    let mut alone = alloc::vec![false; tensors.slots.len()];
    let mut reach = None;
    for (i, &(memory, start, end, slot)) in ranges.iter().enumerate() {
        let before = reach.filter(|(home, _)| *home == memory).map_or(0, |(_, end)| end);
        let after = ranges
            .get(i + 1)
            .filter(|next| next.0 == memory)
            .map_or(usize::MAX, |next| next.1);
        alone[slot] = before <= start && end <= after;
        reach = Some((memory, before.max(end)));
    }
    let mut inputs = plan.inputs.clone();
    inputs.sort_unstable();
    for (index, &value) in plan.inputs.iter().enumerate() {
        let once = inputs.partition_point(|v| *v <= value) - inputs.partition_point(|v| *v < value) == 1;
        let slot = tensors.slot(value).map(|slot| slot.0 as usize);
        if let Some(slot) = slot.filter(|&slot| once && alone[slot]) {
            lendable[slot] = Some(index as u32);
        }
    }
    let written = loaded
        .steps
        .iter()
        .filter_map(Step::io)
        .flat_map(|io| &io.writes)
        .map(|write| write.slot);
    let viewed = loaded.steps.iter().filter_map(|step| match step {
        Step::View { from, .. } | Step::MoveTensor { from, io: None, .. } => Some(*from),
        _ => None,
    });
    let given_back = plan.outputs.iter().filter_map(|&value| tensors.slot(value));
    for slot in written.chain(viewed).chain(given_back) {
        lendable[slot.0 as usize] = None;
    }
    lendable
}

/// Gives every input to the method; those that are read where they lie are put in `lent`, by input.
pub(crate) fn accept<'i>(
    loaded: &Loaded,
    engine: &mut Engine,
    numbers: &mut [Number],
    inputs: &[Input<'i>],
    lendable: &[Option<u32>],
    lent: &mut Vec<Option<&'i [u8]>>,
) -> Result<(), RunError> {
    lent.clear();
    lent.resize(inputs.len(), None);
    let plan = loaded.plan();
    if inputs.len() != plan.inputs.len() {
        return Err(RunError::InputCount {
            expected: plan.inputs.len(),
            got: inputs.len(),
        });
    }
    for (index, (&value, input)) in plan.inputs.iter().zip(inputs).enumerate() {
        let declared = &plan.values[value as usize];
        let fail = |expected: String| RunError::Input {
            index,
            name: match declared {
                EValue::Tensor(tensor) => tensor.name.clone(),
                _ => None,
            },
            expected,
            got: describe(input),
        };
        let slot = loaded.tensors.slot(value);
        if let Some(slot) = slot {
            let target = &loaded.tensors.slots[slot.0 as usize];
            let set = |engine: &mut Engine, sizes: &[i64]| engine.shapes.set(&loaded.tensors.slots, slot, sizes);
            if let Input::InPlace(sizes) = input {
                if !fits(target, sizes) || memory_of(target, sizes, engine).is_none() {
                    return Err(fail(expected_tensor(target)));
                }
                set(engine, sizes);
                continue;
            }
            // Without strides it is row-major.
            let (dtype, sizes, strides, bytes) = match input {
                Input::Tensor(t) => (t.dtype(), t.sizes().as_slice(), Some(t.strides()), t.bytes()),
                Input::Bytes { dtype, sizes, data } => (*dtype, *sizes, None, *data),
                _ => return Err(fail(expected_tensor(target))),
            };
            let len = match target.dynamism {
                Dynamism::Static if same_sizes(sizes, &target.sizes) => Some(target.capacity),
                _ => byte_len(target, sizes),
            };
            let whole = strides.is_some() || len == Some(bytes.len());
            if dtype != target.dtype || !fits(target, sizes) || !whole {
                return Err(fail(expected_tensor(target)));
            }
            let len = len.ok_or_else(|| fail(expected_tensor(target)))?;
            // They are no more than a tensor's can be, since they fit.
            let dims = || Dims::new(sizes).unwrap_or_default();
            let same_layout = match strides {
                None if target.row_major => true,
                None => dims().contiguous_strides() == target.strides(&dims()),
                Some(strides) => *strides == target.strides(&dims()),
            };
            if same_layout
                && lendable[slot.0 as usize].is_some()
                && len > 0
                && (bytes.as_ptr() as usize).is_multiple_of(dtype.align())
                && let Some(bytes) = bytes.get(..len)
            {
                lent[index] = Some(bytes);
                set(engine, sizes);
                continue;
            }
            let memory = match &target.place {
                Place::Arena { memory, start } => {
                    let all = engine.memories[memory.0 as usize].bytes_mut();
                    all.get_mut(*start..*start + target.capacity)
                }
                Place::Own(memory) => {
                    let own = &mut engine.memories[memory.0 as usize];
                    Some(own.reserve(len).map_err(|_| RunError::OutOfMemory(len))?)
                }
                _ => None,
            };
            let memory = memory.ok_or_else(|| fail("nothing: the file has a constant there".into()))?;
            let dims = dims();
            let strides = strides.map_or_else(|| dims.contiguous_strides(), |strides| *strides);
            relayout(bytes, &strides, memory, &target.strides(&dims), &dims, dtype.size())
                .ok_or_else(|| fail(expected_tensor(target)))?;
            set(engine, sizes);
            continue;
        }
        let given = match (declared, input) {
            (EValue::Int(_), Input::Int(i)) => Number::Int(*i),
            (EValue::Bool(_), Input::Bool(b)) => Number::Bool(*b),
            (EValue::Double(_), Input::Float(f)) => Number::Float(*f),
            (EValue::String(text), Input::Str(given)) if text == given => continue,
            // Nothing stands for what was fixed at export, which a caller need not know.
            (EValue::Int(_) | EValue::Bool(_) | EValue::Double(_) | EValue::String(_), Input::None)
                if !loaded.used[value as usize] =>
            {
                continue;
            }
            // Strings do not reach a program: what depends on them was decided at export.
            (EValue::Null, Input::None | Input::Str(_)) => continue,
            _ => return Err(fail(expected_value(declared))),
        };
        // A number that nothing reads was built into the program at export: another one would change nothing.
        let same = match (given, numbers[value as usize]) {
            (Number::Float(a), Number::Float(b)) => a == b || a.is_nan() && b.is_nan(),
            (a, b) => a == b,
        };
        if !loaded.used[value as usize] && !same {
            return Err(fail(expected_value(declared)));
        }
        numbers[value as usize] = given;
    }
    Ok(())
}

/// The memory of an input of these sizes, to be filled before a run.
pub(crate) fn memory<'a>(
    loaded: &Loaded,
    engine: &'a mut Engine,
    index: usize,
    sizes: &Dims,
) -> Result<&'a mut [u8], RunError> {
    let plan = loaded.plan();
    let slot = plan.inputs.get(index).and_then(|&value| loaded.tensors.slot(value));
    let fail = |name: Option<String>, expected: String| RunError::Input {
        index,
        name,
        expected,
        got: format!("a tensor of [{sizes}] in place"),
    };
    let Some(slot) = slot else {
        return Err(fail(None, "no tensor".into()));
    };
    let target = &loaded.tensors.slots[slot.0 as usize];
    let name = match &plan.values[target.value as usize] {
        EValue::Tensor(tensor) => tensor.name.clone(),
        _ => None,
    };
    if !fits(target, sizes) {
        return Err(fail(name, expected_tensor(target)));
    }
    if let (Place::Own(memory), Some(len)) = (&target.place, byte_len(target, sizes)) {
        let own = &mut engine.memories[memory.0 as usize];
        own.reserve(len).map_err(|_| RunError::OutOfMemory(len))?;
    }
    memory_of(target, sizes, engine).ok_or_else(|| fail(name, "nothing: the file has a constant there".into()))
}

fn byte_len(slot: &Slot, sizes: &[i64]) -> Option<usize> {
    Dims::new(sizes).ok()?.numel()?.checked_mul(slot.dtype.size())
}

/// The bytes of a tensor of these sizes, as far as they are there.
fn memory_of<'a>(slot: &Slot, sizes: &[i64], engine: &'a mut Engine) -> Option<&'a mut [u8]> {
    let len = byte_len(slot, sizes)?;
    match &slot.place {
        Place::Arena { memory, start } => {
            let all = engine.memories[memory.0 as usize].bytes_mut();
            all.get_mut(*start..*start + slot.capacity.min(len))
        }
        Place::Own(memory) => engine.memories[memory.0 as usize].bytes_mut().get_mut(..len),
        _ => None,
    }
}

/// True if the sizes are allowed.
fn fits(slot: &Slot, sizes: &[i64]) -> bool {
    match slot.dynamism {
        Dynamism::Static => same_sizes(sizes, &slot.sizes),
        Dynamism::Bounded => {
            sizes.len() == slot.sizes.rank()
                && sizes
                    .iter()
                    .zip(slot.sizes.iter())
                    .all(|(got, bound)| *got >= 0 && got <= bound)
        }
        Dynamism::Unbounded => sizes.len() == slot.sizes.rank(),
    }
}

fn expected_tensor(slot: &Slot) -> String {
    let bound = match slot.dynamism {
        Dynamism::Static => "",
        Dynamism::Bounded => "at most ",
        Dynamism::Unbounded => "a size like ",
    };
    format!("{}[{bound}{}]", slot.dtype, slot.sizes)
}

fn expected_value(value: &EValue) -> String {
    match value {
        EValue::Int(i) => format!("the integer {i}"),
        EValue::Bool(b) => format!("the bool {b}"),
        EValue::Double(f) => format!("the float {f:?}"),
        EValue::String(text) => format!("the string {text:?}"),
        EValue::Null => "none".into(),
        _ => "a value that a caller cannot give".into(),
    }
}

/// Sizes as messages have them.
fn shown(sizes: &[i64]) -> String {
    Dims::new(sizes).map_or_else(|_| format!("{sizes:?}"), |dims| format!("{dims}"))
}

fn describe(input: &Input<'_>) -> String {
    match input {
        Input::Tensor(t) => format!("{}[{}]", t.dtype(), t.sizes()),
        Input::Bytes { dtype, sizes, data } => format!("{dtype}[{}] in {} bytes", shown(sizes), data.len()),
        Input::InPlace(sizes) => format!("a tensor of [{}] in place", shown(sizes)),
        Input::Int(i) => format!("the integer {i}"),
        Input::Bool(b) => format!("the bool {b}"),
        Input::Float(f) => format!("the float {f:?}"),
        Input::Str(text) => format!("the string {text:?}"),
        Input::None => "none".into(),
    }
}
