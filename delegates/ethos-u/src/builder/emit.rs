//! TOSA's operators on tensors, one at a time.

use super::Builder;
use crate::caps::Refusal;
use crate::tosa::{Attribute, DType, Op, Operator, Rounding, Tensor};

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

impl Builder<'_> {
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
