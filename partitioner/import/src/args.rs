//! Completion of arguments: what a node gives, by name, becomes one argument for each parameter of the schema.

use crate::error::{ImportError, Result};
use crate::graph::Builder;
use crate::schema::{Argument, NamedArgument, SymArg};
use crate::scope::{Resolved, Scope};
use crate::weights;
use delegraph_ir::{Arg, Expr, ExprOp, MemoryFormat, TensorType, ValueId, default_arg};
use delegraph_opset::{BaseType, ParamType, Schema};
use delegraph_types::{DType, Scalar, nearest};

/// The given argument of each parameter.
pub(crate) fn assign<'g>(schema: &Schema, inputs: &'g [NamedArgument]) -> Result<Vec<Option<&'g Argument>>> {
    let mut given = vec![None; schema.params.len()];
    for (i, input) in inputs.iter().enumerate() {
        let position = match input.name.as_str() {
            "" => (i < given.len()).then_some(i),
            name => schema.position(name),
        };
        let Some(position) = position else {
            let error = ImportError::unsupported(format!("the operator has no parameter `{}`", input.name));
            let names = schema.params.iter().map(|p| p.name.as_str());
            return Err(match nearest(&input.name, names) {
                Some(name) => error.hint(format!("the nearest parameter is `{name}`")),
                None => error,
            });
        };
        if given[position].replace(&input.arg).is_some() {
            return Err(ImportError::malformed(format!(
                "argument `{}` is given twice",
                input.name
            )));
        }
    }
    for (param, given) in schema.params.iter().zip(&given) {
        if given.is_none() && param.default.is_none() {
            return Err(ImportError::malformed(format!("argument `{}` is missing", param.name)));
        }
    }
    Ok(given)
}

impl<'s> Builder<'s> {
    /// One argument for each parameter.
    pub fn arguments<'g>(
        &mut self,
        scope: &mut Scope<'g>,
        schema: &Schema,
        given: &[Option<&'g Argument>],
    ) -> Result<Vec<Arg>> {
        let mut args = Vec::with_capacity(given.len());
        for (param, given) in schema.params.iter().zip(given) {
            args.push(match given {
                Some(argument) => self
                    .argument(scope, argument, param.ty)
                    .map_err(|e| prefix(e, &format!("argument `{}`", param.name)))?,
                None => default_arg(param),
            });
        }
        Ok(args)
    }

    /// A complex number as a 0-dim tensor, which takes the precision of the tensor beside it. One of doubles where floats do not hold
    /// its parts.
    fn complex_number(&mut self, parts: [f64; 2]) -> Result<ValueId> {
        let exact = parts.iter().all(|&x| x.is_nan() || f64::from(x as f32) == x);
        let (part, whole) = if exact {
            (DType::F32, DType::C64)
        } else {
            (DType::F64, DType::C128)
        };
        let mut values = Vec::with_capacity(2);
        for x in parts {
            let args = vec![Vec::<i64>::new().into(), x.into(), part.into()];
            values.push(self.make("aten::full", args, TensorType::fixed(part, &[]), "number")?);
        }
        self.make(
            "aten::complex",
            vec![values[0].into(), values[1].into()],
            TensorType::fixed(whole, &[]),
            "number",
        )
    }

