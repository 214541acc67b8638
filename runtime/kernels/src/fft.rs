//! Discrete Fourier transforms: `_fft_r2c`, `_fft_c2c`, `_fft_c2r`, over any dimensions of any size.
//!
//! One engine ([`Engine`]) does all: a row of n numbers goes through one stage for each factor of n (Stockham's order, so that nothing
//! is permuted at the end). A size with a large prime factor becomes a convolution of a smooth size (Bluestein). So every size takes
//! n log n steps. Real rows of even size are packed as complex ones of half the size. A few rows go side by side, which makes the inner
//! loops long. Everything is computed in `f64`; the roots of one are made for each call, in scratch memory.

use crate::math::Real;
use crate::registry::Kernel;
use crate::rows::{DimSet, Starts};
use crate::stage::{Arena, bytes_of, dim_of, dims_of, expect_dtype, parts};
use crate::strided::{words, words_mut};
use crate::views::{View, fetch};
use crate::wide::Stored;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Complex, DType, Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_fft_c2c.out", c2c),
    ("aten::_fft_c2r.out", c2r),
    ("aten::_fft_r2c.out", r2c),
];

type C = Complex<f64>;
const ZERO: C = C::new(0.0, 0.0);

/// Rows that go through the engine together, at most.
const LANES: usize = 8;
/// Numbers that go through the engine together, about: both buffers of them stay in a cache of the second level.
const NUMBERS: usize = 8192;
/// The largest prime factor that has a stage of its own.
const LARGEST: usize = 31;

/// One dimension of a tensor, transformed.
#[derive(Clone, Copy)]
struct Pass {
    kind: Kind,
    forward: bool,
    dim: usize,
    /// Length of the signal: for [`Kind::ToReal`] that of the output.
    n: usize,
    /// Every result is multiplied by it.
    scale: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Complex,
    /// A real signal; with `onesided` only the first half of its spectrum is written, which determines the other.
    ToComplex {
        onesided: bool,
    },
    /// The first half of a spectrum to a real signal.
    ToReal,
}

impl Pass {
    fn new(kind: Kind, forward: bool, dim: usize, n: usize) -> Pass {
        Pass {
            kind,
            forward,
            dim,
            n,
            scale: 1.0,
        }
    }
}

/// The dimensions of argument `dim`, none twice, none empty in `self`.
struct Axes {
    dims: [usize; MAX_RANK],
    len: usize,
}

impl Axes {
    fn new(source: &Tensor, list: &[i64]) -> Result<Axes, KernelError> {
        let mut axes = Axes {
            dims: [0; MAX_RANK],
            len: 0,
        };
        for &dim in list {
            let d = dim_of(source.sizes(), dim, "dim")?;
            if axes.all().contains(&d) {
                return Err(KernelError::invalid("dim", format!("dimension {d} is given twice")));
            }
            match source.sizes().get(d) {
                Some(1..) => {}
                Some(_) => {
                    return Err(KernelError::invalid(
                        "self",
                        format!("dimension {d} of {} has no elements to transform", source.sizes()),
                    ));
                }
                None => return Err(KernelError::invalid("self", "a 0-dim tensor has no signal")),
            }
            axes.dims[axes.len] = d;
            axes.len += 1;
        }
        Ok(axes)
    }

    fn all(&self) -> &[usize] {
        &self.dims[..self.len]
    }

    /// The last one and those before it.
    fn last(&self) -> Result<(usize, &[usize]), KernelError> {
        match self.all().split_last() {
            Some((&last, others)) => Ok((last, others)),
            None => Err(KernelError::invalid("dim", "no dimension to transform")),
        }
    }
}

