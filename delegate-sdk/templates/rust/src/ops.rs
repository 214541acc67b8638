//! The operators that the delegate takes. THIS IS THE PLACE TO BEGIN: everything else is done for f32 tensors of one shape.

use delegraph_sdk::image::NodeView;

/// An operator that the delegate takes.
pub struct Operator {
    /// Stands in blobs: an operator that was shipped keeps its code.
    pub code: u8,
    /// A name of `delegraph_sdk::ops`.
    pub name: &'static str,
    /// Tensors that it reads: the first parameters of the operator, 1 or 2.
    pub operands: usize,
    /// Says what is wrong with the parameters behind them.
    pub refuse: fn(&NodeView<'_>) -> Option<&'static str>,
    /// Computes every element of the last slice. The second is empty for one operand.
    pub run: fn(&[f32], &[f32], &mut [f32]),
}

// BEGIN your operators
/// Nothing yet, so every node is refused. `aten::add.Tensor` would be a function and a row that names it:
///
/// ```text
/// fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
///     for i in 0..out.len() {
///         out[i] = a[i] + b[i];
///     }
/// }
///
/// Operator { code: 1, name: ATEN_ADD_TENSOR, operands: 2, refuse: alpha_is_not_one, run: add },
/// ```
///
/// `alpha_is_not_one` refuses what `add` does not do: the operator has a third parameter, `self + alpha * other`.
pub const OPERATORS: &[Operator] = &[];
// END your operators
