//! A small region over the real host, with the delegate linked in.
#![allow(dead_code)]

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{
    Arena, CallOptions, Delegate, DelegateError, Host, HostOptions, Input, LogLevel, Output, Session, Weights,
};
use delegraph_sdk::roles::{Compile, External, Run, State, Submit};
use delegraph_sdk::static_entry_as;
use delegraph_types::{DType, Dims};
use delegraph_vulkan::Vulkan;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Columns of the tensors.
pub const COLUMNS: usize = 64;
/// Most rows.
pub const ROWS: usize = 64;

/// One test at a time: they read the log, and the software drivers take all cores.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What the delegate logged since it was last asked.
pub fn log() -> Vec<String> {
    std::mem::take(&mut *LOG.lock().unwrap())
}

/// The value of `name=` in the last line that has it.
pub fn count(lines: &[String], name: &str) -> u64 {
    let key = format!(" {name}=");
    let line = lines.iter().rev().find_map(|line| Some(line.split_once(&key)?.1));
    let digits = line.unwrap_or_else(|| panic!("no `{name}` in {lines:?}"));
    digits.split(' ').next().unwrap().parse().unwrap()
}

/// The delegate, started with options.
pub fn delegate(options: serde_json::Value) -> Arc<Delegate> {
    delegraph_host::set_logger(LogLevel::INFO, |_, _, line| LOG.lock().unwrap().push(line.to_string()));
    let mut options = options;
    if options.get("cache").is_none() {
        options["cache"] = "off".into();
    }
    let host = Host::discover(HostOptions {
        options: [("vulkan".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Vulkan, (Compile, Run, Submit, External, State)>();
    host.register_static("vulkan", entry).unwrap();
    host.delegate("vulkan").unwrap()
}

/// The delegate, if there is a device.
pub fn available(options: serde_json::Value) -> Option<Arc<Delegate>> {
    let delegate = delegate(options);
    if delegate.devices().unwrap().is_empty() {
        println!("skipped: no Vulkan driver");
        return None;
    }
    Some(delegate)
}

/// The numbers of the devices that there are.
pub fn devices(delegate: &Delegate) -> Vec<u32> {
    (0..delegate.devices().unwrap().len() as u32).collect()
}

/// `relu(x + w) + x`, with `x` of any number of rows.
pub fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let rows = image.symbol("s0", 1, Some(ROWS as i64));
    of(image, rows)
}

/// The same with as many rows as there can be.
pub fn fixed_image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let rows = image.int(ROWS as i64);
    of(image, rows)
}

fn of(mut image: ImageBuilder, rows: delegraph_abi::image::ExprIndex) -> Vec<u8> {
    let columns = image.int(COLUMNS as i64);
    let ty = Type::tensor(Code::F32, &[rows, columns]);
    let x = image.input("x", &ty);
    let weight = image.weight(0, Code::F32, &[COLUMNS as i64]);
    let w = image.weight_value("w", &Type::tensor(Code::F32, &[columns]), weight);
    let add = |image: &mut ImageBuilder, name: &str, a, b| {
        let args = [Arg::Value(a), Arg::Value(b), Arg::Int(1)];
        image.node(name, "aten::add.Tensor", &args, &[(name, &ty)], "")[0]
    };
    let sum = add(&mut image, "sum", x, w);
    let relu = image.node("relu", "aten::relu", &[Arg::Value(sum)], &[("relu", &ty)], "")[0];
    let out = add(&mut image, "out", relu, x);
    image.output(out);
    image.finish().unwrap()
}

/// The weight: small whole numbers, so that all sums are exact.
pub struct Numbers(Vec<u8>);

impl Numbers {
    pub fn new() -> Arc<Numbers> {
        Arc::new(Numbers(bytes(&(0..COLUMNS).map(weight).collect::<Vec<_>>())))
    }
}

fn weight(column: usize) -> f32 {
    column as f32 - 31.0
}

impl Weights for Numbers {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        (id == 0).then_some(&self.0)
    }

    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        (id == 0).then_some([3, 4])
    }
}

