//! Faults of a whole process: the delegate runs in a worker, through Delegraph's own host. Cases of the category `fault`.
//!
//! The worker binary, `delegraph-worker`, is looked for beside this program and in the folder above; a kit without it skips these cases.

use crate::case::{Failure, Outcome, Trial};
use crate::driver::{Guarded, Library, Place};
use crate::usage;
use crate::workload::{Bench, Workload};
use delegraph_host::{Delegate, Host, HostOptions, Input, Isolation, Output, Session, Weights, WorkerOptions};
use delegraph_types::{DType, Dims};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bytes of a graph's weights.
struct Bytes(BTreeMap<u32, Vec<u8>>);

impl Weights for Bytes {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.0.get(&id).map(Vec::as_slice)
    }
}

/// The worker binary.
fn binary() -> Result<PathBuf, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::skip(format!("no path of this program: {error}")))?;
    let folders = program.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("delegraph-worker"))
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::skip("the worker binary, `delegraph-worker`, does not lie beside this program"))
}

/// A graph that the delegate takes, and how to have it run in a worker.
struct Apart {
    name: String,
    workload: Workload,
    options: HostOptions,
}

impl Apart {
    fn new(trial: &Trial<'_>, memory: Option<u64>) -> Result<Apart, Failure> {
        if !cfg!(target_os = "linux") {
            return Err(Failure::skip("workers are there on Linux"));
        }
        let binary = binary()?;
        let bench = Bench::over(trial, 64, 64, 4)?;
        let name = Library::open(trial.subject)?.info()?.name;
        // The library outright: the manifest may lie elsewhere.
        let pinned = vec![(name.clone(), trial.subject.library.clone())];
        let worker = WorkerOptions {
            memory,
            compile_limit: Duration::from_secs(20),
            run_limit: Duration::from_secs(20),
            call_limit: Duration::from_secs(20),
            ..WorkerOptions::default()
        };
        let options = HostOptions {
            pinned,
            select: vec![name.clone()],
            options: BTreeMap::from([(name.clone(), serde_json::Value::Object(trial.subject.options.clone()))]),
            isolation: BTreeMap::from([(name.clone(), Isolation::Worker)]),
            no_sandbox: vec![name.clone()],
            workers: BTreeMap::from([(name.clone(), worker)]),
            worker_binary: Some(binary),
            ..HostOptions::default()
        };
        Ok(Apart {
            name,
            workload: bench.workload.clone(),
            options,
        })
    }

    fn delegate(&self) -> Result<Arc<Delegate>, String> {
        let host = Host::discover(self.options.clone());
        host.delegate(&self.name).map_err(|error| error.to_string())
    }

    fn load(&self, delegate: &Arc<Delegate>) -> Result<Session, String> {
        let weights = Arc::new(Bytes(self.workload.weights.iter().cloned().collect()));
        let blob = delegate
            .compile(&self.workload.image, &*weights, "")
            .map_err(|error| error.to_string())?;
        delegate.load(&blob, weights).map_err(|error| error.to_string())
    }

    /// One run: an error of the host's in words, or the right result.
    fn run(&self, session: &mut Session, seed: u64) -> Result<Result<(), String>, Failure> {
        let bytes = self.workload.input_bytes(seed);
        let dtype = |code: delegraph_abi::DType| {
            let known = match code {
                delegraph_abi::DType::F32 => Some(DType::F32),
                delegraph_abi::DType::F16 => Some(DType::F16),
                delegraph_abi::DType::I8 => Some(DType::I8),
                delegraph_abi::DType::I32 => Some(DType::I32),
                _ => None,
            };
            known.ok_or_else(|| Failure::fail("the kit has no such dtype"))
        };
        let mut places = Vec::new();
        for bytes in &bytes {
            let mut memory = Guarded::new(bytes.len(), Place::Start, 4096)?;
            memory.fill(bytes);
            places.push(memory);
        }
        let specs = self.workload.inputs.iter().zip(&places);
        let inputs: Result<Vec<Input<'_>>, Failure> = specs
            .map(|(spec, memory)| {
                Ok(Input {
                    dtype: dtype(spec.dtype)?,
                    sizes: &spec.sizes,
                    bytes: memory.bytes(),
                })
            })
            .collect();
        let spec = &self.workload.outputs[0];
        let size = spec.count() * spec.dtype.size().unwrap_or(1);
        let mut room = Guarded::new(size, Place::Start, 4096)?;
        let mut outputs = [Output {
            dtype: dtype(spec.dtype)?,
            sizes: Dims::new(&spec.sizes).map_err(|error| Failure::fail(error.to_string()))?,
            bytes: room.bytes_mut(),
        }];
        if let Err(error) = session.execute(&inputs?, &mut outputs) {
            return Ok(Err(error.to_string()));
        }
        // Whatever precision the blob states: here a wrong result is one that is far off.
        self.workload.check(&bytes, outputs[0].bytes, "int8")?;
        Ok(Ok(()))
    }
}

