//! One evaluation of a node: its arguments as an operator reads them, and its outputs as the image declares them.

use crate::layout;
use crate::quant;
use crate::tensor::{Data, Tensor};
use crate::walk::to_sizes;
use delegraph_sdk::arguments::{Arguments, Scalar};
use delegraph_sdk::image::{ArgView, NodeView, Sizes, ValueIndex};
use delegraph_sdk::{DType, Error};
use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;

/// A number as an element of a tensor without dimensions. Python's floats are `f64`: what they become is decided by the others.
fn tensor_of(number: Scalar) -> Result<Tensor, Error> {
    match number {
        Scalar::Bool(b) => Tensor::new(DType::BOOL, Vec::new(), Data::Int(vec![i64::from(b)])),
        Scalar::Int(i) => Tensor::new(DType::I64, Vec::new(), Data::Int(vec![i])),
        Scalar::Float(f) => Tensor::new(DType::F64, Vec::new(), Data::Float(vec![f])),
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

/// A node with the values that it reads. Arguments that are no tensors are read as [`Arguments`] says.
pub struct Call<'a> {
    arguments: Arguments<'a>,
    /// Values by index; those that the node reads are there.
    values: &'a [Option<Rc<Tensor>>],
}

impl<'a> Deref for Call<'a> {
    type Target = Arguments<'a>;

    fn deref(&self) -> &Arguments<'a> {
        &self.arguments
    }
}

impl<'a> Call<'a> {
    /// A node, the values of all size expressions, and values by index.
    pub fn new(node: NodeView<'a>, sizes: &'a Sizes, values: &'a [Option<Rc<Tensor>>]) -> Call<'a> {
        Call {
            arguments: Arguments::new(node, sizes),
            values,
        }
    }

    fn read(&self, index: ValueIndex) -> Result<&'a Tensor, Error> {
        let value = self.values.get(index.0 as usize).and_then(Option::as_deref);
        value.ok_or_else(|| Error::internal(format!("value {} is read before it is made", index.0)))
    }

    /// A tensor.
    pub fn tensor(&self, i: usize) -> Result<&'a Tensor, Error> {
        self.read(self.value(i)?)
    }

    /// A tensor or `None`.
    pub fn optional(&self, i: usize) -> Result<Option<&'a Tensor>, Error> {
        self.optional_value(i)?.map(|value| self.read(value)).transpose()
    }

    /// A tensor, or a number in its place.
    pub fn operand(&self, i: usize) -> Result<Operand<'a>, Error> {
        Ok(match self.view().arg(i) {
            ArgView::Value(v) => Operand {
                tensor: Cow::Borrowed(self.read(v)?),
                is_number: false,
            },
            _ => Operand {
                tensor: Cow::Owned(tensor_of(self.scalar(i)?)?),
                is_number: true,
            },
        })
    }

    /// A list of tensors.
    pub fn tensors(&self, i: usize) -> Result<Vec<&'a Tensor>, Error> {
        self.values(i)?.into_iter().map(|v| self.read(v)).collect()
    }

    /// A list of tensors and `None`s.
    pub fn optionals(&self, i: usize) -> Result<Vec<Option<&'a Tensor>>, Error> {
        let values = self.optional_values(i)?.into_iter();
        values.map(|v| v.map(|v| self.read(v)).transpose()).collect()
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.view().outputs().len()
    }

    /// Element type of an output: PyTorch's type promotion is in the image already. Of a quantized one it is f32: the integers
    /// are made of what the operator gives.
    pub fn out_dtype(&self, i: usize) -> Result<DType, Error> {
        let dtype = quant::real_dtype(&self.view(), self.output(i)?);
        dtype.ok_or_else(|| Error::internal("an output is no tensor"))
    }

    /// Sizes of an output, in the order of the operator table.
    pub fn out_sizes(&self, i: usize) -> Result<Vec<usize>, Error> {
        let sizes = self.sizes().dims(&self.view().image(), self.output(i)?);
        let unknown = || Error::invalid("the sizes of an output are not known from the inputs");
        let sizes = to_sizes(&sizes.ok_or_else(unknown)?)?;
        Ok(match sizes.as_slice() {
            [n, h, w, c] if layout::turned(&self.view()).is_some() => vec![*n, *c, *h, *w],
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
