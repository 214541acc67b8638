//! Tensors while a graph is made functional: which share memory, and what each holds now.
//!
//! A view is its base and a [`Step`]. Writing to any tensor of a family gives the base a new value (the inverse steps, as
//! scatters); the others are derived again when they are next read.

use crate::error::{ImportError, Result};
use crate::graph::Builder;
use delegraph_ir::{Arg, ConstantId, Expr, Op, TensorType, ValueId};

/// Index into [`Builder::tensors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TensorId(u32);

/// Where the memory of a family comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made by the graph.
    Node,
    /// The input at this position.
    Input(u32),
    /// A parameter, buffer or constant.
    Weight(ConstantId),
}

/// How a view is made from its base, and a write to it carried back.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The same elements in the same shape.
    Same,
    /// The same elements in the same order, in another shape.
    Reshape,
    /// `permute` with these dimensions.
    Permute(Vec<i64>),
    /// `[dim, start, end, step]` as `slice.Tensor` takes them.
    Slice(Vec<Arg>),
    /// `[dim, index]` as `select.int` takes them.
    Select(Vec<Arg>),
    /// `[offset, dim1, dim2]` as `diagonal` takes them.
    Diagonal(Vec<Arg>),
    /// A view that can be made again but not written through: the operator with its arguments, the base being the first.
    Opaque(Op, Vec<Arg>),
    /// A view or a copy, which depends on strides that are not known.
    Unknown(Op),
}

#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub ty: TensorType,
    pub strides: Option<Vec<Expr>>,
    pub origin: Origin,
    /// The value that it had at `version`.
    value: ValueId,
    /// Of a base: the number of writes. Of a view: the writes of its base that `value` contains.
    version: u32,
    base: TensorId,
    parent: Option<(TensorId, Step)>,
}

