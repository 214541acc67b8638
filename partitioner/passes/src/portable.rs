//! The portable dialect: every node has an out-variant kernel, preferably one that ExecuTorch registers.
//!
//! View operators stay what they are: they mean copies, and [`Op::out_variant`] gives their `_copy` kernels.

use crate::dce;
use crate::decompose::decompose;
use crate::fold::fold_constants;
use crate::rewrite::{Replacement, Rewrite, Rule, rewrite};
use crate::simplify::remove_identities;
use crate::{PassError, args};
use delegraph_ir::{Arg, Def, Graph, InputKind, Module, MutationTarget, Node, Op, Output, ValueId};
use delegraph_opset::BaseType;
use delegraph_types::{DType, Scalar, bf16, f16};
use rustc_hash::{FxHashMap, FxHashSet};

/// Brings a module into the portable dialect: everything is decomposed, numbers stand only where kernels take numbers, and
/// every node has a kernel's name. Regions keep the ids of the values that they give to others.
///
/// # Errors
/// A node that has no portable form. The module is then only good to be dropped.
pub fn to_portable(module: &mut Module) -> Result<(), PassError> {
    let given: Vec<FxHashSet<ValueId>> = module.graphs.iter().map(dce::region_outputs).collect();
    decompose(module, &stays_whole)?;
    remove_identities(module)?;
    fold_constants(module);
    module.graphs.iter_mut().for_each(separate_results);
    rewrite(module, &|_| Some(rule as Rule), &|_, _| false, 2)?;
    for (graph, given) in module.graphs.iter_mut().zip(&given) {
        dce::sweep(graph, given);
    }
    for graph in &module.graphs {
        check(graph)?;
    }
    Ok(())
}

/// A linear layer reads its weight as it stands: its parts would want it transposed, and folding that gives the file a second
/// copy of every weight.
fn stays_whole(_: &Graph, node: &Node) -> bool {
    node.op.name() == "aten::linear"
}

/// What is returned or written as it was before the run is copied first, where the run writes over it at its end.
fn separate_results(graph: &mut Graph) {
    let written = |def: Def, value: ValueId, graph: &Graph| {
        graph.mutations.iter().any(|m| match (m.target, def) {
            (MutationTarget::State(written), Def::State(read)) => written == read && m.value != value,
            (MutationTarget::Input(i), Def::Input) => {
                matches!(graph.inputs.get(i as usize), Some(input) if input.kind == InputKind::Value(value))
                    && m.value != value
            }
            _ => false,
        })
    };
    let mut copies: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    let results: Vec<ValueId> = graph.results().collect();
    for value in results {
        let (def, ty) = (graph.value(value).def, graph.value(value).ty.clone());
        if copies.contains_key(&value) || !written(def, value, graph) {
            continue;
        }
        if let Ok(made) = graph.push("aten::clone", vec![value.into()], vec![ty]) {
            copies.extend(made.first().map(|copy| (value, *copy)));
        }
    }
    let copy_of = |value: ValueId| copies.get(&value).copied().unwrap_or(value);
    for output in &mut graph.outputs {
        if let Output::Value(value) = output {
            *value = copy_of(*value);
        }
    }
    for mutation in &mut graph.mutations {
        mutation.value = copy_of(mutation.value);
    }
}

/// A node whose kernel stock ExecuTorch does not register, and the operator's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The method's name.
    pub method: String,
    /// The node's name.
    pub node: String,
    /// The kernel's name, or the operator's where it has no kernel.
    pub operator: String,
}

