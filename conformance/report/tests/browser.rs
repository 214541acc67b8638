//! The pages in a real browser, by `check_page.py`. Without Chromium or Python nothing is checked, and that is said.

mod made_up;

use delegraph_report::check::Question;
use delegraph_report::index::{Gather, gather, page};
use delegraph_report::write_views_with;
use std::path::Path;
use std::process::Command;

#[test]
fn the_pages_are_used_as_a_person_would() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    for (place, count, failing) in [
        (&report, 5_000, true),
        (&folder.path().join("all/good"), 300, false),
        (&folder.path().join("all/bad"), 300, true),
    ] {
        made_up::write(place, &made_up::run(count as u64), &made_up::cases(count, failing));
        write_views_with(place, &|_| Some(Default::default())).unwrap();
    }
    let all = folder.path().join("all");
    let list = |_: &_| Some(("77aa".repeat(16), Vec::new()));
    let question = Question {
        folder: &all,
        library: None,
        list: &list,
        matches: |_, _| true,
    };
    let index = gather(Gather { folder: &all, question }).unwrap();
    std::fs::write(all.join("index.html"), page(&index, "")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check_page.py");
    for place in [&report, &all] {
        let output = match Command::new("python3").arg(&script).arg(place).output() {
            Ok(output) => output,
            Err(error) => return println!("skipped: python3: {error}"),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            Some(77) => return println!("{said}"),
            code => assert_eq!(code, Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}
