//! `badge.svg`: two fields, what and how. The words carry the meaning; the colour repeats it.

use crate::standing::{Answer, Standing};
use crate::text::html;
use std::fmt::Write;

/// The words of the right field: `412/412 claimed`, `3 failures`, `not finished`.
pub(crate) fn words(standing: &Standing) -> String {
    match standing.answer {
        Answer::No => crate::text::plural(standing.failures(), "failure"),
        Answer::Open => "not known".to_string(),
        Answer::Yes | Answer::Conditional => {
            let tally = match (standing.claimed.total, standing.taken.total) {
                (0, 0) => format!("{} contract", standing.contract),
                (0, _) => format!("{} taken", standing.taken),
                _ => format!("{} claimed", standing.claimed),
            };
            match standing.answer {
                Answer::Conditional => format!("{tally}, with conditions"),
                _ => tally,
            }
        }
    }
}

/// The text of `badge.svg`. With several delegates the worst of them.
pub fn badge(standings: &[Standing]) -> String {
    let order = [Answer::No, Answer::Open, Answer::Conditional, Answer::Yes];
    let worst = standings
        .iter()
        .min_by_key(|standing| order.iter().position(|answer| *answer == standing.answer));
    let (right, color) = match worst {
        Some(standing) => {
            let color = match standing.answer {
                Answer::Yes => "#1a7f37",
                Answer::Conditional => "#8a5a00",
                Answer::No => "#b3261e",
                Answer::Open => "#57606a",
            };
            (words(standing), color)
        }
        None => ("not run".to_string(), "#57606a"),
    };
    let left = "delegraph conformance";
    let (a, b) = (width(left), width(&right));
    let (total, right) = (a + b, html(&right));
    let mut out = String::new();
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{left}: {right}">
<title>{left}: {right}</title>
<clipPath id="r"><rect width="{total}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="{a}" height="20" fill="#32383f"/><rect x="{a}" width="{b}" height="20" fill="{color}"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{}" y="14" textLength="{}">{left}</text>
<text x="{}" y="14" textLength="{}">{right}</text>
</g>
</svg>
"##,
        a / 2,
        a - 12,
        a + b / 2,
        b - 12
    );
    out
}

/// Width of a field for a text: seven units a character, with a margin. The text is stretched to it, whatever the font.
fn width(text: &str) -> usize {
    text.chars().count() * 7 + 12
}
