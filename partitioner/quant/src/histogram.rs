//! How often numbers occur, in bounded memory.
//!
//! Bins are of equal width, a power of two, and their borders are multiples of it. When a number lies outside of what the bins
//! can cover, the width doubles until it does, and each two neighbours become one. So histograms that grew in different ways can
//! be put together exactly, and what a histogram holds does not depend on the order of the numbers but for the width.

/// Most bins. A first batch spreads over more than a quarter of them.
const BINS: i64 = 8192;
/// Width, as a power of two, of bins that have only seen zeros.
const FINEST: i32 = -100;

/// A histogram of f32 numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    /// Bins are `2^exponent` wide.
    exponent: i32,
    /// The first bin begins at `first * 2^exponent`.
    first: i64,
    counts: Vec<u64>,
    /// Numbers that are exactly 0: they are in the bins too.
    pub zeros: u64,
}

impl Histogram {
    /// Adds numbers, all finite, that lie between `low` and `high`.
    pub fn add(&mut self, numbers: &[f32], low: f32, high: f32) {
        if numbers.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            let most = f64::from(low.abs().max(high.abs()));
            let spread = (f64::from(high) - f64::from(low)).max(most / 1024.0);
            // log2 of the spread, so that it takes from a quarter to half of the bins.
            let log = if spread > 0.0 {
                spread.log2().ceil() as i32
            } else {
                FINEST + 11
            };
            self.exponent = (log - 11).max(FINEST);
            self.first = bin(low, self.exponent);
        }
        // Bins have numbers that fit an integer easily.
        let most = f64::from(low.abs().max(high.abs()));
        while most * 2f64.powi(-self.exponent) > 2f64.powi(40) {
            self.coarsen();
        }
        self.cover((bin(low, self.exponent), bin(high, self.exponent)));
        let scale = 2f64.powi(-self.exponent);
        for number in numbers {
            let at = (f64::from(*number) * scale).floor() as i64 - self.first;
            self.counts[at as usize] += 1;
            self.zeros += u64::from(*number == 0.0);
        }
    }

    /// Adds all that another one holds.
    pub fn merge(&mut self, other: &Histogram) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        let mut other = other.clone();
        while other.exponent < self.exponent {
            other.coarsen();
        }
        while self.exponent < other.exponent {
            self.coarsen();
        }
        self.cover((other.first, other.first + other.counts.len() as i64 - 1));
        while other.exponent < self.exponent {
            other.coarsen();
        }
        for (i, count) in other.counts.iter().enumerate() {
            self.counts[(other.first + i as i64 - self.first) as usize] += count;
        }
        self.zeros += other.zeros;
    }

    /// Makes room for these bins, which are numbered as they are now.
    fn cover(&mut self, (mut low, mut high): (i64, i64)) {
        loop {
            let end = self.first + self.counts.len() as i64 - 1;
            let (from, to) = match self.counts.is_empty() {
                true => (low, high),
                false => (low.min(self.first), high.max(end)),
            };
            if to - from < BINS {
                let before = (self.first - from).max(0) as usize;
                if self.counts.is_empty() {
                    self.first = from;
                }
                if before > 0 && !self.counts.is_empty() {
                    self.counts.splice(0..0, std::iter::repeat_n(0, before));
                    self.first = from;
                }
                self.counts.resize((to - from + 1) as usize, 0);
                return;
            }
            self.coarsen();
            (low, high) = (low.div_euclid(2), high.div_euclid(2));
        }
    }

    /// Each two neighbours become one.
    fn coarsen(&mut self) {
        let first = self.first.div_euclid(2);
        let mut counts = vec![0; self.counts.len() / 2 + 1];
        for (i, count) in self.counts.iter().enumerate() {
            counts[((self.first + i as i64).div_euclid(2) - first) as usize] += count;
        }
        (self.first, self.counts, self.exponent) = (first, counts, self.exponent + 1);
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    /// How many numbers there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bins that hold something: middle and count.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let width = self.width();
        let bins = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        bins.map(move |(i, count)| (((self.first + i as i64) as f64 + 0.5) * width, *count))
    }

    /// The number below which `share` of all numbers lie, from 0 to 1: evenly inside a bin.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = share * self.total() as f64;
        let mut below = 0.0;
        for (i, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= wanted {
                let inside = ((wanted - below) / count).clamp(0.0, 1.0);
                return ((self.first + i as i64) as f64 + inside) * self.width();
            }
            below += count;
        }
        (self.first + self.counts.len() as i64) as f64 * self.width()
    }
}

/// The bin of a number.
fn bin(number: f32, exponent: i32) -> i64 {
    (f64::from(number) * 2f64.powi(-exponent)).floor() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(batches: &[&[f32]]) -> Histogram {
        let mut histogram = Histogram::default();
        for batch in batches {
            let low = batch.iter().copied().fold(f32::INFINITY, f32::min);
            let high = batch.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            histogram.add(batch, low, high);
        }
        histogram
    }

    #[test]
    fn it_grows_by_doubling_and_loses_nothing() {
        let histogram = of(&[&[0.0], &[1e-3, -1e-3], &[0.5, 0.25, 0.0], &[-3e38, 3e38], &[]]);
        assert_eq!((histogram.total(), histogram.zeros), (8, 2));
        assert!(histogram.counts.len() as i64 <= BINS);
        let outermost: Vec<f64> = histogram.bins().map(|(middle, _)| middle).collect();
        assert!(outermost.first().unwrap() < &-2.9e38 && outermost.last().unwrap() > &2.9e38);
        let far = of(&[&[1e30], &[1e-30]]);
        assert_eq!(far.total(), 2);
    }

    #[test]
    fn quantiles_lie_within_a_bin_of_the_numbers() {
        let numbers: Vec<f32> = (0..10_000).map(|i| i as f32 / 10_000.0 * 4.0 - 1.0).collect();
        let histogram = of(&[&numbers]);
        for share in [0.0, 0.001, 0.5, 0.999, 1.0] {
            let want = share * 4.0 - 1.0;
            assert!(
                (histogram.quantile(share) - want).abs() < 2.0 * histogram.width(),
                "{share}"
            );
        }
        assert!(histogram.counts.len() >= 2048);
    }

    #[test]
    fn merging_is_adding() {
        let (a, b): (&[f32], &[f32]) = (&[0.1, -0.2, 0.0, 7.0], &[100.0, -0.01, 3.0]);
        let mut one = of(&[a]);
        one.merge(&of(&[b]));
        let both = of(&[a, b]);
        assert_eq!(one.total(), both.total());
        assert_eq!(one.zeros, both.zeros);
        let mut other = of(&[b]);
        other.merge(&of(&[a]));
        let bins = |h: &Histogram| h.bins().collect::<Vec<_>>();
        assert_eq!(bins(&one), bins(&other));
        let mut empty = Histogram::default();
        empty.merge(&one);
        assert_eq!(bins(&empty), bins(&one));
    }
}
