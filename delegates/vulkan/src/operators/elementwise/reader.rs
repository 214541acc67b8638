//! The arguments of a node, read as operands of a chain.

use crate::caps::Refusal;
use crate::chain::{Chain, Class, Link, Op, Operand};
use crate::node::Scalar;
use delegraph_sdk::DType;
use delegraph_sdk::image::{ArgView, Expr, ExprIndex, NodeView, Number, Sizes, ValueIndex, ValueView};

/// A node, and sizes where they are known.
pub(crate) struct Reader<'a> {
    node: NodeView<'a>,
    sizes: Option<&'a Sizes>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: NodeView<'a>, sizes: Option<&'a Sizes>) -> Reader<'a> {
        Reader { node, sizes }
    }

    pub(crate) fn op(&self) -> &'a str {
        self.node.op()
    }

    pub(crate) fn arg(&self, i: usize) -> ArgView<'a> {
        self.node.arg(i)
    }

    pub(crate) fn is_none(&self, i: usize) -> bool {
        self.node.arg(i).is_none()
    }

    fn misfit(&self, i: usize, wanted: &str) -> Refusal {
        let (op, have) = (self.op(), self.arg(i));
        Refusal::attribute(format!("argument {i} of `{op}` is `{have:?}`, not {wanted}"))
    }

    fn expr(&self, expr: ExprIndex) -> Result<Scalar, Refusal> {
        match (self.sizes, self.node.image().expr(expr)) {
            (_, Expr::Int(i)) => Ok(Scalar::Int(i)),
            (_, Expr::Float(f)) => Ok(Scalar::Float(f)),
            // Stands for what will be known.
            (None, _) => Ok(Scalar::Int(0)),
            (Some(sizes), _) => match sizes.number(expr) {
                Some(Number::Int(i)) => Ok(Scalar::Int(i)),
                Some(Number::Float(f)) => Ok(Scalar::Float(f)),
                None => Err(Refusal::shape("a size is not known from the sizes of the inputs")),
            },
        }
    }

    /// True where a number depends on sizes that are not known yet: it reads as 0.
    pub(crate) fn is_unknown(&self, i: usize) -> bool {
        matches!(self.arg(i), ArgView::Expr(_)) && self.sizes.is_none()
    }

    /// A number.
    pub(crate) fn number(&self, i: usize) -> Result<Scalar, Refusal> {
        match self.arg(i) {
            ArgView::Int(value) => Ok(Scalar::Int(value)),
            ArgView::Float(value) => Ok(Scalar::Float(value)),
            ArgView::Bool(value) => Ok(Scalar::Bool(value)),
            ArgView::Expr(expr) => self.expr(expr),
            _ => Err(self.misfit(i, "a number")),
        }
    }

    /// A number, or what stands for `None`.
    pub(crate) fn number_or(&self, i: usize, default: f64) -> Result<f64, Refusal> {
        match self.is_none(i) {
            true => Ok(default),
            false => self.number(i).map(Scalar::float),
        }
    }

    /// The value of a tensor.
    pub(crate) fn value(&self, i: usize) -> Result<ValueIndex, Refusal> {
        self.arg(i).value().ok_or_else(|| self.misfit(i, "a tensor"))
    }

    /// What is known of a tensor.
    pub(crate) fn view(&self, i: usize) -> Result<ValueView<'a>, Refusal> {
        Ok(self.node.image().value(self.value(i)?))
    }

    /// The element type of a tensor.
    pub(crate) fn dtype(&self, i: usize) -> Result<DType, Refusal> {
        let dtype = self.view(i)?.dtype();
        dtype.ok_or_else(|| self.misfit(i, "a tensor"))
    }

    /// The element type of the output.
    pub(crate) fn out(&self) -> Result<DType, Refusal> {
        let value = self
            .node
            .outputs()
            .get(0)
            .and_then(|v| self.node.image().value(v).dtype());
        value.ok_or_else(|| Refusal::dtype(format!("`{}` has no output", self.op())))
    }

    /// A tensor.
    pub(crate) fn tensor(&self, i: usize) -> Result<Operand, Refusal> {
        self.value(i).map(Operand::Value)
    }

    /// A tensor, or a number in its place, as a dtype has it: integers wrap, floats stay as they are.
    pub(crate) fn operand(&self, i: usize, dtype: DType) -> Result<Operand, Refusal> {
        match self.arg(i) {
            ArgView::Value(value) => Ok(Operand::Value(value)),
            _ => Ok(Operand::Number(wrapped(self.number(i)?, dtype))),
        }
    }

    /// As [`Reader::operand`], with floats rounded to the dtype: for functions with jumps.
    pub(crate) fn rounded(&self, i: usize, dtype: DType) -> Result<Operand, Refusal> {
        match self.operand(i, dtype)? {
            Operand::Number(number) if dtype.is_float() => {
                Ok(Operand::Number(Scalar::Float(round(number.float(), dtype))))
            }
            Operand::Value(value) if self.is_narrowed(value, dtype) => Err(Refusal::dtype(format!(
                "`{}` narrows a tensor to {dtype} before it compares or divides",
                self.op()
            ))),
            operand => Ok(operand),
        }
    }

    /// An operation with jumps on arguments 0 and 1, each first made what the dtype makes of it.
    pub(crate) fn pair(&self, dtype: DType, op: Op) -> Result<Chain, Refusal> {
        let narrowed = |i| self.arg(i).value().is_some_and(|value| self.is_narrowed(value, dtype));
        let operand = |i| match narrowed(i) {
            true => self.tensor(i),
            false => self.rounded(i, dtype),
        };
        // Only what is loaded can be rounded: where that is argument 1, the operation is mirrored.
        let (first, second, op) = match (narrowed(1), op.mirrored()) {
            (true, Some(mirrored)) if !narrowed(0) => (1, 0, mirrored),
            _ => (0, 1, op),
        };
        let mut links = vec![Link::of(Op::Load, operand(first)?)];
        if narrowed(first) {
            links.extend(Link::rounding(dtype));
        }
        links.push(Link::of(op, self.rounded(second, dtype)?));
        Ok(Chain { dtype, links })
    }

    /// A bound: integers beyond the dtype bound nothing, and do not wrap.
    pub(crate) fn bound(&self, i: usize, dtype: DType) -> Result<Operand, Refusal> {
        match (self.arg(i), Class::of(dtype)) {
            (ArgView::Value(_), _) | (_, Some(Class::Float)) => self.rounded(i, dtype),
            (_, Some(Class::Int)) => {
                let held = self.number(i)?.int().clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                Ok(Operand::Number(Scalar::Int(held)))
            }
            _ => self.operand(i, dtype),
        }
    }

    /// True where a conversion to the dtype loses something.
    fn is_narrowed(&self, value: ValueIndex, dtype: DType) -> bool {
        let have = self.node.image().value(value).dtype();
        // The low word is what is loaded of 64 bits, which is what a conversion to 32 gives.
        if (have, dtype) == (Some(DType::I64), DType::I32) {
            return false;
        }
        have.is_some_and(|have| category(have) == category(dtype) && promoted(have, dtype) != dtype)
    }

    /// A chain that loads argument 0.
    pub(crate) fn load(&self, dtype: DType) -> Result<Chain, Refusal> {
        let links = vec![Link::of(Op::Load, self.operand(0, dtype)?)];
        Ok(Chain { dtype, links })
    }

    /// The operands are of a float type, and so is the output.
    pub(crate) fn floats(&self) -> Result<DType, Refusal> {
        let dtype = self.out()?;
        match Class::of(dtype) {
            Some(Class::Float) => Ok(dtype),
            _ => Err(Refusal::dtype(format!("`{}` is not computed in {dtype}", self.op()))),
        }
    }

    /// The dtype of the output, which is not bool.
    pub(crate) fn no_bool(&self) -> Result<DType, Refusal> {
        match self.out()? {
            DType::BOOL => Err(Refusal::dtype(format!("`{}` does not take bool", self.op()))),
            dtype => Ok(dtype),
        }
    }

    /// The dtype that arguments have together: tensors with dimensions decide, then those without, then numbers; the latter only raise the category.
    pub(crate) fn common(&self, arguments: &[usize]) -> Result<DType, Refusal> {
        let mut classes = [None, None, None];
        for i in arguments {
            let (class, dtype) = match self.arg(*i) {
                ArgView::Value(_) if self.view(*i)?.rank() > 0 => (0, self.dtype(*i)?),
                ArgView::Value(_) => (1, self.dtype(*i)?),
                _ => match self.number(*i)? {
                    Scalar::Bool(_) => (2, DType::BOOL),
                    Scalar::Int(_) => (2, DType::I64),
                    Scalar::Float(_) => (2, DType::F32),
                },
            };
            classes[class] = Some(classes[class].map_or(dtype, |have| promoted(have, dtype)));
        }
        let higher = |a: DType, b: DType| if category(b) > category(a) { b } else { a };
        let all = classes.into_iter().flatten().reduce(higher);
        all.ok_or_else(|| Refusal::attribute(format!("`{}` has no operands", self.op())))
    }
}

