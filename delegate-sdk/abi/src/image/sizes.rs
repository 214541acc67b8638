//! What the sizes of a graph are, once its inputs are known.

use super::{Expr, ExprIndex, ImageView, SymbolIndex, ValueIndex};
use crate::c::ExprOp;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// A value of an expression.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Number::Int(i) => i as f64,
            Number::Float(f) => f,
        }
    }

    fn truth(self) -> bool {
        self.float() != 0.0
    }
}

/// Sizes that do not fit a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeError {
    /// Another number of inputs, or of dimensions of one.
    Rank {
        /// Position of the input.
        input: u32,
    },
    /// A size that is not what the graph, or another input, says.
    Mismatch {
        /// Position of the input.
        input: u32,
        /// Its dimension.
        dim: u32,
        /// Size given.
        given: i64,
    },
    /// A size that makes a symbol leave its range.
    OutOfRange {
        /// Position of the input.
        input: u32,
        /// Its dimension.
        dim: u32,
        /// Size given.
        given: i64,
    },
    /// A symbol that no input tells.
    Unbound(SymbolIndex),
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeError::Rank { input } => write!(f, "input {input} has another rank, or is missing"),
            SizeError::Mismatch { input, dim, given } => {
                write!(
                    f,
                    "dimension {dim} of input {input} is `{given}`, which does not fit the graph"
                )
            }
            SizeError::OutOfRange { input, dim, given } => {
                write!(
                    f,
                    "dimension {dim} of input {input} is `{given}`, which is out of range"
                )
            }
            SizeError::Unbound(symbol) => write!(f, "no input tells symbol {}", symbol.0),
        }
    }
}

impl core::error::Error for SizeError {}

/// The values of all expressions of an image. Make it once, bind it for every run: binding does not allocate.
///
/// ```
/// use delegraph_abi::DType;
/// use delegraph_abi::image::{Arg, ExprOp, ImageBuilder, Sizes, Type, verify};
///
/// let mut image = ImageBuilder::new("forward");
/// let n = image.symbol("s0", 1, Some(512));
/// let two = image.int(2);
/// let double = image.op(ExprOp::MUL, &[two, n]);
/// let x = image.input("x", &Type::tensor(DType::F32, &[n]));
/// let out = Type::tensor(DType::F32, &[double]);
/// let y = image.node("cat", "aten::cat", &[Arg::Values(vec![x, x]), Arg::Int(0)], &[("y", &out)], "")[0];
/// image.output(y);
/// let bytes = image.finish().unwrap();
///
/// let view = verify(&bytes).unwrap();
/// let mut sizes = Sizes::new(&view);
/// sizes.bind(&view, [[3].as_slice()]).unwrap();
/// assert_eq!(sizes.dim(&view, y, 0), Some(6));
/// ```
#[derive(Debug, Clone)]
pub struct Sizes {
    symbols: Vec<Option<i64>>,
    exprs: Vec<Option<Number>>,
    /// `coefficient * symbol + offset` of expressions that are such in one symbol: solved for the symbol where a size is given.
    linear: Vec<Option<Linear>>,
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    symbol: Option<SymbolIndex>,
    coefficient: i64,
    offset: i64,
}

impl Sizes {
    /// Constants are known, symbols are not.
    pub fn new(image: &ImageView<'_>) -> Sizes {
        let count = image.expr_count();
        let mut linear: Vec<Option<Linear>> = Vec::with_capacity(count as usize);
        for i in 0..count {
            let form = as_linear(image, ExprIndex(i), &linear);
            linear.push(form);
        }
        let mut sizes = Sizes {
            symbols: vec![None; image.symbol_count() as usize],
            exprs: vec![None; count as usize],
            linear,
        };
        sizes.evaluate(image);
        sizes
    }

