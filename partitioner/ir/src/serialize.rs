//! The IR as bytes: JSON with a format version, for the `delegraph.ir.v0` segment of a `.pte`.
//!
//! Everything is in it but the constants' contents, which the program holds already: a constant names its buffer there.

use crate::{Bytes, Constant, ConstantId, Constants, Graph, Module, State, Symbols, VerifyError, verify};
use delegraph_types::{DType, Dims};
use serde::{Deserialize, Serialize};

/// Version of the format that is written, and the only one that is read.
const FORMAT: u32 = 0;

/// Why bytes are not a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeserializeError {
    /// Not the JSON that [`serialize`] writes.
    #[error("the IR segment cannot be read: {0}")]
    Syntax(String),
    /// Written by another version.
    #[error("the IR segment has format `{0}`, this version reads `{FORMAT}`")]
    Format(u32),
    /// A constant's buffer is absent or too short.
    #[error("constant `{name}`: {problem}")]
    Constant {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// It was read, but breaks the rules of the IR.
    #[error("the IR segment is not valid: {0}")]
    Invalid(#[from] VerifyError),
}

#[derive(Serialize, Deserialize)]
struct Text<G> {
    format: u32,
    symbols: Symbols,
    states: Vec<State>,
    constants: Vec<ConstantText>,
    graphs: G,
}

#[derive(Serialize, Deserialize)]
struct ConstantText {
    name: String,
    dtype: DType,
    sizes: Vec<i64>,
    /// Index among the program's constant buffers; absent for a constant that nothing reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    buffer: Option<u32>,
}

/// Writes a module. `buffer` gives the program's buffer that holds a constant's contents in row-major order; `None` for a
/// constant that no graph reads.
pub fn serialize(module: &Module, buffer: impl Fn(ConstantId) -> Option<u32>) -> Vec<u8> {
    let constants = module.constants.iter().map(|(id, constant)| ConstantText {
        name: constant.name.clone(),
        dtype: constant.dtype,
        sizes: constant.sizes.to_vec(),
        buffer: buffer(id),
    });
    let text = Text {
        format: FORMAT,
        symbols: module.symbols.clone(),
        states: module.states.clone(),
        constants: constants.collect(),
        graphs: &module.graphs,
    };
    serde_json::to_vec(&text).unwrap_or_else(|error| unreachable!("plain data can be written: {error}"))
}

/// Reads a module and verifies it. `buffer` gives the contents of a constant buffer of the program.
///
/// # Errors
/// See [`DeserializeError`].
pub fn deserialize(bytes: &[u8], buffer: impl Fn(u32) -> Option<Bytes>) -> Result<Module, DeserializeError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let syntax = |error: serde_json::Error| DeserializeError::Syntax(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(syntax)?;
    if head.format != FORMAT {
        return Err(DeserializeError::Format(head.format));
    }
    let text: Text<Vec<Graph>> = serde_json::from_slice(bytes).map_err(syntax)?;
    let mut constants = Constants::default();
    for constant in text.constants {
        constants.push(resolve(constant, &buffer)?);
    }
    let module = Module {
        graphs: text.graphs,
        constants,
        states: text.states,
        symbols: text.symbols,
    };
    verify(&module)?;
    Ok(module)
}

fn resolve(text: ConstantText, buffer: &dyn Fn(u32) -> Option<Bytes>) -> Result<Constant, DeserializeError> {
    let refuse = |name: &str, problem: String| DeserializeError::Constant {
        name: name.to_string(),
        problem,
    };
    let ConstantText { name, dtype, sizes, .. } = text;
    let Some(index) = text.buffer else {
        // An empty vector keeps the ids; the verifier refuses it where something reads it.
        return Ok(Constant::contiguous(name, dtype, Dims::filled(1, 0), Vec::new().into()));
    };
    let sizes = Dims::new(&sizes).map_err(|error| refuse(&name, error.to_string()))?;
    let bytes = buffer(index).ok_or_else(|| refuse(&name, format!("the program has no buffer `{index}`")))?;
    let window = sizes
        .numel()
        .and_then(|count| count.checked_mul(dtype.size()))
        .and_then(|length| bytes.slice(0, length));
    match window {
        Some(window) => Ok(Constant::contiguous(name, dtype, sizes, window)),
        None => {
            let have = bytes.as_slice().len();
            Err(refuse(
                &name,
                format!("{dtype} of {sizes} does not lie in the {have} bytes of buffer `{index}`"),
            ))
        }
    }
}

/// An operator by its name.
pub(crate) mod op_name {
    use delegraph_opset::Op;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(op: &Op, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(op.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
        let name = String::deserialize(deserializer)?;
        Op::find(&name).ok_or_else(|| D::Error::custom(format!("unknown operator `{name}`")))
    }
}

/// A float as its bits: JSON has no infinities.
pub(crate) mod float_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// A list of floats as their bits.
pub(crate) mod floats_bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let bits: Vec<u64> = values.iter().map(|v| v.to_bits()).collect();
        bits.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let bits = Vec::<u64>::deserialize(deserializer)?;
        Ok(bits.into_iter().map(f64::from_bits).collect())
    }
}

