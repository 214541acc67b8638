//! The arguments of a call by parameter name, and arithmetic on symbolic shapes.

use super::InferError;
use crate::graph::fill_defaults;
use crate::{Arg, Expr, ExprOp, Graph, Op, Symbols, TensorType, Type, ValueId};
use delegraph_opset::{BaseType, Schema};
use delegraph_types::{DType, MAX_RANK, Operand, Scalar, result_dtype};

/// A call whose result types are wanted.
pub(super) struct Call<'a> {
    pub op: Op,
    pub schema: Schema,
    args: Vec<Arg>,
    pub graph: &'a Graph,
    pub symbols: &'a Symbols,
}

pub(super) type Result<T> = std::result::Result<T, InferError>;

impl<'a> Call<'a> {
    pub fn new(op: Op, args: &[Arg], graph: &'a Graph, symbols: &'a Symbols) -> Result<Call<'a>> {
        let schema = op.schema();
        if args.len() > schema.params.len() {
            let (have, want) = (args.len(), schema.params.len());
            return Err(InferError::Invalid {
                op,
                problem: format!("{have} arguments for {want} parameters"),
            });
        }
        Ok(Call {
            op,
            schema,
            args: fill_defaults(op, args.to_vec()),
            graph,
            symbols,
        })
    }

    pub fn invalid<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(InferError::Invalid {
            op: self.op,
            problem: problem.into(),
        })
    }

    pub fn unsupported<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err(InferError::Unsupported {
            op: self.op,
            problem: problem.into(),
        })
    }

    pub fn data_dependent<T>(&self) -> Result<T> {
        Err(InferError::DataDependent { op: self.op })
    }

    /// True if the schema has a parameter of this name.
    pub fn has(&self, name: &str) -> bool {
        self.schema.position(name).is_some()
    }

    /// The argument of this name; `None` where the schema has no such parameter.
    pub fn arg(&self, name: &str) -> &Arg {
        self.schema
            .position(name)
            .and_then(|i| self.args.get(i))
            .unwrap_or(&Arg::None)
    }

    /// True if the argument is given.
    pub fn given(&self, name: &str) -> bool {
        *self.arg(name) != Arg::None
    }

    fn value_type(&self, id: ValueId) -> Result<&'a Type> {
        match self.graph.values.get(id.index()) {
            Some(value) => Ok(&value.ty),
            None => self.invalid(format!("value {id} does not exist")),
        }
    }

    fn value_tensor(&self, id: ValueId) -> Result<&'a TensorType> {
        match self.value_type(id)? {
            Type::Tensor(tensor) => Ok(tensor),
            other => self.invalid(format!("expected a tensor, got {other}")),
        }
    }

    pub fn tensor(&self, name: &str) -> Result<&'a TensorType> {
        match self.arg(name) {
            Arg::Value(id) => self.value_tensor(*id),
            _ => self.invalid(format!("argument `{name}`: expected a tensor")),
        }
    }

    pub fn optional_tensor(&self, name: &str) -> Result<Option<&'a TensorType>> {
        match self.arg(name) {
            Arg::None => Ok(None),
            _ => self.tensor(name).map(Some),
        }
    }

    /// The first parameter that is a tensor: `self`, `input`, `x` …
    pub fn first(&self) -> Result<&'a TensorType> {
        let found = self
            .schema
            .params
            .iter()
            .zip(&self.args)
            .find_map(|(p, a)| match (p.ty.base, a) {
                (BaseType::Tensor, Arg::Value(id)) => Some(*id),
                _ => None,
            });
        match found {
            Some(id) => self.value_tensor(id),
            None => self.invalid("expected a tensor as first argument"),
        }
    }

    pub fn tensors(&self, name: &str) -> Result<Vec<&'a TensorType>> {
        match self.arg(name) {
            Arg::Values(ids) => ids.iter().map(|id| self.value_tensor(*id)).collect(),
            Arg::OptionalValues(ids) => ids.iter().flatten().map(|id| self.value_tensor(*id)).collect(),
            Arg::None => Ok(Vec::new()),
            _ => self.invalid(format!("argument `{name}`: expected a list of tensors")),
        }
    }

    pub fn optional_tensors(&self, name: &str) -> Result<Vec<Option<&'a TensorType>>> {
        match self.arg(name) {
            Arg::Values(ids) => ids.iter().map(|id| self.value_tensor(*id).map(Some)).collect(),
            Arg::OptionalValues(ids) => ids
                .iter()
                .map(|id| id.map(|id| self.value_tensor(id)).transpose())
                .collect(),
            _ => self.invalid(format!("argument `{name}`: expected a list of tensors")),
        }
    }

    /// The operand for promotion and its shape; a number has the shape of a 0-dim tensor. `None` for an absent argument.
    pub fn operand(&self, name: &str) -> Result<Option<(Operand, &'a [Expr])>> {
        let number = |scalar| Ok(Some((Operand::Number(scalar), &[][..])));
        match self.arg(name) {
            Arg::None => Ok(None),
            Arg::Value(id) => match self.value_type(*id)? {
                Type::Tensor(t) => Ok(Some((Operand::tensor(t.dtype, t.rank()), &t.shape))),
                Type::Int(_) => number(Scalar::Int(0)),
                Type::Float => number(Scalar::Float(0.0)),
                Type::Bool => number(Scalar::Bool(false)),
            },
            Arg::Int(_) => number(Scalar::Int(0)),
            Arg::Float(_) => number(Scalar::Float(0.0)),
            Arg::Bool(_) => number(Scalar::Bool(false)),
            Arg::Sym(e) => number(sym_scalar(e)),
            _ => self.invalid(format!("argument `{name}`: expected a tensor or a number")),
        }
    }

    /// `torch.result_type` of the named arguments that are there.
    pub fn promoted(&self, names: &[&str]) -> Result<DType> {
        let mut operands = Vec::with_capacity(names.len());
        for name in names {
            operands.extend(self.operand(name)?.map(|(operand, _)| operand));
        }
        match result_dtype(operands) {
            Some(dtype) => Ok(dtype),
            None => self.invalid("no operands"),
        }
    }

    /// The shape that the named arguments broadcast to.
    pub fn broadcast_of(&self, names: &[&str]) -> Result<Vec<Expr>> {
        let mut shape = Vec::new();
        for name in names {
            if let Some((_, other)) = self.operand(name)? {
                shape = self.broadcast(&shape, other)?;
            }
        }
        Ok(shape)
    }

    pub fn int(&self, name: &str) -> Result<Expr> {
        match self.arg(name) {
            Arg::Int(e) => Ok(e.clone()),
            Arg::Bool(b) => Ok(Expr::Int(i64::from(*b))),
            Arg::Value(id) => match self.value_type(*id)? {
                Type::Int(e) => Ok(e.clone()),
                other => self.invalid(format!("argument `{name}`: expected an integer, got {other}")),
            },
            _ => self.invalid(format!("argument `{name}`: expected an integer")),
        }
    }

    pub fn optional_int(&self, name: &str) -> Result<Option<Expr>> {
        match self.arg(name) {
            Arg::None => Ok(None),
            _ => self.int(name).map(Some),
        }
    }

    pub fn fixed_int(&self, name: &str) -> Result<i64> {
        match self.int(name)?.as_int() {
            Some(i) => Ok(i),
            None => self.unsupported(format!("a symbolic `{name}`")),
        }
    }

    /// False where the argument is absent.
    pub fn bool(&self, name: &str) -> Result<bool> {
        match self.arg(name) {
            Arg::Bool(b) => Ok(*b),
            Arg::Int(e) => match e.as_int() {
                Some(i) => Ok(i != 0),
                None => self.unsupported(format!("a symbolic `{name}`")),
            },
            Arg::None => Ok(false),
            _ => self.invalid(format!("argument `{name}`: expected a boolean")),
        }
    }

    pub fn str(&self, name: &str) -> Result<&str> {
        match self.arg(name) {
            Arg::Str(s) => Ok(s),
            _ => self.invalid(format!("argument `{name}`: expected a string")),
        }
    }

    /// `int[]`; `None` where it is absent.
    pub fn optional_ints(&self, name: &str) -> Result<Option<Vec<Expr>>> {
        match self.arg(name) {
            Arg::None => Ok(None),
            Arg::Ints(items) => Ok(Some(items.clone())),
            Arg::Int(e) => Ok(Some(vec![e.clone()])),
            // An empty list of the exporter has no element type.
            Arg::Values(v) if v.is_empty() => Ok(Some(Vec::new())),
            Arg::Floats(v) if v.is_empty() => Ok(Some(Vec::new())),
            _ => self.invalid(format!("argument `{name}`: expected a list of integers")),
        }
    }

    pub fn ints(&self, name: &str) -> Result<Vec<Expr>> {
        match self.optional_ints(name)? {
            Some(items) => Ok(items),
            None => self.invalid(format!("argument `{name}`: expected a list of integers")),
        }
    }

    pub fn fixed_ints(&self, name: &str) -> Result<Vec<i64>> {
        let items: Option<Vec<i64>> = self.ints(name)?.iter().map(Expr::as_int).collect();
        match items {
            Some(items) => Ok(items),
            None => self.unsupported(format!("a symbolic `{name}`")),
        }
    }

    /// A list for `n` spatial dimensions: a list of one stands for n equal ones, an absent or empty one for `default`.
    pub fn spatial(&self, name: &str, n: usize, default: &[Expr]) -> Result<Vec<Expr>> {
        let items = self.optional_ints(name)?.unwrap_or_default();
        match items.len() {
            0 => Ok(default.to_vec()),
            1 => Ok(vec![items[0].clone(); n]),
            len if len == n => Ok(items),
            len => self.invalid(format!("argument `{name}`: {len} items for {n} dimensions")),
        }
    }

    /// The dtype argument, if given.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>> {
        match self.arg(name) {
            Arg::None => Ok(None),
            Arg::DType(d) => Ok(Some(*d)),
            _ => self.invalid(format!("argument `{name}`: expected a dtype")),
        }
    }

    /// A dimension index of a tensor of this rank, negative ones resolved; a 0-dim tensor has one dimension here, as in PyTorch.
    pub fn resolve(&self, dim: i64, rank: usize) -> Result<usize> {
        let n = rank.max(1) as i64;
        let resolved = if dim < 0 { dim.saturating_add(n) } else { dim };
        if (0..n).contains(&resolved) {
            Ok(resolved as usize)
        } else {
            self.invalid(format!("dimension `{dim}` of a tensor of rank {rank}"))
        }
    }

    pub fn dim(&self, name: &str, rank: usize) -> Result<usize> {
        self.resolve(self.fixed_int(name)?, rank)
    }

    /// Dimension indices; `None` where the argument is absent.
    pub fn dims(&self, name: &str, rank: usize) -> Result<Option<Vec<usize>>> {
        if !self.given(name) {
            return Ok(None);
        }
        let mut out: Vec<usize> = Vec::new();
        for dim in self.fixed_ints(name)? {
            let dim = self.resolve(dim, rank)?;
            if out.contains(&dim) {
                return self.invalid(format!("dimension `{dim}` appears twice in `{name}`"));
            }
            out.push(dim);
        }
        Ok(Some(out))
    }

    /// One size of broadcasting.
    pub fn broadcast_size(&self, a: &Expr, b: &Expr) -> Result<Expr> {
        Ok(match (a.as_int(), b.as_int()) {
            _ if a == b => a.clone(),
            (Some(1), _) => b.clone(),
            (_, Some(1)) => a.clone(),
            (Some(x), Some(y)) => return self.invalid(format!("sizes {x} and {y} do not broadcast")),
            (Some(_), None) => a.clone(),
            (None, Some(_)) => b.clone(),
            // The exporter proved the two equal, or that one of them is not 1.
            (None, None) if a.lower_bound(self.symbols) < Some(2) && b.lower_bound(self.symbols) >= Some(2) => {
                b.clone()
            }
            (None, None) => a.clone(),
        })
    }

    pub fn broadcast(&self, a: &[Expr], b: &[Expr]) -> Result<Vec<Expr>> {
        let rank = a.len().max(b.len());
        let one = Expr::Int(1);
        let at = |s: &'_ [Expr], d: usize| (d + s.len()).checked_sub(rank).map_or(one.clone(), |i| s[i].clone());
        (0..rank).map(|d| self.broadcast_size(&at(a, d), &at(b, d))).collect()
    }

    /// Two sizes that have to be equal; the constant one is taken. Different constants are an error.
    pub fn same_size(&self, a: &Expr, b: &Expr) -> Result<Expr> {
        match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) if x != y => self.invalid(format!("sizes {x} and {y} should be equal")),
            (None, Some(_)) => Ok(b.clone()),
            _ => Ok(a.clone()),
        }
    }

    pub fn rank_at_least(&self, t: &TensorType, rank: usize) -> Result<()> {
        if t.rank() < rank {
            return self.invalid(format!("{t}: expected rank {rank} or more"));
        }
        Ok(())
    }

    /// True if `a <= b` is known from the ranges.
    pub fn known_le(&self, a: &Expr, b: &Expr) -> bool {
        (b.clone() - a.clone()).lower_bound(self.symbols) >= Some(0)
    }

    /// The smaller of the two, as one of them where it is known which.
    pub fn smaller(&self, a: &Expr, b: &Expr) -> Expr {
        if self.known_le(a, b) {
            a.clone()
        } else if self.known_le(b, a) {
            b.clone()
        } else {
            a.clone().min(b.clone())
        }
    }

    /// `e`, or 0 where it would be negative.
    pub fn not_negative(&self, e: Expr) -> Expr {
        if e.lower_bound(self.symbols) >= Some(0) {
            e
        } else {
            e.max(Expr::Int(0))
        }
    }

    /// `ceil(a / b)`
    pub fn ceil_div(&self, a: Expr, b: Expr) -> Expr {
        match b.as_int() {
            Some(1) => a,
            _ => (a + b.clone() - Expr::Int(1)).floor_div(b),
        }
    }

    /// A tensor result; refuses shapes that cannot be.
    pub fn made(&self, dtype: DType, shape: Vec<Expr>) -> Result<Type> {
        if shape.len() > MAX_RANK {
            return self.invalid(format!(
                "the result has {} dimensions, the limit is {MAX_RANK}",
                shape.len()
            ));
        }
        if let Some(size) = shape.iter().filter_map(Expr::as_int).find(|s| *s < 0) {
            return self.invalid(format!("the result has a size of {size}"));
        }
        Ok(TensorType::new(dtype, shape).into())
    }

    /// One tensor result.
    pub fn one(&self, dtype: DType, shape: Vec<Expr>) -> Result<Vec<Type>> {
        Ok(vec![self.made(dtype, shape)?])
    }

    /// One result of the type of `t` without its quantization.
    pub fn like(&self, t: &TensorType) -> Result<Vec<Type>> {
        self.one(t.dtype, t.shape.clone())
    }
}

/// What kind of number a computed boolean or float is.
fn sym_scalar(e: &Expr) -> Scalar {
    use ExprOp::*;
    match e {
        Expr::Float(_) => Scalar::Float(0.0),
        Expr::Op(Eq | Ne | Lt | Le | Gt | Ge | And | Or | Not, _) => Scalar::Bool(false),
        Expr::Op(TrueDiv | ToFloat, _) => Scalar::Float(0.0),
        Expr::Op(Add | Mul | FloorDiv | CeilDiv | Mod | Max | Min | Pow, args)
            if args.iter().any(|a| matches!(sym_scalar(a), Scalar::Float(_))) =>
        {
            Scalar::Float(0.0)
        }
        Expr::Op(Where, args) if args.len() == 3 => sym_scalar(&args[1]),
        _ => Scalar::Int(0),
    }
}

/// The default floating-point dtype where an integer or boolean one would be computed on; complex ones stay.
pub(super) fn to_float(dtype: DType) -> DType {
    if dtype.is_float() || dtype.is_complex() {
        dtype
    } else {
        DType::F32
    }
}
