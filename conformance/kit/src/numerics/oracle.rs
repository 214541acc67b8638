//! What operators give, in double precision, by loops that follow their definitions: the yardstick of random cases.
//!
//! It is slow and has no cleverness, and shares no code with any kernel or delegate. A test holds it against what PyTorch recorded.

use delegraph_runner::Leaf;
use delegraph_runner::corpus::{Argument, OpCase};
use delegraph_runner::fixture::Tensors;
use delegraph_runner::leaf::to_f64;
use delegraph_types::Scalar;

/// A result before it is rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its elements.
    pub value: Array,
    /// By element, the magnitude that its rounding is measured by; `None`: by the element alone.
    pub scale: Option<Vec<f64>>,
}

/// Sizes and elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes.
    pub shape: Vec<usize>,
    /// As many as the sizes say.
    pub data: Vec<f64>,
}

/// What a call gives; `None`: an operator or an attribute that the oracle does not know, or tensors that are no floats.
pub fn evaluate(case: &OpCase, tensors: &Tensors) -> Option<Answer> {
    let call = Call { case, tensors };
    let plain = |value: Array| Some(Answer { value, scale: None });
    let unary = |f: fn(f64) -> f64| {
        let x = call.array("self")?;
        let data = x.data.iter().map(|v| f(*v)).collect();
        plain(Array { shape: x.shape, data })
    };
    match case.op.as_str() {
        "aten::add.Tensor" | "aten::sub.Tensor" => {
            let alpha = call.number("alpha")?;
            let alpha = if case.op.starts_with("aten::sub") {
                -alpha
            } else {
                alpha
            };
            let value = call.pointwise(|a, b| a + alpha * b)?;
            let size = call.pointwise(|a, b| a.abs() + (alpha * b).abs())?;
            Some(Answer {
                value,
                scale: Some(size.data),
            })
        }
        "aten::mul.Tensor" => plain(call.pointwise(|a, b| a * b)?),
        "aten::div.Tensor" => plain(call.pointwise(|a, b| a / b)?),
        "aten::maximum" => plain(call.pointwise(larger)?),
        "aten::minimum" => plain(call.pointwise(|a, b| -larger(-a, -b))?),
        "aten::relu" => unary(|x| larger(x, 0.0)),
        "aten::neg" => unary(|x| -x),
        "aten::abs" => unary(f64::abs),
        "aten::sqrt" => unary(f64::sqrt),
        "aten::exp" => unary(f64::exp),
        "aten::tanh" => unary(f64::tanh),
        "aten::sigmoid" => unary(|x| 1.0 / (1.0 + (-x).exp())),
        "aten::silu" => unary(|x| {
            if x == f64::NEG_INFINITY {
                f64::NAN
            } else {
                x / (1.0 + (-x).exp())
            }
        }),
        "aten::sum.dim_IntList" => call.reduced(|row| row.iter().sum(), true),
        "aten::mean.dim" => call.reduced(|row| row.iter().sum::<f64>() / row.len() as f64, true),
        "aten::amax" => call.reduced(|row| row.iter().copied().fold(f64::NEG_INFINITY, larger), false),
        "aten::softmax.int" => call.along(softmax),
        "aten::log_softmax.int" => call.along(log_softmax),
        "aten::cumsum" => call.along(|row| {
            let running = |values: Vec<f64>| {
                let add = |sum: &mut f64, v: f64| {
                    *sum += v;
                    Some(*sum)
                };
                values.into_iter().scan(0.0, add).collect::<Vec<f64>>()
            };
            (running(row.to_vec()), running(row.iter().map(|v| v.abs()).collect()))
        }),
        "aten::layer_norm" => call.layer_norm(),
        "aten::mm" => call.products("self", "mat2"),
        "aten::bmm" => call.products("self", "mat2"),
        "aten::linear" => call.linear(),
        "aten::conv2d" => call.conv2d(),
        "aten::max_pool2d" => call.pool2d(false),
        "aten::avg_pool2d" => call.pool2d(true),
        "aten::cat" => plain(call.cat()?),
        "aten::permute" => plain(call.permute()?),
        "aten::gather" | "aten::index_select" => plain(call.picked()?),
        "aten::slice.Tensor" => plain(call.slice()?),
        _ => None,
    }
}

