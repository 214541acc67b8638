//! Tensors and nodes in the library's structs, with everything that these point to.
//!
//! A C struct here never outlives its owner: [`OwnedTensor`] and [`OwnedNode`] keep the texts, sizes and scales that their structs point to on the heap,
//! where they stay when the owner moves; constants are borrowed from the graph, which the lifetime says.

use super::info::TensorInfo;
use super::layout::{self as c, Encoding, QuantizeParams};
use crate::graph::{DataType, Graph, Node, Param, Quantization, ScaleOffset, Tensor, TensorKind};
use delegraph_sdk::Error;
use std::ffi::{CString, c_void};
use std::marker::PhantomData;

/// The package of the library's own operators.
pub const PACKAGE: &std::ffi::CStr = c"qti.aisw";

/// What a C tensor points to. It is never read by us again, only kept.
#[derive(Default)]
struct Backing {
    name: CString,
    dims: Vec<u32>,
    pairs: Vec<c::ScaleOffset>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    block_scales: Vec<u8>,
    /// One at most.
    blockwise: Vec<c::BlockwiseExpansion>,
}

/// A C tensor with what it points to, except a constant's elements, which are borrowed for `'a`.
pub struct OwnedTensor<'a> {
    /// Valid as long as this is.
    pub raw: c::Tensor,
    _backing: Backing,
    _elements: PhantomData<&'a [u8]>,
}

// SAFETY: the pointers of `raw` are to what `_backing` owns and to elements that are borrowed, which nobody writes.
unsafe impl Send for OwnedTensor<'_> {}

/// A text for the library.
///
/// # Errors
/// It has a 0 within.
pub fn c_text(what: &str, name: &str) -> Result<CString, Error> {
    CString::new(name).map_err(|_| Error::invalid(format!("the name of {what} has a zero byte in it: {name:?}")))
}

impl<'a> OwnedTensor<'a> {
    fn new(
        name: &str,
        kind: u32,
        data_type: DataType,
        dims: &[u32],
        quantization: &Quantization,
        elements: &'a [u8],
    ) -> Result<OwnedTensor<'a>, Error> {
        let mut backing = Backing {
            name: c_text("a tensor", name)?,
            dims: dims.to_vec(),
            ..Backing::default()
        };
        let size = u32::try_from(elements.len())
            .map_err(|_| Error::unsupported(format!("the constant `{name}` has 4 GiB or more")))?;
        let quantize = backing.quantize(quantization);
        let body = c::TensorBody {
            id: 0,
            name: backing.name.as_ptr(),
            kind,
            format: 0,
            data_type: data_type as u32,
            quantize,
            rank: backing.dims.len() as u32,
            dims: backing.dims.as_ptr(),
            memory: 0,
            buffer: c::ClientBuffer {
                data: match elements.is_empty() {
                    true => std::ptr::null_mut(),
                    // The library reads a constant's elements and writes none.
                    false => elements.as_ptr().cast_mut().cast(),
                },
                size,
            },
            dynamic: std::ptr::null(),
            sparse: [c::UNDEFINED, 0, 0],
            produced: 0,
        };
        Ok(OwnedTensor {
            raw: c::Tensor { version: 1, body },
            _backing: backing,
            _elements: PhantomData,
        })
    }

    /// A tensor of a graph.
    ///
    /// # Errors
    /// Its name has a zero byte, or its bytes are not as many as its sizes say.
    pub fn of(tensor: &'a Tensor) -> Result<OwnedTensor<'a>, Error> {
        let (kind, elements): (u32, &[u8]) = match &tensor.kind {
            TensorKind::Input => (c::APP_WRITE, &[]),
            TensorKind::Output => (c::APP_READ, &[]),
            TensorKind::Native => (c::NATIVE, &[]),
            TensorKind::Static(bytes) => (c::STATIC, bytes),
        };
        if kind == c::STATIC && elements.len() != tensor.bytes() {
            let (has, wants) = (elements.len(), tensor.bytes());
            return Err(Error::internal(format!(
                "the constant `{}` has {has} bytes, not {wants}",
                tensor.name
            )));
        }
        OwnedTensor::new(
            &tensor.name,
            kind,
            tensor.data_type,
            &tensor.dims,
            &tensor.quantization,
            elements,
        )
    }

    /// A tensor at the border of a graph that was loaded.
    ///
    /// # Errors
    /// As [`OwnedTensor::of`].
    pub fn at_border(info: &TensorInfo, kind: u32) -> Result<OwnedTensor<'static>, Error> {
        let mut owned = OwnedTensor::new(&info.name, kind, info.data_type, &info.dims, &info.quantization, &[])?;
        owned.raw.body.id = info.id;
        Ok(owned)
    }
}

