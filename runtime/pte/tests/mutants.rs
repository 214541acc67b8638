//! 20,000 seeded mutants of small real files: each is read or refused, without a panic and without memory that the file's
//! size does not justify.

use delegraph_pte::{BundledProgram, Contents, DataFile, Verified, write};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| {
            held.set(held.get().wrapping_add(layout.size()));
            PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get().wrapping_sub(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1..=3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            kind => {
                // Words that offsets, lengths and sizes go wrong by.
                let word: u32 = match random.below(8) {
                    0 => 0,
                    1 => u32::MAX,
                    2 => i32::MAX as u32,
                    3 => 1 << 31,
                    4 => random.below(64) as u32,
                    5 => bytes.len() as u32,
                    _ => random.next() as u32,
                };
                let at = if kind == 7 { at } else { at & !3 };
                if let Some(slot) = bytes.get_mut(at..at + 4) {
                    slot.copy_from_slice(&word.to_le_bytes());
                }
            }
        }
    }
    bytes
}

#[test]
fn mutants_are_read_or_refused() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .filter(|(name, _)| !name.ends_with(".md"))
        .collect();
    files.sort();
    let mut random = Random(2026);
    let (mut read, mut refused, mut worst) = (0u32, 0u32, 0f64);
    for round in 0..20_000 {
        let (name, file) = &files[round % files.len()];
        let mutant = mutate(file, &mut random);
        let before = HELD.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        let ok = match name.rsplit_once('.').unwrap().1 {
            "ptd" => DataFile::parse(&mutant).is_ok(),
            "bpte" => BundledProgram::parse(&mutant)
                .map(|bundle| Verified::parse(bundle.program))
                .is_ok(),
            _ => match Verified::parse(&mutant) {
                Ok(program) => {
                    // What was accepted can be cut and written; the writer may still refuse delegates.
                    let contents = Contents::of(&program, &mutant).unwrap();
                    let mut out = Vec::new();
                    if write(&contents.with_plans(&program.plans), &mut out).is_ok() {
                        assert_eq!(Verified::parse(&out).unwrap().plans.len(), program.plans.len());
                    }
                    true
                }
                Err(_) => false,
            },
        };
        let held = PEAK.with(Cell::get) - before;
        worst = worst.max(held as f64 / (file.len() + 1024) as f64);
        assert!(
            held < 128 * (file.len() + 1024),
            "{name}, round {round}: {held} bytes held"
        );
        if ok { read += 1 } else { refused += 1 }
    }
    println!("{read} read, {refused} refused, at most {worst:.1} bytes held for each of the file");
    // Both must happen, else the mutation says nothing.
    assert!(read > 2_000 && refused > 2_000, "{read} read, {refused} refused");
}
