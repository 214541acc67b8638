//! Prints an imported `.pt2` as Python that runs it on PyTorch, for `tests/check_with_torch.py`: what is checked so is the
//! importer alone (names, arguments, aliasing, subgraphs), with PyTorch's own operators.

use delegraph_import::{ImportOptions, import};
use delegraph_ir::{Arg, Def, Expr, ExprOp, Graph, InputKind, MemoryFormat, Module, MutationTarget, Output, Type};
use delegraph_types::Scalar;
use std::collections::HashSet;
use std::fmt::Write;

fn main() {
    let path = std::env::args().nth(1).expect("usage: torch_source FILE");
    let module = match import(path.as_ref(), &ImportOptions::default()) {
        Ok(module) => module,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    let mut out = String::from("import math, torch\nfrom check_with_torch import *\nCONSTANTS = [\n");
    for (_, constant) in module.constants.iter() {
        let bytes = constant.to_contiguous().expect("a checked window");
        let hex: String = bytes.as_slice().iter().map(|b| format!("{b:02x}")).collect();
        let sizes = constant.sizes.as_slice();
        writeln!(
            out,
            "    constant('{}', {sizes:?}, '{hex}'),",
            constant.dtype.torch_name()
        )
        .unwrap();
    }
    out += "]\nSTATES = {\n";
    for state in &module.states {
        let initial = state
            .initial
            .map_or("None".to_string(), |c| format!("CONSTANTS[{}]", c.0));
        writeln!(out, "    {:?}: {initial},", state.name).unwrap();
    }
    out += "}\n";
    for graph in &module.graphs {
        let mut printer = Printer {
            module: &module,
            out: String::new(),
            bound: HashSet::new(),
            level: 0,
        };
        printer.graph(graph, &format!("method_{}", graph.name), true);
        out += &printer.out;
    }
    print!("{out}");
}

struct Printer<'m> {
    module: &'m Module,
    out: String,
    bound: HashSet<String>,
    level: usize,
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        writeln!(self.out, "{}{text}", "    ".repeat(self.level)).unwrap();
    }

    fn graph(&mut self, graph: &Graph, name: &str, method: bool) {
        let level = self.level;
        let v = |i: u32| format!("v{level}_{i}");
        let values: Vec<u32> = graph
            .inputs
            .iter()
            .filter_map(|i| match i.kind {
                InputKind::Value(value) => Some(value.0),
                InputKind::Literal(_) => None,
            })
            .collect();
        let names: Vec<String> = values.iter().map(|i| v(*i)).collect();
        if method {
            self.line(&format!("def {name}(inputs, states):"));
        } else {
            self.line(&format!("def {name}({}):", names.join(", ")));
        }
        self.level += 1;
        if method {
            for (position, input) in graph.inputs.iter().enumerate() {
                if let InputKind::Value(value) = input.kind {
                    self.line(&format!("{} = inputs[{position}]", v(value.0)));
                }
            }
        }
        let outer = self.bound.clone();
        values.iter().for_each(|i| self.bind(graph, *i, level));
        for (i, value) in graph.values.iter().enumerate() {
            match value.def {
                Def::Constant(c) => self.line(&format!("{} = CONSTANTS[{}]", v(i as u32), c.0)),
                Def::State(s) => {
                    let state = &self.module.states[s.index()].name;
                    self.line(&format!("{} = states[{state:?}].clone()", v(i as u32)));
                }
                _ => {}
            }
        }
        for node in &graph.nodes {
            let schema = node.op.schema();
            let mut args = Vec::new();
            for (i, (param, arg)) in schema.params.iter().zip(&node.args).enumerate() {
                if let Arg::Graph(inner) = arg {
                    let name = format!("g{level}_{i}");
                    self.graph(inner, &name, false);
                    args.push(name);
                } else if !(param.keyword_only && *arg == Arg::None) {
                    let text = self.arg(arg, level);
                    args.push(if param.keyword_only {
                        format!("{}={text}", param.name)
                    } else {
                        text
                    });
                }
            }
            let (namespace, op) = node.op.name().split_once("::").expect("a namespace");
            let op = if op.contains('.') {
                op.to_string()
            } else {
                format!("{op}.default")
            };
            let call = match namespace {
                "higher_order" => format!("hop_{}", op.trim_end_matches(".default")),
                _ => format!("torch.ops.{namespace}.{op}"),
            };
            let outs: Vec<String> = node.outputs.iter().map(|o| v(o.0)).collect();
            self.line(&format!("{}, = results({call}({}))", outs.join(", "), args.join(", ")));
            node.outputs.iter().for_each(|o| self.bind(graph, o.0, level));
        }
        for mutation in &graph.mutations {
            let value = v(mutation.value.0);
            match mutation.target {
                MutationTarget::Input(i) => self.line(&format!("new_{i} = {value}.clone()")),
                MutationTarget::State(s) => self.line(&format!("state_{} = {value}.clone()", s.0)),
            }
        }
        let outputs: Vec<String> = graph
            .outputs
            .iter()
            .map(|o| match o {
                Output::Value(value) => v(value.0),
                Output::Literal(arg) => self.arg(arg, level),
            })
            .collect();
        self.line(&format!("out = [{}]", outputs.join(", ")));
        if method {
            self.line("out = [o.clone() if isinstance(o, torch.Tensor) else o for o in out]");
        }
        for mutation in &graph.mutations {
            match mutation.target {
                MutationTarget::Input(i) => self.line(&format!("inputs[{i}] = new_{i}")),
                MutationTarget::State(s) => {
                    let state = &self.module.states[s.index()].name;
                    self.line(&format!("states[{state:?}] = state_{}", s.0));
                }
            }
        }
        self.line("return out");
        self.bound = outer;
        self.level -= 1;
    }

    /// Binds the symbols that a value's sizes are the first to show, and checks the others.
    fn bind(&mut self, graph: &Graph, value: u32, level: usize) {
        let name = format!("v{level}_{value}");
        match &graph.values[value as usize].ty {
            Type::Tensor(tensor) => {
                self.line(&format!("check_dtype({name}, torch.{})", tensor.dtype.torch_name()));
                for (d, size) in tensor.shape.iter().enumerate() {
                    match size.as_linear() {
                        Some((symbol, a, b)) if self.bound.insert(symbol.0.to_string()) => {
                            self.line(&format!("{symbol} = ({name}.shape[{d}] - {b}) // {a}"));
                        }
                        _ => self.line(&format!("check_size({name}, {d}, {})", python(size))),
                    }
                }
            }
            Type::Int(Expr::Symbol(symbol)) if self.bound.insert(symbol.0.to_string()) => {
                self.line(&format!("{symbol} = {name}"));
            }
            _ => {}
        }
    }

    fn arg(&self, arg: &Arg, level: usize) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        match arg {
            Arg::None => "None".into(),
            Arg::Value(value) => format!("v{level}_{}", value.0),
            Arg::Int(e) | Arg::Sym(e) => python(e),
            Arg::Float(x) => float(*x),
            Arg::Bool(b) => boolean(*b).into(),
            Arg::Str(s) => format!("{s:?}"),
            Arg::DType(d) => format!("torch.{}", d.torch_name()),
            Arg::MemoryFormat(MemoryFormat::Contiguous) => "torch.contiguous_format".into(),
            Arg::MemoryFormat(MemoryFormat::Preserve) => "torch.preserve_format".into(),
            Arg::MemoryFormat(MemoryFormat::ChannelsLast) => "torch.channels_last".into(),
            Arg::MemoryFormat(MemoryFormat::ChannelsLast3d) => "torch.channels_last_3d".into(),
            Arg::Ints(items) => list(items.iter().map(python).collect()),
            Arg::Floats(items) => list(items.iter().map(|x| float(*x)).collect()),
            Arg::Bools(items) => list(items.iter().map(|b| boolean(*b).into()).collect()),
            Arg::Scalars(items) => list(
                items
                    .iter()
                    .map(|s| match s {
                        Scalar::Bool(b) => boolean(*b).into(),
                        Scalar::Int(i) => i.to_string(),
                        Scalar::Float(x) => float(*x),
                    })
                    .collect(),
            ),
            Arg::Values(items) => list(items.iter().map(|v| format!("v{level}_{}", v.0)).collect()),
            Arg::OptionalValues(items) => list(
                items
                    .iter()
                    .map(|v| v.map_or("None".to_string(), |v| format!("v{level}_{}", v.0)))
                    .collect(),
            ),
            Arg::Graph(_) => unreachable!("printed by its node"),
        }
    }
}

