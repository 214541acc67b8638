//! A model to a `.pte`: import, simplify, lower over delegates, decompose, emit.

use crate::Error;
use crate::cache::{Caching, LoadCache};
use crate::delegates::{check_config, wanted};
use crate::device_rules::DeviceRules;
use crate::leave_weights;
use crate::shapes::buckets;
use crate::source::{Format, Source};
use delegraph_config::{Config, Fallback};
use delegraph_emit::{Emitted, Input, Purposes};
use delegraph_host::{Host, Manifest};
use delegraph_ir::{Bytes, Module};
use delegraph_lower::{Backend, ClaimsBackend, LowerOptions, Lowered, Progress, Slot};
use delegraph_pte::Verified;
use delegraph_pte::overlay::{IR_KEY, OVERLAY_KEY, Overlay};
use delegraph_tag::{Policy, Rule};
use delegraph_types::DType;
use std::cell::RefCell;
use std::rc::Rc;

/// A compiled model.
#[derive(Debug)]
pub struct Compiled {
    /// The `.pte`.
    pub bytes: Vec<u8>,
    /// What its bytes are for.
    pub purposes: Purposes,
    /// Who took what, and why the others refused.
    pub report: Lowered,
}

/// Reads a model into the IR: a `.pt2` archive, a `.pte` with our IR inside, or a straight-line `.pte`.
///
/// # Errors
/// The file is malformed or holds what is not supported.
pub fn import(source: &Source) -> Result<Module, Error> {
    let mut module = match source.format()? {
        Format::Pt2 => {
            delegraph_import::import_bytes(source.bytes().clone(), &delegraph_import::ImportOptions::default())
                .map_err(|error| Error::Import {
                    name: source.name().to_string(),
                    source: error,
                })?
        }
        Format::Pte => import_program(source)?,
        Format::Bundled | Format::Ptd => {
            return Err(Error::UnknownFormat {
                name: source.name().to_string(),
                hint: "a bundled program or data file is no model by itself".to_string(),
            });
        }
    };
    delegraph_passes::simplify(&mut module)?;
    delegraph_ir::verify(&module).map_err(|error| Error::Bug(format!("{}: {error}", source.name())))?;
    Ok(module)
}

/// The IR that rides along in a `.pte` of ours, or the program lifted back.
fn import_program(source: &Source) -> Result<Module, Error> {
    let file = source.bytes();
    let program = Verified::parse(file.as_slice()).map_err(|error| Error::Program {
        name: source.name().to_string(),
        source: error,
    })?;
    let segment = |problem: String| Error::Segment {
        name: source.name().to_string(),
        key: IR_KEY.to_string(),
        problem,
    };
    let Some(ir) = program.named(file.as_slice(), IR_KEY) else {
        if let Some(weight) = left_out(&program, file).first() {
            return Err(segment(format!(
                "the file was written without weights, `{weight}` among them, since its delegates have them packed; compile the model that it was \
                 made of again, or with `fallback_weights = \"keep\"`"
            )));
        }
        return delegraph_import::lift_program(&program, file, None).map_err(|error| Error::Import {
            name: source.name().to_string(),
            source: error,
        });
    };
    // A constant buffer reaches to the next one, or to the end of its segment: the IR knows how much of it is meant.
    let mut ends: Vec<u64> = program.constant_offsets.clone();
    let segment_end = program
        .constant_segment
        .and_then(|i| program.segments.get(i as usize))
        .map_or(0, |s| s.end);
    ends.push(segment_end);
    ends.sort_unstable();
    let buffer = |index: u32| -> Option<Bytes> {
        let start = *program.constant_offsets.get(index as usize)?;
        let end = ends
            .get(ends.partition_point(|&e| e <= start))
            .copied()
            .unwrap_or(start);
        file.slice(
            usize::try_from(start).ok()?,
            usize::try_from(end.checked_sub(start)?).ok()?,
        )
    };
    delegraph_ir::deserialize(ir, buffer).map_err(|error| segment(error.to_string()))
}

/// The weights that the file was written without.
fn left_out(program: &Verified, file: &Bytes) -> Vec<String> {
    let overlay = program.named(file.as_slice(), OVERLAY_KEY);
    let overlay = overlay.and_then(|text| serde_json::from_slice::<Overlay>(text).ok());
    overlay.map_or_else(Vec::new, |overlay| overlay.left_out)
}

/// What the configuration asks of lowering.
fn lower_options(config: &Config) -> LowerOptions {
    let rules = config
        .rule
        .iter()
        .map(|rule| Rule {
            op: rule.matches.op.clone(),
            dtype: rule.matches.dtype.as_deref().and_then(DType::from_name),
            name: rule.matches.node.clone(),
            deny: rule.deny.clone(),
            allow: Vec::new(),
            reason: rule.reason.clone(),
        })
        .collect();
    let targets = config
        .backend
        .iter()
        .filter_map(|(name, backend)| Some((name.clone(), backend.target.clone()?)));
    LowerOptions {
        backends: wanted(config),
        targets: targets.collect(),
        policy: Policy {
            min_nodes: config.select.min_nodes,
            boundary_penalty: match config.select.max_border_bytes {
                0.0 => 0.0,
                bytes => 1.0 / bytes,
            },
            rules,
            ..Policy::default()
        },
        strict: config.select.fallback == Fallback::Deny,
        ..LowerOptions::default()
    }
}

