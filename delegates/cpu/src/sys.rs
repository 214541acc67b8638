//! Memory of sessions: what steps read and write while they run.

use delegraph_sdk::Error;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Bytes that vectors of every instruction set, and lines of every cache, lie well at.
pub const ALIGN: usize = 64;

/// From so many bytes on, memory is asked of the system itself: its pages are zeros that take room, and time, when they are first written to.
#[cfg(unix)]
const MAPPED: usize = 1 << 16;

/// Memory at a multiple of [`ALIGN`].
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    /// What was allocated, if anything was.
    allocated: Option<Layout>,
    /// What was mapped instead.
    #[cfg(unix)]
    mapped: Option<memmap2::MmapMut>,
}

// SAFETY: it owns its bytes.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zeros.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub fn new(bytes: usize) -> Result<Memory, Error> {
        #[cfg(unix)]
        if bytes >= MAPPED
            && let Ok(mut map) = memmap2::MmapMut::map_anon(bytes)
            && let Some(start) = NonNull::new(map.as_mut_ptr())
        {
            return Ok(Memory {
                start,
                bytes,
                allocated: None,
                mapped: Some(map),
            });
        }
        let (start, allocated) = match bytes {
            0 => (NonNull::dangling(), None),
            _ => allocate(bytes)?,
        };
        Ok(Memory {
            start,
            bytes,
            allocated,
            #[cfg(unix)]
            mapped: None,
        })
    }

    /// As [`Memory::new`], of bytes that every run writes to: in large pages, where the system has them.
    ///
    /// # Errors
    /// As there.
    pub fn working(bytes: usize) -> Result<Memory, Error> {
        let memory = Memory::new(bytes)?;
        // Without them, all is as it should be but slower at first.
        #[cfg(target_os = "linux")]
        let _ = memory.mapped.as_ref().map(|map| map.advise(memmap2::Advice::HugePage));
        Ok(memory)
    }

    /// A copy of some bytes.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub fn of(bytes: &[u8]) -> Result<Memory, Error> {
        let memory = Memory::new(bytes.len())?;
        // SAFETY: both have so many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory.start.as_ptr(), bytes.len()) };
        Ok(memory)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it has so many, or none.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The bytes, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has them while this is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// How many bytes there are.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// The place of a range, to be read and written by steps.
    ///
    /// # Panics
    /// The range is not in it.
    pub fn slot(&mut self, offset: usize, bytes: usize) -> Slot {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes));
        Slot {
            // SAFETY: it is in the memory, or at its end.
            start: unsafe { self.start.as_ptr().add(offset) },
            bytes,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(layout) = self.allocated {
            // SAFETY: it was allocated so.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// Zeros at a multiple of [`ALIGN`], and how they were allocated.
fn allocate(bytes: usize) -> Result<(NonNull<u8>, Option<Layout>), Error> {
    let out = || {
        Error::new(
            delegraph_sdk::Status::OUT_OF_MEMORY,
            format!("no memory of {bytes} bytes"),
        )
    };
    let layout = Layout::from_size_align(bytes, ALIGN).map_err(|_| out())?;
    // SAFETY: the size is not 0.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out)?;
    Ok((start, Some(layout)))
}

/// Where a tensor lies. Whoever makes one keeps the memory for as long as it is used; the plan keeps apart what is written from what is read.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: a slot is read and written through `Io` alone, which one run has.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    /// Of nothing.
    pub const NONE: Slot = Slot {
        start: std::ptr::dangling_mut::<u64>().cast(),
        bytes: 0,
    };

    /// What is only read.
    pub fn read(bytes: &[u8]) -> Slot {
        Slot {
            start: bytes.as_ptr().cast_mut(),
            bytes: bytes.len(),
        }
    }

    /// What is written.
    pub fn write(bytes: &mut [u8]) -> Slot {
        Slot {
            start: bytes.as_mut_ptr(),
            bytes: bytes.len(),
        }
    }

    /// A part of it; `None`: it is not in it.
    pub fn part(self, offset: usize, bytes: usize) -> Option<Slot> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes).then(|| Slot {
            // SAFETY: it is in the slot, or at its end.
            start: unsafe { self.start.add(offset) },
            bytes,
        })
    }

    /// The same; of nothing, a place that everything is aligned at.
    fn aligned(self) -> Slot {
        match self.bytes {
            0 => Slot {
                start: std::ptr::without_provenance_mut(ALIGN),
                bytes: 0,
            },
            _ => self,
        }
    }

    /// How many bytes it has.
    pub fn size(self) -> usize {
        self.bytes
    }
}

