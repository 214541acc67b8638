//! Wrong numbers: what a graph's outputs become, given its inputs.

use crate::evaluate::Kept;
use crate::{active, image, spatial};
use delegraph_reference::execute::WeightBytes;
use delegraph_reference::tensor::{Data, Tensor};
use delegraph_sdk::image::{ArgView, ImageView, NodeView, Quant, Source, ValueIndex};
use delegraph_sdk::{DType, Error, TensorView};
use half::{bf16, f16};

/// What a node has to do with the tensors of the session.
pub struct Scene<'a> {
    view: ImageView<'a>,
    inputs: &'a [TensorView<'a>],
    weights: &'a Kept,
}

impl Scene<'_> {
    /// The tensor at an argument of a node, where it is an input of the session or a weight.
    pub fn tensor(&self, node: &NodeView<'_>, argument: usize) -> Option<Tensor> {
        self.value(node.arg(argument).value()?)
    }

    fn value(&self, index: ValueIndex) -> Option<Tensor> {
        let sizes = |sizes: &[i64]| sizes.iter().map(|size| *size as usize).collect();
        if let Source::Weight(weight) = self.view.value(index).source() {
            let weight = self.view.weight(weight);
            let have: Vec<i64> = weight.sizes().collect();
            return Tensor::from_bytes(weight.dtype(), sizes(&have), self.weights.bytes(weight.id()).ok()?).ok();
        }
        let at = self.view.inputs().iter().position(|input| input == index)?;
        let input = self.inputs.get(at)?;
        Tensor::from_bytes(input.dtype, sizes(input.sizes), input.bytes).ok()
    }

    /// Makes outputs that one of these operators gives anew; leaves those that `make` has nothing to say of.
    fn redo(
        &self,
        made: &mut [Tensor],
        operators: &[&str],
        make: impl Fn(&Self, &NodeView<'_>, &Tensor) -> Option<Vec<f64>>,
    ) {
        for node in self.view.nodes().filter(|node| operators.contains(&node.op())) {
            let output = node.outputs().get(0);
            let places = self.view.outputs();
            for at in (0..places.len()).filter(|at| places.get(*at) == output) {
                let Some(values) = made.get(at).and_then(|tensor| make(self, &node, tensor)) else {
                    continue;
                };
                if let Ok(tensor) = Tensor::new(made[at].dtype(), made[at].sizes().to_vec(), Data::Float(values)) {
                    made[at] = tensor;
                }
            }
        }
    }
}

/// What the mutant makes of the right outputs.
///
/// # Errors
/// A tensor that cannot be.
pub fn spoil(
    view: &ImageView<'_>,
    inputs: &[TensorView<'_>],
    weights: &Kept,
    mut made: Vec<Tensor>,
) -> Result<Vec<Tensor>, Error> {
    let view = *view;
    let scene = Scene { view, inputs, weights };
    let made_at = &mut made[..];
    match active() {
        "loses-tail" => each_float(made_at, |values| {
            let whole = values.len() / 8 * 8;
            values[whole..].fill(0.0);
        })?,
        "flushes-denormals" => each_float(made_at, |values| {
            for value in values
                .iter_mut()
                .filter(|value| value.abs() < f64::from(f32::MIN_POSITIVE))
            {
                *value = 0.0;
            }
        })?,
        "casts-by-truncation" => scene.redo(made_at, &["aten::_to_copy", "aten::to.dtype"], truncated_cast),
        "repeats-instead-of-broadcasting" => scene.redo(made_at, &["aten::add.Tensor", "aten::mul.Tensor"], repeated),
        "softmax-overflows" => scene.redo(made_at, &["aten::softmax.int", "aten::_softmax"], overflowing_softmax),
        "relu-loses-nan" => scene.redo(made_at, &["aten::relu", "aten::relu6", "aten::hardtanh"], without_nan),
        "maximum-loses-nan" => scene.redo(made_at, &["aten::maximum", "aten::minimum"], ignoring_nan),
        "accumulates-in-f16" => scene.redo(
            made_at,
            &["aten::mm", "aten::linear", "aten::matmul", "aten::bmm"],
            narrow_sum,
        ),
        "variance-without-correction" => scene.redo(made_at, &["aten::var.correction"], uncorrected),
        "divides-towards-zero" => scene.redo(made_at, &["aten::div.Tensor_mode"], towards_zero),
        "ignores-dilation" | "ignores-groups" => {
            scene.redo(made_at, &["aten::conv2d", "aten::convolution"], spatial::convolution)
        }
        "pads-max-pool-with-zero" => {
            let operators = ["aten::max_pool2d", "aten::max_pool2d_with_indices"];
            scene.redo(made_at, &operators, spatial::zero_padded_maximum)
        }
        "truncates-when-quantizing" => made = truncated_quantization(&view, made)?,
        "saturates-by-wrapping" => {
            let explicit = |view: &ImageView<'_>| {
                view.nodes()
                    .any(|n| n.op().starts_with("quantized_decomposed::quantize"))
            };
            if explicit(&view) || view.values().any(|value| value.quant().is_some()) {
                made = wrapped(made)?;
            }
        }
        _ => {}
    }
    Ok(made)
}

