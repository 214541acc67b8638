//! Complex numbers and their parts, Fourier transforms and what is built on them.

use super::Rule;
use super::call::{Call, Result, to_float};
use crate::{Arg, Expr, TensorType, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "complex" => |c| parts(c, ["real", "imag"]),
        "polar" => |c| parts(c, ["abs", "angle"]),
        "real" | "imag" => |c| {
            let t = c.first()?;
            c.one(t.dtype.real(), t.shape.clone())
        },
        "view_as_real" => |c| {
            let t = c.first()?;
            if !t.dtype.is_complex() {
                return c.invalid(format!("{t} is not complex"));
            }
            let mut shape = t.shape.clone();
            shape.push(Expr::Int(2));
            c.one(t.dtype.real(), shape)
        },
        "view_as_complex" => |c| {
            let t = c.first()?;
            match t.shape.split_last() {
                Some((last, rest)) if last.as_int().is_none_or(|n| n == 2) && !t.dtype.is_complex() => {
                    c.one(complex(c, t.dtype)?, rest.to_vec())
                }
                _ => c.invalid(format!("{t} does not end in a dimension of two parts")),
            }
        },
        "_fft_r2c" => |c| {
            let t = real(c)?;
            let dims = dims(c, t)?;
            let mut shape = t.shape.clone();
            match dims.last() {
                Some(&last) if c.bool("onesided")? => shape[last] = half(&shape[last]),
                Some(_) => {}
                None => return c.invalid("no dimension to transform"),
            }
            c.one(complex(c, t.dtype)?, shape)
        },
        "_fft_c2c" => |c| {
            let t = c.first()?;
            if !t.dtype.is_complex() {
                return c.invalid(format!("{t} is not complex"));
            }
            dims(c, t)?;
            c.like(t)
        },
        "_fft_c2r" => |c| {
            let t = c.first()?;
            if !t.dtype.is_complex() {
                return c.invalid(format!("{t} is not complex"));
            }
            let dims = dims(c, t)?;
            let mut shape = t.shape.clone();
            match dims.last() {
                Some(&last) => shape[last] = c.int("last_dim_size")?,
                None => return c.invalid("no dimension to transform"),
            }
            c.one(t.dtype.real(), shape)
        },
        "fft_fft" | "fft_ifft" => |c| signal(c, true, |_, size| size),
        "fft_rfft" | "fft_ihfft" => |c| signal(c, true, |_, size| half(&size)),
        "fft_irfft" | "fft_hfft" => |c| signal(c, false, |given, size| if given { size } else { whole(&size) }),
        "fft_fft2" | "fft_ifft2" | "fft_fftn" | "fft_ifftn" => |c| signals(c, true, |_, size| size),
        "fft_rfft2" | "fft_rfftn" => |c| signals(c, true, |_, size| half(&size)),
        "fft_irfft2" | "fft_irfftn" => |c| signals(c, false, |given, size| if given { size } else { whole(&size) }),
        "fft_fftfreq" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), vec![c.int("n")?]),
        "fft_rfftfreq" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), vec![half(&c.int("n")?)]),
        "stft" => stft,
        "istft" => istft,
        _ => return None,
    })
}

/// The complex dtype of this one's precision; integers count as the default float.
fn complex(c: &Call, dtype: DType) -> Result<DType> {
    match to_float(dtype).complex() {
        Some(complex) => Ok(complex),
        None => c.unsupported(format!("complex numbers of dtype {dtype}")),
    }
}

/// Numbers from two tensors of one real dtype.
fn parts(c: &Call, names: [&str; 2]) -> Result<Vec<Type>> {
    let [a, b] = [c.tensor(names[0])?, c.tensor(names[1])?];
    if a.dtype != b.dtype || !a.dtype.is_float() {
        return c.invalid(format!("{a} and {b} are no parts of complex numbers"));
    }
    c.one(complex(c, a.dtype)?, c.broadcast_of(&names)?)
}

fn real<'a>(c: &Call<'a>) -> Result<&'a TensorType> {
    let t = c.first()?;
    match t.dtype.is_float() {
        true => Ok(t),
        false => c.invalid(format!("{t} is not of real floats")),
    }
}

/// Argument `dim`, which is a list; a 0-dim tensor has no signal.
fn dims(c: &Call, t: &TensorType) -> Result<Vec<usize>> {
    let dims = c.dims("dim", t.rank())?.unwrap_or_default();
    if !dims.is_empty() {
        c.rank_at_least(t, 1)?;
    }
    Ok(dims)
}

/// Of a spectrum of `n` numbers those that determine the others, where the signal is real.
fn half(n: &Expr) -> Expr {
    n.clone().floor_div(Expr::Int(2)) + Expr::Int(1)
}

