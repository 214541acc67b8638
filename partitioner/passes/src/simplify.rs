//! Clean-up before tagging and after decomposing: identities go, constants are folded, dead nodes are removed.

use crate::PassError;
use crate::args;
use crate::dce::remove_dead_nodes;
use crate::fold::fold_constants;
use crate::rewrite::{Replacement, Rewrite, Rule, rewrite};
use delegraph_ir::{Arg, Module, Op};

/// Brings a module into its normal form: casts are `aten::_to_copy`, nothing copies without need, nothing constant is
/// computed at run time, nothing is computed in vain. Meaning is unchanged; nodes of a region are left alone.
///
/// # Errors
/// A malformed node. The module is then only good to be dropped.
pub fn simplify(module: &mut Module) -> Result<(), PassError> {
    remove_identities(module)?;
    fold_constants(module);
    remove_dead_nodes(module);
    Ok(())
}

/// Removes nodes that copy their argument as it is.
///
/// # Errors
/// As [`simplify`].
pub(crate) fn remove_identities(module: &mut Module) -> Result<(), PassError> {
    // A cast becomes `_to_copy` first, which may be an identity itself.
    rewrite(module, &rule, &|_, node| node.region.is_some(), 2)
}

fn rule(op: Op) -> Option<Rule> {
    let name = op.name().strip_prefix("aten::")?;
    Some(match name {
        "alias" | "detach" | "lift" | "lift_fresh" | "lift_fresh_copy" | "contiguous" | "clone" | "resolve_conj"
        | "resolve_neg" | "positive" | "_lazy_clone" | "pin_memory" | "_to_copy" | "type_as" | "view" | "reshape"
        | "_unsafe_view" | "view_as" | "reshape_as" | "expand" | "expand_as" | "broadcast_to" | "squeeze"
        | "squeeze.dim" | "squeeze.dims" | "flatten.using_ints" | "unflatten.int" | "slice.Tensor" | "narrow"
        | "repeat" | "tile" | "atleast_1d" | "atleast_2d" | "atleast_3d" | "_reshape_alias" | "ravel" => if_same_type,
        "dropout" | "feature_dropout" | "alpha_dropout" | "feature_alpha_dropout" => dropout,
        "to.dtype" | "to.dtype_layout" | "to.device" | "to.other" => cast,
        "permute" => permute,
        "transpose.int" | "swapaxes" | "swapdims" => transpose,
        "constant_pad_nd" => pad,
        "cat" => cat,
        _ => return None,
    })
}

/// These operators are identities exactly where the result's type is the argument's.
fn if_same_type(rw: &mut Rewrite) -> Replacement {
    let Some(source) = rw.node().args.first().and_then(Arg::as_value) else {
        return Ok(None);
    };
    // `view.dtype` reinterprets bits, which the dtype tells.
    let same = rw.node().outputs.len() == 1 && *rw.ty(source)? == rw.output_type(0)?;
    Ok(same.then(|| vec![source]))
}

fn dropout(rw: &mut Rewrite) -> Replacement {
    let (probability, train) = (
        rw.node().arg("p").cloned(),
        rw.node().arg("train").and_then(Arg::as_bool),
    );
    let none = train == Some(false) || matches!(probability, Some(Arg::Float(p)) if p == 0.0);
    if none { if_same_type(rw) } else { Ok(None) }
}

/// `to.*` as `_to_copy`: where a tensor lies and in which layout means nothing here.
fn cast(rw: &mut Rewrite) -> Replacement {
    let Some(source) = rw.node().args.first().and_then(Arg::as_value) else {
        return Ok(None);
    };
    let ty = rw.output_type(0)?;
    let dtype = ty.dtype;
    rw.emit_as("aten::_to_copy", args![source, dtype], vec![ty.into()])
        .map(Some)
}

fn permute(rw: &mut Rewrite) -> Replacement {
    let rank = rw.output_type(0)?.rank() as i64;
    let dims = rw.node().args.get(1).and_then(Arg::as_ints).unwrap_or_default();
    let in_order = dims
        .iter()
        .enumerate()
        .all(|(i, d)| d.rem_euclid(rank.max(1)) == i as i64);
    if in_order { if_same_type(rw) } else { Ok(None) }
}

fn transpose(rw: &mut Rewrite) -> Replacement {
    let rank = (rw.output_type(0)?.rank() as i64).max(1);
    let dim = |i: usize| rw.node().args.get(i).and_then(Arg::as_int).map(|d| d.rem_euclid(rank));
    if dim(1) == dim(2) { if_same_type(rw) } else { Ok(None) }
}

