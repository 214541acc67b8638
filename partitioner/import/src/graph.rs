//! Reading one exported graph, node by node, into a functional one.

use crate::archive::Archive;
use crate::args;
use crate::error::{ImportError, Result};
use crate::schema::{self, Argument};
use crate::scope::{Binding, Scope};
use crate::tensor::{Origin, Tensor, TensorId};
use crate::view::{self, Output};
use crate::weights::{Folder, Tables, Weights};
use delegraph_ir::{Arg, ConstantId, Def, Expr, Graph, Module, Node, Op, StateId, TensorType, Type, ValueId};
use delegraph_opset::Schema;
use delegraph_types::{DType, nearest};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

/// What all graphs of an archive share.
pub(crate) struct Session {
    pub archive: Archive,
    pub module: Module,
    pub weights: Weights,
    /// Buffers that some program writes.
    pub states: FxHashMap<ConstantId, StateId>,
    /// Names of symbols that programs use.
    pub symbols: FxHashSet<String>,
    schemas: FxHashMap<Op, Rc<Schema>>,
}

impl Session {
    pub fn new(archive: Archive) -> Session {
        Session {
            archive,
            module: Module::default(),
            weights: Weights::default(),
            states: FxHashMap::default(),
            symbols: FxHashSet::default(),
            schemas: FxHashMap::default(),
        }
    }

    pub fn schema(&mut self, op: Op) -> Rc<Schema> {
        self.schemas.entry(op).or_insert_with(|| Rc::new(op.schema())).clone()
    }
}

/// A graph while it is made.
pub(crate) struct Builder<'s> {
    pub session: &'s mut Session,
    pub tables: &'s Tables,
    pub graph: Graph,
    pub tensors: Vec<Tensor>,
    /// The tensor of each weight that was read: tied ones share it.
    pub weight_tensors: FxHashMap<ConstantId, TensorId>,
    names: FxHashSet<String>,
    source: Option<String>,
    pub depth: usize,
}

/// A graph that is set aside while one inside it is made.
pub(crate) struct Outer {
    graph: Graph,
    tensors: Vec<Tensor>,
    weight_tensors: FxHashMap<ConstantId, TensorId>,
    names: FxHashSet<String>,
}

