//! `delegraph delegate abi-diff`: what of an old library a new one would break, for those who have it installed or have blobs of it.

use super::cases::Verdict;
use super::probe::{Looked, Subject, Task, probe};
use crate::args::{DelegateAbiDiffArgs, Global};
use crate::output::{Output, Tint};
use delegraph_host::Manifest;
use delegraph_kit::file::Library;
use serde::Serialize;
use std::path::Path;

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Effect {
    /// Something that worked does not any more.
    Breaks,
    /// Look whether it is meant.
    Changes,
    /// Something more.
    Adds,
}

#[derive(Debug, Serialize)]
struct Difference {
    effect: Effect,
    /// What it is about.
    what: &'static str,
    text: String,
}

/// One of the two.
struct Side {
    subject: Subject,
    library: Library,
    /// `None`: it was not loaded.
    look: Option<Looked>,
}

impl Side {
    fn open(file: &Path, global: &Global) -> anyhow::Result<(Side, Option<String>)> {
        let subject = Subject::open(file).map_err(crate::bad_input)?;
        let library = Library::read(&subject.library).map_err(crate::bad_input)?;
        let (mut look, mut problem) = (None, None);
        if !global.no_load && library.is_for_here() {
            let probe = probe(file, Task::Look, global)?;
            (look, problem) = (probe.look, probe.problem);
        }
        Ok((Side { subject, library, look }, problem))
    }
}

/// Runs the command.
///
/// # Errors
/// A file is no library and no manifest.
pub fn run(args: &DelegateAbiDiffArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let (old, old_problem) = Side::open(&args.old, global)?;
    let (new, new_problem) = Side::open(&args.new, global)?;
    let mut found = Vec::new();
    files(&old.library, &new.library, &mut found);
    if let (Some((_, old)), Some((_, new))) = (&old.subject.manifest, &new.subject.manifest) {
        manifests(old, new, &mut found);
    }
    match (&old.look, &new.look) {
        (Some(before), Some(after)) => {
            looks(before, after, &mut found);
            let has = |look: &Looked, role: &str| look.roles.iter().any(|r| r == role);
            if before.name == after.name && has(before, "compile") && has(after, "run") {
                let same = (&before.format, before.format_version) == (&after.format, after.format_version);
                blobs(args, same, global, &mut found)?;
            }
        }
        (Some(_), None) if new_problem.is_some() => {
            let text = format!("the new one does not load: {}", new_problem.unwrap_or_default());
            found.push(Difference {
                effect: Effect::Breaks,
                what: "load",
                text,
            });
        }
        _ => {
            if let Some(problem) = old_problem.or(new_problem) {
                found.push(Difference {
                    effect: Effect::Changes,
                    what: "load",
                    text: format!("tables are not compared: {problem}"),
                });
            }
        }
    }
    found.sort_by_key(|difference| difference.effect as u8);
    for difference in &found {
        let (word, tint) = match difference.effect {
            Effect::Breaks => ("breaks", Tint::Red),
            Effect::Changes => ("changes", Tint::Yellow),
            Effect::Adds => ("adds", Tint::Green),
        };
        output.data(format!(
            "{} {:<10} {}",
            output.tint(tint, format!("{word:<8}")),
            difference.what,
            difference.text
        ));
    }
    let broken = found
        .iter()
        .filter(|difference| difference.effect == Effect::Breaks)
        .count();
    let code = u8::from(broken > 0);
    output.data(match (broken, found.len()) {
        (0, 0) => "no difference that others could see".to_string(),
        (0, _) => "nothing breaks".to_string(),
        (n, _) => format!("{n} of {} differences break something", found.len()),
    });
    output.json(&serde_json::json!({
        "schema": "delegraph.abi-diff/1", "tool": crate::tool(), "old": args.old, "new": args.new, "differences": found,
        "loaded": old.look.is_some() && new.look.is_some(), "exit_code": code,
    }))?;
    Ok(code)
}

/// What was and is not any more, and what is and was not.
fn lists(
    old: &[String],
    new: &[String],
    what: &'static str,
    lost: Effect,
    gained: Effect,
    found: &mut Vec<Difference>,
) {
    for name in old.iter().filter(|name| !new.contains(name)) {
        found.push(Difference {
            effect: lost,
            what,
            text: format!("`{name}` is gone"),
        });
    }
    for name in new.iter().filter(|name| !old.contains(name)) {
        found.push(Difference {
            effect: gained,
            what,
            text: format!("`{name}` is new"),
        });
    }
}