    /// Learns the symbols from the sizes of the inputs, one slice an input (empty for a number), and evaluates everything.
    ///
    /// # Errors
    /// Sizes that do not fit the graph. Symbols that no input tells stay unknown, which is none.
    pub fn bind<'s, I>(&mut self, image: &ImageView<'_>, inputs: I) -> Result<(), SizeError>
    where
        I: IntoIterator<Item = &'s [i64], IntoIter: Clone>,
    {
        let inputs = inputs.into_iter();
        self.symbols.fill(None);
        let mut given = inputs.clone();
        let mut all_linear = true;
        for (position, value) in image.inputs().iter().enumerate() {
            let input = position as u32;
            let sizes = given.next().ok_or(SizeError::Rank { input })?;
            let dims = image.value(value).dims();
            if dims.len() != sizes.len() {
                return Err(SizeError::Rank { input });
            }
            for (dim, (expr, &size)) in dims.iter().zip(sizes).enumerate() {
                let dim = dim as u32;
                let given = size;
                let mismatch = SizeError::Mismatch { input, dim, given };
                if size < 0 {
                    return Err(mismatch);
                }
                match self.linear.get(expr.0 as usize).copied().flatten() {
                    None => all_linear = false,
                    Some(Linear {
                        symbol: None, offset, ..
                    }) if offset != size => return Err(mismatch),
                    Some(Linear { symbol: None, .. }) => {}
                    Some(Linear {
                        symbol: Some(symbol),
                        coefficient,
                        offset,
                    }) => {
                        let rest = size.checked_sub(offset);
                        let Some(found) = rest.filter(|r| r % coefficient == 0).map(|r| r / coefficient) else {
                            return Err(mismatch);
                        };
                        let range = image.symbol(symbol);
                        if found < range.min || range.max.is_some_and(|max| found > max) {
                            return Err(SizeError::OutOfRange { input, dim, given });
                        }
                        let slot = &mut self.symbols[symbol.0 as usize];
                        if slot.is_some_and(|known| known != found) {
                            return Err(mismatch);
                        }
                        *slot = Some(found);
                    }
                }
            }
        }
        if given.next().is_some() {
            return Err(SizeError::Rank {
                input: image.inputs().len() as u32,
            });
        }
        self.evaluate(image);
        if all_linear { Ok(()) } else { self.check(image, inputs) }
    }

    /// Compares sizes that could not be solved for a symbol with what they should be, where that is known.
    fn check<'s>(&self, image: &ImageView<'_>, inputs: impl Iterator<Item = &'s [i64]>) -> Result<(), SizeError> {
        for (input, (value, sizes)) in image.inputs().iter().zip(inputs).enumerate() {
            for (dim, (expr, &given)) in image.value(value).dims().iter().zip(sizes).enumerate() {
                if self.int(expr).is_some_and(|known| known != given) {
                    return Err(SizeError::Mismatch {
                        input: input as u32,
                        dim: dim as u32,
                        given,
                    });
                }
            }
        }
        Ok(())
    }

    /// Tells a symbol that a node computed, and evaluates everything.
    pub fn set(&mut self, image: &ImageView<'_>, symbol: SymbolIndex, value: i64) {
        if let Some(slot) = self.symbols.get_mut(symbol.0 as usize) {
            *slot = Some(value);
        }
        self.evaluate(image);
    }

    /// The value of an expression; `None` as for [`Sizes::int`].
    pub fn number(&self, expr: ExprIndex) -> Option<Number> {
        self.exprs.get(expr.0 as usize).copied().flatten()
    }

    /// The integer that an expression is; `None` where a symbol is unknown, or on overflow or division by zero.
    pub fn int(&self, expr: ExprIndex) -> Option<i64> {
        match self.number(expr)? {
            Number::Int(i) => Some(i),
            Number::Float(_) => None,
        }
    }

    /// A size of a tensor.
    pub fn dim(&self, image: &ImageView<'_>, value: ValueIndex, dim: usize) -> Option<i64> {
        self.int(image.value(value).dims().get(dim)?)
    }

    /// The sizes of a tensor.
    pub fn dims(&self, image: &ImageView<'_>, value: ValueIndex) -> Option<Vec<i64>> {
        image.value(value).dims().iter().map(|e| self.int(e)).collect()
    }

    /// One pass over the table: operands come before what uses them, and each is computed once.
    fn evaluate(&mut self, image: &ImageView<'_>) {
        for i in 0..self.exprs.len() {
            let value = match image.expr(ExprIndex(i as u32)) {
                Expr::Int(value) => Some(Number::Int(value)),
                Expr::Float(value) => Some(Number::Float(value)),
                Expr::Symbol(symbol) => self.symbols.get(symbol.0 as usize).copied().flatten().map(Number::Int),
                Expr::Op(op, operands) => {
                    let known = &self.exprs[..i];
                    apply(
                        op,
                        &mut operands.iter().map(|e| known.get(e.0 as usize).copied().flatten()),
                    )
                }
            };
            self.exprs[i] = value;
        }
    }
}

fn as_linear(image: &ImageView<'_>, expr: ExprIndex, known: &[Option<Linear>]) -> Option<Linear> {
    let constant = |offset| Linear {
        symbol: None,
        coefficient: 0,
        offset,
    };
    match image.expr(expr) {
        Expr::Int(value) => Some(constant(value)),
        Expr::Symbol(symbol) => Some(Linear {
            symbol: Some(symbol),
            coefficient: 1,
            offset: 0,
        }),
        Expr::Op(op @ (ExprOp::ADD | ExprOp::MUL), operands) => {
            let mut total = constant(if op == ExprOp::ADD { 0 } else { 1 });
            for operand in operands.iter() {
                let next = known.get(operand.0 as usize).copied().flatten()?;
                let symbol = match (total.symbol, next.symbol) {
                    (Some(a), Some(b)) if a != b => return None,
                    (a, b) => a.or(b),
                };
                let (coefficient, offset) = if op == ExprOp::ADD {
                    (
                        total.coefficient.checked_add(next.coefficient)?,
                        total.offset.checked_add(next.offset)?,
                    )
                } else if total.symbol.is_some() && next.symbol.is_some() {
                    return None;
                } else {
                    let (factor, other) = if total.symbol.is_none() {
                        (total, next)
                    } else {
                        (next, total)
                    };
                    (
                        factor.offset.checked_mul(other.coefficient)?,
                        factor.offset.checked_mul(other.offset)?,
                    )
                };
                // `s - s` and `0 * s` are constants.
                total = Linear {
                    symbol: symbol.filter(|_| coefficient != 0),
                    coefficient,
                    offset,
                };
            }
            Some(total)
        }
        _ => None,
    }
}