impl<'s> Builder<'s> {
    pub fn new(session: &'s mut Session, tables: &'s Tables, name: &str) -> Builder<'s> {
        Builder {
            session,
            tables,
            graph: Graph::new(name),
            tensors: Vec::new(),
            weight_tensors: FxHashMap::default(),
            names: FxHashSet::default(),
            source: None,
            depth: 0,
        }
    }

    /// Starts a graph inside this one, with a value space of its own; [`Builder::leave`] takes what it returns.
    pub fn enter(&mut self, name: &str) -> Outer {
        self.depth += 1;
        Outer {
            graph: std::mem::replace(&mut self.graph, Graph::new(name)),
            tensors: std::mem::take(&mut self.tensors),
            weight_tensors: std::mem::take(&mut self.weight_tensors),
            names: std::mem::take(&mut self.names),
        }
    }

    /// Ends the inner graph and returns it.
    pub fn leave(&mut self, outer: Outer) -> Graph {
        self.depth -= 1;
        self.tensors = outer.tensors;
        self.weight_tensors = outer.weight_tensors;
        self.names = outer.names;
        std::mem::replace(&mut self.graph, outer.graph)
    }

    /// Reads all nodes of a scope into the graph.
    pub fn nodes<'g>(&mut self, scope: &mut Scope<'g>) -> Result<()> {
        let source: &'g schema::Graph = scope.source;
        for node in &source.nodes {
            let outer = self.source.take();
            self.source = node
                .metadata
                .stack_trace
                .as_deref()
                .and_then(last_frame)
                .or(outer.clone());
            self.node(scope, node)
                .map_err(|e| e.at(|| place(node, source, self.source.as_deref())))?;
            self.source = outer;
        }
        Ok(())
    }

    fn node<'g>(&mut self, scope: &mut Scope<'g>, node: &'g schema::Node) -> Result<()> {
        let Some(name) = node.target.strip_prefix("torch.ops.") else {
            // `_operator.add`, `math.floor`, `torch.sym_max`: the results are in the table of expressions.
            return match node.outputs.iter().all(is_symbolic) {
                true => Ok(()),
                false => Err(ImportError::unsupported(format!(
                    "`{}` is not an operator",
                    node.target
                ))),
            };
        };
        if let Some(name) = name.strip_prefix("higher_order.") {
            return self.higher_order(scope, node, name);
        }
        let name = operator_name(name);
        match name.as_str() {
            "aten::item" | "aten::_local_scalar_dense" => self.item(scope, node),
            "export::access_subclass_inner_tensor" => inner_tensor(scope, node),
            _ if is_check(&name) => Ok(()),
            _ if name.starts_with("aten::sym_") && node.outputs.iter().all(is_symbolic) => Ok(()),
            _ => {
                let op = Op::find(&name).ok_or_else(|| unknown(&name))?;
                self.call(scope, node, op)
            }
        }
    }

    fn call<'g>(&mut self, scope: &mut Scope<'g>, node: &'g schema::Node, op: Op) -> Result<()> {
        let schema = self.session.schema(op);
        let given = args::assign(&schema, &node.inputs)?;
        if schema.outs().next().is_some() {
            return Err(ImportError::unsupported("an out-variant in an exported program"));
        }
        if schema.is_in_place() {
            return self.in_place(scope, node, op, &schema, &given);
        }
        if self.writes_statistics(op, &schema, &given) {
            return self.training_batch_norm(scope, node, &schema, &given);
        }
        let args = self.arguments(scope, &schema, &given)?;
        self.functional(scope, node, op, &schema, &given, args)
    }

    /// Adds a functional node and binds its outputs.
    pub fn functional<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        op: Op,
        schema: &Schema,
        given: &[Option<&'g Argument>],
        args: Vec<Arg>,
    ) -> Result<()> {
        let names = output_names(schema, node)?;
        let mut types = Vec::with_capacity(names.len());
        for name in &names {
            types.push(match name {
                OutputName::Tensor(name) => scope.tensor_type(name)?.into(),
                OutputName::Symbol(name) => Type::Int(scope.named_expr(name)?),
                OutputName::Literal(value) => Type::Int(Expr::Int(*value)),
                // A result that this call does not have (an optional one) is never read.
                OutputName::None => TensorType::fixed(DType::F32, &[0]).into(),
            });
        }
        let base = node
            .name
            .as_deref()
            .or(names.iter().find_map(OutputName::text))
            .unwrap_or("node");
        let value_names = names.iter().map(|n| n.text().unwrap_or(base).to_string()).collect();
        let values = self.emit(base, op, args.clone(), value_names, types.clone());

        let aliased = view::aliased_parameter(op, schema).and_then(|p| given[p]);
        let mut before = Vec::new();
        for (index, (name, value)) in names.iter().zip(values).enumerate() {
            let (OutputName::Tensor(name), Type::Tensor(ty)) = (name, &types[index]) else {
                continue;
            };
            let strides = scope.strides(name);
            let base = match aliased {
                Some(Argument::Tensor(base)) => Some(self.tensor_of(scope, base)?),
                Some(Argument::Tensors(items)) if items.len() == names.len() => {
                    Some(self.tensor_of(scope, &items[index])?)
                }
                _ => None,
            };
            let out = Output {
                ty,
                strides: strides.as_deref(),
                index,
                before: &before,
            };
            let step = base.and_then(|base| Some((base, self.step_of(op, &args, base, &out)?)));
            let tensor = match step {
                Some((base, step)) => self.add_view(base, step, ty.clone(), strides, value),
                None => self.add_tensor(ty.clone(), strides, value, Origin::Node),
            };
            scope.bind(name, Binding::Tensor(tensor))?;
            before.push(ty);
        }
        Ok(())
    }

    /// Adds a node; names that are taken get a number.
    pub fn emit(
        &mut self,
        name: &str,
        op: Op,
        args: Vec<Arg>,
        value_names: Vec<String>,
        types: Vec<Type>,
    ) -> Vec<ValueId> {
        let mut outputs = Vec::with_capacity(types.len());
        for (value_name, ty) in value_names.into_iter().zip(types) {
            let unique = self.unique(&value_name);
            outputs.push(self.graph.add_value(unique, ty, Def::Node));
        }
        let name = match outputs.first() {
            Some(first) => self.graph.value(*first).name.clone(),
            None => self.unique(name),
        };
        self.graph.nodes.push(Node {
            name,
            op,
            args,
            outputs: outputs.clone(),
            source: self.source.clone(),
            region: None,
        });
        outputs
    }

    /// Adds a node with one tensor result that the exported program does not have.
    pub fn make(&mut self, op: &str, args: Vec<Arg>, ty: TensorType, name: &str) -> Result<ValueId> {
        let op = Op::find(op).ok_or_else(|| ImportError::Bug(format!("`{op}` is not in the operator table")))?;
        let args = delegraph_ir::fill_defaults(op, args);
        Ok(self.emit(name, op, args, vec![name.to_string()], vec![ty.into()])[0])
    }

    /// A name that no value of the graph has yet.
    pub fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_string();
        let mut number = 1u64;
        while !self.names.insert(candidate.clone()) {
            // Doubling keeps many clashes of one name from costing a search each.
            candidate = format!("{name}__{}", self.names.len() as u64 + number);
            number += 1;
        }
        candidate
    }

    /// The value of a name now.
    pub fn read_name(&mut self, scope: &mut Scope, name: &str) -> Result<ValueId> {
        if let Binding::Number(value) = scope.find(name)? {
            return Ok(*value);
        }
        let tensor = self.tensor_of(scope, name)?;
        self.read(tensor)
    }

    /// The tensor of a name; weights enter the graph here.
    pub fn tensor_of(&mut self, scope: &mut Scope, name: &str) -> Result<TensorId> {
        let (folder, weight, attributes) = match scope.find(name)? {
            Binding::Tensor(tensor) => return Ok(*tensor),
            Binding::Number(_) => return Err(ImportError::malformed(format!("`{name}` is a number, not a tensor"))),
            Binding::Weight { folder, name } => (*folder, name.clone(), Vec::new()),
            Binding::Subclass {
                folder,
                name,
                attributes,
            } => (*folder, name.clone(), attributes.clone()),
        };
        let session = &mut *self.session;
        let constants = &mut session.module.constants;
        let id = match attributes.is_empty() {
            true => Some(
                session
                    .weights
                    .constant(&session.archive, self.tables, folder, &weight, constants)?,
            ),
            false => session
                .weights
                .inner(&session.archive, self.tables, folder, &weight, &attributes, constants)?,
        };
        let Some(id) = id else {
            return Err(
                ImportError::unsupported(format!("a tensor subclass (`{name}`) is used whole"))
                    .hint(crate::weights::UNWRAP),
            );
        };
        let constant = &session.module.constants[id];
        let ty = TensorType::fixed(constant.dtype, constant.sizes.as_slice());
        let strides = constant.strides.as_slice().iter().map(|s| Expr::Int(*s)).collect();
        let declared = scope.tensor_type(name)?;
        if declared != ty {
            let message = format!("`{name}` is `{declared}` in the program and `{ty}` in the archive");
            return Err(ImportError::malformed(message));
        }
        let tensor = match self.weight_tensors.get(&id) {
            Some(tensor) => *tensor,
            None => {
                let unique = self.unique(name);
                let value = self.graph.add_constant(unique, ty.clone(), id);
                let tensor = self.add_tensor(ty, Some(strides), value, Origin::Weight(id));
                self.weight_tensors.insert(id, tensor);
                tensor
            }
        };
        if let Some(binding) = scope.names.get_mut(name) {
            *binding = Binding::Tensor(tensor);
        }
        Ok(tensor)
    }

    /// A tensor given where the schema says a number.
    pub fn scalar_of(&mut self, scope: &mut Scope, name: &str) -> Result<ValueId> {
        match scope.find(name)? {
            Binding::Number(value) => Ok(*value),
            _ => Err(ImportError::unsupported(format!(
                "tensor `{name}` is given where the schema says a number"
            ))),
        }
    }

    /// `x.item()`: a number that is read at run time.
    fn item<'g>(&mut self, scope: &mut Scope<'g>, node: &'g schema::Node) -> Result<()> {
        let Some(Argument::Tensor(tensor)) = node.inputs.first().map(|i| &i.arg) else {
            return Err(ImportError::malformed("`item` without a tensor"));
        };
        let mut value = self.read_name(scope, tensor)?;
        let (name, boolean) = match node.outputs.as_slice() {
            [Argument::SymInt(schema::SymArg::Name(name))] => (name, false),
            [Argument::SymBool(schema::SymArg::Name(name))] => (name, true),
            [Argument::SymFloat(schema::SymArg::Name(name))] => {
                let expr = scope.named_expr(name)?;
                expr.for_each_symbol(&mut |symbol| {
                    scope.floats.insert(symbol.clone());
                });
                let op = Op::find("aten::_local_scalar_dense").ok_or_else(|| unknown("aten::_local_scalar_dense"))?;
                let out = self.emit(name, op, vec![Arg::Value(value)], vec![name.clone()], vec![Type::Float]);
                return scope.bind(name, Binding::Number(out[0]));
            }
            // The exporter knew the value.
            [Argument::Int(_) | Argument::Float(_) | Argument::Bool(_) | Argument::None] | [] => return Ok(()),
            _ => return Err(ImportError::unsupported("`item` with a result that is not a number")),
        };
        let expr = scope.named_expr(name)?;
        let mut symbols = Vec::new();
        expr.for_each_symbol(&mut |symbol| symbols.push(symbol.clone()));
        let [symbol] = symbols.as_slice() else {
            // Known, or an expression of sizes that are known.
            return Ok(());
        };
        if !boolean && !matches!(expr, Expr::Symbol(_)) {
            return Ok(());
        }
        if boolean {
            // A boolean is `Eq(u0, 1)`: the symbol is the integer behind it.
            let ty = match self.graph.tensor(value) {
                Some(ty) => TensorType::new(DType::I64, ty.shape.clone()),
                None => return Err(ImportError::malformed("`item` of a number")),
            };
            let args = vec![Arg::Value(value), Arg::DType(DType::I64)];
            value = self.make("aten::_to_copy", args, ty, name)?;
        }
        let op = Op::find("aten::_local_scalar_dense").ok_or_else(|| unknown("aten::_local_scalar_dense"))?;
        let ty = Type::Int(Expr::Symbol(symbol.clone()));
        self.emit(name, op, vec![Arg::Value(value)], vec![name.clone()], vec![ty]);
        Ok(())
    }
}

