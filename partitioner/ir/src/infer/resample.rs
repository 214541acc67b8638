//! To be filled.
use super::Rule;
pub(super) fn rule(_base: &str) -> Option<Rule> {
    None
}
