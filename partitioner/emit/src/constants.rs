//! Constant buffers and initial states of the file, each distinct content once.

use crate::EmitError;
use crate::left_out::LeftOut;
use delegraph_ir::{Bytes, Constant, ConstantId, Module};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};

/// The file's constant buffers. Index 0 is reserved by the format.
pub(crate) struct ConstantTable<'a> {
    module: &'a Module,
    left_out: &'a LeftOut,
    by_id: Vec<Option<u32>>,
    by_content: FxHashMap<u64, Vec<u32>>,
    by_address: FxHashMap<(usize, usize), u32>,
    buffers: Vec<Bytes>,
}

impl<'a> ConstantTable<'a> {
    pub(crate) fn new(module: &'a Module, left_out: &'a LeftOut) -> ConstantTable<'a> {
        ConstantTable {
            module,
            left_out,
            by_id: vec![None; module.constants.len()],
            by_content: FxHashMap::default(),
            by_address: FxHashMap::default(),
            buffers: vec![Bytes::from(Vec::new())],
        }
    }

    /// The module's constant of this id.
    pub(crate) fn constant(&self, id: ConstantId) -> Option<&'a Constant> {
        self.module.constants.find(id)
    }

    /// The name of a constant that the file is written without.
    pub(crate) fn left_out(&self, id: ConstantId) -> Option<&'a str> {
        self.left_out.name(id)
    }

    /// The buffer index of a constant of the module, added on first use.
    pub(crate) fn index(&mut self, id: ConstantId) -> Result<u32, EmitError> {
        if let Some(Some(index)) = self.by_id.get(id.index()) {
            return Ok(*index);
        }
        let constant = self
            .module
            .constants
            .find(id)
            .ok_or_else(|| EmitError::Constant(id.to_string()))?;
        let index = self.index_of(constant)?;
        self.by_id[id.index()] = Some(index);
        Ok(index)
    }

    /// The buffer index of these contents.
    pub(crate) fn index_of(&mut self, constant: &Constant) -> Result<u32, EmitError> {
        let bytes = constant
            .to_contiguous()
            .ok_or_else(|| EmitError::Constant(constant.name.clone()))?;
        if let Some(&index) = self.by_address.get(&bytes.address()) {
            return Ok(index);
        }
        let mut hasher = FxHasher::default();
        bytes.as_slice().hash(&mut hasher);
        let same = self.by_content.entry(hasher.finish()).or_default();
        let found = same
            .iter()
            .copied()
            .find(|&i| self.buffers[i as usize].as_slice() == bytes.as_slice());
        let index = found.unwrap_or(self.buffers.len() as u32);
        if found.is_none() {
            same.push(index);
            // The buffer stays in the table, so its address cannot be reused by other contents.
            self.by_address.insert(bytes.address(), index);
            self.buffers.push(bytes);
        }
        Ok(index)
    }

    /// All buffers, by index.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        self.buffers.iter().map(Bytes::as_slice).collect()
    }
}

/// Initial values of mutable buffers, each distinct one once. Index 0 is reserved by the format.
#[derive(Default)]
pub(crate) struct StateTable {
    buffers: Vec<Bytes>,
    by_content: FxHashMap<u64, Vec<u32>>,
    by_state: FxHashMap<u32, u32>,
}

impl StateTable {
    /// The index of a state's initial value, added on first use: methods share states.
    pub(crate) fn index(&mut self, state: u32, constant: &Constant) -> Result<u32, EmitError> {
        if let Some(&index) = self.by_state.get(&state) {
            return Ok(index);
        }
        let bytes = constant
            .to_contiguous()
            .ok_or_else(|| EmitError::Constant(constant.name.clone()))?;
        if self.buffers.is_empty() {
            self.buffers.push(Bytes::from(Vec::new()));
        }
        // Caches begin alike, as zeros.
        let mut hasher = FxHasher::default();
        bytes.as_slice().hash(&mut hasher);
        let same = self.by_content.entry(hasher.finish()).or_default();
        let equal = |at: &u32| self.buffers[*at as usize].as_slice() == bytes.as_slice();
        let index = same.iter().copied().find(equal).unwrap_or(self.buffers.len() as u32);
        if index as usize == self.buffers.len() {
            same.push(index);
            self.buffers.push(bytes);
        }
        self.by_state.insert(state, index);
        Ok(index)
    }

    /// All buffers, by index.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        self.buffers.iter().map(Bytes::as_slice).collect()
    }
}
