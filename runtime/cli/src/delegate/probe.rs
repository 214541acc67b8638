//! Loads a library in a child process: what a vendor's code does there, a crash or a hang, is an answer and no end of the command.
//!
//! The child prints a line of JSON a step. What else appears on its standard output, the library wrote.

use super::cases::{self, Outcome};
use crate::args::{DelegateProbeArgs, Global};
use delegraph_host::{Host, HostOptions, Isolation, Look, Manifest};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A child that takes longer is killed: a library that hangs would hang an app too.
const LIMIT: Duration = Duration::from_secs(60);

/// Most lines of a library's own that are kept.
const MOST: usize = 100;

/// A line of the child.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// What it is about to do.
    Next(String),
    /// Who the library is.
    Look(Looked),
    /// Its devices.
    Devices(Vec<Device>),
    /// A case.
    Case(Outcome),
    /// What failed, and it ends.
    Error(String),
    /// Everything is done.
    Done,
}

/// Who a library is, as the child passes it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Looked {
    /// Backend id.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Names one build; may be empty.
    pub build: String,
    /// Major of the ABI whose entry is used.
    pub abi_major: u16,
    /// Minor of that major that it was built with.
    pub abi_minor: u16,
    /// Name of the form of its blobs.
    pub format: String,
    /// Version of that form.
    pub format_version: u32,
    /// `compile`, `run`.
    pub roles: Vec<String>,
    /// Bytes of its table.
    pub table_size: u32,
    /// The feature words of its table.
    pub features: [u64; 2],
    /// Functions of its table that this host knows.
    pub functions: Vec<String>,
    /// Its options, if it states a schema of them.
    pub options: Option<Vec<String>>,
}

