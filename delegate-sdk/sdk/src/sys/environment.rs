//! The environment of the process. An elevated process (set-uid, set-gid, file capabilities) must not heed what its caller put there.

use std::ffi::OsString;

/// A variable; `None` in an elevated process too, and where it cannot be told whether the process is one.
pub fn variable(name: &str) -> Option<OsString> {
    match is_elevated() {
        true => None,
        false => std::env::var_os(name),
    }
}

/// True if the variable is there and is 1.
pub fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|value| value == "1")
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_elevated() -> bool {
    /// `AT_SECURE` of `elf.h`: the kernel says whether the program was started with more rights than its caller has.
    const SECURE: std::ffi::c_ulong = 23;
    // SAFETY: this is its declaration in `sys/auxv.h`.
    unsafe extern "C" {
        fn getauxval(kind: std::ffi::c_ulong) -> std::ffi::c_ulong;
    }
    // SAFETY: the C library has this function, which reads a table of the process and changes nothing.
    unsafe { getauxval(SECURE) != 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_elevated() -> bool {
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_is_not_elevated() {
        assert!(super::variable("PATH").is_some());
        assert!(super::variable("DELEGRAPH_NO_SUCH_VARIABLE").is_none());
    }
}
