//! A steady run of bounded shapes allocates nothing, by portable kernels and by the CPU delegate: everything is made when the method is loaded or
//! first run.

mod common;

use common::{compiled, fixture, nobody, open, order, value};
use delegraph::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

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

#[test]
fn a_steady_run_allocates_nothing() {
    let names = [
        "arch-mlp-dynamic-batch",
        "arch-multi-output",
        "arch-kv-cache",
        "arch-tiny-llama",
        "arch-int8-convnet",
        "arch-lstm",
        "arch-cond",
        "arch-while",
        "mtcnn-pnet",
        "minilm-l6-int8",
        "quant-pt2e-dynamic",
        "quant-torchao-8da4w",
    ];
    let cpu = order(&["cpu"]);
    let backends = [
        ("portable", order(&[]), nobody()),
        #[cfg(feature = "cpu")]
        ("cpu", cpu.clone(), Arc::new(delegraph::discover(&cpu, false))),
    ];
    let mut wrong = Vec::new();
    for (name, (backend, order, host)) in names.iter().flat_map(|name| backends.iter().map(move |on| (*name, on))) {
        let fixture = fixture(name);
        let file = compiled(name, order, host);
        let mut session = open(&file, order, host).unwrap();
        let steps: Vec<Vec<Value<'_>>> = fixture
            .cases
            .iter()
            .map(|case| case.steps[0].inputs.iter().map(value).collect())
            .collect();
        // Scratch grows to what the largest step needs.
        for _ in 0..2 {
            for values in &steps {
                session.run(values).unwrap();
            }
        }
        // A thread of the pool that was late so far makes its scratch at its first piece of work: once, so that a later round has none.
        let mut made = 0;
        for _ in 0..8 {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for values in &steps {
                session.run(values).unwrap();
            }
            made = ALLOCATIONS.load(Ordering::Relaxed) - before;
            if made == 0 {
                break;
            }
        }
        if made > 0 {
            wrong.push(format!("{name} by {backend}: {made} allocations"));
        }
        let delegated = session.report().delegated_nodes();
        // Nothing of that model is in a region: all of it is inside of the loop.
        let takes = *backend == "cpu" && name != "arch-while";
        assert_eq!(delegated > 0, takes, "{name} by {backend}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
