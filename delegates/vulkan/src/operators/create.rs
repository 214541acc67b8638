//! Tensors out of numbers and sizes. Small ones are made on the host when sizes are known, and only read by the device.

use super::movement::{filling, is_movable, kind};
use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, write};
use crate::kernels;
use crate::node::{Node, Scalar};
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// The operators that make tensors.
pub const OPERATORS: &[Operator] = &[
    makes("aten::full", |node, e| full(node, e, node.scalar(1)?)),
    makes("aten::full_like", |node, e| full(node, e, node.scalar(1)?)),
    makes("aten::new_full", |node, e| full(node, e, node.scalar(2)?)),
    makes("aten::zeros", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::zeros_like", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::new_zeros", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::zero", |node, e| full(node, e, Scalar::Int(0))),
    // PyTorch leaves open what these hold.
    makes("aten::empty.memory_format", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::empty_like", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::empty_strided", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::empty_permuted", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::new_empty", |node, e| full(node, e, Scalar::Int(0))),
    makes("aten::ones", |node, e| full(node, e, Scalar::Int(1))),
    makes("aten::ones_like", |node, e| full(node, e, Scalar::Int(1))),
    makes("aten::new_ones", |node, e| full(node, e, Scalar::Int(1))),
    makes("aten::scalar_tensor", |node, e| full(node, e, node.scalar(0)?)),
    makes("aten::arange", |node, e| {
        arange(node, e, Scalar::Int(0), Scalar::Int(1))
    }),
    makes("aten::arange.start", |node, e| {
        arange(node, e, node.scalar(0)?, Scalar::Int(1))
    }),
    makes("aten::arange.start_step", |node, e| {
        arange(node, e, node.scalar(0)?, node.scalar(2)?)
    }),
    makes("aten::tril_indices", |node, e| triangle(node, e, true)),
    makes("aten::triu_indices", |node, e| triangle(node, e, false)),
    makes("aten::eye", eye),
    makes("aten::eye.m", eye),
    Operator {
        name: "aten::linspace",
        accept: accept_linspace,
        encode: linspace,
    },
];

const fn makes(name: &'static str, encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>) -> Operator {
    Operator {
        name,
        accept: |node| match caps::output_dtype(node) {
            Some(dtype) if is_numeric(dtype) => Ok(()),
            _ => Err(Refusal::dtype(format!("`{}` makes no tensors of this type", node.op()))),
        },
        encode,
    }
}

/// Element types whose numbers are made here.
fn is_numeric(dtype: DType) -> bool {
    is_movable(dtype) && !matches!(dtype, DType::F8E4M3 | DType::F8E5M2)
}

/// The bits of a number as an element, as PyTorch converts them.
///
/// # Errors
/// The type is none of numbers.
pub fn bits_of(dtype: DType, value: Scalar) -> Result<u64, Error> {
    Ok(match dtype {
        DType::F32 => u64::from((value.float() as f32).to_bits()),
        DType::F16 => u64::from(f16_bits(value.float() as f32)),
        DType::BF16 => u64::from(bf16_bits(value.float() as f32)),
        DType::F64 => value.float().to_bits(),
        DType::BOOL => u64::from(match value {
            Scalar::Float(value) => value != 0.0,
            value => value.int() != 0,
        }),
        _ if is_numeric(dtype) => {
            let bits = 8 * dtype.size().unwrap_or(8) as u32;
            value.int() as u64 & (u64::MAX >> (64 - bits))
        }
        _ => return Err(Error::unsupported(format!("a number of type {dtype}"))),
    })
}

/// The nearest f16, ties to even.
fn f16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let (sign, magnitude) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
    sign | match magnitude {
        0x7f80_0001.. => 0x7e00,
        0x477f_f000.. => 0x7c00,
        // Below the smallest normal number: in steps of 2^-24. Adding 0.5 rounds there.
        0..0x3880_0000 => (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000) as u16,
        _ => ((magnitude.wrapping_add(0xc800_0fff + (magnitude >> 13 & 1))) >> 13) as u16,
    }
}

/// The nearest bf16, ties to even.
fn bf16_bits(x: f32) -> u16 {
    match x.is_nan() {
        true => 0x7fc0,
        false => ((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) >> 16) as u16,
    }
}

/// Tensors up to so many bytes are made on the host.
const SMALL: u64 = 16384;

/// The first output, of elements that the host makes.
fn made(node: &Node<'_>, e: &mut Encoder<'_>, element: impl Fn(usize) -> Scalar) -> Result<(), Error> {
    let value = node.output(0)?;
    let (dtype, dims) = (e.dtype(value)?, e.dims(value)?);
    let (count, size) = (checked_count(&dims)? as usize, dtype.size().unwrap_or(1));
    let mut bytes = Vec::with_capacity(count * size);
    for i in 0..count {
        let bits = bits_of(dtype, element(i))?.to_le_bytes();
        bytes.extend_from_slice(&bits[..size.min(8)]);
    }
    let tensor = e.bytes(dtype, &dims, bytes)?;
    e.set(value, tensor);
    Ok(())
}

