//! States that sessions keep on their side: host and SDK together, in this process.
//!
//! The delegate keeps a running sum and a log that grows. What the numbers have to be is worked out by hand.

use delegraph_abi::envelope;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{CallOptions, DelegateError, Host, HostOptions, Input, Output, Weights};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::roles::{Compile as CompileRole, Run as RunRole, State as StateRole, Submit as SubmitRole};
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options, Partition, Run, Session,
    TensorOut, TensorView, Verdict, static_entry_as,
};
use delegraph_types::{DType, Dims};
use std::sync::Arc;

/// `total += x`, and `log[n] = x[0]` for the n-th run.
struct Keeper {
    mode: String,
}

impl Delegate for Keeper {
    const INFO: Info = Info {
        name: "keeper",
        vendor: "tests",
        version: "1.0.0",
        build: "",
        format: "keeper.code",
        format_version: 1,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Keeper, Error> {
        let mode = match options.find("mode") {
            Some(OptionValue::Str(mode)) => mode.to_string(),
            _ => String::new(),
        };
        Ok(Keeper { mode })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Keeper {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |_| Verdict::Take))
    }

    fn compile(
        &self,
        _: &ImageView<'_>,
        _: &delegraph_sdk::Weights<'_>,
        _: &str,
        _: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let kept_states = match self.mode.as_str() {
            "unknown" => vec![2],
            "twice" => vec![1, 1],
            _ => vec![1, 0],
        };
        Ok(Compiled {
            kept_states,
            ..Compiled::from(vec![1])
        })
    }
}

impl Run for Keeper {
    fn load(&self, _: &Blob<'_>, _: &delegraph_sdk::Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(KeeperSession {
            mode: self.mode.clone(),
            now: [vec![0.0; 2], vec![0.0; 4]],
            next: None,
        }))
    }
}

struct KeeperSession {
    mode: String,
    /// By number of the state: the sum, the log.
    now: [Vec<f32>; 2],
    next: Option<[Vec<f32>; 2]>,
}

impl Session for KeeperSession {
    /// Inputs: x, total, log, and how many runs there were. Outputs: y, total, log.
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        _: &Context<'_>,
    ) -> Result<(), Error> {
        assert!(self.next.is_none(), "the last run was ended");
        for kept in [&inputs[1], &inputs[2]] {
            assert!(kept.bytes.is_empty());
        }
        assert_eq!((inputs[1].sizes, inputs[2].sizes), (&[2i64][..], &[4i64][..]));
        assert!(outputs[1].bytes.is_empty() && outputs[2].bytes.is_empty());
        let (x, position) = (
            inputs[0].elements::<f32>().unwrap(),
            inputs[3].elements::<i64>().unwrap(),
        );
        let mut next = self.now.clone();
        next[0].iter_mut().zip(x).for_each(|(total, x)| *total += x);
        next[1][position[0] as usize] = x[0];
        let y = outputs[0].elements::<f32>().unwrap();
        y.copy_from_slice(&next[0]);
        if x[0] == 666.0 {
            return Err(Error::internal("no power"));
        }
        if x[0] == 13.0 {
            // Beyond what there is room for: the host refuses the run, which the delegate thinks went well.
            outputs[0].sizes[0] = 99;
        }
        self.next = Some(next);
        Ok(())
    }

    fn state_commit(&mut self, accept: bool, _: &Context<'_>) -> Result<(), Error> {
        let next = self.next.take().expect("a run was before");
        if self.mode == "stuck" {
            return Err(Error::new(Status::DEVICE_LOST, "the queue is gone"));
        }
        if accept {
            self.now = next;
        }
        Ok(())
    }

    fn state_reset(&mut self, state: u32, _: &Context<'_>) -> Result<(), Error> {
        self.now[state as usize].fill(0.0);
        Ok(())
    }

    fn state_truncate(&mut self, state: u32, length: u64, _: &Context<'_>) -> Result<(), Error> {
        assert_eq!(state, 1, "the host asks for no other");
        self.now[1][length as usize..].fill(0.0);
        Ok(())
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], _: &Context<'_>) -> Result<(), Error> {
        let bytes: Vec<u8> = self.now[state as usize].iter().flat_map(|x| x.to_ne_bytes()).collect();
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], _: &Context<'_>) -> Result<(), Error> {
        self.now[state as usize] = floats(bytes);
        Ok(())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks(4)
        .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
        .collect()
}

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

