//! Quantized types: what integers stand for, and back.
//!
//! An operator on quantized tensors is the operator on the numbers that they stand for: what it reads is dequantized, it computes
//! in `f64` as always, its result is rounded to f32 as that of any operator on f32 would be, and then quantized. The arithmetic
//! of both steps is that of the explicit operators ([`crate::ops::quantized`]), so that folding them into types changes nothing.

use crate::caps::Refusal;
use crate::execute::WeightBytes;
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::to_sizes;
use delegraph_sdk::image::{ImageView, NodeView, Quant, ValueIndex, WeightIndex};
use delegraph_sdk::{DType, Error, Reason};

/// True for the operators that quantize and dequantize by numbers among their arguments. To them, integers are integers: the
/// types say the same once more.
pub fn is_explicit(node: &NodeView<'_>) -> bool {
    node.op().starts_with("quantized_decomposed::")
}

/// Element type that a node computes with: that of the numbers, where a type is quantized.
pub fn real_dtype(node: &NodeView<'_>, index: ValueIndex) -> Option<DType> {
    let value = node.image().value(index);
    match value.quant() {
        Some(_) if !is_explicit(node) => Some(DType::F32),
        _ => value.dtype(),
    }
}

/// Whether a quantized type is one that is computed with.
///
/// # Errors
/// Why it is not.
pub fn accept(image: &ImageView<'_>, index: ValueIndex) -> Result<(), Refusal> {
    let value = image.value(index);
    let refuse = |text: String| {
        Err(Refusal {
            reason: Reason::QUANTIZATION,
            text,
        })
    };
    match value.dtype() {
        Some(DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32) => {}
        _ => {
            return refuse(format!(
                "`{}` is quantized to no integer of up to 32 bits",
                value.name()
            ));
        }
    }
    let Some(
        Quant::PerAxis {
            scales, zero_points, ..
        }
        | Quant::PerBlock {
            scales, zero_points, ..
        },
    ) = value.quant()
    else {
        return Ok(());
    };
    let dtype = |weight: WeightIndex| image.weight(weight).dtype();
    if !matches!(dtype(scales), DType::F32 | DType::F64) {
        return refuse(format!("the scales of `{}` are {}", value.name(), dtype(scales)));
    }
    match zero_points.map(dtype) {
        None | Some(DType::I8 | DType::U8 | DType::I16 | DType::I32 | DType::I64) => Ok(()),
        Some(other) => refuse(format!("the zero points of `{}` are {other}", value.name())),
    }
}

/// The numbers of a quantized type.
struct Parameters {
    scales: Vec<f64>,
    zero_points: Vec<f64>,
    /// For each dimension, how many elements have the same scale, and how far the scales are apart.
    steps: Vec<(usize, usize)>,
    low: i64,
    high: i64,
}

impl Parameters {
    fn read(
        image: &ImageView<'_>,
        index: ValueIndex,
        sizes: &[usize],
        weights: &dyn WeightBytes,
    ) -> Result<Parameters, Error> {
        let quant = image.value(index).quant();
        let quant = quant.ok_or_else(|| Error::internal("a value is not quantized"))?;
        let tensor = |index: WeightIndex| {
            let weight = image.weight(index);
            let sizes = to_sizes(&weight.sizes().collect::<Vec<i64>>())?;
            Tensor::from_bytes(weight.dtype(), sizes, weights.bytes(weight.id())?)
        };
        let (blocks, scales, zero_points, low, high) = match quant {
            Quant::PerTensor {
                scale,
                zero_point,
                quant_min,
                quant_max,
            } => {
                return Ok(Parameters {
                    scales: vec![scale],
                    zero_points: vec![zero_point as f64],
                    steps: vec![(1, 0); sizes.len()],
                    low: quant_min,
                    high: quant_max,
                });
            }
            Quant::PerAxis {
                axis,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                let mut blocks = sizes.to_vec();
                *blocks
                    .get_mut(axis as usize)
                    .ok_or_else(|| Error::invalid("there is no such axis"))? = 1;
                (blocks, scales, zero_points, quant_min, quant_max)
            }
            Quant::PerBlock {
                block,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                let blocks = block.iter().map(|b| *b as usize).collect();
                (blocks, scales, zero_points, quant_min, quant_max)
            }
        };
        let mut counts = Vec::with_capacity(sizes.len());
        for (size, block) in sizes.iter().zip(&blocks) {
            // A dimension of no elements has no scales, and nobody asks for them.
            let block = (*block).max(1);
            if size % block != 0 {
                return Err(Error::invalid(format!("{size} elements are not blocks of {block}")));
            }
            counts.push(size / block);
        }
        let wanted = count(&counts)?;
        let scales = tensor(scales)?.to_floats();
        let zero_points = match zero_points {
            Some(index) => tensor(index)?.to_floats(),
            None => vec![0.0; scales.len()],
        };
        if scales.len() != wanted || zero_points.len() != wanted {
            let (scales, zeros) = (scales.len(), zero_points.len());
            return Err(Error::invalid(format!(
                "{scales} scales and {zeros} zero points for {wanted} blocks"
            )));
        }
        let mut steps = vec![(1, 0); sizes.len()];
        let mut apart = 1;
        for ((step, block), count) in steps.iter_mut().zip(&blocks).zip(&counts).rev() {
            *step = ((*block).max(1), apart);
            apart *= count;
        }
        Ok(Parameters {
            scales,
            zero_points,
            steps,
            low,
            high,
        })
    }

