//! IR to `.pte`: the portable plan with its memory plan, constants, states, the delegation overlay and our IR.
//!
//! Takes a module in the portable dialect, whose nodes of delegated regions are tagged and contiguous, and writes one file that
//! ExecuTorch runs unchanged. Knows no delegate and no `.pt2`.
//!
//! Reading order: [`emit`] here, then `graph.rs` (a method becomes a plan), `call.rs` (a node becomes an instruction),
//! `size.rs` (a size expression becomes primitive instructions), `control.rs` (branches and loops become jumps), `memory.rs`,
//! `origins.rs` (which node an instruction comes from, for profiles).

mod blobs;
mod bucket;
mod call;
mod constants;
mod control;
mod error;
mod graph;
mod left_out;
mod memory;
mod origins;
mod size;
mod values;

pub use error::EmitError;

use blobs::Blobs;
use bucket::Buckets;
use constants::ConstantTable;
use delegraph_ir::Module;
use delegraph_lower::CompiledRegion;
use delegraph_pte::origins::DEBUG_KEY;
use delegraph_pte::overlay::{BucketedCandidate, Candidate, IR_KEY, MethodOverlay, OVERLAY_KEY, Overlay, Region};
use delegraph_pte::{ProgramParts, write};
use left_out::LeftOut;

/// What goes into the file.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// In the portable dialect.
    pub module: &'a Module,
    /// Compiled regions of each graph, in the order of `module.graphs`; may be shorter.
    pub regions: &'a [Vec<CompiledRegion>],
    /// The module before decomposition, which rides along so that the file can be partitioned again.
    pub source: Option<&'a Module>,
}

/// Bytes of the file by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purposes {
    /// Weights and literals.
    pub constants: u64,
    /// Initial values of mutable buffers.
    pub states: u64,
    /// Blobs of delegates.
    pub blobs: u64,
    /// Our IR.
    pub ir: u64,
    /// The overlay, and the names of the nodes that instructions and blobs come from.
    pub overlay: u64,
    /// The portable program itself, and padding.
    pub program: u64,
    /// Weights that are not in the file, since delegates have them in their blobs ([`CompiledRegion::leaves_weights`]).
    pub left_out: u64,
}

/// A written file.
#[derive(Debug, Clone)]
pub struct Emitted {
    /// The `.pte`.
    pub bytes: Vec<u8>,
    /// What its bytes are for.
    pub purposes: Purposes,
}

/// Writes a `.pte`. Where weights are left out, our IR is too: it could not be read without them.
///
/// # Errors
/// A node that the portable dialect does not have, a size that no input binds, a region that is not contiguous.
pub fn emit(input: Input) -> Result<Emitted, EmitError> {
    let left_out = LeftOut::of(input.module, input.regions);
    let mut constants = ConstantTable::new(input.module, &left_out);
    let mut states = constants::StateTable::default();
    let mut origins = origins::OriginTable::default();
    let mut plans = Vec::new();
    let mut overlay = Overlay::default();
    let mut blobs = Blobs::default();
    for (i, graph) in input.module.graphs.iter().enumerate() {
        let compiled = input.regions.get(i).map_or(&[][..], Vec::as_slice);
        let (plan, ranges) = graph::build(input.module, graph, compiled, &mut constants, &mut states, &mut origins)?;
        let mut buckets = Buckets::of(graph);
        let mut method = MethodOverlay {
            method: graph.name.clone(),
            ..MethodOverlay::default()
        };
        for range in ranges {
            let region = &compiled[range.index];
            let (mut candidates, mut bucketed) = (Vec::new(), Vec::new());
            for candidate in &region.candidates {
                let (key, is_new) = blobs.add(&candidate.blob);
                let mut weights = Vec::new();
                for &(id, constant) in &candidate.weights {
                    weights.push((id, constants.index(constant)?));
                }
                if is_new {
                    origins.blob(&key, &candidate.nodes);
                }
                let entry = Candidate {
                    backend: candidate.backend.clone(),
                    target: candidate.target.clone(),
                    precision: candidate.precision.clone(),
                    blob: key,
                    weights,
                };
                match &candidate.bucket {
                    None => candidates.push(entry),
                    Some(of) => bucketed.push(BucketedCandidate {
                        bucket: buckets.index(&of.bucket)?,
                        outputs: of.outputs.clone(),
                        candidate: entry,
                    }),
                }
            }
            method.regions.push(Region {
                start: range.start,
                end: range.end,
                inputs: range.inputs,
                outputs: range.outputs,
                rooms: range.rooms,
                operators: region.operators.clone(),
                candidates,
                bucketed,
            });
        }
        (method.buckets, method.symbols) = buckets.finish();
        if !method.regions.is_empty() {
            overlay.methods.push(method);
        }
        plans.push(plan);
    }
    let mut named: Vec<(String, u32, Vec<u8>)> = Vec::new();
    let ir = match input.source {
        Some(source) if left_out.is_empty() => serialize_source(source, &mut constants)?,
        _ => Vec::new(),
    };
    overlay.left_out = left_out.names();
    let mut purposes = Purposes {
        ir: ir.len() as u64,
        left_out: left_out.bytes(input.module),
        ..Purposes::default()
    };
    if !ir.is_empty() {
        named.push((IR_KEY.to_string(), 16, ir));
    }
    if !overlay.methods.is_empty() {
        let json = serde_json::to_vec(&overlay).map_err(|error| EmitError::Write(error.to_string()))?;
        purposes.overlay = json.len() as u64;
        named.push((OVERLAY_KEY.to_string(), 16, json));
    }
    if let Some(origins) = origins.finish() {
        let json = serde_json::to_vec(&origins).map_err(|error| EmitError::Write(error.to_string()))?;
        purposes.overlay += json.len() as u64;
        named.push((DEBUG_KEY.to_string(), 16, json));
    }
    let mut named: Vec<(String, u32, &[u8])> = named.iter().map(|(k, a, b)| (k.clone(), *a, b.as_slice())).collect();
    let blobs = blobs.finish()?;
    for (key, align, bytes) in &blobs {
        purposes.blobs += bytes.len() as u64;
        named.push((key.clone(), *align, bytes));
    }
    let constant_bytes = constants.slices();
    let state_bytes = states.slices();
    purposes.constants = constant_bytes.iter().map(|b| b.len() as u64).sum();
    purposes.states = state_bytes.iter().map(|b| b.len() as u64).sum();
    let mut bytes = Vec::new();
    let parts = ProgramParts {
        plans: &plans,
        constants: &constant_bytes,
        mutable_states: &state_bytes,
        named: &named,
    };
    write(&parts, &mut bytes).map_err(|error| EmitError::Write(error.to_string()))?;
    let known = purposes.constants + purposes.states + purposes.blobs + purposes.ir + purposes.overlay;
    purposes.program = (bytes.len() as u64).saturating_sub(known);
    Ok(Emitted { bytes, purposes })
}

/// The IR segment. Its constants are references to the file's constant buffers.
fn serialize_source(source: &Module, constants: &mut ConstantTable) -> Result<Vec<u8>, EmitError> {
    let mut indices = Vec::with_capacity(source.constants.len());
    for (_, constant) in source.constants.iter() {
        indices.push(constants.index_of(constant)?);
    }
    Ok(delegraph_ir::serialize(source, |id| indices.get(id.index()).copied()))
}
