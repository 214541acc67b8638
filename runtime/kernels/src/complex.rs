//! Complex numbers: their parts, their arithmetic, and the operators that make them or take them apart.
//!
//! A complex tensor is read as two real ones, every second element of the same memory ([`part`]), so that the engines for real numbers
//! serve it. All is computed in `f64` and rounded once. The operators that real tensors have too are entered from their own families.

use crate::elementwise::{common_dtype, map, map2, operand, shape_out};
use crate::lanes::{Operand, Writer};
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, shape_reduced};
use crate::stage::{Arena, bytes_of, expect_dtype};
use crate::strided::{Move, words_mut};
use crate::views::{View, fetch};
use crate::{Arg, Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{Complex, DType, Dims, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_conj_copy.out", conj),
    ("aten::_conj_physical.out", conj),
    ("aten::angle.out", angle),
    ("aten::complex.out", |call| from_two(call, ["real", "imag"], C::new)),
    ("aten::conj_physical.out", conj),
    ("aten::polar.out", |call| {
        from_two(call, ["abs", "angle"], |length, angle| {
            C::new(length * Real::cos(angle), length * Real::sin(angle))
        })
    }),
    ("aten::view_as_complex_copy.out", view_as_complex),
    ("aten::view_as_real_copy.out", view_as_real),
];

type C = Complex<f64>;

/// What an operator of real tensors, by its name, does to a complex one.
const UNARY: &[(&str, fn(C) -> C)] = &[
    ("aten::cos.out", |z| cosh(C::new(-z.im, z.re))),
    ("aten::cosh.out", cosh),
    ("aten::exp.out", exp),
    ("aten::log.out", ln),
    ("aten::neg.out", |z| -z),
    ("aten::reciprocal.out", |z| over(C::new(1.0, 0.0), z)),
    ("aten::rsqrt.out", |z| over(C::new(1.0, 0.0), sqrt(z))),
    ("aten::sgn.out", |z| match length(z) {
        0.0 => C::new(0.0, 0.0),
        length => C::new(z.re / length, z.im / length),
    }),
    ("aten::sigmoid.out", |z| {
        over(C::new(1.0, 0.0), C::new(1.0, 0.0) + exp(-z))
    }),
    ("aten::sin.out", |z| {
        let turned = sinh(C::new(-z.im, z.re));
        C::new(turned.im, -turned.re)
    }),
    ("aten::sinh.out", sinh),
    ("aten::sqrt.out", sqrt),
    ("aten::square.out", |z| z * z),
    ("aten::tanh.out", |z| over(sinh(z), cosh(z))),
];

/// True if the argument at one of these places is a complex tensor.
pub(crate) fn is_any(call: &Call, indices: impl IntoIterator<Item = usize>) -> bool {
    indices
        .into_iter()
        .any(|i| matches!(call.args.get(i), Some(Arg::Tensor(tensor)) if tensor.dtype().is_complex()))
}

/// The real and the imaginary part of an operand; the imaginary part of what is real is 0. The strides of both are put in `strides`.
///
/// # Errors
/// Strides that do not fit their type.
pub(crate) fn parts<'a>(operand: &Operand<'a>, strides: &'a mut Dims) -> Result<[Operand<'a>; 2], KernelError> {
    let tensor = match operand {
        Operand::Tensor(tensor) if tensor.dtype().is_complex() => tensor,
        _ => return Ok([*operand, Operand::Number(Scalar::Float(0.0))]),
    };
    *strides = doubled(tensor.strides())?;
    let (strides, dtype) = (&*strides, tensor.dtype().real());
    let part = |index: usize| {
        // Nothing of no elements, but aligned.
        let bytes = tensor.bytes().get(index * dtype.size()..).unwrap_or(tensor.bytes());
        Tensor::new(dtype, tensor.sizes(), strides, bytes).map(Operand::Tensor)
    };
    Ok([part(0)?, part(1)?])
}

