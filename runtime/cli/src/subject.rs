//! Delegraph itself as the subject of recorded models.

use crate::inputs::{leaf, value};
use delegraph::{LoadOptions, Session, Source as File};
use delegraph_config::Config;
use delegraph_host::Host;
use delegraph_runner::compare::Lower;
use delegraph_runner::models::{Counters, Source};
use delegraph_runner::{Instance, Leaf, StepResult, Subject};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Loads models by the public crate.
pub struct DelegraphSubject {
    config: Config,
    host: Arc<Host>,
}

impl DelegraphSubject {
    /// With the delegates that the configuration allows.
    pub fn new(config: Config, no_load: bool) -> DelegraphSubject {
        let host = Arc::new(crate::devices::discover(&config, no_load));
        DelegraphSubject { config, host }
    }
}

struct LoadedModel {
    session: Session,
    compile_ms: f64,
    load_ms: f64,
}

impl Subject for DelegraphSubject {
    fn load(&mut self, file: &Path, source: Source) -> Result<Box<dyn Instance>, String> {
        let text = |error: delegraph::Error| error.to_string();
        let started = Instant::now();
        let mut model = File::open(file).map_err(text)?;
        let mut compile_ms = 0.0;
        if source == Source::Compiled {
            let module = delegraph::import(&model).map_err(text)?;
            let compiled = delegraph::compile(module, &self.config, &self.host, &mut |_| {}).map_err(text)?;
            compile_ms = started.elapsed().as_secs_f64() * 1e3;
            // Through a real file, as a user's would go.
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let path = folder.path().join("model.pte");
            std::fs::write(&path, &compiled.bytes).map_err(|error| error.to_string())?;
            model = File::open(&path).map_err(text)?;
        }
        let started = Instant::now();
        let session = Session::open(&model, &self.config, &self.host, LoadOptions::default()).map_err(text)?;
        Ok(Box::new(LoadedModel {
            session,
            compile_ms,
            load_ms: started.elapsed().as_secs_f64() * 1e3,
        }))
    }
}

impl Instance for LoadedModel {
    fn run(&mut self, inputs: &[Leaf]) -> Result<StepResult, String> {
        let values = inputs
            .iter()
            .map(value)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        self.session.run(&values).map_err(|error| error.to_string())?;
        let outputs = (0..self.session.output_count())
            .map(|i| self.session.output(i).map(leaf))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let after: Option<Vec<Leaf>> = (0..inputs.len())
            .map(|i| {
                self.session
                    .input_after(i)
                    .map(leaf)
                    .or_else(|| Some(inputs[i].clone()))
            })
            .collect();
        Ok(StepResult {
            outputs,
            inputs_after: after,
        })
    }

    fn buffer(&mut self, name: &str) -> Result<Option<Leaf>, String> {
        let state = self.session.state(name).map_err(|error| error.to_string())?;
        Ok(state.map(leaf))
    }

    fn counters(&self) -> Counters {
        let report = self.session.report();
        Counters {
            delegated_nodes: report.delegated_nodes(),
            undelegated_nodes: report.portable_nodes,
            fallbacks: report.fallbacks(),
            compile_ms: self.compile_ms,
            load_ms: self.load_ms,
        }
    }

    fn lower(&self) -> Option<Lower> {
        let report = self.session.report();
        let bound = report.regions.iter().filter(|region| region.backend.is_some());
        let granted = bound.filter_map(|region| Lower::of(&region.precision));
        granted.reduce(Lower::or)
    }
}
