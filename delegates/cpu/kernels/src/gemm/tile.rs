//! The tile: some rows by some vectors of columns, summed in registers.

use crate::conv::Shape;
use crate::pool::Shared;
use crate::simd::{Op, Simd};
use crate::{Activation, Epilogue};

/// How weights are stored.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// One of them.
    type T: Copy + Send + Sync;

    /// A vector of them, widened.
    ///
    /// # Safety
    /// There are `S::LANES` of them.
    unsafe fn load<S: Simd>(s: S, from: *const Self::T) -> S::F;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Float;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Half;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Brain;

impl Element for Float {
    type T = f32;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load(from) }
    }
}

impl Element for Half {
    type T = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_f16(from) }
    }
}

impl Element for Brain {
    type T = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u16) -> S::F {
        // SAFETY: as the caller says.
        unsafe { s.load_bf16(from) }
    }
}

/// Where the rows of a tile begin. A convolution also says which pixel of the input that would be, which may lie outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<const R: usize> {
    base: [*const f32; R],
    y: [i32; R],
    x: [i32; R],
    /// No row reads outside.
    inside: bool,
}

/// A pixel of the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixel {
    image: usize,
    y: usize,
    x: usize,
}

/// The left matrix, read where it lies: for each row and position, a pointer to numbers that lie one behind another. Either rows in memory, with
/// one position, or pixels of images through the places of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub data: *const f32,
    /// Rows in memory, `steps[2]` apart: nothing of the rest matters.
    pub plain: bool,
    /// What stands for places outside.
    pub zeros: *const f32,
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Rows and columns of the input.
    pub input: [i32; 2],
    /// From one image, row and pixel of the input to the next.
    pub steps: [usize; 3],
    pub stride: [i32; 2],
    pub border: [i32; 2],
    pub dilation: [i32; 2],
    /// Positions of a row of the kernel.
    pub across: usize,
    /// From the first place to the furthest.
    pub reach: [i32; 2],
}

// SAFETY: it is read only, and borrowed by whoever makes one.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    /// Rows in memory.
    pub fn plain(data: *const f32, stride: usize) -> Rows {
        Rows {
            data,
            plain: true,
            zeros: std::ptr::null(),
            output: [1; 2],
            input: [1; 2],
            steps: [0, 0, stride],
            stride: [1; 2],
            border: [0; 2],
            dilation: [1; 2],
            across: 1,
            reach: [0; 2],
        }
    }

    /// Pixels of images, channels last; `zeros` has as many numbers as are read of a pixel.
    pub fn images(shape: &Shape, data: *const f32, zeros: *const f32) -> Rows {
        Rows {
            plain: false,
            data,
            zeros,
            output: shape.output(),
            input: [shape.height as i32, shape.width as i32],
            steps: [
                shape.height * shape.width * shape.channels,
                shape.width * shape.channels,
                shape.channels,
            ],
            stride: shape.stride.map(|x| x as i32),
            border: [shape.padding[0][0] as i32, shape.padding[1][0] as i32],
            dilation: shape.dilation.map(|x| x as i32),
            across: shape.kernel[1],
            reach: std::array::from_fn(|i| ((shape.kernel[i] - 1) * shape.dilation[i]) as i32),
        }
    }

    /// The pixel of the output that a row is; of a plain matrix, the row itself.
    #[inline(always)]
    pub fn pixel(&self, row: usize) -> Pixel {
        if self.plain {
            return Pixel { image: 0, y: 0, x: row };
        }
        let [height, width] = self.output;
        let line = row / width;
        Pixel {
            image: line / height,
            y: line % height,
            x: row % width,
        }
    }

    /// Where `R` rows from a pixel on begin; the pixel is then the one behind them.
    #[inline(always)]
    pub fn place<const R: usize>(&self, pixel: &mut Pixel) -> Place<R> {
        let mut place = Place {
            base: [self.data; R],
            y: [0; R],
            x: [0; R],
            inside: true,
        };
        if self.plain {
            place.base = std::array::from_fn(|r| self.data.wrapping_add((pixel.x + r) * self.steps[2]));
            pixel.x += R;
            return place;
        }
        let [height, width] = self.output;
        let Pixel { image, y, x } = pixel;
        for r in 0..R {
            place.y[r] = *y as i32 * self.stride[0] - self.border[0];
            place.x[r] = *x as i32 * self.stride[1] - self.border[1];
            let at = (*image * self.steps[0]) as isize
                + place.y[r] as isize * self.steps[1] as isize
                + place.x[r] as isize * self.steps[2] as isize;
            place.base[r] = self.data.wrapping_offset(at);
            place.inside &= place.y[r] >= 0
                && place.x[r] >= 0
                && place.y[r] + self.reach[0] < self.input[0]
                && place.x[r] + self.reach[1] < self.input[1];
            *x += 1;
            if *x == width {
                (*x, *y) = (0, *y + 1);
                if *y == height {
                    (*y, *image) = (0, *image + 1);
                }
            }
        }
        place
    }

    /// Row and column of the kernel of a position.
    #[inline(always)]
    pub fn position(&self, position: usize) -> [usize; 2] {
        match self.plain {
            true => [0; 2],
            false => [position / self.across, position % self.across],
        }
    }

    /// The position behind one.
    #[inline(always)]
    pub fn next(&self, [down, across]: [usize; 2]) -> [usize; 2] {
        match across + 1 == self.across {
            true => [down + 1, 0],
            false => [down, across + 1],
        }
    }

    /// Pointers of a position.
    #[inline(always)]
    pub fn at<const R: usize>(&self, place: &Place<R>, [down, across]: [usize; 2]) -> [*const f32; R] {
        if self.plain {
            return place.base;
        }
        let (down, across) = (down as i32 * self.dilation[0], across as i32 * self.dilation[1]);
        let offset = down as isize * self.steps[1] as isize + across as isize * self.steps[2] as isize;
        if place.inside {
            return std::array::from_fn(|r| place.base[r].wrapping_offset(offset));
        }
        std::array::from_fn(|r| {
            let (y, x) = (place.y[r] + down, place.x[r] + across);
            match (y as u32) < self.input[0] as u32 && (x as u32) < self.input[1] as u32 {
                true => place.base[r].wrapping_offset(offset),
                false => self.zeros,
            }
        })
    }
}

