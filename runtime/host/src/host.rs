//! The delegates of a process: found once, each loaded on first use.

use crate::api::log;
use crate::discover::{self, Candidate};
use crate::loader::{Handshake, load, shake_hands};
use crate::trust::{Library, Policy};
use crate::{Delegate, HostError, HostOptions, Pass};
use delegraph_abi::StaticEntry;
use delegraph_abi::c::LogLevel;
use delegraph_types::nearest;
use std::collections::BTreeMap;
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
        if let Some((entry, passes)) = state.statics.get(backend) {
            if let Some(reason) = discover::not_wanted(backend, options) {
                return Err(refused(None, reason));
            }
            // SAFETY: whoever made the static entry vouched for it.
            let handshake = unsafe { shake_hands(entry.entry(), None) };
            return handshake
                .and_then(|h| start(backend, h, options, passes.clone()))
                .map_err(|reason| refused(None, reason));
        }
        let mut reasons = Vec::new();
        let mut manifest = None;
        let State {
            candidates, warnings, ..
        } = state;
        for candidate in candidates.iter_mut().filter(|c| c.backend == backend) {
            if candidate.refusal.is_none() {
                let admitted = self.policy.admit(candidate).and_then(|(library, warning)| {
                    if let Some(warning) = warning {
                        log(backend, LogLevel::WARN, &warning);
                        warnings.push(format!("`{backend}`: {warning}"));
                    }
                    use_candidate(candidate, library, options)
                });
                match admitted {
                    Ok(delegate) => return Ok(delegate),
                    Err(reason) => candidate.refusal = Some(reason),
                }
            }
            manifest = candidate.manifest_path.clone().or(manifest);
            reasons.extend(candidate.refusal.clone());
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

/// Loads a candidate's library and starts its delegate.
fn use_candidate(candidate: &Candidate, library: Library, options: &HostOptions) -> Result<Arc<Delegate>, String> {
    let entry = load(library)?;
    // SAFETY: that the library keeps the contract where it cannot be checked is what loading it rests on.
    let handshake = unsafe { shake_hands(entry, candidate.manifest.as_ref()) }?;
    let passes = candidate.manifest.as_ref().map(|m| m.passes.clone());
    start(&candidate.backend, handshake, options, passes.unwrap_or_default())
}

fn start(
    backend: &str,
    handshake: Handshake,
    options: &HostOptions,
    passes: Vec<Pass>,
) -> Result<Arc<Delegate>, String> {
    if handshake.info.name != backend {
        return Err(format!("it is the delegate `{}`, not `{backend}`", handshake.info.name));
    }
    let own = options.options.get(backend);
    let delegate = Delegate::start(handshake, own, passes, options.parallel).map_err(|error| {
        let hint = if error.hint.is_empty() {
            String::new()
        } else {
            format!(" ({})", error.hint)
        };
        format!("it did not start: {}{hint}", error.message)
    })?;
    Ok(Arc::new(delegate))
}