fn boolean(b: bool) -> &'static str {
    if b { "True" } else { "False" }
}

fn float(x: f64) -> String {
    format!("float('{x}')")
}

fn python(expr: &Expr) -> String {
    let (op, args) = match expr {
        Expr::Int(i) => return i.to_string(),
        Expr::Float(bits) => return float(f64::from_bits(*bits)),
        Expr::Symbol(symbol) => return symbol.to_string(),
        Expr::Op(op, args) => (*op, args.iter().map(python).collect::<Vec<_>>()),
    };
    let infix = |operator: &str| format!("({})", args.join(operator));
    match op {
        ExprOp::Add => infix(" + "),
        ExprOp::Mul => infix(" * "),
        ExprOp::FloorDiv => infix(" // "),
        ExprOp::CeilDiv => format!("(-(-{} // {}))", args[0], args[1]),
        ExprOp::Mod => infix(" % "),
        ExprOp::Max => format!("max({})", args.join(", ")),
        ExprOp::Min => format!("min({})", args.join(", ")),
        ExprOp::Pow => infix(" ** "),
        ExprOp::TrueDiv => infix(" / "),
        ExprOp::Eq => infix(" == "),
        ExprOp::Ne => infix(" != "),
        ExprOp::Lt => infix(" < "),
        ExprOp::Le => infix(" <= "),
        ExprOp::Gt => infix(" > "),
        ExprOp::Ge => infix(" >= "),
        ExprOp::And => infix(" and "),
        ExprOp::Or => infix(" or "),
        ExprOp::Not => format!("(not {})", args[0]),
        ExprOp::Where => format!("({1} if {0} else {2})", args[0], args[1], args[2]),
        ExprOp::ToFloat => format!("float({})", args[0]),
        ExprOp::Trunc => format!("math.trunc({})", args[0]),
        ExprOp::Floor => format!("math.floor({})", args[0]),
        ExprOp::Ceil => format!("math.ceil({})", args[0]),
        ExprOp::Round => format!("round({})", args[0]),
    }
}