fn each_float(made: &mut [Tensor], change: impl Fn(&mut [f64])) -> Result<(), Error> {
    for tensor in made {
        if let Data::Float(values) = tensor.data() {
            let mut values = values.clone();
            change(&mut values);
            *tensor = Tensor::new(tensor.dtype(), tensor.sizes().to_vec(), Data::Float(values))?;
        }
    }
    Ok(())
}

/// Bits that do not fit are cut off, and not rounded.
fn truncated_cast(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let values = scene.tensor(node, 0)?.to_floats();
    let cut = |value: &f64| match made.dtype() {
        DType::F16 => {
            let near = f16::from_f64(*value);
            match near.to_f64().abs() > value.abs() && near.to_bits() & 0x7fff != 0 {
                true => f16::from_bits(near.to_bits() - 1).to_f64(),
                false => near.to_f64(),
            }
        }
        _ => f64::from(bf16::from_bits(((*value as f32).to_bits() >> 16) as u16)),
    };
    matches!(made.dtype(), DType::F16 | DType::BF16).then(|| values.iter().map(cut).collect())
}

/// The smaller operand is read over and over, as only fits where its dimensions are the last ones.
fn repeated(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let (a, b) = (scene.tensor(node, 0)?, scene.tensor(node, 1)?);
    if a.is_empty() || b.is_empty() || matches!(made.data(), Data::Int(_)) {
        return None;
    }
    let alpha = node
        .arg(2)
        .float()
        .or(node.arg(2).int().map(|i| i as f64))
        .unwrap_or(1.0);
    let (a, b) = (a.to_floats(), b.to_floats());
    let each = |i: usize| match node.op() {
        "aten::mul.Tensor" => a[i % a.len()] * b[i % b.len()],
        _ => a[i % a.len()] + alpha * b[i % b.len()],
    };
    Some((0..made.len()).map(each).collect())
}

/// Exponents without the largest taken off, in f32.
fn overflowing_softmax(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let values = scene.tensor(node, 0)?.to_floats();
    let rank = made.rank() as i64;
    let dim = node.arg(1).int().map(|dim| if dim < 0 { dim + rank } else { dim })?;
    let dim = usize::try_from(dim).ok().filter(|dim| *dim < made.rank())?;
    let along = made.sizes()[dim];
    let after: usize = made.sizes()[dim + 1..].iter().product();
    let exps: Vec<f32> = values.iter().map(|value| (*value as f32).exp()).collect();
    let each = |i: usize| {
        let first = i / (along * after) * along * after + i % after;
        let sum: f32 = (0..along).map(|j| exps[first + j * after]).sum();
        f64::from(exps[i] / sum)
    };
    (values.len() == made.len()).then(|| (0..made.len()).map(each).collect())
}

fn without_nan(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    scene.tensor(node, 0)?;
    Some(
        made.floats()
            .ok()?
            .iter()
            .map(|value| if value.is_nan() { 0.0 } else { *value })
            .collect(),
    )
}

