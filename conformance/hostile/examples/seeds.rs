//! Writes the seeds and the corpus of every target below a folder, one folder a target, for the fuzzer to start from:
//! `cargo run -p delegraph-hostile --example seeds -- runtime/fuzz/corpus`

use delegraph_hostile::TARGETS;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or("runtime/fuzz/corpus".into()));
    for target in &TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, (_, bytes)) in target.seeds().iter().chain(&target.corpus()).enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), bytes)?;
        }
        println!("{}", folder.display());
    }
    Ok(())
}