fn doubled(strides: &Dims) -> Result<Dims, KernelError> {
    let mut doubled = *strides;
    for stride in doubled.iter_mut() {
        *stride = stride
            .checked_mul(2)
            .ok_or_else(|| KernelError::unsupported("self", "a stride of half the memory"))?;
    }
    Ok(doubled)
}

/// As [`crate::wide::convert`], where one side or both are complex; a truth value asks for both parts.
///
/// # Errors
/// As there; a complex number as a real one, which would lose its imaginary part.
pub(crate) fn convert(
    plan: &Move,
    (src_dtype, src, src_offset): (DType, &[u8], usize),
    (dst_dtype, dst, dst_offset): (DType, &mut [u8], usize),
) -> Result<(), KernelError> {
    if !dst_dtype.is_complex() && dst_dtype != DType::Bool {
        return Err(KernelError::unsupported(
            "self",
            format!("dtype {src_dtype} as {dst_dtype}"),
        ));
    }
    convert_or_drop(plan, (src_dtype, src, src_offset), (dst_dtype, dst, dst_offset))
}

/// The same for an explicit cast, which drops the imaginary part, as in PyTorch.
///
/// # Errors
/// As [`crate::wide::convert`].
pub(crate) fn convert_or_drop(
    plan: &Move,
    (src_dtype, src, src_offset): (DType, &[u8], usize),
    (dst_dtype, dst, dst_offset): (DType, &mut [u8], usize),
) -> Result<(), KernelError> {
    let steps = |dtype: DType| if dtype.is_complex() { 2 } else { 1 };
    let (src_step, dst_step) = (steps(src_dtype), steps(dst_dtype));
    let plan = plan.spread(src_step as isize, dst_step as isize);
    let (src_part, dst_part) = (src_dtype.real(), dst_dtype.real());
    let (from, to) = (src_offset * src_step, dst_offset * dst_step);
    if dst_dtype == DType::Bool {
        let mut result = Ok(());
        let size = src_part.size();
        let nonzero = |at: usize| {
            let bytes = src.get(at * size..(at + 1) * size).unwrap_or(&[]);
            // All bits but the sign: what is left of both zeros is 0.
            bytes
                .iter()
                .enumerate()
                .any(|(i, &b)| if i + 1 == size { b & 0x7f != 0 } else { b != 0 })
        };
        plan.runs((src.len() / size, from), (dst.len(), to), |mut from, mut to, axis| {
            for _ in 0..axis.size {
                match dst.get_mut(to) {
                    Some(slot) => *slot = u8::from(nonzero(from) || nonzero(from + 1)),
                    None => result = Err(KernelError::invalid("out", "an element outside of its tensor")),
                }
                from = from.wrapping_add_signed(axis.src);
                to = to.wrapping_add_signed(axis.dst);
            }
        })?;
        return result;
    }
    crate::wide::convert(&plan, (src_part, src, from), (dst_part, &mut *dst, to))?;
    match (src_dtype.is_complex(), dst_dtype.is_complex()) {
        (true, true) => crate::wide::convert(&plan, (src_part, src, from + 1), (dst_part, dst, to + 1)),
        (false, true) => crate::wide::convert(&plan.spread(0, 1), (DType::U8, &[0], 0), (dst_part, dst, to + 1)),
        _ => Ok(()),
    }
}

/// Sets every element of a complex output to a number or a 0-dim tensor.
///
/// # Errors
/// As [`map`].
pub(crate) fn fill(value: Operand, out: &mut Out) -> Result<(), KernelError> {
    map2::<f64, C>(&parts(&value, &mut Dims::default())?, None, out, C::new)
}

