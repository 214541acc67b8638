//! What the library says. It tells everything through one callback without any word of whom it is for, so calls of the library are made one at a time
//! in the whole process, and what is said during one is that call's.
//!
//! That is also what makes handles usable from any thread: nothing of what is known of the library says that two threads may call it at once.

use super::lock;
use super::words::{Words, is_informative};
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