/// What is done to sums in registers; functions that are no bounds are `after`, in a second pass over what was just stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    bias: *const f32,
    residual: *const f32,
    residual_stride: usize,
    residual_last: bool,
    low: f32,
    high: f32,
    after: Activation,
}

// SAFETY: what it points to is read only, and borrowed by whoever makes one.
unsafe impl Send for Finish {}
// SAFETY: as above.
unsafe impl Sync for Finish {}

impl Finish {
    /// Of an epilogue whose bias and residual are long enough.
    pub fn new(epilogue: &Epilogue<'_>, residual_stride: usize) -> Finish {
        let (low, high, after) = match epilogue.activation {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY, Activation::None),
            Activation::Relu => (0.0, f32::INFINITY, Activation::None),
            Activation::Clamp(low, high) => (low, high, Activation::None),
            other => (f32::NEG_INFINITY, f32::INFINITY, other),
        };
        Finish {
            bias: epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual_stride,
            residual_last: epilogue.residual_last,
            low,
            high,
            after,
        }
    }

    /// The same from a column on.
    pub fn shifted(mut self, column: usize) -> Finish {
        // SAFETY: who shifts has columns there.
        unsafe {
            if !self.bias.is_null() {
                self.bias = self.bias.add(column);
            }
            if !self.residual.is_null() {
                self.residual = self.residual.add(column);
            }
        }
        self
    }

    /// The same with the residual from an element on.
    pub fn moved(mut self, at: usize) -> Finish {
        if !self.residual.is_null() {
            // SAFETY: who moves it has elements there.
            self.residual = unsafe { self.residual.add(at) };
        }
        self
    }

    /// Whether a second pass is needed.
    #[inline(always)]
    pub fn twice(&self) -> bool {
        self.after != Activation::None
    }

    /// Whole vectors of `R` rows, as they are stored.
    ///
    /// # Safety
    /// Rows and columns are below those of the output.
    #[inline(always)]
    pub unsafe fn all<S: Simd, const R: usize>(&self, s: S, sums: &mut [S::F; R], row: usize, column: usize) {
        // SAFETY: as the caller says.
        unsafe {
            if !self.bias.is_null() {
                let bias = s.load(self.bias.add(column));
                sums.iter_mut().for_each(|x| *x = s.add(*x, bias));
            }
            let residual = |r: usize| s.load(self.residual.add((row + r) * self.residual_stride + column));
            if !self.residual.is_null() && !self.residual_last {
                sums.iter_mut()
                    .enumerate()
                    .for_each(|(r, x)| *x = s.add(*x, residual(r)));
            }
            let (low, high) = (s.splat(self.low), s.splat(self.high));
            sums.iter_mut().for_each(|x| *x = s.min(s.max(*x, low), high));
            if !self.residual.is_null() && self.residual_last && !self.twice() {
                sums.iter_mut()
                    .enumerate()
                    .for_each(|(r, x)| *x = s.add(*x, residual(r)));
            }
        }
    }

    /// A vector of sums, as it is stored.
    ///
    /// # Safety
    /// Row and columns are below those of the output; `part` says that only as many columns are there.
    #[inline(always)]
    pub unsafe fn one<S: Simd>(&self, s: S, sum: S::F, row: usize, column: usize, part: Option<usize>) -> S::F {
        // SAFETY: as the caller says.
        let load = |from: *const f32| unsafe {
            match part {
                None => s.load(from),
                Some(n) => s.load_part(from, n),
            }
        };
        let mut x = sum;
        if !self.bias.is_null() {
            // SAFETY: as the caller says.
            x = s.add(x, load(unsafe { self.bias.add(column) }));
        }
        if self.residual.is_null() {
            return s.min(s.max(x, s.splat(self.low)), s.splat(self.high));
        }
        // SAFETY: as the caller says.
        let residual = unsafe { self.residual.add(row * self.residual_stride + column) };
        if !self.residual_last {
            x = s.add(x, load(residual));
        }
        x = s.min(s.max(x, s.splat(self.low)), s.splat(self.high));
        if self.residual_last && !self.twice() {
            x = s.add(x, load(residual));
        }
        x
    }
}