    /// Calls `make` with each element's position, scale and zero point.
    fn each<T>(&self, sizes: &[usize], mut make: impl FnMut(usize, f64, f64) -> T) -> Result<Vec<T>, Error> {
        let items = count(sizes)?;
        let mut made = room(items)?;
        let mut at = vec![0usize; sizes.len()];
        for i in 0..items {
            let which: usize = at
                .iter()
                .zip(&self.steps)
                .map(|(i, (block, apart))| i / block * apart)
                .sum();
            made.push(make(i, self.scales[which], self.zero_points[which]));
            for (at, size) in at.iter_mut().zip(sizes).rev() {
                *at += 1;
                if *at < *size {
                    break;
                }
                *at = 0;
            }
        }
        Ok(made)
    }
}

/// The numbers that a tensor of a quantized type stands for, in f32.
///
/// # Errors
/// Scales that do not fit the tensor.
pub fn dequantize(
    image: &ImageView<'_>,
    index: ValueIndex,
    tensor: &Tensor,
    weights: &dyn WeightBytes,
) -> Result<Tensor, Error> {
    let sizes = tensor.sizes().to_vec();
    let parameters = Parameters::read(image, index, &sizes, weights)?;
    let values = tensor.ints()?;
    let numbers = parameters.each(&sizes, |i, scale, zero| {
        (values[i] as f64 - zero) * f64::from(scale as f32)
    })?;
    Tensor::new(DType::F32, sizes, Data::Float(numbers))
}

