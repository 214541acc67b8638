//! States: what a session keeps from run to run, and what a graph with states is to a delegate that keeps none.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{Loaded, Refused, Script};
use crate::stateful::{Form, Kept, STATES_OF_PAIR, encode32};
use delegraph_abi::{Status, c};
use std::time::{Duration, Instant};

/// The cases of the category.
pub const CASES: &[Case] = &[
    case(
        "state/declared",
        "blob_keep_state: names states of the graph, each at most once, and only with DG_FEATURE_STATE",
        declared,
    ),
    case(
        "state/host-owned",
        "dg_image_state: where the blob does not keep a state, it is an input and an output like others",
        host_owned,
    ),
    case(
        "state/begins-at-zero",
        "session_state_commit: in a new session every element of a state is 0",
        begins_at_zero,
    ),
    case(
        "state/goes-on",
        "session_state_commit: with `accept` 1 the new values count in the next run",
        goes_on,
    ),
    case(
        "state/refused-run",
        "session_state_commit: with `accept` 0 the values before the run count",
        refused_run,
    ),
    case(
        "state/reset",
        "session_state_reset: every element of the state is 0, and no other state changes",
        reset,
    ),
    case(
        "state/truncate",
        "session_state_truncate: the first `length` entries along the growth axis are kept, the rest is 0",
        truncate,
    ),
    case(
        "state/truncate-beyond",
        "session_state_truncate: a length beyond the size changes nothing, whether it is refused or not",
        truncate_beyond,
    ),
    case(
        "state/truncate-not-growing",
        "session_state_truncate: DG_E_UNSUPPORTED where the state does not grow, and it has changed nothing",
        truncate_not_growing,
    ),
    case(
        "state/append",
        "dg_image_state.growth_axis: runs append where they say, after a truncation too",
        append,
    ),
    case(
        "state/snapshot",
        "session_state_snapshot: writes exactly the elements, contiguous and row-major, and changes nothing",
        snapshot,
    ),
    case(
        "state/restore",
        "session_state_restore: a state is bit for bit what the snapshot held, in the same session and in another",
        restore,
    ),
    case(
        "state/restore-of-the-host",
        "session_state_restore: takes bytes that the host made, and runs go on from them",
        restore_of_the_host,
    ),
    case(
        "state/wrong-size",
        "session_state_snapshot, session_state_restore: `size` is that of the elements; another is refused and changes nothing",
        wrong_size,
    )
    .hardening(),
    case(
        "state/unknown",
        "session_state_*: a state that the session does not keep is refused, and nothing has changed",
        unknown,
    )
    .hardening(),
    case(
        "state/isolated",
        "session_state_commit: states of one session are seen by no other",
        isolated,
    ),
    case(
        "state/failed-run",
        "session_state_commit: a run that failed has changed no state, and needs no commit",
        failed_run,
    ),
    case(
        "state/long",
        "session_state_commit: after 200 runs the state is what 200 runs make of it",
        long,
    ),
    case(
        "state/submitted",
        "session_submit, session_state_commit: a submitted run changes states as an executed one does",
        submitted,
    ),
];

fn fail(refused: Refused) -> Failure {
    Failure::from(refused)
}

/// A compiled graph whose states the delegate keeps, every one of them.
fn kept(trial: &Trial<'_>, forms: &[Form]) -> Result<Kept, Failure> {
    let kept = Kept::open(trial, forms)?;
    if !kept.library.has(c::Feature::STATE) {
        return Err(Failure::skip("no feature STATE"));
    }
    let states = kept.graph.states.len();
    if kept.blob.states.len() < states {
        return Err(Failure::skip(format!(
            "it keeps {} of the {states} states of this graph, and leaves the rest to the host",
            kept.blob.states.len()
        )));
    }
    Ok(kept)
}

fn accumulate(trial: &Trial<'_>) -> Result<Kept, Failure> {
    kept(trial, &[Form::Sum, Form::SumThenRelu, Form::SumTimesInput])
}

fn growing(trial: &Trial<'_>) -> Result<Kept, Failure> {
    kept(
        trial,
        &[
            Form::AppendByMask,
            Form::AppendByIndexCopy,
            Form::AppendByIndexPut,
            Form::AppendByScatter,
        ],
    )
}

/// The state's elements, or a failure that names what was done before.
fn read(kept: &Kept, session: &mut Loaded, state: u32) -> Result<Vec<f64>, Failure> {
    let bytes = session
        .snapshot(state, kept.graph.bytes_of(state), &Script::default())
        .map_err(fail)?;
    Ok(kept.graph.decode(&bytes))
}

