//! Device memory as data: kinds of memory, which of them a use wants, and how blocks are shared out. The driver is behind [`Backing`], so that
//! all of it is tested with made-up devices.

use crate::facts::Kind;
use delegraph_sdk::{Error, Status};
use std::collections::BTreeMap;
use std::ops::Range;

/// What pieces begin at and are of multiples of: the largest alignment that a device may ask of a binding, and the largest atom of memory that
/// is not coherent.
pub const ALIGN: u64 = 256;
/// Size of the first block of a kind of memory; each is twice as large as the one before.
const FIRST_BLOCK: u64 = 4 << 20;
/// Size of the largest block that is shared by several pieces.
const LAST_BLOCK: u64 = 64 << 20;

/// A kind of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryType {
    /// Index of its heap.
    pub heap: usize,
    /// Near the device.
    pub device: bool,
    /// The processor can map it.
    pub visible: bool,
    /// Needs no flush and no invalidation.
    pub coherent: bool,
    /// The processor reads it fast.
    pub cached: bool,
    /// For uses that are none of ours: protected content, attachments that may have no memory.
    pub special: bool,
}

/// A heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// Size.
    pub bytes: u64,
    /// Near the device.
    pub device: bool,
}

/// The memory of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// By the driver's index.
    pub types: Vec<MemoryType>,
    /// By the driver's index.
    pub heaps: Vec<Heap>,
    /// What flushed ranges are multiples of.
    pub atom: u64,
    /// Most allocations at a time.
    pub count: u32,
    /// Most bytes of one allocation.
    pub largest: u64,
    /// The processor and the device share one memory: inputs and outputs are written and read where kernels use them.
    pub unified: bool,
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Kernels use it.
    Device,
    /// The processor writes it, then it is copied.
    Upload,
    /// The device writes it, then the processor reads it.
    Readback,
}

impl Table {
    /// True if processor and device share one memory, as far as the table and the kind of device tell.
    pub fn is_unified(&self, kind: Kind) -> bool {
        let of_heap = |index: usize| {
            self.types
                .iter()
                .any(|t| t.heap == index && t.device && t.visible && !t.special)
        };
        let device_heaps = || self.heaps.iter().enumerate().filter(|(_, heap)| heap.device);
        let largest = device_heaps().max_by_key(|(_, heap)| heap.bytes);
        kind != Kind::Discrete && largest.is_some_and(|(index, _)| of_heap(index))
    }

