//! A region that was lowered for one set of input sizes, and its commands where tensors lie in certain places.

use super::constants::Constants;
use super::import::{Landing, Spot};
use super::states::Mirror;
use super::upload::Upload;
use super::{Core, Rooms};
use crate::placement::{ALIGN, Placement, place_beside};
use crate::schedule::{Binding, Schedule, Source};
use crate::sys::{Buffer, Command, Gpu, Recording};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{Context, Error, LogLevel, TensorView};
use std::sync::Arc;

/// How many recordings of one set of sizes are kept: for tensors in different places, with and without timestamps.
const MOST_RECORDED: usize = 4;

/// A region for one set of sizes.
pub struct Lowered {
    sizes: Vec<Vec<i64>>,
    schedule: Schedule,
    /// One a storage, for constants: the buffer and where it begins there.
    constants: Vec<Option<(Arc<Buffer>, u64)>>,
    /// The buffer of parameters; they begin at 0.
    params: Arc<Buffer>,
    inputs: Vec<Border>,
    outputs: Vec<Border>,
    /// The last used is last.
    recorded: Vec<Arc<Recorded>>,
    ran: bool,
}

/// A tensor that comes in or goes out.
#[derive(Debug, Clone, Copy)]
struct Border {
    /// Its storage; `None`: nothing uses it.
    storage: Option<usize>,
    /// Bytes of its elements.
    bytes: u64,
    /// Kernels may use it where the host has it, if there are so many bytes; `None`: not.
    in_place: Option<u64>,
}

/// Commands, and where tensors lie for them.
pub struct Recorded {
    places: Vec<Option<Spot>>,
    /// Which half of the states is their value.
    half: usize,
    pub recording: Recording,
    timed: bool,
    /// One an input: where the processor writes it. `None`: it is read in place, or not at all.
    pub inputs: Vec<Option<Room>>,
    /// One an output: where the processor reads it. `None`: it was written in place, or has no bytes.
    pub outputs: Vec<Option<Room>>,
    /// States that the processor keeps too: the mirror, the half of it that the run makes, and where it is read.
    pub mirrors: Vec<(Arc<Mirror>, usize, Room)>,
    /// Words that are not 0 where a kernel met a value that is not allowed.
    pub flag: Option<Room>,
    /// Sizes of the outputs.
    pub sizes: Vec<Vec<i64>>,
    /// One a dispatch, where they are timed.
    pub steps: Vec<Step>,
}

/// A range of a buffer.
pub struct Room {
    pub buffer: Arc<Buffer>,
    pub offset: u64,
    pub bytes: u64,
}

/// What a dispatch is, for a profile.
pub struct Step {
    pub kernel: &'static str,
    pub node: u32,
    pub bytes: u64,
}

impl Recorded {
    /// True if the device uses memory of the host's.
    pub fn in_place(&self) -> bool {
        self.places.iter().any(Option::is_some)
    }
}

impl Lowered {
    /// Brings parameters and small tables to the device.
    pub fn new(
        gpu: &Arc<Gpu>,
        constants: &Constants,
        view: &ImageView<'_>,
        schedule: Schedule,
        sizes: Vec<Vec<i64>>,
    ) -> Result<Lowered, Error> {
        // Parameters, then the tables, in one buffer.
        let mut bytes: Vec<u8> = schedule.params.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut tables = Vec::new();
        for (at, storage) in schedule.storages.iter().enumerate() {
            if let Source::Bytes(table) = &storage.source {
                bytes.resize(bytes.len().next_multiple_of(ALIGN as usize), 0);
                tables.push((at, bytes.len() as u64));
                bytes.extend(table);
                bytes.resize(bytes.len().max(bytes.len() - table.len() + storage.bytes as usize), 0);
            }
        }
        let mut upload = Upload::new(gpu, bytes.len() as u64);
        let params = upload.buffer(16, &bytes)?;
        upload.finish()?;
        let mut found: Vec<Option<(Arc<Buffer>, u64)>> = Vec::with_capacity(schedule.storages.len());
        for storage in &schedule.storages {
            found.push(match &storage.source {
                Source::Weight(id) => Some((Arc::clone(constants.weight(*id)?), 0)),
                Source::Packed(index) => {
                    let constant = schedule.packed.get(*index);
                    let constant = constant.ok_or_else(|| Error::internal("no such constant"))?;
                    Some((Arc::clone(constants.packed(&constant.key)?), 0))
                }
                _ => None,
            });
        }
        for (storage, offset) in tables {
            if let Some(slot) = found.get_mut(storage) {
                *slot = Some((Arc::clone(&params), offset));
            }
        }
        let (inputs, outputs) = borders(view, &schedule, &sizes);
        Ok(Lowered {
            sizes,
            schedule,
            constants: found,
            params,
            inputs,
            outputs,
            recorded: Vec::new(),
            ran: false,
        })
    }

