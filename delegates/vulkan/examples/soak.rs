//! Runs a small region many times on every device, and looks whether anything grows: memory of the process, open files, threads, device memory. The bits
//! of each run are compared with those of the first.
//!
//! ```text
//! cargo run --release -p delegraph-vulkan --example soak -- 10000
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::{How, Numbers, available, devices, image, input, run};
use delegraph_host::CallOptions;
use std::error::Error;

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident: u64,
    files: usize,
    threads: usize,
    allocations: u64,
    used: u64,
}

impl Held {
    fn now() -> Result<Held, Box<dyn Error>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let digits = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
        Ok(Held {
            resident: digits.parse::<u64>()? * 1024,
            files: std::fs::read_dir("/proc/self/fd")?.count(),
            threads: std::fs::read_dir("/proc/self/task")?.count(),
            allocations: delegraph_vulkan::sys::allocated(),
            used: delegraph_vulkan::sys::used(),
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let Some(delegate) = available(serde_json::json!({})) else {
        return Ok(());
    };
    let names: Vec<String> = delegate.devices()?.into_iter().map(|d| d.name).collect();
    let blob = delegate.compile(&image(), &*Numbers::new(), "")?;
    let mut grew = false;
    for device in devices(&delegate) {
        let mut session = delegate.load_with(&blob, Numbers::new(), Some(device), &CallOptions::default())?;
        let sizes = [64, 1, 17, 33];
        let first: Vec<Vec<f32>> = sizes
            .iter()
            .map(|rows| run(&mut session, &input(*rows, 1), &How::default()))
            .collect::<Result<_, _>>()?;
        let mut before = Held::now()?;
        for at in 0..runs {
            // The first tenth is to warm up.
            if at == runs / 10 {
                before = Held::now()?;
            }
            let which = at % sizes.len();
            let how = How {
                submitted: at % 3 == 0,
                ..How::default()
            };
            let out = run(&mut session, &input(sizes[which], 1), &how)?;
            let same = out.iter().zip(&first[which]).all(|(a, b)| a.to_bits() == b.to_bits());
            if !same {
                return Err(format!("run {at} on {} gives other bits than the first", names[device as usize]).into());
            }
        }
        let after = Held::now()?;
        let growth = after.resident.saturating_sub(before.resident);
        let kept = growth < 1 << 20
            && (after.files, after.threads) == (before.files, before.threads)
            && (after.allocations, after.used) == (before.allocations, before.used);
        grew |= !kept;
        println!(
            "{}: {runs} runs, the same bits each time; resident +{growth} bytes, files {} -> {}, threads {} -> {}, allocations {} -> {}, used {} -> {}",
            names[device as usize],
            before.files,
            after.files,
            before.threads,
            after.threads,
            before.allocations,
            after.allocations,
            before.used,
            after.used,
        );
    }
    match grew {
        true => Err("something grew".into()),
        false => Ok(()),
    }
}
