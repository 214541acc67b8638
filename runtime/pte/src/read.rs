//! From a verified FlatBuffer to the model.

use crate::PteError;
use crate::check::Layout;
use crate::generated::pte as fb;
use crate::header::{self, Header};
use crate::model::{
    Allocation, BackendDelegate, DelegateData, Dynamism, EValue, Instruction, NamedData, Operator, Plan, Program,
    Storage, Tensor,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_types::{DType, Dims};
use flatbuffers::{ForwardsUOffset, Vector};

/// Reads a `.pte`: header, FlatBuffer verification, then every table once.
pub(crate) fn program(bytes: &[u8]) -> Result<(Program, Layout), PteError> {
    let header = header::read(bytes, &header::PTE)?;
    let buffer = &bytes[..header.flatbuffer_len];
    let options = header::verifier_options(buffer.len());
    let root = fb::root_as_program_with_opts(&options, buffer).map_err(header::damaged)?;

    let segments = segments(&root, &header)?;
    let constants = constants(&root, &segments, bytes)?;
    let mutable = rows(root.mutable_data_segments())
        .enumerate()
        .map(|(i, table)| subsegment(&table, &segments, &format!("mutable segment {i}")))
        .collect::<Result<Vec<_>, _>>()?;
    let inline = rows(root.backend_delegate_data())
        .map(|data| data.data().map_or(0..0, |data| range_in(bytes, data.bytes())))
        .collect::<Vec<_>>();
    let named_data = rows(root.named_data())
        .enumerate()
        .map(|(i, named)| match named.key() {
            Some(key) => Ok(NamedData {
                key: key.to_string(),
                segment: named.segment_index(),
            }),
            None => Err(PteError::invalid(format!("named data {i}"), "no key")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let plans = rows(root.execution_plan())
        .enumerate()
        .map(|(i, table)| plan(&table, i))
        .collect::<Result<Vec<_>, _>>()?;
    let layout = Layout {
        constant_room: constants.room,
        mutable_room: mutable.iter().map(|m| m.room.clone()).collect(),
        segments: segments.len(),
        inline_delegate_data: inline.len(),
    };
    let program = Program {
        version: root.version(),
        plans,
        segments,
        constant_offsets: constants.offsets,
        constant_segment: constants.segment,
        mutable_segments: mutable
            .into_iter()
            .map(|m| (m.segment.unwrap_or(0), m.offsets))
            .collect(),
        named_data,
        inline_delegate_data: inline,
    };
    Ok((program, layout))
}

/// Blobs that a table of offsets names.
#[derive(Default)]
struct Blobs {
    segment: Option<u32>,
    /// Absolute.
    offsets: Vec<u64>,
    /// Bytes up to the end of where each may lie.
    room: Vec<u64>,
}

fn segments(root: &fb::Program<'_>, header: &Header) -> Result<Vec<Range<u64>>, PteError> {
    rows(root.segments())
        .enumerate()
        .map(|(i, segment)| header.segment(i, segment.offset(), segment.size()))
        .collect()
}

fn constants(root: &fb::Program<'_>, segments: &[Range<u64>], file: &[u8]) -> Result<Blobs, PteError> {
    if let Some(table) = root.constant_segment()
        && table.offsets().is_some_and(|offsets| !offsets.is_empty())
    {
        return subsegment(&table, segments, "constant segment");
    }
    // Before segments existed, constants lay in the FlatBuffer.
    let mut blobs = Blobs::default();
    for buffer in rows(root.constant_buffer()) {
        let range = buffer.storage().map_or(0..0, |storage| range_in(file, storage.bytes()));
        blobs.offsets.push(range.start);
        blobs.room.push(range.end - range.start);
    }
    Ok(blobs)
}

fn subsegment(table: &fb::SubsegmentOffsets<'_>, segments: &[Range<u64>], place: &str) -> Result<Blobs, PteError> {
    let offsets = table.offsets().unwrap_or_default();
    // Index 0 is reserved, so a list of one names nothing and needs no segment.
    if offsets.len() <= 1 {
        return Ok(Blobs {
            segment: None,
            offsets: alloc::vec![0; offsets.len()],
            room: alloc::vec![0; offsets.len()],
        });
    }
    let index = table.segment_index();
    let segment = segments
        .get(index as usize)
        .ok_or_else(|| PteError::invalid(place, format!("segment {index} of {}", segments.len())))?;
    let mut blobs = Blobs {
        segment: Some(index),
        ..Blobs::default()
    };
    for offset in offsets {
        let len = segment.end - segment.start;
        let room = len
            .checked_sub(offset)
            .ok_or_else(|| PteError::invalid(place, format!("offset {offset} in {len} bytes")))?;
        blobs.offsets.push(segment.start + offset);
        blobs.room.push(room);
    }
    Ok(blobs)
}

fn plan(table: &fb::ExecutionPlan<'_>, index: usize) -> Result<Plan, PteError> {
    let Some(name) = table.name() else {
        return Err(PteError::invalid(format!("method {index}"), "no name"));
    };
    let fail = |place: String, problem: Problem| {
        let place = format!("method `{name}`, {place}");
        match problem {
            Problem::Invalid(text) => PteError::invalid(place, text),
            Problem::Unsupported(text) => PteError::unsupported(place, text),
        }
    };
    let spec = table.container_meta_type();
    let text = |text: Option<&str>| text.unwrap_or_default().to_string();
    let values = rows(table.values())
        .enumerate()
        .map(|(i, value)| evalue(&value).map_err(|problem| fail(format!("value {i}"), problem)))
        .collect::<Result<Vec<_>, _>>()?;
    let list = |place: &str, items: Option<Vector<'_, i32>>| {
        indices(items).map_err(|problem| fail(place.to_string(), problem))
    };
    let chains = table.chains().unwrap_or_default();
    if chains.len() > 1 {
        return Err(fail(
            "chains".into(),
            Problem::Unsupported(format!("a plan of {} chains", chains.len())),
        ));
    }
    let instructions = chains
        .iter()
        .flat_map(|chain| rows(chain.instructions()))
        .enumerate()
        .map(|(i, step)| instruction(&step).map_err(|problem| fail(format!("instruction {i}"), problem)))
        .collect::<Result<Vec<_>, _>>()?;
    let operators = rows(table.operators())
        .map(|operator| Operator {
            name: text(operator.name()),
            overload: text(operator.overload()),
        })
        .collect();
    let delegates = rows(table.delegates())
        .enumerate()
        .map(|(i, delegate)| backend_delegate(&delegate).map_err(|problem| fail(format!("delegate {i}"), problem)))
        .collect::<Result<Vec<_>, _>>()?;
    let buffer_sizes = table
        .non_const_buffer_sizes()
        .unwrap_or_default()
        .iter()
        .map(|size| u64::try_from(size).map_err(|_| invalid(format!("an arena of {size} bytes"))))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|problem| fail("memory".into(), problem))?;
    if rows(table.non_const_buffer_device()).any(|device| device.device_type() != 0) {
        return Err(fail("memory".into(), Problem::Unsupported("memory of a device".into())));
    }
    Ok(Plan {
        name: name.to_string(),
        in_spec: text(spec.and_then(|spec| spec.encoded_inp_str())),
        out_spec: text(spec.and_then(|spec| spec.encoded_out_str())),
        values,
        inputs: list("inputs", table.inputs())?,
        outputs: list("outputs", table.outputs())?,
        instructions,
        operators,
        delegates,
        buffer_sizes,
    })
}

/// What is wrong with a part of a plan.
enum Problem {
    Invalid(String),
    Unsupported(String),
}

fn invalid(text: impl Into<String>) -> Problem {
    Problem::Invalid(text.into())
}

fn evalue(value: &fb::EValue<'_>) -> Result<EValue, Problem> {
    use fb::KernelTypes as Kind;
    let empty = || invalid("a value without its table");
    Ok(match value.val_type() {
        Kind::Null => EValue::Null,
        Kind::Int => EValue::Int(value.val_as_int().ok_or_else(empty)?.int_val()),
        Kind::Bool => EValue::Bool(value.val_as_bool().ok_or_else(empty)?.bool_val()),
        Kind::Double => EValue::Double(value.val_as_double().ok_or_else(empty)?.double_val()),
        Kind::String => {
            let text = value.val_as_string().ok_or_else(empty)?.string_val();
            EValue::String(text.unwrap_or_default().to_string())
        }
        Kind::Tensor => EValue::Tensor(tensor(&value.val_as_tensor().ok_or_else(empty)?)?),
        Kind::IntList => {
            let items = value.val_as_int_list().ok_or_else(empty)?.items();
            let items = items.unwrap_or_default().iter();
            EValue::IntList(
                items
                    .map(|i| u32::try_from(i).map_err(|_| invalid(format!("list item {i}"))))
                    .collect::<Result<_, _>>()?,
            )
        }
        Kind::DoubleList => {
            let items = value.val_as_double_list().ok_or_else(empty)?.items();
            EValue::DoubleList(items.unwrap_or_default().iter().collect())
        }
        Kind::BoolList => {
            let items = value.val_as_bool_list().ok_or_else(empty)?.items();
            EValue::BoolList(items.unwrap_or_default().iter().collect())
        }
        Kind::TensorList => {
            let items = value.val_as_tensor_list().ok_or_else(empty)?.items();
            EValue::TensorList(indices(items)?)
        }
        Kind::OptionalTensorList => {
            let items = value.val_as_optional_tensor_list().ok_or_else(empty)?.items();
            EValue::OptionalTensorList(
                items
                    .unwrap_or_default()
                    .iter()
                    .map(|i| match i {
                        -1 => Ok(None),
                        _ => positive(i).map(Some),
                    })
                    .collect::<Result<_, _>>()?,
            )
        }
        Kind(code) => return Err(Problem::Unsupported(format!("value type {code}"))),
    })
}

fn tensor(table: &fb::Tensor<'_>) -> Result<Tensor, Problem> {
    let code = table.scalar_type();
    let dtype = DType::from_pte(code).ok_or_else(|| Problem::Unsupported(format!("a tensor of scalar type {code}")))?;
    if table.storage_offset() != 0 {
        return Err(Problem::Unsupported(format!(
            "a tensor with storage offset {}",
            table.storage_offset()
        )));
    }
    if table.layout() != 0 {
        return Err(Problem::Unsupported(format!("a tensor of layout {}", table.layout())));
    }
    let mut sizes = Dims::SCALAR;
    for size in table.sizes().unwrap_or_default() {
        sizes
            .push(i64::from(size))
            .map_err(|error| Problem::Unsupported(format!("{error}")))?;
    }
    let dim_order = table.dim_order().unwrap_or_default();
    if dim_order.len() != sizes.rank() {
        return Err(invalid(format!(
            "dim_order of {} entries for {} dimensions",
            dim_order.len(),
            sizes.rank()
        )));
    }
    let dynamism = match table.shape_dynamism() {
        0 => Dynamism::Static,
        1 => Dynamism::Bounded,
        2 => Dynamism::Unbounded,
        code => return Err(invalid(format!("shape dynamism {code}"))),
    };
    let extra = table.extra_tensor_info();
    if let Some(device) = extra.map(|extra| extra.device_type()).filter(|device| *device != 0) {
        return Err(Problem::Unsupported(format!("a tensor on device type {device}")));
    }
    let allocation = table.allocation_info().map(|info| Allocation {
        memory_id: info.memory_id(),
        offset: u64::from(info.memory_offset_low()) | u64::from(info.memory_offset_high()) << 32,
    });
    let storage = match (extra.map_or(0, |extra| extra.location()), allocation) {
        (0, None) => match table.data_buffer_idx() {
            0 => Storage::Unplanned,
            index => Storage::Constant(index),
        },
        (0, Some(allocation)) => match table.data_buffer_idx() {
            0 => Storage::Arena(allocation),
            index => {
                let segment = extra.map_or(0, |extra| extra.mutable_data_segments_idx());
                let segment = u32::try_from(segment).map_err(|_| invalid(format!("mutable segment {segment}")))?;
                Storage::MutableWithState(allocation, segment, index)
            }
        },
        (1, None) => Storage::External,
        (1, Some(_)) => {
            return Err(Problem::Unsupported(
                "a mutable tensor with its initial state in another file".into(),
            ));
        }
        (location, _) => return Err(invalid(format!("data location {location}"))),
    };
    Ok(Tensor {
        dtype,
        sizes,
        dim_order: dim_order.iter().collect(),
        dynamism,
        storage,
        name: extra
            .and_then(|extra| extra.fully_qualified_name())
            .filter(|name| !name.is_empty())
            .map(String::from),
    })
}

fn instruction(table: &fb::Instruction<'_>) -> Result<Instruction, Problem> {
    use fb::InstructionArguments as Kind;
    let empty = || invalid("an instruction without its table");
    Ok(match table.instr_args_type() {
        Kind::KernelCall => {
            let call = table.instr_args_as_kernel_call().ok_or_else(empty)?;
            Instruction::Kernel {
                op: positive(call.op_index())?,
                args: indices(call.args())?,
            }
        }
        Kind::DelegateCall => {
            let call = table.instr_args_as_delegate_call().ok_or_else(empty)?;
            Instruction::Delegate {
                delegate: positive(call.delegate_index())?,
                args: indices(call.args())?,
            }
        }
        Kind::MoveCall => {
            let call = table.instr_args_as_move_call().ok_or_else(empty)?;
            Instruction::Move {
                from: positive(call.move_from())?,
                to: positive(call.move_to())?,
            }
        }
        Kind::JumpFalseCall => {
            let call = table.instr_args_as_jump_false_call().ok_or_else(empty)?;
            Instruction::JumpFalse {
                condition: positive(call.cond_value_index())?,
                destination: positive(call.destination_instruction())?,
            }
        }
        Kind::FreeCall => {
            let call = table.instr_args_as_free_call().ok_or_else(empty)?;
            Instruction::Free {
                value: positive(call.value_index())?,
            }
        }
        Kind(code) => return Err(Problem::Unsupported(format!("instruction type {code}"))),
    })
}

fn backend_delegate(table: &fb::BackendDelegate<'_>) -> Result<BackendDelegate, Problem> {
    let id = table.id().ok_or_else(|| invalid("no id"))?;
    let processed = table.processed().ok_or_else(|| invalid("no data"))?;
    Ok(BackendDelegate {
        id: id.to_string(),
        processed: match processed.location() {
            0 => DelegateData::Inline(processed.index()),
            1 => DelegateData::Segment(processed.index()),
            code => return Err(invalid(format!("data location {code}"))),
        },
        compile_specs: rows(table.compile_specs())
            .map(|spec| {
                let value = spec.value().map_or_else(Vec::new, |value| value.bytes().to_vec());
                (spec.key().unwrap_or_default().to_string(), value)
            })
            .collect(),
    })
}

fn positive(index: i32) -> Result<u32, Problem> {
    u32::try_from(index).map_err(|_| invalid(format!("index {index}")))
}

fn indices(items: Option<Vector<'_, i32>>) -> Result<Vec<u32>, Problem> {
    items.unwrap_or_default().iter().map(positive).collect()
}

/// The tables of an optional vector.
fn rows<'a, T: flatbuffers::Follow<'a> + 'a>(
    items: Option<Vector<'a, ForwardsUOffset<T>>>,
) -> impl Iterator<Item = T::Inner> {
    items.unwrap_or_default().iter()
}

/// Where `part`, a slice of `file`, lies in it.
fn range_in(file: &[u8], part: &[u8]) -> Range<u64> {
    let start = (part.as_ptr() as usize).saturating_sub(file.as_ptr() as usize) as u64;
    start..start + part.len() as u64
}
