//! Products of two activations.

use super::drive::{self, Job};
use super::finish::Finish;
use super::pack::{Stored, packed_len, width_for};
use super::rows::Rows;
use super::{check, extent};
use crate::pool::{self, Pool, Serial, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Epilogue, Isa};

/// Rows of the left matrix up to which the right one is read where it lies.
const FEW: usize = 4;

/// The sizes of `batch` products of `[m, k]` by `[k, n]`, and how elements lie: from one matrix, row and column to the next. Columns of the left
/// matrix and of the output lie one behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// How many products.
    pub batch: usize,
    /// Rows of the left matrix.
    pub m: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Columns of the right matrix.
    pub n: usize,
    /// From one left matrix to the next (0: it is the same), and from one row to the next.
    pub a: [usize; 2],
    /// From one right matrix to the next (0: it is the same), one row and one column: `[.., n, 1]`, or `[.., 1, k]` for one that is transposed.
    pub b: [usize; 3],
    /// From one output to the next, and one row.
    pub out: [usize; 2],
}

/// Parts that have their own scratch.
fn parts(shape: &Batch, threads: usize) -> usize {
    match shape.batch >= threads {
        true => threads.max(1),
        false => 1,
    }
}

/// Floats of scratch that [`matmul`] asks for with so many threads.
pub fn scratch_len(isa: Isa, shape: &Batch, threads: usize) -> usize {
    packed_len(shape.k, shape.n, width_for(isa)) * parts(shape, threads)
}

/// `out = epilogue(a * b)` for each of a batch. The bias is the same for all; the residual is laid out as the output.
///
/// # Panics
/// If a slice is too short (`scratch`: [`scratch_len`] of the pool's threads), or outputs overlap.
pub fn matmul(
    isa: Isa,
    pool: &dyn Pool,
    shape: &Batch,
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    scratch: &mut [f32],
) {
    let &Batch { batch, m, k, n, .. } = shape;
    if batch == 0 || m == 0 || n == 0 {
        return;
    }
    let whole = |each: usize, step: usize| if each == 0 { 0 } else { (batch - 1) * step + each };
    assert!(
        a.len() >= whole(extent(m, k, shape.a[1]), shape.a[0]),
        "too short a left matrix"
    );
    let right = if k == 0 {
        0
    } else {
        (k - 1) * shape.b[1] + (n - 1) * shape.b[2] + 1
    };
    assert!(b.len() >= whole(right, shape.b[0]), "too short a right matrix");
    let one = extent(m, n, shape.out[1]);
    assert!(out.len() >= whole(one, shape.out[0]), "too short an output");
    assert!(
        (m < 2 || shape.out[1] >= n) && (batch < 2 || shape.out[0] >= one),
        "outputs overlap"
    );
    assert!(
        scratch.len() >= scratch_len(isa, shape, pool.threads()),
        "too little scratch"
    );
    check(epilogue, 1, n, n);
    assert!(
        epilogue
            .residual
            .is_none_or(|all| all.len() >= whole(one, shape.out[0])),
        "too short a residual"
    );
    let finish = Finish::new(epilogue, shape.out[1]);
    let (out, scratch) = (Shared::new(out), Shared::new(scratch));
    let one = |pool: &dyn Pool, at: usize, part: usize| {
        let width = width_for(isa);
        let work = Work {
            isa,
            shape,
            a: &a[(at * shape.a[0]).min(a.len())..],
            b: &b[(at * shape.b[0]).min(b.len())..],
            // SAFETY: the output is there, and this product's alone.
            out: unsafe { out.from(at * shape.out[0]) },
            finish: finish.moved(at * shape.out[0]),
            // SAFETY: so is the scratch, and this part's alone.
            scratch: unsafe { scratch.from(part * packed_len(k, n, width)) },
            width,
        };
        work.run(pool);
    };
    match parts(shape, pool.threads()) {
        1 => (0..batch).for_each(|at| one(pool, at, 0)),
        parts => pool.run(parts, &|part| {
            pool::range(batch, parts, part, 1).for_each(|at| one(&Serial, at, part))
        }),
    }
}

/// One product.
struct Work<'a> {
    isa: Isa,
    shape: &'a Batch,
    a: &'a [f32],
    b: &'a [f32],
    out: Shared<f32>,
    finish: Finish,
    scratch: Shared<f32>,
    width: usize,
}

