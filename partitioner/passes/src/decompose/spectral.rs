//! Complex numbers, Fourier transforms and what is built on them, as `_fft_r2c`, `_fft_c2c` and `_fft_c2r`.
//!
//! PyTorch's modes of normalization: 0 nothing, 1 by the root of the size, 2 by the size.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::DType;

pub(super) const RULES: Rules = &[
    ("aten::conj", conj),
    ("aten::_conj", conj),
    ("aten::conj_physical", conj),
    ("aten::real", |rw| part(rw, 0)),
    ("aten::imag", |rw| part(rw, 1)),
    ("aten::sgn", |rw| {
        let x = rw.tensor(0)?;
        match rw.dtype(x)?.is_complex() {
            true => Ok(None),
            false => one(rw.unary("aten::sign", x)),
        }
    }),
    ("aten::fft_fft", |rw| one(signal(rw, true))),
    ("aten::fft_ifft", |rw| one(signal(rw, false))),
    ("aten::fft_rfft", |rw| one(from_real(rw, true))),
    ("aten::fft_ihfft", |rw| one(from_real(rw, false))),
    ("aten::fft_irfft", |rw| one(to_real(rw, false))),
    ("aten::fft_hfft", |rw| one(to_real(rw, true))),
    ("aten::fft_fft2", |rw| one(signals(rw, true))),
    ("aten::fft_fftn", |rw| one(signals(rw, true))),
    ("aten::fft_ifft2", |rw| one(signals(rw, false))),
    ("aten::fft_ifftn", |rw| one(signals(rw, false))),
    ("aten::fft_rfft2", |rw| one(from_reals(rw))),
    ("aten::fft_rfftn", |rw| one(from_reals(rw))),
    ("aten::fft_irfft2", |rw| one(to_reals(rw))),
    ("aten::fft_irfftn", |rw| one(to_reals(rw))),
    ("aten::fft_fftshift", |rw| one(shift(rw, false))),
    ("aten::fft_ifftshift", |rw| one(shift(rw, true))),
    ("aten::fft_fftfreq", |rw| one(frequencies(rw, false))),
    ("aten::fft_rfftfreq", |rw| one(frequencies(rw, true))),
    ("aten::hann_window", |rw| one(window(rw, 0.5, true))),
    ("aten::hann_window.periodic", |rw| {
        let periodic = rw.bool(1)?;
        one(window(rw, 0.5, periodic))
    }),
    ("aten::hamming_window", |rw| one(window(rw, 0.54, true))),
    ("aten::hamming_window.periodic", |rw| {
        let periodic = rw.bool(1)?;
        one(window(rw, 0.54, periodic))
    }),
    ("aten::stft", |rw| {
        let x = rw.tensor(0)?;
        one(stft(rw, x, 5))
    }),
    ("aten::stft.center", |rw| {
        let mut x = rw.tensor(0)?;
        if rw.bool(5)? {
            let (side, mode) = (rw.int(1)? / 2, rw.text(6)?);
            let shape = rw.shape(x)?;
            // Padding by reflection asks for a channel.
            let mut wide = shape.clone();
            wide.splice(0..0, vec![Expr::Int(1); 3usize.saturating_sub(shape.len())]);
            x = rw.view(x, wide)?;
            x = rw.emit("aten::pad", args![x, vec![side, side], Arg::Str(mode), Arg::None])?;
            let mut narrow = shape;
            if let Some(last) = narrow.last_mut() {
                *last = last.clone() + Expr::Int(2 * side);
            }
            x = rw.view(x, narrow)?;
        }
        one(stft(rw, x, 7))
    }),
    ("aten::istft", |rw| one(istft(rw))),
];

fn conj(rw: &mut Rewrite) -> Replacement {
    let x = rw.tensor(0)?;
    match rw.dtype(x)?.is_complex() {
        true => one(conjugate(rw, x)),
        false => Ok(Some(vec![x])),
    }
}

