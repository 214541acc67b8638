//! Prints the graphs of `.pt2` archives: `dump [--quiet] FILE...`. With `--quiet`, one line a file.

use delegraph_import::{ImportOptions, import};

fn main() {
    let (mut quiet, mut failed) = (false, 0);
    for argument in std::env::args().skip(1) {
        if argument == "--quiet" {
            quiet = true;
            continue;
        }
        let start = std::time::Instant::now();
        match import(argument.as_ref(), &ImportOptions::default()) {
            Err(error) => {
                println!("FAIL {argument}: {error}");
                failed += 1;
            }
            Ok(module) if quiet => {
                let nodes: usize = module.graphs.iter().map(|g| g.nodes.len()).sum();
                let (states, constants) = (module.states.len(), module.constants.len());
                println!(
                    "ok   {argument}: {nodes} nodes, {constants} constants, {states} states, {:.1?}",
                    start.elapsed()
                );
            }
            Ok(module) => println!("{module}"),
        }
    }
    std::process::exit(i32::from(failed > 0));
}