/// The output gets the shape of the operands, which are given with their parts side by side, and their strides in `strides`.
fn begin<'a, const N: usize>(
    operands: [Operand<'a>; N],
    shaping: &[Operand<'a>],
    out: &mut Out,
    strides: &'a mut [Dims; N],
) -> Result<[[Operand<'a>; 2]; N], KernelError> {
    let dtype = common_dtype(&operands)?;
    shape_out(out, shaping, dtype)?;
    let mut all = [[Operand::Number(Scalar::Int(0)); 2]; N];
    for ((slot, operand), strides) in all.iter_mut().zip(&operands).zip(strides) {
        *slot = parts(operand, strides)?;
    }
    Ok(all)
}

fn map_one(input: Operand, out: &mut Out, f: impl Fn(C) -> C + Sync) -> Result<(), KernelError> {
    let mut strides = [Dims::SCALAR];
    let [parts] = begin([input], &[input], out, &mut strides)?;
    map2::<f64, C>(&parts, None, out, |re, im| f(C::new(re, im)))
}

fn map_two(operands: [Operand; 2], out: &mut Out, f: impl Fn(C, C) -> C + Sync) -> Result<(), KernelError> {
    let mut strides = [Dims::SCALAR; 2];
    let [[a, b], [c, d]] = begin(operands, &operands, out, &mut strides)?;
    map::<f64, C, 4>(&[a, b, c, d], None, out, &|[a, b, c, d], slots| {
        for ((((slot, &a), &b), &c), &d) in slots.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *slot = f(C::new(a, b), C::new(c, d));
        }
    })
}

/// An operator of one complex tensor, by its name.
///
/// # Errors
/// There is no complex form of it here.
pub(crate) fn unary(name: &str, call: &mut Call) -> Result<(), KernelError> {
    let input = operand(call, 0)?;
    let out = call.out(0)?;
    if name == "aten::abs.out" {
        return real_of(input, out, length);
    }
    match UNARY.iter().find(|(have, _)| *have == name) {
        Some((_, f)) => map_one(input, out, f),
        None => Err(unsupported(&input)),
    }
}

fn unsupported(input: &Operand) -> KernelError {
    let dtype = match input {
        Operand::Tensor(tensor) => tensor.dtype(),
        Operand::Number(number) => number.dtype(),
    };
    KernelError::unsupported("self", format!("dtype {dtype}"))
}

/// A real number of each complex one.
fn real_of(input: Operand, out: &mut Out, f: impl Fn(C) -> f64 + Sync) -> Result<(), KernelError> {
    let dtype = common_dtype(&[input])?.real();
    shape_out(out, &[input], if dtype.is_float() { dtype } else { DType::F32 })?;
    let mut strides = Dims::SCALAR;
    let parts = parts(&input, &mut strides)?;
    map2::<f64, f64>(&parts, None, out, |re, im| f(C::new(re, im)))
}

/// `self + alpha * other`
///
/// # Errors
/// As [`map`]; so for those below.
pub(crate) fn add(call: &mut Call, alpha: Scalar) -> Result<(), KernelError> {
    let (operands, alpha) = ([operand(call, 0)?, operand(call, 1)?], alpha.as_f64());
    match alpha {
        1.0 => map_two(operands, call.out(0)?, |a, b| a + b),
        -1.0 => map_two(operands, call.out(0)?, |a, b| a - b),
        _ => map_two(operands, call.out(0)?, |a, b| a + b.scale(alpha)),
    }
}

/// `other - alpha * self`
pub(crate) fn rsub(call: &mut Call, alpha: Scalar) -> Result<(), KernelError> {
    let (operands, alpha) = ([operand(call, 0)?, operand(call, 1)?], alpha.as_f64());
    map_two(operands, call.out(0)?, |a, b| b - a.scale(alpha))
}

/// `self * other`
pub(crate) fn mul(call: &mut Call) -> Result<(), KernelError> {
    map_two([operand(call, 0)?, operand(call, 1)?], call.out(0)?, |a, b| a * b)
}

/// `self / other`
pub(crate) fn div(call: &mut Call) -> Result<(), KernelError> {
    map_two([operand(call, 0)?, operand(call, 1)?], call.out(0)?, over)
}

/// `self` to the power of `exponent`; whole numbers of up to 3 by multiplication, as PyTorch.
pub(crate) fn pow(call: &mut Call) -> Result<(), KernelError> {
    let operands = [operand(call, 0)?, operand(call, 1)?];
    let out = call.out(0)?;
    if let Operand::Number(exponent) = operands[1] {
        match exponent.as_f64() {
            0.0 => return map_one(operands[0], out, |_| C::new(1.0, 0.0)),
            0.5 => return map_one(operands[0], out, sqrt),
            1.0 => return map_one(operands[0], out, |z| z),
            2.0 => return map_one(operands[0], out, |z| z * z),
            3.0 => return map_one(operands[0], out, |z| z * z * z),
            _ => {}
        }
    }
    map_two(operands, out, |a, b| exp(b * ln(a)))
}

/// `==` or `!=`; there is no order.
pub(crate) fn compare(name: &str, call: &mut Call) -> Result<(), KernelError> {
    let equal = match name {
        "aten::eq.Tensor_out" | "aten::eq.Scalar_out" => true,
        "aten::ne.Tensor_out" | "aten::ne.Scalar_out" => false,
        _ => return Err(KernelError::invalid("self", "an order of complex numbers")),
    };
    let operands = [operand(call, 0)?, operand(call, 1)?];
    // Rounded as the common dtype would: a double beside a number of floats.
    let common = common_dtype(&operands)?.real();
    let out = call.out(0)?;
    shape_out(out, &operands, DType::Bool)?;
    let [x, y] = operands;
    let (mut of_x, mut of_y) = (Dims::SCALAR, Dims::SCALAR);
    let ([a, b], [c, d]) = (parts(&x, &mut of_x)?, parts(&y, &mut of_y)?);
    let all = [a, b, c, d];
    map::<f64, u8, 4>(&all, Some(common), out, &|[a, b, c, d], slots| {
        for ((((slot, &a), &b), &c), &d) in slots.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *slot = u8::from((a == c && b == d) == equal);
        }
    })
}