/// A list of numbers, floats as their bits.
pub(crate) mod scalars_bits {
    use delegraph_types::Scalar;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    enum Text {
        Bool(bool),
        Int(i64),
        Float(u64),
    }

    pub fn serialize<S: Serializer>(values: &[Scalar], serializer: S) -> Result<S::Ok, S::Error> {
        let texts = values.iter().map(|v| match *v {
            Scalar::Bool(b) => Text::Bool(b),
            Scalar::Int(i) => Text::Int(i),
            Scalar::Float(f) => Text::Float(f.to_bits()),
        });
        texts.collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Scalar>, D::Error> {
        let texts = Vec::<Text>::deserialize(deserializer)?;
        let scalar = |text| match text {
            Text::Bool(b) => Scalar::Bool(b),
            Text::Int(i) => Scalar::Int(i),
            Text::Float(bits) => Scalar::Float(f64::from_bits(bits)),
        };
        Ok(texts.into_iter().map(scalar).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arg, Expr, Mutation, MutationTarget, Output, Quant, RegionId, StateId, SymbolRange, TensorType};
    use crate::{Def, Symbol};
    use delegraph_types::Scalar;

    /// Everything that a module can hold, once.
    fn module() -> Module {
        let mut module = Module::default();
        let range = SymbolRange { min: 2, max: Some(9) };
        module.symbols.ranges.insert(Symbol::new("s0"), range);
        let weight = Bytes::from(vec![7u8; 12]);
        let weight = module
            .constants
            .push(Constant::contiguous("w", DType::F32, Dims::new(&[3]).unwrap(), weight));
        let unread = module.constants.push(Constant::contiguous(
            "unread",
            DType::U8,
            Dims::filled(1, 0),
            vec![].into(),
        ));
        assert_eq!(unread, ConstantId(1));
        module.states.push(State {
            name: "cache".into(),
            ty: TensorType::fixed(DType::F32, &[3]),
            initial: Some(weight),
        });
        let shape = vec![Expr::symbol("s0"), Expr::Int(3)];
        let wide = TensorType::new(DType::F32, shape.clone());
        let mut graph = Graph::new("forward");
        let x = graph.add_input("x", wide.clone().into());
        let w = graph.add_constant("w", TensorType::fixed(DType::F32, &[3]), weight);
        let cache = graph.add_value(
            "cache",
            TensorType::fixed(DType::F32, &[3]).into(),
            Def::State(StateId(0)),
        );
        let y = graph
            .push("aten::add.Tensor", vec![x.into(), w.into()], vec![wide.clone().into()])
            .unwrap()[0];
        graph.nodes[0].region = Some(RegionId(4));
        graph.nodes[0].source = Some("model.py:3".into());
        let y = graph
            .push(
                "aten::clamp",
                vec![y.into(), Arg::Float(f64::NEG_INFINITY), Arg::Float(0.1)],
                vec![wide.into()],
            )
            .unwrap()[0];
        let next = graph
            .push(
                "aten::add.Tensor",
                vec![cache.into(), Arg::Int(Expr::symbol("s0"))],
                vec![TensorType::fixed(DType::F32, &[3]).into()],
            )
            .unwrap()[0];
        let mut quantized = TensorType::new(DType::I8, shape);
        quantized.quant = Some(Quant::PerTensor {
            scale: 0.1,
            zero_point: -3,
            quant_min: -128,
            quant_max: 127,
        });
        let q = graph
            .push(
                "quantized_decomposed::quantize_per_tensor",
                vec![
                    y.into(),
                    Arg::Float(0.1),
                    Arg::int(-3),
                    Arg::int(-128),
                    Arg::int(127),
                    Arg::DType(DType::I8),
                ],
                vec![quantized.into()],
            )
            .unwrap()[0];
        graph.add_output(q);
        graph.outputs.push(Output::Literal(Arg::Scalars(vec![
            Scalar::Float(f64::INFINITY),
            Scalar::Int(1),
        ])));
        graph.mutations.push(Mutation {
            target: MutationTarget::State(StateId(0)),
            value: next,
        });
        module.graphs.push(graph);
        module
    }

    fn buffers(index: u32) -> Option<Bytes> {
        (index == 5).then(|| vec![7u8; 16].into())
    }

    fn numbered(id: ConstantId) -> Option<u32> {
        (id == ConstantId(0)).then_some(5)
    }

    #[test]
    fn a_module_comes_back_as_it_was() {
        let module = module();
        let bytes = serialize(&module, numbered);
        let back = deserialize(&bytes, buffers).unwrap();
        assert_eq!(back.graphs, module.graphs);
        assert_eq!(back.states, module.states);
        assert_eq!(back.symbols, module.symbols);
        assert_eq!(back.graphs[0].nodes[0].region, Some(RegionId(4)));
        assert_eq!(back.graphs[0].nodes[0].source.as_deref(), Some("model.py:3"));
        assert_eq!(
            back.constants[ConstantId(0)].to_contiguous().unwrap().as_slice(),
            &[7; 12]
        );
        assert_eq!(serialize(&back, numbered), bytes);
    }

    #[test]
    fn each_way_to_be_wrong_is_told() {
        let bytes = serialize(&module(), numbered);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} in {text}");
            let error = deserialize(text.replacen(from, to, 1).as_bytes(), buffers).unwrap_err();
            error.to_string()
        };
        assert!(with("\"format\":0", "\"format\":9").contains("format `9`"));
        assert!(with("aten::clamp", "aten::clump").contains("unknown operator `aten::clump`"));
        assert!(with("\"buffer\":5", "\"buffer\":6").contains("no buffer `6`"));
        assert!(with("\"sizes\":[3]", "\"sizes\":[5]").contains("does not lie in the 16 bytes"));
        assert!(with("{\"Value\":0}", "{\"Value\":4000000000}").contains("not valid"));
        assert!(matches!(
            deserialize(&bytes[..40], buffers),
            Err(DeserializeError::Syntax(_))
        ));
    }

    #[test]
    fn mutants_never_panic() {
        let bytes = serialize(&module(), numbered);
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let mut read = 0;
        for _ in 0..5_000 {
            let mut mutant = bytes.clone();
            for _ in 0..=random(2) {
                let at = random(mutant.len());
                match random(3) {
                    0 => mutant[at] = b"0123456789-[]{}\",:as"[random(20)],
                    1 => drop(mutant.remove(at)),
                    _ => mutant.insert(at, b"0123456789"[random(10)]),
                }
            }
            if let Ok(module) = deserialize(&mutant, buffers) {
                read += 1;
                assert!(!module.to_string().is_empty());
            }
        }
        assert!(read > 0, "some mutants change only names and numbers");
    }
}
