//! To be filled.
use super::Rule;
pub(super) fn rule(_base: &str, _overload: &str) -> Option<Rule> {
    None
}
