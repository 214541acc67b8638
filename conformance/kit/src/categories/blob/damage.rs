//! Blobs that are damaged or not what they seem: loaded and run.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{Budget, Random, warn, with_weights};
use crate::driver::{Compiled, HostWeights, Place, Refused, Script};
use crate::workload::{Bench, Workload, normal_form};
use delegraph_abi::Status;
use std::sync::Arc;

fn fail(text: impl Into<String>) -> Failure {
    Failure::fail(text)
}

/// What became of a damaged blob.
enum Fate {
    Refused(Refused),
    RunRefused,
    Right,
    Wrong,
}

/// Loads a damaged blob and runs it. Only what no delegate may do is a failure.
fn fate(trial: &Trial<'_>, bench: &Bench, blob: &Compiled, what: &str) -> Result<Fate, Failure> {
    let script = Script::default();
    let loaded = bench.instance.load(blob, &bench.weights, trial.subject.device, &script);
    let mut session = match loaded {
        Ok(session) => session,
        Err(refused) => return Ok(Fate::Refused(refused)),
    };
    let (bytes, inputs, mut outputs) = bench.tensors(1, Place::End)?;
    if session.run(&inputs, &mut outputs, &script).is_err() {
        return Ok(Fate::RunRefused);
    }
    for (i, output) in outputs.iter().enumerate() {
        if let Some(distance) = output.memory.strayed() {
            return Err(fail(format!(
                "{what}: it wrote outside of output {i}, {distance} bytes from it"
            )));
        }
        let largest = &bench.workload.outputs[i].sizes;
        let beyond = output.sizes.len() != largest.len()
            || output.sizes.iter().zip(largest).any(|(is, most)| is > most || *is < 0);
        if beyond {
            return Err(fail(format!(
                "{what}: output {i} has sizes {:?}, where {largest:?} are the largest",
                output.sizes
            )));
        }
    }
    match bench.check(&bytes, &outputs) {
        Ok(()) => Ok(Fate::Right),
        Err(_) => Ok(Fate::Wrong),
    }
}

/// Statuses that say that a blob is not fit to be loaded; INTERNAL says that the delegate was surprised.
fn surprised(refused: &Refused, what: &str) -> Option<String> {
    (refused.status == Status::INTERNAL).then(|| format!("{what}: {refused}; {} would be right", Status::BLOB_CORRUPT))
}

