//! Binding: each region goes to the first candidate that is present, allowed and fit.

use crate::Error;
use crate::delegates::{PORTABLE, wanted};
use crate::report::RegionState;
use delegraph_config::{Config, Fallback};
use delegraph_executor::{BoundRegion, RegionCall, RegionError};
use delegraph_host::{BlobVerdict, Host, Input, Output, Status, Weights};
use delegraph_ir::Bytes;
use delegraph_kernels::{Growable, Out, Tensor};
use delegraph_pte::Verified;
use delegraph_pte::model::{Dynamism, EValue, Plan, Storage};
use delegraph_pte::overlay::{Candidate, MethodOverlay, Region};
use delegraph_types::{Dims, Parallel};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What binding needs to know.
pub(crate) struct Binder<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Verified,
    pub(crate) file: &'a Bytes,
    pub(crate) plan: &'a Plan,
    pub(crate) config: &'a Config,
    pub(crate) host: &'a Host,
    /// Where each constant buffer lies in the file.
    pub(crate) constants: Vec<Range<u64>>,
    /// Threads that delegates may borrow.
    pub(crate) parallel: Parallel,
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
    pub(crate) fn bind(&self, overlay: &MethodOverlay) -> Result<(Vec<BoundRegion>, Vec<RegionState>), Error> {
        let mut bound = Vec::new();
        let mut states = Vec::new();
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
            };
            let candidates = self.in_order(region, &mut state.refusals);
            let absent = candidates.iter().all(|c| self.host.delegate(&c.backend).is_err());
            for candidate in candidates {
                match self.load(region, candidate) {
                    Ok(call) => {
                        state.backend = Some(candidate.backend.clone());
                        bound.push(BoundRegion {
                            start: region.start,
                            end: region.end,
                            inputs: region.inputs.clone(),
                            outputs: region.outputs.clone(),
                            backend: candidate.backend.clone(),
                            operators: region.operators.clone(),
                            call,
                        });
                        break;
                    }
                    Err(reason) => state.refusals.push((candidate.backend.clone(), in_one_line(&reason))),
                }
            }
            let chosen_portable = self.config.select.order.iter().any(|name| name == PORTABLE);
            if state.backend.is_none() && self.config.select.fallback == Fallback::Deny && !chosen_portable {
                return Err(self.denied(overlay, i, &state, absent));
            }
            states.push(state);
        }
        Ok((bound, states))
    }

    /// The region's candidates in the configuration's order, or in the file's own where the configuration has none.
    fn in_order<'r>(&self, region: &'r Region, refusals: &mut Vec<(String, String)>) -> Vec<&'r Candidate> {
        if self.config.select.order.is_empty() {
            return region.candidates.iter().collect();
        }
        let order = wanted(self.config);
        let mut candidates = Vec::new();
        for name in &order {
            match region.candidates.iter().find(|c| c.backend == *name) {
                Some(candidate) => candidates.push(candidate),
                None => refusals.push((name.clone(), "the file has no blob of it for this region".to_string())),
            }
        }
        for candidate in region.candidates.iter().filter(|c| !order.contains(&c.backend)) {
            refusals.push((
                candidate.backend.clone(),
                "the configuration's order does not name it before `portable`".to_string(),
            ));
        }
        candidates
    }

    fn load(&self, region: &Region, candidate: &Candidate) -> Result<Box<dyn RegionCall>, String> {
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
        let outputs = region
            .outputs
            .iter()
            .map(|&value| self.capacity(value))
            .collect::<Result<Vec<Dims>, String>>()?;
        let weights = Arc::new(FileWeights {
            file: self.file.clone(),
            ranges: self.weight_ranges(candidate)?,
        });
        let session = delegate.load(blob, weights).map_err(|error| error.to_string())?;
        let session = session.on(self.parallel);
        Ok(Box::new(SessionCall {
            session,
            outputs,
            gathered: (0..region.inputs.len()).map(|_| Growable::default()).collect(),
            given: Vec::with_capacity(region.inputs.len()),
            taken: Vec::with_capacity(region.outputs.len()),
            actual: Vec::with_capacity(region.outputs.len()),
        }))
    }

    /// The largest sizes of an output, which its planned memory holds.
    fn capacity(&self, value: u32) -> Result<Dims, String> {
        match self.plan.values.get(value as usize) {
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

    fn denied(&self, overlay: &MethodOverlay, region: usize, state: &RegionState, absent: bool) -> Error {
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
}

/// A delegate's session as the executor calls it.
struct SessionCall {
    session: delegraph_host::Session,
    outputs: Vec<Dims>,
    /// Row-major copies of inputs that lie otherwise; kept between runs.
    gathered: Vec<Growable>,
    /// Empty between runs; kept for their allocations.
    given: Vec<Input<'static>>,
    taken: Vec<Output<'static>>,
    actual: Vec<Dims>,
}

impl RegionCall for SessionCall {
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        let failed = |error: &dyn std::fmt::Display| RegionError::Failed(error.to_string());
        for (tensor, copy) in inputs.iter().zip(&mut self.gathered) {
            if !tensor.is_contiguous() {
                gather(tensor, copy).map_err(|error| failed(&error))?;
            }
        }
        let mut given = emptied(std::mem::take(&mut self.given));
        for (tensor, copy) in inputs.iter().zip(&self.gathered) {
            let length = tensor.numel() * tensor.dtype().size();
            given.push(Input {
                dtype: tensor.dtype(),
                sizes: tensor.sizes(),
                bytes: if tensor.is_contiguous() {
                    &tensor.bytes()[..length]
                } else {
                    &copy.bytes()[..length]
                },
            });
        }
        for (out, largest) in outputs.iter_mut().zip(&self.outputs) {
            out.resize(largest).map_err(|error| failed(&error))?;
            if !out.is_contiguous() {
                return Err(RegionError::Failed("an output is not row-major".to_string()));
            }
        }
        let mut taken = emptied_outputs(std::mem::take(&mut self.taken));
        for out in outputs.iter_mut() {
            taken.push(Output {
                dtype: out.dtype(),
                sizes: *out.sizes(),
                bytes: out.bytes_mut(),
            });
        }
        let outcome = self.session.execute(&given, &mut taken);
        // The sizes that the delegate gave, before its view of the bytes ends.
        self.actual.clear();
        self.actual.extend(taken.iter().map(|output| output.sizes));
        self.given = emptied(given);
        self.taken = emptied_outputs(taken);
        outcome.map_err(|error| match error.code {
            Status::DEVICE_LOST => RegionError::Lost(in_one_line(&error.to_string())),
            _ => RegionError::Failed(in_one_line(&error.to_string())),
        })?;
        for (out, sizes) in outputs.iter_mut().zip(&self.actual) {
            out.resize(sizes).map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// The room of a list for the next run: collecting an emptied list in place keeps its allocation.
fn emptied<'a>(mut list: Vec<Input<'_>>) -> Vec<Input<'a>> {
    list.clear();
    let none = |input: Input<'_>| Input {
        dtype: input.dtype,
        sizes: &[],
        bytes: &[],
    };
    list.into_iter().map(none).collect()
}

/// As [`emptied`].
fn emptied_outputs<'a>(mut list: Vec<Output<'_>>) -> Vec<Output<'a>> {
    list.clear();
    let none = |output: Output<'_>| Output {
        dtype: output.dtype,
        sizes: output.sizes,
        bytes: &mut [],
    };
    list.into_iter().map(none).collect()
}

