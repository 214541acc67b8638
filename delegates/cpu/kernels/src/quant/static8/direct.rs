//! Rows that are multiplied where they lie: no copy of them is made, but for those that reach beyond an image.

use super::gemm::{BLOCK, Finish, Form, Job, Sink, stride};
use super::stage::{Bias, Grid, Place};
use crate::Activation;
use crate::simd::dispatch;

/// Panels of a tile.
pub(super) const PANELS: usize = 4;
/// Zero points that go with sums in 16 bits.
pub(super) const SMALL: u32 = 32_000;

/// Where a row's inputs lie from its start on: `lines` of `pixels` of `fours` four inputs each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub lines: usize,
    /// Bytes from line to line.
    pub line_pitch: usize,
    pub pixels: usize,
    /// Bytes from pixel to pixel.
    pub pixel_pitch: usize,
    pub fours: usize,
}

impl Reach {
    /// One piece of some inputs.
    pub(super) fn whole(inputs: usize) -> Reach {
        Reach {
            lines: 1,
            line_pitch: 0,
            pixels: 1,
            pixel_pitch: 0,
            fours: inputs.div_ceil(4),
        }
    }

    /// Bytes from a row's start to behind the last that is read.
    pub(super) fn len(&self) -> usize {
        (self.lines.max(1) - 1) * self.line_pitch + (self.pixels.max(1) - 1) * self.pixel_pitch + 4 * self.fours
    }
}

/// A tile: some panels by some rows.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only VNNI reads it"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub panel: *const u8,
    /// Bytes from panel to panel.
    pub panel_len: usize,
    /// The rows' starts.
    pub rows: *const *const u8,
    pub reach: Reach,
    pub signed: bool,
}

/// What belongs to the outputs of a tile: numbers beyond the last are 0.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only VNNI reads it"))]
pub(super) struct Ready {
    /// What sums begin with.
    pub start: [i32; 16 * PANELS],
    pub multiplier: [f32; 16 * PANELS],
    pub bias: [f32; 16 * PANELS],
    pub grid: Grid,
    /// Numbers need no bounds before they are bytes: all bytes are allowed, and no number leaves 32 bits.
    pub saturates: bool,
}

/// What was made ready: for a layer of a few panels, once for all of its rows.
pub(super) struct Known {
    all: [Option<(usize, Ready)>; 4],
    /// Where the next one is kept.
    next: usize,
    /// Of the whole layer.
    saturates: bool,
}

impl Known {
    /// Of a layer, see [`Stage::saturates`](super::Stage::saturates).
    pub(super) fn new(saturates: bool) -> Known {
        Known {
            all: [const { None }; 4],
            next: 0,
            saturates,
        }
    }

    /// What belongs to the panels from one on; `None`: the quick way is not for this layer.
    fn of(&mut self, job: &Job, panel: usize, panels: usize) -> Option<&Ready> {
        let found = self
            .all
            .iter()
            .position(|known| known.as_ref().is_some_and(|(of, _)| *of == panel));
        let at = match found {
            Some(at) => at,
            None => {
                let at = self.next;
                self.all[at] = job.ready(panel, panels, self.saturates).map(|ready| (panel, ready));
                self.next = (at + 1) % self.all.len();
                at
            }
        };
        self.all[at].as_ref().map(|(_, ready)| ready)
    }
}

/// Rows of a block: their starts, and their places in the output. The first `direct` lie where they are, the others are copies.
struct Rows {
    starts: [*const u8; BLOCK],
    places: [usize; BLOCK],
    direct: usize,
    count: usize,
}

