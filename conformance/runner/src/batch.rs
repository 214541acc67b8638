//! Many small cases in one child process: starting a process costs more than most calls of an operator.
//!
//! The child answers with one [`CaseRecord`] a line, in the order in which it was asked. The case that it was at when it died
//! or stopped answering is the culprit; the rest of the batch goes to a new child.

use crate::child::drain;
use crate::record::{CaseRecord, Verdict};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How children are started.
#[derive(Debug, Clone)]
pub struct Batches {
    /// The program; it gets `arguments`, and the request as JSON on standard input.
    pub program: PathBuf,
    /// Before anything else.
    pub arguments: Vec<String>,
    /// A case that takes longer is a hang.
    pub limit: Duration,
    /// Cases in one child.
    pub size: usize,
    /// Children at the same time.
    pub jobs: usize,
}

impl Batches {
    /// Runs all cases; `request` makes what a child reads of the positions that it is to run. `done` is told each record as it
    /// comes, in no particular order. The records are in the order of `ids`.
    pub fn run(
        &self,
        ids: &[String],
        request: &(dyn Fn(&[usize]) -> serde_json::Value + Sync),
        done: &(dyn Fn(&CaseRecord) + Sync),
    ) -> Vec<CaseRecord> {
        let positions: Vec<usize> = (0..ids.len()).collect();
        let batches: Vec<&[usize]> = positions.chunks(self.size.max(1)).collect();
        let next = AtomicUsize::new(0);
        let records: Mutex<Vec<Option<CaseRecord>>> = Mutex::new(vec![None; ids.len()]);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, batches.len().max(1)) {
                scope.spawn(|| {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.run_batch(ids, batch, request, &mut |position, record| {
                            done(&record);
                            if let Ok(mut records) = records.lock() {
                                records[position] = Some(record);
                            }
                        });
                    }
                });
            }
        });
        let records = records.into_inner().unwrap_or_default();
        let lost = |id: &String| CaseRecord::new(id, Verdict::Crash, "the runner lost the case");
        ids.iter()
            .zip(records)
            .map(|(id, record)| record.unwrap_or_else(|| lost(id)))
            .collect()
    }

    fn run_batch(
        &self,
        ids: &[String],
        batch: &[usize],
        request: &(dyn Fn(&[usize]) -> serde_json::Value + Sync),
        tell: &mut dyn FnMut(usize, CaseRecord),
    ) {
        let mut rest = batch;
        while let Some(&first) = rest.first() {
            let mut running = match Running::start(self, &request(rest)) {
                Ok(running) => running,
                Err(error) => {
                    let reason = format!("cannot start `{}`: {error}", self.program.display());
                    for &position in rest {
                        tell(position, CaseRecord::new(&ids[position], Verdict::Fail, reason.clone()));
                    }
                    return;
                }
            };
            // The last record is kept back until the process has ended well: a crash at its end is a crash.
            let mut kept: Option<(usize, CaseRecord)> = None;
            let mut answered = 0;
            let end = loop {
                if answered == rest.len() {
                    break running.end(self.limit);
                }
                match running.next(self.limit) {
                    Answer::Record(record) if record.id == ids[rest[answered]] => {
                        if let Some((position, record)) = kept.replace((rest[answered], *record)) {
                            tell(position, record);
                        }
                        answered += 1;
                    }
                    Answer::Record(record) => {
                        running.kill();
                        break End::Bad(format!("the child answered for `{}`", record.id));
                    }
                    Answer::Closed => break running.end(self.limit),
                    Answer::Late => {
                        running.kill();
                        break End::Late;
                    }
                }
            };
            let culprit = match end {
                End::Well if answered == rest.len() => None,
                End::Well => Some((Verdict::Crash, "the child ended without an answer".to_string())),
                End::Bad(reason) => Some((Verdict::Crash, reason)),
                End::Late => {
                    let reason = format!("still running after {} s", self.limit.as_secs_f64());
                    Some((Verdict::Hang, reason))
                }
            };
            match (culprit, kept) {
                (Some((verdict, reason)), kept) if answered < rest.len() => {
                    if let Some((position, record)) = kept {
                        tell(position, record);
                    }
                    let position = rest.get(answered).copied().unwrap_or(first);
                    tell(position, CaseRecord::new(&ids[position], verdict, reason));
                    answered += 1;
                }
                (Some((verdict, reason)), Some((position, _))) => {
                    let reason = format!("after the last case of a batch: {reason}");
                    tell(position, CaseRecord::new(&ids[position], verdict, reason));
                }
                (_, Some((position, record))) => tell(position, record),
                (_, None) => {}
            }
            rest = &rest[answered..];
        }
    }
}

enum Answer {
    Record(Box<CaseRecord>),
    Closed,
    Late,
}

enum End {
    Well,
    Bad(String),
    Late,
}

