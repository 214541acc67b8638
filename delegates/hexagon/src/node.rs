//! A node with its arguments as operators read them: sizes are numbers by now.

use delegraph_sdk::DType;
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, ExprIndex, NodeView, Number, Sizes, ValueIndex};

/// A node, while its region is lowered.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    view: NodeView<'a>,
    sizes: &'a Sizes,
}

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
}

impl<'a> Node<'a> {
    pub(crate) fn new(view: NodeView<'a>, sizes: &'a Sizes) -> Node<'a> {
        Node { view, sizes }
    }

    /// The node of the image.
    pub fn view(&self) -> NodeView<'a> {
        self.view
    }

    /// The values of size expressions.
    pub fn sizes(&self) -> &'a Sizes {
        self.sizes
    }

    /// Its operator, for example `aten::add.Tensor`.
    pub fn op(&self) -> &'a str {
        self.view.op()
    }

    fn misfit(&self, i: usize, wanted: &str) -> Error {
        let (op, have) = (self.op(), self.view.arg(i));
        Error::internal(format!("argument {i} of `{op}` is `{have:?}`, not {wanted}"))
    }

    fn number(&self, expr: ExprIndex) -> Result<Scalar, Error> {
        match self.sizes.number(expr) {
            Some(Number::Int(i)) => Ok(Scalar::Int(i)),
            Some(Number::Float(f)) => Ok(Scalar::Float(f)),
            None => Err(Error::invalid("a size is not known from the sizes of the inputs")),
        }
    }

    /// An output.
    ///
    /// # Errors
    /// There is no such output.
    pub fn output(&self, i: usize) -> Result<ValueIndex, Error> {
        let outputs = self.view.outputs();
        outputs
            .get(i)
            .ok_or_else(|| Error::internal(format!("`{}` has no output {i}", self.op())))
    }

    /// The value at an argument.
    ///
    /// # Errors
    /// The argument is no tensor.
    pub fn value(&self, i: usize) -> Result<ValueIndex, Error> {
        self.view.arg(i).value().ok_or_else(|| self.misfit(i, "a tensor"))
    }

    /// The value at an argument that may be `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional(&self, i: usize) -> Result<Option<ValueIndex>, Error> {
        match self.is_none(i) {
            true => Ok(None),
            false => self.value(i).map(Some),
        }
    }

    /// The values of a list.
    ///
    /// # Errors
    /// The argument is no list of tensors, or one of them is `None`.
    pub fn values(&self, i: usize) -> Result<Vec<ValueIndex>, Error> {
        let items = self.optionals(i)?;
        let all: Option<Vec<ValueIndex>> = items.into_iter().collect();
        all.ok_or_else(|| self.misfit(i, "a list of tensors"))
    }

    /// The values of a list whose items may be `None`.
    ///
    /// # Errors
    /// The argument is no list of tensors.
    pub fn optionals(&self, i: usize) -> Result<Vec<Option<ValueIndex>>, Error> {
        match self.view.arg(i) {
            ArgView::Values(list) => Ok(list.iter().map(Some).collect()),
            ArgView::OptionalValues(list) => Ok(list.iter().collect()),
            _ => Err(self.misfit(i, "a list of tensors")),
        }
    }

    /// True where the argument is `None`.
    pub fn is_none(&self, i: usize) -> bool {
        self.view.arg(i).is_none()
    }

    /// A number.
    ///
    /// # Errors
    /// The argument is none.
    pub fn scalar(&self, i: usize) -> Result<Scalar, Error> {
        match self.view.arg(i) {
            ArgView::Int(value) => Ok(Scalar::Int(value)),
            ArgView::Float(value) => Ok(Scalar::Float(value)),
            ArgView::Bool(value) => Ok(Scalar::Bool(value)),
            ArgView::Expr(expr) => self.number(expr),
            _ => Err(self.misfit(i, "a number")),
        }
    }

    /// A number or `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional_scalar(&self, i: usize) -> Result<Option<Scalar>, Error> {
        match self.is_none(i) {
            true => Ok(None),
            false => self.scalar(i).map(Some),
        }
    }

    /// An integer.
    ///
    /// # Errors
    /// The argument is none.
    pub fn int(&self, i: usize) -> Result<i64, Error> {
        self.scalar(i).map(Scalar::int)
    }

    /// A boolean.
    ///
    /// # Errors
    /// The argument is none.
    pub fn bool(&self, i: usize) -> Result<bool, Error> {
        self.scalar(i).map(|s| s.int() != 0)
    }

    /// A string.
    ///
    /// # Errors
    /// The argument is none.
    pub fn str(&self, i: usize) -> Result<&'a str, Error> {
        match self.view.arg(i) {
            ArgView::Str(text) => Ok(text),
            _ => Err(self.misfit(i, "a string")),
        }
    }

    /// A list of integers.
    ///
    /// # Errors
    /// The argument is none.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Error> {
        match self.view.arg(i) {
            ArgView::Ints(items) => items.exprs().iter().map(|e| self.number(e).map(Scalar::int)).collect(),
            ArgView::Int(one) => Ok(vec![one]),
            _ => Err(self.misfit(i, "a list of integers")),
        }
    }

    /// A list of integers, or `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>, Error> {
        match self.is_none(i) {
            true => Ok(None),
            false => self.ints(i).map(Some),
        }
    }

    /// A list of floats, or `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional_floats(&self, i: usize) -> Result<Option<Vec<f64>>, Error> {
        match self.view.arg(i) {
            ArgView::None => Ok(None),
            ArgView::Numbers(items) => Ok(Some(items.iter().filter_map(|item| item.float()).collect())),
            _ => Err(self.misfit(i, "a list of floats")),
        }
    }

    /// An element type, or `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional_dtype(&self, i: usize) -> Result<Option<DType>, Error> {
        match self.view.arg(i) {
            ArgView::None => Ok(None),
            ArgView::DType(dtype) => Ok(Some(dtype)),
            _ => Err(self.misfit(i, "a dtype")),
        }
    }

    /// A dimension argument, counted from the end where negative.
    ///
    /// # Errors
    /// It is out of range.
    pub fn dim(&self, i: usize, rank: usize) -> Result<usize, Error> {
        wrap(self.int(i)?, rank)
    }
}

/// A dimension, counted from the end where negative.
///
/// # Errors
/// It is out of range.
pub fn wrap(dim: i64, rank: usize) -> Result<usize, Error> {
    let rank = rank.max(1) as i64;
    let wrapped = if dim < 0 { dim + rank } else { dim };
    match (0..rank).contains(&wrapped) {
        true => Ok(wrapped as usize),
        false => Err(Error::invalid(format!("dimension {dim} of {rank}"))),
    }
}
