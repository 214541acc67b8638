//! The sections of `report.html` that need no script.

use super::percent;
use crate::certificate::{file_name, why_none};
use crate::grid::{Grid, LETTERS, Tone};
use crate::standing::{Answer, Standing, Tally};
use crate::text::{cut, html, number, plural};
use crate::truth::{Truth, category_of};
use delegraph_runner::{CaseRecord, Verdict};
use std::fmt::Write;

/// Failures that are unfolded from the start.
const UNFOLDED: usize = 12;

pub(super) fn header(out: &mut String, title: &str, truth: &Truth) {
    let _ = write!(
        out,
        "<a class=\"jump\" href=\"#main\">To the verdict</a><header><div><p class=\"over\">Delegraph conformance report</p><h1>{}</h1>\
         <p class=\"sub\">kit {} · {} · {}</p></div><nav aria-label=\"Other forms of this report\"><a href=\"report.json\">JSON</a>\
         <a href=\"junit.xml\">JUnit</a><a href=\"report.md\">Markdown</a><a href=\"cases.jsonl\">Log</a>{}</nav></header>",
        html(title),
        html(&truth.run.kit.version),
        html(&truth.run.host),
        html(truth.run.started.get(..10).unwrap_or(&truth.run.started)),
        certificate_link(truth),
    );
}

/// A link to the certificate, where the run has one.
fn certificate_link(truth: &Truth) -> String {
    let library = truth.run.library.as_ref().filter(|_| why_none(truth).is_none());
    let name = library.and_then(|library| file_name(&library.name));
    name.map_or(String::new(), |name| {
        format!("<a href=\"{}\">Certificate</a>", percent(&name))
    })
}

pub(super) fn verdict(out: &mut String, standing: &Standing) {
    let (class, sign) = match standing.answer {
        Answer::Yes => ("good", "✓"),
        Answer::Conditional => ("warn", "!"),
        Answer::No => ("bad", "✗"),
        Answer::Open => ("open", "?"),
    };
    let device = match standing.device.as_str() {
        "" => String::new(),
        device => format!(" on {}", html(device)),
    };
    let abi = standing
        .abi
        .map_or(String::new(), |(major, minor)| format!(", ABI {major}.{minor}"));
    let _ = write!(
        out,
        "<section class=\"verdict {class}\" aria-label=\"Verdict\"><div class=\"answer\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span><div>\
         <p class=\"asked\"><b>{} {}</b>{device}{abi}: may I ship on this?</p><p class=\"said\">{}</p></div></div><ul class=\"tiles\">",
        html(&standing.delegate),
        html(&standing.version),
        html(&standing.sentence)
    );
    tally(out, "claimed, passed", standing.claimed, "k=claimed");
    tally(out, "beyond claims, passed", standing.taken, "k=taken");
    tally(out, "contract, passed", standing.contract, "k=unknown");
    let until = standing
        .waivers
        .iter()
        .filter_map(|waiver| waiver.expires.as_deref())
        .min();
    let waived = until.map_or(String::new(), |day| {
        format!(", first until {}", day.replace('-', "\u{2011}"))
    });
    let failed = "v=fail,fail-claimed,crash,hang";
    for (label, count, filter, tone) in [
        ("failures", standing.failures(), failed, "bad"),
        (
            &*format!("waived{waived}"),
            standing.count(Verdict::Waived),
            "v=waived",
            "warn",
        ),
        ("flaky", standing.count(Verdict::Flaky), "v=flaky", "warn"),
        (
            "quality warnings",
            standing.count(Verdict::QualityWarning),
            "v=quality-warning",
            "warn",
        ),
        (
            "not claimed, not taken",
            standing.not_claimed,
            "v=skip&amp;k=none",
            "plain",
        ),
        (
            "not run",
            standing.not_run,
            "v=skip&amp;k=claimed,taken,unknown",
            "warn",
        ),
    ] {
        let tone = if count == 0 { "plain" } else { tone };
        let _ = write!(
            out,
            "<li class=\"{tone}\"><a href=\"#{filter}\"><b>{count}</b><span>{}</span></a></li>",
            html(label)
        );
    }
    out.push_str("</ul></section>");
}

fn tally(out: &mut String, label: &str, tally: Tally, filter: &str) {
    let percent = (100 * tally.passed).checked_div(tally.total);
    let (tone, bar) = match percent {
        None => ("plain", String::new()),
        Some(100) => ("good", meter(100)),
        Some(percent) => ("part", meter(percent)),
    };
    let _ = write!(
        out,
        "<li class=\"{tone}\"><a href=\"#{filter}\"><b>{}<i>/{}</i></b><span>{label}</span>{bar}</a></li>",
        tally.passed, tally.total
    );
}

fn meter(percent: u64) -> String {
    format!("<span class=\"meter\" aria-hidden=\"true\"><span style=\"width:{percent}%\"></span></span>")
}

