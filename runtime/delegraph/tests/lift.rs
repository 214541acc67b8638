//! Programs of others are read back, compiled again and run: the results are those that PyTorch recorded, and those of the
//! program as it was.

use delegraph::{LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_ir::{Bytes, InputKind, Module, Symbol, Type};
use delegraph_pte::overlay::{IR_KEY, OVERLAY_KEY};
use delegraph_pte::{Contents, DataFile, ProgramParts, Verified, write};
use delegraph_reference::Reference;
use delegraph_runner::compare::{Tolerance, compare};
use delegraph_runner::fixture::Fixture;
use delegraph_runner::{Leaf, models};
use delegraph_sdk::static_entry;
use delegraph_types::{DType, Dims, bf16, f16};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Programs that are not straight-line code, and why.
const REFUSED: &[(&str, &str)] = &[
    ("arch-cond/model.pte", "control flow: instruction 2 jumps to 8"),
    ("arch-map/model.pte", "control flow: instruction 7 jumps to 1"),
    ("arch-scan/model.pte", "control flow: instruction 11 jumps to 3"),
    ("arch-int8-convnet/model.xnnpack.pte", "calls delegate `XnnpackBackend`"),
    (
        "arch-mlp-dynamic-batch/model.xnnpack.pte",
        "calls delegate `XnnpackBackend`",
    ),
    (
        "pte-samples/external-constants.pte",
        "constant `a.weight` is in another file",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fixtures")
}

/// Every program of the fixtures, as `folder/file`. Other folders of them can be given in `DELEGRAPH_LIFT_MODELS`.
fn programs() -> Vec<(String, PathBuf)> {
    let mut roots = vec![root()];
    roots.extend(
        std::env::var_os("DELEGRAPH_LIFT_MODELS")
            .iter()
            .flat_map(std::env::split_paths),
    );
    let mut found = Vec::new();
    for root in roots {
        for folder in std::fs::read_dir(root).unwrap().flatten() {
            let Ok(files) = std::fs::read_dir(folder.path()) else {
                continue;
            };
            for file in files.flatten().map(|file| file.path()) {
                if file.extension().is_some_and(|e| e == "pte") {
                    let name = format!("{}/{}", name_of(&folder.path()), name_of(&file));
                    found.push((name, file));
                }
            }
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    assert!(found.len() >= 15);
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn portable() -> (Config, Arc<Host>) {
    let config = Config::default();
    let host = Arc::new(delegraph::discover(&config, true));
    (config, host)
}

/// Lifts and compiles; the bytes of the new program.
fn recompiled(source: &Source) -> Result<(Module, Source), delegraph::Error> {
    let (config, host) = portable();
    let module = delegraph::import(source)?;
    let compiled = delegraph::compile(module.clone(), &config, &host, &mut |_| {})?;
    Ok((
        module,
        Source::from_bytes(compiled.bytes, format!("{} again", source.name())),
    ))
}

fn open(source: &Source, method: &str) -> Session {
    let (config, host) = portable();
    let options = LoadOptions {
        method: method.to_string(),
        ..LoadOptions::default()
    };
    Session::open(source, &config, &host, options).unwrap_or_else(|error| panic!("{}: {error}", source.name()))
}

fn value(leaf: &Leaf) -> Value<'_> {
    match leaf {
        Leaf::None => Value::None,
        Leaf::Bool(b) => Value::Bool(*b),
        Leaf::Int(i) => Value::Int(*i),
        Leaf::Float(f) => Value::Float(*f),
        Leaf::Str(s) => Value::Str(s),
        Leaf::Tensor { dtype, shape, bytes } => Value::tensor(*dtype, Dims::new(shape).unwrap(), bytes),
    }
}

fn leaf(value: Value<'_>) -> Leaf {
    match value {
        Value::Bool(b) => Leaf::Bool(b),
        Value::Int(i) => Leaf::Int(i),
        Value::Float(f) => Leaf::Float(f),
        Value::Str(s) => Leaf::Str(s.to_string()),
        Value::Tensor(tensor) => Leaf::Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: tensor.to_contiguous().into_owned(),
        },
        _ => Leaf::None,
    }
}

fn run(session: &mut Session, inputs: &[Leaf]) -> Result<Vec<Leaf>, String> {
    let inputs: Vec<Value<'_>> = inputs.iter().map(value).collect();
    session.run(&inputs).map_err(|error| error.to_string())?;
    (0..session.output_count())
        .map(|i| session.output(i).map(leaf).map_err(|error| error.to_string()))
        .collect()
}

#[test]
fn every_fixture_lifts_and_gives_what_was_recorded() {
    struct Lifted(Source);
    struct Loaded(Session);
    impl models::Subject for Lifted {
        fn load(&mut self, _: &Path, _: models::Source) -> Result<Box<dyn models::Instance>, String> {
            Ok(Box::new(Loaded(open(&self.0, "forward"))))
        }
    }
    impl models::Instance for Loaded {
        fn run(&mut self, inputs: &[Leaf]) -> Result<models::StepResult, String> {
            let outputs = run(&mut self.0, inputs)?;
            let after = (0..inputs.len()).map(|i| self.0.input_after(i).map_or(inputs[i].clone(), leaf));
            Ok(models::StepResult {
                outputs,
                inputs_after: Some(after.collect()),
            })
        }
        fn buffer(&mut self, name: &str) -> Result<Option<Leaf>, String> {
            let state = self.0.state(name).map_err(|error| error.to_string())?;
            Ok(state.map(leaf))
        }
        fn counters(&self) -> models::Counters {
            models::Counters::default()
        }
    }
    let mut cases = 0;
    for (name, path) in programs().into_iter().filter(|(name, _)| name.ends_with("/model.pte")) {
        let lifted = match recompiled(&Source::open(&path).unwrap()) {
            Ok((_, lifted)) => lifted,
            Err(error) => {
                let known = REFUSED
                    .iter()
                    .any(|(n, why)| *n == name && error.to_string().contains(why));
                assert!(known, "{name}: {error}");
                continue;
            }
        };
        for case in models::list(path.parent().unwrap()).unwrap() {
            let record = models::run_file(&mut Lifted(lifted.clone()), &case, &path, models::Source::Pte);
            assert_eq!(
                record.verdict,
                delegraph_runner::Verdict::Pass,
                "{name}, {}: {}",
                case.case,
                record.reason
            );
            cases += 1;
        }
    }
    assert!(cases >= 15, "{cases}");
}

#[test]
fn what_is_not_straight_line_code_is_refused_with_the_reason() {
    let programs: BTreeMap<String, PathBuf> = programs().into_iter().collect();
    for (name, why) in REFUSED {
        let error = delegraph::import(&Source::open(&programs[*name]).unwrap()).expect_err(name);
        assert!(error.to_string().contains(why), "{name}: {error}");
        assert_eq!(error.exit_code(), 3);
    }
}

/// Numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit as u64) as i64
    }

    fn tensor(&mut self, dtype: DType, shape: Vec<i64>) -> Leaf {
        let count: i64 = shape.iter().product();
        let mut bytes = Vec::new();
        for _ in 0..count {
            // Small integers are positions in most models.
            let (int, float) = (self.below(3), self.below(4001) as f32 / 1000.0 - 2.0);
            match dtype {
                DType::F32 => bytes.extend(float.to_le_bytes()),
                DType::F64 => bytes.extend(f64::from(float).to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(float).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f32(float).to_le_bytes()),
                DType::Bool => bytes.push(int as u8 & 1),
                _ => bytes.extend(&int.to_le_bytes()[..dtype.size()]),
            }
        }
        Leaf::Tensor { dtype, shape, bytes }
    }
}

/// Arguments of a method for these values of its symbols.
fn arguments(module: &Module, method: &str, symbols: &BTreeMap<Symbol, i64>, noise: &mut Noise) -> Vec<Leaf> {
    let graph = module.graph(method).unwrap();
    let arguments = graph.inputs.iter().map(|input| match &input.kind {
        InputKind::Literal(arg) => match arg.as_scalar() {
            Some(delegraph_types::Scalar::Bool(b)) => Leaf::Bool(b),
            Some(delegraph_types::Scalar::Int(i)) => Leaf::Int(i),
            Some(delegraph_types::Scalar::Float(f)) => Leaf::Float(f),
            None => Leaf::None,
        },
        InputKind::Value(id) => match &graph.value(*id).ty {
            Type::Tensor(ty) => {
                let sizes = ty
                    .shape
                    .iter()
                    .map(|e| e.eval(&|symbol| symbols.get(symbol).copied()).unwrap());
                noise.tensor(ty.dtype, sizes.collect())
            }
            Type::Int(_) => Leaf::Int(noise.below(4)),
            Type::Float => Leaf::Float(0.25),
            Type::Bool => Leaf::Bool(true),
        },
    });
    arguments.collect()
}

/// Runs a program as it is and as it was lifted, on every method and several sizes; both have to agree, also in refusing.
fn differ(name: &str, source: &Source, module: &Module, lifted: &Source) -> usize {
    let mut noise = Noise(7);
    let mut agreed = 0;
    let tolerance = Tolerance { rtol: 1e-5, atol: 1e-5 };
    for graph in &module.graphs {
        let (mut before, mut after) = (open(source, &graph.name), open(lifted, &graph.name));
        for round in 0..6 {
            // The largest sizes first, then the smallest, then any.
            let mut symbols = BTreeMap::new();
            for (symbol, range) in &module.symbols.ranges {
                let (min, max) = (range.min.max(0), range.max.unwrap_or(24).min(1 << 20));
                let size = match round {
                    0 => max,
                    1 => min,
                    _ => min + noise.below(max - min + 1),
                };
                symbols.insert(symbol.clone(), size);
            }
            let inputs = arguments(module, &graph.name, &symbols, &mut noise);
            match (run(&mut before, &inputs), run(&mut after, &inputs)) {
                (Ok(want), Ok(got)) => {
                    assert_eq!(got.len(), want.len(), "{name}");
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        compare(got, want, tolerance)
                            .unwrap_or_else(|e| panic!("{name}, `{}`, round {round}, output {i}: {e}", graph.name));
                    }
                    agreed += 1;
                }
                (Err(_), Err(_)) => {}
                (want, got) => panic!(
                    "{name}, `{}`, round {round}: {want:?} as it is, {got:?} lifted",
                    graph.name
                ),
            }
        }
    }
    agreed
}

