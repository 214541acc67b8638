//! `.ptd` data files: tensors by name beside a program.

use crate::generated::ptd as fb;
use crate::header;
use crate::{PteError, WriteError, check};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_types::{DType, Dims};
use flatbuffers::FlatBufferBuilder;

/// A checked data file. It does not hold the file's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// In file order.
    pub entries: Vec<DataTensor>,
}

/// One entry of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct DataTensor {
    /// Its key.
    pub name: String,
    /// Absolute byte range of the file.
    pub range: Range<u64>,
    /// dtype, sizes and dim_order; `None` for an opaque blob.
    pub layout: Option<(DType, Dims, Vec<u8>)>,
}

impl DataFile {
    /// Reads and checks a `.ptd` file.
    ///
    /// # Errors
    /// Another kind of file, a damaged one, or one that contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<DataFile, PteError> {
        let header = header::read(bytes, &header::PTD)?;
        let buffer = &bytes[..header.flatbuffer_len];
        let options = header::verifier_options(buffer.len());
        let root = fb::root_as_flat_tensor_with_opts(&options, buffer).map_err(header::damaged)?;
        let mut segments = Vec::new();
        for (i, segment) in root.segments().unwrap_or_default().iter().enumerate() {
            segments.push(header.segment(i, segment.offset(), segment.size())?);
        }
        let mut entries = Vec::new();
        for (i, named) in root.named_data().unwrap_or_default().iter().enumerate() {
            let Some(name) = named.key() else {
                return Err(PteError::invalid(format!("named data {i}"), "no key"));
            };
            let place = || format!("named data `{name}`");
            let range = segments.get(named.segment_index() as usize).cloned().ok_or_else(|| {
                let problem = format!("segment {} of {}", named.segment_index(), segments.len());
                PteError::invalid(place(), problem)
            })?;
            let layout = match named.tensor_layout() {
                Some(layout) => Some(tensor_layout(&layout, &range, &place)?),
                None => None,
            };
            entries.push(DataTensor {
                name: name.to_string(),
                range,
                layout,
            });
        }
        check::keys(entries.iter().map(|entry| entry.name.as_str()))?;
        Ok(DataFile { entries })
    }

    /// Bytes of the entry of this name in `file`.
    pub fn bytes<'a>(&self, file: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let range = &self.entries.iter().find(|entry| entry.name == name)?.range;
        file.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }
}

fn tensor_layout(
    layout: &fb::TensorLayout<'_>,
    range: &Range<u64>,
    place: &dyn Fn() -> String,
) -> Result<(DType, Dims, Vec<u8>), PteError> {
    let code = layout.scalar_type();
    let dtype = DType::from_pte(code)
        .ok_or_else(|| PteError::unsupported(place(), format!("a tensor of scalar type {code}")))?;
    let mut sizes = Dims::SCALAR;
    for size in layout.sizes().unwrap_or_default() {
        sizes
            .push(i64::from(size))
            .map_err(|error| PteError::unsupported(place(), format!("{error}")))?;
    }
    let dim_order: Vec<u8> = layout.dim_order().unwrap_or_default().iter().collect();
    if sizes.strides_of_dim_order(&dim_order).is_none() {
        let problem = format!("dim_order {dim_order:?} for sizes {sizes}");
        return Err(PteError::invalid(place(), problem));
    }
    let bytes = sizes.numel().and_then(|n| n.checked_mul(dtype.size()));
    let have = range.end - range.start;
    match bytes {
        Some(bytes) if bytes as u64 <= have => Ok((dtype, sizes, dim_order)),
        _ => Err(PteError::invalid(
            place(),
            format!("a tensor of {sizes} {dtype} in {have} bytes"),
        )),
    }
}

/// An entry to write: key, dtype and sizes (row-major; `None` for an opaque blob), bytes.
pub type NamedTensor<'a> = (String, Option<(DType, Dims)>, &'a [u8]);

/// Appends a `.ptd` file to `out`.
///
/// # Errors
/// A key is there twice, or an entry has fewer bytes than its sizes need. Nothing is written then.
pub fn write_ptd(entries: &[NamedTensor<'_>], out: &mut Vec<u8>) -> Result<(), WriteError> {
    // As ExecuTorch writes it: header of 40 bytes after the identifier, each tensor in a segment of its own.
    const HEADER_LEN: u64 = 40;
    const ALIGNMENT: u64 = 128;
    check::keys(entries.iter().map(|entry| entry.0.as_str()))?;
    let mut fbb = FlatBufferBuilder::new();
    let (mut end, mut segments, mut named) = (0u64, Vec::new(), Vec::new());
    for (index, (name, layout, data)) in entries.iter().enumerate() {
        let tensor_layout = match layout {
            None => None,
            Some((dtype, sizes)) => {
                let bytes = sizes.numel().and_then(|n| n.checked_mul(dtype.size()));
                let fits = bytes.is_some_and(|bytes| bytes <= data.len());
                if !fits || sizes.iter().any(|size| i32::try_from(*size).is_err()) {
                    let problem = format!("a tensor of {sizes} {dtype} in {} bytes", data.len());
                    return Err(PteError::invalid(format!("named data `{name}`"), problem).into());
                }
                let dims = fbb.create_vector_from_iter(sizes.iter().map(|&size| size as i32));
                let order: Vec<u8> = (0..sizes.rank() as u8).collect();
                let dim_order = fbb.create_vector(&order);
                let args = fb::TensorLayoutArgs {
                    scalar_type: dtype.pte_code(),
                    sizes: Some(dims),
                    dim_order: Some(dim_order),
                };
                Some(fb::TensorLayout::create(&mut fbb, &args))
            }
        };
        let offset = end.next_multiple_of(ALIGNMENT);
        end = offset + data.len() as u64;
        segments.push((offset, data.len() as u64));
        let args = fb::NamedDataArgs {
            key: Some(fbb.create_string(name)),
            segment_index: index as u32,
            tensor_layout,
        };
        named.push(fb::NamedData::create(&mut fbb, &args));
    }
    let tables: Vec<_> = segments
        .iter()
        .map(|&(offset, size)| fb::DataSegment::create(&mut fbb, &fb::DataSegmentArgs { offset, size }))
        .collect();
    let args = fb::FlatTensorArgs {
        version: 0,
        segments: Some(fbb.create_vector(&tables)),
        named_data: Some(fbb.create_vector(&named)),
    };
    let root = fb::FlatTensor::create(&mut fbb, &args);
    fbb.finish(root, Some(header::PTD.identifier));
    let body = fbb.finished_data();
    let start = out.len() as u64;
    let root = u32::from_le_bytes([body[0], body[1], body[2], body[3]]) + HEADER_LEN as u32;
    let flatbuffer_offset = HEADER_LEN + header::BEFORE as u64;
    let flatbuffer_end = HEADER_LEN + body.len() as u64;
    let base = flatbuffer_end.next_multiple_of(ALIGNMENT);
    out.extend_from_slice(&root.to_le_bytes());
    out.extend_from_slice(&body[4..header::BEFORE]);
    out.extend_from_slice(header::PTD.magic);
    out.extend_from_slice(&(HEADER_LEN as u32).to_le_bytes());
    for field in [flatbuffer_offset, flatbuffer_end - flatbuffer_offset, base, end] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&body[header::BEFORE..]);
    for ((.., data), (offset, _)) in entries.iter().zip(segments) {
        let at = usize::try_from(start + base + offset).unwrap_or(usize::MAX);
        out.resize(at, 0);
        out.extend_from_slice(data);
    }
    Ok(())
}
