//! Numbers: literals of the file, sizes, and arithmetic on sizes.

use super::method::Lifter;
use crate::error::{ImportError, Result};
use delegraph_ir::{Arg, Expr, ExprOp, MemoryFormat, Type};
use delegraph_opset::{BaseType, Param};
use delegraph_pte::model::EValue;
use delegraph_types::DType;

impl Lifter<'_, '_> {
    /// The number, string or nothing that a value of the plan is now.
    pub(super) fn number(&self, value: u32) -> Result<Arg> {
        if let Some(number) = self.numbers.get(&value) {
            return Ok(number.clone());
        }
        Ok(match self.evalue(value)? {
            EValue::Null => Arg::None,
            EValue::Int(i) => Arg::int(*i),
            EValue::Bool(b) => Arg::Bool(*b),
            EValue::Double(f) => Arg::Float(*f),
            EValue::String(text) => Arg::Str(text.clone()),
            _ => return Err(ImportError::unsupported(format!("value %{value} is no number"))),
        })
    }

    /// The integers of a list, whose items are values.
    pub(super) fn integers(&self, items: &[u32]) -> Result<Vec<Expr>> {
        items
            .iter()
            .map(|&item| match self.number(item)? {
                Arg::Int(e) => Ok(e),
                Arg::Bool(b) => Ok(Expr::Int(i64::from(b))),
                _ => Err(ImportError::unsupported(format!("list item %{item} is no integer"))),
            })
            .collect()
    }

    /// An argument that a primitive computes with.
    fn operand(&self, value: u32) -> Result<Expr> {
        match self.number(value)? {
            Arg::Int(e) | Arg::Sym(e) => Ok(e),
            Arg::Bool(b) => Ok(Expr::Int(i64::from(b))),
            Arg::Float(f) => Ok(Expr::float(f)),
            Arg::Value(id) => match &self.graph.value(id).ty {
                Type::Int(e) => Ok(e.clone()),
                ty => Err(ImportError::unsupported(format!(
                    "arithmetic on %{value}, a {ty} that is only known at run time"
                ))),
            },
            _ => Err(ImportError::unsupported(format!(
                "arithmetic on %{value}, which is no number"
            ))),
        }
    }

    /// `executorch_prim::name(operands) -> result`
    pub(super) fn primitive(&mut self, name: &str, operands: &[u32], result: u32) -> Result<()> {
        let operands = operands
            .iter()
            .map(|&v| self.operand(v))
            .collect::<Result<Vec<Expr>>>()?;
        let e = compute(name, operands)?;
        self.sizes.check(&e)?;
        self.numbers.insert(result, as_arg(e, is_truth(name)));
        Ok(())
    }
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Bool,
}

fn kind(e: &Expr) -> Kind {
    use ExprOp as O;
    match e {
        Expr::Float(_) => Kind::Float,
        Expr::Int(_) | Expr::Symbol(_) => Kind::Int,
        Expr::Op(op, args) => match op {
            O::Eq | O::Ne | O::Lt | O::Le | O::Gt | O::Ge | O::And | O::Or | O::Not => Kind::Bool,
            O::TrueDiv | O::ToFloat => Kind::Float,
            O::Trunc | O::Floor | O::Ceil | O::Round => Kind::Int,
            O::Where => args.get(1).map_or(Kind::Int, kind),
            _ if args.iter().any(|arg| kind(arg) == Kind::Float) => Kind::Float,
            _ => Kind::Int,
        },
    }
}

/// True for primitives that give a boolean, also where it was folded to 0 or 1.
fn is_truth(name: &str) -> bool {
    matches!(
        name,
        "eq.Scalar" | "lt.Scalar" | "le.Scalar" | "gt.Scalar" | "ge.Scalar" | "sym_not.Scalar"
    )
}

fn as_arg(e: Expr, truth: bool) -> Arg {
    match (&e, kind(&e)) {
        (Expr::Int(i), _) if truth => Arg::Bool(*i != 0),
        (Expr::Float(bits), _) => Arg::Float(f64::from_bits(*bits)),
        (_, Kind::Int) => Arg::Int(e),
        _ => Arg::Sym(e),
    }
}

