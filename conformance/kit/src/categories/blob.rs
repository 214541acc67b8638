//! Compiled blobs: judged, damaged, foreign, loaded elsewhere.
//!
//! The host checks the hash of a blob's bytes before a delegate sees them. A delegate can therefore not be blamed for wrong numbers of a
//! blob in which one bit is another: how many positions give such is measured, and no more. That it crashes, hangs or writes out of bounds
//! is a failure all the same, since blobs are files that people bring.

use super::basis::{Budget, Random, compiler, payload, start_in, warn, with_weights};
use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{Compiled, HostWeights, Place, Refused, Script};
use crate::workload::{Bench, Kind, Workload, normal_form};
use delegraph_abi::c::{BlobVerdict, Feature};
use delegraph_abi::envelope::Meta;
use delegraph_abi::{DType, Status};
use std::sync::Arc;

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "blob/reproducible",
        "Compiling a graph twice gives the same bytes, in one instance and in two: caches and signatures count on it.",
        reproducible,
    ),
    case(
        "blob/shape-of-it",
        "A blob has at least one section; requirements and states name tensors and states of the graph.",
        shape_of_it,
    ),
    case(
        "blob/check-own",
        "`blob_check` of a delegate's own blob says OPTIMAL or RECOMPILE_BETTER, once.",
        check_own,
    ),
    case(
        "blob/check-foreign",
        "`blob_check` of a blob of another delegate or form does not say that it runs here; NOT_MINE is the word for it.",
        check_foreign,
    ),
    case(
        "blob/check-newer-format",
        "`blob_check` of a later version of the delegate's form does not say OPTIMAL.",
        check_newer,
    ),
    case(
        "blob/check-driver",
        "`blob_check` of a blob for other drivers does not say OPTIMAL, where the delegate stated a range when it compiled.",
        check_driver,
    ),
    case(
        "blob/check-target",
        "`blob_check` of a blob for a target that the manifest does not name does not say OPTIMAL (a warning).",
        check_target,
    ),
    case(
        "blob/check-same",
        "`blob_check` gives one verdict of the contract, with a reason unless it is OPTIMAL, and the same one each time.",
        check_same,
    ),
    case(
        "blob/load-elsewhere",
        "A blob loads in another instance, after a new beginning, and after its compiler's end, and gives the same results.",
        load_elsewhere,
    ),
    case(
        "blob/flipped-bits",
        "A blob in which a bit is another is refused, or runs to some result or status, in bounds. Wrong numbers are counted, not judged.",
        flipped,
    )
    .limit(60),
    case(
        "blob/truncated",
        "A blob that is cut short anywhere is refused, or runs to some result or status, in bounds.",
        truncated,
    ),
    case(
        "blob/extended",
        "A blob with more bytes than were written is refused, or gives the right result.",
        extended,
    ),
    case(
        "blob/garbage",
        "Bytes that are no blob at all are not loaded and run: random ones, zeros, none, no sections.",
        garbage,
    ),
    case(
        "blob/sections-changed",
        "A blob whose sections are missing, renamed, doubled or in another order is refused, or gives the right result.",
        sections_changed,
    ),
    case(
        "blob/of-another-graph",
        "A blob with the metadata of another graph is refused, or runs as what its sections say; its tensors are not guessed.",
        other_graph,
    ),
    case(
        "blob/weights-missing",
        "Weights that the host does not have fail the load or the run.",
        weights_missing,
    ),
];

fn fail(text: impl Into<String>) -> Failure {
    Failure::fail(text)
}

fn runner(trial: &Trial<'_>) -> Result<Bench, Failure> {
    Bench::open(trial)
}

fn differs(what: &str, first: &Compiled, second: &Compiled) -> Outcome {
    let names = |blob: &Compiled| -> Vec<String> { blob.sections.iter().map(|(name, ..)| name.clone()).collect() };
    if names(first) != names(second) {
        return Err(fail(format!(
            "{what}: the sections are {:?}, they were {:?}",
            names(second),
            names(first)
        )));
    }
    for ((name, align, bytes), (_, other_align, other)) in first.sections.iter().zip(&second.sections) {
        if align != other_align || bytes.len() != other.len() {
            return Err(fail(format!(
                "{what}: section `{name}` has {} bytes at {other_align}, it had {} at {align}",
                other.len(),
                bytes.len()
            )));
        }
        if let Some(at) = bytes.iter().zip(other).position(|(a, b)| a != b) {
            return Err(fail(format!(
                "{what}: byte {at} of section `{name}` is {:#04x}, it was {:#04x}",
                other[at], bytes[at]
            )));
        }
    }
    let stated = |blob: &Compiled| {
        (
            blob.requirements.clone(),
            blob.states.clone(),
            blob.meta.precision.clone(),
        )
    };
    match stated(first) == stated(second) {
        true => Ok(()),
        false => Err(fail(format!(
            "{what}: it states {:?}, it stated {:?}",
            stated(second),
            stated(first)
        ))),
    }
}

