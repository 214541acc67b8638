//! Writes a program that Delegraph and stock ExecuTorch 1.5 load.
//!
//! What ExecuTorch needs beyond the schema: `constant_segment.offsets` with at least the reserved entry (else it takes the
//! deprecated inline path), a constant segment that is not empty where there are constants, empty vectors written out where it
//! dereferences them, segments at multiples of 128 bytes, constants at multiples of 16, and 64 bytes at least.

use crate::check::{self, Layout};
use crate::error::WriteError;
use crate::generated::pte as fb;
use crate::model::{Dynamism, EValue, Instruction, Plan, Storage, Tensor};
use crate::{PteError, header};
use alloc::string::String;
use alloc::vec::Vec;
use flatbuffers::{FlatBufferBuilder, WIPOffset};

/// What a program is written from. Data is borrowed: nothing is copied before it is written.
#[derive(Debug, Clone, Copy)]
pub struct ProgramParts<'a> {
    /// The methods. `Storage::Constant(i)` is `constants[i]`, `Storage::MutableWithState(_, 0, i)` is `mutable_states[i]`.
    pub plans: &'a [Plan],
    /// Constant data by index; index 0 is reserved and not written. May be empty.
    pub constants: &'a [&'a [u8]],
    /// Initial states of mutable buffers by index; index 0 is reserved and not written. May be empty.
    pub mutable_states: &'a [&'a [u8]],
    /// Named blobs: key, alignment in the file (a power of two; 1 for any), bytes.
    pub named: &'a [(String, u32, &'a [u8])],
}

/// Alignment of every segment, as ExecuTorch writes it.
const SEGMENT_ALIGNMENT: u64 = 128;
/// Alignment of a constant within its segment.
const CONSTANT_ALIGNMENT: u64 = 16;
/// Extended header: magic, length and three u64.
const HEADER_LEN: usize = 32;
/// ExecuTorch reads this many bytes before it looks for a header.
const MIN_FILE: usize = 64;

/// Appends a `.pte` file to `out` (which is best empty: offsets count from its present end).
///
/// # Errors
/// The reader would refuse the program, or a blob's alignment is not a power of two. Nothing is written then.
pub fn write(parts: &ProgramParts<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let plan = FilePlan::new(parts)?;
    out.reserve(usize::try_from(plan.file_len()).unwrap_or(0));
    plan.emit(parts, &mut |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })
}

/// Writes a `.pte` file; constants and blobs go straight from their own memory to `out`.
///
/// # Errors
/// As [`write()`], or `out` fails: what was written by then is not a file.
#[cfg(feature = "std")]
pub fn write_to(parts: &ProgramParts<'_>, out: &mut dyn std::io::Write) -> Result<(), WriteError> {
    FilePlan::new(parts)?.emit(parts, &mut |bytes| {
        out.write_all(bytes)
            .map_err(|error| WriteError::Io(alloc::format!("{error}")))
    })
}

/// Everything of the file but the bulk data.
struct FilePlan {
    /// The FlatBuffer, extended header included.
    flatbuffer: Vec<u8>,
    /// Absolute start of the segments; 0 without any.
    base: u64,
    /// Length of the segments' part.
    segment_len: u64,
    /// Offset from the base of each segment, in file order: constants, states, named.
    starts: Vec<u64>,
    has_constants: bool,
    has_states: bool,
}