fn in_words(when: &str, failure: Failure) -> Failure {
    Failure {
        reason: format!("{when}: {}", failure.reason),
        ..failure
    }
}

/// How often the worker is killed. The host lays a blob aside on which its worker has died three times.
const KILLS: u32 = 2;

/// The worker is killed in runs.
pub fn killed(trial: &mut Trial<'_>) -> Outcome {
    let apart = Apart::new(trial, None)?;
    let delegate = apart
        .delegate()
        .map_err(|problem| Failure::skip(format!("it does not start in a worker: {problem}")))?;
    if !delegate.runs_in_worker() {
        return Err(Failure::skip("it does not run in a worker"));
    }
    let mut session = apart.load(&delegate)?;
    let first = Instant::now();
    apart.run(&mut session, trial.seed)??;
    let length = first.elapsed();
    let mut failed = 0;
    for kill in 0..KILLS {
        let workers = usage::children();
        if workers.is_empty() {
            return Err(Failure::skip("the system does not say which process the worker is"));
        }
        // Before the run, at its beginning, and on its way.
        let wait = length * kill / KILLS;
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(wait);
                for worker in &workers {
                    if let Some(pid) = rustix::process::Pid::from_raw(*worker) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
            });
            apart.run(&mut session, trial.seed + u64::from(kill))
        });
        let when = format!(
            "while the worker was killed {} ms after the run began",
            wait.as_millis()
        );
        failed += u32::from(outcome.map_err(|failure| in_words(&when, failure))?.is_err());
        // The session is lost with its process; the delegate is not.
        let mut outcome = Err("it was not tried".to_string());
        for _ in 0..3 {
            outcome = apart.load(&delegate).and_then(|mut loaded| {
                let ran = apart
                    .run(&mut loaded, trial.seed)
                    .map_err(|failure| failure.reason)
                    .and_then(|ran| ran);
                session = loaded;
                ran
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map_err(|problem| {
            Failure::fail(format!("after its worker was killed it does not come back: {problem}"))
        })?;
    }
    trial.measure("runs_that_failed", f64::from(failed));
    Ok(())
}

/// The worker gets less and less memory.
pub fn memory(trial: &mut Trial<'_>) -> Outcome {
    let mut worst = None;
    let mut least = f64::INFINITY;
    for mebibytes in [4096u64, 512, 128, 48, 24, 12] {
        let apart = Apart::new(trial, Some(mebibytes << 20))?;
        let all = || -> Result<Result<(), String>, Failure> {
            let delegate = match apart.delegate() {
                Ok(delegate) => delegate,
                Err(problem) => return Ok(Err(problem)),
            };
            let mut session = match apart.load(&delegate) {
                Ok(session) => session,
                Err(problem) => return Ok(Err(problem)),
            };
            apart.run(&mut session, trial.seed)
        };
        let when = format!("with {mebibytes} MiB of address space");
        match all().map_err(|failure| in_words(&when, failure))? {
            Ok(()) => least = least.min(mebibytes as f64),
            // An abort is how many runtimes say that there is no memory; a wild pointer is not.
            Err(problem) if problem.contains("SIGSEGV") || problem.contains("SIGBUS") => {
                worst.get_or_insert(format!("{when}: {problem}"));
            }
            Err(_) => {}
        }
    }
    if least.is_finite() {
        trial.measure("least_memory_mib", least);
    }
    match worst {
        Some(problem) => Err(Failure::warning(problem)),
        None => Ok(()),
    }
}