/// The second pass: `after` of rows and columns that are stored, and the residual behind it.
pub(crate) struct Second {
    pub finish: Finish,
    pub out: *mut f32,
    pub stride: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

impl Op for Second {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let finish = &self.finish;
        let residual = match finish.residual_last {
            true => finish.residual,
            false => std::ptr::null(),
        };
        for row in self.row..self.row + self.rows {
            let to = self.out.wrapping_add(row * self.stride + self.column);
            let residual_at = residual.wrapping_add(row * finish.residual_stride + self.column);
            for at in (0..self.columns).step_by(S::LANES) {
                let n = (self.columns - at).min(S::LANES);
                let (to, residual_at) = (to.wrapping_add(at), residual_at.wrapping_add(at));
                // SAFETY: the rows and columns are there.
                unsafe {
                    let mut x = finish.after.apply(s, s.load_part(to, n));
                    if !residual.is_null() {
                        x = s.add(x, s.load_part(residual_at, n));
                    }
                    s.store_part(to, x, n);
                }
            }
        }
    }
}

/// A part of each sum: some positions, and of each, some numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub position: usize,
    pub positions: usize,
    pub from: usize,
    pub len: usize,
    /// Numbers of a whole position.
    pub depth: usize,
    /// Sums begin here, rather than with what is stored.
    pub first: bool,
    /// Sums end here.
    pub last: bool,
}

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// Weights that are read next, when all rows have passed by those that are read now: each tile asks for its share of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead<T> {
    pub weights: *const T,
    /// The rows that pass by; 0: nothing is asked for.
    pub row: usize,
    pub rows: usize,
}

/// What tiles that lie one below another are made over: `P` strips.
pub(crate) struct Strips<'a, T, const P: usize> {
    pub source: &'a Rows,
    pub finish: &'a Finish,
    pub span: Span,
    /// The strips' weights, from the first row on.
    pub strips: [*const T; P],
    /// From one row of weights to the next.
    pub step: usize,
    pub ahead: Ahead<T>,
    pub out: Shared<f32>,
    pub out_stride: usize,
    /// The first column, and how many there are from it on: no more than are in the strips.
    pub column: usize,
    pub columns: usize,
}

/// `count` tiles, one below another: `R` rows by `P` strips of `V` vectors.
pub(crate) struct Tiles<'a, E: Element, const R: usize, const P: usize, const V: usize> {
    pub over: &'a Strips<'a, E::T, P>,
    pub row: usize,
    pub count: usize,
}

