//! Operators that are another operator under a second name, with the same parameters.

use super::Replacement;
use crate::rewrite::Rewrite;
use delegraph_ir::Op;
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// (name, the operator that it is)
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("aten::absolute", "aten::abs"),
    ("aten::arccos", "aten::acos"),
    ("aten::arccosh", "aten::acosh"),
    ("aten::arcsin", "aten::asin"),
    ("aten::arcsinh", "aten::asinh"),
    ("aten::arctan", "aten::atan"),
    ("aten::arctan2", "aten::atan2"),
    ("aten::arctanh", "aten::atanh"),
    ("aten::fix", "aten::trunc"),
    ("aten::negative", "aten::neg"),
    ("aten::clip", "aten::clamp"),
    ("aten::clip.Tensor", "aten::clamp.Tensor"),
    ("aten::concat", "aten::cat"),
    ("aten::concatenate", "aten::cat"),
    ("aten::divide.Tensor", "aten::div.Tensor"),
    ("aten::divide.Scalar", "aten::div.Scalar"),
    ("aten::divide.Tensor_mode", "aten::div.Tensor_mode"),
    ("aten::divide.Scalar_mode", "aten::div.Scalar_mode"),
    ("aten::true_divide.Tensor", "aten::div.Tensor"),
    ("aten::true_divide.Scalar", "aten::div.Scalar"),
    ("aten::multiply.Tensor", "aten::mul.Tensor"),
    ("aten::multiply.Scalar", "aten::mul.Scalar"),
    ("aten::subtract.Tensor", "aten::sub.Tensor"),
    ("aten::subtract.Scalar", "aten::sub.Scalar"),
    ("aten::greater.Tensor", "aten::gt.Tensor"),
    ("aten::greater.Scalar", "aten::gt.Scalar"),
    ("aten::greater_equal.Tensor", "aten::ge.Tensor"),
    ("aten::greater_equal.Scalar", "aten::ge.Scalar"),
    ("aten::less.Tensor", "aten::lt.Tensor"),
    ("aten::less.Scalar", "aten::lt.Scalar"),
    ("aten::less_equal.Tensor", "aten::le.Tensor"),
    ("aten::less_equal.Scalar", "aten::le.Scalar"),
    ("aten::not_equal.Tensor", "aten::ne.Tensor"),
    ("aten::not_equal.Scalar", "aten::ne.Scalar"),
    ("aten::max.other", "aten::maximum"),
    ("aten::min.other", "aten::minimum"),
    ("aten::__and__.Tensor", "aten::bitwise_and.Tensor"),
    ("aten::__and__.Scalar", "aten::bitwise_and.Scalar"),
    ("aten::__or__.Tensor", "aten::bitwise_or.Tensor"),
    ("aten::__or__.Scalar", "aten::bitwise_or.Scalar"),
    ("aten::__xor__.Tensor", "aten::bitwise_xor.Tensor"),
    ("aten::__xor__.Scalar", "aten::bitwise_xor.Scalar"),
    ("aten::__lshift__.Tensor", "aten::bitwise_left_shift.Tensor"),
    ("aten::__lshift__.Scalar", "aten::bitwise_left_shift.Tensor_Scalar"),
    ("aten::__rshift__.Tensor", "aten::bitwise_right_shift.Tensor"),
    ("aten::__rshift__.Scalar", "aten::bitwise_right_shift.Tensor_Scalar"),
    ("aten::floor_divide.Scalar", "aten::floor_divide"),
    ("aten::special_digamma", "aten::digamma"),
    ("aten::special_psi", "aten::digamma"),
    ("aten::special_gammaln", "aten::lgamma"),
    ("aten::special_erf", "aten::erf"),
    ("aten::special_erfc", "aten::erfc"),
    ("aten::special_erfinv", "aten::erfinv"),
    ("aten::special_exp2", "aten::exp2"),
    ("aten::special_expit", "aten::sigmoid"),
    ("aten::special_expm1", "aten::expm1"),
    ("aten::special_i0", "aten::i0"),
    ("aten::special_log1p", "aten::log1p"),
    ("aten::special_logit", "aten::logit"),
    ("aten::special_logsumexp", "aten::logsumexp"),
    ("aten::special_sinc", "aten::sinc"),
    ("aten::special_softmax", "aten::softmax.int"),
    ("aten::special_log_softmax", "aten::log_softmax.int"),
    ("aten::special_xlogy", "aten::xlogy.Tensor"),
    ("aten::special_xlogy.other_scalar", "aten::xlogy.Scalar_Other"),
    ("aten::special_xlogy.self_scalar", "aten::xlogy.Scalar_Self"),
    ("aten::swapaxes", "aten::transpose.int"),
    ("aten::swapdims", "aten::transpose.int"),
    ("aten::moveaxis.int", "aten::movedim.int"),
    ("aten::moveaxis.intlist", "aten::movedim.intlist"),
    ("aten::ger", "aten::outer"),
    ("aten::row_stack", "aten::vstack"),
    ("aten::unsafe_split.Tensor", "aten::split.Tensor"),
    ("aten::unsafe_split_with_sizes", "aten::split_with_sizes"),
    ("aten::split.sizes", "aten::split_with_sizes"),
    ("aten::unsafe_chunk", "aten::chunk"),
    ("aten::linalg_diagonal", "aten::diagonal"),
    ("aten::linalg_matmul", "aten::matmul"),
    ("aten::item", "aten::_local_scalar_dense"),
    ("aten::argwhere", "aten::nonzero"),
    ("aten::_unsafe_index.Tensor", "aten::index.Tensor"),
    ("aten::_unsafe_index_put", "aten::index_put"),
    ("aten::_index_put_impl", "aten::index_put"),
];

static TARGETS: LazyLock<FxHashMap<Op, &'static str>> = LazyLock::new(|| {
    ALIASES
        .iter()
        .filter_map(|(name, to)| Some((Op::find(name)?, *to)))
        .collect()
});

/// The node under its operator's first name. The recorded types stay: they may hold symbols that only the file knows.
pub(super) fn rename(rw: &mut Rewrite) -> Replacement {
    let Some(target) = TARGETS.get(&rw.node().op) else {
        return Ok(None);
    };
    let (args, types) = (rw.node().args.clone(), rw.output_types());
    let params = Op::find(target).map_or(0, |op| op.schema().params.len());
    let args = args.into_iter().take(params).collect();
    rw.emit_as(target, args, types).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_agree_in_kind_of_parameters() {
        for (name, target) in ALIASES {
            let (a, b) = (
                Op::find(name).expect(name).schema(),
                Op::find(target).expect(target).schema(),
            );
            assert!(b.params.len() <= a.params.len() || b.params[a.params.len()..].iter().all(|p| p.default.is_some()));
            for (p, q) in a.params.iter().zip(&b.params) {
                let kinds = (p.ty.base, q.ty.base);
                let number_at_tensor = *name == "aten::floor_divide.Scalar" && p.name == "other";
                assert!(
                    kinds.0 == kinds.1 && p.ty.list == q.ty.list || number_at_tensor,
                    "{name}: {}",
                    p.name
                );
            }
        }
    }
}