impl Job<'_> {
    /// Finds the rows from `first` on; those without a place are copied to `own`.
    fn find(
        &self,
        first: usize,
        own: &mut [u8],
        locate: impl Fn(usize, &mut [*const u8]) -> usize,
        fill: impl Fn(usize, &mut Sink),
    ) -> Rows {
        let count = BLOCK.min(self.rows - first);
        let mut rows = Rows {
            starts: [std::ptr::null(); BLOCK],
            places: std::array::from_fn(|r| (first + r) * self.channels),
            direct: count,
            count,
        };
        let missing = locate(first, &mut rows.starts[..count]);
        if missing == 0 {
            return rows;
        }
        rows.direct = count - missing;
        let found = rows.starts;
        let (mut direct, mut copied) = (0, rows.direct);
        let inputs = self.weights.shape().inputs;
        let mut room = own.chunks_exact_mut(stride(inputs));
        for (r, start) in found[..count].iter().enumerate() {
            let mut at = &mut direct;
            let mut start = *start;
            if start.is_null() {
                let Some(to) = room.next() else { break };
                to[inputs..inputs.next_multiple_of(4)].fill(0);
                fill(first + r, &mut Sink::new(to, self.raw(), self.signed, self.zero));
                (start, at) = (to.as_ptr(), &mut copied);
            }
            rows.starts[*at] = start;
            rows.places[*at] = (first + r) * self.channels;
            *at += 1;
        }
        rows
    }

    /// The form in which bytes stay as they are.
    fn raw(&self) -> Form {
        if self.signed { Form::Signed } else { Form::Unsigned }
    }

    /// A block of rows by some panels, which are divided alike at each call with the same `known`.
    pub(super) fn direct(
        &self,
        first: usize,
        panels: std::ops::Range<usize>,
        reach: Reach,
        own: &mut [u8],
        locate: impl Fn(usize, &mut [*const u8]) -> usize,
        fill: impl Fn(usize, &mut Sink),
        known: &mut Known,
    ) {
        let rows = self.find(first, own, locate, fill);
        let whole = Reach::whole(self.weights.shape().inputs);
        let mut panel = panels.start;
        while panel < panels.end {
            // Tiles of one panel wait for their sums, and read rows as often as those of four: what is left is divided into threes.
            let taken = match panels.end - panel {
                left @ 0..=3 => left.max(1),
                5 | 6 | 9 => 3,
                _ => PANELS,
            };
            let ready = known.of(self, panel, taken);
            self.part(&rows, 0..rows.direct, reach, panel, taken, ready);
            self.part(&rows, rows.direct..rows.count, whole, panel, taken, ready);
            panel += taken;
        }
    }

    /// What the quick way needs; `None`: it is not for this layer.
    fn ready(&self, panel: usize, panels: usize, saturates: bool) -> Option<Ready> {
        let Place::Bytes(_, grid) = self.place else { return None };
        if self.stage.activation != Activation::None || self.is_per_row() || grid.zero.unsigned_abs() > SMALL {
            return None;
        }
        let count = self.columns(panel, panels);
        let from = self.channel + 16 * panel;
        let mut ready = Ready {
            start: [0; 16 * PANELS],
            multiplier: [0.0; 16 * PANELS],
            bias: [0.0; 16 * PANELS],
            grid,
            saturates,
        };
        let zero = Form::Unsigned.zero(self.signed, self.zero);
        for p in 0..panels {
            let sums = self.weights.sums(panel + p);
            for (start, sum) in ready.start[16 * p..].iter_mut().zip(sums) {
                *start = sum.wrapping_mul(zero).wrapping_neg();
            }
        }
        ready.multiplier[..count].copy_from_slice(&self.stage.multiplier[from..from + count]);
        match self.stage.bias {
            Bias::None => {}
            Bias::Floats(bias) => ready.bias[..count].copy_from_slice(&bias[from..from + count]),
            Bias::Integers(bias) => {
                for (start, bias) in ready.start.iter_mut().zip(&bias[from..from + count]) {
                    *start = start.wrapping_add(*bias);
                }
            }
        }
        Some(ready)
    }

    /// Outputs of some panels.
    fn columns(&self, panel: usize, panels: usize) -> usize {
        (16 * panels).min(self.weights.shape().outputs - 16 * panel)
    }

    fn part(
        &self,
        rows: &Rows,
        range: std::ops::Range<usize>,
        reach: Reach,
        panel: usize,
        panels: usize,
        ready: Option<&Ready>,
    ) {
        let most = match panels {
            PANELS => 6,
            3 => 8,
            _ => 12,
        };
        let columns = self.columns(panel, panels);
        let mut at = range.start;
        while at < range.end {
            let taken = match range.end - at {
                left if left >= most => most,
                left @ 1..=3 => 1 << left.ilog2(),
                _ => 4,
            };
            let tile = Tile {
                panel: self.weights.panel(panel).as_ptr(),
                panel_len: self.weights.shape().panel_len(),
                rows: rows.starts[at..].as_ptr(),
                reach,
                signed: self.signed,
            };
            match (ready, self.place) {
                (Some(ready), Place::Bytes(out, _)) => {
                    // SAFETY: whoever made the job saw that the machine has it, that rows are there, and that the output has room.
                    unsafe {
                        let out = out.from(self.channel + 16 * panel);
                        bytes(taken, panels, &tile, ready, out, rows.places[at..].as_ptr(), columns);
                    }
                }
                _ => {
                    let mut acc = [0i32; 16 * 24];
                    // SAFETY: as above, and there are no more than 24 vectors of sums.
                    unsafe { plain(taken, panels, &tile, acc.as_mut_ptr()) };
                    for p in 0..panels {
                        let finish = Finish {
                            job: self,
                            form: Form::Unsigned,
                            acc: &acc[16 * p..],
                            pitch: 16 * panels,
                            sums: &self.weights.sums(panel + p),
                            places: &rows.places[at..at + taken],
                            column: 16 * (panel + p),
                            columns: 16.min(columns.saturating_sub(16 * p)),
                        };
                        dispatch(self.dot.isa(), finish);
                    }
                }
            }
            at += taken;
        }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! by_size {
    ($rows:expr, $panels:expr, $name:ident($($arg:expr),*)) => {{
        use super::vnni::$name;
        match ($panels, $rows) {
            (4, 6) => $name::<6, 4>($($arg),*),
            (4, 4) => $name::<4, 4>($($arg),*),
            (4, 2) => $name::<2, 4>($($arg),*),
            (4, _) => $name::<1, 4>($($arg),*),
            (3, 8) => $name::<8, 3>($($arg),*),
            (3, 4) => $name::<4, 3>($($arg),*),
            (3, 2) => $name::<2, 3>($($arg),*),
            (3, _) => $name::<1, 3>($($arg),*),
            (2, 12) => $name::<12, 2>($($arg),*),
            (2, 4) => $name::<4, 2>($($arg),*),
            (2, 2) => $name::<2, 2>($($arg),*),
            (2, _) => $name::<1, 2>($($arg),*),
            (_, 12) => $name::<12, 1>($($arg),*),
            (_, 4) => $name::<4, 1>($($arg),*),
            (_, 2) => $name::<2, 1>($($arg),*),
            _ => $name::<1, 1>($($arg),*),
        }
    }};
}

/// # Safety
/// The machine has VNNI, and the pointers are good for so many rows and panels.
unsafe fn bytes(
    rows: usize,
    panels: usize,
    tile: &Tile,
    ready: &Ready,
    out: crate::pool::Shared<u8>,
    places: *const usize,
    columns: usize,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as the caller says.
    unsafe {
        by_size!(rows, panels, bytes(tile, ready, out, places, columns))
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, panels, tile, ready, out, places, columns);
}

/// # Safety
/// As [`bytes`]; there is room for the sums.
unsafe fn plain(rows: usize, panels: usize, tile: &Tile, to: *mut i32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as the caller says.
    unsafe {
        by_size!(rows, panels, plain(tile, to))
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, panels, tile, to);
}
