//! LSTM and GRU over sequences.
//!
//! Hidden units go by blocks of sixteen. A block's weights of all gates stand side by side, so that a step multiplies, adds and computes the gates of
//! sixteen units without leaving registers. The inputs of many steps are multiplied at once, before the steps.

use crate::lanes::{load, store};
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Isa, math};

/// Hidden units of a block.
const BLOCK: usize = 16;
/// Rows of inputs, of all batches, that are multiplied before their steps.
const ROWS: usize = 256;

/// Which equations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Gates input, forget, cell, output, in this order.
    Lstm,
    /// Gates reset, update, new, in this order, with the hidden bias of the new one inside the reset, as PyTorch has it.
    Gru,
}

impl Cell {
    /// How many gates it has.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }
}

/// How long packed weights are.
pub fn packed_len(cell: Cell, inputs: usize, hidden: usize) -> usize {
    hidden.div_ceil(BLOCK) * BLOCK * cell.gates() * (inputs + hidden + 2)
}

/// Packs weights of `[gates * hidden, inputs]` and `[gates * hidden, hidden]` and biases of `[gates * hidden]`, in PyTorch's order. In the packed
/// form, blocks of hidden units follow each other: first `[block][input][gate][16]`, then `[block][hidden][gate][16]`, then the sums of both biases
/// `[block][gate][16]`, then those hidden biases that are not summed. Units that are not there are 0.
///
/// # Panics
/// A slice is shorter than that.
pub fn pack(
    cell: Cell,
    inputs: usize,
    hidden: usize,
    input_weight: &[f32],
    hidden_weight: &[f32],
    input_bias: Option<&[f32]>,
    hidden_bias: Option<&[f32]>,
) -> Vec<f32> {
    let gates = cell.gates();
    let mut packed = Vec::with_capacity(packed_len(cell, inputs, hidden));
    let blocks = hidden.div_ceil(BLOCK);
    let units =
        move |block: usize| (0..gates).flat_map(move |gate| (0..BLOCK).map(move |lane| (gate, block * BLOCK + lane)));
    for (weight, columns) in [(input_weight, inputs), (hidden_weight, hidden)] {
        for block in 0..blocks {
            for k in 0..columns {
                packed.extend(units(block).map(|(gate, unit)| match unit < hidden {
                    true => weight[(gate * hidden + unit) * columns + k],
                    false => 0.0,
                }));
            }
        }
    }
    for summed in [true, false] {
        for block in 0..blocks {
            packed.extend(units(block).map(|(gate, unit)| {
                if unit >= hidden {
                    return 0.0;
                }
                let of = |bias: Option<&[f32]>| bias.map_or(0.0, |b| b[gate * hidden + unit]);
                let apart = cell == Cell::Gru && gate == 2;
                match (summed, apart) {
                    (true, false) => of(input_bias) + of(hidden_bias),
                    (true, true) => of(input_bias),
                    (false, false) => 0.0,
                    (false, true) => of(hidden_bias),
                }
            }));
        }
    }
    packed
}

/// One direction of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Recurrent<'a> {
    /// Which equations.
    pub cell: Cell,
    /// Numbers of an input.
    pub inputs: usize,
    /// Hidden units.
    pub hidden: usize,
    /// What [`pack`] made.
    pub packed: &'a [f32],
    /// How many steps there are.
    pub time: usize,
    /// How many sequences there are.
    pub batch: usize,
    /// From the last step to the first.
    pub reverse: bool,
    /// Elements from one step's inputs to the next, and from one sequence's to the next.
    pub x_strides: [usize; 2],
    /// The same of outputs: with both directions in one tensor, steps are twice the hidden units long.
    pub out_strides: [usize; 2],
}

