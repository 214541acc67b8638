//! From what was observed to scale and zero point.

use crate::histogram::Histogram;
use crate::scheme::Observer;

/// Scale and zero point of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Affine {
    /// Step.
    pub scale: f32,
    /// Integer that stands for 0.
    pub zero_point: i64,
}

/// What is known of the numbers that a scale is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Smallest and largest; `None`: there were none.
    pub range: Option<(f32, f32)>,
    /// Kept where the observer asks for it.
    pub histogram: Option<Histogram>,
}

impl Seen {
    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Seen) {
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        match (&mut self.histogram, &other.histogram) {
            (Some(mine), Some(histogram)) => mine.merge(histogram),
            (mine @ None, Some(histogram)) => *mine = Some(histogram.clone()),
            (_, None) => {}
        }
    }
}

/// The range that an observer chooses. `None`: nothing was seen.
pub(crate) fn choose(seen: &Seen, observer: Observer, steps: i64) -> Option<(f32, f32)> {
    let (low, high) = seen.range?;
    let Some(histogram) = seen.histogram.as_ref().filter(|h| h.total() > 0) else {
        return Some((low, high));
    };
    let inside = |number: f64| (number as f32).clamp(low, high);
    Some(match observer {
        Observer::MinMax => (low, high),
        Observer::Percentile(percent) => {
            let tail = (100.0 - percent) / 200.0;
            (inside(histogram.quantile(tail)), inside(histogram.quantile(1.0 - tail)))
        }
        Observer::Mse => least_squares(histogram, f64::from(low), f64::from(high), steps),
    })
}

/// Ends of the range that are tried, on each side.
const TRIED: usize = 64;

/// Numbers up to some place: their count, sum, and sum of squares.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn and(self, number: f64, count: f64) -> Sums {
        Sums {
            count: self.count + count,
            sum: self.sum + count * number,
            squares: self.squares + count * number * number,
        }
    }

    /// What it costs to take `end` for all of them.
    fn cut(self, end: f64) -> f64 {
        (self.squares - 2.0 * end * self.sum + self.count * end * end).max(0.0)
    }
}

/// The range inside of `low` and `high` with the least squared error: inside of it, what rounding costs on average, and beside
/// it, the distance to its end. All of a bin that is cut counts as its outer border.
fn least_squares(histogram: &Histogram, low: f64, high: f64, steps: i64) -> (f32, f32) {
    // Ascending: a bin's lower border, and what lies before it. Descending: its upper border, and what lies behind it.
    let bins: Vec<(f64, f64)> = histogram.bins().map(|(middle, count)| (middle, count as f64)).collect();
    let half = histogram.width() / 2.0;
    let (mut up, mut down) = (
        vec![(f64::NEG_INFINITY, Sums::default())],
        vec![(f64::INFINITY, Sums::default())],
    );
    let mut sums = Sums::default();
    for (middle, count) in &bins {
        let border = (middle - half).max(low);
        sums = sums.and(border, *count);
        up.push((border, sums));
    }
    sums = Sums::default();
    for (middle, count) in bins.iter().rev() {
        let border = (middle + half).min(high);
        sums = sums.and(border, *count);
        down.push((border, sums));
    }
    let error = |low: f64, high: f64| {
        let under = up[up.partition_point(|entry| entry.0 < low) - 1].1;
        let over = down[down.partition_point(|entry| entry.0 > high) - 1].1;
        let step = (high.max(0.0) - low.min(0.0)) / steps as f64;
        let rounded = (sums.count - under.count - over.count - histogram.zeros as f64).max(0.0);
        rounded * step * step / 12.0 + under.cut(low) + over.cut(high)
    };
    // Zero stays inside; an end on the other side of it has nothing to give up.
    let ends = |end: f64| (0..TRIED).map(move |i| end * (1.0 - i as f64 / TRIED as f64));
    let (mut best, mut chosen) = (error(low, high), (low, high));
    for from in ends(low.min(0.0)) {
        for to in ends(high.max(0.0)) {
            let cost = error(from, to);
            if cost < best {
                (best, chosen) = (cost, (from, to));
            }
        }
    }
    (chosen.0 as f32, chosen.1 as f32)
}

/// Scale and zero point of a range, as PyTorch's `MinMaxObserver` computes them for asymmetric integers, in f32. `None`: the
/// range is too wide for f32.
pub(crate) fn affine((low, high): (f32, f32), (least, most): (i64, i64)) -> Option<Affine> {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = ((high - low) / (most - least) as f32).max(f32::EPSILON);
    scale.is_finite().then(|| Affine {
        scale,
        zero_point: (least - (low / scale).round_ties_even() as i64).clamp(least, most),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[f32]) -> Seen {
        let low = numbers.iter().copied().fold(f32::INFINITY, f32::min);
        let high = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut histogram = Histogram::default();
        histogram.add(numbers, low, high);
        Seen {
            range: Some((low, high)),
            histogram: Some(histogram),
        }
    }

    #[test]
    fn scales_are_those_of_pytorch() {
        // torch.ao.quantization.MinMaxObserver(torch.qint8, torch.per_tensor_affine, quant_min=-128, quant_max=127)
        // on [-1.0, 2.5] gives 0.013_725_49, -55; on [0.0, 6.0] 0.023_529_412, -128; on [3.0] 0.011_764_706, -128.
        let eight = (-128, 127);
        let made = affine((-1.0, 2.5), eight).unwrap();
        assert_eq!((made.scale, made.zero_point), (0.013_725_49, -55));
        let made = affine((0.0, 6.0), eight).unwrap();
        assert_eq!((made.scale, made.zero_point), (0.023_529_412, -128));
        let made = affine((3.0, 3.0), eight).unwrap();
        assert_eq!((made.scale, made.zero_point), (0.011_764_706, -128));
        // All zeros: the smallest scale there is.
        assert_eq!(affine((0.0, 0.0), eight).unwrap().scale, f32::EPSILON);
        assert_eq!(affine((-3e38, 3e38), eight), None);
        assert_eq!(affine((-1.0, 0.0), (0, 65535)).unwrap().zero_point, 65535);
    }

    #[test]
    fn an_outlier_is_cut_off_where_that_pays() {
        let mut numbers: Vec<f32> = (0..100_000).map(|i| (i as f32 / 100_000.0 - 0.5) * 2.0).collect();
        numbers.push(100.0);
        let seen = seen(&numbers);
        assert_eq!(choose(&seen, Observer::MinMax, 255), Some((-1.0, 100.0)));
        let (low, high) = choose(&seen, Observer::Percentile(99.9), 255).unwrap();
        assert!(
            (-1.0..-0.99).contains(&low) && (0.99..1.1).contains(&high),
            "{low} {high}"
        );
        let (low, high) = choose(&seen, Observer::Mse, 15).unwrap();
        // 4 bits: a step over the whole range is 6.7, and nearly all numbers would become 0.
        assert!(low >= -1.0 && high < 60.0, "{low} {high}");
        // 16 bits: nothing is won.
        assert_eq!(choose(&seen, Observer::Mse, 65535), Some((-1.0, 100.0)));
    }
}
