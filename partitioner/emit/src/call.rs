//! A node becomes a kernel call.

use crate::EmitError;
use crate::graph::{Builder, Scope};
use delegraph_ir::{Arg, Expr, ExprOp, MemoryFormat, Node, Op};
use delegraph_opset::{BaseType, Default, Param, Schema};
use delegraph_pte::model::EValue;
use delegraph_types::Scalar;

impl Builder<'_, '_> {
    /// Emits the instructions of a node.
    pub(crate) fn node(&mut self, scope: &mut Scope, node: &Node) -> Result<(), EmitError> {
        // Nodes of a branch or a loop are emitted within the node that holds them.
        let outer = std::mem::replace(&mut self.origin, self.origins.node(node) + 1);
        let emitted = self.instructions_of(scope, node);
        self.origin = outer;
        emitted
    }

    fn instructions_of(&mut self, scope: &mut Scope, node: &Node) -> Result<(), EmitError> {
        if node.op.name().starts_with("higher_order::") {
            return self.control(scope, node);
        }
        let schema = node.op.schema();
        let returns_number =
            schema.returns.iter().any(|r| r.ty.base != BaseType::Tensor) || schema.outs().next().is_some();
        let target = match returns_number {
            true => node.op,
            false => out_variant(node.op).ok_or_else(|| EmitError::NoOutVariant {
                node: node.name.clone(),
                op: node.op.name().to_string(),
            })?,
        };
        let target_schema = target.schema();
        let mut operands = Vec::with_capacity(target_schema.params.len() + node.outputs.len() + 1);
        for param in target_schema.inputs() {
            let operand = match schema.position(&param.name).and_then(|i| node.args.get(i)) {
                Some(arg) => self.argument(scope, node, param, arg)?,
                None => self.default(node, param)?,
            };
            operands.push(operand);
        }
        let mut outs = Vec::with_capacity(node.outputs.len());
        for &output in &node.outputs {
            let index = self.new_value(&scope.graph.value(output).ty);
            scope.map[output.index()] = Some(index);
            outs.push(index);
        }
        self.append_outs(&target_schema, &mut operands, &outs);
        self.kernel(
            target
                .name()
                .strip_suffix(".default")
                .filter(|n| !n.starts_with("executorch_prim"))
                .unwrap_or(target.name()),
            operands,
        );
        for (&output, &index) in node.outputs.iter().zip(&outs) {
            self.bind(index, &scope.graph.value(output).ty.clone());
        }
        Ok(())
    }

    /// Out arguments and return values, as `.pte` programs list them: one return repeats its out; several are listed and then
    /// given as a list; a returned list is one list, twice.
    fn append_outs(&mut self, schema: &Schema, operands: &mut Vec<u32>, outs: &[u32]) {
        let list_out = schema.outs().any(|p| p.ty.list) || schema.returns.iter().any(|r| r.ty.list);
        if list_out {
            let list = self.values.push(EValue::TensorList(outs.to_vec()));
            operands.extend([list, list]);
        } else if schema.outs().next().is_none() {
            operands.extend(outs);
        } else if let [out] = outs {
            operands.extend([*out, *out]);
        } else {
            operands.extend(outs);
            let list = self.values.push(EValue::TensorList(outs.to_vec()));
            operands.push(list);
        }
    }

