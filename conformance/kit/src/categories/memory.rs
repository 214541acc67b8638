//! Where tensors and weights lie, and who writes where.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::categories::{external, import};
use crate::driver::{Extra, Fail, Place, Script, Tensor, UNWRITTEN};
use crate::workload::{Bench, Kind};

/// The cases of the category; those of imported memory are in [`import`], those of memory by handle in [`external`].
pub const CASES: &[Case] = &[
    case(
        "memory/guard-behind",
        "dg_tensor.data_size: nothing behind the last byte of an input, output or weight is read or written",
        guard_behind,
    ),
    case(
        "memory/guard-before",
        "dg_tensor.data: nothing before the first byte of an input, output or weight is read or written",
        guard_before,
    ),
    case(
        "memory/element-alignment",
        "dg_tensor.data, blob_require: a tensor lies at a multiple of an element's size, and of no more than its blob requires",
        element_alignment,
    ),
    case(
        "memory/stated-requirements",
        "blob_require: what a blob requires of its tensors names tensors that it has, once each, and is enough",
        stated_requirements,
    ),
    case(
        "memory/inputs-unchanged",
        "session_execute: whatever it returns, the inputs are unchanged",
        inputs_unchanged,
    ),
    case(
        "memory/inputs-read-only",
        "dg_tensor.data of an input is not written, not even with the bytes that are there",
        inputs_read_only,
    ),
    case(
        "memory/weights-read-only",
        "weight_map: the bytes of a weight are read-only",
        weights_read_only,
    ),
    case(
        "memory/weights-alignment",
        "weight_map: the bytes of a weight are contiguous and row-major; no alignment is promised beyond an element's",
        weights_alignment,
    ),
    case(
        "memory/weights-lifetime",
        "weight_map, weight_retain: weights that were not retained are not read after `session_load` has returned",
        weights_lifetime,
    ),
    case(
        "memory/weights-shared",
        "weight_retain: two sessions retain the same weights, and what one gives back the other still has",
        weights_shared,
    ),
    case(
        "memory/sections-are-gone-after-load",
        "dg_blob: sections are valid until `session_load` returns, and not read after it",
        sections_gone,
    ),
    case(
        "memory/blob-kept",
        "blob_retain, blob_release: a blob that is retained is read where it lies after `session_load`, and released once, by the end of `shutdown`",
        blob_kept,
    ),
    case(
        "memory/blob-kept-by-two",
        "blob_retain: two sessions of one blob keep theirs, and what one gives back the other still has",
        blob_kept_by_two,
    ),
    case(
        "memory/blob-not-kept",
        "dg_blob.owner, blob_retain: where a blob cannot be kept, `session_load` copies what it needs: its result is right",
        blob_not_kept,
    ),
    case(
        "memory/outputs-written",
        "session_execute: every byte of the actual elements of an output is written in every run",
        outputs_written,
    ),
    case(
        "memory/one-place-for-two-inputs",
        "session_execute: two inputs may lie at one place, since neither is written",
        one_place,
    ),
    case(
        "memory/tensors-move",
        "dg_tensor.data is valid for the run alone: tensors lie elsewhere in the next, and where they lay must not be touched",
        tensors_move,
    ),
    case(
        "memory/sizes",
        "partition, session_execute: a graph that is taken is right for one element, for odd numbers of them, and beyond a page",
        sizes,
    )
    .limit(60),
    case(
        "memory/rows",
        "partition, session_execute: a graph that is taken is right for one column and many rows",
        rows,
    )
    .limit(60),
    case(
        "memory/no-elements",
        "partition, session_execute: a graph over a tensor without elements that is taken runs, and touches nothing",
        no_elements,
    ),
    case(
        "memory/import",
        "buffer_import: tensors in imported memory come with the buffer, and the result is that without",
        import::runs_the_same,
    ),
    case(
        "memory/import-offset",
        "dg_tensor.buffer_offset: inputs and outputs of one run share a buffer, each at its offset",
        import::offsets,
    ),
    case(
        "memory/import-misaligned",
        "dg_buffer_desc: an address or size that is no multiple of 4096 is refused",
        import::misaligned,
    )
    .hardening(),
    case(
        "memory/import-unknown-type",
        "dg_handle_type: a type that the delegate does not know is refused with DG_E_UNSUPPORTED",
        import::unknown_type,
    ),
    case(
        "memory/import-released",
        "buffer_release: afterwards the memory is not touched, while the session that used it goes on with other tensors",
        import::released,
    ),
    case(
        "memory/import-twice",
        "buffer_import: two buffers of one memory are independent, and releasing one leaves the other",
        import::twice,
    ),
    case(
        "memory/import-other-session",
        "buffer_import: a buffer is the delegate's, and every session of it can use it",
        import::other_session,
    ),
    case(
        "memory/external-types",
        "buffer_handle_types: a device's answer is the same at every call, and names no host pointer",
        external::types,
    ),
    case(
        "memory/external-import",
        "buffer_import of a handle: tensors at several offsets, in runs of two sessions, read and write what the handle is of",
        external::import,
    ),
    case(
        "memory/external-descriptor",
        "dg_buffer_desc.fd: it stays the host's, open after the import and not needed any more, and 100 imports leave none behind",
        external::descriptor,
    )
    .limit(120),
    case(
        "memory/external-unstated",
        "buffer_import and buffer_export: a handle type that buffer_handle_types does not state is refused with DG_E_UNSUPPORTED",
        external::unstated,
    ),
    case(
        "memory/external-export",
        "buffer_export: memory of the size asked for, that runs use, that the host sees, and that outlives its descriptor",
        external::export,
    )
    .limit(120),
];

