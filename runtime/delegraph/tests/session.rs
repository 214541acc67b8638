//! Sessions over delegates that are there, are not there, and fail: the result is the same, and the report says why.

mod common;

use common::{check, compiled, config, fixture, folder, host, nobody, open, order, source, value};
use delegraph::{Session, Source, Value};
use delegraph_config::RequireConformance;
use delegraph_types::Dims;

#[test]
fn a_delegate_that_fails_is_covered_by_the_portable_range() {
    // Fault, words of the report, whether the delegate is bound at all.
    let cases = [
        ("", "no region fell back", true),
        ("start", "the driver is not there", false),
        ("check", "another chip", false),
        ("load", "the device is full", false),
        (
            "always",
            "somebody else has the device (DEVICE_BUSY, vendor code -7)",
            true,
        ),
        ("second", "somebody else has the device", true),
        ("panic", "a mistake in the delegate", true),
        ("lost", "the device does not answer", true),
    ];
    for name in ["mtcnn-pnet", "arch-kv-cache", "arch-mlp-dynamic-batch"] {
        let fixture = fixture(name);
        let file = compiled(name, &order(&["faulty"]), &host(""));
        let longest = fixture.cases.iter().map(|case| case.steps.len()).max().unwrap();
        for (fault, words, bound) in cases {
            let mut session = open(&file, &order(&["faulty"]), &host(fault)).unwrap();
            check(&mut session, &fixture);
            let report = session.report();
            if fault == "second" && longest < 2 {
                continue;
            }
            assert!(
                report.why_portable().contains(words),
                "{name}, {fault}: {}",
                report.why_portable()
            );
            assert_eq!(
                report.regions.iter().any(|r| r.backend.is_some()),
                bound,
                "{name}, {fault}"
            );
            assert!(
                report.regions.iter().all(|r| r.delegated_runs > 0) == matches!(fault, "" | "second"),
                "{name}, {fault}"
            );
        }
    }
}

#[test]
fn denied_fallback_names_the_operators() {
    let file = compiled("mtcnn-pnet", &order(&["faulty"]), &host(""));
    let strict = config("[select]\norder = [\"faulty\"]\nfallback = \"deny\"\n");
    for fault in ["start", "check", "load"] {
        let error = open(&file, &strict, &host(fault)).err().expect("it is denied");
        let text = error.to_string();
        assert!(
            text.contains("aten::conv2d") || text.contains("aten::convolution"),
            "{fault}: {text}"
        );
        assert_eq!(error.exit_code(), if fault == "start" { 4 } else { 5 });
    }
    let fixture = fixture("mtcnn-pnet");
    let mut session = open(&file, &strict, &host("always")).unwrap();
    let values: Vec<Value<'_>> = fixture.cases[0].steps[0].inputs.iter().map(value).collect();
    let error = session.run(&values).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let text = error.to_string();
    assert!(
        text.contains("aten::conv") && text.contains("somebody else has the device"),
        "{text}"
    );
}

#[test]
fn candidates_are_taken_in_the_configurations_order() {
    let fixture = fixture("mtcnn-pnet");
    let file = compiled("mtcnn-pnet", &order(&["faulty"]), &host(""));
    let backend = |session: &Session| session.report().regions[0].backend.clone();
    let mut session = open(&file, &order(&["reference", "faulty"]), &host("")).unwrap();
    assert_eq!(
        backend(&session).as_deref(),
        Some("faulty"),
        "the file has no blob for the first"
    );
    check(&mut session, &fixture);
    let session = open(&file, &order(&["portable", "faulty"]), &host("")).unwrap();
    assert_eq!(backend(&session), None);
    // A library that is not there is passed over.
    let mut session = open(&file, &order(&["faulty"]), &nobody()).unwrap();
    assert_eq!(backend(&session), None);
    check(&mut session, &fixture);
}

#[test]
fn a_file_is_compiled_at_load_for_a_backend_that_it_has_no_blob_for() {
    let fixture = fixture("arch-kv-cache");
    let file = compiled("arch-kv-cache", &order(&[]), &nobody());
    let mut session = open(&file, &order(&["reference"]), &host("")).unwrap();
    assert!(session.report().delegated_nodes() > 0);
    check(&mut session, &fixture);
}

