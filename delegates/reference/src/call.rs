//! One evaluation of a node: its arguments as an operator reads them, and its outputs as the image declares them.

use crate::layout;
use crate::quant;
use crate::tensor::{Data, Tensor};
use crate::walk::to_sizes;
use delegraph_sdk::image::{ArgView, ExprIndex, NodeView, Number, Sizes, ValueIndex};
use delegraph_sdk::{DType, Error};
use std::borrow::Cow;
use std::rc::Rc;

/// A number among the arguments.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl Scalar {
    /// As a float.
    pub fn float(self) -> f64 {
        match self {
            Scalar::Bool(b) => f64::from(u8::from(b)),
            Scalar::Int(i) => i as f64,
            Scalar::Float(f) => f,
        }
    }

    /// As an integer, cut off towards 0.
    pub fn int(self) -> i64 {
        match self {
            Scalar::Bool(b) => i64::from(b),
            Scalar::Int(i) => i,
            Scalar::Float(f) => f as i64,
        }
    }

    /// As an element of a tensor without dimensions. Python's floats are `f64`: what they become is decided by the others.
    fn tensor(self) -> Result<Tensor, Error> {
        match self {
            Scalar::Bool(b) => Tensor::new(DType::BOOL, Vec::new(), Data::Int(vec![i64::from(b)])),
            Scalar::Int(i) => Tensor::new(DType::I64, Vec::new(), Data::Int(vec![i])),
            Scalar::Float(f) => Tensor::new(DType::F64, Vec::new(), Data::Float(vec![f])),
        }
    }
}

/// A tensor, or a Python number in its place.
#[derive(Debug, Clone)]
pub struct Operand<'a> {
    /// The elements; a number has no dimensions.
    pub tensor: Cow<'a, Tensor>,
    /// A number: it does not raise a dtype within its category.
    pub is_number: bool,
}

/// A node with the values that it reads.
pub struct Call<'a> {
    /// The node.
    pub node: NodeView<'a>,
    /// The values of all size expressions.
    pub sizes: &'a Sizes,
    /// Values by index; those that the node reads are there.
    pub values: &'a [Option<Rc<Tensor>>],
}

impl<'a> Call<'a> {
    fn misfit(&self, i: usize, wanted: &str) -> Error {
        let (op, have) = (self.node.op(), self.node.arg(i));
        Error::internal(format!("argument {i} of `{op}` is `{have:?}`, not {wanted}"))
    }