fn reproducible(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let other = library.start(&trial.subject.options, &Script::default())?;
    let script = Script::default();
    let mut compiled = 0;
    for (kind, dtype, nodes) in [
        (Kind::Add, DType::F32, 1),
        (Kind::Add, DType::F32, 9),
        (Kind::Relu, DType::F32, 3),
        (Kind::Linear, DType::F32, 1),
        (Kind::Matmul, DType::F32, 1),
        (Kind::Softmax, DType::F16, 2),
        (Kind::QuantizedAdd, DType::I8, 2),
    ] {
        let workload = Workload::new(kind, dtype, 3, 5, nodes, normal_form(trial));
        let what = format!("{nodes} x {kind:?} of {dtype}");
        if !instance
            .partition(&workload.image, workload.nodes, &script)?
            .takes_all(workload.nodes)
        {
            continue;
        }
        let weights = workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
        let weights = Arc::new(HostWeights::new(weights)?);
        let compile = |instance: &crate::driver::Instance| instance.compile(&workload.image, &weights, "", &script);
        let first = compile(&instance)?;
        differs(&format!("{what}, compiled again"), &first, &compile(&instance)?)?;
        differs(
            &format!("{what}, compiled in another instance"),
            &first,
            &compile(&other)?,
        )?;
        compiled += 1;
    }
    trial.measure("graphs", f64::from(compiled));
    match compiled {
        0 => Err(Failure::skip("not claimed: it takes none of the kit's graphs")),
        _ => Ok(()),
    }
}

fn shape_of_it(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let workload = Workload::new(Kind::Add, DType::F32, 3, 5, 2, normal_form(trial));
    let script = Script::default();
    if !instance.partition(&workload.image, 2, &script)?.takes_all(2) {
        return Err(Failure::skip("not claimed: it does not take `aten::add.Tensor` of f32"));
    }
    let blob = instance.compile(&workload.image, &Arc::new(HostWeights::default()), "", &script)?;
    if blob.sections.is_empty() {
        return Err(fail("`compile` wrote no section"));
    }
    for (is_output, index, ..) in &blob.requirements {
        let (side, count) = if *is_output { ("output", 1) } else { ("input", 2) };
        if *index >= count {
            return Err(fail(format!(
                "`blob_require` names {side} {index} of a graph with {count}"
            )));
        }
    }
    match blob.states.as_slice() {
        [] => Ok(()),
        some => Err(fail(format!(
            "`blob_keep_state` names {some:?} for a graph without states"
        ))),
    }
}

/// The one verdict on a blob.
fn check(bench: &Bench, what: &str, meta: &Meta) -> Result<(BlobVerdict, String), Failure> {
    let verdicts = bench
        .instance
        .blob_check(meta, payload(bench), &Script::default())
        .map_err(|refused| fail(format!("{what}: {refused}")))?;
    let [(verdict, reason)] = verdicts.as_slice() else {
        return Err(fail(format!(
            "{what}: `blob_check` gave {} verdicts, not 1",
            verdicts.len()
        )));
    };
    if !(BlobVerdict::OPTIMAL.0..=BlobVerdict::CORRUPT.0).contains(&verdict.0) {
        return Err(fail(format!(
            "{what}: `blob_check` gave the verdict {}, which does not exist",
            verdict.0
        )));
    }
    if *verdict != BlobVerdict::OPTIMAL && reason.trim().is_empty() {
        return Err(fail(format!(
            "{what}: `blob_check` gave {} without a reason",
            name(*verdict)
        )));
    }
    Ok((*verdict, reason.clone()))
}

fn name(verdict: BlobVerdict) -> &'static str {
    match verdict {
        BlobVerdict::OPTIMAL => "OPTIMAL",
        BlobVerdict::RECOMPILE_BETTER => "RECOMPILE_BETTER",
        BlobVerdict::UNSUPPORTED_HERE => "UNSUPPORTED_HERE",
        BlobVerdict::NOT_MINE => "NOT_MINE",
        BlobVerdict::CORRUPT => "CORRUPT",
        _ => "an unknown verdict",
    }
}

fn check_own(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
    let (verdict, reason) = check(&bench, "its own blob", &bench.blob.meta)?;
    match [BlobVerdict::OPTIMAL, BlobVerdict::RECOMPILE_BETTER].contains(&verdict) {
        true => Ok(()),
        false => Err(fail(format!(
            "`blob_check` says {} of its own blob: {reason}",
            name(verdict)
        ))),
    }
}

