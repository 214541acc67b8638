//! A kernel call becomes a node.

use super::memory::{Found, Place};
use super::method::Lifter;
use super::tensor::{describe, fixed};
use super::{demand, number};
use crate::error::{ImportError, Result};
use crate::functional::twin;
use delegraph_ir::{Arg, Expr, InferError, MemoryFormat, Op, SymbolRange, TensorType, Type, ValueId, infer};
use delegraph_opset::{BaseType, Param, Schema};
use delegraph_pte::model::{Dynamism, EValue};
use delegraph_types::DType;
use std::rc::Rc;

/// What an operator of a plan is.
pub(super) enum Callee {
    /// `executorch_prim::` arithmetic on sizes.
    Primitive(&'static str),
    SymSize,
    SymNumel,
    /// A number that is read from a tensor.
    LocalScalar(Op),
    /// The same bytes with other sizes.
    View,
    /// Copies that say the layout of their result.
    DimOrder(DimOrder),
    /// Writes what a functional operator returns to the given tensors.
    Out(Function),
    /// Writes what a functional operator returns to its first argument.
    InPlace(Function),
}

#[derive(Clone, Copy)]
pub(super) enum DimOrder {
    Cast,
    Clone,
    Empty,
}

/// The functional operator of an out-variant or in-place operator.
pub(super) struct Function {
    op: Op,
    schema: Schema,
    /// Of the operator that the plan calls.
    called: Schema,
}

impl Callee {
    fn find(name: &str) -> Result<Callee> {
        let op = Op::find(name).ok_or_else(|| ImportError::unsupported("the operator is not known"))?;
        let called = op.schema();
        let function = |op: Op, called: Schema| Function {
            op,
            schema: op.schema(),
            called,
        };
        Ok(match op.name() {
            "aten::sym_size.int" => Callee::SymSize,
            "aten::sym_numel" => Callee::SymNumel,
            "aten::_local_scalar_dense" => Callee::LocalScalar(op),
            "executorch_prim::et_view.default" => Callee::View,
            "executorch_prim::et_copy_index.tensor" => {
                return Err(ImportError::unsupported("how far its result grows depends on the run"));
            }
            "dim_order_ops::_to_dim_order_copy.out" => Callee::DimOrder(DimOrder::Cast),
            "dim_order_ops::_clone_dim_order.out" => Callee::DimOrder(DimOrder::Clone),
            "dim_order_ops::_empty_dim_order.out" => Callee::DimOrder(DimOrder::Empty),
            name => match name.strip_prefix("executorch_prim::") {
                Some(primitive) => Callee::Primitive(primitive),
                None if called.is_in_place() => {
                    let op = twin(op, &called);
                    let op = op.ok_or_else(|| ImportError::unsupported("it has no functional form"))?;
                    Callee::InPlace(function(op, called))
                }
                None => {
                    let op = op.functional();
                    let op = op.ok_or_else(|| ImportError::unsupported("it has no functional form"))?;
                    Callee::Out(function(op, called))
                }
            },
        })
    }
}

impl Lifter<'_, '_> {
    /// `operators[op](args)`
    pub(super) fn kernel(&mut self, op: u32, args: &[u32]) -> Result<()> {
        let operator = self.plan.operators.get(op as usize);
        let operator = operator.ok_or_else(|| ImportError::malformed("the operator does not exist"))?;
        let name = match operator.overload.as_str() {
            "" => operator.name.clone(),
            overload => format!("{}.{overload}", operator.name),
        };
        let callee = match self.shared.callees.get(&name) {
            Some(callee) => callee.clone(),
            None => {
                let callee = Rc::new(Callee::find(&name)?);
                self.shared.callees.insert(name, callee.clone());
                callee
            }
        };
        match &*callee {
            Callee::Primitive(name) => match args.split_last() {
                Some((&result, operands)) => self.primitive(name, operands, result),
                None => Err(operands(args)),
            },
            Callee::SymSize => match *args {
                [tensor, dim, result] => self.sym_size(tensor, Some(dim), result),
                _ => Err(operands(args)),
            },
            Callee::SymNumel => match *args {
                [tensor, result] => self.sym_size(tensor, None, result),
                _ => Err(operands(args)),
            },
            Callee::LocalScalar(op) => match *args {
                [tensor, result] => self.local_scalar(*op, tensor, result),
                _ => Err(operands(args)),
            },
            Callee::View => match *args {
                [source, size, out, ..] => self.et_view(source, size, out),
                _ => Err(operands(args)),
            },
            Callee::DimOrder(what) => match *args {
                [source, _, order, out, ..] if !matches!(what, DimOrder::Empty) => {
                    self.dim_order(*what, source, order, out)
                }
                [size, _, out, ..] => self.empty(size, out),
                _ => Err(operands(args)),
            },
            Callee::Out(function) => self.out_variant(function, args),
            Callee::InPlace(function) => self.in_place(function, args),
        }
    }