fn image(dynamic: bool) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let two = image.int(2);
    let (four, one) = (image.int(4), image.int(1));
    let four = if dynamic { image.symbol("s0", 1, Some(4)) } else { four };
    let pair = Type::tensor(Code::F32, &[two]);
    let log = Type::tensor(Code::F32, &[four]);
    let x = image.input("x", &pair);
    let total = image.input("total", &pair);
    let before = image.input("log", &log);
    let position = image.input("position", &Type::tensor(Code::I64, &[one]));
    let sum = [Arg::Value(total), Arg::Value(x), Arg::Int(1)];
    let y = image.node("add", "aten::add.Tensor", &sum, &[("y", &pair)], "")[0];
    let put = [
        Arg::Value(before),
        Arg::OptionalValues(vec![Some(position)]),
        Arg::Value(x),
        Arg::Bool(false),
    ];
    let after = image.node("put", "aten::index_put", &put, &[("after", &log)], "")[0];
    for value in [y, y, after] {
        image.output(value);
    }
    image.state("total", 1, 1, None);
    image.state("log", 2, 2, Some(0));
    image.finish().unwrap()
}

fn delegate(mode: &str, entry: delegraph_abi::StaticEntry) -> Arc<delegraph_host::Delegate> {
    let host = Host::discover(HostOptions {
        options: [("keeper".to_string(), serde_json::json!({ "mode": mode }))].into(),
        ..HostOptions::default()
    });
    host.register_static("keeper", entry).unwrap();
    host.delegate("keeper").unwrap()
}

fn keeper(mode: &str) -> Arc<delegraph_host::Delegate> {
    delegate(mode, static_entry_as::<Keeper, (CompileRole, SubmitRole, StateRole)>())
}

fn session(mode: &str) -> delegraph_host::Session {
    let delegate = keeper(mode);
    let blob = delegate.compile(&image(false), &NoWeights, "").unwrap();
    delegate.load(&blob, Arc::new(NoWeights)).unwrap()
}

/// Runs once; gives `y`. The states' sizes are given, and no bytes of them.
fn run_as(
    session: &mut delegraph_host::Session,
    x: [f32; 2],
    position: i64,
    submitted: bool,
) -> Result<[f32; 2], DelegateError> {
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let mut words = [0u64; 3];
    words[2] = position as u64;
    // SAFETY: words are bytes, all of them set.
    let room = unsafe { words.align_to_mut::<u8>().1 };
    let (input, rest) = room.split_at_mut(8);
    let (y, position) = rest.split_at_mut(8);
    input.copy_from_slice(&bytes);
    let tensor = |dtype, sizes, bytes| Input { dtype, sizes, bytes };
    let inputs = [
        tensor(DType::F32, &[2], &*input),
        tensor(DType::F32, &[2], &[]),
        tensor(DType::F32, &[4], &[]),
        tensor(DType::I64, &[1], &*position),
    ];
    let place = |size, bytes| Output {
        dtype: DType::F32,
        sizes: Dims::new(&[size]).unwrap(),
        bytes,
    };
    let mut outputs = [place(2, y), place(2, &mut []), place(4, &mut [])];
    match submitted {
        true => {
            session
                .submit(&inputs, &mut outputs, &CallOptions::default(), |_| ())
                .1?
        }
        false => session.execute(&inputs, &mut outputs)?,
    }
    let y = floats(outputs[0].bytes);
    Ok([y[0], y[1]])
}

