//! Options, and what is said of errors.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{open, refused, warn};
use crate::driver::{Place, Refused, Script, Tensor};
use crate::workload::Bench;
use delegraph_abi::Status;
use serde_json::{Map, Value, json};

const TYPES: [&str; 4] = ["boolean", "integer", "number", "string"];

/// What `options_schema` gives; skipped where it gives none.
fn schema_of(trial: &Trial<'_>) -> Result<Value, Failure> {
    let library = open(trial)?;
    let Some(text) = library.options_schema()? else {
        return Err(Failure::skip("the table has no `options_schema`"));
    };
    if library.options_schema()?.as_ref() != Some(&text) {
        return Err(Failure::fail("`options_schema` gave another text the second time"));
    }
    serde_json::from_str(&text).map_err(|error| Failure::fail(format!("`options_schema` gave no JSON: {error}")))
}

pub fn schema(trial: &mut Trial<'_>) -> Outcome {
    let schema = schema_of(trial)?;
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err(Failure::fail(format!(
            "`type` of the schema is {}, not \"object\"",
            schema["type"]
        )));
    }
    let Some(properties) = schema["properties"].as_object() else {
        return Err(Failure::fail("the schema has no object `properties`"));
    };
    for (name, property) in properties {
        let kind = property["type"].as_str().unwrap_or("");
        if !TYPES.contains(&kind) {
            return Err(Failure::fail(format!(
                "`type` of the option `{name}` is {}, and none of {}",
                property["type"],
                TYPES.join(", ")
            )));
        }
        if let Some(default) = property.get("default")
            && !fits(default, kind)
        {
            return Err(Failure::fail(format!(
                "`default` of the option `{name}` is {default}, which is no {kind}"
            )));
        }
        if property.get("enum").is_some_and(|values| !values.is_array()) {
            return Err(Failure::fail(format!("`enum` of the option `{name}` is no list")));
        }
        for bound in ["minimum", "maximum"] {
            if property.get(bound).is_some_and(|value| !value.is_number()) {
                return Err(Failure::fail(format!("`{bound}` of the option `{name}` is no number")));
            }
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        let name = required.as_str().unwrap_or("");
        if !properties.contains_key(name) {
            return Err(Failure::fail(format!(
                "the schema requires {required}, which is no option"
            )));
        }
    }
    Ok(())
}

fn fits(value: &Value, kind: &str) -> bool {
    match kind {
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        _ => value.is_string(),
    }
}

/// Starts with one option more than the subject's.
fn start_with(trial: &Trial<'_>, key: &str, value: Value) -> Result<(), Refused> {
    let library = match open(trial) {
        Ok(library) => library,
        Err(failure) => {
            return Err(Refused {
                function: "the entry",
                status: Status::INTERNAL,
                vendor_code: 0,
                node: None,
                message: failure.reason,
                hint: String::new(),
            });
        }
    };
    let mut options: Map<String, Value> = trial.subject.options.clone();
    options.insert(key.to_string(), value);
    library.start(&options, &Script::default()).map(drop)
}

pub fn unknown(trial: &mut Trial<'_>) -> Outcome {
    for (key, value) in [
        ("delegraph-kit.no-such-option", json!(1)),
        ("delegraph-kit.no-such-option", json!("a")),
        ("", json!(true)),
    ] {
        let outcome = start_with(trial, key, value.clone());
        let what = format!("`initialize` with the unknown option `{key}` = {value}");
        refused(&what, outcome, &[Status::INVALID_ARGUMENT])?;
    }
    Ok(())
}

pub fn types(trial: &mut Trial<'_>) -> Outcome {
    let schema = schema_of(trial)?;
    let Some(properties) = schema["properties"].as_object().filter(|all| !all.is_empty()) else {
        return Err(Failure::skip("it has no options"));
    };
    for name in properties.keys() {
        trial.step(&format!("option `{name}` of an unknown type"));
        let what = format!("`initialize` with the option `{name}` of a `dg_kv_type` that does not exist");
        refused(&what, start_with(trial, name, Value::Null), &[Status::INVALID_ARGUMENT])?;
    }
    Ok(())
}

pub fn messages(trial: &mut Trial<'_>) -> Outcome {
    let mut silent = Vec::new();
    let mut listen = |what: &str, outcome: Result<(), Refused>| {
        if let Err(refused) = outcome
            && refused.message.is_empty()
        {
            silent.push(format!("{what}: {refused}"));
        }
    };
    let unknown = start_with(trial, "delegraph-kit.no-such-option", json!(1));
    listen("an unknown option", unknown);
    match Bench::open(trial) {
        Ok(bench) => {
            let script = Script::default();
            let mut blob = bench.blob.clone();
            blob.sections.clear();
            let device = trial.subject.device;
            let empty = bench.instance.load(&blob, &bench.weights, device, &script);
            listen("a blob without sections", empty.map(drop));
            blob.sections.clone_from(&bench.blob.sections);
            for (_, _, bytes) in &mut blob.sections {
                bytes.truncate(1);
            }
            let short = bench.instance.load(&blob, &bench.weights, device, &script);
            listen("a blob that is cut short", short.map(drop));
            let mut session = bench.load()?;
            let inputs: Result<Vec<Tensor>, String> = bench
                .workload
                .inputs
                .iter()
                .map(|spec| {
                    let sizes: Vec<i64> = spec.sizes.iter().map(|size| size * 2).collect();
                    Tensor::output(spec.dtype, &sizes, Place::End)
                })
                .collect();
            let (_, _, mut outputs) = bench.tensors(1, Place::End)?;
            listen("inputs of other sizes", session.run(&inputs?, &mut outputs, &script));
        }
        Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => {}
        Err(other) => return Err(other),
    }
    warn(&silent)
}
