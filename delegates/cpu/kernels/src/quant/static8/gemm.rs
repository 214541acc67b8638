//! Rows of bytes by packed weights.
//!
//! A few rows at a time are copied in the form that the machine multiplies, from wherever their pieces lie; so a convolution is the same as a matrix, and its image is
//! never copied whole.

use super::direct::{Known, PANELS, Reach};
use super::stage::Place;
use super::{Stage, Weights};
use crate::Activation;
use crate::pool::{self, Pool, Shared};
use crate::quant::Dot;
use crate::simd::{Op, Simd, dispatch};

/// Rows that are gone over at a time.
pub(super) const BLOCK: usize = 48;

/// What a machine multiplies weights with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Bytes in -128..=127.
    Signed,
    /// Bytes in 0..=255.
    Unsigned,
    /// 16 bits, without zero points.
    Wide,
}

impl Form {
    fn of(dot: Dot) -> Form {
        match dot {
            Dot::Vnni => Form::Unsigned,
            Dot::Avx2 | Dot::Avx512 => Form::Wide,
            _ => Form::Signed,
        }
    }

    fn size(self) -> usize {
        if self == Form::Wide { 2 } else { 1 }
    }

    /// What is left of a zero point in this form.
    pub(super) fn zero(self, signed: bool, zero: i32) -> i32 {
        match (self, signed) {
            (Form::Wide, _) => 0,
            (Form::Signed, true) | (Form::Unsigned, false) => zero,
            (Form::Signed, false) => zero - 128,
            (Form::Unsigned, true) => zero + 128,
        }
    }
}

/// A tile: a panel by a few rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub panel: *const u8,
    /// Inputs, in fours.
    pub fours: usize,
    pub rows: *const u8,
    /// Bytes from row to row.
    pub stride: usize,
    /// Sixteen sums for each row.
    pub out: *mut i32,
}

/// A place that rows are copied to, in a form.
pub(super) struct Sink<'a> {
    to: &'a mut [u8],
    at: usize,
    form: Form,
    signed: bool,
    zero: i32,
}

impl<'a> Sink<'a> {
    /// Of a row's place.
    pub(super) fn new(to: &'a mut [u8], form: Form, signed: bool, zero: i32) -> Sink<'a> {
        Sink {
            to,
            at: 0,
            form,
            signed,
            zero,
        }
    }

    /// Copies bytes.
    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let size = self.form.size();
        let to = &mut self.to[self.at * size..][..bytes.len() * size];
        match (self.form, self.signed) {
            // Only x86-64 has it.
            (Form::Wide, _signed) => {
                #[cfg(target_arch = "x86_64")]
                super::wide::spread(bytes, _signed, self.zero, to.as_chunks_mut().0);
            }
            (Form::Signed, true) | (Form::Unsigned, false) => to.copy_from_slice(bytes),
            _ => to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte ^ 0x80),
        }
        self.at += bytes.len();
    }

    /// As many numbers that stand for 0.
    #[inline]
    pub(super) fn nothing(&mut self, count: usize) {
        let size = self.form.size();
        let byte = match self.form {
            Form::Wide => 0,
            form => form.zero(self.signed, self.zero) as u8,
        };
        self.to[self.at * size..][..count * size].fill(byte);
        self.at += count;
    }
}

/// Rows by weights.
pub(super) struct Job<'a> {
    pub dot: Dot,
    pub weights: Weights<'a>,
    pub rows: usize,
    /// Bytes are signed.
    pub signed: bool,
    /// The zero point of all rows; or of each row.
    pub zero: i32,
    pub zeros: &'a [i32],
    /// Of each row, or none.
    pub scales: &'a [f32],
    /// Zero points of each channel's weights, and the sum of each row's inputs without theirs; or none of both.
    pub others: (&'a [i32], &'a [i32]),
    pub stage: Stage<'a>,
    pub place: Place,
    /// The first channel, and channels from row to row of the output.
    pub channel: usize,
    pub channels: usize,
}

/// Numbers from row to row of copied rows.
pub(super) fn stride(inputs: usize) -> usize {
    (inputs.div_ceil(64) | 1) * 64
}

/// Floats of scratch of [`Job::run`].
pub(super) fn scratch_len(inputs: usize, pool: &dyn Pool) -> usize {
    // Four parts a thread.
    pool.threads().max(1) * 4 * part_len(inputs)
}

/// Floats of scratch of a part: copied rows of two bytes a number, and what else AVX2 needs.
fn part_len(inputs: usize) -> usize {
    let copied = BLOCK * stride(inputs) / 2;
    #[cfg(target_arch = "x86_64")]
    let copied = copied.max(super::wide::scratch_len(inputs));
    copied
}

