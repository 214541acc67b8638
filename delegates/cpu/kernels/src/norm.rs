//! Normalisation: of layers, by root mean square, of groups of channels.
//!
//! Sums are of floats over blocks of two thousand elements and of doubles over the blocks. Variances are those of differences from the mean, less what the
//! mean's own rounding adds: large means cost nothing.

use crate::Isa;
use crate::lanes::{first, load, store, sum};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// Normalisation along rows.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// The length of a row.
    pub columns: usize,
    /// The mean is left in, and rows are divided by the root of their mean square.
    pub root_mean_square: bool,
    /// What columns are multiplied with.
    pub weight: Option<&'a [f32]>,
    /// What columns are added then.
    pub bias: Option<&'a [f32]>,
    /// What is added to the variance, or to the mean square, under the root.
    pub epsilon: f32,
}

impl Norm<'_> {
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias` of every row of `x`, or of `x + residual`, which `sum` is given too.
    ///
    /// # Panics
    /// `x`, `residual`, `sum` and `out` differ in length, or weights are too short.
    pub fn run(
        &self,
        isa: Isa,
        pool: &dyn Pool,
        x: &[f32],
        residual: Option<&[f32]>,
        sum: Option<&mut [f32]>,
        out: &mut [f32],
    ) {
        let n = self.columns;
        assert_eq!(x.len(), out.len(), "the output is as long as the input");
        assert!(
            residual.is_none_or(|r| r.len() == x.len()),
            "the residual is as long as the input"
        );
        assert!(
            sum.as_ref().is_none_or(|s| s.len() == x.len()),
            "the sum is as long as the input"
        );
        assert!(
            [self.weight, self.bias].iter().flatten().all(|w| w.len() >= n),
            "one weight a column"
        );
        if x.is_empty() || n == 0 {
            return;
        }
        let rows = x.len() / n;
        let parts = pool::parts(pool, rows, 20 + n / 4);
        let (out, sum) = (Shared::new(out), sum.map(Shared::new));
        pool.run(parts, &|part| {
            let rows = pool::range(rows, parts, part, 1);
            dispatch(
                isa,
                Rows {
                    norm: self,
                    x,
                    residual,
                    sum,
                    rows,
                    out,
                },
            );
        });
    }
}

struct Rows<'a> {
    norm: &'a Norm<'a>,
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    sum: Option<Shared<f32>>,
    rows: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.norm.columns;
        for row in self.rows {
            let start = row * n;
            let mut x = self.x[start..][..n].as_ptr();
            // SAFETY: the row lies in the output and in the sum, and no other part has it; all have `n` elements.
            unsafe {
                let out = self.out.at(start);
                if self.residual.is_some() || self.sum.is_some() {
                    let to = match self.sum {
                        Some(sum) => sum.at(start),
                        None => out,
                    };
                    let residual = self.residual.map(|r| r[start..][..n].as_ptr());
                    for at in (0..n).step_by(S::LANES) {
                        let len = (n - at).min(S::LANES);
                        let mut value = load(s, x.add(at), len);
                        if let Some(residual) = residual {
                            value = s.add(value, load(s, residual.add(at), len));
                        }
                        store(s, to.add(at), value, len);
                    }
                    x = to;
                }
                let (mean, delta, factor) = match self.norm.root_mean_square {
                    true => (0.0, 0.0, root_mean_square(s, x, n, self.norm.epsilon)),
                    false => moments(s, x, n, self.norm.epsilon),
                };
                let (mean, delta, factor) = (s.splat(mean), s.splat(delta), s.splat(factor));
                for at in (0..n).step_by(S::LANES) {
                    let len = (n - at).min(S::LANES);
                    let mut value = s.mul(s.sub(s.sub(load(s, x.add(at), len), mean), delta), factor);
                    match (self.norm.weight, self.norm.bias) {
                        (Some(w), Some(b)) => {
                            value = s.fma(
                                value,
                                load(s, w.as_ptr().add(at), len),
                                load(s, b.as_ptr().add(at), len),
                            );
                        }
                        (Some(w), None) => value = s.mul(value, load(s, w.as_ptr().add(at), len)),
                        (None, Some(b)) => value = s.add(value, load(s, b.as_ptr().add(at), len)),
                        (None, None) => {}
                    }
                    store(s, out.add(at), value, len);
                }
            }
        }
    }
}

/// The mean in two parts, and what differences from it are multiplied with.
///
/// # Safety
/// `x` has `n` elements.
#[inline(always)]
unsafe fn moments<S: Simd>(s: S, x: *const f32, n: usize, epsilon: f32) -> (f32, f32, f32) {
    let count = n as f64;
    // SAFETY: as the caller says.
    let total = sum!(s, S::LANES, n, |at, len| unsafe { load(s, x.add(at), len) });
    let mean = (total / count) as f32;
    let middle = s.splat(mean);
    let mut differences = 0.0f64;
    let squares = {
        let mut all = 0.0f64;
        let mut begin = 0;
        while begin < n {
            let end = (begin + crate::lanes::block()).min(n);
            let mut sums = [[s.splat(0.0); 2]; 2];
            let mut at = begin;
            while at + 2 * S::LANES <= end {
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as the caller says.
                    let d = s.sub(unsafe { s.load(x.add(at + i * S::LANES)) }, middle);
                    *sums = [s.add(sums[0], d), s.fma(d, d, sums[1])];
                }
                at += 2 * S::LANES;
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let at = at + i * S::LANES;
                if at < end {
                    let len = (end - at).min(S::LANES);
                    // SAFETY: as the caller says.
                    let d = s.sub(unsafe { load(s, x.add(at), len) }, middle);
                    let d = if len < S::LANES { first(s, len, d, 0.0) } else { d };
                    *sums = [s.add(sums[0], d), s.fma(d, d, sums[1])];
                }
            }
            differences += f64::from(s.sum(s.add(sums[0][0], sums[1][0])));
            all += f64::from(s.sum(s.add(sums[0][1], sums[1][1])));
            begin = end;
        }
        all
    };
    let delta = differences / count;
    let variance = ((squares - differences * delta) / count).max(0.0);
    // `max` drops a NaN.
    let variance = if squares.is_nan() { f64::NAN } else { variance };
    (
        mean,
        delta as f32,
        (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32,
    )
}

/// # Safety
/// `x` has `n` elements.
#[inline(always)]
unsafe fn root_mean_square<S: Simd>(s: S, x: *const f32, n: usize, epsilon: f32) -> f32 {
    let squares = sum!(s, S::LANES, n, |at, len| {
        // SAFETY: as the caller says.
        let value = unsafe { load(s, x.add(at), len) };
        s.mul(value, value)
    });
    (1.0 / (squares / n as f64 + f64::from(epsilon)).sqrt()) as f32
}

/// Normalisation of groups of channels of images: of all `spatial` places of each of `groups` runs of `channels / groups` channels.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// How many images there are.
    pub batch: usize,
    /// Channels of an image; a multiple of the groups.
    pub channels: usize,
    /// Places of an image.
    pub spatial: usize,
    /// Groups of an image.
    pub groups: usize,
    /// What channels are multiplied with.
    pub weight: Option<&'a [f32]>,
    /// What channels are added then.
    pub bias: Option<&'a [f32]>,
    /// What is added to the variance, under the root.
    pub epsilon: f32,
}

/// Places whose channels are summed in floats before the sum goes to a double.
const PLACES: usize = 512;

impl GroupNorm<'_> {
    fn check(&self, x: &[f32], out: &[f32]) -> bool {
        let n = self.batch * self.channels * self.spatial;
        assert!(x.len() == n && out.len() == n, "input and output have all elements");
        assert!(
            [self.weight, self.bias]
                .iter()
                .flatten()
                .all(|w| w.len() >= self.channels),
            "one weight a channel"
        );
        assert!(
            self.groups > 0 && self.channels.is_multiple_of(self.groups),
            "channels are a multiple of the groups"
        );
        n > 0
    }

    /// Over `[batch, channels, spatial]`.
    ///
    /// # Panics
    /// Slices have not the sizes that this says.
    pub fn run_nchw(&self, isa: Isa, pool: &dyn Pool, x: &[f32], out: &mut [f32]) {
        if !self.check(x, out) {
            return;
        }
        let count = self.batch * self.groups;
        let parts = pool::parts(pool, count, 20 + self.channels / self.groups * self.spatial / 4);
        let out = Shared::new(out);
        pool.run(parts, &|part| {
            let groups = pool::range(count, parts, part, 1);
            dispatch(
                isa,
                Groups {
                    norm: self,
                    x,
                    groups,
                    out,
                },
            );
        });
    }

    /// How long the scratch of [`GroupNorm::run_nhwc`] is.
    pub fn scratch_len(&self) -> usize {
        self.batch * (self.spatial.div_ceil(PLACES) + 1) * 2 * self.channels
    }

    /// Over `[batch, spatial, channels]`.
    ///
    /// # Panics
    /// Slices have not the sizes that this says, or the scratch is shorter than [`GroupNorm::scratch_len`].
    pub fn run_nhwc(&self, isa: Isa, pool: &dyn Pool, x: &[f32], out: &mut [f32], scratch: &mut [f32]) {
        if !self.check(x, out) {
            return;
        }
        let (c, blocks) = (self.channels, self.spatial.div_ceil(PLACES));
        let units = self.batch * blocks;
        let (sums, ends) = scratch[..self.scratch_len()].split_at_mut(units * 2 * c);
        let parts = pool::parts(pool, units, PLACES.min(self.spatial) * c / 4);
        let out = Shared::new(out);
        for phase in [Phase::Sums, Phase::Squares, Phase::Apply] {
            let shared = Shared::new(sums);
            let means = &*ends;
            pool.run(parts, &|part| {
                let units = pool::range(units, parts, part, 1);
                dispatch(
                    isa,
                    Channels {
                        norm: self,
                        phase,
                        x,
                        units,
                        blocks,
                        sums: shared,
                        means,
                        out,
                    },
                );
            });
            let count = (c / self.groups * self.spatial) as f64;
            for image in 0..self.batch {
                let ends = &mut ends[image * 2 * c..][..2 * c];
                for group in 0..self.groups {
                    let channels = group * (c / self.groups)..(group + 1) * (c / self.groups);
                    let all = |which: usize| -> f64 {
                        let of = |block: usize| &sums[((image * blocks + block) * 2 + which) * c..][channels.clone()];
                        (0..blocks).flat_map(of).map(|x| f64::from(*x)).sum()
                    };
                    match phase {
                        Phase::Sums => ends[channels.clone()].fill((all(0) / count) as f32),
                        Phase::Squares => {
                            let (differences, squares) = (all(0), all(1));
                            let delta = differences / count;
                            let variance = (squares - differences * delta) / count;
                            let variance = if variance < 0.0 { 0.0 } else { variance };
                            let factor = 1.0 / (variance + f64::from(self.epsilon)).sqrt();
                            for channel in channels.clone() {
                                // Behind the mean: what differences are multiplied with, and in the place of sums, which are done with, what is
                                // added then.
                                let factor = factor * self.weight.map_or(1.0, |w| f64::from(w[channel]));
                                ends[c + channel] = factor as f32;
                                sums[image * blocks * 2 * c + channel] =
                                    (self.bias.map_or(0.0, |b| f64::from(b[channel])) - delta * factor) as f32;
                            }
                        }
                        Phase::Apply => {}
                    }
                }
            }
        }
    }
}

struct Groups<'a> {
    norm: &'a GroupNorm<'a>,
    x: &'a [f32],
    groups: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Groups<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (channels, spatial) = (self.norm.channels / self.norm.groups, self.norm.spatial);
        let n = channels * spatial;
        for group in self.groups {
            let x = self.x[group * n..][..n].as_ptr();
            // SAFETY: the group lies in input and output, and no other part has it.
            let (out, (mean, delta, factor)) = unsafe { (self.out.at(group * n), moments(s, x, n, self.norm.epsilon)) };
            for i in 0..channels {
                let channel = group % self.norm.groups * channels + i;
                let weight = factor * self.norm.weight.map_or(1.0, |w| w[channel]);
                let bias = self.norm.bias.map_or(0.0, |b| b[channel]) - delta * weight;
                let (mean, weight, bias) = (s.splat(mean), s.splat(weight), s.splat(bias));
                for at in (0..spatial).step_by(S::LANES) {
                    let len = (spatial - at).min(S::LANES);
                    // SAFETY: as above.
                    unsafe {
                        let value = s.sub(load(s, x.add(i * spatial + at), len), mean);
                        store(s, out.add(i * spatial + at), s.fma(value, weight, bias), len);
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Sums,
    Squares,
    Apply,
}

struct Channels<'a> {
    norm: &'a GroupNorm<'a>,
    phase: Phase,
    x: &'a [f32],
    units: std::ops::Range<usize>,
    blocks: usize,
    sums: Shared<f32>,
    means: &'a [f32],
    out: Shared<f32>,
}

impl Op for Channels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.norm.channels;
        for unit in self.units {
            let (image, block) = (unit / self.blocks, unit % self.blocks);
            let places = block * PLACES..((block + 1) * PLACES).min(self.norm.spatial);
            let ends = self.means[image * 2 * c..][..2 * c].as_ptr();
            let start = (image * self.norm.spatial + places.start) * c;
            let x = self.x[start..][..places.len() * c].as_ptr();
            for at in (0..c).step_by(S::LANES) {
                let len = (c - at).min(S::LANES);
                let (mut total, mut squares) = (s.splat(0.0), s.splat(0.0));
                // SAFETY: channels and places are in the slices; sums of this unit and places of the output are of this part alone; offsets, which stand
                // in an image's first sums, are only read in the phase that reads them.
                unsafe {
                    let mean = load(s, ends.add(at), len);
                    match self.phase {
                        Phase::Sums => {
                            for place in 0..places.len() {
                                total = s.add(total, load(s, x.add(place * c + at), len));
                            }
                        }
                        Phase::Squares => {
                            for place in 0..places.len() {
                                let d = s.sub(load(s, x.add(place * c + at), len), mean);
                                total = s.add(total, d);
                                squares = s.fma(d, d, squares);
                            }
                        }
                        Phase::Apply => {
                            let factor = load(s, ends.add(c + at), len);
                            let offset = load(s, self.sums.at(image * self.blocks * 2 * c + at), len);
                            let out = self.out.at(start);
                            for place in 0..places.len() {
                                let d = s.sub(load(s, x.add(place * c + at), len), mean);
                                store(s, out.add(place * c + at), s.fma(d, factor, offset), len);
                            }
                            continue;
                        }
                    }
                    store(s, self.sums.at(unit * 2 * c + at), total, len);
                    store(s, self.sums.at((unit * 2 + 1) * c + at), squares, len);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
