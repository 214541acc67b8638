//! What the families share: operands, arithmetic on f16 tensors for operators that are made of several QNN nodes, quantized results of
//! them, and booleans where an operator of the library takes none.

use crate::builder::{Builder, Layout};
use crate::caps::Refusal;
use crate::graph::{DataType, Param, Quantization, ScaleOffset, TensorId};
use crate::node::Node;
use delegraph_sdk::DType;
use delegraph_sdk::image::ValueIndex;

/// What the elements of a value are to the operators here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// f32 or f16.
    Float,
    /// Quantized numbers of 8 bits.
    Fixed8,
    /// Quantized numbers of 16 bits.
    Fixed16,
    /// Integers of 8 or 16 bits that stand for themselves.
    Small,
    /// i32.
    Int,
    /// i64, which has 32 bits here: what does not fit is an error of the run, so numbers may be moved and compared, not computed.
    Index,
    /// bool.
    Bool,
}

impl Elements {
    /// Quantized numbers.
    pub fn is_fixed(self) -> bool {
        matches!(self, Elements::Fixed8 | Elements::Fixed16)
    }
}

/// What the elements of a value are.
///
/// # Errors
/// None of these.
pub fn elements(b: &Builder<'_>, value: ValueIndex) -> Result<Elements, Refusal> {
    let image = b.image();
    let view = image.value(value);
    let dtype = view.dtype().unwrap_or(DType::F32);
    Ok(match (view.quant().is_some(), dtype) {
        (false, DType::F32 | DType::F16) => Elements::Float,
        (true, DType::U8 | DType::I8) => Elements::Fixed8,
        (true, DType::U16 | DType::I16) => Elements::Fixed16,
        (false, DType::U8 | DType::I8 | DType::U16 | DType::I16) => Elements::Small,
        (false, DType::I32) => Elements::Int,
        (false, DType::I64) => Elements::Index,
        (false, DType::BOOL) => Elements::Bool,
        (quantized, dtype) => {
            let how = if quantized { "quantized as" } else { "of" };
            let name = view.name();
            return Err(Refusal::dtype(format!(
                "`{name}` is {how} {dtype}, which is not taken here"
            )));
        }
    })
}

/// An operand: a tensor, or the number that stands in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand {
    /// A tensor.
    Value(ValueIndex),
    /// A number.
    Number(f64),
}

impl Operand {
    /// The operand at an argument.
    ///
    /// # Errors
    /// It is neither.
    pub fn of(node: &Node<'_>, i: usize) -> Result<Operand, Refusal> {
        match node.view().arg(i).value() {
            Some(value) => Ok(Operand::Value(value)),
            None => Ok(Operand::Number(node.scalar(i)?.float())),
        }
    }

    /// The value, if it is one.
    pub fn value(self) -> Option<ValueIndex> {
        match self {
            Operand::Value(value) => Some(value),
            Operand::Number(_) => None,
        }
    }
}

/// The layout of a node on single elements of these operands.
///
/// # Errors
/// As [`Builder::elementwise_layout`].
pub fn layout(b: &Builder<'_>, operands: &[Operand], out: ValueIndex) -> Result<Layout, Refusal> {
    let values: Vec<ValueIndex> = operands.iter().filter_map(|operand| operand.value()).collect();
    b.elementwise_layout(&values, out)
}

/// Broadcast sizes of two tensors.
fn broadcast(x: &[u32], y: &[u32]) -> Vec<u32> {
    let rank = x.len().max(y.len());
    let size = |dims: &[u32], i: usize| match (i + dims.len()).checked_sub(rank) {
        Some(at) => dims[at],
        None => 1,
    };
    (0..rank).map(|i| size(x, i).max(size(y, i))).collect()
}