/// Runs with every graph of the ladder, with its tensors at a place.
fn everywhere(trial: &Trial<'_>, place: Place) -> Outcome {
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let weights = bench.weights_at(place, 1)?;
        let mut session = bench.load_with(&weights, &Script::default())?;
        for seed in 1..=3 {
            run_at(bench, &mut session, trial.seed.wrapping_add(seed), place)?;
        }
        Ok(())
    })
}

/// One run with its tensors at a place, and a look at the result and at what lies beside the tensors.
fn run_at(bench: &Bench, session: &mut crate::driver::Loaded, seed: u64, place: Place) -> Outcome {
    let (bytes, inputs, mut outputs) = bench.tensors(seed, place)?;
    session.run(&inputs, &mut outputs, &Script::default())?;
    bench.check(&bytes, &outputs)
}

fn guard_behind(trial: &mut Trial<'_>) -> Outcome {
    everywhere(trial, Place::End)
}

fn guard_before(trial: &mut Trial<'_>) -> Outcome {
    everywhere(trial, Place::Start)
}

fn element_alignment(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut session = bench.load()?;
        let (bytes, inputs, mut outputs) = bench.tensors(seed, Place::Before(0))?;
        let at = |tensor: &Tensor| {
            let address = tensor.memory.as_ptr().addr();
            1usize << address.trailing_zeros().min(12)
        };
        let aligned: Vec<usize> = inputs.iter().chain(&outputs).map(at).collect();
        let run = session.run(&inputs, &mut outputs, &Script::default());
        let so = || match bench.blob.requirements.is_empty() {
            true => format!("with tensors at multiples of {aligned:?} bytes, and a blob that requires nothing, "),
            false => format!("with tensors at multiples of {aligned:?} bytes, as its blob requires, "),
        };
        run.map_err(|refused| Failure::fail(format!("{}{refused}", so())))?;
        bench.check(&bytes, &outputs).map_err(|failure| Failure {
            reason: format!("{}{}", so(), failure.reason),
            ..failure
        })
    })
}

