//! `delegraph compile --quantize`: calibration files, progress, and the report.

use crate::args::CompileArgs;
use crate::output::{Output, bytes};
use delegraph::quantize::{Decibel, Progress, Report, Sample, Scheme, WhyFloat};
use delegraph_ir::{Constant, Module};
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_types::Dims;
use std::path::Path;

/// Quantizes a module if the command line asks for it; the report then.
///
/// # Errors
/// The scheme is none, a calibration file does not fit the model, or the float model cannot be run.
pub fn quantize(args: &CompileArgs, module: &mut Module, output: &Output) -> anyhow::Result<Option<Report>> {
    let Some(text) = &args.quantize else {
        return match args.calibrate.is_empty() {
            true => Ok(None),
            false => Err(crate::usage(
                "`--calibrate` is for `--quantize`\n  hint: `--quantize w8a8-static --calibrate FILE`",
            )),
        };
    };
    let scheme: Scheme = text
        .parse()
        .map_err(|error: delegraph::quantize::SchemeError| crate::usage(error.to_string()))?;
    let mut samples = Vec::new();
    for file in &args.calibrate {
        samples.extend(read(file, module)?);
    }
    let report = delegraph::quantize(module, &scheme, &samples, &mut |step| {
        let line = match step {
            Progress::Rounding { node } => format!("rounding the weight of {node}"),
            Progress::Observing { sample, number, count } => format!("observing {number} of {count}: {sample}"),
            Progress::Comparing { sample, number, count } => format!("comparing {number} of {count}: {sample}"),
        };
        output.progress(&line);
        output.detail(&line);
    })?;
    output.progress_done();
    say(&report, output);
    Ok(Some(report))
}

/// The samples of a calibration file.
fn read(file: &Path, module: &Module) -> anyhow::Result<Vec<Sample>> {
    let tensors = Tensors::read(file).map_err(|error| crate::bad_input(error.to_string()))?;
    let mut constants = Vec::new();
    for (name, leaf) in tensors.iter() {
        let Leaf::Tensor { dtype, shape, bytes } = leaf else {
            continue;
        };
        let sizes = Dims::new(shape).map_err(|_| {
            crate::bad_input(format!(
                "{}: tensor `{name}` has {} dimensions",
                file.display(),
                shape.len()
            ))
        })?;
        constants.push((
            name.to_string(),
            Constant::contiguous(name, *dtype, sizes, bytes.clone().into()),
        ));
    }
    Ok(delegraph::calibration_samples(
        module,
        &file.display().to_string(),
        constants,
    )?)
}

/// Nodes of the table.
const SHOWN: usize = 10;

/// Layers of a scheme that is not static, the worst first.
fn say_layers(report: &Report, output: &Output) {
    if report.layers.is_empty() {
        return;
    }
    output.talk("  weight     result     lost     bits group node");
    for layer in report.layers.iter().take(SHOWN) {
        let unknown = || "-".to_string();
        output.talk(format!(
            "  {:<10} {:<10} {:<8} {:<4} {:<5} {} ({}, {})",
            decibel(layer.weight_snr_db),
            layer.snr_db.map_or_else(unknown, decibel),
            layer.lost_db.map_or_else(unknown, |lost| format!("{lost:.1} dB")),
            layer.bits,
            layer.group,
            layer.node,
            layer.op,
            layer.weight,
        ));
    }
}

fn decibel(snr: Decibel) -> String {
    match snr.0.is_finite() {
        true => format!("{:.1} dB", snr.0),
        false => "exact".to_string(),
    }
}

/// The report as a table.
fn say(report: &Report, output: &Output) {
    output.talk(format!(
        "quantized as {}: {} nodes, {} stay float; weights {} -> {}; {} samples",
        report.scheme,
        report.quantized_nodes,
        report.float_nodes,
        bytes(report.float_bytes),
        bytes(report.quantized_bytes),
        report.samples,
    ));
    for quality in &report.outputs {
        output.talk(format!(
            "output {} `{}`: {} signal to noise, largest difference {:.3e}",
            quality.position,
            quality.name,
            decibel(quality.snr_db),
            quality.max_abs
        ));
    }
    if !report.nodes.is_empty() {
        output.talk("  result     rounding   lost     scale      zero  node");
    }
    for node in report.nodes.iter().take(SHOWN) {
        output.talk(format!(
            "  {:<10} {:<10} {:<8} {:<10.3e} {:<5} {} ({})",
            decibel(node.snr_db),
            decibel(node.own_snr_db),
            format!("{:.1} dB", node.lost_db),
            node.scale,
            node.zero_point,
            node.node,
            node.op
        ));
    }
    say_layers(report, output);
    for nodes in &report.float {
        let why = serde_json::to_value(nodes.why).ok();
        let why = why
            .as_ref()
            .and_then(|why| why.as_str())
            .unwrap_or_default()
            .to_string();
        let line = format!(
            "  float: {} of {} ({why}), as `{}`",
            nodes.count, nodes.op, nodes.example
        );
        // That a layer is as large as before is what nobody expects.
        match nodes.why {
            WhyFloat::Groups => output.talk(line),
            _ => output.detail(line),
        }
    }
    if let Some(hint) = &report.hint {
        output.talk(format!(
            "hint: `;keep={}` keeps a node in float: the worst output then has {}, from {} (on the first samples)",
            hint.keep,
            decibel(hint.to_db),
            decibel(hint.from_db)
        ));
    }
}