/// Whether a state holds these numbers.
fn holds(kept: &Kept, session: &mut Loaded, state: u32, want: &[f64], when: &str) -> Outcome {
    let got = read(kept, session, state)?;
    kept.compare(&got, want)
        .map_err(|problem| Failure::fail(format!("{when}, state {state}: {problem}")))
}

fn declared(trial: &mut Trial<'_>) -> Outcome {
    let has = Kept::open(trial, &[Form::Pair, Form::Sum])?;
    let states = has.graph.states.len() as u32;
    let stated = &has.blob.states;
    if !stated.is_empty() && !has.library.has(c::Feature::STATE) {
        return Err(Failure::fail(
            "`compile` called `blob_keep_state`, and the library has no DG_FEATURE_STATE",
        ));
    }
    for (i, state) in stated.iter().enumerate() {
        if *state >= states {
            return Err(Failure::fail(format!(
                "`blob_keep_state` names state {state}, of which the graph has {states}"
            )));
        }
        if stated[..i].contains(state) {
            return Err(Failure::fail(format!("`blob_keep_state` names state {state} twice")));
        }
    }
    trial.measure("states_kept", stated.len() as f64);
    Ok(())
}

fn host_owned(trial: &mut Trial<'_>) -> Outcome {
    let has = Kept::open(trial, &[Form::Sum, Form::SumThenRelu, Form::SumTimesInput])?;
    if !has.blob.states.is_empty() {
        return Err(Failure::skip("its sessions keep the state of this graph"));
    }
    let mut session = has.load()?;
    let count = has.graph.count();
    let mut state = vec![0.0; count];
    for step in 0..4 {
        let x = has.graph.numbers(trial.seed + step);
        let (y, after) = has.run_owned(&mut session, &x, &state)?;
        let want: Vec<f64> = state.iter().zip(&x).map(|(state, x)| state + x).collect();
        has.compare(&after, &want)
            .map_err(|problem| format!("run {step}, the state's output: {problem}"))?;
        has.compare(&y, &has.graph.visible(&want))
            .map_err(|problem| format!("run {step}, output 0: {problem}"))?;
        state = want;
    }
    Ok(())
}

fn begins_at_zero(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    for round in 0..3 {
        let mut session = has.load()?;
        let zero = vec![0.0; has.graph.count()];
        holds(&has, &mut session, 0, &zero, &format!("in new session {round}"))?;
        let x = has.graph.numbers(trial.seed + round);
        has.step(&mut session, &x, &x, true)
            .map_err(|failure| in_words("the first run of a session", failure))?;
        session.unload();
    }
    Ok(())
}

fn in_words(when: &str, failure: Failure) -> Failure {
    Failure {
        reason: format!("{when}: {}", failure.reason),
        ..failure
    }
}

/// The sum of the numbers of these seeds.
fn sum(has: &Kept, seeds: &[u64]) -> Vec<f64> {
    let mut sum = vec![0.0; has.graph.count()];
    for seed in seeds {
        let x = has.graph.numbers(*seed);
        sum.iter_mut().zip(&x).for_each(|(sum, x)| *sum += x);
    }
    sum
}

fn goes_on(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let mut seeds = Vec::new();
    for step in 0..6 {
        seeds.push(trial.seed + step);
        let x = has.graph.numbers(trial.seed + step);
        has.step(&mut session, &x, &sum(&has, &seeds), true)
            .map_err(|failure| in_words(&format!("run {step}"), failure))?;
        holds(&has, &mut session, 0, &sum(&has, &seeds), &format!("after run {step}"))?;
    }
    Ok(())
}

fn refused_run(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    has.step(&mut session, &has.graph.numbers(1), &sum(&has, &[1]), true)?;
    // What is dropped may be dropped several times over; the run after it begins where the last accepted one ended.
    for seed in [2, 3] {
        has.step(&mut session, &has.graph.numbers(seed), &sum(&has, &[1, seed]), false)
            .map_err(|failure| in_words("a run whose outcome is dropped", failure))?;
        let when = "after `session_state_commit` with `accept` 0";
        holds(&has, &mut session, 0, &sum(&has, &[1]), when)?;
    }
    has.step(&mut session, &has.graph.numbers(4), &sum(&has, &[1, 4]), true)
        .map_err(|failure| in_words("the run after dropped ones", failure))?;
    holds(
        &has,
        &mut session,
        0,
        &sum(&has, &[1, 4]),
        "after an accepted run again",
    )
}

