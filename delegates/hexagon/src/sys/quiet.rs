//! The library prints a line on the standard output when it is loaded. What an app writes there may be read by a program, so the line goes to the
//! standard error instead.
//!
//! A worker has no standard output to begin with; this is for a delegate that runs in the app's own process.

/// Loads a library.
pub(super) fn loading<T>(body: impl FnOnce() -> T) -> T {
    match goes_nowhere() {
        true => body(),
        false => aside(body),
    }
}

/// True if the standard output is nobody's.
fn goes_nowhere() -> bool {
    std::fs::read_link("/proc/self/fd/1").is_ok_and(|path| path.as_os_str() == "/dev/null")
}

/// What is written to the standard output during the call goes to the standard error; what other threads write there meanwhile, too.
#[cfg(unix)]
fn aside<T>(body: impl FnOnce() -> T) -> T {
    use std::ffi::{c_int, c_void};
    // SAFETY: these are their declarations in `unistd.h` and `stdio.h`.
    unsafe extern "C" {
        fn dup(descriptor: c_int) -> c_int;
        fn dup2(from: c_int, to: c_int) -> c_int;
        fn close(descriptor: c_int) -> c_int;
        fn fflush(stream: *mut c_void) -> c_int;
    }
    /// Puts the standard output back, when the call has ended in any way.
    struct Back(c_int);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: null is all streams; the descriptor is ours, and closed once.
            unsafe {
                fflush(std::ptr::null_mut());
                dup2(self.0, 1);
                close(self.0);
            }
        }
    }
    // SAFETY: null is all streams: what the app has in them goes where it was meant to go. The copy is closed by `Back`.
    let back = unsafe {
        fflush(std::ptr::null_mut());
        dup(1)
    };
    if back < 0 {
        return body();
    }
    let _back = Back(back);
    // SAFETY: both descriptors are those of the process; where there is no standard error, nothing changes.
    unsafe { dup2(2, 1) };
    body()
}

#[cfg(not(unix))]
fn aside<T>(body: impl FnOnce() -> T) -> T {
    body()
}
