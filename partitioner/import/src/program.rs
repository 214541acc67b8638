//! One program of an archive: its signature, its symbols, and the method that it becomes.

use crate::error::{ImportError, Result};
use crate::graph::{Builder, Session};
use crate::schema::{Argument, InputSpec, OutputSpec, Program, ProgramVersion, SymArg};
use crate::scope::{Binding, Resolved, Scope, SymbolNames};
use crate::sympy;
use crate::tensor::Origin;
use crate::weights::{Folder, Tables};
use delegraph_ir::{
    Arg, ConstantId, Def, Expr, Input, InputKind, Module, Mutation, MutationTarget, Output, State, StateId,
    SymbolRange, TensorType, Type,
};
use rustc_hash::FxHashMap;
use std::cell::RefCell;

/// Schema major version that is understood.
const MAJOR: i64 = 8;

/// Parses `models/<name>.json`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Program> {
    let bad = |e: serde_json::Error| ImportError::malformed(e.to_string());
    let version = serde_json::from_slice::<ProgramVersion>(bytes)
        .map_err(bad)?
        .schema_version;
    if version.major != MAJOR {
        let message = format!(
            "schema version {}.{} (only {MAJOR}.x is known)",
            version.major, version.minor
        );
        return Err(ImportError::unsupported(message).hint("save it again with torch 2.9 to 2.15"));
    }
    serde_json::from_slice(bytes).map_err(bad)
}

/// Reads a program into a method of the module.
pub(crate) fn read(session: &mut Session, program: &Program, stem: &str, method: &str) -> Result<()> {
    let tables = Tables::read(&session.archive, stem)?;
    let symbols = SymbolNames {
        taken: session.symbols.clone(),
        seen: RefCell::default(),
        suffix: method.to_string(),
    };
    ranges(session, program, &symbols)?;
    let mut scope = Scope::new(&program.graph_module.graph, &symbols);
    let mut builder = Builder::new(session, &tables, method);
    inputs(&mut builder, &mut scope, program)?;
    builder.nodes(&mut scope)?;
    outputs(&mut builder, &mut scope, program)?;
    mutations(&mut builder)?;
    let mut graph = builder.graph;
    let whole = program
        .graph_module
        .module_call_graph
        .iter()
        .find(|call| call.fqn.is_empty());
    if let Some(signature) = whole.and_then(|call| call.signature.as_ref()) {
        graph.in_spec.clone_from(&signature.in_spec);
        graph.out_spec.clone_from(&signature.out_spec);
    }
    session.module.graphs.push(graph);
    session.symbols.extend(symbols.seen.into_inner());
    Ok(())
}

/// What holds between the methods: a buffer that one of them writes is a state in all.
pub(crate) fn finish(mut session: Session) -> Result<Module> {
    check_overlap(&session)?;
    let states = std::mem::take(&mut session.states);
    for graph in &mut session.module.graphs {
        for value in &mut graph.values {
            if let Def::Constant(id) = value.def
                && let Some(state) = states.get(&id)
            {
                value.def = Def::State(*state);
            }
        }
    }
    Ok(session.module)
}

fn ranges(session: &mut Session, program: &Program, symbols: &SymbolNames) -> Result<()> {
    let mut derived = Vec::new();
    for (key, range) in &program.range_constraints {
        let at = || format!("range of `{key}`");
        let expr = sympy::parse_infix(key, &|s| symbols.name(s)).map_err(|e| e.at(at))?;
        // The schema allows an end to be absent: then it is not bounded.
        let range = SymbolRange {
            min: range.min_val.unwrap_or(i64::MIN),
            max: range.max_val,
        };
        if range.max.is_some_and(|max| max < range.min) {
            return Err(ImportError::malformed("an empty range").at(at));
        }
        match expr {
            Expr::Symbol(symbol) => {
                session.module.symbols.ranges.insert(symbol, range);
            }
            other => derived.push((other, range)),
        }
    }
    // `2*s16` in [14, 256] bounds s16, where the file does not do so itself.
    for (expr, range) in derived {
        if let Some((symbol, factor, offset)) = expr.as_linear()
            && factor > 0
        {
            let solve = |end: i64, up: i64| Some((end.checked_sub(offset)?.checked_add(up)?).div_euclid(factor));
            let solved = SymbolRange {
                min: solve(range.min, factor - 1).unwrap_or(i64::MIN),
                max: range.max.and_then(|max| solve(max, 0)),
            };
            session.module.symbols.ranges.entry(symbol).or_insert(solved);
        }
    }
    Ok(())
}