/// The even size of a signal from `n` numbers of its spectrum.
fn whole(n: &Expr) -> Expr {
    (n.clone() - Expr::Int(1)) * Expr::Int(2)
}

/// One dimension: `n` and `dim`. `size` gives its size from whether `n` is given, and from that or the present one.
fn signal(c: &Call, to_complex: bool, size: fn(bool, Expr) -> Expr) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let mut shape = t.shape.clone();
    let given = c.optional_int("n")?;
    shape[dim] = size(given.is_some(), given.unwrap_or(shape[dim].clone()));
    c.one(result(c, t, to_complex)?, shape)
}

fn result(c: &Call, t: &TensorType, to_complex: bool) -> Result<DType> {
    let dtype = complex(c, t.dtype)?;
    Ok(if to_complex { dtype } else { dtype.real() })
}

/// Several dimensions: `s` and `dim`; `size` is for the last of them.
fn signals(c: &Call, to_complex: bool, size: fn(bool, Expr) -> Expr) -> Result<Vec<Type>> {
    let t = c.first()?;
    let sizes = c.optional_ints("s")?;
    let dims = match (c.dims("dim", t.rank())?, &sizes) {
        (Some(dims), _) => dims,
        (None, Some(sizes)) => match t.rank().checked_sub(sizes.len()) {
            Some(first) => (first..t.rank()).collect(),
            None => return c.invalid(format!("{} sizes for {t}", sizes.len())),
        },
        (None, None) => (0..t.rank()).collect(),
    };
    if sizes.as_ref().is_some_and(|sizes| sizes.len() != dims.len()) || dims.is_empty() {
        return c.invalid("sizes and dimensions differ in number, or there are none");
    }
    c.rank_at_least(t, 1)?;
    let mut shape = t.shape.clone();
    for (i, &dim) in dims.iter().enumerate() {
        // -1 keeps the size.
        let given = sizes
            .as_ref()
            .map(|sizes| sizes[i].clone())
            .filter(|s| s.as_int() != Some(-1));
        let is_given = given.is_some();
        let own = given.unwrap_or(shape[dim].clone());
        shape[dim] = if i + 1 == dims.len() { size(is_given, own) } else { own };
    }
    c.one(result(c, t, to_complex)?, shape)
}

/// Signal, or batch and signal, to (batch,) frequencies and frames.
fn stft(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let Some((length, batch)) = t.shape.split_last() else {
        return c.invalid(format!("{t} is no signal"));
    };
    let size = c.int("n_fft")?;
    let hop = c
        .optional_int("hop_length")?
        .unwrap_or(size.clone().floor_div(Expr::Int(4)));
    let mut length = length.clone();
    if c.has("center") && c.bool("center")? {
        length = length + size.clone().floor_div(Expr::Int(2)) * Expr::Int(2);
    }
    if hop.as_int().is_some_and(|hop| hop < 1) {
        return c.invalid("argument `hop_length`: a step of less than one element");
    }
    let mut shape = batch.to_vec();
    let both = t.dtype.is_complex() || c.optional_tensor("window")?.is_some_and(|w| w.dtype.is_complex());
    let onesided = match c.arg("onesided") {
        Arg::None => !both,
        _ => c.bool("onesided")?,
    };
    shape.push(if onesided { half(&size) } else { size.clone() });
    shape.push((length - size).floor_div(hop) + Expr::Int(1));
    let dtype = complex(c, t.dtype)?;
    let whole = match c.arg("return_complex") {
        Arg::None => both,
        _ => c.bool("return_complex")?,
    };
    match whole {
        true => c.one(dtype, shape),
        false => {
            shape.push(Expr::Int(2));
            c.one(dtype.real(), shape)
        }
    }
}

/// The inverse of [`stft`].
fn istft(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    if !t.dtype.is_complex() || !(2..=3).contains(&t.rank()) {
        return c.invalid(format!("{t} is no spectrogram"));
    }
    let size = c.int("n_fft")?;
    let hop = c
        .optional_int("hop_length")?
        .unwrap_or(size.clone().floor_div(Expr::Int(4)));
    let frames = t.shape[t.rank() - 1].clone();
    let length = match c.optional_int("length")? {
        Some(length) => length,
        None => {
            let whole = size.clone() + hop * (frames - Expr::Int(1));
            match c.bool("center")? {
                true => whole - size.floor_div(Expr::Int(2)) * Expr::Int(2),
                false => whole,
            }
        }
    };
    let mut shape = t.shape[..t.rank() - 2].to_vec();
    shape.push(length);
    let dtype = if c.bool("return_complex")? {
        t.dtype
    } else {
        t.dtype.real()
    };
    c.one(dtype, shape)
}