    /// A size, or the number of elements, of a tensor.
    fn sym_size(&mut self, value: u32, dim: Option<u32>, result: u32) -> Result<()> {
        let id = self.read(value)?;
        let shape = self.graph.tensor(id).map(|ty| ty.shape.clone()).unwrap_or_default();
        let size = match dim {
            None => Expr::product(&shape),
            Some(dim) => {
                let rank = shape.len() as i64;
                let dim = match self.number(dim)? {
                    Arg::Int(e) => e.as_int(),
                    _ => None,
                };
                let dim = dim.map(|d| if d < 0 { d.saturating_add(rank) } else { d });
                let size = dim.and_then(|d| shape.get(usize::try_from(d).ok()?));
                size.cloned()
                    .ok_or_else(|| ImportError::unsupported("the dimension does not exist"))?
            }
        };
        if self.tensor(value)?.dynamism != Dynamism::Static {
            self.sizes.read(&size)?;
        }
        self.sizes.check(&size)?;
        self.numbers.insert(result, Arg::Int(size));
        Ok(())
    }

    fn local_scalar(&mut self, op: Op, value: u32, result: u32) -> Result<()> {
        let source = self.read(value)?;
        let dtype = self.tensor(value)?.dtype;
        let (ty, number) = if dtype == DType::Bool {
            (Type::Bool, None)
        } else if dtype.is_float() {
            (Type::Float, None)
        } else {
            let any = SymbolRange {
                min: i64::MIN,
                max: None,
            };
            let symbol = self.symbol("u", any);
            let e = Expr::Symbol(symbol);
            (Type::Int(e.clone()), Some(Arg::Int(e)))
        };
        let made = self.emit(op, vec![source.into()], vec![ty]);
        let number = number.or_else(|| made.first().map(|id| Arg::Value(*id)));
        self.numbers.insert(result, number.unwrap_or(Arg::None));
        Ok(())
    }

    /// `executorch_prim::et_view`: at the same place only sizes change, elsewhere it copies.
    fn et_view(&mut self, source: u32, size: u32, out: u32) -> Result<()> {
        let (from, to) = (self.tensor(source)?, self.tensor(out)?);
        if !Self::same_layout(from, to) {
            return Err(ImportError::unsupported(format!(
                "views {} as {}",
                describe(from),
                describe(to)
            )));
        }
        let EValue::IntList(items) = self.evalue(size)? else {
            return Err(ImportError::unsupported("its sizes are no list of integers"));
        };
        let args = vec![Arg::Value(self.read(source)?), Arg::Ints(self.integers(items)?)];
        let op = Op::find("aten::view").ok_or_else(|| ImportError::Bug("no view".to_string()))?;
        let values = self.compute(op, args, &[out])?;
        let [view] = values[..] else {
            return Err(ImportError::Bug("a view of several results".to_string()));
        };
        let place = Place::of(out, to);
        match self.memory.find(&place) {
            Found::Whole(definition) if place == Place::of(source, from) => self.define_view(out, definition, view),
            _ => self.define(out, view, None),
        }
    }

