//! What the library says. It tells everything through one callback without any word of whom it is for, so calls of the library are made one at a time
//! in the whole process, and what is said during one is that call's.
//!
//! That is also what makes handles usable from any thread: nothing of what is known of the library says that two threads may call it at once.

use super::lock;
use delegraph_sdk::LogLevel;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Where lines go.
pub type Sink = dyn Fn(LogLevel, &str) + Send + Sync;

/// As the library calls it: a format of `printf`, the level, a time stamp and a `va_list`. On x86-64 and arm64 a `va_list` argument is a pointer.
pub type LogCallback = unsafe extern "C" fn(*const c_char, u32, u64, *mut c_void);

/// How many lines of one call are kept.
const MOST_LINES: usize = 64;
/// Longest line, in bytes.
const LONGEST: usize = 2048;

/// One call at a time.
static CALLS: Mutex<()> = Mutex::new(());
/// What is heard during the call that is made, and who wants to know.
static HEARD: Mutex<Option<Heard>> = Mutex::new(None);
/// Who wants to know what is said between calls.
static LAST: Mutex<Option<Weak<Sink>>> = Mutex::new(None);

thread_local! {
    /// How many [`Call`]s this thread has; only the first waits.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

struct Heard {
    sink: Arc<Sink>,
    /// What is said is an answer that was asked for.
    quiet: bool,
    lines: Vec<(u32, String)>,
}

/// The time of one call or of several that belong together. A thread may hold several; the process has those of one thread.
pub struct Call {
    /// Let go last; `None` in an inner one.
    _turn: Option<MutexGuard<'static, ()>>,
    outer: Option<Heard>,
}

impl Call {
    /// Waits for its turn; from here on, what is said is heard.
    pub fn begin(sink: &Arc<Sink>) -> Call {
        Call::new(sink, false)
    }

    /// As [`Call::begin`], for a question: what is said is an answer, not a warning.
    pub fn ask(sink: &Arc<Sink>) -> Call {
        Call::new(sink, true)
    }

    fn new(sink: &Arc<Sink>, quiet: bool) -> Call {
        let first = DEPTH.with(|depth| depth.replace(depth.get() + 1)) == 0;
        let turn = first.then(|| CALLS.lock().unwrap_or_else(PoisonError::into_inner));
        *lock(&LAST) = Some(Arc::downgrade(sink));
        let heard = Heard {
            sink: Arc::clone(sink),
            quiet,
            lines: Vec::new(),
        };
        Call {
            _turn: turn,
            outer: lock(&HEARD).replace(heard),
        }
    }

    /// What was said since this was asked last.
    pub fn words(&self) -> Words {
        let mut heard = lock(&HEARD);
        Words(
            heard
                .as_mut()
                .map(|heard| std::mem::take(&mut heard.lines))
                .unwrap_or_default(),
        )
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        *lock(&HEARD) = self.outer.take();
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Lines, with their levels.
#[derive(Debug, Clone, Default)]
pub struct Words(pub Vec<(u32, String)>);

impl Words {
    /// The line that says most plainly what is wrong: the shortest of the most serious ones that say something.
    pub fn reason(&self) -> Option<String> {
        let said = || self.0.iter().filter(|(_, line)| is_informative(line));
        let worst = said().map(|(level, _)| *level).min()?;
        let lines = said().filter(|(level, _)| *level == worst).map(|(_, line)| plain(line));
        lines.min_by_key(|line| line.len()).map(str::to_string)
    }
}

/// What lines say that only tell that something went wrong, or that are said each time.
const EMPTY_PHRASES: [&str; 8] = [
    "unexpected GraphHtpSettings option",
    "Op specific validation failed",
    "master op validator",
    "QnnBackend_validateOpConfig failed",
    "Failed to validate op",
    "graph prepare failed",
    "skipping post-prepare steps",
    "preparation failed with err",
];

fn is_informative(line: &str) -> bool {
    !EMPTY_PHRASES.iter().any(|phrase| line.contains(phrase)) && plain(line).len() > 4
}

/// Without what stands before the sentence: the level, and the place in the library's sources.
fn plain(line: &str) -> &str {
    let mut line = line.trim();
    for level in ["<E>", "<W>", "<I>"] {
        line = line.strip_prefix(level).unwrap_or(line).trim_start();
    }
    let place = line
        .split_once(':')
        .filter(|(file, _)| [".cc", ".h", ".cpp"].iter().any(|end| file.ends_with(end)));
    if let Some((_, rest)) = place {
        line = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    }
    for level in ["ERROR:", "WARNING:"] {
        line = line.strip_prefix(level).unwrap_or(line);
    }
    line.trim()
}

/// The callback that every log handle gets.
///
/// # Safety
/// Only the library calls it, with a format and the arguments that belong to it.
pub unsafe extern "C" fn on_log(format: *const c_char, level: u32, _time: u64, arguments: *mut c_void) {
    if format.is_null() {
        return;
    }
    // SAFETY: as the caller says.
    let line = unsafe { formatted(format, arguments) };
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    let (sink, quiet) = {
        let mut heard = lock(&HEARD);
        match heard.as_mut() {
            Some(heard) => {
                if heard.lines.len() < MOST_LINES {
                    heard.lines.push((level, line.to_string()));
                }
                (Some(Arc::clone(&heard.sink)), heard.quiet)
            }
            None => (lock(&LAST).as_ref().and_then(Weak::upgrade), false),
        }
    };
    // A call that fails says so with these words; what is said in one that succeeds is of the library's own insides.
    let level = match level {
        0 | 1 if !quiet && is_informative(line) => LogLevel::Warn,
        0..=3 => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    if let Some(sink) = sink {
        // A panic must not go through the library's frames.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink(level, line)));
    }
}

/// The line that the format and its arguments make, cut at [`LONGEST`].
///
/// # Safety
/// The arguments are those of the format.
#[cfg(unix)]
unsafe fn formatted(format: *const c_char, arguments: *mut c_void) -> String {
    // SAFETY: this is its declaration in `stdio.h`, for targets on which a `va_list` argument is a pointer.
    unsafe extern "C" {
        fn vsnprintf(buffer: *mut c_char, size: usize, format: *const c_char, arguments: *mut c_void) -> i32;
    }
    let mut buffer = [0u8; LONGEST];
    // SAFETY: the buffer has this size, and the arguments are the format's, as the caller says.
    let length = unsafe { vsnprintf(buffer.as_mut_ptr().cast(), buffer.len(), format, arguments) };
    let length = usize::try_from(length).unwrap_or(0).min(LONGEST - 1);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The format alone: the C library of such systems has no `vsnprintf` that could be linked with.
///
/// # Safety
/// The format ends in 0.
#[cfg(not(unix))]
unsafe fn formatted(format: *const c_char, _arguments: *mut c_void) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(format) }.to_string_lossy().into_owned()
}

/// A text of the library's; empty if there is none.
///
/// # Safety
/// The pointer is null, or to bytes that end in 0.
pub unsafe fn text(pointer: *const c_char) -> String {
    match pointer.is_null() {
        true => String::new(),
        // SAFETY: as the caller says.
        false => unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_plainest_line() {
        let lines = [
            (2, "graph_prepare.cc:12:WARNING:x"),
            (1, "<E> unexpected GraphHtpSettings option 66"),
            (1, "graph_prepare.cc:211::ERROR:could not create op: q::QNN_NoSuch"),
            (1, "<E> \"Add0\" generated: could not create op, as one says"),
            (1, "<E> RouterX86 graph prepare failed 12"),
        ];
        let words = Words(lines.iter().map(|(level, line)| (*level, line.to_string())).collect());
        assert_eq!(words.reason().as_deref(), Some("could not create op: q::QNN_NoSuch"));
        assert_eq!(
            plain("<E> [4294967295] has incorrect Rank 6."),
            "[4294967295] has incorrect Rank 6."
        );
        assert_eq!(Words::default().reason(), None);
        assert_eq!(
            Words(vec![(1, "Op specific validation failed.".to_string())]).reason(),
            None
        );
    }
}
