//! `index.html`: one page that needs no network, with links to the reports.

use super::{Entry, Index, Step, Unsound};
use crate::diff::Change;
use crate::html::{document, percent};
use crate::text::{cut, html, plural};
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("../../assets/base.css");
const INDEX_STYLE: &str = include_str!("../../assets/index.css");
const SCRIPT: &str = include_str!("../../assets/index.js");

/// The text of `index.html`. `base` leads from the page to the folder that was looked through: empty, or a path that ends in `/`.
pub fn page(index: &Index, base: &str) -> String {
    let mut body = String::new();
    let count = |answer: &str| index.reports.iter().filter(|entry| entry.answer == answer).count();
    let _ = write!(
        body,
        "<a class=\"jump\" href=\"#main\">To the reports</a><header><div><p class=\"over\">Delegraph conformance</p><h1>{}</h1><p class=\"sub\">{} yes, {} with conditions, {} no, {} not known; {} not counted</p></div></header><main id=\"main\">",
        plural(index.reports.len() as u64 + index.unsound.len() as u64, "report"),
        count("yes"),
        count("conditions"),
        count("no"),
        count("open"),
        index.unsound.len()
    );
    unsound(&mut body, &index.unsound);
    matrix(&mut body, &index.reports, base);
    steps(&mut body, &index.steps, base);
    list(&mut body, &index.reports, base);
    body.push_str("</main><footer><p>Made by <code>delegraph conform index</code> from the reports themselves; each was checked first. The same as data: <a href=\"index.json\">index.json</a>.</p></footer>");
    let _ = write!(body, "<script>{SCRIPT}</script>");
    document("Delegraph conformance: index", &format!("{STYLE}{INDEX_STYLE}"), &body)
}

fn link(base: &str, folder: &str) -> String {
    let parts: Vec<String> = folder.split('/').filter(|part| *part != ".").map(percent).collect();
    let folder = parts.iter().fold(String::new(), |path, part| path + part + "/");
    format!("{base}{folder}report.html")
}

/// A sign whose shape says the same as its colour, and a word for those who hear the page.
fn sign(answer: &str) -> String {
    let (class, sign, word) = match answer {
        "yes" => ("good p", "✓", "yes"),
        "conditions" => ("warn w", "!", "with conditions"),
        "no" => ("bad c", "✗", "no"),
        _ => ("plain s", "?", "not known"),
    };
    format!("<span class=\"g {class}\" aria-hidden=\"true\">{sign}</span><span class=\"off\">{word} </span>")
}

fn unsound(out: &mut String, folders: &[Unsound]) {
    if folders.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<section id=\"unsound\"><h2>Not counted <span class=\"count\">{}</span></h2><p>These folders did not pass the check.</p><ul>",
        folders.len()
    );
    for folder in folders {
        let _ = write!(out, "<li><code>{}</code><ul>", html(&folder.folder));
        for finding in folder.findings.iter().take(5) {
            let _ = write!(out, "<li>{}</li>", html(&cut(finding, 300)));
        }
        if folder.findings.len() > 5 {
            let _ = write!(out, "<li>and {} more</li>", folder.findings.len() - 5);
        }
        out.push_str("</ul></li>");
    }
    out.push_str("</ul></section>");
}

/// Libraries by devices and drivers. A cell has the newest report of each kit.
fn matrix(out: &mut String, reports: &[Entry], base: &str) {
    let column = |entry: &Entry| match entry.device.as_str() {
        "" => (entry.host.clone(), String::new()),
        device => (device.to_string(), entry.driver.clone()),
    };
    let mut columns: Vec<(String, String)> = reports.iter().map(column).collect();
    columns.sort();
    columns.dedup();
    let mut rows: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in reports {
        rows.entry((&entry.delegate, &entry.vendor)).or_default().push(entry);
    }
    out.push_str("<section id=\"matrix-section\"><h2>Libraries by devices</h2><ul class=\"legend\" aria-label=\"What the signs mean\">");
    for (answer, what) in [
        ("yes", "may be shipped, for what it claims"),
        ("conditions", "with conditions"),
        ("no", "may not"),
        ("open", "not known"),
    ] {
        let _ = write!(out, "<li>{}{what}</li>", sign(answer));
    }
    out.push_str("</ul><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Libraries by devices\"><table><thead><tr><th scope=\"col\">library</th>");
    for (device, driver) in &columns {
        let driver = if driver.is_empty() {
            String::new()
        } else {
            format!("<br><small>driver {}</small>", html(driver))
        };
        let _ = write!(out, "<th scope=\"col\">{}{driver}</th>", html(device));
    }
    out.push_str("</tr></thead><tbody>");
    for ((delegate, vendor), mut entries) in rows {
        entries.sort_by(|a, b| super::by_version(&b.version, &a.version));
        for version in entries.chunk_by(|a, b| a.version == b.version) {
            let name = version.first().map_or("", |entry| entry.version.as_str());
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{} {}<br><small>{}</small></th>",
                html(delegate),
                html(name),
                html(vendor)
            );
            for wanted in &columns {
                out.push_str("<td>");
                let mut newest: BTreeMap<&str, &Entry> = BTreeMap::new();
                for entry in version.iter().filter(|entry| column(entry) == *wanted) {
                    let known = newest.entry(&entry.kit).or_insert(entry);
                    if known.started <= entry.started {
                        *known = entry;
                    }
                }
                for entry in newest.values() {
                    let _ = write!(
                        out,
                        "<a class=\"cell\" href=\"{}\">{}<span>{}<small>kit {}</small></span></a>",
                        link(base, &entry.folder),
                        sign(&entry.answer),
                        tally(entry),
                        html(&entry.kit)
                    );
                }
                if newest.is_empty() {
                    out.push_str(
                        "<span class=\"none\" aria-hidden=\"true\">–</span><span class=\"off\">not run</span>",
                    );
                }
                out.push_str("</td>");
            }
            out.push_str("</tr>");
        }
    }
    out.push_str("</tbody></table></div></section>");
}

