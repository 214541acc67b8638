//! A delegate's beginning and end, many times.

use super::same;
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{Budget, life, open, start};
use crate::driver::Script;
use crate::driver::process::threads;
use crate::workload::Bench;
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

pub fn again(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let first = Bench::open(trial)?;
    let mut session = first.load()?;
    let before = first.run_once(&mut session, trial.seed, &script)?;
    session.unload();
    first.instance.shutdown();
    for _ in 0..2 {
        let second = Bench::open(trial)?;
        let mut session = second.load()?;
        same(
            "in a new life",
            &before,
            &second.run_once(&mut session, trial.seed, &script)?,
        )?;
        session.unload();
        second.instance.shutdown();
    }
    Ok(())
}

pub fn thousand(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let budget = Budget::seconds(10);
    let mut cycles = 0;
    while cycles < 1000 && !budget.spent() {
        let script = Script::default();
        let instance = library
            .start(&trial.subject.options, &script)
            .map_err(|refused| Failure::fail(format!("in cycle {cycles}: {refused}")))?;
        instance.shutdown();
        cycles += 1;
    }
    trial.measure("cycles", f64::from(cycles));
    trial.measure("cycle (ms)", budget.so_far() * 1e3 / f64::from(cycles));
    // And whole lives, for as long again.
    let budget = Budget::seconds(10);
    let mut lives = 0;
    while lives < 100 && !budget.spent() {
        life(&library, trial, &Script::default())
            .map_err(|failure| Failure::fail(format!("in life {lives}, after {cycles} cycles: {}", failure.reason)))?;
        lives += 1;
    }
    trial.measure("lives", f64::from(lives));
    Ok(())
}

pub fn devices_same(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = start(trial)?;
    let first = instance.devices()?;
    if instance.devices()? != first {
        return Err(Failure::fail("`device_enumerate` gave other devices the second time"));
    }
    let addresses = instance.enumerate(first.len())?;
    if instance.enumerate(first.len())? != addresses {
        return Err(Failure::fail(
            "`device_enumerate` gave other records the second time: they are constant until `shutdown`",
        ));
    }
    instance.shutdown();
    let instance = library.start(&trial.subject.options, &Script::default())?;
    match instance.devices()? == first {
        true => Ok(()),
        false => Err(Failure::fail(
            "`device_enumerate` gave other devices in the second life",
        )),
    }
}

pub fn threads_end(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    // What the loader or a runtime starts once for the process is not the delegate's to stop.
    let before = match threads() {
        Some(threads) => threads,
        None => return Err(Failure::skip("this system does not list a process's threads")),
    };
    for _ in 0..3 {
        life(&library, trial, &Script::default())?;
    }
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let now = threads().unwrap_or(0);
        trial.measure("threads more", now as f64 - before as f64);
        if now <= before {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure::fail(format!(
                "2 s after `shutdown` there are {now} threads, before `initialize` there were {before}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn failed_initialize(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let mut wrong: Map<String, Value> = trial.subject.options.clone();
    wrong.insert("delegraph-kit.no-such-option".to_string(), Value::from(1));
    for _ in 0..3 {
        drop(library.start(&wrong, &Script::default()));
        life(&library, trial, &Script::default())?;
    }
    Ok(())
}