struct Running {
    child: Child,
    records: Receiver<Box<CaseRecord>>,
    stderr: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Running {
    fn start(batches: &Batches, request: &serde_json::Value) -> std::io::Result<Running> {
        let mut child = Command::new(&batches.program)
            .args(&batches.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that died early closes its end: its exit status tells the story.
            let _ = stdin.write_all(request.to_string().as_bytes());
        }
        let (sender, records) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                // A delegate may print what it likes: lines that are no records are passed over.
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    if let Ok(record) = serde_json::from_slice::<Box<CaseRecord>>(&line)
                        && sender.send(record).is_err()
                    {
                        break;
                    }
                }
            });
        }
        let stderr = child.stderr.take().map(drain);
        Ok(Running { child, records, stderr })
    }

    fn next(&mut self, limit: Duration) -> Answer {
        match self.records.recv_timeout(limit) {
            Ok(record) => Answer::Record(record),
            Err(RecvTimeoutError::Timeout) => Answer::Late,
            Err(RecvTimeoutError::Disconnected) => Answer::Closed,
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn end(&mut self, limit: Duration) -> End {
        let status = match self.wait(limit) {
            Ok(Some(status)) => status,
            Ok(None) => {
                self.kill();
                return End::Late;
            }
            Err(error) => return End::Bad(format!("lost the child: {error}")),
        };
        if status.success() {
            return End::Well;
        }
        let stderr = self
            .stderr
            .take()
            .and_then(|handle| handle.join().ok())
            .unwrap_or_default();
        End::Bad(format!("{status}: {}", last_words(&String::from_utf8_lossy(&stderr))))
    }

    fn wait(&mut self, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
        let started = std::time::Instant::now();
        loop {
            match self.child.try_wait()? {
                None if started.elapsed() < limit => std::thread::sleep(Duration::from_millis(1)),
                other => return Ok(other),
            }
        }
    }
}

/// The line that says why: a panic's place and message where there is one, else the last line.
pub(crate) fn last_words(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.iter().rposition(|line| line.contains("panicked at")) {
        Some(at) => lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" "),
        None => lines.last().copied().unwrap_or("no message").to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A child of shell script that reads positions, one word each, and does for each what `act` says.
    fn verdicts(act: &str, size: usize) -> Vec<(Verdict, String)> {
        let script = format!(
            r#"read line; for i in $(echo "$line" | tr -d '[]' | tr , ' '); do {act}; echo "{{\"id\":\"c$i\",\"verdict\":\"pass\"}}"; done; {end}"#,
            end = "if [ \"$late\" ]; then exit 9; fi"
        );
        let batches = Batches {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_string(), script],
            limit: Duration::from_millis(700),
            size,
            jobs: 2,
        };
        let ids: Vec<String> = (0..7).map(|i| format!("c{i}")).collect();
        let request = |positions: &[usize]| serde_json::json!(positions);
        let told = AtomicUsize::new(0);
        let records = batches.run(&ids, &request, &|_| {
            told.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(told.into_inner(), ids.len(), "each case is told once");
        assert!(records.iter().zip(&ids).all(|(record, id)| record.id == *id));
        records
            .into_iter()
            .map(|record| (record.verdict, record.reason))
            .collect()
    }

    #[test]
    fn the_culprit_alone_is_blamed_and_the_rest_runs() {
        for size in [1, 3, 100] {
            for (act, culprit) in [
                ("echo noise", None),
                ("if [ $i = 2 ]; then kill -SEGV $$; fi", Some(Verdict::Crash)),
                ("if [ $i = 2 ]; then exit 0; fi", Some(Verdict::Crash)),
                ("if [ $i = 2 ]; then exec sleep 5; fi", Some(Verdict::Hang)),
                ("if [ $i = 2 ]; then i=9; fi", Some(Verdict::Crash)),
            ] {
                for (i, (verdict, reason)) in verdicts(act, size).into_iter().enumerate() {
                    let want = culprit.filter(|_| i == 2).unwrap_or(Verdict::Pass);
                    assert_eq!(verdict, want, "{act}, {size} a batch, case {i}: {reason}");
                }
            }
        }
    }

    #[test]
    fn a_crash_at_the_end_is_no_pass() {
        let verdicts = verdicts("if [ $i = 6 ]; then late=1; fi", 100);
        assert_eq!(verdicts[6].0, Verdict::Crash);
        assert_eq!(verdicts[5].0, Verdict::Pass);
    }

    #[test]
    fn a_panic_is_quoted_with_its_place() {
        let text =
            "noise\nthread 'main' panicked at src/x.rs:1:2:\nindex out of bounds\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(
            last_words(text),
            "thread 'main' panicked at src/x.rs:1:2: index out of bounds"
        );
        assert_eq!(last_words("one\ntwo\n\n"), "two");
        assert_eq!(last_words(""), "no message");
    }
}
