//! Runs one node on the portable kernels, over constants.

use delegraph_ir::{Arg, Bytes, Constant, Expr, MemoryFormat, Op, TensorType, ValueId};
use delegraph_kernels::{Buffer, Call, Growable, KernelError, Out, Scratch, Tensor};
use delegraph_opset::{BaseType, Default, Param};
use delegraph_types::{DType, Dims, Scalar};
use std::sync::Arc;

/// Why a node could not be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no kernel for the operator.
    #[error("operator `{0}` has no kernel")]
    NoKernel(Op),
    /// An argument is not constant, or not of a kind that kernels take.
    #[error("argument `{0}` is not a constant")]
    NotConstant(String),
    /// A result has no constant sizes, or not those that were recorded.
    #[error("the result is not of the recorded size")]
    Size,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Runs `op` on `args`; `constant` gives the contents of the values they read. The results have `types`, in order.
///
/// # Errors
/// See [`RunError`].
pub fn run(
    op: Op,
    args: &[Arg],
    constant: &dyn Fn(ValueId) -> Option<Constant>,
    types: &[TensorType],
) -> Result<Vec<(DType, Dims, Bytes)>, RunError> {
    let sizes: Option<Vec<Dims>> = types.iter().map(TensorType::static_dims).collect();
    let sizes = sizes.ok_or(RunError::Size)?;
    let dtypes: Vec<DType> = types.iter().map(|ty| ty.dtype).collect();
    let results = run_sized_by_kernel(op, args, constant, &dtypes)?;
    match results.iter().zip(&sizes).all(|((_, have, _), want)| have == want) {
        true => Ok(results),
        false => Err(RunError::Size),
    }
}

/// [`run`], where the kernel says what sizes the results have. They have `dtypes`, in order.
///
/// # Errors
/// See [`RunError`].
pub fn run_sized_by_kernel(
    op: Op,
    args: &[Arg],
    constant: &dyn Fn(ValueId) -> Option<Constant>,
    dtypes: &[DType],
) -> Result<Vec<(DType, Dims, Bytes)>, RunError> {
    let target = op.out_variant().ok_or(RunError::NoKernel(op))?;
    let kernel = delegraph_kernels::find(target.name()).ok_or(RunError::NoKernel(op))?;
    let (schema, out_schema) = (op.schema(), target.schema());
    let mut inputs = Inputs {
        constant,
        tensors: Vec::new(),
    };
    let mut prepared = Vec::new();
    for param in out_schema.inputs() {
        prepared.push(match schema.position(&param.name).and_then(|i| args.get(i)) {
            Some(arg) => inputs.argument(param, arg)?,
            None => default(param),
        });
    }
    let tensors: Vec<Tensor> = inputs.tensors.iter().map(Input::tensor).collect::<Result<_, _>>()?;
    let lists: Vec<(Vec<Tensor>, Vec<Option<Tensor>>)> = prepared.iter().map(|p| p.lists(&tensors)).collect();
    let kernel_args: Vec<delegraph_kernels::Arg> = prepared
        .iter()
        .zip(&lists)
        .map(|(p, list)| p.arg(&tensors, list))
        .collect();
    let mut memory: Vec<Growable> = dtypes.iter().map(|_| Growable::default()).collect();
    let mut sizes = Vec::with_capacity(dtypes.len());
    {
        let mut outs: Vec<Out> = dtypes
            .iter()
            .zip(&mut memory)
            .map(|(dtype, memory)| Out::new(*dtype, Dims::filled(1, 0), &Dims::SCALAR, Buffer::Growable(memory)))
            .collect();
        let mut scratch = Scratch::default();
        let mut call = Call {
            args: &kernel_args,
            outs: &mut outs,
            scratch: &mut scratch,
            result: None,
        };
        kernel(&mut call)?;
        sizes.extend(outs.iter().map(|out| *out.sizes()));
    }
    let mut results = Vec::with_capacity(dtypes.len());
    for ((dtype, memory), dims) in dtypes.iter().zip(memory).zip(sizes) {
        let length = dims
            .numel()
            .and_then(|n| n.checked_mul(dtype.size()))
            .ok_or(RunError::Size)?;
        let bytes = Bytes::new(Arc::new(Aligned(memory)))
            .slice(0, length)
            .ok_or(RunError::Size)?;
        results.push((*dtype, dims, bytes));
    }
    Ok(results)
}

/// Memory of a result, kept as it is.
struct Aligned(Growable);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A tensor that is read: in place where its bytes are aligned.
struct Input {
    dtype: DType,
    sizes: Dims,
    strides: Dims,
    bytes: Bytes,
}

impl Input {
    fn new(constant: &Constant) -> Option<Input> {
        let bytes = constant.to_contiguous()?;
        let misaligned = !(bytes.as_slice().as_ptr() as usize).is_multiple_of(constant.dtype.size());
        let bytes = match misaligned {
            false => bytes,
            true => {
                let mut memory = Growable::default();
                memory
                    .reserve(bytes.as_slice().len())
                    .ok()?
                    .copy_from_slice(bytes.as_slice());
                Bytes::new(Arc::new(Aligned(memory)))
            }
        };
        Some(Input {
            dtype: constant.dtype,
            sizes: constant.sizes,
            strides: constant.sizes.contiguous_strides(),
            bytes,
        })
    }

    fn tensor(&self) -> Result<Tensor<'_>, KernelError> {
        Tensor::new(self.dtype, &self.sizes, &self.strides, self.bytes.as_slice())
    }
}