impl FilePlan {
    fn new(parts: &ProgramParts<'_>) -> Result<FilePlan, WriteError> {
        check_parts(parts)?;
        let (has_constants, has_states) = (parts.constants.len() > 1, parts.mutable_states.len() > 1);
        let (constant_offsets, constant_len) = pack(parts.constants);
        let (state_offsets, state_len) = pack(parts.mutable_states);
        // Where the segment is empty (all constants have no elements) ExecuTorch takes the deprecated inline path and refuses.
        let constant_len = constant_len.max(CONSTANT_ALIGNMENT);

        let mut segments: Vec<(u64, u64)> = Vec::new();
        let (mut end, mut alignment) = (0u64, SEGMENT_ALIGNMENT);
        let mut place = |len: u64, align: u64| {
            let start = end.next_multiple_of(align);
            end = start + len;
            alignment = alignment.max(align);
            segments.push((start, len));
        };
        if has_constants {
            place(constant_len, SEGMENT_ALIGNMENT);
        }
        if has_states {
            place(state_len, SEGMENT_ALIGNMENT);
        }
        let first_named = usize::from(has_constants) + usize::from(has_states);
        for (_, align, data) in parts.named {
            place(data.len() as u64, u64::from(*align).max(SEGMENT_ALIGNMENT));
        }
        let segment_len = end;

        let mut fbb = FlatBufferBuilder::new();
        let constant_segment = subsegment(&mut fbb, 0, &constant_offsets);
        let states: Vec<_> = match has_states {
            true => alloc::vec![subsegment(&mut fbb, u32::from(has_constants), &state_offsets)],
            false => Vec::new(),
        };
        let named: Vec<_> = parts
            .named
            .iter()
            .enumerate()
            .map(|(i, (key, ..))| {
                let key = Some(fbb.create_string(key));
                let segment_index = (first_named + i) as u32;
                fb::NamedData::create(&mut fbb, &fb::NamedDataArgs { key, segment_index })
            })
            .collect();
        let plans: Vec<_> = parts.plans.iter().map(|plan| execution_plan(&mut fbb, plan)).collect();
        let table: Vec<_> = segments
            .iter()
            .map(|&(offset, size)| fb::DataSegment::create(&mut fbb, &fb::DataSegmentArgs { offset, size }))
            .collect();
        let args = fb::ProgramArgs {
            version: 0,
            execution_plan: Some(fbb.create_vector(&plans)),
            constant_buffer: None,
            backend_delegate_data: Some(fbb.create_vector(&[] as &[WIPOffset<fb::BackendDelegateInlineData<'_>>])),
            segments: Some(fbb.create_vector(&table)),
            constant_segment: Some(constant_segment),
            mutable_data_segments: Some(fbb.create_vector(&states)),
            named_data: Some(fbb.create_vector(&named)),
        };
        let root = fb::Program::create(&mut fbb, &args);
        fbb.finish(root, Some(header::PTE.identifier));
        let body = fbb.finished_data();

        let has_segments = !segments.is_empty();
        let mut flatbuffer = Vec::with_capacity(body.len() + HEADER_LEN + MIN_FILE);
        let mut base = 0;
        if has_segments {
            // Offsets are relative to where they stand; only the root's counts from the start of the file.
            let root = u32::from_le_bytes([body[0], body[1], body[2], body[3]]) + HEADER_LEN as u32;
            let program_len = (body.len() + HEADER_LEN) as u64;
            base = program_len.next_multiple_of(alignment);
            flatbuffer.extend_from_slice(&root.to_le_bytes());
            flatbuffer.extend_from_slice(&body[4..header::BEFORE]);
            flatbuffer.extend_from_slice(header::PTE.magic);
            flatbuffer.extend_from_slice(&(HEADER_LEN as u32).to_le_bytes());
            for field in [program_len, base, segment_len] {
                flatbuffer.extend_from_slice(&field.to_le_bytes());
            }
            flatbuffer.extend_from_slice(&body[header::BEFORE..]);
        } else {
            flatbuffer.extend_from_slice(body);
            if flatbuffer.len() < MIN_FILE {
                flatbuffer.resize(MIN_FILE, 0);
            }
        }
        Ok(FilePlan {
            flatbuffer,
            base,
            segment_len,
            starts: segments.iter().map(|s| s.0).collect(),
            has_constants,
            has_states,
        })
    }

    fn file_len(&self) -> u64 {
        (self.flatbuffer.len() as u64).max(self.base + self.segment_len)
    }

    fn emit(
        &self,
        parts: &ProgramParts<'_>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut at = 0u64;
        let mut put = |offset: u64, bytes: &[u8]| {
            const ZEROS: [u8; 256] = [0; 256];
            while at < offset {
                let step = (offset - at).min(ZEROS.len() as u64);
                sink(&ZEROS[..step as usize])?;
                at += step;
            }
            at += bytes.len() as u64;
            sink(bytes)
        };
        put(0, &self.flatbuffer)?;
        let mut starts = self.starts.iter().map(|start| self.base + start);
        for (present, blobs) in [
            (self.has_constants, parts.constants),
            (self.has_states, parts.mutable_states),
        ] {
            if !present {
                continue;
            }
            let Some(start) = starts.next() else { continue };
            let mut offset = start;
            for blob in blobs.iter().skip(1) {
                offset = offset.next_multiple_of(CONSTANT_ALIGNMENT);
                put(offset, blob)?;
                offset += blob.len() as u64;
            }
        }
        for ((.., data), start) in parts.named.iter().zip(starts) {
            put(start, data)?;
        }
        // A trailing empty blob may start past the last byte written.
        if self.base != 0 {
            put(self.base + self.segment_len, &[])?;
        }
        Ok(())
    }
}

/// Offsets of the blobs (the reserved index 0 has offset 0) and the length of their segment.
fn pack(blobs: &[&[u8]]) -> (Vec<u64>, u64) {
    let mut offsets = alloc::vec![0u64];
    let mut end = 0u64;
    for blob in blobs.iter().skip(1) {
        let start = end.next_multiple_of(CONSTANT_ALIGNMENT);
        offsets.push(start);
        end = start + blob.len() as u64;
    }
    (offsets, end)
}

/// The reader's own semantic check, before anything is written.
fn check_parts(parts: &ProgramParts<'_>) -> Result<(), WriteError> {
    for (key, align, _) in parts.named {
        if !align.is_power_of_two() || *align > 65_536 {
            return Err(WriteError::Alignment {
                key: key.clone(),
                alignment: *align,
            });
        }
    }
    let room = |blobs: &[&[u8]]| {
        let mut room: Vec<u64> = blobs.iter().map(|b| b.len() as u64).collect();
        if room.is_empty() {
            room.push(0);
        }
        room
    };
    let layout = Layout {
        constant_room: room(parts.constants),
        mutable_room: match parts.mutable_states.len() {
            0 | 1 => Vec::new(),
            _ => alloc::vec![room(parts.mutable_states)],
        },
        segments: 0,
        inline_delegate_data: 0,
    };
    if let Some(plan) = parts.plans.iter().find(|plan| !plan.delegates.is_empty()) {
        return Err(PteError::unsupported(
            alloc::format!("method `{}`", plan.name),
            "writing a plan that calls delegates itself",
        )
        .into());
    }
    check::keys(parts.named.iter().map(|(key, ..)| key.as_str()))?;
    check::plans(parts.plans, &layout)?;
    Ok(())
}

/// An index that [`check::plans`] found to be below the number of values, which is below `i32::MAX`.
fn signed(index: u32) -> i32 {
    index as i32
}

fn indices<'f>(fbb: &mut FlatBufferBuilder<'f>, items: &[u32]) -> WIPOffset<flatbuffers::Vector<'f, i32>> {
    fbb.create_vector_from_iter(items.iter().map(|&i| signed(i)))
}

fn subsegment<'f>(
    fbb: &mut FlatBufferBuilder<'f>,
    segment_index: u32,
    offsets: &[u64],
) -> WIPOffset<fb::SubsegmentOffsets<'f>> {
    let offsets = Some(fbb.create_vector(offsets));
    fb::SubsegmentOffsets::create(fbb, &fb::SubsegmentOffsetsArgs { segment_index, offsets })
}