impl From<Look> for Looked {
    fn from(look: Look) -> Looked {
        let roles = [("compile", look.info.compiles), ("run", look.info.runs)];
        Looked {
            roles: roles
                .iter()
                .filter(|(_, has)| *has)
                .map(|(role, _)| role.to_string())
                .collect(),
            options: look.info.options_schema.as_ref().map(option_names),
            name: look.info.name,
            vendor: look.info.vendor,
            version: look.info.version,
            build: look.info.build,
            abi_major: look.info.abi_major,
            abi_minor: look.info.abi_minor,
            format: look.info.format,
            format_version: look.info.format_version,
            table_size: look.table_size,
            features: look.features,
            functions: look.functions.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The names of the options in a schema.
pub fn option_names(schema: &serde_json::Value) -> Vec<String> {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map_or(Vec::new(), |properties| properties.keys().cloned().collect())
}

/// A device, as the child passes it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Device {
    /// Number within the delegate.
    pub id: u32,
    /// `cpu`, `gpu`, `npu`, ...
    pub kind: String,
    /// Name for people.
    pub name: String,
    /// Architecture or chip.
    pub arch: String,
    /// Driver version; may be empty.
    pub driver: String,
    /// Bytes of its memory; 0: not known.
    pub memory: u64,
}

/// What a probe found.
#[derive(Debug, Default, Serialize)]
pub struct Probe {
    /// Who the library is; `None`: it was not got that far.
    pub look: Option<Looked>,
    /// Its devices.
    pub devices: Option<Vec<Device>>,
    /// The cases that were run.
    pub cases: Vec<Outcome>,
    /// What ended it early: an error, a crash, a hang.
    pub problem: Option<String>,
    /// Lines that the library wrote to standard output.
    pub stray: Vec<String>,
}

/// A library, and the manifest that names it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The manifest's path, and what it says.
    pub manifest: Option<(PathBuf, Manifest)>,
    /// The library.
    pub library: PathBuf,
}

impl Subject {
    /// A library by itself, or the one that a manifest names for this machine.
    ///
    /// # Errors
    /// One sentence: the manifest is malformed, or its library is not there.
    pub fn open(file: &Path) -> Result<Subject, String> {
        if !file.to_string_lossy().ends_with(".toml") {
            return Ok(Subject {
                manifest: None,
                library: file.to_path_buf(),
            });
        }
        let manifest = Manifest::read(file).map_err(|problem| format!("`{}`: {problem}", file.display()))?;
        let host = Host::discover(HostOptions {
            manifests: vec![file.to_path_buf()],
            no_load: true,
            ..HostOptions::default()
        });
        let candidate = host.candidates().into_iter().next();
        let refusal = candidate.as_ref().and_then(|candidate| candidate.refusal.clone());
        match (candidate.and_then(|candidate| candidate.library), refusal) {
            (Some(library), _) => Ok(Subject {
                manifest: Some((file.to_path_buf(), manifest)),
                library,
            }),
            (None, refusal) => Err(format!("`{}`: {}", file.display(), refusal.unwrap_or_default())),
        }
    }
}

/// What the child does.
#[derive(Debug, Clone, Copy)]
pub enum Task<'a> {
    /// Everything: who the library is, its devices, the cases.
    Cases,
    /// Who the library is, and no more.
    Look,
    /// Compiles the cases into a folder.
    Keep(&'a Path),
    /// Runs what was compiled into a folder.
    Replay(&'a Path),
    /// Who the library is, and its devices, with these options.
    Devices(&'a serde_json::Map<String, serde_json::Value>),
}

/// Probes a library in a child process.
///
/// # Errors
/// The child cannot be started.
pub fn probe(file: &Path, task: Task<'_>, global: &Global) -> anyhow::Result<Probe> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["delegate", "probe"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    match task {
        Task::Cases => {}
        Task::Look => _ = command.arg("--look"),
        Task::Keep(folder) => _ = command.arg("--keep").arg(folder),
        Task::Replay(folder) => _ = command.arg("--replay").arg(folder),
        Task::Devices(options) => {
            command.arg("--devices");
            if !options.is_empty() {
                command.args(["--options", &serde_json::to_string(options)?]);
            }
        }
    }
    if let Some(config) = &global.config {
        command.arg("--config").arg(config);
    }
    let mut child = command.spawn()?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    let started = Instant::now();
    let mut found = Probe::default();
    let (mut next, mut done) = ("start".to_string(), false);
    let hung = loop {
        match lines.recv_timeout(LIMIT.saturating_sub(started.elapsed())) {
            Ok(line) => found.take(&line, &mut next, &mut done),
            Err(mpsc::RecvTimeoutError::Timeout) => break true,
            Err(mpsc::RecvTimeoutError::Disconnected) => break false,
        }
    };
    if hung {
        let _ = child.kill();
    }
    let status = child.wait()?;
    if found.problem.is_none() && !done {
        found.problem = Some(match hung {
            true => format!("it hangs: {next} took longer than {} s", LIMIT.as_secs()),
            false => format!("it ended the process ({status}) at: {next}"),
        });
    } else if found.problem.is_none() && !status.success() {
        found.problem = Some(format!("it ended the process ({status}) at its end"));
    }
    Ok(found)
}

impl Probe {
    /// Takes a line of the child's.
    fn take(&mut self, line: &str, next: &mut String, done: &mut bool) {
        match serde_json::from_str(line) {
            Ok(Line::Next(step)) => *next = step,
            Ok(Line::Look(look)) => self.look = Some(look),
            Ok(Line::Devices(devices)) => self.devices = Some(devices),
            Ok(Line::Case(case)) => self.cases.push(case),
            Ok(Line::Error(problem)) => self.problem = Some(problem),
            Ok(Line::Done) => *done = true,
            Err(_) if self.stray.len() < MOST => self.stray.push(line.chars().take(200).collect()),
            Err(_) => {}
        }
    }
}

/// The child.
///
/// # Errors
/// Wrong use; what the library does wrong is printed and no error.
pub fn child(args: &DelegateProbeArgs, global: &Global) -> anyhow::Result<u8> {
    if let Err(problem) = steps(args, global)? {
        say(&Line::Error(problem))?;
    }
    say(&Line::Done)?;
    Ok(0)
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    // On a line of its own, whatever the library left unfinished.
    writeln!(stdout, "{}", serde_json::to_string(line)?)?;
    stdout.flush()?;
    Ok(())
}

fn steps(args: &DelegateProbeArgs, global: &Global) -> anyhow::Result<Result<(), String>> {
    let subject = match Subject::open(&args.file) {
        Ok(subject) => subject,
        Err(problem) => return Ok(Err(problem)),
    };
    say(&Line::Next("load the library and shake hands".to_string()))?;
    let manifest = subject.manifest.as_ref().map(|(_, manifest)| manifest);
    let look = match delegraph_host::look(&subject.library, manifest) {
        Ok(look) => look,
        Err(problem) => return Ok(Err(problem)),
    };
    let (backend, both) = (look.info.name.clone(), look.info.compiles && look.info.runs);
    say(&Line::Look(look.into()))?;
    if args.look {
        return Ok(Ok(()));
    }
    say(&Line::Next("start".to_string()))?;
    let config = crate::config::resolve(global, &[], &[])?;
    let options = config.backend.get(&backend).filter(|own| !own.options.is_empty());
    let options = match &args.options {
        Some(text) => Some(serde_json::from_str(text)?),
        None => options.map(|own| serde_json::to_value(&own.options)).transpose()?,
    };
    let pinned = subject.manifest.map_or(subject.library, |(path, _)| path);
    let host = Arc::new(Host::discover(HostOptions {
        pinned: vec![(backend.clone(), pinned)],
        options: options.into_iter().map(|own| (backend.clone(), own)).collect(),
        // This process is one of its own already.
        isolation: [(backend.clone(), Isolation::InProcess)].into(),
        ..HostOptions::default()
    }));
    let delegate = match host.delegate(&backend) {
        Ok(delegate) => delegate,
        Err(error) => return Ok(Err(error.to_string())),
    };
    say(&Line::Next("list its devices".to_string()))?;
    match delegate.devices() {
        Err(error) => return Ok(Err(error.to_string())),
        Ok(devices) => {
            let passed = devices.into_iter().map(|device| Device {
                id: device.id,
                kind: format!("{:?}", device.kind).to_lowercase(),
                name: device.name,
                arch: device.arch,
                driver: device.driver,
                memory: device.memory,
            });
            say(&Line::Devices(passed.collect()))?;
        }
    }
    if args.devices {
        return Ok(Ok(()));
    }
    if let Some(folder) = &args.keep {
        say(&Line::Next("compile the cases".to_string()))?;
        cases::keep(folder, &backend, &host)?;
    }
    // A library of one role takes the other's blobs, which a case here has none of.
    for case in (0..cases::count()).filter(|_| args.replay.is_some() || (both && args.keep.is_none())) {
        say(&Line::Next(format!("the case `{}`", cases::name(case))))?;
        let outcome = match &args.replay {
            Some(folder) => cases::replay(case, folder, &backend, &host),
            None => Some(cases::run(case, &backend, &delegraph_config::Config::default(), &host)),
        };
        if let Some(outcome) = outcome {
            say(&Line::Case(outcome))?;
        }
    }
    say(&Line::Next("end it".to_string()))?;
    drop(delegate);
    drop(host);
    Ok(Ok(()))
}
