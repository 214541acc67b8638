//! Each target on its seeds, its corpus, and seeded mutants of the seeds: 20,000 of them and more.
//!
//! None may panic, take longer than [`LONGEST`], or hold more memory while it is read than [`allowed`]. To see one again:
//! `DELEGRAPH_MUTANT=<number> cargo test -p delegraph-hostile --test replay <target>`; `DELEGRAPH_MUTANTS=<count>` makes
//! another number of them. If the process dies (a stack that overflows, memory that ends), `hostile-<target>.now` beside the
//! failed mutants names the one that it died of.

use delegraph_hostile::{Outcome, TARGETS, Target, find};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// After this long, a mutant counts as a hang. The slowest take some hundred milliseconds on an idle machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Bytes that may be held at once while a file of this length is read, verified and compiled: 64 for each of its own, which
/// is what JSON text takes as a tree of values and then as a graph, and 64 MiB, which small constant folding, symbol tables
/// and the reader's own buffers stay far below. A run may then take what the program states.
fn allowed(length: usize) -> usize {
    (64 << 20) + 64 * length
}

/// Bytes that a run may hold: the targets limit arenas and each tensor that grows to 4 MiB, and there are a few of those.
const RUN: usize = 256 << 20;

/// Counts what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// A request that the system refuses, and that the caller survives, holds nothing.
fn counted(layout: Layout, pointer: *mut u8) -> *mut u8 {
    if !pointer.is_null() {
        HELD.with(|held| {
            held.set(held.get().wrapping_add(layout.size()));
            PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        });
    }
    pointer
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        counted(layout, unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on. Pages that nobody touches cost nothing, but are counted.
        counted(layout, unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn peak_since(before: usize) -> usize {
    let held = PEAK.with(Cell::get).saturating_sub(before);
    PEAK.with(|peak| peak.set(HELD.with(Cell::get)));
    held
}

/// Panics of a body become a message with their place; those of the test itself are shown as ever.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.with(Cell::get) || std::env::var_os("DELEGRAPH_MUTANT").is_some() {
                usual(info);
            }
            PANIC.with(|slot| *slot.borrow_mut() = Some(info.to_string().replace('\n', " ")));
        }));
    });
}

/// What is wrong with the treatment of an input, or its outcome.
fn judge(target: &Target, bytes: &[u8]) -> Result<Outcome, String> {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let reading = Cell::new(None::<usize>);
    let running = || {
        let peak = peak_since(before);
        reading.set(Some(reading.get().unwrap_or(0).max(peak)));
    };
    CATCHING.with(|catching| catching.set(true));
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.body)(bytes, &running)));
    CATCHING.with(|catching| catching.set(false));
    let last = peak_since(before);
    let outcome = outcome.map_err(|_| PANIC.with(RefCell::take).unwrap_or_default())?;
    let (read, ran) = reading.get().map_or((last, 0), |read| (read, last));
    if read > allowed(bytes.len()) {
        return Err(format!("{read} bytes are held to read {}", bytes.len()));
    }
    if ran > RUN {
        return Err(format!("{ran} bytes are held to run"));
    }
    Ok(outcome)
}

/// Ends the process when one input takes too long: a thread that hangs cannot be ended.
struct Watchdog {
    done: Arc<AtomicBool>,
    /// Milliseconds since `start`, and the mutant.
    since: Arc<AtomicU64>,
    number: Arc<AtomicU64>,
    start: Instant,
}

