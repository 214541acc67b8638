//! What a run costs besides the arithmetic: `cargo run --release -p delegraph --example run_overhead`.
//!
//! The model adds two tensors of one element. Prints nanoseconds of a [`Session::run`], the least and the median of batches of 1,000, and
//! the allocations of a steady run; by portable kernels and by the CPU delegate. With a name (`portable`, `cpu`) and a number, it does so many
//! runs of that one and nothing else, for a profiler: what counts instructions subtracts those of 0 runs.

use delegraph::{DType, Dims, LoadOptions, Session, Source, Value};
use delegraph_ir::{Arg, Graph, Module, TensorType};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

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

/// `x + y` of one element each.
fn addition() -> Module {
    let mut graph = Graph::new("forward");
    let ty = TensorType::fixed(DType::F32, &[1]);
    let x = graph.add_input("x", ty.clone().into());
    let y = graph.add_input("y", ty.clone().into());
    let args = vec![Arg::Value(x), Arg::Value(y), Arg::int(1)];
    let sum = graph
        .push("aten::add.Tensor", args, vec![ty.into()])
        .expect("a known operator")[0];
    graph.add_output(sum);
    Module {
        graphs: vec![graph],
        ..Module::default()
    }
}

fn session(backend: &str) -> Session {
    let config = delegraph::config_from_text(&format!("[select]\norder = [\"{backend}\"]\n")).expect("a configuration");
    let host = Arc::new(delegraph::discover(&config, false));
    let compiled = delegraph::compile(addition(), &config, &host, &mut |_| {}).expect("it compiles");
    let source = Source::from_bytes(compiled.bytes, "add1.pte");
    let options = LoadOptions {
        threads: Some(1),
        ..LoadOptions::default()
    };
    Session::open(&source, &config, &host, options).expect("it loads")
}

fn main() {
    let (x, y) = (1.5f32.to_le_bytes(), 2.25f32.to_le_bytes());
    let one = Dims::new(&[1]).expect("one dimension");
    let inputs = [Value::tensor(DType::F32, one, &x), Value::tensor(DType::F32, one, &y)];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [backend, runs] = &arguments[..] {
        let mut session = session(backend);
        for _ in 0..runs.parse::<u64>().expect("a number of runs") {
            session.run(black_box(&inputs)).expect("a run");
        }
        return;
    }
    for backend in ["portable", "cpu"] {
        let mut session = session(backend);
        let mut run = || session.run(black_box(&inputs)).expect("a run");
        (0..1000).for_each(|_| run());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let batch = |_| {
            let start = Instant::now();
            (0..1000).for_each(|_| run());
            start.elapsed().as_nanos() as f64 / 1000.0
        };
        let mut times = [0.0; 500].map(batch);
        let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 500_000.0;
        times.sort_by(f64::total_cmp);
        let Ok(Value::Tensor(sum)) = session.output(0) else {
            panic!("an addition gives a tensor")
        };
        assert_eq!(sum.bytes, 3.75f32.to_le_bytes());
        let delegated = session.report().delegated_nodes();
        println!(
            "{backend}: {:.0} ns a run at least, {:.0} in the median, {allocations} allocations, {delegated} nodes delegated",
            times[0], times[250]
        );
    }
}
