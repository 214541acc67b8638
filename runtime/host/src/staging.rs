//! Room for a tensor that does not lie where a delegate needs it.

use delegraph_abi::envelope::Requirement;
use std::collections::TryReserveError;

/// Room that is kept between runs.
#[derive(Default)]
pub(crate) struct Staging {
    words: Vec<u8>,
    start: usize,
    length: usize,
    /// The tensor of this run lies here.
    pub used: bool,
}

impl Staging {
    /// Room for `size` bytes that meets a requirement. It does not move until it has to grow.
    pub fn room(&mut self, requirement: Requirement, size: usize) -> Result<&mut [u8], TryReserveError> {
        let align = requirement.alignment.max(16) as usize;
        let length = size.next_multiple_of(requirement.size_multiple.max(1) as usize);
        if length > self.length {
            self.words = Vec::new();
            self.words.try_reserve_exact(length + align)?;
            // Filled within its capacity, so that it does not move.
            self.start = self.words.as_ptr().align_offset(align).min(align);
            self.words.resize(self.start + length, 0);
            self.length = length;
        }
        Ok(&mut self.words[self.start..self.start + length])
    }

    pub fn bytes(&self) -> &[u8] {
        &self.words[self.start..self.start + self.length]
    }
}