fn execution_plan<'f>(fbb: &mut FlatBufferBuilder<'f>, plan: &Plan) -> WIPOffset<fb::ExecutionPlan<'f>> {
    let name = Some(fbb.create_string(&plan.name));
    let encoded_inp_str = Some(fbb.create_string(&plan.in_spec));
    let encoded_out_str = Some(fbb.create_string(&plan.out_spec));
    let args = fb::ContainerMetadataArgs {
        encoded_inp_str,
        encoded_out_str,
    };
    let container_meta_type = Some(fb::ContainerMetadata::create(fbb, &args));
    let values: Vec<_> = plan.values.iter().map(|value| evalue(fbb, value)).collect();
    let operators: Vec<_> = plan
        .operators
        .iter()
        .map(|operator| {
            let name = Some(fbb.create_string(&operator.name));
            let overload = Some(fbb.create_string(&operator.overload));
            fb::Operator::create(fbb, &fb::OperatorArgs { name, overload })
        })
        .collect();
    let instructions: Vec<_> = plan.instructions.iter().map(|i| instruction(fbb, i)).collect();
    let chain = fb::ChainArgs {
        inputs: Some(indices(fbb, &[])),
        outputs: Some(indices(fbb, &[])),
        instructions: Some(fbb.create_vector(&instructions)),
        stacktrace: None,
    };
    let chain = fb::Chain::create(fbb, &chain);
    let sizes = match plan.buffer_sizes.is_empty() {
        true => alloc::vec![0],
        false => plan.buffer_sizes.iter().map(|&size| size as i64).collect::<Vec<_>>(),
    };
    let args = fb::ExecutionPlanArgs {
        name,
        container_meta_type,
        values: Some(fbb.create_vector(&values)),
        inputs: Some(indices(fbb, &plan.inputs)),
        outputs: Some(indices(fbb, &plan.outputs)),
        chains: Some(fbb.create_vector(&[chain])),
        operators: Some(fbb.create_vector(&operators)),
        delegates: Some(fbb.create_vector(&[] as &[WIPOffset<fb::BackendDelegate<'_>>])),
        non_const_buffer_sizes: Some(fbb.create_vector(&sizes)),
        non_const_buffer_device: None,
    };
    fb::ExecutionPlan::create(fbb, &args)
}

fn evalue<'f>(fbb: &mut FlatBufferBuilder<'f>, value: &EValue) -> WIPOffset<fb::EValue<'f>> {
    use fb::KernelTypes as Kind;
    let (val_type, val) = match value {
        EValue::Null => (Kind::Null, fb::Null::create(fbb, &fb::NullArgs {}).as_union_value()),
        EValue::Int(int_val) => {
            let args = fb::IntArgs { int_val: *int_val };
            (Kind::Int, fb::Int::create(fbb, &args).as_union_value())
        }
        EValue::Bool(bool_val) => {
            let args = fb::BoolArgs { bool_val: *bool_val };
            (Kind::Bool, fb::Bool::create(fbb, &args).as_union_value())
        }
        EValue::Double(double_val) => {
            let args = fb::DoubleArgs {
                double_val: *double_val,
            };
            (Kind::Double, fb::Double::create(fbb, &args).as_union_value())
        }
        EValue::String(text) => {
            let string_val = Some(fbb.create_string(text));
            let args = fb::StringArgs { string_val };
            (Kind::String, fb::String::create(fbb, &args).as_union_value())
        }
        EValue::Tensor(t) => (Kind::Tensor, tensor(fbb, t).as_union_value()),
        EValue::IntList(items) => {
            let items = Some(fbb.create_vector_from_iter(items.iter().map(|&i| i64::from(i))));
            let list = fb::IntList::create(fbb, &fb::IntListArgs { items });
            (Kind::IntList, list.as_union_value())
        }
        EValue::DoubleList(items) => {
            let items = Some(fbb.create_vector(items));
            let list = fb::DoubleList::create(fbb, &fb::DoubleListArgs { items });
            (Kind::DoubleList, list.as_union_value())
        }
        EValue::BoolList(items) => {
            let items = Some(fbb.create_vector(items));
            let list = fb::BoolList::create(fbb, &fb::BoolListArgs { items });
            (Kind::BoolList, list.as_union_value())
        }
        EValue::TensorList(items) => {
            let items = Some(indices(fbb, items));
            let list = fb::TensorList::create(fbb, &fb::TensorListArgs { items });
            (Kind::TensorList, list.as_union_value())
        }
        EValue::OptionalTensorList(items) => {
            let items = items.iter().map(|item| item.map_or(-1, signed));
            let items = Some(fbb.create_vector_from_iter(items));
            let list = fb::OptionalTensorList::create(fbb, &fb::OptionalTensorListArgs { items });
            (Kind::OptionalTensorList, list.as_union_value())
        }
    };
    let args = fb::EValueArgs {
        val_type,
        val: Some(val),
    };
    fb::EValue::create(fbb, &args)
}

