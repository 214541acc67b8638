//! What the manifest claims beforehand: the one place that asks.

use crate::subject::Subject;
use delegraph_ir::Module;

/// Whether the manifest claims every one of these operators as the module has it: by dtype, rank and arguments.
pub fn claim_of(_subject: &Subject, _module: &Module, _ops: &[String]) -> bool {
    false
}
