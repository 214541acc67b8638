//! Post-training quantization: for those who have a float model and no quantized export of it.
//!
//! [`quantize`] takes a module of f32 and writes the module that PyTorch's flows would have written: integers as constants, quantize
//! and dequantize operators between them. Nothing in it is ours: the portable kernels run it as it is, and passes and delegates
//! that know those operators know these.
//!
//! **Static schemes** run the module on samples with the portable kernels, and write as PT2E does. The pass that folds operators
//! into types makes integer operators of it; what that pass can fold is what is quantized here
//! ([`delegraph_passes::quantize::roles_of`]). Activations are asymmetric with one scale a tensor; weights are symmetric with one
//! scale a channel or a block; biases are `i32` in the product of both.
//!
//! **The other schemes** need no samples. They quantize the weights of linear layers and tables, and write as torchao does;
//! activations stay float, or are quantized a token at a time as they come.
//!
//! States, integers, booleans and subgraphs stay as they are, and so does every operator that is not known: it reads dequantized
//! numbers and is counted.
//!
//! Reading order: [`Scheme`] (what is asked for). Of static schemes: `prepare` (composites that are better quantized in parts),
//! `evaluate` (runs a graph node by node), `observe` (ranges of values), `annotate` (who is quantized, and by what), `weights`,
//! `write`. Of the others: `rows` (matrices as integers), `layers` (who is quantized, and what is written). [`Report`] says what
//! it costs, node by node.

mod annotate;
mod control;
mod error;
mod evaluate;
mod histogram;
mod layers;
mod observe;
mod prepare;
mod range;
mod report;
mod rows;
mod sample;
mod scheme;
mod weights;
mod write;

pub use error::QuantError;
pub use observe::Progress;
pub use report::{Decibel, FloatNodes, Hint, LayerQuality, NodeQuality, OutputQuality, Report, WhyFloat};
pub use sample::{Item, Sample, samples_of};
pub use scheme::{Form, Observer, Scheme, SchemeError, WeightBits};

use delegraph_ir::Module;
use report::Decided;

/// Quantizes a module in place: by a static scheme its first method, by what its values are on the samples; by any other scheme
/// all methods. Those need no samples; with some, both models run on them, and the report says what every layer costs.
///
/// `progress` is told about every layer and sample. The module is to be as import and clean-up leave it.
///
/// # Errors
/// A static scheme has no sample; a sample does not fit the method or holds numbers that are not finite, or the float model cannot
/// be run on the portable kernels. The module is then as it was.
pub fn quantize(
    module: &mut Module,
    scheme: &Scheme,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, QuantError> {
    if scheme.form != Form::Static {
        return layers::quantize(module, scheme, samples, progress);
    }
    let mut float = module.clone();
    prepare::prepare(&mut float, scheme)?;
    let observed = observe::observe(&float, scheme, samples, progress)?;
    let plan = annotate::annotate(&float, scheme, &observed);
    let quantized = written(&float, scheme, &plan)?;
    let decided = Decided {
        float: &float,
        scheme,
        plan: &plan,
    };
    let mut report = report::report(decided, &quantized, samples, progress)?;
    report.hint = hint(decided, &quantized, &observed, samples, report.suspects())?;
    *module = quantized;
    Ok(report)
}

/// The quantized module, verified.
fn written(float: &Module, scheme: &Scheme, plan: &annotate::Plan) -> Result<Module, QuantError> {
    let mut quantized = float.clone();
    write::write(&mut quantized, scheme, plan)?;
    delegraph_ir::verify(&quantized).map_err(|error| QuantError::Bug(format!("after quantizing: {error}")))?;
    Ok(quantized)
}

/// Samples that hints are tried on.
const TRIED_ON: usize = 2;

/// Which of a few nodes helps most in float.
fn hint(
    decided: Decided<'_>,
    quantized: &Module,
    observed: &observe::Observed,
    samples: &[Sample],
    suspects: Vec<String>,
) -> Result<Option<Hint>, QuantError> {
    if suspects.is_empty() {
        return Ok(None);
    }
    let some = &samples[..samples.len().min(TRIED_ON)];
    let from = report::worst_output(decided, quantized, some)?;
    let mut best: Option<Hint> = None;
    for keep in suspects {
        let mut scheme = decided.scheme.clone();
        scheme.keep.push(keep.clone());
        let plan = annotate::annotate(decided.float, &scheme, observed);
        let other = written(decided.float, &scheme, &plan)?;
        let with = Decided {
            scheme: &scheme,
            plan: &plan,
            ..decided
        };
        let to = report::worst_output(with, &other, some)?;
        if to > best.as_ref().map_or(from, |best| best.to_db.0) {
            best = Some(Hint {
                keep,
                from_db: Decibel(from),
                to_db: Decibel(to),
            });
        }
    }
    Ok(best)
}