fn tensor<'f>(fbb: &mut FlatBufferBuilder<'f>, t: &Tensor) -> WIPOffset<fb::Tensor<'f>> {
    let (data_buffer_idx, allocation, segment) = match t.storage {
        Storage::Constant(i) => (i, None, None),
        Storage::Arena(allocation) => (0, Some(allocation), None),
        Storage::MutableWithState(allocation, segment, i) => (i, Some(allocation), Some(segment)),
        Storage::External | Storage::Unplanned => (0, None, None),
    };
    let external = t.storage == Storage::External;
    let extra_tensor_info = (t.name.is_some() || segment.is_some() || external).then(|| {
        let fully_qualified_name = t.name.as_ref().map(|name| fbb.create_string(name));
        let args = fb::ExtraTensorInfoArgs {
            mutable_data_segments_idx: u64::from(segment.unwrap_or(0)),
            fully_qualified_name,
            location: i8::from(external),
            device_type: 0,
            device_index: 0,
        };
        fb::ExtraTensorInfo::create(fbb, &args)
    });
    let allocation_info = allocation.map(|allocation| {
        let args = fb::AllocationDetailsArgs {
            memory_id: allocation.memory_id,
            memory_offset_low: allocation.offset as u32,
            memory_offset_high: (allocation.offset >> 32) as u32,
        };
        fb::AllocationDetails::create(fbb, &args)
    });
    // Checked: every size fits an i32.
    let sizes = fbb.create_vector_from_iter(t.sizes.iter().map(|&size| size as i32));
    let dim_order = fbb.create_vector(&t.dim_order);
    let args = fb::TensorArgs {
        scalar_type: t.dtype.pte_code(),
        storage_offset: 0,
        sizes: Some(sizes),
        dim_order: Some(dim_order),
        requires_grad: false,
        data_buffer_idx,
        allocation_info,
        layout: 0,
        shape_dynamism: match t.dynamism {
            Dynamism::Static => 0,
            Dynamism::Bounded => 1,
            Dynamism::Unbounded => 2,
        },
        extra_tensor_info,
    };
    fb::Tensor::create(fbb, &args)
}

