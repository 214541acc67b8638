//! Rows of quantized tables, looked up and dequantized: `quantized_decomposed::embedding_*`.
//!
//! Narrow numbers are packed in bytes as ExecuTorch's `quant_fusion::_pack_embedding_weight` packs them: four bits from the
//! upper half down, two bits from the lowest up, both shifted to be positive.

use crate::affine::{Format, PIECE, load, store_real, with_format};
use crate::embedding::{Offsets, row_index};
use crate::math::Num;
use crate::quantized::groups;
use crate::registry::Kernel;
use crate::remap::index_at;
use crate::stage::{dims_of, expect_dtype};
use crate::wide::Wide;
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("quantized_decomposed::embedding_byte.out", |call| {
        lookup(call, Packing::Byte)
    }),
    ("quantized_decomposed::embedding_byte.dtype_out", |call| {
        lookup(call, Packing::Byte)
    }),
    ("quantized_decomposed::embedding_4bit.out", |call| {
        lookup(call, Packing::Four)
    }),
    ("quantized_decomposed::embedding_4bit.dtype_out", |call| {
        lookup(call, Packing::Four)
    }),
    ("quantized_decomposed::embedding_2bit.out", |call| {
        lookup(call, Packing::Two)
    }),
    ("quantized_decomposed::embedding_2bit.dtype_out", |call| {
        lookup(call, Packing::Two)
    }),
];

/// How numbers lie in the bytes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Byte,
    Four,
    Two,
}

impl Packing {
    /// Numbers in a byte.
    fn count(self) -> usize {
        match self {
            Packing::Byte => 1,
            Packing::Four => 2,
            Packing::Two => 4,
        }
    }

    /// The number at `column` of a row of bytes that begins at `start`.
    fn number(self, data: &[u8], start: usize, stride: usize, column: usize) -> i32 {
        let byte = i32::from(data[start + column / self.count() * stride]);
        match self {
            Packing::Byte => byte,
            Packing::Four => (byte >> (4 * (1 - column % 2)) & 15) - 8,
            Packing::Two => (byte >> (2 * (column % 4)) & 3) - 2,
        }
    }
}

/// A table of quantized rows with scales, and zero points in the scales' dtype.
struct Table<'a> {
    weight: Tensor<'a>,
    packing: Packing,
    columns: usize,
    /// Columns of one scale.
    group: usize,
    scales: Tensor<'a>,
    scale_strides: Dims,
    zeros: Option<(Tensor<'a>, Dims)>,
}

