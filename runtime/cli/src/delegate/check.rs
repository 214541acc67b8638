//! `delegraph delegate check`: what a library's file says, then, in a child process, what the library says and does.

use super::cases::Verdict;
use super::probe::{Probe, Subject, Task, option_names, probe};
use crate::args::{DelegateCheckArgs, Global};
use crate::output::{Output, Tint, bytes};
use delegraph_abi::{c, newest_minor};
use delegraph_host::Manifest;
use delegraph_kit::file::Library;
use serde::Serialize;
use std::path::Path;

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Pass,
    /// Neither good nor bad: a case that is not taken.
    Note,
    /// It works, and will trouble somebody.
    Warning,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    check: String,
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, check: &str, text: impl Into<String>) {
        let (check, text) = (check.to_string(), text.into());
        self.0.push(Finding { level, check, text });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

/// Runs the command.
///
/// # Errors
/// The file is no library and no manifest, or the child cannot be started.
pub fn run(args: &DelegateCheckArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let subject = Subject::open(&args.file).map_err(crate::bad_input)?;
    let library = Library::read(&subject.library).map_err(crate::bad_input)?;
    let mut findings = Findings::default();
    from_the_file(&library, &mut findings);
    if let Some((path, manifest)) = &subject.manifest {
        from_the_manifest(path, manifest, &mut findings);
    }
    let mut found = None;
    // A library for another machine is looked at and not loaded.
    if !global.no_load && library.is_for_here() && knows_one_of(&library.abi_majors()) {
        let probe = probe(&args.file, Task::Cases, global)?;
        from_the_probe(&probe, &mut findings);
        found = Some(probe);
    }
    let failed = findings.count(Level::Fail);
    let code = match &found {
        Some(probe) if probe.problem.is_some() => 5,
        _ => u8::from(failed > 0),
    };
    show(&subject, &library, &findings, output);
    let verdict = match (failed, &found) {
        (0, Some(_)) => "the library is sound".to_string(),
        (0, None) => "the file is sound; nothing of the library ran".to_string(),
        (n, _) => format!("{n} failed"),
    };
    let warnings = match findings.count(Level::Warning) {
        0 => "no warnings".to_string(),
        1 => "1 warning".to_string(),
        n => format!("{n} warnings"),
    };
    output.data(format!("{verdict}; {warnings}"));
    output.json(&serde_json::json!({
        "schema": "delegraph.delegate-check/1", "tool": crate::tool(), "file": args.file, "library": subject.library,
        "facts": library, "findings": findings.0, "probe": found, "exit_code": code,
    }))?;
    Ok(code)
}

/// Whether this host knows a major that a library has an entry of.
fn knows_one_of(majors: &[u16]) -> bool {
    majors.iter().any(|major| newest_minor(*major).is_some())
}

/// What can be said before anything runs.
fn from_the_file(library: &Library, findings: &mut Findings) {
    let majors = library.abi_majors();
    let version = |major: u16| format!("{major}.{}", newest_minor(major).unwrap_or_default());
    let ours = format!(
        "this host has {}",
        c::ENTRIES.map(|(major, _)| version(major)).join(" and ")
    );
    let known: Vec<&(u16, &str)> = c::ENTRIES.iter().filter(|(major, _)| majors.contains(major)).collect();
    match known.as_slice() {
        [] if majors.is_empty() => {
            let text = format!("it exports no `{}`: it is no delegate", c::ENTRY);
            findings.add(Level::Fail, "entry", text);
        }
        [] => findings.add(Level::Fail, "entry", format!("it is made for ABI {majors:?}; {ours}")),
        known => {
            let named = |(major, name): &&(u16, &str)| format!("`{name}`: ABI {major}");
            let named: Vec<String> = known.iter().map(named).collect();
            findings.add(Level::Pass, "entry", format!("{}; {ours}", named.join(", ")));
        }
    }
    match library.is_for_here() {
        true => findings.add(
            Level::Pass,
            "machine",
            format!("{}, {}", library.format, library.machine),
        ),
        false => {
            let text = format!("{} for {}: it is not loaded here", library.format, library.machine);
            findings.add(Level::Note, "machine", text);
        }
    }
    let others: Vec<&str> = library
        .exports
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("dg_delegate_entry_v"))
        .collect();
    let cpp = match library.cpp_exports {
        0 => String::new(),
        n => format!(" (and {n} weak ones of the C++ library)"),
    };
    match others.len() {
        0 => findings.add(Level::Pass, "exports", format!("nothing but the entry{cpp}")),
        n => findings.add(
            Level::Warning,
            "exports",
            format!(
                "{n} symbols beside the entry: {}{cpp}; hide them with -fvisibility=hidden",
                listed(&others)
            ),
        ),
    }
    findings.add(
        Level::Pass,
        "needs",
        if library.needed.is_empty() {
            "no library".to_string()
        } else {
            library.needed.join(", ")
        },
    );
    match library.search.is_empty() {
        true => findings.add(Level::Pass, "search", "no RPATH"),
        false => findings.add(
            Level::Warning,
            "search",
            format!("{}: folders of the machine that built it?", library.search.join(", ")),
        ),
    }
    match library.sanitizers.is_empty() {
        true => findings.add(Level::Pass, "sanitizer", "none"),
        false => findings.add(
            Level::Warning,
            "sanitizer",
            format!(
                "built for the sanitizer `{}`: only a host built for it loads this",
                library.sanitizers.join("`, `")
            ),
        ),
    }
    match library.executable_stack {
        Some(true) => findings.add(
            Level::Fail,
            "stack",
            "it asks for an executable stack; link with -Wl,-z,noexecstack",
        ),
        Some(false) => findings.add(Level::Pass, "stack", "not executable"),
        None => {}
    }
    if library.text_relocations {
        findings.add(
            Level::Fail,
            "relocations",
            "its code is written to when it is loaded; compile with -fPIC",
        );
    }
    let risky = library.risky();
    match risky.as_slice() {
        // Rust's library has it for panics within panics, C++'s for exceptions that nobody may catch.
        ["abort"] => findings.add(
            Level::Note,
            "calls",
            "it can call `abort`, as Rust's and C++'s own libraries can; nothing else that ends the process",
        ),
        [] => findings.add(
            Level::Pass,
            "calls",
            "nothing that ends, forks or reconfigures the process",
        ),
        _ => findings.add(
            Level::Warning,
            "calls",
            format!(
                "it can call {}: a delegate ends no process, starts none and installs no handlers",
                listed(&risky)
            ),
        ),
    }
}

