//! The cases as `report.html` carries them: columns, each text once, ids by what they have in common with the one before. Five thousand
//! cases take some hundreds of kilobytes so.

use crate::grid::letter;
use crate::text::cut;
use crate::truth::{Truth, category_of};
use delegraph_runner::{CaseRecord, Claim, Verdict};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Stands for the id of the case in a text that has it.
const ID: char = '\u{1}';

/// How much of each case's texts is carried; all of it is in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Characters of the reason of a failure.
    pub failure: usize,
    /// The same of every other case.
    pub other: usize,
    /// Whether commands and shapes of cases that did not fail are carried.
    pub details: bool,
}

/// Each text once.
#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    places: HashMap<String, usize>,
}

impl Texts {
    fn place(&mut self, text: String) -> usize {
        if let Some(place) = self.places.get(&text) {
            return *place;
        }
        self.texts.push(text.clone());
        self.places.insert(text, self.texts.len() - 1);
        self.texts.len() - 1
    }
}

/// The object that the page's script reads. All columns have one entry a case; `texts` is what the numbers in columns of texts point to.
pub(super) fn data(truth: &Truth, limits: Limits) -> Value {
    let cases = &truth.cases;
    let mut texts = Texts::default();
    texts.place(String::new());
    let mut ids = Vec::new();
    let mut before = "";
    for case in cases {
        let common = common_start(before, &case.id);
        ids.push(json!(common));
        ids.push(json!(case.id[common..]));
        before = &case.id;
    }
    let categories: Vec<Value> = cases
        .chunk_by(|a, b| category_of(a) == category_of(b))
        .map(|chunk| json!([chunk.first().map_or("other", category_of), chunk.len()]))
        .collect();
    let column = |texts: &mut Texts, of: &dyn Fn(&CaseRecord) -> String| -> Vec<usize> {
        cases.iter().map(|case| texts.place(of(case))).collect()
    };
    let kept = |case: &CaseRecord| limits.details || case.verdict.is_failure();
    let reasons = column(&mut texts, &|case| {
        let limit = if case.verdict.is_failure() {
            limits.failure
        } else {
            limits.other
        };
        cut(&case.reason, limit).replace(case.id.as_str(), &ID.to_string())
    });
    let commands = column(&mut texts, &|case| match kept(case) {
        true => case.repro.replace(case.id.as_str(), &ID.to_string()),
        false => String::new(),
    });
    let shapes = column(&mut texts, &|case| {
        if kept(case) { case.shapes.clone() } else { String::new() }
    });
    let tolerances = column(&mut texts, &|case| {
        if kept(case) {
            case.tolerance.clone()
        } else {
            String::new()
        }
    });
    let ops = column(&mut texts, &|case| case.op.clone());
    let dtypes = column(&mut texts, &|case| case.dtype.clone());
    let mut sparse = serde_json::Map::new();
    for (i, case) in cases.iter().enumerate() {
        let mut extra = serde_json::Map::new();
        if !case.bundle.is_empty() {
            extra.insert("bundle".to_string(), json!(case.bundle));
        }
        if !case.measured.is_empty() {
            let measured = case
                .measured
                .iter()
                .map(|(name, value)| (name.clone(), rounded(*value)));
            extra.insert("measured".to_string(), Value::Object(measured.collect()));
        }
        for (name, value) in [
            ("snr_db", case.snr_db),
            ("p50_us", case.p50_us),
            ("p95_us", case.p95_us),
            ("peak_bytes", case.peak_bytes.map(|bytes| bytes as f64)),
        ] {
            if let Some(value) = value {
                extra.insert(name.to_string(), rounded(value));
            }
        }
        if !extra.is_empty() {
            sparse.insert(i.to_string(), Value::Object(extra));
        }
    }
    let numbers =
        |of: &dyn Fn(&CaseRecord) -> f64| -> Vec<Value> { cases.iter().map(|case| rounded(of(case))).collect() };
    json!({
        "verdicts": Verdict::ALL.map(Verdict::name),
        "count": cases.len(),
        "ids": ids,
        "categories": categories,
        "verdict": cases.iter().map(|case| digit(Verdict::ALL.iter().position(|v| *v == case.verdict))).collect::<String>(),
        "letter": cases.iter().map(letter).collect::<String>(),
        "claim": cases.iter().map(|case| match case.claim {
            Claim::Unknown => '0',
            Claim::Claimed => '1',
            Claim::Taken => '2',
            Claim::None => '3',
        }).collect::<String>(),
        "op": ops,
        "dtype": dtypes,
        "reason": reasons,
        "repro": commands,
        "shapes": shapes,
        "tolerance": tolerances,
        "max_abs": numbers(&|case| case.max_abs),
        "max_rel": numbers(&|case| case.max_rel),
        "total_ms": numbers(&|case| case.total_ms),
        "extra": sparse,
        "texts": texts.texts,
        "cut": !limits.details,
    })
}

fn digit(position: Option<usize>) -> char {
    char::from_digit(position.unwrap_or(0) as u32, 10).unwrap_or('0')
}

/// Four significant digits are enough to look at; the log has all of them. `"infinite"` where JSON has no number.
fn rounded(value: f64) -> Value {
    if value == 0.0 {
        return json!(0);
    }
    if !value.is_finite() {
        return json!("infinite");
    }
    let text = format!("{value:.3e}");
    match text.parse::<f64>() {
        Ok(short) if short.fract() == 0.0 && short.abs() < 1e15 => json!(short as i64),
        Ok(short) => json!(short),
        Err(_) => json!(0),
    }
}

/// Bytes that both begin with, up to the first that is not ASCII: script counts in other units there.
fn common_start(a: &str, b: &str) -> usize {
    a.bytes()
        .zip(b.bytes())
        .take_while(|(x, y)| x == y && x.is_ascii())
        .count()
}

/// JSON that can stand in a `script` element: nothing in it ends the element or begins a comment.
pub(super) fn embedded(value: &Value) -> String {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::RunInfo;

    #[test]
    fn ids_come_back_from_what_they_have_in_common() {
        let names = [
            "op/aten::add/f32/a",
            "op/aten::add/f32/ab",
            "op/aten::ädd/f32",
            "op/aten::äde/f32",
            "x",
        ];
        let cases = names.iter().map(|id| CaseRecord::new(*id, Verdict::Pass, "")).collect();
        let limits = Limits {
            failure: 10,
            other: 10,
            details: true,
        };
        let object = data(&Truth::new(RunInfo::default(), cases), limits);
        let (mut ids, mut before) = (Vec::new(), String::new());
        for pair in object["ids"].as_array().unwrap().chunks(2) {
            before = before[..pair[0].as_u64().unwrap() as usize].to_string() + pair[1].as_str().unwrap();
            ids.push(before.clone());
        }
        assert_eq!(ids, names);
        assert_eq!(object["ids"][2], 18);
    }

    #[test]
    fn a_script_element_is_not_left() {
        let text = embedded(&json!({"a": "</script><!-- & \u{2028}"}));
        assert!(!text.contains(['<', '>', '&']), "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap()["a"],
            "</script><!-- & \u{2028}"
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.123_456_78, "0.1235"),
            (3.0, "3"),
            (f64::INFINITY, "\"infinite\""),
            (1.25e-9, "1.25e-9"),
        ] {
            assert_eq!(rounded(value).to_string(), text);
        }
    }
}
