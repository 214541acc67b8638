//! Conditions of `[[device]]` rules: a glob, or a comparison of versions or numbers.

use crate::glob::glob_match;
use std::cmp::Ordering;

/// What a property of a device has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The whole text matches this glob, whatever the case of its letters.
    Glob(String),
    /// The version is so to this one. Versions are the numbers in a text, in order: `r44p1` is 44, 1; missing ones are 0.
    Version(Comparison, Vec<u64>),
    /// The number is so to this one.
    Number(Comparison, f64),
}

/// How two things compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// What a property is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyKind {
    /// A name: globs only.
    Text,
    /// A version: globs and comparisons.
    Version,
    /// A number: comparisons only; a number alone is `=`.
    Number,
}

const SIGNS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("=", Comparison::Equal),
];

impl Condition {
    /// Reads a condition of a property.
    ///
    /// # Errors
    /// One sentence: what is compared with is no version or number, or the property is a name.
    pub fn parse(text: &str, kind: PropertyKind) -> Result<Condition, String> {
        let text = text.trim();
        let signed = SIGNS
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?.trim())));
        match (signed, kind) {
            (None, PropertyKind::Text | PropertyKind::Version) => Ok(Condition::Glob(text.to_string())),
            (Some(_), PropertyKind::Text) => {
                Err(format!("`{text}` compares, but this property is a name: give a glob"))
            }
            (Some((comparison, version)), PropertyKind::Version) => match numbers(version) {
                numbers if numbers.is_empty() => Err(format!("`{text}` compares with no version")),
                numbers => Ok(Condition::Version(comparison, numbers)),
            },
            (signed, PropertyKind::Number) => {
                let (comparison, number) = signed.unwrap_or((Comparison::Equal, text));
                match number.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Condition::Number(comparison, number)),
                    _ => Err(format!("`{text}` compares with no number")),
                }
            }
        }
    }

    /// Whether it holds for a value. A version is compared only with a text that has a number in it, a number with one.
    pub fn holds(&self, value: &str) -> bool {
        match self {
            Condition::Glob(glob) => glob_match(&glob.to_lowercase(), &value.to_lowercase()),
            Condition::Version(comparison, wanted) => {
                let own = numbers(value);
                !own.is_empty() && comparison.holds(compare(&own, wanted))
            }
            Condition::Number(comparison, wanted) => {
                let ordering = value.trim().parse::<f64>().ok().and_then(|own| own.partial_cmp(wanted));
                ordering.is_some_and(|ordering| comparison.holds(ordering))
            }
        }
    }
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Equal => ordering.is_eq(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
            Comparison::Greater => ordering.is_gt(),
        }
    }
}

/// The numbers of a text, in order.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect()
}

fn compare(a: &[u64], b: &[u64]) -> Ordering {
    let at = |numbers: &[u64], i: usize| numbers.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold() {
        use PropertyKind::{Number, Text, Version};
        let cases = [
            ("sm8[45]50", Text, "SM8450", true),
            ("sm8[45]50", Text, "sm8650", false),
            ("Mali*", Text, "mali-g715", true),
            ("<44", Version, "43.9", true),
            ("<44", Version, "44", false),
            ("<44", Version, "44.0.1", false),
            ("<44", Version, "r38p1", true),
            ("<44", Version, "5.4", true),
            ("<44", Version, "unknown", false),
            (">=1.2", Version, "1.10", true),
            (">= 1.2", Version, "1.2", true),
            (">=1.2", Version, "1.1.9", false),
            ("<=1.2", Version, "1.2.0", true),
            ("=1.2", Version, "1.2.0.0", true),
            (">1.2", Version, "1.2.0.1", true),
            ("24.*", Version, "24.2.1", true),
            ("24.*", Version, "25.0", false),
            ("<99999999999999999999999", Version, "1", true),
            ("<6", Number, "5.61", true),
            ("<5.7", Number, "5.61", true),
            ("<6", Number, "6", false),
            (">=8", Number, "7.99", false),
            ("4", Number, "4.0", true),
            ("4", Number, "", false),
        ];
        for (text, kind, value, expected) in cases {
            let condition = Condition::parse(text, kind).unwrap();
            assert_eq!(condition.holds(value), expected, "{text} of {value}");
        }
        for (text, kind) in [
            ("<44", Text),
            ("<", Version),
            ("<new", Version),
            ("<", Number),
            ("much", Number),
            ("<nan", Number),
        ] {
            assert!(Condition::parse(text, kind).is_err(), "{text}");
        }
    }
}