impl Work<'_> {
    fn run(&self, pool: &dyn Pool) {
        let &Batch { m, k, n, .. } = self.shape;
        if m <= FEW && self.shape.b[1] == 1 && !self.finish.twice() {
            let parts = pool::parts(pool, n, m * k / 16 + 1);
            return pool.run(parts, &|part| {
                dispatch(
                    self.isa,
                    Dots {
                        work: self,
                        columns: pool::range(n, parts, part, 1),
                    },
                );
            });
        }
        // Whole panels of few rows are read where they lie.
        let plain = if m <= FEW && self.shape.b[2] == 1 {
            n / self.width
        } else {
            0
        };
        let panels = n.div_ceil(self.width);
        let parts = pool::parts(pool, panels - plain, k * self.width / 4 + 1);
        pool.run(parts, &|part| {
            for panel in pool::range(panels - plain, parts, part, 1) {
                self.pack(plain + panel, panel);
            }
        });
        if plain > 0 {
            self.product(
                pool,
                0,
                plain * self.width,
                Stored::F32(self.b),
                self.shape.b[1],
                self.width,
            );
        }
        if plain < panels {
            let each = k * self.width;
            // SAFETY: those panels were written above.
            let packed = unsafe { self.scratch.slice(0..(panels - plain) * each) };
            self.product(
                pool,
                plain * self.width,
                n - plain * self.width,
                Stored::F32(packed),
                self.width,
                each,
            );
        }
    }

    /// Packs a panel to where panel `to` is in the scratch.
    fn pack(&self, panel: usize, to: usize) {
        let ([_, row_step, column_step], width) = (self.shape.b, self.width);
        let (k, columns) = (self.shape.k, width.min(self.shape.n - panel * width));
        // SAFETY: each panel is written by one part.
        let to = unsafe { self.scratch.slice(to * k * width..(to + 1) * k * width) };
        let from = &self.b[(panel * width * column_step).min(self.b.len())..];
        if columns < width {
            to.fill(0.0);
        }
        if column_step == 1 {
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                to[..columns].copy_from_slice(&from[row * row_step..row * row_step + columns]);
            }
            return;
        }
        for column in 0..columns {
            let from = from[column * column_step..].iter().step_by(row_step.max(1));
            to.iter_mut()
                .skip(column)
                .step_by(width)
                .zip(from)
                .for_each(|(to, from)| *to = *from);
        }
    }

    /// Columns from `column` on.
    fn product(&self, pool: &dyn Pool, column: usize, n: usize, weights: Stored<'_>, step: usize, panel: usize) {
        let job = Job {
            source: Rows::plain(self.a.as_ptr(), self.shape.a[1]),
            rows: self.shape.m,
            positions: 1,
            depth: self.shape.k,
            weights,
            n,
            width: self.width,
            step,
            panel,
            // SAFETY: the column is one of the output.
            out: unsafe { self.out.from(column) },
            out_stride: self.shape.out[1],
            finish: self.finish.shifted(column),
        };
        // SAFETY: lengths were checked, and the output is this product's alone.
        unsafe { drive::run(self.isa, pool, &job) };
    }
}

/// Few rows by a transposed matrix: each sum on its own, over lanes.
struct Dots<'a> {
    work: &'a Work<'a>,
    columns: std::ops::Range<usize>,
}

impl Op for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Work {
            shape,
            a,
            b,
            out,
            finish,
            ..
        } = *self.work;
        for column in self.columns.clone() {
            for row in 0..shape.m {
                let (x, y) = (
                    a.as_ptr().wrapping_add(row * shape.a[1]),
                    b.as_ptr().wrapping_add(column * shape.b[2]),
                );
                let mut sums = [s.splat(0.0); 4];
                let mut at = 0;
                // SAFETY: `k` numbers of each are there, and the output's column is this part's.
                unsafe {
                    while at + 4 * S::LANES <= shape.k {
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let at = at + i * S::LANES;
                            *sum = s.fma(s.load(x.add(at)), s.load(y.add(at)), *sum);
                        }
                        at += 4 * S::LANES;
                    }
                    while at < shape.k {
                        let n = (shape.k - at).min(S::LANES);
                        sums[0] = s.fma(s.load_part(x.add(at), n), s.load_part(y.add(at), n), sums[0]);
                        at += n;
                    }
                    let sum = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
                    let done = finish.one(s, s.splat(sum), row, column, Some(1));
                    s.store_part(out.at(row * shape.out[1] + column), done, 1);
                }
            }
        }
    }
}
