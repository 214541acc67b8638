//! Memory by handle: cases of the category `memory`.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::import::{PART, SIZE, run_in};
use crate::driver::{HandleText, Imported, Shareable, close_descriptor, descriptors, is_open};
use crate::workload::Bench;
use delegraph_abi::{Status, c};
use std::os::fd::{AsRawFd, IntoRawFd};

/// Handle types that a descriptor can be of, and their names.
const TYPES: [(c::HandleType, &str); 3] = [
    (c::HandleType::OPAQUE_FD, "OPAQUE_FD"),
    (c::HandleType::DMA_BUF, "DMA_BUF"),
    (c::HandleType::MEMFD, "MEMFD"),
];

/// Imports and exports that must leave nothing behind.
const ROUNDS: usize = 100;

fn bit(handle_type: c::HandleType) -> u64 {
    1 << handle_type.0
}

/// A bench of a delegate that knows memory by handle, and what the device of its sessions states.
fn bench(trial: &Trial<'_>) -> Result<(Bench, [u64; 2]), Failure> {
    let bench = Bench::open(trial)?;
    if !bench.library.has(c::Feature::EXTERNAL) {
        return Err(Failure::skip("no feature EXTERNAL"));
    }
    let stated = bench.instance.handle_types(c::NONE)?;
    Ok((bench, stated))
}