impl Backing {
    /// The C form of a quantization; what it points to is kept here.
    fn quantize(&mut self, quantization: &Quantization) -> QuantizeParams {
        let raw = |pair: &ScaleOffset| c::ScaleOffset {
            scale: pair.scale,
            offset: pair.offset,
        };
        let mut value = Encoding { words: [0; 4] };
        let encoding = match quantization {
            Quantization::None => {
                return QuantizeParams {
                    definition: c::UNDEFINED,
                    encoding: c::UNDEFINED,
                    value,
                };
            }
            Quantization::PerTensor(pair) => {
                value.scale_offset = raw(pair);
                c::ENCODING_SCALE_OFFSET
            }
            Quantization::PerAxis { axis, pairs } => {
                self.pairs = pairs.iter().map(raw).collect();
                value.axis = c::AxisScaleOffset {
                    axis: *axis as i32,
                    count: pairs.len() as u32,
                    pairs: self.pairs.as_ptr(),
                };
                c::ENCODING_AXIS
            }
            Quantization::Narrow { bits, pair } => {
                value.bw = c::BwScaleOffset {
                    bits: *bits,
                    scale: pair.scale,
                    offset: pair.offset,
                };
                c::ENCODING_BW
            }
            Quantization::NarrowPerAxis { bits, axis, pairs } => {
                self.scales = pairs.iter().map(|pair| pair.scale).collect();
                self.offsets = pairs.iter().map(|pair| pair.offset).collect();
                value.bw_axis = c::BwAxisScaleOffset {
                    bits: *bits,
                    axis: *axis as i32,
                    count: pairs.len() as u32,
                    scales: self.scales.as_ptr(),
                    offsets: self.offsets.as_ptr(),
                };
                c::ENCODING_BW_AXIS
            }
            Quantization::Blocks {
                axis,
                channels,
                blocks,
                scale_bits,
                block_scales,
            } => {
                self.pairs = channels.iter().map(raw).collect();
                self.block_scales = block_scales.clone();
                self.blockwise = vec![c::BlockwiseExpansion {
                    axis: *axis as i32,
                    channels: self.pairs.as_ptr(),
                    blocks: *blocks,
                    scale_bits: *scale_bits,
                    storage: 0,
                    block_scales: self.block_scales.as_ptr().cast(),
                }];
                value.blockwise = self.blockwise.as_ptr();
                c::ENCODING_BLOCKWISE_EXPANSION
            }
        };
        QuantizeParams {
            definition: c::DEFINED,
            encoding,
            value,
        }
    }
}

/// A parameter of a node: a number in place, or a constant tensor.
enum OwnedParam {
    Scalar(c::Scalar),
    /// With the bytes that it points to.
    Tensor {
        tensor: OwnedTensor<'static>,
        _bytes: Vec<u8>,
    },
}

/// A node's C struct with what it points to, except the tensors of its graph, whose structs are copied.
pub struct OwnedNode {
    name: CString,
    op: CString,
    params: Vec<(CString, OwnedParam)>,
    inputs: Vec<c::Tensor>,
    outputs: Vec<c::Tensor>,
    raw_params: Vec<c::Param>,
}