/// As C's `fmax`: the other operand counts.
fn ignoring_nan(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let (a, b) = (scene.tensor(node, 0)?, scene.tensor(node, 1)?);
    if a.is_empty() || b.is_empty() || a.len().max(b.len()) != made.len() || made.floats().is_err() {
        return None;
    }
    let (a, b) = (a.to_floats(), b.to_floats());
    let each = |(i, value): (usize, &f64)| match value.is_nan() {
        true => a[i % a.len()].max(b[i % b.len()]),
        false => *value,
    };
    Some(made.floats().ok()?.iter().enumerate().map(each).collect())
}

/// Each sum of products is rounded to f16 after each step.
fn narrow_sum(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let (a, b) = (scene.tensor(node, 0)?, scene.tensor(node, 1)?);
    if made.dtype() != DType::F32 || a.rank() != 2 || b.rank() != 2 {
        return None;
    }
    let transposed = node.op() == "aten::linear";
    let inner = a.sizes()[1];
    let columns = b.sizes()[usize::from(!transposed)];
    let bias = match node.arg(2) {
        ArgView::Value(_) => scene.tensor(node, 2)?.to_floats(),
        _ => vec![0.0],
    };
    let (a, b) = (a.to_floats(), b.to_floats());
    let each = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let step = |sum: f16, k: usize| {
            let right = if transposed {
                b[column * inner + k]
            } else {
                b[k * columns + column]
            };
            f16::from_f64(sum.to_f64() + a[row * inner + k] * right)
        };
        (0..inner).fold(f16::from_f64(bias[column % bias.len()]), step).to_f64()
    };
    Some((0..made.len()).map(each).collect())
}

/// Divides by the number of elements, whatever is asked for.
fn uncorrected(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let input = scene.tensor(node, 0)?;
    let correction = match node.arg(2) {
        ArgView::None => 1.0,
        other => other.float().or(other.int().map(|i| i as f64))?,
    };
    let count = input.len() as f64 / (made.len().max(1)) as f64;
    let factor = (count - correction) / count;
    Some(made.floats().ok()?.iter().map(|value| value * factor).collect())
}

/// `floor` is taken for `trunc`.
fn towards_zero(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let (a, b) = (scene.tensor(node, 0)?, scene.tensor(node, 1)?);
    if !matches!(node.arg(2), ArgView::Str("floor")) || a.len() != made.len() || b.len() != made.len() {
        return None;
    }
    Some(
        a.to_floats()
            .iter()
            .zip(b.to_floats())
            .map(|(a, b)| (a / b).trunc())
            .collect(),
    )
}

/// Quantizes numbers that were left as such, and cuts off what is behind the point.
fn truncated_quantization(view: &ImageView<'_>, made: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let mut made = made;
    for at in image::truncated_outputs(view) {
        let index = view.outputs().get(at);
        let value = index.map(|index| view.value(index));
        let (Some(tensor), Some(value)) = (made.get_mut(at), value) else {
            continue;
        };
        let (
            Some(Quant::PerTensor {
                scale,
                zero_point,
                quant_min,
                quant_max,
            }),
            Some(dtype),
            Ok(numbers),
        ) = (value.quant(), value.dtype(), tensor.floats())
        else {
            continue;
        };
        let integers = numbers
            .iter()
            .map(|x| ((x / scale).trunc() as i64 + zero_point).clamp(quant_min, quant_max));
        *tensor = Tensor::new(dtype, tensor.sizes().to_vec(), Data::Int(integers.collect()))?;
    }
    Ok(made)
}

/// What lies at the limits of its integers comes out at the other end.
fn wrapped(made: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let each = |tensor: Tensor| match (tensor.data(), tensor.dtype()) {
        (Data::Int(values), DType::I8) => {
            let swap = |value: &i64| match value {
                127 => -128,
                -128 => 127,
                other => *other,
            };
            Tensor::new(
                DType::I8,
                tensor.sizes().to_vec(),
                Data::Int(values.iter().map(swap).collect()),
            )
        }
        _ => Ok(tensor),
    };
    made.into_iter().map(each).collect()
}
