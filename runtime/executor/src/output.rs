//! Outputs and state, as views of the method's memory.

use crate::engine::{Engine, Number};
use crate::load::{Loaded, ProgramData};
use crate::memory::no_bytes;
use crate::tensors::{Place, SlotId};
use alloc::format;
use alloc::string::String;
use delegraph_kernels::Tensor;
use delegraph_pte::model::EValue;

/// An output of the last run.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// A tensor.
    Tensor(Tensor<'a>),
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

/// The present content of a value.
pub(crate) fn view<'a>(
    loaded: &'a Loaded,
    engine: &'a Engine,
    numbers: &[Number],
    data: &'a dyn ProgramData,
    value: u32,
) -> Result<Output<'a>, String> {
    if let Some(slot) = loaded.tensors.slot(value) {
        return tensor(loaded, engine, data, slot).map(Output::Tensor);
    }
    match (&loaded.plan().values[value as usize], numbers[value as usize]) {
        (EValue::String(text), _) => Ok(Output::Str(text)),
        (EValue::Null | EValue::Int(_) | EValue::Bool(_) | EValue::Double(_), number) => Ok(match number {
            Number::None => Output::None,
            Number::Int(i) => Output::Int(i),
            Number::Bool(b) => Output::Bool(b),
            Number::Float(f) => Output::Float(f),
        }),
        _ => Err("a list is not supported as an output".into()),
    }
}

/// The present content of a tensor.
pub(crate) fn tensor<'a>(
    loaded: &'a Loaded,
    engine: &'a Engine,
    data: &'a dyn ProgramData,
    id: SlotId,
) -> Result<Tensor<'a>, String> {
    let slot = &loaded.tensors.slots[id.0 as usize];
    let bytes = match &slot.place {
        _ if slot.capacity == 0 && !matches!(slot.place, Place::Own(_)) => Some(no_bytes()),
        Place::Arena { memory, start } => {
            let all = engine.memories[memory.0 as usize].bytes();
            all.get(*start..*start + slot.capacity)
        }
        Place::Own(memory) | Place::Copied(memory) => Some(engine.memories[memory.0 as usize].bytes()),
        Place::Constant(range) => data.bytes().get(range.clone()),
        Place::LeftOut(_) => None,
        Place::External(index) => {
            let value = loaded.tensors.externals[*index as usize];
            match &loaded.plan().values[value as usize] {
                EValue::Tensor(tensor) => tensor.name.as_deref().and_then(|name| data.external(name)),
                _ => None,
            }
        }
    };
    let bytes = bytes.ok_or("its memory is not there")?;
    Tensor::new(slot.dtype, engine.shapes.sizes(id), engine.shapes.strides(id), bytes)
        .map_err(|error| format!("{error}"))
}
