//! `delegraph conform diff`: what changed from one run to another.

use crate::args::{DiffArgs, Global};
use crate::output::{Output, Tint};
use delegraph_report::diff::{Side, difference};

/// Runs the command. The answer is no where there are regressions.
///
/// # Errors
/// A side cannot be read.
pub fn run(args: &DiffArgs, _global: &Global, output: &Output) -> anyhow::Result<u8> {
    let before = Side::read(&args.before).map_err(super::report::error)?;
    let after = Side::read(&args.after).map_err(super::report::error)?;
    let difference = difference(&before, &after);
    for line in difference.lines() {
        let is_title = line.ends_with(" regressions");
        let tint = if is_title && difference.exit_code != 0 {
            Tint::Red
        } else {
            Tint::Bold
        };
        output.data(if is_title { output.tint(tint, line) } else { line });
    }
    output.json(&serde_json::to_value(&difference)?)?;
    Ok(difference.exit_code)
}
