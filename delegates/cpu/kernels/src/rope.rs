//! Rotary position embedding.

use crate::lanes::{load, store};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, attention::Strides};

/// Rotates pairs of numbers of queries or keys by angles of their positions.
#[derive(Debug, Clone, Copy)]
pub struct Rope<'a> {
    /// How many batches there are.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Positions.
    pub rows: usize,
    /// Numbers of a head that are rotated, an even number; those behind are left alone.
    pub depth: usize,
    /// A pair is two neighbours; otherwise it is a number of the first half and the one at its place in the second.
    pub interleaved: bool,
    /// Cosines, one a pair, of the first row's position and those behind it.
    pub cos: &'a [f32],
    /// Sines, alike.
    pub sin: &'a [f32],
    /// From one position of the tables to the next: `depth / 2`, or `depth` where they hold every angle twice, halves behind each other.
    pub table_stride: usize,
}

impl Rope<'_> {
    /// Rotates in place.
    ///
    /// # Panics
    /// A slice is shorter than its strides say.
    pub fn run(&self, isa: Isa, pool: &dyn Pool, x: &mut [f32], strides: Strides) {
        let half = self.depth / 2;
        let units = self.batch * self.heads * self.rows;
        if units * half == 0 {
            return;
        }
        let last = (self.rows - 1) * self.table_stride + half;
        assert!(
            self.cos.len() >= last && self.sin.len() >= last,
            "the tables have all positions"
        );
        let end = (self.batch - 1) * strides.batch + (self.heads - 1) * strides.head + (self.rows - 1) * strides.row;
        assert!(x.len() >= end + 2 * half, "all rows are there");
        let parts = pool::parts(pool, units, 10 + half / 4);
        let x = Shared::new(x);
        pool.run(parts, &|part| {
            dispatch(
                isa,
                Rotate {
                    rope: self,
                    x,
                    strides,
                    units: pool::range(units, parts, part, 1),
                },
            );
        });
    }
}

struct Rotate<'a> {
    rope: &'a Rope<'a>,
    x: Shared<f32>,
    strides: Strides,
    units: std::ops::Range<usize>,
}

impl Op for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let a = self.rope;
        let half = a.depth / 2;
        for unit in self.units {
            let (row, head) = (unit % a.rows, unit / a.rows);
            let (head, batch) = (head % a.heads, head / a.heads);
            let at = batch * self.strides.batch + head * self.strides.head + row * self.strides.row;
            let cos = &a.cos[row * a.table_stride..][..half];
            let sin = &a.sin[row * a.table_stride..][..half];
            // SAFETY: the row is there, and a unit is of one part.
            unsafe {
                if a.interleaved {
                    let x = self.x.slice(at..at + 2 * half);
                    for ((pair, cos), sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = b * cos + a * sin;
                    }
                    continue;
                }
                let (low, high) = (self.x.at(at), self.x.at(at + half));
                for d in (0..half).step_by(S::LANES) {
                    let len = (half - d).min(S::LANES);
                    let (a, b) = (load(s, low.add(d), len), load(s, high.add(d), len));
                    let (cos, sin) = (load(s, cos.as_ptr().add(d), len), load(s, sin.as_ptr().add(d), len));
                    store(s, low.add(d), s.sub(s.mul(a, cos), s.mul(b, sin)), len);
                    store(s, high.add(d), s.add(s.mul(b, cos), s.mul(a, sin)), len);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    #[test]
    fn pairs_are_rotated_where_they_lie() {
        for (depth, room) in [(2, 2), (8, 8), (10, 13), (64, 64), (96, 128)] {
            for interleaved in [false, true] {
                for doubled in [false, true] {
                    let (batch, heads, rows, half) = (2, 3, 5, depth / 2);
                    let table_stride = if doubled { depth } else { half };
                    let angle = |row: usize, i: usize| (row as f64 + 3.0) * 0.7f64.powi(i as i32 % 20);
                    let table = |f: fn(f64) -> f64| -> Vec<f32> {
                        (0..rows * table_stride)
                            .map(|i| f(angle(i / table_stride, i % table_stride % half)) as f32)
                            .collect()
                    };
                    let (cos, sin) = (table(f64::cos), table(f64::sin));
                    let rope = Rope {
                        batch,
                        heads,
                        rows,
                        depth,
                        interleaved,
                        cos: &cos,
                        sin: &sin,
                        table_stride,
                    };
                    let strides = Strides::rows_first(heads, rows, room);
                    let x: Vec<f32> = (0..batch * heads * rows * room)
                        .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
                        .collect();
                    let mut want: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                    for unit in 0..batch * heads * rows {
                        let row = unit / heads % rows;
                        for i in 0..half {
                            let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                            let (a, b) = (unit * room + a, unit * room + b);
                            let (sin, cos) = angle(row, i).sin_cos();
                            (want[a], want[b]) = (want[a] * cos - want[b] * sin, want[b] * cos + want[a] * sin);
                        }
                    }
                    for isa in Isa::all() {
                        let mut have = x.clone();
                        rope.run(isa, &Serial, &mut have, strides);
                        for (have, want) in have.iter().zip(&want) {
                            assert!(
                                (f64::from(*have) - want).abs() < 4e-7,
                                "{isa}, {depth}: {have}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}