    /// The kinds of memory that do for a use, the best first. `allowed` has a bit for each that the driver allows.
    pub fn candidates(&self, r#use: Use, allowed: u32) -> Vec<usize> {
        let mut found: Vec<usize> = (0..self.types.len().min(32))
            .filter(|i| allowed & (1 << i) != 0)
            .filter(|i| !self.types[*i].special && (r#use == Use::Device || self.types[*i].visible))
            .collect();
        found.sort_by_key(|i| {
            let kind = &self.types[*i];
            let size = self.heaps.get(kind.heap).map_or(0, |heap| heap.bytes);
            let wishes = match (r#use, self.unified) {
                (Use::Device, true) => [kind.device, kind.visible, kind.cached, kind.coherent],
                // The part of a discrete device's memory that the processor sees may be small: it is left to others.
                (Use::Device, false) => [kind.device, !kind.visible, true, true],
                (Use::Upload, _) => [kind.coherent, !kind.device || self.unified, true, true],
                (Use::Readback, _) => [kind.cached, kind.coherent, !kind.device || self.unified, true],
            };
            (wishes.map(|wish| !wish), std::cmp::Reverse(size), *i)
        });
        found
    }

    /// True if the processor reads this kind as fast as any other that it sees.
    pub fn reads_fast(&self, kind: usize) -> bool {
        let cached = |t: &MemoryType| t.visible && t.cached && !t.special;
        self.types
            .get(kind)
            .is_some_and(|t| t.visible && (t.cached || !self.types.iter().any(cached)))
    }

    /// What is flushed or invalidated so that `range` of a block of `end` bytes is.
    pub fn atoms(&self, range: Range<u64>, end: u64) -> Range<u64> {
        let atom = self.atom.max(1);
        range.start / atom * atom..range.end.div_ceil(atom).saturating_mul(atom).min(end)
    }
}

/// What a driver says of a heap at this moment (`VK_EXT_memory_budget`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that this process may use before everybody's allocations begin to be moved about, or fail.
    pub most: u64,
    /// Bytes that it uses by now, those of others in the process included.
    pub used: u64,
}

impl Budget {
    /// What is left of it.
    pub fn left(self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// Who has the memory: the driver.
pub trait Backing {
    /// A block of memory.
    type Block: Clone;

    /// Allocates a block.
    ///
    /// # Errors
    /// There is no more, or what the driver says.
    fn allocate(&self, kind: usize, bytes: u64) -> Result<Self::Block, Error>;

    /// Frees a block.
    fn release(&self, block: Self::Block);

    /// The budget of a heap; `None`: the driver has none.
    fn budget(&self, heap: usize) -> Option<Budget> {
        let _ = heap;
        None
    }
}

/// A part of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<B> {
    /// The block.
    pub block: B,
    /// Index of the kind of memory.
    pub kind: usize,
    /// First byte in the block.
    pub offset: u64,
    /// Size.
    pub bytes: u64,
    /// Which block.
    index: usize,
}

const ROOM: &str = "unload other sessions, or let a smaller part of the model run here";

/// What is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Allocations that the driver made and that are alive.
    pub allocations: u32,
    /// Their bytes.
    pub reserved: u64,
    /// Bytes of all pieces.
    pub used: u64,
    /// The most that `reserved` was.
    pub peak: u64,
}

struct Shared<B> {
    block: B,
    kind: usize,
    bytes: u64,
    /// Free ranges: offset and size.
    holes: BTreeMap<u64, u64>,
}

/// Blocks of a device's memory, and who has which part of them.
pub struct Pools<B> {
    table: Table,
    blocks: Vec<Option<Shared<B>>>,
    heaps: Vec<u64>,
    usage: Usage,
}

impl<B: Clone> Pools<B> {
    /// No blocks yet.
    pub fn new(table: Table) -> Pools<B> {
        Pools {
            heaps: vec![0; table.heaps.len()],
            table,
            blocks: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// What is allocated now.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes memory for a use.
    ///
    /// # Errors
    /// `DEVICE_MEMORY_EXHAUSTED`: no heap has room for it; or what the driver says.
    pub fn take(
        &mut self,
        backing: &impl Backing<Block = B>,
        r#use: Use,
        allowed: u32,
        bytes: u64,
    ) -> Result<Piece<B>, Error> {
        let exhausted = |text: String| Error::new(Status::DEVICE_MEMORY_EXHAUSTED, text);
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(ALIGN)
            .ok_or_else(|| exhausted(format!("{bytes} bytes are more than any device has")))?;
        let candidates = self.table.candidates(r#use, allowed);
        for kind in &candidates {
            if let Some(piece) = self.share(*kind, bytes) {
                return Ok(piece);
            }
        }
        let mut failure = None;
        for kind in &candidates {
            match self.grow(backing, *kind, bytes) {
                Ok(piece) => return Ok(piece),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| exhausted("the device has no memory of the kind that is needed".to_string())))
    }

    /// From a block that there is: the hole that fits best.
    fn share(&mut self, kind: usize, bytes: u64) -> Option<Piece<B>> {
        let fitting = |shared: &Shared<B>| {
            let holes = shared.holes.iter().filter(|(_, size)| **size >= bytes);
            holes.map(|(offset, size)| (*size, *offset)).min()
        };
        let blocks = self.blocks.iter().enumerate();
        let (_, offset, index) = blocks
            .filter_map(|(index, slot)| Some((index, slot.as_ref().filter(|shared| shared.kind == kind)?)))
            .filter_map(|(index, shared)| fitting(shared).map(|(size, offset)| (size, offset, index)))
            .min()?;
        let shared = self.blocks.get_mut(index)?.as_mut()?;
        let size = shared.holes.remove(&offset)?;
        if size > bytes {
            shared.holes.insert(offset + bytes, size - bytes);
        }
        self.usage.used += bytes;
        Some(Piece {
            block: shared.block.clone(),
            kind,
            offset,
            bytes,
            index,
        })
    }

    /// From a new block.
    fn grow(&mut self, backing: &impl Backing<Block = B>, kind: usize, bytes: u64) -> Result<Piece<B>, Error> {
        let exhausted = |text: String| Error::new(Status::DEVICE_MEMORY_EXHAUSTED, text);
        let heap = self.table.types.get(kind).map_or(0, |t| t.heap);
        let (size, taken) = (
            self.table.heaps.get(heap).map_or(0, |h| h.bytes),
            self.heaps.get(heap).copied().unwrap_or(0),
        );
        let left = size.saturating_sub(taken);
        if bytes > left {
            return Err(exhausted(format!(
                "{bytes} bytes are more than the {left} that are left of {size} of the device's memory"
            ))
            .hint(ROOM));
        }
        let budget = backing.budget(heap);
        if let Some(budget) = budget.filter(|budget| bytes > budget.left()) {
            return Err(exhausted(format!(
                "{bytes} bytes are more than the {} that are left of the driver's budget of {} for this process, in a memory of {size}",
                budget.left(),
                budget.most
            ))
            .hint(ROOM));
        }
        let left = left.min(budget.map_or(left, Budget::left));
        if bytes > self.table.largest {
            return Err(exhausted(format!(
                "{bytes} bytes are more than the {} of one allocation",
                self.table.largest
            )));
        }
        if self.usage.allocations >= self.table.count {
            return Err(exhausted(format!(
                "the device has {} allocations, which is all that it allows",
                self.table.count
            )));
        }
        let same = self
            .blocks
            .iter()
            .flatten()
            .filter(|shared| shared.kind == kind)
            .count() as u32;
        let shared = FIRST_BLOCK
            .checked_shl(same)
            .unwrap_or(LAST_BLOCK)
            .clamp(FIRST_BLOCK, LAST_BLOCK)
            .min(size / 8)
            .min(self.table.largest)
            / ALIGN
            * ALIGN;
        // A large piece has a block of its own.
        let wanted = if bytes <= shared / 2 && shared <= left {
            shared
        } else {
            bytes
        };
        let (block, made) = match backing.allocate(kind, wanted) {
            Ok(block) => (block, wanted),
            Err(error) if wanted == bytes => return Err(error),
            Err(_) => (backing.allocate(kind, bytes)?, bytes),
        };
        let entry = Shared {
            block,
            kind,
            bytes: made,
            holes: BTreeMap::from([(0, made)]),
        };
        match self.blocks.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(entry),
            None => self.blocks.push(Some(entry)),
        }
        if let Some(taken) = self.heaps.get_mut(heap) {
            *taken += made;
        }
        self.usage.allocations += 1;
        self.usage.reserved += made;
        self.usage.peak = self.usage.peak.max(self.usage.reserved);
        self.share(kind, bytes)
            .ok_or_else(|| Error::internal("a new block has no room"))
    }

    /// Gives a piece back. A block that nobody uses is freed.
    pub fn give_back(&mut self, backing: &impl Backing<Block = B>, piece: &Piece<B>) {
        let Some(slot) = self.blocks.get_mut(piece.index) else {
            return;
        };
        let Some(shared) = slot.as_mut() else { return };
        let (mut offset, mut bytes) = (piece.offset, piece.bytes);
        if let Some((before, size)) = shared.holes.range(..offset).next_back().map(|(o, s)| (*o, *s))
            && before + size == offset
        {
            shared.holes.remove(&before);
            (offset, bytes) = (before, size + bytes);
        }
        if let Some(size) = shared.holes.remove(&(offset + bytes)) {
            bytes += size;
        }
        shared.holes.insert(offset, bytes);
        self.usage.used -= piece.bytes;
        if bytes < shared.bytes {
            return;
        }
        if let Some(shared) = slot.take() {
            let heap = self.table.types.get(shared.kind).map_or(0, |t| t.heap);
            if let Some(taken) = self.heaps.get_mut(heap) {
                *taken -= shared.bytes;
            }
            self.usage.allocations -= 1;
            self.usage.reserved -= shared.bytes;
            backing.release(shared.block);
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
