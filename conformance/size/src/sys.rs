//! The C functions.

use crate::Model;
use delegraph_executor::Input;
use delegraph_types::{DType, Dims};
use std::ffi::{CStr, c_char};
use std::path::Path;

/// Loads a program over the delegate of a manifest; NULL: it cannot be had.
///
/// # Safety
/// `program` has `size` bytes; `manifest` is a text that ends with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_minimal_load(
    program: *const u8,
    size: usize,
    manifest: *const c_char,
) -> *mut Model {
    // SAFETY: as the caller says.
    let (program, manifest) = unsafe {
        (
            std::slice::from_raw_parts(program, size).to_vec(),
            CStr::from_ptr(manifest),
        )
    };
    let manifest = manifest.to_string_lossy();
    match Model::load(program, Path::new(manifest.as_ref())) {
        Ok(model) => Box::into_raw(Box::new(model)),
        Err(problem) => {
            eprintln!("{problem}");
            std::ptr::null_mut()
        }
    }
}

/// Runs a model of one `f32` input and copies its first output; gives the bytes of the output, or -1.
///
/// # Safety
/// `model` is of [`delegraph_minimal_load`]; `sizes` has `rank` numbers and `data` as many floats as they say; `out` has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn delegraph_minimal_run(
    model: *mut Model,
    sizes: *const i64,
    rank: usize,
    data: *const f32,
    out: *mut u8,
    room: usize,
) -> i64 {
    // SAFETY: as the caller says.
    let (model, sizes) = unsafe { (&mut *model, std::slice::from_raw_parts(sizes, rank)) };
    let Ok(dims) = Dims::new(sizes) else { return -1 };
    // SAFETY: as the caller says.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), 4 * dims.numel().unwrap_or(0)) };
    let input = Input::Bytes {
        dtype: DType::F32,
        sizes: &dims,
        data: bytes,
    };
    match model.run(&[input]) {
        Ok(output) if output.len() <= room => {
            // SAFETY: as the caller says.
            unsafe { std::slice::from_raw_parts_mut(out, output.len()) }.copy_from_slice(&output);
            output.len() as i64
        }
        Ok(_) => -1,
        Err(problem) => {
            eprintln!("{problem}");
            -1
        }
    }
}