    fn value(&self, index: ValueIndex) -> Result<&'a Tensor, Error> {
        let value = self.values.get(index.0 as usize).and_then(Option::as_deref);
        value.ok_or_else(|| Error::internal(format!("value {} is read before it is made", index.0)))
    }

    fn expr(&self, expr: ExprIndex) -> Result<Scalar, Error> {
        match self.sizes.number(expr) {
            Some(Number::Int(i)) => Ok(Scalar::Int(i)),
            Some(Number::Float(f)) => Ok(Scalar::Float(f)),
            None => Err(Error::invalid("a size is not known from the sizes of the inputs")),
        }
    }

    /// True where the argument is `None`.
    pub fn is_none(&self, i: usize) -> bool {
        self.node.arg(i).is_none()
    }

    /// A tensor.
    pub fn tensor(&self, i: usize) -> Result<&'a Tensor, Error> {
        match self.node.arg(i) {
            ArgView::Value(v) => self.value(v),
            _ => Err(self.misfit(i, "a tensor")),
        }
    }

    /// A tensor or `None`.
    pub fn optional(&self, i: usize) -> Result<Option<&'a Tensor>, Error> {
        if self.is_none(i) {
            Ok(None)
        } else {
            self.tensor(i).map(Some)
        }
    }

    /// A tensor, or a number in its place.
    pub fn operand(&self, i: usize) -> Result<Operand<'a>, Error> {
        Ok(match self.node.arg(i) {
            ArgView::Value(v) => Operand {
                tensor: Cow::Borrowed(self.value(v)?),
                is_number: false,
            },
            _ => Operand {
                tensor: Cow::Owned(self.scalar(i)?.tensor()?),
                is_number: true,
            },
        })
    }

    /// A list of tensors.
    pub fn tensors(&self, i: usize) -> Result<Vec<&'a Tensor>, Error> {
        match self.node.arg(i) {
            ArgView::Values(list) => list.iter().map(|v| self.value(v)).collect(),
            ArgView::OptionalValues(list) => list
                .iter()
                .map(|v| self.value(v.ok_or_else(|| self.misfit(i, "a list of tensors"))?))
                .collect(),
            _ => Err(self.misfit(i, "a list of tensors")),
        }
    }

    /// A list of tensors and `None`s.
    pub fn optionals(&self, i: usize) -> Result<Vec<Option<&'a Tensor>>, Error> {
        match self.node.arg(i) {
            ArgView::OptionalValues(list) => list.iter().map(|v| v.map(|v| self.value(v)).transpose()).collect(),
            _ => Ok(self.tensors(i)?.into_iter().map(Some).collect()),
        }
    }

    /// A number.
    pub fn scalar(&self, i: usize) -> Result<Scalar, Error> {
        match self.node.arg(i) {
            ArgView::Int(value) => Ok(Scalar::Int(value)),
            ArgView::Float(value) => Ok(Scalar::Float(value)),
            ArgView::Bool(value) => Ok(Scalar::Bool(value)),
            ArgView::Expr(expr) => self.expr(expr),
            _ => Err(self.misfit(i, "a number")),
        }
    }

    /// A number or `None`.
    pub fn optional_scalar(&self, i: usize) -> Result<Option<Scalar>, Error> {
        if self.is_none(i) {
            Ok(None)
        } else {
            self.scalar(i).map(Some)
        }
    }

    /// A number as a float.
    pub fn float(&self, i: usize) -> Result<f64, Error> {
        Ok(self.scalar(i)?.float())
    }

    /// An integer.
    pub fn int(&self, i: usize) -> Result<i64, Error> {
        match self.scalar(i)? {
            Scalar::Int(value) => Ok(value),
            _ => Err(self.misfit(i, "an integer")),
        }
    }

    /// An integer that counts something.
    pub fn natural(&self, i: usize) -> Result<usize, Error> {
        usize::try_from(self.int(i)?).map_err(|_| Error::invalid(format!("argument {i} is negative")))
    }

    /// A boolean; `None` is false.
    pub fn bool(&self, i: usize) -> Result<bool, Error> {
        if self.is_none(i) {
            return Ok(false);
        }
        Ok(self.scalar(i)?.int() != 0)
    }

    /// A string.
    pub fn text(&self, i: usize) -> Result<&'a str, Error> {
        match self.node.arg(i) {
            ArgView::Str(text) => Ok(text),
            _ => Err(self.misfit(i, "a string")),
        }
    }

    /// Integers; `None` is an empty list.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Error> {
        match self.node.arg(i) {
            ArgView::Ints(items) => items.exprs().iter().map(|e| Ok(self.expr(e)?.int())).collect(),
            ArgView::None => Ok(Vec::new()),
            _ => Ok(vec![self.int(i)?]),
        }
    }

    /// Integers for each of `n` dimensions; one stands for all, none for `default`.
    pub fn ints_of(&self, i: usize, n: usize, default: &[i64]) -> Result<Vec<i64>, Error> {
        let given = self.ints(i)?;
        match given.len() {
            0 => Ok(default.to_vec()),
            1 => Ok(vec![given[0]; n]),
            len if len == n => Ok(given),
            _ => Err(self.misfit(i, "one integer a dimension")),
        }
    }

    /// Floats.
    pub fn floats(&self, i: usize) -> Result<Vec<f64>, Error> {
        match self.node.arg(i) {
            ArgView::Numbers(items) => Ok(items.iter().filter_map(|item| item.float()).collect()),
            _ => Err(self.misfit(i, "a list of floats")),
        }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.node.outputs().len()
    }

    fn output(&self, i: usize) -> Result<ValueIndex, Error> {
        let output = self.node.outputs().get(i);
        output.ok_or_else(|| Error::internal(format!("`{}` has no output {i}", self.node.op())))
    }

    /// Element type of an output: PyTorch's type promotion is in the image already. Of a quantized one it is f32: the integers
    /// are made of what the operator gives.
    pub fn out_dtype(&self, i: usize) -> Result<DType, Error> {
        let dtype = quant::real_dtype(&self.node, self.output(i)?);
        dtype.ok_or_else(|| Error::internal("an output is no tensor"))
    }

    /// Sizes of an output, in the order of the operator table.
    pub fn out_sizes(&self, i: usize) -> Result<Vec<usize>, Error> {
        let sizes = self.sizes.dims(&self.node.image(), self.output(i)?);
        let unknown = || Error::invalid("the sizes of an output are not known from the inputs");
        let sizes = to_sizes(&sizes.ok_or_else(unknown)?)?;
        Ok(match sizes.as_slice() {
            [n, h, w, c] if layout::turned(&self.node).is_some() => vec![*n, *c, *h, *w],
            _ => sizes,
        })
    }

    /// The only output.
    pub fn one(&self, sizes: Vec<usize>, data: Data) -> Result<Vec<Tensor>, Error> {
        Ok(vec![self.make(0, sizes, data)?])
    }

    /// An output, rounded to its dtype.
    pub fn make(&self, output: usize, sizes: Vec<usize>, data: Data) -> Result<Tensor, Error> {
        Tensor::new(self.out_dtype(output)?, sizes, data)
    }
}