/// `export.access_subclass_inner_tensor(tensor, attribute)`
fn inner_tensor<'g>(scope: &mut Scope<'g>, node: &'g schema::Node) -> Result<()> {
    let [tensor, attribute] = node.inputs.as_slice() else {
        return Err(ImportError::malformed("two arguments are expected"));
    };
    let (Argument::Tensor(tensor), Argument::Str(attribute)) = (&tensor.arg, &attribute.arg) else {
        return Err(ImportError::malformed("a tensor and an attribute's name are expected"));
    };
    let (folder, name, mut attributes): (Folder, String, Vec<String>) = match scope.find(tensor)? {
        Binding::Weight { folder, name } => (*folder, name.clone(), Vec::new()),
        Binding::Subclass {
            folder,
            name,
            attributes,
        } => (*folder, name.clone(), attributes.clone()),
        _ => {
            return Err(ImportError::unsupported(format!(
                "an inner tensor of `{tensor}`, which is not a weight"
            )));
        }
    };
    attributes.push(attribute.clone());
    match node.outputs.as_slice() {
        [Argument::Tensor(output)] => scope.bind(
            output,
            Binding::Subclass {
                folder,
                name,
                attributes,
            },
        ),
        _ => Err(ImportError::malformed("one result is expected")),
    }
}

