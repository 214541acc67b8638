//! A user's options for a delegate: plain values, checked against the delegate's own JSON Schema.
//!
//! Of JSON Schema (2020-12) options use this much: an object with `properties`, each of one `type` (`boolean`, `integer`, `number`,
//! `string`) with `enum`, `minimum`, `maximum`, and `required`. Words that only describe (`title`, `description`, `default`,
//! `examples`, `$schema`, `$id`, `deprecated`) are passed over; `additionalProperties` may only be false, which it is in any case. A
//! schema that says more is refused, since what it means would not be checked.

use delegraph_abi::c;
use delegraph_types::nearest;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Words of a schema that ask for nothing.
const DESCRIBING: [&str; 8] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
];

/// SHA-256 of the options, whatever order they were written in.
pub(crate) fn hash(options: Option<&Value>) -> [u8; 32] {
    let none = Value::Object(Map::new());
    let text = canonical(options.unwrap_or(&none));
    Sha256::digest(text.as_bytes()).into()
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let mut keys: Vec<&String> = table.keys().collect();
            keys.sort();
            let items: Vec<String> = keys
                .iter()
                .map(|key| format!("{}:{}", Value::from(key.as_str()), canonical(&table[key.as_str()])))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        other => other.to_string(),
    }
}

/// Parses a delegate's schema.
///
/// # Errors
/// It is no JSON, or says what is not checked here.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let wrong = |why: String| format!("its options' schema is out of contract: {why}");
    let schema: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let table = schema.as_object().ok_or_else(|| wrong("it is no object".to_string()))?;
    for (word, value) in table {
        let fine = match word.as_str() {
            "type" => value == "object",
            "properties" => value.is_object(),
            "required" => value.as_array().is_some_and(|a| a.iter().all(Value::is_string)),
            "additionalProperties" => value == &Value::Bool(false),
            word => DESCRIBING.contains(&word),
        };
        if !fine {
            return Err(wrong(format!("`{word}` is not used for options, or not so")));
        }
    }
    for (key, property) in properties(&schema) {
        let property = property.as_object();
        let property = property.ok_or_else(|| wrong(format!("`{key}` is described by no object")))?;
        for (word, value) in property {
            let fine = match word.as_str() {
                "type" => value.as_str().is_some_and(|t| TYPES.contains(&t)),
                "enum" => value.is_array(),
                "minimum" | "maximum" => value.is_number(),
                word => DESCRIBING.contains(&word),
            };
            if !fine {
                return Err(wrong(format!("`{word}` of `{key}` is not used for options, or not so")));
            }
        }
        if !property.contains_key("type") {
            return Err(wrong(format!("`{key}` has no type")));
        }
    }
    Ok(schema)
}

const TYPES: [&str; 4] = ["boolean", "integer", "number", "string"];

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// Checks options against a parsed schema.
///
/// # Errors
/// Names the key, what it may be, and the nearest key for one that is unknown.
pub(crate) fn check(schema: &Value, options: Option<&Value>) -> Result<(), String> {
    let none = Map::new();
    let options = match options {
        None => &none,
        Some(options) => options.as_object().ok_or("its options are no table")?,
    };
    for (key, value) in options {
        let Some((_, property)) = properties(schema).find(|(known, _)| *known == key) else {
            let known: Vec<&str> = properties(schema).map(|(known, _)| known.as_str()).collect();
            let hint = match (nearest(key, known.iter().copied()), known.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, true) => "this delegate has no options".to_string(),
                (None, false) => format!("the options are `{}`", known.join("`, `")),
            };
            return Err(format!("unknown option `{key}`; {hint}"));
        };
        fits(property, value).map_err(|why| format!("option `{key}` is {value}; it {why}"))?;
    }
    let required = schema["required"].as_array().into_iter().flatten();
    match required
        .filter_map(Value::as_str)
        .find(|key| !options.contains_key(*key))
    {
        Some(missing) => Err(format!("option `{missing}` is missing")),
        None => Ok(()),
    }
}

fn fits(property: &Value, value: &Value) -> Result<(), String> {
    let is_whole = value.is_i64() || value.is_u64();
    let typed = match property["type"].as_str() {
        Some("boolean") => value.is_boolean(),
        Some("integer") => is_whole,
        Some("number") => value.is_number(),
        _ => value.is_string(),
    };
    if !typed {
        return Err(format!(
            "has to be of type {}",
            property["type"].as_str().unwrap_or_default()
        ));
    }
    if let Some(allowed) = property["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let near = value
            .as_str()
            .and_then(|text| nearest(text, allowed.iter().filter_map(Value::as_str)));
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(format!("has to be one of {}{hint}", allowed.join(", ")));
    }
    let number = value.as_f64();
    let beyond = |bound: &str, outside: fn(f64, f64) -> bool| match (number, property[bound].as_f64()) {
        (Some(number), Some(limit)) if outside(number, limit) => Some(&property[bound]),
        _ => None,
    };
    if let Some(least) = beyond("minimum", |number, limit| number < limit) {
        return Err(format!("has to be at least {least}"));
    }
    if let Some(most) = beyond("maximum", |number, limit| number > limit) {
        return Err(format!("has to be at most {most}"));
    }
    Ok(())
}

