//! Tagging 10,000 nodes: must stay under 100 ms a backend. Exits with 1 if it does not.

use delegraph_ir::{Arg, Graph, Module, NodeId, TensorType, ValueId};
use delegraph_tag::{Answer, Policy, Verdict, plan};
use delegraph_types::DType;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const NODES: usize = 10_000;
const LIMIT: Duration = Duration::from_millis(100);

/// A small generator (xorshift), so that every run sees the same graphs.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// `reach`: how far back an operand may lie; `hub`: every node also reads the first one.
fn graph(random: &mut Random, reach: usize, hub: bool) -> Graph {
    let mut graph = Graph::new("forward");
    let ty = || TensorType::fixed(DType::F32, &[64, 64]).into();
    let mut made: Vec<ValueId> = vec![graph.add_input("x", ty())];
    for i in 0..NODES {
        let mut operand = || made[made.len() - 1 - random.below(reach.min(made.len()))];
        let (a, b) = (operand(), operand());
        let b = if hub && i > 0 { made[1] } else { b };
        let output = graph
            .push("aten::add.Tensor", vec![Arg::Value(a), Arg::Value(b)], vec![ty()])
            .unwrap()[0];
        made.push(output);
    }
    for value in made {
        graph.add_output(value);
    }
    graph
}

fn answer(random: &mut Random, percent: usize, sets: bool) -> Answer {
    let verdicts = (0..NODES).map(|_| match random.below(100) < percent {
        true => Verdict::yes(),
        false => Verdict::no("not this one"),
    });
    let verdicts = verdicts.collect();
    let pairs = (0..NODES - 1)
        .step_by(7)
        .map(|i| vec![NodeId::from(i), NodeId::from(i + 1)]);
    Answer {
        verdicts,
        atomic_sets: if sets { pairs.collect() } else { Vec::new() },
    }
}

fn main() -> ExitCode {
    let mut random = Random(42);
    let mut slow = false;
    for (name, reach, hub) in [
        ("chain", 1, false),
        ("layers", 12, false),
        ("wide", NODES, false),
        ("hub", 40, true),
    ] {
        let graph = graph(&mut random, reach, hub);
        for percent in [20, 50, 80, 97] {
            for sets in [false, true] {
                let answers: Vec<(String, Answer)> = ["a", "b"]
                    .map(|b| (b.to_string(), answer(&mut random, percent, sets)))
                    .to_vec();
                let start = Instant::now();
                let tagging = plan(&Module::default(), &graph, &answers, &Policy::default(), &[]);
                let took = start.elapsed() / answers.len() as u32;
                slow |= took > LIMIT;
                println!(
                    "{name:7} {percent:3}% taken, sets {sets:5}: {:6.1} ms a backend, {} regions",
                    took.as_secs_f64() * 1e3,
                    tagging.regions.len()
                );
            }
        }
    }
    ExitCode::from(u8::from(slow))
}
