//! In-place operators as functional ones: the twin computes the new value, which is then written to the tensor's family.

use crate::args;
use crate::error::{ImportError, Result};
use crate::graph::Builder;
use crate::schema::{self, Argument};
use crate::scope::{Binding, Scope};
use crate::tensor::{Step, TensorId};
use delegraph_ir::{Arg, Op, TensorType, Type, ValueId, infer};
use delegraph_opset::{BaseType, Schema};
use delegraph_types::DType;

impl<'s> Builder<'s> {
    /// A node that writes to some of its arguments.
    pub fn in_place<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        op: Op,
        schema: &Schema,
        given: &[Option<&'g Argument>],
    ) -> Result<()> {
        let mut targets = Vec::new();
        for (param, given) in schema.params.iter().zip(given).filter(|(p, _)| p.mutated) {
            match given {
                Some(Argument::Tensor(name)) => targets.push((name.as_str(), self.tensor_of(scope, name)?)),
                Some(Argument::None) | None if param.ty.optional => {}
                _ => {
                    return Err(ImportError::unsupported(format!(
                        "in-place `{op}` on a list of tensors"
                    )));
                }
            }
        }
        let base = op.name().split('.').next().unwrap_or_default();
        if let [(name, target)] = targets.as_slice() {
            let (name, target) = (*name, *target);
            match base {
                "aten::detach_" | "aten::requires_grad_" => {
                    return self.bind_results(scope, node, schema, &[target], vec![]);
                }
                "aten::squeeze_" | "aten::unsqueeze_" | "aten::transpose_" | "aten::t_" | "aten::swapaxes_"
                | "aten::swapdims_" => return self.reshape_in_place(scope, node, op, given, name, target),
                "aten::copy_" => {
                    let value = self.copied(scope, given[1], target)?;
                    self.write(target, value)?;
                    return self.bind_results(scope, node, schema, &[target], vec![]);
                }
                "aten::zero_" => {
                    let ty = self.tensor(target).ty.clone();
                    let value = self.filled(target, Arg::int(0), ty)?;
                    self.write(target, value)?;
                    return self.bind_results(scope, node, schema, &[target], vec![]);
                }
                _ => {}
            }
        }
        let twin = twin(op, schema).ok_or_else(|| {
            ImportError::unsupported(format!("in-place operator `{op}` has no functional form"))
                .hint("export with `run_decompositions()`, or write it without the in-place operator")
        })?;
        let args = self.arguments(scope, schema, given)?;
        // Results: those of the operator that are not its arguments, then the new values of the arguments.
        let own: Vec<&'g str> = own_results(schema, node)?;
        let mut types: Vec<Type> = Vec::new();
        for name in &own {
            types.push(scope.tensor_type(name)?.into());
        }
        types.extend(targets.iter().map(|(_, t)| Type::from(self.tensor(*t).ty.clone())));
        let returns = self.session.schema(twin).returns.len();
        if types.len() != returns {
            return Err(ImportError::unsupported(format!(
                "in-place operator `{op}` has no functional form like it"
            )));
        }
        let cast = self.natural_type(twin, &args, &mut types, own.len());
        let base_name = node.name.as_deref().unwrap_or("node");
        let names = (0..types.len())
            .map(|i| own.get(i).copied().unwrap_or(base_name).to_string())
            .collect();
        let mut values = self.emit(base_name, twin, args, names, types);
        if let Some(ty) = cast {
            let args = vec![Arg::Value(values[own.len()]), Arg::DType(ty.dtype)];
            values[own.len()] = self.make("aten::_to_copy", args, ty, base_name)?;
        }
        for ((_, target), value) in targets.iter().zip(&values[own.len()..]) {
            self.write(*target, *value)?;
        }
        let targets: Vec<TensorId> = targets.iter().map(|(_, t)| *t).collect();
        values.truncate(own.len());
        self.bind_results(scope, node, schema, &targets, values)
    }

    /// The twin of an operator on one tensor may give another dtype (a comparison, a promotion), which the tensor does not take on:
    /// sets the natural type and returns the one to cast to.
    fn natural_type(&self, twin: Op, args: &[Arg], types: &mut [Type], at: usize) -> Option<TensorType> {
        let wanted = types.get(at)?.as_tensor()?.clone();
        let natural = infer(twin, args, &self.graph, &self.session.module.symbols).ok()?;
        let dtype = natural.get(at)?.as_tensor()?.dtype;
        if dtype == wanted.dtype {
            return None;
        }
        types[at] = TensorType::new(dtype, wanted.shape.clone()).into();
        Some(wanted)
    }

