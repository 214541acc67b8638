//! Numbers by which kernels know element types: `include/numbers.wgsl`.

use delegraph_sdk::DType;

/// The code of an element type; `None`: no kernel reads it.
pub fn code(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::I32 => 3,
        DType::I16 => 4,
        DType::I8 => 5,
        DType::U8 => 6,
        DType::BOOL => 7,
        DType::I64 => 8,
        _ => return None,
    })
}
