//! Memory files, maps of them, and descriptors over sockets.

use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most descriptors in one message; Linux lets 253 pass.
pub(crate) const MAX_FILES: usize = 200;

/// A memory file of a size that nobody can change.
pub(crate) fn memory_file(name: &str, size: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, size)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

/// A memory file with this content, which nobody can change.
pub(crate) fn sealed_file(name: &str, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    for part in parts {
        file.write_all(part)?;
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Maps a file from its beginning.
pub(crate) fn map_shared(file: impl AsFd, size: usize, writable: bool) -> io::Result<NonNull<u8>> {
    let mut protection = ProtFlags::READ;
    if writable {
        protection |= ProtFlags::WRITE;
    }
    // SAFETY: the kernel chooses a free address; the file's size is sealed by its maker, or checked by the caller.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, file, 0) }?;
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// # Safety
/// It was mapped with this size, and is not used any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, size: usize) {
    // SAFETY: as the caller says.
    let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), size) };
}

/// The bytes of a sealed file, to read.
pub(crate) struct Map {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: nobody can change the bytes.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a file whose content is sealed.
    ///
    /// # Errors
    /// It is not sealed: its other holders could change or shorten it while it is read.
    pub fn sealed(file: &OwnedFd) -> io::Result<Map> {
        let seals = rustix::fs::fcntl_get_seals(file)?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) {
            return Err(io::Error::other("a file is not sealed"));
        }
        let size = rustix::fs::fstat(file)?.st_size as usize;
        if size == 0 {
            return Ok(Map {
                base: NonNull::dangling(),
                size,
            });
        }
        Ok(Map {
            base: map_shared(file, size, false)?,
            size,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped and nobody can change them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.size) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.size > 0 {
            // SAFETY: it was mapped with this size; borrows of it are over.
            unsafe { unmap(self.base, self.size) }
        }
    }
}

/// Words that two processes read and write at once.
pub(crate) struct Page {
    base: NonNull<AtomicU64>,
    words: usize,
    pub file: OwnedFd,
}

// SAFETY: it is read and written by atomic operations only.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    pub fn new(words: usize) -> io::Result<Page> {
        Page::of(memory_file("delegraph-page", (words * 8) as u64)?, words)
    }

    /// The page of another process.
    pub fn of(file: OwnedFd, words: usize) -> io::Result<Page> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let size = rustix::fs::fstat(&file)?.st_size as usize;
        if !seals.contains(SealFlags::SHRINK) || size < words * 8 {
            return Err(io::Error::other("a page is not sealed, or too small"));
        }
        let base = map_shared(&file, words * 8, true)?.cast();
        Ok(Page { base, words, file })
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped, aligned to a page.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }

    /// A word; 0 beyond the end.
    pub fn get(&self, at: usize) -> u64 {
        self.all().get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets a word; nothing beyond the end.
    pub fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.all().get(at) {
            word.store(value, Ordering::Release);
        }
    }

    /// Writes as much of a text as fits into `room` words from `at` on: its length, then its bytes.
    pub fn set_text(&self, at: usize, room: usize, text: &str) {
        let most = room.saturating_sub(1) * 8;
        let bytes = &text.as_bytes()[..text.floor_char_boundary(most.min(text.len()))];
        self.set(at, bytes.len() as u64);
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.set(at + 1 + i, u64::from_le_bytes(word));
        }
    }

    /// What [`Page::set_text`] wrote; whatever else lies there is read as far as it is text.
    pub fn text(&self, at: usize, room: usize) -> String {
        let length = (self.get(at) as usize).min(room.saturating_sub(1) * 8);
        let words = (0..length.div_ceil(8)).flat_map(|i| self.get(at + 1 + i).to_le_bytes());
        let bytes: Vec<u8> = words.take(length).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size; borrows of it are over.
        unsafe { unmap(self.base.cast(), self.words * 8) }
    }
}

/// A counter that wakes who waits for it.
pub(crate) fn event() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?)
}

pub(crate) fn signal(event: &OwnedFd) -> io::Result<()> {
    rustix::io::write(event, &1u64.to_ne_bytes())?;
    Ok(())
}

/// Waits for a signal, and takes all that there are.
pub(crate) fn take_signals(event: &OwnedFd) -> io::Result<()> {
    let mut count = [0; 8];
    loop {
        match rustix::io::read(event, &mut count) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Has this process end with its parent, and with it what it started: the whole process group, if it leads one.
pub(crate) fn end_group_with_parent() -> io::Result<()> {
    extern "C" fn end_group(_: libc::c_int) {
        // SAFETY: it takes plain numbers, and may be called in a signal's handler.
        unsafe { libc::kill(0, libc::SIGKILL) };
    }
    if rustix::process::getpgrp() != rustix::process::getpid() {
        return Ok(());
    }
    let handler = end_group as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing but one system call.
    if unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    Ok(())
}

/// Sends a message: its size and number of descriptors, with the descriptors, then its bytes.
pub(crate) fn send(mut socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.len() > MAX_FILES || u32::try_from(bytes.len()).is_err() {
        return Err(io::Error::other("a message is too large"));
    }
    let mut head = [0; 8];
    head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&(files.len() as u32).to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let sent = loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    write_quietly(socket, &head[sent..])?;
    write_quietly(socket, bytes)?;
    socket.flush()
}

/// Writes without a signal when the other end is gone.
fn write_quietly(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Largest message: verdicts on a graph of a million nodes fit.
const MAX_MESSAGE: usize = 1 << 28;

/// Receives what [`send`] sent. `None`: the other end is gone.
pub(crate) fn receive(mut socket: &UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut head = [0; 8];
    let mut files = Vec::new();
    let mut have = 0;
    while have < head.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut head[have..])], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if got == 0 {
            return Ok(None);
        }
        have += got;
    }
    let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let count = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if size > MAX_MESSAGE || count != files.len() {
        return Err(io::Error::other("a message is out of order"));
    }
    let mut bytes = Vec::new();
    // Grows with what comes, so that a size that lies takes no memory.
    Read::take(&mut socket, size as u64).read_to_end(&mut bytes)?;
    Ok((bytes.len() == size).then_some((bytes, files)))
}