/// What a cell says in numbers.
fn tally(entry: &Entry) -> String {
    let (passed, claimed) = entry.claimed;
    match (entry.failures, claimed) {
        (0, 0) => format!("{} cases", entry.cases),
        (0, _) => format!("{passed}/{claimed}"),
        (n, _) => format!("{passed}/{claimed}, {}", plural(n, "failure")),
    }
}

fn steps(out: &mut String, steps: &[Step], base: &str) {
    let _ = write!(
        out,
        "<section id=\"regressions\"><h2>Worse than the version before <span class=\"count\">{}</span></h2>",
        steps.len()
    );
    if steps.is_empty() {
        out.push_str("<p>Nothing.</p>");
    }
    for (i, step) in steps.iter().enumerate() {
        let also = match step.also.is_empty() {
            true => String::new(),
            false => format!(" (the {} changed too)", html(&step.also.join(", "))),
        };
        let _ = write!(
            out,
            "<details{}><summary>{} {}: <a href=\"{}\">{}</a> → <a href=\"{}\">{}</a>, {}{also}</summary><ol>",
            if i == 0 { " open" } else { "" },
            html(&step.delegate),
            html(&format!(
                "on {}",
                if step.device.is_empty() {
                    "this host"
                } else {
                    &step.device
                }
            )),
            link(base, &step.before.1),
            html(&step.before.0),
            link(base, &step.after.1),
            html(&step.after.0),
            plural(step.count, "regression")
        );
        for change in step.regressions.iter().take(10) {
            change_item(out, change);
        }
        out.push_str("</ol>");
        if step.count > 10 {
            let _ = write!(
                out,
                "<p class=\"hint\">And {} more: <code>delegraph conform diff {} {}</code></p>",
                step.count - 10,
                html(&step.before.1),
                html(&step.after.1)
            );
        }
        out.push_str("</details>");
    }
    out.push_str("</section>");
}

fn change_item(out: &mut String, change: &Change) {
    let what = match change.p50_us {
        Some((was, is)) => format!("{was:.0} µs → {is:.0} µs, {:+.0} %", 100.0 * (is / was - 1.0)),
        None => format!("{} → {}", change.before.name(), change.after.name()),
    };
    let _ = write!(
        out,
        "<li><b>{what}</b> <code>{}</code> {}</li>",
        html(&change.id),
        html(&cut(&change.reason, 160))
    );
}

fn list(out: &mut String, reports: &[Entry], base: &str) {
    out.push_str(
        "<section id=\"reports\"><h2>All reports</h2><p class=\"tools needs-script\"><input type=\"search\" id=\"q\" placeholder=\"Filter by words\" aria-label=\"Filter by words\"> <span role=\"status\" id=\"shown\"></span></p>\
         <div class=\"scroll\"><table id=\"list\"><thead><tr>",
    );
    for name in [
        "Answer",
        "Delegate",
        "Version",
        "Device",
        "Driver",
        "Kit",
        "Lists",
        "Claimed",
        "Failures",
        "Started",
        "As a submission",
    ] {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for entry in reports {
        let lacks = match entry.lacks.len() {
            0 => "complete".to_string(),
            n => format!(
                "<span title=\"{}\">lacks {n}</span>",
                html(&cut(&entry.lacks.join("\n"), 500))
            ),
        };
        let _ = write!(
            out,
            "<tr><td>{}<a href=\"{}\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}/{}</td><td>{}</td><td>{}</td><td>{lacks}</td></tr>",
            sign(&entry.answer),
            link(base, &entry.folder),
            html(&entry.answer),
            html(&entry.delegate),
            html(&entry.version),
            html(if entry.device.is_empty() {
                &entry.host
            } else {
                &entry.device
            }),
            html(&entry.driver),
            html(&entry.kit),
            html(&entry.lists.join(" ")),
            entry.claimed.0,
            entry.claimed.1,
            entry.failures,
            html(entry.started.get(..10).unwrap_or(&entry.started)),
        );
    }
    out.push_str("</tbody></table></div></section>");
}