pub(super) fn conjugate(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, PassError> {
    rw.unary("aten::_conj_physical", x)
}

/// The real (0) or imaginary (1) part. Real numbers are their own real part.
fn part(rw: &mut Rewrite, index: i64) -> Replacement {
    let x = rw.tensor(0)?;
    if !rw.dtype(x)?.is_complex() {
        return match index {
            0 => Ok(Some(vec![x])),
            _ => Err(rw.invalid("a real tensor has no imaginary part")),
        };
    }
    let parts = rw.unary("aten::view_as_real", x)?;
    let last = rw.rank(parts)? - 1;
    one(rw.select(parts, last, index))
}

/// The mode for the argument `norm`.
fn mode(rw: &Rewrite, index: usize, forward: bool) -> Result<i64, PassError> {
    let name = if rw.is_none(index) {
        "backward".to_string()
    } else {
        rw.text(index)?
    };
    match (name.as_str(), forward) {
        ("ortho", _) => Ok(1),
        ("backward", true) | ("forward", false) => Ok(0),
        ("backward", false) | ("forward", true) => Ok(2),
        _ => Err(rw.invalid(format!("normalization `{name}`"))),
    }
}

/// The tensor as floats, or as complex numbers.
fn floats(rw: &mut Rewrite, complex: bool) -> Result<ValueId, PassError> {
    let x = rw.tensor(0)?;
    let dtype = rw.dtype(x)?;
    let dtype = if dtype.is_int() || dtype == DType::Bool {
        DType::F32
    } else {
        dtype
    };
    let Some(whole) = dtype.complex() else {
        return Err(rw.unsupported(format!("complex numbers of dtype {dtype}")));
    };
    if !complex && dtype.is_complex() {
        return Err(rw.invalid("a complex tensor where a real one is expected"));
    }
    rw.cast(x, if complex { whole } else { dtype })
}

/// Cuts off or fills up with zeros along `dim`.
fn fit(rw: &mut Rewrite, x: ValueId, dim: usize, size: Expr) -> Result<ValueId, PassError> {
    let have = rw.size(x, dim)?;
    if have == size {
        return Ok(x);
    }
    let (Some(have), Some(want)) = (have.as_int(), size.as_int()) else {
        return Err(rw.unsupported("a signal cut or filled up to a size that only a run tells"));
    };
    if want < have {
        return rw.slice(x, dim, Expr::Int(0), Expr::Int(want));
    }
    let after = rw.rank(x)? - dim;
    let mut pads = vec![0; 2 * after];
    pads[2 * after - 1] = want - have;
    rw.emit("aten::constant_pad_nd", args![x, pads, 0])
}

/// Argument `n`, if given, and the dimension.
fn length(rw: &Rewrite, x: ValueId) -> Result<(Option<Expr>, usize), PassError> {
    let n = if rw.is_none(1) { None } else { Some(rw.expr(1)?) };
    if n.as_ref().and_then(Expr::as_int).is_some_and(|n| n < 1) {
        return Err(rw.invalid("a signal of less than one element"));
    }
    Ok((n, rw.dim(2, rw.rank(x)?)?))
}

fn fitted(rw: &mut Rewrite, x: ValueId) -> Result<(ValueId, usize), PassError> {
    let (n, dim) = length(rw, x)?;
    let x = match n {
        Some(n) => fit(rw, x, dim, n)?,
        None => x,
    };
    Ok((x, dim))
}

fn signal(rw: &mut Rewrite, forward: bool) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, forward)?;
    let real = {
        let x = rw.tensor(0)?;
        !rw.dtype(x)?.is_complex()
    };
    let x = floats(rw, !(real && forward))?;
    let (x, dim) = fitted(rw, x)?;
    match real && forward {
        true => rw.emit("aten::_fft_r2c", args![x, vec![dim as i64], mode, false]),
        false => rw.emit("aten::_fft_c2c", args![x, vec![dim as i64], mode, forward]),
    }
}

/// `rfft`, and `ihfft`, which is its conjugate with the other normalization.
fn from_real(rw: &mut Rewrite, forward: bool) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, forward)?;
    let x = floats(rw, false)?;
    let (x, dim) = fitted(rw, x)?;
    let y = rw.emit("aten::_fft_r2c", args![x, vec![dim as i64], mode, true])?;
    if forward { Ok(y) } else { conjugate(rw, y) }
}

