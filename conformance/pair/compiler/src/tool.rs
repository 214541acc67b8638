//! The external tool: `pair-tool GRAPH BLOB DELAY_MS`. It "compiles" a graph image in five steps, each of which takes its delay, and
//! says so on standard output.

use std::process::ExitCode;
use std::time::Duration;

/// What a compiled graph begins with.
const MAGIC: &[u8; 8] = b"PAIRCODE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, from, to, delay] = arguments.as_slice() else {
        eprintln!("usage: pair-tool GRAPH BLOB DELAY_MS");
        return ExitCode::from(2);
    };
    let delay = Duration::from_millis(delay.parse().unwrap_or(0));
    let Ok(graph) = std::fs::read(from) else {
        return ExitCode::from(3);
    };
    for (i, step) in ["reading", "fusing", "layout", "packing", "writing"].iter().enumerate() {
        println!("{}/5 {step}", i + 1);
        std::thread::sleep(delay);
    }
    let blob = [MAGIC.as_slice(), &graph].concat();
    match std::fs::write(to, blob) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(4),
    }
}
