//! Write a delegate in safe Rust.

mod call;
mod delegate;
mod error;
mod tensor;

pub use call::{Blob, BlobMeta, Context, KeptWeights, LogLevel, OptionValue, Options, Weights};
pub use delegate::{BlobVerdict, Compiled, Delegate, Device, DeviceKind, Info, Partition, Section, Session, Verdict};
pub use delegraph_abi::image;
pub use delegraph_abi::{DType, MemoryFormat, Reason, Status};
pub use error::Error;
pub use tensor::{TensorOut, TensorView};
