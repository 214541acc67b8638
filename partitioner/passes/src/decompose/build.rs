//! Shortcuts for rules: arguments by position and kind, and the commonest operators as functions.
//!
//! The shortcuts leave out what would do nothing (a view to the same shape, a cast to the same dtype).

use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, TensorType, Type, ValueId};
use delegraph_types::{DType, Scalar};

type Value = Result<ValueId, PassError>;

/// Arguments of the node being replaced.
impl Rewrite<'_> {
    /// The argument as it is.
    pub fn arg(&self, index: usize) -> Arg {
        self.node().args.get(index).cloned().unwrap_or(Arg::None)
    }

    fn wrong(&self, index: usize, expected: &str) -> PassError {
        let name = self
            .node()
            .op
            .schema()
            .params
            .get(index)
            .map(|p| p.name.clone())
            .unwrap_or_default();
        self.unsupported(format!("an argument `{name}` that is not {expected}"))
    }

    /// True if the argument is `None`.
    pub fn is_none(&self, index: usize) -> bool {
        matches!(self.node().args.get(index), None | Some(Arg::None))
    }

    /// A tensor argument.
    pub fn tensor(&self, index: usize) -> Value {
        let value = self.node().args.get(index).and_then(Arg::as_value);
        let value = value.filter(|&v| self.ty(v).is_ok());
        value.ok_or_else(|| self.wrong(index, "a tensor"))
    }

    /// A tensor argument that may be `None`.
    pub fn optional_tensor(&self, index: usize) -> Result<Option<ValueId>, PassError> {
        if self.is_none(index) {
            return Ok(None);
        }
        self.tensor(index).map(Some)
    }

    /// A tensor, or a number made into a 0-dim tensor of `dtype`.
    pub fn tensor_or_number(&mut self, index: usize, dtype: DType) -> Value {
        match self.arg(index) {
            Arg::Value(v) if self.ty(v).is_ok() => Ok(v),
            number => self.emit("aten::full", args![Vec::<i64>::new(), number, dtype]),
        }
    }

    /// `Tensor[]`
    pub fn tensors(&self, index: usize) -> Result<Vec<ValueId>, PassError> {
        match self.node().args.get(index) {
            Some(Arg::Values(values)) => Ok(values.clone()),
            Some(Arg::Ints(none)) if none.is_empty() => Ok(Vec::new()),
            _ => Err(self.wrong(index, "a list of tensors")),
        }
    }

    /// A constant integer.
    pub fn int(&self, index: usize) -> Result<i64, PassError> {
        let value = self.node().args.get(index).and_then(Arg::as_int);
        value.ok_or_else(|| self.wrong(index, "a constant integer"))
    }

    /// A constant integer that may be `None`.
    pub fn optional_int(&self, index: usize) -> Result<Option<i64>, PassError> {
        if self.is_none(index) {
            return Ok(None);
        }
        self.int(index).map(Some)
    }

    /// An integer.
    pub fn expr(&self, index: usize) -> Result<Expr, PassError> {
        match self.node().args.get(index) {
            Some(Arg::Int(e)) => Ok(e.clone()),
            _ => Err(self.wrong(index, "an integer")),
        }
    }

    /// Constant integers; `None` is an empty list.
    pub fn ints(&self, index: usize) -> Result<Vec<i64>, PassError> {
        if self.is_none(index) {
            return Ok(Vec::new());
        }
        let items = self.node().args.get(index).and_then(Arg::as_ints);
        items.ok_or_else(|| self.wrong(index, "a list of constant integers"))
    }

    /// Integers; `None` is an empty list.
    pub fn exprs(&self, index: usize) -> Result<Vec<Expr>, PassError> {
        match self.node().args.get(index) {
            Some(Arg::Ints(items)) => Ok(items.clone()),
            None | Some(Arg::None) => Ok(Vec::new()),
            _ => Err(self.wrong(index, "a list of integers")),
        }
    }

    /// A constant boolean.
    pub fn bool(&self, index: usize) -> Result<bool, PassError> {
        let value = self.node().args.get(index).and_then(Arg::as_bool);
        value.ok_or_else(|| self.wrong(index, "a constant boolean"))
    }

    /// A constant number.
    pub fn scalar(&self, index: usize) -> Result<Scalar, PassError> {
        let value = self.node().args.get(index).and_then(Arg::as_scalar);
        value.ok_or_else(|| self.wrong(index, "a constant number"))
    }

    /// A constant number, as a float.
    pub fn float(&self, index: usize) -> Result<f64, PassError> {
        self.scalar(index).map(Scalar::as_f64)
    }

    /// A constant float that may be `None`.
    pub fn optional_float(&self, index: usize) -> Result<Option<f64>, PassError> {
        if self.is_none(index) {
            return Ok(None);
        }
        self.float(index).map(Some)
    }

    /// A string.
    pub fn text(&self, index: usize) -> Result<String, PassError> {
        match self.node().args.get(index) {
            Some(Arg::Str(s)) => Ok(s.clone()),
            _ => Err(self.wrong(index, "a string")),
        }
    }

    /// A dtype that may be `None`.
    pub fn dtype_arg(&self, index: usize) -> Result<Option<DType>, PassError> {
        match self.node().args.get(index) {
            Some(Arg::DType(d)) => Ok(Some(*d)),
            None | Some(Arg::None) => Ok(None),
            _ => Err(self.wrong(index, "a dtype")),
        }
    }

    /// A possibly negative dimension of a tensor of `rank`, resolved.
    pub fn dim_of(&self, dim: i64, rank: usize) -> Result<usize, PassError> {
        let count = rank.max(1) as i64;
        let resolved = if dim < 0 { dim + count } else { dim };
        match (0..count).contains(&resolved) {
            true => Ok(resolved as usize),
            false => Err(self.invalid(format!("there is no dimension {dim} in {rank}"))),
        }
    }

    /// A dimension argument, resolved.
    pub fn dim(&self, index: usize, rank: usize) -> Result<usize, PassError> {
        self.dim_of(self.int(index)?, rank)
    }

    /// A list of dimensions, resolved; `None` or an empty list are all of them.
    pub fn dims_or_all(&self, index: usize, rank: usize) -> Result<Vec<i64>, PassError> {
        let dims = match self.node().args.get(index) {
            Some(Arg::Int(e)) => vec![e.as_int().ok_or_else(|| self.wrong(index, "a constant dimension"))?],
            _ => self.ints(index)?,
        };
        match dims.is_empty() || rank == 0 {
            true => Ok((0..rank as i64).collect()),
            false => dims
                .into_iter()
                .map(|d| self.dim_of(d, rank).map(|d| d as i64))
                .collect(),
        }
    }
}