    /// A cast or a copy to a layout. Values of the IR have none, so only the two layouts that its operators can name are taken.
    fn dim_order(&mut self, what: DimOrder, source: u32, order: u32, out: u32) -> Result<()> {
        let (from, to) = (self.tensor(source)?, self.tensor(out)?);
        let format = match self.evalue(order)? {
            EValue::Null => None,
            EValue::IntList(items) => {
                let items = self.integers(items)?;
                let items: Vec<i64> = items.iter().filter_map(Expr::as_int).collect();
                let named = memory_format(&items);
                named.ok_or_else(|| ImportError::unsupported(format!("a copy to dim_order {items:?}")))?
            }
            _ => return Err(ImportError::unsupported("its dim_order is no list of integers")),
        };
        let format = format.map_or(Arg::None, Arg::MemoryFormat);
        let source = self.read(source)?;
        let cast = matches!(what, DimOrder::Cast);
        if !cast && from.dtype != to.dtype {
            return Err(ImportError::unsupported(format!(
                "copies {} to {}",
                describe(from),
                describe(to)
            )));
        }
        let (op, args) = match cast {
            true => (
                "aten::_to_copy",
                vec![
                    source.into(),
                    to.dtype.into(),
                    Arg::None,
                    Arg::None,
                    Arg::None,
                    Arg::Bool(false),
                    format,
                ],
            ),
            false => ("aten::clone", vec![source.into(), format]),
        };
        let op = Op::find(op).ok_or_else(|| ImportError::Bug(format!("no operator `{op}`")))?;
        self.compute_to(op, args, &[out])
    }

    fn empty(&mut self, size: u32, out: u32) -> Result<()> {
        let EValue::IntList(items) = self.evalue(size)? else {
            return Err(ImportError::unsupported("its sizes are no list of integers"));
        };
        let args = vec![Arg::Ints(self.integers(items)?), self.tensor(out)?.dtype.into()];
        let op = Op::find("aten::empty.memory_format").ok_or_else(|| ImportError::Bug("no empty".to_string()))?;
        self.compute_to(op, args, &[out])
    }

    fn out_variant(&mut self, function: &Function, args: &[u32]) -> Result<()> {
        let params = &function.called.params;
        if args.len() < params.len() {
            return Err(operands(args));
        }
        let (given, returned) = args.split_at(params.len());
        let mut outs = Vec::new();
        for (_, &value) in params.iter().zip(given).filter(|(param, _)| param.is_out) {
            self.tensors_of(value, &mut outs)?;
        }
        let mut results = Vec::new();
        for &value in returned {
            self.tensors_of(value, &mut results)?;
        }
        if results.iter().any(|value| !outs.contains(value)) {
            return Err(ImportError::unsupported(
                "it returns a tensor that is no output of the call",
            ));
        }
        let mut call = Vec::with_capacity(function.schema.params.len());
        for param in &function.schema.params {
            call.push(match position(&function.called, &param.name) {
                Some(i) => self.argument(param, given[i])?,
                None if param.ty.base == BaseType::DType => match outs.first() {
                    Some(&out) => Arg::DType(self.tensor(out)?.dtype),
                    None => Arg::None,
                },
                None => delegraph_ir::default_arg(param),
            });
        }
        // An argument that the functional operator does not have may only be its default.
        for (param, &value) in params.iter().zip(given).filter(|(param, _)| !param.is_out) {
            if function.schema.position(&param.name).is_none()
                && self.argument(param, value)? != delegraph_ir::default_arg(param)
            {
                return Err(ImportError::unsupported(format!(
                    "argument `{}`, which `{}` does not have",
                    param.name, function.op
                )));
            }
        }
        self.compute_to(function.op, call, &outs)
    }

