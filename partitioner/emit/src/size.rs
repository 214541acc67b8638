//! Size expressions become `sym_size` and `executorch_prim` instructions, each at most once in a scope.

use crate::EmitError;
use crate::graph::Builder;
use delegraph_ir::{Expr, ExprOp, Symbol, Type};
use delegraph_pte::model::EValue;

/// How a symbol's value is found at run time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Binding {
    /// `symbol = (size of dimension dim of the tensor - offset) / factor`
    Dim {
        tensor: u32,
        dim: u32,
        factor: i64,
        offset: i64,
    },
    /// The value itself.
    Value(u32),
}

impl Builder<'_, '_> {
    /// Lets a value that is now made bind the symbols in its type that nothing binds yet.
    pub(crate) fn bind(&mut self, index: u32, ty: &Type) {
        match ty {
            Type::Tensor(tensor) => {
                for (dim, size) in tensor.shape.iter().enumerate() {
                    if let Some((symbol, factor, offset)) = size.as_linear() {
                        let binding = Binding::Dim {
                            tensor: index,
                            dim: dim as u32,
                            factor,
                            offset,
                        };
                        // The plain symbol is the better source: it needs no division.
                        let plain = factor == 1 && offset == 0;
                        self.bind_symbol(symbol, binding, plain);
                    }
                }
            }
            Type::Int(Expr::Symbol(symbol)) => self.bind_symbol(symbol.clone(), Binding::Value(index), true),
            _ => {}
        }
    }

    fn bind_symbol(&mut self, symbol: Symbol, binding: Binding, plain: bool) {
        let known = self.bindings.iter().any(|scope| scope.contains_key(&symbol));
        let computed = self
            .sizes
            .iter()
            .any(|scope| scope.contains_key(&Expr::Symbol(symbol.clone())));
        if let Some(scope) = self.bindings.last_mut()
            && (!known || (plain && !computed && self.instructions.is_empty()))
        {
            scope.insert(symbol, binding);
        }
    }

    /// The value index that holds the expression.
    pub(crate) fn size(&mut self, expr: &Expr) -> Result<u32, EmitError> {
        match expr {
            Expr::Int(i) => return Ok(self.values.literal(EValue::Int(*i))),
            Expr::Float(bits) => return Ok(self.values.literal(EValue::Double(f64::from_bits(*bits)))),
            _ => {}
        }
        if let Some(&index) = self.sizes.iter().rev().find_map(|scope| scope.get(expr)) {
            return Ok(index);
        }
        let index = match expr {
            Expr::Symbol(symbol) => self.symbol(symbol)?,
            Expr::Op(op, args) => self.operation(expr, *op, args)?,
            Expr::Int(_) | Expr::Float(_) => unreachable!("returned above"),
        };
        if let Some(scope) = self.sizes.last_mut() {
            scope.insert(expr.clone(), index);
        }
        Ok(index)
    }

    fn symbol(&mut self, symbol: &Symbol) -> Result<u32, EmitError> {
        let binding = self.bindings.iter().rev().find_map(|scope| scope.get(symbol)).copied();
        match binding {
            None => Err(EmitError::Size(
                Expr::Symbol(symbol.clone()),
                "nothing binds the symbol".to_string(),
            )),
            Some(Binding::Value(index)) => Ok(index),
            Some(Binding::Dim {
                tensor,
                dim,
                factor,
                offset,
            }) => {
                let dim = self.values.literal(EValue::Int(i64::from(dim)));
                let mut size = self.values.push(EValue::Int(0));
                self.kernel("aten::sym_size.int", vec![tensor, dim, size]);
                if offset != 0 {
                    let offset = self.values.literal(EValue::Int(offset));
                    size = self.prim("executorch_prim::sub.Scalar", &[size, offset], EValue::Int(0));
                }
                if factor != 1 {
                    let factor = self.values.literal(EValue::Int(factor));
                    size = self.prim("executorch_prim::floordiv.Scalar", &[size, factor], EValue::Int(0));
                }
                Ok(size)
            }
        }
    }

    /// A primitive instruction with a new result.
    pub(crate) fn prim(&mut self, name: &'static str, args: &[u32], result: EValue) -> u32 {
        let result = self.values.push(result);
        let mut operands = args.to_vec();
        operands.push(result);
        self.kernel(name, operands);
        result
    }