/// What the manifest says, beside what the host refuses.
fn from_the_manifest(path: &Path, manifest: &Manifest, findings: &mut Findings) {
    let roles = manifest.roles.join(" and ");
    let who = format!(
        "`{}` {} of `{}`, {roles}",
        manifest.name, manifest.version, manifest.vendor
    );
    findings.add(Level::Pass, "manifest", who);
    let Some(schema) = &manifest.options_schema else {
        return;
    };
    let file = path.parent().unwrap_or(Path::new(".")).join(schema);
    let shown = schema.display();
    let read = std::fs::read_to_string(&file).map_err(|error| error.to_string());
    let parsed =
        read.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string()));
    match parsed {
        Err(problem) => findings.add(Level::Fail, "options", format!("`{shown}`: {problem}")),
        Ok(schema) if !schema["properties"].is_object() => {
            findings.add(Level::Fail, "options", format!("`{shown}` has no object `properties`"));
        }
        Ok(schema) => findings.add(Level::Pass, "options", quoted(&option_names(&schema))),
    }
}

/// What the library said and did.
fn from_the_probe(probe: &Probe, findings: &mut Findings) {
    if let Some(look) = &probe.look {
        findings.add(
            Level::Pass,
            "loaded",
            format!(
                "`{}` {} of `{}`, {}, ABI {}.{}, blobs `{}` version {}",
                look.name,
                look.version,
                look.vendor,
                look.roles.join(" and "),
                look.abi_major,
                look.abi_minor,
                look.format,
                look.format_version
            ),
        );
    }
    if let Some(options) = probe.look.as_ref().and_then(|look| look.options.as_ref()) {
        findings.add(Level::Pass, "options", quoted(options));
    }
    for device in probe.devices.iter().flatten() {
        let memory = if device.memory > 0 {
            bytes(device.memory)
        } else {
            "memory not known".to_string()
        };
        let text = format!("{} {} {} {} {memory}", device.id, device.kind, device.name, device.arch);
        findings.add(Level::Pass, "device", text);
    }
    if probe.devices.as_ref().is_some_and(Vec::is_empty) {
        findings.add(Level::Note, "device", "none is here");
    }
    for case in &probe.cases {
        let (level, text) = match case.verdict {
            Verdict::Pass => (Level::Pass, format!("{}: max_abs {:.1e}", case.op, case.max_abs)),
            Verdict::Fail => (Level::Fail, format!("{}: {}", case.op, case.reason)),
            Verdict::NotTaken => (Level::Note, format!("{}: not taken: {}", case.op, case.reason)),
        };
        findings.add(level, &case.id, text);
    }
    if !probe.stray.is_empty() {
        let text = format!(
            "it writes to standard output: {:?}",
            probe.stray.first().map_or("", String::as_str)
        );
        findings.add(Level::Fail, "output", text);
    }
    if let Some(problem) = &probe.problem {
        findings.add(Level::Fail, "runs", problem.clone());
    }
}

fn show(subject: &Subject, library: &Library, findings: &Findings, output: &Output) {
    output.data(output.tint(
        Tint::Bold,
        format!("{} ({})", subject.library.display(), library.format),
    ));
    for finding in &findings.0 {
        let (word, tint) = match finding.level {
            Level::Pass => ("pass", Tint::Green),
            Level::Note => ("-", Tint::Dim),
            Level::Warning => ("warning", Tint::Yellow),
            Level::Fail => ("fail", Tint::Red),
        };
        output.data(format!(
            "{} {:<14} {}",
            output.tint(tint, format!("{word:<8}")),
            finding.check,
            finding.text
        ));
    }
}

fn quoted(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_string(),
        false => listed(&names.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}

/// The first ten, and how many more.
fn listed(names: &[&str]) -> String {
    let first = names
        .iter()
        .take(10)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(10) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
