//! From answers to regions.

use crate::answer::Answer;
use crate::engine::contiguous_order;
use crate::planner::Planner;
use crate::policy::Policy;
use delegraph_ir::{Graph, Module, Node, NodeId, RegionId};

/// A node that a backend may not take although it says that it can, for example because compiling it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Which node.
    pub node: NodeId,
    /// Which backend.
    pub backend: String,
    /// Said in reports.
    pub reason: String,
}

/// A region and who takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedRegion {
    /// Regions are numbered in execution order.
    pub id: RegionId,
    /// Backend id.
    pub backend: String,
    /// In execution order.
    pub nodes: Vec<NodeId>,
}

/// What happened to a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// The region that it is in; `None`: it stays on the CPU.
    pub owner: Option<RegionId>,
    /// Backends that were asked before the owner and do not have it: (backend, reason).
    pub refusals: Vec<(String, String)>,
}

/// Regions of one graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tagging {
    /// By id.
    pub regions: Vec<TaggedRegion>,
    /// One a node, by node id.
    pub nodes: Vec<NodeReport>,
    /// The nodes in an order in which each region is contiguous.
    pub order: Vec<NodeId>,
}

/// Makes regions and writes them into the graph: [`plan`], then [`apply`].
pub fn tag(
    module: &Module,
    graph: &mut Graph,
    answers: &[(String, Answer)],
    policy: &Policy,
    excluded: &[Exclusion],
) -> Tagging {
    let tagging = plan(module, graph, answers, policy, excluded);
    apply(graph, tagging)
}

/// Makes regions of the nodes that somebody takes. `answers` are in order of preference: the first backend that can keep a
/// node in a region has it.
pub fn plan(
    module: &Module,
    graph: &Graph,
    answers: &[(String, Answer)],
    policy: &Policy,
    excluded: &[Exclusion],
) -> Tagging {
    let planner = Planner::new(module, graph, policy);
    let mut reports = vec![NodeReport::default(); graph.nodes.len()];
    let mut group_of: Vec<Option<u32>> = vec![None; graph.nodes.len()];
    let mut owners: Vec<&str> = Vec::new();
    for (backend, answer) in answers {
        let mut candidates = planner.candidates(backend, answer, excluded, &group_of);
        for group in planner.groups(&mut candidates, &group_of) {
            for node in group {
                group_of[node as usize] = Some(owners.len() as u32);
            }
            owners.push(backend);
        }
        for (report, reason) in reports.iter_mut().zip(candidates.reasons) {
            report.refusals.extend(reason.map(|r| (backend.clone(), r)));
        }
    }
    let order = contiguous_order(&planner.edges, &group_of).unwrap_or_else(|| {
        unreachable!("the engine never makes regions that are in a cycle");
    });
    let mut id_of: Vec<Option<RegionId>> = vec![None; owners.len()];
    let mut regions: Vec<TaggedRegion> = Vec::new();
    for node in &order {
        let Some(group) = group_of[*node as usize] else {
            continue;
        };
        let id = *id_of[group as usize].get_or_insert_with(|| {
            let id = RegionId::from(regions.len());
            regions.push(TaggedRegion {
                id,
                backend: owners[group as usize].to_string(),
                nodes: Vec::new(),
            });
            id
        });
        regions[id.index()].nodes.push(NodeId(*node));
        reports[*node as usize].owner = Some(id);
    }
    Tagging {
        regions,
        nodes: reports,
        order: order.into_iter().map(NodeId).collect(),
    }
}