/// What PyTorch's `fft_norm_mode` multiplies with: nothing, by the root of the signals' size, or by the size.
fn scale_of(mode: i64, sizes: impl Iterator<Item = i64>) -> Result<f64, KernelError> {
    let count: f64 = sizes.map(|size| size as f64).product();
    match mode {
        0 => Ok(1.0),
        1 => Ok(1.0 / Real::sqrt(count)),
        2 => Ok(1.0 / count),
        _ => Err(KernelError::invalid(
            "normalization",
            format!("{mode} is none of 0 (none), 1 (by the root of the size) and 2 (by the size)"),
        )),
    }
}

fn wrong_dtype(source: &Tensor, wanted: &str) -> KernelError {
    match source.dtype() {
        dtype @ (DType::F16 | DType::BF16) => KernelError::unsupported("self", format!("dtype {dtype}")),
        dtype => KernelError::invalid("self", format!("dtype {dtype} instead of {wanted}")),
    }
}

fn r2c(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let axes = Axes::new(&source, call.ints(1)?)?;
    let (mode, onesided) = (call.int(2)?, call.bool(3)?);
    let dtype = match source.dtype().complex() {
        Some(dtype) if source.dtype() != dtype => dtype,
        _ => return Err(wrong_dtype(&source, "f32 or f64")),
    };
    let (last, others) = axes.last()?;
    let mut sizes = *source.sizes();
    let n = sizes[last] as usize;
    let scale = scale_of(mode, axes.all().iter().map(|&d| sizes[d]))?;
    if onesided {
        sizes[last] = (n / 2 + 1) as i64;
    }
    let first = Pass::new(Kind::ToComplex { onesided }, true, last, n);
    let rest = others
        .iter()
        .map(|&d| Pass::new(Kind::Complex, true, d, sizes[d] as usize));
    run(call, &source, [first].into_iter().chain(rest), scale, (dtype, sizes))
}

fn c2c(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let axes = Axes::new(&source, call.ints(1)?)?;
    let (mode, forward) = (call.int(2)?, call.bool(3)?);
    if !source.dtype().is_complex() {
        return Err(wrong_dtype(&source, "c64 or c128"));
    }
    let sizes = *source.sizes();
    let scale = scale_of(mode, axes.all().iter().map(|&d| sizes[d]))?;
    if axes.len == 0 {
        return fetch(&source, &View::all(source.sizes(), source.strides()), call.out(0)?);
    }
    let passes = axes.all().iter().rev();
    let passes = passes.map(|&d| Pass::new(Kind::Complex, forward, d, sizes[d] as usize));
    run(call, &source, passes, scale, (source.dtype(), sizes))
}

fn c2r(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let axes = Axes::new(&source, call.ints(1)?)?;
    let (mode, n) = (call.int(2)?, call.int(3)?);
    if !source.dtype().is_complex() {
        return Err(wrong_dtype(&source, "c64 or c128"));
    }
    let (last, others) = axes.last()?;
    let mut sizes = *source.sizes();
    if n < 1 {
        return Err(KernelError::invalid(
            "last_dim_size",
            format!("a signal of {n} elements"),
        ));
    }
    if sizes[last] < n / 2 + 1 {
        return Err(KernelError::invalid(
            "last_dim_size",
            format!(
                "a signal of {n} elements needs {} of its spectrum, not {}",
                n / 2 + 1,
                sizes[last]
            ),
        ));
    }
    let before = others
        .iter()
        .map(|&d| Pass::new(Kind::Complex, false, d, source.sizes()[d] as usize));
    sizes[last] = n;
    let sizes = dims_of(&sizes, "last_dim_size")?;
    let scale = scale_of(mode, axes.all().iter().map(|&d| sizes[d]))?;
    let final_pass = Pass::new(Kind::ToReal, false, last, n as usize);
    run(
        call,
        &source,
        before.chain([final_pass]),
        scale,
        (source.dtype().real(), sizes),
    )
}

