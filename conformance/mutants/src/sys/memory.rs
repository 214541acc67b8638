//! Memory that is not the delegate's, and other things that a library must not touch.

use delegraph_sdk::SubmittedRun;
use std::time::Duration;

/// Bytes behind a tensor that are touched.
const BEHIND: usize = 16;

/// Dies as a library with a wild pointer does.
pub fn fault() {
    // SAFETY: there is none. The write faults, which is what this delegate is for.
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) }
}

/// Writes behind the end of a tensor.
pub fn write_behind(bytes: &mut [u8]) {
    for i in 0..BEHIND {
        // SAFETY: there is none; the memory is somebody else's.
        unsafe { bytes.as_mut_ptr().wrapping_add(bytes.len() + i).write_volatile(0xa5) };
    }
}

/// Reads behind the end of a tensor.
pub fn read_behind(bytes: &[u8]) {
    for i in 0..BEHIND {
        // SAFETY: there is none; the memory is somebody else's.
        std::hint::black_box(unsafe { bytes.as_ptr().wrapping_add(bytes.len() + i).read_volatile() });
    }
}

/// Turns over the bits of the first byte of what may only be read.
pub fn write_lent(bytes: &[u8]) {
    if let Some(first) = bytes.first() {
        // SAFETY: there is none; the bytes are lent for reading.
        unsafe { std::ptr::from_ref(first).cast_mut().write_volatile(!*first) };
    }
}

/// Where an input lay in an earlier run.
pub struct Remembered(*const u8, usize);

// SAFETY: it is an address; what is wrong with reading it is wrong on every thread.
unsafe impl Send for Remembered {}

impl Remembered {
    /// Remembers where bytes lie.
    pub fn new(bytes: &[u8]) -> Remembered {
        Remembered(bytes.as_ptr(), bytes.len())
    }

    /// Reads there, whoever has the memory by now.
    pub fn read(&self) -> Vec<u8> {
        // SAFETY: there is none; the loan ended with the run before.
        (0..self.1)
            .map(|i| unsafe { self.0.wrapping_add(i).read_volatile() })
            .collect()
    }
}

/// Lets a run end, and writes its outputs a little later.
pub fn write_after_end(mut run: SubmittedRun, work: impl FnOnce(SubmittedRun)) {
    let places: Vec<(*mut u8, usize)> = run
        .outputs_mut()
        .iter_mut()
        .map(|out| (out.bytes.as_mut_ptr(), out.bytes.len()))
        .collect();
    work(run);
    std::thread::sleep(Duration::from_millis(30));
    for (pointer, size) in places {
        for i in 0..size {
            // SAFETY: there is none; the outputs are the caller's since the end of the run.
            unsafe { pointer.wrapping_add(i).write_volatile(0xa5) };
        }
    }
}

/// Frees an allocation twice.
pub fn free_twice() {
    let pointer = Box::into_raw(Box::new([0u64; 8]));
    // SAFETY: the first is right, the second is not.
    unsafe {
        drop(Box::from_raw(pointer));
        drop(Box::from_raw(std::hint::black_box(pointer)));
    }
}

unsafe extern "C" {
    /// Sets what a signal does.
    safe fn signal(signal: i32, handler: usize) -> usize;
}

/// Takes SIGSEGV for itself.
pub fn install_handler() {
    extern "C" fn handler(_: i32) {
        std::process::abort();
    }
    signal(11, handler as extern "C" fn(i32) as usize);
}

/// Closes a descriptor that somebody else has.
pub fn close(fd: std::os::fd::RawFd) {
    use std::os::fd::FromRawFd;
    // SAFETY: there is none; the descriptor is the host's.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) });
}

/// Looks at what has the number of a descriptor by now.
pub fn map_by_number<T>(fd: std::os::fd::RawFd, map: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> T) -> T {
    // SAFETY: there is none; the host may have closed it, and another may have its number.
    map(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })
}

/// Reads the word behind a table or struct of the host's, as this version knows it: where a later minor may have something.
pub fn look_behind<T>(pointer: *const T) {
    // SAFETY: there is none; nobody said that the host's reaches so far.
    std::hint::black_box(unsafe { pointer.wrapping_add(1).cast::<u64>().read_volatile() });
}