/// The nodes of a portable module that keep its file from running in stock ExecuTorch.
pub fn not_in_executorch(module: &Module) -> Vec<Foreign> {
    fn walk(method: &str, graph: &Graph, found: &mut Vec<Foreign>) {
        for node in &graph.nodes {
            for arg in &node.args {
                if let Arg::Graph(subgraph) = arg {
                    walk(method, subgraph, found);
                }
            }
            if node.op.name().starts_with("higher_order::") {
                continue;
            }
            let kernel = kernel_of(node.op).unwrap_or(node.op);
            if !kernel.in_executorch() {
                found.push(Foreign {
                    method: method.to_string(),
                    node: node.name.clone(),
                    operator: kernel.name().to_string(),
                });
            }
        }
    }
    let mut found = Vec::new();
    for graph in &module.graphs {
        walk(&graph.name, graph, &mut found);
    }
    found
}

/// The operator that a program calls for a node of this operator.
fn kernel_of(op: Op) -> Option<Op> {
    let returns = op.schema().returns;
    let number = !returns.is_empty() && returns.iter().all(|r| r.ty.base != BaseType::Tensor);
    if number { Some(op) } else { op.out_variant() }
}

fn check(graph: &Graph) -> Result<(), PassError> {
    for node in &graph.nodes {
        let mut control = node.op.name().starts_with("higher_order::");
        for arg in &node.args {
            if let Arg::Graph(subgraph) = arg {
                control = true;
                check(subgraph)?;
            }
        }
        // A region's own nodes are a way out that is taken only if its delegate fails.
        let runs = |kernel: Op| {
            node.region.is_some() || kernel.in_executorch() || delegraph_kernels::find(kernel.name()).is_some()
        };
        if !control && !kernel_of(node.op).is_some_and(runs) {
            return Err(PassError::unsupported(node, "the operator in a portable program"));
        }
    }
    Ok(())
}

fn rule(rw: &mut Rewrite) -> Replacement {
    let replaced = match rw.node().op.name() {
        "aten::_to_copy" => dim_order(rw, "dim_order_ops::_to_dim_order_copy", true)?,
        "aten::clone" | "aten::alias" | "aten::lift_fresh_copy" => {
            dim_order(rw, "dim_order_ops::_clone_dim_order", false)?
        }
        "aten::empty.memory_format" | "aten::empty_strided" | "aten::empty_permuted" => empty(rw)?,
        "aten::add.Scalar" | "aten::sub.Scalar" | "aten::rsub.Scalar" => promoting(rw)?,
        _ => None,
    };
    match replaced {
        Some(values) => Ok(Some(values)),
        None => numbers(rw),
    }
}

/// Casts and copies as ExecuTorch writes them, always to row-major order.
fn dim_order(rw: &mut Rewrite, op: &str, cast: bool) -> Replacement {
    let Some(source) = rw.node().args.first().and_then(Arg::as_value) else {
        return Ok(None);
    };
    let ty = rw.output_type(0)?;
    let order = Arg::ints(&(0..ty.rank() as i64).collect::<Vec<_>>());
    let args = match cast {
        true => vec![
            source.into(),
            ty.dtype.into(),
            Arg::None,
            Arg::None,
            Arg::None,
            Arg::Bool(false),
            order,
        ],
        false => vec![source.into(), Arg::Bool(false), order],
    };
    rw.emit_as(op, args, vec![ty.into()]).map(Some)
}

/// A number that raises the dtype as a 0-dim tensor of the result's: ExecuTorch's `Scalar` kernels refuse such numbers.
fn promoting(rw: &mut Rewrite) -> Replacement {
    let (x, ty) = (rw.tensor(0)?, rw.output_type(0)?);
    if rw.dtype(x)? == ty.dtype {
        return Ok(None);
    }
    let (number, alpha) = (tensor_of(rw, rw.arg(1), ty.dtype)?, rw.arg(2));
    let (op, args) = match rw.node().op.name() {
        "aten::add.Scalar" => ("aten::add.Tensor", args![x, number, alpha]),
        "aten::sub.Scalar" => ("aten::sub.Tensor", args![x, number, alpha]),
        // rsub(x, number, alpha) = number - alpha * x
        _ => ("aten::sub.Tensor", args![number, x, alpha]),
    };
    rw.emit_as(op, args, vec![ty.into()]).map(Some)
}