/// Emitting.
impl Rewrite<'_> {
    /// Views with the same elements; sizes may be symbolic, none is -1.
    pub fn view(&mut self, x: ValueId, shape: Vec<Expr>) -> Value {
        if self.shape(x)? == shape {
            return Ok(x);
        }
        // A hostile file's scales need not be of the shape that its blocks ask for.
        let count = |shape: &[Expr]| shape.iter().try_fold(1i64, |n, size| n.checked_mul(size.as_int()?));
        let before = self.shape(x)?;
        if let (Some(have), Some(want)) = (count(&before), count(&shape))
            && have != want
        {
            return Err(self.invalid(format!("{have} elements where {want} are needed")));
        }
        let ty = TensorType::new(self.dtype(x)?, shape.clone());
        // The sizes are known: no inference, which could not prove a symbolic product equal.
        Ok(self.emit_as("aten::view", args![x, shape], vec![Type::Tensor(ty)])?[0])
    }

    /// Reorders dimensions.
    pub fn permute(&mut self, x: ValueId, order: &[usize]) -> Value {
        if order.iter().enumerate().all(|(i, &d)| i == d) {
            return Ok(x);
        }
        let order: Vec<i64> = order.iter().map(|&d| d as i64).collect();
        self.emit("aten::permute", args![x, order])
    }

    /// Exchanges two dimensions.
    pub fn transpose(&mut self, x: ValueId, a: usize, b: usize) -> Value {
        let mut order: Vec<usize> = (0..self.rank(x)?).collect();
        if order.is_empty() {
            return Ok(x);
        }
        order.swap(a, b);
        self.permute(x, &order)
    }

    /// Exchanges the last two dimensions.
    pub fn transpose_last(&mut self, x: ValueId) -> Value {
        let rank = self.rank(x)?;
        if rank < 2 {
            return Err(self.invalid("a matrix is expected"));
        }
        self.transpose(x, rank - 2, rank - 1)
    }

    /// Inserts a dimension of size 1.
    pub fn unsqueeze(&mut self, x: ValueId, dim: usize) -> Value {
        self.emit("aten::unsqueeze", args![x, dim as i64])
    }

    /// Removes a dimension of size 1.
    pub fn squeeze(&mut self, x: ValueId, dim: usize) -> Value {
        self.emit("aten::squeeze.dims", args![x, vec![dim as i64]])
    }

    /// Broadcasts to `shape`.
    pub fn expand(&mut self, x: ValueId, shape: Vec<Expr>) -> Value {
        if self.shape(x)? == shape {
            return Ok(x);
        }
        let ty = TensorType::new(self.dtype(x)?, shape.clone());
        Ok(self.emit_as("aten::expand", args![x, shape], vec![Type::Tensor(ty)])?[0])
    }

    /// Refuses complex numbers, for which PyTorch does not have the operator either.
    pub fn real_only(&self, x: ValueId) -> Result<(), PassError> {
        match self.dtype(x)? {
            dtype if dtype.is_complex() => Err(self.unsupported(format!("dtype {dtype}"))),
            _ => Ok(()),
        }
    }

    /// Casts. A complex tensor does not become a real one on the way to something else: it would lose its imaginary part.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Value {
        let from = self.dtype(x)?;
        if from == dtype {
            return Ok(x);
        }
        if from.is_complex() && !dtype.is_complex() && dtype != DType::Bool {
            return Err(self.unsupported(format!("dtype {from}")));
        }
        self.emit("aten::_to_copy", args![x, dtype])
    }

    /// `x[start:end]` along `dim`.
    pub fn slice(&mut self, x: ValueId, dim: usize, start: Expr, end: Expr) -> Value {
        let size = self.size(x, dim)?;
        if start == Expr::Int(0) && end == size {
            return Ok(x);
        }
        let mut ty = self.ty(x)?.clone();
        ty.shape[dim] = end.clone() - start.clone();
        Ok(self.emit_as(
            "aten::slice.Tensor",
            args![x, dim as i64, start, end, 1],
            vec![ty.into()],
        )?[0])
    }

    /// `x[index]` along `dim`.
    pub fn select(&mut self, x: ValueId, dim: usize, index: impl Into<Expr>) -> Value {
        let index: Expr = index.into();
        self.emit("aten::select.int", args![x, dim as i64, index])
    }

    /// Concatenates; a single tensor is itself.
    pub fn cat(&mut self, items: Vec<ValueId>, dim: usize) -> Value {
        match items.as_slice() {
            [one] => Ok(*one),
            _ => self.emit("aten::cat", args![items, dim as i64]),
        }
    }

    /// Elementwise with one operand.
    pub fn unary(&mut self, op: &str, x: ValueId) -> Value {
        self.emit(op, args![x])
    }

    /// Elementwise with two operands, numbers among them.
    pub fn binary(&mut self, op: &str, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.emit(op, vec![a.into(), b.into()])
    }

    /// `a + b`
    pub fn add(&mut self, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.binary("aten::add.Tensor", a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.binary("aten::sub.Tensor", a, b)
    }

    /// `a * b`
    pub fn mul(&mut self, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.binary("aten::mul.Tensor", a, b)
    }

    /// `a / b`
    pub fn div(&mut self, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.binary("aten::div.Tensor", a, b)
    }

    /// `condition ? a : b`
    pub fn select_where(&mut self, condition: ValueId, a: impl Into<Arg>, b: impl Into<Arg>) -> Value {
        self.emit("aten::where.self", vec![condition.into(), a.into(), b.into()])
    }

    /// `start, start + 1, … end - 1` in `i64`.
    pub fn arange(&mut self, start: impl Into<Expr>, end: impl Into<Expr>) -> Value {
        let (start, end): (Expr, Expr) = (start.into(), end.into());
        let ty = TensorType::new(DType::I64, vec![end.clone() - start.clone()]);
        Ok(self.emit_as(
            "aten::arange.start_step",
            args![start, end, 1, DType::I64],
            vec![ty.into()],
        )?[0])
    }

    /// A tensor of one value.
    pub fn full(&mut self, shape: Vec<Expr>, value: impl Into<Arg>, dtype: DType) -> Value {
        let ty = TensorType::new(dtype, shape.clone());
        Ok(self.emit_as(
            "aten::full",
            vec![shape.into(), value.into(), dtype.into()],
            vec![ty.into()],
        )?[0])
    }

    /// Sum over `dims`.
    pub fn sum(&mut self, x: ValueId, dims: Vec<i64>, keepdim: bool) -> Value {
        self.emit("aten::sum.dim_IntList", args![x, dims, keepdim])
    }

    /// Product of the last two dimensions of two tensors of rank 3 or of two matrices.
    pub fn matrix_product(&mut self, a: ValueId, b: ValueId) -> Value {
        let op = if self.rank(a)? == 2 { "aten::mm" } else { "aten::bmm" };
        self.binary(op, a, b)
    }

    /// The dtype that PyTorch computes in: `f32` for halves, its default dtype for integers.
    pub fn compute_dtype(&self, dtype: DType) -> DType {
        match dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }

    /// Casts halves and integers to the dtype that PyTorch computes in.
    pub fn upcast(&mut self, x: ValueId) -> Value {
        let dtype = self.compute_dtype(self.dtype(x)?);
        self.cast(x, dtype)
    }

    /// The dtype of a result that is a float for any input: integers give the default dtype.
    pub fn float_dtype(&self, dtype: DType) -> DType {
        if dtype.is_float() { dtype } else { DType::F32 }
    }

    /// The shape that these shapes broadcast to. Sizes that the exporter proved equal may be written differently; a constant
    /// one is preferred.
    pub fn broadcast(&self, shapes: &[&[Expr]]) -> Result<Vec<Expr>, PassError> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut out = vec![Expr::Int(1); rank];
        for shape in shapes {
            for (slot, size) in out[rank - shape.len()..].iter_mut().zip(*shape) {
                match (slot.as_int(), size.as_int()) {
                    (_, Some(1)) => {}
                    (Some(1), _) | (None, Some(_)) => *slot = size.clone(),
                    (Some(a), Some(b)) if a != b => {
                        return Err(self.invalid(format!("sizes {a} and {b} do not broadcast")));
                    }
                    _ => {}
                }
            }
        }
        Ok(out)
    }
}
