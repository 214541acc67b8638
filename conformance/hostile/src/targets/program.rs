//! Programs that are run: `.pte`, `.ptd`, `.bpte`, and the overlay.

use super::{Outcome, refused};
use crate::seeds;
use delegraph::{Error, InputKind, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_executor::{BoundRegion, Executor, Options, ProgramData, RegionCall, RegionError};
use delegraph_host::{Host, HostOptions};
use delegraph_kernels::{Out, Tensor};
use delegraph_pte::origins::Origins;
use delegraph_pte::overlay::Overlay;
use delegraph_pte::{BundledProgram, Contents, DataFile, Verified, write};
use std::hint::black_box;
use std::sync::Arc;

/// What a run may take: enough for the seeds, little enough that a mutant cannot compute for long.
const MEMORY: u64 = 4 << 20;
const STEPS: u64 = 2_000;
/// Bytes that there are for an input.
const INPUT: usize = 1 << 20;

/// A program is verified, written again, loaded and run.
pub fn pte(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    let program = match Verified::parse(bytes) {
        Ok(program) => program,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    if let Ok(contents) = Contents::of(&program, bytes) {
        let mut out = Vec::new();
        // The writer refuses delegates; what it writes is a program.
        if write(&contents.with_plans(&program.plans), &mut out).is_ok() {
            let again = Verified::parse(&out).expect("a program that we wrote is valid");
            assert_eq!(again.plans.len(), program.plans.len());
        }
    }
    all_methods(&Source::from_bytes(bytes.to_vec(), "hostile.pte"), &program, running)
}

/// A bundle, and the program in it.
pub fn bundled(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    let bundle = match BundledProgram::parse(bytes) {
        Ok(bundle) => bundle,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    match Verified::parse(bundle.program) {
        Ok(program) => all_methods(&Source::from_bytes(bytes.to_vec(), "hostile.bpte"), &program, running),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// A data file, and a program that takes its constants from it.
pub fn ptd(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    let data = match DataFile::parse(bytes) {
        Ok(data) => data,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    for entry in &data.entries {
        assert!(
            data.bytes(bytes, &entry.name).is_some(),
            "`{}` is not there",
            entry.name
        );
    }
    let program = Source::from_bytes(seeds::file(seeds::WITH_EXTERNAL_CONSTANTS), "program.pte");
    let data = Source::from_bytes(bytes.to_vec(), "hostile.ptd");
    match run(&program, "forward", Some(data), running) {
        Ok(()) => Outcome::Read,
        Err(error) => refused(&error),
    }
}

/// An overlay is bound to a program, whose regions then fail and run portably.
pub fn overlay(bytes: &[u8], running: &dyn Fn()) -> Outcome {
    let overlay: Overlay = match serde_json::from_slice(bytes) {
        Ok(overlay) => overlay,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let file = seeds::file(seeds::OVERLAID);
    let program = Arc::new(Verified::parse(&file).expect("the program of the overlay is valid"));
    let data: Arc<dyn ProgramData> = Arc::new(file);
    running();
    let mut refusal = None;
    for method in &overlay.methods {
        for bucket in 0..=method.buckets.len() as u32 {
            black_box(method.bucket_name(bucket));
        }
        for place in &method.symbols {
            black_box([i64::MIN, -1, 0, 7, i64::MAX].map(|size| place.value(size)));
        }
        let Ok(mut executor) = Executor::new(program.clone(), &method.method, data.clone(), limits()) else {
            continue;
        };
        let regions = method.regions.iter().map(|region| BoundRegion {
            start: region.start,
            end: region.end,
            inputs: region.inputs.clone(),
            outputs: region.outputs.clone(),
            rooms: region.rooms.iter().map(|room| *room as usize).collect(),
            backend: "hostile".to_string(),
            operators: region.operators.clone(),
            kept: Vec::new(),
            call: Box::new(Fails),
        });
        match executor.bind(regions.collect()) {
            Err(error) => refusal = Some(error.to_string()),
            Ok(()) => {
                let zeros = [0; 4 * 7 * 16];
                let sizes = delegraph_types::Dims::new(&[7, 16]).expect("two dimensions");
                let _ = executor.run(&[delegraph_executor::Input::Bytes {
                    dtype: delegraph_types::DType::F32,
                    sizes: &sizes,
                    data: &zeros,
                }]);
                assert!(executor.report().count() <= method.regions.len());
            }
        }
    }
    refusal.map_or(Outcome::Read, Outcome::Refused)
}

/// The names of nodes, asked for in a trace: of every instruction and every node that they list, and of one more.
pub fn origins(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let origins: Origins = match serde_json::from_slice(bytes) {
        Ok(origins) => origins,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    for (plan, instructions) in &origins.instructions {
        for i in 0..=instructions.len() as u32 {
            black_box(origins.of_instruction(plan, i));
        }
    }
    for (key, nodes) in &origins.blobs {
        for i in 0..=nodes.len() as u32 {
            black_box(origins.of_blob(key, i));
        }
    }
    Outcome::Read
}

/// A delegate that never does its work.
struct Fails;

impl RegionCall for Fails {
    fn execute(&mut self, _: &[Tensor<'_>], _: &mut [Out<'_>]) -> Result<(), RegionError> {
        Err(RegionError::Failed("it always does".to_string()))
    }
}

fn all_methods(source: &Source, program: &Verified, running: &dyn Fn()) -> Outcome {
    let mut outcome = Outcome::Read;
    for plan in &program.plans {
        if let Err(error) = run(source, &plan.name, None, running) {
            outcome = refused(&error);
        }
    }
    outcome
}

fn limits() -> Options {
    Options {
        max_steps: STEPS,
        memory_limit: Some(MEMORY),
        ..Options::default()
    }
}

/// Loads a method without delegates and runs it twice on zeros.
pub(super) fn run(source: &Source, method: &str, data: Option<Source>, running: &dyn Fn()) -> Result<(), Error> {
    let host = Arc::new(Host::discover(HostOptions {
        no_load: true,
        ..HostOptions::default()
    }));
    let options = LoadOptions {
        method: method.to_string(),
        data,
        // What is looked for does not depend on threads, and many targets run beside each other.
        threads: Some(1),
        executor: limits(),
        ..LoadOptions::default()
    };
    let mut session = Session::open(source, &Config::default(), &host, options)?;
    running();
    let zeros = vec![0; INPUT];
    let infos = session.inputs();
    let inputs: Option<Vec<Value<'_>>> = infos
        .iter()
        .map(|info| {
            Some(match &info.kind {
                InputKind::Tensor { dtype, sizes, .. } => {
                    Value::tensor(*dtype, *sizes, zeros.get(..sizes.numel()?.checked_mul(dtype.size())?)?)
                }
                InputKind::Int => Value::Int(1),
                InputKind::Float => Value::Float(1.0),
                InputKind::Bool => Value::Bool(true),
                InputKind::Literal(value) => value.clone(),
            })
        })
        .collect();
    let Some(inputs) = inputs else { return Ok(()) };
    for _ in 0..2 {
        session.run(&inputs)?;
        for i in 0..session.output_count() {
            if let Ok(Value::Tensor(tensor)) = session.output(i) {
                tensor.to_contiguous();
            }
        }
        for i in 0..inputs.len() {
            if let Some(Value::Tensor(tensor)) = session.input_after(i) {
                tensor.to_contiguous();
            }
        }
        let names: Vec<String> = session.state_names().map(str::to_string).collect();
        for name in names {
            if let Ok(Some(Value::Tensor(tensor))) = session.state(&name) {
                tensor.to_contiguous();
            }
        }
        session.report();
    }
    session.reset();
    Ok(())
}
