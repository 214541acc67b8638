//! Makes a TOSA graph of a graph image in normal form 1 (channels last), node by node.
//!
//! Values are quantized per tensor in 8 or 16 bits. Sums are wide, and `RESCALE` brings them to the result's scale; what a folded activation leaves
//! of its range is a `CLAMP` behind that.

mod emit;

use crate::caps::Refusal;
use crate::target::Target;
use crate::tosa::{Attribute, DType, Graph, Op, Tensor};
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

    /// The numbers of a constant of floats; ones while a node is only asked about.
    ///
    /// # Errors
    /// It is no constant, or of other numbers.
    pub fn floats(&self, value: ValueIndex) -> Result<Vec<f64>, Refusal> {
        let view = self.image.value(value);
        match (view.source(), view.quant()) {
            (Source::Weight(index), None) => self.numbers(index),
            _ => Err(Refusal::attribute(format!(
                "`{}` is no constant of floats",
                view.name()
            ))),
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
        let all = graph
            .operators
            .iter_mut()
            .flat_map(|o| o.inputs.iter_mut().chain(&mut o.outputs));
        all.chain(&mut graph.inputs)
            .chain(&mut graph.outputs)
            .for_each(|tensor| *tensor = place[*tensor]);
    }
}
