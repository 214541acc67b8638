//! "Did you mean": the nearest of a list of names.

use alloc::vec::Vec;

/// Nobody types longer names, and comparing two takes time in proportion to the product of their lengths: a file from a
/// stranger must not make a hint take minutes.
const LONGEST: usize = 256;

/// The name among `candidates` that is nearest to `name` by edit distance, if it is near enough to be a slip of the hand
/// (at most a third of its letters differ).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .filter(|c| c.len() <= LONGEST)
        .map(|c| (distance(name, c), c))
        .filter(|(d, c)| *d <= c.chars().count().max(3) / 3)
        .min()
        .map(|(_, c)| c)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_nothing_else() {
        let keys = ["fallback", "order", "min_nodes"];
        assert_eq!(nearest("falback", keys), Some("fallback"));
        assert_eq!(nearest("min_node", keys), Some("min_nodes"));
        assert_eq!(nearest("colour", keys), None);
    }

    #[test]
    fn long_names_are_not_compared() {
        let long = "x".repeat(1 << 24);
        assert_eq!(nearest(&long, ["x", &long]), None);
        assert_eq!(nearest("orde", [&long, "order"]), Some("order"));
    }
}
