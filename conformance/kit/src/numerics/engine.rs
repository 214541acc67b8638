//! A module through all of Delegraph over the library under test, as an app would run it.

use super::claim::claim_of;
use crate::case::{Failure, Trial};
use crate::leaf::{leaf, value};
use crate::subject::Subject;
use delegraph::{LoadOptions, Session, Source};
use delegraph_config::{Backend, Config};
use delegraph_host::{Delegate, Host, HostOptions, Isolation};
use delegraph_ir::Module;
use delegraph_lower::{LowerOptions, Lowered};
use delegraph_runner::{Claim, Leaf};
use delegraph_tag::Policy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The library under test, and nothing else, as a backend of Delegraph. It is loaded at the first use.
pub struct Engine {
    backend: String,
    config: Config,
    host: Arc<Host>,
    /// A manifest made for this run lies here.
    _folder: Option<tempfile::TempDir>,
}

/// A module of which the delegate took something.
pub struct Taken {
    /// The program.
    pub bytes: Vec<u8>,
    /// What the delegate said.
    pub report: Lowered,
    /// Lower precision that its blob declares; empty: that of the graph.
    pub precision: String,
}

impl Engine {
    /// Finds the library and its manifest; loads nothing yet, but where there is no manifest.
    ///
    /// # Errors
    /// The manifest cannot be written where it has to be changed to name this library; or a library without a manifest does not say
    /// who it is.
    pub fn new(subject: &Subject) -> Result<Engine, String> {
        // Without a manifest the library alone says what it is called, and the host holds it to that.
        let backend = match &subject.manifest {
            Some(_) => subject.name().to_string(),
            None => delegraph_host::look(&subject.library, None)?.info.name,
        };
        let (file, folder) = pinned(subject)?;
        let mut config = Config::default();
        config.select.order = vec![backend.clone()];
        config.select.min_nodes = 1;
        config.select.max_border_bytes = 0.0;
        let options = toml::Table::try_from(&subject.options).map_err(|error| format!("options: {error}"))?;
        let settings = Backend {
            device: subject.device.map(|index| index.to_string()),
            options: options.clone(),
            ..Backend::default()
        };
        config.backend.insert(backend.clone(), settings);
        let mut host = HostOptions {
            pinned: vec![(backend.clone(), file)],
            parallel: delegraph_types::Parallel::new(delegraph_threads::pool(), usize::MAX),
            ..HostOptions::default()
        };
        if !subject.isolated {
            // Each case runs in a process of its own already.
            host.isolation.insert(backend.clone(), Isolation::InProcess);
        }
        if !options.is_empty() {
            let value = serde_json::Value::Object(subject.options.clone());
            host.options.insert(backend.clone(), value);
        }
        Ok(Engine {
            backend,
            config,
            host: Arc::new(Host::discover(host)),
            _folder: folder,
        })
    }

    /// The delegate, loaded now if it is not yet: to be asked without a program.
    ///
    /// # Errors
    /// The library cannot be loaded, or refuses to start.
    pub fn delegate(&self) -> Result<Arc<Delegate>, String> {
        self.host.delegate(&self.backend).map_err(|error| error.to_string())
    }

    /// Compiles a module for the delegate. Fills in the claim, the nodes and the time, and keeps the images that were offered.
    ///
    /// # Errors
    /// Skip, where the delegate neither claims nor takes any of it; a failure, where it claims it, or fails rather than refuses.
    pub fn compile(&self, mut module: Module, trial: &mut Trial<'_>) -> Result<Taken, Failure> {
        let bug = |error: String| Failure::fail(format!("the kit's own program is wrong: {error}"));
        delegraph_passes::simplify(&mut module).map_err(|error| bug(error.to_string()))?;
        delegraph_ir::verify(&module).map_err(|error| bug(error.to_string()))?;
        let claimed = claim_of(trial.subject, &module, &self.options());
        let started = Instant::now();
        let (bytes, report) = self.lower(module)?;
        trial.record.compile_ms = started.elapsed().as_secs_f64() * 1e3;
        let coverage = report.coverage();
        trial.record.delegated_nodes = coverage.delegated_nodes;
        trial.record.undelegated_nodes = coverage.nodes - coverage.delegated_nodes;
        let regions = || report.graphs.iter().flat_map(|graph| &graph.regions);
        for region in regions() {
            trial
                .evidence
                .insert(format!("region-{}.dgg", region.id.0), region.image.clone());
        }
        trial.record.claim = match (claimed, coverage.delegated_nodes) {
            (true, _) => Claim::Claimed,
            (false, 0) => Claim::None,
            (false, _) => Claim::Taken,
        };
        if let Some(problem) = report.backends.iter().find_map(|state| state.problem.as_ref()) {
            return Err(Failure::fail(format!("the delegate took no part: {problem}")));
        }
        let problems = || report.graphs.iter().flat_map(|graph| &graph.problems);
        if let Some(problem) = problems().find(|problem| problem.failed) {
            return Err(Failure::fail(format!("it failed to compile: {}", problem.message)));
        }
        if coverage.delegated_nodes == 0 || (claimed && trial.record.undelegated_nodes > 0) {
            let why = refusals(&report);
            return Err(match claimed {
                true => Failure::claimed(why),
                false => Failure::skip(why),
            });
        }
        let mut candidates = regions().flat_map(|region| &region.candidates);
        let precision = candidates
            .find(|c| !c.precision.is_empty())
            .map(|c| c.precision.clone());
        Ok(Taken {
            bytes,
            precision: precision.unwrap_or_default(),
            report,
        })
    }