/// `irfft`, and `hfft`, which is that of the conjugate with the other normalization.
fn to_real(rw: &mut Rewrite, forward: bool) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, forward)?;
    let x = floats(rw, true)?;
    let (n, dim) = length(rw, x)?;
    let n = match n {
        Some(n) => n,
        None => (rw.size(x, dim)? - Expr::Int(1)) * Expr::Int(2),
    };
    let mut x = fit(rw, x, dim, n.clone().floor_div(Expr::Int(2)) + Expr::Int(1))?;
    if forward {
        x = conjugate(rw, x)?;
    }
    rw.emit("aten::_fft_c2r", args![x, vec![dim as i64], mode, n])
}

/// Dimensions, each with the size that argument `s` gives it.
fn several(rw: &Rewrite, x: ValueId) -> Result<Vec<(usize, Option<Expr>)>, PassError> {
    let rank = rw.rank(x)?;
    let sizes = rw.exprs(1)?;
    let dims: Vec<usize> = match (rw.is_none(2), rw.is_none(1)) {
        (false, _) => rw
            .ints(2)?
            .into_iter()
            .map(|d| rw.dim_of(d, rank))
            .collect::<Result<_, _>>()?,
        (true, false) => match rank.checked_sub(sizes.len()) {
            Some(first) => (first..rank).collect(),
            None => return Err(rw.invalid("more sizes than dimensions")),
        },
        (true, true) => (0..rank).collect(),
    };
    if dims.is_empty() || (!rw.is_none(1) && sizes.len() != dims.len()) {
        return Err(rw.invalid("sizes and dimensions differ in number, or there are none"));
    }
    // -1 keeps the size.
    let size = |i: usize| sizes.get(i).filter(|s| s.as_int() != Some(-1)).cloned();
    Ok(dims.iter().enumerate().map(|(i, &d)| (d, size(i))).collect())
}

fn fit_all(rw: &mut Rewrite, mut x: ValueId, dims: &[(usize, Option<Expr>)]) -> Result<ValueId, PassError> {
    for (dim, size) in dims {
        if let Some(size) = size {
            x = fit(rw, x, *dim, size.clone())?;
        }
    }
    Ok(x)
}

fn numbers(dims: &[(usize, Option<Expr>)]) -> Vec<i64> {
    dims.iter().map(|(d, _)| *d as i64).collect()
}

fn signals(rw: &mut Rewrite, forward: bool) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, forward)?;
    let x = floats(rw, true)?;
    let dims = several(rw, x)?;
    let x = fit_all(rw, x, &dims)?;
    rw.emit("aten::_fft_c2c", args![x, numbers(&dims), mode, forward])
}

fn from_reals(rw: &mut Rewrite) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, true)?;
    let x = floats(rw, false)?;
    let dims = several(rw, x)?;
    let x = fit_all(rw, x, &dims)?;
    rw.emit("aten::_fft_r2c", args![x, numbers(&dims), mode, true])
}

fn to_reals(rw: &mut Rewrite) -> Result<ValueId, PassError> {
    let mode = mode(rw, 3, false)?;
    let x = floats(rw, true)?;
    let mut dims = several(rw, x)?;
    let mut n = Expr::Int(1);
    if let Some((dim, size)) = dims.last_mut() {
        n = match size.take() {
            Some(size) => size,
            None => (rw.size(x, *dim)? - Expr::Int(1)) * Expr::Int(2),
        };
        *size = Some(n.clone().floor_div(Expr::Int(2)) + Expr::Int(1));
    }
    let x = fit_all(rw, x, &dims)?;
    rw.emit("aten::_fft_c2r", args![x, numbers(&dims), mode, n])
}

