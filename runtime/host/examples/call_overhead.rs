//! What a call to a delegate costs that does nothing: `cargo run --release -p delegraph-host --example call_overhead`, after
//! `cargo build --release -p delegraph-worker -p delegraph-fault`.
//!
//! Prints nanoseconds a call, median and 99th percentile: of a direct function call, of a run in this process, of a run in a worker
//! process, with tensors of 4 bytes and of 16 MiB, which lie in shared memory and so are not copied; one run after the other, and one every
//! 2 ms, between which a worker goes to sleep. Counts allocations of steady
//! runs. `--json` prints one object instead.

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_host::{Arena, Host, HostOptions, Input, Isolation, Output, Session, Weights};
use delegraph_types::{DType, Dims};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `alloc` above made it with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

/// One operator over `count` numbers.
fn image(count: i64) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let size = image.int(count);
    let ty = Type::tensor(delegraph_abi::DType::F32, &[size]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().expect("a sound image")
}

/// Nanoseconds: median and 99th percentile of single calls.
fn measure(calls: usize, pause: Option<Duration>, mut call: impl FnMut()) -> (f64, f64) {
    for _ in 0..calls / 10 {
        call();
    }
    let mut times: Vec<u64> = Vec::with_capacity(calls);
    for _ in 0..calls {
        pause.into_iter().for_each(std::thread::sleep);
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    (times[calls / 2] as f64, times[calls * 99 / 100] as f64)
}

/// What a delegate that does nothing would be if it were a function of this program.
#[inline(never)]
extern "C" fn nothing(inputs: *const u8, outputs: *mut u8) -> i32 {
    black_box((inputs, outputs));
    0
}

struct Line {
    name: &'static str,
    bytes: i64,
    median: f64,
    p99: f64,
    allocations: f64,
}

/// `pause`: the time between runs, in which a worker goes to sleep.
fn run(session: &mut Session, arena: &mut Arena, count: i64, calls: usize, pause: Option<Duration>) -> (f64, f64, f64) {
    let bytes = count as usize * 4;
    let half = arena.words().len() / 2;
    let (input, output) = arena.words_mut().split_at_mut(half);
    // SAFETY: words are bytes, all of them set.
    let (input, output) = unsafe { (input.align_to_mut::<u8>().1, output.align_to_mut::<u8>().1) };
    let sizes = [count];
    let mut call = || {
        let input = Input {
            dtype: DType::F32,
            sizes: &sizes,
            bytes: &input[..bytes],
        };
        let mut outputs = [Output {
            dtype: DType::F32,
            sizes: Dims::new(&sizes).expect("one dimension"),
            bytes: &mut output[..bytes],
        }];
        session
            .execute(&[input], &mut outputs)
            .expect("a run that does nothing");
    };
    call();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        call();
    }
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 1000.0;
    let (median, p99) = measure(calls, pause, call);
    (median, p99, allocations)
}

fn main() {
    let json = std::env::args().any(|word| word == "--json");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fault/fault.delegate.toml");
    // The library lies beside the folder of examples.
    let program = std::env::current_exe().expect("this program has a path");
    let built = program.ancestors().nth(2).expect("cargo's folder").to_path_buf();
    if !built.join("libfault_delegate.so").is_file() {
        eprintln!("skipped: build `delegraph-fault` and `delegraph-worker` in the same profile first");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let installed = folder.path().join("fault.delegate.toml");
    std::fs::copy(manifest, &installed).expect("the manifest");
    std::fs::copy(
        built.join("libfault_delegate.so"),
        folder.path().join("libfault_delegate.so"),
    )
    .expect("the library");
    let mut lines = Vec::new();
    let empty = (0u8, 0u8);
    let (median, p99) = measure(200_000, None, || {
        black_box(nothing(&raw const empty.0, (&raw const empty.1).cast_mut()));
    });
    lines.push(Line {
        name: "a direct call, and reading the clock",
        bytes: 0,
        median,
        p99,
        allocations: 0.0,
    });
    let places = [
        ("in process", "in process, every 2 ms", Isolation::InProcess),
        ("in a worker", "in a worker, every 2 ms", Isolation::Worker),
    ];
    for (name, after_pause, isolation) in places {
        let host = Host::discover(HostOptions {
            pinned: vec![("fault".to_string(), installed.clone())],
            options: [(
                "fault".to_string(),
                serde_json::json!({ "at": "execute", "how": "nothing" }),
            )]
            .into(),
            isolation: [("fault".to_string(), isolation)].into(),
            worker_binary: Some(built.join("delegraph-worker")),
            ..HostOptions::default()
        });
        let delegate = match host.delegate("fault") {
            Ok(delegate) => delegate,
            Err(error) => {
                eprintln!("skipped: {name}: {error}");
                continue;
            }
        };
        let cases = [
            (name, 1i64, 50_000, None),
            (name, 4 << 20, 50_000, None),
            (after_pause, 1, 2_000, Some(Duration::from_millis(2))),
        ];
        for (name, count, calls, pause) in cases {
            let blob = delegate.compile(&image(count), &NoWeights, "").expect("a blob");
            let mut session = delegate.load(&blob, Arc::new(NoWeights)).expect("a session");
            let mut arena = Arena::new(count as usize * 8 + 8192).expect("memory");
            session.share(&arena.memory());
            let (median, p99, allocations) = run(&mut session, &mut arena, count, calls, pause);
            assert_eq!(session.copies().tensors, 0, "nothing is copied");
            lines.push(Line {
                name,
                bytes: count * 4,
                median,
                p99,
                allocations,
            });
        }
    }
    if json {
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| {
                serde_json::json!({ "name": line.name, "bytes": line.bytes, "median_ns": line.median, "p99_ns": line.p99,
                    "allocations": line.allocations })
            })
            .collect();
        println!("{}", serde_json::json!({ "calls": lines }));
        return;
    }
    println!(
        "{:<38} {:>10} {:>12} {:>12} {:>12}",
        "an empty delegate's run", "bytes", "median ns", "p99 ns", "allocations"
    );
    for line in &lines {
        let Line {
            name,
            bytes,
            median,
            p99,
            allocations,
        } = line;
        println!("{name:<38} {bytes:>10} {median:>12.0} {p99:>12.0} {allocations:>12.1}");
    }
}
