//! Inputs and outputs in a memory file, by the functions of the header.
#![cfg(target_os = "linux")]

mod common;

use common::fixture;
use delegraph_capi::generated::{ErrorInfo, MemoryDesc, Value, handletype as handle_type, kind, status};
use delegraph_capi::sys::*;
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use delegraph_runner::fixture::Fixture;
use std::ffi::{CStr, CString};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{null, null_mut};

/// A struct of the header, zero but for its size.
fn blank<T: Copy>() -> T {
    let mut blank = MaybeUninit::<T>::zeroed();
    // SAFETY: every struct of the header begins with `struct_size`, and all zeros is a value of it.
    unsafe {
        blank.as_mut_ptr().cast::<u32>().write(size_of::<T>() as u32);
        blank.assume_init()
    }
}

fn words() -> String {
    let mut error: ErrorInfo = blank();
    // SAFETY: `error` is a whole struct; its texts live until the next failure of this thread.
    unsafe {
        delegraph_last_error(&mut error);
        format!("{:?} {:?}", CStr::from_ptr(error.message), CStr::from_ptr(error.hint))
    }
}

fn memfd(size: u64, sealed: bool) -> OwnedFd {
    use rustix::fs::{MemfdFlags, SealFlags};
    let fd = rustix::fs::memfd_create("capi", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    if sealed {
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    }
    fd
}

#[test]
fn tensors_lie_where_the_app_says() {
    let name = "arch-mlp-dynamic-batch";
    let recorded = Fixture::read(&fixture(name)).unwrap();
    let step = &recorded.cases[0].steps[0];
    let Leaf::Tensor { dtype, shape, bytes } = &step.inputs[0] else {
        panic!("the input is a tensor")
    };
    let path = CString::new(fixture(name).join("model.pt2").to_str().unwrap()).unwrap();
    let (mut model, mut session, mut memory) = (null_mut(), null_mut(), null_mut());
    let fd = memfd(1 << 18, true);
    let mut desc: MemoryDesc = blank();
    (desc.handle_type, desc.fd) = (handle_type::MEMFD, fd.as_raw_fd());
    let sizes: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
    // SAFETY: whole structs, handles of this library, and bytes that are there.
    unsafe {
        assert_eq!(
            delegraph_model_from_path(path.as_ptr(), null(), &mut model),
            status::OK,
            "{}",
            words()
        );
        assert_eq!(
            delegraph_session_open(model, null(), &mut session),
            status::OK,
            "{}",
            words()
        );
        assert_eq!(
            delegraph_memory_import(null_mut(), &desc, &mut memory),
            status::OK,
            "{}",
            words()
        );
        // The descriptor is the app's.
        drop(fd);
        let size = bytes.len() as u64;
        assert_eq!(
            delegraph_memory_write(memory, 4096, bytes.as_ptr().cast(), size),
            status::OK
        );
        assert_eq!(
            delegraph_session_bind_output(session, 0, memory, 1 << 17, 0),
            status::OK,
            "{}",
            words()
        );
        let mut value: Value = blank();
        value.kind = kind::TENSOR;
        value.dtype = dtype.pte_code() as u32;
        (value.rank, value.sizes) = (sizes.len() as u32, sizes.as_ptr());
        (value.memory, value.memory_offset) = (memory, 4096);
        assert_eq!(delegraph_session_run(session, &value, 1), status::OK, "{}", words());
        let Leaf::Tensor { dtype, shape, bytes } = &step.outputs[0] else {
            panic!("the output is a tensor")
        };
        let mut got = vec![0; bytes.len()];
        let read = delegraph_memory_read(memory, 1 << 17, got.as_mut_ptr().cast(), got.len() as u64);
        assert_eq!(read, status::OK, "{}", words());
        let got = Leaf::Tensor {
            dtype: *dtype,
            shape: shape.clone(),
            bytes: got,
        };
        compare(&got, &step.outputs[0], recorded.tolerance).unwrap();
        let mut json = null();
        assert_eq!(delegraph_session_report(session, &mut json), status::OK);
        let report = CStr::from_ptr(json).to_string_lossy();
        assert!(
            report.contains("\"inputs_in_place\":1") && report.contains("\"outputs_in_place\":1"),
            "{report}"
        );
        let mut told: MemoryDesc = blank();
        assert_eq!(delegraph_memory_describe(memory, &mut told), status::OK, "{}", words());
        assert_eq!((told.handle_type, told.size), (handle_type::MEMFD, 1 << 18));

        // What is wrong is said.
        value.data = bytes.as_ptr().cast();
        assert_eq!(delegraph_session_run(session, &value, 1), status::USAGE);
        assert!(words().contains("`data` and `memory` are both given"), "{}", words());
        value.data = null();
        value.memory_offset = (1 << 18) - 4;
        assert_eq!(delegraph_session_run(session, &value, 1), status::USAGE);
        assert!(words().contains("is not within it"), "{}", words());
        assert_eq!(delegraph_memory_read(memory, 1 << 18, null_mut(), 4), status::USAGE);
        assert_eq!(delegraph_session_bind_output(session, 9, memory, 0, 0), status::USAGE);
        let unsealed = memfd(4096, false);
        desc.fd = unsealed.as_raw_fd();
        let mut other = null_mut();
        assert_eq!(delegraph_memory_import(null_mut(), &desc, &mut other), status::USAGE);
        assert!(words().contains("F_SEAL_SHRINK"), "{}", words());
        desc.handle_type = handle_type::OPAQUE_FD;
        desc.size = 4096;
        assert_eq!(delegraph_memory_import(null_mut(), &desc, &mut other), status::USAGE);
        assert_eq!(delegraph_memory_import(session, &desc, &mut other), status::USAGE);
        desc.handle_type = 77;
        assert_eq!(delegraph_memory_import(null_mut(), &desc, &mut other), status::USAGE);
        assert!(
            words().contains("there is no handle type 77") && other.is_null(),
            "{}",
            words()
        );
        assert_eq!(
            delegraph_session_bind_output(session, 0, null(), 0, 0),
            status::OK,
            "{}",
            words()
        );
        assert_eq!(
            delegraph_session_forget_memory(session, memory),
            status::OK,
            "{}",
            words()
        );
        delegraph_memory_free(memory);
        delegraph_session_free(session);
        delegraph_model_free(model);
    }
}
