//! Globs on names.

/// Matches a glob: `*` any text, `?` one character, `[ab]` and `[!ab]` one of a set. The whole text must match.
///
/// Linear in `pattern` times `text`: only the last `*` is ever taken back.
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = match_one(&pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The position in the pattern after its item at `at`, if that matches the character.
fn match_one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => {
            // An unclosed bracket is an ordinary character; a set has at least one member.
            let Some(length) = pattern
                .get(at + 2..)
                .and_then(|rest| rest.iter().position(|x| *x == ']'))
            else {
                return (c == '[').then_some(at + 1);
            };
            let set = &pattern[at + 1..at + 2 + length];
            let (negated, set) = match set {
                ['!', rest @ ..] if !rest.is_empty() => (true, rest),
                set => (false, set),
            };
            let mut found = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    found |= (set[i]..=set[i + 2]).contains(&c);
                    i += 3;
                } else {
                    found |= set[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(at + 2 + length + 1)
        }
        literal => (*literal == c).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::glob_match;

    #[test]
    fn patterns() {
        let cases = [
            ("aten.softmax*", "aten.softmax.int", true),
            ("aten.softmax*", "aten._softmax", false),
            ("*softmax*", "aten._softmax", true),
            ("sm8[45]50", "sm8450", true),
            ("sm8[45]50", "sm8650", false),
            ("sm8[!45]50", "sm8650", true),
            ("r[0-3]", "r2", true),
            ("r[0-3]", "r4", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a[", "a[", true),
            ("a[b", "ab", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob_match(pattern, text), expected, "{pattern} on {text}");
        }
        assert!(!glob_match(&"*a".repeat(40), &"a".repeat(20_000).replace("aa", "ab")));
    }
}