pub fn flipped(trial: &mut Trial<'_>) -> Outcome {
    let bench = match with_weights(trial) {
        Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let mut random = Random::new(trial.seed);
    let budget = Budget::seconds(15);
    let mut counts = [0u32; 4];
    let mut warnings = Vec::new();
    for at in 0..bench.blob.sections.len() {
        let (section, _, bytes) = &bench.blob.sections[at];
        let size = bytes.len();
        let mut places: Vec<usize> = (0..size.min(64)).collect();
        places.extend((0..256).map(|_| random.below(size)));
        for place in places {
            if budget.spent() || size == 0 {
                break;
            }
            let bit = random.below(8);
            let mut blob = bench.blob.clone();
            blob.sections[at].2[place] ^= 1 << bit;
            let what = format!("section `{section}`, byte {place}, bit {bit}");
            trial.step(&what);
            let slot = match fate(trial, &bench, &blob, &what)? {
                Fate::Refused(refused) => {
                    warnings.extend(surprised(&refused, &what));
                    0
                }
                Fate::RunRefused => 1,
                Fate::Right => 2,
                Fate::Wrong => 3,
            };
            counts[slot] += 1;
        }
    }
    for (name, count) in ["refused", "refused by the run", "right", "wrong"]
        .into_iter()
        .zip(counts)
    {
        trial.measure(name, f64::from(count));
    }
    warn(&warnings)
}

pub fn truncated(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut warnings = Vec::new();
    for at in 0..bench.blob.sections.len() {
        let (section, _, bytes) = &bench.blob.sections[at];
        let size = bytes.len();
        let mut lengths = vec![
            0,
            1,
            2,
            3,
            4,
            7,
            8,
            12,
            15,
            16,
            31,
            48,
            64,
            size / 4,
            size / 2,
            size * 3 / 4,
        ];
        lengths.extend([1, 2, 3, 4, 8, 16].map(|less| size.saturating_sub(less)));
        lengths.retain(|length| *length < size);
        lengths.sort_unstable();
        lengths.dedup();
        for length in lengths {
            let mut blob = bench.blob.clone();
            blob.sections[at].2.truncate(length);
            let what = format!("section `{section}` cut to {length} of {size} bytes");
            trial.step(&what);
            match fate(trial, &bench, &blob, &what)? {
                Fate::Refused(refused) => warnings.extend(surprised(&refused, &what)),
                Fate::RunRefused | Fate::Right => {}
                Fate::Wrong => warnings.push(format!("{what}: it loads, and gives a wrong result")),
            }
        }
    }
    warn(&warnings)
}

pub fn extended(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut warnings = Vec::new();
    for at in 0..bench.blob.sections.len() {
        for (more, byte) in [(1, 0), (8, 0xff), (4096, 0x5a)] {
            let mut blob = bench.blob.clone();
            let (section, _, bytes) = &mut blob.sections[at];
            let what = format!("section `{section}` with {more} bytes {byte:#04x} behind");
            bytes.resize(bytes.len() + more, byte);
            trial.step(&what);
            match fate(trial, &bench, &blob, &what)? {
                Fate::Refused(refused) => warnings.extend(surprised(&refused, &what)),
                Fate::RunRefused | Fate::Right => {}
                Fate::Wrong => return Err(fail(format!("{what}: it loads, and gives a wrong result"))),
            }
        }
    }
    warn(&warnings)
}

pub fn garbage(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut random = Random::new(trial.seed);
    let mut warnings = Vec::new();
    let mut try_one = |what: &str, blob: &Compiled| -> Outcome {
        trial.step(what);
        match fate(trial, &bench, blob, what)? {
            Fate::Refused(refused) => warnings.extend(surprised(&refused, what)),
            Fate::RunRefused => {}
            Fate::Right | Fate::Wrong => {
                return Err(fail(format!(
                    "`session_load` took a blob of {what}, and `session_execute` ran it"
                )));
            }
        }
        Ok(())
    };
    for round in 0..16 {
        let mut blob = bench.blob.clone();
        for (_, _, bytes) in &mut blob.sections {
            bytes.iter_mut().for_each(|byte| *byte = random.draw() as u8);
        }
        try_one(&format!("random bytes (round {round})"), &blob)?;
    }
    for byte in [0, 0xff] {
        let mut blob = bench.blob.clone();
        blob.sections.iter_mut().for_each(|(_, _, bytes)| bytes.fill(byte));
        try_one(&format!("bytes {byte:#04x}"), &blob)?;
    }
    let mut blob = bench.blob.clone();
    blob.sections.iter_mut().for_each(|(_, _, bytes)| bytes.clear());
    try_one("empty sections", &blob)?;
    blob.sections.clear();
    try_one("no sections", &blob)?;
    warn(&warnings)
}

pub fn sections_changed(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let count = bench.blob.sections.len();
    let mut damaged: Vec<(String, Compiled)> = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut Vec<(String, u32, Vec<u8>)>)| {
        let mut blob = bench.blob.clone();
        change(&mut blob.sections);
        damaged.push((what, blob));
    };
    for at in 0..count {
        let section = &bench.blob.sections[at].0;
        add(format!("a blob without `{section}`"), &|sections| {
            drop(sections.remove(at))
        });
        add(format!("a blob with `{section}` renamed"), &|sections| {
            sections[at].0 = "x-delegraph-kit".to_string()
        });
        add(format!("a blob with `{section}` renamed to nothing"), &|sections| {
            sections[at].0.clear()
        });
        add(format!("a blob with `{section}` twice"), &|sections| {
            let again = sections[at].clone();
            sections.push(again);
        });
        add(
            format!("a blob with a broken `{section}` in front of it"),
            &|sections| {
                let mut broken = sections[at].clone();
                broken.2.fill(0xff);
                sections.insert(0, broken);
            },
        );
    }
    add("a blob with its sections in the other order".to_string(), &|sections| {
        sections.reverse()
    });
    add("a blob with an unknown section".to_string(), &|sections| {
        sections.push(("x-delegraph-kit".to_string(), 1, vec![1, 2, 3]));
    });
    let mut warnings = Vec::new();
    for (what, blob) in damaged {
        trial.step(&what);
        match fate(trial, &bench, &blob, &what)? {
            Fate::Refused(refused) => warnings.extend(surprised(&refused, &what)),
            Fate::RunRefused | Fate::Right => {}
            Fate::Wrong => return Err(fail(format!("{what}: it loads, and gives a wrong result"))),
        }
    }
    warn(&warnings)
}

pub fn other_graph(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let (kind, dtype) = (bench.workload.kind, bench.workload.inputs[0].dtype);
    // The same operator over other sizes.
    let other = Workload::new(kind, dtype, 7, 9, 2, normal_form(trial));
    let script = Script::default();
    let weights = other.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
    let weights = Arc::new(HostWeights::new(weights)?);
    let mut blob = bench.instance.compile(&other.image, &weights, "", &script)?;
    blob.meta = bench.blob.meta.clone();
    let what = "the sections of another graph";
    trial.step(what);
    // Nothing tells a delegate whose form knows no sizes that this is another graph: it has to stay in bounds, and that is all.
    fate(trial, &bench, &blob, what)?;
    let mut mine = bench.blob.clone();
    mine.meta.graph_hash = blob.meta.graph_hash.map(|byte| !byte);
    match fate(trial, &bench, &mine, "the hash of another graph")? {
        Fate::Wrong => Err(fail(
            "a blob with the hash of another graph loads, and gives a wrong result",
        )),
        _ => Ok(()),
    }
}

pub fn weights_missing(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    let script = Script::default();
    let none = Arc::new(HostWeights::default());
    let mut one = bench.workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
    let one = Arc::new(HostWeights::new(one.next())?);
    for (what, weights) in [("no weights", none), ("one weight of two", one)] {
        trial.step(what);
        let loaded = bench
            .instance
            .load(&bench.blob, &weights, trial.subject.device, &script);
        let Ok(mut session) = loaded else { continue };
        let (bytes, inputs, mut outputs) = bench.tensors(1, Place::End)?;
        if session.run(&inputs, &mut outputs, &script).is_err() {
            continue;
        }
        // A blob may hold the weights itself: then it needs none of the host's.
        if let Err(failure) = bench.check(&bytes, &outputs) {
            return Err(fail(format!("with {what} it loads and runs: {}", failure.reason)));
        }
    }
    Ok(())
}
