//! Load a PyTorch program and run it over delegates, with the CPU as the floor.
//!
//! An app depends on this crate alone. [`Session::load`] takes a `.pt2` archive or a `.pte` program and a configuration, binds
//! each region of the program to the first delegate that is present, allowed and fit, and runs everything else, and whatever
//! fails, on portable kernels with the same result. [`compile`] writes the `.pte` once, ahead of time.
//!
//! Reading order: [`Source`] (bytes of a model), [`import`] and [`compile`], [`Session`], [`RunReport`].
//!
//! ```no_run
//! use delegraph::{DType, Dims, Session, Value};
//!
//! # fn main() -> Result<(), delegraph::Error> {
//! let config = delegraph::config_from_file("backends.toml".as_ref())?;
//! let mut session = Session::load("model.pte", &config)?;
//! let pixels = vec![0u8; 4 * 3 * 224 * 224];
//! session.run(&[Value::tensor(DType::F32, Dims::new(&[1, 3, 224, 224]).unwrap(), &pixels)])?;
//! if let Value::Tensor(logits) = session.output(0)? {
//!     println!("{:?}, {}", logits.shape, session.report().ran());
//! }
//! # Ok(())
//! # }
//! ```

mod bind;
mod blob;
mod buckets;
mod cache;
mod chrome;
mod compile;
mod delegates;
mod device_rules;
mod dump;
mod error;
mod leave_weights;
mod memory;
mod profile;
pub mod quantize;
pub mod reduce;
mod region_call;
mod report;
mod self_check;
mod session;
mod shapes;
mod source;
mod sys;
mod tolerance;
mod trace;
mod value;

pub use blob::{blob_requirements, describe_blob};
pub use cache::CacheReport;
pub use compile::{Compiled, compile, import, partition, partition_by_claims};
pub use delegates::{PORTABLE, check_config, demand, discover, wanted};
pub use error::Error;
pub use memory::{MemoryReport, MemoryView};
pub use profile::{RunProfile, StepProfile};
pub use quantize::{calibration_samples, quantize};
pub use report::{BucketState, RegionState, RunReport};
pub use session::{InputInfo, InputKind, LoadOptions, Session, methods};
pub use shapes::input_sizes;
pub use source::{Format, Source};
pub use value::{TensorView, Value};

pub use delegraph_config::Config;
pub use delegraph_host::Memory;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use delegraph_host::{Handle, HandleType, Handles, Origin};
pub use delegraph_ir::Bytes;
pub use delegraph_passes::language_model;
pub use delegraph_types::{DType, Dims, MAX_RANK};

use delegraph_config::Layers;
use std::path::Path;

/// The configuration of one file, over the defaults.
///
/// # Errors
/// The file cannot be read, or is no configuration.
pub fn config_from_file(path: &Path) -> Result<Config, Error> {
    let mut layers = Layers::default();
    layers.add_file(delegraph_config::Origin::Project(path.to_path_buf()), path)?;
    Ok(layers.resolve(None)?)
}

/// The configuration of a text, for apps that ship it inside themselves.
///
/// # Errors
/// It is no configuration.
pub fn config_from_text(text: &str) -> Result<Config, Error> {
    let mut layers = Layers::default();
    layers.add_text(delegraph_config::Origin::Flag, text, None)?;
    Ok(layers.resolve(None)?)
}