/// Contents that nobody may rely on are zeros.
fn empty(rw: &mut Rewrite) -> Replacement {
    let ty = rw.output_type(0)?;
    let (sizes, dtype) = (Arg::Ints(ty.shape.clone()), ty.dtype);
    rw.emit_as("aten::full", args![sizes, 0, dtype], vec![ty.into()])
        .map(Some)
}

/// A number where the schema says Tensor: the `Scalar` overload where a kernel has one, else a 0-dim tensor.
fn numbers(rw: &mut Rewrite) -> Replacement {
    let schema = rw.node().op.schema();
    let args = rw.node().args.clone();
    let is_number = |rw: &Rewrite, arg: &Arg| match arg {
        Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) | Arg::Sym(_) => true,
        Arg::Value(id) => rw.ty(*id).is_err(),
        _ => false,
    };
    let places: Vec<usize> = schema
        .params
        .iter()
        .zip(&args)
        .enumerate()
        .filter(|(_, (p, a))| p.ty.base == BaseType::Tensor && !p.ty.list && is_number(rw, a))
        .map(|(i, _)| i)
        .collect();
    if places.is_empty() {
        return Ok(None);
    }
    if let (&[place], true) = (places.as_slice(), schema.params.len() >= 2)
        && let Some((op, args)) = scalar_overload(rw.node().op.name(), place, &args)
    {
        let types = rw.output_types();
        return rw.emit_as(op, args, types).map(Some);
    }
    let operands: Vec<Arg> = schema
        .params
        .iter()
        .zip(&args)
        .filter(|(p, a)| p.ty.base == BaseType::Tensor && !p.ty.list && **a != Arg::None && p.name != "condition")
        .map(|(_, a)| a.clone())
        .collect();
    let dtype = rw.promoted(&operands)?;
    let mut args = args;
    for place in places {
        args[place] = tensor_of(rw, args[place].clone(), dtype)?.into();
    }
    let (op, types) = (rw.node().op.name(), rw.output_types());
    rw.emit_as(op, args, types).map(Some)
}

/// The overload that takes the number at `place`, with its arguments: also where the number comes first.
fn scalar_overload(op: &str, place: usize, args: &[Arg]) -> Option<(&'static str, Vec<Arg>)> {
    let pair = |op, rest: &[Arg]| {
        let [a, b] = [args.first()?.clone(), args.get(1)?.clone()];
        let mut all = if place == 0 { vec![b, a] } else { vec![a, b] };
        all.extend_from_slice(rest);
        Some((op, all))
    };
    let rest = args.get(2..).unwrap_or_default();
    let unit_alpha = || matches!(args.get(2).and_then(Arg::as_scalar), Some(s) if s == Scalar::Int(1));
    match (op, place) {
        ("aten::add.Tensor", 1) => pair("aten::add.Scalar", rest),
        ("aten::add.Tensor", 0) if unit_alpha() => pair("aten::add.Scalar", rest),
        ("aten::sub.Tensor", 1) => pair("aten::sub.Scalar", rest),
        // rsub(x, number, alpha) = number - alpha * x
        ("aten::sub.Tensor", 0) => pair("aten::rsub.Scalar", rest),
        ("aten::mul.Tensor", _) => pair("aten::mul.Scalar", &[]),
        ("aten::div.Tensor", 1) => pair("aten::div.Scalar", &[]),
        ("aten::div.Tensor_mode", 1) => pair("aten::div.Scalar_mode", rest),
        ("aten::remainder.Tensor", 1) => pair("aten::remainder.Scalar", &[]),
        ("aten::fmod.Tensor", 1) => pair("aten::fmod.Scalar", &[]),
        ("aten::pow.Tensor_Tensor", 1) => pair("aten::pow.Tensor_Scalar", &[]),
        ("aten::pow.Tensor_Tensor", 0) => Some(("aten::pow.Scalar", args.to_vec())),
        ("aten::eq.Tensor", _) => pair("aten::eq.Scalar", &[]),
        ("aten::ne.Tensor", _) => pair("aten::ne.Scalar", &[]),
        ("aten::lt.Tensor", 1) | ("aten::gt.Tensor", 0) => pair("aten::lt.Scalar", &[]),
        ("aten::gt.Tensor", 1) | ("aten::lt.Tensor", 0) => pair("aten::gt.Scalar", &[]),
        ("aten::le.Tensor", 1) | ("aten::ge.Tensor", 0) => pair("aten::le.Scalar", &[]),
        ("aten::ge.Tensor", 1) | ("aten::le.Tensor", 0) => pair("aten::ge.Scalar", &[]),
        ("aten::bitwise_and.Tensor", _) => pair("aten::bitwise_and.Scalar", &[]),
        ("aten::bitwise_or.Tensor", _) => pair("aten::bitwise_or.Scalar", &[]),
        ("aten::bitwise_xor.Tensor", _) => pair("aten::bitwise_xor.Scalar", &[]),
        ("aten::bitwise_left_shift.Tensor", 1) => pair("aten::bitwise_left_shift.Tensor_Scalar", &[]),
        ("aten::bitwise_right_shift.Tensor", 1) => pair("aten::bitwise_right_shift.Tensor_Scalar", &[]),
        ("aten::fill.Tensor", 1) => pair("aten::fill.Scalar", &[]),
        ("aten::masked_fill.Tensor", 2) => Some(("aten::masked_fill.Scalar", args.to_vec())),
        _ => None,
    }
}

