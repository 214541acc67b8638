//! Random graphs, verdicts and atomic sets against a naive reference that knows nothing but reachability.

use delegraph_ir::{Arg, Graph, Module, NodeId, RegionId, TensorType, ValueId};
use delegraph_tag::{Answer, Exclusion, Policy, Tagging, Verdict, apply, plan};
use delegraph_types::DType;
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    /// For each node, how far back its two operands lie (0 or too far: the graph's input).
    reads: Vec<(usize, usize)>,
    /// For each backend, whether it takes each node.
    takes: Vec<Vec<bool>>,
    /// For each backend, its atomic sets.
    sets: Vec<Vec<Vec<usize>>>,
    excluded: Vec<(usize, usize)>,
    min_nodes: u32,
}

fn cases() -> impl Strategy<Value = Case> {
    (2usize..40, 2usize..40, 1u32..95).prop_flat_map(|(count, reach, percent)| {
        let set = prop::collection::vec(0..count, 2..4);
        (
            prop::collection::vec((0..reach, 0..reach), count),
            prop::collection::vec(
                prop::collection::vec(prop::bool::weighted(f64::from(percent) / 100.0), count),
                2,
            ),
            prop::collection::vec(prop::collection::vec(set, 0..4), 2),
            prop::collection::vec((0..count, 0usize..2), 0..3),
            1u32..4,
        )
            .prop_map(|(reads, takes, sets, excluded, min_nodes)| Case {
                reads,
                takes,
                sets,
                excluded,
                min_nodes,
            })
    })
}

const BACKENDS: [&str; 2] = ["first", "second"];

fn graph_of(case: &Case) -> Graph {
    let mut graph = Graph::new("forward");
    let ty = || TensorType::fixed(DType::F32, &[4]).into();
    let x = graph.add_input("x", ty());
    let mut made: Vec<ValueId> = Vec::new();
    let mut read = vec![false; case.reads.len()];
    for (i, (a, b)) in case.reads.iter().enumerate() {
        let operand = |back: usize| if back == 0 || back > i { None } else { Some(i - back) };
        let args = [*a, *b].map(|back| {
            operand(back).into_iter().for_each(|j| read[j] = true);
            Arg::Value(operand(back).map_or(x, |j| made[j]))
        });
        made.push(graph.push("aten::add.Tensor", args.to_vec(), vec![ty()]).unwrap()[0]);
    }
    // Every value that nobody reads is an output, so that no node is dead.
    for (value, _) in made.iter().zip(read).filter(|(_, read)| !read) {
        graph.add_output(*value);
    }
    graph
}

fn answers_of(case: &Case) -> Vec<(String, Answer)> {
    let verdict = |yes: &bool| {
        if *yes {
            Verdict::yes()
        } else {
            Verdict::no("not this one")
        }
    };
    let ids = |set: &Vec<usize>| set.iter().copied().map(NodeId::from).collect();
    (0..2)
        .map(|b| {
            let answer = Answer {
                verdicts: case.takes[b].iter().map(verdict).collect(),
                atomic_sets: case.sets[b].iter().map(ids).collect(),
            };
            (BACKENDS[b].to_string(), answer)
        })
        .collect()
}

fn run(case: &Case) -> (Graph, Tagging) {
    let graph = graph_of(case);
    let policy = Policy {
        min_nodes: case.min_nodes,
        boundary_penalty: 0.0,
        ..Policy::default()
    };
    let excluded: Vec<Exclusion> = case
        .excluded
        .iter()
        .map(|(node, backend)| Exclusion {
            node: NodeId::from(*node),
            backend: BACKENDS[*backend].to_string(),
            reason: "excluded".to_string(),
        })
        .collect();
    let tagging = plan(&Module::default(), &graph, &answers_of(case), &policy, &excluded);
    (graph, tagging)
}

/// `reach[a][b]`: a path of at least one edge leads from unit `a` to unit `b`, by brute force.
fn reachability(graph: &Graph, unit: &dyn Fn(usize) -> usize, units: usize) -> Vec<Vec<bool>> {
    let producers = graph.producers();
    let mut reach = vec![vec![false; units]; units];
    for (i, node) in graph.nodes.iter().enumerate() {
        for producer in node.inputs().filter_map(|v| producers[v.index()]) {
            let (a, b) = (unit(producer.index()), unit(i));
            reach[a][b] |= a != b;
        }
    }
    for k in 0..units {
        for a in 0..units {
            if reach[a][k] {
                let through = reach[k].clone();
                reach[a]
                    .iter_mut()
                    .zip(through)
                    .for_each(|(to, further)| *to |= further);
            }
        }
    }
    reach
}

