//! Binding: each region goes to the first candidate that is present, allowed and fit.

use crate::Error;
use crate::delegates::{PORTABLE, wanted};
use crate::device_rules::{DeviceRules, chosen};
use crate::memory::Shown;
use crate::region_call::{Counts, Lane, SessionCall, SharedArenas, Watch};
use crate::report::{BucketState, RegionState};
use crate::self_check::RegionCheck;
use crate::trace::Callee;
use delegraph_config::{Config, Fallback};
use delegraph_executor::{BoundRegion, Executor, KeptState};
use delegraph_host::{BlobSource, BlobVerdict, CallOptions, Delegate, Host, StateInfo, Weights};
use delegraph_ir::Bytes;
use delegraph_pte::Verified;
use delegraph_pte::model::{Dynamism, EValue, Storage};
use delegraph_pte::overlay::{BucketedCandidate, Candidate, MethodOverlay, Region, section_key};
use delegraph_types::{Dims, Parallel};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A backend's way to run a region.
enum Choice<'r> {
    /// One blob for all sizes.
    All(&'r Candidate),
    /// One for each bucket, at least one.
    Buckets(Vec<&'r BucketedCandidate>),
}

impl Choice<'_> {
    fn backend(&self) -> &str {
        match self {
            Choice::All(candidate) => &candidate.backend,
            Choice::Buckets(bucketed) => &bucketed[0].candidate.backend,
        }
    }
}

/// What a file has for a region: blobs for all sizes come first. An entry for a bucket that is not there is none.
fn choices<'r>(overlay: &MethodOverlay, region: &'r Region) -> Vec<Choice<'r>> {
    let mut choices: Vec<Choice<'r>> = region.candidates.iter().map(Choice::All).collect();
    let known = region
        .bucketed
        .iter()
        .filter(|entry| (entry.bucket as usize) < overlay.buckets.len());
    for entry in known {
        let backend = &entry.candidate.backend;
        let of_backend = choices.iter_mut().find_map(|choice| match choice {
            Choice::Buckets(entries) if entries[0].candidate.backend == *backend => Some(entries),
            _ => None,
        });
        match of_backend {
            Some(entries) => entries.push(entry),
            None => choices.push(Choice::Buckets(vec![entry])),
        }
    }
    choices
}

/// What binding needs to know.
pub(crate) struct Binder<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Verified,
    pub(crate) file: &'a Bytes,
    /// The method's executor, which knows who sees a buffer.
    pub(crate) executor: &'a Executor,
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    /// Where each constant buffer lies in the file.
    pub(crate) constants: Vec<Range<u64>>,
    /// Threads that delegates may borrow.
    pub(crate) parallel: Parallel,
    /// The memory that activations lie in.
    pub(crate) arenas: &'a SharedArenas,
    /// What every region's call hears and tells.
    pub(crate) watch: Watch,
    /// Backends that may not be used here.
    pub(crate) rules: &'a DeviceRules<'a>,
    /// Is told what precision each region's blob declares.
    pub(crate) check: &'a RegionCheck,
}

/// The regions of a method.
pub(crate) struct Bound {
    /// Those that a delegate took.
    pub(crate) bound: Vec<BoundRegion>,
    /// All of them.
    pub(crate) states: Vec<RegionState>,
    /// What runs cost, of those that a delegate took; one a region.
    pub(crate) counts: Vec<Option<Arc<Counts>>>,
    /// The delegates of bound regions, each once, with the device that the configuration asks for.
    pub(crate) delegates: Vec<(Arc<Delegate>, Option<u32>)>,
}

/// The bytes of each constant buffer: as many as a tensor of the program says, else up to the next one.
pub(crate) fn constant_ranges(program: &Verified) -> Vec<Range<u64>> {
    let segment = program.constant_segment.and_then(|i| program.segments.get(i as usize));
    let end = segment.map_or(0, |segment| segment.end);
    let mut starts: Vec<u64> = program.constant_offsets.clone();
    starts.push(end);
    starts.sort_unstable();
    let mut lengths: BTreeMap<u32, u64> = BTreeMap::new();
    for value in program.plans.iter().flat_map(|plan| &plan.values) {
        if let EValue::Tensor(tensor) = value
            && let Storage::Constant(buffer) = tensor.storage
            && let Some(bytes) = tensor.sizes.numel().and_then(|n| n.checked_mul(tensor.dtype.size()))
        {
            let length = lengths.entry(buffer).or_default();
            *length = (*length).max(bytes as u64);
        }
    }
    (0..)
        .zip(&program.constant_offsets)
        .map(|(buffer, &start)| {
            let next = starts
                .get(starts.partition_point(|&s| s <= start))
                .copied()
                .unwrap_or(end);
            let stated = lengths.get(&buffer).and_then(|length| start.checked_add(*length));
            start..stated.map_or(next, |stated| stated.min(next))
        })
        .collect()
}

