//! Which node a compiler fails on that does not say so: the one with which the shortest failing start of the region ends.
//!
//! A compiler that crashes, hangs or just says "no" names no node. Leaving out its whole region would cost the delegate
//! everything for one operator. So starts of the region are compiled, halving what is in question each time, until one start
//! compiles and the next longer one does not.

use delegraph_ir::NodeId;
use rustc_hash::FxHashMap;

/// What compiling a part of a region told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It compiles.
    Compiles,
    /// It does not, and nobody says why.
    Fails,
    /// It does not, and the delegate names this node.
    Names(NodeId),
    /// The part cannot be tried.
    Unknown,
}

/// A region as a row of pieces that are taken together or not at all: single nodes, and the atomic sets of a delegate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// For each node of the region, the piece that it is in.
    piece_of: Vec<usize>,
    count: usize,
}

impl Pieces {
    /// Pieces of a region, given in execution order. They are in the order in which they are complete; sets that share a
    /// node are one piece.
    pub fn new(nodes: &[NodeId], atomic_sets: &[Vec<NodeId>]) -> Pieces {
        let position: FxHashMap<NodeId, usize> = nodes.iter().copied().zip(0..).collect();
        let mut parent: Vec<usize> = (0..nodes.len()).collect();
        for set in atomic_sets {
            let mut members = set.iter().filter_map(|id| position.get(id).copied());
            let Some(first) = members.next() else { continue };
            for member in members {
                let (a, b) = (root(&mut parent, first), root(&mut parent, member));
                // The last member stands for all: it is where the piece is complete.
                parent[a.min(b)] = a.max(b);
            }
        }
        let roots: Vec<usize> = (0..nodes.len()).map(|i| root(&mut parent, i)).collect();
        let mut number = vec![0; nodes.len()];
        let mut count = 0;
        for (i, root) in roots.iter().enumerate() {
            if i == *root {
                number[i] = count;
                count += 1;
            }
        }
        Pieces {
            piece_of: roots.into_iter().map(|root| number[root]).collect(),
            count,
        }
    }

    /// The nodes of the first pieces, in execution order.
    fn start(&self, nodes: &[NodeId], count: usize) -> Vec<NodeId> {
        let inside = nodes.iter().zip(&self.piece_of).filter(|(_, piece)| **piece < count);
        inside.map(|(id, _)| *id).collect()
    }

    /// The nodes of the piece that makes the region fail, which as a whole does. At most as many parts are tried as the number
    /// of pieces has binary digits. `None`: it could not be found.
    pub fn culprit<E>(
        &self,
        nodes: &[NodeId],
        mut attempt: impl FnMut(&[NodeId]) -> Result<Attempt, E>,
    ) -> Result<Option<Vec<NodeId>>, E> {
        // The first `good` pieces compile (none do), the first `bad` do not.
        let (mut good, mut bad) = (0, self.count);
        while bad > good + 1 {
            let middle = good + (bad - good) / 2;
            match attempt(&self.start(nodes, middle))? {
                Attempt::Compiles => good = middle,
                Attempt::Fails => bad = middle,
                Attempt::Names(node) => return Ok(Some(vec![node])),
                Attempt::Unknown => return Ok(None),
            }
        }
        let last = nodes.iter().zip(&self.piece_of).filter(|(_, piece)| **piece == good);
        Ok((bad > good).then(|| last.map(|(id, _)| *id).collect()))
    }
}

/// The piece's last member, as far as it is known; paths are halved on the way.
fn root(parent: &mut [usize], mut of: usize) -> usize {
    while parent[of] != of {
        parent[of] = parent[parent[of]];
        of = parent[of];
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<usize>) -> Vec<NodeId> {
        range.map(NodeId::from).collect()
    }

    fn find(count: usize, sets: &[Vec<NodeId>], bad: usize) -> (Vec<NodeId>, usize) {
        let (nodes, mut tries) = (ids(0..count), 0);
        let found = Pieces::new(&nodes, sets).culprit(&nodes, |part| {
            tries += 1;
            let fails = part.contains(&NodeId::from(bad));
            Ok::<_, ()>(if fails { Attempt::Fails } else { Attempt::Compiles })
        });
        (found.unwrap().unwrap(), tries)
    }

    #[test]
    fn the_node_is_found_wherever_it_is_and_few_parts_are_tried() {
        for count in 1..70usize {
            let digits = usize::BITS - count.leading_zeros();
            for bad in 0..count {
                let (found, tries) = find(count, &[], bad);
                assert_eq!(found, [NodeId::from(bad)], "{bad} of {count}");
                assert!(tries <= digits as usize, "{tries} for {count}");
            }
        }
    }

    #[test]
    fn an_atomic_set_is_never_cut() {
        let nodes = ids(0..8);
        let sets = [vec![NodeId(1), NodeId(5)], vec![NodeId(5), NodeId(6)], ids(20..22)];
        let pieces = Pieces::new(&nodes, &sets);
        let whole = pieces.culprit(&nodes, |part| {
            let members = [1, 5, 6].map(|i| part.contains(&NodeId(i)));
            assert!(members == [true; 3] || members == [false; 3], "{part:?}");
            let fails = part.contains(&NodeId(5));
            Ok::<_, ()>(if fails { Attempt::Fails } else { Attempt::Compiles })
        });
        assert_eq!(whole.unwrap().unwrap(), [NodeId(1), NodeId(5), NodeId(6)]);
        assert_eq!(find(8, &sets, 7).0, [NodeId(7)]);
    }

    #[test]
    fn a_named_node_ends_the_search_and_what_cannot_be_tried_too() {
        let nodes = ids(0..4);
        let pieces = Pieces::new(&nodes, &[]);
        let named = pieces.culprit(&nodes, |_| Ok::<_, ()>(Attempt::Names(NodeId(3))));
        assert_eq!(named, Ok(Some(vec![NodeId(3)])));
        assert_eq!(pieces.culprit(&nodes, |_| Ok::<_, ()>(Attempt::Unknown)), Ok(None));
        assert_eq!(
            Pieces::new(&[], &[]).culprit(&[], |_| Ok::<_, ()>(Attempt::Fails)),
            Ok(None)
        );
    }
}
