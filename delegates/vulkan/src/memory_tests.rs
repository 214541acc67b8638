//! The allocator on made-up devices.

use super::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

const GIB: u64 = 1 << 30;

fn kind(heap: usize, flags: &str) -> MemoryType {
    MemoryType {
        heap,
        device: flags.contains('d'),
        visible: flags.contains('v'),
        coherent: flags.contains('c'),
        cached: flags.contains('a'),
        special: flags.contains('s'),
    }
}

fn table(device: Kind, heaps: &[(u64, bool)], types: &[(usize, &str)]) -> Table {
    let mut table = Table {
        types: types.iter().map(|(heap, flags)| kind(*heap, flags)).collect(),
        heaps: heaps
            .iter()
            .map(|(bytes, device)| Heap {
                bytes: *bytes,
                device: *device,
            })
            .collect(),
        atom: 64,
        count: 4096,
        largest: GIB,
        unified: false,
    };
    table.unified = table.is_unified(device);
    table
}

fn unified() -> Table {
    table(Kind::Software, &[(2 * GIB, true)], &[(0, "dvca")])
}

/// A card with a window of 256 MiB on its memory.
fn with_window() -> Table {
    table(
        Kind::Discrete,
        &[(8 * GIB, true), (16 * GIB, false), (GIB / 4, true)],
        &[(1, ""), (0, "d"), (1, "vc"), (1, "vca"), (2, "dvc"), (0, "ds")],
    )
}

/// A driver that counts.
#[derive(Default)]
struct Driver {
    next: Cell<u32>,
    alive: RefCell<BTreeSet<u32>>,
    kinds: RefCell<Vec<(usize, u64)>>,
    /// Fails for more than this; 0: never.
    limit: u64,
    /// What it says of each heap, and of whatever is not listed nothing.
    budgets: RefCell<Vec<Budget>>,
}

impl Backing for Driver {
    type Block = u32;

    fn allocate(&self, kind: usize, bytes: u64) -> Result<u32, Error> {
        if self.limit > 0 && bytes > self.limit {
            return Err(Error::new(Status::DEVICE_MEMORY_EXHAUSTED, "the driver has no more"));
        }
        self.next.set(self.next.get() + 1);
        self.alive.borrow_mut().insert(self.next.get());
        self.kinds.borrow_mut().push((kind, bytes));
        Ok(self.next.get())
    }

    fn budget(&self, heap: usize) -> Option<Budget> {
        self.budgets.borrow().get(heap).copied()
    }

    fn release(&self, block: u32) {
        assert!(self.alive.borrow_mut().remove(&block), "{block} is released twice");
    }
}

#[test]
fn each_use_gets_the_memory_that_is_made_for_it() {
    let all = u32::MAX;
    let first = |table: &Table, r#use| table.candidates(r#use, all).first().copied();
    assert_eq!(first(&unified(), Use::Device), Some(0));
    assert_eq!(first(&unified(), Use::Readback), Some(0));
    let card = with_window();
    assert!(!card.unified);
    assert_eq!(first(&card, Use::Device), Some(1));
    assert_eq!(first(&card, Use::Upload), Some(2));
    assert_eq!(first(&card, Use::Readback), Some(3));
    // What a driver does not allow is not taken, and special memory never.
    assert_eq!(card.candidates(Use::Upload, 0b1_0000), [4]);
    assert_eq!(card.candidates(Use::Upload, 0b0_0011), [] as [usize; 0]);
    assert!(!card.candidates(Use::Device, all).contains(&5));
    // A card of which the processor sees nothing, whose system memory is not cached or not coherent.
    let blind = table(Kind::Discrete, &[(GIB, true), (GIB, false)], &[(0, "d"), (1, "vc")]);
    assert_eq!(first(&blind, Use::Device), Some(0));
    assert_eq!(first(&blind, Use::Readback), Some(1));
    assert!(blind.reads_fast(1) && !blind.reads_fast(0));
    let rough = table(
        Kind::Integrated,
        &[(GIB, true)],
        &[(0, "d"), (0, "dv"), (0, "dva"), (0, "dvc")],
    );
    assert!(rough.unified);
    assert_eq!(first(&rough, Use::Device), Some(2));
    assert_eq!(first(&rough, Use::Upload), Some(3));
    assert_eq!(first(&rough, Use::Readback), Some(2));
    assert!(rough.reads_fast(2) && !rough.reads_fast(3));
}

#[test]
fn a_discrete_device_is_never_taken_for_unified() {
    // All of its memory is in the window.
    let types = [(0, "d"), (1, "vc"), (0, "dvc")];
    assert!(!table(Kind::Discrete, &[(8 * GIB, true), (GIB, false)], &types).unified);
    assert!(table(Kind::Integrated, &[(8 * GIB, true), (GIB, false)], &types).unified);
    assert!(!table(Kind::Virtual, &[(8 * GIB, true), (GIB, false)], &types[..2]).unified);
}

#[test]
fn ten_thousand_weights_make_few_allocations() {
    let (driver, mut pools) = (Driver::default(), Pools::new(unified()));
    let pieces: Vec<_> = (0..10_000)
        .map(|i| pools.take(&driver, Use::Device, 1, 4096 + i % 7 * 1000).unwrap())
        .collect();
    assert!(pools.usage().allocations <= 8, "{:?}", pools.usage());
    let mut ends: Vec<(u32, u64, u64)> = pieces.iter().map(|p| (p.block, p.offset, p.offset + p.bytes)).collect();
    ends.sort_unstable();
    for pair in ends.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1, "{pair:?} overlap");
    }
    assert!(pieces.iter().all(|p| p.offset % ALIGN == 0));
    for piece in pieces.iter().step_by(2).chain(pieces.iter().skip(1).step_by(2)) {
        pools.give_back(&driver, piece);
    }
    assert_eq!(
        (pools.usage().allocations, pools.usage().reserved, pools.usage().used),
        (0, 0, 0)
    );
    assert!(driver.alive.borrow().is_empty());
}