fn reset(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    has.step(&mut session, &has.graph.numbers(1), &sum(&has, &[1]), true)?;
    session.reset(0, &Script::default()).map_err(fail)?;
    let zero = vec![0.0; has.graph.count()];
    holds(&has, &mut session, 0, &zero, "after `session_state_reset`")?;
    has.step(&mut session, &has.graph.numbers(2), &sum(&has, &[2]), true)
        .map_err(|failure| in_words("the run after a reset", failure))?;
    // Of two states one alone.
    let Ok(has) = kept(trial, &[Form::Pair]) else {
        return Ok(());
    };
    let mut session = has.load()?;
    let x = has.graph.numbers(3);
    has.step(&mut session, &x, &x, true)?;
    for state in 0..STATES_OF_PAIR {
        let before: Vec<Vec<f64>> = (0..STATES_OF_PAIR)
            .map(|state| read(&has, &mut session, state))
            .collect::<Result<_, _>>()?;
        session.reset(state, &Script::default()).map_err(fail)?;
        for other in 0..STATES_OF_PAIR {
            let zero = vec![0.0; before[other as usize].len()];
            let want = if other == state { &zero } else { &before[other as usize] };
            let when = format!("after `session_state_reset` of state {state}");
            holds(&has, &mut session, other, want, &when)?;
        }
    }
    Ok(())
}

/// A session whose growing state was filled by the host: every element is its position, from 1 on.
fn filled(has: &Kept) -> Result<(Loaded, Vec<f64>), Failure> {
    let mut session = has.load()?;
    let numbers: Vec<f64> = (0..has.graph.count_of(0)).map(|i| (i + 1) as f64).collect();
    session
        .restore(0, &has.graph.encode(&numbers), &Script::default())
        .map_err(fail)?;
    Ok((session, numbers))
}

fn truncate(trial: &mut Trial<'_>) -> Outcome {
    let has = growing(trial)?;
    let entries = has.graph.entries();
    for length in (0..=entries).rev() {
        let (mut session, numbers) = filled(&has)?;
        session.truncate(0, length, &Script::default()).map_err(fail)?;
        let want = has.graph.cut(&numbers, length);
        let when = format!("after `session_state_truncate` to {length} of {entries} entries");
        holds(&has, &mut session, 0, &want, &when)?;
        // Cutting off again what is cut off changes nothing more.
        session.truncate(0, length, &Script::default()).map_err(fail)?;
        holds(&has, &mut session, 0, &want, &format!("{when}, twice"))?;
        session.unload();
    }
    Ok(())
}

fn truncate_beyond(trial: &mut Trial<'_>) -> Outcome {
    let has = growing(trial)?;
    for length in [has.graph.entries() + 1, 1 << 40, u64::MAX] {
        let (mut session, numbers) = filled(&has)?;
        let outcome = session.truncate(0, length, &Script::default());
        let said = match &outcome {
            Ok(()) => "was taken".to_string(),
            Err(refused) => format!("gave {}", refused.status),
        };
        let when = format!("after `session_state_truncate` to {length} entries {said}");
        holds(&has, &mut session, 0, &numbers, &when)?;
        session.unload();
    }
    Ok(())
}

fn truncate_not_growing(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let x = has.graph.numbers(trial.seed);
    has.step(&mut session, &x, &x, true)?;
    match session.truncate(0, 1, &Script::default()) {
        Ok(()) => {
            return Err(Failure::fail(
                "`session_state_truncate` took a state that does not grow",
            ));
        }
        Err(refused) if refused.status != Status::UNSUPPORTED => {
            return Err(Failure::fail(format!(
                "`session_state_truncate` of a state that does not grow gave {}, where {} is right",
                refused.status,
                Status::UNSUPPORTED
            )));
        }
        Err(_) => {}
    }
    holds(&has, &mut session, 0, &x, "after a truncation that was refused")
}

fn append(trial: &mut Trial<'_>) -> Outcome {
    let has = growing(trial)?;
    let mut session = has.load()?;
    let entries = has.graph.entries();
    let mut log = vec![0.0; has.graph.count_of(0)];
    let width = log.len() / entries as usize;
    let put = |session: &mut Loaded, log: &mut Vec<f64>, position: u64, seed: u64, when: &str| -> Outcome {
        let x: Vec<f64> = has.graph.numbers(seed)[..width].to_vec();
        has.append(session, &x, position)
            .map_err(|failure| in_words(when, failure))?;
        let at = position as usize * width;
        log[at..at + width].copy_from_slice(&x);
        holds(&has, session, 0, log, when)
    };
    for position in 0..entries - 1 {
        put(
            &mut session,
            &mut log,
            position,
            trial.seed + position,
            &format!("after {} runs", position + 1),
        )?;
    }
    session.truncate(0, 2, &Script::default()).map_err(fail)?;
    let mut log = has.graph.cut(&log, 2);
    holds(&has, &mut session, 0, &log, "after a truncation")?;
    put(&mut session, &mut log, 2, 99, "after a run that follows a truncation")
}