    /// Binds the names of results: written tensors keep their identity.
    fn bind_results<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        schema: &Schema,
        targets: &[TensorId],
        values: Vec<ValueId>,
    ) -> Result<()> {
        let (mut targets, mut values) = (targets.iter(), values.into_iter());
        for (output, returned) in node.outputs.iter().zip(&schema.returns) {
            let Argument::Tensor(name) = output else { continue };
            let tensor = match returned.aliased {
                true => targets.next().copied(),
                false => match values.next() {
                    Some(value) => {
                        let (ty, strides) = (scope.tensor_type(name)?, scope.strides(name));
                        Some(self.add_tensor(ty, strides, value, crate::tensor::Origin::Node))
                    }
                    None => None,
                },
            };
            if let Some(tensor) = tensor {
                scope.bind(name, Binding::Tensor(tensor))?;
            }
        }
        Ok(())
    }

    /// `x.unsqueeze_(0)`: the name stands for a view of what it was.
    fn reshape_in_place<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        op: Op,
        given: &[Option<&'g Argument>],
        name: &'g str,
        target: TensorId,
    ) -> Result<()> {
        let plain = op.name().replacen("_.", ".", 1);
        let plain = plain.strip_suffix('_').unwrap_or(&plain).to_string();
        let plain = match plain.as_str() {
            "aten::transpose" => "aten::transpose.int",
            other => other,
        };
        let view = Op::find(plain).ok_or_else(|| crate::graph::unknown(plain))?;
        let schema = self.session.schema(view);
        let args = self.arguments(scope, &schema, given)?;
        let [Argument::Tensor(output)] = node.outputs.as_slice() else {
            return Err(ImportError::malformed("one result is expected"));
        };
        let (ty, strides) = (scope.tensor_type(output)?, scope.strides(output));
        let out = crate::view::Output {
            ty: &ty,
            strides: strides.as_deref(),
            index: 0,
            before: &[],
        };
        let step = self.step_of(view, &args, target, &out).unwrap_or(Step::Unknown(view));
        let value = self.emit(output, view, args, vec![output.clone()], vec![ty.clone().into()])[0];
        let tensor = self.add_view(target, step, ty, strides, value);
        scope.bind(output, Binding::Tensor(tensor))?;
        if let Some(binding) = scope.names.get_mut(name) {
            *binding = Binding::Tensor(tensor);
        }
        Ok(())
    }

    /// What a tensor holds after `copy_`: the source in the tensor's dtype and shape.
    fn copied<'g>(&mut self, scope: &mut Scope<'g>, source: Option<&'g Argument>, target: TensorId) -> Result<ValueId> {
        let ty = self.tensor(target).ty.clone();
        let source = match source {
            Some(Argument::Tensor(name)) => self.read_name(scope, name)?,
            Some(argument) if args::number(argument).is_some() => {
                let number = args::number(argument).map_or(Arg::None, Arg::scalar);
                return self.filled(target, number, ty);
            }
            _ => return Err(ImportError::unsupported("`copy_` of something that is not a tensor")),
        };
        let mut value = source;
        let Some(from) = self.graph.tensor(source).cloned() else {
            return self.filled(target, Arg::Value(source), ty);
        };
        let name = self.graph.value(source).name.clone();
        if from.dtype != ty.dtype {
            let cast = TensorType::new(ty.dtype, from.shape.clone());
            value = self.make(
                "aten::_to_copy",
                vec![Arg::Value(value), Arg::DType(ty.dtype)],
                cast,
                &name,
            )?;
        }
        if from.shape != ty.shape {
            value = self.make(
                "aten::expand",
                vec![Arg::Value(value), Arg::Ints(ty.shape.clone())],
                ty,
                &name,
            )?;
        }
        Ok(value)
    }

    fn filled(&mut self, target: TensorId, number: Arg, ty: TensorType) -> Result<ValueId> {
        let before = self.read(target)?;
        let name = self.graph.value(before).name.clone();
        let args = vec![Arg::Value(before), number, Arg::DType(ty.dtype)];
        self.make("aten::full_like", args, ty, &name)
    }

    /// True for a batch normalization that updates its running statistics, which its schema does not say.
    pub fn writes_statistics(&self, op: Op, schema: &Schema, given: &[Option<&Argument>]) -> bool {
        let flag = |name: &str| schema.position(name).and_then(|p| given[p]);
        let training = matches!(flag("training").or(flag("use_input_stats")), Some(Argument::Bool(true)));
        let statistics = matches!(flag("running_mean"), Some(Argument::Tensor(_)));
        let named = matches!(
            op.name(),
            "aten::batch_norm" | "aten::native_batch_norm" | "aten::cudnn_batch_norm" | "aten::instance_norm"
        );
        named && training && statistics
    }

    /// `batch_norm(training=True)`: statistics of the batch are used, and the running ones are written.
    pub fn training_batch_norm<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        node: &'g schema::Node,
        schema: &Schema,
        given: &[Option<&'g Argument>],
    ) -> Result<()> {
        let op = "aten::_native_batch_norm_legit_functional";
        let twin = Op::find(op).ok_or_else(|| crate::graph::unknown(op))?;
        let (Some(Argument::Tensor(mean)), Some(Argument::Tensor(variance))) = (given[3], given[4]) else {
            return Err(ImportError::unsupported("running statistics that are not both there"));
        };
        if schema.params.iter().take(5).map(|p| p.name.as_str()).ne([
            "input",
            "weight",
            "bias",
            "running_mean",
            "running_var",
        ]) || schema.name.ends_with("instance_norm")
        {
            return Err(
                ImportError::unsupported("a normalization that writes its running statistics")
                    .hint("call `model.eval()` before export"),
            );
        }
        let targets = [self.tensor_of(scope, mean)?, self.tensor_of(scope, variance)?];
        let mut args = self.arguments(scope, schema, given)?;
        args.truncate(8);
        let names: Vec<&'g str> = node
            .outputs
            .iter()
            .filter_map(|o| match o {
                Argument::Tensor(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let Some(first) = names.first() else {
            return Err(ImportError::malformed("a result is expected"));
        };
        let result = scope.tensor_type(first)?;
        let saved = TensorType::new(DType::F32, self.tensor(targets[0]).ty.shape.clone());
        let mut types = vec![result, saved.clone(), saved];
        types.extend(targets.iter().map(|t| self.tensor(*t).ty.clone()));
        let value_names = (0..5).map(|i| names.get(i).unwrap_or(first).to_string()).collect();
        let values = self.emit(
            first,
            twin,
            args,
            value_names,
            types.iter().cloned().map(Type::from).collect(),
        );
        for (target, value) in targets.iter().zip(&values[3..]) {
            self.write(*target, *value)?;
        }
        for (i, name) in names.iter().enumerate().take(3) {
            let tensor = self.add_tensor(
                types[i].clone(),
                scope.strides(name),
                values[i],
                crate::tensor::Origin::Node,
            );
            scope.bind(name, Binding::Tensor(tensor))?;
        }
        Ok(())
    }
}

/// Names of the results that are not written arguments.
fn own_results<'g>(schema: &Schema, node: &'g schema::Node) -> Result<Vec<&'g str>> {
    let mut names = Vec::new();
    for (output, returned) in node.outputs.iter().zip(&schema.returns) {
        match output {
            Argument::Tensor(name) if !returned.aliased => names.push(name.as_str()),
            Argument::Tensor(_) => {}
            _ => {
                return Err(ImportError::unsupported(
                    "an in-place operator with results that are not tensors",
                ));
            }
        }
    }
    Ok(names)
}

