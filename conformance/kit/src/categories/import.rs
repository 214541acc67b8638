//! Imported memory: cases of the category `memory`.

use crate::case::{Failure, Outcome, Trial};
use crate::driver::{Extra, Guarded, Imported, Loaded, Place, Script, Tensor};
use crate::workload::Bench;
use delegraph_abi::{Status, c};

/// Bytes of imported memory: every tensor of the bench has a part of it.
pub const SIZE: usize = 4 * 65536;
/// Bytes between the beginnings of two tensors.
pub const PART: usize = 4096;

/// A bench of a delegate that imports memory.
pub fn bench(trial: &Trial<'_>) -> Result<Bench, Failure> {
    let bench = Bench::open(trial)?;
    match bench.library.has(c::Feature::IMPORT) {
        true => Ok(bench),
        false => Err(Failure::skip("no feature IMPORT")),
    }
}

pub fn memory() -> Result<Guarded, String> {
    Guarded::new(SIZE, Place::Start, 4096)
}

/// A buffer; skipped where the delegate does not want this memory, which it may.
pub fn import(bench: &Bench) -> Result<Imported, Failure> {
    bench
        .instance
        .import(memory()?)
        .map_err(|refused| Failure::skip(format!("it imports no plain memory: {refused}")))
}

/// One run with every tensor in imported memory, from a part on; looks at the result.
pub fn run_in(bench: &Bench, session: &mut Loaded, imported: &mut Imported, first: usize, seed: u64) -> Outcome {
    let (bytes, inputs, mut outputs) = bench.tensors(seed, Place::End)?;
    let count = inputs.len() + outputs.len();
    let offsets: Vec<usize> = (0..count).map(|i| (first + i) * PART).collect();
    for (bytes, offset) in bytes.iter().zip(&offsets) {
        imported.write(*offset, bytes);
    }
    for offset in &offsets[inputs.len()..] {
        imported.write(*offset, &[crate::driver::UNWRITTEN; PART]);
    }
    let places: Vec<(usize, &Imported, usize)> = (0..count).map(|i| (i, &*imported, offsets[i])).collect();
    let extra = Extra {
        imported: &places,
        ..Extra::default()
    };
    session.run_with(&inputs, &mut outputs, &extra, &Script::default())?;
    for (i, (bytes, offset)) in bytes.iter().zip(&offsets).enumerate() {
        if imported.read(*offset, bytes.len()) != *bytes {
            return Err(Failure::fail(format!(
                "`session_execute` changed input {i}, which lies in imported memory"
            )));
        }
    }
    let made: Result<Vec<Tensor>, String> = outputs
        .into_iter()
        .zip(&offsets[inputs.len()..])
        .map(|(output, offset)| {
            let size = output.memory.size();
            if imported
                .read(offset + size, 64)
                .iter()
                .any(|byte| *byte != crate::driver::UNWRITTEN)
            {
                return Err("`session_execute` wrote behind an output in imported memory".to_string());
            }
            output.holding(&imported.read(*offset, size), false)
        })
        .collect();
    bench.check(&bytes, &made?).map_err(|failure| Failure {
        reason: format!("with tensors in imported memory, {}", failure.reason),
        ..failure
    })
}

/// Without a buffer, and with one.
pub fn runs_the_same(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    bench.run_once(&mut session, trial.seed, &Script::default())?;
    let mut imported = import(&bench)?;
    run_in(&bench, &mut session, &mut imported, 0, trial.seed)?;
    bench.run_once(&mut session, trial.seed + 1, &Script::default())?;
    session.unload();
    drop(imported);
    Ok(())
}

/// At several offsets, one run after the other.
pub fn offsets(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    let mut imported = import(&bench)?;
    for first in [0, 1, 17, SIZE / PART - 4] {
        run_in(&bench, &mut session, &mut imported, first, trial.seed + first as u64)?;
    }
    session.unload();
    drop(imported);
    Ok(())
}

/// Addresses and sizes that the contract does not allow.
pub fn misaligned(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let memory = memory()?;
    for (skip, size) in [(64, 4096), (1, 4096), (0, 4095), (0, 100), (2048, 2048)] {
        if bench
            .instance
            .import_wrong(c::HandleType::HOST_POINTER.0, &memory, skip, size)
            .is_ok()
        {
            return Err(Failure::warning(format!(
                "`buffer_import` took {size} bytes at {skip} bytes behind a multiple of 4096"
            )));
        }
    }
    let mut session = bench.load()?;
    bench.run_once(&mut session, trial.seed, &Script::default())?;
    Ok(())
}

/// A type of a later minor.
pub fn unknown_type(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let memory = memory()?;
    for handle_type in [0, 77, u32::MAX] {
        match bench.instance.import_wrong(handle_type, &memory, 0, 4096) {
            Ok(()) => {
                return Err(Failure::fail(format!(
                    "`buffer_import` took a handle of type {handle_type}"
                )));
            }
            Err(refused) if refused.status != Status::UNSUPPORTED => {
                return Err(Failure::fail(format!(
                    "`buffer_import` gave {} for a handle of type {handle_type}, where {} is right",
                    refused.status,
                    Status::UNSUPPORTED
                )));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// The memory is given back, and the session goes on.
pub fn released(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    let mut imported = import(&bench)?;
    run_in(&bench, &mut session, &mut imported, 0, trial.seed)?;
    let mut memory = imported.release().ok_or("the kit lost the memory")?;
    memory.close()?;
    for seed in 1..=3 {
        bench.run_once(&mut session, seed, &Script::default())?;
    }
    // The same memory by its plain address.
    memory.unprotect()?;
    let mut imported = import(&bench)?;
    run_in(&bench, &mut session, &mut imported, 2, trial.seed)
}

/// Two buffers of one memory, by two delegates' handles of one instance.
pub fn twice(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    let mut first = import(&bench)?;
    let second = bench
        .instance
        .import_again(&first)
        .map_err(|refused| Failure::skip(format!("it imports a memory once only: {refused}")))?;
    run_in(&bench, &mut session, &mut first, 0, trial.seed)?;
    drop(second);
    run_in(&bench, &mut session, &mut first, 4, trial.seed + 1).map_err(|failure| Failure {
        reason: format!("after another buffer of the memory was released: {}", failure.reason),
        ..failure
    })
}

/// A buffer that two sessions use.
pub fn other_session(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut imported = import(&bench)?;
    let (mut first, mut second) = (bench.load()?, bench.load()?);
    for seed in 1..=2 {
        run_in(&bench, &mut first, &mut imported, 0, seed)?;
        run_in(&bench, &mut second, &mut imported, 5, seed)?;
    }
    first.unload();
    run_in(&bench, &mut second, &mut imported, 9, trial.seed)
}