/// Memory of each type that the device takes, as far as it can be had here: made by the kit, or by the delegate. And why others are not.
fn sources(bench: &Bench, [takes, gives]: [u64; 2]) -> Result<(Vec<(&'static str, Shareable)>, Vec<String>), Failure> {
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for (handle_type, name) in TYPES
        .into_iter()
        .filter(|(handle_type, _)| takes & bit(*handle_type) != 0)
    {
        let made = match handle_type {
            c::HandleType::MEMFD => Some(Shareable::memfd(SIZE)?),
            c::HandleType::DMA_BUF => Shareable::dma_buf(SIZE)?,
            _ => None,
        };
        if let Some(made) = made {
            found.push((name, made));
            continue;
        }
        if gives & bit(handle_type) == 0 {
            absent.push(format!("nobody here makes memory of type {name}"));
            continue;
        }
        match bench.instance.export(c::NONE, handle_type, SIZE as u64) {
            Ok(made) => found.push((name, made)),
            // A driver may need something of the system that is not here.
            Err(refused) => absent.push(format!("{name}: {refused}")),
        }
    }
    Ok((found, absent))
}

/// The same, skipped where there is none.
fn some_source(bench: &Bench, stated: [u64; 2]) -> Result<Vec<(&'static str, Shareable)>, Failure> {
    let (found, absent) = sources(bench, stated)?;
    match found.is_empty() {
        false => Ok(found),
        true if absent.is_empty() => Err(Failure::skip("its device takes no memory by handle")),
        true => Err(Failure::skip(absent.join("; "))),
    }
}

fn import_of(bench: &Bench, name: &str, made: &Shareable) -> Result<Imported, Failure> {
    let imported = bench
        .instance
        .import_handle(&made.text, made.fd.as_raw_fd(), &made.seen);
    // It states that it takes the type, and this is as plain as memory of it can be.
    imported.map_err(|refused| Failure::fail(format!("memory of type {name}, which it states to take: {refused}")))
}

fn within(name: &str, when: &str, outcome: Outcome) -> Outcome {
    outcome.map_err(|failure| Failure {
        reason: format!("memory of type {name}{when}: {}", failure.reason),
        ..failure
    })
}

/// What a device states.
pub fn types(trial: &mut Trial<'_>) -> Outcome {
    let (bench, _) = bench(trial)?;
    let count = bench.instance.devices()?.len() as u32;
    for device in (0..count).chain([c::NONE]) {
        let stated = bench.instance.handle_types(device)?;
        if bench.instance.handle_types(device)? != stated {
            return Err(Failure::fail(format!(
                "`buffer_handle_types` of device {device} varies"
            )));
        }
        let host = bit(c::HandleType::HOST_POINTER) | 1;
        if stated.iter().any(|word| word & host != 0) {
            return Err(Failure::fail(format!(
                "`buffer_handle_types` of device {device} states a host pointer, or type 0: {stated:x?}"
            )));
        }
    }
    Ok(())
}

/// In runs of two sessions, at several offsets.
pub fn import(trial: &mut Trial<'_>) -> Outcome {
    let (bench, stated) = bench(trial)?;
    for (name, made) in some_source(&bench, stated)? {
        trial.step(&format!("memory of type {name}"));
        let (mut first, mut second) = (bench.load()?, bench.load()?);
        let mut imported = import_of(&bench, name, &made)?;
        for (round, part) in [0, 1, 17, SIZE / PART - 4].into_iter().enumerate() {
            let seed = trial.seed + round as u64;
            within(name, "", run_in(&bench, &mut first, &mut imported, part, seed))?;
            within(
                name,
                ", by another session",
                run_in(&bench, &mut second, &mut imported, part, seed + 7),
            )?;
        }
        first.unload();
        within(name, "", run_in(&bench, &mut second, &mut imported, 3, trial.seed))?;
        second.unload();
        drop(imported);
    }
    Ok(())
}

/// Who owns the descriptor.
pub fn descriptor(trial: &mut Trial<'_>) -> Outcome {
    let (bench, stated) = bench(trial)?;
    for (name, made) in some_source(&bench, stated)? {
        trial.step(&format!("memory of type {name}"));
        let closed = |when: &str| Failure::fail(format!("the host's descriptor of type {name} is closed after {when}"));
        let Shareable { text, fd, seen } = made;
        let fd = fd.into_raw_fd();
        let made = |fd| bench.instance.import_handle(&text, fd, &seen);
        let mut session = bench.load()?;
        // What is made once stays.
        drop(made(fd)?);
        if !is_open(fd) {
            return Err(closed("`buffer_import`"));
        }
        let before = descriptors();
        for _ in 0..ROUNDS {
            drop(made(fd)?);
        }
        let after = descriptors();
        if let (Some(before), Some(after)) = (before, after)
            && after > before + ROUNDS / 2
        {
            return Err(Failure::fail(format!(
                "{ROUNDS} imports of type {name} that were released left {} descriptors open",
                after - before
            )));
        }
        let mut imported = made(fd)?;
        within(name, "", run_in(&bench, &mut session, &mut imported, 0, trial.seed))?;
        drop(imported);
        if !is_open(fd) {
            return Err(closed("`buffer_release`"));
        }
        let mut imported = made(fd)?;
        close_descriptor(fd);
        // Another one takes its number.
        let other = Shareable::memfd(4096)?;
        let when = " whose descriptor the host has closed";
        within(
            name,
            when,
            run_in(&bench, &mut session, &mut imported, 2, trial.seed + 1),
        )?;
        drop(other);
        session.unload();
        drop(imported);
    }
    Ok(())
}

/// Types that it does not state.
pub fn unstated(trial: &mut Trial<'_>) -> Outcome {
    let (bench, [takes, gives]) = bench(trial)?;
    let made = Shareable::memfd(SIZE)?;
    for handle_type in (2..=6).chain([17, 63]).map(c::HandleType) {
        if takes & bit(handle_type) == 0 {
            let text = HandleText::new(handle_type, SIZE as u64);
            match bench.instance.import_handle(&text, made.fd.as_raw_fd(), &made.seen) {
                Ok(_) => {
                    return Err(Failure::fail(format!(
                        "`buffer_import` took a handle of type {}, which it does not state",
                        handle_type.0
                    )));
                }
                Err(refused) if refused.status != Status::UNSUPPORTED => {
                    return Err(Failure::fail(format!(
                        "`buffer_import` gave {} for a handle of type {}, where {} is right",
                        refused.status,
                        handle_type.0,
                        Status::UNSUPPORTED
                    )));
                }
                Err(_) => {}
            }
        }
        if gives & bit(handle_type) == 0 {
            match bench.instance.export(c::NONE, handle_type, 4096) {
                Ok(_) => {
                    return Err(Failure::fail(format!(
                        "`buffer_export` gave a handle of type {}, which it does not state",
                        handle_type.0
                    )));
                }
                Err(refused) if refused.status != Status::UNSUPPORTED => {
                    return Err(Failure::fail(format!(
                        "`buffer_export` gave {} for a handle of type {}, where {} is right",
                        refused.status,
                        handle_type.0,
                        Status::UNSUPPORTED
                    )));
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// What it gives.
pub fn export(trial: &mut Trial<'_>) -> Outcome {
    let (bench, [takes, gives]) = bench(trial)?;
    let (mut ran, mut absent) = (false, Vec::new());
    for (handle_type, name) in TYPES
        .into_iter()
        .filter(|(handle_type, _)| gives & bit(*handle_type) != 0)
    {
        trial.step(&format!("memory of type {name}"));
        let made = match bench.instance.export(c::NONE, handle_type, SIZE as u64) {
            Ok(made) => made,
            // A driver may need something of the system that is not here.
            Err(refused) if refused.status != Status::OK && handle_type == c::HandleType::DMA_BUF => {
                absent.push(format!("{name}: {refused}"));
                continue;
            }
            Err(refused) => return Err(refused.into()),
        };
        if made.text.size() < SIZE as u64 {
            return Err(Failure::fail(format!(
                "`buffer_export` gave {} bytes of type {name}, {SIZE} were asked for",
                made.text.size()
            )));
        }
        let (mut first, mut second) = (bench.load()?, bench.load()?);
        let own = made.exported().ok_or("the kit lost the buffer")?;
        let mut used = own.borrowed();
        within(name, "", run_in(&bench, &mut first, &mut used, 0, trial.seed))?;
        within(
            name,
            ", by another session",
            run_in(&bench, &mut second, &mut used, 5, trial.seed + 1),
        )?;
        drop(used);
        if takes & bit(handle_type) != 0 {
            let mut imported = import_of(&bench, name, &made)?;
            within(
                name,
                ", imported again",
                run_in(&bench, &mut second, &mut imported, 9, trial.seed + 2),
            )?;
            drop(imported);
        }
        let Shareable { text: _, fd, seen } = made;
        drop(fd);
        let made = Shareable {
            text: HandleText::new(handle_type, SIZE as u64),
            fd: Shareable::memfd(4096)?.fd,
            seen,
        };
        let mut used = made.exported().ok_or("the kit lost the buffer")?.borrowed();
        let when = ", after its descriptor was closed";
        within(name, when, run_in(&bench, &mut first, &mut used, 1, trial.seed + 3))?;
        drop(used);
        first.unload();
        second.unload();
        drop(made);
        let once = || bench.instance.export(c::NONE, handle_type, 65536);
        drop(once()?);
        let before = descriptors();
        for _ in 0..ROUNDS {
            drop(once()?);
        }
        if let (Some(before), Some(after)) = (before, descriptors())
            && after > before + ROUNDS / 2
        {
            return Err(Failure::fail(format!(
                "{ROUNDS} exports of type {name} that were released left {} descriptors open",
                after - before
            )));
        }
        ran = true;
    }
    match ran {
        true => Ok(()),
        false if absent.is_empty() => Err(Failure::skip("its device gives no memory by handle")),
        false => Err(Failure::skip(absent.join("; "))),
    }
}
