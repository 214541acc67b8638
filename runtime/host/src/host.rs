//! The delegates of a process: found once, each loaded on first use.

#[cfg(target_os = "linux")]
use crate::SandboxWishes;
use crate::api::log;
use crate::delegate::Instance;
use crate::discover::{self, Candidate};
use crate::loader::{Entry, Handshake, agree, load, shake_hands, wanted};
use crate::local::Local;
use crate::trust::{Library, Policy};
#[cfg(target_os = "linux")]
use crate::worker::program::{Needs, needs};
use crate::{Delegate, HostError, HostOptions, Isolation, LibraryFile, Pass, delegate_options};
use delegraph_abi::StaticEntry;
use delegraph_abi::c::LogLevel;
#[cfg(target_os = "linux")]
use delegraph_config::Environment;
use delegraph_types::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The delegates of this process. May be shared between threads; loading is serialized.
pub struct Host {
    options: HostOptions,
    policy: Policy,
    problems: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    candidates: Vec<Candidate>,
    warnings: Vec<String>,
    statics: BTreeMap<String, (StaticEntry, Vec<Pass>)>,
    /// What became of each backend that was asked for.
    loaded: BTreeMap<String, Result<Arc<Delegate>, HostError>>,
}

impl Host {
    /// Finds candidates. Never fails: a bad one is recorded with the reason. Nothing of a vendor's runs.
    pub fn discover(options: HostOptions) -> Host {
        let (candidates, problems) = discover::candidates(&options);
        Host {
            policy: Policy::new(options.trust.clone()),
            options,
            problems,
            state: Mutex::new(State {
                candidates,
                ..State::default()
            }),
        }
    }

    /// Offers a delegate that is linked into the program, before any library of the same backend.
    ///
    /// # Errors
    /// The backend was registered already, or has been loaded.
    pub fn register_static(&self, backend: &str, entry: StaticEntry) -> Result<(), HostError> {
        self.register_static_with(backend, entry, Vec::new())
    }

    /// [`Host::register_static`] of a delegate that asks for passes: it has no manifest that could.
    ///
    /// # Errors
    /// As there.
    pub fn register_static_with(&self, backend: &str, entry: StaticEntry, passes: Vec<Pass>) -> Result<(), HostError> {
        let mut state = self.state();
        if state.statics.contains_key(backend) || state.loaded.contains_key(backend) {
            return Err(HostError::Duplicate {
                backend: backend.to_string(),
            });
        }
        state.statics.insert(backend.to_string(), (entry, passes));
        Ok(())
    }

    /// Every candidate found, in the order of preference, refused ones included (static tables are not listed).
    pub fn candidates(&self) -> Vec<Candidate> {
        self.state().candidates.clone()
    }

    /// Folders that could not be searched, and why.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// What was let through with a warning so far; each was logged too ([`crate::set_logger`]).
    pub fn warnings(&self) -> Vec<String> {
        self.state().warnings.clone()
    }

    /// The delegate of a backend, loaded on first use. Failure is remembered as success is.
    ///
    /// # Errors
    /// Nobody offers the backend, or whoever does was refused.
    pub fn delegate(&self, backend: &str) -> Result<Arc<Delegate>, HostError> {
        let mut state = self.state();
        if let Some(known) = state.loaded.get(backend) {
            return known.clone();
        }
        let outcome = self.first_that_loads(backend, &mut state);
        state.loaded.insert(backend.to_string(), outcome.clone());
        outcome
    }