/// `if mask { a } else { b }`, where the operands of the dtype are those that `promoting` says.
pub(crate) fn choose<'a>(
    mask: Operand<'a>,
    [a, b]: [Operand<'a>; 2],
    promoting: &[Operand<'a>],
    out: &mut Out,
) -> Result<(), KernelError> {
    shape_out(out, &[mask, a, b], common_dtype(promoting)?)?;
    let (mut of_a, mut of_b) = (Dims::SCALAR, Dims::SCALAR);
    let ([a, b], [c, d]) = (parts(&a, &mut of_a)?, parts(&b, &mut of_b)?);
    let all = [mask, a, b, c, d];
    map::<f64, C, 5>(&all, None, out, &|[mask, a, b, c, d], slots| {
        for (((((slot, &mask), &a), &b), &c), &d) in slots.iter_mut().zip(mask).zip(a).zip(b).zip(c).zip(d) {
            *slot = if mask != 0.0 { C::new(a, b) } else { C::new(c, d) };
        }
    })
}

/// The sum of each row, divided by its length for a mean.
pub(crate) fn sum(input: &Tensor, set: DimSet, keepdim: bool, mean: bool, out: &mut Out) -> Result<(), KernelError> {
    shape_reduced(out, input, set, keepdim)?;
    let input = Operand::Tensor(*input);
    let mut strides = Dims::SCALAR;
    let [re, im] = parts(&input, &mut strides)?;
    let Operand::Tensor(re) = re else {
        return Err(unsupported(&input));
    };
    let mut re = Rows::<f64>::new(re, set);
    // A real tensor that is summed in a complex dtype has no imaginary part.
    let mut im = match im {
        Operand::Tensor(im) => Some(Rows::<f64>::new(im, set)),
        Operand::Number(_) => None,
    };
    let mut writer = Writer::<C>::whole(out);
    while re.advance() {
        let count = if mean { re.len() as f64 } else { 1.0 };
        let mut value = C::new(crate::reduce::row_sum(&mut re, |x| x)?, 0.0);
        if let Some(im) = &mut im {
            im.advance();
            value.im = crate::reduce::row_sum(im, |x| x)?;
        }
        writer.push(out, C::new(value.re / count, value.im / count))?;
    }
    Ok(())
}

fn conj(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let out = call.out(0)?;
    if !source.dtype().is_complex() {
        return fetch(&source, &View::all(source.sizes(), source.strides()), out);
    }
    expect_dtype(out, 0, source.dtype())?;
    map_one(Operand::Tensor(source), out, |z| z.conj())
}

/// Of a real number: 0, or pi for a negative one; NaN stays.
fn angle(call: &mut Call) -> Result<(), KernelError> {
    let input = operand(call, 0)?;
    let out = call.out(0)?;
    if is_complex(&input) {
        return real_of(input, out, |z| Real::atan2(z.im, z.re));
    }
    real_of(input, out, |x| match x.re {
        x if x.is_nan() => x,
        x if x < 0.0 => core::f64::consts::PI,
        _ => 0.0,
    })
}

fn is_complex(operand: &Operand) -> bool {
    matches!(operand, Operand::Tensor(tensor) if tensor.dtype().is_complex())
}

/// Complex numbers from two real ones each.
fn from_two(call: &mut Call, names: [&'static str; 2], f: impl Fn(f64, f64) -> C + Sync) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let dtype = complex_dtype(&a, names[0])?;
    if a.dtype() != b.dtype() {
        return Err(KernelError::invalid(
            names[1],
            format!("dtype {} beside one of {}", b.dtype(), a.dtype()),
        ));
    }
    let operands = [Operand::Tensor(a), Operand::Tensor(b)];
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    shape_out(out, &operands, dtype)?;
    map2::<f64, C>(&operands, None, out, f)
}

/// The dtype whose parts a real tensor holds.
fn complex_dtype(tensor: &Tensor, argument: &'static str) -> Result<DType, KernelError> {
    match tensor.dtype().complex() {
        Some(dtype) if !tensor.dtype().is_complex() => Ok(dtype),
        // PyTorch has complex halves.
        _ if matches!(tensor.dtype(), DType::F16 | DType::BF16) => Err(KernelError::unsupported(
            argument,
            format!("complex numbers of dtype {}", tensor.dtype()),
        )),
        _ => Err(KernelError::invalid(
            argument,
            format!("dtype {} as a part of complex numbers", tensor.dtype()),
        )),
    }
}

/// One more dimension, of the real and the imaginary part.
fn view_as_real(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    if !source.dtype().is_complex() {
        return Err(KernelError::invalid(
            "self",
            format!("dtype {} instead of a complex one", source.dtype()),
        ));
    }
    let (mut sizes, mut strides) = (*source.sizes(), doubled(source.strides())?);
    for (dims, last) in [(&mut sizes, 2), (&mut strides, 1)] {
        dims.push(last)
            .map_err(|error| KernelError::invalid("self", format!("{error}")))?;
    }
    let flat = Tensor::new(source.dtype().real(), &sizes, &strides, source.bytes())?;
    fetch(&flat, &View::all(&sizes, &strides), call.out(0)?)
}

/// The last dimension, of size 2, becomes the parts.
fn view_as_complex(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let dtype = complex_dtype(&source, "self")?;
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    let Some((&2, _)) = source.sizes().split_last() else {
        return Err(KernelError::invalid(
            "self",
            format!(
                "a tensor of {}, where the last dimension has to be of size 2",
                source.sizes()
            ),
        ));
    };
    let whole = View::all(source.sizes(), source.strides());
    let mut parts = [Operand::Number(Scalar::Int(0)); 2];
    let views = [whole.select(-1, 0)?, whole.select(-1, 1)?];
    for (view, slot) in views.iter().zip(&mut parts) {
        let bytes = source
            .bytes()
            .get(view.offset * source.dtype().size()..)
            .unwrap_or(source.bytes());
        *slot = Operand::Tensor(Tensor::new(source.dtype(), &view.sizes, &view.strides, bytes)?);
    }
    shape_out(out, &parts, dtype)?;
    map2::<f64, C>(&parts, None, out, C::new)
}

/// Products of two batches of complex matrices. The output has its sizes already.
///
/// # Errors
/// Scratch memory cannot be had.
pub(crate) fn products(
    (a, b): (&Tensor, &Tensor),
    (batch, m, k, n): (usize, usize, usize, usize),
    b_transposed: bool,
    (out, scratch): (&mut Out, &mut Scratch),
) -> Result<(), KernelError> {
    let dense = |count: usize| bytes_of::<C>(count);
    let total = dense(a.numel())
        .saturating_add(dense(b.numel()))
        .saturating_add(dense(batch * m * n));
    let mut arena = Arena::new(scratch, total)?;
    let (a, b) = (load(&mut arena, a)?, load(&mut arena, b)?);
    let result = arena.take::<C>(batch * m * n)?;
    result.fill(C::new(0.0, 0.0));
    for i in 0..batch {
        let (a, b) = (&a[i * m * k..(i + 1) * m * k], &b[i * k * n..(i + 1) * k * n]);
        let result = &mut result[i * m * n..(i + 1) * m * n];
        for row in 0..m {
            let row_of = &mut result[row * n..(row + 1) * n];
            for at in 0..k {
                let factor = a[row * k + at];
                if b_transposed {
                    for (column, slot) in row_of.iter_mut().enumerate() {
                        *slot += factor * b[column * k + at];
                    }
                } else {
                    for (slot, &value) in row_of.iter_mut().zip(&b[at * n..(at + 1) * n]) {
                        *slot += factor * value;
                    }
                }
            }
        }
    }
    crate::stage::store(bytemuck::cast_slice(result), DType::C128, out)
}

/// The elements, row-major, as doubles.
fn load<'s>(arena: &mut Arena<'s>, tensor: &Tensor) -> Result<&'s [C], KernelError> {
    let slice = arena.take::<C>(tensor.numel())?;
    let plan = Move::of(tensor.sizes(), tensor.strides(), &tensor.sizes().contiguous_strides())?;
    let target = words_mut(bytemuck::cast_slice_mut(slice))?;
    crate::wide::convert(&plan, (tensor.dtype(), tensor.bytes(), 0), (DType::C128, target, 0))?;
    Ok(slice)
}

