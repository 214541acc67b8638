//! Bundled programs (`.bpte`): a program with its test cases.

use crate::PteError;
use crate::generated::bundled as fb;
use crate::header;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use delegraph_types::{DType, Dims};

/// A checked bundle. The program inside is not parsed: give `program` to [`crate::Verified::parse`].
#[derive(Debug, Clone, PartialEq)]
pub struct BundledProgram<'a> {
    /// The `.pte` file inside.
    pub program: &'a [u8],
    /// Test cases by method.
    pub suites: Vec<TestSuite<'a>>,
}

/// The cases of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct TestSuite<'a> {
    /// Method name.
    pub method: String,
    /// Its cases.
    pub cases: Vec<TestCase<'a>>,
}

/// Inputs and the outputs that they should give, both by position.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct TestCase<'a> {
    pub inputs: Vec<BundledValue<'a>>,
    pub expected: Vec<BundledValue<'a>>,
}

/// A value of a case.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum BundledValue<'a> {
    Tensor(BundledTensor<'a>),
    Int(i64),
    Bool(bool),
    Double(f64),
}

/// A tensor of a case; its bytes need not be aligned.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct BundledTensor<'a> {
    pub dtype: DType,
    pub sizes: Dims,
    pub dim_order: Vec<u8>,
    pub data: &'a [u8],
}

impl<'a> BundledProgram<'a> {
    /// Reads and checks a `.bpte` file.
    ///
    /// # Errors
    /// Another kind of file, a damaged one, or one that contradicts itself.
    pub fn parse(bytes: &'a [u8]) -> Result<BundledProgram<'a>, PteError> {
        header::check_identifier(bytes, ".bpte", "BP08")?;
        let options = header::verifier_options(bytes.len());
        let root = fb::root_as_bundled_program_with_opts(&options, bytes).map_err(header::damaged)?;
        let Some(program) = root.program() else {
            return Err(PteError::invalid("bundle", "no program"));
        };
        let mut suites = Vec::new();
        for suite in root.method_test_suites().unwrap_or_default() {
            let method = suite.method_name().unwrap_or_default().to_string();
            let mut cases = Vec::new();
            for (index, case) in suite.test_cases().unwrap_or_default().iter().enumerate() {
                let list = |what: &str, items: flatbuffers::Vector<'a, flatbuffers::ForwardsUOffset<fb::Value<'a>>>| {
                    items
                        .iter()
                        .enumerate()
                        .map(|(i, item)| value(&item, || format!("method `{method}`, case {index}, {what} {i}")))
                        .collect::<Result<Vec<_>, _>>()
                };
                cases.push(TestCase {
                    inputs: list("input", case.inputs().unwrap_or_default())?,
                    expected: list("expected output", case.expected_outputs().unwrap_or_default())?,
                });
            }
            suites.push(TestSuite { method, cases });
        }
        Ok(BundledProgram {
            program: program.bytes(),
            suites,
        })
    }
}

fn value<'a>(item: &fb::Value<'a>, place: impl Fn() -> String) -> Result<BundledValue<'a>, PteError> {
    use fb::ValueUnion as Kind;
    let empty = || PteError::invalid(place(), "a value without its table");
    Ok(match item.val_type() {
        Kind::Int => BundledValue::Int(item.val_as_int().ok_or_else(empty)?.int_val()),
        Kind::Bool => BundledValue::Bool(item.val_as_bool().ok_or_else(empty)?.bool_val()),
        Kind::Double => BundledValue::Double(item.val_as_double().ok_or_else(empty)?.double_val()),
        Kind::Tensor => {
            let table = item.val_as_tensor().ok_or_else(empty)?;
            let code = table.scalar_type();
            let dtype = DType::from_pte(code)
                .ok_or_else(|| PteError::unsupported(place(), format!("a tensor of scalar type {code}")))?;
            let mut sizes = Dims::SCALAR;
            for size in table.sizes().unwrap_or_default() {
                sizes
                    .push(i64::from(size))
                    .map_err(|error| PteError::unsupported(place(), format!("{error}")))?;
            }
            let dim_order: Vec<u8> = table.dim_order().unwrap_or_default().iter().collect();
            let data = table.data().map_or(&[] as &[u8], |data| data.bytes());
            let bytes = sizes.numel().and_then(|n| n.checked_mul(dtype.size()));
            if bytes != Some(data.len()) || sizes.strides_of_dim_order(&dim_order).is_none() {
                let problem = format!(
                    "a tensor of {sizes} {dtype}, dim_order {dim_order:?}, in {} bytes",
                    data.len()
                );
                return Err(PteError::invalid(place(), problem));
            }
            BundledValue::Tensor(BundledTensor {
                dtype,
                sizes,
                dim_order,
                data,
            })
        }
        Kind(code) => return Err(PteError::unsupported(place(), format!("value type {code}"))),
    })
}
