//! Higher-order operators: subgraphs with a value space of their own, and wrappers that are inlined.

use crate::error::{ImportError, Result};
use crate::graph::Builder;
use crate::schema::{self, Argument, GraphArgument, SymArg};
use crate::scope::{Binding, Resolved, Scope};
use crate::tensor::Origin;
use delegraph_ir::{Arg, Expr, Graph, Op, Output, Type};
use delegraph_types::nearest;

const MAX_DEPTH: usize = 12;
const KNOWN: [&str; 7] = [
    "cond",
    "map",
    "map_impl",
    "scan",
    "while_loop",
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
];

impl<'s> Builder<'s> {
    /// A node of `torch.ops.higher_order`.
    pub fn higher_order<'g>(&mut self, scope: &mut Scope<'g>, node: &'g schema::Node, name: &str) -> Result<()> {
        let name = name.strip_suffix(".default").unwrap_or(name);
        let args: Vec<&'g Argument> = node.inputs.iter().map(|i| &i.arg).collect();
        match (name, args.as_slice()) {
            ("cond", [pred, Argument::Graph(yes), Argument::Graph(no), operands]) => {
                let pred = self.predicate(scope, pred)?;
                let operands = operands_of(operands)?;
                let (yes, values) = self.subgraph(scope, yes, &operands)?;
                let (no, _) = self.subgraph(scope, no, &operands)?;
                let args = vec![pred, Arg::Graph(Box::new(yes)), Arg::Graph(Box::new(no)), values];
                self.finish(scope, node, "higher_order::cond", args)
            }
            ("map_impl" | "map", [Argument::Graph(body), mapped, extra]) => {
                let (mapped, extra) = (operands_of(mapped)?, operands_of(extra)?);
                self.loop_over(scope, node, "higher_order::map", body, &[mapped, extra])
            }
            ("scan", [Argument::Graph(body), init, xs, extra]) => {
                let groups = [operands_of(init)?, operands_of(xs)?, operands_of(extra)?];
                self.loop_over(scope, node, "higher_order::scan", body, &groups)
            }
            ("while_loop", [Argument::Graph(cond), Argument::Graph(body), carried, extra]) => {
                let groups = [operands_of(carried)?, operands_of(extra)?];
                let all = groups.concat();
                let (cond, _) = self.subgraph(scope, cond, &all)?;
                let (body, _) = self.subgraph(scope, body, &all)?;
                let mut args = vec![Arg::Graph(Box::new(cond)), Arg::Graph(Box::new(body))];
                for group in &groups {
                    args.push(self.values(scope, group)?);
                }
                self.finish(scope, node, "higher_order::while_loop", args)
            }
            ("wrap_with_set_grad_enabled", [Argument::Bool(_), Argument::Graph(graph), operands @ ..]) => {
                self.inline(scope, node, graph, &flat(operands)?)
            }
            (
                "wrap_with_autocast",
                [
                    Argument::Str(device),
                    _,
                    enabled,
                    _,
                    Argument::Graph(graph),
                    operands @ ..,
                ],
            ) => {
                // Off the CPU it changes nothing here; on it, the operators inside would have to be cast.
                if device == "cpu" && !matches!(enabled, Argument::Bool(false)) {
                    return Err(ImportError::unsupported("autocast on the CPU").hint(
                        "export with `run_decompositions()`, which writes the casts into the graph, or cast the model itself",
                    ));
                }
                self.inline(scope, node, graph, &flat(operands)?)
            }
            ("strict_mode" | "wrap" | "tag_activation_checkpoint", [Argument::Graph(graph), operands @ ..]) => {
                self.inline(scope, node, graph, &flat(operands)?)
            }
            ("invoke_subgraph", [Argument::Graph(graph), Argument::Str(_) | Argument::None, operands @ ..]) => {
                self.inline(scope, node, graph, &flat(operands)?)
            }
            _ if KNOWN.contains(&name) => Err(ImportError::unsupported(format!(
                "higher-order operator `{name}` with {} arguments of these kinds",
                args.len()
            ))),
            _ => {
                let error = ImportError::unsupported(format!("higher-order operator `{name}` is not known"));
                Err(match nearest(name, KNOWN) {
                    Some(near) => error.hint(format!("the nearest known one is `{near}`")),
                    None => error,
                })
            }
        }
    }

    fn predicate<'g>(&mut self, scope: &mut Scope<'g>, pred: &'g Argument) -> Result<Arg> {
        Ok(match pred {
            Argument::Tensor(name) => Arg::Value(self.read_name(scope, name)?),
            Argument::Bool(b) => Arg::Bool(*b),
            Argument::SymBool(arg) | Argument::SymInt(arg) => match scope.resolve(arg)? {
                Resolved::Value(value) => Arg::Value(value),
                Resolved::Bool(b) => Arg::Bool(b),
                Resolved::Expr(Expr::Int(i)) => Arg::Bool(i != 0),
                Resolved::Expr(expr) => Arg::Sym(expr),
                Resolved::Float(_) => return Err(ImportError::malformed("a predicate that is a float")),
            },
            _ => {
                return Err(ImportError::malformed(
                    "a predicate that is neither a tensor nor a boolean",
                ));
            }
        })
    }

    fn loop_over<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        op: &str,
        body: &'g GraphArgument,
        groups: &[Vec<Operand<'g>>],
    ) -> Result<()> {
        let (body, _) = self.subgraph(scope, body, &groups.concat())?;
        let mut args = vec![Arg::Graph(Box::new(body))];
        for group in groups {
            args.push(self.values(scope, group)?);
        }
        self.finish(scope, node, op, args)
    }

    /// The tensors among operands; sizes are shared as symbols and not passed.
    fn values<'g>(&mut self, scope: &mut Scope<'g>, operands: &[Operand<'g>]) -> Result<Arg> {
        let mut values = Vec::new();
        for operand in operands {
            if let Operand::Tensor(name) = operand {
                values.push(self.read_name(scope, name)?);
            }
        }
        Ok(Arg::Values(values))
    }

    /// Reads a subgraph; also gives its operands.
    fn subgraph<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        argument: &'g GraphArgument,
        operands: &[Operand<'g>],
    ) -> Result<(Graph, Arg)> {
        let at = || format!("graph `{}`", argument.name);
        if self.depth == MAX_DEPTH {
            return Err(ImportError::malformed("graphs nested too deep").at(at));
        }
        let values = self.values(scope, operands)?;
        let mut inner = scope.inner(&argument.graph);
        if argument.graph.inputs.len() != operands.len() {
            let message = format!("{} inputs for {} operands", argument.graph.inputs.len(), operands.len());
            return Err(ImportError::malformed(message).at(at));
        }
        let graph = self.nested(&argument.name, |builder| {
            bind_sizes(scope, &mut inner, &argument.graph.inputs, operands)?;
            for (input, operand) in argument.graph.inputs.iter().zip(operands) {
                if let (Argument::Tensor(name), Operand::Tensor(_)) = (input, operand) {
                    let (ty, strides) = (inner.tensor_type(name)?, inner.strides(name));
                    let unique = builder.unique(name);
                    let value = builder.graph.add_input(unique, ty.clone().into());
                    let position = builder.graph.inputs.len() as u32 - 1;
                    let tensor = builder.add_tensor(ty, strides, value, Origin::Input(position));
                    inner.bind(name, Binding::Tensor(tensor))?;
                }
            }
            builder.nodes(&mut inner)?;
            for output in &argument.graph.outputs {
                match output {
                    Argument::Tensor(name) => {
                        let value = builder.read_name(&mut inner, name)?;
                        builder.graph.outputs.push(Output::Value(value));
                    }
                    // While the condition of a loop is a tensor, a size may be compared instead.
                    Argument::SymBool(arg) => {
                        let literal = match inner.resolve(arg)? {
                            Resolved::Expr(expr) => Arg::Sym(expr),
                            Resolved::Bool(b) => Arg::Bool(b),
                            _ => return Err(ImportError::unsupported("a graph's result is a float")),
                        };
                        builder.graph.outputs.push(Output::Literal(literal));
                    }
                    Argument::Bool(b) => builder.graph.outputs.push(Output::Literal(Arg::Bool(*b))),
                    _ => return Err(ImportError::unsupported("a result of the graph is not a tensor")),
                }
            }
            if builder
                .written()
                .iter()
                .any(|t| builder.tensor(*t).origin != Origin::Node)
            {
                return Err(ImportError::unsupported("the graph writes to its operands")
                    .hint("return the new value from the branch or body, and write outside of it"));
            }
            Ok(())
        });
        graph.map(|graph| (graph, values)).map_err(|e| e.at(at))
    }

    /// Makes a graph with a value space of its own.
    fn nested(&mut self, name: &str, build: impl FnOnce(&mut Builder<'s>) -> Result<()>) -> Result<Graph> {
        let outer = self.enter(name);
        let result = build(self);
        let graph = self.leave(outer);
        result.map(|()| graph)
    }

    /// Binds the results of the node.
    fn finish<'g>(&mut self, scope: &mut Scope<'g>, node: &'g schema::Node, op: &str, args: Vec<Arg>) -> Result<()> {
        let op = Op::find(op).ok_or_else(|| crate::graph::unknown(op))?;
        let mut names: Vec<&'g str> = Vec::new();
        for output in &node.outputs {
            match output {
                Argument::Tensor(name) => names.push(name),
                Argument::Tensors(items) => names.extend(items.iter().map(String::as_str)),
                _ => return Err(ImportError::unsupported("a result that is not a tensor")),
            }
        }
        let expected = args.iter().rev().find_map(|arg| match arg {
            Arg::Graph(graph) => Some(graph.outputs.len()),
            _ => None,
        });
        if expected != Some(names.len()) {
            let message = format!(
                "{} results of a graph that gives {}",
                names.len(),
                expected.unwrap_or(0)
            );
            return Err(ImportError::malformed(message));
        }
        let mut types = Vec::new();
        for name in &names {
            types.push(scope.tensor_type(name)?);
        }
        let base = node.name.as_deref().unwrap_or("node");
        let value_names = names.iter().map(|n| n.to_string()).collect();
        let values = self.emit(
            base,
            op,
            args,
            value_names,
            types.iter().cloned().map(Type::from).collect(),
        );
        for ((name, value), ty) in names.into_iter().zip(values).zip(types) {
            let tensor = self.add_tensor(ty, scope.strides(name), value, Origin::Node);
            scope.bind(name, Binding::Tensor(tensor))?;
        }
        Ok(())
    }

    /// Reads the nodes of a wrapper into the graph itself: what it writes is seen outside.
    fn inline<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        argument: &'g GraphArgument,
        operands: &[Operand<'g>],
    ) -> Result<()> {
        let at = || format!("graph `{}`", argument.name);
        if self.depth == MAX_DEPTH {
            return Err(ImportError::malformed("graphs nested too deep").at(at));
        }
        if argument.graph.inputs.len() != operands.len() {
            let message = format!("{} inputs for {} operands", argument.graph.inputs.len(), operands.len());
            return Err(ImportError::malformed(message).at(at));
        }
        let mut inner = scope.inner(&argument.graph);
        bind_sizes(scope, &mut inner, &argument.graph.inputs, operands)?;
        for (input, operand) in argument.graph.inputs.iter().zip(operands) {
            if let (Argument::Tensor(name), Operand::Tensor(outer)) = (input, operand) {
                let binding = scope.find(outer)?.clone();
                inner.bind(name, binding)?;
            }
        }
        self.depth += 1;
        let done = self.nodes(&mut inner);
        self.depth -= 1;
        done.map_err(|e| e.at(at))?;
        // Sizes are in the outer table of expressions: they have no name here.
        let listed: Vec<&'g str> = node
            .outputs
            .iter()
            .flat_map(|output| match output {
                Argument::Tensors(items) => items.iter().map(String::as_str).collect(),
                Argument::Tensor(name) => vec![name.as_str()],
                _ => vec![""],
            })
            .collect();
        if listed.len() != argument.graph.outputs.len() {
            let message = format!(
                "{} results of a graph that gives {}",
                listed.len(),
                argument.graph.outputs.len()
            );
            return Err(ImportError::malformed(message).at(at));
        }
        for (name, output) in listed.into_iter().zip(&argument.graph.outputs) {
            match output {
                Argument::Tensor(result) if !name.is_empty() => {
                    let binding = inner.find(result)?.clone();
                    scope.bind(name, binding)?;
                }
                _ if name.is_empty() => {}
                _ => return Err(ImportError::malformed("a result of the graph is not a tensor").at(at)),
            }
        }
        Ok(())
    }
}