impl Job<'_> {
    /// Rows have zero points or scales of their own.
    pub(super) fn is_per_row(&self) -> bool {
        !self.zeros.is_empty() || !self.scales.is_empty()
    }

    /// Runs it. `locate` says where rows from one on lie, as `reach` has it, or null, and how many are null; `fill` writes a row's inputs
    /// to the sink.
    pub(super) fn run(
        &self,
        pool: &dyn Pool,
        scratch: &mut [f32],
        reach: Reach,
        locate: impl Fn(usize, &mut [*const u8]) -> usize + Sync,
        fill: impl Fn(usize, &mut Sink) + Sync,
    ) {
        let shape = self.weights.shape();
        if self.rows == 0 || shape.outputs == 0 {
            return;
        }
        assert!(scratch.len() >= scratch_len(shape.inputs, pool), "scratch is too short");
        let form = Form::of(self.dot);
        let panels = shape.panels();
        let is_direct = self.dot == Dot::Vnni;
        let saturates = match &self.place {
            Place::Bytes(_, grid) if is_direct => {
                let channels = self.channel..self.channel + shape.outputs;
                self.stage.saturates(grid, shape.inputs, channels)
            }
            _ => false,
        };
        #[cfg(target_arch = "x86_64")]
        if self.dot == Dot::Avx2 && self.rows >= super::wide::LEAST {
            return self.wide(pool, scratch, reach, locate, fill);
        }
        let blocks = self.rows.div_ceil(BLOCK);
        let unit = if is_direct { PANELS } else { 1 };
        // Panels are divided too where rows alone are too few for all threads.
        let splits = (2 * pool.threads()).div_ceil(blocks).clamp(1, panels.div_ceil(unit));
        let splits = if pool.threads() == 1 { 1 } else { splits };
        let work = BLOCK.min(self.rows) * shape.inputs.max(16) * 16 * panels.div_ceil(splits) / 64;
        let parts = pool::parts(pool, blocks * splits, work);
        let each = part_len(shape.inputs);
        let shared = Shared::new(scratch);
        pool.run(parts, &|part| {
            // SAFETY: each part has its own piece; there are at most four for a thread. Bytes lie wherever floats do.
            let own = unsafe {
                let floats = shared.slice(part * each..(part + 1) * each);
                std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast::<u8>(), each * 4)
            };
            let (mut copied, mut acc, mut known) = (usize::MAX, [0i32; BLOCK * 16], Known::new(saturates));
            for piece in pool::range(blocks * splits, parts, part, 1) {
                let (block, split) = (piece / splits, piece % splits);
                let first = block * BLOCK;
                let count = BLOCK.min(self.rows - first);
                if is_direct {
                    let panels = pool::range(panels, splits, split, unit);
                    self.direct(first, panels, reach, own, &locate, &fill, &mut known);
                    continue;
                }
                if copied != block {
                    self.copy(form, first, count, own, &fill);
                    copied = block;
                }
                for panel in pool::range(panels, splits, split, 1) {
                    self.panel(form, panel, first, count, own, &mut acc);
                }
            }
        });
    }

    #[inline(always)]
    fn copy(&self, form: Form, first: usize, count: usize, own: &mut [u8], fill: impl Fn(usize, &mut Sink)) {
        let inputs = self.weights.shape().inputs;
        let bytes = stride(inputs) * form.size();
        for (r, to) in own.chunks_exact_mut(bytes).take(count).enumerate() {
            let used = inputs * form.size();
            let padded = inputs.next_multiple_of(4) * form.size();
            // Weights are 0 there, but what is multiplied should be the same at every run.
            to[used..padded].fill(0);
            let zero = self.zeros.get(first + r).copied().unwrap_or(self.zero);
            fill(first + r, &mut Sink::new(to, form, self.signed, zero));
        }
    }

    fn panel(&self, form: Form, panel: usize, first: usize, count: usize, own: &[u8], acc: &mut [i32; BLOCK * 16]) {
        let shape = self.weights.shape();
        let bytes = stride(shape.inputs) * form.size();
        let sums = self.weights.sums(panel);
        let most = match self.dot {
            Dot::Vnni | Dot::Avx512 | Dot::NeonMatrix => 8,
            Dot::Neon => 2,
            _ => 4,
        };
        let mut row = 0;
        while row < count {
            let mut taken = most;
            while taken > count - row {
                taken /= 2;
            }
            let tile = Tile {
                panel: self.weights.panel(panel).as_ptr(),
                fours: shape.inputs.div_ceil(4),
                rows: own[row * bytes..].as_ptr(),
                stride: bytes,
                out: acc[row * 16..].as_mut_ptr(),
            };
            // SAFETY: this machine has `dot`, and the rows are there in its form.
            unsafe { multiply(self.dot, taken, &tile) };
            row += taken;
        }
        let places: [usize; BLOCK] = std::array::from_fn(|r| (first + r) * self.channels);
        let finish = Finish {
            job: self,
            form,
            acc,
            pitch: 16,
            sums: &sums,
            places: &places[..count],
            column: 16 * panel,
            columns: 16.min(shape.outputs - 16 * panel),
        };
        dispatch(self.dot.isa(), finish);
    }
}