    /// An operator that changes its first argument: the functional form, and a write.
    fn in_place(&mut self, function: &Function, args: &[u32]) -> Result<()> {
        let params = &function.called.params;
        let mutated: Vec<usize> = (0..params.len()).filter(|&i| params[i].mutated).collect();
        let ([0], Some(&target)) = (mutated.as_slice(), args.first()) else {
            return Err(ImportError::unsupported("it changes more than its first argument"));
        };
        if args.len() < params.len() || params[0].ty.list {
            return Err(operands(args));
        }
        if args[params.len()..].iter().any(|&returned| returned != target) {
            return Err(ImportError::unsupported(
                "it returns a tensor other than the one that it changes",
            ));
        }
        let tensor = self.tensor(target)?;
        let place = Place::of(target, tensor);
        if place == Place::Constant {
            return Err(ImportError::unsupported(format!(
                "writes %{target}, which is a constant"
            )));
        }
        let value = match function.op.name() {
            "aten::copy" => {
                let source = self.read(args[1])?;
                let shape = match tensor.dynamism {
                    Dynamism::Static => fixed(tensor),
                    _ => self.shape(target)?,
                };
                self.copied(source, TensorType::new(tensor.dtype, shape))?
            }
            _ => {
                let mut call = Vec::with_capacity(params.len());
                for (param, &value) in function.schema.params.iter().zip(args) {
                    call.push(self.argument(param, value)?);
                }
                let values = self.compute(function.op, call, &[target])?;
                let [value] = values[..] else {
                    return Err(ImportError::unsupported("it returns several tensors"));
                };
                value
            }
        };
        // The caller sees a change of its input also where it is made through a view.
        let input = match self.memory.find(&place) {
            Found::Whole(definition) => self.memory.definition(definition).input,
            _ => None,
        };
        self.define(target, value, input)
    }

    /// What `target.copy_(source)` leaves in a tensor of this type.
    fn copied(&mut self, mut source: ValueId, target: TensorType) -> Result<ValueId> {
        let Some(have) = self.graph.tensor(source).cloned() else {
            return Err(ImportError::malformed("copies no tensor"));
        };
        if have.shape != target.shape {
            let lead = target.shape.len().checked_sub(have.shape.len());
            let lead = lead.ok_or_else(|| ImportError::unsupported(format!("copies {have} to {target}")))?;
            for (a, b) in have.shape.iter().zip(&target.shape[lead..]) {
                if a != b && a.as_int() != Some(1) {
                    self.sizes.equate(a, b, &mut self.shared.module.symbols);
                    return Err(ImportError::unsupported(format!("copies {have} to {target}")));
                }
            }
            let ty = TensorType::new(have.dtype, target.shape.clone());
            source = self.node("aten::expand", vec![source.into(), Arg::Ints(ty.shape.clone())], ty)?;
        }
        match have.dtype == target.dtype {
            true => Ok(source),
            false => self.node("aten::_to_copy", vec![source.into(), target.dtype.into()], target),
        }
    }

    /// A node whose results go to these tensors.
    fn compute_to(&mut self, op: Op, args: Vec<Arg>, outs: &[u32]) -> Result<()> {
        let values = self.compute(op, args, outs)?;
        for (&out, value) in outs.iter().zip(values) {
            self.define(out, value, None)?;
        }
        Ok(())
    }

    /// A node whose results have the dtypes and sizes of these tensors.
    fn compute(&mut self, op: Op, mut args: Vec<Arg>, outs: &[u32]) -> Result<Vec<ValueId>> {
        let types = self.result_types(op, &mut args, outs)?;
        let mut casts = Vec::with_capacity(outs.len());
        for (ty, &out) in types.iter().zip(outs) {
            let dtype = self.tensor(out)?.dtype;
            casts.push((dtype != ty.dtype).then(|| TensorType::new(dtype, ty.shape.clone())));
        }
        let types = types.into_iter().map(Type::Tensor).collect();
        let mut values = self.emit(op, args, types);
        // Where a kernel writes another dtype than the operator returns, it converts at the end.
        for (value, cast) in values.iter_mut().zip(casts) {
            if let Some(ty) = cast {
                *value = self.node("aten::_to_copy", vec![(*value).into(), ty.dtype.into()], ty)?;
            }
        }
        Ok(values)
    }