#[test]
fn a_large_piece_has_exactly_its_bytes_and_holes_are_used_again() {
    let (driver, mut pools) = (Driver::default(), Pools::new(unified()));
    let large = pools.take(&driver, Use::Device, 1, 100 << 20).unwrap();
    assert_eq!(driver.kinds.borrow()[0], (0, 100 << 20));
    let small: Vec<_> = (0..3)
        .map(|_| pools.take(&driver, Use::Device, 1, 1000).unwrap())
        .collect();
    pools.give_back(&driver, &small[1]);
    let again = pools.take(&driver, Use::Upload, 1, 1024).unwrap();
    assert_eq!((again.block, again.offset), (small[1].block, small[1].offset));
    pools.give_back(&driver, &large);
    assert_eq!(pools.usage().allocations, 1);
}

#[test]
fn beyond_the_heap_the_driver_is_not_asked() {
    let (driver, mut pools) = (
        Driver::default(),
        Pools::new(table(Kind::Software, &[(GIB / 2, true)], &[(0, "dvca")])),
    );
    let first = pools.take(&driver, Use::Device, 1, 400 << 20).unwrap();
    let asked = driver.next.get();
    let error = pools.take(&driver, Use::Device, 1, 200 << 20).unwrap_err();
    assert_eq!(error.code, Status::DEVICE_MEMORY_EXHAUSTED);
    assert_eq!(driver.next.get(), asked);
    pools.give_back(&driver, &first);
    assert!(pools.take(&driver, Use::Device, 1, 200 << 20).is_ok());
    assert!(pools.take(&driver, Use::Device, 1, u64::MAX).is_err());
}

#[test]
fn beyond_the_budget_the_driver_is_not_asked_and_another_heap_is() {
    let budget = |most, used| Budget { most, used };
    let driver = Driver::default();
    let mut pools = Pools::new(unified());
    // Others of the process use memory too.
    *driver.budgets.borrow_mut() = vec![budget(GIB, GIB - (10 << 20))];
    assert!(pools.take(&driver, Use::Device, 1, 8 << 20).is_ok());
    *driver.budgets.borrow_mut() = vec![budget(GIB, GIB - (2 << 20))];
    let asked = driver.next.get();
    let error = pools.take(&driver, Use::Device, 1, 5 << 20).unwrap_err();
    assert_eq!(error.code, Status::DEVICE_MEMORY_EXHAUSTED);
    assert!(
        error
            .message
            .contains("2097152 that are left of the driver's budget of 1073741824"),
        "{error}"
    );
    assert_eq!(driver.next.get(), asked);
    // A shared block would be beyond it: the piece alone is asked for.
    assert!(pools.take(&driver, Use::Device, 1, 1 << 20).is_ok());
    assert_eq!(driver.kinds.borrow().last(), Some(&(0, 1 << 20)));
    // More was promised than there is by now.
    *driver.budgets.borrow_mut() = vec![budget(GIB, 2 * GIB)];
    assert!(pools.take(&driver, Use::Device, 1, 1 << 30).is_err());
    // What is allocated by now is shared out as before.
    let (driver, mut pools) = (Driver::default(), Pools::new(with_window()));
    let first = pools.take(&driver, Use::Device, u32::MAX, 1000).unwrap();
    *driver.budgets.borrow_mut() = vec![budget(0, 0), budget(16 * GIB, 0), budget(GIB / 4, 0)];
    assert_eq!(
        pools.take(&driver, Use::Device, u32::MAX, 1000).unwrap().block,
        first.block
    );
    // The card is full: kernels get what is next best.
    assert_ne!(pools.take(&driver, Use::Device, u32::MAX, 64 << 20).unwrap().kind, 1);
}

#[test]
fn a_window_that_is_full_is_left_for_system_memory() {
    let (driver, mut pools) = (Driver::default(), Pools::new(with_window()));
    // Only the window and system memory are allowed.
    let allowed = 0b1_0100;
    let mut kinds = BTreeSet::new();
    for _ in 0..20 {
        kinds.insert(pools.take(&driver, Use::Device, allowed, 40 << 20).unwrap().kind);
    }
    assert_eq!(kinds, BTreeSet::from([2, 4]));
}

#[test]
fn where_a_block_is_too_much_the_piece_alone_is_asked_for() {
    let driver = Driver {
        limit: 2 << 20,
        ..Driver::default()
    };
    let mut pools = Pools::new(unified());
    assert_eq!(pools.take(&driver, Use::Device, 1, 1 << 20).unwrap().bytes, 1 << 20);
    assert_eq!(driver.kinds.borrow().as_slice(), [(0, 1 << 20)]);
    let error = pools.take(&driver, Use::Device, 1, 3 << 20).unwrap_err();
    assert_eq!(error.message, "the driver has no more");
}

#[test]
fn the_number_of_allocations_is_bounded() {
    let mut table = unified();
    table.count = 3;
    let (driver, mut pools) = (Driver::default(), Pools::new(table));
    let large = 50 << 20;
    let made = (0..5)
        .filter(|_| pools.take(&driver, Use::Device, 1, large).is_ok())
        .count();
    assert_eq!(made, 3);
}

#[test]
fn what_is_flushed_is_whole_atoms() {
    let table = unified();
    assert_eq!(table.atoms(0..1, 4096), 0..64);
    assert_eq!(table.atoms(100..200, 4096), 64..256);
    // The end of a block need not be a multiple.
    assert_eq!(table.atoms(4090..4095, 4095), 4032..4095);
}
