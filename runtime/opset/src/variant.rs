//! Out-variants: which operator writes to given memory what another one returns.

use crate::Op;
use crate::schema::{BaseType, Param, Schema};

impl Op {
    /// The out-variant that computes this functional operator: the same base name and inputs, plus out arguments. View
    /// operators give their `_copy` operator's out-variant. `None` where there is none (or this already is one).
    ///
    /// Inputs are matched by name: the out-variant may lack `dtype`, `layout`, `device` and `pin_memory` (the out tensor
    /// says them), and may have further inputs with defaults.
    ///
    /// ```
    /// use delegraph_opset::Op;
    /// let out = |name| Op::find(name).unwrap().out_variant().map(Op::name);
    /// assert_eq!(out("aten::sum.dim_IntList"), Some("aten::sum.IntList_out"));
    /// assert_eq!(out("aten::squeeze.dims"), Some("aten::squeeze_copy.dims_out"));
    /// assert_eq!(out("aten::sym_size.int"), None);
    /// ```
    pub fn out_variant(self) -> Option<Op> {
        let schema = self.schema();
        if !is_functional(&schema) {
            return None;
        }
        let base = base_name(self.name());
        best(base, "", &schema).or_else(|| best(base, "_copy", &schema))
    }

    /// The functional operator that this out-variant computes; for a `_copy` operator the view itself (`aten::view_copy.out`
    /// gives `aten::view`), since views mean copies here. `None` for anything else.
    pub fn functional(self) -> Option<Op> {
        self.schema().outs().next()?;
        let base = base_name(self.name());
        let from = |base: &str| {
            overloads(base, "")
                .filter(|op| op.out_variant() == Some(self))
                .max_by_key(|op| (op.is_core(), op.schema().inputs().count()))
        };
        base.strip_suffix("_copy").and_then(from).or_else(|| from(base))
    }
}

/// No out arguments and nothing mutated.
fn is_functional(schema: &Schema) -> bool {
    schema.params.iter().all(|p| !p.mutated) && !schema.returns.is_empty()
}

/// The best out-variant among the overloads of `base` + `suffix`: one that ExecuTorch registers, then the fewest inputs that
/// the functional operator does not state.
fn best(base: &str, suffix: &str, functional: &Schema) -> Option<Op> {
    overloads(base, suffix)
        .filter_map(|op| Some((fit(&op.schema(), functional)?, !op.in_executorch(), op)))
        .min()
        .map(|(_, _, op)| op)
}

/// How many inputs of `out` are left to their defaults when it computes `functional`; `None` if it does not.
fn fit(out: &Schema, functional: &Schema) -> Option<usize> {
    out.outs().next()?;
    if out.is_in_place() {
        return None;
    }
    let mut extra = 0;
    for param in out.inputs() {
        match functional.params.iter().find(|have| have.name == param.name) {
            Some(have) if same_kind(have, param) => {}
            None if param.default.is_some() => extra += 1,
            _ => return None,
        }
    }
    let covered = functional
        .params
        .iter()
        .all(|have| said_by_out(have) || out.inputs().any(|param| param.name == have.name));
    covered.then_some(extra)
}

fn same_kind(a: &Param, b: &Param) -> bool {
    a.ty.base == b.ty.base && a.ty.list == b.ty.list
}

/// True for what an out tensor states by itself, and for random generators, which no program holds.
fn said_by_out(param: &Param) -> bool {
    matches!(
        param.ty.base,
        BaseType::DType | BaseType::Layout | BaseType::Device | BaseType::Generator
    ) || param.name == "pin_memory"
        || param.name == "memory_format"
}

pub(crate) fn base_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// Every operator named `base` + `suffix`, whatever its overload.
fn overloads<'a>(base: &'a str, suffix: &'a str) -> impl Iterator<Item = Op> + 'a {
    let same = move |op: &Op| base_name(op.name()).strip_prefix(base) == Some(suffix);
    Op::from_name_on(base, suffix).take_while(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_variants_by_signature() {
        for (name, want) in [
            ("aten::add.Tensor", Some("aten::add.out")),
            ("aten::add.Scalar", Some("aten::add.Scalar_out")),
            ("aten::sum", Some("aten::sum.out")),
            ("aten::sum.dim_IntList", Some("aten::sum.IntList_out")),
            ("aten::mean.dim", Some("aten::mean.out")),
            ("aten::max.dim", Some("aten::max.dim_max")),
            ("aten::max", Some("aten::max.unary_out")),
            ("aten::full", Some("aten::full.out")),
            ("aten::empty.memory_format", Some("aten::empty.out")),
            ("aten::arange.start", Some("aten::arange.start_out")),
            ("aten::arange.start_step", Some("aten::arange.start_out")),
            ("aten::_to_copy", Some("aten::_to_copy.out")),
            ("aten::view", Some("aten::view_copy.out")),
            ("aten::slice.Tensor", Some("aten::slice_copy.Tensor_out")),
            ("aten::split.Tensor", Some("aten::split_copy.Tensor_out")),
            ("aten::div.Tensor_mode", Some("aten::div.out_mode")),
            ("aten::div.Scalar_mode", Some("aten::div.Scalar_mode_out")),
            ("aten::index.Tensor", Some("aten::index.Tensor_out")),
            ("aten::_local_scalar_dense", None),
            ("aten::add.out", None),
            ("aten::add_.Tensor", None),
        ] {
            let got = Op::find(name).unwrap().out_variant();
            assert_eq!(got.map(Op::name), want, "{name}");
        }
    }

    #[test]
    fn functional_undoes_out_variant() {
        for (name, want) in [
            ("aten::add.out", Some("aten::add.Tensor")),
            ("aten::view_copy.out", Some("aten::view")),
            ("aten::sum.IntList_out", Some("aten::sum.dim_IntList")),
            ("aten::arange.start_out", Some("aten::arange.start_step")),
            ("aten::softmax.int", None),
        ] {
            assert_eq!(Op::find(name).unwrap().functional().map(Op::name), want, "{name}");
        }
        let mut checked = 0;
        for op in Op::all().filter(|op| op.in_executorch() && op.schema().outs().next().is_some()) {
            if let Some(functional) = op.functional() {
                assert_eq!(functional.out_variant(), Some(op));
                checked += 1;
            }
        }
        assert!(checked > 150, "{checked}");
    }
}