    /// True if it is for inputs of these sizes.
    pub fn is_for(&self, inputs: &[TensorView<'_>]) -> bool {
        self.sizes.iter().map(Vec::as_slice).eq(inputs.iter().map(|i| i.sizes))
    }

    /// Forgets its commands: the memory that they use is about to go.
    pub fn forget(&mut self) {
        self.recorded.clear();
    }

    /// The commands for tensors that lie here; `true` if it is the first run of these sizes.
    pub fn recorded(
        &mut self,
        core: &mut Core,
        inputs: &[TensorView<'_>],
        outputs: &[Option<Landing>],
        context: &Context<'_>,
    ) -> Result<(Arc<Recorded>, bool), Error> {
        let first = !std::mem::replace(&mut self.ran, true);
        let timed = context.profiling();
        let half = core.states.half();
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            return Err(Error::invalid(format!(
                "{} inputs and {} outputs, not {} and {}",
                inputs.len(),
                outputs.len(),
                self.inputs.len(),
                self.outputs.len()
            )));
        }
        let gpu = Arc::clone(&core.device.gpu);
        let landed = inputs.iter().map(|i| Landing::of(i.buffer, i.bytes.len(), &gpu));
        let landed = landed.chain(outputs.iter().cloned());
        let borders = self.inputs.iter().chain(&self.outputs);
        let places: Vec<Option<Landing>> = landed
            .zip(borders)
            .map(|(landing, border)| landing.filter(|l| border.in_place.is_some_and(|bytes| bytes <= l.room)))
            .collect();
        let same = |r: &Arc<Recorded>| {
            let spots = places.iter().map(|place| place.as_ref().map(|l| l.spot));
            r.timed == timed && r.half == half && r.places.iter().copied().eq(spots)
        };
        if let Some(at) = self.recorded.iter().position(same) {
            let recorded = self.recorded.remove(at);
            self.recorded.push(Arc::clone(&recorded));
            return Ok((recorded, first));
        }
        self.recorded.retain(|r| !r.recording.is_stale());
        if self.recorded.len() >= MOST_RECORDED {
            self.recorded.remove(0);
        }
        let recorded = Arc::new(self.record(core, &places, timed, context)?);
        self.recorded.push(Arc::clone(&recorded));
        Ok((recorded, first))
    }

    fn record(
        &mut self,
        core: &mut Core,
        places: &[Option<Landing>],
        timed: bool,
        context: &Context<'_>,
    ) -> Result<Recorded, Error> {
        let unified = core.device.gpu.facts().memory.unified;
        let mut elsewhere: Vec<Option<(Arc<Buffer>, u64)>> = Vec::with_capacity(self.schedule.storages.len());
        for storage in &self.schedule.storages {
            elsewhere.push(match storage.source {
                Source::State(state) => Some((Arc::clone(core.states.memory(state, false)?), 0)),
                Source::NextState(state) => Some((Arc::clone(core.states.memory(state, true)?), 0)),
                _ => None,
            });
        }
        for (border, landing) in self.inputs.iter().chain(&self.outputs).zip(places) {
            let slot = border.storage.and_then(|storage| elsewhere.get_mut(storage));
            // A device with memory of its own copies from there instead.
            if let (Some(slot), Some(landing), true) = (slot, landing, unified) {
                *slot = Some((Arc::clone(&landing.buffer), landing.spot.1));
            }
        }
        let beside: Vec<bool> = elsewhere.iter().map(Option::is_some).collect();
        let placement = place_beside(&self.schedule, &beside);
        // Staging, where the processor does not see or not read what kernels use.
        let mut upload = Layouter::default();
        let mut readback = Layouter::default();
        let (inputs, outputs) = places.split_at(self.inputs.len().min(places.len()));
        let staged_in: Vec<u64> = self.inputs.iter().map(|border| upload.add(border.bytes)).collect();
        let staged_out: Vec<u64> = self.outputs.iter().map(|border| readback.add(border.bytes)).collect();
        let staged_flag = readback.add(16);
        let mut mirrored = Vec::new();
        for output in &self.schedule.outputs {
            if let Some(mirror) = output.state.and_then(|state| core.states.mirror(state)) {
                let bytes = mirror.size();
                if bytes == 0 {
                    continue;
                }
                mirrored.push((mirror, output.binding, readback.add(bytes), bytes));
            }
        }
        let staged = |room: &Layouter, needed: bool| if needed { room.end } else { 0 };
        let (up, down) = (
            staged(&upload, !unified),
            staged(&readback, !core.device.gpu.reads_fast()),
        );
        let grown = core.grow(placement.arena.max(16), up, down)?;
        if grown {
            self.forget();
        }
        let Rooms {
            arena: Some(arena),
            upload: up,
            readback: down,
        } = &core.rooms
        else {
            return Err(Error::internal("there is no arena"));
        };
        let find = |storage: usize| -> Result<(&Arc<Buffer>, u64), Error> {
            let known = elsewhere.get(storage).and_then(Option::as_ref);
            let known = known.or_else(|| self.constants.get(storage).and_then(Option::as_ref));
            match (known, placement.offsets.get(storage)) {
                (Some((buffer, offset)), _) => Ok((buffer, *offset)),
                (None, Some(Some(offset))) => Ok((arena, *offset)),
                _ => Err(Error::internal("a storage lies nowhere")),
            }
        };
        let part = |binding: &Binding| {
            let (buffer, offset) = find(binding.storage)?;
            Ok((buffer, offset + binding.offset, binding.bytes))
        };
        let mut commands = Vec::with_capacity(2 * self.schedule.dispatches.len() + 8);
        let mut rooms_in = Vec::with_capacity(inputs.len());
        for ((border, landing), staged) in self.inputs.iter().zip(inputs).zip(staged_in) {
            // What nothing reads lies nowhere.
            let is_used = |storage: &usize| {
                let lies = |places: &[Option<u64>]| places.get(*storage).is_some_and(Option::is_some);
                lies(&placement.offsets) || elsewhere.get(*storage).is_some_and(Option::is_some)
            };
            let used = border
                .storage
                .filter(|s| is_used(s) && border.bytes > 0 && (landing.is_none() || !unified));
            let Some(storage) = used else {
                rooms_in.push(None);
                continue;
            };
            let (buffer, offset) = find(storage)?;
            if let Some(landing) = landing {
                commands.push(Command::Copy {
                    from: (&landing.buffer, landing.spot.1, border.bytes),
                    to: (buffer, offset, border.bytes),
                });
                rooms_in.push(None);
                continue;
            }
            rooms_in.push(Some(match (buffer.is_mapped(), up) {
                (true, _) => room(buffer, offset, border.bytes),
                (false, Some(up)) => {
                    commands.push(Command::Copy {
                        from: (up, staged, border.bytes),
                        to: (buffer, offset, border.bytes),
                    });
                    room(up, staged, border.bytes)
                }
                (false, None) => return Err(Error::internal("there is no staging buffer")),
            }));
        }
        if !commands.is_empty() {
            commands.push(Command::Barrier);
        }
        for (dispatch, barrier) in self.schedule.dispatches.iter().zip(&placement.barriers) {
            if *barrier {
                commands.push(Command::Barrier);
            }
            commands.push(Command::Dispatch {
                kernel: dispatch.kernel,
                params: (
                    &self.params,
                    dispatch.params.start as u64 * 4,
                    dispatch.params.len() as u64 * 4,
                ),
                buffers: dispatch.bindings.iter().map(part).collect::<Result<_, Error>>()?,
                groups: dispatch.groups,
            });
        }
        // What follows reads what kernels wrote: the processor, or a copy.
        commands.push(Command::Barrier);
        let mut copied = false;
        let mut out_of = |binding: &Binding, staged: u64, bytes: u64| -> Result<Room, Error> {
            let (buffer, offset, _) = part(binding)?;
            Ok(match (buffer.reads_fast(), down) {
                (true, _) => room(buffer, offset, bytes),
                (false, Some(down)) => {
                    copied = true;
                    commands.push(Command::Copy {
                        from: (buffer, offset, bytes),
                        to: (down, staged, bytes),
                    });
                    room(down, staged, bytes)
                }
                (false, None) if buffer.is_mapped() => room(buffer, offset, bytes),
                (false, None) => return Err(Error::internal("there is no staging buffer")),
            })
        };
        let bindings = || self.schedule.outputs.iter().map(|output| &output.binding);
        let mut rooms_out = Vec::with_capacity(outputs.len());
        for (((border, landing), staged), binding) in self.outputs.iter().zip(outputs).zip(staged_out).zip(bindings()) {
            rooms_out.push(match landing.is_some() || border.bytes == 0 {
                true => None,
                false => Some(out_of(binding, staged, border.bytes)?),
            });
        }
        let mut mirrors = Vec::with_capacity(mirrored.len());
        for (mirror, binding, staged, bytes) in mirrored {
            let room = out_of(&binding, staged, bytes)?;
            mirrors.push((mirror, core.states.half() ^ 1, room));
        }
        let flag = self.schedule.flag.as_ref();
        let flag = flag.map(|binding| out_of(binding, staged_flag, 16)).transpose()?;
        for ((border, landing), binding) in self.outputs.iter().zip(outputs).zip(bindings()) {
            if let (Some(landing), false, 1..) = (landing, unified, border.bytes) {
                copied = true;
                let (buffer, offset, _) = part(binding)?;
                commands.push(Command::Copy {
                    from: (buffer, offset, border.bytes),
                    to: (&landing.buffer, landing.spot.1, border.bytes),
                });
            }
        }
        if copied {
            commands.push(Command::Barrier);
        }
        let recording = Recording::new(&core.timeline, &commands, timed)?;
        let recorded = Recorded {
            places: places.iter().map(|place| place.as_ref().map(|l| l.spot)).collect(),
            half: core.states.half(),
            recording,
            timed,
            mirrors,
            flag,
            inputs: rooms_in,
            outputs: rooms_out,
            sizes: self
                .schedule
                .outputs
                .iter()
                .map(|output| output.sizes.clone())
                .collect(),
            steps: match timed {
                true => self.schedule.dispatches.iter().map(Step::of).collect(),
                false => Vec::new(),
            },
        };
        if context.log_enabled(LogLevel::Info) {
            context.log(LogLevel::Info, &self.counts(&placement, &recorded, core));
        }
        Ok(recorded)
    }

    /// A line for the log.
    fn counts(&self, placement: &Placement, recorded: &Recorded, core: &Core) -> String {
        let moved: u64 = self.schedule.dispatches.iter().map(|d| Step::of(d).bytes).sum();
        let copied = |rooms: &[Option<Room>]| rooms.iter().flatten().map(|room| room.bytes).sum::<u64>();
        let usage = core.device.gpu.usage();
        format!(
            "vulkan: dispatches={} barriers={} transfers={} bytes={moved} arena={} pipelines={} copied_in={} copied_out={} in_place={} \
             memory={} allocations={} peak={}",
            self.schedule.dispatches.len(),
            recorded.recording.barriers(),
            self.schedule.transfers,
            placement.arena,
            core.device.gpu.pipeline_count(),
            copied(&recorded.inputs),
            copied(&recorded.outputs),
            recorded.places.iter().flatten().count(),
            usage.reserved,
            usage.allocations,
            usage.peak,
        )
    }
}

impl Step {
    fn of(dispatch: &crate::schedule::Dispatch) -> Step {
        Step {
            kernel: dispatch.kernel.name,
            node: dispatch.node,
            bytes: dispatch.bindings.iter().map(|b| b.bytes).sum(),
        }
    }
}

fn room(buffer: &Arc<Buffer>, offset: u64, bytes: u64) -> Room {
    Room {
        buffer: Arc::clone(buffer),
        offset,
        bytes,
    }
}

/// Where inputs and outputs are, and which of them kernels may use where the host has them.
fn borders(view: &ImageView<'_>, schedule: &Schedule, sizes: &[Vec<i64>]) -> (Vec<Border>, Vec<Border>) {
    let element = |value| view.value(value).dtype().and_then(|dtype| dtype.size());
    let size_of = |storage: usize| schedule.storages.get(storage).map_or(0, |s| s.bytes);
    // The host's inputs are not written.
    let mut written = vec![false; schedule.storages.len()];
    // The host's outputs are written whole, by one that makes nothing else.
    let mut given = vec![0; schedule.storages.len()];
    for dispatch in &schedule.dispatches {
        for (binding, writes) in dispatch.bindings.iter().zip(dispatch.kernel.writes) {
            if let Some(flag) = written.get_mut(binding.storage).filter(|_| *writes) {
                *flag = true;
            }
        }
    }
    for output in &schedule.outputs {
        if let Some(count) = given.get_mut(output.binding.storage) {
            *count += 1;
        }
    }
    let inputs = view.inputs().iter().zip(sizes).enumerate().map(|(at, (value, sizes))| {
        let is = |source: &Source| matches!(source, Source::Input(input) if *input as usize == at);
        let storage = schedule.storages.iter().position(|s| is(&s.source));
        let plain = |s: &usize| written.get(*s) == Some(&false) && given.get(*s) == Some(&0);
        Border {
            storage,
            bytes: tensor_bytes(sizes, element(value)),
            in_place: storage.filter(plain).map(size_of),
        }
    });
    let made = |storage: usize| matches!(schedule.storages.get(storage).map(|s| &s.source), Some(Source::Scratch));
    let outputs = view.outputs().iter().zip(&schedule.outputs).map(|(value, output)| {
        let (binding, storage) = (&output.binding, output.binding.storage);
        let bytes = size_of(storage);
        let whole = binding.offset == 0 && binding.bytes >= bytes && made(storage) && given.get(storage) == Some(&1);
        Border {
            storage: Some(storage),
            bytes: match output.state {
                Some(_) => 0,
                None => tensor_bytes(&output.sizes, element(value)),
            },
            in_place: (whole && written.get(storage) == Some(&true)).then_some(bytes),
        }
    });
    (inputs.collect(), outputs.collect())
}

#[derive(Default)]
struct Layouter {
    end: u64,
}

impl Layouter {
    fn add(&mut self, bytes: u64) -> u64 {
        let start = self.end;
        self.end = (start + bytes).next_multiple_of(ALIGN);
        start
    }
}

/// Bytes of the elements of a tensor.
pub fn tensor_bytes(sizes: &[i64], element: Option<usize>) -> u64 {
    sizes.iter().map(|s| *s as u64).product::<u64>() * element.unwrap_or(1) as u64
}