fn snapshot(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    has.step(&mut session, &has.graph.numbers(1), &sum(&has, &[1]), true)?;
    let size = has.graph.bytes_of(0);
    let take = |session: &mut Loaded| session.snapshot(0, size, &Script::default()).map_err(fail);
    // The room ends at a page that must not be touched.
    let first = take(&mut session)?;
    let second = take(&mut session)?;
    if first != second {
        return Err(Failure::fail("two snapshots of one state in a row are not the same"));
    }
    holds(&has, &mut session, 0, &sum(&has, &[1]), "after snapshots")?;
    has.step(&mut session, &has.graph.numbers(2), &sum(&has, &[1, 2]), true)
        .map_err(|failure| in_words("the run after snapshots", failure))
}

fn restore(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let x: Vec<f64> = has.graph.numbers(1);
    has.step(&mut session, &x, &x, true)?;
    let size = has.graph.bytes_of(0);
    let taken = session.snapshot(0, size, &Script::default()).map_err(fail)?;
    has.step(&mut session, &has.graph.numbers(2), &sum(&has, &[1, 2]), true)?;
    let mut other = has.load()?;
    has.step(&mut other, &has.graph.numbers(7), &sum(&has, &[7]), true)?;
    for (name, session) in [("the same session", &mut session), ("another session", &mut other)] {
        session.restore(0, &taken, &Script::default()).map_err(fail)?;
        let again = session.snapshot(0, size, &Script::default()).map_err(fail)?;
        if let Some(at) = taken.iter().zip(&again).position(|(a, b)| a != b) {
            return Err(Failure::fail(format!(
                "byte {at} of state 0 is {:#04x} after `session_state_restore` in {name}, where the snapshot has {:#04x}",
                again[at], taken[at]
            )));
        }
        has.step(session, &has.graph.numbers(3), &sum(&has, &[1, 3]), true)
            .map_err(|failure| in_words(&format!("the run after a restore in {name}"), failure))?;
    }
    Ok(())
}

fn restore_of_the_host(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    // Numbers with every bit of an f32 in use come back bit for bit; where the type is another, plain numbers do.
    let count = has.graph.count();
    let bytes = match encode32(has.graph.dtype, count) {
        Some(bytes) => bytes,
        None => has.graph.encode(&has.graph.numbers(5)),
    };
    session.restore(0, &bytes, &Script::default()).map_err(fail)?;
    let again = session.snapshot(0, bytes.len(), &Script::default()).map_err(fail)?;
    let lowered = !has.blob.meta.precision.is_empty();
    if again != bytes && !lowered {
        return Err(Failure::fail(
            "a snapshot is not what `session_state_restore` was given by the host",
        ));
    }
    let start = has.graph.numbers(5);
    session
        .restore(0, &has.graph.encode(&start), &Script::default())
        .map_err(fail)?;
    has.step(&mut session, &has.graph.numbers(6), &sum(&has, &[5, 6]), true)
        .map_err(|failure| in_words("the run after a restore of the host's bytes", failure))
}

fn wrong_size(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let x = has.graph.numbers(trial.seed);
    has.step(&mut session, &x, &x, true)?;
    let right = has.graph.bytes_of(0);
    for size in [0, 1, right - 1, right + 1, 2 * right] {
        if session.snapshot(0, size, &Script::default()).is_ok() {
            return Err(Failure::warning(format!(
                "`session_state_snapshot` gave DG_OK for {size} bytes, where the state has {right}"
            )));
        }
        if session.restore(0, &vec![0; size], &Script::default()).is_ok() {
            return Err(Failure::warning(format!(
                "`session_state_restore` gave DG_OK for {size} bytes, where the state has {right}"
            )));
        }
        holds(&has, &mut session, 0, &x, &format!("after {size} bytes were refused"))?;
    }
    Ok(())
}