pub(super) fn identity(out: &mut String, truth: &Truth) {
    out.push_str("<section id=\"identity\"><h2>What was run</h2><dl>");
    for (label, value) in crate::identity::identity(truth) {
        let words = value.split(' ').map(|word| {
            match [40, 64].contains(&word.trim_end_matches(',').len())
                && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b',')
            {
                true => format!("<code class=\"hash\">{}</code>", html(word)),
                false => html(word),
            }
        });
        let _ = write!(
            out,
            "<div><dt>{label}</dt><dd>{}</dd></div>",
            words.collect::<Vec<_>>().join(" ")
        );
    }
    out.push_str("</dl></section>");
}

pub(super) fn failures(out: &mut String, truth: &Truth, most: usize, reason: usize) {
    let failures: Vec<&CaseRecord> = truth.cases.iter().filter(|case| case.verdict.is_failure()).collect();
    let _ = write!(
        out,
        "<section id=\"failures\"><h2>Failures <span class=\"count\">{}</span></h2>",
        failures.len()
    );
    if failures.is_empty() {
        out.push_str("<p>None.</p>");
    }
    let (first, rest) = failures.split_at(UNFOLDED.min(failures.len()));
    for case in first {
        failure(out, case, reason);
    }
    let rest = &rest[..rest.len().min(most.saturating_sub(first.len()))];
    if !rest.is_empty() {
        let _ = write!(
            out,
            "<details><summary>{} more</summary>",
            plural(rest.len() as u64, "failure")
        );
        for case in rest {
            failure(out, case, reason);
        }
        out.push_str("</details>");
    }
    let left = failures.len() - first.len() - rest.len();
    if left > 0 {
        let _ = write!(
            out,
            "<p>And {} in the <a href=\"#v=fail,fail-claimed,crash,hang\">table of all cases</a> and the <a href=\"cases.jsonl\">log</a>.</p>",
            plural(left as u64, "more failure")
        );
    }
    out.push_str("</section>");
}

fn failure(out: &mut String, case: &CaseRecord, reason: usize) {
    let letter = crate::grid::letter(case);
    let _ = write!(
        out,
        "<article class=\"failure\"><h3><span class=\"g bad {}\">{letter}</span> <span class=\"word\">{}</span> <code>{}</code></h3><p class=\"reason\">{}</p>",
        letter.to_ascii_lowercase(),
        case.verdict.name(),
        html(&case.id),
        html(&cut(&case.reason, reason))
    );
    let mut facts = Vec::new();
    if !case.tolerance.is_empty() {
        facts.push(format!("max_abs <b>{}</b>", number(case.max_abs)));
        facts.push(format!("max_rel <b>{}</b>", number(case.max_rel)));
        facts.push(format!("tolerance <b>{}</b>", html(&cut(&case.tolerance, 200))));
    }
    if !case.shapes.is_empty() {
        facts.push(format!("shapes <b>{}</b>", html(&cut(&case.shapes, 200))));
    }
    if let Some(link) = bundle_link(&case.bundle) {
        facts.push(format!("<a href=\"{link}\">bundle</a>"));
    }
    if !facts.is_empty() {
        let _ = write!(out, "<p class=\"facts\">{}</p>", facts.join(" · "));
    }
    if !case.repro.is_empty() {
        let _ = write!(out, "<pre class=\"repro\"><code>{}</code></pre>", html(&case.repro));
    }
    out.push_str("</article>");
}

/// The address of a bundle, where it lies below `bundles/`, as the runner writes it.
fn bundle_link(bundle: &str) -> Option<String> {
    let rest = bundle.strip_prefix("bundles/")?;
    let parts: Vec<&str> = rest.split('/').collect();
    let plain = parts
        .iter()
        .all(|part| !part.is_empty() && *part != "." && *part != "..");
    plain.then(|| {
        format!(
            "bundles/{}/",
            parts.iter().map(|part| percent(part)).collect::<Vec<_>>().join("/")
        )
    })
}

pub(super) fn waivers(out: &mut String, standings: &[Standing], truth: &Truth) {
    let waivers: Vec<_> = standings.iter().flat_map(|standing| &standing.waivers).collect();
    if waivers.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<section id=\"waivers\"><h2>Waived <span class=\"count\">{}</span></h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Waived cases\"><table><thead><tr><th scope=\"col\">Case</th>\
         <th scope=\"col\">Until</th><th scope=\"col\">Reason</th></tr></thead><tbody>",
        waivers.len()
    );
    for waiver in waivers.iter().take(100) {
        let until = match (&waiver.expires, waiver.days_left) {
            (Some(day), Some(left)) if left >= 0 => format!(
                "{day}<br><small>{} after the run</small>",
                plural(left.unsigned_abs(), "day")
            ),
            (Some(day), Some(_)) => format!("{day}<br><small>before the run</small>"),
            (Some(day), None) => day.clone(),
            (None, _) => "no date".to_string(),
        };
        let reason = truth
            .cases
            .iter()
            .find(|case| case.id == waiver.id)
            .map_or("", |case| case.reason.as_str());
        let _ = write!(
            out,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{until}</td><td>{}</td></tr>",
            html(&waiver.id),
            html(&cut(reason, 300))
        );
    }
    out.push_str("</tbody></table></div>");
    if waivers.len() > 100 {
        let _ = write!(
            out,
            "<p>And {} more in the <a href=\"#v=waived\">table of all cases</a>.</p>",
            waivers.len() - 100
        );
    }
    out.push_str("</section>");
}

