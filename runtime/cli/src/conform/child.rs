//! The child of `conform run`: some cases over one library. Records go to the pipe that was standard output when it started; what the
//! library writes there goes to standard error instead.

use delegraph_kit::registry::{Process, Ran};
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_kit::support::cases::Asker;
use delegraph_runner::folder::bundle_name;
use delegraph_runner::{CaseRecord, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What it gets on standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The library.
    pub subject: SubjectRequest,
    /// What random inputs are made from.
    pub seed: u64,
    /// Ask what is taken, and compute nothing.
    pub support: bool,
    /// Write the claims that fit the answers to all questions into this file, and do nothing else.
    pub propose: Option<PathBuf>,
    /// Write what [`delegraph_kit::digests_of`] gives into this file, and do nothing else.
    pub digests: Option<PathBuf>,
    /// Ids.
    pub cases: Vec<String>,
    /// Where files go that explain a failure: a folder a case.
    pub bundles: Option<PathBuf>,
    /// What a line of a record begins with.
    pub mark: String,
    /// The process that started it.
    pub parent: u32,
}

/// Runs the child.
///
/// # Errors
/// The request is none, or nobody reads the records.
pub fn run() -> anyhow::Result<u8> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    end_with_parent(request.parent);
    let mut records = own_output()?;
    let mut subject = Subject::open(&request.subject);
    if let (Some(file), Ok(subject)) = (&request.digests, &subject) {
        let text = delegraph_kit::digests_of(subject).map_err(anyhow::Error::msg)?;
        crate::output::write_atomically(file, text.as_bytes())?;
        return Ok(0);
    }
    if let Ok(subject) = &mut subject {
        subject.elsewhere = Some(digests_elsewhere);
    }
    let mut process = subject.as_ref().map(|subject| Process::new(subject, request.seed));
    let mut asker = subject.as_ref().ok().map(Asker::new);
    if let (Some(file), Some(asker)) = (&request.propose, &mut asker) {
        propose(asker, file)?;
        return Ok(0);
    }
    for id in &request.cases {
        reset_peak();
        let (mut record, evidence): Ran = match (&mut process, &mut asker) {
            (Ok(_), Some(asker)) if request.support => asker.run(id),
            (Ok(process), _) => process.run(id),
            (Err(problem), _) => (CaseRecord::new(id, Verdict::Fail, problem.clone()), BTreeMap::new()),
        };
        record.id.clone_from(id);
        record.peak_bytes = peak_bytes();
        if let Some(bundles) = &request.bundles
            && explains(record.verdict)
        {
            keep(&bundles.join(bundle_name(id)), &evidence)?;
        }
        // On a line of its own, whatever else wrote there.
        writeln!(records, "\n{}{}", request.mark, serde_json::to_string(&record)?)?;
        records.flush()?;
    }
    Ok(0)
}

/// What a child of this one makes of the kit's graphs.
fn digests_elsewhere(subject: &Subject) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for temporary files: {error}"))?;
    let file = folder.path().join("digests");
    let request = Request {
        subject: subject.request(),
        seed: 0,
        support: false,
        propose: None,
        digests: Some(file.clone()),
        cases: Vec::new(),
        bundles: None,
        mark: String::new(),
        parent: std::process::id(),
    };
    let text = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let started = Command::new(program)
        .args(["conform", "kit"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| format!("it does not start: {error}"))?;
    // Dropped behind this: the child reads to the end.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    }
    let ended = child.wait_with_output().map_err(|error| error.to_string())?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.lines().last().unwrap_or("it says nothing");
        return Err(format!("{}: {last}", ended.status));
    }
    std::fs::read_to_string(&file).map_err(|error| format!("it wrote no digests: {error}"))
}

/// Writes `[[op]]` tables to paste into a manifest, and as comments what no claim can tell.
fn propose(asker: &mut Asker<'_>, file: &Path) -> anyhow::Result<()> {
    let proposal = asker.propose().map_err(anyhow::Error::msg)?;
    let mut text = "# Claims that fit what the delegate takes of the kit's recorded calls. To be read before they are pasted: what was never\n\
        # asked is covered too, where nothing that was asked tells it apart.\n\n"
        .to_string();
    text += &proposal.claims.to_string();
    for line in &proposal.left {
        text += &format!("# not claimed: {line}\n");
    }
    crate::output::write_atomically(file, text.as_bytes())
}

/// Whether a case leaves a bundle.
pub fn explains(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Pass | Verdict::Skip)
}

fn keep(folder: &Path, evidence: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    if evidence.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in evidence {
        // A name is a name and no path.
        let name = name.replace(['/', '\\'], "_");
        if !name.trim_matches('.').is_empty() {
            std::fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Ends this process when the one that started it ends, however: a case that hangs would stay for ever.
fn end_with_parent(parent: u32) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // It may have ended before that.
        if getppid().is_none_or(|now| u32::try_from(now.as_raw_nonzero().get()) != Ok(parent)) {
            std::process::exit(1);
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = parent;
}

/// Standard output as it is, for the records alone; from now on what is written there goes to standard error.
#[cfg(unix)]
fn own_output() -> std::io::Result<std::fs::File> {
    let own = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(own.into())
}

#[cfg(not(unix))]
fn own_output() -> std::io::Result<std::io::Stdout> {
    Ok(std::io::stdout())
}

/// The most memory that this process had, in bytes; `None` where the system does not say.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Begins to count the most memory anew, where the system can: each case has its own.
fn reset_peak() {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}
