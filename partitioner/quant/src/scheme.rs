//! What is asked for: `SCHEME[:key=value]...[;key=value]...`.
//!
//! Keys behind a colon belong to the scheme (`group`, `observer`, `percentile`), those behind a semicolon are about the whole
//! model (`embedding`, `keep`). The grammar has more schemes than are done here: the others are refused by name.

use delegraph_config::glob_match;
use delegraph_ir::Node;
use delegraph_types::{DType, nearest};
use std::fmt;
use std::str::FromStr;

/// Why a text is no scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantization scheme `{text}`, at `{part}`: {problem}")]
pub struct SchemeError {
    /// The whole text.
    pub text: String,
    /// The part of it that is wrong.
    pub part: String,
    /// What is wrong, with a hint where there is one.
    pub problem: String,
}

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WeightBits {
    Four,
    Eight,
}

impl WeightBits {
    /// Largest integer that stands for a weight; the smallest is its negative.
    pub(crate) fn most(self) -> i64 {
        match self {
            WeightBits::Four => 7,
            WeightBits::Eight => 127,
        }
    }
}

/// How a range is chosen from what was observed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observer {
    /// From the smallest to the largest value.
    MinMax,
    /// Without the outermost values: this many percent are inside, and as many are left out above as below.
    Percentile(f64),
    /// The range, among many smaller ones, with the least mean squared error of what is rounded and what is cut off.
    Mse,
}

impl Observer {
    /// The word of the grammar.
    pub fn name(self) -> &'static str {
        match self {
            Observer::MinMax => "minmax",
            Observer::Percentile(_) => "percentile",
            Observer::Mse => "mse",
        }
    }
}

/// A static scheme.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheme {
    /// The name, without keys.
    pub name: &'static str,
    /// Of activations: `i8`, or `u16`.
    pub activation: DType,
    /// Of layers.
    pub weight: WeightBits,
    /// Weights along the input channels that share a scale, of 4-bit layers; `None`: a whole channel does.
    pub group: Option<u32>,
    /// Of tables.
    pub embedding: WeightBits,
    /// How ranges of activations are chosen; with [`Observer::Mse`], those of weights too.
    pub observer: Observer,
    /// Globs on nodes' names or operators (`aten.softmax*`) that stay in float.
    pub keep: Vec<String>,
}

/// Static schemes: name, activations, weights.
const STATIC: [(&str, DType, WeightBits); 3] = [
    ("w8a8-static", DType::I8, WeightBits::Eight),
    ("w8a16-static", DType::U16, WeightBits::Eight),
    ("w4a16-static", DType::U16, WeightBits::Four),
];
/// Schemes of the grammar that are not done yet.
const LATER: [&str; 4] = ["w8a8-dynamic", "8da4w", "w8", "w4"];
/// What 99.99 % of the values lie in.
const PERCENTILE: f64 = 99.99;
const OBSERVERS: [&str; 3] = ["minmax", "percentile", "mse"];

impl FromStr for Scheme {
    type Err = SchemeError;

    fn from_str(text: &str) -> Result<Scheme, SchemeError> {
        let wrong = |part: &str, problem: String| SchemeError {
            text: text.to_string(),
            part: part.to_string(),
            problem,
        };
        let mut parts = text.split(';');
        let mut head = parts.next().unwrap_or_default().split(':');
        let name = head.next().unwrap_or_default();
        let Some(&(name, activation, weight)) = STATIC.iter().find(|row| row.0 == name) else {
            let done = STATIC.map(|row| row.0).join(", ");
            if LATER.contains(&name) {
                return Err(wrong(
                    name,
                    format!("the scheme is known and not done yet\n  hint: these are: {done}"),
                ));
            }
            let known = STATIC.iter().map(|row| row.0).chain(LATER);
            let hint = nearest(name, known).map_or(format!("these are: {done}"), |n| format!("did you mean `{n}`?"));
            return Err(wrong(name, format!("there is no such scheme\n  hint: {hint}")));
        };
        let mut scheme = Scheme {
            name,
            activation,
            weight,
            group: None,
            embedding: WeightBits::Eight,
            observer: Observer::MinMax,
            keep: Vec::new(),
        };
        let mut percentile = None;
        let mut seen: Vec<&str> = Vec::new();
        for part in head {
            let (key, value) = pair(part).map_err(|problem| wrong(part, problem))?;
            if seen.contains(&key) {
                return Err(wrong(part, format!("`{key}` is given twice")));
            }
            seen.push(key);
            match key {
                "group" => {
                    if weight != WeightBits::Four {
                        return Err(wrong(part, "groups are for weights of 4 bits".to_string()));
                    }
                    let group = value.parse().ok().filter(|g: &u32| (2..=1 << 20).contains(g));
                    let problem = || "a group is a whole number from 2 on\n  hint: `group=32`".to_string();
                    scheme.group = Some(group.ok_or_else(|| wrong(part, problem()))?);
                }
                "observer" => {
                    scheme.observer = match value {
                        "minmax" => Observer::MinMax,
                        "percentile" => Observer::Percentile(PERCENTILE),
                        "mse" => Observer::Mse,
                        _ => return Err(wrong(part, unknown("observer", value, &OBSERVERS))),
                    };
                }
                "percentile" => {
                    let number = value.parse().ok().filter(|p: &f64| *p > 50.0 && *p <= 100.0);
                    let problem =
                        || "a percentile is a number above 50, up to 100\n  hint: `percentile=99.99`".to_string();
                    percentile = Some((part, number.ok_or_else(|| wrong(part, problem()))?));
                }
                "embedding" | "keep" => {
                    return Err(wrong(
                        part,
                        format!("`{key}` is about the whole model\n  hint: `;{part}`"),
                    ));
                }
                _ => return Err(wrong(part, unknown("key", key, &["group", "observer", "percentile"]))),
            }
        }
        if let Some((part, number)) = percentile {
            let chosen = seen.contains(&"observer");
            if chosen && !matches!(scheme.observer, Observer::Percentile(_)) {
                let observer = scheme.observer.name();
                return Err(wrong(part, format!("the observer `{observer}` has no percentile")));
            }
            scheme.observer = Observer::Percentile(number);
        }
        let mut embedding = false;
        for part in parts {
            let (key, value) = pair(part).map_err(|problem| wrong(part, problem))?;
            match key {
                "embedding" if embedding => return Err(wrong(part, "`embedding` is given twice".to_string())),
                "embedding" => {
                    embedding = true;
                    scheme.embedding = match value {
                        "8" => WeightBits::Eight,
                        "4" => WeightBits::Four,
                        _ => return Err(wrong(part, "a table has 8 or 4 bits".to_string())),
                    };
                }
                "keep" => scheme.keep.push(value.to_string()),
                "group" | "observer" | "percentile" => {
                    return Err(wrong(
                        part,
                        format!("`{key}` belongs to the scheme\n  hint: `{name}:{part}`"),
                    ));
                }
                _ => return Err(wrong(part, unknown("key", key, &["embedding", "keep"]))),
            }
        }
        Ok(scheme)
    }
}

