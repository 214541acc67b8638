//! The attention operators of ExecuTorch's LLM extension (`llama::*`).

use super::Rule;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "custom_sdpa" | "fast_hadamard_transform" => |c| c.like(c.first()?),
        _ => return None,
    })
}