fn stated_requirements(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    let mut stated = 0;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut seen = Vec::new();
        for (output, index, ..) in &bench.blob.requirements {
            let (what, count) = match output {
                true => ("output", bench.workload.outputs.len()),
                false => ("input", bench.workload.inputs.len()),
            };
            if *index as usize >= count {
                return Err(Failure::fail(format!(
                    "`blob_require` names {what} {index}, of which the graph has {count}"
                )));
            }
            if seen.contains(&(output, index)) {
                return Err(Failure::fail(format!("`blob_require` names {what} {index} twice")));
            }
            seen.push((output, index));
        }
        stated += seen.len();
        let mut session = bench.load()?;
        for place in [Place::End, Place::Start, Place::Before(0)] {
            run_at(bench, &mut session, seed, place)?;
        }
        Ok(())
    })?;
    trial.measure("tensors_with_requirements", stated as f64);
    match stated {
        0 => Err(Failure::skip("its blobs require nothing of their tensors")),
        _ => Ok(()),
    }
}

fn inputs_unchanged(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut session = bench.load()?;
        let bytes = bench.workload.input_bytes(seed);
        let inputs: Result<Vec<Tensor>, String> = bytes
            .iter()
            .enumerate()
            .map(|(i, bytes)| bench.room(false, i, Place::End)?.holding(bytes, false))
            .collect();
        let (inputs, mut outputs) = (inputs?, bench.outputs(Place::End)?);
        session.run(&inputs, &mut outputs, &Script::default())?;
        for (i, (input, bytes)) in inputs.iter().zip(&bytes).enumerate() {
            if let Some(at) = input.actual().iter().zip(bytes).position(|(now, then)| now != then) {
                return Err(Failure::fail(format!(
                    "`session_execute` changed byte {at} of input {i}"
                )));
            }
            if let Some(distance) = input.memory.strayed() {
                return Err(Failure::fail(format!(
                    "`session_execute` wrote outside of input {i}, {distance} bytes from it"
                )));
            }
        }
        bench.check(&bytes, &outputs)
    })
}

fn inputs_read_only(trial: &mut Trial<'_>) -> Outcome {
    // Inputs of a bench lie in pages that may only be read: a write faults.
    let seed = trial.seed;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut session = bench.load()?;
        run_at(bench, &mut session, seed, Place::Start)
    })
}

/// The bench over a graph with weights; skipped where none is taken.
fn weighted(trial: &Trial<'_>) -> Result<Bench, Failure> {
    Bench::weighted(trial).map_err(|failure| Failure {
        reason: format!("a graph with weights: {}", failure.reason),
        ..failure
    })
}

fn weights_read_only(trial: &mut Trial<'_>) -> Outcome {
    let bench = weighted(trial)?;
    // The host's weights lie in pages that may only be read: a write faults, in `compile`, `session_load` or a run.
    let mut session = bench.load()?;
    for seed in 1..=3 {
        bench.run_once(&mut session, seed, &Script::default())?;
    }
    Ok(())
}

fn weights_alignment(trial: &mut Trial<'_>) -> Outcome {
    let bench = weighted(trial)?;
    let element = bench.workload.inputs[0].dtype.size().unwrap_or(1);
    for place in [Place::End, Place::Before(element)] {
        let weights = bench.weights_at(place, 2 * element)?;
        let so = |refused: crate::driver::Refused| {
            Failure::fail(format!("with weights at multiples of an element's size, {refused}"))
        };
        let blob = bench
            .instance
            .compile(&bench.workload.image, &weights, "", &Script::default())
            .map_err(so)?;
        if blob.sections.is_empty() {
            return Err(Failure::fail("`compile` succeeded and wrote no section"));
        }
        let mut session = bench.load_with(&weights, &Script::default()).map_err(so)?;
        bench.run_once(&mut session, trial.seed, &Script::default())?;
    }
    Ok(())
}

fn weights_lifetime(trial: &mut Trial<'_>) -> Outcome {
    let bench = weighted(trial)?;
    let weights = bench.weights_at(Place::End, 1)?;
    let mut session = bench.load_with(&weights, &Script::default())?;
    let kept = weights.retained() > 0;
    if !kept {
        // They are gone, as far as the delegate knows: who reads them now faults.
        weights.close()?;
    }
    for seed in 1..=3 {
        bench.run_once(&mut session, seed, &Script::default())?;
    }
    session.unload();
    if weights.retained() != 0 {
        return Err(Failure::fail(format!(
            "`weight_retain` was called {} times more than `weight_release` when the session was gone",
            weights.retained()
        )));
    }
    if kept {
        weights.close()?;
    }
    // Others are not those that are gone.
    let again = bench.weights_at(Place::End, 1)?;
    let mut session = bench.load_with(&again, &Script::default())?;
    bench.run_once(&mut session, 4, &Script::default())?;
    Ok(())
}

