//! The arguments of a node, read when all sizes are numbers: for delegates that evaluate or lower a graph by one set of input sizes.
//!
//! An argument of another kind than its reader wants is an error of `INTERNAL` that names the operator and the argument: a node that was taken has the
//! arguments that its schema says. Nothing is rounded or left out silently.

use crate::image::{ArgView, ExprIndex, NodeView, Number, Sizes, ValueIndex};
use crate::{DType, Error};

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

impl From<Number> for Scalar {
    fn from(number: Number) -> Scalar {
        match number {
            Number::Int(i) => Scalar::Int(i),
            Number::Float(f) => Scalar::Float(f),
        }
    }
}

/// A node, and the values of all size expressions of its image.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    view: NodeView<'a>,
    sizes: &'a Sizes,
}

impl<'a> Arguments<'a> {
    /// Of a node, by sizes of its image.
    pub fn new(view: NodeView<'a>, sizes: &'a Sizes) -> Arguments<'a> {
        Arguments { view, sizes }
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

    /// The error for an argument that is not what is wanted, "a tensor" for example.
    pub fn misfit(&self, i: usize, wanted: &str) -> Error {
        let (op, have) = (self.op(), self.view.arg(i));
        Error::internal(format!("argument {i} of `{op}` is `{have:?}`, not {wanted}"))
    }

    fn expr(&self, expr: ExprIndex) -> Result<Scalar, Error> {
        let number = self.sizes.number(expr).map(Scalar::from);
        number.ok_or_else(|| Error::invalid("a size is not known from the sizes of the inputs"))
    }