fn pad(rw: &mut Rewrite) -> Replacement {
    let amounts = rw.node().args.get(1).and_then(Arg::as_ints);
    match amounts {
        Some(amounts) if amounts.iter().all(|a| *a == 0) => if_same_type(rw),
        _ => Ok(None),
    }
}

fn cat(rw: &mut Rewrite) -> Replacement {
    let source = match rw.node().args.first() {
        Some(Arg::Values(parts)) if parts.len() == 1 => parts[0],
        _ => return Ok(None),
    };
    let same = *rw.ty(source)? == rw.output_type(0)?;
    Ok(same.then(|| vec![source]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Expr, Graph, Output, RegionId, TensorType, Type, ValueId};
    use delegraph_types::DType;

    fn ty() -> Type {
        TensorType::new(DType::F32, vec![Expr::symbol("s0"), Expr::Int(3)]).into()
    }

    /// A graph of one node on `x: f32[s0,3]`, simplified: true if it went away.
    fn vanishes(op: &str, args: impl Fn(ValueId) -> Vec<Arg>, result: Type) -> bool {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let y = graph.push(op, args(x), vec![result]).unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
        simplify(&mut module).unwrap();
        let gone = module.graphs[0].nodes.is_empty();
        assert_eq!(gone, module.graphs[0].outputs[0] == Output::Value(x), "{op}");
        gone
    }

    #[test]
    fn identities_go() {
        let sizes = || Arg::Ints(vec![Expr::symbol("s0"), Expr::Int(-1)]);
        let half: Type = TensorType::new(DType::F16, vec![Expr::symbol("s0"), Expr::Int(3)]).into();
        let wide: Type = TensorType::new(DType::F32, vec![Expr::Int(3), Expr::symbol("s0")]).into();
        assert!(vanishes("aten::detach", |x| vec![x.into()], ty()));
        assert!(vanishes("aten::clone", |x| vec![x.into()], ty()));
        assert!(vanishes("aten::view", |x| vec![x.into(), sizes()], ty()));
        assert!(vanishes("aten::to.dtype", |x| vec![x.into(), DType::F32.into()], ty()));
        assert!(vanishes(
            "aten::dropout",
            |x| vec![x.into(), Arg::Float(0.5), Arg::Bool(false)],
            ty()
        ));
        assert!(vanishes("aten::permute", |x| vec![x.into(), Arg::ints(&[0, -1])], ty()));
        assert!(vanishes(
            "aten::transpose.int",
            |x| vec![x.into(), Arg::int(1), Arg::int(-1)],
            ty()
        ));
        assert!(vanishes(
            "aten::constant_pad_nd",
            |x| vec![x.into(), Arg::ints(&[0, 0])],
            ty()
        ));
        assert!(vanishes("aten::cat", |x| vec![Arg::Values(vec![x])], ty()));
        assert!(vanishes(
            "aten::slice.Tensor",
            |x| vec![x.into(), Arg::int(0), Arg::int(0)],
            ty()
        ));
        // And these are none.
        assert!(!vanishes(
            "aten::dropout",
            |x| vec![x.into(), Arg::Float(0.5), Arg::Bool(true)],
            ty()
        ));
        assert!(!vanishes("aten::_to_copy", |x| vec![x.into(), DType::F16.into()], half));
        assert!(!vanishes("aten::permute", |x| vec![x.into(), Arg::ints(&[1, 0])], wide));
        assert!(!vanishes("aten::relu", |x| vec![x.into()], ty()));
        assert!(!vanishes(
            "aten::roll",
            |x| vec![x.into(), Arg::ints(&[1]), Arg::ints(&[0])],
            ty()
        ));
    }

    #[test]
    fn a_cast_takes_its_normal_form() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let half = TensorType::new(DType::F16, vec![Expr::symbol("s0"), Expr::Int(3)]);
        let y = graph
            .push("aten::to.dtype", vec![x.into(), DType::F16.into()], vec![half.into()])
            .unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
        simplify(&mut module).unwrap();
        let node = &module.graphs[0].nodes[0];
        assert_eq!((node.op.name(), node.outputs[0]), ("aten::_to_copy", y));
    }

    #[test]
    fn a_region_is_left_alone() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty());
        let y = graph.push("aten::clone", vec![x.into()], vec![ty()]).unwrap()[0];
        graph.nodes[0].region = Some(RegionId(0));
        graph.add_output(y);
        module.graphs.push(graph);
        simplify(&mut module).unwrap();
        assert_eq!(module.graphs[0].outputs, [Output::Value(y)]);
    }
}