fn inputs<'g>(builder: &mut Builder, scope: &mut Scope<'g>, program: &'g Program) -> Result<()> {
    let graph = &program.graph_module.graph;
    let specs = &program.graph_module.signature.input_specs;
    if graph.inputs.len() != specs.len() {
        let message = format!("{} inputs and {} input_specs", graph.inputs.len(), specs.len());
        return Err(ImportError::malformed(message));
    }
    for (position, spec) in specs.iter().enumerate() {
        let weight = |folder, name: &String| Binding::Weight {
            folder,
            name: name.clone(),
        };
        match spec {
            InputSpec::Parameter { arg, name } => scope.bind(arg, weight(Folder::Weights, name))?,
            InputSpec::Buffer { arg, name, persistent } => {
                let folder = if *persistent {
                    Folder::Weights
                } else {
                    Folder::Constants
                };
                scope.bind(arg, weight(folder, name))?;
            }
            InputSpec::TensorConstant { arg, name } => scope.bind(arg, weight(Folder::Constants, name))?,
            InputSpec::Constant { name, value } => {
                let kind = InputKind::Literal(literal(value)?);
                builder.graph.inputs.push(Input {
                    name: name.clone(),
                    kind,
                });
            }
            InputSpec::User(argument) => {
                let name = format!("arg{position}");
                user_input(builder, scope, argument, name).map_err(|e| e.at(|| format!("input {position}")))?;
            }
            InputSpec::Other(kind) => {
                return Err(ImportError::unsupported(format!("an input of kind `{kind}`")));
            }
        }
    }
    Ok(())
}

fn user_input<'g>(builder: &mut Builder, scope: &mut Scope<'g>, argument: &'g Argument, name: String) -> Result<()> {
    let number = |builder: &mut Builder, name: &str, ty: Type| {
        let unique = builder.unique(name);
        builder.graph.add_input(unique, ty)
    };
    match argument {
        Argument::Tensor(name) => {
            let (ty, strides) = (scope.tensor_type(name)?, scope.strides(name));
            let value = number(builder, name, ty.clone().into());
            let position = builder.graph.inputs.len() as u32 - 1;
            let tensor = builder.add_tensor(ty, strides, value, Origin::Input(position));
            scope.bind(name, Binding::Tensor(tensor))?;
        }
        Argument::SymInt(SymArg::Name(name)) => {
            let expr = scope.named_expr(name)?;
            number(builder, name, Type::Int(expr));
        }
        Argument::SymFloat(SymArg::Name(name)) => {
            let expr = scope.named_expr(name)?;
            expr.for_each_symbol(&mut |symbol| {
                scope.floats.insert(symbol.clone());
            });
            let value = number(builder, name, Type::Float);
            scope.bind(name, Binding::Number(value))?;
        }
        Argument::SymBool(SymArg::Name(name)) => {
            let value = number(builder, name, Type::Bool);
            scope.bind(name, Binding::Number(value))?;
        }
        other => builder.graph.inputs.push(Input {
            name,
            kind: InputKind::Literal(literal(other)?),
        }),
    }
    Ok(())
}

fn literal(argument: &Argument) -> Result<Arg> {
    Ok(match argument {
        Argument::None => Arg::None,
        Argument::Int(i) | Argument::SymInt(SymArg::Int(i)) => Arg::int(*i),
        Argument::Float(x) | Argument::SymFloat(SymArg::Float(x)) => Arg::Float(*x),
        Argument::Bool(b) | Argument::SymBool(SymArg::Bool(b)) => Arg::Bool(*b),
        Argument::Str(text) => Arg::Str(text.clone()),
        Argument::DType(code) => Arg::DType(crate::weights::dtype(*code)?),
        Argument::Device => Arg::None,
        Argument::Other(kind) => return Err(ImportError::unsupported(format!("a value of kind `{kind}`"))),
        _ => {
            return Err(ImportError::unsupported(
                "a value that is neither a tensor nor a number",
            ));
        }
    })
}

fn outputs<'g>(builder: &mut Builder, scope: &mut Scope<'g>, program: &'g Program) -> Result<()> {
    let signature = &program.graph_module.signature;
    let placeholders: FxHashMap<&str, &str> = signature
        .input_specs
        .iter()
        .filter_map(|spec| match spec {
            InputSpec::Parameter { arg, name } | InputSpec::Buffer { arg, name, .. } => {
                Some((name.as_str(), arg.as_str()))
            }
            _ => None,
        })
        .collect();
    // A functional program names what its mutations write; everything is read before anything is written.
    let mut writes = Vec::new();
    for spec in &signature.output_specs {
        let (arg, target) = match spec {
            OutputSpec::User(argument) => {
                let output = output(builder, scope, argument)?;
                builder.graph.outputs.push(output);
                continue;
            }
            OutputSpec::BufferMutation { arg, name } | OutputSpec::ParameterMutation { arg, name } => {
                let placeholder = placeholders.get(name.as_str()).copied();
                let missing = || ImportError::malformed(format!("a mutation of `{name}`, which is no input"));
                (arg, placeholder.ok_or_else(missing)?)
            }
            OutputSpec::UserInputMutation { arg, name } => (arg, name.as_str()),
            OutputSpec::Other(kind) => {
                return Err(ImportError::unsupported(format!("an output of kind `{kind}`"))
                    .hint("export the model for inference: no gradients and no tokens of effects"));
            }
        };
        writes.push((builder.tensor_of(scope, target)?, builder.read_name(scope, arg)?));
    }
    for (target, value) in writes {
        builder.write(target, value)?;
    }
    Ok(())
}