impl Recurrent<'_> {
    fn chunk(&self) -> usize {
        (ROWS / self.batch.max(1)).clamp(1, self.time.max(1))
    }

    /// How long the scratch is.
    pub fn scratch_len(&self) -> usize {
        self.chunk() * self.batch * self.hidden.div_ceil(BLOCK) * BLOCK * self.cell.gates()
    }

    /// Runs all steps. `h`, `[batch, hidden]`, holds the first state and then the last; so does `c` of an LSTM, and is empty for a GRU. A state
    /// goes to `out` after each step.
    ///
    /// # Panics
    /// A slice is shorter than its sizes and strides say.
    pub fn run(
        &self,
        isa: Isa,
        pool: &dyn Pool,
        x: &[f32],
        h: &mut [f32],
        c: &mut [f32],
        out: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (n, batch) = (self.hidden, self.batch);
        if n * batch * self.time == 0 {
            return;
        }
        let last = |strides: [usize; 2], len: usize| (self.time - 1) * strides[0] + (batch - 1) * strides[1] + len;
        assert!(x.len() >= last(self.x_strides, self.inputs) && out.len() >= last(self.out_strides, n));
        assert!(
            h.len() >= batch * n && (self.cell == Cell::Gru || c.len() >= batch * n),
            "states are there"
        );
        assert!(
            self.packed.len() >= packed_len(self.cell, self.inputs, n),
            "weights are there"
        );
        assert!(scratch.len() >= self.scratch_len(), "the scratch is there");
        let (gates, blocks) = (self.cell.gates(), n.div_ceil(BLOCK));
        let chunk = self.chunk();
        let step = |t: usize| if self.reverse { self.time - 1 - t } else { t };
        let (out_shared, c) = (Shared::new(out), Shared::new(c));
        let mut start = 0;
        while start < self.time {
            let count = (self.time - start).min(chunk);
            // About 16 products a nanosecond.
            let parts = pool::parts(pool, blocks, count * batch * self.inputs * gates);
            let shared = Shared::new(scratch);
            pool.run(parts, &|part| {
                let blocks = pool::range(blocks, parts, part, 1);
                let project = Project {
                    call: self,
                    x,
                    first: start,
                    count,
                    blocks,
                    gates: shared,
                };
                dispatch(isa, project);
            });
            let parts = pool::quick_parts(pool, blocks, batch * n * gates / 2 + 20);
            for t in start..start + count {
                let earlier = match t {
                    0 => h.as_ptr(),
                    // SAFETY: the row of an earlier step.
                    _ => unsafe { out_shared.at(step(t - 1) * self.out_strides[0]).cast_const() },
                };
                let earlier = Earlier {
                    from: earlier,
                    stride: if t == 0 { n } else { self.out_strides[1] },
                };
                let row = (t - start) * batch;
                pool.run(parts, &|part| {
                    let blocks = pool::range(blocks, parts, part, 1);
                    let at = step(t) * self.out_strides[0];
                    dispatch(
                        isa,
                        Steps {
                            call: self,
                            blocks,
                            earlier,
                            at,
                            row,
                            gates: &*scratch,
                            c,
                            out: out_shared,
                        },
                    );
                });
            }
            start += count;
        }
        for (i, h) in h.chunks_exact_mut(n).take(batch).enumerate() {
            // SAFETY: the last step's row; no part runs any more.
            h.copy_from_slice(unsafe {
                let at = step(self.time - 1) * self.out_strides[0] + i * self.out_strides[1];
                std::slice::from_raw_parts(out_shared.at(at), n)
            });
        }
    }
}

/// Inputs times weights, of all rows of some steps.
struct Project<'a> {
    call: &'a Recurrent<'a>,
    x: &'a [f32],
    first: usize,
    count: usize,
    blocks: std::ops::Range<usize>,
    gates: Shared<f32>,
}

impl Op for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.call.cell {
            Cell::Lstm => self.all::<S, 4>(s),
            Cell::Gru => self.all::<S, 3>(s),
        }
    }
}

