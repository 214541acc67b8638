//! States that stay with a delegate in programs made for the purpose: ones that begin with values, and runs whose state is saved before
//! its first write because something can fail after it.

mod common;

use common::keeper::{CANCEL, DONE, Done, done, host};
use common::{config, open, order};
use delegraph::{DType, Dims, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_executor::Options;
use delegraph_ir::{
    Bytes, Constant, Def, Expr, Graph, Module, Mutation, MutationTarget, State, StateId, Symbol, SymbolRange,
    TensorType, Type,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which parts a program has.
#[derive(Clone, Copy, Default)]
struct Parts {
    /// `total` begins at 1, 2, 3, 4.
    initial: bool,
    /// An input of run-time size that is written at the end, so that the end can fail.
    changed: bool,
    /// A second method reads `total`.
    peek: bool,
}

fn fixed() -> TensorType {
    TensorType::fixed(DType::F32, &[4])
}

/// `seen` counts runs and is returned, so it is the host's: `seen += 1`; `total` is not: `total += z`, `y = relu(total)`.
fn module(parts: Parts) -> Module {
    let mut module = Module::default();
    let initial = parts.initial.then(|| {
        let bytes = (1..=4).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<u8>>();
        let constant = Constant::contiguous("total", DType::F32, Dims::new(&[4]).unwrap(), Bytes::from(bytes));
        module.constants.push(constant)
    });
    for (name, initial) in [("total", initial), ("seen", None)] {
        module.states.push(State {
            name: name.into(),
            ty: fixed(),
            initial,
        });
    }
    let mut graph = Graph::new("forward");
    let z = graph.add_input("z", fixed().into());
    let rows = Expr::symbol("s0");
    let dynamic = Type::from(TensorType::new(DType::F32, vec![rows]));
    let range = SymbolRange { min: 1, max: Some(8) };
    module.symbols.ranges.insert(Symbol::new("s0"), range);
    let x = graph.add_input("x", dynamic.clone());
    let total = graph.add_value("total", fixed().into(), Def::State(StateId(0)));
    let seen = graph.add_value("seen", fixed().into(), Def::State(StateId(1)));
    let add = |graph: &mut Graph, a: delegraph_ir::ValueId, b: delegraph_ir::Arg, ty: Type| {
        let scalar = !matches!(b, delegraph_ir::Arg::Value(_));
        let op = if scalar { "aten::add.Scalar" } else { "aten::add.Tensor" };
        let args = vec![a.into(), b, delegraph_ir::Arg::int(1)];
        graph.push(op, args, vec![ty]).unwrap()[0]
    };
    let one = delegraph_ir::Arg::int(1);
    let total = add(&mut graph, total, z.into(), fixed().into());
    let seen = add(&mut graph, seen, one.clone(), fixed().into());
    let x = add(&mut graph, x, one, dynamic);
    let y = graph
        .push("aten::relu", vec![total.into()], vec![fixed().into()])
        .unwrap()[0];
    graph.add_output(y);
    graph.add_output(seen);
    graph.add_output(x);
    let mut write = |target, value| graph.mutations.push(Mutation { target, value });
    write(MutationTarget::State(StateId(0)), total);
    write(MutationTarget::State(StateId(1)), seen);
    if parts.changed {
        write(MutationTarget::Input(1), x);
    }
    module.graphs.push(graph);
    if parts.peek {
        let mut graph = Graph::new("peek");
        let total = graph.add_value("total", fixed().into(), Def::State(StateId(0)));
        let y = graph
            .push("aten::relu", vec![total.into()], vec![fixed().into()])
            .unwrap()[0];
        graph.add_output(y);
        module.graphs.push(graph);
    }
    module
}

fn program(parts: Parts, host: &Arc<delegraph_host::Host>) -> Source {
    let compiled = delegraph::compile(module(parts), &order(&["keeper"]), host, &mut |_| {}).unwrap();
    Source::from_bytes(compiled.bytes, "made.pte")
}

/// Runs with every element of `z` the same; gives the first elements of `y` and of `seen`.
fn run(session: &mut Session, z: f32) -> Result<(f32, f32), delegraph::Error> {
    let bytes = |x: f32, count| {
        vec![x; count]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let (z, x) = (bytes(z, 4), bytes(0.5, 3));
    let tensor = |bytes, count| Value::tensor(DType::F32, Dims::new(&[count]).unwrap(), bytes);
    session.run(&[tensor(&z, 4), tensor(&x, 3)])?;
    let first = |session: &Session, output| match session.output(output).unwrap() {
        Value::Tensor(tensor) => f32::from_le_bytes(tensor.to_contiguous()[..4].try_into().unwrap()),
        other => panic!("{other:?}"),
    };
    Ok((first(session, 0), first(session, 1)))
}

fn kept(session: &Session) -> Vec<String> {
    let report = session.report();
    report
        .regions
        .iter()
        .flat_map(|region| region.kept_states.clone())
        .collect()
}

fn moved(session: &Session) -> u64 {
    session
        .report()
        .regions
        .iter()
        .map(|region| region.kept_state_bytes)
        .sum()
}

#[test]
fn a_state_begins_with_what_the_file_says() {
    DONE.take();
    let host = host("", "");
    let parts = Parts {
        initial: true,
        ..Parts::default()
    };
    let mut session = open(&program(parts, &host), &order(&["keeper"]), &host).unwrap();
    assert_eq!(kept(&session), ["total"]);
    for _ in 0..2 {
        assert_eq!(run(&mut session, 1.0).unwrap(), (2.0, 1.0));
        assert_eq!(run(&mut session, 0.5).unwrap(), (2.5, 2.0));
        session.reset();
    }
    assert_eq!((done().restores, done().resets, done().snapshots), (2, 0, 0));
    assert_eq!(moved(&session), 2 * 16);
}

#[test]
fn a_run_that_is_ended_undoes_what_the_delegate_and_the_host_keep() {
    for (changed, fail) in [(false, ""), (true, ""), (true, "run:4"), (false, "run:4")] {
        DONE.take();
        let host = host(fail, "");
        let parts = Parts {
            changed,
            ..Parts::default()
        };
        let cancel = Arc::new(AtomicBool::new(false));
        let options = LoadOptions {
            executor: Options {
                cancel: Some(cancel.clone()),
                ..Options::default()
            },
            ..LoadOptions::default()
        };
        let config = order(&["keeper"]);
        let mut session = Session::open(&program(parts, &host), &config, &host, options).unwrap();
        assert_eq!(kept(&session), ["total"]);
        assert_eq!(run(&mut session, 1.0).unwrap(), (1.0, 1.0));
        assert_eq!(run(&mut session, 1.0).unwrap(), (2.0, 2.0));
        if changed {
            // Nothing comes after the region but the writes: where those cannot fail, it is too late to end the run.
            CANCEL.set(Some(cancel.clone()));
            run(&mut session, 7.0).unwrap_err();
            cancel.store(false, Ordering::Relaxed);
            assert_eq!((done().accepted, done().dropped), (2, 1));
        } else {
            assert_eq!(run(&mut session, 0.0).unwrap(), (2.0, 3.0));
        }
        let runs = if changed { 2.0 } else { 3.0 };
        assert_eq!(moved(&session), 0, "changed: {changed}");
        assert_eq!(run(&mut session, 3.0).unwrap(), (5.0, runs + 1.0), "{fail}");
        assert_eq!(run(&mut session, 1.0).unwrap(), (6.0, runs + 2.0), "{fail}");
        assert_eq!(moved(&session), if fail.is_empty() { 0 } else { 16 });
    }
}

#[test]
fn the_self_check_compares_states_also_where_they_are_written_by_then() {
    let config = config("[select]\norder = [\"keeper\"]\nself_check = \"first-run\"\n");
    for (changed, fail) in [(true, ""), (true, "state"), (false, "state")] {
        DONE.take();
        let host = host(fail, "");
        let parts = Parts {
            changed,
            initial: true,
            ..Parts::default()
        };
        let mut session = open(&program(parts, &host), &config, &host).unwrap();
        for i in 1..=3 {
            assert_eq!(run(&mut session, 1.0).unwrap(), (1.0 + i as f32, i as f32));
        }
        let region = &session.report().regions[0];
        let runs = if fail.is_empty() { (3, 0) } else { (0, 3) };
        assert_eq!((region.delegated_runs, region.portable_runs), runs, "{region:?}");
    }
}

#[test]
fn with_fallback_denied_a_differing_state_leaves_all_as_it_was() {
    let text = "[select]\norder = [\"keeper\"]\nfallback = \"deny\"\nself_check = \"first-run\"\n";
    for changed in [false, true] {
        let host = host("state", "");
        let parts = Parts {
            changed,
            initial: true,
            ..Parts::default()
        };
        let mut session = open(&program(parts, &host), &config(text), &host).unwrap();
        let error = run(&mut session, 1.0).unwrap_err().to_string();
        assert!(error.contains("self-check: the state `total`"), "{error}");
        for (name, want) in [("total", 1f32), ("seen", 0.0)] {
            let Some(Value::Tensor(tensor)) = session.state(name).unwrap() else {
                panic!("no state")
            };
            assert_eq!(tensor.to_contiguous()[..4], want.to_le_bytes(), "{name}, {changed}");
        }
    }
}

#[test]
fn a_buffer_that_another_method_reads_stays_with_the_delegate_and_is_adopted() {
    DONE.take();
    let host = host("", "");
    let parts = Parts {
        peek: true,
        ..Parts::default()
    };
    let file = program(parts, &host);
    let mut session = open(&file, &order(&["keeper"]), &host).unwrap();
    assert!(!kept(&session).is_empty());
    assert_eq!(run(&mut session, 1.0).unwrap(), (1.0, 1.0));
    assert_eq!(run(&mut session, 1.0).unwrap(), (2.0, 2.0));
    assert_eq!(session.report().fallbacks(), 0);
    assert_ne!(done(), Done::default(), "its sessions keep it");
    let options = LoadOptions {
        method: "peek".to_string(),
        ..LoadOptions::default()
    };
    let mut peek = Session::open(&file, &Config::default(), &host, options).unwrap();
    assert_eq!(peek.adopt_state(&mut session).unwrap(), 1);
    for session in [&mut peek, &mut session] {
        let Some(Value::Tensor(total)) = session.state("total").unwrap() else {
            panic!("no state")
        };
        assert_eq!(
            total.to_contiguous()[..4],
            2f32.to_le_bytes(),
            "each has what was added"
        );
    }
}
