//! Size expressions over symbols, kept in a canonical form so that equal sizes compare equal.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A dynamic size, named as torch.export names it (`s77`; `u0` is data dependent).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Symbol(pub Arc<str>);

impl Symbol {
    /// The symbol of this name.
    pub fn new(name: &str) -> Symbol {
        Symbol(name.into())
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Range of a symbol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolRange {
    /// Smallest value.
    pub min: i64,
    /// Largest value; `None`: unbounded.
    pub max: Option<i64>,
}

/// The symbols of a module with their ranges. A symbol that is not listed is unbounded from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Symbols {
    /// By symbol.
    pub ranges: BTreeMap<Symbol, SymbolRange>,
}

impl Symbols {
    /// The range of a symbol.
    pub fn range(&self, symbol: &Symbol) -> SymbolRange {
        self.ranges
            .get(symbol)
            .copied()
            .unwrap_or(SymbolRange { min: 0, max: None })
    }
}

/// Operators of size expressions. Comparisons and logic give 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ExprOp {
    /// n-ary sum.
    Add,
    /// n-ary product.
    Mul,
    /// Rounds towards minus infinity.
    FloorDiv,
    CeilDiv,
    /// Sign of the divisor, as in Python.
    Mod,
    Max,
    Min,
    Pow,
    /// Gives a float.
    TrueDiv,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Not,
    /// `[condition, then, else]`
    Where,
    ToFloat,
    /// Float to integer, towards zero.
    Trunc,
    Floor,
    Ceil,
    /// Half to even.
    Round,
}

/// A size expression. Build it with the functions here, which keep the canonical form; compare with `==`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Expr {
    /// A constant.
    Int(i64),
    /// A constant float, as the bits of an f64.
    Float(u64),
    /// A symbol.
    Symbol(Symbol),
    /// An operator applied to expressions.
    Op(ExprOp, Vec<Expr>),
}

/// A value of an expression.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
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
}

/// Sum of products: sorted factors -> coefficient.
type Polynomial = BTreeMap<Vec<Expr>, i64>;

/// Products of sums beyond this many terms, or of more factors, are left as they are.
const MAX_TERMS: usize = 64;

impl Expr {
    /// The symbol of this name.
    pub fn symbol(name: &str) -> Expr {
        Expr::Symbol(Symbol::new(name))
    }

    /// A float constant.
    pub fn float(value: f64) -> Expr {
        Expr::Float(value.to_bits())
    }

    /// The constant, if it is an integer one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Expr::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// True if no symbol occurs.
    pub fn is_constant(&self) -> bool {
        match self {
            Expr::Int(_) | Expr::Float(_) => true,
            Expr::Symbol(_) => false,
            Expr::Op(_, args) => args.iter().all(Expr::is_constant),
        }
    }

    /// Applies an operator, simplifying.
    pub fn op(op: ExprOp, args: Vec<Expr>) -> Expr {
        if args.iter().all(|a| matches!(a, Expr::Int(_) | Expr::Float(_))) {
            let folded = Expr::Op(op, args.clone()).evaluate(&|_| None);
            match folded {
                Some(Number::Int(i)) => return Expr::Int(i),
                Some(Number::Float(f)) => return Expr::float(f),
                None => return Expr::Op(op, args),
            }
        }
        match op {
            ExprOp::Add | ExprOp::Mul => from_polynomial(polynomial(&Expr::Op(op, args))),
            ExprOp::FloorDiv | ExprOp::CeilDiv => match (&args[0], args[1].as_int()) {
                (a, Some(1)) => a.clone(),
                (a, Some(d)) if d > 0 => {
                    let terms = polynomial(a);
                    if terms.values().all(|c| c.checked_rem(d) == Some(0)) {
                        return from_polynomial(terms.into_iter().map(|(f, c)| (f, c / d)).collect());
                    }
                    Expr::Op(op, args)
                }
                (a, None) if *a == args[1] => Expr::Int(1),
                _ => Expr::Op(op, args),
            },
            ExprOp::Mod => match args[1].as_int() {
                Some(d) if polynomial(&args[0]).values().all(|c| c.checked_rem(d) == Some(0)) => Expr::Int(0),
                None if args[0] == args[1] => Expr::Int(0),
                _ => Expr::Op(op, args),
            },
            ExprOp::Max | ExprOp::Min => {
                let mut flat = Vec::new();
                for arg in args {
                    match arg {
                        Expr::Op(inner, items) if inner == op => flat.extend(items),
                        other => flat.push(other),
                    }
                }
                flat.sort();
                flat.dedup();
                if flat.len() == 1 {
                    flat.remove(0)
                } else {
                    Expr::Op(op, flat)
                }
            }
            ExprOp::Pow => match args[1].as_int() {
                Some(n @ 0..=4) => (0..n).fold(Expr::Int(1), |acc, _| acc * args[0].clone()),
                _ => Expr::Op(op, args),
            },
            ExprOp::Eq | ExprOp::Le | ExprOp::Ge if args[0] == args[1] => Expr::Int(1),
            ExprOp::Ne | ExprOp::Lt | ExprOp::Gt if args[0] == args[1] => Expr::Int(0),
            ExprOp::Where => match args[0].as_int() {
                Some(0) => args[2].clone(),
                Some(_) => args[1].clone(),
                None => Expr::Op(op, args),
            },
            _ => Expr::Op(op, args),
        }
    }

