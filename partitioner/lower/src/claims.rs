//! A delegate as its manifest describes it: the answers of `partition`, from the claims alone, without a library.

use crate::Backend;
use delegraph_abi::Status;
use delegraph_abi::image::verify;
use delegraph_host::claims::{Literal, OperatorTable, Parameter};
use delegraph_host::{Claims, DelegateError, Manifest, NodeVerdict, Partition, Pass, Weights};
use delegraph_opset::{Default, Op};

/// The operator table, as claims ask for it.
#[derive(Debug, Clone, Copy)]
pub struct Operators;

impl OperatorTable for Operators {
    fn parameters(&self, op: &str) -> Option<Vec<Parameter>> {
        let params = Op::find(op)?.schema().params;
        let parameter = |param: delegraph_opset::Param| Parameter {
            default: param.default.map(literal),
            name: param.name,
        };
        Some(params.into_iter().map(parameter).collect())
    }

    fn names(&self) -> Vec<&'static str> {
        Op::all().map(Op::name).collect()
    }
}

fn literal(default: Default) -> Literal {
    match default {
        Default::None => Literal::None,
        Default::Bool(b) => Literal::Bool(b),
        Default::Int(i) => Literal::Int(i),
        Default::Float(x) => Literal::Float(x),
        Default::Str(text) => Literal::Text(text),
        Default::Ints(items) => Literal::List(items.into_iter().map(Literal::Int).collect()),
        Default::Floats(items) => Literal::List(items.into_iter().map(Literal::Float).collect()),
        Default::Bools(items) => Literal::List(items.into_iter().map(Literal::Bool).collect()),
    }
}

/// Somebody who partitions by the claims of a manifest and compiles nothing: every region gets an empty blob, which no delegate takes.
/// For reports about what a delegate would take.
#[derive(Debug, Clone)]
pub struct ClaimsBackend {
    name: String,
    passes: Vec<Pass>,
    claims: Claims,
}

impl ClaimsBackend {
    /// The delegate that a manifest is about. What it leaves unclaimed is refused.
    pub fn new(manifest: &Manifest) -> ClaimsBackend {
        ClaimsBackend {
            name: manifest.name.clone(),
            passes: manifest.passes.clone(),
            claims: manifest.claims.clone(),
        }
    }
}

impl Backend for ClaimsBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn passes(&self) -> &[Pass] {
        &self.passes
    }

    fn partition(&self, image: &[u8], _: &str) -> Result<Partition, DelegateError> {
        let view = verify(image).map_err(|problem| DelegateError {
            backend: self.name.as_str().into(),
            code: Status::INVALID_ARGUMENT,
            vendor_code: 0,
            node: None,
            message: format!("the image is malformed: {problem:?}"),
            hint: String::new(),
        })?;
        let verdict = |node| match self.claims.judge(&node, &Operators) {
            Ok(_) => NodeVerdict {
                supported: true,
                code: 0,
                reason: String::new(),
            },
            Err(unclaimed) => NodeVerdict {
                supported: false,
                code: unclaimed.kind.0,
                reason: unclaimed.reason,
            },
        };
        Ok(Partition {
            verdicts: view.nodes().map(verdict).collect(),
            atomic_sets: Vec::new(),
        })
    }

    fn compile(&self, _: &[u8], _: &dyn Weights, _: &str) -> Result<Vec<u8>, DelegateError> {
        Ok(Vec::new())
    }
}
