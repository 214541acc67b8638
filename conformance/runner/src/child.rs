//! A case in a process of its own: a crash or a hang is a verdict, not the end of the run.

use crate::batch::last_words;
use crate::record::{CaseRecord, Verdict};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How children are started.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program; it gets `arguments`, the case as JSON on standard input, and answers with one [`CaseRecord`] as the last line of
    /// standard output.
    pub program: PathBuf,
    /// Before anything else.
    pub arguments: Vec<String>,
    /// A child that takes longer is killed and counts as a hang.
    pub limit: Duration,
    /// A case that fails, crashes or hangs is run again this often; if it then passes it is flaky.
    pub retries: u32,
}

impl Launcher {
    /// Runs one case, again where `retries` allows.
    pub fn run(&self, id: &str, case: &serde_json::Value) -> CaseRecord {
        let first = self.run_once(id, case);
        if !first.verdict.is_failure() {
            return first;
        }
        for _ in 0..self.retries {
            let mut again = self.run_once(id, case);
            if again.verdict == Verdict::Pass {
                again.verdict = Verdict::Flaky;
                again.reason = format!("{} at first: {}", first.verdict.name(), first.reason);
                return again;
            }
        }
        first
    }

    fn run_once(&self, id: &str, case: &serde_json::Value) -> CaseRecord {
        let started = Instant::now();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let reason = format!("cannot start `{}`: {error}", self.program.display());
                return CaseRecord::new(id, Verdict::Fail, reason);
            }
        };
        if let Some(mut stdin) = child.stdin.take() {
            // A child that died early closes its end: its exit status tells the story.
            let _ = stdin.write_all(case.to_string().as_bytes());
        }
        // Both pipes are drained on threads, so that a child that talks a lot does not block.
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if started.elapsed() > self.limit => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => return CaseRecord::new(id, Verdict::Crash, format!("lost the child: {error}")),
            }
        };
        let Some(status) = status else {
            return CaseRecord::new(
                id,
                Verdict::Hang,
                format!("still running after {} s", self.limit.as_secs()),
            );
        };
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|handle| handle.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let record = stdout
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str::<CaseRecord>(line).ok());
        match record {
            Some(record) if status.success() && record.id == id => record,
            _ => CaseRecord::new(id, Verdict::Crash, format!("{status}: {}", last_words(&stderr))),
        }
    }
}

/// Most of a child's output that is kept.
const KEPT: u64 = 1 << 20;

/// Reads a pipe to its end on a thread; of a long text the beginning and the end are kept.
pub(crate) fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(KEPT).read_to_end(&mut bytes);
        // The rest is read and dropped, so that the child can go on to its last line.
        let mut tail = Vec::new();
        let mut buffer = [0u8; 8192];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            tail.extend_from_slice(&buffer[..n]);
            let surplus = tail.len().saturating_sub(KEPT as usize);
            tail.drain(..surplus);
        }
        bytes.extend(tail);
        bytes
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, retries: u32) -> CaseRecord {
        let launcher = Launcher {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_string(), script.to_string()],
            limit: Duration::from_millis(400),
            retries,
        };
        launcher.run("x", &serde_json::json!({}))
    }

    const PASS: &str = r#"echo noise; echo '{"id":"x","verdict":"pass"}'"#;

    #[test]
    fn every_end_of_a_child_has_a_verdict() {
        assert_eq!(shell(PASS, 0).verdict, Verdict::Pass);
        assert_eq!(shell("kill -SEGV $$", 0).verdict, Verdict::Crash);
        assert_eq!(
            shell("exit 0", 0).verdict,
            Verdict::Crash,
            "an early exit(0) without a record is no pass"
        );
        assert_eq!(shell(&format!("{PASS}; exit 3"), 0).verdict, Verdict::Crash);
        assert_eq!(shell("sleep 5", 0).verdict, Verdict::Hang);
        assert_eq!(
            shell(r#"echo '{"id":"y","verdict":"pass"}'"#, 0).verdict,
            Verdict::Crash,
            "another case's record"
        );
    }

    #[test]
    fn a_case_that_passes_only_the_second_time_is_flaky() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!(
            "if [ -e {m} ]; then {PASS}; else touch {m}; exit 9; fi",
            m = mark.display()
        );
        assert_eq!(shell(&script, 1).verdict, Verdict::Flaky);
    }
}
