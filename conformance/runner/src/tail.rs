//! What a child writes to standard error, the end of it.

use std::io::Read;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most bytes that are kept.
const KEPT: usize = 64 << 10;

/// The end of a text that grows, read on a thread so that the writer never blocks.
pub(crate) struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Tail {
    /// Of a child's standard error.
    pub(crate) fn of(pipe: Option<ChildStderr>) -> Tail {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let read = |mut pipe: ChildStderr| {
            std::thread::spawn(move || {
                let mut buffer = [0u8; 8192];
                while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                    if let Ok(mut text) = into.lock() {
                        text.extend_from_slice(&buffer[..n]);
                        let surplus = text.len().saturating_sub(KEPT);
                        text.drain(..surplus);
                    }
                }
            })
        };
        Tail {
            text,
            reader: pipe.map(read),
        }
    }

    /// Waits until the writer has closed its end, so long at most: a process that it started may hold it open.
    pub(crate) fn wait(&self, most: Duration) {
        let started = Instant::now();
        let open = || self.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        while open() && started.elapsed() < most {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is there.
    pub(crate) fn peek(&self) -> Vec<u8> {
        self.text.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// What is there, and begins anew.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.text
            .lock()
            .map(|mut text| std::mem::take(&mut *text))
            .unwrap_or_default()
    }
}
