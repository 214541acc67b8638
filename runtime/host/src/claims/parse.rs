//! Reads the `[[op]]` tables of a manifest.

use super::condition::{COMPARISONS, WORDS};
use super::{Claim, Claims, Condition, DTYPES, Dynamic, Literal, QuantKind, WeightRule};
use crate::manifest::known_keys;
use delegraph_abi::DType;
use delegraph_types::nearest;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Most dimensions that a claim speaks of: PyTorch has no tensors of more.
const MOST_RANK: usize = 64;

const KEYS: [&str; 12] = [
    "op", "dtypes", "mixed", "outputs", "params", "ranks", "shapes", "weights", "dynamic", "quant", "storage", "where",
];

/// The claims of a manifest.
///
/// # Errors
/// One sentence that names the table and the key.
pub(crate) fn parse(manifest: &Table) -> Result<Claims, String> {
    let tables = match manifest.get("op") {
        None => return Ok(Claims::default()),
        Some(Value::Array(tables)) => tables,
        Some(_) => return Err("`op` in the manifest is no list of tables: write `[[op]]`".to_string()),
    };
    let mut entries = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let place = format!("op[{}].", i + 1);
        let Value::Table(table) = table else {
            return Err("`op` in the manifest is no list of tables: write `[[op]]`".to_string());
        };
        known_keys(table, &KEYS, &place)?;
        entries.push(claim(table).map_err(|(key, problem)| format!("`{place}{key}` in the manifest {problem}"))?);
    }
    Ok(Claims { entries })
}

/// The key, and what is wrong with it.
type Problem = (String, String);

fn claim(table: &Table) -> Result<Claim, Problem> {
    let at = |key: &'static str| move |problem: String| (key.to_string(), problem);
    let ops = match table.get("op") {
        None => return Err(("op".to_string(), "is missing: which operator is claimed?".to_string())),
        Some(value) => texts(value).map_err(at("op"))?,
    };
    if let Some(name) = ops.iter().find(|name| !name.contains("::") && !name.contains('*')) {
        let hint = format!("names `{name}`, which has no namespace; did you mean `aten::{name}`?");
        return Err(("op".to_string(), hint));
    }
    let dtypes = |key: &'static str| -> Result<Vec<DType>, Problem> {
        table.get(key).map_or(Ok(Vec::new()), dtypes).map_err(at(key))
    };
    let made = Claim {
        ops,
        dtypes: dtypes("dtypes")?,
        mixed: match table.get("mixed") {
            None => false,
            Some(Value::Boolean(mixed)) => *mixed,
            Some(_) => return Err(at("mixed")("is neither true nor false".to_string())),
        },
        outputs: dtypes("outputs")?,
        params: params(table).map_err(at("params"))?,
        ranks: table.get("ranks").map_or(Ok(Vec::new()), ranks).map_err(at("ranks"))?,
        equal_shapes: word(table, "shapes", &[("any", false), ("equal", true)])?,
        weights: match table.get("weights") {
            Some(Value::Array(names)) if !names.is_empty() => {
                WeightRule::Constant(texts(&Value::Array(names.clone())).map_err(at("weights"))?)
            }
            _ => word(
                table,
                "weights",
                &[("any", WeightRule::Any), ("none", WeightRule::None)],
            )?,
        },
        dynamic: word(
            table,
            "dynamic",
            &[
                ("static", Dynamic::Static),
                ("bounded", Dynamic::Bounded),
                ("any", Dynamic::Any),
            ],
        )?,
        quant: quant(table).map_err(at("quant"))?,
        storage: dtypes("storage")?,
        conditions: conditions(table).map_err(|(name, problem)| (format!("where.{name}"), problem))?,
    };
    if made.dtypes.is_empty() && made.quant.is_empty() {
        return Err(at("dtypes")("is missing: of which dtypes are the tensors?".to_string()));
    }
    if made.quant.is_empty() != made.storage.is_empty() {
        return Err(at("storage")("goes with `quant`: give both or neither".to_string()));
    }
    Ok(made)
}

/// A text, or a list of texts that is not empty.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    let items = match value {
        Value::String(one) => return Ok(vec![one.clone()]),
        Value::Array(items) if !items.is_empty() => items,
        _ => return Err("is neither a text nor a list of texts".to_string()),
    };
    let text = |item: &Value| item.as_str().map(str::to_string);
    let texts: Option<Vec<String>> = items.iter().map(text).collect();
    texts.ok_or_else(|| "holds something that is no text".to_string())
}

fn dtypes(value: &Value) -> Result<Vec<DType>, String> {
    texts(value)?.iter().map(|name| dtype(name)).collect()
}

fn dtype(name: &str) -> Result<DType, String> {
    let names = DTYPES.map(|dtype| dtype.to_string());
    let at = names.iter().position(|known| known == name);
    at.map(|at| DTYPES[at]).ok_or_else(|| {
        let hint = nearest(name, names.iter().map(String::as_str));
        let hint = hint.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        format!("holds `{name}`, which is no dtype{hint}")
    })
}

