//! Scaled dot product attention, `softmax(q * k^T * scale + mask) * v`, without the matrix of scores.
//!
//! Keys are walked in blocks; a query's largest score so far, the sum of its exponentials and its sum of values are corrected when a block has a
//! larger one. With many queries, lanes are queries: keys and values are read where they lie, number by number, and nothing is reduced over lanes.
//! With few (decoding), lanes are the depth, keys and values are read once for all query heads that share them, and long caches are divided in a
//! fixed way, so that results are the same bits for every number of threads.

mod few;
mod many;

use crate::Isa;
use crate::pool::{Pool, Shared};
use crate::simd::Simd;
use half::{bf16, f16};

/// Where rows of `[batch, heads, rows, depth]` lie: in elements, for each of the first three. The depth is dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strides {
    /// From one batch to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one query, key or value to the next.
    pub row: usize,
}

impl Strides {
    /// Of dense `[batch, heads, rows, depth]`.
    pub fn heads_first(heads: usize, rows: usize, depth: usize) -> Strides {
        Strides {
            batch: heads * rows * depth,
            head: rows * depth,
            row: depth,
        }
    }

    /// Of dense `[batch, rows, heads, depth]`.
    pub fn rows_first(heads: usize, rows: usize, depth: usize) -> Strides {
        Strides {
            batch: heads * rows * depth,
            head: depth,
            row: heads * depth,
        }
    }

    fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        batch * self.batch + head * self.head + row * self.row
    }

    /// Elements from the first to behind the last.
    fn extent(&self, batch: usize, heads: usize, rows: usize, depth: usize) -> usize {
        match batch == 0 || heads == 0 || rows == 0 || depth == 0 {
            true => 0,
            false => self.at(batch - 1, heads - 1, rows - 1) + depth,
        }
    }
}

/// Numbers of keys and values.
pub trait Element: Copy + Send + Sync + 'static {
    /// They are floats already.
    const FLOAT: bool;

    /// The number as a float.
    fn float(self) -> f32;

    /// `LANES` of them.
    ///
    /// # Safety
    /// They are there.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F;
}

impl Element for f32 {
    const FLOAT: bool = true;

    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load(from) }
    }
}

impl Element for f16 {
    const FLOAT: bool = false;

    #[inline(always)]
    fn float(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_f16(from.cast()) }
    }
}

impl Element for bf16 {
    const FLOAT: bool = false;

    #[inline(always)]
    fn float(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const bf16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_bf16(from.cast()) }
    }
}

/// A mask's numbers.
#[derive(Debug, Clone, Copy)]
pub enum MaskValues<'a> {
    /// Added to the scaled scores.
    Float(&'a [f32]),
    /// Keys of which it is 0 are not seen.
    Bool(&'a [u8]),
}

/// A mask over `[batch, heads, queries, keys]`; a stride of 0 repeats it.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Its numbers.
    pub values: MaskValues<'a>,
    /// From one batch to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one query to the next.
    pub query: usize,
    /// From one key to the next.
    pub key: usize,
}

impl Mask<'_> {
    /// What a score is added.
    #[inline(always)]
    fn of(&self, base: usize, query: usize, key: usize) -> f32 {
        let at = base + query * self.query + key * self.key;
        match self.values {
            MaskValues::Float(x) => x[at],
            MaskValues::Bool(x) if x[at] != 0 => 0.0,
            MaskValues::Bool(_) => f32::NEG_INFINITY,
        }
    }
}

/// Sizes and meaning of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// How many batches there are.
    pub batch: usize,
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values: query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Queries of a head.
    pub queries: usize,
    /// Keys of a head: of a cache, those that are filled. None beyond is read.
    pub keys: usize,
    /// Numbers of a query and of a key.
    pub depth: usize,
    /// Numbers of a value and of an output.
    pub value_depth: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// `Some(start)`: query `i` sees keys up to `start + i` alone.
    pub causal: Option<usize>,
    /// What scores are added.
    pub mask: Option<Mask<'a>>,
    /// A query that sees no key, since its scores are all -infinity, gives zeros, as `scaled_dot_product_attention` of PyTorch from 2.5 does;
    /// otherwise NaN, as its `softmax` gives.
    pub zero_unseen: bool,
}

/// One tensor and its strides.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// The elements, from the first of the first row.
    pub values: &'a [T],
    /// Where rows lie.
    pub strides: Strides,
}