fn files(old: &Library, new: &Library, found: &mut Vec<Difference>) {
    use Effect::{Adds, Breaks, Changes};
    if (old.format, &old.machine) != (new.format, &new.machine) {
        let text = format!(
            "{} for {} became {} for {}",
            old.format, old.machine, new.format, new.machine
        );
        found.push(Difference {
            effect: Breaks,
            what: "machine",
            text,
        });
    }
    lists(&old.exports, &new.exports, "export", Breaks, Adds, found);
    // What it needs has to be on every machine that the old one ran on.
    lists(&old.needed, &new.needed, "needs", Adds, Changes, found);
    lists(&old.search, &new.search, "search", Changes, Changes, found);
    if old.soname != new.soname {
        let name = |library: &Library| library.soname.clone().unwrap_or_else(|| "none".to_string());
        found.push(Difference {
            effect: Changes,
            what: "soname",
            text: format!("{} became {}", name(old), name(new)),
        });
    }
    for sanitizer in new.sanitizers.iter().filter(|name| !old.sanitizers.contains(name)) {
        let text = format!("built for the sanitizer `{sanitizer}`: hosts that are not cannot load it");
        found.push(Difference {
            effect: Breaks,
            what: "sanitizer",
            text,
        });
    }
    if new.executable_stack == Some(true) && old.executable_stack != Some(true) {
        found.push(Difference {
            effect: Breaks,
            what: "stack",
            text: "it asks for an executable stack".to_string(),
        });
    }
}

fn manifests(old: &Manifest, new: &Manifest, found: &mut Vec<Difference>) {
    use Effect::{Adds, Breaks, Changes};
    if old.name != new.name {
        let text = format!(
            "`{}` became `{}`: configurations and blobs name the old one",
            old.name, new.name
        );
        found.push(Difference {
            effect: Breaks,
            what: "manifest",
            text,
        });
    }
    if old.abi_major != new.abi_major || old.abi_min_minor < new.abi_min_minor {
        let (from, to) = ((old.abi_major, old.abi_min_minor), (new.abi_major, new.abi_min_minor));
        let text = format!(
            "it asks for hosts that know {}.{} of the ABI, where {}.{} was enough",
            to.0, to.1, from.0, from.1
        );
        found.push(Difference {
            effect: Breaks,
            what: "manifest",
            text,
        });
    }
    lists(&old.roles, &new.roles, "role", Breaks, Adds, found);
    lists(&old.targets, &new.targets, "target", Breaks, Adds, found);
    let triples = |manifest: &Manifest| manifest.libraries.keys().cloned().collect::<Vec<_>>();
    if !old.libraries.is_empty() && !new.libraries.is_empty() {
        lists(&triples(old), &triples(new), "machine", Breaks, Adds, found);
    }
    let passes = |manifest: &Manifest| {
        manifest
            .passes
            .iter()
            .map(|pass| format!("{pass:?}"))
            .collect::<Vec<_>>()
    };
    lists(&passes(old), &passes(new), "pass", Changes, Changes, found);
    if old.vendor != new.vendor {
        let text = format!("the vendor `{}` became `{}`", old.vendor, new.vendor);
        found.push(Difference {
            effect: Changes,
            what: "manifest",
            text,
        });
    }
    if old.version == new.version {
        let text = format!("both are version {}", new.version);
        found.push(Difference {
            effect: Changes,
            what: "version",
            text,
        });
    }
}

/// What the old one compiled, run by the new one: the truth about the form of the blobs, whatever its version says.
fn blobs(
    args: &DelegateAbiDiffArgs,
    same_version: bool,
    global: &Global,
    found: &mut Vec<Difference>,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let kept = probe(&args.old, Task::Keep(folder.path()), global)?;
    let replayed = probe(&args.new, Task::Replay(folder.path()), global)?;
    let what = "blobs";
    for case in replayed.cases {
        let (effect, verb) = match case.verdict {
            Verdict::Pass => continue,
            Verdict::Fail => (Effect::Breaks, "is misread"),
            Verdict::NotTaken if same_version => {
                (Effect::Breaks, "is refused, though the form says that it is the same")
            }
            Verdict::NotTaken => (Effect::Changes, "is refused"),
        };
        let text = format!("the old one's blob of the case `{}` {verb}: {}", case.id, case.reason);
        found.push(Difference { effect, what, text });
    }
    if let Some(problem) = replayed.problem {
        let text = format!("the new one, with the old one's blobs: {problem}");
        found.push(Difference {
            effect: Effect::Breaks,
            what,
            text,
        });
    }
    if let Some(problem) = kept.problem {
        let text = format!("not all blobs are compared: the old one: {problem}");
        found.push(Difference {
            effect: Effect::Changes,
            what,
            text,
        });
    }
    Ok(())
}