/// QNN nodes between tensors that no value of the image is.
pub trait Steps {
    /// A node of one input; the result is like it.
    fn unary(&mut self, op: &'static str, x: TensorId) -> TensorId;
    /// A node of two operands that are broadcast; the result is of the first one's type.
    fn binary(&mut self, op: &'static str, x: TensorId, y: TensorId) -> TensorId;
    /// The same with a number behind.
    ///
    /// # Errors
    /// The number does not fit.
    fn with(&mut self, op: &'static str, x: TensorId, y: f64) -> Result<TensorId, Refusal>;
    /// The same with a number before.
    ///
    /// # Errors
    /// The number does not fit.
    fn before(&mut self, op: &'static str, x: f64, y: TensorId) -> Result<TensorId, Refusal>;
    /// Truth of a comparison, or of two truths.
    fn truth(&mut self, op: &'static str, x: TensorId, y: TensorId) -> TensorId;
    /// Truth of a comparison with a number.
    ///
    /// # Errors
    /// The number does not fit.
    fn truth_with(&mut self, op: &'static str, x: TensorId, y: f64) -> Result<TensorId, Refusal>;
    /// The second where the first is true, else the third.
    fn choose(&mut self, which: TensorId, x: TensorId, y: TensorId) -> TensorId;
    /// Limited to a range.
    fn limited(&mut self, x: TensorId, low: f32, high: f32) -> TensorId;
    /// Other elements of the same sizes.
    fn cast(&mut self, op: &'static str, x: TensorId, data_type: DataType, quantization: Quantization) -> TensorId;
}

impl Steps for Builder<'_> {
    fn unary(&mut self, op: &'static str, x: TensorId) -> TensorId {
        let out = self.like(x);
        self.op(op, Vec::new(), &[x], &[out]);
        out
    }

    fn binary(&mut self, op: &'static str, x: TensorId, y: TensorId) -> TensorId {
        let (left, right) = (self.tensor(x).clone(), self.tensor(y));
        let dims = broadcast(&left.dims, &right.dims);
        let out = self.temporary(left.data_type, &dims, left.quantization);
        self.op(op, Vec::new(), &[x, y], &[out]);
        out
    }

    fn with(&mut self, op: &'static str, x: TensorId, y: f64) -> Result<TensorId, Refusal> {
        let y = self.number(y, x)?;
        Ok(self.binary(op, x, y))
    }

    fn before(&mut self, op: &'static str, x: f64, y: TensorId) -> Result<TensorId, Refusal> {
        let x = self.number(x, y)?;
        Ok(self.binary(op, x, y))
    }

    fn truth(&mut self, op: &'static str, x: TensorId, y: TensorId) -> TensorId {
        let dims = broadcast(&self.tensor(x).dims, &self.tensor(y).dims);
        let out = self.temporary(DataType::Bool, &dims, Quantization::None);
        self.op(op, Vec::new(), &[x, y], &[out]);
        out
    }

    fn truth_with(&mut self, op: &'static str, x: TensorId, y: f64) -> Result<TensorId, Refusal> {
        let y = number_in(self, y, x)?;
        Ok(self.truth(op, x, y))
    }

    fn choose(&mut self, which: TensorId, x: TensorId, y: TensorId) -> TensorId {
        let (left, right) = (self.tensor(x).clone(), self.tensor(y));
        let dims = broadcast(&broadcast(&left.dims, &right.dims), &self.tensor(which).dims);
        let out = self.temporary(left.data_type, &dims, left.quantization);
        self.op("ElementWiseSelect", Vec::new(), &[which, x, y], &[out]);
        out
    }

    fn limited(&mut self, x: TensorId, low: f32, high: f32) -> TensorId {
        let out = self.like(x);
        self.op("ReluMinMax", limits(low, high), &[x], &[out]);
        out
    }

    fn cast(&mut self, op: &'static str, x: TensorId, data_type: DataType, quantization: Quantization) -> TensorId {
        let dims = self.tensor(x).dims.clone();
        let out = self.temporary(data_type, &dims, quantization);
        self.op(op, Vec::new(), &[x], &[out]);
        out
    }
}

/// Parameters of `ReluMinMax`.
pub fn limits(low: f32, high: f32) -> Vec<(&'static str, Param)> {
    vec![("min_value", Param::F32(low)), ("max_value", Param::F32(high))]
}

/// A constant of one element of the type and the scale of `like`, for operators that select or move.
///
/// # Errors
/// The type does not hold it.
pub fn number_in(b: &mut Builder<'_>, number: f64, like: TensorId) -> Result<TensorId, Refusal> {
    let tensor = b.tensor(like);
    let (data_type, quantization) = (tensor.data_type, tensor.quantization.clone());
    let Quantization::PerTensor(pair) = quantization else {
        return b.number(number, like);
    };
    let q = integer_in(number, data_type, pair)?;
    Ok(b.fixed(
        data_type,
        &[1],
        quantization,
        q.to_le_bytes()[..data_type.size()].to_vec(),
    ))
}

/// The integer nearest to a number among those of the type.
pub fn nearest_in(number: f64, data_type: DataType, pair: ScaleOffset) -> u16 {
    let most = if data_type == DataType::UFixed8 { 255.0 } else { 65535.0 };
    let q = (number / f64::from(pair.scale)).round_ties_even() - f64::from(pair.offset);
    q.clamp(0.0, most) as u16
}

/// The integer that stands for a number.
///
/// # Errors
/// There is none.
pub fn integer_in(number: f64, data_type: DataType, pair: ScaleOffset) -> Result<i32, Refusal> {
    let most = match data_type {
        DataType::UFixed8 => 255.0,
        DataType::UFixed16 => 65535.0,
        _ => return Err(Refusal::dtype(format!("a number beside {data_type}"))),
    };
    let q = (number / f64::from(pair.scale)).round_ties_even() - f64::from(pair.offset);
    match number.is_finite() && (0.0..=most).contains(&q) {
        true => Ok(q as i32),
        false => Err(Refusal::attribute(format!(
            "{number} is beyond the numbers that the integers stand for"
        ))),
    }
}

/// A value as f16 for arithmetic of several steps. Quantized numbers of 16 bits are more exact than that, and refused.
///
/// # Errors
/// Its elements are integers or of 16 quantized bits.
pub fn floats(b: &mut Builder<'_>, value: ValueIndex, rank: usize, layout: Layout) -> Result<TensorId, Refusal> {
    let kind = elements(b, value)?;
    let x = b.read_broadcast(value, rank, layout)?;
    as_float(b, x, kind)
}

/// A tensor as f16.
///
/// # Errors
/// As [`floats`].
pub fn as_float(b: &mut Builder<'_>, x: TensorId, kind: Elements) -> Result<TensorId, Refusal> {
    match kind {
        Elements::Float => Ok(x),
        Elements::Fixed8 => Ok(b.cast("Dequantize", x, DataType::Float16, Quantization::None)),
        Elements::Bool => Ok(b.cast("Cast", x, DataType::Float16, Quantization::None)),
        Elements::Small if b.tensor(x).data_type.size() == 1 => {
            Ok(b.cast("Dequantize", x, DataType::Float16, Quantization::None))
        }
        Elements::Fixed16 => Err(Refusal::quantization(
            "16 bits are more than f16 arithmetic is exact to",
        )),
        _ => Err(Refusal::dtype("integers that f16 does not hold beside floats")),
    }
}

/// Gives a result that was computed in f16.
///
/// # Errors
/// The value is neither a float nor quantized in 8 bits.
pub fn give(b: &mut Builder<'_>, result: TensorId, out: ValueIndex, layout: Layout) -> Result<(), Refusal> {
    match elements(b, out)? {
        Elements::Float => {
            let dims = b.arranged_dims(out, layout)?;
            let result = b.reshaped(result, &dims)?;
            b.bind(out, layout, result);
            Ok(())
        }
        Elements::Fixed8 => {
            let quantized = b.write(out, layout)?;
            quantized_as(b, result, quantized);
            Ok(())
        }
        Elements::Fixed16 => Err(Refusal::quantization(
            "16 bits are more than f16 arithmetic is exact to",
        )),
        _ => Err(Refusal::dtype("an integer result of float arithmetic")),
    }
}

/// Quantizes f16. To 8 bits it is by 16 of them: the library rounds f16 to 8 bits wrongly for one in thirty elements and more.
pub fn quantized_as(b: &mut Builder<'_>, x: TensorId, quantized: TensorId) {
    let Quantization::PerTensor(pair) = b.tensor(quantized).quantization else {
        return b.op("Quantize", Vec::new(), &[x], &[quantized]);
    };
    if b.tensor(quantized).data_type != DataType::UFixed8 {
        return b.op("Quantize", Vec::new(), &[x], &[quantized]);
    }
    let fine = ScaleOffset {
        scale: pair.scale / 256.0,
        offset: pair.offset * 256,
    };
    let wide = b.cast("Quantize", x, DataType::UFixed16, Quantization::PerTensor(fine));
    b.op("Convert", Vec::new(), &[wide], &[quantized]);
}

/// Gives a tensor as a value that has the same elements: no node where nothing is to be done.
///
/// # Errors
/// The value is of another type.
pub fn same(b: &mut Builder<'_>, tensor: TensorId, out: ValueIndex, layout: Layout) -> Result<(), Refusal> {
    let have = b.tensor(tensor);
    let (data_type, quantization) = b.representation(out)?;
    if data_type != have.data_type {
        return Err(Refusal::dtype(format!(
            "{} does not become {data_type} by moving",
            have.data_type
        )));
    }
    let dims = b.arranged_dims(out, layout)?;
    let tensor = b.reshaped(tensor, &dims)?;
    if quantization == b.tensor(tensor).quantization && !b.is_narrowed(out) {
        b.bind(out, layout, tensor);
        return Ok(());
    }
    let written = b.write(out, layout)?;
    b.op("Convert", Vec::new(), &[tensor], &[written]);
    Ok(())
}

/// Bytes that stand for themselves, which a boolean is to operators that take none.
pub fn bytes_of(b: &mut Builder<'_>, x: TensorId) -> TensorId {
    match b.tensor(x).data_type {
        DataType::Bool => b.cast("Cast", x, DataType::UFixed8, plain()),
        _ => x,
    }
}

/// Scale 1, zero point 0.
pub fn plain() -> Quantization {
    Quantization::PerTensor(ScaleOffset { scale: 1.0, offset: 0 })
}

/// Moves elements: `make` writes the result of a tensor that the library's moving operators take, which booleans are bytes to.
///
/// # Errors
/// Those of `make`, and of the types.
pub fn moved(
    b: &mut Builder<'_>,
    inputs: &[TensorId],
    out: ValueIndex,
    layout: Layout,
    make: impl FnOnce(&mut Builder<'_>, &[TensorId], TensorId) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (data_type, quantization) = b.representation(out)?;
    let mut taken = Vec::with_capacity(inputs.len());
    for input in inputs {
        let have = b.tensor(*input);
        if have.data_type != data_type {
            return Err(Refusal::dtype(format!("{} among {data_type}", have.data_type)));
        }
        let scales_differ = have.quantization != quantization;
        taken.push(match scales_differ {
            true => b.cast("Convert", *input, data_type, quantization.clone()),
            false => bytes_of(b, *input),
        });
    }
    if data_type != DataType::Bool {
        let written = b.write(out, layout)?;
        return make(b, &taken, written);
    }
    let dims = b.arranged_dims(out, layout)?;
    let bytes = b.temporary(DataType::UFixed8, &dims, plain());
    make(b, &taken, bytes)?;
    let written = b.write(out, layout)?;
    b.op("Cast", Vec::new(), &[bytes], &[written]);
    Ok(())
}