/// The functional operator with the same parameters: `add_` -> `add`, `__iand__` -> `__and__`,
/// `normal_` -> `normal_functional`.
pub(crate) fn twin(op: Op, schema: &Schema) -> Option<Op> {
    let (namespace, rest) = op.name().split_once("::")?;
    let (base, overload) = rest.split_once('.').unwrap_or((rest, ""));
    // These change what memory a tensor has, which a value cannot: their functional forms say nothing of its elements.
    if matches!(
        base,
        "resize_" | "resize_as_" | "resize_as_sparse_" | "_resize_output_" | "set_"
    ) {
        return None;
    }
    let plain = match base.strip_prefix("__i").and_then(|b| b.strip_suffix("__")) {
        Some(inner) => format!("__{inner}__"),
        None => base.strip_suffix('_').unwrap_or(base).to_string(),
    };
    let overloads = [overload.to_string(), format!("Tensor_{overload}"), String::new()];
    let bases = [
        plain.clone(),
        format!("{plain}_functional"),
        format!("{base}functional"),
    ];
    for base in &bases {
        for overload in &overloads {
            let dot = if overload.is_empty() { "" } else { "." };
            let Some(twin) = Op::find(&format!("{namespace}::{base}{dot}{overload}")) else {
                continue;
            };
            let candidate = twin.schema();
            let alike = candidate.params.len() == schema.params.len()
                && candidate.params.iter().zip(&schema.params).all(|(a, b)| {
                    a.ty.list == b.ty.list && (a.ty.base == b.ty.base || a.ty.base == BaseType::Scalar) && !a.mutated
                });
            if alike && twin != op {
                return Some(twin);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_in_place_operators_have_a_functional_twin() {
        let cases = [
            ("aten::add_.Tensor", "aten::add.Tensor"),
            ("aten::hardtanh_", "aten::hardtanh"),
            ("aten::index_put_", "aten::index_put"),
            ("aten::fill_.Scalar", "aten::fill.Scalar"),
            ("aten::__iand__.Tensor", "aten::__and__.Tensor"),
            ("aten::pow_.Scalar", "aten::pow.Tensor_Scalar"),
            ("aten::masked_fill_.Scalar", "aten::masked_fill.Scalar"),
            ("aten::scatter_reduce_.two", "aten::scatter_reduce.two"),
            (
                "aten::_native_batch_norm_legit",
                "aten::_native_batch_norm_legit_functional",
            ),
        ];
        for (name, want) in cases {
            let op = Op::find(name).unwrap();
            assert_eq!(twin(op, &op.schema()).map(Op::name), Some(want), "{name}");
        }
        let resize = Op::find("aten::resize_").unwrap();
        assert_eq!(twin(resize, &resize.schema()), None);
    }
}
