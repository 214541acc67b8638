//! What an app pays before it has a first result: `cargo run --release -p delegraph --example first_run MODEL [--threads N] [--backend LIST]`.
//!
//! Loads the `forward` method of a model, runs it once on zeros and prints milliseconds of both and the memory of the process: its peak, what it
//! was before loading, and where it lies at the end (Linux). `--backend` is as in `select.order`, `cpu` by default. The process is as small as
//! one that links this library can be: it has no command line, no log and no other model.

use delegraph::{Dims, InputKind, LoadOptions, Session, Source, Value};
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut model, mut threads, mut backend) = (None, 1, "cpu".to_string());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut following = || arguments.next().ok_or(format!("`{argument}` wants a value"));
        match argument.as_str() {
            "--threads" => threads = following()?.parse()?,
            "--backend" => backend = following()?,
            _ => model = Some(argument),
        }
    }
    let model = model.ok_or("which model?")?;
    let order: Vec<String> = backend.split(',').map(|name| format!("\"{name}\"")).collect();
    let config = delegraph::config_from_text(&format!("[select]\norder = [{}]\n", order.join(", ")))?;
    let before = status("VmRSS:");

    let started = Instant::now();
    let host = Arc::new(delegraph::discover(&config, false));
    let options = LoadOptions {
        threads: Some(threads),
        ..LoadOptions::default()
    };
    let mut session = Session::open(&Source::open(&model)?, &config, &host, options)?;
    let load = started.elapsed();

    let inputs: Vec<(InputKind<'_>, Vec<u8>)> = session.inputs().into_iter().map(|info| zeros(info.kind)).collect();
    let values: Vec<Value<'_>> = inputs.iter().map(|(kind, bytes)| value(kind, bytes)).collect();
    let started = Instant::now();
    session.run(&values)?;
    let first = started.elapsed();

    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    println!(
        "load {:.2} ms, first run {:.2} ms, peak RSS {:.1} MB (before loading {:.1})",
        milliseconds(load),
        milliseconds(first),
        status("VmHWM:"),
        before
    );
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (name, megabytes) in places(&smaps, &model) {
        println!("{megabytes:8.2} MB {name}");
    }
    Ok(())
}

/// An input of zeros; 1 for each integer.
fn zeros(kind: InputKind<'static>) -> (InputKind<'static>, Vec<u8>) {
    let bytes = match &kind {
        InputKind::Tensor { dtype, sizes, .. } => vec![0; sizes.numel().unwrap_or(0) * dtype.size()],
        _ => Vec::new(),
    };
    (kind, bytes)
}

fn value<'a>(kind: &InputKind<'a>, bytes: &'a [u8]) -> Value<'a> {
    match kind {
        InputKind::Tensor { dtype, sizes, .. } => Value::tensor(*dtype, Dims::new(sizes).unwrap_or_default(), bytes),
        InputKind::Int => Value::Int(1),
        InputKind::Float => Value::Float(0.0),
        InputKind::Bool => Value::Bool(false),
        InputKind::Literal(value) => value.clone(),
    }
}

/// A line of `/proc/self/status` in MB; 0 where there is none.
fn status(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .map_or(0.0, |kilobytes| kilobytes / 1024.0)
}

/// Resident megabytes by what they are.
fn places(smaps: &str, model: &str) -> Vec<(&'static str, f64)> {
    const NAMES: [&str; 6] = [
        "code",
        "constants and tables of the code",
        "the model's file",
        "heap",
        "other memory",
        "stacks",
    ];
    let mut sums = [0.0; NAMES.len()];
    let mut place = 0;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Rss:", kilobytes, ..] => sums[place] += kilobytes.parse::<f64>().unwrap_or(0.0) / 1024.0,
            [range, access, ..] if range.contains('-') && !range.ends_with(':') => {
                place = match words.get(5) {
                    Some(path) if model.ends_with(path.rsplit('/').next().unwrap_or(path)) => 2,
                    Some(path) if path.starts_with('/') && access.contains('x') => 0,
                    Some(path) if path.starts_with('/') => 1,
                    Some(&"[heap]") => 3,
                    Some(&"[stack]") => 5,
                    _ => 4,
                };
            }
            _ => {}
        }
    }
    NAMES.into_iter().zip(sums).collect()
}