fn owners(tagging: &Tagging) -> Vec<Option<RegionId>> {
    tagging.nodes.iter().map(|n| n.owner).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn regions_are_convex_and_in_no_cycle(case in cases()) {
        let (graph, tagging) = run(&case);
        let count = graph.nodes.len();
        let owner = owners(&tagging);
        let nodes = reachability(&graph, &|n| n, count);
        for (a, b, c) in (0..count * count * count).map(|i| (i % count, i / count % count, i / count / count)) {
            let leaves = owner[a].is_some() && owner[a] == owner[c] && owner[b] != owner[a];
            prop_assert!(!(leaves && nodes[a][b] && nodes[b][c]), "{a} -> {b} -> {c} leaves {:?}", owner[a]);
        }
        // Regions are units 0.., other nodes follow.
        let regions = tagging.regions.len();
        let contracted = reachability(&graph, &|n| owner[n].map_or(regions + n, |r| r.index()), regions + count);
        prop_assert!((0..regions + count).all(|unit| !contracted[unit][unit]));
    }

    #[test]
    fn applying_keeps_the_graph_and_makes_regions_contiguous(case in cases()) {
        let (graph, tagging) = run(&case);
        let mut after = graph.clone();
        let before = tagging.clone();
        let tagging = apply(&mut after, tagging);
        let by_name = |g: &Graph| {
            let mut nodes = g.nodes.clone();
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            nodes
        };
        prop_assert_eq!(by_name(&graph), by_name(&after));
        prop_assert_eq!((&graph.values, &graph.outputs), (&after.values, &after.outputs));
        let producers = after.producers();
        for (i, node) in after.nodes.iter().enumerate() {
            prop_assert!(node.inputs().filter_map(|v| producers[v.index()]).all(|p| p.index() < i));
        }
        for region in &tagging.regions {
            let first = region.nodes[0].0;
            let range: Vec<NodeId> = (first..first + region.nodes.len() as u32).map(NodeId).collect();
            prop_assert_eq!(&region.nodes, &range);
            prop_assert!(range.iter().all(|n| after.node(*n).region == Some(region.id)));
        }
        prop_assert!(tagging.regions.windows(2).all(|pair| pair[0].nodes[0] < pair[1].nodes[0]));
        let in_regions: usize = tagging.regions.iter().map(|r| r.nodes.len()).sum();
        prop_assert_eq!(in_regions, after.nodes.iter().filter(|n| n.region.is_some()).count());
        for (old, report) in before.nodes.iter().enumerate() {
            let new = after.nodes.iter().position(|n| n.name == graph.nodes[old].name).unwrap();
            prop_assert_eq!(report, &tagging.nodes[new]);
        }
    }

    #[test]
    fn verdicts_exclusions_sizes_and_sets_are_kept(case in cases()) {
        let (_, tagging) = run(&case);
        let owner = owners(&tagging);
        for region in &tagging.regions {
            let backend = BACKENDS.iter().position(|b| *b == region.backend).unwrap();
            prop_assert!(region.nodes.len() >= case.min_nodes as usize);
            for node in &region.nodes {
                prop_assert!(case.takes[backend][node.index()]);
                prop_assert!(!case.excluded.contains(&(node.index(), backend)));
                for set in case.sets[backend].iter().filter(|s| s.contains(&node.index())) {
                    prop_assert!(set.iter().all(|n| owner[*n] == Some(region.id)), "{set:?} is torn");
                }
            }
        }
        for (i, report) in tagging.nodes.iter().enumerate() {
            // The owner's refusals are none; all that come before it in the order have one.
            let asked = report.owner.map_or(2, |r| {
                BACKENDS.iter().position(|b| *b == tagging.regions[r.index()].backend).unwrap()
            });
            let refused: Vec<&str> = report.refusals.iter().map(|(b, _)| b.as_str()).collect();
            prop_assert_eq!(refused, &BACKENDS[..asked], "node {}", i);
            prop_assert!(report.refusals.iter().all(|(_, reason)| !reason.is_empty()));
        }
    }

    #[test]
    fn nothing_is_lost_and_no_two_regions_could_be_one(case in cases()) {
        let case = Case { sets: vec![vec![], vec![]], min_nodes: 1, takes: vec![case.takes[0].clone(), vec![false; case.reads.len()]], ..case };
        let (graph, tagging) = run(&case);
        let owner = owners(&tagging);
        for (i, owner) in owner.iter().enumerate() {
            prop_assert_eq!(owner.is_some(), case.takes[0][i] && !case.excluded.contains(&(i, 0)));
        }
        let (regions, count) = (tagging.regions.len(), graph.nodes.len());
        let unit = |n: usize| owner[n].map_or(regions + n, |r: RegionId| r.index());
        let reach = reachability(&graph, &unit, regions + count);
        let producers = graph.producers();
        for (i, node) in graph.nodes.iter().enumerate() {
            for producer in node.inputs().filter_map(|v| producers[v.index()]) {
                let (a, b) = (unit(producer.index()), unit(i));
                if a != b && a < regions && b < regions {
                    let third = (0..regions + count).any(|c| c != a && c != b && reach[a][c] && reach[c][b]);
                    prop_assert!(third, "regions {a} and {b} could be merged");
                }
            }
        }
    }
}
