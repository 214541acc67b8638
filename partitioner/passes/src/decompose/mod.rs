//! Decompositions: composite operators as core ATen ones, as PyTorch itself decomposes them.
//!
//! One file a family; each lists its rules by operator in `RULES`. What a rule emits may be composite too: it is decomposed in
//! turn. Rules follow PyTorch's own arithmetic (halves are computed in `f32` where PyTorch does so).

mod activation;
mod alias;
mod attention;
mod build;
mod conv;
mod create;
mod einsum;
mod elementwise;
mod index;
mod join;
mod loss;
mod matmul;
mod norm;
mod pad;
mod pool;
mod random;
mod recurrent;
mod reduce;
mod resample;
mod spectral;
mod torchao;
mod view;

use crate::PassError;
use crate::rewrite::{Replacement, Rule, rewrite};
use delegraph_ir::{Graph, Module, Node, Op, ValueId};
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// A family's rules.
type Rules = &'static [(&'static str, Rule)];

const FAMILIES: &[Rules] = &[
    activation::RULES,
    attention::RULES,
    conv::RULES,
    create::RULES,
    einsum::RULES,
    elementwise::RULES,
    index::RULES,
    join::RULES,
    loss::RULES,
    matmul::RULES,
    norm::RULES,
    pad::RULES,
    pool::RULES,
    random::RULES,
    recurrent::RULES,
    reduce::RULES,
    resample::RULES,
    spectral::RULES,
    torchao::RULES,
    view::RULES,
];

static RULES: LazyLock<FxHashMap<Op, Rule>> = LazyLock::new(|| {
    let aliases = alias::ALIASES.iter().map(|(name, _)| (*name, alias::rename as Rule));
    let rules = FAMILIES.iter().flat_map(|family| family.iter().copied()).chain(aliases);
    rules.filter_map(|(name, rule)| Some((Op::find(name)?, rule))).collect()
});

/// A replacement by one value.
fn one(value: Result<ValueId, PassError>) -> Replacement {
    value.map(|v| Some(vec![v]))
}

/// Replaces every composite node by core ATen ones, again and again until no rule applies.
///
/// `keep` protects a node that somebody takes whole; it may look at the graph's values, not at its node list. Nodes of a
/// region are decomposed like all others: their parts inherit the region.
///
/// # Errors
/// A node that breaks its operator's rules, or that no delegate and no kernel of ours can do (training-mode normalization, a
/// recurrent layer over a dynamic length). The module is then only good to be dropped.
pub fn decompose(module: &mut Module, keep: &dyn Fn(&Graph, &Node) -> bool) -> Result<(), PassError> {
    rewrite(module, &|op| RULES.get(&op).copied(), keep, u32::MAX)
}

/// Like [`decompose`], one step: parts that are composite themselves stay whole, so that they can be offered to delegates.
///
/// # Errors
/// As [`decompose`].
pub fn decompose_once(module: &mut Module, keep: &dyn Fn(&Graph, &Node) -> bool) -> Result<(), PassError> {
    rewrite(module, &|op| RULES.get(&op).copied(), keep, 1)
}

/// True if there is a decomposition of this operator. A rule may still keep a node whose arguments it has no better form for.
pub fn has_rule(op: Op) -> bool {
    RULES.contains_key(&op)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_for_an_operator_of_the_table_and_there_is_one_each() {
        let mut seen = rustc_hash::FxHashSet::default();
        let rules = FAMILIES.iter().flat_map(|family| family.iter().map(|(name, _)| name));
        for name in rules.chain(alias::ALIASES.iter().map(|(name, _)| name)) {
            assert!(Op::find(name).is_some(), "no operator `{name}`");
            assert!(seen.insert(*name), "two rules for `{name}`");
        }
    }
}
