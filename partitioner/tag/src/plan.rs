//! From answers to regions.

use crate::answer::{Answer, builtin_refusal};
use crate::boundary::{Boundary, Reads, SizeGivers, live, unbound};
use crate::engine::{Problem, contiguous_order, form};
use crate::policy::Policy;
use crate::work::{bytes, moves_only, work};
use delegraph_ir::{Def, Graph, Module, Node, NodeId, RegionId, ValueId};
use std::collections::VecDeque;

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

/// What one backend may still take.
struct Candidates {
    is: Vec<bool>,
    reasons: Vec<Option<String>>,
    sets: Vec<Vec<u32>>,
    /// Sets that each node is in.
    sets_of: Vec<Vec<u32>>,
    broken: Vec<bool>,
}

impl Candidates {
    /// Takes a node out, and with it the sets that it is in.
    fn drop(&mut self, graph: &Graph, node: u32, reason: impl Into<String>) {
        if !std::mem::replace(&mut self.is[node as usize], false) {
            return;
        }
        self.reasons[node as usize] = Some(reason.into());
        self.spread(graph, [node]);
    }

    /// Breaks the sets of nodes that are out, and takes out the other members.
    fn spread(&mut self, graph: &Graph, nodes: impl IntoIterator<Item = u32>) {
        let mut queue: VecDeque<u32> = nodes.into_iter().collect();
        while let Some(node) = queue.pop_front() {
            for set in std::mem::take(&mut self.sets_of[node as usize]) {
                if std::mem::replace(&mut self.broken[set as usize], true) {
                    continue;
                }
                for i in 0..self.sets[set as usize].len() {
                    let member = self.sets[set as usize][i] as usize;
                    if std::mem::replace(&mut self.is[member], false) {
                        let name = &graph.nodes[node as usize].name;
                        self.reasons[member] =
                            Some(format!("it is taken only together with `{name}`, which is not taken"));
                        queue.push_back(member as u32);
                    }
                }
            }
        }
    }

    fn whole_sets(&self) -> Vec<u32> {
        (0..self.sets.len() as u32)
            .filter(|s| !self.broken[*s as usize])
            .collect()
    }
}

struct Planner<'a> {
    module: &'a Module,
    graph: &'a Graph,
    policy: &'a Policy,
    edges: Vec<(u32, u32)>,
    reads: Reads,
    /// Why a node is offered to nobody.
    never: Vec<Option<&'static str>>,
    moves_only: Vec<bool>,
    operations: Vec<u64>,
}

impl<'a> Planner<'a> {
    fn new(module: &'a Module, graph: &'a Graph, policy: &'a Policy) -> Planner<'a> {
        let edges = edges(graph);
        let live = live(graph);
        let never = graph.nodes.iter().zip(&live).map(|(node, live)| {
            builtin_refusal(graph, node).or_else(|| (!live).then_some("nothing reads what it makes"))
        });
        Planner {
            module,
            graph,
            policy,
            reads: Reads::of(graph),
            never: never.collect(),
            moves_only: graph.nodes.iter().map(moves_only).collect(),
            operations: graph
                .nodes
                .iter()
                .map(|n| work(graph, n, &module.symbols).operations())
                .collect(),
            edges,
        }
    }

    fn candidates(
        &self,
        backend: &str,
        answer: &Answer,
        excluded: &[Exclusion],
        group_of: &[Option<u32>],
    ) -> Candidates {
        let count = self.graph.nodes.len();
        let mut reasons: Vec<Option<String>> = vec![None; count];
        for exclusion in excluded
            .iter()
            .filter(|e| e.backend == backend && e.node.index() < count)
        {
            reasons[exclusion.node.index()] = Some(exclusion.reason.clone());
        }
        let mut is = vec![false; count];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if group_of[i].is_some() {
                reasons[i] = None;
                continue;
            }
            if let Some(never) = self.never[i] {
                reasons[i] = Some(never.to_string());
            } else if reasons[i].is_none() {
                reasons[i] = match answer.verdicts.get(i) {
                    None => Some("the delegate gave no verdict".to_string()),
                    Some(verdict) if !verdict.supported => Some(match verdict.reason.as_str() {
                        "" => "the delegate gave no reason".to_string(),
                        reason => reason.to_string(),
                    }),
                    Some(_) => self.policy.denial(self.graph, node, backend),
                };
            }
            is[i] = reasons[i].is_none();
        }
        let sets: Vec<Vec<u32>> = answer
            .atomic_sets
            .iter()
            .map(|set| set.iter().map(|id| id.0).filter(|n| (*n as usize) < count).collect())
            .collect();
        let mut sets_of = vec![Vec::new(); count];
        for (i, set) in sets.iter().enumerate() {
            for node in set {
                sets_of[*node as usize].push(i as u32);
            }
        }
        let out: Vec<u32> = (0..count as u32).filter(|n| !is[*n as usize]).collect();
        let mut candidates = Candidates {
            is,
            reasons,
            broken: vec![false; sets.len()],
            sets,
            sets_of,
        };
        candidates.spread(self.graph, out);
        candidates
    }