/// Copies a tensor's elements to row-major order.
fn gather(tensor: &Tensor<'_>, into: &mut Growable) -> Result<(), delegraph_kernels::KernelError> {
    let view = crate::TensorView {
        dtype: tensor.dtype(),
        shape: *tensor.sizes(),
        strides: *tensor.strides(),
        bytes: tensor.bytes(),
    };
    view.write_contiguous(into.reserve(tensor.numel() * tensor.dtype().size())?);
    Ok(())
}

/// A blob's envelope in words.
pub fn describe_blob(blob: &[u8]) -> String {
    let envelope = match delegraph_abi::envelope::parse(blob) {
        Err(error) => return format!("no envelope: {error}"),
        Ok(envelope) => envelope,
    };
    let meta = &envelope.meta;
    let mut lines = vec![
        format!("delegate   {} {}", meta.delegate, meta.delegate_version),
        format!("format     {} version {}", meta.format, meta.format_version),
        format!(
            "target     {}",
            if meta.target.is_empty() { "any" } else { &meta.target }
        ),
        format!(
            "precision  {}",
            if meta.precision.is_empty() {
                "the graph's"
            } else {
                &meta.precision
            }
        ),
        format!("abi        minor {}", meta.abi_minor),
        format!("graph      {}", hex(&meta.graph_hash)),
        format!(
            "payload    {} bytes, sha256 {}",
            envelope.payload.len(),
            hex(&envelope.payload_hash)
        ),
    ];
    for section in &envelope.sections {
        lines.push(format!(
            "section    {} {} bytes, aligned {}",
            section.name,
            section.bytes.len(),
            section.align
        ));
    }
    lines.join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
