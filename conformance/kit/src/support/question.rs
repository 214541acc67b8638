//! A recorded call as graphs of one node.

use crate::numerics::data;
use delegraph_ir::{
    Arg, Bytes, Constant, Expr, Graph, MemoryFormat, Module, Op, Quant, Symbol, SymbolRange, TensorType, Type, ValueId,
    infer,
};
use delegraph_lower::image::{Form, offer};
use delegraph_opset::{BaseType, DTypes, ParamType, Versions};
use delegraph_runner::Leaf;
use delegraph_runner::corpus::{Argument, Corpus, OpCase, Want};
use delegraph_runner::fixture::Tensors;
use delegraph_types::{DType, Dims, Scalar};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Type and sizes of a recorded tensor, by its key.
pub type TypeOf<'t> = &'t dyn Fn(&str) -> Option<(DType, Vec<i64>)>;

/// A graph of one node.
#[derive(Debug, Clone)]
pub struct Question {
    /// Operator with overload.
    pub op: String,
    /// dtype that the call is filed under: see [`main_dtype`].
    pub dtype: DType,
    /// Number of dimensions of the first tensor; of the result, where there is none.
    pub rank: usize,
    /// How it differs from the recorded call: empty, `dynamic`, `constants`, `quantized`.
    pub variant: &'static str,
    /// Key of the recorded call.
    pub key: String,
    /// `DGG1`.
    pub image: Vec<u8>,
}

impl Question {
    /// For people: operator, dtype, rank.
    pub fn name(&self) -> String {
        let variant = match self.variant {
            "" => String::new(),
            variant => format!(", {variant}"),
        };
        format!("`{}` in {}, rank {}{variant}", self.op, self.dtype, self.rank)
    }
}

/// Parameters whose tensors have a dtype of their own, even where it happens to be that of the call.
const OWN: [&str; 6] = ["condition", "index", "indices", "mask", "zero_point", "zero_points"];

/// How a question differs from the recorded call.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    /// Tensors of the main dtype get this one.
    dtype: Option<DType>,
    /// Sizes from 2 on are symbols with a bound.
    dynamic: bool,
    /// Every tensor but the first is a constant.
    constants: bool,
    /// Tensors of f32 are integers of this type that stand for them.
    storage: Option<DType>,
}

/// In which form questions are asked.
#[derive(Clone, Copy)]
pub struct Setting<'v> {
    /// Operator table and normal form.
    pub form: Form<'v>,
    /// With quantized types too: for delegates that have quantization folded into types.
    pub quantized: bool,
}

/// Scale of quantized tensors here.
const SCALE: f64 = 0.05;