    fn argument(&mut self, scope: &mut Scope, node: &Node, param: &Param, arg: &Arg) -> Result<u32, EmitError> {
        let problem = |text: &str| EmitError::Argument {
            node: node.name.clone(),
            op: node.op.name().to_string(),
            argument: param.name.clone(),
            problem: text.to_string(),
        };
        let base = param.ty.base;
        Ok(match arg {
            Arg::None => self.values.literal(EValue::Null),
            Arg::Value(value) => self.read(scope, *value)?,
            Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) if base == BaseType::Tensor => {
                return Err(problem("a number stands in place of a tensor"));
            }
            Arg::Int(expr) if param.ty.list && base == BaseType::Int => self.int_list(std::slice::from_ref(expr))?,
            Arg::Int(expr) if base == BaseType::Float => match expr.as_int() {
                Some(i) => self.values.literal(EValue::Double(i as f64)),
                None => self.size(&Expr::op(ExprOp::ToFloat, vec![expr.clone()]))?,
            },
            Arg::Int(expr) if base == BaseType::Bool => match expr.as_int() {
                Some(i) => self.values.literal(EValue::Bool(i != 0)),
                None => self.size(expr)?,
            },
            Arg::Int(expr) | Arg::Sym(expr) => self.size(expr)?,
            Arg::Float(f) => self.values.literal(EValue::Double(*f)),
            Arg::Bool(b) => self.values.literal(EValue::Bool(*b)),
            Arg::Str(s) => self.values.literal(EValue::String(s.clone())),
            Arg::DType(dtype) => self.values.literal(EValue::Int(i64::from(dtype.pte_code()))),
            Arg::MemoryFormat(format) => self.values.literal(EValue::Int(memory_format_code(*format))),
            Arg::Ints(items) if base == BaseType::Float => {
                let items: Option<Vec<f64>> = items.iter().map(|e| e.as_int().map(|i| i as f64)).collect();
                let items = items.ok_or_else(|| problem("a symbolic size in a list of floats"))?;
                self.values.push(EValue::DoubleList(items))
            }
            Arg::Ints(items) => self.int_list(items)?,
            Arg::Floats(items) => self.values.push(EValue::DoubleList(items.clone())),
            Arg::Bools(items) => self.values.push(EValue::BoolList(items.clone())),
            Arg::Scalars(items) => {
                let ints: Option<Vec<Expr>> = items
                    .iter()
                    .map(|s| {
                        if let Scalar::Int(i) = s {
                            Some(Expr::Int(*i))
                        } else {
                            None
                        }
                    })
                    .collect();
                match ints {
                    Some(ints) => self.int_list(&ints)?,
                    None => self
                        .values
                        .push(EValue::DoubleList(items.iter().map(|s| s.as_f64()).collect())),
                }
            }
            Arg::Values(items) => {
                let mut indices = Vec::with_capacity(items.len());
                for &item in items {
                    indices.push(self.read(scope, item)?);
                }
                self.values.push(match param.ty.optional_items {
                    true => EValue::OptionalTensorList(indices.into_iter().map(Some).collect()),
                    false => EValue::TensorList(indices),
                })
            }
            Arg::OptionalValues(items) => {
                let mut indices = Vec::with_capacity(items.len());
                for item in items {
                    indices.push(item.map(|value| self.read(scope, value)).transpose()?);
                }
                self.values.push(EValue::OptionalTensorList(indices))
            }
            Arg::Graph(_) => return Err(problem("a subgraph")),
        })
    }

    fn default(&mut self, node: &Node, param: &Param) -> Result<u32, EmitError> {
        let value = match &param.default {
            None if !param.ty.optional => {
                return Err(EmitError::Argument {
                    node: node.name.clone(),
                    op: node.op.name().to_string(),
                    argument: param.name.clone(),
                    problem: "the functional form has no such argument, and there is no default".to_string(),
                });
            }
            None | Some(Default::None) => EValue::Null,
            Some(Default::Bool(b)) => EValue::Bool(*b),
            Some(Default::Int(i)) => EValue::Int(*i),
            Some(Default::Float(f)) => EValue::Double(*f),
            Some(Default::Str(s)) => EValue::String(s.clone()),
            Some(Default::Ints(items)) => {
                let items: Vec<Expr> = items.iter().map(|&i| Expr::Int(i)).collect();
                return self.int_list(&items);
            }
            Some(Default::Floats(items)) => EValue::DoubleList(items.clone()),
            Some(Default::Bools(items)) => EValue::BoolList(items.clone()),
        };
        Ok(self.values.literal(value))
    }

    pub(crate) fn int_list(&mut self, items: &[Expr]) -> Result<u32, EmitError> {
        let mut indices = Vec::with_capacity(items.len());
        for item in items {
            indices.push(self.size(item)?);
        }
        Ok(self.values.literal(EValue::IntList(indices)))
    }
}

/// The out-variant that stands for a functional operator in programs; ExecuTorch's own where it has one.
fn out_variant(op: Op) -> Option<Op> {
    op.out_variant()
}

/// c10::MemoryFormat
fn memory_format_code(format: MemoryFormat) -> i64 {
    match format {
        MemoryFormat::Contiguous => 0,
        MemoryFormat::Preserve => 1,
        MemoryFormat::ChannelsLast => 2,
        MemoryFormat::ChannelsLast3d => 3,
    }
}