#[test]
fn a_late_refusal_of_the_compiler_drops_the_node_and_tags_again() {
    let fixture = fixture("arch-kv-cache");
    let host = host("compile");
    let module = delegraph::import(&source("arch-kv-cache")).unwrap();
    let compiled = delegraph::compile(module, &order(&["faulty"]), &host, &mut |_| {}).unwrap();
    let graph = &compiled.report.graphs[0];
    assert!(
        graph
            .problems
            .iter()
            .any(|p| p.message.contains("no room for a linear layer")),
        "{:?}",
        graph.problems
    );
    let mut session = open(
        &Source::from_bytes(compiled.bytes, "late.pte"),
        &order(&["faulty"]),
        &host,
    )
    .unwrap();
    check(&mut session, &fixture);
}

#[test]
fn a_damaged_blob_runs_portably() {
    let fixture = fixture("mtcnn-pnet");
    let file = compiled("mtcnn-pnet", &order(&["reference"]), &host(""));
    let bytes = file.bytes().as_slice();
    // The blob is the reference delegate's envelope; one bit in the middle of what follows its magic is enough.
    let at = bytes.windows(4).position(|w| w == b"DGB1").expect("a blob");
    let mut bad = bytes.to_vec();
    bad[at + 400] ^= 4;
    let mut session = open(
        &Source::from_bytes(bad, "damaged.pte"),
        &order(&["reference"]),
        &host(""),
    )
    .unwrap();
    assert_eq!(
        session.report().delegated_nodes(),
        0,
        "{}",
        session.report().why_portable()
    );
    check(&mut session, &fixture);
}

#[test]
fn a_damaged_overlay_costs_the_delegates_and_no_more() {
    let fixture = fixture("mtcnn-pnet");
    let file = compiled("mtcnn-pnet", &order(&["reference"]), &host(""));
    let bytes = file.bytes().as_slice();
    let at = bytes
        .windows(11)
        .position(|w| w == b"\"regions\":[")
        .expect("an overlay");
    // No JSON any more; and JSON whose region ends past the plan.
    let mut broken = bytes.to_vec();
    broken[at] = b'?';
    let end = at
        + bytes[at..]
            .windows(6)
            .position(|w| w == b"\"end\":")
            .expect("the end of a region");
    let mut long = bytes.to_vec();
    long[end + 6] = b'9';
    for bad in [broken, long] {
        let bad = Source::from_bytes(bad, "overlay.pte");
        // Without a delegate at hand nothing is compiled again, so that the damage shows.
        let mut session = open(&bad, &order(&["reference"]), &nobody()).unwrap();
        assert_eq!(session.report().delegated_nodes(), 0);
        check(&mut session, &fixture);
        let strict = config("[select]\norder = [\"reference\"]\nfallback = \"deny\"\n");
        assert!(open(&bad, &strict, &nobody()).is_err());
    }
}

#[test]
fn inputs_made_in_place_give_what_copied_ones_give() {
    let fixture = fixture("arch-mlp-dynamic-batch");
    let mut session = open(&source("arch-mlp-dynamic-batch"), &order(&[]), &nobody()).unwrap();
    for case in &fixture.cases {
        let step = &case.steps[0];
        let delegraph_runner::Leaf::Tensor { shape, bytes, .. } = &step.inputs[0] else {
            panic!("a tensor");
        };
        let shape = Dims::new(shape).unwrap();
        session.input_buffer(0, shape).unwrap().copy_from_slice(bytes);
        session.run(&[Value::InPlace(shape)]).unwrap();
        let got = common::leaf(session.output(0).unwrap());
        delegraph_runner::compare::compare(&got, &step.outputs[0], fixture.tolerance).unwrap();
    }
    let text = session
        .input_buffer(0, Dims::new(&[1, 9999]).unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("at most"), "{text}");
    assert!(session.input_buffer(7, Dims::SCALAR).is_err());
}

