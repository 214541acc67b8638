//! The steps that a plan's instructions become at load.

use crate::memory::{MemoryId, Part, Piece};
use crate::tensors::{FIRST_LAZY_ARENA, Place, Slot, SlotId};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::Kernel;

/// One instruction, ready to run.
#[derive(Debug)]
pub(crate) enum Step {
    Kernel(KernelStep),
    /// An operator that there is no kernel for.
    NoKernel,
    /// `executorch_prim::et_view` onto the same bytes: only sizes change. The last field lists the values of the sizes.
    View {
        from: SlotId,
        to: SlotId,
        sizes: Vec<u32>,
    },
    /// Calls a delegate of the plan's own.
    Delegate {
        delegate: u32,
        io: Io,
    },
    /// Copies a tensor; the [`Io`] reads one and writes one. `None`: both have the same bytes.
    MoveTensor {
        from: SlotId,
        to: SlotId,
        io: Option<Io>,
    },
    /// Copies a number.
    MoveNumber {
        from: u32,
        to: u32,
    },
    JumpFalse {
        condition: Condition,
        destination: u32,
    },
    Free(Option<MemoryId>),
}

impl Step {
    /// The tensors that it reads and writes, if it does either.
    pub fn io(&self) -> Option<&Io> {
        match self {
            Step::Kernel(KernelStep { io, .. }) | Step::Delegate { io, .. } | Step::MoveTensor { io: Some(io), .. } => {
                Some(io)
            }
            _ => None,
        }
    }
}

/// What a jump looks at.
#[derive(Debug)]
pub(crate) enum Condition {
    Number(u32),
    /// A bool tensor; the [`Io`] reads it.
    Tensor(Io),
}

/// A kernel call.
#[derive(Debug)]
pub(crate) struct KernelStep {
    pub kernel: Kernel,
    /// In the order of the schema's inputs.
    pub operands: Vec<Operand>,
    /// Integers of the lists: values.
    pub ints: Vec<u32>,
    /// Items of lists of optional tensors: index into `io.reads`.
    pub optional: Vec<Option<u32>>,
    pub io: Io,
    /// The value that takes a returned number.
    pub result: Option<u32>,
    /// The operator updates its outputs from what they hold.
    pub reads_outs: bool,
}

/// An input argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    None,
    /// A number or `None`, of this value at run time.
    Number(u32),
    /// The string of this value.
    Str(u32),
    /// The list of this value.
    Doubles(u32),
    /// The list of this value.
    Bools(u32),
    /// Range of `ints`.
    Ints(Range<usize>),
    /// Index into `io.reads`.
    Tensor(usize),
    /// Range of `io.reads`.
    Tensors(Range<usize>),
    /// Range of `optional`.
    OptionalTensors(Range<usize>),
}

/// The tensors that a step reads and writes, and how it borrows them.
#[derive(Debug, Default)]
pub(crate) struct Io {
    pub reads: Vec<Read>,
    pub writes: Vec<Write>,
    /// Sorted; see [`crate::memory::carve`].
    pub pieces: Vec<Piece>,
    /// Inputs that share bytes with an output, copied before the call.
    pub copies: Vec<CopyIn>,
    /// Arenas that may not be allocated yet.
    pub lazy: Vec<MemoryId>,
}

/// A tensor that is read.
#[derive(Debug)]
pub(crate) struct Read {
    pub slot: SlotId,
    pub source: Source,
}

/// Where the bytes of an input come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Piece {
        index: usize,
        range: Range<usize>,
    },
    Constant(Range<usize>),
    External(u32),
    /// This value of the plan has no data.
    LeftOut(u32),
    /// Index into [`Io::copies`].
    Copy(usize),
    Empty,
}

/// A tensor that is written.
#[derive(Debug)]
pub(crate) struct Write {
    pub slot: SlotId,
    /// `None`: no bytes.
    pub piece: Option<usize>,
}

/// An input to copy.
#[derive(Debug)]
pub(crate) struct CopyIn {
    pub memory: MemoryId,
    /// `None`: all bytes.
    pub range: Option<Range<usize>>,
}

impl Io {
    /// Plans how to borrow these tensors at once.
    ///
    /// # Errors
    /// An output is a constant, or two outputs share bytes.
    pub fn new(slots: &[Slot], reads: &[SlotId], writes: &[SlotId]) -> Result<Io, String> {
        Io::with_rooms(slots, reads, writes, &[])
    }