pub(crate) enum OutputName<'g> {
    Tensor(&'g str),
    Symbol(&'g str),
    Literal(i64),
    None,
}

impl<'g> OutputName<'g> {
    fn text(&self) -> Option<&'g str> {
        match self {
            OutputName::Tensor(name) | OutputName::Symbol(name) => Some(name),
            _ => None,
        }
    }
}

/// Names of the results, lists flattened, checked against the schema.
fn output_names<'g>(schema: &Schema, node: &'g schema::Node) -> Result<Vec<OutputName<'g>>> {
    let returns = &schema.returns;
    if returns.len() != node.outputs.len() && !(returns.len() == 1 && returns[0].ty.list) {
        let message = format!("{} results where the schema says {}", node.outputs.len(), returns.len());
        return Err(ImportError::malformed(message));
    }
    let mut names = Vec::new();
    for output in &node.outputs {
        match output {
            Argument::Tensor(name) => names.push(OutputName::Tensor(name)),
            Argument::Tensors(items) => names.extend(items.iter().map(|n| OutputName::Tensor(n))),
            Argument::SymInt(schema::SymArg::Name(name)) => names.push(OutputName::Symbol(name)),
            Argument::Int(value) | Argument::SymInt(schema::SymArg::Int(value)) => {
                names.push(OutputName::Literal(*value));
            }
            Argument::None => names.push(OutputName::None),
            _ => return Err(ImportError::unsupported("a result that is not a tensor")),
        }
    }
    Ok(names)
}

