//! Writes a made-up run and its views, for looking at the pages: `cargo run -p delegraph-report --example made_up -- FOLDER [CASES] [good]`

#[path = "../tests/made_up/mod.rs"]
mod made_up;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("FOLDER is missing")?);
    let count: usize = arguments.next().map_or(Ok(500), |count| count.parse())?;
    let failing = arguments.next().is_none();
    let cases = made_up::cases(count, failing);
    made_up::write(&folder, &made_up::run(count as u64), &cases);
    let report = delegraph_report::write_views(&folder)?;
    println!("{} cases in {}", report.summary.total, folder.display());
    Ok(())
}