    /// `self // divisor`
    pub fn floor_div(self, divisor: Expr) -> Expr {
        Expr::op(ExprOp::FloorDiv, vec![self, divisor])
    }

    /// `self % divisor`
    pub fn modulo(self, divisor: Expr) -> Expr {
        Expr::op(ExprOp::Mod, vec![self, divisor])
    }

    /// The larger.
    pub fn max(self, other: Expr) -> Expr {
        Expr::op(ExprOp::Max, vec![self, other])
    }

    /// The smaller.
    pub fn min(self, other: Expr) -> Expr {
        Expr::op(ExprOp::Min, vec![self, other])
    }

    /// Product of all; 1 for none.
    pub fn product<'a>(items: impl IntoIterator<Item = &'a Expr>) -> Expr {
        items.into_iter().fold(Expr::Int(1), |acc, e| acc * e.clone())
    }

    /// The value where `symbols` gives every symbol a value; `None` for an unknown symbol, division by zero, overflow or a float.
    pub fn eval(&self, symbols: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self.evaluate(symbols)? {
            Number::Int(i) => Some(i),
            Number::Float(_) => None,
        }
    }

    /// Like [`Expr::eval`], as a float.
    pub fn eval_f64(&self, symbols: &dyn Fn(&Symbol) -> Option<i64>) -> Option<f64> {
        self.evaluate(symbols).map(Number::float)
    }

    /// Replaces symbols; `None` keeps one.
    pub fn substitute(&self, f: &dyn Fn(&Symbol) -> Option<Expr>) -> Expr {
        match self {
            Expr::Int(_) | Expr::Float(_) => self.clone(),
            Expr::Symbol(s) => f(s).unwrap_or_else(|| self.clone()),
            Expr::Op(op, args) => Expr::op(*op, args.iter().map(|a| a.substitute(f)).collect()),
        }
    }

    /// True if every operator has as many operands as it takes. Expressions made by the functions here are; one that was
    /// read from a file may not be, and nothing else may be done with it then.
    pub fn is_well_formed(&self) -> bool {
        let Expr::Op(op, args) = self else { return true };
        let fits = match op {
            ExprOp::Add | ExprOp::Mul | ExprOp::Max | ExprOp::Min | ExprOp::And | ExprOp::Or => !args.is_empty(),
            ExprOp::Not | ExprOp::ToFloat | ExprOp::Trunc | ExprOp::Floor | ExprOp::Ceil | ExprOp::Round => {
                args.len() == 1
            }
            ExprOp::Where => args.len() == 3,
            _ => args.len() == 2,
        };
        fits && args.iter().all(Expr::is_well_formed)
    }

    /// Calls `f` with every symbol, repeats included.
    pub fn for_each_symbol(&self, f: &mut dyn FnMut(&Symbol)) {
        match self {
            Expr::Int(_) | Expr::Float(_) => {}
            Expr::Symbol(s) => f(s),
            Expr::Op(_, args) => args.iter().for_each(|a| a.for_each_symbol(f)),
        }
    }

    /// If this is `a * symbol + b` with `a` not 0: (symbol, a, b). Binds a symbol from a size: `symbol = (size - b) / a`.
    pub fn as_linear(&self) -> Option<(Symbol, i64, i64)> {
        let (mut found, mut offset) = (None, 0);
        for (factors, coefficient) in polynomial(self) {
            match factors.as_slice() {
                [] => offset = coefficient,
                [Expr::Symbol(s)] if found.is_none() => found = Some((s.clone(), coefficient)),
                _ => return None,
            }
        }
        found.map(|(s, a)| (s, a, offset))
    }

    /// Largest value under the ranges; `None` if unbounded or not known.
    pub fn upper_bound(&self, symbols: &Symbols) -> Option<i64> {
        self.bounds(symbols).1
    }

    /// Smallest value under the ranges; `None` if not known.
    pub fn lower_bound(&self, symbols: &Symbols) -> Option<i64> {
        self.bounds(symbols).0
    }

    fn bounds(&self, symbols: &Symbols) -> (Option<i64>, Option<i64>) {
        match self {
            Expr::Int(i) => (Some(*i), Some(*i)),
            Expr::Float(_) => (None, None),
            Expr::Symbol(s) => {
                let range = symbols.range(s);
                (Some(range.min), range.max)
            }
            Expr::Op(op, args) => {
                let parts: Vec<_> = args.iter().map(|a| a.bounds(symbols)).collect();
                match op {
                    ExprOp::Add => parts
                        .iter()
                        .fold((Some(0), Some(0)), |acc, p| (plus(acc.0, p.0), plus(acc.1, p.1))),
                    ExprOp::Mul => parts.iter().fold((Some(1), Some(1)), |acc, p| times(acc, *p)),
                    ExprOp::FloorDiv | ExprOp::CeilDiv => {
                        let Some(d) = args[1].as_int().filter(|d| *d > 0) else {
                            return match (parts[0], parts[1]) {
                                ((Some(0..), high), (Some(1..), _)) => (Some(0), high),
                                _ => (None, None),
                            };
                        };
                        let up = i64::from(*op == ExprOp::CeilDiv) * (d - 1);
                        let div = |x: Option<i64>| x.and_then(|x| x.checked_add(up)).map(|x| x.div_euclid(d));
                        (div(parts[0].0), div(parts[0].1))
                    }
                    ExprOp::Mod => match args[1].as_int() {
                        Some(d) if d > 0 => (Some(0), Some(d - 1)),
                        _ => (None, None),
                    },
                    ExprOp::Max => {
                        let low = parts.iter().filter_map(|p| p.0).max();
                        let high: Option<Vec<i64>> = parts.iter().map(|p| p.1).collect();
                        (low, high.and_then(|h| h.into_iter().max()))
                    }
                    ExprOp::Min => {
                        let low: Option<Vec<i64>> = parts.iter().map(|p| p.0).collect();
                        let high = parts.iter().filter_map(|p| p.1).min();
                        (low.and_then(|l| l.into_iter().min()), high)
                    }
                    ExprOp::Where => {
                        let low = parts[1].0.zip(parts[2].0).map(|(a, b)| a.min(b));
                        let high = parts[1].1.zip(parts[2].1).map(|(a, b)| a.max(b));
                        (low, high)
                    }
                    ExprOp::Eq
                    | ExprOp::Ne
                    | ExprOp::Lt
                    | ExprOp::Le
                    | ExprOp::Gt
                    | ExprOp::Ge
                    | ExprOp::And
                    | ExprOp::Or
                    | ExprOp::Not => (Some(0), Some(1)),
                    ExprOp::Pow
                    | ExprOp::TrueDiv
                    | ExprOp::ToFloat
                    | ExprOp::Trunc
                    | ExprOp::Floor
                    | ExprOp::Ceil
                    | ExprOp::Round => (None, None),
                }
            }
        }
    }

    fn evaluate(&self, symbols: &dyn Fn(&Symbol) -> Option<i64>) -> Option<Number> {
        let (op, args) = match self {
            Expr::Int(i) => return Some(Number::Int(*i)),
            Expr::Float(bits) => return Some(Number::Float(f64::from_bits(*bits))),
            Expr::Symbol(s) => return symbols(s).map(Number::Int),
            Expr::Op(op, args) => (*op, args),
        };
        let values: Vec<Number> = args.iter().map(|a| a.evaluate(symbols)).collect::<Option<_>>()?;
        let truth = |b: bool| Some(Number::Int(i64::from(b)));
        match (op, values.as_slice()) {
            (ExprOp::Not, [a]) => truth(a.float() == 0.0),
            (ExprOp::And, vs) => truth(vs.iter().all(|v| v.float() != 0.0)),
            (ExprOp::Or, vs) => truth(vs.iter().any(|v| v.float() != 0.0)),
            (ExprOp::ToFloat, [a]) => Some(Number::Float(a.float())),
            (ExprOp::Trunc | ExprOp::Floor | ExprOp::Ceil | ExprOp::Round, [Number::Int(i)]) => Some(Number::Int(*i)),
            (ExprOp::Trunc, [a]) => Some(Number::Int(a.float().trunc() as i64)),
            (ExprOp::Floor, [a]) => Some(Number::Int(a.float().floor() as i64)),
            (ExprOp::Ceil, [a]) => Some(Number::Int(a.float().ceil() as i64)),
            (ExprOp::Round, [a]) => Some(Number::Int(a.float().round_ties_even() as i64)),
            (ExprOp::Where, [c, a, b]) => Some(if c.float() != 0.0 { *a } else { *b }),
            (ExprOp::TrueDiv, [a, b]) if b.float() != 0.0 => Some(Number::Float(a.float() / b.float())),
            (op, vs) if vs.iter().all(|v| matches!(v, Number::Int(_))) => {
                let ints: Vec<i64> = vs.iter().map(|v| if let Number::Int(i) = v { *i } else { 0 }).collect();
                integer_op(op, &ints).map(Number::Int)
            }
            (op, vs) => float_op(op, &vs.iter().map(|v| v.float()).collect::<Vec<_>>()),
        }
    }
}

