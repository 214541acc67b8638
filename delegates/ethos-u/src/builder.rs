//! Makes a TOSA graph of a graph image in normal form 1 (channels last), node by node.
//!
//! Values are quantized per tensor in 8 or 16 bits. Sums are wide, and `RESCALE` brings them to the result's scale; what a folded activation leaves
//! of its range is a `CLAMP` behind that.

use crate::caps::Refusal;
use crate::target::Target;
use crate::tosa::{Attribute, DType, Graph, Op, Operator, Rounding, Tensor};
use delegraph_sdk::image::{ImageView, NodeView, Quant, Source, ValueIndex, WeightIndex};
use delegraph_sdk::{DType as Element, Error, Weights};
use std::collections::HashMap;

/// How a value's integers stand for numbers: `(q - zero_point) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Step.
    pub scale: f64,
    /// Integer that stands for 0.
    pub zero_point: i64,
    /// Smallest integer used.
    pub low: i64,
    /// Largest integer used.
    pub high: i64,
}

/// The bytes of weights, by the id that the image gives them.
pub trait WeightBytes {
    /// Contiguous, row-major.
    ///
    /// # Errors
    /// There is no such weight.
    fn bytes(&self, id: u32) -> Result<&[u8], Error>;
}

impl WeightBytes for Weights<'_> {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        Weights::bytes(self, id)
    }
}

/// The graph while it is made.
pub struct Builder<'a> {
    image: ImageView<'a>,
    target: &'static Target,
    /// Absent while a node is only asked about.
    weights: Option<&'a dyn WeightBytes>,
    graph: Graph,
    values: HashMap<ValueIndex, usize>,
    /// Floats, as integers of 32 bits with a step.
    fixed: HashMap<ValueIndex, (usize, f64)>,
    prefix: String,
}

/// Multiplier and shift of `RESCALE` for a scale: 31 bits of multiplier, 15 for sums of 48.
///
/// # Errors
/// A scale that no shift reaches.
pub fn multiplier(scale: f64, wide: bool) -> Result<(i32, i8), Refusal> {
    let bits = if wide { 31 } else { 15 };
    let refuse = || Refusal::quantization(format!("a factor of {scale} between scales"));
    if !(scale.is_finite() && scale > 0.0) {
        return Err(refuse());
    }
    // `scale = fraction * 2^exponent` with a fraction from a half to one.
    let mut exponent = scale.log2().floor() as i32 + 1;
    let mut fraction = scale / 2f64.powi(exponent);
    if fraction >= 1.0 {
        (fraction, exponent) = (fraction / 2.0, exponent + 1);
    }
    let mut multiplier = (fraction * 2f64.powi(bits)).round() as i64;
    if multiplier == 1 << bits {
        (multiplier, exponent) = (multiplier / 2, exponent + 1);
    }
    let shift = bits - exponent;
    match (2..=62).contains(&shift) {
        true => Ok((multiplier as i32, shift as i8)),
        false => Err(refuse()),
    }
}

impl<'a> Builder<'a> {
    /// For a graph, with its weights; without, for asking about nodes.
    pub fn new(image: ImageView<'a>, target: &'static Target, weights: Option<&'a dyn WeightBytes>) -> Builder<'a> {
        Builder {
            image,
            target,
            weights,
            graph: Graph::default(),
            values: HashMap::new(),
            fixed: HashMap::new(),
            prefix: String::new(),
        }
    }

    /// From here on, tensors are of this node.
    pub fn begin(&mut self, node: &NodeView<'_>) {
        self.prefix = node.name().to_string();
    }

    /// The image.
    pub fn image(&self) -> ImageView<'a> {
        self.image
    }