// Functions of one complex number.

/// The plain root where the squares are far from the ends of the range: always, for finite numbers of floats but 0.
fn length(z: C) -> f64 {
    let square = z.norm_sqr();
    match (1e-280..1e280).contains(&square) {
        true => Real::sqrt(square),
        false => Real::hypot(z.re, z.im),
    }
}

/// As `c10::complex`: the larger part of the divisor is divided out first, so that nothing overflows in between.
fn over(a: C, b: C) -> C {
    let (large, small) = (Num::magnitude(b.re), Num::magnitude(b.im));
    if large >= small {
        if large == 0.0 && small == 0.0 {
            return C::new(a.re / large, a.im / small);
        }
        let ratio = b.im / b.re;
        let scale = 1.0 / (b.re + b.im * ratio);
        C::new((a.re + a.im * ratio) * scale, (a.im - a.re * ratio) * scale)
    } else {
        let ratio = b.re / b.im;
        let scale = 1.0 / (b.re * ratio + b.im);
        C::new((a.re * ratio + a.im) * scale, (a.im * ratio - a.re) * scale)
    }
}

/// A real argument stays real, even where its exponential is infinite.
fn exp(z: C) -> C {
    let size = Real::exp(z.re);
    match z.im {
        0.0 => C::new(size, z.im),
        angle => C::new(size * Real::cos(angle), size * Real::sin(angle)),
    }
}

