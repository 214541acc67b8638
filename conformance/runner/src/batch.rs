//! Many small cases in one child process: starting a process costs more than most calls of an operator.
//!
//! The child answers with one [`CaseRecord`] a line, in the order in which it was asked. The case that it was at when it died
//! or stopped answering is the culprit; the rest of the batch goes to a new child.

use crate::record::{CaseRecord, Verdict};
use crate::tail::Tail;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How children are started, where all cases are alike.
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
        let pool = Pool {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            jobs: self.jobs,
            retries: 0,
            mark: String::new(),
        };
        let item = |id: &String| Item {
            id: id.clone(),
            limit: self.limit,
        };
        let items: Vec<Item> = ids.iter().map(item).collect();
        let positions: Vec<usize> = (0..ids.len()).collect();
        let groups: Vec<Vec<usize>> = positions.chunks(self.size.max(1)).map(<[usize]>::to_vec).collect();
        let records: Mutex<Vec<Option<CaseRecord>>> = Mutex::new(vec![None; ids.len()]);
        pool.run(&items, &groups, request, &|position, record, _| {
            done(&record);
            if let Ok(mut records) = records.lock() {
                records[position] = Some(record);
            }
        });
        let records = records.into_inner().unwrap_or_default();
        let lost = |id: &String| CaseRecord::new(id, Verdict::Crash, "the runner lost the case");
        ids.iter()
            .zip(records)
            .map(|(id, record)| record.unwrap_or_else(|| lost(id)))
            .collect()
    }
}

/// A case as the runner sees it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// A case that takes longer is a hang.
    pub limit: Duration,
}

/// How children are started, where each case has a limit of its own.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The program; it gets `arguments`, and the request as JSON on standard input.
    pub program: PathBuf,
    /// Before anything else.
    pub arguments: Vec<String>,
    /// Children at the same time.
    pub jobs: usize,
    /// A case that fails, crashes or hangs is run again by itself this often; if it then passes it is flaky.
    pub retries: u32,
    /// What a line begins with that is a record; the child is told of it, the library under test is not. Empty: any line may be one.
    pub mark: String,
}

/// Most of a line that is read.
const LINE: u64 = 16 << 20;

/// How long what a dead child left in its pipes is waited for. A process that it started may hold them open for ever.
const DRAIN: Duration = Duration::from_millis(500);

/// What is told of a case: its position, its record, and what its child wrote to standard error meanwhile (the end of it).
type Tell<'a> = dyn FnMut(usize, CaseRecord, Vec<u8>) + 'a;