    /// The processor.
    pub fn target(&self) -> &'static Target {
        self.target
    }

    /// Sizes of a value; `[1]` for one without dimensions.
    ///
    /// # Errors
    /// One is not constant.
    pub fn dims(&self, value: ValueIndex) -> Result<Vec<i32>, Refusal> {
        let view = self.image.value(value);
        let dims = view.const_dims().and_then(|dims| {
            let all: Option<Vec<i32>> = dims
                .into_iter()
                .map(|d| i32::try_from(d).ok().filter(|d| *d > 0))
                .collect();
            all
        });
        match dims {
            Some(dims) if dims.is_empty() => Ok(vec![1]),
            Some(dims) => Ok(dims),
            None => Err(Refusal::shape(format!(
                "`{}` has no fixed shape with elements",
                view.name()
            ))),
        }
    }

    /// What integers of 8 unsigned bits are less here: TOSA's are signed, so their highest bit is turned over at the border.
    pub fn offset(&self, value: ValueIndex) -> i64 {
        match self.image.value(value).dtype() {
            Some(Element::U8) => 128,
            _ => 0,
        }
    }

    /// Scale and zero point of a value that is quantized per tensor, in signed integers.
    ///
    /// # Errors
    /// It is not.
    pub fn scale(&self, value: ValueIndex) -> Result<Scale, Refusal> {
        let view = self.image.value(value);
        match view.quant() {
            Some(Quant::PerTensor {
                scale,
                zero_point,
                quant_min,
                quant_max,
            }) => {
                let offset = self.offset(value);
                Ok(Scale {
                    scale,
                    zero_point: zero_point - offset,
                    low: quant_min - offset,
                    high: quant_max - offset,
                })
            }
            Some(_) => Err(Refusal::quantization(format!(
                "`{}` is not quantized per tensor",
                view.name()
            ))),
            None => Err(Refusal::quantization(format!("`{}` is not quantized", view.name()))),
        }
    }

    /// Type of a quantized value.
    ///
    /// # Errors
    /// Another than 8 bits or 16 signed ones, or a zero point beside 16 bits.
    pub fn dtype(&self, value: ValueIndex) -> Result<DType, Refusal> {
        let scale = self.scale(value)?;
        let view = self.image.value(value);
        match view.dtype() {
            Some(Element::I8 | Element::U8) => Ok(DType::Int8),
            Some(Element::I16) if scale.zero_point == 0 => Ok(DType::Int16),
            Some(Element::I16) => Err(Refusal::quantization(format!(
                "`{}` has 16 bits and the zero point {}",
                view.name(),
                scale.zero_point
            ))),
            other => Err(Refusal::dtype(format!(
                "`{}` is of {other:?}, not of 8 bits or 16 signed ones",
                view.name()
            ))),
        }
    }

    /// The tensor of a value.
    ///
    /// # Errors
    /// It is of another type than 8 bits or 16 signed ones.
    pub fn read(&mut self, value: ValueIndex) -> Result<usize, Refusal> {
        if let Some(tensor) = self.values.get(&value) {
            return Ok(*tensor);
        }
        let (dtype, shape) = (self.dtype(value)?, self.dims(value)?);
        let view = self.image.value(value);
        let data = match view.source() {
            Source::Weight(_) => {
                let mut bytes = self.bytes(value)?.1;
                if self.offset(value) != 0 {
                    bytes.iter_mut().for_each(|byte| *byte ^= 0x80);
                }
                Some(bytes)
            }
            _ => None,
        };
        let input = data.is_none();
        let name = format!("v{}", value.0);
        let tensor = self.add(Tensor {
            name,
            shape,
            dtype,
            data,
        });
        if input {
            self.graph.inputs.push(tensor);
        }
        self.values.insert(value, tensor);
        Ok(tensor)
    }

    /// The bytes of a weight and its type, contiguous; zeros while a node is only asked about.
    ///
    /// # Errors
    /// The value is no weight.
    pub fn bytes(&self, value: ValueIndex) -> Result<(Element, Vec<u8>), Refusal> {
        let view = self.image.value(value);
        let weight = view
            .weight()
            .ok_or_else(|| Refusal::attribute(format!("`{}` is no constant", view.name())))?;
        let bytes = match self.weights {
            Some(weights) => weights.bytes(weight.id())?.to_vec(),
            None => vec![0; usize::try_from(weight.byte_size()).map_err(|_| Refusal::shape("a weight too large"))?],
        };
        Ok((weight.dtype(), bytes))
    }

    /// The numbers of a weight of the image.
    ///
    /// # Errors
    /// Its type has none.
    fn numbers(&self, index: WeightIndex) -> Result<Vec<f64>, Refusal> {
        let weight = self.image.weight(index);
        let Some(weights) = self.weights else {
            let count: i64 = weight.sizes().product();
            return Ok(vec![1.0; count as usize]);
        };
        let bytes = weights.bytes(weight.id())?;
        let numbers = match weight.dtype() {
            Element::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b)))
                .collect(),
            Element::F64 => bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            other => return Err(Refusal::dtype(format!("scales of {other}"))),
        };
        Ok(numbers)
    }

    /// The scale of each output channel of a weight, which has them along a dimension, and whose zero points are 0.
    ///
    /// # Errors
    /// It is quantized in another way.
    pub fn weight_scales(&self, value: ValueIndex, along: usize, channels: usize) -> Result<Vec<f64>, Refusal> {
        let view = self.image.value(value);
        match view.quant() {
            Some(Quant::PerTensor {
                scale, zero_point: 0, ..
            }) => Ok(vec![scale; channels]),
            Some(Quant::PerAxis {
                axis,
                scales,
                zero_points,
                ..
            }) if axis as usize == along => {
                let scales = self.numbers(scales)?;
                let zeros = match (zero_points, self.weights) {
                    (Some(index), Some(weights)) => {
                        let bytes = weights.bytes(self.image.weight(index).id())?;
                        bytes.iter().all(|b| *b == 0)
                    }
                    _ => true,
                };
                match zeros && scales.len() == channels {
                    true => Ok(scales),
                    false => Err(Refusal::quantization(format!("`{}` has zero points", view.name()))),
                }
            }
            _ => Err(Refusal::quantization(format!(
                "`{}` is quantized neither per tensor nor per output channel",
                view.name()
            ))),
        }
    }

    fn add(&mut self, tensor: Tensor) -> usize {
        self.graph.tensors.push(tensor);
        self.graph.tensors.len() - 1
    }

    /// A constant.
    pub fn constant(&mut self, dtype: DType, shape: &[i32], data: Vec<u8>) -> usize {
        let name = format!("{}.c{}", self.prefix, self.graph.tensors.len());
        self.add(Tensor {
            name,
            shape: shape.to_vec(),
            dtype,
            data: Some(data),
        })
    }

    /// A constant of integers, one a position.
    pub fn integers(&mut self, dtype: DType, values: &[i64]) -> usize {
        let size = dtype.size();
        let data = values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect();
        self.constant(dtype, &[values.len() as i32], data)
    }

    /// A shape that an operator reads.
    pub fn shape(&mut self, values: &[i32]) -> usize {
        let wide: Vec<i64> = values.iter().map(|v| i64::from(*v)).collect();
        self.integers(DType::Shape, &wide)
    }

    /// Adds an operator of one result.
    pub fn op(&mut self, op: Op, attribute: Attribute, inputs: &[usize], dtype: DType, shape: &[i32]) -> usize {
        let name = format!("{}.t{}", self.prefix, self.graph.tensors.len());
        let output = self.add(Tensor {
            name,
            shape: shape.to_vec(),
            dtype,
            data: None,
        });
        self.graph.operators.push(Operator {
            op,
            attribute,
            inputs: inputs.to_vec(),
            outputs: vec![output],
        });
        output
    }

    /// A tensor's type.
    pub fn type_of(&self, tensor: usize) -> DType {
        self.graph.tensors[tensor].dtype
    }

    /// A tensor's sizes.
    pub fn shape_of(&self, tensor: usize) -> Vec<i32> {
        self.graph.tensors[tensor].shape.clone()
    }

    /// `RESCALE`: one factor, or one a channel of the last dimension.
    ///
    /// # Errors
    /// A factor that it does not reach.
    pub fn rescale(
        &mut self,
        x: usize,
        factors: &[f64],
        zero_in: i64,
        target: DType,
        zero_out: i64,
    ) -> Result<usize, Refusal> {
        let source = self.type_of(x);
        let wide = source != DType::Int48;
        let (mut multipliers, mut shifts) = (Vec::new(), Vec::new());
        for factor in factors {
            let (multiplier, shift) = multiplier(*factor, wide)?;
            multipliers.push(i64::from(multiplier));
            shifts.push(i64::from(shift));
        }
        let inputs = [
            x,
            self.integers(if wide { DType::Int32 } else { DType::Int16 }, &multipliers),
            self.integers(DType::Int8, &shifts),
            self.integers(source, &[zero_in]),
            self.integers(target, &[zero_out]),
        ];
        let attribute = Attribute::Rescale {
            scale32: wide,
            rounding: Rounding::Single,
            per_channel: factors.len() > 1,
        };
        let shape = self.shape_of(x);
        Ok(self.op(Op::Rescale, attribute, &inputs, target, &shape))
    }

    /// A value in 32 bits: without its zero point, times a factor.
    ///
    /// # Errors
    /// As [`Builder::read`] and [`Builder::rescale`].
    pub fn widened(&mut self, value: ValueIndex, factor: f64) -> Result<usize, Refusal> {
        let zero = self.scale(value)?.zero_point;
        let x = self.read(value)?;
        self.rescale(x, &[factor], zero, DType::Int32, 0)
    }

    /// Sums become a value: rescaled, and limited to what its range leaves.
    ///
    /// # Errors
    /// As [`Builder::rescale`].
    pub fn finish_sums(&mut self, value: ValueIndex, sums: usize, factors: &[f64]) -> Result<(), Refusal> {
        let (dtype, zero) = (self.dtype(value)?, self.scale(value)?.zero_point);
        let result = self.rescale(sums, factors, 0, dtype, zero)?;
        self.finish_plain(value, result)
    }

    /// Integers of the value's own scale become the value.
    ///
    /// # Errors
    /// Another type, or another number of elements.
    pub fn finish_plain(&mut self, value: ValueIndex, tensor: usize) -> Result<(), Refusal> {
        let (dtype, scale, shape) = (self.dtype(value)?, self.scale(value)?, self.dims(value)?);
        if self.type_of(tensor) != dtype {
            return Err(Refusal::dtype("operand and result are of different types"));
        }
        let mut tensor = self.reshaped(tensor, &shape)?;
        let whole = if dtype == DType::Int8 {
            (-128, 127)
        } else {
            (-32768, 32767)
        };
        if scale.low > whole.0 || scale.high < whole.1 {
            let bytes = |v: i64| v.clamp(whole.0, whole.1).to_le_bytes()[..dtype.size()].to_vec();
            let attribute = Attribute::Clamp {
                low: bytes(scale.low),
                high: bytes(scale.high),
            };
            tensor = self.op(Op::Clamp, attribute, &[tensor], dtype, &shape);
        }
        self.values.insert(value, tensor);
        Ok(())
    }

    /// The same elements under other sizes.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshaped(&mut self, tensor: usize, shape: &[i32]) -> Result<usize, Refusal> {
        let own = self.shape_of(tensor);
        if own == shape {
            return Ok(tensor);
        }
        let count = |shape: &[i32]| shape.iter().map(|d| i64::from(*d)).product::<i64>();
        if count(&own) != count(shape) {
            return Err(Refusal::shape(format!("{own:?} does not become {shape:?}")));
        }
        let wanted = self.shape(shape);
        let dtype = self.type_of(tensor);
        Ok(self.op(Op::Reshape, Attribute::Plain, &[tensor, wanted], dtype, shape))
    }

    /// The operator that made a tensor.
    fn maker(&self, tensor: usize) -> Option<&Operator> {
        let mut operators = self.graph.operators.iter().rev();
        operators.find(|operator| operator.outputs.contains(&tensor))
    }

    /// The dimensions in another order; of two orders one after the other, one is made.
    pub fn transposed(&mut self, tensor: usize, order: &[usize]) -> usize {
        let (mut source, mut whole) = (tensor, order.to_vec());
        if let Some(maker) = self.maker(tensor)
            && let Attribute::Transpose(first) = &maker.attribute
        {
            whole = order.iter().map(|at| first[*at] as usize).collect();
            source = maker.inputs[0];
        }
        if whole.iter().enumerate().all(|(i, at)| i == *at) {
            return source;
        }
        let (dtype, own) = (self.type_of(source), self.shape_of(source));
        let shape: Vec<i32> = whole.iter().map(|at| own[*at]).collect();
        let attribute = Attribute::Transpose(whole.iter().map(|at| *at as i32).collect());
        self.op(Op::Transpose, attribute, &[source], dtype, &shape)
    }

    /// A part of a tensor.
    pub fn sliced(&mut self, tensor: usize, start: &[i32], size: &[i32]) -> usize {
        if self.shape_of(tensor) == size {
            return tensor;
        }
        let dtype = self.type_of(tensor);
        let (start, sizes) = (self.shape(start), self.shape(size));
        self.op(Op::Slice, Attribute::Plain, &[tensor, start, sizes], dtype, size)
    }

    /// Tensors one behind the other along a dimension.
    pub fn joined(&mut self, tensors: &[usize], axis: usize) -> usize {
        let [first, rest @ ..] = tensors else {
            return 0;
        };
        let (dtype, mut shape) = (self.type_of(*first), self.shape_of(*first));
        if rest.is_empty() {
            return *first;
        }
        shape[axis] += rest
            .iter()
            .map(|tensor| self.graph.tensors[*tensor].shape[axis])
            .sum::<i32>();
        self.op(Op::Concat, Attribute::Axis(axis as i32), tensors, dtype, &shape)
    }

    /// A tensor repeated so many times along each dimension.
    pub fn tiled(&mut self, tensor: usize, times: &[i32]) -> usize {
        if times.iter().all(|n| *n == 1) {
            return tensor;
        }
        let own = self.shape_of(tensor);
        let shape: Vec<i32> = own.iter().zip(times).map(|(d, n)| d * n).collect();
        let (dtype, times) = (self.type_of(tensor), self.shape(times));
        self.op(Op::Tile, Attribute::Plain, &[tensor, times], dtype, &shape)
    }

    /// A sum over a dimension, of which one element is left.
    pub fn summed(&mut self, tensor: usize, axis: usize) -> usize {
        let mut shape = self.shape_of(tensor);
        shape[axis] = 1;
        self.op(
            Op::ReduceSum,
            Attribute::Axis(axis as i32),
            &[tensor],
            DType::Int32,
            &shape,
        )
    }

    /// An operator on two tensors of 32 bits and equal rank, with the sizes of the first.
    pub fn pair(&mut self, op: Op, a: usize, b: usize) -> usize {
        let shape = self.shape_of(a);
        self.op(op, Attribute::Plain, &[a, b], DType::Int32, &shape)
    }

    /// `a * b / 2^shift` in 32 bits, rounded, with the sizes of the first.
    pub fn product(&mut self, a: usize, b: usize, shift: u32) -> usize {
        let shape = self.shape_of(a);
        let shift = self.integers(DType::Int8, &[i64::from(shift)]);
        self.op(Op::Mul, Attribute::Plain, &[a, b, shift], DType::Int32, &shape)
    }

    /// A constant of 32 bits with as many dimensions as a tensor has.
    pub fn number(&mut self, rank: usize, value: i64) -> usize {
        self.constant(DType::Int32, &vec![1; rank], (value as i32).to_le_bytes().to_vec())
    }

    /// The numbers of a constant of floats; ones while a node is only asked about.
    ///
    /// # Errors
    /// It is no constant, or of other numbers.
    pub fn floats(&self, value: ValueIndex) -> Result<Vec<f64>, Refusal> {
        let view = self.image.value(value);
        match (view.source(), view.quant()) {
            (Source::Weight(index), None) => self.numbers(index),
            _ => Err(Refusal::attribute(format!("`{}` is no constant of floats", view.name()))),
        }
    }

    /// A value of floats is integers of 32 bits times a step: within the graph alone, until it is quantized.
    pub fn keep_fixed(&mut self, value: ValueIndex, tensor: usize, step: f64) {
        self.fixed.insert(value, (tensor, step));
    }

    /// The integers of a value of floats, and their step.
    pub fn fixed(&self, value: ValueIndex) -> Option<(usize, f64)> {
        self.fixed.get(&value).copied()
    }

    /// Whether a value was read or made.
    pub fn has(&self, value: ValueIndex) -> bool {
        self.values.contains_key(&value)
    }

    /// Ends the graph.
    ///
    /// # Errors
    /// An output that nobody made.
    pub fn finish(mut self, inputs: &[ValueIndex], outputs: &[ValueIndex]) -> Result<Graph, Refusal> {
        // Inputs in the order of the image.
        let mut given = Vec::new();
        for value in inputs {
            given.push(self.read(*value)?);
        }
        self.graph.inputs = given;
        for value in outputs {
            let tensor = *self
                .values
                .get(value)
                .ok_or_else(|| Refusal::from(Error::internal("an output that nobody made")))?;
            // Vela wants outputs that an operator of its own made.
            let is_taken = self.graph.inputs.contains(&tensor) || self.graph.outputs.contains(&tensor);
            let tensor = match is_taken || self.graph.tensors[tensor].data.is_some() {
                true => {
                    let (dtype, shape) = (self.type_of(tensor), self.shape_of(tensor));
                    self.op(Op::Identity, Attribute::Plain, &[tensor], dtype, &shape)
                }
                false => tensor,
            };
            self.graph.outputs.push(tensor);
        }
        self.prune();
        Ok(self.graph)
    }

    /// Leaves out operators and constants whose results nobody reads.
    fn prune(&mut self) {
        let mut read = vec![false; self.graph.tensors.len()];
        let ends = self.graph.inputs.iter().chain(&self.graph.outputs);
        ends.for_each(|tensor| read[*tensor] = true);
        let mut kept = Vec::with_capacity(self.graph.operators.len());
        for operator in std::mem::take(&mut self.graph.operators).into_iter().rev() {
            if operator.outputs.iter().any(|tensor| read[*tensor]) {
                operator.inputs.iter().for_each(|tensor| read[*tensor] = true);
                kept.push(operator);
            }
        }
        kept.reverse();
        self.graph.operators = kept;
        let mut place = vec![0; read.len()];
        let mut tensors = Vec::with_capacity(read.len());
        for (i, tensor) in std::mem::take(&mut self.graph.tensors).into_iter().enumerate() {
            if read[i] {
                place[i] = tensors.len();
                tensors.push(tensor);
            }
        }
        self.graph.tensors = tensors;
        let graph = &mut self.graph;
        let all = graph.operators.iter_mut().flat_map(|o| o.inputs.iter_mut().chain(&mut o.outputs));
        all.chain(&mut graph.inputs)
            .chain(&mut graph.outputs)
            .for_each(|tensor| *tensor = place[*tensor]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_become_multipliers() {
        for factor in [1.0, 0.5, 0.3, 0.999_999_999_99, 1e-6, 300.0] {
            let (multiplier, shift) = multiplier(factor, true).unwrap();
            assert!((1 << 30..=i32::MAX).contains(&multiplier), "{factor}");
            let back = f64::from(multiplier) / 2f64.powi(i32::from(shift));
            assert!((back / factor - 1.0).abs() < 1e-9, "{factor}: {back}");
        }
        assert!(multiplier(0.0, true).is_err());
        assert!(multiplier(1e30, true).is_err());
    }
}