impl OwnedNode {
    /// A node whose inputs and outputs are copies of these. What `inputs` and `outputs` point to has to outlive this.
    ///
    /// # Errors
    /// A name has a zero byte, or a list of numbers is not as long as its sizes say.
    pub fn new(node: &Node, inputs: Vec<c::Tensor>, outputs: Vec<c::Tensor>) -> Result<OwnedNode, Error> {
        let mut params = Vec::with_capacity(node.params.len());
        for (name, param) in &node.params {
            let scalar = |data_type: DataType, value: u64| {
                Ok(OwnedParam::Scalar(c::Scalar {
                    data_type: data_type as u32,
                    value,
                }))
            };
            let owned: Result<OwnedParam, Error> = match param {
                Param::U32(number) => scalar(DataType::Uint32, u64::from(*number)),
                Param::I32(number) => scalar(DataType::Int32, u64::from(*number as u32)),
                Param::F32(number) => scalar(DataType::Float32, u64::from(number.to_bits())),
                Param::Bool(flag) => scalar(DataType::Bool, u64::from(*flag)),
                Param::U32s(dims, numbers) => {
                    let bytes = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
                    constant(node, name, DataType::Uint32, dims, bytes)
                }
                Param::I32s(dims, numbers) => {
                    let bytes = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
                    constant(node, name, DataType::Int32, dims, bytes)
                }
            };
            params.push((c_text("a parameter", name)?, owned?));
        }
        Ok(OwnedNode {
            name: c_text("a node", &node.name)?,
            op: c_text("an operator", node.op)?,
            params,
            inputs,
            outputs,
            raw_params: Vec::new(),
        })
    }

    /// The parameters that are tensors: they are made known to a graph before the node is.
    pub fn tensors(&mut self) -> impl Iterator<Item = &mut c::Tensor> {
        self.params.iter_mut().filter_map(|(_, param)| match param {
            OwnedParam::Tensor { tensor, .. } => Some(&mut tensor.raw),
            OwnedParam::Scalar(_) => None,
        })
    }

    /// The C struct, valid as long as nothing else is done with this.
    pub fn config(&mut self) -> c::OpConfig {
        let raw = |(name, param): &(CString, OwnedParam)| {
            let (kind, value) = match param {
                OwnedParam::Scalar(scalar) => {
                    // The rest of the union's bytes are zeros, for whoever copies the whole of it.
                    let mut value = c::ParamValue { words: [0; 18] };
                    value.scalar = *scalar;
                    (c::PARAM_SCALAR, value)
                }
                OwnedParam::Tensor { tensor, .. } => (c::PARAM_TENSOR, c::ParamValue { tensor: tensor.raw }),
            };
            c::Param {
                kind,
                name: name.as_ptr(),
                value,
            }
        };
        self.raw_params = self.params.iter().map(raw).collect();
        c::OpConfig {
            version: 1,
            name: self.name.as_ptr(),
            package: PACKAGE.as_ptr(),
            kind: self.op.as_ptr(),
            param_count: self.raw_params.len() as u32,
            params: self.raw_params.as_ptr(),
            input_count: self.inputs.len() as u32,
            inputs: self.inputs.as_ptr(),
            output_count: self.outputs.len() as u32,
            outputs: self.outputs.as_ptr(),
        }
    }
}

/// A parameter that is a list of numbers. Its bytes are kept beside the tensor that points to them.
fn constant(node: &Node, name: &str, data_type: DataType, dims: &[u32], bytes: Vec<u8>) -> Result<OwnedParam, Error> {
    let wants: usize = dims.iter().map(|d| *d as usize).product::<usize>() * 4;
    if bytes.len() != wants {
        return Err(Error::internal(format!(
            "the parameter `{name}` of `{}` has {} numbers for the sizes {dims:?}",
            node.name,
            bytes.len() / 4
        )));
    }
    let full = format!("{}.{name}", node.name);
    let mut tensor = OwnedTensor::new(&full, c::STATIC, data_type, dims, &Quantization::None, &[])?;
    tensor.raw.body.buffer = c::ClientBuffer {
        data: bytes.as_ptr().cast_mut().cast::<c_void>(),
        size: bytes.len() as u32,
    };
    Ok(OwnedParam::Tensor { tensor, _bytes: bytes })
}

/// The C tensors of a graph, in its order.
///
/// # Errors
/// As [`OwnedTensor::of`].
pub fn tensors(graph: &Graph) -> Result<Vec<OwnedTensor<'_>>, Error> {
    graph.tensors.iter().map(OwnedTensor::of).collect()
}