impl Pool {
    /// Runs groups of positions in `items`, a child a group. `done` is told each record as it comes, from several threads.
    pub fn run(
        &self,
        items: &[Item],
        groups: &[Vec<usize>],
        request: &(dyn Fn(&[usize]) -> serde_json::Value + Sync),
        done: &(dyn Fn(usize, CaseRecord, &[u8]) + Sync),
    ) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, groups.len().max(1)) {
                scope.spawn(|| {
                    while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.run_group(items, group, request, &mut |position, record, stderr| {
                            let (record, stderr) = self.settle(items, position, record, stderr, request);
                            done(position, record, &stderr);
                        });
                    }
                });
            }
        });
    }

    /// Runs a failed case again, as often as it may.
    fn settle(
        &self,
        items: &[Item],
        position: usize,
        record: CaseRecord,
        stderr: Vec<u8>,
        request: &(dyn Fn(&[usize]) -> serde_json::Value + Sync),
    ) -> (CaseRecord, Vec<u8>) {
        if !record.verdict.is_failure() {
            return (record, stderr);
        }
        for _ in 0..self.retries {
            let mut again = None;
            self.run_group(items, &[position], request, &mut |_, record, _| again = Some(record));
            if let Some(mut again) = again.filter(|again: &CaseRecord| again.verdict == Verdict::Pass) {
                again.verdict = Verdict::Flaky;
                again.reason = format!("{} at first: {}", record.verdict.name(), record.reason);
                return (again, stderr);
            }
        }
        (record, stderr)
    }

    fn run_group(
        &self,
        items: &[Item],
        group: &[usize],
        request: &(dyn Fn(&[usize]) -> serde_json::Value + Sync),
        tell: &mut Tell<'_>,
    ) {
        let mut rest = group;
        while let Some(&first) = rest.first() {
            let mut running = match Running::start(self, &request(rest)) {
                Ok(running) => running,
                Err(error) => {
                    let reason = format!("cannot start `{}`: {error}", self.program.display());
                    for &position in rest {
                        let record = CaseRecord::new(&items[position].id, Verdict::Fail, reason.clone());
                        tell(position, record, Vec::new());
                    }
                    return;
                }
            };
            // The last record is kept back until the process has ended well: a crash at its end is a crash.
            let mut kept: Option<(usize, CaseRecord, Vec<u8>)> = None;
            let mut answered = 0;
            let mut limit = items[first].limit;
            let end = loop {
                let Some(item) = rest.get(answered).map(|&position| &items[position]) else {
                    break running.end(limit);
                };
                limit = item.limit;
                match running.next(limit) {
                    Answer::Record(record) if record.id == item.id => {
                        let told = (rest[answered], *record, running.stderr.take());
                        if let Some((position, record, stderr)) = kept.replace(told) {
                            tell(position, record, stderr);
                        }
                        answered += 1;
                    }
                    Answer::Record(record) => {
                        running.kill();
                        break End::Bad(format!("the child answered for `{}`", record.id));
                    }
                    Answer::Closed => break running.end(limit),
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
                    let reason = format!("still running after {} s", limit.as_secs_f64());
                    Some((Verdict::Hang, reason))
                }
            };
            match (culprit, kept) {
                (Some((verdict, reason)), kept) if answered < rest.len() => {
                    if let Some((position, record, stderr)) = kept {
                        tell(position, record, stderr);
                    }
                    let position = rest.get(answered).copied().unwrap_or(first);
                    let record = CaseRecord::new(&items[position].id, verdict, reason);
                    tell(position, record, running.stderr.take());
                    answered += 1;
                }
                (Some((verdict, reason)), Some((position, _, mut stderr))) => {
                    let reason = format!("after the last case of a batch: {reason}");
                    stderr.extend(running.stderr.take());
                    tell(position, CaseRecord::new(&items[position].id, verdict, reason), stderr);
                }
                (_, Some((position, record, stderr))) => tell(position, record, stderr),
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
    stderr: Tail,
}

impl Running {
    fn start(pool: &Pool, request: &serde_json::Value) -> std::io::Result<Running> {
        let mut child = Command::new(&pool.program)
            .args(&pool.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = Tail::of(child.stderr.take());
        if let Some(mut stdin) = child.stdin.take() {
            // A child that died early closes its end: its exit status tells the story.
            let _ = stdin.write_all(request.to_string().as_bytes());
        }
        let (sender, records) = channel();
        if let Some(stdout) = child.stdout.take() {
            let mark = pool.mark.clone();
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = Vec::new();
                // A delegate may print what it likes: lines that are no records are passed over.
                while matches!(stdout.by_ref().take(LINE).read_until(b'\n', &mut line), Ok(1..)) {
                    if let Some(text) = line.strip_prefix(mark.as_bytes())
                        && let Ok(record) = serde_json::from_slice::<Box<CaseRecord>>(text)
                        && sender.send(record).is_err()
                    {
                        break;
                    }
                    line.clear();
                }
            });
        }
        Ok(Running { child, records, stderr })
    }

    fn next(&mut self, limit: Duration) -> Answer {
        let started = Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            match self.records.recv_timeout(left.min(DRAIN)) {
                Ok(record) => return Answer::Record(record),
                Err(RecvTimeoutError::Disconnected) => return Answer::Closed,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // A dead child whose own children hold its pipes answers no more.
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return match self.records.recv_timeout(DRAIN) {
                    Ok(record) => Answer::Record(record),
                    Err(_) => Answer::Closed,
                };
            }
            if started.elapsed() >= limit {
                return Answer::Late;
            }
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
        self.stderr.wait(DRAIN);
        End::Bad(format!(
            "{status}: {}",
            last_words(&String::from_utf8_lossy(&self.stderr.peek()))
        ))
    }

    fn wait(&mut self, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
        let started = Instant::now();
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