/// Frequency zero to the middle, or from there back to the front.
fn shift(rw: &mut Rewrite, back: bool) -> Result<ValueId, PassError> {
    let x = rw.tensor(0)?;
    let dims = rw.dims_or_all(1, rw.rank(x)?)?;
    let mut shifts = Vec::with_capacity(dims.len());
    for &dim in &dims {
        let size = rw.size(x, dim as usize)?;
        shifts.push((size + Expr::Int(i64::from(back))).floor_div(Expr::Int(2)));
    }
    match rw.rank(x)? {
        0 => Ok(x),
        _ => rw.emit("aten::roll", args![x, shifts, dims]),
    }
}

/// The frequencies of a transform of `n` numbers that are `d` apart; those of the first half alone for a real signal.
fn frequencies(rw: &mut Rewrite, real: bool) -> Result<ValueId, PassError> {
    let (n, d) = (rw.int(0)?, rw.float(1)?);
    let dtype = rw.output_type(0)?.dtype;
    if !(1..=1 << 20).contains(&n) {
        return Err(rw.unsupported(format!("{n} frequencies")));
    }
    let step = 1.0 / (n as f64 * d);
    let count = if real { n / 2 + 1 } else { n };
    let at = |k: i64| if real || k < (n + 1) / 2 { k } else { k - n };
    match dtype {
        DType::F32 => {
            let items: Vec<f32> = (0..count).map(|k| at(k) as f32 * step as f32).collect();
            rw.constant_f32(&[count], &items)
        }
        _ => {
            let bytes = (0..count).flat_map(|k| (at(k) as f64 * step).to_le_bytes()).collect();
            let x = rw.constant(DType::F64, &[count], bytes)?;
            rw.cast(x, dtype)
        }
    }
}

/// `alpha - (1 - alpha) cos(2 pi k / n)`, to the order of PyTorch's operations.
fn window(rw: &mut Rewrite, alpha: f64, periodic: bool) -> Result<ValueId, PassError> {
    let n = rw.int(0)?;
    let dtype = rw.output_type(0)?.dtype;
    if n < 0 {
        return Err(rw.invalid(format!("a window of {n} elements")));
    }
    if n < 2 {
        return rw.full(vec![Expr::Int(n)], 1, dtype);
    }
    let turns = if periodic { n } else { n - 1 };
    let k = rw.emit("aten::arange.start_step", args![0, n, 1, dtype])?;
    let angle = rw.mul(k, core::f64::consts::TAU / turns as f64)?;
    let cos = rw.unary("aten::cos", angle)?;
    let scaled = rw.mul(cos, alpha - 1.0)?;
    rw.add(scaled, alpha)
}

/// Sizes of frame, step and window, and the window itself, filled up to a frame.
struct Frames {
    size: i64,
    hop: i64,
    window: Option<ValueId>,
}

/// From arguments 1 to 4.
fn frames(rw: &mut Rewrite) -> Result<Frames, PassError> {
    let size = rw.int(1)?;
    let hop = rw.optional_int(2)?.unwrap_or(size / 4);
    let width = rw.optional_int(3)?.unwrap_or(size);
    if size < 1 || hop < 1 || !(1..=size).contains(&width) {
        return Err(rw.invalid(format!("frames of {size}, {hop} apart, with a window of {width}")));
    }
    let left = (size - width) / 2;
    let window = match rw.optional_tensor(4)? {
        Some(window) => Some(window),
        None if width < size => Some(rw.full(vec![Expr::Int(width)], 1, DType::F32)?),
        None => None,
    };
    let window = match window {
        Some(window) if width < size => Some(rw.emit(
            "aten::constant_pad_nd",
            args![window, vec![left, size - width - left], 0],
        )?),
        other => other,
    };
    Ok(Frames { size, hop, window })
}

