//! The value table of a plan under construction.

use delegraph_abi::envelope::Requirement;
use delegraph_ir::{Symbols, TensorType};
use delegraph_pte::model::{Dynamism, EValue, Storage, Tensor};
use delegraph_types::Dims;
use rustc_hash::FxHashMap;

/// Memory id of activations, inputs and outputs.
pub(crate) const ARENA: u32 = 1;
/// Memory id of mutable buffers.
pub(crate) const STATES: u32 = 2;
/// Memory id of values inside delegated regions, allocated only when a region runs portably.
pub(crate) const REGION_INTERNALS: u32 = 3;

/// When a planned tensor is alive, in instruction indices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) arena: u32,
    /// Its largest size.
    pub(crate) bytes: u64,
    /// What delegates need from its first byte on: `bytes`, or more.
    pub(crate) room: u64,
    /// What its offset is a multiple of; 0: nothing is asked.
    pub(crate) alignment: u64,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// Values, literals shared.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) items: Vec<EValue>,
    /// By value index; `None` for what is not planned.
    pub(crate) lives: Vec<Option<Life>>,
    literals: FxHashMap<Literal, u32>,
}

#[derive(PartialEq, Eq, Hash)]
enum Literal {
    Null,
    Int(i64),
    Bool(bool),
    Double(u64),
    String(String),
    IntList(Vec<u32>),
}

impl Values {
    /// Adds a value of its own.
    pub(crate) fn push(&mut self, value: EValue) -> u32 {
        self.items.push(value);
        self.lives.push(None);
        self.items.len() as u32 - 1
    }

    /// A constant that no instruction writes, shared by all that use it.
    pub(crate) fn literal(&mut self, value: EValue) -> u32 {
        let key = match &value {
            EValue::Null => Literal::Null,
            EValue::Int(i) => Literal::Int(*i),
            EValue::Bool(b) => Literal::Bool(*b),
            EValue::Double(f) => Literal::Double(f.to_bits()),
            EValue::String(s) => Literal::String(s.clone()),
            EValue::IntList(items) => Literal::IntList(items.clone()),
            _ => return self.push(value),
        };
        if let Some(&index) = self.literals.get(&key) {
            return index;
        }
        let index = self.push(value);
        self.literals.insert(key, index);
        index
    }

    /// Adds a tensor that instructions write, alive at instruction `now` only so far.
    pub(crate) fn tensor(&mut self, ty: &TensorType, symbols: &Symbols, arena: u32, now: u32) -> u32 {
        let fixed = ty.static_dims();
        let upper = fixed.or_else(|| ty.upper_dims(symbols));
        let bytes = ty.planned_bytes(symbols);
        let (sizes, dynamism) = match (fixed, upper, bytes) {
            (Some(dims), _, _) => (dims, Dynamism::Static),
            (None, Some(dims), Some(_)) => (dims, Dynamism::Bounded),
            // The lower bounds serve as the hint that the format asks for.
            _ => (lower_dims(ty, symbols), Dynamism::Unbounded),
        };
        let index = self.push(EValue::Tensor(Tensor {
            dtype: ty.dtype,
            sizes,
            dim_order: (0..ty.rank() as u8).collect(),
            dynamism,
            storage: Storage::Unplanned,
            name: None,
        }));
        if let Some(bytes) = bytes {
            self.lives[index as usize] = Some(Life {
                arena,
                bytes: bytes as u64,
                room: bytes as u64,
                alignment: 0,
                first: now,
                last: now,
            });
        }
        index
    }

    /// Lets a tensor of fixed sizes be smaller while it is being written.
    pub(crate) fn make_bounded(&mut self, index: u32) {
        if let EValue::Tensor(tensor) = &mut self.items[index as usize]
            && tensor.dynamism == Dynamism::Static
        {
            tensor.dynamism = Dynamism::Bounded;
        }
    }

    /// Marks the value, or what its list holds, as read or written by instruction `now`.
    pub(crate) fn touch(&mut self, index: u32, now: u32) {
        let items = match &self.items[index as usize] {
            EValue::TensorList(items) => items.clone(),
            EValue::OptionalTensorList(items) => items.iter().copied().flatten().collect(),
            _ => {
                if let Some(life) = &mut self.lives[index as usize] {
                    life.last = life.last.max(now);
                }
                return;
            }
        };
        for item in items {
            self.touch(item, now);
        }
    }

    /// Makes the value alive from instruction `first` on.
    pub(crate) fn alive_from(&mut self, index: u32, first: u32) {
        if let Some(life) = &mut self.lives[index as usize] {
            life.first = life.first.min(first);
        }
    }

    /// Makes a value among the activations lie as a delegate requires, too. The memory of states is the app's.
    ///
    /// Each delegate is handed as much room as it asks for, so the largest of what they ask for is enough: no common multiple.
    pub(crate) fn require(&mut self, index: u32, requirement: Requirement) {
        if let Some(life) = &mut self.lives[index as usize]
            && life.arena == ARENA
        {
            let multiple = u64::from(requirement.size_multiple.max(1));
            let room = life.bytes.div_ceil(multiple).saturating_mul(multiple);
            life.room = life.room.max(room);
            life.alignment = life.alignment.max(u64::from(requirement.alignment));
        }
    }

    /// Bytes of the room that a value has beyond its largest size, both counted from its start; 0: none.
    pub(crate) fn room(&self, index: u32) -> u64 {
        let life = self.lives[index as usize].filter(|life| life.room > life.bytes);
        life.map_or(0, |life| life.room)
    }

    /// The tensor of this index, if it is one.
    pub(crate) fn as_tensor(&self, index: u32) -> Option<&Tensor> {
        match &self.items[index as usize] {
            EValue::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

fn lower_dims(ty: &TensorType, symbols: &Symbols) -> Dims {
    let sizes: Vec<i64> = ty
        .shape
        .iter()
        .map(|e| e.lower_bound(symbols).unwrap_or(0).clamp(0, 1 << 20))
        .collect();
    Dims::new(&sizes).unwrap_or(Dims::SCALAR)
}
