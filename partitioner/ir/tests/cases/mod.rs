//! Recorded calls of operators: their arguments' types and what PyTorch returned. Shared by the test of the committed sample
//! and by the example that reads a whole corpus.

use delegraph_ir::{
    Arg, Expr, Graph, InferError, MemoryFormat, Op, Symbol, SymbolRange, Symbols, TensorType, Type, infer,
};
use delegraph_types::{DType, Scalar};
use serde_json::Value as Json;

/// What came of a case.
pub enum Outcome {
    Right,
    /// Got, wanted.
    Wrong(String, String),
    /// No rule, or none for symbolic sizes.
    Unsupported(String),
    /// A size that depends on data, or a result that is no tensor.
    Skipped,
}

/// Infers the types of a case; `types` knows the tensors that it names. With `symbolic`, sizes of 2 and more are symbols, equal
/// ones the same symbol, and the inferred sizes are evaluated again.
pub fn run(case: &Json, types: &dyn Fn(&str) -> TensorType, symbolic: bool) -> Outcome {
    let name = case["op"].as_str().unwrap_or_default();
    let Some(op) = Op::find(name) else {
        return Outcome::Unsupported(format!("{name} is not in the table"));
    };
    let Some(want) = results(&case["out"], types) else {
        return Outcome::Skipped;
    };
    let mut symbols = Symbols::default();
    let mut maker = Maker {
        graph: Graph::new("case"),
        types,
        symbols: symbolic.then_some(&mut symbols),
    };
    let recorded = case["args"].as_array().cloned().unwrap_or_default();
    let argument = |name: &str| recorded.iter().find(|a| a[0] == name).map(|a| a[1].clone());
    let args: Vec<Arg> = op
        .schema()
        .params
        .iter()
        .map(|p| argument(&p.name).map_or(Arg::None, |a| maker.argument(&a)))
        .collect();
    let graph = maker.graph;
    match infer(op, &args, &graph, &symbols) {
        Ok(got) => {
            let got: Vec<Type> = got.iter().map(evaluated).collect();
            let same = |(g, w): (&Type, &Option<Type>)| w.as_ref().is_none_or(|w| g == w);
            match got.len() == want.len() && got.iter().zip(&want).all(same) {
                true => Outcome::Right,
                false => Outcome::Wrong(text(got.iter().map(Some)), text(want.iter().map(Option::as_ref))),
            }
        }
        Err(InferError::DataDependent { .. }) => Outcome::Skipped,
        Err(error @ InferError::Unsupported { .. }) => Outcome::Unsupported(error.to_string()),
        Err(error) => Outcome::Wrong(error.to_string(), text(want.iter().map(Option::as_ref))),
    }
}

fn text<'t>(types: impl Iterator<Item = Option<&'t Type>>) -> String {
    types
        .map(|t| t.map_or("?".into(), Type::to_string))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Symbol `d7` stands for 7.
fn evaluated(ty: &Type) -> Type {
    let value = |symbol: &Symbol| symbol.0[1..].parse().ok();
    match ty {
        Type::Tensor(t) => {
            let shape = t.shape.iter().map(|e| e.eval(&value).map_or(e.clone(), Expr::Int));
            TensorType::new(t.dtype, shape.collect()).into()
        }
        other => other.clone(),
    }
}

struct Maker<'a> {
    graph: Graph,
    types: &'a dyn Fn(&str) -> TensorType,
    symbols: Option<&'a mut Symbols>,
}

impl Maker<'_> {
    fn input(&mut self, key: &Json) -> delegraph_ir::ValueId {
        let mut ty = (self.types)(key.as_str().unwrap_or_default());
        if let Some(symbols) = &mut self.symbols {
            for size in &mut ty.shape {
                if let Some(n @ 2..) = size.as_int() {
                    let symbol = Symbol::new(&format!("d{n}"));
                    *size = Expr::Symbol(symbol.clone());
                    symbols.ranges.insert(symbol, SymbolRange { min: 2, max: None });
                }
            }
        }
        self.graph.add_input("x", ty.into())
    }

    fn argument(&mut self, value: &Json) -> Arg {
        let Some((kind, value)) = value.as_object().and_then(|o| o.iter().next()) else {
            return Arg::None;
        };
        let items = value.as_array().cloned().unwrap_or_default();
        match kind.as_str() {
            "t" => Arg::Value(self.input(value)),
            "tl" => {
                let all: Vec<_> = items.iter().map(|k| (!k.is_null()).then(|| self.input(k))).collect();
                match all.iter().all(Option::is_some) {
                    true => Arg::Values(all.into_iter().flatten().collect()),
                    false => Arg::OptionalValues(all),
                }
            }
            "i" => Arg::int(value.as_i64().unwrap_or(0)),
            "f" => Arg::Float(float(value)),
            "b" => Arg::Bool(value == true),
            "s" => Arg::Str(value.as_str().unwrap_or_default().into()),
            "il" => Arg::ints(&items.iter().filter_map(Json::as_i64).collect::<Vec<_>>()),
            "fl" => Arg::Floats(items.iter().map(float).collect()),
            "bl" => Arg::Bools(items.iter().map(|b| b == true).collect()),
            "sl" => Arg::Scalars(items.iter().map(scalar).collect()),
            "dtype" => DType::from_name(value.as_str().unwrap_or_default()).map_or(Arg::None, Arg::DType),
            "memory_format" => Arg::MemoryFormat(MemoryFormat::Contiguous),
            _ => Arg::None,
        }
    }
}

fn float(value: &Json) -> f64 {
    let text = || value.as_str().and_then(|s| s.parse().ok());
    value.as_f64().or_else(text).unwrap_or(f64::NAN)
}

fn scalar(value: &Json) -> Scalar {
    match (value.get("i"), value.get("b")) {
        (Some(i), _) => Scalar::Int(i.as_i64().unwrap_or(0)),
        (_, Some(b)) => Scalar::Bool(b == true),
        _ => Scalar::Float(float(&value["f"])),
    }
}

/// The recorded types, `None` where one is not checked; nothing where a result is an integer, which needs a symbol.
fn results(out: &Json, types: &dyn Fn(&str) -> TensorType) -> Option<Vec<Option<Type>>> {
    let mut results = Vec::new();
    for item in out.as_array()? {
        let known = |key: &Json| Some(Type::from(types(key.as_str()?)));
        let (kind, value) = item.as_object()?.iter().next()?;
        match kind.as_str() {
            "t" => results.push(Some(known(value)?)),
            "tl" => results.extend(value.as_array()?.iter().map(known)),
            "skip" => results.push(None),
            "meta" => {
                let dtype = DType::from_name(value["dtype"].as_str()?)?;
                let sizes: Vec<i64> = value["shape"].as_array()?.iter().filter_map(Json::as_i64).collect();
                results.push(Some(TensorType::fixed(dtype, &sizes).into()));
            }
            "f" => results.push(Some(Type::Float)),
            "b" => results.push(Some(Type::Bool)),
            _ => return None,
        }
    }
    Some(results)
}
