//! SplitMix64: small, and the same on every machine, so that a mutant is known by its number.

/// A seeded generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The generator of mutant `number` of a target: every mutant can be made without those before it.
    pub fn of(target: &str, number: u64) -> Random {
        // FNV-1a.
        let name = target.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = Random(name ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next_u64();
        random
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the items; `None` of none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = self.below(items.len());
        items.get(at)
    }

    /// An integer that sizes, counts and indices go wrong by.
    pub fn nasty(&mut self, near: i64) -> i64 {
        match self.below(16) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 => i64::from(i32::MAX),
            5 => i64::from(i32::MIN),
            6 => i64::from(u32::MAX),
            7 => 1 << 40,
            8 => -(1 << 40),
            9 => near.wrapping_add(1),
            10 => near.wrapping_sub(1),
            11 => near.wrapping_neg(),
            12 => near.wrapping_mul(2),
            13 => 1 << self.below(63),
            _ => self.below(12) as i64,
        }
    }
}
