//! Blobs as delegates see them: sections in place where they lie aligned, and kept for as long as a delegate retains them.

use delegraph_abi::envelope::Envelope;
use delegraph_abi::{Status, c};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A blob with what holds its bytes: a mapped file, a vector. A delegate that uses the bytes in place keeps it beyond the load, so that it may
/// be dropped on any thread, long after.
pub trait BlobSource: Send + Sync {
    /// The blob in its envelope.
    fn blob(&self) -> &[u8];

    /// The bytes of a section that lies elsewhere in the file, by their SHA-256; `None`: there is no such section.
    fn section(&self, _hash: &[u8; 32]) -> Option<&[u8]> {
        None
    }
}

impl BlobSource for Vec<u8> {
    fn blob(&self) -> &[u8] {
        self
    }
}

/// A blob's bytes as a delegate holds them. It lives in an `Arc`, of which each `blob_retain` takes one count more.
pub(crate) struct BlobHandle {
    _source: Arc<dyn BlobSource>,
    /// Where the sections are that did not lie aligned in the source.
    _moved: Vec<Vec<u8>>,
    retained: AtomicUsize,
}

impl BlobHandle {
    pub fn as_ptr(self: &Arc<Self>) -> *mut c::BlobOwner {
        Arc::as_ptr(self).cast_mut().cast()
    }
}

/// The sections of a blob as they are handed over, each at its alignment. They are valid as long as this is, and those of a blob with a
/// source as long as its handle, too.
pub(crate) struct Placed<'a> {
    /// One a section, in order.
    pub data: Vec<*const u8>,
    /// Of the sections that were moved: position and bytes.
    pub moved: Vec<(usize, usize)>,
    /// `None`: the bytes are the caller's.
    pub handle: Option<Arc<BlobHandle>>,
    _rooms: Vec<Vec<u8>>,
    _borrowed: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Placed<'a> {
    /// `source`, if there is one, holds the bytes of all sections of the envelope.
    pub fn new(envelope: &Envelope<'a>, source: Option<Arc<dyn BlobSource>>) -> Placed<'a> {
        let (mut data, mut moved, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
        for (position, section) in envelope.sections.iter().enumerate() {
            match Aligned::new(section.bytes, section.align) {
                Aligned::InPlace(bytes) => data.push(bytes.as_ptr()),
                Aligned::Copied { room, start } => {
                    data.push(room[start..].as_ptr());
                    moved.push((position, section.bytes.len()));
                    // What a vector holds stays where it is when the vector moves.
                    rooms.push(room);
                }
            }
        }
        let (rooms, handle) = match source {
            None => (rooms, None),
            Some(source) => {
                let handle = BlobHandle {
                    _source: source,
                    _moved: rooms,
                    retained: AtomicUsize::new(0),
                };
                (Vec::new(), Some(Arc::new(handle)))
            }
        };
        Placed {
            data,
            moved,
            handle,
            _rooms: rooms,
            _borrowed: std::marker::PhantomData,
        }
    }

    /// For `dg_blob`; NULL: the bytes cannot be kept.
    pub fn owner(&self) -> *mut c::BlobOwner {
        self.handle.as_ref().map_or(std::ptr::null_mut(), BlobHandle::as_ptr)
    }
}

/// Bytes at an alignment: as they lie, or copied where they lie otherwise.
pub(crate) enum Aligned<'a> {
    InPlace(&'a [u8]),
    Copied { room: Vec<u8>, start: usize },
}

impl<'a> Aligned<'a> {
    pub fn new(bytes: &'a [u8], align: u32) -> Aligned<'a> {
        let align = align as usize;
        if bytes.as_ptr().align_offset(align) == 0 {
            return Aligned::InPlace(bytes);
        }
        let mut room: Vec<u8> = Vec::with_capacity(bytes.len() + align);
        // Filled within its capacity, so that it does not move and the start stays aligned.
        let start = room.as_ptr().align_offset(align).min(align);
        room.resize(start, 0);
        room.extend_from_slice(bytes);
        Aligned::Copied { room, start }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Aligned::InPlace(bytes) => bytes,
            Aligned::Copied { room, start } => &room[*start..],
        }
    }
}

pub(crate) unsafe extern "C" fn blob_retain(owner: *const c::BlobOwner) -> Status {
    // SAFETY: the delegate passes the handle that it was given, which lies in an `Arc` that the load or a retained count keeps.
    unsafe {
        let pointer = owner.cast::<BlobHandle>();
        match pointer.as_ref() {
            None => Status::INVALID_ARGUMENT,
            Some(handle) => {
                handle.retained.fetch_add(1, Ordering::Relaxed);
                Arc::increment_strong_count(pointer);
                Status::OK
            }
        }
    }
}

pub(crate) unsafe extern "C" fn blob_release(owner: *const c::BlobOwner) {
    // SAFETY: as in `blob_retain`; a count is given back only if one was taken.
    unsafe {
        let pointer = owner.cast::<BlobHandle>();
        let taken = |n: usize| n.checked_sub(1);
        let released = pointer.as_ref().is_some_and(|handle| {
            let update = handle.retained.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken);
            update.is_ok()
        });
        if released {
            Arc::decrement_strong_count(pointer);
        }
    }
}
