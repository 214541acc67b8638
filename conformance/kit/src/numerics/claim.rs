//! What the manifest claims beforehand: the one place that asks.

use crate::subject::Subject;
use delegraph_ir::Module;
use delegraph_lower::{Backend, ClaimsBackend, LowerOptions, lower_with};

/// Whether the manifest's `[[op]]` tables cover the whole module, as Delegraph would offer it to the delegate: by dtype, rank, sizes,
/// arguments and quantization. Composite operators may be claimed whole or by their parts. Without a library: the manifest alone is asked.
pub fn claim_of(subject: &Subject, module: &Module, options: &LowerOptions) -> bool {
    let Some((_, manifest)) = subject
        .manifest
        .as_ref()
        .filter(|(_, manifest)| !manifest.claims.is_empty())
    else {
        return false;
    };
    let backend: Box<dyn Backend> = Box::new(ClaimsBackend::new(manifest));
    let slots = vec![(manifest.name.clone(), Ok(backend))];
    match lower_with(&mut module.clone(), options, slots, &mut |_| {}) {
        Ok(report) => {
            let coverage = report.coverage();
            coverage.nodes > 0 && coverage.delegated_nodes == coverage.nodes
        }
        // What cannot be lowered at all is claimed by nobody.
        Err(_) => false,
    }
}