pub fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

/// Numbers to run with.
pub fn input(rows: usize, seed: usize) -> Vec<f32> {
    (0..rows * COLUMNS)
        .map(|i| ((i * 7 + seed * 13) % 101) as f32 - 50.0)
        .collect()
}

/// What comes of them.
pub fn expected(input: &[f32]) -> Vec<f32> {
    let row = |(i, x): (usize, &f32)| (x + weight(i % COLUMNS)).max(0.0) + x;
    input.iter().enumerate().map(row).collect()
}

/// Words that are aligned as the delegate asks.
#[repr(align(256))]
#[derive(Clone, Copy)]
struct Line([f32; 64]);

/// How a run is made.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    pub options: CallOptions<'a>,
    pub submitted: bool,
}

/// Runs once with tensors in plain memory.
pub fn run(session: &mut Session, input: &[f32], how: &How<'_>) -> Result<Vec<f32>, DelegateError> {
    let mut out = vec![Line([f32::NAN; 64]); ROWS];
    let mut lines = vec![Line([0.0; 64]); ROWS];
    let flat = |lines: &mut [Line]| -> Vec<f32> { lines.iter().flat_map(|line| line.0).collect() };
    for (line, chunk) in lines.iter_mut().zip(input.chunks(64)) {
        line.0[..chunk.len()].copy_from_slice(chunk);
    }
    // SAFETY: f32 are bytes, all of them set.
    let (inputs, outputs) = unsafe { (lines.align_to::<u8>().1, out.align_to_mut::<u8>().1) };
    run_in(session, input.len() / COLUMNS, inputs, outputs, how)?;
    Ok(flat(&mut out)[..input.len()].to_vec())
}

/// Runs once with tensors in an arena, `at` bytes from the beginnings of its halves.
pub fn run_arena(
    session: &mut Session,
    arena: &mut Arena,
    at: usize,
    input: &[f32],
    how: &How<'_>,
) -> Result<Vec<f32>, DelegateError> {
    let words = arena.words_mut();
    let half = words.len() / 2;
    let (from, to) = words.split_at_mut(half);
    // SAFETY: words are bytes, all of them set.
    let (from, to) = unsafe { (from.align_to_mut::<u8>().1, to.align_to_mut::<u8>().1) };
    let given = bytes(input);
    from[at..at + given.len()].copy_from_slice(&given);
    run_in(session, input.len() / COLUMNS, &from[at..], &mut to[at..], how)?;
    let result = to[at..at + given.len()].chunks_exact(4);
    Ok(result.map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect())
}

fn run_in(session: &mut Session, rows: usize, from: &[u8], to: &mut [u8], how: &How<'_>) -> Result<(), DelegateError> {
    let sizes = [rows as i64, COLUMNS as i64];
    let inputs = [Input {
        dtype: DType::F32,
        sizes: &sizes,
        bytes: &from[..rows * COLUMNS * 4],
    }];
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&[ROWS as i64, COLUMNS as i64]).unwrap(),
        bytes: &mut to[..ROWS * COLUMNS * 4],
    }];
    match how.submitted {
        true => {
            let (waited, outcome) = session.submit(&inputs, &mut outputs, &how.options, |pending| {
                pending.wait(Duration::from_secs(60))
            });
            assert!(waited || outcome.is_err(), "the run ended");
            outcome?;
        }
        false => session.execute_with(&inputs, &mut outputs, &how.options)?,
    }
    assert_eq!(outputs[0].sizes.as_slice(), sizes);
    Ok(())
}

/// The code of an error.
pub fn code<T>(outcome: Result<T, DelegateError>) -> Status {
    outcome.err().map_or(Status::OK, |error| error.code)
}

/// Runs one ignored test of this binary in a process of its own, with this variable set.
#[track_caller]
pub fn in_child(test: &str, variable: &str, value: &str) {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(variable, value)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains("validation layers said"), "{text}");
}
