//! Cases that `make_cases.py` writes: a graph, its constants, inputs, and PyTorch's results.

use delegraph_abi::DType;
use delegraph_abi::image::{Arg, ImageBuilder, Quant, Type, ValueIndex};
use delegraph_ethos_u::builder::WeightBytes;
use delegraph_sdk::Error;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The constants of a case, by id.
#[derive(Default)]
pub struct Constants(HashMap<u32, Vec<u8>>);

impl WeightBytes for Constants {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        let found = self.0.get(&id).map(Vec::as_slice);
        found.ok_or_else(|| Error::internal(format!("no constant {id}")))
    }
}

/// The names of a folder's cases, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let cases = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut names: Vec<String> = cases
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    names.sort();
    names
}

/// A case's description.
pub fn read(folder: &Path, name: &str) -> Value {
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Bytes in base64.
pub fn bytes(text: &Value) -> Vec<u8> {
    let sextet = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text
        .as_str()
        .unwrap()
        .bytes()
        .filter(|c| *c != b'=')
        .map(sextet)
        .collect();
    let mut made = Vec::new();
    for group in digits.chunks(4) {
        let all = group
            .iter()
            .enumerate()
            .fold(0u32, |all, (i, d)| all | u32::from(*d) << (18 - 6 * i));
        made.extend(&all.to_be_bytes()[1..group.len()]);
    }
    made
}

fn ints(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|i| i.as_i64().unwrap()).collect()
}

/// The type of elements of a description's value.
pub fn dtype(value: &Value) -> DType {
    match value["dtype"].as_str().unwrap() {
        "i8" => DType::I8,
        "u8" => DType::U8,
        "i16" => DType::I16,
        "i32" => DType::I32,
        "f32" => DType::F32,
        other => panic!("an element of `{other}`"),
    }
}

fn limits(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        DType::I16 => (-32768, 32767),
        _ => (i64::from(i32::MIN), i64::from(i32::MAX)),
    }
}

/// The image of a case and its constants.
pub fn image(case: &Value) -> (Vec<u8>, Constants) {
    let mut image = ImageBuilder::new("case");
    image.normal_form(1);
    let mut constants = Constants::default();
    let specs = case["values"].as_array().unwrap();
    let mut next = 0;
    let mut keep = |image: &mut ImageBuilder, dtype, sizes: &[i64], data| {
        next += 1;
        constants.0.insert(next, data);
        image.weight(next, dtype, sizes)
    };
    let mut types = Vec::new();
    for spec in specs {
        let (dtype, sizes) = (dtype(spec), ints(&spec["shape"]));
        let (quant_min, quant_max) = limits(dtype);
        let quant = if let Some(scale) = spec["scale"].as_f64() {
            Some(Quant::PerTensor {
                scale,
                zero_point: spec["zero"].as_i64().unwrap(),
                quant_min,
                quant_max,
            })
        } else if let Some(axis) = spec["axis"].as_u64() {
            let data = bytes(&spec["scales"]);
            let count = (data.len() / 4) as i64;
            Some(Quant::PerAxis {
                axis: axis as u32,
                scales: keep(&mut image, DType::F32, &[count], data),
                zero_points: None,
                quant_min,
                quant_max,
            })
        } else {
            None
        };
        let dims = sizes.iter().map(|d| image.int(*d)).collect();
        types.push(Type::Tensor { dtype, dims, quant });
    }
    let mut values: HashMap<usize, ValueIndex> = HashMap::new();
    for at in ints(&case["inputs"]) {
        values.insert(at as usize, image.input(&format!("x{at}"), &types[at as usize]));
    }
    for (at, spec) in specs.iter().enumerate() {
        if spec["data"].is_string() {
            let weight = keep(&mut image, dtype(spec), &ints(&spec["shape"]), bytes(&spec["data"]));
            values.insert(at, image.weight_value(&format!("c{at}"), &types[at], weight));
        }
    }
    for (i, node) in case["nodes"].as_array().unwrap().iter().enumerate() {
        let value = |at: &Value| values[&(at.as_u64().unwrap() as usize)];
        let mut args = Vec::new();
        for arg in node["args"].as_array().unwrap() {
            let Some((kind, given)) = arg.as_object().and_then(|arg| arg.iter().next()) else {
                args.push(Arg::None);
                continue;
            };
            args.push(match kind.as_str() {
                "value" => Arg::Value(value(given)),
                "values" => Arg::Values(given.as_array().unwrap().iter().map(value).collect()),
                "int" => Arg::Int(given.as_i64().unwrap()),
                "float" => Arg::Float(given.as_f64().unwrap()),
                "bool" => Arg::Bool(given.as_bool().unwrap()),
                "str" => Arg::Str(given.as_str().unwrap().to_string()),
                "ints" => Arg::Ints(ints(given).into_iter().map(|v| image.int(v)).collect()),
                "floats" => Arg::Floats(given.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()),
                other => panic!("an argument of `{other}`"),
            });
        }
        // Where PyTorch's schema goes on.
        if matches!(node["op"].as_str(), Some("aten::add.Tensor" | "aten::sub.Tensor")) {
            args.push(Arg::Int(1));
        }
        let at = node["output"].as_u64().unwrap() as usize;
        let name = format!("n{i}");
        let made = image.node(&name, node["op"].as_str().unwrap(), &args, &[(&name, &types[at])], "");
        values.insert(at, made[0]);
    }
    ints(&case["outputs"])
        .iter()
        .for_each(|at| image.output(values[&(*at as usize)]));
    (image.finish().unwrap(), constants)
}