impl Watchdog {
    fn new(target: &'static Target) -> Watchdog {
        let watchdog = Watchdog {
            done: Arc::default(),
            since: Arc::default(),
            number: Arc::default(),
            start: Instant::now(),
        };
        let (done, since, number, start) = (
            watchdog.done.clone(),
            watchdog.since.clone(),
            watchdog.number.clone(),
            watchdog.start,
        );
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                let began = Duration::from_millis(since.load(Ordering::Relaxed));
                if start.elapsed().saturating_sub(began) > LONGEST && !done.load(Ordering::Relaxed) {
                    let number = number.load(Ordering::Relaxed);
                    eprintln!("{} hangs: {}", target.name, keep(target, number));
                    std::process::exit(101);
                }
            }
        });
        watchdog
    }

    fn begin(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
        self.since
            .store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Writes a mutant to a file; how to see it again.
fn keep(target: &Target, number: u64) -> String {
    let path = place(&format!("{}-{number}", target.name));
    let written = std::fs::write(&path, target.mutant(&target.seeds(), number));
    let name = target.name;
    format!(
        "mutant {number}, {}\n    again: DELEGRAPH_MUTANT={number} cargo test -p delegraph-hostile --test replay {name}\n    \
         when it is mended: put that file into conformance/hostile/corpus/{name}/",
        match written {
            Ok(()) => path.display().to_string(),
            Err(error) => error.to_string(),
        }
    )
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn replay(name: &str) {
    quiet_panics();
    let target = find(name).expect("a target");
    let seeds = target.seeds();
    let watchdog = Watchdog::new(target);
    let mut problems: Vec<String> = Vec::new();
    for (seed, bytes) in &seeds {
        watchdog.begin(u64::MAX);
        match judge(target, bytes) {
            Ok(Outcome::Read) => {}
            Ok(Outcome::Refused(why)) => problems.push(format!("the seed {seed} is refused: {why}")),
            Err(problem) => problems.push(format!("the seed {seed}: {problem}")),
        }
    }
    for (path, bytes) in target.corpus() {
        watchdog.begin(u64::MAX);
        if let Err(problem) = judge(target, &bytes) {
            problems.push(format!("{path}: {problem}"));
        }
    }
    let numbers = match number("DELEGRAPH_MUTANT") {
        Some(one) => one..one + 1,
        None => 0..number("DELEGRAPH_MUTANTS").unwrap_or(target.mutants),
    };
    let single = numbers.end - numbers.start == 1;
    let now = std::fs::File::create(place(&format!("hostile-{name}.now"))).expect("a file");
    let started = Instant::now();
    let (mut read, mut refused, mut slowest) = (0u64, 0u64, (Duration::ZERO, 0));
    // By message, so that one mistake is reported once: how often, and the first mutant.
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for number in numbers {
        let mutant = target.mutant(&seeds, number);
        write_at_start(&now, number);
        watchdog.begin(number);
        let begun = Instant::now();
        match judge(target, &mutant) {
            Ok(Outcome::Read) => read += 1,
            Ok(Outcome::Refused(why)) => {
                refused += 1;
                if single {
                    println!("refused: {why}");
                }
            }
            Err(problem) => {
                // Numbers in a message differ from mutant to mutant, its place does not.
                let key = problem.split(": ").next().unwrap_or_default().to_string();
                let key = if key.contains("panicked at") {
                    key
                } else {
                    problem.clone()
                };
                let first = found.entry(key).or_insert((0, number));
                first.0 += 1;
                if first.0 == 1 {
                    problems.push(format!("{problem}\n    {}", keep(target, number)));
                }
            }
        }
        slowest = slowest.max((begun.elapsed(), number));
    }
    println!(
        "{name}: {} seeds, {read} mutants read, {refused} refused, {} s; the slowest, {}, took {} ms",
        seeds.len(),
        started.elapsed().as_secs_f32(),
        slowest.1,
        slowest.0.as_millis()
    );
    assert!(
        problems.is_empty(),
        "{} problems:\n{}\ncounts: {found:#?}",
        problems.len(),
        problems.join("\n")
    );
    // Both must happen, else the mutation says nothing.
    assert!(single || read > 0 && refused > 0, "{read} read, {refused} refused");
}

/// Leaves the number of a mutant where it is found if the process dies.
fn write_at_start(mut file: &std::fs::File, number: u64) {
    use std::io::{Seek, Write};
    let _ = file.rewind();
    let _ = write!(file, "{number:<20}");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let here = [$(stringify!($name)),*];
            assert_eq!(here.to_vec(), TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
            assert!(TARGETS.iter().map(|target| target.mutants).sum::<u64>() >= 20_000);
        }
    };
}

targets!(pt2 pte ptd bundled ir_segment overlay origins graph_image envelope vulkan_plan ethos_u_network cpu_families hexagon_blob manifest config lock hash_list signature elf safetensors);