/// A batch and a signal, or the signal alone; `normalized` and what follows it are at `at`.
fn stft(rw: &mut Rewrite, x: ValueId, at: usize) -> Result<ValueId, PassError> {
    let frames = frames(rw)?;
    let normalized = rw.bool(at)?;
    if !rw.is_none(at + 3) && rw.bool(at + 3)? {
        return Err(rw.unsupported("`align_to_window`"));
    }
    let batched = rw.rank(x)? > 1;
    let cut = rw.emit("aten::unfold", args![x, -1, frames.size, frames.hop])?;
    let cut = match frames.window {
        Some(window) => rw.mul(cut, window)?,
        None => cut,
    };
    let complex = rw.dtype(cut)?.is_complex();
    let onesided = match rw.is_none(at + 1) {
        true => !complex,
        false => rw.bool(at + 1)?,
    };
    let dim = i64::from(batched) + 1;
    let mode = i64::from(normalized);
    let y = match complex {
        true if onesided => return Err(rw.invalid("half a spectrum of complex numbers")),
        true => rw.emit("aten::_fft_c2c", args![cut, vec![dim], mode, true])?,
        false => rw.emit("aten::_fft_r2c", args![cut, vec![dim], mode, onesided])?,
    };
    let y = rw.transpose_last(y)?;
    let whole = match rw.is_none(at + 2) {
        true => complex,
        false => rw.bool(at + 2)?,
    };
    match whole {
        true => Ok(y),
        false => rw.unary("aten::view_as_real", y),
    }
}

/// Frames back to back, their overlaps summed, divided by the sum of the squares of the window.
fn istft(rw: &mut Rewrite) -> Result<ValueId, PassError> {
    let x = rw.tensor(0)?;
    let shape = rw.shape(x)?;
    let frames = frames(rw)?;
    let (center, normalized) = (rw.bool(5)?, rw.bool(6)?);
    if rw.bool(9)? {
        return Err(rw.unsupported("a complex signal as the result"));
    }
    let [batch @ .., bins, count] = shape.as_slice() else {
        return Err(rw.invalid("a spectrogram has two dimensions or three"));
    };
    let half = frames.size / 2 + 1;
    let batch_size = batch.first().cloned().unwrap_or(Expr::Int(1));
    let x = rw.view(x, vec![batch_size.clone(), bins.clone(), count.clone()])?;
    let x = rw.slice(x, 1, Expr::Int(0), Expr::Int(half))?;
    let mode = if normalized { 1 } else { 2 };
    // [batch, frame size, frames], as `col2im` takes its columns.
    let y = rw.emit("aten::_fft_c2r", args![x, vec![1], mode, frames.size])?;
    let dtype = rw.dtype(y)?;
    let columns = vec![Expr::Int(1), Expr::Int(frames.size), Expr::Int(1)];
    let window = match frames.window {
        Some(window) => rw.view(window, columns)?,
        None => rw.full(columns, 1, dtype)?,
    };
    let y = rw.mul(y, window)?;
    let squares = rw.mul(window, window)?;
    let squares = rw.expand(squares, vec![Expr::Int(1), Expr::Int(frames.size), count.clone()])?;
    let length = Expr::Int(frames.size) + Expr::Int(frames.hop) * (count.clone() - Expr::Int(1));
    let sums = |rw: &mut Rewrite, columns: ValueId| {
        rw.emit(
            "aten::col2im",
            args![
                columns,
                vec![Expr::Int(1), length.clone()],
                vec![1, frames.size],
                vec![1, 1],
                vec![0, 0],
                vec![1, frames.hop]
            ],
        )
    };
    let (y, weights) = (sums(rw, y)?, sums(rw, squares)?);
    let side = if center { frames.size / 2 } else { 0 };
    let end = match rw.is_none(8) {
        true => length.clone() - Expr::Int(side),
        false => Expr::Int(side) + rw.expr(8)?,
    };
    let (known, wanted) = (length.as_int(), end.as_int());
    let missing = match (known, wanted) {
        (Some(known), Some(wanted)) => (wanted - known).max(0),
        _ if rw.is_none(8) => 0,
        _ => return Err(rw.unsupported("a `length` that only a run tells")),
    };
    let stop = end - Expr::Int(missing);
    let y = rw.slice(y, 3, Expr::Int(side), stop.clone())?;
    let weights = rw.slice(weights, 3, Expr::Int(side), stop)?;
    let mut y = rw.div(y, weights)?;
    if missing > 0 {
        y = rw.emit("aten::constant_pad_nd", args![y, vec![0, missing], 0])?;
    }
    let mut shape = batch.to_vec();
    shape.push(rw.size(y, 3)?);
    rw.view(y, shape)
}
