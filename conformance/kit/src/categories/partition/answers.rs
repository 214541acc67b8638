//! What is answered, and how often.

use super::{ask, judge, mixed};
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, warn};
use crate::categories::small::graphs;
use crate::driver::{Answers, Fail, Script};
use crate::workload::{Kind, Workload, normal_form};
use delegraph_abi::{DType, Status};

pub fn every_node(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let all = graphs(form);
    let mut taken = 0;
    for small in &all {
        trial.step(&format!("a graph of {}", small.name));
        let answers = ask(&instance, &format!("a graph of {}", small.name), &small.image, 1)?;
        taken += u32::from(answers.takes(0));
    }
    trial.measure("graphs", all.len() as f64);
    trial.measure("taken", f64::from(taken));
    ask(&instance, "a graph of 32 mixed nodes", &mixed(form, 32)?, 32)?;
    Ok(())
}

pub fn reasons(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    for small in graphs(form) {
        let what = format!("a graph of {}", small.name);
        let answers = ask(&instance, &what, &small.image, 1)?;
        judge(&what, &answers)?;
        if small.is_absent() && answers.takes(0) {
            return Err(Failure::fail(format!(
                "{what}: it takes an operator that does not exist"
            )));
        }
    }
    judge(
        "a graph of 32 mixed nodes",
        &ask(&instance, "a graph of 32 mixed nodes", &mixed(form, 32)?, 32)?,
    )
}

pub fn deterministic(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut images: Vec<(String, Vec<u8>, u32)> = vec![("a graph of 32 mixed nodes".to_string(), mixed(form, 32)?, 32)];
    images.extend(
        graphs(form)
            .into_iter()
            .map(|small| (format!("a graph of {}", small.name), small.image, 1)),
    );
    let other = library.start(&trial.subject.options, &Script::default())?;
    for (what, image, nodes) in &images {
        let first = ask(&instance, what, image, *nodes)?;
        let from = |answers: &Answers| {
            let nodes = answers.nodes.iter();
            let mut nodes: Vec<_> = nodes
                .map(|(node, answer)| (*node, answer.supported, answer.reason))
                .collect();
            nodes.sort_by_key(|(node, ..)| *node);
            (nodes, answers.sets.clone())
        };
        let thread = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&instance, what, image, *nodes));
            asked
                .join()
                .unwrap_or_else(|_| Err(Failure::fail("the kit's thread panicked")))
        })?;
        for (who, again) in [
            ("the second time", ask(&instance, what, image, *nodes)?),
            ("in another instance", ask(&other, what, image, *nodes)?),
            ("on another thread", thread),
        ] {
            if from(&again) != from(&first) {
                let node = first
                    .nodes
                    .iter()
                    .map(|(node, _)| *node)
                    .find(|node| first.takes(*node) != again.takes(*node));
                let place = node.map_or("in its reasons or sets".to_string(), |node| format!("for node {node}"));
                return Err(Failure::fail(format!(
                    "{what}: `partition` answers otherwise {who}, {place}"
                )));
            }
        }
    }
    Ok(())
}

pub fn atomic_sets(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let image = mixed(normal_form(trial), 64)?;
    let what = "a graph of 64 mixed nodes";
    let first = ask(&instance, what, &image, 64)?;
    let mut owner = [None; 64];
    for (i, set) in first.sets.iter().enumerate() {
        for node in set {
            match owner.get_mut(*node as usize) {
                None => return Err(Failure::fail(format!("`part_atomic_set` names node {node} of 64"))),
                Some(slot @ None) => *slot = Some(i),
                Some(Some(other)) if *other == i => {
                    return Err(Failure::fail(format!(
                        "`part_atomic_set` names node {node} twice in one set"
                    )));
                }
                // Sets that overlap are one set, in effect.
                Some(Some(_)) => {}
            }
            if !first.takes(*node) {
                return warn(&[format!(
                    "`part_atomic_set` names node {node}, which is not taken: the set never is"
                )]);
            }
        }
    }
    match ask(&instance, what, &image, 64)?.sets == first.sets {
        true => Ok(()),
        false => Err(Failure::fail("`part_atomic_set` names other sets the second time")),
    }
}

pub fn whole_and_parts(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let image = mixed(form, 16)?;
    let answers = ask(&instance, "a graph of 16 mixed nodes", &image, 16)?;
    for (node, op) in [
        (2, "custom::x"),
        (4, "aten::no_such_operator"),
        (6, "x.vendor::\u{e4}"),
        (10, "custom::x"),
    ] {
        if answers.takes(node) {
            return Err(Failure::fail(format!(
                "it takes node {node}, `{op}`, which does not exist"
            )));
        }
    }
    trial.measure(
        "taken of 16",
        (0..16).filter(|node| answers.takes(*node)).count() as f64,
    );
    // A delegate may refuse in a graph what it takes alone (cost, memory), and the other way round, but has to say so.
    judge("a graph of 16 mixed nodes", &answers)
}

pub fn weights_unseen(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let workload = Workload::new(Kind::Linear, DType::F32, 3, 5, 1, normal_form(trial));
    let script = Script::default();
    instance.partition(&workload.image, 1, &script)?.complete(1)?;
    for function in [
        "weight_map",
        "weight_retain",
        "weight_release",
        "weight_unmap",
        "weight_share_key",
    ] {
        if script.heard.count(function) > 0 {
            return Err(Failure::fail(format!("`partition` called `{function}`")));
        }
    }
    Ok(())
}

pub fn refused_verdict(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let image = mixed(normal_form(trial), 8)?;
    let script = Script::default().failing(Fail {
        part_node_verdict: Some(3),
        ..Fail::default()
    });
    match instance.partition(&image, 8, &script) {
        Err(_) => Ok(()),
        Ok(answers) if answers.failed == 0 => Err(Failure::fail("`partition` gave fewer than 4 verdicts for 8 nodes")),
        Ok(_) => Err(Failure::fail(format!(
            "the host refused a verdict of 8, and `partition` gave {}",
            Status::OK
        ))),
    }
}