/// An argument with its memory; tensors are positions in the list of inputs.
enum Prepared {
    None,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Tensor(usize),
    Tensors(Vec<usize>),
    OptionalTensors(Vec<Option<usize>>),
}

impl Prepared {
    fn lists<'t>(&self, tensors: &[Tensor<'t>]) -> (Vec<Tensor<'t>>, Vec<Option<Tensor<'t>>>) {
        match self {
            Prepared::Tensors(items) => (items.iter().map(|i| tensors[*i]).collect(), Vec::new()),
            Prepared::OptionalTensors(items) => (Vec::new(), items.iter().map(|i| i.map(|i| tensors[i])).collect()),
            _ => (Vec::new(), Vec::new()),
        }
    }

    fn arg<'t>(
        &'t self,
        tensors: &[Tensor<'t>],
        list: &'t (Vec<Tensor<'t>>, Vec<Option<Tensor<'t>>>),
    ) -> delegraph_kernels::Arg<'t> {
        use delegraph_kernels::Arg;
        match self {
            Prepared::None => Arg::None,
            Prepared::Int(i) => Arg::Int(*i),
            Prepared::Float(f) => Arg::Float(*f),
            Prepared::Bool(b) => Arg::Bool(*b),
            Prepared::Str(s) => Arg::Str(s),
            Prepared::Ints(items) => Arg::Ints(items),
            Prepared::Floats(items) => Arg::Floats(items),
            Prepared::Bools(items) => Arg::Bools(items),
            Prepared::Tensor(i) => Arg::Tensor(tensors[*i]),
            Prepared::Tensors(_) => Arg::Tensors(&list.0),
            Prepared::OptionalTensors(_) => Arg::OptionalTensors(&list.1),
        }
    }
}

struct Inputs<'a> {
    constant: &'a dyn Fn(ValueId) -> Option<Constant>,
    tensors: Vec<Input>,
}

impl Inputs<'_> {
    fn tensor(&mut self, id: ValueId, param: &Param) -> Result<usize, RunError> {
        let input = (self.constant)(id).as_ref().and_then(Input::new);
        self.tensors
            .push(input.ok_or_else(|| RunError::NotConstant(param.name.clone()))?);
        Ok(self.tensors.len() - 1)
    }

    fn argument(&mut self, param: &Param, arg: &Arg) -> Result<Prepared, RunError> {
        let symbolic = || RunError::NotConstant(param.name.clone());
        let int = |e: &Expr| e.as_int().ok_or_else(symbolic);
        Ok(match arg {
            Arg::None => Prepared::None,
            Arg::Value(id) => Prepared::Tensor(self.tensor(*id, param)?),
            Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) if param.ty.base == BaseType::Tensor => return Err(symbolic()),
            Arg::Int(e) if param.ty.list => Prepared::Ints(vec![int(e)?]),
            Arg::Int(e) => Prepared::Int(int(e)?),
            Arg::Float(f) => Prepared::Float(*f),
            Arg::Bool(b) => Prepared::Bool(*b),
            Arg::Str(s) => Prepared::Str(s.clone()),
            Arg::DType(dtype) => Prepared::Int(i64::from(dtype.pte_code())),
            Arg::MemoryFormat(format) => Prepared::Int(match format {
                MemoryFormat::Contiguous => 0,
                MemoryFormat::Preserve => 1,
                MemoryFormat::ChannelsLast => 2,
                MemoryFormat::ChannelsLast3d => 3,
            }),
            Arg::Ints(items) if param.ty.base == BaseType::Float => Prepared::Floats(
                items
                    .iter()
                    .map(|e| int(e).map(|i| i as f64))
                    .collect::<Result<_, _>>()?,
            ),
            Arg::Ints(items) => Prepared::Ints(items.iter().map(int).collect::<Result<_, _>>()?),
            Arg::Floats(items) => Prepared::Floats(items.clone()),
            Arg::Bools(items) => Prepared::Bools(items.clone()),
            Arg::Scalars(items) => Prepared::Floats(items.iter().map(|s: &Scalar| s.as_f64()).collect()),
            Arg::Values(items) => {
                let items = items
                    .iter()
                    .map(|id| self.tensor(*id, param))
                    .collect::<Result<Vec<_>, _>>()?;
                match param.ty.optional_items {
                    true => Prepared::OptionalTensors(items.into_iter().map(Some).collect()),
                    false => Prepared::Tensors(items),
                }
            }
            Arg::OptionalValues(items) => Prepared::OptionalTensors(
                items
                    .iter()
                    .map(|id| id.map(|id| self.tensor(id, param)).transpose())
                    .collect::<Result<_, _>>()?,
            ),
            Arg::Sym(_) | Arg::Graph(_) => return Err(symbolic()),
        })
    }
}

fn default(param: &Param) -> Prepared {
    match &param.default {
        None | Some(Default::None) => Prepared::None,
        Some(Default::Bool(b)) => Prepared::Bool(*b),
        Some(Default::Int(i)) => Prepared::Int(*i),
        Some(Default::Float(f)) => Prepared::Float(*f),
        Some(Default::Str(s)) => Prepared::Str(s.clone()),
        Some(Default::Ints(items)) => Prepared::Ints(items.clone()),
        Some(Default::Floats(items)) => Prepared::Floats(items.clone()),
        Some(Default::Bools(items)) => Prepared::Bools(items.clone()),
    }
}