    fn operation(&mut self, expr: &Expr, op: ExprOp, args: &[Expr]) -> Result<u32, EmitError> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.size(arg)?);
        }
        let float = values
            .iter()
            .any(|&v| matches!(self.values.items[v as usize], EValue::Double(_)));
        let number = || if float { EValue::Double(0.0) } else { EValue::Int(0) };
        let fold = |builder: &mut Self, name: &'static str| {
            let mut total = values[0];
            for &value in &values[1..] {
                total = builder.prim(name, &[total, value], number());
            }
            total
        };
        let bool_result = EValue::Bool(false);
        Ok(match (op, values.as_slice()) {
            (ExprOp::Add, [_, ..]) => fold(self, "executorch_prim::add.Scalar"),
            (ExprOp::Mul, [_, ..]) => fold(self, "executorch_prim::mul.Scalar"),
            (ExprOp::Max, [_, ..]) => fold(self, "executorch_prim::sym_max.Scalar"),
            (ExprOp::Min, [_, ..]) => fold(self, "executorch_prim::sym_min.Scalar"),
            (ExprOp::FloorDiv, [_, _]) => self.prim("executorch_prim::floordiv.Scalar", &values, number()),
            (ExprOp::CeilDiv, [a, b]) => {
                let negative = self.prim("executorch_prim::neg.Scalar", &[*a], number());
                let quotient = self.prim("executorch_prim::floordiv.Scalar", &[negative, *b], number());
                self.prim("executorch_prim::neg.Scalar", &[quotient], number())
            }
            (ExprOp::Mod, [_, _]) => self.prim("executorch_prim::mod.Scalar", &values, number()),
            (ExprOp::TrueDiv, [_, _]) => self.prim("executorch_prim::truediv.Scalar", &values, EValue::Double(0.0)),
            (ExprOp::Eq, [_, _]) => self.prim("executorch_prim::eq.Scalar", &values, bool_result),
            (ExprOp::Lt, [_, _]) => self.prim("executorch_prim::lt.Scalar", &values, bool_result),
            (ExprOp::Le, [_, _]) => self.prim("executorch_prim::le.Scalar", &values, bool_result),
            (ExprOp::Gt, [_, _]) => self.prim("executorch_prim::gt.Scalar", &values, bool_result),
            (ExprOp::Ge, [_, _]) => self.prim("executorch_prim::ge.Scalar", &values, bool_result),
            (ExprOp::Ne, [_, _]) => {
                let equal = self.prim("executorch_prim::eq.Scalar", &values, EValue::Bool(false));
                self.prim("executorch_prim::sym_not.Scalar", &[equal], bool_result)
            }
            (ExprOp::Not, [a]) => self.prim("executorch_prim::sym_not.Scalar", &[*a], bool_result),
            (ExprOp::And | ExprOp::Or, [first, rest @ ..]) => {
                let absorbing = self.values.literal(EValue::Bool(op == ExprOp::Or));
                let mut total = *first;
                for &value in rest {
                    let branches = if op == ExprOp::And {
                        [total, value, absorbing]
                    } else {
                        [total, absorbing, value]
                    };
                    total = self.prim("executorch_prim::sym_ite.Scalar", &branches, EValue::Bool(false));
                }
                total
            }
            (ExprOp::Where, [_, _, _]) => self.prim("executorch_prim::sym_ite.Scalar", &values, number()),
            (ExprOp::ToFloat, [_]) => self.prim("executorch_prim::sym_float.Scalar", &values, EValue::Double(0.0)),
            (ExprOp::Trunc, [_]) => self.prim("executorch_prim::trunc.Scalar", &values, EValue::Int(0)),
            (ExprOp::Ceil, [_]) => self.prim("executorch_prim::ceil.Scalar", &values, EValue::Int(0)),
            (ExprOp::Round, [_]) => self.prim("executorch_prim::round.Scalar", &values, EValue::Int(0)),
            (ExprOp::Floor, [a]) => {
                let negative = self.prim("executorch_prim::neg.Scalar", &[*a], number());
                let up = self.prim("executorch_prim::ceil.Scalar", &[negative], EValue::Int(0));
                self.prim("executorch_prim::neg.Scalar", &[up], EValue::Int(0))
            }
            _ => return Err(EmitError::Size(expr.clone(), format!("no primitive computes `{op:?}`"))),
        })
    }
}
