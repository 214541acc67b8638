//! `report.html`: one file that needs no network, no script for what matters, and no server.
//!
//! The verdict, what was run, the categories, the grid and the failures are plain HTML, so that they stand there without script and in
//! print. The table of all cases is made by script from the data of [`data`], in pieces, and can be filtered and sorted.

mod data;
mod parts;

use crate::grid::grid;
use crate::standing::standings;
use crate::text::html;
use crate::truth::Truth;
use data::Limits;
use std::fmt::Write;

const STYLE: &str = include_str!("../../assets/base.css");
const REPORT_STYLE: &str = include_str!("../../assets/report.css");
const SCRIPT: &str = include_str!("../../assets/report.js");

/// A page stays below one megabyte; texts are shortened until it does.
const SIZE: usize = 1_000_000;

/// From all that a reader may want to the least that still tells the cases apart.
const LIMITS: [Limits; 6] = [
    Limits {
        failure: 4_000,
        other: 1_000,
        details: true,
    },
    Limits {
        failure: 2_000,
        other: 300,
        details: true,
    },
    Limits {
        failure: 500,
        other: 120,
        details: true,
    },
    Limits {
        failure: 300,
        other: 60,
        details: false,
    },
    Limits {
        failure: 100,
        other: 0,
        details: false,
    },
    Limits {
        failure: 0,
        other: 0,
        details: false,
    },
];

/// How many failures are written as plain HTML, and how many characters of the reason of each: the second column goes with [`LIMITS`].
const FAILURES: [(usize, usize); 6] = [(200, 1_000), (200, 500), (200, 300), (100, 200), (50, 100), (20, 100)];

/// The text of `report.html`.
pub fn page(truth: &Truth) -> String {
    let mut page = String::new();
    for (limits, failures) in LIMITS.into_iter().zip(FAILURES) {
        page = page_within(truth, limits, failures);
        if page.len() < SIZE {
            break;
        }
    }
    page
}

fn page_within(truth: &Truth, limits: Limits, (failures, reason): (usize, usize)) -> String {
    let standings = standings(truth);
    let title = match &truth.run.library {
        Some(library) => format!("{} {}", library.name, library.version),
        None => format!("conform {}", truth.run.suite),
    };
    let mut body = String::new();
    parts::header(&mut body, &title, truth);
    body.push_str("<main id=\"main\">");
    for standing in &standings {
        parts::verdict(&mut body, standing);
    }
    parts::identity(&mut body, truth);
    parts::grid(&mut body, &grid(truth));
    parts::failures(&mut body, truth, failures, reason);
    parts::waivers(&mut body, &standings, truth);
    parts::categories(&mut body, truth);
    parts::cases(&mut body, truth);
    body.push_str("</main>");
    let _ = write!(
        body,
        "<footer><p>Made from <a href=\"run.json\">run.json</a> and <a href=\"cases.jsonl\">cases.jsonl</a> by <code>delegraph conform report</code> of kit {}. \
         The same two files give the same page, byte for byte.</p></footer>",
        html(&truth.run.kit.version)
    );
    let _ = write!(
        body,
        "<script type=\"application/json\" id=\"data\">{}</script><script>{SCRIPT}</script>",
        data::embedded(&data::data(truth, limits))
    );
    document(
        &format!("Conformance of {title}"),
        &format!("{STYLE}{REPORT_STYLE}"),
        &body,
    )
}

/// A whole document. Its policy forbids every request to anywhere.
pub(crate) fn document(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
        html(title)
    )
}

/// A text as part of a fragment or of a relative address: every byte that is not plain is written in hexadecimal.
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