/// Applies an operator as Python does.
fn apply(op: ExprOp, operands: &mut dyn ExactSizeIterator<Item = Option<Number>>) -> Option<Number> {
    let truth = |b: bool| Some(Number::Int(i64::from(b)));
    // n-ary operators fold from the first operand; the others take up to three.
    if matches!(op, ExprOp::ADD | ExprOp::MUL | ExprOp::MAX | ExprOp::MIN) {
        let mut total = operands.next()??;
        for next in operands {
            total = binary(op, total, next?)?;
        }
        return Some(total);
    }
    if matches!(op, ExprOp::AND | ExprOp::OR) {
        let mut total = op == ExprOp::AND;
        for next in operands {
            let next = next?.truth();
            total = if op == ExprOp::AND {
                total && next
            } else {
                total || next
            };
        }
        return truth(total);
    }
    let a = operands.next()??;
    match op {
        ExprOp::NOT => truth(!a.truth()),
        ExprOp::TO_FLOAT => Some(Number::Float(a.float())),
        ExprOp::TRUNC | ExprOp::FLOOR | ExprOp::CEIL | ExprOp::ROUND => round(op, a),
        ExprOp::WHERE => {
            let (then, otherwise) = (operands.next()?, operands.next()?);
            if a.truth() { then } else { otherwise }
        }
        _ => binary(op, a, operands.next()??),
    }
}

fn binary(op: ExprOp, a: Number, b: Number) -> Option<Number> {
    let truth = |b: bool| Some(Number::Int(i64::from(b)));
    if op == ExprOp::TRUE_DIV {
        return (b.float() != 0.0).then(|| Number::Float(a.float() / b.float()));
    }
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        return Some(Number::Int(match op {
            ExprOp::ADD => a.checked_add(b)?,
            ExprOp::MUL => a.checked_mul(b)?,
            ExprOp::MAX => a.max(b),
            ExprOp::MIN => a.min(b),
            ExprOp::FLOOR_DIV => floor_div(a, b)?,
            ExprOp::CEIL_DIV => floor_div(a.checked_neg()?, b)?.checked_neg()?,
            ExprOp::MOD => a.checked_sub(floor_div(a, b)?.checked_mul(b)?)?,
            ExprOp::POW => a.checked_pow(u32::try_from(b).ok()?)?,
            ExprOp::EQ => i64::from(a == b),
            ExprOp::NE => i64::from(a != b),
            ExprOp::LT => i64::from(a < b),
            ExprOp::LE => i64::from(a <= b),
            ExprOp::GT => i64::from(a > b),
            ExprOp::GE => i64::from(a >= b),
            _ => return None,
        }));
    }
    let (a, b) = (a.float(), b.float());
    match op {
        ExprOp::ADD => Some(Number::Float(a + b)),
        ExprOp::MUL => Some(Number::Float(a * b)),
        ExprOp::MAX => Some(Number::Float(a.max(b))),
        ExprOp::MIN => Some(Number::Float(a.min(b))),
        ExprOp::EQ => truth(a == b),
        ExprOp::NE => truth(a != b),
        ExprOp::LT => truth(a < b),
        ExprOp::LE => truth(a <= b),
        ExprOp::GT => truth(a > b),
        ExprOp::GE => truth(a >= b),
        // Float division, powers and remainders do not occur in sizes; not guessing is right.
        _ => None,
    }
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    let exact = quotient * b == a;
    Some(if !exact && ((a < 0) != (b < 0)) {
        quotient - 1
    } else {
        quotient
    })
}

/// Float to integer; no `std`, so by the integer's own truncation, which is exact below 2^53.
fn round(op: ExprOp, number: Number) -> Option<Number> {
    let value = match number {
        Number::Int(i) => return Some(Number::Int(i)),
        Number::Float(f) => f,
    };
    if value.is_nan() || !(-9.0e18..=9.0e18).contains(&value) {
        return None;
    }
    let trunc = value as i64;
    let rest = value - trunc as f64;
    Some(Number::Int(match op {
        ExprOp::FLOOR if rest < 0.0 => trunc - 1,
        ExprOp::CEIL if rest > 0.0 => trunc + 1,
        ExprOp::ROUND => {
            let half = rest == 0.5 || rest == -0.5;
            let away = trunc + if rest < 0.0 { -1 } else { 1 };
            let further = !(-0.5..=0.5).contains(&rest);
            if further || (half && trunc % 2 != 0) {
                away
            } else {
                trunc
            }
        }
        _ => trunc,
    }))
}
