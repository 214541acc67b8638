//! Convex regions of a DAG, in nearly linear time.
//!
//! A *unit* is a node, a region of an earlier backend, or an atomic set. Contracting units never makes a cycle; that
//! invariant is what "convex and acyclic" means, and it holds after each step:
//!
//! 1. **Atomic sets** are contracted. Where that makes a cycle, the cycle's other units join if all of them may
//!    ([`components`]); if not, its sets are given up by the caller.
//! 2. **Phases** ([`phases`]), linear: a unit's phase is the largest of its predecessors', plus one where one is a candidate
//!    and the other is not. Phases never fall along an edge and rise wherever a path leaves the candidates or comes back,
//!    so no path leaves a phase and returns: candidates that are joined by edges within a phase make a region.
//! 3. **Merging** ([`Merger`]): two regions that phases kept apart become one where no path joins them through a third
//!    unit. The search for such a path is cut to the interval between the two in a topological order, which is kept up to
//!    date as in Pearce and Kelly (2006). All searches together may cost [`STEPS_PER_ITEM`] steps a node and edge; beyond
//!    that regions stay apart, which is always right, if not the largest possible.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Steps of the merging search for each node and edge of the graph.
const STEPS_PER_ITEM: usize = 64;

/// Regions that only read the same value are merged if they are this near in the order: three projections of one input
/// are one step, but what every layer does to a shared mask is not drawn together, as all of it would be alive at once.
const SIBLING_DISTANCE: u32 = 8;

/// What to find regions in. Nodes are numbered in a topological order.
pub(crate) struct Problem<'a> {
    /// Reads: (maker, reader).
    pub edges: &'a [(u32, u32)],
    /// For each node, the unit of an earlier backend that it belongs to.
    pub fixed: &'a [Option<u32>],
    /// For each node, whether it may be in a region. None of these is fixed.
    pub candidate: &'a [bool],
    /// Candidates that must be in one region.
    pub sets: &'a [&'a [u32]],
    /// Candidates that read the same value: (earlier, later).
    pub siblings: &'a [(u32, u32)],
}

/// Regions, each in order of its nodes, ordered by their first node.
///
/// # Errors
/// Indices of sets that cannot be kept whole.
pub(crate) fn form(problem: &Problem<'_>) -> Result<Vec<Vec<u32>>, Vec<usize>> {
    let count = problem.candidate.len();
    let mut union = Union::of_groups(problem.fixed);
    for set in problem.sets {
        for pair in set.windows(2) {
            union.join(pair[0], pair[1]);
        }
    }
    let mut contracted = Contracted::new(&mut union, problem.edges, problem.candidate);
    let order = match contracted.order() {
        Some(order) => order,
        None => {
            absorb_cycles(problem, &mut union, &contracted)?;
            contracted = Contracted::new(&mut union, problem.edges, problem.candidate);
            match contracted.order() {
                Some(order) => order,
                // Contracting whole components leaves no cycle; give up all sets if that were ever untrue.
                None => return Err((0..problem.sets.len()).collect()),
            }
        }
    };
    let phase = phases(&contracted, &order);
    for (a, b) in problem.edges {
        let (unit_a, unit_b) = (contracted.unit_of[*a as usize], contracted.unit_of[*b as usize]);
        if problem.candidate[*a as usize]
            && problem.candidate[*b as usize]
            && phase[unit_a as usize] == phase[unit_b as usize]
        {
            union.join(*a, *b);
        }
    }
    let contracted = Contracted::new(&mut union, problem.edges, problem.candidate);
    let mut unit_of = contracted.unit_of.clone();
    if let Some(order) = contracted.order() {
        let budget = STEPS_PER_ITEM * (count + problem.edges.len());
        let siblings: Vec<(u32, u32)> = problem
            .siblings
            .iter()
            .map(|(a, b)| (unit_of[*a as usize], unit_of[*b as usize]))
            .collect();
        let mut merger = Merger::new(&contracted, order, budget);
        merger.run(&siblings);
        for unit in &mut unit_of {
            *unit = merger.union.find(*unit);
        }
    }
    let mut group_of = vec![u32::MAX; count];
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for node in (0..count).filter(|n| problem.candidate[*n]) {
        let group = &mut group_of[unit_of[node] as usize];
        if *group == u32::MAX {
            *group = groups.len() as u32;
            groups.push(Vec::new());
        }
        groups[*group as usize].push(node as u32);
    }
    Ok(groups)
}