/// # Safety
/// The machine has `dot`, and the pointers are good.
unsafe fn multiply(dot: Dot, count: usize, tile: &Tile) {
    macro_rules! by_count {
        ($($path:tt)+) => {
            match count {
                8 => $($path)+::<8>(tile),
                4 => $($path)+::<4>(tile),
                2 => $($path)+::<2>(tile),
                _ => $($path)+::<1>(tile),
            }
        };
    }
    // SAFETY: as the caller says.
    unsafe {
        match dot {
            #[cfg(target_arch = "x86_64")]
            Dot::Vnni => by_count!(super::avx512::vnni),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx512 => by_count!(super::avx512::wide),
            #[cfg(target_arch = "x86_64")]
            Dot::Avx2 => by_count!(super::avx2::tile),
            #[cfg(target_arch = "aarch64")]
            Dot::NeonMatrix => super::neon::matrix(count, tile),
            #[cfg(target_arch = "aarch64")]
            Dot::NeonDot => by_count!(super::neon::dotted),
            #[cfg(target_arch = "aarch64")]
            Dot::Neon => by_count!(super::neon::plain),
            _ => by_count!(super::scalar::tile),
        }
    }
}

/// From sums to results: some rows of a panel.
pub(super) struct Finish<'a> {
    pub job: &'a Job<'a>,
    pub form: Form,
    pub acc: &'a [i32],
    /// Sums from row to row of `acc`, of which the first sixteen are read.
    pub pitch: usize,
    /// Of the weights of each output.
    pub sums: &'a [i32; 16],
    /// Where each row begins in the output.
    pub places: &'a [usize],
    /// The first output, and how many there are.
    pub column: usize,
    pub columns: usize,
}

impl Op for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = self.job;
        // Copies, which nothing that is written can change.
        let (stage, place, pitch, channels) = (job.stage, job.place, self.pitch, job.channels);
        let (places, per_row) = (self.places, job.is_per_row());
        assert!(places.is_empty() || self.acc.len() >= pitch * (places.len() - 1) + 16);
        for at in (0..self.columns).step_by(S::LANES) {
            let n = S::LANES.min(self.columns - at);
            let channel = job.channel + self.column + at;
            // SAFETY: sums have sixteen columns; the stage and the output have `n` more channels.
            unsafe {
                let lanes = stage.lanes(s, channel, n);
                let sums = s.load_i(self.sums.as_ptr().add(at));
                let common = s.mul_i(sums, s.splat_i(self.form.zero(job.signed, job.zero)));
                let from = self.acc.as_ptr().add(at);
                // What most layers are, without questions.
                if let Place::Bytes(out, grid) = place
                    && n == S::LANES
                    && !per_row
                    && stage.activation == Activation::None
                {
                    for (r, start) in places.iter().enumerate() {
                        let acc = s.sub_i(s.load_i(from.add(pitch * r)), common);
                        let real = stage.real::<S, true>(s, &lanes, acc, None);
                        s.store_u8(out.at(start + channel), grid.quantized(s, real));
                    }
                    continue;
                }
                for (r, start) in places.iter().enumerate() {
                    let row = start / channels;
                    let (mut shift, mut scale) = (common, None);
                    if per_row {
                        let zero = job.zeros.get(row).copied().unwrap_or(job.zero);
                        shift = s.mul_i(sums, s.splat_i(self.form.zero(job.signed, zero)));
                        scale = job.scales.get(row).copied();
                    }
                    let mut acc = s.sub_i(s.load_i(from.add(pitch * r)), shift);
                    if let Some(sum) = job.others.1.get(row) {
                        let mut zeros = [0i32; 16];
                        zeros[..n].copy_from_slice(&job.others.0[channel..channel + n]);
                        acc = s.sub_i(acc, s.mul_i(s.load_i(zeros.as_ptr()), s.splat_i(*sum)));
                    }
                    let real = stage.real::<S, false>(s, &lanes, acc, scale);
                    place.put(s, real, start + channel, n);
                }
            }
        }
    }
}