/// All questions of a call: as recorded, in each dtype that the operator has in PyTorch, each with fixed and with dynamic sizes, and once
/// with constants. Those that make no graph, because PyTorch would refuse them, are left out.
pub fn questions(case: &OpCase, type_of: TypeOf<'_>, setting: Setting<'_>) -> Vec<Question> {
    let Some(op) = Op::find(&case.op) else {
        return Vec::new();
    };
    if op.schema().params.iter().any(|param| param.mutated) {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let main = main_dtype(case, type_of);
    let first = case.inputs().first().and_then(|key| Some(type_of(key)?.0));
    let others = match first == main || first.is_none() {
        true => op.dtypes(),
        // The table speaks of the mask.
        false => DTypes::parse("float int bool").unwrap_or_default(),
    };
    let mut variants = Vec::new();
    for dtype in std::iter::once(None).chain(others.iter().map(Some)) {
        for (name, dynamic, constants) in [("", false, false), ("dynamic", true, false), ("constants", false, true)] {
            variants.push(Variant {
                name,
                dtype,
                dynamic,
                constants,
                storage: None,
            });
        }
    }
    // Operators that quantize by themselves take what the types would say as arguments.
    if setting.quantized && main == Some(DType::F32) && !case.op.starts_with("quantized_decomposed::") {
        for (storage, constants) in [(DType::I8, false), (DType::I8, true), (DType::U8, false)] {
            variants.push(Variant {
                name: "quantized",
                dtype: None,
                dynamic: false,
                constants,
                storage: Some(storage),
            });
        }
    }
    for variant in variants {
        if let Some(question) = make(case, op, type_of, setting.form, variant)
            && seen.insert(question.image.clone())
        {
            all.push(question);
        }
    }
    all
}

/// All questions of the calls of an operator that the kit has recorded; of every operator for `None`.
///
/// # Errors
/// What is embedded is malformed.
pub fn of_kit(op: Option<&str>, setting: Setting<'_>) -> Result<Vec<Question>, String> {
    let tensors = data::call_tensors()?;
    let type_of = |key: &str| type_in(tensors, key);
    let calls = data::calls()?
        .iter()
        .filter(|call| op.is_none_or(|op| op == call.case.op));
    Ok(calls
        .flat_map(|call| questions(&call.case, &type_of, setting))
        .collect())
}

fn type_in(tensors: &Tensors, key: &str) -> Option<(DType, Vec<i64>)> {
    match tensors.get(key) {
        Some(Leaf::Tensor { dtype, shape, .. }) => Some((*dtype, shape.clone())),
        _ => None,
    }
}

/// All questions of a folder of recorded calls.
///
/// # Errors
/// The folder cannot be read.
pub fn questions_of(folder: &Path) -> Result<Vec<Question>, String> {
    let versions = Versions::builtin();
    let setting = Setting {
        form: Form::newest(&versions),
        quantized: true,
    };
    let mut corpus = Corpus::open(folder).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for i in 0..corpus.cases.len() {
        let case = corpus.cases[i].clone();
        let tensors = corpus.tensors(i).map_err(|error| error.to_string())?;
        all.extend(questions(&case, &|key| type_in(tensors, key), setting));
    }
    Ok(all)
}

/// The dtype that a call is about: of the first tensor, or of the result where there is none. A mask says nothing of the numbers: where the
/// first tensor is one, it is the dtype of the result, if another tensor has it.
fn main_dtype(case: &OpCase, type_of: TypeOf<'_>) -> Option<DType> {
    let inputs: Vec<DType> = case.inputs().iter().filter_map(|key| Some(type_of(key)?.0)).collect();
    let result = case.out.first().and_then(|want| match want {
        Want::Tensor(key) => Some(type_of(key)?.0),
        Want::Tensors(keys) => Some(type_of(keys.first()?)?.0),
        Want::Meta { dtype, .. } => DType::from_name(dtype),
        _ => None,
    });
    match inputs.first() {
        Some(DType::Bool) => result.filter(|dtype| inputs.contains(dtype)).or(Some(DType::Bool)),
        Some(first) => Some(*first),
        None => result,
    }
}

fn make(case: &OpCase, op: Op, type_of: TypeOf<'_>, form: Form<'_>, variant: Variant) -> Option<Question> {
    let main = main_dtype(case, type_of)?;
    let mut maker = Maker {
        type_of,
        main,
        variant,
        module: Module::default(),
        graph: Graph::new("forward"),
        tensors: 0,
        switches: true,
        parameter: String::new(),
        quants: BTreeMap::new(),
        alone: case.inputs().is_empty(),
    };
    let mut args = Vec::new();
    for param in &op.schema().params {
        args.push(match case.arg(&param.name) {
            Some(arg) => {
                maker.switches = !OWN.contains(&param.name.as_str());
                maker.parameter.clone_from(&param.name);
                maker.argument(arg, param.ty)?
            }
            None => Arg::None,
        });
    }
    let types = match infer(op, &args, &maker.graph, &maker.module.symbols) {
        Ok(types) => types,
        // Without a rule the recorded results say it, of the recorded call.
        Err(_) if variant.dtype.is_none_or(|dtype| dtype == main) && !variant.dynamic => maker.recorded(case)?,
        Err(_) => return None,
    };
    let results = maker.graph.push(op.name(), args, types).ok()?;
    if let Some(storage) = variant.storage {
        maker.quantize(storage);
    }
    for &result in &results {
        maker.graph.add_output(result);
    }
    let first = maker.graph.nodes.first()?.inputs().next();
    let rank = first
        .or(results.first().copied())
        .and_then(|value| maker.graph.tensor(value))
        .map_or(0, TensorType::rank);
    maker.module.graphs.push(maker.graph);
    let offered = offer(&maker.module, maker.module.graphs.first()?, form).ok()?;
    if offered.image.operators.is_empty() {
        return None;
    }
    Some(Question {
        op: op.name().to_string(),
        dtype: variant.dtype.or(variant.storage).unwrap_or(main),
        rank,
        variant: variant.name,
        key: case.key.clone(),
        image: offered.image.bytes,
    })
}

fn range(storage: DType) -> (i64, i64) {
    match storage {
        DType::U8 => (0, 255),
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (-128, 127),
    }
}

fn per_tensor(storage: DType) -> Quant {
    let (quant_min, quant_max) = range(storage);
    Quant::PerTensor {
        scale: SCALE,
        zero_point: 0,
        quant_min,
        quant_max,
    }
}

struct Maker<'t> {
    type_of: TypeOf<'t>,
    main: DType,
    variant: Variant,
    module: Module,
    graph: Graph,
    tensors: usize,
    /// The parameter at hand gets the variant's dtype.
    switches: bool,
    /// Its name.
    parameter: String,
    /// Quantized types of tensors, where they are not those of all.
    quants: BTreeMap<usize, (DType, Quant)>,
    /// The call has no tensors: its dtype is an argument.
    alone: bool,
}

