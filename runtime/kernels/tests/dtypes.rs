//! The operator table says which dtypes an operator runs on. Here its kernels are asked: recorded calls, with the first tensor in
//! every dtype that there is, have to give a result where the table says so, and an error elsewhere.

mod recorded;

use delegraph_kernels::all;
use delegraph_opset::{DTypes, Op};
use delegraph_types::DType;
use recorded::{Corpus, Recorded};
use std::collections::{BTreeMap, BTreeSet};

/// Rows whose kernels no recorded call reaches: nobody checks what the table says of their dtypes.
const UNASKED: [&str; 0] = [];

fn calls() -> Vec<Recorded> {
    let root = env!("CARGO_MANIFEST_DIR");
    let (mut corpus, cases) = Corpus::open(&format!("{root}/../../conformance/corpus")).unwrap();
    let mut calls: Vec<Recorded> = Vec::new();
    for case in &cases {
        let shard = corpus.shard(case).unwrap();
        calls.extend(Recorded::of_case(case, &shard, false).unwrap());
    }
    // The second file is written by hand for what nobody recorded: it is looked at whether they run, not what they give.
    for line in [include_str!("data/calls.jsonl"), include_str!("data/dtypes.jsonl")]
        .iter()
        .flat_map(|text| text.lines())
    {
        calls.push(Recorded::of_call(&serde_json::from_str(line).unwrap()).unwrap());
    }
    calls
}

#[test]
fn kernels_take_the_dtypes_of_the_table_and_no_others() {
    let mut taken: BTreeMap<&str, (DTypes, DTypes)> = BTreeMap::new();
    for call in calls() {
        let op = Op::find(call.name).unwrap();
        let Some(row) = op.row_name().filter(|_| call.dtype().is_some()) else {
            continue;
        };
        let (_, taken) = taken.entry(row).or_insert((op.dtypes(), DTypes::default()));
        let more = DType::all().filter(|&dtype| !taken.contains(dtype) && call.accepts(dtype));
        let more: DTypes = more.collect();
        taken.extend(more.iter());
    }
    let wrong: Vec<String> = taken
        .iter()
        .filter(|(_, (claimed, taken))| claimed != taken)
        .map(|(row, (claimed, taken))| format!("`{row}`: the table says `{claimed}`, its kernels take `{taken}`"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rows: BTreeSet<&str> = all().filter_map(|(name, _)| Op::find(name)?.row_name()).collect();
    let unasked = rows.into_iter().filter(|row| !taken.contains_key(row));
    // Those of primitives are numbers.
    let unasked: Vec<&str> = unasked.filter(|row| !row.starts_with("executorch_prim::")).collect();
    assert_eq!(unasked, UNASKED);
}
