//! A recorded program as a module of Delegraph.

use super::data::Program;
use crate::call::{dtype, literal};
use delegraph_ir::{
    Arg, Constant, Def, Expr, ExprOp, Graph, Module, Mutation, MutationTarget, Op, State, StateId, Symbol, SymbolRange,
    TensorType, ValueId, infer,
};
use delegraph_opset::ParamType;
use delegraph_runner::Leaf;
use delegraph_runner::corpus::argument;
use delegraph_runner::fixture::Tensors;
use delegraph_types::Dims;
use serde_json::Value;
use std::collections::BTreeMap;

/// Builds the module. Types of nodes are inferred.
///
/// # Errors
/// A sentence that names the node: an operator is not in the table, a value is not defined, types cannot be inferred.
pub fn build(program: &Program, tensors: &Tensors) -> Result<Module, String> {
    let mut builder = Builder {
        module: Module::default(),
        graph: Graph::new("forward"),
        values: BTreeMap::new(),
    };
    for (name, [min, max]) in &program.symbols {
        let range = SymbolRange {
            min: *min,
            max: Some(*max),
        };
        builder.module.symbols.ranges.insert(Symbol::new(name), range);
    }
    for (name, element, sizes) in &program.inputs {
        let shape = sizes.iter().map(size).collect::<Result<_, _>>()?;
        let value = builder
            .graph
            .add_input(name, TensorType::new(dtype(element)?, shape).into());
        builder.values.insert(name.clone(), value);
    }
    for (name, key) in &program.constants {
        let (constant, ty) = constant(name, key, tensors)?;
        let id = builder.module.constants.push(constant);
        let value = builder.graph.add_constant(name, ty, id);
        builder.values.insert(name.clone(), value);
    }
    for (name, key, _) in &program.states {
        let (constant, ty) = constant(name, key, tensors)?;
        let initial = Some(builder.module.constants.push(constant));
        let id = StateId::from(builder.module.states.len());
        builder.module.states.push(State {
            name: name.clone(),
            ty: ty.clone(),
            initial,
        });
        let value = builder.graph.add_value(name, ty.into(), Def::State(id));
        builder.values.insert(name.clone(), value);
    }
    for (i, (op, args, results)) in program.nodes.iter().enumerate() {
        builder
            .node(op, args, results)
            .map_err(|problem| format!("node {i}, `{op}`: {problem}"))?;
    }
    for name in &program.outputs {
        let value = builder.value(name)?;
        builder.graph.add_output(value);
    }
    for (i, (_, _, written)) in program.states.iter().enumerate() {
        let value = builder.value(written)?;
        builder.graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId::from(i)),
            value,
        });
    }
    builder.module.graphs.push(builder.graph);
    Ok(builder.module)
}

struct Builder {
    module: Module,
    graph: Graph,
    values: BTreeMap<String, ValueId>,
}

impl Builder {
    fn value(&self, name: &str) -> Result<ValueId, String> {
        let found = self.values.get(name).copied();
        found.ok_or_else(|| format!("there is no value `{name}`"))
    }

    fn node(&mut self, name: &str, given: &[(String, Value)], results: &[String]) -> Result<(), String> {
        let op = Op::find(name).ok_or("it is not in the operator table")?;
        let mut args = Vec::new();
        for param in &op.schema().params {
            let arg = match given.iter().find(|(known, _)| *known == param.name) {
                Some((_, value)) => self
                    .argument(value, param.ty)
                    .map_err(|problem| format!("argument `{}`: {problem}", param.name))?,
                None => delegraph_ir::default_arg(param),
            };
            args.push(arg);
        }
        let types = infer(op, &args, &self.graph, &self.module.symbols).map_err(|error| error.to_string())?;
        if types.len() != results.len() {
            return Err(format!(
                "{} results, type inference gives {}",
                results.len(),
                types.len()
            ));
        }
        let made = self.graph.push(name, args, types).map_err(|error| error.to_string())?;
        self.values.extend(results.iter().cloned().zip(made));
        Ok(())
    }

    fn argument(&self, value: &Value, ty: ParamType) -> Result<Arg, String> {
        let names = |items: &Value| -> Result<Vec<Option<ValueId>>, String> {
            let items = items.as_array().ok_or("it is no list")?;
            let item = |item: &Value| item.as_str().map(|name| self.value(name)).transpose();
            items.iter().map(item).collect()
        };
        if let Some(name) = value["v"].as_str() {
            return Ok(Arg::Value(self.value(name)?));
        }
        if let Some(items) = value.get("vl") {
            let values = names(items)?;
            return Ok(match ty.optional_items {
                true => Arg::OptionalValues(values),
                false => Arg::Values(values.into_iter().flatten().collect()),
            });
        }
        if let Some(found) = value.get("e") {
            return Ok(Arg::Int(size(found)?));
        }
        if let Some(items) = value.get("el") {
            let items = items.as_array().ok_or("it is no list")?;
            return Ok(Arg::Ints(items.iter().map(size).collect::<Result<_, _>>()?));
        }
        literal(&argument(value)?, ty)
    }
}

fn constant(name: &str, key: &str, tensors: &Tensors) -> Result<(Constant, TensorType), String> {
    match tensors.get(key) {
        Some(Leaf::Tensor { dtype, shape, bytes }) => {
            let sizes = Dims::new(shape).map_err(|error| error.to_string())?;
            let constant = Constant::contiguous(name, *dtype, sizes, bytes.clone().into());
            Ok((constant, TensorType::fixed(*dtype, shape)))
        }
        _ => Err(format!("the shard has no tensor `{key}`")),
    }
}

/// An integer, a symbol by name, or an operator with its operands.
fn size(value: &Value) -> Result<Expr, String> {
    if let Some(i) = value.as_i64() {
        return Ok(Expr::Int(i));
    }
    if let Some(name) = value.as_str() {
        return Ok(Expr::symbol(name));
    }
    let (op, rest) = value
        .as_array()
        .and_then(|items| Some((items.first()?.as_str()?, &items[1..])))
        .ok_or_else(|| format!("{value} is no size"))?;
    let op = match op {
        "add" => ExprOp::Add,
        "mul" => ExprOp::Mul,
        "floordiv" => ExprOp::FloorDiv,
        "mod" => ExprOp::Mod,
        _ => return Err(format!("{value} is no size")),
    };
    Ok(Expr::op(op, rest.iter().map(size).collect::<Result<_, _>>()?))
}