    /// An output.
    ///
    /// # Errors
    /// There is no such output.
    pub fn output(&self, i: usize) -> Result<ValueIndex, Error> {
        let output = self.view.outputs().get(i);
        output.ok_or_else(|| Error::internal(format!("`{}` has no output {i}", self.op())))
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
    pub fn optional_value(&self, i: usize) -> Result<Option<ValueIndex>, Error> {
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
        let items = self.optional_values(i)?;
        let all: Option<Vec<ValueIndex>> = items.into_iter().collect();
        all.ok_or_else(|| self.misfit(i, "a list of tensors"))
    }

    /// The values of a list whose items may be `None`.
    ///
    /// # Errors
    /// The argument is no list of tensors.
    pub fn optional_values(&self, i: usize) -> Result<Vec<Option<ValueIndex>>, Error> {
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
    /// The argument is none, or depends on a size that is not known.
    pub fn scalar(&self, i: usize) -> Result<Scalar, Error> {
        match self.view.arg(i) {
            ArgView::Int(value) => Ok(Scalar::Int(value)),
            ArgView::Float(value) => Ok(Scalar::Float(value)),
            ArgView::Bool(value) => Ok(Scalar::Bool(value)),
            ArgView::Expr(expr) => self.expr(expr),
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

    /// A number as a float.
    ///
    /// # Errors
    /// The argument is no number.
    pub fn float(&self, i: usize) -> Result<f64, Error> {
        Ok(self.scalar(i)?.float())
    }

    /// An integer; a float stands for one where it is whole.
    ///
    /// # Errors
    /// The argument is none.
    pub fn int(&self, i: usize) -> Result<i64, Error> {
        match self.scalar(i)? {
            Scalar::Float(value) if value.fract() != 0.0 || value.abs() >= 9.0e18 => Err(self.misfit(i, "an integer")),
            number => Ok(number.int()),
        }
    }

    /// An integer that counts something.
    ///
    /// # Errors
    /// The argument is none, or negative.
    pub fn natural(&self, i: usize) -> Result<usize, Error> {
        let int = self.int(i)?;
        usize::try_from(int).map_err(|_| Error::invalid(format!("argument {i} of `{}` is {int}, negative", self.op())))
    }

    /// A boolean; `None` is false.
    ///
    /// # Errors
    /// The argument is neither a boolean nor a number.
    pub fn bool(&self, i: usize) -> Result<bool, Error> {
        Ok(self.optional_scalar(i)?.is_some_and(|s| s.float() != 0.0))
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

    /// A list of integers; one integer is a list too, and `None` an empty one.
    ///
    /// # Errors
    /// The argument is none of these.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, Error> {
        match self.view.arg(i) {
            ArgView::Ints(items) => items.exprs().iter().map(|e| self.expr(e).map(Scalar::int)).collect(),
            ArgView::None => Ok(Vec::new()),
            _ => Ok(vec![self.int(i)?]),
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

    /// Integers for each of `n` dimensions; one stands for all, none for `default`.
    ///
    /// # Errors
    /// The argument is no list of integers, or one of another length.
    pub fn ints_of(&self, i: usize, n: usize, default: &[i64]) -> Result<Vec<i64>, Error> {
        let given = self.ints(i)?;
        match given.as_slice() {
            [] => Ok(default.to_vec()),
            [one] => Ok(vec![*one; n]),
            all if all.len() == n => Ok(given),
            _ => Err(self.misfit(i, "one integer a dimension")),
        }
    }

    /// A list of floats.
    ///
    /// # Errors
    /// The argument is none.
    pub fn floats(&self, i: usize) -> Result<Vec<f64>, Error> {
        let ArgView::Numbers(items) = self.view.arg(i) else {
            return Err(self.misfit(i, "a list of floats"));
        };
        let all: Option<Vec<f64>> = items.iter().map(|item| item.float()).collect();
        all.ok_or_else(|| self.misfit(i, "a list of floats"))
    }

    /// A list of floats, or `None`.
    ///
    /// # Errors
    /// The argument is neither.
    pub fn optional_floats(&self, i: usize) -> Result<Option<Vec<f64>>, Error> {
        match self.is_none(i) {
            true => Ok(None),
            false => self.floats(i).map(Some),
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

    /// A dimension of a tensor of so many, counted from the end where negative.
    ///
    /// # Errors
    /// It is out of range.
    pub fn dim(&self, i: usize, rank: usize) -> Result<usize, Error> {
        wrap(self.int(i)?, rank)
    }
}

/// A dimension of a tensor of so many, counted from the end where negative; a tensor without dimensions counts as having one.
///
/// # Errors
/// It is out of range.
pub fn wrap(dim: i64, rank: usize) -> Result<usize, Error> {
    let rank = i64::try_from(rank.max(1)).unwrap_or(i64::MAX);
    let wrapped = if dim < 0 { dim + rank } else { dim };
    match (0..rank).contains(&wrapped) {
        true => Ok(wrapped as usize),
        false => Err(Error::invalid(format!("dimension {dim} of {rank}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Arg, ImageBuilder, NodeIndex, verify};

    /// Reads a node with these arguments.
    fn with(arguments: impl Fn(&mut ImageBuilder) -> Vec<Arg>, check: impl Fn(Arguments<'_>)) {
        let mut image = ImageBuilder::new("test");
        let arguments = arguments(&mut image);
        image.node("node", "test::op", &arguments, &[], "");
        let image = image.finish().unwrap();
        let view = verify(&image).unwrap();
        check(Arguments::new(view.node(NodeIndex(0)), &Sizes::new(&view)));
    }

    #[test]
    fn numbers_are_what_they_are_and_nothing_is_cut_off() {
        with(
            |_| {
                vec![
                    Arg::Int(-3),
                    Arg::Float(2.0),
                    Arg::Float(2.5),
                    Arg::Bool(true),
                    Arg::None,
                ]
            },
            |node| {
                assert_eq!((node.int(0).unwrap(), node.int(1).unwrap()), (-3, 2));
                assert!(node.int(2).unwrap_err().message.contains("argument 2 of `test::op`"));
                assert!(node.natural(0).is_err() && node.natural(1).unwrap() == 2);
                assert_eq!(node.scalar(3).unwrap(), Scalar::Bool(true));
                assert!(node.bool(3).unwrap() && node.bool(2).unwrap() && !node.bool(4).unwrap());
                assert_eq!(node.optional_scalar(4).unwrap(), None);
                assert!(node.scalar(4).is_err() && node.value(0).is_err() && node.str(0).is_err());
                // Past the last one is `None`.
                assert_eq!(node.optional_ints(9).unwrap(), None);
                assert_eq!((node.ints(9).unwrap(), node.ints(0).unwrap()), (vec![], vec![-3]));
            },
        );
    }

    #[test]
    fn lists_of_integers_for_each_dimension() {
        with(
            |image| {
                let items = [4, 5].map(|i| image.int(i)).to_vec();
                vec![Arg::Ints(items), Arg::Int(7), Arg::None]
            },
            |node| {
                assert_eq!(node.ints_of(0, 2, &[]).unwrap(), [4, 5]);
                assert!(node.ints_of(0, 3, &[]).is_err());
                assert_eq!(node.ints_of(1, 3, &[]).unwrap(), [7; 3]);
                assert_eq!(node.ints_of(2, 3, &[1, 2, 3]).unwrap(), [1, 2, 3]);
            },
        );
    }

    #[test]
    fn dimensions_count_from_the_end_where_negative() {
        assert_eq!(
            (wrap(-1, 3).unwrap(), wrap(2, 3).unwrap(), wrap(-1, 0).unwrap()),
            (2, 2, 0)
        );
        assert!(wrap(3, 3).is_err() && wrap(-4, 3).is_err() && wrap(1, 0).is_err());
    }
}