fn run(session: &mut delegraph_host::Session, x: [f32; 2], position: i64) -> Result<[f32; 2], DelegateError> {
    run_as(session, x, position, false)
}

/// The index of a state in a session.
fn state(session: &delegraph_host::Session, name: &str) -> usize {
    session.states().iter().position(|state| state.name == name).unwrap()
}

fn kept(session: &mut delegraph_host::Session, name: &str) -> Vec<f32> {
    let state = state(session, name);
    floats(&session.snapshot_state(state).unwrap())
}

#[test]
fn the_envelope_says_what_sessions_keep_and_the_session_does_too() {
    let blob = keeper("").compile(&image(false), &NoWeights, "").unwrap();
    let meta = envelope::parse(&blob).unwrap().meta;
    let said: Vec<_> = meta
        .states
        .iter()
        .map(|s| (s.state, s.name.as_str(), s.input, s.output, s.growth, s.bytes))
        .collect();
    assert_eq!(said, [(1, "log", 2, 2, Some((0, 4)), 16), (0, "total", 1, 1, None, 8)]);
    let session = session("");
    let log = &session.states()[state(&session, "log")];
    assert_eq!((log.input, log.output, log.bytes, log.entries), (2, 2, 16, Some(4)));
    assert_eq!(session.states()[state(&session, "total")].entries, None);
}

#[test]
fn runs_go_on_from_the_ones_before_and_a_reset_begins_anew() {
    for submitted in [false, true] {
        let mut session = session("");
        assert_eq!(run_as(&mut session, [1.0, 2.0], 0, submitted).unwrap(), [1.0, 2.0]);
        assert_eq!(run_as(&mut session, [10.0, 20.0], 1, submitted).unwrap(), [11.0, 22.0]);
        assert_eq!(kept(&mut session, "log"), [1.0, 10.0, 0.0, 0.0]);
        let total = state(&session, "total");
        session.reset_state(total).unwrap();
        assert_eq!(run_as(&mut session, [5.0, 5.0], 2, submitted).unwrap(), [5.0, 5.0]);
        assert_eq!(
            kept(&mut session, "log"),
            [1.0, 10.0, 5.0, 0.0],
            "the other state goes on"
        );
    }
}

#[test]
fn what_grows_can_be_cut_off() {
    let mut session = session("");
    for (i, x) in [1.0f32, 2.0, 3.0].into_iter().enumerate() {
        run(&mut session, [x, 0.0], i as i64).unwrap();
    }
    let (log, total) = (state(&session, "log"), state(&session, "total"));
    session.truncate_state(log, 1).unwrap();
    assert_eq!(kept(&mut session, "log"), [1.0, 0.0, 0.0, 0.0]);
    run(&mut session, [9.0, 0.0], 1).unwrap();
    assert_eq!(kept(&mut session, "log"), [1.0, 9.0, 0.0, 0.0]);
    session.truncate_state(log, 4).unwrap();
    assert_eq!(kept(&mut session, "log"), [1.0, 9.0, 0.0, 0.0]);
    let error = session.truncate_state(log, 5).unwrap_err();
    assert_eq!(
        (error.code, error.message.contains("4 entries, not 5")),
        (Status::INVALID_ARGUMENT, true),
        "{error}"
    );
    let error = session.truncate_state(total, 1).unwrap_err();
    assert_eq!(
        (error.code, error.message.contains("does not grow")),
        (Status::UNSUPPORTED, true),
        "{error}"
    );
}