impl Project<'_> {
    #[inline(always)]
    fn all<S: Simd, const G: usize>(self, s: S) {
        let a = self.call;
        let rows = self.count * a.batch;
        let (width, blocks) = (G * BLOCK, a.hidden.div_ceil(BLOCK));
        let at = |row: usize| {
            let t = self.first + row / a.batch;
            let t = if a.reverse { a.time - 1 - t } else { t };
            self.x[t * a.x_strides[0] + row % a.batch * a.x_strides[1]..][..a.inputs].as_ptr()
        };
        for block in self.blocks.clone() {
            let weights = a.packed[block * a.inputs * width..][..a.inputs * width].as_ptr();
            let biases = a.packed[blocks * width * (a.inputs + a.hidden) + block * width..][..width].as_ptr();
            let mut row = 0;
            while row < rows {
                // SAFETY: rows, weights and the block's gates are there, and gates of a block are of one part.
                unsafe {
                    let to = self.gates.at((row * blocks + block) * width);
                    let mut size = 1;
                    if S::REGISTERS >= 32 && rows - row >= 6 {
                        size = 6;
                        product::<S, G, 6>(
                            s,
                            std::array::from_fn(|i| at(row + i)),
                            a.inputs,
                            weights,
                            biases,
                            to,
                            blocks * width,
                        );
                    } else if rows - row >= 2 {
                        size = 2;
                        product::<S, G, 2>(
                            s,
                            std::array::from_fn(|i| at(row + i)),
                            a.inputs,
                            weights,
                            biases,
                            to,
                            blocks * width,
                        );
                    } else {
                        product::<S, G, 1>(s, [at(row)], a.inputs, weights, biases, to, blocks * width);
                    }
                    row += size;
                }
            }
        }
    }
}

