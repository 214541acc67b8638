//! A program as plain Rust values: what `program.fbs` holds, without its offsets.
//!
//! Field names are those of ExecuTorch's `schema/program.fbs`. The same values are what the reader returns and the writer takes.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_types::{DType, Dims};

/// A whole program. Bulk data is not inside: a reader finds it by [`Program::segments`], a writer is given it beside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// `Program.version`; 0 in every known file.
    pub version: u32,
    /// One a method.
    pub plans: Vec<Plan>,
    /// Absolute byte ranges of the file.
    pub segments: Vec<Range<u64>>,
    /// Where each constant buffer lies; index 0 is reserved. Absolute byte offset of the file; the length follows from the tensor.
    pub constant_offsets: Vec<u64>,
    /// Index of the constant segment in `segments`, if there is one.
    pub constant_segment: Option<u32>,
    /// For each `mutable_data_segments` entry: (segment index, absolute offsets of the initial states).
    pub mutable_segments: Vec<(u32, Vec<u64>)>,
    /// `named_data`: key and segment index.
    pub named_data: Vec<NamedData>,
    /// Absolute byte ranges of inline delegate data (`backend_delegate_data`).
    pub inline_delegate_data: Vec<Range<u64>>,
}

/// A named blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedData {
    /// Its key.
    pub key: String,
    /// Index into [`Program::segments`].
    pub segment: u32,
}

/// `ExecutionPlan`: a method.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Method name.
    pub name: String,
    /// Pytree text of the inputs (`ContainerMetadata.encoded_inp_str`).
    pub in_spec: String,
    /// Pytree text of the outputs.
    pub out_spec: String,
    /// All values, the instructions' operands.
    pub values: Vec<EValue>,
    /// Indices into `values`.
    pub inputs: Vec<u32>,
    /// Indices into `values`.
    pub outputs: Vec<u32>,
    /// The only chain's instructions.
    pub instructions: Vec<Instruction>,
    /// Operators that `Instruction::Kernel` names.
    pub operators: Vec<Operator>,
    /// Delegates that `Instruction::Delegate` names.
    pub delegates: Vec<BackendDelegate>,
    /// Sizes of the arenas in bytes; index 0 is reserved and 0, index = memory id.
    pub buffer_sizes: Vec<u64>,
}

/// A value. Lists of integers hold *value indices*, since sizes can be computed at run time.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum EValue {
    Null,
    Int(i64),
    Bool(bool),
    Double(f64),
    String(String),
    Tensor(Tensor),
    /// Indices of `Int` values.
    IntList(Vec<u32>),
    DoubleList(Vec<f64>),
    BoolList(Vec<bool>),
    /// Indices of `Tensor` values.
    TensorList(Vec<u32>),
    /// Indices of `Tensor` values; -1 is `None`.
    OptionalTensorList(Vec<Option<u32>>),
}

/// `Tensor.shape_dynamism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dynamism {
    Static,
    /// `sizes` are upper bounds.
    Bounded,
    /// Memory is allocated at run time; `sizes` are a hint.
    Unbounded,
}

/// A tensor value.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Sizes, or their upper bounds.
    pub sizes: Dims,
    /// Dimensions from the outermost to the innermost in memory.
    pub dim_order: Vec<u8>,
    /// Whether sizes change at run time.
    pub dynamism: Dynamism,
    /// Where its bytes are.
    pub storage: Storage,
    /// `ExtraTensorInfo.fully_qualified_name`.
    pub name: Option<String>,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// `data_buffer_idx` > 0 and no allocation: index into [`Program::constant_offsets`].
    Constant(u32),
    /// Planned memory.
    Arena(Allocation),
    /// Planned memory with an initial state: (segment of `mutable_segments`, index of its offset).
    MutableWithState(Allocation, u32, u32),
    /// In a `.ptd` file, under the tensor's name.
    External,
    /// No memory of its own: given by the caller, or allocated at run time.
    Unplanned,
}

/// `AllocationDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Arena: index into [`Plan::buffer_sizes`], at least 1.
    pub memory_id: u32,
    /// Byte offset in the arena.
    pub offset: u64,
}

/// A kernel's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Operator {
    /// `aten::add`
    pub name: String,
    /// `out`; may be empty.
    pub overload: String,
}

/// One step of a plan. Operands are indices into [`Plan::values`].
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// Calls `operators[op]` with inputs, then outs, then return values.
    Kernel {
        /// Index into [`Plan::operators`].
        op: u32,
        /// All operands.
        args: Vec<u32>,
    },
    /// Calls `delegates[delegate]` with inputs, then outputs.
    Delegate {
        /// Index into [`Plan::delegates`].
        delegate: u32,
        /// All operands.
        args: Vec<u32>,
    },
    /// Copies the value (a tensor: its data and sizes).
    Move {
        /// Source.
        from: u32,
        /// Destination.
        to: u32,
    },
    /// Goes to `destination` if `condition` (a Bool, or a 0-dim bool tensor) is false.
    JumpFalse {
        /// A Bool or a bool tensor.
        condition: u32,
        /// Absolute instruction index.
        destination: u32,
    },
    /// Frees an unplanned tensor.
    Free {
        /// The tensor.
        value: u32,
    },
}

/// A delegate that the plan itself calls (ExecuTorch's way; Delegraph writes none).
#[derive(Debug, Clone, PartialEq)]
pub struct BackendDelegate {
    /// `XnnpackBackend`
    pub id: String,
    /// Where its blob is.
    pub processed: DelegateData,
    /// Key and value, in order.
    pub compile_specs: Vec<(String, Vec<u8>)>,
}

/// Where a delegate's blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelegateData {
    /// Index into [`Program::inline_delegate_data`].
    Inline(u32),
    /// Index into [`Program::segments`].
    Segment(u32),
}