fn full(node: &Node<'_>, e: &mut Encoder<'_>, number: Scalar) -> Result<(), Error> {
    let value = node.output(0)?;
    let (dtype, dims) = (e.dtype(value)?, e.dims(value)?);
    if u64::from(checked_count(&dims)?) * dtype.size().unwrap_or(1) as u64 <= SMALL {
        return made(node, e, |_| number);
    }
    filled(node, e, number).map(|_| ())
}

/// A new tensor for the first output, which others may write to, with a number in every element.
///
/// # Errors
/// The type has no such number, or the device cannot.
pub fn filled(node: &Node<'_>, e: &mut Encoder<'_>, number: Scalar) -> Result<Tensor, Error> {
    let out = e.output(node, 0, Layout::RowMajor)?;
    let dtype = out.dtype;
    let bits = bits_of(dtype, number)?;
    let vectors = out.bytes().div_ceil(16) as u32;
    let [low, high] = filling(bits, kind(dtype));
    let params = [vectors, low, high];
    if vectors > 0 {
        e.dispatch(&kernels::FILL, &[write(&out)], &params, grid(vectors, 64))?;
    }
    Ok(out)
}

/// `start`, `start + step`, …; the graph says how many.
fn arange(node: &Node<'_>, e: &mut Encoder<'_>, start: Scalar, step: Scalar) -> Result<(), Error> {
    match e.dtype(node.output(0)?)?.is_float() {
        true => made(node, e, |i| Scalar::Float(start.float() + i as f64 * step.float())),
        false => made(node, e, |i| {
            Scalar::Int(start.int().wrapping_add(step.int().wrapping_mul(i as i64)))
        }),
    }
}

/// PyTorch computes 16-bit and integer steps in their own type, which shows.
fn accept_linspace(node: &NodeView<'_>) -> Result<(), Refusal> {
    match caps::output_dtype(node) {
        Some(DType::F32 | DType::F64) => Ok(()),
        _ => Err(Refusal::dtype("`aten::linspace` makes f32 and f64 only")),
    }
}

/// Evenly spaced; counted from the nearer end, so that both ends are exact.
fn linspace(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (start, end, steps) = (node.scalar(0)?.float(), node.scalar(1)?.float(), node.int(2)?);
    let step = match steps > 1 {
        true => (end - start) / (steps - 1) as f64,
        false => 0.0,
    };
    made(node, e, |i| {
        let i = i as i64;
        Scalar::Float(match i < steps / 2 || steps == 1 {
            true => start + step * i as f64,
            false => end - step * (steps - 1 - i) as f64,
        })
    })
}

fn eye(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let columns = e.dims(node.output(0)?)?.last().copied().unwrap_or(1).max(1) as usize;
    made(node, e, |i| Scalar::Int(i64::from(i / columns == i % columns)))
}

/// Row and column of each element of a triangle.
fn triangle(node: &Node<'_>, e: &mut Encoder<'_>, lower: bool) -> Result<(), Error> {
    let (rows, columns, offset) = (node.int(0)?, node.int(1)?, node.int(2)?);
    checked_count(&e.dims(node.output(0)?)?)?;
    let inside = |row: i64, column: i64| match lower {
        true => column - row <= offset,
        false => column - row >= offset,
    };
    let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let kept: Vec<(i64, i64)> = all.filter(|(row, column)| inside(*row, *column)).collect();
    let count = kept.len();
    made(node, e, |i| {
        let place = kept.get(if i < count { i } else { i - count });
        let (row, column) = place.copied().unwrap_or_default();
        Scalar::Int(if i < count { row } else { column })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_bits() {
        let float = |dtype, x| bits_of(dtype, Scalar::Float(x)).unwrap();
        assert_eq!(float(DType::F16, 1.0), 0x3c00);
        assert_eq!(float(DType::F16, -65504.0), 0xfbff);
        assert_eq!(float(DType::F16, 65520.0), 0x7c00);
        assert_eq!(float(DType::F16, 2f64.powi(-24)), 1);
        assert_eq!(float(DType::F16, 2f64.powi(-14)), 0x0400);
        assert_eq!(float(DType::F16, f64::NAN), 0x7e00);
        assert_eq!(float(DType::BF16, 1.0), 0x3f80);
        assert_eq!(float(DType::BOOL, 0.5), 1);
        assert_eq!(float(DType::I64, -1.5), u64::MAX);
        assert_eq!(bits_of(DType::I8, Scalar::Int(-1)).unwrap(), 0xff);
        assert!(bits_of(DType::C64, Scalar::Int(0)).is_err());
    }
}
