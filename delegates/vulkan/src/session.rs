//! Sessions: a blob on a device. Commands are recorded once for each set of input sizes, and the last few recordings are kept.

use crate::compile::{IMAGE, PACKED, PLAN, pack};
use crate::encoder::Encoder;
use crate::fuse;
use crate::packing::Key;
use crate::placement::{ALIGN, place};
use crate::program::Plan;
use crate::schedule::{Binding, Schedule, Source};
use crate::sys::{Buffer, Command, Gpu, Place, Recording};
use delegraph_sdk::image::{ImageView, Sizes, verify};
use delegraph_sdk::{Blob, Context, Error, KeptWeights, LogLevel, Session, TensorOut, TensorView, Weights};
use std::collections::HashMap;
use std::sync::Arc;

/// How many sets of sizes stay recorded.
const RECORDINGS: usize = 4;

/// Makes a session of a blob.
///
/// # Errors
/// The blob is damaged, or the device cannot run it.
pub fn load(blob: &Blob<'_>, weights: &Weights<'_>, gpu: Arc<Gpu>) -> Result<Box<dyn Session>, Error> {
    let image = blob.section(IMAGE)?.to_vec();
    let view = verified(&image)?;
    let sizes = Sizes::new(&view);
    let bytes = blob.section(PACKED).unwrap_or_default();
    let plan = Plan::read(blob.section(PLAN)?, view.node_count(), bytes.len() as u64)?;
    fuse::verify(&view, &plan.groups)?;
    plan.check_states(&view)?;
    let mut packed = HashMap::new();
    for (key, place) in &plan.constants {
        let range = place.offset as usize..(place.offset + place.bytes) as usize;
        let bytes = bytes
            .get(range)
            .ok_or_else(|| Error::corrupt("a packed constant ends beyond its section"))?;
        packed.insert(key.clone(), upload(&gpu, place.bytes, bytes)?);
    }
    let kept = match view.weight_count() {
        0 => None,
        _ => Some(weights.keep()?),
    };
    Ok(Box::new(Loaded {
        gpu,
        sizes,
        plan,
        kept,
        image,
        constants: HashMap::new(),
        packed,
        recorded: Vec::new(),
    }))
}

fn verified(image: &[u8]) -> Result<ImageView<'_>, Error> {
    verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))
}

struct Loaded {
    gpu: Arc<Gpu>,
    image: Vec<u8>,
    sizes: Sizes,
    plan: Plan,
    kept: Option<KeptWeights>,
    /// Weights on the device, by id.
    constants: HashMap<u32, Arc<Buffer>>,
    /// Packed constants on the device.
    packed: HashMap<Key, Arc<Buffer>>,
    /// The last used is last.
    recorded: Vec<Recorded>,
}

/// A set of sizes, ready to run.
struct Recorded {
    sizes: Vec<Vec<i64>>,
    recording: Recording,
    upload: Buffers,
    readback: Buffers,
    outputs: Vec<Vec<i64>>,
}

/// A staging buffer, and where each tensor lies in it.
struct Buffers {
    buffer: Arc<Buffer>,
    /// Offset and bytes, one a tensor.
    places: Vec<(u64, u64)>,
}

impl Session for Loaded {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let found = self
            .recorded
            .iter()
            .position(|r| r.sizes.iter().map(Vec::as_slice).eq(inputs.iter().map(|i| i.sizes)));
        let recorded = match found {
            Some(at) => self.recorded.remove(at),
            None => self.record(inputs, context)?,
        };
        let outcome = run(&recorded, inputs, outputs, context);
        if outcome.is_ok() {
            self.recorded.push(recorded);
            if self.recorded.len() > RECORDINGS {
                self.recorded.remove(0);
            }
        }
        outcome
    }
}