fn looks(old: &Looked, new: &Looked, found: &mut Vec<Difference>) {
    use Effect::{Adds, Breaks, Changes};
    if old.name != new.name {
        let text = format!(
            "`{}` became `{}`: configurations and blobs name the old one",
            old.name, new.name
        );
        found.push(Difference {
            effect: Breaks,
            what: "name",
            text,
        });
    }
    lists(&old.roles, &new.roles, "role", Breaks, Adds, found);
    lists(&old.functions, &new.functions, "function", Breaks, Adds, found);
    if let (Some(old), Some(new)) = (&old.options, &new.options) {
        lists(old, new, "option", Breaks, Adds, found);
    }
    if new.table_size < old.table_size {
        let text = format!(
            "its table shrank from {} to {} bytes: a newer header came before",
            old.table_size, new.table_size
        );
        found.push(Difference {
            effect: Breaks,
            what: "table",
            text,
        });
    }
    for (word, (before, after)) in old.features.iter().zip(&new.features).enumerate() {
        if before & !after != 0 {
            let text = format!("feature bits {:#x} of word {word} are gone", before & !after);
            found.push(Difference {
                effect: Breaks,
                what: "features",
                text,
            });
        }
    }
    if (new.abi_major, new.abi_minor) < (old.abi_major, old.abi_minor) {
        let text = format!(
            "built with ABI {}.{}, where it was {}.{}",
            new.abi_major, new.abi_minor, old.abi_major, old.abi_minor
        );
        found.push(Difference {
            effect: Changes,
            what: "abi",
            text,
        });
    }
    if old.format != new.format {
        let text = format!(
            "blobs `{}` became `{}`: the old ones are not its own any more",
            old.format, new.format
        );
        found.push(Difference {
            effect: Breaks,
            what: "blobs",
            text,
        });
    } else if old.format_version != new.format_version {
        let text = format!(
            "version {} of `{}` became {}: blobs that are installed are compiled again, unless `blob_check` takes them",
            old.format_version, new.format, new.format_version
        );
        found.push(Difference {
            effect: Changes,
            what: "blobs",
            text,
        });
    }
    if old.version == new.version && old.build == new.build {
        let text = format!(
            "both are version {}, build `{}`: nobody can tell them apart",
            new.version, new.build
        );
        found.push(Difference {
            effect: Changes,
            what: "version",
            text,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked() -> Looked {
        Looked {
            name: "acme".to_string(),
            vendor: "Acme".to_string(),
            version: "1.0.0".to_string(),
            build: String::new(),
            abi_major: 0,
            abi_minor: 1,
            format: "acme.steps".to_string(),
            format_version: 1,
            roles: vec!["compile".to_string(), "run".to_string()],
            table_size: 144,
            features: [3, 0],
            functions: vec!["get_info".to_string()],
            options: Some(vec!["speed".to_string()]),
        }
    }

    fn broken(change: impl FnOnce(&mut Looked)) -> Vec<&'static str> {
        let mut new = Looked {
            version: "1.1.0".to_string(),
            ..looked()
        };
        change(&mut new);
        let mut found = Vec::new();
        looks(&looked(), &new, &mut found);
        found
            .iter()
            .filter(|d| d.effect == Effect::Breaks)
            .map(|d| d.what)
            .collect()
    }

    #[test]
    fn what_is_lost_breaks_and_what_is_gained_does_not() {
        assert!(broken(|_| {}).is_empty());
        assert!(broken(|new| new.functions.push("session_submit".to_string())).is_empty());
        assert!(broken(|new| (new.table_size, new.features) = (200, [11, 0])).is_empty());
        assert!(broken(|new| new.format_version = 2).is_empty());
        assert_eq!(broken(|new| new.name = "acme2".to_string()), ["name"]);
        assert_eq!(broken(|new| _ = new.roles.pop()), ["role"]);
        assert_eq!(broken(|new| new.functions.clear()), ["function"]);
        assert_eq!(broken(|new| new.options = Some(Vec::new())), ["option"]);
        assert_eq!(broken(|new| new.table_size = 112), ["table"]);
        assert_eq!(broken(|new| new.features = [1, 0]), ["features"]);
        assert_eq!(broken(|new| new.format = "acme.other".to_string()), ["blobs"]);
    }

    #[test]
    fn files_are_compared_by_what_others_rely_on() {
        let library = |exports: &[&str], needed: &[&str]| Library {
            format: "ELF",
            machine: "x86_64".to_string(),
            exports: exports.iter().map(ToString::to_string).collect(),
            needed: needed.iter().map(ToString::to_string).collect(),
            ..Library::default()
        };
        let effects = |old: &Library, new: &Library| {
            let mut found = Vec::new();
            files(old, new, &mut found);
            found.iter().map(|d| (d.effect, d.what)).collect::<Vec<_>>()
        };
        let (old, new) = (
            library(&["a", "b"], &["libc.so.6"]),
            library(&["a"], &["libc.so.6", "libz.so.1"]),
        );
        assert_eq!(effects(&old, &old), []);
        assert_eq!(
            effects(&old, &new),
            [(Effect::Breaks, "export"), (Effect::Changes, "needs")]
        );
        assert_eq!(effects(&new, &old), [(Effect::Adds, "export"), (Effect::Adds, "needs")]);
        let other = Library {
            machine: "aarch64".to_string(),
            ..old.clone()
        };
        assert_eq!(effects(&old, &other), [(Effect::Breaks, "machine")]);
    }
}
