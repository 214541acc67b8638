//! The operator set is closed: every core ATen operator runs, whole or in parts.

use delegraph_ir::can_infer;
use delegraph_opset::Op;
use delegraph_passes::decompose::has_rule;

/// A kernel that computes the operator: that of its out-variant, or its own.
fn has_kernel(op: Op) -> bool {
    let written = op.name().to_string() + if op.name().contains('.') { "_out" } else { ".out" };
    let name = op.out_variant().map_or(op.name(), Op::name);
    [name, &written]
        .into_iter()
        .any(|name| delegraph_kernels::find(name).is_some())
}

#[test]
fn every_core_operator_has_a_kernel_or_a_decomposition_and_a_type_rule() {
    let core: Vec<Op> = Op::all().filter(|op| op.is_core()).collect();
    assert_eq!(core.len(), 193);
    let names = |ops: Vec<&Op>| ops.into_iter().map(|op| op.name()).collect::<Vec<&str>>();
    let lost = core.iter().filter(|op| !has_kernel(**op) && !has_rule(**op)).collect();
    assert!(names(lost).is_empty());
    // Operators that write to their arguments are never in a graph.
    let functional = core.iter().filter(|op| !op.schema().is_in_place());
    assert!(names(functional.filter(|op| !can_infer(**op)).collect()).is_empty());
}
