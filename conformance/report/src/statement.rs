//! `statement.md`: who hands a report in, for which product, and when.

use crate::standing::{days, device_of};
use crate::truth::Truth;

/// The name of the file.
pub const STATEMENT: &str = "statement.md";

/// The fields that have to be filled in.
const FIELDS: [&str; 5] = ["Submitter", "Contact", "Product", "Date", "Signed"];

/// A statement to fill in: what the run tells stands in it, the rest is empty.
pub fn template(truth: &Truth) -> String {
    let library = truth.run.library.clone().unwrap_or_default();
    let lists: Vec<&str> = truth.run.lists.iter().map(|list| list.name.as_str()).collect();
    let lists = match lists.is_empty() {
        true => "no list".to_string(),
        false => lists.join(", "),
    };
    format!(
        "# Statement\n\n\
         Fill in what stands behind the colons; `delegraph conform report --check` reads it.\n\n\
         - Submitter: \n\
         - Contact: \n\
         - Product: \n\
         - Date: \n\
         - Signed: \n\n\
         - Library: {} {} of {}, {}\n\
         - SHA-256: {}\n\
         - Device: {}\n\
         - Kit: {} ({}), {lists}\n\n\
         The library with this hash is the one that ships in the product named above. The results in this folder are those of one run of the\n\
         unchanged kit over it on the device named above; no case was left out, and no result was changed. Every failure that is let off stands in\n\
         the waivers that are handed in with it.\n",
        library.name,
        library.version,
        library.vendor,
        library.file,
        library.sha256,
        device_of(truth).unwrap_or_else(|| "none listed".to_string()),
        truth.run.kit.version,
        truth.run.kit.commit,
    )
}

/// What is wrong with a statement for this run, one line each.
pub(crate) fn problems(text: &str, truth: &Truth) -> Vec<String> {
    let mut problems = Vec::new();
    for field in FIELDS {
        let value = value(text, field);
        match (field, value) {
            (_, None) => problems.push(format!("the field `{field}` is missing")),
            (_, Some("")) => problems.push(format!("the field `{field}` is empty")),
            ("Date", Some(date)) if days(date).is_none() => {
                problems.push(format!(
                    "`Date` is no date such as 2026-11-22: `{}`",
                    crate::text::cut(date, 40)
                ));
            }
            _ => {}
        }
    }
    if let Some(library) = &truth.run.library
        && value(text, "SHA-256") != Some(library.sha256.as_str())
    {
        problems.push("its `SHA-256` is not that of the library that was run".to_string());
    }
    problems
}

/// What stands behind `- FIELD:` of a line.
fn value<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix("- ")?.strip_prefix(field)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::RunInfo;
    use delegraph_runner::run_info::LibraryId;

    #[test]
    fn a_template_is_not_a_statement() {
        let run = RunInfo {
            library: Some(LibraryId {
                name: "npu".to_string(),
                sha256: "ab".repeat(32),
                ..LibraryId::default()
            }),
            ..RunInfo::default()
        };
        let truth = Truth::new(run, Vec::new());
        let empty = template(&truth);
        assert_eq!(problems(&empty, &truth).len(), 5);
        let filled = empty
            .replace("Submitter: ", "Submitter: Acme")
            .replace("Contact: ", "Contact: a@example.org")
            .replace("Product: ", "Product: Phone 3")
            .replace("Date: ", "Date: 2026-11-22")
            .replace("Signed: ", "Signed: Jo Doe");
        assert!(problems(&filled, &truth).is_empty(), "{:?}", problems(&filled, &truth));
        assert_eq!(problems(&filled.replace("2026-11-22", "soon"), &truth).len(), 1);
        assert_eq!(problems(&filled.replace("abab", "abcd"), &truth).len(), 1);
        assert_eq!(problems("", &truth).len(), 6);
    }
}
