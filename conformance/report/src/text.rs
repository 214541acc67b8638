//! Texts that others wrote, made harmless for the format that they go into; numbers for people.

/// For element content and attribute values of HTML. Control characters become pictures of themselves.
pub(crate) fn html(text: &str) -> String {
    escape(text, true)
}

/// For element content and attribute values of XML 1.0, which has no way at all to hold most control characters.
pub(crate) fn xml(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, html: bool) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Written as references, so that an attribute keeps them as they are.
            '\t' | '\n' | '\r' if !html => out.push_str(&format!("&#{};", c as u32)),
            c => out.push(visible(c)),
        }
    }
    out
}

/// A control character as its picture (`␀`), anything that no file of text may hold as `�`.
pub(crate) fn visible(c: char) -> char {
    match c {
        '\t' | '\n' => c,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        // Others that XML discourages or forbids; those that turn the direction of text round could show a verdict as another.
        '\u{80}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// For one cell of a table in Markdown: one line, nothing that a renderer acts on.
pub(crate) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(visible(c)),
        }
    }
    out
}

/// For a code span or a line of a code block in Markdown: one line without backticks.
pub(crate) fn markdown_code(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '`' => '\u{2019}',
            c => visible(c),
        })
        .collect()
}

/// The beginning of a text, at most so many characters.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// Three significant digits: `0.0312`, `1.25e-7`, `12.5`, `4120`, `infinite`.
pub(crate) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_string(),
        v if !v.is_finite() => "infinite".to_string(),
        v if (1e-3..1e6).contains(&v.abs()) => {
            let digits = (2 - v.abs().log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{v:.digits$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                false => text,
            }
        }
        v => format!("{v:.2e}"),
    }
}

/// `3 cases`, `1 case`
pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out() {
        let bad = "</script><b a=\"x\" c='y'>&\u{1}\0\u{202e}\t|`*\n";
        assert_eq!(
            html(bad),
            "&lt;/script&gt;&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\u{2401}\u{2400}\u{fffd}\t|`*\n"
        );
        assert!(xml(bad).ends_with("\u{fffd}&#9;|`*&#10;"), "{}", xml(bad));
        let cell = markdown(bad);
        assert!(!cell.contains(['\n', '<', '\t']), "{cell}");
        assert!(cell.contains("\\|") && cell.contains("\\`"), "{cell}");
        assert!(!markdown_code(bad).contains(['`', '\n']));
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.03125, "0.0312"),
            (1.25e-7, "1.25e-7"),
            (12.5, "12.5"),
            (4120.0, "4120"),
            (100.0, "100"),
            (1.0, "1"),
            (2.5e9, "2.50e9"),
            (f64::INFINITY, "infinite"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(cut("häh", 2), "hä…");
        assert_eq!(cut("hä", 2), "hä");
        assert_eq!(plural(1, "case"), "1 case");
        assert_eq!(plural(0, "case"), "0 cases");
    }
}