    /// The types of a node's results: sizes by shape propagation, held against what the file says of the tensors.
    fn result_types(&mut self, op: Op, args: &mut [Arg], outs: &[u32]) -> Result<Vec<TensorType>> {
        let Lifter {
            graph, shared, sizes, ..
        } = self;
        demand::learn(op, args, graph, sizes, &mut shared.module.symbols)?;
        let mut inferred = infer(op, args, graph, &shared.module.symbols);
        // Some operators compute in the dtype that they are asked for: the one of the result.
        if let (Ok(types), [out]) = (&inferred, outs)
            && let Some(dtype) = op.schema().position("dtype")
            && args.get(dtype) == Some(&Arg::None)
            && let Some(Type::Tensor(ty)) = types.first()
            && let EValue::Tensor(tensor) = &self.plan.values[*out as usize]
            && ty.dtype != tensor.dtype
        {
            args[dtype] = Arg::DType(tensor.dtype);
            inferred = infer(op, args, graph, &shared.module.symbols);
        }
        let types = match inferred {
            Ok(types) => types,
            Err(InferError::Invalid { problem, .. }) => return Err(ImportError::unsupported(problem)),
            Err(InferError::DataDependent { .. }) => self.data_dependent(op, args, outs)?,
            Err(error) => {
                let mut types = Vec::new();
                for &out in outs {
                    let tensor = self.tensor(out)?;
                    if tensor.dynamism != Dynamism::Static {
                        return Err(ImportError::unsupported(format!(
                            "the sizes of %{out} are not known: {error}"
                        )));
                    }
                    types.push(TensorType::fixed(tensor.dtype, tensor.sizes.as_slice()).into());
                }
                types
            }
        };
        if types.len() != outs.len() {
            let problem = format!("{} results for {} tensors", types.len(), outs.len());
            return Err(ImportError::unsupported(problem));
        }
        types
            .into_iter()
            .zip(outs)
            .map(|(ty, &out)| self.settle(ty, out))
            .collect()
    }

    /// The type of a result: the file's sizes where they are fixed, the inferred ones where not.
    fn settle(&mut self, ty: Type, out: u32) -> Result<TensorType> {
        let tensor = self.tensor(out)?;
        let Type::Tensor(mut ty) = ty else {
            return Err(ImportError::unsupported(format!("it returns {ty} to %{out}")));
        };
        let differ =
            |ty: &TensorType| ImportError::unsupported(format!("it gives {ty}, where %{out} is {}", describe(tensor)));
        if ty.rank() != tensor.sizes.rank() {
            return Err(differ(&ty));
        }
        for (dim, &size) in tensor.sizes.iter().enumerate() {
            self.sizes.check(&ty.shape[dim])?;
            match (tensor.dynamism, ty.shape[dim].as_int()) {
                (Dynamism::Static, Some(have)) if have != size => return Err(differ(&ty)),
                (Dynamism::Bounded, Some(have)) if have > size => return Err(differ(&ty)),
                (Dynamism::Static, None) => {
                    // A tensor of fixed sizes never takes others: the kernel would refuse them.
                    let fixed = Expr::Int(size);
                    self.sizes
                        .equate(&ty.shape[dim], &fixed, &mut self.shared.module.symbols);
                    ty.shape[dim] = fixed;
                }
                _ => {}
            }
        }
        Ok(ty)
    }

    /// Results whose size depends on data have a symbol there, bound by what was planned for them.
    fn data_dependent(&mut self, op: Op, args: &[Arg], outs: &[u32]) -> Result<Vec<Type>> {
        let source = args
            .first()
            .and_then(Arg::as_value)
            .and_then(|id| self.graph.tensor(id))
            .cloned();
        let (Some(source), &[out]) = (source, outs) else {
            return Err(ImportError::unsupported("a size of its result depends on data"));
        };
        let tensor = self.tensor(out)?;
        let columns = match op.name() {
            "aten::nonzero" => vec![Expr::Int(source.rank() as i64)],
            "aten::masked_select" => Vec::new(),
            _ => return Err(ImportError::unsupported("a size of its result depends on data")),
        };
        let max = match (tensor.dynamism, tensor.sizes.iter().next()) {
            (Dynamism::Bounded, Some(&size)) => Some(size),
            (Dynamism::Static, Some(&size)) => {
                let shape = [vec![Expr::Int(size)], columns].concat();
                return Ok(vec![TensorType::new(source.dtype_of(op), shape).into()]);
            }
            _ => None,
        };
        let range = SymbolRange { min: 0, max };
        let rows = self.symbol("u", range);
        let shape = [vec![Expr::Symbol(rows)], columns].concat();
        Ok(vec![TensorType::new(source.dtype_of(op), shape).into()])
    }