fn compute(name: &str, mut operands: Vec<Expr>) -> Result<Expr> {
    let whole = operands.iter().all(|e| kind(e) != Kind::Float);
    let of_integers = |op: ExprOp, operands: Vec<Expr>| match whole {
        true => Ok(Expr::op(op, operands)),
        false => Err(ImportError::unsupported("a division of floats that rounds")),
    };
    Ok(match (name, operands.len()) {
        ("add.Scalar", 2) => Expr::op(ExprOp::Add, operands),
        ("sub.Scalar", 2) => {
            let second = operands.pop().unwrap_or(Expr::Int(0));
            operands.push(Expr::op(ExprOp::Mul, vec![Expr::Int(-1), second]));
            Expr::op(ExprOp::Add, operands)
        }
        ("mul.Scalar", 2) => Expr::op(ExprOp::Mul, operands),
        ("floordiv.Scalar" | "floordiv.int", 2) => of_integers(ExprOp::FloorDiv, operands)?,
        ("mod.Scalar" | "mod.int", 2) => of_integers(ExprOp::Mod, operands)?,
        ("truediv.Scalar", 2) => Expr::op(ExprOp::TrueDiv, operands),
        ("neg.Scalar", 1) => {
            operands.push(Expr::Int(-1));
            Expr::op(ExprOp::Mul, operands)
        }
        ("eq.Scalar", 2) => Expr::op(ExprOp::Eq, operands),
        ("lt.Scalar", 2) => Expr::op(ExprOp::Lt, operands),
        ("le.Scalar", 2) => Expr::op(ExprOp::Le, operands),
        ("gt.Scalar", 2) => Expr::op(ExprOp::Gt, operands),
        ("ge.Scalar", 2) => Expr::op(ExprOp::Ge, operands),
        ("sym_not.Scalar", 1) => Expr::op(ExprOp::Not, operands),
        ("sym_max.Scalar", 2) => Expr::op(ExprOp::Max, operands),
        ("sym_min.Scalar", 2) => Expr::op(ExprOp::Min, operands),
        ("sym_ite.Scalar", 3) => Expr::op(ExprOp::Where, operands),
        ("sym_float.Scalar", 1) => Expr::op(ExprOp::ToFloat, operands),
        ("ceil.Scalar" | "round.Scalar" | "trunc.Scalar" | "sym_int.Scalar", 1) if whole => operands.remove(0),
        ("ceil.Scalar", 1) => Expr::op(ExprOp::Ceil, operands),
        ("round.Scalar", 1) => Expr::op(ExprOp::Round, operands),
        ("trunc.Scalar" | "sym_int.Scalar", 1) => Expr::op(ExprOp::Trunc, operands),
        _ => return Err(ImportError::unsupported(format!("the primitive `{name}`"))),
    })
}

/// A number as the argument of a parameter: what the file writes as an integer may be a dtype or a boolean.
pub(super) fn for_parameter(param: &Param, number: Arg) -> Result<Arg> {
    let wrong = |text: String| ImportError::unsupported(format!("argument `{}`: {text}", param.name));
    let list = param.ty.list;
    Ok(match (param.ty.base, number) {
        (_, Arg::None) => Arg::None,
        // Where a tensor lies and in which layout means nothing here.
        (BaseType::Layout | BaseType::Device | BaseType::Generator, _) => Arg::None,
        (BaseType::DType, Arg::Int(e)) => {
            let dtype = e
                .as_int()
                .and_then(|code| i8::try_from(code).ok())
                .and_then(DType::from_pte);
            Arg::DType(dtype.ok_or_else(|| wrong(format!("`{e}` is no dtype")))?)
        }
        (BaseType::MemoryFormat, Arg::Int(e)) => Arg::MemoryFormat(match e.as_int() {
            Some(0) => MemoryFormat::Contiguous,
            Some(1) => MemoryFormat::Preserve,
            Some(2) => MemoryFormat::ChannelsLast,
            Some(3) => MemoryFormat::ChannelsLast3d,
            _ => return Err(wrong(format!("`{e}` is no memory format"))),
        }),
        (BaseType::Tensor, _) => return Err(wrong("a number in place of a tensor".to_string())),
        (BaseType::Int, Arg::Int(e)) if list => Arg::Ints(vec![e]),
        (BaseType::Float, Arg::Float(f)) if list => Arg::Floats(vec![f]),
        (BaseType::Bool, Arg::Int(Expr::Int(i))) if !list => Arg::Bool(i != 0),
        (BaseType::Float, Arg::Int(Expr::Int(i))) if !list => Arg::Float(i as f64),
        (_, number) if !list => number,
        _ => return Err(wrong("a number in place of a list".to_string())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primitives_compute_as_the_runtime_does() {
        let s = || Expr::symbol("s0");
        let cases: &[(&str, Vec<Expr>, Arg)] = &[
            ("add.Scalar", vec![s(), Expr::Int(2)], Arg::Int(s() + Expr::Int(2))),
            ("sub.Scalar", vec![Expr::Int(7), Expr::Int(2)], Arg::int(5)),
            ("sub.Scalar", vec![Expr::float(7.0), Expr::Int(2)], Arg::Float(5.0)),
            ("floordiv.Scalar", vec![Expr::Int(-7), Expr::Int(2)], Arg::int(-4)),
            ("neg.Scalar", vec![s()], Arg::Int(s() * Expr::Int(-1))),
            ("truediv.Scalar", vec![Expr::Int(1), Expr::Int(2)], Arg::Float(0.5)),
            ("round.Scalar", vec![s()], Arg::Int(s())),
            ("round.Scalar", vec![Expr::float(2.5)], Arg::int(2)),
            ("sym_ite.Scalar", vec![Expr::Int(1), s(), Expr::Int(0)], Arg::Int(s())),
        ];
        for (name, operands, want) in cases {
            assert_eq!(
                as_arg(compute(name, operands.clone()).unwrap(), is_truth(name)),
                *want,
                "{name}"
            );
        }
        assert!(compute("floordiv.Scalar", vec![Expr::float(1.0), s()]).is_err());
        assert!(compute("add.Scalar", vec![s()]).is_err());
        let compare = |a| compute("lt.Scalar", vec![a, Expr::Int(3)]).unwrap();
        assert!(matches!(as_arg(compare(s()), true), Arg::Sym(_)));
        assert_eq!(as_arg(compare(Expr::Int(2)), true), Arg::Bool(true));
    }
}