#[test]
fn a_snapshot_goes_on_in_another_session_and_sessions_know_nothing_of_each_other() {
    let delegate = keeper("");
    let blob = delegate.compile(&image(false), &NoWeights, "").unwrap();
    let load = || delegate.load(&blob, Arc::new(NoWeights)).unwrap();
    let (mut one, mut two) = (load(), load());
    run(&mut one, [0.1, -0.0], 0).unwrap();
    run(&mut one, [0.2, f32::MIN_POSITIVE], 1).unwrap();
    assert_eq!(kept(&mut two, "total"), [0.0, 0.0], "a new session begins with 0");
    assert_eq!(run(&mut two, [7.0, 7.0], 0).unwrap(), [7.0, 7.0]);
    for state in 0..2 {
        let snapshot = one.snapshot_state(state).unwrap();
        two.restore_state(state, &snapshot).unwrap();
        assert_eq!(two.snapshot_state(state).unwrap(), snapshot);
    }
    let (a, b) = (
        run(&mut one, [0.3, 1.0], 2).unwrap(),
        run(&mut two, [0.3, 1.0], 2).unwrap(),
    );
    assert_eq!(a.map(f32::to_bits), b.map(f32::to_bits));
    assert_eq!(a[0].to_bits(), (0.1f32 + 0.2 + 0.3).to_bits());
    run(&mut two, [100.0, 100.0], 3).unwrap();
    assert_eq!(kept(&mut one, "total"), a);
}

#[test]
fn a_run_that_fails_counts_for_nothing_whoever_finds_that_it_failed() {
    for submitted in [false, true] {
        let mut session = session("");
        run_as(&mut session, [1.0, 1.0], 0, submitted).unwrap();
        for bad in [666.0, 13.0] {
            let error = run_as(&mut session, [bad, 1.0], 1, submitted).unwrap_err();
            let words = if bad == 13.0 { "beyond" } else { "no power" };
            assert!(error.message.contains(words), "{error}");
            assert_eq!(kept(&mut session, "total"), [1.0, 1.0]);
            assert_eq!(kept(&mut session, "log"), [1.0, 0.0, 0.0, 0.0]);
        }
        assert_eq!(run_as(&mut session, [2.0, 2.0], 1, submitted).unwrap(), [3.0, 3.0]);
    }
}

#[test]
fn the_caller_may_say_later_whether_a_run_counts() {
    let mut session = session("");
    session.commit_states_later(true);
    assert_eq!(run(&mut session, [1.0, 0.0], 0).unwrap(), [1.0, 0.0]);
    for outcome in [
        run(&mut session, [1.0, 0.0], 1).map(drop),
        session.reset_state(0),
        session.snapshot_state(0).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.message.contains("awaits `commit_states`"), "{error}");
    }
    session.commit_states(false).unwrap();
    assert_eq!(
        run(&mut session, [2.0, 0.0], 0).unwrap(),
        [2.0, 0.0],
        "the first did not count"
    );
    session.commit_states(true).unwrap();
    session.commit_states(true).unwrap();
    run(&mut session, [666.0, 0.0], 1).unwrap_err();
    session.commit_states(true).unwrap();
    assert_eq!(kept(&mut session, "total"), [2.0, 0.0]);
}

#[test]
fn a_state_in_doubt_is_lost_and_an_error_until_it_is_restored() {
    let mut session = session("stuck");
    let error = run(&mut session, [1.0, 1.0], 0).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Status::DEVICE_LOST, "the queue is gone")
    );
    let lost = |error: DelegateError, state: &str| {
        assert_eq!(error.code, Status::DEVICE_LOST);
        let words = format!("the state `{state}` was lost after run 0: a run could not be ended: the queue is gone");
        assert_eq!(error.message, words);
        assert!(error.hint.contains("restore a snapshot"), "{error}");
    };
    let (log, total) = (state(&session, "log"), state(&session, "total"));
    lost(run(&mut session, [1.0, 1.0], 0).unwrap_err(), "log");
    lost(session.snapshot_state(total).unwrap_err(), "total");
    lost(session.truncate_state(log, 0).unwrap_err(), "log");
    session.reset_state(log).unwrap();
    lost(run(&mut session, [1.0, 1.0], 0).unwrap_err(), "total");
    let eight: Vec<u8> = [8.0f32, 8.0].iter().flat_map(|x| x.to_ne_bytes()).collect();
    session.restore_state(total, &eight).unwrap();
    assert_eq!(session.snapshot_state(total).unwrap(), eight);
}