fn integer_op(op: ExprOp, v: &[i64]) -> Option<i64> {
    Some(match (op, v) {
        (ExprOp::Add, v) => v.iter().try_fold(0i64, |a, b| a.checked_add(*b))?,
        (ExprOp::Mul, v) => v.iter().try_fold(1i64, |a, b| a.checked_mul(*b))?,
        (ExprOp::Max, v) => *v.iter().max()?,
        (ExprOp::Min, v) => *v.iter().min()?,
        (ExprOp::FloorDiv, [a, b]) => floor_div(*a, *b)?,
        (ExprOp::CeilDiv, [a, b]) => floor_div(a.checked_neg()?, *b)?.checked_neg()?,
        (ExprOp::Mod, [a, b]) => a.checked_sub(floor_div(*a, *b)?.checked_mul(*b)?)?,
        (ExprOp::Pow, [a, b]) => a.checked_pow(u32::try_from(*b).ok()?)?,
        (ExprOp::Eq, [a, b]) => i64::from(a == b),
        (ExprOp::Ne, [a, b]) => i64::from(a != b),
        (ExprOp::Lt, [a, b]) => i64::from(a < b),
        (ExprOp::Le, [a, b]) => i64::from(a <= b),
        (ExprOp::Gt, [a, b]) => i64::from(a > b),
        (ExprOp::Ge, [a, b]) => i64::from(a >= b),
        _ => return None,
    })
}