/// `aten.add.Tensor` -> `aten::add.Tensor`; the overload `default` has no suffix.
fn operator_name(target: &str) -> String {
    let (namespace, name) = target.split_once('.').unwrap_or(("", target));
    format!("{namespace}::{}", name.strip_suffix(".default").unwrap_or(name))
}

fn is_symbolic(argument: &Argument) -> bool {
    use Argument::*;
    matches!(
        argument,
        SymInt(_) | SymBool(_) | SymFloat(_) | Int(_) | Bool(_) | Float(_) | None
    )
}

/// Checks that have no effect on the results.
fn is_check(name: &str) -> bool {
    [
        "aten::_assert",
        "aten::sym_constrain_range",
        "aten::_functional_assert",
        "aten::_functional_sym_constrain",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            "aten::_make_dep_token" | "aten::_print" | "profiler::_record_function_exit._RecordFunction"
        )
}

pub(crate) fn unknown(name: &str) -> ImportError {
    let error = ImportError::unsupported(format!("operator `{name}` is not known"));
    match nearest(name, Op::all().map(Op::name)) {
        Some(near) => error.hint(format!("the nearest known operator is `{near}`")),
        None => error.hint("custom operators can be replaced before export by a function of ordinary ones"),
    }
}

/// node `add_3` `aten.add.Tensor` (f32[2,3], i64[]) at model.py:12
fn place(node: &schema::Node, graph: &schema::Graph, source: Option<&str>) -> String {
    let mut text = format!(
        "node `{}` `{}` (",
        node.name.as_deref().unwrap_or("?"),
        node.target.trim_start_matches("torch.ops.")
    );
    let mut first = true;
    for input in &node.inputs {
        let names: &[String] = match &input.arg {
            Argument::Tensor(name) => std::slice::from_ref(name),
            Argument::Tensors(names) => names,
            _ => &[],
        };
        for name in names.iter().take(8) {
            let Some(meta) = graph.tensor_values.get(name) else {
                continue;
            };
            let sizes: Vec<String> = meta
                .sizes
                .iter()
                .map(|s| match s {
                    schema::Sym::Int(i) => i.to_string(),
                    _ => "?".to_string(),
                })
                .collect();
            let dtype = u8::try_from(meta.dtype)
                .ok()
                .and_then(DType::from_pt2)
                .map_or("?", DType::name);
            text += &format!("{}{dtype}[{}]", if first { "" } else { ", " }, sizes.join(","));
            first = false;
        }
    }
    text.push(')');
    if let Some(source) = source {
        text += &format!(" at {source}");
    }
    text
}

/// The last frame of a Python stack trace as `file:line: code`.
fn last_frame(trace: &str) -> Option<String> {
    let mut lines = trace.lines().rev().peekable();
    let mut code = "";
    for line in &mut lines {
        let line = line.trim();
        let Some(rest) = line.strip_prefix("File \"") else {
            if !line.is_empty() && !line.starts_with(['^', '~']) {
                code = line;
            }
            continue;
        };
        let (file, rest) = rest.split_once('"')?;
        let number = rest.trim_start_matches(", line ").split(',').next()?.trim();
        return Some(match code.is_empty() {
            true => format!("{file}:{number}"),
            false => format!("{file}:{number}: {code}"),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_operators() {
        assert_eq!(operator_name("aten.add.Tensor"), "aten::add.Tensor");
        assert_eq!(operator_name("aten.relu.default"), "aten::relu");
        assert_eq!(operator_name("acme"), "::acme");
    }

    #[test]
    fn the_last_frame_of_a_trace() {
        let trace = "  File \"a.py\", line 3, in forward\n    y = f(x)\n  File \"b.py\", line 7, in f\n    return x.foo()\n           ^^^^^^^\n";
        assert_eq!(last_frame(trace).as_deref(), Some("b.py:7: return x.foo()"));
        assert_eq!(last_frame("nothing"), None);
    }
}