/// A topological order of the nodes in which each group is contiguous and which is otherwise near to the given one.
/// `None` if the groups are in a cycle.
pub(crate) fn contiguous_order(edges: &[(u32, u32)], group_of: &[Option<u32>]) -> Option<Vec<u32>> {
    let count = group_of.len();
    let mut union = Union::of_groups(group_of);
    let contracted = Contracted::new(&mut union, edges, &vec![false; count]);
    let mut members: Vec<Vec<u32>> = vec![Vec::new(); contracted.candidate.len()];
    for (node, unit) in contracted.unit_of.iter().enumerate() {
        members[*unit as usize].push(node as u32);
    }
    let order = contracted.order()?;
    Some(
        order
            .into_iter()
            .flat_map(|unit| std::mem::take(&mut members[unit as usize]))
            .collect(),
    )
}

/// Step 1: joins the units of every cycle, or tells which sets must go.
fn absorb_cycles(problem: &Problem<'_>, union: &mut Union, contracted: &Contracted) -> Result<(), Vec<usize>> {
    let component = components(contracted);
    let mut size = vec![0u32; component.len()];
    let mut pure = vec![true; component.len()];
    for (unit, c) in component.iter().enumerate() {
        size[*c as usize] += 1;
        pure[*c as usize] &= contracted.candidate[unit];
    }
    let component_of = |node: u32| component[contracted.unit_of[node as usize] as usize] as usize;
    let broken: Vec<usize> = (0..problem.sets.len())
        .filter(|i| {
            problem.sets[*i]
                .first()
                .is_some_and(|n| size[component_of(*n)] > 1 && !pure[component_of(*n)])
        })
        .collect();
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut first = vec![None; component.len()];
    for node in 0..problem.candidate.len() as u32 {
        match &mut first[component_of(node)] {
            None => first[component_of(node)] = Some(node),
            Some(other) => _ = union.join(*other, node),
        }
    }
    Ok(())
}

/// Step 2. `order` is topological.
fn phases(contracted: &Contracted, order: &[u32]) -> Vec<u32> {
    let mut phase = vec![0u32; order.len()];
    for unit in order {
        let own = contracted.candidate[*unit as usize];
        for next in contracted.successors(*unit) {
            let step = u32::from(own != contracted.candidate[*next as usize]);
            phase[*next as usize] = phase[*next as usize].max(phase[*unit as usize] + step);
        }
    }
    phase
}

/// Disjoint sets.
struct Union {
    parent: Vec<u32>,
}

impl Union {
    fn new(count: usize) -> Union {
        Union {
            parent: (0..count as u32).collect(),
        }
    }

    /// Items of one group are in one set. Groups are numbered from 0.
    fn of_groups(group_of: &[Option<u32>]) -> Union {
        let mut union = Union::new(group_of.len());
        let mut first_of: Vec<Option<u32>> = Vec::new();
        for (item, group) in group_of.iter().enumerate() {
            let Some(group) = group.map(|g| g as usize) else {
                continue;
            };
            if first_of.len() <= group {
                first_of.resize(group + 1, None);
            }
            match first_of[group] {
                None => first_of[group] = Some(item as u32),
                Some(first) => _ = union.join(first, item as u32),
            }
        }
        union
    }

    fn find(&mut self, mut item: u32) -> u32 {
        while self.parent[item as usize] != item {
            let up = self.parent[self.parent[item as usize] as usize];
            self.parent[item as usize] = up;
            item = up;
        }
        item
    }

    /// Joins two sets and returns the root. Without ranks, path halving alone keeps this logarithmic.
    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[b as usize] = a;
        a
    }
}

