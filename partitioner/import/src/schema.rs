//! `model.json` and the payload configurations as torch.export's `schema.py` (8.x) defines them. Unknown keys are ignored.

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// `ExportedProgram`
#[derive(Debug, Deserialize)]
pub(crate) struct Program {
    pub graph_module: GraphModule,
    #[serde(default)]
    pub range_constraints: BTreeMap<String, Range>,
}

/// Read before anything else, so that another major version is named instead of misread.
#[derive(Debug, Deserialize)]
pub(crate) struct ProgramVersion {
    pub schema_version: Version,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub major: i64,
    pub minor: i64,
}

/// `RangeConstraint`
#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    #[serde(default)]
    pub min_val: Option<i64>,
    #[serde(default)]
    pub max_val: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GraphModule {
    pub graph: Graph,
    pub signature: Signature,
    #[serde(default)]
    pub module_call_graph: Vec<ModuleCall>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ModuleCall {
    pub fqn: String,
    #[serde(default)]
    pub signature: Option<ModuleSignature>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ModuleSignature {
    #[serde(default)]
    pub in_spec: String,
    #[serde(default)]
    pub out_spec: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Signature {
    pub input_specs: Vec<InputSpec>,
    pub output_specs: Vec<OutputSpec>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Graph {
    pub inputs: Vec<Argument>,
    pub outputs: Vec<Argument>,
    pub nodes: Vec<Node>,
    pub tensor_values: BTreeMap<String, TensorMeta>,
    #[serde(default)]
    pub sym_int_values: BTreeMap<String, Sym>,
    #[serde(default)]
    pub sym_bool_values: BTreeMap<String, Sym>,
    #[serde(default)]
    pub sym_float_values: BTreeMap<String, Sym>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub target: String,
    pub inputs: Vec<NamedArgument>,
    pub outputs: Vec<Argument>,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub stack_trace: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NamedArgument {
    pub name: String,
    pub arg: Argument,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TensorMeta {
    pub dtype: i64,
    pub sizes: Vec<Sym>,
    pub strides: Vec<Sym>,
    pub storage_offset: Sym,
    #[serde(default = "strided")]
    pub layout: i64,
}

/// `Layout.Strided`
pub(crate) const STRIDED: i64 = 7;

fn strided() -> i64 {
    STRIDED
}

#[derive(Debug, Deserialize)]
pub(crate) struct PayloadConfig {
    pub config: BTreeMap<String, Payload>,
}

/// `PayloadMeta`
#[derive(Debug, Deserialize)]
pub(crate) struct Payload {
    pub path_name: String,
    #[serde(default)]
    pub use_pickle: bool,
    #[serde(default)]
    pub tensor_meta: Option<TensorMeta>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// A float; JSON has no infinities, so they are strings.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Float {
    Number(f64),
    Text(FloatText),
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum FloatText {
    Infinity,
    #[serde(rename = "-Infinity")]
    NegativeInfinity,
    NaN,
}

impl From<Float> for f64 {
    fn from(float: Float) -> f64 {
        match float {
            Float::Number(x) => x,
            Float::Text(FloatText::Infinity) => f64::INFINITY,
            Float::Text(FloatText::NegativeInfinity) => f64::NEG_INFINITY,
            Float::Text(FloatText::NaN) => f64::NAN,
        }
    }
}

/// `ComplexValue`
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Complex {
    real: Float,
    imag: Float,
}

impl Complex {
    /// Real and imaginary part.
    pub fn parts(self) -> [f64; 2] {
        [self.real.into(), self.imag.into()]
    }
}

/// `SymInt`, `SymFloat`, `SymBool`
#[derive(Debug, Clone)]
pub(crate) enum Sym {
    Int(i64),
    Float(f64),
    Bool(bool),
    /// sympy's srepr
    Expr(String),
}

/// `SymIntArgument`, `SymFloatArgument`, `SymBoolArgument`
#[derive(Debug, Clone)]
pub(crate) enum SymArg {
    Name(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// `Argument`
#[derive(Debug)]
pub(crate) enum Argument {
    None,
    Tensor(String),
    Tensors(Vec<String>),
    OptionalTensors(Vec<Option<String>>),
    Int(i64),
    Ints(Vec<i64>),
    Float(f64),
    Floats(Vec<f64>),
    Bool(bool),
    Bools(Vec<bool>),
    Str(String),
    SymInt(SymArg),
    SymInts(Vec<SymArg>),
    SymFloat(SymArg),
    SymFloats(Vec<SymArg>),
    SymBool(SymArg),
    SymBools(Vec<SymArg>),
    DType(i64),
    MemoryFormat(i64),
    Layout(i64),
    Device,
    Graph(Box<GraphArgument>),
    Complex(Complex),
    /// A kind that nothing here can hold, or that this version does not know: an error only where it is used.
    Other(String),
}

#[derive(Debug, Deserialize)]
pub(crate) struct GraphArgument {
    pub name: String,
    pub graph: Graph,
}

#[derive(Debug)]
pub(crate) enum InputSpec {
    User(Argument),
    Parameter {
        arg: String,
        name: String,
    },
    Buffer {
        arg: String,
        name: String,
        persistent: bool,
    },
    TensorConstant {
        arg: String,
        name: String,
    },
    Constant {
        name: String,
        value: Argument,
    },
    Other(String),
}

#[derive(Debug)]
pub(crate) enum OutputSpec {
    User(Argument),
    BufferMutation { arg: String, name: String },
    ParameterMutation { arg: String, name: String },
    UserInputMutation { arg: String, name: String },
    Other(String),
}

/// Implements `Deserialize` for a one-key object: `{"as_int": 3}`. A `null` value of an optional key is skipped.
macro_rules! union {
    ($type:ident, $map:ident, { $($key:literal => $make:expr,)* } else $other:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                struct Union;
                impl<'de> Visitor<'de> for Union {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object with one key")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<$type, A::Error> {
                        let Some(key) = $map.next_key::<String>()? else {
                            return Err(A::Error::custom("an empty union"));
                        };
                        let value = match key.as_str() {
                            $($key => $make,)*
                            _ => {
                                $map.next_value::<IgnoredAny>()?;
                                let other: fn(String) -> Option<$type> = $other;
                                other(key).ok_or_else(|| A::Error::custom("an unknown kind of union"))?
                            }
                        };
                        match $map.next_key::<String>()? {
                            None => Ok(value),
                            Some(key) => Err(A::Error::custom(format!("a union with a second key `{key}`"))),
                        }
                    }
                }
                deserializer.deserialize_map(Union)
            }
        }
    };
}

#[derive(Deserialize)]
struct Expression {
    expr_str: String,
}

fn names(list: Vec<Named>) -> Vec<String> {
    list.into_iter().map(|n| n.name).collect()
}

/// `OptionalTensorArgument`
struct OptionalTensor(Option<String>);

union!(OptionalTensor, map, {
    "as_tensor" => OptionalTensor(Some(map.next_value::<Named>()?.name)),
    "as_none" => { map.next_value::<IgnoredAny>()?; OptionalTensor(None) },
} else |_| None);

union!(Sym, map, {
    "as_int" => Sym::Int(map.next_value()?),
    "as_bool" => Sym::Bool(map.next_value()?),
    "as_float" => Sym::Float(map.next_value::<Float>()?.into()),
    "as_expr" => Sym::Expr(map.next_value::<Expression>()?.expr_str),
} else |_| None);

union!(SymArg, map, {
    "as_name" => SymArg::Name(map.next_value()?),
    "as_int" => SymArg::Int(map.next_value()?),
    "as_bool" => SymArg::Bool(map.next_value()?),
    "as_float" => SymArg::Float(map.next_value::<Float>()?.into()),
} else |_| None);

union!(Argument, map, {
    "as_none" => { map.next_value::<IgnoredAny>()?; Argument::None },
    "as_tensor" => Argument::Tensor(map.next_value::<Named>()?.name),
    "as_tensors" => Argument::Tensors(names(map.next_value()?)),
    "as_optional_tensor" => match map.next_value::<OptionalTensor>()?.0 {
        Some(name) => Argument::Tensor(name),
        None => Argument::None,
    },
    "as_optional_tensors" => {
        let items: Vec<OptionalTensor> = map.next_value()?;
        Argument::OptionalTensors(items.into_iter().map(|o| o.0).collect())
    },
    "as_int" => Argument::Int(map.next_value()?),
    "as_ints" => Argument::Ints(map.next_value()?),
    "as_float" => Argument::Float(map.next_value::<Float>()?.into()),
    "as_floats" => Argument::Floats(map.next_value::<Vec<Float>>()?.into_iter().map(f64::from).collect()),
    "as_bool" => Argument::Bool(map.next_value()?),
    "as_bools" => Argument::Bools(map.next_value()?),
    "as_string" => Argument::Str(map.next_value()?),
    "as_sym_int" => Argument::SymInt(map.next_value()?),
    "as_sym_ints" => Argument::SymInts(map.next_value()?),
    "as_sym_float" => Argument::SymFloat(map.next_value()?),
    "as_sym_floats" => Argument::SymFloats(map.next_value()?),
    "as_sym_bool" => Argument::SymBool(map.next_value()?),
    "as_sym_bools" => Argument::SymBools(map.next_value()?),
    "as_scalar_type" => Argument::DType(map.next_value()?),
    "as_memory_format" => Argument::MemoryFormat(map.next_value()?),
    "as_layout" => Argument::Layout(map.next_value()?),
    "as_device" => { map.next_value::<IgnoredAny>()?; Argument::Device },
    "as_graph" => Argument::Graph(map.next_value()?),
    "as_complex" => Argument::Complex(map.next_value()?),
} else |kind| Some(Argument::Other(kind)));

#[derive(Deserialize)]
struct UserArg {
    arg: Argument,
}

#[derive(Deserialize)]
struct ParameterArg {
    arg: Named,
    parameter_name: String,
}

#[derive(Deserialize)]
struct BufferArg {
    arg: Named,
    buffer_name: String,
    #[serde(default = "yes")]
    persistent: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct TensorConstantArg {
    arg: Named,
    tensor_constant_name: String,
}

#[derive(Deserialize)]
struct ConstantArg {
    name: String,
    value: Argument,
}

#[derive(Deserialize)]
struct UserInputArg {
    arg: Named,
    user_input_name: String,
}

#[derive(Deserialize)]
struct LossArg {
    arg: Named,
}

union!(InputSpec, map, {
    "user_input" => InputSpec::User(map.next_value::<UserArg>()?.arg),
    "parameter" => {
        let p: ParameterArg = map.next_value()?;
        InputSpec::Parameter { arg: p.arg.name, name: p.parameter_name }
    },
    "buffer" => {
        let b: BufferArg = map.next_value()?;
        InputSpec::Buffer { arg: b.arg.name, name: b.buffer_name, persistent: b.persistent }
    },
    "tensor_constant" => {
        let c: TensorConstantArg = map.next_value()?;
        InputSpec::TensorConstant { arg: c.arg.name, name: c.tensor_constant_name }
    },
    "constant_input" => {
        let c: ConstantArg = map.next_value()?;
        InputSpec::Constant { name: c.name, value: c.value }
    },
} else |kind| Some(InputSpec::Other(kind)));

union!(OutputSpec, map, {
    "user_output" => OutputSpec::User(map.next_value::<UserArg>()?.arg),
    "loss_output" => OutputSpec::User(Argument::Tensor(map.next_value::<LossArg>()?.arg.name)),
    "buffer_mutation" => {
        let b: BufferArg = map.next_value()?;
        OutputSpec::BufferMutation { arg: b.arg.name, name: b.buffer_name }
    },
    "parameter_mutation" => {
        let p: ParameterArg = map.next_value()?;
        OutputSpec::ParameterMutation { arg: p.arg.name, name: p.parameter_name }
    },
    "user_input_mutation" => {
        let u: UserInputArg = map.next_value()?;
        OutputSpec::UserInputMutation { arg: u.arg.name, name: u.user_input_name }
    },
} else |kind| Some(OutputSpec::Other(kind)));

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(text: &str) -> Result<Argument, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn arguments_are_unions_of_one_key() {
        assert!(matches!(argument(r#"{"as_float": "-Infinity"}"#), Ok(Argument::Float(x)) if x == f64::NEG_INFINITY));
        assert!(matches!(argument(r#"{"as_float": 2}"#), Ok(Argument::Float(2.0))));
        assert!(matches!(argument(r#"{"as_none": true}"#), Ok(Argument::None)));
        let complex = argument(r#"{"as_complex": {"real": 1, "imag": "-Infinity"}}"#);
        assert!(matches!(complex, Ok(Argument::Complex(z)) if z.parts() == [1.0, f64::NEG_INFINITY]));
        assert!(matches!(argument(r#"{"as_operator": "add"}"#), Ok(Argument::Other(k)) if k == "as_operator"));
        let optional = argument(r#"{"as_optional_tensors": [{"as_none": true}, {"as_tensor": {"name": "x"}}]}"#);
        assert!(matches!(optional, Ok(Argument::OptionalTensors(items)) if items[1].as_deref() == Some("x")));
        assert!(argument(r#"{"as_float": "many"}"#).is_err());
        assert!(argument(r#"{"as_int": 1, "as_bool": true}"#).is_err());
        assert!(argument("{}").is_err());
        assert!(serde_json::from_str::<Sym>(r#"{"as_other": 1}"#).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}1{}", r#"{"as_ints": ["#.repeat(100_000), "]}".repeat(100_000));
        assert!(argument(&deep).is_err());
    }
}
