//! Type inference against what PyTorch recorded: every call of the committed corpus, with constant sizes and then with symbols in
//! their place. `DELEGRAPH_CORPUS` names a larger corpus to run in its stead.

use delegraph_ir::{
    Arg, Expr, Graph, InferError, MemoryFormat, Op, Symbol, SymbolRange, Symbols, TensorType, Type, ValueId, infer,
};
use delegraph_runner::Leaf;
use delegraph_runner::corpus::{Argument, Corpus, OpCase, Want};
use delegraph_runner::fixture::Tensors;
use delegraph_types::{DType, Scalar};
use std::path::{Path, PathBuf};

enum Outcome {
    Right,
    /// Got, wanted.
    Wrong(String, String),
    /// No rule, or none for symbolic sizes.
    Unsupported,
    /// A size that depends on data, or an operator that writes to its arguments.
    Skipped,
}

/// What becomes of the cases: how many are right, and those that have no rule.
fn infer_all(symbolic: bool) -> (usize, Vec<String>) {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/corpus");
    let folder = std::env::var_os("DELEGRAPH_CORPUS").map_or(committed, PathBuf::from);
    let mut corpus = Corpus::open(&folder).unwrap();
    let (mut right, mut unsupported, mut wrong) = (0, Vec::new(), Vec::new());
    for i in 0..corpus.cases.len() {
        let case = corpus.cases[i].clone();
        match run(&case, corpus.tensors(i).unwrap(), symbolic) {
            Outcome::Right => right += 1,
            Outcome::Skipped => {}
            Outcome::Unsupported => unsupported.push(case.id()),
            Outcome::Wrong(got, want) => wrong.push(format!("{}: got {got}, want {want}; {:?}", case.id(), case.args)),
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    (right, unsupported)
}

#[test]
fn constant_sizes() {
    let (right, unsupported) = infer_all(false);
    assert!(
        right >= 1000 && unsupported.is_empty(),
        "{right} right, no rule for {unsupported:?}"
    );
}

#[test]
fn symbolic_sizes() {
    let (right, unsupported) = infer_all(true);
    assert!(right >= 900, "{right} right, no rule for {unsupported:?}");
}

/// Infers the types of a case. With `symbolic`, sizes of 2 and more are symbols, equal ones the same symbol, and the inferred sizes
/// are evaluated again.
fn run(case: &OpCase, tensors: &Tensors, symbolic: bool) -> Outcome {
    let Some(op) = Op::find(&case.op) else {
        return Outcome::Unsupported;
    };
    if op.schema().params.iter().any(|param| param.mutated) {
        return Outcome::Skipped;
    }
    let mut maker = Maker {
        graph: Graph::new("case"),
        tensors,
        symbols: Symbols::default(),
        symbolic,
    };
    let want = maker.results(case);
    let params = op.schema().params;
    let args: Vec<Arg> = params
        .iter()
        .map(|param| case.arg(&param.name).map_or(Arg::None, |arg| maker.argument(arg)))
        .collect();
    match infer(op, &args, &maker.graph, &maker.symbols) {
        Ok(got) => {
            let got: Vec<Type> = got.iter().map(evaluated).collect();
            let same = |(got, want): (&Type, &Option<Type>)| match want {
                None => true,
                Some(Type::Int(_)) => matches!(got, Type::Int(_)),
                Some(want) => got == want,
            };
            match got.len() == want.len() && got.iter().zip(&want).all(same) {
                true => Outcome::Right,
                false => Outcome::Wrong(text(got.iter().map(Some)), text(want.iter().map(Option::as_ref))),
            }
        }
        Err(InferError::DataDependent { .. }) => Outcome::Skipped,
        Err(InferError::Unsupported { .. }) => Outcome::Unsupported,
        Err(error) => Outcome::Wrong(error.to_string(), text(want.iter().map(Option::as_ref))),
    }
}

fn text<'t>(types: impl Iterator<Item = Option<&'t Type>>) -> String {
    let types: Vec<String> = types.map(|ty| ty.map_or("?".to_string(), Type::to_string)).collect();
    types.join(" ")
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

struct Maker<'t> {
    graph: Graph,
    tensors: &'t Tensors,
    symbols: Symbols,
    symbolic: bool,
}

impl Maker<'_> {
    fn ty(&self, key: &str) -> TensorType {
        match self.tensors.get(key) {
            Some(Leaf::Tensor { dtype, shape, .. }) => TensorType::fixed(*dtype, shape),
            _ => panic!("no tensor `{key}`"),
        }
    }

    fn input(&mut self, key: &str) -> ValueId {
        let mut ty = self.ty(key);
        for size in ty.shape.iter_mut().filter(|_| self.symbolic) {
            if let Some(n @ 2..) = size.as_int() {
                let symbol = Symbol::new(&format!("d{n}"));
                *size = Expr::Symbol(symbol.clone());
                self.symbols.ranges.insert(symbol, SymbolRange { min: 2, max: None });
            }
        }
        self.graph.add_input("x", ty.into())
    }

    fn argument(&mut self, arg: &Argument) -> Arg {
        match arg {
            Argument::None | Argument::Place => Arg::None,
            Argument::Tensor(key) => Arg::Value(self.input(key)),
            Argument::Tensors(keys) => {
                let keys = keys.iter().map(|key| key.as_deref().map(|key| self.input(key)));
                let all: Vec<_> = keys.collect();
                match all.iter().all(Option::is_some) {
                    true => Arg::Values(all.into_iter().flatten().collect()),
                    false => Arg::OptionalValues(all),
                }
            }
            Argument::Number(number) => Arg::scalar(*number),
            Argument::Str(text) => Arg::Str(text.clone()),
            Argument::Ints(items) => Arg::ints(items),
            Argument::Floats(items) => Arg::Floats(items.clone()),
            Argument::Bools(items) => Arg::Bools(items.clone()),
            Argument::Scalars(items) => Arg::Scalars(items.clone()),
            Argument::DType(name) => DType::from_name(name).map_or(Arg::None, Arg::DType),
            Argument::MemoryFormat(_) => Arg::MemoryFormat(MemoryFormat::Contiguous),
        }
    }

    /// The recorded types; `None` where one is not determined.
    fn results(&self, case: &OpCase) -> Vec<Option<Type>> {
        let mut results = Vec::new();
        for want in &case.out {
            match want {
                Want::Tensor(key) => results.push(Some(self.ty(key).into())),
                Want::Tensors(keys) => results.extend(keys.iter().map(|key| Some(self.ty(key).into()))),
                Want::Meta { dtype, shape } => {
                    results.push(DType::from_name(dtype).map(|dtype| TensorType::fixed(dtype, shape).into()));
                }
                Want::Number(Scalar::Int(i)) => results.push(Some(Type::Int(Expr::Int(*i)))),
                Want::Number(Scalar::Float(_)) => results.push(Some(Type::Float)),
                Want::Number(Scalar::Bool(_)) => results.push(Some(Type::Bool)),
                Want::Skip => results.push(None),
            }
        }
        results
    }
}