/// Runs the passes one after the other. The first reads `source`; each works on what the one before it wrote.
fn run(
    call: &mut Call,
    source: &Tensor,
    passes: impl Iterator<Item = Pass>,
    scale: f64,
    (dtype, sizes): (DType, Dims),
) -> Result<(), KernelError> {
    let mut all = [Pass::new(Kind::Complex, true, 0, 1); MAX_RANK];
    let mut len = 0usize;
    for (slot, pass) in all.iter_mut().zip(passes) {
        *slot = pass;
        len += 1;
    }
    if let Some(last) = all[..len].last_mut() {
        last.scale = scale;
    }
    expect_dtype(call.out(0)?, 0, dtype)?;
    call.out(0)?.resize(&sizes)?;
    match dtype.real() {
        DType::F32 => run_in::<f32>(call, source, &all[..len]),
        _ => run_in::<f64>(call, source, &all[..len]),
    }
}

fn run_in<F: Stored>(call: &mut Call, source: &Tensor, passes: &[Pass]) -> Result<(), KernelError> {
    let (out, scratch) = parts(call, 0)?;
    let source_layout = Layout::new(source.dtype(), source.sizes(), source.strides());
    let out_layout = Layout::new(out.dtype(), out.sizes(), &out.strides());
    let data: &[F] = words(source.bytes())?;
    let to_real = passes.last().is_some_and(|pass| pass.kind == Kind::ToReal);
    // The steps before a real result need a place for complex numbers.
    let between = if to_real && passes.len() > 1 {
        source.numel().saturating_mul(2)
    } else {
        0
    };
    let working = passes.iter().map(|pass| room(pass, &out_layout)).max().unwrap_or(0);
    let mut arena = Arena::new(scratch, bytes_of::<F>(between).saturating_add(bytes_of::<u8>(working)))?;
    let (between, memory) = (arena.take::<F>(between)?, arena.take::<u8>(working)?);
    let target: &mut [F] = words_mut(out.bytes_mut())?;
    if between.is_empty() {
        for (i, pass) in passes.iter().enumerate() {
            let from = (i == 0).then_some((data, &source_layout));
            transform(pass, from, (&mut *target, &out_layout), memory)?;
        }
        return Ok(());
    }
    let layout = Layout::new(source.dtype(), source.sizes(), &source.sizes().contiguous_strides());
    let (before, last) = passes.split_at(passes.len() - 1);
    for (i, pass) in before.iter().enumerate() {
        let from = (i == 0).then_some((data, &source_layout));
        transform(pass, from, (&mut *between, &layout), memory)?;
    }
    for pass in last {
        transform(pass, Some((&*between, &layout)), (&mut *target, &out_layout), memory)?;
    }
    Ok(())
}

/// Where the numbers of a tensor are.
struct Layout {
    sizes: Dims,
    strides: Dims,
    /// Words of a number: 2 for complex ones.
    step: usize,
}

impl Layout {
    fn new(dtype: DType, sizes: &Dims, strides: &Dims) -> Layout {
        Layout {
            sizes: *sizes,
            strides: *strides,
            step: if dtype.is_complex() { 2 } else { 1 },
        }
    }
}

/// True if a pass over real numbers packs two of them in each complex one.
fn is_packed(pass: &Pass) -> bool {
    pass.kind != Kind::Complex && pass.n.is_multiple_of(2)
}

/// Numbers of a row in the engine.
fn row_of(pass: &Pass) -> usize {
    if is_packed(pass) { pass.n / 2 } else { pass.n }
}

/// Bytes that [`transform`] needs.
fn room(pass: &Pass, layout: &Layout) -> usize {
    let turns = if is_packed(pass) { pass.n / 2 + 1 } else { 0 };
    let rows = layout.sizes.numel().unwrap_or(0);
    Engine::bytes(row_of(pass), rows).saturating_add(bytes_of::<C>(turns))
}

