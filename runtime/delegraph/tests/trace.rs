//! What a traced session writes: every step and every event of a delegate, on one clock, with the node that it is of.

mod common;

use common::{compiled, fixture, host, nobody, open, order, value};
use delegraph::{Session, Source, Value};
use serde_json::Value as Json;

/// A model of the fixture with a source line on every node, compiled for the backends.
fn with_lines(name: &str, backends: &[&str]) -> (Source, Vec<(String, String)>) {
    let mut module = delegraph::import(&common::source(name)).unwrap();
    let mut names = Vec::new();
    for (i, node) in module.graphs[0].nodes.iter_mut().enumerate() {
        node.source = Some(format!("model.py:{}", i + 10));
        names.push((node.name.clone(), format!("model.py:{}", i + 10)));
    }
    let compiled = delegraph::compile(module, &order(backends), &host(""), &mut |_| {}).unwrap();
    (Source::from_bytes(compiled.bytes, format!("{name}.pte")), names)
}

/// Runs the first step of the fixture so many times, traced; gives the events that took time.
fn traced(session: &mut Session, name: &str, times: usize) -> Vec<Json> {
    let fixture = fixture(name);
    let values: Vec<Value<'_>> = fixture.cases[0].steps[0].inputs.iter().map(value).collect();
    session.start_trace();
    for _ in 0..times {
        session.run(&values).unwrap();
    }
    let trace: Json = serde_json::from_str(&session.chrome_trace()).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

fn of<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["cat"] == kind).collect()
}

/// Start and end in microseconds.
fn span(event: &Json) -> (f64, f64) {
    let start = event["ts"].as_f64().unwrap();
    (start, start + event["dur"].as_f64().unwrap())
}

#[track_caller]
fn lies_within(inner: &Json, outer: &Json) {
    // Times are decimal fractions of a microsecond, so that a sum may be off by less than a nanosecond.
    let ((start, end), (from, to)) = (span(inner), span(outer));
    assert!(
        from - 1e-4 <= start && start <= end && end <= to + 1e-4,
        "{inner} is not within {outer}"
    );
}

#[test]
fn events_of_a_delegate_name_their_nodes_and_lie_within_their_region() {
    let (file, names) = with_lines("arch-mlp-dynamic-batch", &["reference"]);
    let mut session = open(&file, &order(&["reference"]), &host("")).unwrap();
    let events = traced(&mut session, "arch-mlp-dynamic-batch", 2);
    let (runs, regions, own) = (of(&events, "run"), of(&events, "region"), of(&events, "delegate"));
    assert_eq!((runs.len(), regions.len()), (2, 2));
    assert!(of(&events, "step").is_empty(), "all of it is the delegate's");
    assert!(own.len() >= 10 && own.len().is_multiple_of(2), "{}", own.len());
    for (i, region) in regions.iter().enumerate() {
        lies_within(region, runs[i]);
        assert_eq!(region["tid"], 1);
        let inside = &own[i * own.len() / 2..(i + 1) * own.len() / 2];
        let mut last = 0.0;
        for event in inside {
            lies_within(event, region);
            assert!(span(event).0 >= last, "events of one lane do not overlap");
            last = span(event).1;
            assert_eq!(event["args"]["region"], region["args"]["region"]);
            assert_eq!(event["args"]["backend"], "reference");
            assert_eq!(
                event["args"]["op"], event["name"],
                "the reference delegate names events by operators"
            );
            assert!(event["args"]["bytes"].as_u64() > Some(0));
            let node = (
                event["args"]["node"].as_str().unwrap().to_string(),
                event["args"]["source"].as_str().unwrap().to_string(),
            );
            assert!(names.contains(&node), "{node:?}");
        }
        let nodes: Vec<&str> = inside.iter().map(|e| e["args"]["node"].as_str().unwrap()).collect();
        assert_eq!(nodes, ["linear", "layer_norm", "gelu", "linear_1", "softmax"]);
    }
    assert!(span(runs[0]).1 <= span(runs[1]).0, "one run after the other");
}

#[test]
fn threads_are_named_one_for_each_lane() {
    let file = compiled("mtcnn-pnet", &order(&["reference"]), &host(""));
    let mut session = open(&file, &order(&["reference"]), &host("")).unwrap();
    let events = traced(&mut session, "mtcnn-pnet", 1);
    let named = |what: &str| -> Vec<(u64, String)> {
        let metadata = events.iter().filter(|e| e["ph"] == "M" && e["name"] == what);
        metadata
            .map(|e| {
                (
                    e["tid"].as_u64().unwrap(),
                    e["args"]["name"].as_str().unwrap().to_string(),
                )
            })
            .collect()
    };
    assert_eq!(named("process_name"), [(1, "delegraph".to_string())]);
    assert_eq!(
        named("thread_name"),
        [(1, "executor".to_string()), (2, "reference lane 0".to_string())]
    );
    assert!(of(&events, "delegate").iter().all(|event| event["tid"] == 2));
    assert!(events.iter().all(|event| event["pid"] == 1));
}