impl Binder<'_> {
    /// Binds every region of a method; gives the bound ones and the state of all.
    ///
    /// # Errors
    /// A region is bound to nothing and fallback is denied, or the overlay contradicts the program.
    pub(crate) fn bind(&self, overlay: &MethodOverlay) -> Result<Bound, Error> {
        let mut bound = Vec::new();
        let mut states = Vec::new();
        let mut counts = vec![None; overlay.regions.len()];
        let mut delegates: Vec<(Arc<Delegate>, Option<u32>)> = Vec::new();
        for (i, region) in overlay.regions.iter().enumerate() {
            let mut state = RegionState {
                start: region.start,
                end: region.end,
                nodes: region.operators.iter().map(|(_, n)| u64::from(*n)).sum(),
                operators: region.operators.clone(),
                backend: None,
                refusals: Vec::new(),
                delegated_runs: 0,
                portable_runs: 0,
                self_check: None,
                isolation: None,
                precision: String::new(),
                kept_states: Vec::new(),
                kept_state_bytes: 0,
                copied_tensors: 0,
                copied_bytes: 0,
                buckets: Vec::new(),
                other_sizes: 0,
                shared_memories: 0,
            };
            let choices = self.in_order(overlay, region, &mut state.refusals);
            let absent = choices.iter().all(|c| self.host.delegate(c.backend()).is_err());
            for choice in choices {
                let backend = choice.backend().to_string();
                match self.load(region, &choice, &mut state.refusals) {
                    Ok((lanes, kept)) => {
                        state.kept_states = kept.iter().map(|kept| kept.name.clone()).collect();
                        let of_bucket = |lane: &Lane| {
                            Some(BucketState {
                                sizes: self.watch.buckets.name(lane.bucket?),
                                runs: 0,
                            })
                        };
                        state.buckets = lanes.iter().filter_map(of_bucket).collect();
                        let call = SessionCall::new(lanes, region.inputs.len(), self.watch.clone());
                        counts[i] = Some(call.counts());
                        state.backend = Some(backend.clone());
                        state.precision = self.check.declared(region.start);
                        if let Ok(delegate) = self.host.delegate(&backend) {
                            state.isolation = Some(delegate.isolation());
                            if !delegates.iter().any(|(known, _)| Arc::ptr_eq(known, &delegate)) {
                                let device = self.device(&backend, &delegate).ok().flatten();
                                delegates.push((delegate, device));
                            }
                        }
                        bound.push(BoundRegion {
                            start: region.start,
                            end: region.end,
                            inputs: region.inputs.clone(),
                            outputs: region.outputs.clone(),
                            // Nothing fits a room beyond this machine's addresses.
                            rooms: region
                                .rooms
                                .iter()
                                .map(|room| usize::try_from(*room).unwrap_or(usize::MAX))
                                .collect(),
                            backend,
                            operators: region.operators.clone(),
                            kept,
                            call: Box::new(call),
                        });
                        break;
                    }
                    Err(reason) => state.refusals.push((backend, in_one_line(&reason))),
                }
            }
            let chosen_portable = self.config.select.order.iter().any(|name| name == PORTABLE);
            if state.backend.is_none() {
                let denied = self.config.select.fallback == Fallback::Deny && !chosen_portable;
                let hint = match self.executor.cannot_run_range(region.start, region.end) {
                    Some(reason) => Some(format!(
                        "they cannot: {reason}. A model that is compiled with `fallback_weights = \"keep\"` has its weights for them"
                    )),
                    None => denied.then(|| "fallback = \"deny\" is set".to_string()),
                };
                if let Some(hint) = hint {
                    return Err(self.denied(overlay, i, &state, absent, hint));
                }
            }
            states.push(state);
        }
        Ok(Bound {
            bound,
            states,
            counts,
            delegates,
        })
    }

    /// What may run the region, in the configuration's order, or in the file's own where the configuration has none.
    fn in_order<'r>(
        &self,
        overlay: &MethodOverlay,
        region: &'r Region,
        refusals: &mut Vec<(String, String)>,
    ) -> Vec<Choice<'r>> {
        let mut choices = self.by_order(overlay, region, refusals);
        choices.retain(|choice| {
            let denial = self.rules.denial(choice.backend());
            refusals.extend(
                denial
                    .iter()
                    .map(|reason| (choice.backend().to_string(), reason.clone())),
            );
            denial.is_none()
        });
        choices
    }

    fn by_order<'r>(
        &self,
        overlay: &MethodOverlay,
        region: &'r Region,
        refusals: &mut Vec<(String, String)>,
    ) -> Vec<Choice<'r>> {
        let choices = choices(overlay, region);
        if self.config.select.order.is_empty() {
            return choices;
        }
        let order = wanted(self.config);
        let (mut named, others): (Vec<Choice<'r>>, Vec<Choice<'r>>) = choices
            .into_iter()
            .partition(|choice| order.iter().any(|name| name == choice.backend()));
        let place = |choice: &Choice<'r>| order.iter().position(|name| name == choice.backend());
        named.sort_by_key(place);
        for name in &order {
            if !named.iter().any(|choice| choice.backend() == name) {
                refusals.push((name.clone(), "the file has no blob of it for this region".to_string()));
            }
        }
        for choice in others {
            refusals.push((
                choice.backend().to_string(),
                "the configuration's order does not name it before `portable`".to_string(),
            ));
        }
        named
    }

    /// The device that the configuration asks for, by index or by a glob on its name.
    fn device(&self, backend: &str, delegate: &Delegate) -> Result<Option<u32>, String> {
        let wanted = self.config.backend.get(backend).and_then(|b| b.device.as_deref());
        let Some(wanted) = wanted.filter(|wanted| *wanted != "auto") else {
            return Ok(None);
        };
        let devices = delegate.devices().map_err(|error| error.to_string())?;
        let found = chosen(&devices, wanted);
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        match found {
            Some(device) => Ok(Some(device.id)),
            None => Err(format!(
                "it has no device `{wanted}`; {}",
                match names.is_empty() {
                    true => "it has none at all".to_string(),
                    false => format!("it has `{}`", names.join("`, `")),
                }
            )),
        }
    }

    /// Loads what a choice has: one blob, or those of the buckets that can be had.
    fn load(
        &self,
        region: &Region,
        choice: &Choice<'_>,
        refusals: &mut Vec<(String, String)>,
    ) -> Result<(Vec<Lane>, Vec<KeptState>), String> {
        let bucketed = match choice {
            Choice::All(candidate) => {
                let (lane, kept) = self.load_lane(region, candidate, None)?;
                return Ok((vec![lane], kept));
            }
            Choice::Buckets(bucketed) => bucketed,
        };
        let mut lanes: Vec<Lane> = Vec::with_capacity(bucketed.len());
        let mut kept: Vec<KeptState> = Vec::new();
        let mut last = "the file has no blob of it for this region".to_string();
        for entry in bucketed {
            let loaded = self
                .load_lane(region, &entry.candidate, Some(entry))
                .and_then(|(lane, own)| {
                    // What one bucket keeps goes to the next, which has to keep the same.
                    if lanes.is_empty() {
                        kept = own;
                    } else if kept != own {
                        return Err("its blob keeps other states than that of another bucket".to_string());
                    }
                    Ok(lane)
                });
            match loaded {
                Ok(lane) => lanes.push(lane),
                Err(reason) => {
                    last = format!("for {}: {reason}", self.watch.buckets.name(entry.bucket as usize));
                    refusals.push((entry.candidate.backend.clone(), in_one_line(&last)));
                }
            }
        }
        if lanes.is_empty() {
            // The last is told by the caller.
            refusals.pop();
            return Err(last);
        }
        Ok((lanes, kept))
    }

    fn load_lane(
        &self,
        region: &Region,
        candidate: &Candidate,
        bucketed: Option<&BucketedCandidate>,
    ) -> Result<(Lane, Vec<KeptState>), String> {
        let delegate = self
            .host
            .delegate(&candidate.backend)
            .map_err(|error| error.to_string())?;
        let blob = self
            .program
            .named(self.file.as_slice(), &candidate.blob)
            .ok_or_else(|| format!("the file has no segment `{}`", candidate.blob))?;
        match delegate.check_blob(blob).map_err(|error| error.to_string())? {
            BlobVerdict::Optimal | BlobVerdict::RecompileBetter(_) => {}
            BlobVerdict::UnsupportedHere(reason) => return Err(format!("its blob does not run here: {reason}")),
            BlobVerdict::NotMine(reason) => return Err(format!("its blob is another's: {reason}")),
            BlobVerdict::Corrupt(reason) => return Err(format!("its blob is damaged: {reason}")),
        }
        let mut apart = Vec::new();
        if let Ok(envelope) = delegraph_abi::envelope::parse(blob) {
            self.check.declare(region.start, &envelope.meta.precision);
            apart = envelope.apart;
        }
        let source = Arc::new(FileBlob {
            blob: self
                .window(&candidate.blob)
                .ok_or_else(|| format!("the segment `{}` does not lie in the file", candidate.blob))?,
            // One that is missing is told when it is looked for.
            sections: apart
                .iter()
                .filter_map(|apart| Some((apart.hash, self.window(&section_key(&apart.hash))?)))
                .collect(),
        });
        let outputs = match bucketed {
            None => region
                .outputs
                .iter()
                .map(|&value| self.capacity(value))
                .collect::<Result<Vec<Dims>, String>>()?,
            Some(bucketed) => self.bucket_capacity(region, bucketed)?,
        };
        let weights = Arc::new(FileWeights {
            file: self.file.clone(),
            ranges: self.weight_ranges(candidate)?,
        });
        let device = self.device(&candidate.backend, &delegate)?;
        let session = delegate
            .load_from(source, weights, device, &CallOptions::default())
            .map_err(|error| error.to_string())?;
        let kept = self.kept(region, session.states())?;
        let mut session = session.on(self.parallel);
        if let Some(memory) = self.arenas.memory() {
            session.share(&memory);
        }
        let lane = Lane {
            session,
            outputs,
            callee: Callee {
                backend: candidate.backend.as_str().into(),
                blob: candidate.blob.as_str().into(),
            },
            bucket: bucketed.map(|bucketed| bucketed.bucket as usize),
            shown: Shown::default(),
        };
        Ok((lane, kept))
    }

    /// The bytes of something with a name in the file, which stay as long as somebody has them.
    fn window(&self, key: &str) -> Option<Bytes> {
        let range = self.program.named_range(key)?;
        let length = range.end.checked_sub(range.start)?;
        self.file
            .slice(usize::try_from(range.start).ok()?, usize::try_from(length).ok()?)
    }

    /// The largest sizes of each output in a bucket: what the overlay says, where the plan has that room or makes it at run time.
    fn bucket_capacity(&self, region: &Region, bucketed: &BucketedCandidate) -> Result<Vec<Dims>, String> {
        if bucketed.outputs.len() != region.outputs.len() {
            return Err("the overlay has sizes of another number of outputs".to_string());
        }
        let sizes = |(value, sizes): (&u32, &Vec<i64>)| {
            let wrong = || format!("the overlay has sizes for output %{value} that the plan does not");
            let sizes = Dims::new(sizes).map_err(|_| wrong())?;
            match self.executor.plan().values.get(*value as usize) {
                Some(EValue::Tensor(tensor)) if tensor.sizes.rank() == sizes.rank() => {
                    let unbounded = tensor.dynamism == Dynamism::Unbounded;
                    let fits = sizes
                        .iter()
                        .zip(tensor.sizes.iter())
                        .all(|(size, most)| *size >= 0 && (unbounded || size <= most));
                    if fits { Ok(sizes) } else { Err(wrong()) }
                }
                _ => Err(wrong()),
            }
        };
        region.outputs.iter().zip(&bucketed.outputs).map(sizes).collect()
    }

    /// The states that a session keeps, where it may: each is a buffer that the region alone reads and whose new value it alone makes.
    fn kept(&self, region: &Region, states: &[StateInfo]) -> Result<Vec<KeptState>, String> {
        let kept = |state: &StateInfo| {
            let fail = |problem: &str| {
                let name = &state.name;
                Err(format!(
                    "its blob keeps the state `{name}` on its side, and cannot here: {problem}"
                ))
            };
            let kept = KeptState {
                name: state.name.clone(),
                input: state.input,
                output: state.output,
            };
            let range = region.start..region.end;
            if let Err(problem) = self.executor.can_keep(range, &region.inputs, &region.outputs, &kept) {
                return fail(&problem);
            }
            let plan = self.executor.plan();
            let value = region.inputs.get(state.input).map(|&value| value as usize);
            let Some(EValue::Tensor(buffer)) = value.and_then(|value| plan.values.get(value)) else {
                return fail("the region has no such input");
            };
            let bytes = buffer.sizes.numel().and_then(|n| n.checked_mul(buffer.dtype.size()));
            if bytes.map(|bytes| bytes as u64) != Some(state.bytes) {
                return fail("the blob's state has another size than the buffer");
            }
            let Some(name) = &buffer.name else {
                return fail("the file gives the buffer no name");
            };
            // Another method's session has a buffer of its own, and adopts this one's where it is told to.
            Ok(KeptState {
                name: name.clone(),
                ..kept
            })
        };
        states.iter().map(kept).collect()
    }

    /// The largest sizes of an output, which its planned memory holds.
    fn capacity(&self, value: u32) -> Result<Dims, String> {
        match self.executor.plan().values.get(value as usize) {
            Some(EValue::Tensor(tensor)) if tensor.dynamism == Dynamism::Unbounded => {
                Err(format!("output %{value} has an unbounded size"))
            }
            Some(EValue::Tensor(tensor)) => Ok(tensor.sizes),
            _ => Err(format!("output %{value} is no tensor")),
        }
    }

    /// Where the weights that a blob takes by id lie in the file.
    fn weight_ranges(&self, candidate: &Candidate) -> Result<BTreeMap<u32, (usize, usize)>, String> {
        let mut ranges = BTreeMap::new();
        for &(id, buffer) in &candidate.weights {
            let range = self
                .constants
                .get(buffer as usize)
                .ok_or_else(|| format!("weight {id} names constant buffer {buffer}, which the file does not have"))?;
            let fits =
                |n: u64| usize::try_from(n).map_err(|_| format!("weight {id} lies beyond this machine's addresses"));
            let length = range.end.checked_sub(range.start);
            let length = length.ok_or_else(|| format!("weight {id} lies outside the constant segment"))?;
            ranges.insert(id, (fits(range.start)?, fits(length)?));
        }
        Ok(ranges)
    }

    fn denied(&self, overlay: &MethodOverlay, region: usize, state: &RegionState, absent: bool, hint: String) -> Error {
        let operators: Vec<String> = state.operators.iter().map(|(op, n)| format!("{n} x {op}")).collect();
        let reasons: Vec<String> = state
            .refusals
            .iter()
            .map(|(backend, reason)| format!("{backend}: {reason}"))
            .collect();
        Error::Denied {
            method: format!("{}:{}", self.name, overlay.method),
            region,
            operators: operators.join(", "),
            reason: if reasons.is_empty() {
                "no delegate is configured".to_string()
            } else {
                reasons.join("; ")
            },
            absent,
            hint,
        }
    }
}