/// A number as a 0-dim tensor: a constant, or made at run time where it is not known.
fn tensor_of(rw: &mut Rewrite, number: Arg, dtype: DType) -> Result<ValueId, PassError> {
    match number.as_scalar().and_then(|scalar| scalar_bytes(scalar, dtype)) {
        Some(bytes) => rw.constant(dtype, &[], bytes),
        None => rw.emit("aten::scalar_tensor", args![number, dtype]),
    }
}

/// The number's bytes; `None` where the dtype does not hold it exactly enough to be known here.
fn scalar_bytes(scalar: Scalar, dtype: DType) -> Option<Vec<u8>> {
    let (float, int) = (scalar.as_f64(), scalar.as_i64());
    let fits = dtype
        .int_range()
        .is_none_or(|(low, high)| (low..=high).contains(&i128::from(int)));
    if !fits || (dtype.is_int() && !float.is_finite()) {
        return None;
    }
    Some(match dtype {
        DType::Bool => vec![u8::from(scalar.as_bool())],
        DType::U8 | DType::I8 => vec![int as u8],
        DType::U16 | DType::I16 => (int as u16).to_le_bytes().to_vec(),
        DType::U32 | DType::I32 => (int as u32).to_le_bytes().to_vec(),
        DType::U64 | DType::I64 => int.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(float as f32).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(float as f32).to_le_bytes().to_vec(),
        DType::F32 => (float as f32).to_le_bytes().to_vec(),
        DType::F64 => float.to_le_bytes().to_vec(),
        DType::C64 => [float as f32, 0.0].into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::C128 => [float, 0.0].into_iter().flat_map(f64::to_le_bytes).collect(),
        DType::F8E5M2 | DType::F8E4M3 => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Constant, Expr, Mutation, RegionId, State, StateId, TensorType, Type, verify};
    use delegraph_types::Dims;

    fn ty(dtype: DType) -> Type {
        TensorType::new(dtype, vec![Expr::symbol("s0"), Expr::Int(3)]).into()
    }

    /// One node on `x: dtype[s0,3]`, made portable, as text without its first and last line.
    fn portable(op: &str, dtype: DType, args: impl Fn(ValueId) -> Vec<Arg>, result: Type) -> String {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty(dtype));
        let y = graph.push(op, args(x), vec![result]).unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
        to_portable(&mut module).unwrap();
        verify(&module).unwrap();
        assert_eq!(not_in_executorch(&module), []);
        let text = module.graphs[0].to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines[1..lines.len() - 1].join("\n")
    }

    #[test]
    fn numbers_go_to_scalar_overloads() {
        let (f, i) = (DType::F32, DType::I64);
        let cases: &[(&str, DType, fn(ValueId) -> Vec<Arg>, DType, &str)] = &[
            (
                "aten::add.Tensor",
                f,
                |x| args![x, 2, 3],
                f,
                "aten::add.Scalar(%x, 2, 3)",
            ),
            ("aten::add.Tensor", f, |x| args![2, x], f, "aten::add.Scalar(%x, 2)"),
            ("aten::sub.Tensor", f, |x| args![x, 0.5], f, "aten::sub.Scalar(%x, 0.5)"),
            (
                "aten::sub.Tensor",
                f,
                |x| args![1.0, x, 2],
                f,
                "aten::rsub.Scalar(%x, 1.0, 2)",
            ),
            ("aten::mul.Tensor", f, |x| args![2.0, x], f, "aten::mul.Scalar(%x, 2.0)"),
            ("aten::div.Tensor", f, |x| args![x, 2], f, "aten::div.Scalar(%x, 2)"),
            (
                "aten::gt.Tensor",
                f,
                |x| args![0, x],
                DType::Bool,
                "aten::lt.Scalar(%x, 0)",
            ),
            (
                "aten::eq.Tensor",
                i,
                |x| args![x, 7],
                DType::Bool,
                "aten::eq.Scalar(%x, 7)",
            ),
            (
                "aten::pow.Tensor_Tensor",
                f,
                |x| args![2, x],
                f,
                "aten::pow.Scalar(2, %x)",
            ),
        ];
        for (op, dtype, args, result, want) in cases {
            let text = portable(op, *dtype, args, ty(*result));
            assert!(text.ends_with(want), "{op}: {text}");
            assert!(!text.contains('\n'), "{op}: {text}");
        }
    }

    #[test]
    fn other_numbers_become_tensors_of_the_promoted_dtype() {
        let text = portable("aten::maximum", DType::F16, |x| args![x, 0.5], ty(DType::F16));
        assert!(text.contains("f16[] = constant c0"), "{text}");
        let text = portable(
            "aten::maximum",
            DType::I64,
            |x| args![Expr::symbol("s0"), x],
            ty(DType::I64),
        );
        assert!(text.contains("i64[] = aten::scalar_tensor(s0, dtype=i64)"), "{text}");
    }

    #[test]
    fn forms_that_executorch_registers_are_taken() {
        let cases: &[(&str, fn(ValueId) -> Vec<Arg>, Type, &str)] = &[
            (
                "aten::_to_copy",
                |x| args![x, DType::F16],
                ty(DType::F16),
                "dim_order_ops::_to_dim_order_copy(%x, dtype=f16, dim_order=[0, 1])",
            ),
            (
                "aten::empty.memory_format",
                |_| vec![Arg::Ints(vec![Expr::symbol("s0"), 3.into()])],
                ty(DType::F32),
                "aten::full([s0, 3], 0, dtype=f32)",
            ),
        ];
        for (op, args, result, want) in cases {
            let text = portable(op, DType::F32, args, result.clone());
            assert!(text.ends_with(want), "{op}: {text}");
        }
    }

    #[test]
    fn a_region_keeps_its_outputs() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty(DType::F32));
        let a = graph.push("aten::alias", vec![x.into()], vec![ty(DType::F32)]).unwrap()[0];
        graph.nodes[0].region = Some(RegionId(3));
        let b = graph.push("aten::relu", vec![a.into()], vec![ty(DType::F32)]).unwrap()[0];
        graph.add_output(b);
        module.graphs.push(graph);
        to_portable(&mut module).unwrap();
        let graph = &module.graphs[0];
        let first = &graph.nodes[0];
        assert_eq!(
            (first.op.name(), first.region),
            ("dim_order_ops::_clone_dim_order", Some(RegionId(3)))
        );
        assert_eq!(first.outputs, [a]);
        verify(&module).unwrap();
    }

    #[test]
    fn what_is_returned_as_it_was_is_copied_before_it_is_written() {
        let mut module = Module::default();
        let pair = || TensorType::fixed(DType::F32, &[2]);
        module.states.push(State {
            name: "count".into(),
            ty: pair(),
            initial: None,
        });
        let mut graph = Graph::new("forward");
        let old = graph.add_value("old", pair().into(), Def::State(StateId(0)));
        let seen = graph.push("aten::detach", args![old], vec![pair().into()]).unwrap()[0];
        let next = graph
            .push("aten::add.Tensor", args![old, 1], vec![pair().into()])
            .unwrap()[0];
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(0)),
            value: next,
        });
        graph.add_output(seen);
        graph.add_output(seen);
        module.graphs.push(graph);
        to_portable(&mut module).unwrap();
        verify(&module).unwrap();
        let graph = &module.graphs[0];
        let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["aten::add.Scalar", "dim_order_ops::_clone_dim_order"]);
        assert_eq!(graph.outputs[0], graph.outputs[1]);
        assert_ne!(graph.outputs[0], Output::Value(old));
    }

    #[test]
    fn a_node_without_a_portable_form_is_named() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty(DType::F32));
        let y = graph
            .push("aten::combinations", vec![x.into()], vec![ty(DType::F32)])
            .unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
        let error = to_portable(&mut module).unwrap_err().to_string();
        assert!(
            error.contains("`combinations_0`") && error.contains("aten::combinations"),
            "{error}"
        );
    }

    #[test]
    fn a_number_that_raises_the_dtype_is_a_tensor() {
        for (op, number, dtype, want) in [
            (
                "aten::add.Scalar",
                Arg::Float(0.5),
                DType::I64,
                "aten::add.Tensor(%x, %",
            ),
            ("aten::sub.Scalar", Arg::int(2), DType::Bool, "aten::sub.Tensor(%x, %"),
            (
                "aten::rsub.Scalar",
                Arg::Float(0.5),
                DType::I64,
                "aten::sub.Tensor(%rsub_0.0, %x)",
            ),
        ] {
            let result = if dtype == DType::Bool { DType::I64 } else { DType::F32 };
            let text = portable(op, dtype, |x| args![x, number.clone(), 1], ty(result));
            assert!(text.contains(want), "{text}");
        }
        let text = portable("aten::add.Scalar", DType::F16, |x| args![x, 0.5, 1], ty(DType::F16));
        assert!(text.contains("aten::add.Scalar(%x, 0.5)"), "{text}");
    }

    #[test]
    fn an_operator_that_only_runs_here_is_foreign() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty(DType::F32));
        let y = graph.push("aten::cumprod", args![x, 1], vec![ty(DType::F32)]).unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
        to_portable(&mut module).unwrap();
        let foreign: Vec<String> = not_in_executorch(&module).into_iter().map(|f| f.operator).collect();
        assert_eq!(foreign, ["aten::cumprod.out"]);
    }

    #[test]
    fn constants_feed_into_constants() {
        let mut module = Module::default();
        let bytes: Vec<u8> = [1f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let id = module
            .constants
            .push(Constant::contiguous("w", DType::F32, Dims::filled(1, 2), bytes.into()));
        let pair = || TensorType::fixed(DType::F32, &[2]);
        let mut graph = Graph::new("forward");
        let w = graph.add_constant("w", pair(), id);
        let doubled = graph
            .push("aten::mul.Scalar", args![w, 2], vec![pair().into()])
            .unwrap()[0];
        graph.add_output(doubled);
        module.graphs.push(graph);
        to_portable(&mut module).unwrap();
        assert!(module.graphs[0].nodes.is_empty());
        assert!(matches!(module.graphs[0].value(doubled).def, Def::Constant(_)));
    }
}