fn pair(part: &str) -> Result<(&str, &str), String> {
    match part.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key, value)),
        _ => Err("expected KEY=VALUE".to_string()),
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let hint = nearest(name, known.iter().copied());
    let hint = hint.map_or(format!("these are: {}", known.join(", ")), |n| {
        format!("did you mean `{n}`?")
    });
    format!("there is no {what} `{name}`\n  hint: {hint}")
}

impl fmt::Display for Scheme {
    /// The text that gives this scheme.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(group) = self.group {
            write!(f, ":group={group}")?;
        }
        match self.observer {
            Observer::MinMax => {}
            Observer::Percentile(number) => write!(f, ":percentile={number}")?,
            Observer::Mse => f.write_str(":observer=mse")?,
        }
        if self.embedding == WeightBits::Four {
            f.write_str(";embedding=4")?;
        }
        self.keep.iter().try_for_each(|glob| write!(f, ";keep={glob}"))
    }
}

impl Scheme {
    /// The smallest and the largest integer of an activation.
    pub fn limits(&self) -> (i64, i64) {
        match self.activation {
            DType::U16 => (0, 65535),
            _ => (-128, 127),
        }
    }

    /// Whether the user wants the node in float.
    pub(crate) fn keeps(&self, node: &Node) -> bool {
        let op = node.op.name().replace("::", ".");
        let mut globs = self.keep.iter();
        globs.any(|glob| glob_match(glob, &node.name) || glob_match(&glob.replace("::", "."), &op))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        text.parse::<Scheme>().unwrap_err().to_string()
    }

    #[test]
    fn the_whole_grammar_is_read_and_written_back() {
        let text = "w4a16-static:group=32:observer=mse;embedding=4;keep=aten::softmax*;keep=lm_head";
        let scheme: Scheme = text.parse().unwrap();
        assert_eq!((scheme.name, scheme.activation), ("w4a16-static", DType::U16));
        assert_eq!((scheme.weight, scheme.embedding), (WeightBits::Four, WeightBits::Four));
        assert_eq!((scheme.group, scheme.observer), (Some(32), Observer::Mse));
        assert_eq!(scheme.keep, ["aten::softmax*", "lm_head"]);
        assert_eq!(scheme.to_string(), text);
        let scheme: Scheme = "w8a8-static:percentile=99.9".parse().unwrap();
        assert_eq!(scheme.observer, Observer::Percentile(99.9));
        assert_eq!(scheme.limits(), (-128, 127));
        let scheme: Scheme = "w8a16-static:observer=percentile".parse().unwrap();
        assert_eq!(
            (scheme.observer, scheme.limits()),
            (Observer::Percentile(PERCENTILE), (0, 65535))
        );
    }

    #[test]
    fn every_mistake_names_its_place_and_what_was_meant() {
        assert!(
            problem("w8a8-statik")
                .contains("at `w8a8-statik`: there is no such scheme\n  hint: did you mean `w8a8-static`?")
        );
        assert!(problem("8da4w:group=32").contains("known and not done yet"));
        assert!(problem("").contains("there is no such scheme"));
        assert!(problem("w8a8-static:group=32").contains("4 bits"));
        assert!(problem("w4a16-static:group=1").contains("from 2 on"));
        assert!(problem("w4a16-static:group=-3").contains("`group=-3`"));
        assert!(problem("w8a8-static:observer=msee").contains("did you mean `mse`?"));
        assert!(problem("w8a8-static:observr=mse").contains("did you mean `observer`?"));
        assert!(problem("w8a8-static:observer=mse:percentile=99").contains("has no percentile"));
        assert!(problem("w8a8-static:percentile=nan").contains("above 50"));
        assert!(problem("w8a8-static:keep=x").contains("`;keep=x`"));
        assert!(problem("w8a8-static;observer=mse").contains("`w8a8-static:observer=mse`"));
        assert!(problem("w8a8-static;embeding=4").contains("did you mean `embedding`?"));
        assert!(problem("w8a8-static;embedding=2").contains("8 or 4"));
        assert!(problem("w8a8-static;keep").contains("KEY=VALUE"));
        assert!(problem("w8a8-static;keep=").contains("KEY=VALUE"));
        assert!(problem("w8a8-static:observer=mse:observer=mse").contains("twice"));
    }
}