    /// Forms regions, takes out what cannot or need not be in one, and forms them again until nothing changes.
    fn groups(&self, candidates: &mut Candidates, fixed: &[Option<u32>]) -> Vec<Vec<u32>> {
        for _ in 0..self.policy.max_rounds {
            let groups = match self.form(candidates, fixed) {
                Ok(groups) => groups,
                Err(broken) => {
                    for set in broken {
                        self.give_up(candidates, set);
                    }
                    continue;
                }
            };
            let boundaries: Vec<Boundary> = groups.iter().map(|g| self.boundary(g)).collect();
            let mut changed = false;
            for (group, boundary) in groups.iter().zip(&boundaries) {
                for (node, symbol) in unbound(self.graph, &ids(group), boundary) {
                    let reason = format!("it needs the size `{symbol}`, which no input of its region has");
                    candidates.drop(self.graph, node.0, reason);
                    changed = true;
                }
            }
            if changed {
                continue;
            }
            for (group, boundary) in groups.iter().zip(&boundaries) {
                if let Some(reason) = self.not_worth_it(group, boundary) {
                    group
                        .iter()
                        .for_each(|node| candidates.drop(self.graph, *node, reason.as_str()));
                    changed = true;
                }
            }
            if !changed {
                return groups;
            }
        }
        // Out of rounds: without atomic sets there is always an answer, and regions can be left out whole.
        for set in candidates.whole_sets() {
            self.give_up(candidates, set);
        }
        let mut groups = self.form(candidates, fixed).unwrap_or_default();
        groups.retain(|group| {
            let boundary = self.boundary(group);
            let reason = match unbound(self.graph, &ids(group), &boundary).first() {
                Some((_, symbol)) => Some(format!(
                    "its region needs the size `{symbol}`, which none of its inputs has"
                )),
                None => self.not_worth_it(group, &boundary),
            };
            if let Some(reason) = &reason {
                group
                    .iter()
                    .for_each(|node| candidates.drop(self.graph, *node, reason.as_str()));
            }
            reason.is_none()
        });
        groups
    }

    /// # Errors
    /// Sets that cannot be whole.
    fn form(&self, candidates: &Candidates, fixed: &[Option<u32>]) -> Result<Vec<Vec<u32>>, Vec<u32>> {
        let whole = candidates.whole_sets();
        let sets: Vec<&[u32]> = whole.iter().map(|s| candidates.sets[*s as usize].as_slice()).collect();
        let mut last_reader: Vec<Option<u32>> = vec![None; self.graph.values.len()];
        let mut siblings = Vec::new();
        for (i, node) in self.graph.nodes.iter().enumerate().filter(|(i, _)| candidates.is[*i]) {
            for value in node
                .inputs()
                .filter(|v| !matches!(self.graph.value(*v).def, Def::Constant(_)))
            {
                if let Some(previous) = last_reader[value.index()].replace(i as u32)
                    && previous != i as u32
                {
                    siblings.push((previous, i as u32));
                }
            }
        }
        let problem = Problem {
            edges: &self.edges,
            fixed,
            candidate: &candidates.is,
            sets: &sets,
            siblings: &siblings,
        };
        form(&problem).map_err(|broken| broken.into_iter().map(|i| whole[i]).collect())
    }

    fn give_up(&self, candidates: &mut Candidates, set: u32) {
        for node in candidates.sets[set as usize].clone() {
            let reason =
                "the nodes that it is taken with cannot be one region: one that is not taken lies between them";
            candidates.drop(self.graph, node, reason);
        }
        candidates.broken[set as usize] = true;
    }

    fn boundary(&self, group: &[u32]) -> Boundary {
        Boundary::of(self.graph, &ids(group), &self.reads)
    }

    /// Why a region is better left to the CPU.
    fn not_worth_it(&self, group: &[u32], boundary: &Boundary) -> Option<String> {
        if group.len() < self.policy.min_nodes as usize {
            let (count, minimum) = (group.len(), self.policy.min_nodes);
            let plural = if count == 1 { "" } else { "s" };
            return Some(format!("an island of {count} node{plural}; `min_nodes` is {minimum}"));
        }
        if group.iter().all(|n| self.moves_only[*n as usize]) {
            return Some("its region only moves data".to_string());
        }
        let operations = group
            .iter()
            .fold(0u64, |sum, n| sum.saturating_add(self.operations[*n as usize]));
        let moved = |values: &[ValueId]| {
            let tensors = values.iter().filter_map(|v| self.graph.tensor(*v));
            tensors.fold(0u64, |sum, t| sum.saturating_add(bytes(t, &self.module.symbols)))
        };
        let border = moved(&boundary.inputs).saturating_add(moved(&boundary.outputs));
        (border as f64 * self.policy.boundary_penalty > operations as f64)
            .then(|| format!("its region moves {border} bytes over its border for {operations} operations"))
    }
}

/// What must come before what: readers after makers, and nodes that need a size after the node that first gives it. Each pair
/// once for a reader.
fn edges(graph: &Graph) -> Vec<(u32, u32)> {
    let producers = graph.producers();
    let mut given = SizeGivers::new(graph);
    let mut edges = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut makers: Vec<u32> = node
            .inputs()
            .filter_map(|v| producers[v.index()])
            .map(|p| p.0)
            .collect();
        given.visit(graph, NodeId::from(i), &mut makers);
        makers.sort_unstable();
        makers.dedup();
        edges.extend(makers.into_iter().map(|maker| (maker, i as u32)));
    }
    edges
}

fn ids(group: &[u32]) -> Vec<NodeId> {
    group.iter().copied().map(NodeId).collect()
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
        assert_eq!(edges(&graph), [(0, 1), (1, 2), (2, 3), (1, 4)]);
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