    /// The tensors of a value that is one or a list.
    fn tensors_of(&self, value: u32, into: &mut Vec<u32>) -> Result<()> {
        match self.evalue(value)? {
            EValue::Tensor(_) => into.push(value),
            EValue::TensorList(items) => into.extend(items),
            _ => return Err(ImportError::unsupported(format!("%{value} is no tensor"))),
        }
        Ok(())
    }

    /// A value of the plan as the argument of a parameter.
    fn argument(&mut self, param: &Param, value: u32) -> Result<Arg> {
        let wrong = || ImportError::unsupported(format!("argument `{}`: %{value} is of another kind", param.name));
        let (base, list) = (param.ty.base, param.ty.list);
        Ok(match self.evalue(value)? {
            EValue::Tensor(_) if !list && matches!(base, BaseType::Tensor | BaseType::Any) => {
                Arg::Value(self.read(value)?)
            }
            EValue::Tensor(_) => return Err(wrong()),
            // An empty list does not show its kind: the signature does.
            EValue::IntList(items) if items.is_empty() && list => match base {
                BaseType::Tensor if param.ty.optional_items => Arg::OptionalValues(Vec::new()),
                BaseType::Tensor => Arg::Values(Vec::new()),
                BaseType::Float => Arg::Floats(Vec::new()),
                BaseType::Bool => Arg::Bools(Vec::new()),
                _ => Arg::Ints(Vec::new()),
            },
            EValue::IntList(items) if list && matches!(base, BaseType::Int | BaseType::Scalar) => {
                Arg::Ints(self.integers(items)?)
            }
            EValue::DoubleList(items) if list && matches!(base, BaseType::Float | BaseType::Scalar) => {
                Arg::Floats(items.clone())
            }
            EValue::BoolList(items) if list && matches!(base, BaseType::Bool | BaseType::Scalar) => {
                Arg::Bools(items.clone())
            }
            EValue::TensorList(items) if list && base == BaseType::Tensor => {
                let mut values = Vec::with_capacity(items.len());
                for &item in items {
                    values.push(self.read(item)?);
                }
                match param.ty.optional_items {
                    true => Arg::OptionalValues(values.into_iter().map(Some).collect()),
                    false => Arg::Values(values),
                }
            }
            EValue::OptionalTensorList(items) if list && base == BaseType::Tensor => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    values.push(
                        match item.filter(|item| !matches!(self.plan.values[*item as usize], EValue::Null)) {
                            Some(item) => Some(self.read(item)?),
                            None => None,
                        },
                    );
                }
                Arg::OptionalValues(values)
            }
            EValue::IntList(_)
            | EValue::DoubleList(_)
            | EValue::BoolList(_)
            | EValue::TensorList(_)
            | EValue::OptionalTensorList(_) => return Err(wrong()),
            EValue::Null | EValue::Int(_) | EValue::Bool(_) | EValue::Double(_) | EValue::String(_) => {
                number::for_parameter(param, self.number(value)?)?
            }
        })
    }
}

/// The dtype of what a data-dependent operator returns.
trait ResultOf {
    fn dtype_of(&self, op: Op) -> DType;
}

impl ResultOf for TensorType {
    fn dtype_of(&self, op: Op) -> DType {
        match op.name() {
            "aten::nonzero" => DType::I64,
            _ => self.dtype,
        }
    }
}

fn operands(args: &[u32]) -> ImportError {
    ImportError::unsupported(format!("{} operands, which its signature does not have", args.len()))
}

/// Position of an input of this name.
fn position(schema: &Schema, name: &str) -> Option<usize> {
    schema.position(name).filter(|&i| !schema.params[i].is_out)
}

/// The memory format that a dim_order is: none for row-major, which is what copies give anyway.
fn memory_format(order: &[i64]) -> Option<Option<MemoryFormat>> {
    match order {
        [0, 2, 3, 1] => Some(Some(MemoryFormat::ChannelsLast)),
        [0, 2, 3, 4, 1] => Some(Some(MemoryFormat::ChannelsLast3d)),
        _ => order.iter().enumerate().all(|(i, d)| *d == i as i64).then_some(None),
    }
}