/// Transforms every row along the pass's dimension; with no source, those of the target in place.
fn transform<F: Stored>(
    pass: &Pass,
    source: Option<(&[F], &Layout)>,
    (target, target_layout): (&mut [F], &Layout),
    memory: &mut [u8],
) -> Result<(), KernelError> {
    let source_layout = source.map_or(target_layout, |(_, layout)| layout);
    let set = DimSet::one(pass.dim);
    let starts = |layout: &Layout| Starts::new(&layout.sizes, &layout.strides, set);
    let stride = |layout: &Layout| layout.strides.get(pass.dim).map_or(0, |&s| s as usize * layout.step);
    let (mut froms, mut tos) = (starts(source_layout), starts(target_layout));
    let rows = target_layout.sizes.numel().unwrap_or(0);
    if rows == 0 {
        return Ok(());
    }
    let mut arena = Arena::over(memory);
    let packed = is_packed(pass);
    let turns = arena.take::<C>(if packed { pass.n / 2 + 1 } else { 0 })?;
    for (k, turn) in turns.iter_mut().enumerate() {
        *turn = root(k, pass.n);
    }
    let mut engine = Engine::new(row_of(pass), rows, &mut arena)?;
    loop {
        let mut places = [(0usize, 0usize); LANES];
        let mut lanes = 0usize;
        while lanes < engine.lanes
            && let (Some(from), Some(to)) = (froms.next(), tos.next())
        {
            places[lanes] = (from * source_layout.step, to * target_layout.step);
            lanes += 1;
        }
        if lanes == 0 {
            return Ok(());
        }
        let data = match source {
            Some((data, _)) => data,
            None => &*target,
        };
        for (lane, &(from, _)) in places[..lanes].iter().enumerate() {
            let row = engine.row(lane, lanes);
            let read = |at: usize| number(data, from + at * stride(source_layout), source_layout.step);
            load(pass, packed, turns, read, row);
        }
        engine.run(lanes);
        for (lane, &(_, to)) in places[..lanes].iter().enumerate() {
            let (stride, step) = (stride(target_layout), target_layout.step);
            let write = |at: usize, value: C| {
                let at = to + at * stride;
                if let Some(slots) = target.get_mut(at..at + step) {
                    for (slot, part) in slots.iter_mut().zip([value.re, value.im]) {
                        *slot = F::from_wide(part * pass.scale);
                    }
                }
            };
            store(pass, packed, turns, engine.row(lane, lanes), write);
        }
    }
}

fn number<F: Stored>(data: &[F], at: usize, step: usize) -> C {
    let part = |i: usize| data.get(at + i).map_or(0.0, |x| x.to_f64());
    C::new(part(0), if step == 2 { part(1) } else { 0.0 })
}

/// Real and imaginary part exchanged: a transform backward is one forward between two of these.
fn swapped(z: C) -> C {
    C::new(z.im, z.re)
}

fn times_i(z: C) -> C {
    C::new(-z.im, z.re)
}

/// One row of the engine's buffer, between those beside it.
struct Row<'a> {
    data: &'a mut [C],
    lane: usize,
    lanes: usize,
}

impl Row<'_> {
    fn slots(&mut self) -> impl Iterator<Item = &mut C> {
        self.data.iter_mut().skip(self.lane).step_by(self.lanes)
    }

    fn at(&self, k: usize) -> C {
        self.data.get(k * self.lanes + self.lane).copied().unwrap_or(ZERO)
    }
}