    fn first_that_loads(&self, backend: &str, state: &mut State) -> Result<Arc<Delegate>, HostError> {
        let refused = |manifest, reason: String| HostError::Refused {
            backend: backend.to_string(),
            manifest,
            reason,
        };
        if self.options.no_load {
            return Err(refused(None, "no library is loaded (`no_load`)".to_string()));
        }
        let options = &self.options;
        let options_hash = delegate_options::hash(options.options.get(backend));
        if let Some((entry, passes)) = state.statics.get(backend) {
            if let Some(reason) = discover::not_wanted(backend, options) {
                return Err(refused(None, reason));
            }
            // SAFETY: whoever made the static entry vouched for it.
            let handshake = unsafe { shake_hands(Entry::linked(*entry), None) };
            return handshake
                .and_then(|h| start(backend, h, options))
                .and_then(|first| Delegate::new(first, None, passes.clone()))
                .map(|delegate| Arc::new(delegate.made_of(Vec::new(), options_hash, options.payloads)))
                .map_err(|reason| refused(None, reason));
        }
        let mut reasons = Vec::new();
        let mut manifest = None;
        // A library that has one role only waits for one that has the other.
        let mut half: Option<(Instance, Vec<Pass>)> = None;
        let mut libraries = Vec::new();
        let State {
            candidates, warnings, ..
        } = state;
        for candidate in candidates.iter_mut().filter(|c| c.backend == backend) {
            if candidate.refusal.is_none() && half.as_ref().is_none_or(|(first, _)| completes(first, candidate)) {
                let mut file = None;
                let used = self.policy.admit(candidate).and_then(|(library, warning)| {
                    if let Some(warning) = warning {
                        log(backend, LogLevel::WARN, &warning);
                        warnings.push(format!("`{backend}`: {warning}"));
                    }
                    // Before it is loaded: a file that is put in its place meanwhile must not pass for it.
                    file = Some(LibraryFile::of(&library));
                    use_candidate(candidate, library, options)
                });
                match used {
                    Ok(Used::Divided(runner, compiler, passes)) if half.is_none() => {
                        libraries.extend(file);
                        let delegate = Delegate::divided(runner, passes, compiler)
                            .map_err(|reason| refused(candidate.manifest_path.clone(), reason))?;
                        return Ok(Arc::new(delegate.made_of(libraries, options_hash, options.payloads)));
                    }
                    Ok(used) => {
                        let (instance, passes) = match used.lacking(half.as_ref().map(|(first, _)| first)) {
                            Ok(used) => used,
                            Err(reason) => {
                                candidate.refusal = Some(reason);
                                continue;
                            }
                        };
                        libraries.extend(file);
                        let (first, second, passes) = match half.take() {
                            None => (instance, None, passes),
                            Some((first, passes)) => (first, Some(instance), passes),
                        };
                        let whole = second.is_some() || (first.info().compiles && first.info().runs);
                        if !whole {
                            half = Some((first, passes));
                            continue;
                        }
                        match Delegate::new(first.clone(), second, passes.clone()) {
                            Ok(delegate) => {
                                return Ok(Arc::new(delegate.made_of(libraries, options_hash, options.payloads)));
                            }
                            Err(reason) => {
                                candidate.refusal = Some(reason);
                                libraries.pop();
                                half = Some((first, passes));
                            }
                        }
                    }
                    Err(reason) => candidate.refusal = Some(reason),
                }
            }
            manifest = candidate.manifest_path.clone().or(manifest);
            reasons.extend(candidate.refusal.clone());
        }
        if let Some((first, passes)) = half {
            let delegate = Delegate::new(first, None, passes).map_err(|reason| refused(manifest, reason))?;
            return Ok(Arc::new(delegate.made_of(libraries, options_hash, options.payloads)));
        }
        if reasons.is_empty() {
            return Err(self.unknown(backend, state));
        }
        reasons.dedup();
        Err(refused(manifest, reasons.join("; ")))
    }