fn float_op(op: ExprOp, v: &[f64]) -> Option<Number> {
    Some(match (op, v) {
        (ExprOp::Add, v) => Number::Float(v.iter().sum()),
        (ExprOp::Mul, v) => Number::Float(v.iter().product()),
        (ExprOp::Max, v) => Number::Float(v.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        (ExprOp::Min, v) => Number::Float(v.iter().copied().fold(f64::INFINITY, f64::min)),
        (ExprOp::FloorDiv, [a, b]) if *b != 0.0 => Number::Float((a / b).floor()),
        (ExprOp::Mod, [a, b]) if *b != 0.0 => Number::Float(a - (a / b).floor() * b),
        (ExprOp::Pow, [a, b]) => Number::Float(a.powf(*b)),
        (ExprOp::Eq, [a, b]) => Number::Int(i64::from(a == b)),
        (ExprOp::Ne, [a, b]) => Number::Int(i64::from(a != b)),
        (ExprOp::Lt, [a, b]) => Number::Int(i64::from(a < b)),
        (ExprOp::Le, [a, b]) => Number::Int(i64::from(a <= b)),
        (ExprOp::Gt, [a, b]) => Number::Int(i64::from(a > b)),
        (ExprOp::Ge, [a, b]) => Number::Int(i64::from(a >= b)),
        _ => return None,
    })
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && ((a < 0) != (b < 0)) {
        quotient - 1
    } else {
        quotient
    })
}

