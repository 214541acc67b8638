//! The operator table and what serves it: no kernel, decomposition or type rule without a row, and no row without one of them.

use delegraph_ir::can_infer;
use delegraph_kernels::find;
use delegraph_opset::Op;
use delegraph_passes::decompose::has_rule;
use std::collections::{BTreeMap, BTreeSet};

fn has_kernel(op: Op) -> bool {
    find(op.name()).is_some() || op.out_variant().is_some_and(|out| find(out.name()).is_some())
}

/// What the portable dialect replaces by itself.
const BY_DIALECT: [&str; 1] = ["aten::empty_permuted"];

#[test]
fn whatever_serves_an_operator_has_a_row_in_the_table() {
    for (name, _) in delegraph_kernels::all() {
        assert!(
            Op::find(name).is_some(),
            "the kernel `{name}` is of no operator of the table"
        );
    }
    let served = Op::all().filter(|op| has_kernel(*op) || has_rule(*op) || can_infer(*op));
    let missing: Vec<&str> = served.filter(|op| op.doc().is_none()).map(Op::name).collect();
    assert!(
        missing.is_empty(),
        "add to runtime/opset/src/operators.txt: {missing:#?}"
    );
}

#[test]
fn every_row_of_the_table_is_served() {
    let served = Op::all().filter(|op| has_kernel(*op) || has_rule(*op) || can_infer(*op));
    let served: BTreeSet<&str> = served.filter_map(Op::row_name).collect();
    let dead: Vec<&str> = Op::row_names().filter(|name| !served.contains(name)).collect();
    assert!(dead.is_empty(), "nothing computes or types {dead:#?}");
}

#[test]
fn a_row_has_dtypes_if_and_only_if_something_here_runs_its_operator() {
    let mut rows = BTreeMap::new();
    for (op, row) in Op::all().filter_map(|op| Some((op, op.row_name()?))) {
        let (_, runs) = rows.entry(row).or_insert((op.dtypes(), false));
        *runs |= has_kernel(op) || has_rule(op) || BY_DIALECT.contains(&op.name());
    }
    for (row, (dtypes, runs)) in rows {
        // Primitives take numbers.
        let runs = runs && !row.starts_with("executorch_prim::");
        assert_eq!(!dtypes.is_empty(), runs, "`{row}`: the table says `{dtypes}`");
    }
}