/// Keys that are scored at once.
const KEYS: usize = 64;
/// With as many rows of queries that read the same keys, or fewer, lanes are the depth.
const FEW: usize = 8;
/// Keys of a part where a cache is divided.
const SPLIT: usize = 256;
/// With as many heads of keys and batches, caches are not divided.
const UNITS: usize = 32;
/// Queries that are lanes at once: three vectors of sixteen.
const QUERIES: usize = 48;

impl Attention<'_> {
    fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Lanes are the depth.
    fn is_few(&self) -> bool {
        self.queries * self.group() <= FEW || self.queries <= 2
    }

    /// In how many parts the keys of a head are divided.
    fn splits(&self) -> usize {
        match self.batch * self.kv_heads >= UNITS {
            true => 1,
            false => self.keys.div_ceil(SPLIT).max(1),
        }
    }

    fn blocks(&self) -> usize {
        self.queries.div_ceil(QUERIES)
    }

    fn parts(&self, threads: usize, units: usize) -> usize {
        match threads {
            0 | 1 => 1,
            threads => units.clamp(1, threads * 4),
        }
    }

    /// How long the scratch is for as many threads as the pool has.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match self.is_few() {
            true => {
                let rows = self.queries * self.group();
                let units = self.batch * self.kv_heads * self.splits();
                units * rows * (self.value_depth + 2) + self.parts(threads, units) * rows * (self.depth + KEYS)
            }
            false => {
                let units = self.batch * self.heads * self.blocks();
                self.parts(threads, units) * (QUERIES + KEYS) * (self.depth + self.value_depth + KEYS)
            }
        }
    }

    /// Computes `out` of `[batch, heads, queries, value_depth]` in `out_strides`; elements between rows are left alone. Without keys, it is zeros.
    ///
    /// # Panics
    /// A slice is shorter than its strides say, the heads are no multiple of `kv_heads`, or the scratch is shorter than
    /// [`Attention::scratch_len`].
    pub fn run<T: Element>(
        &self,
        isa: Isa,
        pool: &dyn Pool,
        q: Rows<f32>,
        k: Rows<T>,
        v: Rows<T>,
        out: &mut [f32],
        out_strides: Strides,
        scratch: &mut [f32],
    ) {
        if self.batch * self.heads * self.queries * self.value_depth == 0 {
            return;
        }
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "query heads share heads of keys evenly"
        );
        let (b, h, n) = (self.batch, self.heads, self.queries);
        assert!(
            q.values.len() >= q.strides.extent(b, h, n, self.depth),
            "the queries are there"
        );
        assert!(
            k.values.len() >= k.strides.extent(b, self.kv_heads, self.keys, self.depth),
            "the keys are there"
        );
        assert!(
            v.values.len() >= v.strides.extent(b, self.kv_heads, self.keys, self.value_depth),
            "the values are there"
        );
        assert!(
            out.len() >= out_strides.extent(b, h, n, self.value_depth),
            "the output is there"
        );
        if let Some(mask) = self.mask.filter(|_| self.keys > 0) {
            let last = (b - 1) * mask.batch + (h - 1) * mask.head + (n - 1) * mask.query + (self.keys - 1) * mask.key;
            let len = match mask.values {
                MaskValues::Float(x) => x.len(),
                MaskValues::Bool(x) => x.len(),
            };
            assert!(len > last, "the mask is there");
        }
        assert!(
            scratch.len() >= self.scratch_len(pool.threads()),
            "the scratch is there"
        );
        let call = Call {
            attention: self,
            q,
            k,
            v,
            out: Shared::new(out),
            out_strides,
        };
        match self.is_few() {
            true => few::run(isa, pool, call, scratch),
            false => many::run(isa, pool, call, scratch),
        }
    }
}

/// What every part reads and writes.
#[derive(Clone, Copy)]
struct Call<'a, T> {
    attention: &'a Attention<'a>,
    q: Rows<'a, f32>,
    k: Rows<'a, T>,
    v: Rows<'a, T>,
    out: Shared<f32>,
    out_strides: Strides,
}

impl<T> Call<'_, T> {
    /// Behind the last key that a query sees.
    #[inline(always)]
    fn seen(&self, query: usize) -> usize {
        let keys = self.attention.keys;
        self.attention.causal.map_or(keys, |start| keys.min(start + query + 1))
    }

    /// Where the mask of a head begins.
    #[inline(always)]
    fn mask_base(&self, batch: usize, head: usize) -> usize {
        self.attention
            .mask
            .map_or(0, |mask| batch * mask.batch + head * mask.head)
    }
}

/// The work of a unit in about nanoseconds, for [`crate::pool::parts`].
fn work(depths: usize, queries: usize, keys: usize) -> usize {
    depths * queries * keys / 32 + 100
}

#[cfg(test)]
mod tests;
