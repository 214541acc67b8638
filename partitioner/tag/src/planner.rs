//! One backend's share of a graph: what it may take, in which groups, and why not the rest.

use crate::answer::{Answer, builtin_refusal};
use crate::boundary::{Boundary, Reads, live};
use crate::engine::{Problem, form};
use crate::plan::Exclusion;
use crate::policy::Policy;
use crate::sizes::{SizeGivers, unbound};
use crate::work::{bytes, moves_only, work};
use delegraph_ir::{Def, Graph, Module, NodeId, ValueId};
use std::collections::VecDeque;

/// What one backend may still take.
pub(crate) struct Candidates {
    is: Vec<bool>,
    /// Why not, for each node that is refused.
    pub reasons: Vec<Option<String>>,
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

/// What is known of a graph whoever is asked.
pub(crate) struct Planner<'a> {
    module: &'a Module,
    graph: &'a Graph,
    policy: &'a Policy,
    pub edges: Vec<(u32, u32)>,
    reads: Reads,
    /// Why a node is offered to nobody.
    never: Vec<Option<&'static str>>,
    moves_only: Vec<bool>,
    operations: Vec<u64>,
}

impl<'a> Planner<'a> {
    pub fn new(module: &'a Module, graph: &'a Graph, policy: &'a Policy) -> Planner<'a> {
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

    /// What this backend may take: what it supports, nobody has yet, and neither rules nor exclusions forbid.
    pub fn candidates(
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
    pub fn groups(&self, candidates: &mut Candidates, fixed: &[Option<u32>]) -> Vec<Vec<u32>> {
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
                for (node, symbol) in unbound(self.graph, &self.module.symbols, &ids(group), boundary) {
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
            let reason = match unbound(self.graph, &self.module.symbols, &ids(group), &boundary).first() {
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
        if !self.policy.keep_moves && group.iter().all(|n| self.moves_only[*n as usize]) {
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
pub(crate) fn edges(graph: &Graph) -> Vec<(u32, u32)> {
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