pub(super) fn grid(out: &mut String, grid: &Grid) {
    if grid.rows.is_empty() {
        return;
    }
    out.push_str(
        "<section id=\"grid\"><h2>Operators by dtypes</h2><ul class=\"legend\" aria-label=\"What the letters mean\">",
    );
    for (letter, what, tone) in LETTERS {
        let _ = write!(
            out,
            "<li><span class=\"g {} {}\">{letter}</span>{}</li>",
            tone.name(),
            class(letter),
            html(what)
        );
    }
    out.push_str("<li><span class=\"g warn s\">S</span><span class=\"g warn p\">P</span>dashed and amber: all or some of what is claimed was not run</li><li><span class=\"k\"><span class=\"g good p\">P</span></span>taken beyond what the manifest claims</li></ul>");
    out.push_str(
        "<p class=\"tools needs-script\"><label><input type=\"checkbox\" id=\"grid-bad\"> only operators with something to know</label> \
         <span class=\"hint\">Arrow keys move, Enter shows the cases of a cell.</span></p>\
         <div class=\"scroll tall\"><table id=\"matrix\"><caption class=\"off\">Operators by dtypes: the worst result of each cell's cases</caption><thead><tr><th scope=\"col\">operator</th>",
    );
    for dtype in &grid.dtypes {
        let _ = write!(out, "<th scope=\"col\">{}</th>", html(dtype));
    }
    out.push_str("</tr></thead><tbody>");
    for (op, cells) in &grid.rows {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", html(op));
        for cell in cells {
            let Some(cell) = cell else {
                out.push_str("<td>.</td>");
                continue;
            };
            let beyond = if cell.beyond { " class=\"k\"" } else { "" };
            let _ = write!(
                out,
                "<td{beyond}><span class=\"g {} {}\">{}</span>",
                cell.tone.name(),
                class(cell.letter),
                cell.letter
            );
            // Numbers where the letter does not say it all.
            if cell.passed < cell.total && cell.tone != Tone::Quiet {
                let _ = write!(out, "<small>{}/{}</small>", cell.passed, cell.total);
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>");
}

/// The class that gives a letter its shape.
fn class(letter: char) -> &'static str {
    match letter {
        'C' => "c",
        'H' => "h",
        'F' => "f",
        '~' => "y",
        'X' => "x",
        'W' => "w",
        'P' => "p",
        'S' => "s",
        'U' => "u",
        _ => "n",
    }
}

pub(super) fn categories(out: &mut String, truth: &Truth) {
    out.push_str(
        "<section id=\"categories\"><h2>By category</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Counts by category\"><table class=\"numbers\"><thead><tr><th scope=\"col\">category</th><th scope=\"col\">cases</th>",
    );
    for verdict in Verdict::ALL {
        let _ = write!(out, "<th scope=\"col\">{}</th>", verdict.name());
    }
    out.push_str("</tr></thead><tbody>");
    for cases in truth.cases.chunk_by(|a, b| category_of(a) == category_of(b)) {
        let name = cases.first().map_or("other", category_of);
        let link = percent(name);
        let _ = write!(
            out,
            "<tr><th scope=\"row\"><a href=\"#c={link}\">{}</a></th><td>{}</td>",
            html(name),
            cases.len()
        );
        for verdict in Verdict::ALL {
            counted(out, cases, verdict, &format!("c={link}&amp;v={}", verdict.name()));
        }
        out.push_str("</tr>");
    }
    let _ = write!(
        out,
        "</tbody><tfoot><tr><th scope=\"row\">all</th><td>{}</td>",
        truth.cases.len()
    );
    for verdict in Verdict::ALL {
        counted(out, &truth.cases, verdict, &format!("v={}", verdict.name()));
    }
    out.push_str("</tr></tfoot></table></div></section>");
}

fn counted(out: &mut String, cases: &[CaseRecord], verdict: Verdict, link: &str) {
    let tone = match verdict {
        Verdict::Pass => "good",
        Verdict::Skip => "quiet",
        verdict if verdict.is_failure() => "bad",
        _ => "warn",
    };
    let _ = match cases.iter().filter(|case| case.verdict == verdict).count() {
        0 => write!(out, "<td class=\"zero\">0</td>"),
        n => write!(out, "<td class=\"{tone}\"><a href=\"#{link}\">{n}</a></td>"),
    };
}

pub(super) fn cases(out: &mut String, truth: &Truth) {
    let _ = write!(
        out,
        "<section id=\"cases\"><h2>All cases <span class=\"count\">{}</span></h2>\
         <noscript><p class=\"note\">This table is made by script. All that stands above needs none, and all cases stand in <a href=\"cases.jsonl\">cases.jsonl</a>, one a line.</p></noscript>\
         <div id=\"explorer\" class=\"needs-script\"></div></section>",
        truth.cases.len()
    );
}