    fn options(&self) -> LowerOptions {
        LowerOptions {
            backends: vec![self.backend.clone()],
            policy: Policy {
                min_nodes: 1,
                boundary_penalty: 0.0,
                keep_moves: true,
                ..Policy::default()
            },
            ..LowerOptions::default()
        }
    }

    /// What `delegraph::compile` does, but for regions that only move data: an app leaves them to the portable kernels, and here each
    /// operator has to be seen running.
    fn lower(&self, mut module: Module) -> Result<(Vec<u8>, Lowered), Failure> {
        let source = module.clone();
        let fail = |error: String| Failure::fail(error);
        let report = delegraph_lower::lower(&mut module, &self.options(), &self.host, &mut |_| {});
        let report = report.map_err(|error| fail(error.to_string()))?;
        delegraph_passes::to_portable(&mut module).map_err(|error| fail(error.to_string()))?;
        let verified = delegraph_ir::verify(&module);
        verified.map_err(|error| fail(format!("after the portable passes: {error}")))?;
        let regions: Vec<_> = report.graphs.iter().map(|graph| graph.regions.clone()).collect();
        let emitted = delegraph_emit::emit(delegraph_emit::Input {
            module: &module,
            regions: &regions,
            source: Some(&source),
        });
        Ok((emitted.map_err(|error| fail(error.to_string()))?.bytes, report))
    }

    /// Loads a program.
    ///
    /// # Errors
    /// It does not load.
    pub fn open(&self, taken: &Taken, name: &str, trial: &mut Trial<'_>) -> Result<Session, Failure> {
        let started = Instant::now();
        let source = Source::from_bytes(taken.bytes.clone(), name);
        let session = Session::open(&source, &self.config, &self.host, LoadOptions::default());
        trial.record.load_ms = started.elapsed().as_secs_f64() * 1e3;
        session.map_err(|error| Failure::fail(format!("it does not load: {error}")))
    }

    /// Its name as a backend.
    pub fn backend(&self) -> &str {
        &self.backend
    }
}

/// Runs a session once.
///
/// # Errors
/// What the session says.
pub fn run(session: &mut Session, inputs: &[&Leaf]) -> Result<Vec<Leaf>, String> {
    let given: Vec<_> = inputs
        .iter()
        .map(|input| value(input))
        .collect::<Result<_, _>>()
        .map_err(text)?;
    session.run(&given).map_err(text)?;
    (0..session.output_count())
        .map(|i| session.output(i).map(leaf).map_err(text))
        .collect()
}

/// Whether the delegate ran all that it took.
///
/// # Errors
/// Something ran by the portable kernels after all, and why.
pub fn ran_all(session: &Session) -> Result<(), String> {
    let report = session.report();
    match report.fallbacks() == 0 && report.delegated_nodes() > 0 {
        true => Ok(()),
        false => Err(format!(
            "what it took fell back to the portable kernels: {}",
            report.why_portable()
        )),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The delegate's own reasons, each once.
fn refusals(report: &Lowered) -> String {
    let nodes = report
        .graphs
        .iter()
        .flat_map(|graph| graph.decomposed.iter().chain(&graph.nodes));
    let open = nodes.filter(|node| node.owner.is_none());
    let mut reasons: Vec<String> = open
        .flat_map(|node| {
            node.refusals
                .iter()
                .map(move |refusal| format!("`{}`: {}", node.op, refusal.reason))
        })
        .collect();
    let problems = report.graphs.iter().flat_map(|graph| &graph.problems);
    reasons.extend(problems.map(|problem| format!("at compiling: {}", problem.message)));
    let mut seen = std::collections::BTreeSet::new();
    reasons.retain(|reason| seen.insert(reason.clone()));
    match reasons.is_empty() {
        true => "nothing of it is offered to a delegate: Delegraph computes it beforehand or leaves it out".to_string(),
        false => reasons.join("; "),
    }
}

/// The manifest that the host is to read, or the library where there is none. A manifest that would lead to another file than the one
/// that is tested is copied, and the copy names it.
fn pinned(subject: &Subject) -> Result<(PathBuf, Option<tempfile::TempDir>), String> {
    let Some((path, manifest)) = &subject.manifest else {
        return Ok((subject.library.clone(), None));
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let named = manifest.library.as_ref().map(|library| folder.join(library));
    if named.as_deref() == Some(subject.library.as_path()) && subject.library.is_file() {
        return Ok((path.clone(), None));
    }
    let problem = |error: &dyn std::fmt::Display| format!("a copy of `{}` cannot be made: {error}", path.display());
    let content = std::fs::read_to_string(path).map_err(|error| problem(&error))?;
    let mut table: toml::Table = toml::from_str(&content).map_err(|error| problem(&error))?;
    let library = std::path::absolute(&subject.library).map_err(|error| problem(&error))?;
    let mut libraries = toml::Table::new();
    libraries.insert(delegraph_host::host_triple(), library.display().to_string().into());
    table.insert("library".to_string(), libraries.into());
    if let Some(schema) = &manifest.options_schema {
        let schema = std::path::absolute(folder.join(schema)).map_err(|error| problem(&error))?;
        table.insert("options_schema".to_string(), schema.display().to_string().into());
    }
    let made = tempfile::tempdir().map_err(|error| problem(&error))?;
    let copy = made.path().join(format!("{}.delegate.toml", manifest.name));
    std::fs::write(&copy, table.to_string()).map_err(|error| problem(&error))?;
    Ok((copy, Some(made)))
}