fn params(table: &Table) -> Result<BTreeMap<String, Vec<DType>>, String> {
    match table.get("params") {
        None => Ok(BTreeMap::new()),
        Some(Value::Table(params)) => params
            .iter()
            .map(|(name, value)| Ok((name.clone(), dtypes(value)?)))
            .collect(),
        Some(_) => Err("is no table of dtypes by parameter".to_string()),
    }
}

/// `[2, 4]`, `4` or `"0..=4"`; ascending.
fn ranks(value: &Value) -> Result<Vec<usize>, String> {
    let one = |value: &Value| {
        let rank = value.as_integer().and_then(|rank| usize::try_from(rank).ok());
        rank.filter(|rank| *rank <= MOST_RANK)
            .ok_or_else(|| format!("holds `{value}`, which is no number of dimensions (0 to {MOST_RANK})"))
    };
    let mut ranks = match value {
        Value::Integer(_) => vec![one(value)?],
        Value::Array(items) if !items.is_empty() => items.iter().map(one).collect::<Result<_, _>>()?,
        Value::String(range) => {
            let ends = range
                .split_once("..=")
                .map(|(a, b)| (a.trim().parse(), b.trim().parse()));
            match ends {
                Some((Ok(first), Ok(last))) if first <= last && last <= MOST_RANK => (first..=last).collect(),
                _ => return Err(format!("is `{range}`; a range is written `\"0..=4\"`")),
            }
        }
        _ => return Err("is neither a list of numbers nor a range `\"0..=4\"`".to_string()),
    };
    ranks.sort_unstable();
    ranks.dedup();
    Ok(ranks)
}

/// One of several words; the first where the key is absent.
fn word<T: Clone>(table: &Table, key: &'static str, words: &[(&str, T)]) -> Result<T, Problem> {
    let found = match table.get(key) {
        None => words.first(),
        Some(value) => words.iter().find(|(word, _)| value.as_str() == Some(word)),
    };
    found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        (key.to_string(), format!("is none of {}", words.join(", ")))
    })
}

fn quant(table: &Table) -> Result<Vec<QuantKind>, String> {
    let Some(value) = table.get("quant").filter(|value| value.as_str() != Some("none")) else {
        return Ok(Vec::new());
    };
    let kinds = [QuantKind::PerTensor, QuantKind::PerAxis, QuantKind::PerBlock];
    let kind = |name: &String| {
        let known = kinds.into_iter().find(|kind| kind.to_string() == *name);
        known.ok_or_else(|| format!("holds `{name}`, which is none of `none`, `per-tensor`, `per-axis`, `per-block`"))
    };
    texts(value)?.iter().map(kind).collect()
}

fn conditions(table: &Table) -> Result<BTreeMap<String, Vec<Condition>>, Problem> {
    let table = match table.get("where") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Table(table)) => table,
        Some(_) => return Err((String::new(), "is no table of arguments by parameter".to_string())),
    };
    let mut all = BTreeMap::new();
    for (name, value) in table {
        let allowed = match value {
            Value::Array(items) if !items.is_empty() => items.iter().map(condition).collect(),
            Value::Array(_) => Err("allows nothing".to_string()),
            one => condition(one).map(|condition| vec![condition]),
        };
        all.insert(name.clone(), allowed.map_err(|problem| (name.clone(), problem))?);
    }
    Ok(all)
}

fn condition(value: &Value) -> Result<Condition, String> {
    let Some(text) = value.as_str() else {
        return literal(value).map(Condition::Equal);
    };
    if let Some((_, word)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(Condition::Word(*word));
    }
    let Some((sign, how)) = COMPARISONS.iter().find(|(sign, _)| text.starts_with(sign)) else {
        return Ok(Condition::Equal(Literal::Text(text.to_string())));
    };
    let number = text[sign.len()..].trim();
    let parsed = number
        .parse()
        .map(Literal::Int)
        .or_else(|_| number.parse().map(Literal::Float));
    match parsed {
        Ok(Literal::Float(limit)) if limit.is_nan() => Err(format!("compares with `{number}`, as nothing does")),
        Ok(limit) => Ok(Condition::Compare(*how, limit)),
        Err(_) => Err(format!("is `{text}`: a comparison is with a number, as in `\"<=7\"`")),
    }
}

fn literal(value: &Value) -> Result<Literal, String> {
    match value {
        Value::Boolean(b) => Ok(Literal::Bool(*b)),
        Value::Integer(i) => Ok(Literal::Int(*i)),
        Value::Float(x) => Ok(Literal::Float(*x)),
        Value::String(text) => Ok(Literal::Text(text.clone())),
        Value::Array(items) => {
            let item = |item: &Value| match item {
                Value::Array(_) => Err("has lists within lists of lists".to_string()),
                item => literal(item),
            };
            Ok(Literal::List(items.iter().map(item).collect::<Result<_, _>>()?))
        }
        other => Err(format!("holds a {}, which no argument is", other.type_str())),
    }
}