fn weights_shared(trial: &mut Trial<'_>) -> Outcome {
    let bench = weighted(trial)?;
    let weights = bench.weights_at(Place::End, 1)?;
    let first = bench.load_with(&weights, &Script::default())?;
    let mut second = bench.load_with(&weights, &Script::default())?;
    first.unload();
    bench
        .run_once(&mut second, trial.seed, &Script::default())
        .map_err(|failure| Failure {
            reason: format!(
                "after another session of the same weights was unloaded: {}",
                failure.reason
            ),
            ..failure
        })?;
    second.unload();
    match weights.retained() {
        0 => Ok(()),
        more => Err(Failure::fail(format!(
            "weights are retained {more} times more than released when both sessions are gone"
        ))),
    }
}

fn sections_gone(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        // The driver gives the sections' pages back to the system as `session_load` returns: who reads them faults.
        let mut session = bench.load()?;
        run_at(bench, &mut session, seed, Place::End)?;
        run_at(bench, &mut session, seed + 1, Place::End)
    })
}

fn blob_kept(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    let mut kept = 0;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut session = bench.load()?;
        kept += usize::from(session.keeps_blob());
        // Sections are read-only, and gone as soon as they are released: who reads them then faults.
        for run in 0..3 {
            run_at(bench, &mut session, seed + run, Place::End)?;
        }
        session.unload();
        // The delegate goes on without it; that it has given it back is looked at when it is shut down.
        let mut session = bench.load()?;
        run_at(bench, &mut session, seed + 3, Place::End)
    })?;
    trial.measure("blobs_kept", kept as f64);
    match kept {
        0 => Err(Failure::skip("it keeps no blob: it copies what it needs")),
        _ => Ok(()),
    }
}

fn blob_kept_by_two(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    let mut kept = 0;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        // Each load has sections of its own.
        let (first, mut second) = (bench.load()?, bench.load()?);
        kept += usize::from(first.keeps_blob() && second.keeps_blob());
        first.unload();
        run_at(bench, &mut second, seed, Place::End).map_err(|failure| Failure {
            reason: format!(
                "after another session of the same blob was unloaded: {}",
                failure.reason
            ),
            ..failure
        })
    })?;
    match kept {
        0 => Err(Failure::skip("it keeps no blob: it copies what it needs")),
        _ => Ok(()),
    }
}

fn blob_not_kept(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    let refused = |blob_retain, no_owner| Fail {
        blob_retain,
        no_owner,
        ..Fail::default()
    };
    let hosts = [
        ("with a blob without an owner", refused(None, true)),
        ("with `blob_retain` refused", refused(Some(0), false)),
        ("with the second `blob_retain` refused", refused(Some(1), false)),
    ];
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        for (so, fail) in hosts {
            let told = |failure: Failure| Failure {
                reason: format!("{so}: {}", failure.reason),
                ..failure
            };
            let mut session = bench.load_as(&Script::default().failing(fail)).map_err(told)?;
            if session.keeps_blob() && !so.contains("second") {
                return Err(Failure::fail(format!("{so}, it is retained all the same")));
            }
            for run in 0..2 {
                run_at(bench, &mut session, seed + run, Place::End).map_err(told)?;
            }
        }
        Ok(())
    })
}

fn outputs_written(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    Bench::each(trial, [3, 5], usize::MAX, |bench| {
        let mut session = bench.load()?;
        let (bytes, inputs, _) = bench.tensors(seed, Place::End)?;
        let mut made = Vec::new();
        for filling in [UNWRITTEN, 0xa5, 0x00] {
            let mut outputs = bench.outputs(Place::End)?;
            outputs.iter_mut().for_each(|output| output.memory.fill_with(filling));
            session.run(&inputs, &mut outputs, &Script::default())?;
            made.push(outputs);
        }
        let [first, others @ ..] = &made[..] else { return Ok(()) };
        for other in others {
            for (i, (a, b)) in first.iter().zip(other).enumerate() {
                if let Some(at) = a.actual().iter().zip(b.actual()).position(|(a, b)| a != b) {
                    return Err(Failure::fail(format!(
                        "`session_execute` left byte {at} of output {i} as it was, or gave another result for the same inputs"
                    )));
                }
            }
        }
        bench.check(&bytes, first)
    })
}

