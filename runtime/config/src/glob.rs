//! Globs on names.

/// Matches `*` (any characters), `?` (one character) and `[abc]` (one of these) against the whole of `text`. Linear in
/// practice: only the last `*` is ever retried.
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if let Some(width) = one(&pattern[p..], text[t]) {
            p += width;
            t += 1;
        } else if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Characters of the pattern that match `c`, if its next item is one that does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '*' => None,
        '?' => Some(1),
        '[' => match pattern.iter().position(|&x| x == ']') {
            Some(end) => pattern[1..end].contains(&c).then_some(end + 1),
            None => (c == '[').then_some(1),
        },
        &x => (x == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::glob_match;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("aten.softmax*", "aten.softmax.int", true),
            ("*", "", true),
            ("sm8[45]50", "sm8450", true),
            ("sm8[45]50", "sm8650", false),
            ("a?c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "x", false),
            ("[", "[", true),
        ] {
            assert_eq!(glob_match(pattern, text), want, "{pattern} {text}");
        }
    }
}