/// An operand of a higher-order operator.
#[derive(Debug, Clone)]
pub(crate) enum Operand<'g> {
    Tensor(&'g str),
    Size(SymArg),
    Literal,
}

/// Binds the inputs that are not tensors. They come first, since the tensors' sizes are made of them.
fn bind_sizes<'g>(
    scope: &mut Scope<'g>,
    inner: &mut Scope<'g>,
    inputs: &'g [Argument],
    operands: &[Operand],
) -> Result<()> {
    for (input, operand) in inputs.iter().zip(operands) {
        if !matches!((input, operand), (Argument::Tensor(_), Operand::Tensor(_))) {
            bind_size(scope, inner, input, operand)?;
        }
    }
    Ok(())
}

/// An inner graph calls an outer size by a name or symbol of its own.
fn bind_size<'g>(scope: &mut Scope<'g>, inner: &mut Scope<'g>, input: &'g Argument, operand: &Operand) -> Result<()> {
    match (input, operand) {
        (Argument::SymInt(SymArg::Name(name)), Operand::Size(arg)) => {
            let outer = scope.size(arg)?;
            match inner.named_expr(name)? {
                Expr::Symbol(symbol) if Expr::Symbol(symbol.clone()) != outer => {
                    inner.substitute(symbol, outer);
                    Ok(())
                }
                own if own == outer => Ok(()),
                own => Err(ImportError::unsupported(format!(
                    "a graph's input of size `{own}` is given `{outer}`"
                ))),
            }
        }
        (Argument::Int(_) | Argument::Float(_) | Argument::Bool(_) | Argument::None | Argument::Str(_), _) => Ok(()),
        (Argument::Tensor(name), _) => Err(ImportError::malformed(format!("operand `{name}` is not a tensor"))),
        _ => Err(ImportError::unsupported(
            "an operand that is neither a tensor nor a size",
        )),
    }
}

fn operands_of<'g>(argument: &'g Argument) -> Result<Vec<Operand<'g>>> {
    Ok(match argument {
        Argument::Tensors(names) => names.iter().map(|n| Operand::Tensor(n)).collect(),
        Argument::Tensor(name) => vec![Operand::Tensor(name)],
        Argument::SymInts(items) => items.iter().cloned().map(Operand::Size).collect(),
        Argument::SymInt(item) => vec![Operand::Size(item.clone())],
        Argument::Ints(items) => items.iter().map(|i| Operand::Size(SymArg::Int(*i))).collect(),
        Argument::Int(i) => vec![Operand::Size(SymArg::Int(*i))],
        Argument::Float(_) | Argument::Bool(_) | Argument::None | Argument::Str(_) => vec![Operand::Literal],
        _ => return Err(ImportError::unsupported("operands that are neither tensors nor sizes")),
    })
}

fn flat<'g>(arguments: &[&'g Argument]) -> Result<Vec<Operand<'g>>> {
    let groups: Vec<Vec<Operand>> = arguments.iter().map(|a| operands_of(a)).collect::<Result<_>>()?;
    Ok(groups.concat())
}
