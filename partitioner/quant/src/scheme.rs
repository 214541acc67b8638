//! What is asked for: `SCHEME[:key=value]...[;key=value]...`.
//!
//! Keys behind a colon belong to the scheme (`group`, `observer`, `percentile`, `clip`), those behind a semicolon are about the
//! whole model (`embedding`, `keep`).

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

/// What becomes of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Integers by scales that samples tell.
    Static,
    /// Integers by scales that are computed as they come, one a token.
    Dynamic,
    /// They stay float.
    WeightOnly,
}

/// A scheme.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheme {
    /// The name, without keys.
    pub name: &'static str,
    /// What becomes of activations.
    pub form: Form,
    /// Of activations: `i8`, `u16`, or `f32` where they stay float.
    pub activation: DType,
    /// Of layers.
    pub weight: WeightBits,
    /// Weights along the input channels that share a scale, of 4-bit layers; `None`: a whole channel does.
    pub group: Option<u32>,
    /// Of tables.
    pub embedding: WeightBits,
    /// How ranges of activations are chosen; with [`Observer::Mse`], those of weights too. Of the schemes that are not static it
    /// is how weights are cut off (`clip`): [`Observer::Mse`] or [`Observer::MinMax`].
    pub observer: Observer,
    /// Globs on nodes' names or operators (`aten.softmax*`) that stay in float; of the schemes that are not static, on names of
    /// weights too.
    pub keep: Vec<String>,
}

