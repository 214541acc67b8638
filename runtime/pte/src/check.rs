//! The semantic check: what a whole FlatBuffer may still get wrong. The reader and the writer share it.

use crate::PteError;
use crate::model::{DelegateData, Dynamism, EValue, Instruction, Plan, Storage, Tensor};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use delegraph_types::DType;

/// What lies beside the plans.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Bytes from the start of each constant to the end of where it may lie.
    pub constant_room: Vec<u64>,
    /// The same for the initial states, per mutable segment.
    pub mutable_room: Vec<Vec<u64>>,
    /// Number of segments.
    pub segments: usize,
    /// Number of inline delegate blobs.
    pub inline_delegate_data: usize,
}

/// Checks every index, size and target of every plan.
pub(crate) fn plans(plans: &[Plan], layout: &Layout) -> Result<(), PteError> {
    let mut names = BTreeSet::new();
    for plan in plans {
        if !names.insert(plan.name.as_str()) {
            return Err(PteError::invalid(format!("method `{}`", plan.name), "named twice"));
        }
        check_plan(plan, layout)
            .map_err(|(place, problem)| PteError::invalid(format!("method `{}`, {place}", plan.name), problem))?;
    }
    Ok(())
}

/// Checks that no key is there twice.
pub(crate) fn keys<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), PteError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(PteError::invalid(format!("named data `{key}`"), "there twice"));
        }
    }
    Ok(())
}

/// Bytes of a tensor of its sizes; `None` on overflow.
pub(crate) fn tensor_bytes(tensor: &Tensor) -> Option<u64> {
    tensor.sizes.numel()?.checked_mul(tensor.dtype.size()).map(|n| n as u64)
}

/// (place, problem)
type Problem = (String, String);

fn check_plan(plan: &Plan, layout: &Layout) -> Result<(), Problem> {
    let at_plan = |problem: String| (String::from("plan"), problem);
    let count = plan.values.len();
    for (what, len) in [
        ("values", count),
        ("operators", plan.operators.len()),
        ("delegates", plan.delegates.len()),
        ("instructions", plan.instructions.len()),
    ] {
        // Strictly below, so that an index past the end still fits.
        if len >= i32::MAX as usize {
            return Err(at_plan(format!("{len} {what}")));
        }
    }
    if let Some(size) = plan.buffer_sizes.iter().find(|size| **size > i64::MAX as u64) {
        return Err(at_plan(format!("an arena of {size} bytes")));
    }
    for (index, value) in plan.values.iter().enumerate() {
        check_value(plan, value, layout).map_err(|problem| (format!("value {index}"), problem))?;
    }
    for (what, items) in [("input", &plan.inputs), ("output", &plan.outputs)] {
        for (position, &index) in items.iter().enumerate() {
            value(plan, index).map_err(|problem| (format!("{what} {position}"), problem))?;
        }
    }
    for (index, delegate) in plan.delegates.iter().enumerate() {
        let (what, at, have) = match delegate.processed {
            DelegateData::Inline(i) => ("inline data", i, layout.inline_delegate_data),
            DelegateData::Segment(i) => ("segment", i, layout.segments),
        };
        if at as usize >= have {
            let problem = format!("{what} {at} of {have}");
            return Err((format!("delegate {index} (`{}`)", delegate.id), problem));
        }
    }
    for (index, instruction) in plan.instructions.iter().enumerate() {
        check_instruction(plan, instruction).map_err(|problem| (format!("instruction {index}"), problem))?;
    }
    Ok(())
}

fn check_value(plan: &Plan, value: &EValue, layout: &Layout) -> Result<(), String> {
    let list = |items: &mut dyn Iterator<Item = u32>, name: &str, fits: fn(&EValue) -> bool| {
        for index in items {
            let item = self::value(plan, index)?;
            if !fits(item) {
                return Err(format!("list item {index} is {}, expected {name}", kind(item)));
            }
        }
        Ok(())
    };
    match value {
        EValue::Tensor(tensor) => check_tensor(plan, tensor, layout),
        EValue::IntList(items) => list(&mut items.iter().copied(), "an integer", |v| {
            matches!(v, EValue::Int(_))
        }),
        EValue::TensorList(items) => list(&mut items.iter().copied(), "a tensor", |v| {
            matches!(v, EValue::Tensor(_))
        }),
        EValue::OptionalTensorList(items) => list(&mut items.iter().flatten().copied(), "a tensor", |v| {
            matches!(v, EValue::Tensor(_) | EValue::Null)
        }),
        _ => Ok(()),
    }
}