/// Fills a row of the engine with what `read` gives.
fn load(pass: &Pass, packed: bool, turns: &[C], read: impl Fn(usize) -> C, mut row: Row) {
    let half = pass.n / 2;
    // The ends of a real signal's spectrum are real; what is written there as their imaginary part does not count.
    let spectrum = |k: usize| match k {
        0 => C::new(read(0).re, 0.0),
        k if 2 * k == pass.n => C::new(read(k).re, 0.0),
        k => read(k),
    };
    match pass.kind {
        Kind::Complex if pass.forward => row.slots().enumerate().for_each(|(k, slot)| *slot = read(k)),
        Kind::Complex => row.slots().enumerate().for_each(|(k, slot)| *slot = swapped(read(k))),
        Kind::ToComplex { .. } if packed => {
            for (k, slot) in row.slots().enumerate() {
                *slot = C::new(read(2 * k).re, read(2 * k + 1).re);
            }
        }
        Kind::ToComplex { .. } => row.slots().enumerate().for_each(|(k, slot)| *slot = read(k)),
        Kind::ToReal if packed => {
            for ((k, slot), turn) in row.slots().enumerate().zip(turns) {
                let (low, high) = (spectrum(k), spectrum(half - k).conj());
                *slot = swapped(low + high + times_i((low - high) * turn.conj()));
            }
        }
        Kind::ToReal => {
            for (k, slot) in row.slots().enumerate() {
                let whole = if k <= half {
                    spectrum(k)
                } else {
                    spectrum(pass.n - k).conj()
                };
                *slot = swapped(whole);
            }
        }
    }
}

/// Hands the results of a row to `write`.
fn store(pass: &Pass, packed: bool, turns: &[C], mut row: Row, mut write: impl FnMut(usize, C)) {
    let half = pass.n / 2;
    match pass.kind {
        Kind::Complex if pass.forward => row.slots().enumerate().for_each(|(k, slot)| write(k, *slot)),
        Kind::Complex => row.slots().enumerate().for_each(|(k, slot)| write(k, swapped(*slot))),
        Kind::ToComplex { onesided } => {
            for k in 0..=half {
                let value = match turns.get(k) {
                    Some(turn) if packed => {
                        let (low, high) = (row.at(k % half), row.at((half - k) % half).conj());
                        let (even, odd) = ((low + high).scale(0.5), (low - high).scale(0.5));
                        even - times_i(odd * turn)
                    }
                    _ => row.at(k),
                };
                write(k, value);
                if !onesided && k > 0 && k < pass.n - k {
                    write(pass.n - k, value.conj());
                }
            }
        }
        Kind::ToReal if packed => {
            for (k, slot) in row.slots().enumerate() {
                write(2 * k, C::new(slot.im, 0.0));
                write(2 * k + 1, C::new(slot.re, 0.0));
            }
        }
        Kind::ToReal => row
            .slots()
            .enumerate()
            .for_each(|(k, slot)| write(k, C::new(slot.im, 0.0))),
    }
}

/// exp(-2 pi i k / n) for k up to n, rounded as well as sine and cosine of at most an eighth of a turn are.
fn root(k: usize, n: usize) -> C {
    let (quarter, rest) = (4 * k / n, 4 * k % n);
    let angle = |part: usize| core::f64::consts::FRAC_PI_2 * (part as f64 / n as f64);
    let (cos, sin) = if 2 * rest <= n {
        (Real::cos(angle(rest)), Real::sin(angle(rest)))
    } else {
        (Real::sin(angle(n - rest)), Real::cos(angle(n - rest)))
    };
    match quarter % 4 {
        0 => C::new(cos, -sin),
        1 => C::new(-sin, -cos),
        2 => C::new(-cos, sin),
        _ => C::new(sin, cos),
    }
}

/// Transforms rows of one size forward.
struct Engine<'s> {
    /// Numbers of a row.
    n: usize,
    /// Numbers of the rows that go through the stages: `n`, or more for Bluestein's convolution.
    size: usize,
    /// Rows that fit the buffers.
    lanes: usize,
    /// `root(k, size)`
    roots: &'s [C],
    /// exp(-pi i k^2 / n), and the transform of its conjugate, wrapped around `size`; empty if `size` is `n`.
    chirp: &'s [C],
    filter: &'s [C],
    data: &'s mut [C],
    other: &'s mut [C],
}

impl<'s> Engine<'s> {
    /// The size of the stages and how many rows go through together.
    fn shape(n: usize, rows: usize) -> (usize, usize) {
        let size = if is_smooth(n) { n } else { smooth_from(2 * n - 1) };
        (size, (NUMBERS / size.max(1)).clamp(1, LANES).min(rows.max(1)))
    }