/// The integers that stand for numbers, in the type of a value: halves go to even, and what lies beyond `quant_min` and
/// `quant_max` becomes these.
///
/// # Errors
/// Scales that do not fit the tensor.
pub fn quantize(
    image: &ImageView<'_>,
    index: ValueIndex,
    tensor: &Tensor,
    weights: &dyn WeightBytes,
) -> Result<Tensor, Error> {
    let sizes = tensor.sizes().to_vec();
    let parameters = Parameters::read(image, index, &sizes, weights)?;
    let (low, high) = (parameters.low as f32, parameters.high as f32);
    if low > high {
        return Err(Error::invalid("a quantized type without integers"));
    }
    let values = tensor.floats()?;
    let integers = parameters.each(&sizes, |i, scale, zero| {
        let steps = (values[i] as f32) * ((1.0 / scale) as f32);
        (steps.round_ties_even() + zero as f32).clamp(low, high) as i64
    })?;
    let dtype = image.value(index).dtype();
    let dtype = dtype.ok_or_else(|| Error::internal("a quantized value is no tensor"))?;
    Tensor::new(dtype, sizes, Data::Int(integers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps;
    use crate::execute::Program;
    use delegraph_sdk::TensorView;
    use delegraph_sdk::image::{Arg, ImageBuilder, NodeIndex, Type, verify};

    struct Stored(Vec<Vec<u8>>);

    impl WeightBytes for Stored {
        fn bytes(&self, id: u32) -> Result<&[u8], Error> {
            Ok(&self.0[id as usize])
        }
    }

    fn tensor(scale: f64, zero_point: i64, quant_min: i64) -> Quant {
        Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max: 127,
        }
    }

    fn ty(image: &mut ImageBuilder, dtype: DType, sizes: &[i64], quant: Option<Quant>) -> Type {
        Type::Tensor {
            dtype,
            dims: sizes.iter().map(|s| image.int(*s)).collect(),
            quant,
        }
    }

    #[test]
    fn a_layer_with_a_scale_a_channel_and_a_limit() {
        let mut image = ImageBuilder::new("g");
        let x = ty(&mut image, DType::I8, &[1, 2], Some(tensor(0.5, 1, -128)));
        let x = image.input("x", &x);
        let scales = image.weight(1, DType::F32, &[2]);
        let quant = Quant::PerAxis {
            axis: 0,
            scales,
            zero_points: None,
            quant_min: -128,
            quant_max: 127,
        };
        let w = ty(&mut image, DType::I8, &[2, 2], Some(quant));
        let stored = image.weight(0, DType::I8, &[2, 2]);
        let w = image.weight_value("w", &w, stored);
        // The zero point is the smallest integer: a relu.
        let y = ty(&mut image, DType::I8, &[1, 2], Some(tensor(0.25, -3, -3)));
        let y = image.node(
            "linear",
            "aten::linear",
            &[Arg::Value(x), Arg::Value(w), Arg::None],
            &[("y", &y)],
            "",
        )[0];
        image.output(y);
        let bytes = image.finish().unwrap();
        let weights = Stored(vec![
            vec![1, 2, 255, 254],
            [1f32, 0.5].iter().flat_map(|s| s.to_le_bytes()).collect(),
        ]);
        let input = TensorView::new(DType::I8, &[1, 2], &[3, 4]);
        let made = Program::new(&bytes).unwrap().run(&[input], &weights).unwrap();
        // x = [1, 1.5]; w = [[1, 2], [-0.5, -1]]; y = [4, -2].
        assert_eq!(made[0].ints().unwrap(), [13, -3]);
    }

    #[test]
    fn blocks_in_both_dimensions() {
        let mut image = ImageBuilder::new("g");
        let scales = image.weight(0, DType::F32, &[2, 2]);
        let zeros = image.weight(1, DType::I8, &[2, 2]);
        let quant = Quant::PerBlock {
            block: vec![1, 2],
            scales,
            zero_points: Some(zeros),
            quant_min: -8,
            quant_max: 7,
        };
        let x = ty(&mut image, DType::I8, &[2, 4], Some(quant));
        let x = image.input("x", &x);
        image.output(x);
        let bytes = image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let scales = [1f32, 2.0, 4.0, 8.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        let weights = Stored(vec![scales, vec![0, 1, 0, 0]]);
        let tensor = Tensor::new(DType::I8, vec![2, 4], Data::Int(vec![1, 2, 3, 4, 5, 6, 7, -8])).unwrap();
        let numbers = dequantize(&view, ValueIndex(0), &tensor, &weights).unwrap();
        assert_eq!(numbers.floats().unwrap(), [1.0, 2.0, 4.0, 6.0, 20.0, 24.0, 56.0, -64.0]);
        let back = quantize(&view, ValueIndex(0), &numbers, &weights).unwrap();
        assert_eq!(back, tensor);
    }

    #[test]
    fn halves_go_to_even_and_the_rest_to_the_limits() {
        let mut image = ImageBuilder::new("g");
        let x = ty(
            &mut image,
            DType::U8,
            &[4],
            Some(Quant::PerTensor {
                scale: 1.0,
                zero_point: 10,
                quant_min: 0,
                quant_max: 12,
            }),
        );
        let x = image.input("x", &x);
        image.output(x);
        let bytes = image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let numbers = Tensor::new(DType::F32, vec![4], Data::Float(vec![0.5, 1.5, 99.0, -11.0])).unwrap();
        let made = quantize(&view, ValueIndex(0), &numbers, &Stored(vec![])).unwrap();
        assert_eq!(made.ints().unwrap(), [10, 12, 12, 0]);
    }

    #[test]
    fn scales_of_another_type_are_refused() {
        let mut image = ImageBuilder::new("g");
        let scales = image.weight(0, DType::F16, &[2]);
        let quant = Quant::PerAxis {
            axis: 0,
            scales,
            zero_points: None,
            quant_min: -128,
            quant_max: 127,
        };
        let x = ty(&mut image, DType::I8, &[2], Some(quant));
        let x = image.input("x", &x);
        let y = ty(&mut image, DType::F32, &[2], None);
        let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &y)], "")[0];
        image.output(y);
        let bytes = image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let Err(refusal) = caps::accept(&view.node(NodeIndex(0))) else {
            panic!("it is taken")
        };
        assert_eq!(refusal.reason, Reason::QUANTIZATION);
    }
}