/// A key and a plain value.
pub(crate) struct Plain<'a> {
    key: &'a str,
    value: PlainValue<'a>,
}

enum PlainValue<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
}

impl Plain<'_> {
    pub fn entry(&self) -> c::Kv {
        let mut kv = c::Kv {
            key: self.key.as_ptr(),
            key_size: self.key.len() as u64,
            ..c::Kv::new()
        };
        match self.value {
            PlainValue::Bool(b) => (kv.r#type, kv.int_value) = (c::KvType::BOOL, i64::from(b)),
            PlainValue::Int(i) => (kv.r#type, kv.int_value) = (c::KvType::INT, i),
            PlainValue::Float(f) => (kv.r#type, kv.float_value) = (c::KvType::FLOAT, f),
            PlainValue::Str(s) => {
                kv.r#type = c::KvType::STR;
                (kv.str_value, kv.str_value_size) = (s.as_ptr(), s.len() as u64);
            }
        }
        kv
    }
}

/// The options as the contract hands them over.
///
/// # Errors
/// One that is no plain value.
pub(crate) fn plain(options: Option<&Value>) -> Result<Vec<Plain<'_>>, String> {
    let Some(options) = options else {
        return Ok(Vec::new());
    };
    let table = options.as_object().ok_or("its options are no table")?;
    table
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Bool(b) => PlainValue::Bool(*b),
                Value::String(s) => PlainValue::Str(s),
                Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                    (Some(i), _) => PlainValue::Int(i),
                    (None, Some(f)) => PlainValue::Float(f),
                    (None, None) => return Err(format!("option `{key}` is a number that does not fit")),
                },
                _ => return Err(format!("option `{key}` is neither a number, a text nor a boolean")),
            };
            Ok(Plain { key, value })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_are_held_to_the_schema_and_a_typo_gets_the_nearest_key() {
        let schema = parse(
            r#"{"type": "object", "properties": {
                "performance_mode": {"type": "string", "enum": ["burst", "balanced"], "description": "how fast"},
                "vtcm_mb": {"type": "integer", "minimum": 0, "maximum": 16, "default": 8},
                "ratio": {"type": "number"}, "fast": {"type": "boolean"}}, "required": ["fast"]}"#,
        )
        .unwrap();
        let said = |options: Value| check(&schema, Some(&options)).err().unwrap_or_default();
        let good = json!({"performance_mode": "burst", "vtcm_mb": 8, "ratio": 1, "fast": true});
        assert_eq!(said(good), "");
        let cases = [
            (
                json!({"fast": true, "vtcm_md": 8}),
                "unknown option `vtcm_md`; did you mean `vtcm_mb`?",
            ),
            (
                json!({"fast": true, "vtcm_mb": 17}),
                "option `vtcm_mb` is 17; it has to be at most 16",
            ),
            (json!({"fast": true, "vtcm_mb": -1}), "has to be at least 0"),
            (json!({"fast": true, "vtcm_mb": 1.5}), "has to be of type integer"),
            (json!({"fast": 1}), "option `fast` is 1; it has to be of type boolean"),
            (
                json!({"fast": true, "performance_mode": "bursst"}),
                "has to be one of \"burst\", \"balanced\"; did you mean `burst`?",
            ),
            (json!({}), "option `fast` is missing"),
            (json!([]), "its options are no table"),
        ];
        for (options, words) in cases {
            let have = said(options.clone());
            assert!(have.contains(words), "{options}: {have}");
        }
        assert!(check(&schema, None).is_err());
    }

    #[test]
    fn a_schema_that_says_more_than_is_checked_is_refused() {
        for (text, words) in [
            ("[", "out of contract"),
            ("[]", "it is no object"),
            (r#"{"oneOf": []}"#, "`oneOf`"),
            (r#"{"properties": {"a": {"type": "array"}}}"#, "`type` of `a`"),
            (
                r#"{"properties": {"a": {"type": "string", "pattern": "x"}}}"#,
                "`pattern` of `a`",
            ),
            (r#"{"properties": {"a": {}}}"#, "`a` has no type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_hash_is_of_what_is_meant_not_of_how_it_is_written() {
        let a: Value = serde_json::from_str(r#"{"a": 1, "b": "x"}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":"x","a":1}"#).unwrap();
        assert_eq!(hash(Some(&a)), hash(Some(&b)));
        assert_eq!(hash(None), hash(Some(&json!({}))));
        assert_ne!(hash(Some(&a)), hash(None));
    }
}