/// bool, integers, floats.
fn category(dtype: DType) -> u8 {
    match dtype {
        DType::BOOL => 0,
        dtype if dtype.is_float() => 2,
        _ => 1,
    }
}

/// The dtype of two tensors together.
pub(crate) fn promoted(a: DType, b: DType) -> DType {
    if a == b || category(a) > category(b) {
        return a;
    }
    if category(b) > category(a) {
        return b;
    }
    // f16 and bf16 have f32 together, u8 and i8 have i16.
    let order = match category(a) {
        2 => [DType::F64, DType::F32, DType::F32],
        _ => [DType::I64, DType::I32, DType::I16],
    };
    order
        .into_iter()
        .find(|wide| a == *wide || b == *wide)
        .unwrap_or(order[2])
}

/// A number as an integer dtype has it; floats stay as they are.
fn wrapped(number: Scalar, dtype: DType) -> Scalar {
    let int = number.int();
    match dtype {
        DType::U8 => Scalar::Int(i64::from(int as u8)),
        DType::I8 => Scalar::Int(i64::from(int as i8)),
        DType::I16 => Scalar::Int(i64::from(int as i16)),
        DType::I32 => Scalar::Int(i64::from(int as i32)),
        DType::BOOL => Scalar::Int(i64::from(number.float() != 0.0)),
        DType::I64 => Scalar::Int(int),
        _ => number,
    }
}

