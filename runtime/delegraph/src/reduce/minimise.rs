//! Delta debugging: the smallest part of a list that still fails.

/// Shrinks a list that fails to one of which no single item can be left out, where `fails` lets it: first from its end, then
/// from its beginning, then by parts and by what is left without them. An answer of false only keeps an item, so that a
/// `fails` that gives up makes this end.
///
/// # Errors
/// Those of `fails`.
pub(crate) fn minimise<T: Copy, E>(items: &[T], fails: &mut dyn FnMut(&[T]) -> Result<bool, E>) -> Result<Vec<T>, E> {
    let mut items = items.to_vec();
    // `items[..high]` fails, `items[..low]` does not.
    let (mut low, mut high) = (0, items.len());
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fails(&items[..middle])? {
            true => high = middle,
            false => low = middle,
        }
    }
    items.truncate(high);
    // `items[low..]` fails, `items[high..]` does not.
    let (mut low, mut high) = (0, items.len());
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fails(&items[middle..])? {
            true => low = middle,
            false => high = middle,
        }
    }
    items.drain(..low);
    let mut parts = 2;
    while items.len() > 1 {
        let size = items.len().div_ceil(parts);
        let mut smaller = None;
        for start in (0..items.len()).step_by(size) {
            let end = (start + size).min(items.len());
            if fails(&items[start..end])? {
                smaller = Some((items[start..end].to_vec(), 2));
                break;
            }
        }
        // Of two parts, each is what is left without the other.
        for start in (0..items.len())
            .step_by(size)
            .take_while(|_| smaller.is_none() && parts > 2)
        {
            let end = (start + size).min(items.len());
            let rest: Vec<T> = items[..start].iter().chain(&items[end..]).copied().collect();
            if fails(&rest)? {
                smaller = Some((rest, (parts - 1).max(2)));
                break;
            }
        }
        match smaller {
            Some((rest, next)) => (items, parts) = (rest, next),
            None if size == 1 => break,
            None => parts = (parts * 2).min(items.len()),
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    proptest! {
        #[test]
        fn exactly_the_culprits_remain(length in 1usize..60, culprits in prop::collection::btree_set(0usize..60, 1..4)) {
            let culprits: Vec<usize> = culprits.into_iter().map(|c| c % length).collect();
            let items: Vec<usize> = (0..length).collect();
            let mut tries = 0;
            let found = minimise(&items, &mut |part: &[usize]| {
                tries += 1;
                Ok::<bool, Infallible>(culprits.iter().all(|c| part.contains(c)))
            }).unwrap();
            let mut wanted = culprits.clone();
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(found, wanted);
            prop_assert!(tries < 40 * 60, "{} tries", tries);
        }
    }

    #[test]
    fn one_that_gives_up_ends() {
        let items: Vec<u32> = (0..1000).collect();
        let mut tries = 0;
        let found = minimise(&items, &mut |part: &[u32]| {
            tries += 1;
            Ok::<bool, Infallible>(tries < 4 && part.contains(&400))
        });
        assert!(found.unwrap().contains(&400));
        assert!(tries < 10_000);
    }
}