/// The graph of units. Units are numbered by their first node.
struct Contracted {
    unit_of: Vec<u32>,
    candidate: Vec<bool>,
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Contracted {
    fn new(union: &mut Union, edges: &[(u32, u32)], candidate: &[bool]) -> Contracted {
        let count = union.parent.len();
        let mut unit_of_root = vec![u32::MAX; count];
        let mut candidates = Vec::new();
        let unit_of: Vec<u32> = (0..count)
            .map(|node| {
                let unit = &mut unit_of_root[union.find(node as u32) as usize];
                if *unit == u32::MAX {
                    *unit = candidates.len() as u32;
                    candidates.push(candidate[node]);
                }
                *unit
            })
            .collect();
        let mut starts = vec![0u32; candidates.len() + 1];
        let crossing = || {
            let units = edges.iter().map(|(a, b)| (unit_of[*a as usize], unit_of[*b as usize]));
            units.filter(|(a, b)| a != b)
        };
        for (a, _) in crossing() {
            starts[a as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut targets = vec![0; starts[starts.len() - 1] as usize];
        let mut next = starts.clone();
        for (a, b) in crossing() {
            targets[next[a as usize] as usize] = b;
            next[a as usize] += 1;
        }
        Contracted {
            unit_of,
            candidate: candidates,
            starts,
            targets,
        }
    }

    fn successors(&self, unit: u32) -> &[u32] {
        &self.targets[self.starts[unit as usize] as usize..self.starts[unit as usize + 1] as usize]
    }

    /// A topological order, lowest unit first; `None` if there is a cycle.
    fn order(&self) -> Option<Vec<u32>> {
        let count = self.candidate.len();
        let mut waiting = vec![0u32; count];
        self.targets.iter().for_each(|t| waiting[*t as usize] += 1);
        let mut ready: BinaryHeap<Reverse<u32>> = (0..count as u32)
            .filter(|u| waiting[*u as usize] == 0)
            .map(Reverse)
            .collect();
        let mut order = Vec::with_capacity(count);
        while let Some(Reverse(unit)) = ready.pop() {
            order.push(unit);
            for next in self.successors(unit) {
                waiting[*next as usize] -= 1;
                if waiting[*next as usize] == 0 {
                    ready.push(Reverse(*next));
                }
            }
        }
        (order.len() == count).then_some(order)
    }
}

/// The strongly connected component of each unit (Tarjan, without recursion).
fn components(graph: &Contracted) -> Vec<u32> {
    let count = graph.candidate.len();
    let (mut index, mut low) = (vec![u32::MAX; count], vec![0u32; count]);
    let mut component = vec![u32::MAX; count];
    let (mut stack, mut calls): (Vec<u32>, Vec<(u32, usize)>) = (Vec::new(), Vec::new());
    let (mut next_index, mut next_component) = (0, 0);
    for root in 0..count as u32 {
        if index[root as usize] == u32::MAX {
            calls.push((root, 0));
        }
        while let Some((unit, at)) = calls.pop() {
            let u = unit as usize;
            if at == 0 {
                (index[u], low[u]) = (next_index, next_index);
                next_index += 1;
                stack.push(unit);
            } else {
                low[u] = low[u].min(low[graph.successors(unit)[at - 1] as usize]);
            }
            let mut at = at;
            let mut descended = false;
            while let Some(next) = graph.successors(unit).get(at) {
                let n = *next as usize;
                at += 1;
                if index[n] == u32::MAX {
                    calls.push((unit, at));
                    calls.push((*next, 0));
                    descended = true;
                    break;
                }
                if component[n] == u32::MAX {
                    low[u] = low[u].min(index[n]);
                }
            }
            if !descended && low[u] == index[u] {
                while let Some(member) = stack.pop() {
                    component[member as usize] = next_component;
                    if member == unit {
                        break;
                    }
                }
                next_component += 1;
            }
        }
    }
    component
}

/// Step 3.
struct Merger {
    union: Union,
    is_region: Vec<bool>,
    /// By root; may name merged units and the unit itself.
    successors: Vec<Vec<u32>>,
    /// Topological; [`HOLE`] where a merged unit was.
    order: Vec<u32>,
    /// Of each root in `order`.
    position: Vec<u32>,
    /// The search that last visited a unit.
    seen: Vec<u32>,
    search: u32,
    budget: usize,
}

const HOLE: u32 = u32::MAX;

impl Merger {
    fn new(graph: &Contracted, order: Vec<u32>, budget: usize) -> Merger {
        let count = order.len();
        let mut position = vec![0; count];
        for (at, unit) in order.iter().enumerate() {
            position[*unit as usize] = at as u32;
        }
        Merger {
            union: Union::new(count),
            successors: (0..count as u32).map(|u| graph.successors(u).to_vec()).collect(),
            is_region: graph.candidate.clone(),
            order,
            position,
            seen: vec![0; count],
            search: 0,
            budget,
        }
    }

    /// Merges until nothing changes or the budget is spent. `siblings` are pairs of units.
    fn run(&mut self, siblings: &[(u32, u32)]) {
        let mut changed = true;
        while changed && self.budget > 0 {
            changed = false;
            for at in 0..self.order.len() {
                let unit = self.order[at];
                if unit == HOLE || !self.is_region[unit as usize] {
                    continue;
                }
                for next in self.regions_after(unit) {
                    changed |= self.try_merge(unit, next);
                }
            }
            for (a, b) in siblings {
                let (a, b) = (self.union.find(*a), self.union.find(*b));
                let apart = self.position[a as usize].abs_diff(self.position[b as usize]);
                if a != b && self.is_region[a as usize] && self.is_region[b as usize] && apart <= SIBLING_DISTANCE {
                    changed |= self.try_merge(a, b);
                }
            }
        }
    }

    /// Regions that read what a region makes, nearest first.
    fn regions_after(&mut self, unit: u32) -> Vec<u32> {
        let list = std::mem::take(&mut self.successors[unit as usize]);
        let mut roots: Vec<u32> = list
            .iter()
            .map(|u| self.union.find(*u))
            .filter(|u| *u != unit)
            .collect();
        self.budget = self.budget.saturating_sub(list.len());
        roots.sort_unstable_by_key(|u| self.position[*u as usize]);
        roots.dedup();
        self.successors[unit as usize].clone_from(&roots);
        roots.retain(|u| self.is_region[*u as usize]);
        roots
    }

    /// Merges two units if no path joins them through a third.
    fn try_merge(&mut self, a: u32, b: u32) -> bool {
        let (mut a, mut b) = (self.union.find(a), self.union.find(b));
        if a == b {
            return false;
        }
        if self.position[a as usize] > self.position[b as usize] {
            (a, b) = (b, a);
        }
        let (low, high) = (self.position[a as usize], self.position[b as usize]);
        let cost = (high - low) as usize;
        if self.budget <= cost {
            self.budget = 0;
            return false;
        }
        // Everything that `a` reaches before `b`: if `b` is reached from there, a third unit lies on the way.
        self.search += 1;
        let mut stack = vec![a];
        while let Some(unit) = stack.pop() {
            for i in 0..self.successors[unit as usize].len() {
                let next = self.union.find(self.successors[unit as usize][i]);
                self.budget = self.budget.saturating_sub(1);
                if next == b && unit != a || self.budget == 0 {
                    return false;
                }
                if next != b
                    && next != unit
                    && self.position[next as usize] < high
                    && self.seen[next as usize] != self.search
                {
                    self.seen[next as usize] = self.search;
                    stack.push(next);
                }
            }
        }
        self.budget -= cost.min(self.budget);
        self.join(a, b, low as usize, high as usize);
        true
    }

    /// Joins `a` and `b` and moves what `a` reaches between them (marked by the search) behind both.
    fn join(&mut self, a: u32, b: u32, low: usize, high: usize) {
        let root = self.union.join(a, b);
        let gone = if root == a { b } else { a };
        let (mut long, mut short) = (
            std::mem::take(&mut self.successors[a as usize]),
            std::mem::take(&mut self.successors[b as usize]),
        );
        if long.len() < short.len() {
            std::mem::swap(&mut long, &mut short);
        }
        self.budget = self.budget.saturating_sub(short.len());
        long.append(&mut short);
        self.successors[root as usize] = long;
        self.is_region[gone as usize] = false;
        let between = self.order[low + 1..high].to_vec();
        let reached = |u: &u32| *u != HOLE && self.seen[*u as usize] == self.search;
        let sequence: Vec<u32> = between
            .iter()
            .filter(|u| !reached(u))
            .copied()
            .chain([root])
            .chain(between.iter().filter(|u| reached(u)).copied())
            .chain([HOLE])
            .collect();
        for (i, unit) in sequence.into_iter().enumerate() {
            self.order[low + i] = unit;
            if unit != HOLE {
                self.position[unit as usize] = (low + i) as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions(edges: &[(u32, u32)], candidate: &[u32], sets: &[&[u32]], siblings: &[(u32, u32)]) -> Vec<Vec<u32>> {
        let candidate: Vec<bool> = candidate.iter().map(|c| *c != 0).collect();
        let problem = Problem {
            edges,
            fixed: &vec![None; candidate.len()],
            candidate: &candidate,
            sets,
            siblings,
        };
        form(&problem).unwrap()
    }

    #[test]
    fn a_chain_is_cut_where_a_node_is_refused() {
        let chain = [(0, 1), (1, 2), (2, 3), (3, 4)];
        assert_eq!(regions(&chain, &[1, 1, 0, 1, 1], &[], &[]), [vec![0, 1], vec![3, 4]]);
    }

    #[test]
    fn a_refused_branch_does_not_end_up_inside() {
        // 0 -> 1 -> 3 and 0 -> 2 -> 3, where 1 is refused: 0 and 3 must part; 2 may go with either.
        let diamond = [(0, 1), (0, 2), (1, 3), (2, 3)];
        assert_eq!(regions(&diamond, &[1, 0, 1, 1], &[], &[]), [vec![0, 2], vec![3]]);
    }

    #[test]
    fn merging_mends_what_phases_part() {
        // 1 is in phase 0 and 3 in phase 1 because of the refused 0, but nothing joins 1 to 3 besides their edge.
        assert_eq!(
            regions(&[(0, 2), (2, 3), (1, 3)], &[0, 1, 1, 1], &[], &[]),
            [vec![1, 2, 3]]
        );
        // The same with a refused reader of 1 that must move behind the merged region.
        let edges = [(0, 3), (1, 2), (3, 4), (1, 4)];
        assert_eq!(regions(&edges, &[0, 1, 0, 1, 1], &[], &[]), [vec![1, 3, 4]]);
    }

    #[test]
    fn near_readers_of_one_value_are_one_region() {
        assert_eq!(regions(&[], &[1, 1, 1], &[], &[(0, 1), (1, 2)]), [vec![0, 1, 2]]);
        // Not where one feeds the other through a refused node.
        assert_eq!(
            regions(&[(0, 1), (1, 2)], &[1, 0, 1], &[], &[(0, 2)]),
            [vec![0], vec![2]]
        );
    }

    #[test]
    fn an_atomic_set_draws_in_what_lies_between_or_is_given_up() {
        let chain = [(0, 1), (1, 2)];
        assert_eq!(regions(&chain, &[1, 1, 1], &[&[0, 2]], &[]), [vec![0, 1, 2]]);
        let problem = Problem {
            edges: &chain,
            fixed: &[None; 3],
            candidate: &[true, false, true],
            sets: &[&[0, 2]],
            siblings: &[],
        };
        assert_eq!(form(&problem), Err(vec![0]));
    }

    #[test]
    fn two_sets_that_need_each_other_are_one_region() {
        // Each set reads from the other: only together are they convex.
        let edges = [(0, 1), (2, 3)];
        assert_eq!(
            regions(&edges, &[1, 1, 1, 1], &[&[0, 3], &[1, 2]], &[]),
            [vec![0, 1, 2, 3]]
        );
    }

    #[test]
    fn an_order_keeps_groups_together_and_refuses_cycles() {
        let edges = [(0, 2), (1, 3)];
        assert_eq!(
            contiguous_order(&edges, &[Some(0), None, Some(0), None]).unwrap(),
            [0, 2, 1, 3]
        );
        let crossed = [(0, 1), (2, 3)];
        assert_eq!(contiguous_order(&crossed, &[Some(0), Some(1), Some(1), Some(0)]), None);
    }
}