#[test]
fn what_is_not_as_it_should_be_is_said() {
    let mut session = session("");
    let error = session.reset_state(2).unwrap_err();
    assert_eq!(error.message, "there is no state 2: the session keeps 2");
    let total = state(&session, "total");
    for wrong in [&[0u8; 7][..], &[0; 16], &[]] {
        let error = session.restore_state(total, wrong).unwrap_err();
        assert_eq!(error.code, Status::INVALID_ARGUMENT);
        assert!(error.message.contains("`total` has 8 bytes"), "{error}");
    }
    // Bytes of a state that the session keeps would say nothing.
    let bytes = [0u64; 4];
    // SAFETY: words are bytes.
    let bytes = unsafe { bytes.align_to::<u8>().1 };
    let tensor = |dtype, sizes, size| Input {
        dtype,
        sizes,
        bytes: &bytes[..size],
    };
    let inputs = [
        tensor(DType::F32, &[2], 8),
        tensor(DType::F32, &[2], 8),
        tensor(DType::F32, &[4], 0),
        tensor(DType::I64, &[1], 8),
    ];
    let place = |size| Output {
        dtype: DType::F32,
        sizes: Dims::new(&[size]).unwrap(),
        bytes: &mut [],
    };
    let error = session
        .execute(&inputs, &mut [place(0), place(2), place(4)])
        .unwrap_err();
    assert!(
        error.message.starts_with("input 1: the session keeps this state"),
        "{error}"
    );
}

#[test]
fn blobs_that_keep_what_cannot_be_kept_are_refused() {
    for (mode, dynamic, words) in [
        ("unknown", false, "state 2, which the graph does not have"),
        ("twice", false, "state 1 twice"),
        ("", true, "`log`, whose sizes are not fixed"),
    ] {
        let error = keeper(mode).compile(&image(dynamic), &NoWeights, "").unwrap_err();
        assert_eq!(error.code, Status::INTERNAL);
        assert!(error.message.contains(words), "{error}");
    }
    // One library compiled it; this one has no functions for states.
    let blob = keeper("").compile(&image(false), &NoWeights, "").unwrap();
    let plain = delegate("", static_entry_as::<Keeper, (CompileRole, RunRole)>());
    let error = plain.load(&blob, Arc::new(NoWeights)).map(drop).unwrap_err();
    assert_eq!(error.code, Status::BLOB_INCOMPATIBLE);
    assert!(error.message.contains("keep the state `log`"), "{error}");
}

/// The role without the methods.
struct Forgetful;

impl Session for Forgetful {
    fn execute(&mut self, _: &[TensorView<'_>], _: &mut [TensorOut<'_>], _: &Context<'_>) -> Result<(), Error> {
        Ok(())
    }
}

struct Half;

impl Delegate for Half {
    const INFO: Info = Keeper::INFO;

