//! The border of a graph as the library knows it, and how it is read out of the library's structs: everything is copied.

use super::layout::{self as c, QuantizeParams};
use super::log::text;
use crate::graph::{DataType, Quantization, ScaleOffset, Tensor};
use delegraph_sdk::{Error, Status};

/// A tensor at the border of a graph, as the library knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// What tells it from others at an execution. The library gives it out; it stays the same in the context binary.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Element type.
    pub data_type: DataType,
    /// Sizes.
    pub dims: Vec<u32>,
    /// How its integers stand for numbers.
    pub quantization: Quantization,
}

impl TensorInfo {
    /// Of a tensor of a graph, with the id that the library gave out.
    pub(super) fn of(tensor: &Tensor, id: u32) -> TensorInfo {
        TensorInfo {
            id,
            name: tensor.name.clone(),
            data_type: tensor.data_type,
            dims: tensor.dims.clone(),
            quantization: tensor.quantization.clone(),
        }
    }

    /// Number of bytes of its elements; `None`: more than there can be.
    pub fn bytes(&self) -> Option<usize> {
        let elements = self
            .dims
            .iter()
            .try_fold(1usize, |all, d| all.checked_mul(*d as usize))?;
        elements.checked_mul(self.data_type.size())
    }
}

/// The border of a graph of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphInfo {
    /// Unique within the context.
    pub name: String,
    /// Given for each run.
    pub inputs: Vec<TensorInfo>,
    /// Read after each run.
    pub outputs: Vec<TensorInfo>,
}

/// Reads a C tensor that the library made.
///
/// # Errors
/// It is of a version, a type or a quantization that is not known here, or points nowhere.
///
/// # Safety
/// It is one of the library's, whose pointers are null or to as much as it says.
pub unsafe fn read(raw: &c::Tensor, most: usize) -> Result<TensorInfo, Error> {
    let unknown = |text: String| Error::new(Status::BLOB_INCOMPATIBLE, text);
    if !matches!(raw.version, 1 | 2) {
        return Err(unknown(format!("a tensor of the unknown version {}", raw.version)));
    }
    let body = &raw.body;
    // SAFETY: as the caller says.
    let name = unsafe { text(body.name) };
    let data_type = DataType::of(body.data_type).ok_or_else(|| {
        unknown(format!(
            "tensor `{name}` has the unknown element type {:#06x}",
            body.data_type
        ))
    })?;
    // SAFETY: as the caller says.
    let dims = unsafe { list(body.dims, body.rank, 64, &name, "dimensions") }?;
    // SAFETY: as the caller says.
    let quantization = unsafe { read_quantization(&body.quantize, most, &name) }?;
    Ok(TensorInfo {
        id: body.id,
        name,
        data_type,
        dims,
        quantization,
    })
}

/// # Safety
/// As [`read`].
unsafe fn read_quantization(raw: &QuantizeParams, most: usize, name: &str) -> Result<Quantization, Error> {
    let pair = |raw: &c::ScaleOffset| ScaleOffset {
        scale: raw.scale,
        offset: raw.offset,
    };
    if raw.definition != c::DEFINED {
        return Ok(Quantization::None);
    }
    // SAFETY: the encoding says which member of the union is there; the pointers are as the caller says.
    unsafe {
        Ok(match raw.encoding {
            c::ENCODING_SCALE_OFFSET => Quantization::PerTensor(pair(&raw.value.scale_offset)),
            c::ENCODING_AXIS => {
                let axis = raw.value.axis;
                let pairs: Vec<c::ScaleOffset> = list(axis.pairs, axis.count, most, name, "scales")?;
                Quantization::PerAxis {
                    axis: axis.axis as u32,
                    pairs: pairs.iter().map(pair).collect(),
                }
            }
            c::ENCODING_BW => Quantization::Narrow {
                bits: raw.value.bw.bits,
                pair: ScaleOffset {
                    scale: raw.value.bw.scale,
                    offset: raw.value.bw.offset,
                },
            },
            c::ENCODING_BW_AXIS => {
                let axis = raw.value.bw_axis;
                let scales = list(axis.scales, axis.count, most, name, "scales")?;
                let offsets = match axis.offsets.is_null() {
                    true => vec![0; scales.len()],
                    false => list(axis.offsets, axis.count, most, name, "offsets")?,
                };
                let pairs = scales.into_iter().zip(offsets);
                Quantization::NarrowPerAxis {
                    bits: axis.bits,
                    axis: axis.axis as u32,
                    pairs: pairs.map(|(scale, offset)| ScaleOffset { scale, offset }).collect(),
                }
            }
            code => {
                return Err(Error::new(
                    Status::BLOB_INCOMPATIBLE,
                    format!("tensor `{name}` has a quantization of the unknown encoding {code}"),
                ));
            }
        })
    }
}

/// A copy of a list of the library's.
///
/// # Safety
/// The pointer is null, or to `count` items.
pub unsafe fn list<T: Copy>(pointer: *const T, count: u32, most: usize, of: &str, what: &str) -> Result<Vec<T>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if pointer.is_null() || !pointer.is_aligned() || count as usize > most {
        return Err(Error::new(
            Status::BLOB_CORRUPT,
            format!("`{of}` has {count} {what}, of which there can be {most}"),
        ));
    }
    // SAFETY: as the caller says.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count as usize) }.to_vec())
}