/// `to[r] = biases + x[r] * weights`, a block wide, with rows of `to` `stride` apart.
///
/// # Safety
/// All of it is there.
#[inline(always)]
unsafe fn product<S: Simd, const G: usize, const R: usize>(
    s: S,
    x: [*const f32; R],
    count: usize,
    weights: *const f32,
    biases: *const f32,
    to: *mut f32,
    stride: usize,
) {
    // `G` vectors at a time.
    for column in (0..G * BLOCK).step_by(G * S::LANES) {
        // SAFETY: as the caller says.
        unsafe {
            let mut sums = [[s.splat(0.0); G]; R];
            for sums in &mut sums {
                for (g, sum) in sums.iter_mut().enumerate() {
                    *sum = s.load(biases.add(column + g * S::LANES));
                }
            }
            for k in 0..count {
                let mut vectors = [s.splat(0.0); G];
                for (g, vector) in vectors.iter_mut().enumerate() {
                    *vector = s.load(weights.add(k * G * BLOCK + column + g * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let number = s.splat(*x[r].add(k));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = s.fma(number, vector, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (g, sum) in sums.iter().enumerate() {
                    s.store(to.add(r * stride + column + g * S::LANES), *sum);
                }
            }
        }
    }
}

/// States of the step before: rows of a batch.
#[derive(Clone, Copy)]
struct Earlier {
    from: *const f32,
    stride: usize,
}

// SAFETY: it is only read, and lives as long as the step.
unsafe impl Sync for Earlier {}

/// One step of some blocks.
struct Steps<'a> {
    call: &'a Recurrent<'a>,
    blocks: std::ops::Range<usize>,
    earlier: Earlier,
    at: usize,
    row: usize,
    gates: &'a [f32],
    c: Shared<f32>,
    out: Shared<f32>,
}

impl Op for Steps<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.call.cell {
            Cell::Lstm => self.all::<S, 4>(s),
            Cell::Gru => self.all::<S, 3>(s),
        }
    }
}

impl Steps<'_> {
    #[inline(always)]
    fn all<S: Simd, const G: usize>(self, s: S) {
        for block in self.blocks.clone() {
            let mut first = 0;
            while first < self.call.batch {
                let left = self.call.batch - first;
                // SAFETY: units of a block, of all the batch, are of one part.
                unsafe {
                    if S::REGISTERS >= 32 && left >= 4 {
                        self.one::<S, G, 4, 1>(s, block, first);
                        first += 4;
                    } else if left >= 2 {
                        self.one::<S, G, 2, 1>(s, block, first);
                        first += 2;
                    } else {
                        match BLOCK / S::LANES {
                            1 => self.one::<S, G, 1, 1>(s, block, first),
                            2 => self.one::<S, G, 1, 2>(s, block, first),
                            _ => self.one::<S, G, 1, 4>(s, block, first),
                        }
                        first += 1;
                    }
                }
            }
        }
    }

    /// `R` sequences and `V` vectors of units at a time.
    ///
    /// # Safety
    /// Everything is there, and nobody else has these units.
    #[inline(always)]
    unsafe fn one<S: Simd, const G: usize, const R: usize, const V: usize>(&self, s: S, block: usize, first: usize) {
        let a = self.call;
        let (n, width, blocks) = (a.hidden, G * BLOCK, a.hidden.div_ceil(BLOCK));
        let weights = a.packed[blocks * width * a.inputs + block * n * width..][..n * width].as_ptr();
        let apart = a.packed[blocks * width * (a.inputs + n + 1) + block * width..][..width].as_ptr();
        let valid = (n - block * BLOCK).min(BLOCK);
        let mut lane = 0;
        while lane < valid {
            // SAFETY: as the caller says.
            unsafe {
                let mut sums = [[[s.splat(0.0); V]; G]; R];
                for sums in &mut sums {
                    for (g, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = s.load(apart.add(g * BLOCK + lane + v * S::LANES));
                        }
                    }
                }
                let h = self.earlier.from.add(first * self.earlier.stride);
                for k in 0..n {
                    let mut vectors = [[s.splat(0.0); V]; G];
                    for (g, vectors) in vectors.iter_mut().enumerate() {
                        for (v, vector) in vectors.iter_mut().enumerate() {
                            *vector = s.load(weights.add(k * width + g * BLOCK + lane + v * S::LANES));
                        }
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let number = s.splat(*h.add(r * self.earlier.stride + k));
                        for (sums, vectors) in sums.iter_mut().zip(vectors) {
                            for (sum, vector) in sums.iter_mut().zip(vectors) {
                                *sum = s.fma(number, vector, *sum);
                            }
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let gates = self.gates[((self.row + first + r) * blocks + block) * width..][..width].as_ptr();
                    #[allow(clippy::needless_range_loop, reason = "the vector of every gate is meant")]
                    for v in 0..V {
                        let unit = lane + v * S::LANES;
                        if unit >= valid {
                            break;
                        }
                        let len = (valid - unit).min(S::LANES);
                        let at = block * BLOCK + unit;
                        let gate = |g: usize| s.load(gates.add(g * BLOCK + unit));
                        let state = match G {
                            4 => {
                                let c = self.c.at((first + r) * n + at);
                                let enter = math::sigmoid(s, s.add(gate(0), sums[0][v]));
                                let keep = math::sigmoid(s, s.add(gate(1), sums[1][v]));
                                let new = math::tanh(s, s.add(gate(2), sums[2][v]));
                                let leave = math::sigmoid(s, s.add(gate(G - 1), sums[G - 1][v]));
                                let cell = s.fma(keep, load(s, c, len), s.mul(enter, new));
                                store(s, c, cell, len);
                                s.mul(leave, math::tanh(s, cell))
                            }
                            _ => {
                                let before = load(s, h.add(r * self.earlier.stride + at), len);
                                let reset = math::sigmoid(s, s.add(gate(0), sums[0][v]));
                                let update = math::sigmoid(s, s.add(gate(1), sums[1][v]));
                                let new = math::tanh(s, s.fma(reset, sums[2][v], gate(2)));
                                s.fma(update, s.sub(before, new), new)
                            }
                        };
                        store(
                            s,
                            self.out.at(self.at + (first + r) * a.out_strides[1] + at),
                            state,
                            len,
                        );
                    }
                }
            }
            lane += V * S::LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    fn numbers(n: usize, step: usize, scale: f32) -> Vec<f32> {
        (0..n)
            .map(|i| (((i * step) % 1009) as f32 / 504.0 - 1.0) * scale)
            .collect()
    }

    #[test]
    fn sequences_are_those_of_doubles() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for cell in [Cell::Lstm, Cell::Gru] {
            for (inputs, n, time, batch) in [
                (1, 1, 1, 1),
                (3, 5, 4, 2),
                (20, 16, 7, 1),
                (9, 33, 3, 7),
                (40, 64, 300, 1),
                (4, 20, 3, 300),
            ] {
                let gates = cell.gates();
                let scale = 1.0 / (n as f32).sqrt();
                let (wi, wh) = (
                    numbers(gates * n * inputs, 7919, scale),
                    numbers(gates * n * n, 613, scale),
                );
                let (bi, bh) = (numbers(gates * n, 31, 0.3), numbers(gates * n, 57, 0.3));
                let packed = pack(cell, inputs, n, &wi, &wh, Some(&bi), Some(&bh));
                assert_eq!(packed.len(), packed_len(cell, inputs, n));
                let x = numbers(time * batch * inputs, 101, 1.0);
                let (h0, c0) = (numbers(batch * n, 41, 0.5), numbers(batch * n, 43, 0.5));
                for (reverse, batch_first) in [(false, false), (true, true)] {
                    // Outputs have room for the other direction.
                    let (x_strides, out_strides) = match batch_first {
                        false => ([batch * inputs, inputs], [batch * 2 * n, 2 * n]),
                        true => ([inputs, time * inputs], [2 * n, time * 2 * n]),
                    };
                    let mut want = vec![0.0f64; time * batch * 2 * n];
                    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
                    let (mut h, mut c) = (wide(&h0), wide(&c0));
                    for t in 0..time {
                        let t = if reverse { time - 1 - t } else { t };
                        for b in 0..batch {
                            let row = &x[t * x_strides[0] + b * x_strides[1]..][..inputs];
                            let before = h[b * n..][..n].to_vec();
                            for u in 0..n {
                                let part = |gate: usize| {
                                    let at = gate * n + u;
                                    let i: f64 = (0..inputs)
                                        .map(|k| f64::from(wi[at * inputs + k]) * f64::from(row[k]))
                                        .sum();
                                    let h: f64 = (0..n).map(|k| f64::from(wh[at * n + k]) * before[k]).sum();
                                    (i + f64::from(bi[at]), h + f64::from(bh[at]))
                                };
                                let sum = |gate| part(gate).0 + part(gate).1;
                                let state = match cell {
                                    Cell::Lstm => {
                                        let cell = sigmoid(sum(1)) * c[b * n + u] + sigmoid(sum(0)) * sum(2).tanh();
                                        c[b * n + u] = cell;
                                        sigmoid(sum(3)) * cell.tanh()
                                    }
                                    Cell::Gru => {
                                        let new = (part(2).0 + sigmoid(sum(0)) * part(2).1).tanh();
                                        let z = sigmoid(sum(1));
                                        (1.0 - z) * new + z * before[u]
                                    }
                                };
                                h[b * n + u] = state;
                                want[t * out_strides[0] + b * out_strides[1] + u] = state;
                            }
                        }
                    }
                    let call = Recurrent {
                        cell,
                        inputs,
                        hidden: n,
                        packed: &packed,
                        time,
                        batch,
                        reverse,
                        x_strides,
                        out_strides,
                    };
                    for isa in Isa::all() {
                        let (mut h_have, mut c_have) =
                            (h0.clone(), if cell == Cell::Lstm { c0.clone() } else { vec![] });
                        let mut out = vec![0.0; want.len()];
                        let mut scratch = vec![f32::NAN; call.scratch_len()];
                        call.run(isa, &Serial, &x, &mut h_have, &mut c_have, &mut out, &mut scratch);
                        // States stay below 1 in size and forget what was off; sums are of up to 104 products below 1.
                        let same = |have: &[f32], want: &[f64]| {
                            have.iter()
                                .zip(want)
                                .all(|(have, want)| (f64::from(*have) - want).abs() < 5e-6)
                        };
                        assert!(
                            same(&out, &want),
                            "{isa}, {cell:?}, {inputs}, {n}, {time}, {batch}, {reverse}"
                        );
                        assert!(
                            same(&h_have, &h) && same(&c_have, &c),
                            "{isa}, {cell:?}: the last states"
                        );
                    }
                }
            }
        }
    }
}