fn run(
    recorded: &Recorded,
    inputs: &[TensorView<'_>],
    outputs: &mut [TensorOut<'_>],
    context: &Context<'_>,
) -> Result<(), Error> {
    for (input, (offset, bytes)) in inputs.iter().zip(&recorded.upload.places) {
        let bytes = input
            .bytes
            .get(..*bytes as usize)
            .ok_or_else(|| Error::invalid("an input is shorter than its sizes say"))?;
        recorded.upload.buffer.write(*offset, bytes)?;
    }
    recorded.recording.submit()?;
    recorded.recording.wait(context.time_left())?;
    for (out, ((offset, bytes), sizes)) in outputs
        .iter_mut()
        .zip(recorded.readback.places.iter().zip(&recorded.outputs))
    {
        out.set_sizes(sizes)?;
        let room = out
            .bytes
            .get_mut(..*bytes as usize)
            .ok_or_else(|| Error::invalid("an output has too little room"))?;
        recorded.readback.buffer.read(*offset, room)?;
    }
    Ok(())
}

impl Loaded {
    fn record(&mut self, inputs: &[TensorView<'_>], context: &Context<'_>) -> Result<Recorded, Error> {
        let view = verified(&self.image)?;
        self.sizes
            .bind(&view, inputs.iter().map(|i| i.sizes))
            .map_err(|e| Error::invalid(e.to_string()))?;
        let schedule = Encoder::encode(view, &self.plan, &self.sizes, self.gpu.facts())?;
        let placement = place(&schedule);
        let gpu = &self.gpu;
        let arena = Arc::new(Buffer::new(gpu, placement.arena, Place::Device)?);
        let params: Vec<u8> = schedule.params.iter().flat_map(|w| w.to_le_bytes()).collect();
        let params_buffer = Buffer::new(gpu, params.len() as u64, Place::Upload)?;
        params_buffer.write(0, &params)?;
        let params_buffer = Arc::new(params_buffer);
        let mut constants: Vec<Option<Arc<Buffer>>> = Vec::with_capacity(schedule.storages.len());
        for storage in &schedule.storages {
            constants.push(match &storage.source {
                Source::Scratch | Source::Input(_) | Source::State(_) | Source::NextState(_) => None,
                Source::Bytes(bytes) => Some(upload(gpu, storage.bytes, bytes)?),
                Source::Packed(index) => {
                    let constant = schedule
                        .packed
                        .get(*index)
                        .ok_or_else(|| Error::internal("no such constant"))?;
                    Some(match self.packed.get(&constant.key) {
                        Some(buffer) => Arc::clone(buffer),
                        None => {
                            // This device lowers otherwise than the compiler expected.
                            let id = constant.key.weight;
                            let kept = self
                                .kept
                                .as_ref()
                                .ok_or_else(|| Error::internal(format!("weight {id} was not kept")))?;
                            let buffer = upload(gpu, storage.bytes, &pack(constant, kept.bytes(id)?)?)?;
                            self.packed.insert(constant.key.clone(), Arc::clone(&buffer));
                            buffer
                        }
                    })
                }
                Source::Weight(id) => Some(match self.constants.get(id) {
                    Some(buffer) => Arc::clone(buffer),
                    None => {
                        let kept = self
                            .kept
                            .as_ref()
                            .ok_or_else(|| Error::internal(format!("weight {id} was not kept")))?;
                        let buffer = upload(gpu, storage.bytes, kept.bytes(*id)?)?;
                        self.constants.insert(*id, Arc::clone(&buffer));
                        buffer
                    }
                }),
            });
        }
        let part = |binding: &Binding| -> Result<(&Arc<Buffer>, u64, u64), Error> {
            match (constants.get(binding.storage), placement.offsets.get(binding.storage)) {
                (Some(Some(buffer)), _) => Ok((buffer, binding.offset, binding.bytes)),
                (_, Some(Some(offset))) => Ok((&arena, offset + binding.offset, binding.bytes)),
                _ => Err(Error::internal("a storage lies nowhere")),
            }
        };
        // Inputs and outputs as they lie in their staging buffers.
        let mut upload = Layouter::default();
        let upload_places: Vec<(u64, u64)> = inputs
            .iter()
            .map(|i| upload.add(tensor_bytes(i.sizes, i.dtype.size())))
            .collect();
        let mut readback = Layouter::default();
        let element = |at: usize| {
            view.outputs()
                .get(at)
                .and_then(|v| view.value(v).dtype())
                .and_then(|d| d.size())
        };
        let readback_places: Vec<(u64, u64)> = schedule
            .outputs
            .iter()
            .enumerate()
            .map(|(at, output)| readback.add(tensor_bytes(&output.sizes, element(at))))
            .collect();
        let upload_buffer = Arc::new(Buffer::new(gpu, upload.end, Place::Upload)?);
        let readback_buffer = Arc::new(Buffer::new(gpu, readback.end, Place::Readback)?);

        let mut commands = Vec::with_capacity(2 * schedule.dispatches.len());
        for (storage, offset) in schedule.storages.iter().zip(&placement.offsets) {
            if let (Source::Input(input), Some(offset)) = (&storage.source, offset) {
                let (from, bytes) = upload_places[*input as usize];
                if bytes > 0 {
                    let bytes = bytes.next_multiple_of(4);
                    commands.push(Command::Copy {
                        from: (&upload_buffer, from, bytes),
                        to: (&arena, *offset, bytes),
                    });
                }
            }
        }
        commands.push(Command::Barrier);
        for (dispatch, barrier) in schedule.dispatches.iter().zip(&placement.barriers) {
            if *barrier {
                commands.push(Command::Barrier);
            }
            commands.push(Command::Dispatch {
                kernel: dispatch.kernel,
                params: (
                    &params_buffer,
                    dispatch.params.start as u64 * 4,
                    dispatch.params.len() as u64 * 4,
                ),
                buffers: dispatch.bindings.iter().map(part).collect::<Result<_, _>>()?,
                groups: dispatch.groups,
            });
        }
        commands.push(Command::Barrier);
        for (output, (to, bytes)) in schedule.outputs.iter().zip(&readback_places) {
            if *bytes > 0 {
                let (buffer, from, _) = part(&output.binding)?;
                let bytes = bytes.next_multiple_of(4);
                commands.push(Command::Copy {
                    from: (buffer, from, bytes),
                    to: (&readback_buffer, *to, bytes),
                });
            }
        }
        commands.push(Command::Barrier);
        let recording = Recording::new(gpu, &commands)?;
        if context.log_enabled(LogLevel::Info) {
            context.log(
                LogLevel::Info,
                &counts(&schedule, &placement.barriers, placement.arena, gpu.pipeline_count()),
            );
        }
        Ok(Recorded {
            sizes: inputs.iter().map(|i| i.sizes.to_vec()).collect(),
            recording,
            upload: Buffers {
                buffer: upload_buffer,
                places: upload_places,
            },
            readback: Buffers {
                buffer: readback_buffer,
                places: readback_places,
            },
            outputs: schedule.outputs.into_iter().map(|output| output.sizes).collect(),
        })
    }
}

fn counts(schedule: &Schedule, barriers: &[bool], arena: u64, pipelines: usize) -> String {
    let moved: u64 = schedule
        .dispatches
        .iter()
        .flat_map(|d| &d.bindings)
        .map(|b| b.bytes)
        .sum();
    format!(
        "vulkan: dispatches={} barriers={} transfers={} bytes={moved} arena={arena} pipelines={pipelines}",
        schedule.dispatches.len(),
        barriers.iter().filter(|b| **b).count() + 3,
        schedule.transfers,
    )
}

#[derive(Default)]
struct Layouter {
    end: u64,
}

impl Layouter {
    fn add(&mut self, bytes: u64) -> (u64, u64) {
        let start = self.end;
        self.end = (start + bytes).next_multiple_of(ALIGN);
        (start, bytes)
    }
}

fn tensor_bytes(sizes: &[i64], element: Option<usize>) -> u64 {
    sizes.iter().map(|s| *s as u64).product::<u64>() * element.unwrap_or(1) as u64
}

/// Brings bytes to a buffer on the device.
fn upload(gpu: &Arc<Gpu>, size: u64, bytes: &[u8]) -> Result<Arc<Buffer>, Error> {
    let target = Arc::new(Buffer::new(gpu, size.max(bytes.len() as u64), Place::Device)?);
    if !bytes.is_empty() {
        let staging = Buffer::new(gpu, bytes.len() as u64, Place::Upload)?;
        staging.write(0, bytes)?;
        let staging = Arc::new(staging);
        let copied = (bytes.len() as u64).next_multiple_of(4);
        let recording = Recording::new(
            gpu,
            &[
                Command::Copy {
                    from: (&staging, 0, copied),
                    to: (&target, 0, copied),
                },
                Command::Barrier,
            ],
        )?;
        recording.submit()?;
        recording.wait(None)?;
    }
    Ok(target)
}