/// The number of a float dtype that is nearest, ties to even.
fn round(number: f64, dtype: DType) -> f64 {
    let (bits, least, largest) = match dtype {
        DType::F16 => (10, -14, 65504.0),
        DType::BF16 => (7, -126, f64::from(f32::from_bits(0x7f7f_0000))),
        _ => return f64::from(number as f32),
    };
    if !number.is_finite() || number == 0.0 {
        return number;
    }
    let exponent = ((number.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let step = 2f64.powi(exponent - bits);
    let rounded = (number / step).round_ties_even() * step;
    match rounded.abs() > largest {
        true => f64::INFINITY.copysign(number),
        false => rounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtypes_together() {
        assert_eq!(promoted(DType::U8, DType::I8), DType::I16);
        assert_eq!(promoted(DType::F16, DType::BF16), DType::F32);
        assert_eq!(promoted(DType::I64, DType::F16), DType::F16);
        assert_eq!(promoted(DType::BOOL, DType::U8), DType::U8);
        assert_eq!(promoted(DType::I32, DType::I64), DType::I64);
    }

    #[test]
    fn numbers_of_narrow_types() {
        assert_eq!(round(2049.0, DType::F16), 2048.0);
        assert_eq!(round(65520.0, DType::F16), f64::INFINITY);
        assert_eq!(round(2f64.powi(-25), DType::F16), 0.0);
        assert_eq!(round(257.0, DType::BF16), 256.0);
        assert_eq!(wrapped(Scalar::Int(-1), DType::U8), Scalar::Int(255));
        assert_eq!(wrapped(Scalar::Float(0.5), DType::BOOL), Scalar::Int(1));
        assert_eq!(wrapped(Scalar::Float(0.5), DType::F32), Scalar::Float(0.5));
    }
}