/// NaN wins, as in PyTorch.
fn larger(a: f64, b: f64) -> f64 {
    match a.is_nan() || b.is_nan() {
        true => f64::NAN,
        false if a >= b => a,
        false => b,
    }
}

fn softmax(row: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
    let value: Vec<f64> = row.iter().map(|x| (x - top).exp() / sum).collect();
    let scale = value
        .iter()
        .zip(row)
        .map(|(p, x)| p * (1.0 + (x - top).abs()))
        .collect();
    (value, scale)
}

fn log_softmax(row: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    let log = row.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    let scale = row
        .iter()
        .map(|x| (x - top).abs() + (row.len() as f64).ln() + 1.0)
        .collect();
    (row.iter().map(|x| x - top - log).collect(), scale)
}

struct Call<'a> {
    case: &'a OpCase,
    tensors: &'a Tensors,
}

/// Row-major positions of every index of a shape, in order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let count: usize = shape.iter().product();
    (0..count).map(move |mut flat| {
        let mut index = vec![0; shape.len()];
        for d in (0..shape.len()).rev() {
            index[d] = flat % shape[d];
            flat /= shape[d];
        }
        index
    })
}

impl Array {
    fn at(&self, index: &[usize]) -> f64 {
        let flat = index.iter().zip(&self.shape).fold(0, |flat, (i, size)| flat * size + i);
        self.data[flat]
    }

    /// The element that broadcasting puts at an index of a larger shape.
    fn stretched(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let own: Vec<usize> = own
            .iter()
            .zip(&self.shape)
            .map(|(i, size)| if *size == 1 { 0 } else { *i })
            .collect();
        self.at(&own)
    }

    fn made(shape: Vec<usize>, f: impl FnMut(Vec<usize>) -> f64) -> Array {
        let data = indices(&shape).map(f).collect();
        Array { shape, data }
    }
}