fn check_foreign(trial: &mut Trial<'_>) -> Outcome {
    // It needs no graph that is taken: only a name that is not its own.
    let (library, instance) = start_in(trial, Feature::RUN, "run")?;
    let info = library.info()?;
    let own = Meta {
        delegate: info.name,
        delegate_version: info.version,
        format: info.blob_format,
        format_version: info.blob_format_version,
        abi_minor: info.abi_minor,
        graph_hash: [7; 32],
        ..Meta::default()
    };
    let foreign = [
        ("another delegate and form", "x-delegraph-kit", "x.delegraph-kit.form"),
        ("another form", own.delegate.as_str(), "x.delegraph-kit.form"),
        ("another delegate", "x-delegraph-kit", own.format.as_str()),
        ("no delegate and no form", "", ""),
    ];
    let mut warnings = Vec::new();
    for (what, delegate, format) in foreign {
        let meta = Meta {
            delegate: delegate.to_string(),
            format: format.to_string(),
            ..own.clone()
        };
        let verdicts = instance.blob_check(&meta, 100, &Script::default())?;
        let [(verdict, reason)] = verdicts.as_slice() else {
            return Err(fail(format!(
                "of a blob of {what}, `blob_check` gave {} verdicts, not 1",
                verdicts.len()
            )));
        };
        match *verdict {
            BlobVerdict::NOT_MINE => {}
            BlobVerdict::OPTIMAL | BlobVerdict::RECOMPILE_BETTER if what != "another delegate" => {
                return Err(fail(format!(
                    "`blob_check` says {} of a blob of {what}",
                    name(*verdict)
                )));
            }
            other => warnings.push(format!(
                "`blob_check` says {} of a blob of {what}: {reason}",
                name(other)
            )),
        }
    }
    warn(&warnings)
}

fn check_newer(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
    for version in [bench.blob.meta.format_version.wrapping_add(1), u32::MAX] {
        let meta = Meta {
            format_version: version,
            ..bench.blob.meta.clone()
        };
        let what = format!("version {version} of the form");
        if check(&bench, &what, &meta)?.0 == BlobVerdict::OPTIMAL {
            return Err(fail(format!(
                "`blob_check` says OPTIMAL of {what}; its own is {}",
                bench.blob.meta.format_version
            )));
        }
    }
    Ok(())
}

fn check_driver(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
    let own = &bench.blob.meta;
    if own.driver_min.is_empty() && own.driver_max.is_empty() {
        return Err(Failure::skip("it states no range of drivers"));
    }
    let most = "99999999.99999.99999".to_string();
    let least = "0.0.0".to_string();
    for (what, min, max) in [
        ("drivers that do not exist yet", most.clone(), most),
        ("drivers that nobody has any more", least.clone(), least),
    ] {
        let meta = Meta {
            driver_min: min,
            driver_max: max,
            ..own.clone()
        };
        if check(&bench, what, &meta)?.0 == BlobVerdict::OPTIMAL {
            return Err(fail(format!("`blob_check` says OPTIMAL of a blob for {what}")));
        }
    }
    Ok(())
}

fn check_target(trial: &mut Trial<'_>) -> Outcome {
    let targets = trial
        .subject
        .manifest
        .as_ref()
        .map_or(0, |(_, manifest)| manifest.targets.len());
    if targets == 0 {
        return Err(Failure::skip("its manifest names no targets"));
    }
    let bench = runner(trial)?;
    let meta = Meta {
        target: "x-delegraph-kit".to_string(),
        ..bench.blob.meta.clone()
    };
    match check(&bench, "a blob for another target", &meta)?.0 {
        BlobVerdict::OPTIMAL => {
            warn(&["`blob_check` says OPTIMAL of a blob for a target that it does not have".to_string()])
        }
        _ => Ok(()),
    }
}

fn check_same(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
    let own = &bench.blob.meta;
    for (what, meta) in [
        ("its own blob", own.clone()),
        (
            "a blob of an older version of the delegate",
            Meta {
                delegate_version: "0.0.1".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of a newer version of the delegate",
            Meta {
                delegate_version: "999.0.0".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of another precision",
            Meta {
                precision: "int8".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of another graph",
            Meta {
                graph_hash: [9; 32],
                ..own.clone()
            },
        ),
        (
            "a blob of a later minor of the ABI",
            Meta {
                abi_minor: 99,
                ..own.clone()
            },
        ),
        (
            "a blob of other options",
            Meta {
                options_hash: [3; 32],
                ..own.clone()
            },
        ),
    ] {
        let first = check(&bench, what, &meta)?;
        if check(&bench, what, &meta)? != first {
            return Err(fail(format!(
                "{what}: `blob_check` says something else the second time"
            )));
        }
    }
    Ok(())
}

fn load_elsewhere(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let mut bench = match with_weights(trial) {
        Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &script)?;
    session.unload();
    let other = bench.library.start(&trial.subject.options, &script)?;
    // The compiler of the blob ends here.
    std::mem::replace(&mut bench.instance, other).shutdown();
    let mut session = bench.load()?;
    match bench.run_once(&mut session, 1, &script)? == first {
        true => Ok(()),
        false => Err(fail("the blob gives another result in another instance")),
    }
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

fn flipped(trial: &mut Trial<'_>) -> Outcome {
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

fn truncated(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
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

fn extended(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
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

fn garbage(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
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

fn sections_changed(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
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

fn other_graph(trial: &mut Trial<'_>) -> Outcome {
    let bench = runner(trial)?;
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

fn weights_missing(trial: &mut Trial<'_>) -> Outcome {
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