    fn bytes(n: usize, rows: usize) -> usize {
        let (size, lanes) = Engine::shape(n, rows);
        let (chirp, filter) = if size == n { (0, 0) } else { (n, size) };
        let buffer = bytes_of::<C>(size.saturating_mul(lanes));
        [
            bytes_of::<C>(size),
            bytes_of::<C>(chirp),
            bytes_of::<C>(filter),
            buffer,
            buffer,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    fn new(n: usize, rows: usize, arena: &mut Arena<'s>) -> Result<Engine<'s>, KernelError> {
        let (size, lanes) = Engine::shape(n, rows);
        let convolved = size != n;
        let roots = arena.take::<C>(size)?;
        for k in 0..=size / 2 {
            let value = root(k, size);
            if let Some(slot) = roots.get_mut(k) {
                *slot = value;
            }
            if let Some(slot) = roots.get_mut(size - k) {
                *slot = value.conj();
            }
        }
        let chirp = arena.take::<C>(if convolved { n } else { 0 })?;
        let filter = arena.take::<C>(if convolved { size } else { 0 })?;
        let (data, other) = (arena.take::<C>(size * lanes)?, arena.take::<C>(size * lanes)?);
        let mut engine = Engine {
            n,
            size,
            lanes,
            roots,
            chirp: &[],
            filter: &[],
            data,
            other,
        };
        if convolved {
            // k^2 modulo 2n, step by step: the square itself may not fit.
            let mut square = 0usize;
            for (k, slot) in chirp.iter_mut().enumerate() {
                *slot = root(square, 2 * n);
                square = (square + 2 * k + 1) % (2 * n);
            }
            engine.data[..size].fill(ZERO);
            for (k, value) in chirp.iter().enumerate() {
                engine.data[k] = value.conj();
                engine.data[(size - k) % size] = value.conj();
            }
            engine.stages(1);
            filter.copy_from_slice(&engine.data[..size]);
            (engine.chirp, engine.filter) = (chirp, filter);
        }
        Ok(engine)
    }

    /// The row at `lane` of `lanes`.
    fn row(&mut self, lane: usize, lanes: usize) -> Row<'_> {
        Row {
            data: &mut self.data[..self.n * lanes],
            lane,
            lanes,
        }
    }

    /// Transforms the rows in the buffer.
    fn run(&mut self, lanes: usize) {
        if self.chirp.is_empty() {
            return self.stages(lanes);
        }
        let (head, tail) = self.data[..self.size * lanes].split_at_mut(self.n * lanes);
        tail.fill(ZERO);
        for (numbers, &factor) in head.chunks_exact_mut(lanes).zip(self.chirp) {
            numbers.iter_mut().for_each(|z| *z *= factor);
        }
        self.stages(lanes);
        let numbers = self.data[..self.size * lanes].chunks_exact_mut(lanes);
        for (numbers, &factor) in numbers.zip(self.filter) {
            numbers.iter_mut().for_each(|z| *z = swapped(*z * factor));
        }
        self.stages(lanes);
        let scale = 1.0 / self.size as f64;
        for (numbers, &factor) in self.data.chunks_exact_mut(lanes).zip(self.chirp) {
            numbers
                .iter_mut()
                .for_each(|z| *z = (swapped(*z) * factor).scale(scale));
        }
    }

    /// All stages, over rows of `size` in `data`, with the results in `data`.
    ///
    /// After the stages of factors that multiply to `done`, the buffer holds, for each p below `done` and q below `size / done`, the
    /// p-th number of the transform of every `size / done`-th number from q on.
    fn stages(&mut self, lanes: usize) {
        let (mut left, mut done) = (self.size, 1usize);
        while left > 1 {
            let factor = next_factor(left);
            left /= factor;
            let stage = Stage {
                done,
                left,
                lanes,
                roots: self.roots,
            };
            match factor {
                2 => stage.run::<2>(self.data, self.other),
                3 => stage.run::<3>(self.data, self.other),
                4 => stage.run::<4>(self.data, self.other),
                5 => stage.run::<5>(self.data, self.other),
                7 => stage.run::<7>(self.data, self.other),
                factor => stage.run_any(factor, self.data, self.other),
            }
            core::mem::swap(&mut self.data, &mut self.other);
            done *= factor;
        }
    }
}

/// One factor of the size.
struct Stage<'s> {
    /// Product of the factors before it.
    done: usize,
    /// Product of the factors after it.
    left: usize,
    lanes: usize,
    roots: &'s [C],
}

impl Stage<'_> {
    fn run<const R: usize>(&self, from: &[C], to: &mut [C]) {
        let width = self.left * self.lanes;
        // Roots of R: they lie evenly among those of the size.
        let own: [C; R] = core::array::from_fn(|k| self.roots[k * (self.roots.len() / R)]);
        let apart = self.done * width;
        for (p, from) in from.chunks_exact(R * width).take(self.done).enumerate() {
            let turns: [C; R] = core::array::from_fn(|t| self.roots[p * t * self.left]);
            let inputs: [&[C]; R] = core::array::from_fn(|t| &from[t * width..(t + 1) * width]);
            let to = &mut to[p * width..];
            for i in 0..width {
                let mut values = [ZERO; R];
                for t in 0..R {
                    values[t] = inputs[t][i] * turns[t];
                }
                let results = butterfly(values, &own);
                for (u, &result) in results.iter().enumerate() {
                    to[u * apart + i] = result;
                }
            }
        }
    }

