//! Linear layers: a weight that is a constant makes a `FullyConnected`, one in blocks of four bits a convolution by a point, which alone takes
//! blocks; any other makes a `MatMul`.

use super::images;
use super::matmul;
use super::weight::{self, Form};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::Param;
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[Operator {
    name: "aten::linear",
    lower: |node, b| {
        let layer = Layer {
            x: node.value(0)?,
            weight: node.value(1)?,
            bias: node.optional_value(2)?,
            inputs_first: false,
        };
        layer.lower(node, b)
    },
}];

/// `x` of `[.., k]`, a weight of `[n, k]` or turned over, `[k]` for one output, and a bias of `[n]`.
pub struct Layer {
    /// What goes in.
    pub x: ValueIndex,
    /// The weight.
    pub weight: ValueIndex,
    /// The bias.
    pub bias: Option<ValueIndex>,
    /// The weight is `[k, n]`.
    pub inputs_first: bool,
}

impl Layer {
    /// Lowers the layer.
    ///
    /// # Errors
    /// Types or sizes that the library does not take.
    pub fn lower(&self, node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
        let out = node.output(0)?;
        let weight_dims = match b.logical_dims(self.weight)?[..] {
            [inputs] => vec![1, inputs],
            [a, b] => vec![a, b],
            ref other => return Err(Refusal::shape(format!("a weight of a linear layer of {other:?}"))),
        };
        let (count, inputs) = match self.inputs_first {
            true => (weight_dims[1], weight_dims[0]),
            false => (weight_dims[0], weight_dims[1]),
        };
        images::one_type(b, &[self.x, out])?;
        let x = b.read(self.x, Layout::RowMajor)?;
        let dims = b.tensor(x).dims.clone();
        if dims.last() != Some(&inputs) {
            return Err(Refusal::shape(format!(
                "{dims:?} does not fit a weight of {weight_dims:?}"
            )));
        }
        let rows: u32 = dims[..dims.len() - 1].iter().product();
        if b.constant(self.weight)?.is_none() {
            return self.product(b, x, out, [rows, inputs, count]);
        }
        let in_blocks = b.tensor(x).data_type.is_fixed() && weight::is_in_blocks(b, self.weight);
        // A point of a convolution is [H, W, in, out].
        let (dims, order): (Vec<u32>, &[u32]) = match (in_blocks, self.inputs_first) {
            (true, false) => (vec![count, inputs, 1, 1], &[2, 3, 1, 0]),
            (true, true) => return Err(Refusal::quantization("blocks of a weight that has its inputs first")),
            (false, false) => (weight_dims, &[0, 1]),
            (false, true) => (weight_dims, &[1, 0]),
        };
        let form = Form {
            dims,
            order,
            channel: usize::from(self.inputs_first),
            spread: Vec::new(),
            narrow: true,
        };
        let weight = weight::weight(b, self.weight, x, &form)?;
        weight::is_fine(b, x, &weight, out)?;
        let bias = weight::bias(b, self.bias, count, x, &weight)?;
        let (wide, result) = match in_blocks {
            true => (vec![1, 1, rows, inputs], vec![1, 1, rows, count]),
            false => (vec![rows, inputs], vec![rows, count]),
        };
        let mut operands = vec![b.reshaped(x, &wide)?, weight.id];
        operands.extend(bias);
        images::output_as(b, out, &result, |b, y| {
            match in_blocks {
                true => {
                    let params = vec![
                        ("stride", Param::list(&[1, 1])),
                        ("pad_amount", Param::U32s(vec![2, 2], vec![0; 4])),
                    ];
                    b.op("Conv2d", params, &operands, &[y]);
                }
                false => b.op("FullyConnected", Vec::new(), &operands, &[y]),
            }
            Ok(())
        })
    }

    /// With a weight that is made at run time.
    fn product(
        &self,
        b: &mut Builder<'_>,
        x: crate::graph::TensorId,
        out: ValueIndex,
        [rows, inputs, count]: [u32; 3],
    ) -> Result<(), Refusal> {
        images::floats(b, &[self.x, self.weight, out])?;
        let weight = b.read(self.weight, Layout::RowMajor)?;
        let sizes = match self.inputs_first {
            true => [inputs, count],
            false => [count, inputs],
        };
        let operands = [b.reshaped(x, &[rows, inputs])?, b.reshaped(weight, &sizes)?];
        let bias = match self.bias {
            Some(bias) => Some(b.read(bias, Layout::RowMajor)?),
            None => None,
        };
        images::output_as(b, out, &[rows, count], |b, y| {
            let product = match bias {
                Some(_) => b.like(y),
                None => y,
            };
            matmul::multiply(b, operands, [false, !self.inputs_first], product);
            if let Some(bias) = bias {
                b.op("ElementWiseAdd", Vec::new(), &[product, bias], &[y]);
            }
            Ok(())
        })
    }
}