fn check_tensor(plan: &Plan, tensor: &Tensor, layout: &Layout) -> Result<(), String> {
    if let Some(size) = tensor
        .sizes
        .iter()
        .find(|size| i32::try_from(**size).is_err() || **size < 0)
    {
        return Err(format!("a size of {size}"));
    }
    if tensor.sizes.strides_of_dim_order(&tensor.dim_order).is_none() {
        return Err(format!(
            "dim_order {:?} is not a permutation of the {} dimensions",
            tensor.dim_order,
            tensor.sizes.rank()
        ));
    }
    let bytes = tensor_bytes(tensor)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| format!("a tensor of {} {}", tensor.sizes, tensor.dtype))?;
    let allocation = match tensor.storage {
        Storage::Arena(allocation) | Storage::MutableWithState(allocation, ..) => Some(allocation),
        _ => None,
    };
    if let Some(allocation) = allocation {
        if tensor.dynamism == Dynamism::Unbounded {
            return Err("an unbounded tensor in planned memory".into());
        }
        let arena = match allocation.memory_id {
            0 => None,
            id => plan.buffer_sizes.get(id as usize),
        };
        let Some(arena) = arena else {
            return Err(format!(
                "memory id {} of {}",
                allocation.memory_id,
                plan.buffer_sizes.len()
            ));
        };
        if allocation.offset.checked_add(bytes).is_none_or(|end| end > *arena) {
            return Err(format!(
                "{bytes} bytes at {} do not lie in the {arena} bytes of memory id {}",
                allocation.offset, allocation.memory_id
            ));
        }
        if allocation.offset % tensor.dtype.align() as u64 != 0 {
            return Err(format!(
                "offset {} is not aligned for {}",
                allocation.offset, tensor.dtype
            ));
        }
    }
    match tensor.storage {
        Storage::Constant(index) => room(bytes, "constant", index, &layout.constant_room),
        Storage::MutableWithState(_, segment, index) => match layout.mutable_room.get(segment as usize) {
            Some(states) => room(bytes, "initial state", index, states),
            None => Err(format!("mutable segment {segment} of {}", layout.mutable_room.len())),
        },
        Storage::External if tensor.name.is_none() => Err("external data without a name".into()),
        _ => Ok(()),
    }
}

/// Checks that `bytes` lie where `index` says; index 0 is reserved.
fn room(bytes: u64, what: &str, index: u32, room: &[u64]) -> Result<(), String> {
    match room.get(index as usize) {
        None => Err(format!("{what} {index} of {}", room.len())),
        Some(_) if index == 0 => Err(format!("{what} 0 is reserved")),
        Some(have) if bytes > *have => Err(format!("{what} {index} of {bytes} bytes, the file has {have}")),
        Some(_) => Ok(()),
    }
}

fn check_instruction(plan: &Plan, instruction: &Instruction) -> Result<(), String> {
    let all = |args: &[u32]| args.iter().try_for_each(|&arg| value(plan, arg).map(|_| ()));
    match instruction {
        Instruction::Kernel { op, args } => {
            if *op as usize >= plan.operators.len() {
                return Err(format!("operator {op} of {}", plan.operators.len()));
            }
            all(args)
        }
        Instruction::Delegate { delegate, args } => {
            if *delegate as usize >= plan.delegates.len() {
                return Err(format!("delegate {delegate} of {}", plan.delegates.len()));
            }
            all(args)
        }
        Instruction::Move { from, to } => all(&[*from, *to]),
        Instruction::JumpFalse { condition, destination } => {
            match value(plan, *condition)? {
                EValue::Bool(_) => {}
                EValue::Tensor(tensor) if tensor.dtype == DType::Bool => {}
                other => return Err(format!("condition {condition} is {}, expected a bool", kind(other))),
            }
            // One past the end leaves the program.
            if *destination as usize > plan.instructions.len() {
                return Err(format!("jump to {destination} of {}", plan.instructions.len()));
            }
            Ok(())
        }
        Instruction::Free { value: index } => match value(plan, *index)? {
            EValue::Tensor(_) => Ok(()),
            other => Err(format!("frees value {index}, which is {}", kind(other))),
        },
    }
}

fn value(plan: &Plan, index: u32) -> Result<&EValue, String> {
    plan.values
        .get(index as usize)
        .ok_or_else(|| format!("value {index} of {}", plan.values.len()))
}

/// What a value is, in words.
fn kind(value: &EValue) -> &'static str {
    match value {
        EValue::Null => "none",
        EValue::Int(_) => "an integer",
        EValue::Bool(_) => "a bool",
        EValue::Double(_) => "a float",
        EValue::String(_) => "a string",
        EValue::Tensor(_) => "a tensor",
        EValue::IntList(_) => "a list of integers",
        EValue::DoubleList(_) => "a list of floats",
        EValue::BoolList(_) => "a list of bools",
        EValue::TensorList(_) | EValue::OptionalTensorList(_) => "a list of tensors",
    }
}
