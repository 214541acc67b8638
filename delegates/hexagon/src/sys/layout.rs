//! The structs that go between us and the library, field by field as its public bindings have them (64-bit targets, natural alignment), and the
//! numbers that stand in them. Every size and offset is asserted when the crate is compiled; the Saver test asks the library what it reads in them.

use std::ffi::{c_char, c_void};

/// A handle of the library's: log, backend, device, context, graph, profile. Nobody but the library looks behind it.
pub type Handle = *mut c_void;

/// No handle, or nothing given.
pub const NONE: Handle = std::ptr::null_mut();

/// "Not defined", for definitions, encodings and sparse layouts.
pub const UNDEFINED: u32 = 0x7FFF_FFFF;
/// The quantization of a tensor is in its encoding.
pub const DEFINED: u32 = 1;

/// Given for each run.
pub const APP_WRITE: u32 = 0;
/// Read after each run.
pub const APP_READ: u32 = 1;
/// Between nodes.
pub const NATIVE: u32 = 3;
/// A constant.
pub const STATIC: u32 = 4;

/// One scale and offset.
pub const ENCODING_SCALE_OFFSET: u32 = 0;
/// One pair a slice.
pub const ENCODING_AXIS: u32 = 1;
/// As `ENCODING_SCALE_OFFSET`, of fewer bits than the container.
pub const ENCODING_BW: u32 = 2;
/// As `ENCODING_AXIS`, of fewer bits than the container.
pub const ENCODING_BW_AXIS: u32 = 3;
/// Blocks whose scale is their channel's, times an integer.
pub const ENCODING_BLOCKWISE_EXPANSION: u32 = 5;

/// A parameter that is one number.
pub const PARAM_SCALAR: u32 = 0;
/// A parameter that is a tensor.
pub const PARAM_TENSOR: u32 = 1;

/// Three numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// What the library's entry gives a list of. The table follows it in place.
#[repr(C)]
pub struct Provider {
    pub backend: u32,
    pub name: *const c_char,
    pub core: Version,
    pub backend_version: Version,
    pub table: [*const c_void; 0],
}

/// What the system library's entry gives a list of. The table follows it in place.
#[repr(C)]
pub struct SystemProvider {
    pub id: u32,
    pub name: *const c_char,
    pub version: Version,
    pub table: [*const c_void; 0],
}

/// An option of a context, graph or device: 0 is "of the backend's own", `value` then points to [`Custom`].
#[repr(C)]
pub struct Config {
    pub option: u32,
    pub value: *const c_void,
}

/// An option of HTP's own.
#[repr(C)]
pub struct Custom {
    pub option: u32,
    /// Nothing: the value may be a pointer, so that it begins at 8.
    pub gap: u32,
    pub value: u32,
    /// Zero; some options have two numbers.
    pub second: u32,
}

/// Device: the chip, by Qualcomm's number.
pub const CUSTOM_DEVICE_SOC: u32 = 0;
/// Graph: MiB of tightly coupled memory that it may take.
pub const CUSTOM_GRAPH_VTCM: u32 = 3;

/// Names of an operator that the library has.
#[repr(C)]
pub struct OperationName {
    pub package: *const c_char,
    pub name: *const c_char,
    pub target: *const c_char,
}