fn ln(z: C) -> C {
    C::new(Real::ln(length(z)), Real::atan2(z.im, z.re))
}

/// The root whose real part is not negative.
fn sqrt(z: C) -> C {
    if z.re == 0.0 && z.im == 0.0 {
        return C::new(0.0, z.im);
    }
    if Real::is_infinite(z.im) {
        return C::new(f64::INFINITY, z.im);
    }
    // From a quarter of the number: the sum of part and length cannot overflow.
    let half = Real::sqrt(Num::magnitude(z.re) / 4.0 + Real::hypot(z.re / 4.0, z.im / 4.0));
    let root = half * core::f64::consts::SQRT_2;
    let other = Num::magnitude(z.im) / (2.0 * root);
    match z.re >= 0.0 {
        true => C::new(root, Real::copysign(other, z.im)),
        false => C::new(other, Real::copysign(root, z.im)),
    }
}

fn cosh(z: C) -> C {
    C::new(Real::cosh(z.re) * Real::cos(z.im), Real::sinh(z.re) * Real::sin(z.im))
}

fn sinh(z: C) -> C {
    C::new(Real::sinh(z.re) * Real::cos(z.im), Real::cosh(z.re) * Real::sin(z.im))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Converting = fn(&Move, (DType, &[u8], usize), (DType, &mut [u8], usize)) -> Result<(), KernelError>;

    fn near(got: C, re: f64, im: f64) {
        let gap = length(got - C::new(re, im));
        assert!(
            gap <= 1e-14 * (1.0 + length(C::new(re, im))),
            "{got} where {re} {im} is wanted"
        );
    }

    /// Values of Python's `cmath`.
    #[test]
    fn functions_agree_with_python() {
        let z = C::new(0.5, -1.25);
        near(exp(z), 0.519_878_686_008_493_7, -1.564_611_127_498_819_5);
        near(ln(z), 0.297_353_553_873_346_4, -1.190_289_949_682_531_7);
        near(sqrt(z), 0.960_804_663_233_798_5, -0.650_496_426_501_954_7);
        near(sqrt(C::new(-4.0, 0.0)), 0.0, 2.0);
        near(sinh(z), 0.164_313_002_761_372_65, -1.070_099_697_366_852_6);
        near(cosh(z), 0.355_565_683_247_121, -0.494_511_430_131_966_74);
        near(
            over(C::new(1.0, 2.0), z),
            -1.103_448_275_862_069,
            1.241_379_310_344_827_6,
        );
        near(over(C::new(1e300, 0.0), C::new(1e300, 1e300)), 0.5, -0.5);
    }

    #[test]
    fn conversions_keep_both_parts_or_drop_the_imaginary_one() {
        let plan = Move::of(&[2], &[1], &[1]).unwrap();
        let source = [Complex::new(1.5f32, -2.0), Complex::new(0.0, 3.0)];
        let bytes: &[u8] = bytemuck::cast_slice(&source);
        let mut wide = [C::new(9.0, 9.0); 2];
        crate::wide::convert(
            &plan,
            (DType::C64, bytes, 0),
            (DType::C128, bytemuck::cast_slice_mut(&mut wide), 0),
        )
        .unwrap();
        assert_eq!(wide, [C::new(1.5, -2.0), C::new(0.0, 3.0)]);
        let mut real = [9f64; 2];
        let to_real = |f: Converting, real: &mut [f64]| {
            f(
                &plan,
                (DType::C64, bytes, 0),
                (DType::F64, bytemuck::cast_slice_mut(real), 0),
            )
        };
        assert!(to_real(crate::wide::convert, &mut real).is_err());
        to_real(convert_or_drop, &mut real).unwrap();
        assert_eq!(real, [1.5, 0.0]);
        let mut truth = [9u8; 2];
        crate::wide::convert(&plan, (DType::C64, bytes, 0), (DType::Bool, &mut truth, 0)).unwrap();
        assert_eq!(truth, [1, 1]);
        crate::wide::convert(
            &plan,
            (DType::I8, &[7, 0xff], 0),
            (DType::C128, bytemuck::cast_slice_mut(&mut wide), 0),
        )
        .unwrap();
        assert_eq!(wide, [C::new(7.0, 0.0), C::new(-1.0, 0.0)]);
    }
}