/// `(weight, scales, zero points, quant_min, quant_max, indices, dtype)`, the last one only in the overloads that have it.
fn lookup(call: &mut Call, packing: Packing) -> Result<(), KernelError> {
    let indices = call.tensor(5)?;
    let table = table(call, packing)?;
    let dtype = call.optional_dtype(6)?.unwrap_or(table.scales.dtype());
    let mut sizes = *indices.sizes();
    sizes
        .push(table.columns as i64)
        .map_err(|error| KernelError::invalid("indices", format!("{error}")))?;
    let sizes = dims_of(&sizes, "indices")?;
    let rows = table.weight.sizes()[0];
    let out = call.out(0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    let strides = out.strides();
    let Some((&stride, row_strides)) = strides.split_last() else {
        return Ok(());
    };
    let targets = Offsets::new(indices.sizes(), &dims_of(row_strides, "out")?);
    let memory = out.bytes_mut();
    with_format!(table.scales.dtype(), "weight_scales", F => {
        for (from, to) in Offsets::of(&indices).zip(targets) {
            let row = row_index(index_at(&indices, from, "indices")?, rows)?;
            table.write_row::<F>(row as usize, dtype, memory, to, stride as usize)?;
        }
        Ok(())
    })
}

fn table<'a>(call: &Call<'a, '_>, packing: Packing) -> Result<Table<'a>, KernelError> {
    let (weight, scales, zeros) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let signed = packing == Packing::Byte && weight.dtype() == DType::I8;
    if weight.dtype() != DType::U8 && !signed {
        return Err(KernelError::invalid(
            "weight",
            format!("a tensor of dtype {}", weight.dtype()),
        ));
    }
    let limits = match packing {
        Packing::Byte => None,
        Packing::Four => Some((-8, 7)),
        Packing::Two => Some((-2, 1)),
    };
    if limits.is_some() && limits != Some((call.int(3)?, call.int(4)?)) {
        return Err(KernelError::invalid(
            "weight_quant_min",
            "limits other than those of the packed numbers",
        ));
    }
    let &[rows, bytes] = weight.sizes().as_slice() else {
        return Err(KernelError::invalid(
            "weight",
            format!("a tensor of {} is no table of rows", weight.sizes()),
        ));
    };
    let columns = bytes.saturating_mul(packing.count() as i64);
    let per_row = match *scales.sizes().as_slice() {
        [scaled] if scaled == rows => 1,
        [scaled, groups] if scaled == rows && groups > 0 && columns % groups == 0 => groups,
        _ => {
            return Err(KernelError::invalid(
                "weight_scales",
                format!("a tensor of {} for {rows} rows of {columns}", scales.sizes()),
            ));
        }
    };
    if let Some(zeros) = zeros
        && (zeros.dtype() != scales.dtype() || zeros.sizes().first() != Some(&rows))
    {
        return Err(KernelError::invalid(
            "weight_zero_points",
            format!("a tensor of {} of {} for {rows} rows", zeros.dtype(), zeros.sizes()),
        ));
    }
    let zeros = match zeros {
        Some(zeros) => Some((zeros, groups(&zeros, rows, per_row, "weight_zero_points")?)),
        None => None,
    };
    Ok(Table {
        weight,
        packing,
        columns: columns as usize,
        group: (columns / per_row) as usize,
        scales,
        scale_strides: groups(&scales, rows, per_row, "weight_scales")?,
        zeros,
    })
}

impl Table<'_> {
    /// Dequantizes a row to `memory` of `dtype`.
    fn write_row<F: Format>(
        &self,
        row: usize,
        dtype: DType,
        memory: &mut [u8],
        to: usize,
        stride: usize,
    ) -> Result<(), KernelError> {
        let data: &[u8] = self.weight.bytes();
        let strides = self.weight.strides();
        let start = row * strides[0] as usize;
        let mut piece = [F::W::ZERO; PIECE];
        let mut done = 0usize;
        while done < self.columns {
            let group = done / self.group;
            let end = ((group + 1) * self.group).min(done + PIECE);
            let scale = parameter::<F>(&self.scales, &self.scale_strides, row, group)?;
            let zero = match &self.zeros {
                Some((zeros, strides)) => parameter::<F>(zeros, strides, row, group)?,
                None => F::W::ZERO,
            };
            let piece = &mut piece[..end - done];
            for (i, slot) in piece.iter_mut().enumerate() {
                let number = self.packing.number(data, start, strides[1] as usize, done + i);
                let number = match self.weight.dtype() {
                    DType::I8 => i32::from(number as i8),
                    _ => number,
                };
                let number = F::W::load(number);
                *slot = F::keep(F::keep(number.minus(zero)).times(scale));
            }
            store_real(dtype, piece, memory, to + done * stride, stride)?;
            done = end;
        }
        Ok(())
    }
}

fn parameter<F: Format>(tensor: &Tensor, strides: &Dims, row: usize, group: usize) -> Result<F::W, KernelError> {
    let mut value = [F::W::ZERO];
    let at = row * strides[0] as usize + group * strides[1] as usize;
    load(tensor, at, 1, &mut value)?;
    Ok(value[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row packed by `quant_fusion::_pack_embedding_weight`: `[-8, 7, 0, -1]` and `[-2, 1, 0, -1]`.
    #[test]
    fn narrow_numbers_come_out_of_their_bytes() {
        let four = [0x0f, 0x87];
        let row: [i32; 4] = core::array::from_fn(|column| Packing::Four.number(&four, 0, 1, column));
        assert_eq!(row, [-8, 7, 0, -1]);
        let two = [0b01_10_11_00];
        let row: [i32; 4] = core::array::from_fn(|column| Packing::Two.number(&two, 0, 1, column));
        assert_eq!(row, [-2, 1, 0, -1]);
    }
}