fn one_place(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::among(trial, [3, 5], 1, |kind, _| {
        matches!(kind, Kind::Add | Kind::Mul | Kind::Sub | Kind::QuantizedAdd)
    })?;
    let mut session = bench.load()?;
    let mut bytes = bench.workload.input_bytes(trial.seed);
    bytes[1] = bytes[0].clone();
    let inputs: Result<Vec<Tensor>, String> = bytes
        .iter()
        .enumerate()
        .map(|(i, bytes)| bench.room(false, i, Place::End)?.holding(bytes, true))
        .collect();
    let (inputs, mut outputs) = (inputs?, bench.outputs(Place::End)?);
    let extra = Extra {
        same: &[(1, 0)],
        ..Extra::default()
    };
    session.run_with(&inputs, &mut outputs, &extra, &Script::default())?;
    bench.check(&bytes, &outputs).map_err(|failure| Failure {
        reason: format!("with both inputs at one place, {}", failure.reason),
        ..failure
    })
}

fn tensors_move(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    let places = [Place::End, Place::Start, Place::Before(0), Place::End];
    Bench::each(trial, [3, 5], 4, |bench| {
        let mut session = bench.load()?;
        let mut gone = Vec::new();
        for (i, place) in places.into_iter().enumerate() {
            let (bytes, mut inputs, mut outputs) = bench.tensors(seed + i as u64, place)?;
            session.run(&inputs, &mut outputs, &Script::default())?;
            bench.check(&bytes, &outputs)?;
            // Who kept an address faults in a later run.
            for tensor in inputs.iter_mut().chain(&mut outputs) {
                tensor.memory.close()?;
            }
            gone.push((inputs, outputs));
        }
        session.unload();
        Ok(())
    })
}

/// Numbers of elements at which loops over vectors, blocks and pages go wrong.
const COUNTS: [i64; 8] = [1, 7, 8, 63, 1023, 1025, 4097, 20_011];

/// Runs the first three graphs of the ladder that are taken over these sizes.
fn over(trial: &Trial<'_>, sizes: impl Iterator<Item = [i64; 2]>) -> Outcome {
    let mut refusal = None;
    let mut ran = 0;
    for size in sizes {
        let outcome = Bench::each(trial, size, 3, |bench| {
            let mut session = bench.load()?;
            for place in [Place::End, Place::Start] {
                run_at(bench, &mut session, trial.seed, place)?;
            }
            Ok(())
        });
        match outcome {
            Err(failure) if failure.verdict == delegraph_runner::Verdict::Skip => refusal = Some(failure),
            Err(failure) => return Err(failure),
            Ok(()) => ran += 1,
        }
    }
    match refusal {
        Some(refusal) if ran == 0 => Err(refusal),
        _ => Ok(()),
    }
}

fn sizes(trial: &mut Trial<'_>) -> Outcome {
    over(trial, COUNTS.into_iter().map(|count| [1, count]))
}

fn rows(trial: &mut Trial<'_>) -> Outcome {
    over(trial, COUNTS.into_iter().map(|count| [count, 1]))
}

fn no_elements(trial: &mut Trial<'_>) -> Outcome {
    let seed = trial.seed;
    // A refusal of `compile` is as good as one of `partition` here: the host asks again without the node.
    let outcome = Bench::each(trial, [0, 5], 3, |bench| {
        let mut session = bench.load()?;
        run_at(bench, &mut session, seed, Place::End)
    });
    outcome.map_err(|failure| match failure.reason.contains("`compile` gave") {
        true => Failure::skip(failure.reason),
        false => failure,
    })
}