/// A message with its hint in brackets: reports give one line a region.
pub(crate) fn in_one_line(message: &str) -> String {
    match message.split_once("\n  hint: ") {
        None => message.to_string(),
        Some((what, hint)) => format!("{what} ({hint})"),
    }
}

/// A blob in place, in the mapped file.
struct FileBlob {
    blob: Bytes,
    /// The sections of it that lie elsewhere in the file, by hash.
    sections: BTreeMap<[u8; 32], Bytes>,
}

impl BlobSource for FileBlob {
    fn blob(&self) -> &[u8] {
        self.blob.as_slice()
    }

    fn section(&self, hash: &[u8; 32]) -> Option<&[u8]> {
        self.sections.get(hash).map(Bytes::as_slice)
    }
}

/// Weights in place, in the mapped file.
struct FileWeights {
    file: Bytes,
    ranges: BTreeMap<u32, (usize, usize)>,
}

impl Weights for FileWeights {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let &(start, length) = self.ranges.get(&id)?;
        self.file.as_slice().get(start..start.checked_add(length)?)
    }

    fn ids(&self) -> Vec<u32> {
        self.ranges.keys().copied().collect()
    }

    /// Where the bytes lie: the file stays mapped as long as anybody has weights of it.
    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        let bytes = self.bytes(id)?;
        Some([bytes.as_ptr() as u64, bytes.len() as u64])
    }
}