    fn new(_: &Options<'_>, _: &Context<'_>) -> Result<Half, Error> {
        Ok(Half)
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Run for Half {
    fn load(&self, _: &Blob<'_>, _: &delegraph_sdk::Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(Forgetful))
    }
}

#[test]
fn a_session_without_the_methods_says_so() {
    let blob = keeper("").compile(&image(false), &NoWeights, "").unwrap();
    let mut session = delegate("", static_entry_as::<Half, StateRole>())
        .load(&blob, Arc::new(NoWeights))
        .unwrap();
    for outcome in [
        session.reset_state(0),
        session.truncate_state(0, 1),
        session.snapshot_state(0).map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(error.code, Status::UNSUPPORTED);
        assert!(error.message.contains("keep no states"), "{error}");
    }
}

#[test]
fn an_image_whose_states_cannot_be_is_refused() {
    let build = |states: &[(&str, u32, u32, Option<u32>)]| {
        let mut image = ImageBuilder::new("forward");
        let (two, three) = (image.int(2), image.int(3));
        let (pair, triple) = (Type::tensor(Code::F32, &[two]), Type::tensor(Code::F32, &[three]));
        let (a, b) = (image.input("a", &pair), image.input("b", &pair));
        let c = image.input("c", &triple);
        let d = image.input("d", &Type::tensor(Code::I32, &[two]));
        for value in [a, b, c, d] {
            image.output(value);
        }
        for (name, input, output, axis) in states {
            image.state(name, *input, *output, *axis);
        }
        image.finish()
    };
    let image = build(&[("s", 0, 1, Some(0)), ("t", 1, 0, None)]).unwrap();
    let view = delegraph_abi::image::verify(&image).unwrap();
    let states: Vec<_> = view
        .states()
        .map(|s| (s.name, s.input, s.output, s.growth_axis))
        .collect();
    assert_eq!(states, [("s", 0, 1, Some(0)), ("t", 1, 0, None)]);
    for (states, words) in [
        (&[("s", 4, 0, None)][..], "no such input"),
        (&[("s", 0, 4, None)], "no such output"),
        (&[("s", 0, 0, None), ("t", 0, 1, None)], "its input is another state's"),
        (&[("s", 0, 0, None), ("t", 1, 0, None)], "its output is another state's"),
        (&[("s", 0, 2, None)], "its sizes change"),
        (&[("s", 0, 3, None)], "no tensor of one dtype"),
        (&[("s", 0, 0, Some(1))], "grows along no dimension"),
        (&[("s", 0, 0, None), ("s", 1, 1, None)], "a name occurs twice"),
    ] {
        let error = build(states).unwrap_err().to_string();
        assert!(error.contains("STATES") && error.contains(words), "{error}");
    }
}

#[test]
fn an_envelope_whose_states_cannot_be_is_refused() {
    let spec = |rank| envelope::TensorSpec {
        dtype: Code::F32,
        rank,
        requirement: envelope::Requirement::default(),
    };
    let state = |state, input, output, growth| envelope::KeptState {
        state,
        name: format!("s{state}"),
        input,
        output,
        growth,
        bytes: 8,
    };
    let section = [envelope::Section {
        name: "code",
        align: 16,
        bytes: &[1],
    }];
    let write = |states: Vec<envelope::KeptState>| {
        let meta = envelope::Meta {
            inputs: vec![spec(1), spec(1)],
            outputs: vec![spec(1), spec(2)],
            states,
            ..envelope::Meta::default()
        };
        envelope::write(&meta, &section, |_| [0; 32]).map(|bytes| (bytes, meta))
    };
    let (bytes, meta) = write(vec![state(3, 1, 0, Some((0, 2)))]).unwrap();
    assert_eq!(envelope::parse(&bytes).unwrap().meta, meta);
    for states in [
        vec![state(0, 2, 0, None)],
        vec![state(0, 0, 2, None)],
        vec![state(0, 0, 1, None)],
        vec![state(0, 0, 0, Some((1, 2)))],
        vec![state(0, 0, 0, None), state(0, 1, 1, None)],
        vec![state(0, 0, 0, None), state(1, 1, 0, None)],
    ] {
        write(states).unwrap_err();
    }
    // Bytes that nobody wrote so: the state's input, where it lies in the header's table.
    let at = u32::from_le_bytes(bytes[240..244].try_into().unwrap()) as usize;
    let mut damaged = bytes.clone();
    damaged[at + 4] = 9;
    assert!(envelope::parse(&damaged).is_err());
    damaged = bytes.clone();
    damaged[244] = 200;
    assert!(envelope::parse(&damaged).is_err());
    // A header of before there were states is read without them.
    damaged = bytes;
    damaged[6] = 1;
    damaged[8..12].copy_from_slice(&240u32.to_le_bytes());
    assert_eq!(envelope::parse(&damaged).unwrap().meta.states, []);
}