#[test]
fn a_lifted_program_does_what_the_program_did_at_all_sizes() {
    for (name, path) in programs() {
        if REFUSED.iter().any(|(refused, _)| *refused == name) {
            continue;
        }
        let source = Source::open(&path).unwrap();
        match recompiled(&source) {
            Ok((module, lifted)) => assert!(differ(&name, &source, &module, &lifted) > 0, "{name}: never ran"),
            Err(error) if error.to_string().contains("control flow") => {}
            Err(error) if error.to_string().contains("calls delegate") => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A program without the segments that only Delegraph writes.
fn stripped(bytes: &[u8]) -> Vec<u8> {
    let program = Verified::parse(bytes).unwrap();
    let contents = Contents::of(&program, bytes).unwrap();
    let named: Vec<_> = contents
        .named
        .iter()
        .filter(|(key, ..)| key != IR_KEY && key != OVERLAY_KEY)
        .cloned()
        .collect();
    let parts = ProgramParts {
        plans: &program.plans,
        constants: &contents.constants,
        mutable_states: &contents.mutable_states,
        named: &named,
    };
    let mut out = Vec::new();
    write(&parts, &mut out).unwrap();
    out
}

#[test]
fn our_own_programs_lift_without_their_ir() {
    let (config, host) = portable();
    let mut lifted = 0;
    for folder in std::fs::read_dir(root()).unwrap().flatten() {
        let path = folder.path().join("model.pt2");
        let name = name_of(&folder.path());
        let Ok(source) = Source::open(&path) else { continue };
        let Ok(module) = delegraph::import(&source) else {
            continue;
        };
        let Ok(compiled) = delegraph::compile(module, &config, &host, &mut |_| {}) else {
            continue;
        };
        let plain = Source::from_bytes(stripped(&compiled.bytes), name.clone());
        match recompiled(&plain) {
            Ok((module, again)) => {
                // Cases rather than made-up sizes: an own program can demand more of its inputs than the file says.
                let Ok(fixture) = Fixture::read(&folder.path()) else {
                    continue;
                };
                drop(module);
                for case in &fixture.cases {
                    let (mut before, mut after) = (open(&plain, "forward"), open(&again, "forward"));
                    for (i, step) in case.steps.iter().enumerate() {
                        let want = run(&mut before, &step.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
                        let got = run(&mut after, &step.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
                        for (k, (got, want)) in got.iter().zip(&want).enumerate() {
                            compare(got, want, fixture.tolerance)
                                .unwrap_or_else(|e| panic!("{name}, {}, step {i}, output {k}: {e}", case.name));
                        }
                    }
                }
                lifted += 1;
            }
            Err(error) => println!("{name}: {error}"),
        }
    }
    assert!(lifted >= 8, "{lifted}");
}

/// Late binding: a program of ExecuTorch runs on a delegate that it knows nothing of, or says why it does not.
#[test]
fn a_program_of_others_runs_on_delegates() {
    let host = Host::discover(HostOptions::default());
    host.register_static("reference", static_entry::<Reference>()).unwrap();
    let host = Arc::new(host);
    let config = delegraph::config_from_text("[select]\norder = [\"reference\"]\n").unwrap();
    for name in ["arch-mlp-dynamic-batch", "arch-kv-cache", "arch-cond"] {
        let folder = root().join(name);
        let source = Source::open(folder.join("model.pte")).unwrap();
        let mut session = Session::open(&source, &config, &host, LoadOptions::default()).unwrap();
        let fixture = Fixture::read(&folder).unwrap();
        for step in &fixture.cases[0].steps {
            let got = run(&mut session, &step.inputs).unwrap();
            compare(&got[0], &step.outputs[0], fixture.tolerance).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let report = session.report();
        if name == "arch-cond" {
            assert_eq!(report.delegated_nodes(), 0);
            let why = report.why_portable();
            assert!(why.contains("control flow: instruction 2 jumps to 8"), "{why}");
        } else {
            assert!(report.delegated_nodes() > 0, "{name}: {}", report.ran());
            assert_eq!(report.not_partitioned, None);
        }
    }
}

#[test]
fn external_constants_are_taken_from_their_data_file() {
    let folder = root().join("pte-samples");
    let file = Bytes::from(std::fs::read(folder.join("external-constants.pte")).unwrap());
    let data = Bytes::from(std::fs::read(folder.join("external-constants.ptd")).unwrap());
    let program = Verified::parse(file.as_slice()).unwrap();
    let names = DataFile::parse(data.as_slice()).unwrap();
    let module = delegraph_import::lift_program(&program, &file, Some((&names, &data))).unwrap();
    let (config, host) = portable();
    let compiled = delegraph::compile(module.clone(), &config, &host, &mut |_| {}).unwrap();
    let mut after = open(&Source::from_bytes(compiled.bytes, "lifted"), "forward");
    let options = LoadOptions {
        data: Some(Source::open(folder.join("external-constants.ptd")).unwrap()),
        ..LoadOptions::default()
    };
    let source = Source::open(folder.join("external-constants.pte")).unwrap();
    let mut before = Session::open(&source, &config, &host, options).unwrap();
    let inputs = arguments(&module, "forward", &BTreeMap::new(), &mut Noise(3));
    let (want, got) = (run(&mut before, &inputs).unwrap(), run(&mut after, &inputs).unwrap());
    compare(&got[0], &want[0], Tolerance { rtol: 1e-6, atol: 1e-6 }).unwrap();
}
