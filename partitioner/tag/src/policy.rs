//! What the user allows: sizes, rules, exclusions.

use delegraph_config::glob_match as glob;
use delegraph_ir::{Graph, Node};
use delegraph_types::DType;
use serde::{Deserialize, Serialize};

/// Limits and rules of tagging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Regions of fewer nodes stay on the CPU.
    pub min_nodes: u32,
    /// Exceptions, most specific last: a later rule overrides earlier ones for the backends that it names.
    pub rules: Vec<Rule>,
    /// Operations (multiply-accumulates, or elements for other operators) that each byte over a region's border must pay
    /// for. The default, one in 16 bytes, keeps a lone `add` of f32 (12 bytes an element) and drops what mostly moves data.
    /// 0 turns it off.
    pub boundary_penalty: f64,
    /// Forms regions that only move data, too. An app gains nothing from one, and so it is off; who tests a delegate has to see
    /// each of its operators run.
    pub keep_moves: bool,
    /// How often a backend's regions are formed again after nodes were taken out, and how often delegates are asked again.
    pub max_rounds: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            min_nodes: 3,
            rules: Vec::new(),
            boundary_penalty: 1.0 / 16.0,
            keep_moves: false,
            max_rounds: 8,
        }
    }
}

/// Forbids backends for the nodes that match all that is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Glob on the operator, `aten.softmax*` or `aten::softmax*`.
    pub op: Option<String>,
    /// dtype of any tensor that the node reads or makes.
    pub dtype: Option<DType>,
    /// Glob on the node's name.
    pub name: Option<String>,
    /// Globs on backend ids that may not take it.
    pub deny: Vec<String>,
    /// Globs on backend ids that may take it after all.
    pub allow: Vec<String>,
    /// Said in reports.
    pub reason: String,
}

impl Rule {
    fn matches(&self, graph: &Graph, node: &Node) -> bool {
        let op = || node.op.name().replace("::", ".");
        let has_dtype = |dtype| {
            let mut values = node.inputs().chain(node.outputs.iter().copied());
            values.any(|v| graph.tensor(v).is_some_and(|t| t.dtype == dtype))
        };
        self.op.as_ref().is_none_or(|p| glob(&p.replace("::", "."), &op()))
            && self.name.as_ref().is_none_or(|p| glob(p, &node.name))
            && self.dtype.is_none_or(has_dtype)
    }
}

impl Policy {
    /// Why a rule forbids the node to this backend, if one does.
    pub fn denial(&self, graph: &Graph, node: &Node, backend: &str) -> Option<String> {
        let names = |globs: &[String]| globs.iter().any(|g| glob(g, backend));
        let rule = self
            .rules
            .iter()
            .rev()
            .find(|r| (names(&r.deny) || names(&r.allow)) && r.matches(graph, node))?;
        if names(&rule.allow) {
            return None;
        }
        Some(match rule.reason.as_str() {
            "" => "a rule of the config forbids it".to_string(),
            reason => format!("a rule of the config forbids it: {reason}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;

    #[test]
    fn the_last_rule_that_names_the_backend_decides() {
        let mut graph = Graph::new("forward");
        let ty = TensorType::fixed(DType::F16, &[4]);
        let x = graph.add_input("x", ty.clone().into());
        graph
            .push(
                "aten::softmax.int",
                vec![x.into(), delegraph_ir::Arg::int(0)],
                vec![ty.into()],
            )
            .unwrap();
        let rule = |op: &str, dtype, deny: &str, allow: &str, reason: &str| Rule {
            op: Some(op.into()),
            dtype,
            name: None,
            deny: deny.split_whitespace().map(str::to_string).collect(),
            allow: allow.split_whitespace().map(str::to_string).collect(),
            reason: reason.into(),
        };
        let mut policy = Policy {
            rules: vec![
                rule("aten.softmax*", Some(DType::F16), "vulkan", "", "accuracy"),
                rule("aten::*", Some(DType::F32), "*", "", ""),
            ],
            ..Policy::default()
        };
        let denial = |policy: &Policy, backend| policy.denial(&graph, &graph.nodes[0], backend);
        assert_eq!(
            denial(&policy, "vulkan").unwrap(),
            "a rule of the config forbids it: accuracy"
        );
        assert_eq!(denial(&policy, "hexagon"), None);
        policy.rules.push(rule("*", None, "", "vul*", ""));
        assert_eq!(denial(&policy, "vulkan"), None);
        policy.rules.push(rule("*", None, "*", "", ""));
        assert_eq!(denial(&policy, "hexagon").unwrap(), "a rule of the config forbids it");
    }
}