    /// The same for any odd factor up to [`LARGEST`].
    fn run_any(&self, factor: usize, from: &[C], to: &mut [C]) {
        let width = self.left * self.lanes;
        let mut own = [ZERO; LARGEST];
        for (k, slot) in own[..factor].iter_mut().enumerate() {
            *slot = self.roots[k * (self.roots.len() / factor)];
        }
        for (p, from) in from.chunks_exact(factor * width).take(self.done).enumerate() {
            for i in 0..width {
                let (mut values, mut results) = ([ZERO; LARGEST], [ZERO; LARGEST]);
                for (t, value) in values[..factor].iter_mut().enumerate() {
                    *value = from[t * width + i] * self.roots[p * t * self.left];
                }
                odd(&values[..factor], &own[..factor], &mut results[..factor]);
                for (u, &result) in results[..factor].iter().enumerate() {
                    to[(p + u * self.done) * width + i] = result;
                }
            }
        }
    }
}

/// The transform of R numbers, given the roots of R.
fn butterfly<const R: usize>(v: [C; R], roots: &[C; R]) -> [C; R] {
    let mut results = [ZERO; R];
    match R {
        2 => {
            results[0] = v[0] + v[1];
            results[1] = v[0] - v[1];
        }
        4 => {
            let (a, b, c) = (v[0] + v[2], v[0] - v[2], v[1] + v[3]);
            let d = times_i(v[1] - v[3]);
            results.copy_from_slice(&[a + c, b - d, a - c, b + d]);
        }
        _ => odd(&v, roots, &mut results),
    }
    results
}

/// The transform of an odd number of values: those at the same distance from both ends are taken together.
fn odd(v: &[C], roots: &[C], results: &mut [C]) {
    let n = v.len();
    results[0] = v.iter().fold(ZERO, |sum, &x| sum + x);
    for u in 1..=n / 2 {
        let (mut even, mut uneven) = (v[0], ZERO);
        for t in 1..=n / 2 {
            let root = roots[u * t % n];
            even += (v[t] + v[n - t]).scale(root.re);
            uneven += (v[t] - v[n - t]).scale(root.im);
        }
        results[u] = even + times_i(uneven);
        results[n - u] = even - times_i(uneven);
    }
}