impl Builder<'_> {
    /// A tensor that shares memory with no other so far.
    pub fn add_tensor(
        &mut self,
        ty: TensorType,
        strides: Option<Vec<Expr>>,
        value: ValueId,
        origin: Origin,
    ) -> TensorId {
        let id = TensorId(self.tensors.len() as u32);
        self.tensors.push(Tensor {
            ty,
            strides,
            origin,
            value,
            version: 0,
            base: id,
            parent: None,
        });
        id
    }

    /// A view of `parent`, whose present value is `value`.
    pub fn add_view(
        &mut self,
        parent: TensorId,
        step: Step,
        ty: TensorType,
        strides: Option<Vec<Expr>>,
        value: ValueId,
    ) -> TensorId {
        let base = self.tensor(parent).base;
        let version = self.tensor(base).version;
        let id = TensorId(self.tensors.len() as u32);
        self.tensors.push(Tensor {
            ty,
            strides,
            origin: self.tensor(base).origin,
            value,
            version,
            base,
            parent: Some((parent, step)),
        });
        id
    }

    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0 as usize]
    }

    fn tensor_mut(&mut self, id: TensorId) -> &mut Tensor {
        &mut self.tensors[id.0 as usize]
    }

    /// Bases that were written to, in order of creation.
    pub fn written(&self) -> Vec<TensorId> {
        (0..self.tensors.len() as u32)
            .map(TensorId)
            .filter(|id| self.tensor(*id).base == *id && self.tensor(*id).version > 0)
            .collect()
    }

    fn is_current(&self, id: TensorId) -> bool {
        self.tensor(id).version == self.tensor(self.tensor(id).base).version
    }

    /// The value of the tensor now.
    pub fn read(&mut self, id: TensorId) -> Result<ValueId> {
        let mut stale = Vec::new();
        let mut at = id;
        while !self.is_current(at) {
            stale.push(at);
            match &self.tensor(at).parent {
                Some((parent, _)) => at = *parent,
                None => break,
            }
        }
        for view in stale.into_iter().rev() {
            let tensor = self.tensor(view).clone();
            let Some((parent, step)) = tensor.parent else { continue };
            let value = self.derive(self.tensor(parent).value, &step, &tensor.ty, tensor.value)?;
            let version = self.tensor(tensor.base).version;
            let tensor = self.tensor_mut(view);
            (tensor.value, tensor.version) = (value, version);
        }
        Ok(self.tensor(id).value)
    }

    /// Writes a whole new value, which every tensor of the family sees.
    pub fn write(&mut self, id: TensorId, value: ValueId) -> Result<()> {
        let mut chain = vec![(id, value)];
        let (mut at, mut new) = (id, value);
        while let Some((parent, step)) = self.tensor(at).parent.clone() {
            let before = self.read(parent)?;
            let (child, parent_type) = (self.tensor(at).ty.clone(), self.tensor(parent).ty.clone());
            new = self.carry_back(before, new, &step, &child, &parent_type)?;
            chain.push((parent, new));
            at = parent;
        }
        self.tensor_mut(at).version += 1;
        let version = self.tensor(at).version;
        for (tensor, value) in chain {
            let tensor = self.tensor_mut(tensor);
            (tensor.value, tensor.version) = (value, version);
        }
        Ok(())
    }

    fn derive(&mut self, base: ValueId, step: &Step, ty: &TensorType, before: ValueId) -> Result<ValueId> {
        let base = Arg::Value(base);
        let (op, args) = match step {
            Step::Same => return Ok(base.as_value().unwrap_or(before)),
            Step::Reshape => ("aten::view", vec![base, Arg::Ints(ty.shape.clone())]),
            Step::Permute(dims) => ("aten::permute", vec![base, Arg::ints(dims)]),
            Step::Slice(rest) => ("aten::slice.Tensor", with(base, rest)),
            Step::Select(rest) => ("aten::select.int", with(base, rest)),
            Step::Diagonal(rest) => ("aten::diagonal", with(base, rest)),
            Step::Opaque(op, args) => (op.name(), with(base, &args[1..])),
            Step::Unknown(op) => {
                return Err(ImportError::unsupported(format!(
                    "the result of `{op}` is read after its base was written to, and whether it is a view depends on strides that are not known"
                )));
            }
        };
        let name = self.graph.value(before).name.clone();
        self.make(op, args, ty.clone(), &name)
    }

    /// The new value of the base when a view of it gets the value `new`.
    fn carry_back(
        &mut self,
        base: ValueId,
        new: ValueId,
        step: &Step,
        child: &TensorType,
        parent: &TensorType,
    ) -> Result<ValueId> {
        let pair = |rest: &[Arg]| {
            let mut args = vec![Arg::Value(base), Arg::Value(new)];
            args.extend_from_slice(rest);
            args
        };
        let (op, args) = match step {
            Step::Same => return Ok(new),
            Step::Reshape if child.shape == parent.shape => return Ok(new),
            Step::Reshape => ("aten::view", vec![Arg::Value(new), Arg::Ints(parent.shape.clone())]),
            Step::Permute(dims) => {
                let mut inverse = vec![0; dims.len()];
                for (i, d) in dims.iter().enumerate() {
                    inverse[*d as usize] = i as i64;
                }
                ("aten::permute", vec![Arg::Value(new), Arg::ints(&inverse)])
            }
            Step::Slice(rest) => ("aten::slice_scatter", pair(rest)),
            Step::Select(rest) => ("aten::select_scatter", pair(rest)),
            Step::Diagonal(rest) => ("aten::diagonal_scatter", pair(rest)),
            Step::Opaque(op, _) | Step::Unknown(op) => {
                return Err(
                    ImportError::unsupported(format!("a write through a view made by `{op}`"))
                        .hint("copy the view (`clone()`) before writing, or export with `run_decompositions()`"),
                );
            }
        };
        let name = self.graph.value(base).name.clone();
        self.make(op, args, parent.clone(), &name)
    }
}

fn with(base: Arg, rest: &[Arg]) -> Vec<Arg> {
    let mut args = vec![base];
    args.extend_from_slice(rest);
    args
}