/// Partitions a module in place and compiles its regions.
///
/// # Errors
/// A delegate cannot be used and fallback is denied; a rule of the configuration is wrong; too little is delegated.
pub fn partition(
    module: &mut Module,
    config: &Config,
    host: &Host,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Lowered, Error> {
    partition_over(module, config, host, None, progress)
}

/// Partitions a module in place by what manifests claim, without their libraries: what [`partition`] would give if the delegates took what
/// they claim and no more. Every region's blob is empty.
///
/// # Errors
/// A rule of the configuration is wrong.
pub fn partition_by_claims(
    module: &mut Module,
    config: &Config,
    manifests: &[&Manifest],
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Lowered, Error> {
    check_config(config)?;
    let options = LowerOptions {
        strict: false,
        buckets: buckets(module, &config.select.shapes)?,
        ..lower_options(config)
    };
    let mut slots: Vec<Slot> = Vec::new();
    for name in options.backends.iter().filter(|name| *name != "portable") {
        if slots.iter().any(|(known, _)| known == name) {
            continue;
        }
        let of_name: Vec<&&Manifest> = manifests.iter().filter(|manifest| manifest.name == *name).collect();
        // Of a delegate in two libraries it is the one that compiles which claims.
        let claiming = of_name.iter().find(|manifest| !manifest.claims.is_empty());
        let slot = match (claiming, of_name.is_empty()) {
            (Some(manifest), _) => Ok(Box::new(ClaimsBackend::new(manifest)) as Box<dyn Backend>),
            (None, false) => Err("its manifest claims nothing: no `[[op]]`".to_string()),
            (None, true) => Err("no manifest of it was found".to_string()),
        };
        slots.push((name.clone(), slot));
    }
    Ok(delegraph_lower::lower_with(module, &options, slots, progress)?)
}

/// What counts only where a model is compiled on the machine that runs it.
pub(crate) struct AtLoad<'a> {
    /// Blobs that were compiled before.
    pub(crate) cache: Option<Rc<RefCell<LoadCache>>>,
    /// Backends that may not be used here.
    pub(crate) rules: &'a DeviceRules<'a>,
}

/// [`partition`], here or ahead of time.
fn partition_over(
    module: &mut Module,
    config: &Config,
    host: &Host,
    at_load: Option<&AtLoad<'_>>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Lowered, Error> {
    check_config(config)?;
    let mut options = LowerOptions {
        targets_exist: at_load.is_none(),
        buckets: buckets(module, &config.select.shapes)?,
        ..lower_options(config)
    };
    if let Some(at_load) = at_load {
        options
            .backends
            .retain(|backend| at_load.rules.denial(backend).is_none());
    }
    if config.select.fallback == Fallback::Deny {
        for backend in &options.backends {
            host.delegate(backend)?;
        }
    }
    for (i, rule) in config.rule.iter().enumerate() {
        if let Some(dtype) = rule
            .matches
            .dtype
            .as_deref()
            .filter(|name| DType::from_name(name).is_none())
        {
            return Err(Error::Usage(format!("rule {i}: there is no dtype `{dtype}`")));
        }
    }
    let mut slots: Vec<Slot> = Vec::new();
    for name in &options.backends {
        if slots.iter().any(|(known, _)| known == name) {
            continue;
        }
        let cache = at_load.and_then(|at_load| at_load.cache.as_ref());
        let backend = host.delegate(name).map(|delegate| match cache {
            Some(cache) => Box::new(Caching::new(delegate, cache.clone())) as Box<dyn Backend>,
            None => Box::new(delegate),
        });
        slots.push((name.clone(), backend.map_err(|error| error.to_string())));
    }
    Ok(delegraph_lower::lower_with(module, &options, slots, progress)?)
}

/// Compiles a module that [`import`] made.
///
/// # Errors
/// As [`partition`]; or an operator has no portable form.
pub fn compile(
    module: Module,
    config: &Config,
    host: &Host,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Compiled, Error> {
    compile_over(module, config, host, None, progress)
}

/// [`compile`], here or ahead of time.
pub(crate) fn compile_over(
    module: Module,
    config: &Config,
    host: &Host,
    at_load: Option<&AtLoad<'_>>,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Compiled, Error> {
    let source = module.clone();
    let mut module = module;
    let report = partition_over(&mut module, config, host, at_load, progress)?;
    check_coverage(&report, config)?;
    delegraph_passes::to_portable(&mut module)?;
    delegraph_ir::verify(&module).map_err(|error| Error::Bug(format!("after the portable passes: {error}")))?;
    let mut report = report;
    let mut regions: Vec<_> = report
        .graphs
        .iter_mut()
        .map(|graph| std::mem::take(&mut graph.regions))
        .collect();
    // A model that is compiled where it runs lies in memory with its weights.
    if at_load.is_none() {
        leave_weights::mark(&mut regions, &module, config, host);
    }
    let Emitted { bytes, purposes } = delegraph_emit::emit(Input {
        module: &module,
        regions: &regions,
        source: Some(&source),
    })?;
    for (graph, regions) in report.graphs.iter_mut().zip(regions) {
        graph.regions = regions;
    }
    Ok(Compiled {
        bytes,
        purposes,
        report,
    })
}

fn check_coverage(report: &Lowered, config: &Config) -> Result<(), Error> {
    let coverage = report.coverage();
    let share = if coverage.macs == 0 {
        1.0
    } else {
        coverage.delegated_macs as f64 / coverage.macs as f64
    };
    if share < config.select.require_coverage {
        let mut left: Vec<&str> = report
            .graphs
            .iter()
            .flat_map(|graph| &graph.nodes)
            .filter(|node| node.owner.is_none() && node.macs > 0)
            .map(|node| node.op)
            .collect();
        left.sort_unstable();
        left.dedup();
        return Err(Error::Coverage {
            got: share * 100.0,
            want: config.select.require_coverage * 100.0,
            hint: format!("nobody took {}", left.join(", ")),
        });
    }
    Ok(())
}