/// `real = (q + offset) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct ScaleOffset {
    pub scale: f32,
    pub offset: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AxisScaleOffset {
    pub axis: i32,
    pub count: u32,
    pub pairs: *const ScaleOffset,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BwScaleOffset {
    pub bits: u32,
    pub scale: f32,
    pub offset: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BwAxisScaleOffset {
    pub bits: u32,
    pub axis: i32,
    pub count: u32,
    pub scales: *const f32,
    /// Never null: two of the library's backends read it without looking.
    pub offsets: *const i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BlockwiseExpansion {
    pub axis: i32,
    pub channels: *const ScaleOffset,
    pub blocks: u32,
    pub scale_bits: u32,
    /// 0: bytes; 1: 16 bits.
    pub storage: u32,
    pub block_scales: *const c_void,
}

/// Which one it is says [`QuantizeParams::encoding`].
#[derive(Clone, Copy)]
#[repr(C)]
pub union Encoding {
    pub scale_offset: ScaleOffset,
    pub axis: AxisScaleOffset,
    pub bw: BwScaleOffset,
    pub bw_axis: BwAxisScaleOffset,
    pub blockwise: *const BlockwiseExpansion,
    pub words: [u64; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct QuantizeParams {
    pub definition: u32,
    pub encoding: u32,
    pub value: Encoding,
}

/// Memory of ours that the library reads or writes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ClientBuffer {
    pub data: *mut c_void,
    pub size: u32,
}

/// A tensor, with room for the larger of its versions.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tensor {
    /// 1 or 2.
    pub version: u32,
    pub body: TensorBody,
}

/// Version 2 of a tensor. Version 1 ends before `dynamic`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TensorBody {
    pub id: u32,
    pub name: *const c_char,
    pub kind: u32,
    pub format: u32,
    pub data_type: u32,
    pub quantize: QuantizeParams,
    pub rank: u32,
    pub dims: *const u32,
    pub memory: u32,
    pub buffer: ClientBuffer,
    pub dynamic: *const u8,
    pub sparse: [u32; 3],
    pub produced: u8,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Scalar {
    pub data_type: u32,
    /// In its lowest bytes.
    pub value: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub union ParamValue {
    pub scalar: Scalar,
    pub tensor: Tensor,
    pub words: [u64; 18],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Param {
    pub kind: u32,
    pub name: *const c_char,
    pub value: ParamValue,
}

/// A node. It goes by value: on x86-64 its 80 bytes lie on the stack.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct OpConfig {
    pub version: u32,
    pub name: *const c_char,
    pub package: *const c_char,
    pub kind: *const c_char,
    pub param_count: u32,
    pub params: *const Param,
    pub input_count: u32,
    pub inputs: *const Tensor,
    pub output_count: u32,
    pub outputs: *const Tensor,
}

/// What was measured.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EventData {
    pub kind: u32,
    /// 1: microseconds; 3: cycles; 4: a count.
    pub unit: u32,
    pub value: u64,
    pub identifier: *const c_char,
}

/// What a context binary says of a graph; versions 1 to 3 begin alike, and all have room for the largest.
#[repr(C)]
pub struct GraphInfo {
    pub version: u32,
    pub name: *const c_char,
    pub input_count: u32,
    pub inputs: *const Tensor,
    pub output_count: u32,
    pub outputs: *const Tensor,
    pub updateable_count: u32,
    pub updateables: *const Tensor,
    pub blob_size: u32,
    pub blob: *const c_void,
    pub start_op: u32,
    pub end_op: u32,
}

/// What a context binary says of itself: the number of the version, 8 bytes before one of the structs below.
#[repr(C)]
pub struct BinaryInfo {
    pub version: u32,
    pub body: [u64; 0],
}

/// Version 1; version 2 has a pointer more at its end.
#[repr(C)]
pub struct BinaryInfoV1 {
    pub backend: u32,
    pub build: *const c_char,
    pub core: Version,
    pub backend_version: Version,
    pub soc_version: *const c_char,
    pub hardware_version: Version,
    pub blob_version: Version,
    pub hardware_size: u32,
    pub hardware: *const c_void,
    pub blob_size: u64,
    pub tensor_count: u32,
    pub tensors: *const Tensor,
    pub graph_count: u32,
    pub graphs: *const GraphInfo,
}

/// Version 3.
#[repr(C)]
pub struct BinaryInfoV3 {
    pub backend: u32,
    pub build: *const c_char,
    pub core: Version,
    pub backend_version: Version,
    pub soc_version: *const c_char,
    pub blob_version: Version,
    pub blob_size: u64,
    pub tensor_count: u32,
    pub tensors: *const Tensor,
    pub graph_count: u32,
    pub graphs: *const GraphInfo,
    pub platform: *const c_void,
    pub metadata_size: u32,
    pub metadata: *const c_void,
    pub soc: u32,
}

/// A struct's size and the offsets of its fields.
macro_rules! laid_out {
    ($name:ident: $size:literal $(, $field:ident @ $offset:literal)*) => {
        const _: () = {
            assert!(size_of::<$name>() == $size, stringify!($name));
            $(assert!(std::mem::offset_of!($name, $field) == $offset, concat!(stringify!($name), ".", stringify!($field)));)*
        };
    };
}

#[cfg(target_pointer_width = "64")]
mod asserts {
    use super::*;

    laid_out!(Version: 12, major @ 0, minor @ 4, patch @ 8);
    laid_out!(Provider: 40, backend @ 0, name @ 8, core @ 16, backend_version @ 28, table @ 40);
    laid_out!(SystemProvider: 32, id @ 0, name @ 8, version @ 16, table @ 32);
    laid_out!(Custom: 16, option @ 0, value @ 8, second @ 12);
    laid_out!(Config: 16, option @ 0, value @ 8);
    laid_out!(OperationName: 24, package @ 0, name @ 8, target @ 16);
    laid_out!(ScaleOffset: 8, scale @ 0, offset @ 4);
    laid_out!(AxisScaleOffset: 16, axis @ 0, count @ 4, pairs @ 8);
    laid_out!(BwScaleOffset: 12, bits @ 0, scale @ 4, offset @ 8);
    laid_out!(BwAxisScaleOffset: 32, bits @ 0, axis @ 4, count @ 8, scales @ 16, offsets @ 24);
    laid_out!(BlockwiseExpansion: 40, axis @ 0, channels @ 8, blocks @ 16, scale_bits @ 20, storage @ 24, block_scales @ 32);
    laid_out!(QuantizeParams: 40, definition @ 0, encoding @ 4, value @ 8);
    laid_out!(ClientBuffer: 16, data @ 0, size @ 8);
    laid_out!(TensorBody: 136, id @ 0, name @ 8, kind @ 16, format @ 20, data_type @ 24, quantize @ 32, rank @ 72, dims @ 80,
        memory @ 88, buffer @ 96, dynamic @ 112, sparse @ 120, produced @ 132);
    laid_out!(Tensor: 144, version @ 0, body @ 8);
    laid_out!(Scalar: 16, data_type @ 0, value @ 8);
    laid_out!(Param: 160, kind @ 0, name @ 8, value @ 16);
    laid_out!(OpConfig: 80, version @ 0, name @ 8, package @ 16, kind @ 24, param_count @ 32, params @ 40, input_count @ 48,
        inputs @ 56, output_count @ 64, outputs @ 72);
    laid_out!(EventData: 24, kind @ 0, unit @ 4, value @ 8, identifier @ 16);
    laid_out!(GraphInfo: 88, version @ 0, name @ 8, input_count @ 16, inputs @ 24, output_count @ 32, outputs @ 40,
        updateable_count @ 48, updateables @ 56, blob_size @ 64, blob @ 72, start_op @ 80, end_op @ 84);
    laid_out!(BinaryInfo: 8, version @ 0, body @ 8);
    laid_out!(BinaryInfoV1: 128, backend @ 0, build @ 8, core @ 16, backend_version @ 28, soc_version @ 40, hardware_version @ 48,
        blob_version @ 60, hardware_size @ 72, hardware @ 80, blob_size @ 88, tensor_count @ 96, tensors @ 104, graph_count @ 112, graphs @ 120);
    laid_out!(BinaryInfoV3: 136, backend @ 0, build @ 8, core @ 16, backend_version @ 28, soc_version @ 40, blob_version @ 48,
        blob_size @ 64, tensor_count @ 72, tensors @ 80, graph_count @ 88, graphs @ 96, platform @ 104, metadata_size @ 112,
        metadata @ 120, soc @ 128);
}
