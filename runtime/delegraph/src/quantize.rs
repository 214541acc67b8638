//! Quantizes a model before it is compiled: [`quantize`] stands between [`crate::import`] and [`crate::compile`].

use crate::Error;
use delegraph_ir::{Constant, Module};

pub use delegraph_quant::{
    Decibel, FloatNodes, Form, Hint, Item, LayerQuality, NodeQuality, Observer, OutputQuality, Progress, QuantError,
    Report, Sample, Scheme, SchemeError, WhyFloat,
};

/// The samples in the tensors of a file, for the first method of a module. A tensor is named `INPUT`, `INPUT.N` for sample N, or
/// `CASE.STEP.inK`; an input goes by its name or position. `file` is for messages.
///
/// # Errors
/// A tensor that belongs to no input, or an input without a tensor.
pub fn calibration_samples(
    module: &Module,
    file: &str,
    tensors: Vec<(String, Constant)>,
) -> Result<Vec<Sample>, Error> {
    let graph = module.graphs.first();
    let graph = graph.ok_or_else(|| Error::Usage("the model has no method".to_string()))?;
    Ok(delegraph_quant::samples_of(graph, file, tensors)?)
}

/// Quantizes a module that [`crate::import`] made: by a static scheme its first method, by what its values are on samples; by any
/// other scheme every method, without samples or with some that only the report needs. What it says was measured on the first of
/// them.
///
/// # Errors
/// A static scheme has no samples; a sample does not fit, the float model cannot be run, or it computes what is not finite. The module is then as it was.
pub fn quantize(
    module: &mut Module,
    scheme: &Scheme,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, Error> {
    Ok(delegraph_quant::quantize(module, scheme, samples, progress)?)
}

/// Exit code of an error of quantization.
pub(crate) fn exit_code(error: &QuantError) -> u8 {
    match error {
        QuantError::Scheme(_) | QuantError::NoSamples(_) => 2,
        QuantError::Bug(_) => 70,
        _ => 3,
    }
}