impl Maker<'_> {
    fn input(&mut self, key: &str) -> Option<ValueId> {
        let (dtype, sizes) = (self.type_of)(key)?;
        let dtype = match self.variant.dtype {
            Some(other) if dtype == self.main && self.switches => other,
            _ => dtype,
        };
        let name = format!("x{}", self.tensors);
        self.tensors += 1;
        if self.variant.constants && self.tensors > 1 {
            let dims = Dims::new(&sizes).ok()?;
            let quant = match self.variant.storage {
                Some(storage) if dtype == DType::F32 => Some(self.constant_quant(storage, &sizes)?),
                _ => None,
            };
            let stored = quant.as_ref().map_or(dtype, |(stored, _)| *stored);
            let bytes = dims.numel()?.checked_mul(stored.size())?;
            let constant = Constant::contiguous(name.clone(), stored, dims, Bytes::from(vec![0; bytes]));
            let id = self.module.constants.push(constant);
            let value = self.graph.add_constant(name, TensorType::fixed(dtype, &sizes), id);
            if let Some(quant) = quant {
                self.quants.insert(value.index(), quant);
            }
            return Some(value);
        }
        let mut ty = TensorType::fixed(dtype, &sizes);
        for size in ty.shape.iter_mut().filter(|_| self.variant.dynamic) {
            if let Some(n @ 2..) = size.as_int() {
                let symbol = Symbol::new(&format!("d{n}"));
                *size = Expr::Symbol(symbol.clone());
                let range = SymbolRange { min: 2, max: Some(n) };
                self.module.symbols.ranges.insert(symbol, range);
            }
        }
        Some(self.graph.add_input(name, ty.into()))
    }

    /// As quantizers make constants: a weight has a scale for each slice of its first dimension, a bias is of 32 bits.
    fn constant_quant(&mut self, storage: DType, sizes: &[i64]) -> Option<(DType, Quant)> {
        match (self.parameter.as_str(), sizes) {
            ("weight", [slices, _, ..]) => {
                let dims = Dims::new(&[*slices]).ok()?;
                let scales: Vec<u8> = (0..*slices).flat_map(|_| (SCALE as f32).to_le_bytes()).collect();
                let constant = Constant::contiguous("scales", DType::F32, dims, Bytes::from(scales));
                let (quant_min, quant_max) = range(storage);
                let quant = Quant::PerAxis {
                    axis: 0,
                    scales: self.module.constants.push(constant),
                    zero_points: None,
                    quant_min,
                    quant_max,
                };
                Some((storage, quant))
            }
            ("bias", _) => Some((DType::I32, per_tensor(DType::I32))),
            _ => Some((storage, per_tensor(storage))),
        }
    }

    /// Every tensor of f32 becomes one of integers that stand for it.
    fn quantize(&mut self, storage: DType) {
        for (i, value) in self.graph.values.iter_mut().enumerate() {
            if let Type::Tensor(ty) = &mut value.ty
                && ty.dtype == DType::F32
            {
                let quant = self.quants.remove(&i);
                let (dtype, quant) = quant.unwrap_or_else(|| (storage, per_tensor(storage)));
                (ty.dtype, ty.quant) = (dtype, Some(quant));
            }
        }
    }

    fn argument(&mut self, arg: &Argument, ty: ParamType) -> Option<Arg> {
        Some(match arg {
            Argument::None | Argument::Place => Arg::None,
            Argument::Tensor(key) => Arg::Value(self.input(key)?),
            Argument::Tensors(keys) => {
                let mut values = Vec::new();
                for key in keys {
                    values.push(match key {
                        Some(key) => Some(self.input(key)?),
                        None => None,
                    });
                }
                match ty.optional_items {
                    true => Arg::OptionalValues(values),
                    false => Arg::Values(values.into_iter().flatten().collect()),
                }
            }
            // One integer stands for a list of equal ones.
            Argument::Number(Scalar::Int(i)) if ty.list => Arg::ints(&vec![*i; usize::from(ty.length.unwrap_or(1))]),
            Argument::Number(Scalar::Int(i)) if ty.base == BaseType::Float => Arg::Float(*i as f64),
            Argument::Number(number) => Arg::scalar(*number),
            Argument::Str(text) => Arg::Str(text.clone()),
            Argument::Ints(items) if ty.base == BaseType::Float => {
                Arg::Floats(items.iter().map(|i| *i as f64).collect())
            }
            Argument::Ints(items) => Arg::ints(items),
            Argument::Floats(items) => Arg::Floats(items.clone()),
            Argument::Bools(items) => Arg::Bools(items.clone()),
            Argument::Scalars(items) => Arg::Scalars(items.clone()),
            Argument::DType(name) => {
                let dtype = DType::from_name(name)?;
                Arg::DType(
                    self.variant
                        .dtype
                        .filter(|_| self.alone && dtype == self.main)
                        .unwrap_or(dtype),
                )
            }
            Argument::MemoryFormat(name) => Arg::MemoryFormat(match name.as_str() {
                "contiguous_format" => MemoryFormat::Contiguous,
                "preserve_format" => MemoryFormat::Preserve,
                "channels_last" => MemoryFormat::ChannelsLast,
                "channels_last_3d" => MemoryFormat::ChannelsLast3d,
                _ => return None,
            }),
        })
    }

    /// The types of the recorded results.
    fn recorded(&self, case: &OpCase) -> Option<Vec<Type>> {
        let of = |key: &String| {
            let (dtype, sizes) = (self.type_of)(key)?;
            Some(Type::from(TensorType::fixed(dtype, &sizes)))
        };
        let mut types = Vec::new();
        for want in &case.out {
            match want {
                Want::Tensor(key) => types.push(of(key)?),
                Want::Tensors(keys) => types.extend(keys.iter().map(of).collect::<Option<Vec<_>>>()?),
                Want::Meta { dtype, shape } => types.push(TensorType::fixed(DType::from_name(dtype)?, shape).into()),
                Want::Number(_) | Want::Skip => return None,
            }
        }
        Some(types)
    }
}