fn plus(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a?.checked_add(b?)
}

fn times(a: (Option<i64>, Option<i64>), b: (Option<i64>, Option<i64>)) -> (Option<i64>, Option<i64>) {
    // Unbounded ends are handled where both factors are not negative, which sizes are.
    if let (Some(al @ 0..), Some(bl @ 0..)) = (a.0, b.0) {
        let high = a.1.zip(b.1).and_then(|(x, y)| x.checked_mul(y));
        return (al.checked_mul(bl), high);
    }
    let (Some(al), Some(ah), Some(bl), Some(bh)) = (a.0, a.1, b.0, b.1) else {
        // A negative constant times an unbounded size still has one known end.
        return match (a, b) {
            ((Some(k), Some(k2)), (low, high)) | ((low, high), (Some(k), Some(k2))) if k == k2 && k < 0 => {
                (high.and_then(|h| h.checked_mul(k)), low.and_then(|l| l.checked_mul(k)))
            }
            _ => (None, None),
        };
    };
    let products: Option<Vec<i64>> = [(al, bl), (al, bh), (ah, bl), (ah, bh)]
        .into_iter()
        .map(|(x, y)| x.checked_mul(y))
        .collect();
    match products {
        Some(p) => (p.iter().copied().min(), p.iter().copied().max()),
        None => (None, None),
    }
}

/// The sum of products that `e` is; anything but sums and products is one factor.
fn polynomial(e: &Expr) -> Polynomial {
    let single = |e: &Expr| Polynomial::from([(vec![e.clone()], 1)]);
    match e {
        Expr::Int(0) => Polynomial::new(),
        Expr::Int(i) => Polynomial::from([(Vec::new(), *i)]),
        Expr::Op(ExprOp::Add, args) => {
            let mut sum = Polynomial::new();
            for arg in args {
                for (factors, c) in polynomial(arg) {
                    let slot = sum.entry(factors).or_insert(0);
                    *slot = slot.saturating_add(c);
                }
            }
            sum.retain(|_, c| *c != 0);
            sum
        }
        Expr::Op(ExprOp::Mul, args) => {
            let mut product = Polynomial::from([(Vec::new(), 1)]);
            for arg in args {
                let factor = polynomial(arg);
                if product.len() * factor.len() > MAX_TERMS {
                    return single(e);
                }
                let mut next = Polynomial::new();
                for (fa, ca) in &product {
                    for (fb, cb) in &factor {
                        let mut factors = [fa.as_slice(), fb.as_slice()].concat();
                        if factors.len() > MAX_TERMS {
                            return single(e);
                        }
                        factors.sort();
                        let slot = next.entry(factors).or_insert(0);
                        *slot = slot.saturating_add(ca.saturating_mul(*cb));
                    }
                }
                next.retain(|_, c| *c != 0);
                product = next;
            }
            product
        }
        other => single(other),
    }
}

