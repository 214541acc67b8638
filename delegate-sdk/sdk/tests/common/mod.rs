//! A host in the small, as a host in C would be: a table of functions, objects behind pointers, and notes of what was said to it.
#![allow(dead_code)]

pub mod host;
pub mod probe;
pub mod run;

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType, StaticEntry, Status, c};
use host::host_table;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Which host it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Minor {
    /// Its table ends with the first minor. Behind the end lie the later functions all the same: who reads too far gets answers.
    Zero,
    /// Its table ends with the first minor of this major, 1.0, and so do its blobs.
    First,
    /// The table of this SDK.
    One,
    /// A larger table, with functions that nobody knows yet.
    Later,
}

/// What was said to the host in a call.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub error: Option<(Status, i64, u32, String, String)>,
    pub logs: Vec<String>,
    pub progress: Vec<(u64, u64, String)>,
    pub events: Vec<(String, u32, u32, u64, u64, u64, u64)>,
    pub verdicts: Vec<(u32, u32)>,
    pub drivers: Option<(String, String)>,
    pub requirements: Vec<(u32, u32, u32, u32)>,
    pub sections: Vec<(String, u32, Vec<u8>)>,
    pub verdict: Option<(c::BlobVerdict, String)>,
}

/// A call, and everything that takes answers in it: the sinks are this as well.
#[repr(C)]
pub struct Call {
    public: c::Call,
    pub heard: Mutex<Heard>,
    pub cancelled: AtomicBool,
    pub profiling: AtomicBool,
    pub time_left: u64,
}

// SAFETY: the pointer within is to a table that lives for ever and does not change.
unsafe impl Sync for Call {}

impl Call {
    pub fn new(minor: Minor) -> Call {
        Call {
            public: c::Call {
                host: host_table(minor),
                ..c::Call::new()
            },
            heard: Mutex::default(),
            cancelled: AtomicBool::new(false),
            profiling: AtomicBool::new(true),
            time_left: 1_500_000_000,
        }
    }

    pub fn as_ptr(&self) -> *const c::Call {
        std::ptr::from_ref(self).cast()
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    pub fn sink<T>(&self) -> *mut T {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Weights 0 and up.
pub struct Weights {
    pub bytes: Vec<Vec<u8>>,
    pub unmapped: Mutex<Vec<u32>>,
    pub retained: AtomicI64,
}

impl Weights {
    pub fn new(bytes: &[&[u8]]) -> Weights {
        Weights {
            bytes: bytes.iter().map(|b| b.to_vec()).collect(),
            unmapped: Mutex::default(),
            retained: AtomicI64::new(0),
        }
    }

    pub fn as_ptr(&self) -> *mut c::Weights {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// What holds a blob's bytes.
#[derive(Default)]
pub struct Owner {
    /// It cannot be kept.
    pub refuses: bool,
    /// Calls of `blob_retain`, and of those that succeeded less those of `blob_release`.
    pub asked: AtomicI64,
    pub retained: AtomicI64,
}

impl Owner {
    pub fn as_ptr(&self) -> *mut c::BlobOwner {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// The end of a run.
#[derive(Default)]
pub struct Fence {
    pub signals: Mutex<Vec<(Status, String)>>,
    pub bell: Condvar,
}

impl Fence {
    pub fn as_ptr(&self) -> *mut c::Fence {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// The one signal. It waits for it, and a while longer for one too many.
    #[track_caller]
    pub fn signal(&self) -> (Status, String) {
        let signals = self.signals.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (signals, _) = self
            .bell
            .wait_timeout_while(signals, patience, |s| s.is_empty())
            .unwrap();
        let (signals, _) = self
            .bell
            .wait_timeout_while(signals, Duration::from_millis(30), |s| s.len() < 2)
            .unwrap();
        assert_eq!(signals.len(), 1, "signals: {signals:?}");
        signals[0].clone()
    }
}

/// The delegate's table.
pub fn table(entry: StaticEntry, minor: Minor) -> &'static c::DelegateApi {
    let mut table = std::ptr::null();
    // SAFETY: the host's table lives for ever, and the entry keeps the contract.
    unsafe {
        assert_eq!(entry.entry()(host_table(minor), &mut table), Status::OK);
        &*table
    }
}

/// Starts a delegate with an option `mode`.
pub fn start(api: &c::DelegateApi, call: &Call, mode: &str) -> Result<*mut c::Delegate, Status> {
    let key = "mode";
    let option = c::Kv {
        key: key.as_ptr(),
        key_size: key.len() as u64,
        r#type: c::KvType::STR,
        str_value: mode.as_ptr(),
        str_value_size: mode.len() as u64,
        ..c::Kv::new()
    };
    let options = [&raw const option];
    let init = c::Init {
        options: options.as_ptr(),
        option_count: 1,
        ..c::Init::new()
    };
    let mut delegate = std::ptr::null_mut();
    // SAFETY: all of it outlives the call.
    match unsafe { api.initialize.unwrap()(call.as_ptr(), &init, &mut delegate) } {
        Status::OK => Ok(delegate),
        status => Err(status),
    }
}

/// The image of `relu(x)`, x of 2 f32.
pub fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let two = image.int(2);
    let ty = Type::tensor(DType::F32, &[two]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}