fn output<'g>(builder: &mut Builder, scope: &mut Scope<'g>, argument: &'g Argument) -> Result<Output> {
    Ok(match argument {
        Argument::Tensor(name) => Output::Value(builder.read_name(scope, name)?),
        Argument::SymInt(arg) => match scope.resolve(arg)? {
            Resolved::Value(value) => Output::Value(value),
            Resolved::Expr(expr) => Output::Literal(Arg::Int(expr)),
            Resolved::Bool(b) => Output::Literal(Arg::Bool(b)),
            Resolved::Float(x) => Output::Literal(Arg::Float(x)),
        },
        Argument::SymBool(arg) | Argument::SymFloat(arg) => match scope.resolve(arg)? {
            Resolved::Value(value) => Output::Value(value),
            Resolved::Expr(Expr::Int(i)) if matches!(argument, Argument::SymBool(_)) => {
                Output::Literal(Arg::Bool(i != 0))
            }
            Resolved::Expr(Expr::Float(bits)) => Output::Literal(Arg::Float(f64::from_bits(bits))),
            Resolved::Expr(expr) => Output::Literal(Arg::Sym(expr)),
            Resolved::Bool(b) => Output::Literal(Arg::Bool(b)),
            Resolved::Float(x) => Output::Literal(Arg::Float(x)),
        },
        other => Output::Literal(literal(other)?),
    })
}

/// The last value of each input and buffer that was written.
fn mutations(builder: &mut Builder) -> Result<()> {
    for tensor in builder.written() {
        let target = match builder.tensor(tensor).origin {
            Origin::Node => continue,
            Origin::Input(position) => MutationTarget::Input(position),
            Origin::Weight(id) => MutationTarget::State(state(builder.session, id)?),
        };
        let value = builder.read(tensor)?;
        if builder.graph.tensor(value) != Some(&builder.tensor(tensor).ty) {
            let name = &builder.graph.value(value).name;
            return Err(ImportError::malformed(format!(
                "`{name}` is written to a tensor of another type"
            )));
        }
        builder.graph.mutations.push(Mutation { target, value });
    }
    Ok(())
}

/// The state that a buffer is; one for each name.
fn state(session: &mut Session, id: ConstantId) -> Result<StateId> {
    if let Some(state) = session.states.get(&id) {
        return Ok(*state);
    }
    let constant = &session.module.constants[id];
    // A buffer of the same name with other contents gets a number when it is read: see `Weights::add`.
    let name = constant.name.clone();
    if name.contains('@') || session.module.states.iter().any(|s| s.name == name) {
        return Err(
            ImportError::unsupported(format!("two programs write buffers `{name}` that differ")).hint(
                "a buffer of one name is one state in all methods: give them the same contents or different names",
            ),
        );
    }
    let state = StateId::from(session.module.states.len());
    session.module.states.push(State {
        name,
        ty: TensorType::fixed(constant.dtype, constant.sizes.as_slice()),
        initial: Some(id),
    });
    session.states.insert(id, state);
    Ok(state)
}

/// A written buffer that shares memory with another one would have to be seen through it.
fn check_overlap(session: &Session) -> Result<()> {
    let mut windows: Vec<(usize, usize, ConstantId)> = Vec::new();
    for (id, constant) in session.module.constants.iter() {
        let (start, _) = constant.storage.address();
        let item = constant.dtype.size();
        let (sizes, strides) = (&constant.sizes, &constant.strides);
        if sizes.numel() == Some(0) {
            continue;
        }
        let last: i64 = (0..sizes.rank()).map(|d| (sizes[d] - 1) * strides[d]).sum();
        let first = start + constant.offset * item;
        windows.push((first, first + (last as usize + 1) * item, id));
    }
    windows.sort_unstable();
    let mut reach: Option<(usize, ConstantId)> = None;
    let mut written_reach: Option<(usize, ConstantId)> = None;
    for (start, end, id) in windows {
        let written = session.states.contains_key(&id);
        let clash = match written {
            true => reach.filter(|r| r.0 > start),
            false => written_reach.filter(|r| r.0 > start),
        };
        if let Some((_, other)) = clash {
            let (a, b) = (
                &session.module.constants[id].name,
                &session.module.constants[other].name,
            );
            return Err(ImportError::unsupported(format!(
                "buffers `{a}` and `{b}` share memory, and one is written to"
            ))
            .hint("give each its own memory: `register_buffer(name, tensor.clone())`"));
        }
        let further = |r: Option<(usize, ConstantId)>| r.filter(|r| r.0 >= end).or(Some((end, id)));
        reach = further(reach);
        if written {
            written_reach = further(written_reach);
        }
    }
    Ok(())
}
