//! What the manifest claims beforehand: the one place that asks.

use super::engine::options;
use crate::subject::Subject;
use delegraph_ir::Module;
use delegraph_lower::{ClaimsBackend, Slot, lower_with};

/// Whether the manifest claims every one of these operators as the module has it, by dtype, rank and arguments: whether all of the module
/// would be the delegate's if it took what it claims and no more. Composite operators may be claimed whole or by their parts, and a
/// manifest that asks for passes is judged by what they make of the module.
pub fn claim_of(subject: &Subject, module: &Module, ops: &[String]) -> bool {
    let Some((_, manifest)) = &subject.manifest else {
        return false;
    };
    if manifest.claims.is_empty() || ops.is_empty() {
        return false;
    }
    let mut module = module.clone();
    let slot: Slot = (manifest.name.clone(), Ok(Box::new(ClaimsBackend::new(manifest))));
    let report = lower_with(&mut module, &options(&manifest.name), vec![slot], &mut |_| {});
    report.is_ok_and(|report| {
        let coverage = report.coverage();
        coverage.nodes > 0 && coverage.delegated_nodes == coverage.nodes
    })
}
