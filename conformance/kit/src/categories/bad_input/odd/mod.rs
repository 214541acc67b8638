//! Images that verify, and make no sense.

mod arguments;
mod attributes;
mod types;
mod whole;

pub use arguments::arguments;
pub use attributes::attributes;
pub use types::{dtypes, results, sizes};
pub use whole::whole;

use crate::case::{Outcome, Trial};
use crate::categories::basis::{compiler, warn};
use crate::categories::endure::Endured;
use crate::categories::small::{A, Small};
use crate::driver::Instance;
use crate::workload::normal_form;
use delegraph_abi::DType;
use delegraph_abi::image::Arg;

use A::C;

const F: DType = DType::F32;
const I: DType = DType::I64;

/// Hands over every graph.
fn endure(trial: &mut Trial<'_>, graphs: impl FnOnce(u32) -> Vec<Small>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let all = graphs(normal_form(trial));
    let all: Vec<_> = all.into_iter().map(|small| (small.name, small.image)).collect();
    endure_images(trial, &instance, all)
}

fn endure_images(trial: &mut Trial<'_>, instance: &Instance, all: Vec<(String, Vec<u8>)>) -> Outcome {
    let mut endured = Endured::default();
    for (name, image) in all {
        endured.follow(trial, instance, &format!("a graph of {name}"), &image)?;
    }
    endured.measure(trial);
    warn(&endured.warnings)
}

fn int(value: i64) -> A {
    C(Arg::Int(value))
}

fn none() -> A {
    C(Arg::None)
}

fn boolean(value: bool) -> A {
    C(Arg::Bool(value))
}

fn float(value: f64) -> A {
    C(Arg::Float(value))
}