    /// The same, with so many bytes of each tensor's arena, reads first, from its start on; a tensor without a number and one that is
    /// larger have their own bytes.
    ///
    /// # Errors
    /// As [`Io::new`].
    pub fn with_rooms(slots: &[Slot], reads: &[SlotId], writes: &[SlotId], rooms: &[usize]) -> Result<Io, String> {
        let slot = |id: SlotId| &slots[id.0 as usize];
        // Where a tensor's bytes end, and the room behind them.
        let end = |at: usize, id: SlotId, start: usize| {
            let room = rooms.get(at).copied().unwrap_or(0);
            start + slot(id).capacity.max(room)
        };
        let mut pieces = Vec::new();
        let mut targets = Vec::new();
        for (at, &id) in writes.iter().enumerate() {
            let at = reads.len() + at;
            let target = match slot(id).place {
                Place::Own(memory) => Some(Piece {
                    memory,
                    part: Part::Grow,
                }),
                Place::Arena { memory, start } if slot(id).capacity > 0 => Some(Piece {
                    memory,
                    part: Part::Write(start..end(at, id, start)),
                }),
                Place::Arena { .. } => None,
                Place::Constant(_) | Place::Copied(_) | Place::External(_) | Place::LeftOut(_) => {
                    return Err(format!("writes value {}, which is a constant", slot(id).value));
                }
            };
            pieces.extend(target.clone());
            targets.push(target);
        }
        pieces.sort_by_key(place_key);
        if let Some(pair) = pieces.windows(2).find(|pair| overlap(&pair[0], &pair[1])) {
            return Err(format!("two outputs share bytes of memory {}", pair[0].memory.0));
        }

        let mut copies = Vec::new();
        // What each input wants to borrow, until the pieces are numbered.
        let mut wanted: Vec<(Source, Option<Piece>)> = Vec::new();
        for (at, &id) in reads.iter().enumerate() {
            let piece = match &slot(id).place {
                Place::Constant(range) if range.is_empty() => None,
                Place::Constant(range) => {
                    wanted.push((Source::Constant(range.clone()), None));
                    continue;
                }
                Place::External(index) => {
                    wanted.push((Source::External(*index), None));
                    continue;
                }
                Place::LeftOut(value) => {
                    wanted.push((Source::LeftOut(*value), None));
                    continue;
                }
                Place::Own(memory) | Place::Copied(memory) => Some(Piece {
                    memory: *memory,
                    part: Part::ReadAll,
                }),
                Place::Arena { memory, start } => (slot(id).capacity > 0).then(|| Piece {
                    memory: *memory,
                    part: Part::Read(*start..end(at, id, *start)),
                }),
            };
            let source = match &piece {
                Some(piece) if targets.iter().flatten().any(|target| overlap(piece, target)) => {
                    copies.push(CopyIn {
                        memory: piece.memory,
                        range: match &piece.part {
                            Part::Read(range) => Some(range.clone()),
                            _ => None,
                        },
                    });
                    wanted.push((Source::Copy(copies.len() - 1), None));
                    continue;
                }
                _ => Source::Empty,
            };
            wanted.push((source, piece));
        }
        let mut borrowed: Vec<Piece> = wanted.iter().filter_map(|(_, piece)| piece.clone()).collect();
        borrowed.sort_by_key(place_key);
        let mut merged: Vec<Piece> = Vec::new();
        for piece in borrowed {
            match merged.last_mut() {
                Some(last) if overlap(last, &piece) => {
                    if let (Part::Read(have), Part::Read(more)) = (&mut last.part, &piece.part) {
                        have.end = have.end.max(more.end);
                    }
                }
                _ => merged.push(piece),
            }
        }
        pieces.extend(merged);
        pieces.sort_by_key(place_key);

        let reads = reads
            .iter()
            .zip(wanted)
            .map(|(&slot, (source, piece))| {
                let source = match piece {
                    None => Ok(source),
                    Some(piece) => locate(&pieces, &piece),
                };
                source.map(|source| Read { slot, source })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let writes = writes
            .iter()
            .zip(targets)
            .map(|(&slot, target)| Write {
                slot,
                piece: target.and_then(|target| pieces.iter().position(|piece| *piece == target)),
            })
            .collect();
        let mut lazy: Vec<MemoryId> = pieces
            .iter()
            .map(|piece| piece.memory)
            .chain(copies.iter().map(|copy: &CopyIn| copy.memory))
            .filter(|memory| memory.0 >= FIRST_LAZY_ARENA)
            .collect();
        lazy.sort_unstable();
        lazy.dedup();
        Ok(Io {
            reads,
            writes,
            pieces,
            copies,
            lazy,
        })
    }
}

/// Order by memory and start.
fn place_key(piece: &Piece) -> (MemoryId, usize) {
    let start = match &piece.part {
        Part::Read(range) | Part::Write(range) => range.start,
        Part::ReadAll | Part::Grow => 0,
    };
    (piece.memory, start)
}

fn overlap(a: &Piece, b: &Piece) -> bool {
    a.memory == b.memory
        && match (&a.part, &b.part) {
            (Part::Read(a) | Part::Write(a), Part::Read(b) | Part::Write(b)) => a.start < b.end && b.start < a.end,
            _ => true,
        }
}

/// The piece that holds `wanted`, and where in it.
fn locate(pieces: &[Piece], wanted: &Piece) -> Result<Source, String> {
    for (index, piece) in pieces.iter().enumerate() {
        if piece.memory != wanted.memory {
            continue;
        }
        match (&piece.part, &wanted.part) {
            (Part::ReadAll, Part::ReadAll) => {
                return Ok(Source::Piece {
                    index,
                    range: 0..usize::MAX,
                });
            }
            (Part::Read(have), Part::Read(want)) if have.start <= want.start && want.end <= have.end => {
                return Ok(Source::Piece {
                    index,
                    range: want.start - have.start..want.end - have.start,
                });
            }
            _ => {}
        }
    }
    Err("an input was planned into no piece".into())
}