#[test]
fn steps_of_the_executor_name_the_nodes_that_they_do_the_work_of() {
    let (file, names) = with_lines("arch-mlp-dynamic-batch", &[]);
    let mut session = open(&file, &order(&[]), &nobody()).unwrap();
    let events = traced(&mut session, "arch-mlp-dynamic-batch", 1);
    let run = of(&events, "run")[0];
    let steps = of(&events, "step");
    assert!(!steps.is_empty() && of(&events, "region").is_empty());
    for (i, step) in steps.iter().enumerate() {
        lies_within(step, run);
        assert_eq!(step["args"]["instruction"], i, "straight-line code");
        let line = step["args"]["source"].as_str().unwrap();
        assert!(names.iter().any(|(_, known)| known == line), "{step}");
    }
    let gelu = steps.iter().find(|step| step["name"] == "aten::gelu.out").unwrap();
    assert_eq!(
        (&gelu["args"]["node"], &gelu["args"]["op"]),
        (&"gelu".into(), &"aten::gelu".into())
    );
}

/// The nodes of a branch are named, and not the node that holds them.
#[test]
fn nodes_of_branches_are_named() {
    let file = compiled("arch-cond", &order(&[]), &nobody());
    let mut session = open(&file, &order(&[]), &nobody()).unwrap();
    let events = traced(&mut session, "arch-cond", 1);
    let steps = of(&events, "step");
    let jump = steps.iter().find(|step| step["name"] == "jump").unwrap();
    assert_eq!(jump["args"]["op"], "higher_order::cond");
    let kernels = steps
        .iter()
        .filter(|step| step["name"].as_str().unwrap().starts_with("aten::"));
    let inside = kernels.filter(|step| step["args"]["op"].as_str().is_some_and(|op| op.starts_with("aten::")));
    assert!(inside.count() > 0, "{steps:#?}");
}

#[test]
fn a_call_that_failed_and_the_steps_in_its_stead_are_both_there() {
    let file = compiled("arch-mlp-dynamic-batch", &order(&["faulty"]), &host(""));
    let mut session = open(&file, &order(&["faulty"]), &host("always")).unwrap();
    let events = traced(&mut session, "arch-mlp-dynamic-batch", 1);
    let regions = of(&events, "region");
    assert_eq!(regions.len(), 1, "{events:#?}");
    assert_eq!(regions[0]["args"]["failed"], true);
    assert!(of(&events, "step").len() >= 5);
    let dump = session.etdump().unwrap();
    assert!(contains(&dump, b"DELEGATE_CALL") && contains(&dump, b"native_call_gelu.out"));
}

#[test]
fn a_delegate_is_asked_for_events_in_a_trace_only() {
    let file = compiled("arch-mlp-dynamic-batch", &order(&["reference"]), &host(""));
    let mut session = open(&file, &order(&["reference"]), &host("")).unwrap();
    common::check(&mut session, &fixture("arch-mlp-dynamic-batch"));
    assert_eq!(session.chrome_trace(), "{\"traceEvents\":[]}");
    assert!(session.etdump().unwrap_err().to_string().contains("start_trace"));
    let events = traced(&mut session, "arch-mlp-dynamic-batch", 1);
    assert_eq!(of(&events, "run").len(), 1, "what ran before is not there");
    let dump = session.etdump().unwrap();
    assert_eq!(&dump[8..12], b"ED00");
    for text in ["Execute", "Method::execute", "DELEGATE_CALL", "layer_norm", "softmax"] {
        assert!(contains(&dump, text.as_bytes()), "{text}");
    }
}

/// A file without names, as older versions and ExecuTorch write them, or with damaged ones, is traced without names.
#[test]
fn a_file_without_names_is_traced_by_numbers() {
    let module = delegraph::import(&common::source("arch-mlp-dynamic-batch")).unwrap();
    let file = delegraph::compile(module, &order(&["reference"]), &host(""), &mut |_| {}).unwrap();
    let mut bytes = file.bytes;
    let start = find(&bytes, b"{\"texts\"").unwrap();
    bytes[start..start + 8].copy_from_slice(b"{\"tixts\"");
    let file = Source::from_bytes(bytes, "nameless.pte");
    let mut session = open(&file, &order(&["reference"]), &host("")).unwrap();
    let events = traced(&mut session, "arch-mlp-dynamic-batch", 1);
    let own = of(&events, "delegate");
    assert_eq!(own.len(), 5);
    for (i, event) in own.iter().enumerate() {
        assert_eq!(
            (&event["args"]["image_node"], &event["args"]["node"]),
            (&i.into(), &Json::Null)
        );
    }
    // Equal names are told apart, since tools keep one event of a name.
    assert!(contains(&session.etdump().unwrap(), b"aten::linear #2"));
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    find(bytes, part).is_some()
}