#[test]
fn wrong_inputs_are_named_and_leave_the_state_alone() {
    let fixture = fixture("arch-kv-cache");
    let mut session = open(&source("arch-kv-cache"), &order(&[]), &nobody()).unwrap();
    let error = session.run(&[]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let wrong = [0u8; 8];
    let shape = Dims::new(&[2]).unwrap();
    let values: Vec<Value<'_>> = (0..session.inputs().len())
        .map(|_| Value::tensor(delegraph_types::DType::F32, shape, &wrong))
        .collect();
    assert_eq!(session.run(&values).unwrap_err().exit_code(), 2);
    check(&mut session, &fixture);
    session.reset();
    check(&mut session, &fixture);
}

#[test]
fn a_model_comes_from_a_path_from_bytes_and_from_an_open_file() {
    let path = folder("mtcnn-pnet").join("model.pt2");
    let fixture = fixture("mtcnn-pnet");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let sources = [
        Source::open(&path).unwrap(),
        Source::from_bytes(bytes, "bytes"),
        Source::from_file(&file, "fd").unwrap(),
    ];
    for source in sources {
        check(&mut open(&source, &order(&[]), &nobody()).unwrap(), &fixture);
    }
    assert!(Session::load(&path, &order(&[])).is_ok());
    assert_eq!(
        Session::load("no such file", &order(&[]))
            .err()
            .map(|error| error.exit_code()),
        Some(3)
    );
}

#[test]
fn settings_that_nobody_could_act_on_are_refused() {
    // The layers check what they read; this is a configuration that an app made by hand.
    let mut made = config("[delegates]\nrequire_conformance = \"core-1.0\"\n");
    assert!(open(&source("mtcnn-pnet"), &made, &nobody()).is_ok());
    for (required, words) in [
        (RequireConformance::One("Core 1".to_string()), "`Core 1` is no list"),
        (RequireConformance::All(Vec::new()), "names no list"),
    ] {
        made.delegates.require_conformance = Some(required);
        let error = open(&source("mtcnn-pnet"), &made, &nobody()).err().expect(words);
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_device_rule_keeps_a_backend_off_and_its_library_unasked() {
    let fixture = fixture("mtcnn-pnet");
    let rule = |matches: &str, more: &str| {
        config(&format!(
            "[select]\norder = [\"faulty\"]\n{more}[[device]]\nmatch = {{ {matches} }}\ndeny = [\"faulty\"]\nreason = \"too slow there\"\n"
        ))
    };
    let here = format!(
        "os = \"{}\", arch = \"{}\"",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let file = compiled("mtcnn-pnet", &order(&["faulty"]), &host(""));
    let device = host("").delegate("reference").unwrap().devices().unwrap()[0]
        .name
        .clone();
    for source in [&file, &source("mtcnn-pnet")] {
        for (matches, denied) in [
            (here.clone(), true),
            ("os = \"another\"".to_string(), false),
            (format!("device = \"{device}\""), true),
            ("device = \"another\"".to_string(), false),
            (format!("device = \"{device}\", os = \"another\""), false),
        ] {
            let mut session = open(source, &rule(&matches, ""), &host("")).unwrap();
            check(&mut session, &fixture);
            let report = session.report();
            assert_eq!(report.delegated_nodes() == 0, denied, "{matches}");
            assert_eq!(
                report
                    .why_portable()
                    .contains("faulty: not on this device: too slow there"),
                denied,
                "{matches}"
            );
            let strict = open(source, &rule(&matches, "fallback = \"deny\"\n"), &host(""));
            assert_eq!(
                strict.err().map(|error| error.exit_code()),
                denied.then_some(4),
                "{matches}"
            );
        }
    }
    // A rule of the machine alone loads nothing: a library that fails to start would say so.
    let session = open(&source("mtcnn-pnet"), &rule(&here, ""), &host("start")).unwrap();
    assert!(
        session.report().why_portable().contains("too slow there"),
        "{}",
        session.report().why_portable()
    );
}

#[test]
fn what_a_compiler_fails_at_is_told_and_what_it_refuses_is_not() {
    let fixture = fixture("arch-kv-cache");
    for (fault, failed) in [("broken", true), ("compile", false), ("", false)] {
        let mut session = open(&source("arch-kv-cache"), &order(&["faulty"]), &host(fault)).unwrap();
        check(&mut session, &fixture);
        let report = session.report();
        assert_eq!(!report.problems.is_empty(), failed, "{fault}: {:?}", report.problems);
        let told = |(backend, how): &(String, String)| backend == "faulty" && how.contains("the compiler broke");
        assert!(report.problems.iter().all(told), "{:?}", report.problems);
        assert_eq!(report.delegated_nodes() == 0, failed);
    }
}
