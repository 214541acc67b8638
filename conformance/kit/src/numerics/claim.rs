//! What the manifest claims beforehand: the one place that asks.

use crate::subject::Subject;
use delegraph_config::Config;
use delegraph_ir::Module;

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
    let mut config = Config::default();
    config.select.order = vec![manifest.name.clone()];
    config.select.min_nodes = 1;
    config.select.max_border_bytes = 0.0;
    let mut module = module.clone();
    let report = delegraph::partition_by_claims(&mut module, &config, &[manifest], &mut |_| {});
    report.is_ok_and(|report| {
        let coverage = report.coverage();
        coverage.nodes > 0 && coverage.delegated_nodes == coverage.nodes
    })
}
