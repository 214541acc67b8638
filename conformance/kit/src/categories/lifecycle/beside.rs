//! Several delegates and hosts in one process.

use super::same;
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::open;
use crate::driver::{HostShape, Library, Script};
use crate::workload::Bench;
use serde_json::{Map, Value};
use std::sync::Arc;

pub fn two_instances(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let (first, second) = (Bench::open(trial)?, Bench::open(trial)?);
    let (mut one, mut two) = (first.load()?, second.load()?);
    let before = first.run_once(&mut one, 1, &script)?;
    same(
        "in the other instance",
        &before,
        &second.run_once(&mut two, 1, &script)?,
    )?;
    // A blob of one is a blob of the other.
    let mut crossed = second
        .instance
        .load(&first.blob, &first.weights, trial.subject.device, &script)?;
    same(
        "of the other's blob",
        &before,
        &second.run_once(&mut crossed, 1, &script)?,
    )?;
    crossed.unload();
    two.unload();
    second.instance.shutdown();
    trial.step("a run after the other instance's end");
    same(
        "after the other instance's end",
        &before,
        &first.run_once(&mut one, 1, &script)?,
    )?;
    let answers = first
        .instance
        .partition(&first.workload.image, first.workload.nodes, &script)?;
    match answers.takes_all(first.workload.nodes) {
        true => Ok(()),
        false => Err(Failure::fail(
            "`partition` answers otherwise after the other instance's end",
        )),
    }
}

pub fn two_hosts(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let mine = open(trial)?;
    // A table of its own, as another host in the process has.
    let other = Arc::new(Library::open_as(trial.subject, HostShape::Newer)?);
    let bench = |library: &Arc<Library>| Bench::on(library.clone(), trial, &script, |_, _| true, (3, 5, 1));
    let (first, second) = (bench(&mine)?, bench(&other)?);
    let (mut one, mut two) = (first.load()?, second.load()?);
    for seed in 0..4 {
        let result = first.run_once(&mut one, seed, &script)?;
        same(
            "with the other host",
            &result,
            &second.run_once(&mut two, seed, &script)?,
        )?;
    }
    one.unload();
    first.instance.shutdown();
    second.run_once(&mut two, 9, &script)?;
    Ok(())
}

pub fn options_differ(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let Some(text) = library.options_schema()? else {
        return Err(Failure::skip("the table has no `options_schema`"));
    };
    let schema: Value =
        serde_json::from_str(&text).map_err(|error| Failure::fail(format!("`options_schema`: {error}")))?;
    // Values that the schema allows and that are not the default.
    let mut others: Vec<(String, Value)> = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let default = &property["default"];
        let values: Vec<Value> = match (property["enum"].as_array(), property["type"].as_str()) {
            (Some(values), _) => values.clone(),
            (None, Some("boolean")) => vec![Value::Bool(true), Value::Bool(false)],
            (None, Some("integer")) => property
                .get("minimum")
                .into_iter()
                .chain(property.get("maximum"))
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        others.extend(
            values
                .into_iter()
                .find(|value| value != default)
                .map(|value| (name.clone(), value)),
        );
    }
    if others.is_empty() {
        return Err(Failure::skip("it has no options with values to choose from"));
    }
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let before = bench.run_once(&mut session, 1, &Script::default())?;
    for (name, value) in others {
        let mut options: Map<String, Value> = trial.subject.options.clone();
        options.insert(name.clone(), value.clone());
        // Some combinations are refused; what counts is the instance without.
        let other = library.start(&options, &Script::default());
        let now = bench.run_once(&mut session, 1, &Script::default())?;
        same(&format!("beside an instance with `{name}` = {value}"), &before, &now)?;
        drop(other);
        same(
            &format!("after one with `{name}` = {value}"),
            &before,
            &bench.run_once(&mut session, 1, &Script::default())?,
        )?;
    }
    Ok(())
}