fn instruction<'f>(fbb: &mut FlatBufferBuilder<'f>, instruction: &Instruction) -> WIPOffset<fb::Instruction<'f>> {
    use fb::InstructionArguments as Kind;
    let (instr_args_type, call) = match instruction {
        Instruction::Kernel { op, args } => {
            let args = Some(indices(fbb, args));
            let op_index = signed(*op);
            let call = fb::KernelCall::create(fbb, &fb::KernelCallArgs { op_index, args });
            (Kind::KernelCall, call.as_union_value())
        }
        Instruction::Delegate { delegate, args } => {
            let args = Some(indices(fbb, args));
            let delegate_index = signed(*delegate);
            let call = fb::DelegateCall::create(fbb, &fb::DelegateCallArgs { delegate_index, args });
            (Kind::DelegateCall, call.as_union_value())
        }
        Instruction::Move { from, to } => {
            let args = fb::MoveCallArgs {
                move_from: signed(*from),
                move_to: signed(*to),
            };
            (Kind::MoveCall, fb::MoveCall::create(fbb, &args).as_union_value())
        }
        Instruction::JumpFalse { condition, destination } => {
            let args = fb::JumpFalseCallArgs {
                cond_value_index: signed(*condition),
                destination_instruction: signed(*destination),
            };
            (
                Kind::JumpFalseCall,
                fb::JumpFalseCall::create(fbb, &args).as_union_value(),
            )
        }
        Instruction::Free { value } => {
            let args = fb::FreeCallArgs {
                value_index: signed(*value),
            };
            (Kind::FreeCall, fb::FreeCall::create(fbb, &args).as_union_value())
        }
    };
    let args = fb::InstructionArgs {
        instr_args_type,
        instr_args: Some(call),
    };
    fb::Instruction::create(fbb, &args)
}