/// Schemes: name, form, activations, weights.
const SCHEMES: [(&str, Form, DType, WeightBits); 7] = [
    ("w8a8-static", Form::Static, DType::I8, WeightBits::Eight),
    ("w8a16-static", Form::Static, DType::U16, WeightBits::Eight),
    ("w4a16-static", Form::Static, DType::U16, WeightBits::Four),
    ("w8a8-dynamic", Form::Dynamic, DType::I8, WeightBits::Eight),
    ("8da4w", Form::Dynamic, DType::I8, WeightBits::Four),
    ("w8", Form::WeightOnly, DType::F32, WeightBits::Eight),
    ("w4", Form::WeightOnly, DType::F32, WeightBits::Four),
];
/// What 99.99 % of the values lie in.
const PERCENTILE: f64 = 99.99;
const OBSERVERS: [&str; 3] = ["minmax", "percentile", "mse"];
const CLIPS: [&str; 2] = ["mse", "minmax"];
/// Groups of the schemes that are not static: what torchao's users and kernels for CPUs have. The first is the default.
pub(crate) const GROUPS: [u32; 4] = [32, 64, 128, 256];

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
        let Some(&(name, form, activation, weight)) = SCHEMES.iter().find(|row| row.0 == name) else {
            let names = SCHEMES.map(|row| row.0);
            let hint = nearest(name, names).map_or(format!("these are: {}", names.join(", ")), |n| {
                format!("did you mean `{n}`?")
            });
            return Err(wrong(name, format!("there is no such scheme\n  hint: {hint}")));
        };
        let is_static = form == Form::Static;
        let mut scheme = Scheme {
            name,
            form,
            activation,
            weight,
            group: (!is_static && weight == WeightBits::Four).then_some(GROUPS[0]),
            embedding: WeightBits::Eight,
            observer: if is_static { Observer::MinMax } else { Observer::Mse },
            keep: Vec::new(),
        };
        let known: &[&str] = match (form, weight) {
            (Form::Static, _) => &["group", "observer", "percentile"],
            (_, WeightBits::Four) => &["group", "clip"],
            (_, WeightBits::Eight) => &["clip"],
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
                    scheme.group = Some(group(value, form).map_err(|problem| wrong(part, problem))?);
                }
                "clip" if !is_static => {
                    scheme.observer = match value {
                        "minmax" => Observer::MinMax,
                        "mse" => Observer::Mse,
                        _ => return Err(wrong(part, unknown("clip", value, &CLIPS))),
                    };
                }
                "clip" => {
                    let problem = "static schemes cut weights and activations alike\n  hint: `observer=mse`";
                    return Err(wrong(part, problem.to_string()));
                }
                "observer" | "percentile" if !is_static => {
                    let problem = format!(
                        "`{name}` observes nothing: its activations have no range beforehand\n  hint: `clip=mse` or \
                         `clip=minmax` says how weights are cut"
                    );
                    return Err(wrong(part, problem));
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
                _ => return Err(wrong(part, unknown("key", key, known))),
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
                "group" | "observer" | "percentile" | "clip" => {
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

fn group(value: &str, form: Form) -> Result<u32, String> {
    let number: Option<u32> = value.parse().ok();
    match form {
        Form::Static => number
            .filter(|g| (2..=1 << 20).contains(g))
            .ok_or_else(|| "a group is a whole number from 2 on\n  hint: `group=32`".to_string()),
        Form::Dynamic | Form::WeightOnly => number.filter(|g| GROUPS.contains(g)).ok_or_else(|| {
            let groups = GROUPS.map(|g| g.to_string()).join(", ");
            format!("there is no group `{value}`\n  hint: these are: {groups}")
        }),
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
        match (self.form, self.observer) {
            (Form::Static, Observer::MinMax) => {}
            (_, Observer::Percentile(number)) => write!(f, ":percentile={number}")?,
            (Form::Static, Observer::Mse) => f.write_str(":observer=mse")?,
            (_, Observer::Mse) => {}
            (_, Observer::MinMax) => f.write_str(":clip=minmax")?,
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

    /// Whether the user wants the weight of this name in float.
    pub(crate) fn keeps_weight(&self, name: &str) -> bool {
        self.keep.iter().any(|glob| glob_match(glob, name))
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
    fn schemes_without_samples_have_groups_and_clips() {
        for (text, group, observer, written) in [
            ("8da4w", Some(32), Observer::Mse, "8da4w:group=32"),
            (
                "8da4w:clip=minmax:group=128;keep=*.lm_head.*",
                Some(128),
                Observer::MinMax,
                "8da4w:group=128:clip=minmax;keep=*.lm_head.*",
            ),
            (
                "w4:group=256;embedding=4",
                Some(256),
                Observer::Mse,
                "w4:group=256;embedding=4",
            ),
            ("w8", None, Observer::Mse, "w8"),
            (
                "w8a8-dynamic:clip=minmax;embedding=8",
                None,
                Observer::MinMax,
                "w8a8-dynamic:clip=minmax",
            ),
        ] {
            let scheme: Scheme = text.parse().unwrap();
            assert_eq!((scheme.group, scheme.observer), (group, observer), "{text}");
            assert_eq!(scheme.to_string(), written);
            assert_eq!(written.parse::<Scheme>().unwrap(), scheme);
        }
        let forms = ["w8a8-dynamic", "8da4w", "w8", "w4"].map(|name| name.parse::<Scheme>().unwrap().form);
        assert_eq!(
            forms,
            [Form::Dynamic, Form::Dynamic, Form::WeightOnly, Form::WeightOnly]
        );
    }

    #[test]
    fn every_mistake_names_its_place_and_what_was_meant() {
        assert!(
            problem("w8a8-statik")
                .contains("at `w8a8-statik`: there is no such scheme\n  hint: did you mean `w8a8-static`?")
        );
        assert!(problem("8da4").contains("did you mean `8da4w`?"));
        assert!(problem("").contains("there is no such scheme"));
        assert!(problem("").contains("w8a8-dynamic, 8da4w, w8, w4"));
        assert!(
            problem("8da4w:group=48")
                .contains("at `group=48`: there is no group `48`\n  hint: these are: 32, 64, 128, 256")
        );
        assert!(problem("w4:group=1024").contains("`group=1024`"));
        assert!(problem("w8:group=32").contains("4 bits"));
        assert!(problem("w8a8-dynamic:group=32").contains("4 bits"));
        assert!(problem("8da4w:clip=ms").contains("did you mean `mse`?"));
        assert!(problem("8da4w:clp=mse").contains("did you mean `clip`?"));
        assert!(problem("w8:observer=mse").contains("`clip=mse`"));
        assert!(problem("w4:percentile=99").contains("observes nothing"));
        assert!(problem("w8a8-static:clip=mse").contains("`observer=mse`"));
        assert!(problem("w4;clip=mse").contains("`w4:clip=mse`"));
        assert!(problem("w4:embedding=4").contains("`;embedding=4`"));
        assert!(problem("w4;embedding=2").contains("8 or 4"));
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
