//! Floats that are made bytes by scales that are chosen of them, and floats again, as graphs say it: for each row or for the whole tensor.
//!
//! | chosen by | rounded by |
//! | --- | --- |
//! | `torchao::choose_qparams_affine` of rows | `torchao::quantize_affine` |
//! | `quantized_decomposed::choose_qparams`, `choose_qparams_symmetric` | `quantized_decomposed::quantize_per_tensor` |
//! | `quantized_decomposed::choose_qparams_per_token`, `choose_qparams_per_token_asymmetric` | `quantized_decomposed::quantize_per_token` |

use super::matrix::AFFINE as DEQUANTIZE;
use crate::graph::{Graph, Node, ValueId, float};
use delegraph_cpu_kernels::quant::dynamic::{Formula, Scheme};
use delegraph_sdk::DType;
use delegraph_sdk::image::Arg;

const QUANTIZE: &str = "torchao::quantize_affine";
const CHOOSE: &str = "torchao::choose_qparams_affine";

/// Floats, and how they are made bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dynamic {
    /// The floats.
    pub x: ValueId,
    /// The way.
    pub scheme: Scheme,
}

/// What a value was before it was made bytes and floats again.
pub fn of(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<Dynamic> {
    let made = |value: ValueId| makers[value].map(|at| &graph.nodes[at]);
    let back = made(value)?;
    let there = made(back.value(0)?)?;
    let x = there.value(0)?;
    if graph.values[x].dtype != DType::F32 || graph.values[value].dtype != DType::F32 {
        return None;
    }
    let scheme = match (there.op.as_str(), back.op.as_str()) {
        (QUANTIZE, DEQUANTIZE) => affine(graph, made(back.value(2)?)?, there, back)?,
        ("quantized_decomposed::quantize_per_tensor.tensor", "quantized_decomposed::dequantize_per_tensor.tensor") => {
            tensor(made(back.value(1)?)?, there, back)?
        }
        ("quantized_decomposed::quantize_per_token", "quantized_decomposed::dequantize_per_token") => {
            token(graph, made(back.value(1)?)?, there, back)?
        }
        _ => return None,
    };
    Some(Dynamic { x, scheme })
}

/// Whether a node is a part of this that has no kernel of its own.
pub fn is_inner(node: &Node) -> bool {
    [DEQUANTIZE, QUANTIZE, CHOOSE].contains(&node.op.as_str())
}

/// The bytes that arguments from `at` on say: type, least, largest.
fn range(node: &Node, dtype: usize, limits: usize) -> Option<(DType, i64, i64)> {
    let number = |at: usize| float(node.args.get(at)).map(|x| x as i64);
    match node.args.get(dtype)? {
        Arg::DType(dtype) => Some((*dtype, number(limits)?, number(limits + 1)?)),
        _ => None,
    }
}

fn affine(graph: &Graph, choose: &Node, there: &Node, back: &Node) -> Option<Scheme> {
    let x = there.value(0)?;
    let rank = graph.values[x].dims.len();
    let mut row = vec![1; rank.checked_sub(1)?];
    row.push(graph.size(x, rank - 1)?);
    let is_row = |node: &Node, at: usize| graph.int_list(node.args.get(at)).as_deref() == Some(&row);
    let &[scale, zero] = choose.outputs.as_slice() else {
        return None;
    };
    let uses = |node: &Node| node.value(2) == Some(scale) && node.value(3) == Some(zero);
    let bytes = range(choose, 3, 4)?;
    let fits = choose.op == CHOOSE
        && choose.value(0) == Some(x)
        && [there, back].into_iter().all(uses)
        && is_row(choose, 2)
        && is_row(there, 1)
        && is_row(back, 1)
        && range(there, 4, 5) == Some(bytes)
        && range(back, 4, 5) == Some(bytes);
    let eps = match choose.args.get(6) {
        None | Some(Arg::None) => f64::from(f32::MIN_POSITIVE),
        given => float(given)?,
    } as f32;
    let formula = match (choose.args.get(1)?, bytes) {
        (Arg::Str(word), (DType::I8, -128, 127)) if word == "ASYMMETRIC" => Formula::AffineAsymmetric { eps },
        (Arg::Str(word), bytes) if word == "SYMMETRIC" => symmetric(bytes, eps)?,
        _ => return None,
    };
    fits.then_some(Scheme::rows(formula))
}

fn symmetric(bytes: (DType, i64, i64), eps: f32) -> Option<Formula> {
    match bytes {
        (DType::I8, low @ (-128 | -127), 127) => Some(Formula::AffineSymmetric { eps, low: low as i8 }),
        _ => None,
    }
}

fn tensor(choose: &Node, there: &Node, back: &Node) -> Option<Scheme> {
    let &[scale, zero] = choose.outputs.as_slice() else {
        return None;
    };
    let uses = |node: &Node| node.value(1) == Some(scale) && node.value(2) == Some(zero);
    let bytes = range(choose, 4, 1)?;
    let fits = choose.value(0) == there.value(0)
        && [there, back].into_iter().all(uses)
        && range(there, 5, 3) == Some(bytes)
        && range(back, 5, 3) == Some(bytes);
    let eps = float(choose.args.get(3))? as f32;
    let formula = match (choose.op.as_str(), bytes) {
        // Unsigned bytes are the signed ones and 128, from the zero point to the limits: sums are the same.
        ("quantized_decomposed::choose_qparams.tensor", (DType::I8, -128, 127) | (DType::U8, 0, 255)) => {
            Formula::AffineAsymmetric { eps }
        }
        ("quantized_decomposed::choose_qparams_symmetric.tensor", bytes) => symmetric(bytes, eps)?,
        _ => return None,
    };
    fits.then_some(Scheme::tensor(formula))
}

fn token(graph: &Graph, choose: &Node, there: &Node, back: &Node) -> Option<Scheme> {
    let &[scale, zero] = choose.outputs.as_slice() else {
        return None;
    };
    let uses = |node: &Node| node.value(1) == Some(scale) && node.value(2) == Some(zero);
    let signed = Some((DType::I8, -128, 127));
    let fits = choose.value(0) == there.value(0)
        && choose.args.get(1) == Some(&Arg::DType(DType::I8))
        && [there, back].into_iter().all(uses)
        && range(there, 5, 3) == signed
        && range(back, 5, 3) == signed;
    let formula = match choose.op.as_str() {
        "quantized_decomposed::choose_qparams_per_token_asymmetric"
        | "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl" => Formula::TokenAsymmetric {
            wide: graph.values[scale].dtype == DType::F64,
        },
        "quantized_decomposed::choose_qparams_per_token" => Formula::TokenSymmetric,
        _ => return None,
    };
    fits.then_some(Scheme::rows(formula))
}
