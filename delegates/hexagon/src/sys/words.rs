//! What the library said during a call, and which of it is the reason.

/// How many sets of types a reason lists.
const MOST_SETS: usize = 4;

/// Lines, with their levels: 1 is an error.
#[derive(Debug, Clone, Default)]
pub struct Words(pub Vec<(u32, String)>);

impl Words {
    /// What says most plainly what is wrong: types that do not go together, else the shortest of the most serious lines that say something.
    pub fn reason(&self) -> Option<String> {
        let said = || self.0.iter().filter(|(_, line)| is_informative(line));
        let worst = said().map(|(level, _)| *level).min()?;
        let lines = said().filter(|(level, _)| *level == worst).map(|(_, line)| plain(line));
        self.types()
            .or_else(|| lines.min_by_key(|line| line.len()).map(str::to_string))
    }

    /// For operators with few sets of types, the library lists what was asked for and what it takes, over some hundred lines. This is that in one: the
    /// sets that are nearest.
    fn types(&self) -> Option<String> {
        let of = |phrase: &'static str| self.0.iter().filter(move |(_, line)| line.contains(phrase));
        let asked = of("Requested I/O datatype set").find_map(|(_, line)| sets(line).pop())?;
        let mut taken: Vec<Types<'_>> = Vec::new();
        for set in of("Supported I/O datatype sets").flat_map(|(_, line)| sets(line)) {
            if !taken.contains(&set) {
                taken.push(set);
            }
        }
        let near = |set: &Types<'_>| {
            let same = |a: &[&str], b: &[&str]| a.iter().zip(b).filter(|(a, b)| a == b).count();
            same(&set.inputs, &asked.inputs) + same(&set.outputs, &asked.outputs)
        };
        taken.sort_by_key(|set| std::cmp::Reverse(near(set)));
        let listed: Vec<String> = taken.iter().take(MOST_SETS).map(Types::text).collect();
        let more = match taken.len().saturating_sub(MOST_SETS) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(match listed.is_empty() {
            true => format!("it does not take the types {}", asked.text()),
            false => format!(
                "it does not take the types {}, but {}{more}",
                asked.text(),
                listed.join(", ")
            ),
        })
    }
}

/// Types of inputs and outputs that go together.
#[derive(Debug, PartialEq, Default)]
struct Types<'a> {
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
}

impl Types<'_> {
    fn text(&self) -> String {
        format!("({}) -> {}", self.inputs.join(", "), self.outputs.join(", "))
    }
}

/// The sets of a text: `in[0]:QNN_DATATYPE_X` and `out[0]:...` a line, with a line between sets.
fn sets(text: &str) -> Vec<Types<'_>> {
    let mut all = vec![Types::default()];
    for line in text.lines().map(str::trim) {
        let typed = line
            .split_once("]:")
            .map(|(place, kind)| (place, kind.split(' ').next().unwrap_or(kind)));
        let set = all.last_mut();
        match (typed, set) {
            (Some((place, kind)), Some(set)) => {
                let kind = kind.trim_start_matches("QNN_DATATYPE_");
                match place.starts_with("out") {
                    true => set.outputs.push(kind),
                    false => set.inputs.push(kind),
                }
            }
            _ => all.push(Types::default()),
        }
    }
    all.retain(|set| *set != Types::default());
    all
}

/// What lines say that only tell that something went wrong, or that are said each time.
const EMPTY_PHRASES: [&str; 9] = [
    "unexpected GraphHtpSettings option",
    "Op specific validation failed",
    "master op validator",
    "QnnBackend_validateOpConfig failed",
    "Failed to validate op",
    "Please refer to the",
    "graph prepare failed",
    "skipping post-prepare steps",
    "preparation failed with err",
];

/// Whether a line says more than that something went wrong.
pub fn is_informative(line: &str) -> bool {
    !EMPTY_PHRASES.iter().any(|phrase| line.contains(phrase)) && plain(line).len() > 4
}

/// Without what stands before the sentence: the level, the place in the library's sources, and a number in brackets.
fn plain(line: &str) -> &str {
    let mut line = line.trim();
    for level in ["<E>", "<W>", "<I>"] {
        line = line.strip_prefix(level).unwrap_or(line).trim_start();
    }
    let place = line
        .split_once(':')
        .filter(|(file, _)| [".cc", ".h", ".cpp"].iter().any(|end| file.ends_with(end)));
    if let Some((_, rest)) = place {
        line = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    }
    for level in ["ERROR:", "WARNING:"] {
        line = line.strip_prefix(level).unwrap_or(line);
    }
    let number = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((number, rest)) = number
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        line = rest;
    }
    line.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: &[&str]) -> Words {
        Words(lines.iter().map(|line| (1, line.to_string())).collect())
    }

    #[test]
    fn the_reason_is_the_plainest_line() {
        let mut said = words(&[
            "<E> unexpected GraphHtpSettings option 66",
            "graph_prepare.cc:211::ERROR:could not create op: q::QNN_NoSuch",
            "<E> \"Add0\" generated: could not create op, as one says",
            "<E> RouterX86 graph prepare failed 12",
        ]);
        said.0.insert(0, (2, "graph_prepare.cc:12:WARNING:x of y".to_string()));
        assert_eq!(said.reason().as_deref(), Some("could not create op: q::QNN_NoSuch"));
        assert_eq!(plain("<E> [4294967295] has incorrect Rank 6."), "has incorrect Rank 6.");
        assert_eq!(plain("[x] y"), "[x] y");
        assert_eq!(Words::default().reason(), None);
        assert_eq!(words(&["Op specific validation failed."]).reason(), None);
    }

    #[test]
    fn sets_of_types_are_told_in_a_line() {
        let asked = "<E> Requested I/O datatype set:\n\n   in[0]:QNN_DATATYPE_A\n   in[1]:QNN_DATATYPE_B (optional)\n   out[0]:QNN_DATATYPE_A";
        let first = "<E> Supported I/O datatype sets for the configuration: BF16\n   1:\n   in[0]:QNN_DATATYPE_C\n   in[1]:QNN_DATATYPE_C\n   out[0]:QNN_DATATYPE_C";
        let second = "<E> Supported I/O datatype sets for the configuration: X (continued)\n   2:\n   in[0]:QNN_DATATYPE_A\n   in[1]:QNN_DATATYPE_A\n   \
            out[0]:QNN_DATATYPE_A\n   3:\n   in[0]:QNN_DATATYPE_D\n   out[0]:QNN_DATATYPE_D";
        let refer = "<E> Please refer to the section";
        let said = words(&[
            "<E> Unsupported input/output datatypes requested",
            asked,
            first,
            second,
            refer,
            asked,
            first,
            second,
        ]);
        let want = "it does not take the types (A, B) -> A, but (A, A) -> A, (C, C) -> C, (D) -> D";
        assert_eq!(said.reason().as_deref(), Some(want));
        let alone = words(&[asked]).reason().unwrap();
        assert_eq!(alone, "it does not take the types (A, B) -> A");
        let many: Vec<String> = (0..6)
            .map(|n| format!("Supported I/O datatype sets for\n in[0]:QNN_DATATYPE_{n}\n out[0]:QNN_DATATYPE_{n}"))
            .collect();
        let mut lines = vec![asked];
        lines.extend(many.iter().map(String::as_str));
        assert!(words(&lines).reason().unwrap().ends_with("(3) -> 3, and 2 more"));
    }
}
