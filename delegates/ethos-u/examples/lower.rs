//! Writes the TOSA graphs of cases: `cargo run -p delegraph-ethos-u --example lower -- CASES OUT`. `tests/make_cases.py` calls it.

#[path = "../tests/common/mod.rs"]
mod common;

use delegraph_ethos_u::target::TARGETS;
use delegraph_ethos_u::{lower, tosa};
use delegraph_sdk::image::verify;
use std::path::PathBuf;

fn main() {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(cases), Some(out)) = (words.next(), words.next()) else {
        eprintln!("usage: lower CASES OUT");
        std::process::exit(2);
    };
    for target in TARGETS {
        let folder = out.join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for name in common::names(&cases) {
            let (image, constants) = common::image(&common::read(&cases, &name));
            match lower(&verify(&image).unwrap(), target, &constants) {
                Ok(graph) => std::fs::write(folder.join(format!("{name}.tosa")), tosa::write(&graph)).unwrap(),
                Err(error) => eprintln!("{} {name}: {error}", target.name),
            }
        }
    }
}