/// Orders the graph's nodes so that each region is contiguous and marks them with their regions. Returns the tagging in
/// terms of the new node ids.
pub fn apply(graph: &mut Graph, tagging: Tagging) -> Tagging {
    let Tagging {
        mut regions,
        nodes,
        order,
    } = tagging;
    let mut old: Vec<Option<(Node, NodeReport)>> = graph.nodes.drain(..).zip(nodes).map(Some).collect();
    let mut reports = Vec::with_capacity(old.len());
    regions.iter_mut().for_each(|r| r.nodes.clear());
    for id in &order {
        let Some((mut node, report)) = old[id.index()].take() else {
            unreachable!("an order names every node once")
        };
        node.region = report.owner;
        if let Some(region) = report.owner {
            regions[region.index()].nodes.push(NodeId::from(graph.nodes.len()));
        }
        graph.nodes.push(node);
        reports.push(report);
    }
    Tagging {
        regions,
        order: graph.node_ids().collect(),
        nodes: reports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Verdict;
    use delegraph_ir::{Arg, Expr, TensorType, Type};
    use delegraph_types::DType;

    fn ty(sizes: &[i64]) -> Type {
        TensorType::fixed(DType::F32, sizes).into()
    }

    /// A graph of unary operators in a chain, over 8x8.
    fn chain(ops: &[&str]) -> Graph {
        let mut graph = Graph::new("forward");
        let mut last = graph.add_input("x", ty(&[8, 8]));
        for op in ops {
            last = graph.push(op, vec![last.into()], vec![ty(&[8, 8])]).unwrap()[0];
        }
        graph.add_output(last);
        graph
    }

    fn takes(pattern: &str) -> Answer {
        let verdict = |c| {
            if c == 'y' {
                Verdict::yes()
            } else {
                Verdict::no("no such operator")
            }
        };
        Answer {
            verdicts: pattern.chars().map(verdict).collect(),
            atomic_sets: vec![],
        }
    }

    fn of(graph: &Graph, answers: &[(&str, Answer)], policy: &Policy) -> Tagging {
        let answers: Vec<(String, Answer)> = answers.iter().map(|(b, a)| (b.to_string(), a.clone())).collect();
        plan(&Module::default(), graph, &answers, policy, &[])
    }

    fn loose() -> Policy {
        Policy {
            min_nodes: 1,
            boundary_penalty: 0.0,
            ..Policy::default()
        }
    }

    fn reasons(tagging: &Tagging, node: usize) -> Vec<&str> {
        tagging.nodes[node].refusals.iter().map(|(_, r)| r.as_str()).collect()
    }

    #[test]
    fn an_island_goes_to_the_next_backend() {
        let graph = chain(&["aten::relu", "aten::sin", "aten::relu", "aten::exp", "aten::tanh"]);
        let policy = Policy {
            min_nodes: 2,
            ..loose()
        };
        let tagging = of(&graph, &[("a", takes("nnyny")), ("b", takes("nyyyy"))], &policy);
        assert_eq!(tagging.regions.len(), 1);
        assert_eq!(tagging.regions[0].nodes, [NodeId(1), NodeId(2), NodeId(3), NodeId(4)]);
        assert_eq!(reasons(&tagging, 2), ["an island of 1 node; `min_nodes` is 2"]);
        assert_eq!(reasons(&tagging, 0), ["no such operator", "no such operator"]);
    }

    #[test]
    fn a_region_of_views_is_not_worth_it() {
        let graph = chain(&["aten::alias", "aten::clone", "aten::detach"]);
        let tagging = of(&graph, &[("a", takes("yyy"))], &loose());
        assert_eq!(
            (tagging.regions.len(), reasons(&tagging, 1)),
            (0, vec!["its region only moves data"])
        );
        let policy = Policy {
            keep_moves: true,
            ..loose()
        };
        let tagging = of(&graph, &[("a", takes("yyy"))], &policy);
        assert_eq!(tagging.regions.len(), 1, "unless somebody asks for it");
    }

    #[test]
    fn a_border_that_outweighs_the_work_is_not_worth_it() {
        // 64 + 64 floats cross the border for 64 operations: 8 bytes each.
        let graph = chain(&["aten::relu"]);
        let policy = |boundary_penalty| Policy {
            boundary_penalty,
            ..loose()
        };
        assert_eq!(of(&graph, &[("a", takes("y"))], &policy(1.0 / 8.0)).regions.len(), 1);
        let tagging = of(&graph, &[("a", takes("y"))], &policy(1.0 / 7.0));
        assert_eq!(
            reasons(&tagging, 0),
            ["its region moves 512 bytes over its border for 64 operations"]
        );
    }

    #[test]
    fn dead_nodes_control_flow_and_numbers_are_offered_to_nobody() {
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", ty(&[1]));
        let dead = graph.push("aten::relu", vec![x.into()], vec![ty(&[1])]).unwrap()[0];
        graph.push("aten::relu", vec![dead.into()], vec![ty(&[1])]).unwrap();
        let item = graph
            .push("aten::_local_scalar_dense", vec![x.into()], vec![Type::Float])
            .unwrap()[0];
        let y = graph
            .push("aten::mul.Scalar", vec![x.into(), item.into()], vec![ty(&[1])])
            .unwrap()[0];
        let body = |name| Arg::Graph(Box::new(Graph::new(name)));
        let args = vec![x.into(), body("yes"), body("no"), Arg::Values(vec![y])];
        let z = graph.push("higher_order::cond", args, vec![ty(&[1])]).unwrap()[0];
        graph.add_output(z);
        let tagging = of(&graph, &[("a", takes("yyyyy"))], &loose());
        assert_eq!(tagging.regions, []);
        let expected = [
            "nothing reads what it makes",
            "nothing reads what it makes",
            "it makes a number, not a tensor",
            "it reads a number that is known only while running",
            "control flow stays on the CPU",
        ];
        for (i, reason) in expected.into_iter().enumerate() {
            assert_eq!(reasons(&tagging, i), [reason]);
        }
    }

    #[test]
    fn a_node_whose_size_no_input_gives_stays_out() {
        let mut graph = Graph::new("forward");
        let sized = |e: &Expr| Type::from(TensorType::new(DType::F32, vec![e.clone()]));
        let s = Expr::symbol("s0");
        let x = graph.add_input("x", ty(&[1]));
        let a = graph.push("aten::relu", vec![x.into()], vec![ty(&[1])]).unwrap()[0];
        let b = graph
            .push(
                "aten::expand",
                vec![a.into(), Arg::Ints(vec![s.clone()])],
                vec![sized(&s)],
            )
            .unwrap()[0];
        let c = graph.push("aten::sin", vec![b.into()], vec![sized(&s)]).unwrap()[0];
        let d = graph
            .push(
                "aten::view",
                vec![c.into(), Arg::Ints(vec![s.clone()])],
                vec![sized(&s)],
            )
            .unwrap()[0];
        graph.add_output(d);
        let tagging = of(&graph, &[("a", takes("yyyy"))], &loose());
        let nodes: Vec<&[NodeId]> = tagging.regions.iter().map(|r| r.nodes.as_slice()).collect();
        assert_eq!(nodes, [&[NodeId(0)][..], &[NodeId(2), NodeId(3)]]);
        assert_eq!(
            reasons(&tagging, 1),
            ["it needs the size `s0`, which no input of its region has"]
        );
    }

    #[test]
    fn a_size_that_is_known_while_running_orders_nodes() {
        // The last node needs `u0` but reads nothing of the node that gives it: together they would have to be one region, or
        // stay in this order, which the refused node between them forbids to a single region.
        let mut graph = Graph::new("forward");
        let u = Expr::symbol("u0");
        let sized = |e: &Expr| Type::from(TensorType::new(DType::F32, vec![e.clone()]));
        let x = graph.add_input("x", ty(&[8]));
        let i64s = TensorType::new(DType::I64, vec![u.clone(), Expr::Int(1)]);
        let first = graph.push("aten::relu", vec![x.into()], vec![ty(&[8])]).unwrap()[0];
        let found = graph
            .push("aten::nonzero", vec![first.into()], vec![i64s.into()])
            .unwrap()[0];
        let size = Arg::Ints(vec![u.clone()]);
        let last = graph
            .push("aten::full", vec![size, Arg::Float(1.0)], vec![sized(&u)])
            .unwrap()[0];
        let y = graph
            .push("aten::mul.Tensor", vec![last.into(), last.into()], vec![sized(&u)])
            .unwrap()[0];
        let mut body = Graph::new("body");
        let inner = body
            .push(
                "aten::full",
                vec![Arg::Ints(vec![u.clone()]), Arg::Float(1.0)],
                vec![sized(&u)],
            )
            .unwrap()[0];
        body.add_output(inner);
        let bodies = [body.clone(), body].map(|b| Arg::Graph(Box::new(b)));
        let args = [vec![Arg::Bool(true)], bodies.to_vec(), vec![Arg::Values(vec![])]].concat();
        let z = graph.push("higher_order::cond", args, vec![sized(&u)]).unwrap()[0];
        for value in [found, y, z] {
            graph.add_output(value);
        }
        assert_eq!(crate::planner::edges(&graph), [(0, 1), (1, 2), (2, 3), (1, 4)]);
        // The size counts as given inside a region that makes it, and as not given in one that does not.
        let tagging = of(&graph, &[("a", takes("yyyyn"))], &loose());
        assert_eq!(tagging.regions[0].nodes.len(), 4);
        let tagging = of(&graph, &[("a", takes("ynyyn"))], &loose());
        assert_eq!(
            tagging.regions.iter().map(|r| r.nodes.clone()).collect::<Vec<_>>(),
            [[NodeId(0)], [NodeId(3)]]
        );
    }

    #[test]
    fn an_atomic_set_is_taken_whole_or_not_at_all() {
        let graph = chain(&["aten::relu", "aten::sin", "aten::relu"]);
        let with_set = |pattern, set: &[u32]| Answer {
            atomic_sets: vec![set.iter().copied().map(NodeId).collect()],
            ..takes(pattern)
        };
        let tagging = of(&graph, &[("a", with_set("yyn", &[0, 2]))], &loose());
        assert_eq!(tagging.regions[0].nodes, [NodeId(1)]);
        assert_eq!(
            reasons(&tagging, 0),
            ["it is taken only together with `relu_2`, which is not taken"]
        );
        let tagging = of(&graph, &[("a", with_set("yny", &[0, 2]))], &loose());
        assert_eq!(tagging.regions, []);
        assert!(
            reasons(&tagging, 0)[0].contains("lies between them"),
            "{:?}",
            reasons(&tagging, 0)
        );
    }

    #[test]
    fn what_the_config_or_a_compiler_excludes_is_said() {
        let graph = chain(&["aten::relu", "aten::sin"]);
        let rule = crate::Rule {
            op: Some("aten.relu".into()),
            deny: vec!["a".into()],
            reason: "driver 44".into(),
            ..Default::default()
        };
        let policy = Policy {
            rules: vec![rule],
            ..loose()
        };
        let excluded = Exclusion {
            node: NodeId(1),
            backend: "a".into(),
            reason: "too wide".into(),
        };
        let tagging = plan(
            &Module::default(),
            &graph,
            &[("a".into(), takes("yy"))],
            &policy,
            &[excluded],
        );
        assert_eq!(reasons(&tagging, 0), ["a rule of the config forbids it: driver 44"]);
        assert_eq!(reasons(&tagging, 1), ["too wide"]);
    }

    #[test]
    fn an_answer_that_is_short_or_mute_is_a_refusal() {
        let graph = chain(&["aten::relu", "aten::sin"]);
        let mute = Answer {
            verdicts: vec![Verdict::no("")],
            atomic_sets: vec![vec![NodeId(77)]],
        };
        let tagging = of(&graph, &[("a", mute)], &loose());
        assert_eq!(reasons(&tagging, 0), ["the delegate gave no reason"]);
        assert_eq!(reasons(&tagging, 1), ["the delegate gave no verdict"]);
    }
}