/// Changes each vector of a tile.
#[inline(always)]
fn each<F: Copy, const R: usize, const P: usize, const V: usize>(
    sums: &mut [[[F; V]; P]; R],
    f: impl Fn(usize, usize, usize, F) -> F,
) {
    for (r, sums) in sums.iter_mut().enumerate() {
        for (p, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = f(r, p, v, *sum);
            }
        }
    }
}

impl<E: Element, const R: usize, const P: usize, const V: usize> Op for Tiles<'_, E, R, P, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut pixel = self.over.source.pixel(self.row);
        let start = self.over.source.position(self.over.span.position);
        // Of each row of weights ahead, the share of a tile.
        let asks = const { S::ASKS && P == 1 } && self.over.ahead.rows > 0;
        let share = match asks {
            true => self.over.step * size_of::<E::T>() * R / self.over.ahead.rows.max(R),
            false => 0,
        };
        let each = share * self.over.span.positions * self.over.span.len;
        let before = match asks {
            true => (self.row - self.over.ahead.row) / R * each,
            false => 0,
        };
        let mut ahead = self.over.ahead.weights.cast::<u8>().wrapping_add(before);
        for tile in 0..self.count {
            let place = self.over.source.place::<R>(&mut pixel);
            // SAFETY: who makes one has those rows, columns, positions and weights.
            unsafe { self.one(s, self.row + tile * R, &place, start, ahead, share) };
            ahead = ahead.wrapping_add(each);
        }
    }
}