    /// One argument as a parameter of this type takes it.
    pub fn argument<'g>(&mut self, scope: &mut Scope<'g>, argument: &'g Argument, ty: ParamType) -> Result<Arg> {
        use BaseType::*;
        // Parameters that mean nothing to a CPU program.
        if matches!(ty.base, Device | Generator) {
            return Ok(Arg::None);
        }
        if ty.list {
            return self.list(scope, argument, ty);
        }
        let wrong = || mismatch(argument, ty);
        Ok(match (argument, ty.base) {
            (Argument::None, _) if ty.optional || matches!(ty.base, Layout | MemoryFormat | DType | Any) => Arg::None,
            (Argument::Tensor(name), Tensor | Any) => Arg::Value(self.read_name(scope, name)?),
            (Argument::Tensor(name), Scalar) => Arg::Value(self.scalar_of(scope, name)?),
            (Argument::Int(i), Int | Scalar | Tensor | Any) => Arg::int(*i),
            (Argument::Int(i), Float) => Arg::Float(*i as f64),
            (Argument::Int(i @ 0..=1), Bool) => Arg::Bool(*i == 1),
            (Argument::Float(x), Float | Scalar | Tensor | Any) => Arg::Float(*x),
            (Argument::Float(x), Int) if x.fract() == 0.0 && x.abs() < 9e15 => Arg::int(*x as i64),
            (Argument::Bool(b), Bool | Scalar | Tensor | Any) => Arg::Bool(*b),
            (Argument::Bool(b), Int) => Arg::int(i64::from(*b)),
            (Argument::Bool(b), Float) => Arg::Float(f64::from(u8::from(*b))),
            (Argument::Complex(z), Tensor | Any) => Arg::Value(self.complex_number(z.parts())?),
            (Argument::Str(text), Str) => Arg::Str(text.clone()),
            (Argument::DType(code), DType) => Arg::DType(weights::dtype(*code)?),
            // c10's number of the type, where a schema says int.
            (Argument::DType(code), Int) => Arg::int(i64::from(weights::dtype(*code)?.pte_code())),
            (Argument::MemoryFormat(code), MemoryFormat) => Arg::MemoryFormat(memory_format(*code)?),
            (Argument::Layout(7), Layout) => Arg::None,
            (Argument::Layout(code), Layout) => {
                return Err(ImportError::unsupported(format!(
                    "layout code `{code}` (only strided tensors)"
                )));
            }
            (
                Argument::SymInt(arg) | Argument::SymFloat(arg) | Argument::SymBool(arg),
                Int | Float | Bool | Scalar | Tensor | Any,
            ) => {
                let boolean = matches!(argument, Argument::SymBool(_));
                symbolic(
                    scope.resolve(arg)?,
                    ty.base,
                    boolean,
                    matches!(argument, Argument::SymFloat(_)),
                )
            }
            _ => return Err(wrong()),
        })
    }

    fn list<'g>(&mut self, scope: &mut Scope<'g>, argument: &'g Argument, ty: ParamType) -> Result<Arg> {
        use BaseType::*;
        let wrong = || mismatch(argument, ty);
        let times = usize::from(ty.length.unwrap_or(1));
        Ok(match (argument, ty.base) {
            (Argument::None, _) if ty.optional => Arg::None,
            // An empty list is written as one of tensors or of integers where its type is not known.
            (Argument::Tensors(names), _) if names.is_empty() => empty(ty),
            (Argument::Ints(items), _) if items.is_empty() => empty(ty),
            (Argument::Floats(items), _) if items.is_empty() => empty(ty),
            (Argument::Tensors(names), Tensor) => {
                let values = names
                    .iter()
                    .map(|n| self.read_name(scope, n))
                    .collect::<Result<Vec<_>>>()?;
                match ty.optional_items {
                    true => Arg::OptionalValues(values.into_iter().map(Some).collect()),
                    false => Arg::Values(values),
                }
            }
            (Argument::OptionalTensors(names), Tensor) => {
                let read = |name: &Option<String>| name.as_ref().map(|n| self.read_name(scope, n)).transpose();
                let values: Vec<_> = names.iter().map(read).collect::<Result<_>>()?;
                match ty.optional_items {
                    true => Arg::OptionalValues(values),
                    false => Arg::Values(values.into_iter().collect::<Option<_>>().ok_or_else(wrong)?),
                }
            }
            (Argument::Ints(items), Int) => Arg::Ints(repeat(items.iter().map(|i| Expr::Int(*i)).collect(), times)),
            (Argument::Ints(items), Float) => Arg::Floats(items.iter().map(|i| *i as f64).collect()),
            (Argument::Ints(items), Scalar) => {
                Arg::Scalars(items.iter().map(|i| delegraph_types::Scalar::Int(*i)).collect())
            }
            (Argument::Floats(items), Float) => Arg::Floats(items.clone()),
            (Argument::Floats(items), Scalar) => {
                Arg::Scalars(items.iter().map(|x| delegraph_types::Scalar::Float(*x)).collect())
            }
            (Argument::Bools(items), Bool) => Arg::Bools(items.clone()),
            (Argument::Bools(items), Scalar) => {
                Arg::Scalars(items.iter().map(|b| delegraph_types::Scalar::Bool(*b)).collect())
            }
            (Argument::SymInts(items), Int) => {
                let sizes: Vec<Expr> = items.iter().map(|i| scope.size(i)).collect::<Result<_>>()?;
                Arg::Ints(repeat(sizes, times))
            }
            (Argument::SymInts(items), Float) => {
                let floats: Option<Vec<f64>> = items
                    .iter()
                    .map(|i| Ok(scope.size(i)?.as_int().map(|i| i as f64)))
                    .collect::<Result<_>>()?;
                Arg::Floats(floats.ok_or_else(|| ImportError::unsupported("a list of floats made of symbolic sizes"))?)
            }
            (Argument::SymFloats(items), Float) => {
                let floats: Option<Vec<f64>> = items
                    .iter()
                    .map(|x| match x {
                        SymArg::Float(x) => Some(*x),
                        SymArg::Int(i) => Some(*i as f64),
                        _ => None,
                    })
                    .collect();
                Arg::Floats(floats.ok_or_else(|| ImportError::unsupported("a list of symbolic floats"))?)
            }
            (Argument::SymBools(items), Bool) => {
                let bools: Option<Vec<bool>> = items
                    .iter()
                    .map(|b| match b {
                        SymArg::Bool(b) => Some(*b),
                        _ => None,
                    })
                    .collect();
                Arg::Bools(bools.ok_or_else(|| ImportError::unsupported("a list of symbolic booleans"))?)
            }
            // A single value stands for a list of equal ones.
            (Argument::Int(i), Int) => Arg::Ints(vec![Expr::Int(*i); times]),
            (Argument::Int(i), Float) => Arg::Floats(vec![*i as f64; times]),
            (Argument::Float(x), Float) => Arg::Floats(vec![*x; times]),
            (Argument::Bool(b), Bool) => Arg::Bools(vec![*b; times]),
            (Argument::SymInt(arg), Int) => Arg::Ints(vec![scope.size(arg)?; times]),
            _ => return Err(wrong()),
        })
    }
}

