//! Threads, which are somebody else's.

/// Threads that work is divided among.
pub trait Pool: Sync {
    /// How many work at once, the calling one included.
    fn threads(&self) -> usize;

    /// Calls `body` once for each index below `parts`, in any order, and returns when all calls have.
    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(body);
    }
}

/// Work, in about nanoseconds, that is worth another thread.
pub const GRAIN: usize = 8_000;

/// In how many parts `count` items are divided, of `work` nanoseconds each: at most four a thread, so that one that is interrupted leaves some
/// to the others.
pub fn parts(pool: &dyn Pool, count: usize, work: usize) -> usize {
    match pool.threads() {
        0 | 1 => 1,
        threads => (count.saturating_mul(work) / GRAIN)
            .clamp(1, threads * 4)
            .min(count.max(1)),
    }
}

/// Work, in about nanoseconds, that is worth another thread which waits for it awake, having just done the same.
const QUICK_GRAIN: usize = 3_000;

/// The same for work that comes again and again with nothing between: at most one part a thread.
pub fn quick_parts(pool: &dyn Pool, count: usize, work: usize) -> usize {
    (count.saturating_mul(work) / QUICK_GRAIN)
        .clamp(1, pool.threads().max(1))
        .min(count.max(1))
}

/// Items of part `part` of `parts` over `count` items whose borders are multiples of `multiple`.
pub fn range(count: usize, parts: usize, part: usize, multiple: usize) -> std::ops::Range<usize> {
    let units = count.div_ceil(multiple);
    let border = |part: usize| (units * part / parts * multiple).min(count);
    border(part)..border(part + 1)
}

/// A pointer that parts write different places of.
#[derive(Debug, Clone, Copy)]
pub struct Shared<T>(*mut T);

// SAFETY: who makes one promises that parts write different places, as `Shared::slice` asks.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Of a slice that is borrowed while parts run.
    pub fn new(slice: &mut [T]) -> Shared<T> {
        Shared(slice.as_mut_ptr())
    }

    /// The pointer to an element.
    ///
    /// # Safety
    /// The element is in the slice.
    pub unsafe fn at(self, index: usize) -> *mut T {
        // SAFETY: as the caller says.
        unsafe { self.0.add(index) }
    }

    /// The same from an element on.
    ///
    /// # Safety
    /// The element is in the slice, or just behind it.
    pub unsafe fn from(self, index: usize) -> Shared<T> {
        // SAFETY: as the caller says.
        Shared(unsafe { self.0.add(index) })
    }

    /// The same from an element on, which need not be there as long as nobody goes to it.
    pub(crate) fn ahead(self, index: usize) -> Shared<T> {
        Shared(self.0.wrapping_add(index))
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// The range is in the slice, and nobody else reads or writes it meanwhile.
    pub unsafe fn slice<'a>(self, range: std::ops::Range<usize>) -> &'a mut [T] {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once() {
        for (count, parts, multiple) in [(0, 1, 1), (1, 1, 16), (100, 7, 16), (96, 3, 16), (5, 8, 1)] {
            let mut end = 0;
            for part in 0..parts {
                let range = range(count, parts, part, multiple);
                assert_eq!(range.start, end);
                end = range.end;
            }
            assert_eq!(end, count);
        }
    }
}