/// A number that any bytes are one of.
pub trait Plain: Copy + Send + Sync + 'static {}
macro_rules! plain {
    ($($t:ty),*) => { $(impl Plain for $t {})* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, half::f16, half::bf16, f32, f64);

/// What a step reads and writes in a run.
pub struct Io<'a> {
    inputs: &'a [u32],
    outputs: &'a [u32],
    slots: &'a [Slot],
    scratch: Slot,
    taken: u64,
    _run: PhantomData<&'a mut u8>,
}

impl<'a> Io<'a> {
    /// The tensors of a step, by their indices among all slots of the run.
    ///
    /// # Safety
    /// The slots' memory lives as long as `'a`, nobody else uses it meanwhile, and no slot of `outputs` or the scratch shares a byte with another
    /// one of the step that it takes.
    pub unsafe fn new(inputs: &'a [u32], outputs: &'a [u32], slots: &'a [Slot], scratch: Slot) -> Io<'a> {
        Io {
            inputs,
            outputs,
            slots,
            scratch,
            taken: 0,
            _run: PhantomData,
        }
    }

    /// The bytes of an input.
    pub fn bytes(&self, at: usize) -> &'a [u8] {
        let slot = self.slots[self.inputs[at] as usize].aligned();
        // SAFETY: as `new` says.
        unsafe { std::slice::from_raw_parts(slot.start, slot.bytes) }
    }

    /// The elements of an input.
    ///
    /// # Panics
    /// It does not lie as such elements do: the plan is wrong.
    pub fn input<T: Plain>(&self, at: usize) -> &'a [T] {
        let slot = self.slots[self.inputs[at] as usize].aligned();
        assert!((slot.start as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: as `new` says, and any bytes are such numbers.
        unsafe { std::slice::from_raw_parts(slot.start.cast(), slot.bytes / size_of::<T>()) }
    }

    /// The bytes of an output, once.
    ///
    /// # Panics
    /// It was taken already.
    pub fn output_bytes(&mut self, at: usize) -> &'a mut [u8] {
        self.output::<u8>(at)
    }

    /// The elements of an output, once.
    ///
    /// # Panics
    /// It was taken already, or does not lie as such elements do.
    pub fn output<T: Plain>(&mut self, at: usize) -> &'a mut [T] {
        assert!(at < 63 && self.taken & (1 << at) == 0, "output {at} is taken twice");
        self.taken |= 1 << at;
        let slot = self.slots[self.outputs[at] as usize].aligned();
        assert!((slot.start as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: as `new` says, and nobody else got it.
        unsafe { std::slice::from_raw_parts_mut(slot.start.cast(), slot.bytes / size_of::<T>()) }
    }

    /// The step's scratch, once.
    ///
    /// # Panics
    /// It was taken already.
    pub fn scratch<T: Plain>(&mut self) -> &'a mut [T] {
        assert!(self.taken & (1 << 63) == 0, "the scratch is taken twice");
        self.taken |= 1 << 63;
        let scratch = self.scratch.aligned();
        // SAFETY: as above; the scratch is aligned for everything.
        unsafe { std::slice::from_raw_parts_mut(scratch.start.cast(), scratch.bytes / size_of::<T>()) }
    }

    /// The step's scratch in two parts, once: `first` elements, and what is left behind them from a multiple of [`ALIGN`] bytes on.
    ///
    /// # Panics
    /// It was taken already, or is shorter than that.
    pub fn scratch_parts<A: Plain, B: Plain>(&mut self, first: usize) -> (&'a mut [A], &'a mut [B]) {
        let (own, rest) = self
            .scratch::<u8>()
            .split_at_mut((first * size_of::<A>()).next_multiple_of(ALIGN));
        // SAFETY: both parts are aligned for everything, and any bytes are such numbers.
        unsafe {
            (
                std::slice::from_raw_parts_mut(own.as_mut_ptr().cast(), first),
                std::slice::from_raw_parts_mut(rest.as_mut_ptr().cast(), rest.len() / size_of::<B>()),
            )
        }
    }

    /// How many outputs there are.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }
}

/// Copies a slot into another of the same size, if they are not the same.
///
/// # Safety
/// As [`Io::new`] says of both.
pub unsafe fn copy(from: Slot, to: Slot) {
    if std::ptr::eq(from.start, to.start) {
        return;
    }
    // SAFETY: as the caller says; `copy` allows an overlap.
    unsafe { std::ptr::copy(from.start, to.start, from.bytes.min(to.bytes)) };
}