/// `int[2]` given one integer in a list means it for both.
fn repeat(items: Vec<Expr>, times: usize) -> Vec<Expr> {
    match items.as_slice() {
        [one] if times > 1 => vec![one.clone(); times],
        _ => items,
    }
}

fn empty(ty: ParamType) -> Arg {
    match ty.base {
        BaseType::Tensor if ty.optional_items => Arg::OptionalValues(Vec::new()),
        BaseType::Tensor | BaseType::Any => Arg::Values(Vec::new()),
        BaseType::Float => Arg::Floats(Vec::new()),
        BaseType::Bool => Arg::Bools(Vec::new()),
        BaseType::Scalar => Arg::Scalars(Vec::new()),
        _ => Arg::Ints(Vec::new()),
    }
}

fn symbolic(resolved: Resolved, base: BaseType, boolean: bool, float: bool) -> Arg {
    match resolved {
        Resolved::Value(value) => Arg::Value(value),
        Resolved::Bool(b) => Arg::Bool(b),
        Resolved::Float(x) => Arg::Float(x),
        Resolved::Expr(Expr::Float(bits)) => Arg::Float(f64::from_bits(bits)),
        Resolved::Expr(Expr::Int(i)) if boolean => Arg::Bool(i != 0),
        Resolved::Expr(Expr::Int(i)) if base == BaseType::Float || float => Arg::Float(i as f64),
        Resolved::Expr(expr) if base == BaseType::Float && !float => Arg::Sym(Expr::op(ExprOp::ToFloat, vec![expr])),
        Resolved::Expr(expr) if boolean || float => Arg::Sym(expr),
        Resolved::Expr(expr) => Arg::Int(expr),
    }
}

fn memory_format(code: i64) -> Result<MemoryFormat> {
    match code {
        1 => Ok(MemoryFormat::Contiguous),
        2 => Ok(MemoryFormat::ChannelsLast),
        3 => Ok(MemoryFormat::ChannelsLast3d),
        4 => Ok(MemoryFormat::Preserve),
        _ => Err(ImportError::malformed(format!("unknown memory format code `{code}`"))),
    }
}

fn mismatch(argument: &Argument, ty: ParamType) -> ImportError {
    let given = match argument {
        Argument::Complex(_) => return ImportError::unsupported("a complex number where no tensor can be"),
        Argument::Other(kind) => return ImportError::unsupported(format!("an argument of kind `{kind}`")),
        Argument::None => "None",
        Argument::Tensor(_) => "a tensor",
        Argument::Tensors(_) | Argument::OptionalTensors(_) => "a list of tensors",
        Argument::Int(_) | Argument::SymInt(_) => "an integer",
        Argument::Ints(_) | Argument::SymInts(_) => "a list of integers",
        Argument::Float(_) | Argument::SymFloat(_) => "a float",
        Argument::Floats(_) | Argument::SymFloats(_) => "a list of floats",
        Argument::Bool(_) | Argument::SymBool(_) => "a boolean",
        Argument::Bools(_) | Argument::SymBools(_) => "a list of booleans",
        Argument::Str(_) => "a string",
        Argument::DType(_) => "an element type",
        Argument::MemoryFormat(_) => "a memory format",
        Argument::Layout(_) => "a layout",
        Argument::Device => "a device",
        Argument::Graph(_) => "a graph",
    };
    let list = if ty.list { "[]" } else { "" };
    ImportError::malformed(format!("{given} is given where the schema says `{:?}{list}`", ty.base))
}

fn prefix(error: ImportError, text: &str) -> ImportError {
    let change = |mut report: Box<crate::error::Report>| {
        report.message = format!("{text}: {}", report.message);
        report
    };
    match error {
        ImportError::Malformed(report) => ImportError::Malformed(change(report)),
        ImportError::Unsupported(report) => ImportError::Unsupported(change(report)),
        other => other,
    }
}

/// A number as an argument, for operators that the importer makes itself.
pub(crate) fn number(argument: &Argument) -> Option<Scalar> {
    match argument {
        Argument::Int(i) => Some(Scalar::Int(*i)),
        Argument::Float(x) => Some(Scalar::Float(*x)),
        Argument::Bool(b) => Some(Scalar::Bool(*b)),
        _ => None,
    }
}