    fn unknown(&self, backend: &str, state: &State) -> HostError {
        let mut known: Vec<&str> = state.candidates.iter().map(|c| c.backend.as_str()).collect();
        known.extend(state.statics.keys().map(String::as_str));
        known.sort_unstable();
        known.dedup();
        let hint = match (nearest(backend, known.iter().copied()), known.is_empty()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, false) => format!("there are `{}`", known.join("`, `")),
            (None, true) => match self.problems.first() {
                Some(problem) => problem.clone(),
                None => "no manifest was found: name its folder under `delegates.search`".to_string(),
            },
        };
        HostError::Unknown {
            backend: backend.to_string(),
            hint,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a candidate's manifest offers the role that a library lacks.
fn completes(first: &Instance, candidate: &Candidate) -> bool {
    let missing = if first.info().compiles { "run" } else { "compile" };
    let roles = candidate.manifest.as_ref().map(|manifest| &manifest.roles);
    roles.is_none_or(|roles| roles.iter().any(|role| role == missing))
}

/// A candidate's library, loaded.
enum Used {
    /// In one place.
    Whole(Instance, Vec<Pass>),
    /// What runs, in this process; what compiles, in a worker that is not started yet.
    Divided(Instance, Later, Vec<Pass>),
}

type Later = Box<dyn FnOnce() -> Result<Instance, String> + Send>;

impl Used {
    /// The one instance that is of use beside `first`.
    fn lacking(self, first: Option<&Instance>) -> Result<(Instance, Vec<Pass>), String> {
        match self {
            Used::Whole(instance, passes) => Ok((instance, passes)),
            Used::Divided(runner, _, passes) if first.is_none_or(|first| first.info().compiles) => Ok((runner, passes)),
            Used::Divided(_, compiler, passes) => Ok((compiler()?, passes)),
        }
    }
}

/// Loads a candidate's library, here or in a worker, and starts its delegate.
fn use_candidate(candidate: &Candidate, library: Library, options: &HostOptions) -> Result<Used, String> {
    let manifest = candidate.manifest.as_ref();
    let passes = manifest.map(|m| m.passes.clone()).unwrap_or_default();
    let wished = manifest.map_or(Isolation::InProcess, |m| m.isolation);
    let isolation = options.isolation.get(&candidate.backend).copied().unwrap_or(wished);
    let has = |role: &str| manifest.is_none_or(|manifest| manifest.roles.iter().any(|own| own == role));
    match isolation {
        Isolation::Worker => return Ok(Used::Whole(in_worker(candidate, library, options)?, passes)),
        Isolation::CompileInWorker if !has("run") => {
            return Ok(Used::Whole(in_worker(candidate, library, options)?, passes));
        }
        Isolation::CompileInWorker if has("compile") => {
            let again = again(&library)?;
            let (of, with) = (candidate.clone(), options.clone());
            let later = Box::new(move || in_worker(&of, again, &with));
            return Ok(Used::Divided(in_process(candidate, library, options)?, later, passes));
        }
        Isolation::CompileInWorker | Isolation::InProcess => {}
    }
    Ok(Used::Whole(in_process(candidate, library, options)?, passes))
}

fn in_process(candidate: &Candidate, library: Library, options: &HostOptions) -> Result<Instance, String> {
    let entry = load(library)?.of(wanted(candidate.manifest.as_ref()))?;
    // SAFETY: that the library keeps the contract where it cannot be checked is what loading it rests on.
    let handshake = unsafe { shake_hands(entry, candidate.manifest.as_ref()) }?;
    start(&candidate.backend, handshake, options)
}

#[cfg(target_os = "linux")]
fn again(library: &Library) -> Result<Library, String> {
    library.again()
}

#[cfg(not(target_os = "linux"))]
fn again(library: &Library) -> Result<Library, String> {
    Ok(Library::AsFound(library.path().to_path_buf()))
}

#[cfg(target_os = "linux")]
fn in_worker(candidate: &Candidate, library: Library, options: &HostOptions) -> Result<Instance, String> {
    let folder = candidate.manifest_path.as_deref().and_then(Path::parent);
    let beside = |paths: &[PathBuf]| -> Vec<PathBuf> {
        let absolute = |path: &PathBuf| folder.map_or_else(|| path.clone(), |folder| folder.join(path));
        paths.iter().map(absolute).collect()
    };
    let wishes = candidate
        .manifest
        .as_ref()
        .map(|m| m.sandbox.clone())
        .unwrap_or_default();
    let own = options.options.get(&candidate.backend).cloned();
    let mut read = beside(&wishes.read);
    let environment = Environment::of_process();
    read.extend(named_by_user(&wishes, own.as_ref(), &environment));
    let programs = programs(&wishes, own.as_ref(), &environment)?;
    read.extend(programs.read);
    let spec = crate::worker::Spec {
        backend: candidate.backend.clone(),
        library: library.absolute()?,
        abi_major: wanted(candidate.manifest.as_ref()),
        options: own,
        worker: options.workers.get(&candidate.backend).cloned().unwrap_or_default(),
        binary: options.worker_binary.clone(),
        sandbox: crate::worker::Sandbox {
            enabled: !options.no_sandbox.contains(&candidate.backend),
            read,
            write: beside(&wishes.write),
            devices: beside(&wishes.devices),
            run: programs.run,
            exec: wishes.exec,
            network: wishes.network,
            temp: wishes.temp,
        },
        log_level: crate::api::log_level().0,
    };
    let remote = crate::worker::Remote::start(spec)?;
    // Here and not in the worker: the manifest that was checked is in this process.
    if let Some(manifest) = &candidate.manifest {
        agree(remote.info(), manifest)?;
    }
    Ok(Instance::Remote(Arc::new(remote)))
}

/// Places that the user named, by an option of the delegate or a variable of the environment, and that its manifest wishes to read. The
/// manifest says which option; what stands in it is the user's. An elevated process heeds no variable.
#[cfg(target_os = "linux")]
fn named_by_user(
    wishes: &SandboxWishes,
    options: Option<&serde_json::Value>,
    environment: &Environment<'_>,
) -> Vec<PathBuf> {
    let option = |key: &String| options?.get(key)?.as_str().map(PathBuf::from);
    let variable = |name: &String| environment.get_os(name).map(PathBuf::from);
    let given = wishes.read_options.iter().filter_map(option);
    let given = given.chain(wishes.read_variables.iter().filter_map(variable));
    let mut places = Vec::new();
    for place in given.filter(|place| !place.as_os_str().is_empty()) {
        let Ok(place) = std::path::absolute(place) else {
            continue;
        };
        // A Python wheel has the libraries that its own need in `NAME.libs` beside the package `NAME`.
        if let Some(name) = place.file_name() {
            let mut libraries = name.to_os_string();
            libraries.push(".libs");
            places.push(place.with_file_name(libraries));
        }
        places.push(place);
    }
    places
}

/// What the programs need that its manifest wishes to start, as the user named them: by an option, or by `PATH`, which an elevated process
/// does not heed.
///
/// # Errors
/// A path that no message to the worker can hold.
#[cfg(target_os = "linux")]
fn programs(
    wishes: &SandboxWishes,
    options: Option<&serde_json::Value>,
    environment: &Environment<'_>,
) -> Result<Needs, String> {
    let path = environment.get_os("PATH");
    let mut all = Needs::default();
    for wish in &wishes.programs {
        let option = wish.option.as_ref().and_then(|key| options?.get(key)?.as_str());
        let Some(program) = option.filter(|text| !text.is_empty()).or(wish.name.as_deref()) else {
            continue;
        };
        let Needs { run, read } = needs(program.as_ref(), path.as_deref());
        if let Some(path) = run.iter().chain(&read).find(|path| path.to_str().is_none()) {
            return Err(format!(
                "the program `{program}` needs `{}`, whose name is no text",
                path.display()
            ));
        }
        all.run.extend(run);
        all.read.extend(read);
    }
    Ok(all)
}

#[cfg(not(target_os = "linux"))]
fn in_worker(_: &Candidate, _: Library, _: &HostOptions) -> Result<Instance, String> {
    Err("isolation: unavailable, this system has no worker processes for delegates".to_string())
}

fn start(backend: &str, handshake: Handshake, options: &HostOptions) -> Result<Instance, String> {
    if handshake.info.name != backend {
        return Err(format!("it is the delegate `{}`, not `{backend}`", handshake.info.name));
    }
    let own = options.options.get(backend);
    let local = Local::start(handshake, own, options.parallel).map_err(|error| {
        let hint = if error.hint.is_empty() {
            String::new()
        } else {
            format!(" ({})", error.hint)
        };
        format!("it did not start: {}{hint}", error.message)
    })?;
    Ok(Instance::Local(Arc::new(local)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::ProgramWish;
    use serde_json::json;

    #[test]
    fn a_worker_starts_the_program_that_the_user_named_and_no_other() {
        let wish = |option: Option<&str>, name: Option<&str>| ProgramWish {
            option: option.map(str::to_string),
            name: name.map(str::to_string),
        };
        let wishes = |programs: Vec<ProgramWish>| SandboxWishes {
            programs,
            ..SandboxWishes::default()
        };
        let nowhere = |name: &str| (name == "PATH").then(|| "/nowhere".into());
        let found = |wish: ProgramWish, options: serde_json::Value, elevated: bool| {
            let environment = Environment::made_up(elevated, &nowhere);
            let needs = programs(&wishes(vec![wish]), Some(&options), &environment).unwrap();
            needs.run.first().cloned()
        };
        let (sh, cat) = (
            Path::new("/bin/sh").canonicalize().unwrap(),
            Path::new("/bin/cat").canonicalize().unwrap(),
        );
        let both = || wish(Some("tool"), Some("sh"));
        // The option, before the name; by the name where it is not set, in `PATH`, which only an elevated process does not heed.
        assert_eq!(found(both(), json!({ "tool": "/bin/cat" }), false), Some(cat.clone()));
        assert_eq!(found(both(), json!({ "tool": "/bin/cat" }), true), Some(cat));
        assert_eq!(found(both(), json!({ "tool": "" }), true), Some(sh.clone()));
        assert_eq!(found(both(), json!({ "other": "/bin/cat" }), true), Some(sh));
        assert_eq!(found(both(), json!({}), false), None);
        assert_eq!(found(wish(Some("tool"), None), json!({ "tool": 3 }), true), None);
        assert_eq!(
            found(wish(Some("tool"), None), json!({ "tool": "/no/such" }), true),
            None
        );
    }

    #[test]
    fn a_worker_reads_where_the_user_pointed_and_nowhere_else() {
        let wishes = SandboxWishes {
            read_options: vec!["library".to_string(), "other".to_string(), "count".to_string()],
            read_variables: vec!["DELEGRAPH_X".to_string()],
            ..SandboxWishes::default()
        };
        let options = json!({ "library": "/opt/vendor/package", "unwished": "/home", "count": 3, "other": "" });
        let expected = [
            PathBuf::from("/opt/vendor/package.libs"),
            PathBuf::from("/opt/vendor/package"),
        ];
        let set = |name: &str| (name == "DELEGRAPH_X").then(|| "/opt/x".into());
        let none = |_: &str| None;
        let named = |options, elevated| named_by_user(&wishes, options, &Environment::made_up(elevated, &set));
        assert_eq!(
            named_by_user(&wishes, Some(&options), &Environment::made_up(false, &none)),
            expected
        );
        assert_eq!(named(Some(&options), true), expected);
        assert_eq!(
            named(None, false),
            [PathBuf::from("/opt/x.libs"), PathBuf::from("/opt/x")]
        );
        assert_eq!(named(None, true), Vec::<PathBuf>::new());
    }
}