impl Call<'_> {
    /// A float tensor, or a number as one.
    fn array(&self, name: &str) -> Option<Array> {
        match self.case.arg(name)? {
            Argument::Tensor(key) => self.of_key(key, true),
            Argument::Number(number) => Some(Array {
                shape: Vec::new(),
                data: vec![real(*number)],
            }),
            _ => None,
        }
    }

    fn of_key(&self, key: &str, floats: bool) -> Option<Array> {
        match self.tensors.get(key)? {
            Leaf::Tensor { dtype, shape, bytes } if dtype.is_float() == floats => Some(Array {
                shape: shape
                    .iter()
                    .map(|&size| usize::try_from(size).ok())
                    .collect::<Option<_>>()?,
                data: to_f64(*dtype, bytes),
            }),
            _ => None,
        }
    }

    fn integers(&self, name: &str) -> Option<Array> {
        match self.case.arg(name)? {
            Argument::Tensor(key) => self.of_key(key, false),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.case.arg(name)? {
            Argument::Number(number) => Some(real(*number)),
            _ => None,
        }
    }

    fn int(&self, name: &str) -> Option<i64> {
        match self.case.arg(name)? {
            Argument::Number(Scalar::Int(i)) => Some(*i),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.case.arg(name), Some(Argument::Number(Scalar::Bool(true))))
    }

    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.case.arg(name)? {
            Argument::Ints(items) => Some(items.clone()),
            _ => None,
        }
    }

    /// Two integers for height and width; one stands for both, none for `missing`.
    fn pair(&self, name: &str, missing: [i64; 2]) -> Option<[usize; 2]> {
        let items = match self.ints(name)?.as_slice() {
            [] => missing,
            [one] => [*one; 2],
            [a, b] => [*a, *b],
            _ => return None,
        };
        Some([usize::try_from(items[0]).ok()?, usize::try_from(items[1]).ok()?])
    }

    fn dim(&self, name: &str, rank: usize) -> Option<usize> {
        wrap(self.int(name)?, rank)
    }

    fn pointwise(&self, f: impl Fn(f64, f64) -> f64) -> Option<Array> {
        let (a, b) = (self.array("self")?, self.array("other")?);
        let rank = a.shape.len().max(b.shape.len());
        let size = |shape: &[usize], d: usize| match (d + shape.len()).checked_sub(rank) {
            Some(own) => shape[own],
            None => 1,
        };
        let shape = (0..rank).map(|d| match (size(&a.shape, d), size(&b.shape, d)) {
            (1, other) => other,
            (own, _) => own,
        });
        Some(Array::made(shape.collect(), |index| {
            f(a.stretched(&index), b.stretched(&index))
        }))
    }

    fn reduced(&self, f: impl Fn(&[f64]) -> f64, sums: bool) -> Option<Answer> {
        let x = self.array("self")?;
        let rank = x.shape.len();
        let mut dims: Vec<usize> = self
            .ints("dim")?
            .iter()
            .map(|&d| wrap(d, rank))
            .collect::<Option<_>>()?;
        if dims.is_empty() {
            dims = (0..rank).collect();
        }
        if matches!(self.case.arg("dtype"), Some(Argument::DType(_))) {
            return None;
        }
        let kept: Vec<usize> = (0..rank).filter(|d| !dims.contains(d)).collect();
        let outer: Vec<usize> = kept.iter().map(|&d| x.shape[d]).collect();
        let inner: Vec<usize> = dims.iter().map(|&d| x.shape[d]).collect();
        let mut sizes = Vec::new();
        let mut value = Array::made(outer, |index| {
            let row: Vec<f64> = indices(&inner)
                .map(|inside| {
                    let mut full = vec![0; rank];
                    kept.iter().zip(&index).for_each(|(&d, &i)| full[d] = i);
                    dims.iter().zip(&inside).for_each(|(&d, &i)| full[d] = i);
                    x.at(&full)
                })
                .collect();
            sizes.push(f(&row.iter().map(|v| v.abs()).collect::<Vec<_>>()));
            f(&row)
        });
        if self.flag("keepdim") {
            value.shape = (0..rank)
                .map(|d| if dims.contains(&d) { 1 } else { x.shape[d] })
                .collect();
        }
        Some(Answer {
            value,
            scale: sums.then_some(sizes),
        })
    }

    /// A function of each row along `dim` that gives a row of the same length, and its scale.
    fn along(&self, f: impl Fn(&[f64]) -> (Vec<f64>, Vec<f64>)) -> Option<Answer> {
        let x = self.array("self")?;
        let dim = self.dim("dim", x.shape.len())?;
        let length = *x.shape.get(dim)?;
        let step: usize = x.shape[dim + 1..].iter().product();
        let (mut value, mut scale) = (x.data.clone(), vec![0.0; x.data.len()]);
        for start in (0..x.data.len()).filter(|flat| (flat / step.max(1)).is_multiple_of(length.max(1))) {
            let row: Vec<f64> = (0..length).map(|i| x.data[start + i * step]).collect();
            let (made, sizes) = f(&row);
            for i in 0..length {
                value[start + i * step] = made[i];
                scale[start + i * step] = sizes[i];
            }
        }
        let value = Array {
            shape: x.shape,
            data: value,
        };
        Some(Answer {
            value,
            scale: Some(scale),
        })
    }

    fn layer_norm(&self) -> Option<Answer> {
        let x = self.array("input")?;
        let inner = self.ints("normalized_shape")?.len();
        let length: usize = x.shape[x.shape.len().checked_sub(inner)?..].iter().product();
        let optional = |name: &str| match self.case.arg(name)? {
            Argument::None => Some(None),
            _ => Some(Some(self.array(name)?.data)),
        };
        let (weight, bias, eps) = (optional("weight")?, optional("bias")?, self.number("eps")?);
        let (mut data, mut scale) = (Vec::new(), Vec::new());
        for row in x.data.chunks(length.max(1)) {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            let deviation = (variance + eps).sqrt();
            for (i, v) in row.iter().enumerate() {
                let w = weight.as_ref().map_or(1.0, |w| w[i]);
                let b = bias.as_ref().map_or(0.0, |b| b[i]);
                data.push((v - mean) / deviation * w + b);
                scale.push((v.abs() + mean.abs()) / deviation * w.abs() + b.abs());
            }
        }
        let value = Array { shape: x.shape, data };
        Some(Answer {
            value,
            scale: Some(scale),
        })
    }

    /// Of matrices, or of as many matrices as the first dimension says.
    fn products(&self, left: &str, right: &str) -> Option<Answer> {
        let (a, b) = (self.array(left)?, self.array(right)?);
        let (batch, m, k, n) = match (a.shape.as_slice(), b.shape.as_slice()) {
            (&[m, k], &[_, n]) => (vec![], m, k, n),
            (&[count, m, k], &[_, _, n]) => (vec![count], m, k, n),
            _ => return None,
        };
        let count: usize = batch.iter().product();
        let (mut data, mut scale) = (Vec::new(), Vec::new());
        for i in 0..count * m {
            for j in 0..n {
                let term = |t: usize| a.data[i * k + t] * b.data[(i / m * k + t) * n + j];
                data.push((0..k).map(term).sum());
                scale.push((0..k).map(|t| term(t).abs()).sum());
            }
        }
        let mut shape = batch;
        shape.extend([m, n]);
        let value = Array { shape, data };
        Some(Answer {
            value,
            scale: Some(scale),
        })
    }

    fn linear(&self) -> Option<Answer> {
        let (x, w) = (self.array("input")?, self.array("weight")?);
        let (&[n, k], Some(_)) = (w.shape.as_slice(), x.shape.last()) else {
            return None;
        };
        let bias = self.array("bias").map(|b| b.data);
        let (mut data, mut scale) = (Vec::new(), Vec::new());
        for row in x.data.chunks(k.max(1)) {
            for j in 0..n {
                let b = bias.as_ref().map_or(0.0, |b| b[j]);
                let term = |t: usize| row[t] * w.data[j * k + t];
                data.push(b + (0..k).map(term).sum::<f64>());
                scale.push(b.abs() + (0..k).map(|t| term(t).abs()).sum::<f64>());
            }
        }
        let mut shape = x.shape;
        *shape.last_mut()? = n;
        let value = Array { shape, data };
        Some(Answer {
            value,
            scale: Some(scale),
        })
    }

    fn conv2d(&self) -> Option<Answer> {
        let (x, w) = (self.array("input")?, self.array("weight")?);
        let (&[batch, channels, height, width], &[out, per_group, kernel_h, kernel_w]) =
            (x.shape.as_slice(), w.shape.as_slice())
        else {
            return None;
        };
        let bias = self.array("bias").map(|b| b.data);
        let (stride, padding) = (self.pair("stride", [1, 1])?, self.pair("padding", [0, 0])?);
        let dilation = self.pair("dilation", [1, 1])?;
        let groups = usize::try_from(self.int("groups")?).ok()?;
        if per_group * groups != channels {
            return None;
        }
        let sizes = [
            (height + 2 * padding[0] - dilation[0] * (kernel_h - 1) - 1) / stride[0] + 1,
            (width + 2 * padding[1] - dilation[1] * (kernel_w - 1) - 1) / stride[1] + 1,
        ];
        let mut scale = Vec::new();
        let value = Array::made(vec![batch, out, sizes[0], sizes[1]], |index| {
            let &[n, o, row, column] = index.as_slice() else {
                return 0.0;
            };
            let group = o / (out / groups);
            let b = bias.as_ref().map_or(0.0, |b| b[o]);
            let (mut sum, mut size) = (b, b.abs());
            for c in 0..per_group {
                for i in 0..kernel_h {
                    for j in 0..kernel_w {
                        // Beside the image is zero.
                        let y = (row * stride[0] + i * dilation[0])
                            .checked_sub(padding[0])
                            .filter(|y| *y < height);
                        let z = (column * stride[1] + j * dilation[1])
                            .checked_sub(padding[1])
                            .filter(|z| *z < width);
                        if let (Some(y), Some(z)) = (y, z) {
                            let term = x.at(&[n, group * per_group + c, y, z]) * w.at(&[o, c, i, j]);
                            sum += term;
                            size += term.abs();
                        }
                    }
                }
            }
            scale.push(size);
            sum
        });
        Some(Answer {
            value,
            scale: Some(scale),
        })
    }

    fn pool2d(&self, mean: bool) -> Option<Answer> {
        let x = self.array("self")?;
        let &[batch, channels, height, width] = x.shape.as_slice() else {
            return None;
        };
        let given = |name: &str| matches!(self.case.arg(name), Some(Argument::Number(Scalar::Int(_))));
        if self.flag("ceil_mode") || given("divisor_override") || (mean && !self.flag("count_include_pad")) {
            return None;
        }
        let kernel = self.pair("kernel_size", [1, 1])?;
        let stride = self.pair("stride", [kernel[0] as i64, kernel[1] as i64])?;
        let padding = self.pair("padding", [0, 0])?;
        let dilation = if mean { [1, 1] } else { self.pair("dilation", [1, 1])? };
        let sizes = [
            (height + 2 * padding[0] - dilation[0] * (kernel[0] - 1) - 1) / stride[0] + 1,
            (width + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) / stride[1] + 1,
        ];
        let mut scale = Vec::new();
        let value = Array::made(vec![batch, channels, sizes[0], sizes[1]], |index| {
            let &[n, c, row, column] = index.as_slice() else {
                return 0.0;
            };
            let mut inside = Vec::new();
            for i in 0..kernel[0] {
                for j in 0..kernel[1] {
                    let y = (row * stride[0] + i * dilation[0])
                        .checked_sub(padding[0])
                        .filter(|y| *y < height);
                    let z = (column * stride[1] + j * dilation[1])
                        .checked_sub(padding[1])
                        .filter(|z| *z < width);
                    if let (Some(y), Some(z)) = (y, z) {
                        inside.push(x.at(&[n, c, y, z]));
                    }
                }
            }
            // Padding is among what is counted. Average pooling with it runs over the padded image alone, so no window is cut.
            let count = (kernel[0] * kernel[1]) as f64;
            scale.push(inside.iter().map(|v| v.abs()).sum::<f64>() / count);
            match mean {
                true => inside.iter().sum::<f64>() / count,
                false => inside.into_iter().fold(f64::NEG_INFINITY, larger),
            }
        });
        Some(Answer {
            value,
            scale: mean.then_some(scale),
        })
    }

    fn cat(&self) -> Option<Array> {
        let Argument::Tensors(keys) = self.case.arg("tensors")? else {
            return None;
        };
        let parts: Vec<Array> = keys
            .iter()
            .map(|key| self.of_key(key.as_deref()?, true))
            .collect::<Option<_>>()?;
        let first = parts.first()?;
        let dim = self.dim("dim", first.shape.len())?;
        let mut shape = first.shape.clone();
        shape[dim] = parts.iter().map(|part| part.shape[dim]).sum();
        Some(Array::made(shape, |mut index| {
            for part in &parts {
                if index[dim] < part.shape[dim] {
                    return part.at(&index);
                }
                index[dim] -= part.shape[dim];
            }
            f64::NAN
        }))
    }

    fn permute(&self) -> Option<Array> {
        let x = self.array("self")?;
        let rank = x.shape.len();
        let order: Vec<usize> = self
            .ints("dims")?
            .iter()
            .map(|&d| wrap(d, rank))
            .collect::<Option<_>>()?;
        let shape = order.iter().map(|&d| x.shape[d]).collect();
        Some(Array::made(shape, |index| {
            let mut from = vec![0; rank];
            order.iter().zip(&index).for_each(|(&d, &i)| from[d] = i);
            x.at(&from)
        }))
    }

    /// `gather`, whose index has the result's sizes, and `index_select`, whose index is a list.
    fn picked(&self) -> Option<Array> {
        let (x, index) = (self.array("self")?, self.integers("index")?);
        let dim = self.dim("dim", x.shape.len())?;
        let select = self.case.op == "aten::index_select";
        let mut shape = x.shape.clone();
        match select {
            true => shape[dim] = index.data.len(),
            false => shape = index.shape.clone(),
        }
        Some(Array::made(shape, |mut at| {
            let chosen = if select { index.data[at[dim]] } else { index.at(&at) };
            at[dim] = chosen as usize;
            x.at(&at)
        }))
    }

    fn slice(&self) -> Option<Array> {
        let x = self.array("self")?;
        let dim = self.dim("dim", x.shape.len())?;
        let size = x.shape[dim] as i64;
        let bound = |name: &str, missing: i64| match self.case.arg(name)? {
            Argument::None => Some(missing),
            Argument::Number(Scalar::Int(i)) => Some(if *i < 0 { i + size } else { *i }.clamp(0, size)),
            _ => None,
        };
        let (start, end, step) = (bound("start", 0)?, bound("end", size)?, self.int("step")?);
        let mut shape = x.shape.clone();
        shape[dim] = usize::try_from((end - start + step - 1) / step).unwrap_or(0);
        Some(Array::made(shape, |mut index| {
            index[dim] = start as usize + index[dim] * step as usize;
            x.at(&index)
        }))
    }
}

