//! The table of operators against the operator table of Delegraph.

use delegraph_opset::Op;
use delegraph_vulkan::caps::operators;

#[test]
fn every_row_is_an_operator_that_there_is() {
    let unknown: Vec<&str> = operators()
        .map(|operator| operator.name)
        .filter(|name| Op::find(name).is_none())
        .collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn most_of_core_aten_is_taken() {
    let core = operators()
        .filter(|operator| Op::find(operator.name).is_some_and(Op::is_core))
        .count();
    println!(
        "{core} of core ATen's overloads, {} operators in all",
        operators().count()
    );
    assert!(core >= 140, "{core}");
}