impl<E: Element, const R: usize, const P: usize, const V: usize> Tiles<'_, E, R, P, V> {
    /// The tile at `row`, whose rows and first position are given, and where it asks for what is ahead, in steps of `share` bytes.
    ///
    /// # Safety
    /// All that is named is there.
    #[inline(always)]
    unsafe fn one<S: Simd>(
        &self,
        s: S,
        row: usize,
        place: &Place<R>,
        start: [usize; 2],
        ahead: *const u8,
        share: usize,
    ) {
        let span = &self.over.span;
        let whole = self.over.columns == P * V * S::LANES;
        let mut sums = [[[s.splat(0.0); V]; P]; R];
        // SAFETY: as the caller says.
        unsafe {
            let out = self.over.out.at(row * self.over.out_stride + self.over.column);
            if const { S::ASKS && P == 1 } && !span.first {
                // What the next tile adds to.
                for r in R..2 * R {
                    s.prefetch(out.wrapping_add(r * self.over.out_stride).cast());
                }
            }
            if !span.first {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let at = (p * V + v) * S::LANES;
                            let from = out.add(r * self.over.out_stride).wrapping_add(at);
                            *sum = match whole {
                                true => s.load(from),
                                false => s.load_part(from, self.over.columns.saturating_sub(at).min(S::LANES)),
                            };
                        }
                    }
                }
            }
            let (mut at, mut ahead) = (start, ahead);
            for position in span.position..span.position + span.positions {
                let rows = self.over.source.at(place, at);
                at = self.over.source.next(at);
                let rows: [*const f32; R] = std::array::from_fn(|r| rows[r].add(span.from));
                let mut strips: [*const E::T; P] = std::array::from_fn(|p| {
                    self.over.strips[p].add((position * span.depth + span.from) * self.over.step)
                });
                let mut k = 0;
                while k < span.len {
                    let end = match const { S::ASKS && P == 1 } {
                        true => span.len.min(k + LINE),
                        false => span.len,
                    };
                    if const { S::ASKS && P == 1 } {
                        // As much as the tile's share of so many rows.
                        let bytes = share * (end - k);
                        for line in (0..bytes).step_by(LINE) {
                            s.prefetch_far(ahead.wrapping_add(line));
                        }
                        ahead = ahead.wrapping_add(bytes);
                    }
                    for k in k..end {
                        let weights: [[S::F; V]; P] =
                            std::array::from_fn(|p| std::array::from_fn(|v| E::load(s, strips[p].add(v * S::LANES))));
                        for r in 0..R {
                            let x = s.splat(*rows[r].add(k));
                            for p in 0..P {
                                for v in 0..V {
                                    sums[r][p][v] = s.fma(x, weights[p][v], sums[r][p][v]);
                                }
                            }
                        }
                        strips = std::array::from_fn(|p| strips[p].add(self.over.step));
                    }
                    k = end;
                }
            }
            if whole {
                let at = |p: usize, v: usize| (p * V + v) * S::LANES;
                if span.last {
                    let finish = self.over.finish;
                    if !finish.bias.is_null() {
                        let bias = finish.bias.add(self.over.column);
                        each(&mut sums, |_, p, v, x| s.add(x, s.load(bias.add(at(p, v)))));
                    }
                    let residual = finish
                        .residual
                        .wrapping_add(row * finish.residual_stride + self.over.column);
                    let residual = |r: usize, p: usize, v: usize| {
                        s.load(residual.wrapping_add(r * finish.residual_stride + at(p, v)))
                    };
                    if !finish.residual.is_null() && !finish.residual_last {
                        each(&mut sums, |r, p, v, x| s.add(x, residual(r, p, v)));
                    }
                    let (low, high) = (s.splat(finish.low), s.splat(finish.high));
                    each(&mut sums, |_, _, _, x| s.min(s.max(x, low), high));
                    if !finish.residual.is_null() && finish.residual_last && !finish.twice() {
                        each(&mut sums, |r, p, v, x| s.add(x, residual(r, p, v)));
                    }
                }
                each(&mut sums, |r, p, v, x| {
                    s.store(out.add(r * self.over.out_stride + at(p, v)), x);
                    x
                });
            } else if const { matches!(S::ISA, crate::Isa::Avx512) && P == 1 } {
                let lanes: [usize; V] =
                    std::array::from_fn(|v| self.over.columns.saturating_sub(v * S::LANES).min(S::LANES));
                if span.last {
                    let finish = self.over.finish;
                    if !finish.bias.is_null() {
                        let bias: [S::F; V] = std::array::from_fn(|v| {
                            s.load_part(finish.bias.wrapping_add(self.over.column + v * S::LANES), lanes[v])
                        });
                        each(&mut sums, |_, _, v, x| s.add(x, bias[v]));
                    }
                    let residual = finish
                        .residual
                        .wrapping_add(row * finish.residual_stride + self.over.column);
                    let residual = |r: usize, v: usize| {
                        s.load_part(
                            residual.wrapping_add(r * finish.residual_stride + v * S::LANES),
                            lanes[v],
                        )
                    };
                    if !finish.residual.is_null() && !finish.residual_last {
                        each(&mut sums, |r, _, v, x| s.add(x, residual(r, v)));
                    }
                    let (low, high) = (s.splat(finish.low), s.splat(finish.high));
                    each(&mut sums, |_, _, _, x| s.min(s.max(x, low), high));
                    if !finish.residual.is_null() && finish.residual_last && !finish.twice() {
                        each(&mut sums, |r, _, v, x| s.add(x, residual(r, v)));
                    }
                }
                each(&mut sums, |r, _, v, x| {
                    s.store_part(out.wrapping_add(r * self.over.out_stride + v * S::LANES), x, lanes[v]);
                    x
                });
            } else {
                // A copy: the sums themselves stay in registers if nobody asks where they are.
                let mut copy = [[[s.splat(0.0); V]; P]; R];
                let to: *mut S::F = copy.as_mut_ptr().cast();
                each(&mut sums, |r, p, v, x| {
                    *to.add((r * P + p) * V + v) = x;
                    x
                });
                self.store_part(s, to, row, out);
            }
            if span.last && self.over.finish.twice() {
                s.outline(Second {
                    finish: *self.over.finish,
                    out: self.over.out.at(0),
                    stride: self.over.out_stride,
                    row,
                    rows: R,
                    column: self.over.column,
                    columns: self.over.columns,
                });
            }
        }
    }

    /// Stores a tile that has fewer columns than its strips, in one loop over its vectors.
    ///
    /// # Safety
    /// As `one`.
    #[inline(always)]
    unsafe fn store_part<S: Simd>(&self, s: S, sums: *const S::F, row: usize, out: *mut f32) {
        for vector in 0..R * P * V {
            let (r, at) = (vector / (P * V), vector % (P * V) * S::LANES);
            if at < self.over.columns {
                let n = (self.over.columns - at).min(S::LANES);
                // SAFETY: `n` columns are there from that on, and the vector is one of the tile's.
                unsafe {
                    let sum = *sums.add(vector);
                    let x = match self.over.span.last {
                        true => self.over.finish.one(s, sum, row + r, self.over.column + at, Some(n)),
                        false => sum,
                    };
                    s.store_part(out.add(r * self.over.out_stride + at), x, n);
                }
            }
        }
    }
}