fn from_polynomial(terms: Polynomial) -> Expr {
    let mut sum: Vec<Expr> = terms
        .into_iter()
        .map(|(mut factors, c)| match (factors.len(), c) {
            (0, c) => Expr::Int(c),
            (1, 1) => factors.remove(0),
            (_, 1) => Expr::Op(ExprOp::Mul, factors),
            (_, c) => {
                factors.insert(0, Expr::Int(c));
                Expr::Op(ExprOp::Mul, factors)
            }
        })
        .collect();
    match sum.len() {
        0 => Expr::Int(0),
        1 => sum.remove(0),
        _ => Expr::Op(ExprOp::Add, sum),
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Expr {
        Expr::Int(value)
    }
}

impl std::ops::Add for Expr {
    type Output = Expr;
    fn add(self, other: Expr) -> Expr {
        Expr::op(ExprOp::Add, vec![self, other])
    }
}

impl std::ops::Sub for Expr {
    type Output = Expr;
    fn sub(self, other: Expr) -> Expr {
        self + other * Expr::Int(-1)
    }
}

impl std::ops::Mul for Expr {
    type Output = Expr;
    fn mul(self, other: Expr) -> Expr {
        Expr::op(ExprOp::Mul, vec![self, other])
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(i) => write!(f, "{i}"),
            Expr::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Expr::Symbol(s) => write!(f, "{s}"),
            Expr::Op(op, args) => {
                let infix = match op {
                    ExprOp::Add => " + ",
                    ExprOp::Mul => "*",
                    ExprOp::FloorDiv => " // ",
                    ExprOp::Mod => " % ",
                    _ => "",
                };
                if infix.is_empty() {
                    write!(f, "{}(", format!("{op:?}").to_lowercase())?;
                }
                for (i, arg) in args.iter().enumerate() {
                    let separator = if infix.is_empty() { ", " } else { infix };
                    let nested = !infix.is_empty() && *op != ExprOp::Add && matches!(arg, Expr::Op(..));
                    let (open, close) = if nested { ("(", ")") } else { ("", "") };
                    write!(f, "{}{open}{arg}{close}", if i == 0 { "" } else { separator })?;
                }
                if infix.is_empty() {
                    f.write_str(")")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s() -> Expr {
        Expr::symbol("s0")
    }

    #[test]
    fn equal_sizes_compare_equal() {
        assert_eq!(s() + Expr::Int(1) + s(), Expr::Int(2) * s() + Expr::Int(1));
        assert_eq!((s() + Expr::Int(1)) * Expr::Int(2), Expr::Int(2) + s() * Expr::Int(2));
        assert_eq!((s() * Expr::Int(4)).floor_div(Expr::Int(4)), s());
        assert_eq!((s() * Expr::Int(4)).modulo(Expr::Int(2)), Expr::Int(0));
        assert_eq!(s() - s(), Expr::Int(0));
        assert_eq!(s().floor_div(s()), Expr::Int(1));
    }

    #[test]
    fn bounds_follow_the_ranges() {
        let mut symbols = Symbols::default();
        symbols
            .ranges
            .insert(Symbol::new("s0"), SymbolRange { min: 2, max: Some(9) });
        assert_eq!((s() * Expr::Int(2) - Expr::Int(1)).upper_bound(&symbols), Some(17));
        assert_eq!((Expr::Int(10) - s()).upper_bound(&symbols), Some(8));
        assert_eq!(s().floor_div(Expr::Int(2)).upper_bound(&symbols), Some(4));
        assert_eq!(Expr::symbol("s1").upper_bound(&symbols), None);
        assert_eq!(s().min(Expr::symbol("s1")).upper_bound(&symbols), Some(9));
    }

    #[test]
    fn evaluation_is_pythons() {
        let at = |v: i64| move |_: &Symbol| Some(v);
        assert_eq!(s().floor_div(Expr::Int(-2)).eval(&at(7)), Some(-4));
        assert_eq!(Expr::Op(ExprOp::Mod, vec![s(), Expr::Int(3)]).eval(&at(-1)), Some(2));
        assert_eq!(
            Expr::op(ExprOp::TrueDiv, vec![s(), Expr::Int(2)]).eval_f64(&at(7)),
            Some(3.5)
        );
        assert_eq!(s().floor_div(Expr::Int(0)).eval(&at(7)), None);
    }

    #[test]
    fn linear_expressions_can_be_solved() {
        let e = Expr::Int(2) * s() + Expr::Int(3);
        assert_eq!(e.as_linear(), Some((Symbol::new("s0"), 2, 3)));
        assert_eq!((s() * s()).as_linear(), None);
    }

    #[test]
    fn display_reads_as_arithmetic() {
        let e = (s() + Expr::Int(1)).floor_div(Expr::Int(2));
        assert_eq!(e.to_string(), "(1 + s0) // 2");
    }
}
