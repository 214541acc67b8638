//! Shards: a run in parts, on several machines.
//!
//! The cases of a run stand in the order of reports, category by category, and go to the shards in turn: each shard has as many of a
//! category as the others, give or take one. The cases of the category `abi`, which say what the library is, run in every shard, as the
//! mandatory tests of Khronos' fractions do: a shard of another build gives itself away. [`crate::merge`] joins them again.

use crate::category::Category;

/// Shard I of N, from 1.
pub type Shard = (u32, u32);

/// Reads `I/N`.
pub fn parse(text: &str) -> Option<Shard> {
    let (index, count) = text.split_once('/')?;
    let (index, count) = (index.parse().ok()?, count.parse().ok()?);
    (1..=count).contains(&index).then_some((index, count))
}

/// Whether every shard runs the case.
pub fn is_in_all(id: &str) -> bool {
    Category::of(id) == Some(Category::Abi)
}

/// The cases of a shard, of a run's cases in order.
pub fn share(ids: &[String], (index, count): Shard) -> Vec<String> {
    let mut turn = 0;
    let mut mine = Vec::new();
    for id in ids {
        if is_in_all(id) {
            mine.push(id.clone());
            continue;
        }
        if turn % count.max(1) == index.saturating_sub(1) {
            mine.push(id.clone());
        }
        turn += 1;
    }
    mine
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn shards_are_a_partition_but_for_what_all_run() {
        let mut ids: Vec<String> = (0..5).map(|i| format!("abi/{i}")).collect();
        ids.extend((0..13).map(|i| format!("memory/{i}")));
        ids.extend((0..30).map(|i| format!("op/{i}")));
        for count in 1..=7 {
            let shares: Vec<Vec<String>> = (1..=count).map(|index| share(&ids, (index, count))).collect();
            let all: BTreeSet<&String> = shares.iter().flatten().collect();
            assert_eq!(all.len(), ids.len(), "{count}");
            let total: usize = shares.iter().map(Vec::len).sum();
            assert_eq!(total, 43 + 5 * count as usize, "{count}");
            for category in ["memory/", "op/"] {
                let sizes: Vec<usize> = shares
                    .iter()
                    .map(|share| share.iter().filter(|id| id.starts_with(category)).count())
                    .collect();
                let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                assert!(most - least <= 1, "{category} {sizes:?}");
            }
        }
        assert_eq!(share(&ids, (1, 1)), ids);
    }

    #[test]
    fn only_shards_are_read() {
        assert_eq!(parse("2/4"), Some((2, 4)));
        for text in ["", "2", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
