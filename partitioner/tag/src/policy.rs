//! What the user allows: sizes, rules, exclusions.

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
    /// How often a backend's regions are formed again after nodes were taken out, and how often delegates are asked again.
    pub max_rounds: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            min_nodes: 3,
            rules: Vec::new(),
            boundary_penalty: 1.0 / 16.0,
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

/// Matches a glob: `*` any text, `?` one character, `[ab]` and `[!ab]` one of a set. The whole text must match.
///
/// Linear in `pattern` times `text`: only the last `*` is ever taken back.
pub fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = match_one(&pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The position in the pattern after its item at `at`, if that matches the character.
fn match_one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => {
            // An unclosed bracket is an ordinary character; a set has at least one member.
            let Some(length) = pattern
                .get(at + 2..)
                .and_then(|rest| rest.iter().position(|x| *x == ']'))
            else {
                return (c == '[').then_some(at + 1);
            };
            let set = &pattern[at + 1..at + 2 + length];
            let (negated, set) = match set {
                ['!', rest @ ..] if !rest.is_empty() => (true, rest),
                set => (false, set),
            };
            let mut found = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    found |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    found |= set[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(at + 2 + length + 1)
        }
        literal => (*literal == c).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;

    #[test]
    fn globs() {
        let cases = [
            ("aten.softmax*", "aten.softmax.int", true),
            ("aten.softmax*", "aten._softmax", false),
            ("*softmax*", "aten._softmax", true),
            ("sm8[45]50", "sm8450", true),
            ("sm8[45]50", "sm8650", false),
            ("sm8[!45]50", "sm8650", true),
            ("r[0-3]", "r2", true),
            ("r[0-3]", "r4", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a[", "a[", true),
            ("a[b", "ab", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
        assert!(!glob(&"*a".repeat(40), &"a".repeat(20_000).replace("aa", "ab")));
    }

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