fn wrap(dim: i64, rank: usize) -> Option<usize> {
    let rank = rank as i64;
    usize::try_from(if dim < 0 { dim + rank } else { dim })
        .ok()
        .filter(|d| (*d as i64) < rank)
}

fn real(number: Scalar) -> f64 {
    match number {
        Scalar::Bool(b) => f64::from(u8::from(b)),
        Scalar::Int(i) => i as f64,
        Scalar::Float(f) => f,
    }
}

#[cfg(test)]
mod tests {
    use super::super::data;
    use super::super::tolerance::{Want, judge};
    use super::*;
    use delegraph_types::DType;
    use std::collections::BTreeMap;

    /// Loops of ours against PyTorch's results, by the tolerance of double precision rounded to the recorded dtype.
    #[test]
    fn the_oracle_gives_what_pytorch_recorded() {
        let tensors = data::call_tensors().unwrap();
        let mut checked: BTreeMap<&str, usize> = BTreeMap::new();
        for call in data::calls().unwrap() {
            let Some(answer) = evaluate(&call.case, tensors) else {
                continue;
            };
            let keys = call.case.outputs().unwrap();
            let recorded = tensors.get(keys[0]).unwrap();
            let Leaf::Tensor { dtype, shape, .. } = recorded else {
                panic!()
            };
            let sizes: Vec<i64> = answer.value.shape.iter().map(|&size| size as i64).collect();
            assert_eq!(sizes, *shape, "{}", call.case.id());
            let bytes = |values: &[f64]| -> Vec<u8> {
                values
                    .iter()
                    .flat_map(|v| match dtype {
                        DType::F16 => delegraph_types::f16::from_f64(*v).to_le_bytes().to_vec(),
                        DType::BF16 => delegraph_types::bf16::from_f64(*v).to_le_bytes().to_vec(),
                        _ => (*v as f32).to_le_bytes().to_vec(),
                    })
                    .collect()
            };
            let got = Leaf::Tensor {
                dtype: *dtype,
                shape: shape.clone(),
                bytes: bytes(&answer.value.data),
            };
            let scale = call
                .scale
                .first()
                .and_then(Option::as_deref)
                .and_then(|key| tensors.get(key));
            let want = Want {
                rounded: recorded,
                precise: None,
                scale,
            };
            if let Err(reason) = judge(&call.rule, "", &got, want).1 {
                panic!("{}: {reason}", call.case.id());
            }
            *checked.entry(&call.case.op).or_default() += 1;
        }
        assert!(checked.len() >= 28, "{checked:?}");
        assert!(checked.values().sum::<usize>() > 250, "{checked:?}");
        assert!(
            checked["aten::conv2d"] > 15 && checked["aten::layer_norm"] > 5,
            "{checked:?}"
        );
    }
}