fn unknown(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let x = has.graph.numbers(trial.seed);
    has.step(&mut session, &x, &x, true)?;
    let size = has.graph.bytes_of(0);
    let script = Script::default();
    for state in [1, 2, 1000, u32::MAX] {
        let outcomes = [
            ("session_state_reset", session.reset(state, &script)),
            ("session_state_truncate", session.truncate(state, 0, &script)),
            (
                "session_state_snapshot",
                session.snapshot(state, size, &script).map(drop),
            ),
            ("session_state_restore", session.restore(state, &vec![0; size], &script)),
        ];
        if let Some((name, _)) = outcomes.iter().find(|(_, outcome)| outcome.is_ok()) {
            return Err(Failure::warning(format!(
                "`{name}` gave DG_OK for state {state}, which there is not"
            )));
        }
    }
    holds(&has, &mut session, 0, &x, "after calls for states that there are not")
}

fn isolated(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let (mut first, mut second) = (has.load()?, has.load()?);
    has.step(&mut first, &has.graph.numbers(1), &sum(&has, &[1]), true)?;
    let zero = vec![0.0; has.graph.count()];
    holds(&has, &mut second, 0, &zero, "after a run of another session")?;
    for (seeds, name) in [(&[2][..], "second"), (&[1, 3], "first"), (&[2, 4], "second")] {
        let session = if name == "first" { &mut first } else { &mut second };
        let seed = seeds[seeds.len() - 1];
        has.step(session, &has.graph.numbers(seed), &sum(&has, seeds), true)
            .map_err(|failure| in_words(&format!("two sessions in turn, the {name}"), failure))?;
    }
    first.reset(0, &Script::default()).map_err(fail)?;
    holds(
        &has,
        &mut second,
        0,
        &sum(&has, &[2, 4]),
        "after a reset in another session",
    )?;
    first.unload();
    let mut third = has.load()?;
    holds(
        &has,
        &mut third,
        0,
        &zero,
        "in a session that follows one that was unloaded",
    )
}

fn failed_run(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    has.step(&mut session, &has.graph.numbers(1), &sum(&has, &[1]), true)?;
    let cancelled = Script::default();
    cancelled.cancel();
    let late = Script::default().until(Instant::now());
    let mut alone = Script::default();
    alone.fail.parallel_for = Some(0);
    let mut failed = 0;
    for (name, script) in [
        ("cancelled", cancelled),
        ("late", late),
        ("denied the host's threads", alone),
    ] {
        match has.try_step(&mut session, &has.graph.numbers(2), &script) {
            Ok(_) => session.commit(false, &Script::default()).map_err(fail)?,
            Err(_) => failed += 1,
        }
        let when = format!("after a run that was {name}");
        holds(&has, &mut session, 0, &sum(&has, &[1]), &when)?;
        has.step(&mut session, &has.graph.numbers(4), &sum(&has, &[1, 4]), false)
            .map_err(|failure| in_words(&when, failure))?;
    }
    match failed {
        0 => Err(Failure::skip("none of its runs could be made to fail from outside")),
        _ => Ok(()),
    }
}

fn long(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    let mut session = has.load()?;
    let mut total = vec![0.0; has.graph.count()];
    for step in 0..200 {
        let mut x = has.graph.numbers(trial.seed + step / 2);
        if step % 2 == 1 {
            // So that the sum stays small, and exact in every type: the second of a pair takes back all but one step of 0.25.
            x.iter_mut()
                .for_each(|x| *x = 0.25 * f64::from(u8::from(step % 40 == 1)) - *x);
        }
        total.iter_mut().zip(&x).for_each(|(total, x)| *total += x);
        has.step(&mut session, &x, &total, true)
            .map_err(|failure| in_words(&format!("run {step}"), failure))?;
    }
    holds(&has, &mut session, 0, &total, "after 200 runs")
}

fn submitted(trial: &mut Trial<'_>) -> Outcome {
    let has = accumulate(trial)?;
    if !has.library.has(c::Feature::ASYNC) {
        return Err(Failure::skip("no feature ASYNC"));
    }
    let mut session = has.load()?;
    for (seed, seeds, accept) in [(1, &[1][..], true), (2, &[1, 2], false), (3, &[1, 3], true)] {
        has.step_submitted(
            &mut session,
            &has.graph.numbers(seed),
            &sum(&has, seeds),
            accept,
            Duration::from_secs(10),
        )
        .map_err(|failure| in_words("a submitted run", failure))?;
    }
    holds(&has, &mut session, 0, &sum(&has, &[1, 3]), "after submitted runs")?;
    has.step(&mut session, &has.graph.numbers(4), &sum(&has, &[1, 3, 4]), true)
        .map_err(|failure| in_words("an executed run after submitted ones", failure))
}