/// The factor of the next stage: 4 while there is one, then the smallest prime.
fn next_factor(n: usize) -> usize {
    if n.is_multiple_of(4) {
        return 4;
    }
    (2..=LARGEST).find(|&factor| n.is_multiple_of(factor)).unwrap_or(n)
}

/// True if no prime factor is above [`LARGEST`].
fn is_smooth(mut n: usize) -> bool {
    for factor in 2..=LARGEST {
        while n > 1 && n.is_multiple_of(factor) {
            n /= factor;
        }
    }
    n <= 1
}

/// The smallest number from `least` on with no prime factor but 2, 3 and 5.
fn smooth_from(least: usize) -> usize {
    let mut best = least.checked_next_power_of_two().unwrap_or(usize::MAX);
    let mut fives = 1usize;
    while fives < best {
        let mut threes = fives;
        while threes < best {
            let mut size = threes;
            while size < least {
                size = size.saturating_mul(2);
            }
            best = best.min(size);
            threes = threes.saturating_mul(3);
        }
        fives = fives.saturating_mul(5);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;
    use alloc::vec::Vec;

    fn signal(n: usize, rows: usize) -> Vec<C> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        };
        (0..n * rows).map(|_| C::new(next(), next())).collect()
    }

    /// By the definition.
    fn slow(row: &[C]) -> Vec<C> {
        let n = row.len();
        let roots: Vec<C> = (0..n).map(|k| root(k, n)).collect();
        (0..n)
            .map(|k| {
                row.iter()
                    .enumerate()
                    .fold(ZERO, |sum, (j, &x)| sum + x * roots[j * k % n])
            })
            .collect()
    }

    #[test]
    fn every_size_agrees_with_the_definition() {
        let sizes = (1..=140).chain([169, 211, 256, 400, 441, 509, 1000, 1024, 1147]);
        for n in sizes {
            for rows in [1usize, 3] {
                let mut scratch = Scratch::default();
                let mut arena = Arena::new(&mut scratch, Engine::bytes(n, rows)).unwrap();
                let mut engine = Engine::new(n, rows, &mut arena).unwrap();
                let lanes = rows.min(engine.lanes);
                let data = signal(n, lanes);
                for (lane, row) in data.chunks_exact(n).enumerate() {
                    engine
                        .row(lane, lanes)
                        .slots()
                        .zip(row)
                        .for_each(|(slot, &x)| *slot = x);
                }
                engine.run(lanes);
                for (lane, row) in data.chunks_exact(n).enumerate() {
                    let got = engine.row(lane, lanes);
                    for (k, &want) in slow(row).iter().enumerate() {
                        let gap = got.at(k) - want;
                        let error = Real::sqrt(gap.norm_sqr()) / Real::sqrt(n as f64);
                        assert!(error < 1e-14, "{n} numbers, {rows} rows: {error:e} at {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn roots_are_exact_at_quarters_and_rounded_well_elsewhere() {
        assert_eq!(root(0, 12), C::new(1.0, 0.0));
        assert_eq!(root(3, 12), C::new(0.0, -1.0));
        assert_eq!(root(6, 12), C::new(-1.0, 0.0));
        assert_eq!(root(9, 12), C::new(0.0, 1.0));
        assert!(Real::sqrt((root(1, 12) - C::new(0.866_025_403_784_438_6, -0.5)).norm_sqr()) < 2e-16);
    }

    #[test]
    fn smooth_sizes_are_the_smallest() {
        for (least, want) in [
            (1, 1),
            (7, 8),
            (13, 15),
            (73, 75),
            (2027, 2048),
            (1021, 1024),
            (1025, 1080),
        ] {
            assert_eq!(smooth_from(least), want);
        }
        assert!(is_smooth(31 * 4) && is_smooth(1) && !is_smooth(37));
    }
}
