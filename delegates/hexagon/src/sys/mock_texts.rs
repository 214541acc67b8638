//! What the mock was given, in words.

use super::layout as c;
use std::ffi::c_char;

/// The custom option of a configuration: its number and its value.
///
/// # Safety
/// It is null, or a list that ends in null, of options that point to a custom one.
pub unsafe fn custom(configs: *const *const c::Config) -> String {
    if configs.is_null() {
        return String::new();
    }
    // SAFETY: a list that ends in null, of options that point to a custom one.
    unsafe {
        let first = &**configs;
        let value = &*first.value.cast::<c::Custom>();
        let ends = (*configs.add(1)).is_null();
        format!(
            "{}:{}={}{}",
            first.option,
            value.option,
            value.value,
            if ends { "" } else { " WITHOUT END" }
        )
    }
}

pub fn said(text: *const c_char) -> String {
    // SAFETY: what the delegate gives ends in 0, or is null.
    unsafe { super::log::text(text) }
}

/// A tensor as it was understood: `id name kind type dims quantization bytes`.
pub fn described(tensor: &c::Tensor) -> String {
    let body = &tensor.body;
    // SAFETY: what the delegate gives points to as much as it says.
    let (dims, bytes) = unsafe {
        let dims = std::slice::from_raw_parts(body.dims, body.rank as usize);
        let bytes = match body.buffer.data.is_null() {
            true => Vec::new(),
            false => std::slice::from_raw_parts(body.buffer.data.cast::<u8>(), body.buffer.size as usize).to_vec(),
        };
        (dims, bytes)
    };
    let id = body.id;
    let quantization = match body.quantize.definition {
        c::UNDEFINED => "plain".to_string(),
        _ => format!("encoding {}", body.quantize.encoding),
    };
    format!(
        "{id} {} {} {:#06x} {dims:?} {quantization} {bytes:?}",
        said(body.name),
        body.kind,
        body.data_type
    )
}

/// A node as it was understood.
pub fn node_text(node: &c::OpConfig) -> String {
    // SAFETY: what the delegate gives points to as much as it says.
    let (params, inputs, outputs) = unsafe {
        (
            std::slice::from_raw_parts(node.params, node.param_count as usize),
            std::slice::from_raw_parts(node.inputs, node.input_count as usize),
            std::slice::from_raw_parts(node.outputs, node.output_count as usize),
        )
    };
    let param = |param: &c::Param| {
        // SAFETY: the kind says which member is there.
        let value = unsafe {
            match param.kind {
                c::PARAM_SCALAR => format!("{:#06x} {:#x}", param.value.scalar.data_type, param.value.scalar.value),
                _ => format!("tensor {}", described(&param.value.tensor)),
            }
        };
        format!("{}={value}", said(param.name))
    };
    let ids = |list: &[c::Tensor]| list.iter().map(|t| t.body.id.to_string()).collect::<Vec<_>>().join(" ");
    let params = params.iter().map(param).collect::<Vec<_>>().join("; ");
    let (package, op) = (said(node.package), said(node.kind));
    format!(
        "{} {package}:{op} ({params}) {} -> {}",
        said(node.name),
        ids(inputs),
        ids(outputs)
    )
}
