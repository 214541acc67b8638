//! The proof that a program was checked.

use crate::check;
use crate::model::{EValue, Program, Storage};
use crate::{ProgramParts, PteError, read};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Deref, Range};

/// A program whose every index, size, offset and jump target was checked. Only [`Verified::parse`] makes one.
///
/// It does not hold the file's bytes: offsets and ranges inside refer to a file of [`Verified::file_len`] bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    program: Program,
    file_len: u64,
}

impl Verified {
    /// Reads and checks a `.pte` file. Work and memory are bounded by the file's size.
    ///
    /// # Errors
    /// Another kind of file, a damaged one, one that contradicts itself, or one that needs what Delegraph does not do.
    pub fn parse(bytes: &[u8]) -> Result<Verified, PteError> {
        let (program, layout) = read::program(bytes)?;
        check::keys(program.named_data.iter().map(|named| named.key.as_str()))?;
        for named in &program.named_data {
            if named.segment as usize >= program.segments.len() {
                return Err(PteError::invalid(
                    format!("named data `{}`", named.key),
                    format!("segment {} of {}", named.segment, program.segments.len()),
                ));
            }
        }
        check::plans(&program.plans, &layout)?;
        Ok(Verified {
            program,
            file_len: bytes.len() as u64,
        })
    }

    /// Bytes of the file that was parsed.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Bytes of the named blob; `None` if there is none of this name, or `file` is not the file that was parsed.
    pub fn named<'a>(&self, file: &'a [u8], key: &str) -> Option<&'a [u8]> {
        slice(file, self.named_range(key)?)
    }

    /// Where the named blob lies in the file; `None` if there is none of this name.
    pub fn named_range(&self, key: &str) -> Option<&Range<u64>> {
        let named = self.program.named_data.iter().find(|named| named.key == key)?;
        self.program.segments.get(named.segment as usize)
    }
}

impl Deref for Verified {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

/// A program's bulk data as the writer takes it: what is needed to write a file again after its plans were changed.
#[derive(Debug, Clone, Default)]
pub struct Contents<'a> {
    /// By constant index; empty where no tensor names the constant.
    pub constants: Vec<&'a [u8]>,
    /// By index of the initial state in the first mutable segment.
    pub mutable_states: Vec<&'a [u8]>,
    /// Key, alignment 1, bytes.
    pub named: Vec<(String, u32, &'a [u8])>,
}

impl<'a> Contents<'a> {
    /// The bulk data of `program` in `file`. A constant's length is that of the largest tensor that names it.
    ///
    /// # Errors
    /// `file` is not the file that was parsed.
    pub fn of(program: &Verified, file: &'a [u8]) -> Result<Contents<'a>, PteError> {
        let missing = || PteError::Damaged("the file changed since it was checked".into());
        let mut constants = alloc::vec![0u64; program.constant_offsets.len()];
        let mut states = alloc::vec![0u64; program.mutable_segments.first().map_or(0, |s| s.1.len())];
        for value in program.plans.iter().flat_map(|plan| &plan.values) {
            let EValue::Tensor(tensor) = value else { continue };
            let slot = match tensor.storage {
                Storage::Constant(index) => constants.get_mut(index as usize),
                Storage::MutableWithState(_, 0, index) => states.get_mut(index as usize),
                _ => continue,
            };
            if let (Some(slot), Some(bytes)) = (slot, check::tensor_bytes(tensor)) {
                *slot = (*slot).max(bytes);
            }
        }
        let cut = |offsets: &[u64], lengths: Vec<u64>| {
            offsets
                .iter()
                .zip(lengths)
                .map(|(&start, len)| slice(file, &(start..start.checked_add(len)?)))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(missing)
        };
        let mut named = Vec::new();
        for entry in &program.named_data {
            let range = program.segments.get(entry.segment as usize).ok_or_else(missing)?;
            named.push((entry.key.clone(), 1, slice(file, range).ok_or_else(missing)?));
        }
        Ok(Contents {
            constants: cut(&program.constant_offsets, constants)?,
            mutable_states: match program.mutable_segments.first() {
                Some((_, offsets)) => cut(offsets, states)?,
                None => Vec::new(),
            },
            named,
        })
    }

    /// What the writer takes, with these plans.
    pub fn with_plans<'b>(&'b self, plans: &'b [crate::model::Plan]) -> ProgramParts<'b> {
        ProgramParts {
            plans,
            constants: &self.constants,
            mutable_states: &self.mutable_states,
            named: &self.named,
        }
    }
}

fn slice<'a>(file: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    file.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}
