//! Reads what Qualcomm's Saver library wrote down.

use delegraph_hexagon::graph::*;
use std::collections::HashMap;
use std::path::Path;

/// The record: values of variables, elements that lie in the file beside it, and calls.
pub struct Record {
    values: HashMap<String, Vec<String>>,
    data: HashMap<String, Vec<u8>>,
    /// Functions and what they were given, in order.
    pub calls: Vec<(String, Vec<String>)>,
}

impl Record {
    pub fn read(folder: &Path) -> Record {
        let text = std::fs::read_to_string(folder.join("saver_output.c")).unwrap();
        let elements = std::fs::read(folder.join("params.bin")).unwrap();
        let mut record = Record {
            values: HashMap::new(),
            data: HashMap::new(),
            calls: Vec::new(),
        };
        let mut at = 0;
        for line in text.lines().map(str::trim) {
            if let Some(call) = line
                .strip_prefix("VALIDATE(error, interface.")
                .and_then(|c| c.strip_suffix("));"))
            {
                let (function, arguments) = call.split_once('(').unwrap();
                record.calls.push((function.to_string(), split(arguments)));
            } else if let Some(read) = line.strip_prefix("fread(").and_then(|r| r.strip_suffix(");")) {
                let read = split(read);
                let size = read[1].parse::<usize>().unwrap() * read[2].parse::<usize>().unwrap();
                record.data.insert(read[0].clone(), elements[at..at + size].to_vec());
                at += size;
            } else if let Some((declared, value)) = line.split_once(" = {") {
                let name = declared.rsplit(' ').next().unwrap().trim_end_matches("[]");
                record
                    .values
                    .insert(name.to_string(), split(value.strip_suffix("};").unwrap()));
            }
        }
        assert_eq!(at, elements.len(), "all elements are read");
        // The log is made only if the program that the record is asks for it.
        record.calls.retain(|(function, _)| function != "logCreate");
        record
    }

    pub fn value(&self, name: &str) -> Vec<String> {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("the record has no `{name}`"))
            .clone()
    }

    pub fn arguments(&self, function: &str, at: usize) -> Vec<String> {
        let of_function = self.calls.iter().filter(|(name, _)| name == function);
        of_function
            .map(|(_, arguments)| arguments.clone())
            .nth(at)
            .unwrap_or_else(|| panic!("{function} {at}"))
    }

    fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> Vec<T> {
        self.value(name).iter().map(|number| number.parse().unwrap()).collect()
    }

    /// A tensor: its id, and what was understood.
    pub fn tensor(&self, name: &str) -> (String, Tensor) {
        let tensor = self.value(name);
        assert_eq!(tensor[0], "1", "version of the struct");
        let fields = self.value(&tensor[1]);
        assert_eq!(
            (fields[3].as_str(), fields[8].as_str()),
            ("0", "0"),
            "dense, in a buffer of ours"
        );
        let dims: Vec<u32> = self.numbers(&fields[7]);
        assert_eq!(fields[6], dims.len().to_string());
        let kind = match fields[2].as_str() {
            "0" => TensorKind::Input,
            "1" => TensorKind::Output,
            "3" => TensorKind::Native,
            "4" => TensorKind::Static(self.bytes(name)),
            other => panic!("tensor type {other}"),
        };
        let understood = Tensor {
            name: fields[1].trim_matches('"').to_string(),
            kind,
            data_type: DataType::of(fields[4].parse().unwrap()).unwrap(),
            dims,
            quantization: self.quantization(&fields[5]),
        };
        (fields[0].clone(), understood)
    }

    /// The elements of a tensor's buffer.
    pub fn bytes(&self, tensor: &str) -> Vec<u8> {
        let fields = self.value(&self.value(tensor)[1]);
        let buffer = self.value(&fields[9]);
        let bytes = self.data.get(&buffer[0]).cloned().unwrap_or_default();
        assert_eq!(buffer[1], bytes.len().to_string());
        bytes
    }

    fn quantization(&self, name: &str) -> Quantization {
        let fields = self.value(name);
        if fields[..2] == ["2147483647", "2147483647"] {
            return Quantization::None;
        }
        assert_eq!(fields[0], "1", "defined");
        let pair = |scale: &str, offset: &str| ScaleOffset {
            scale: scale.parse().unwrap(),
            offset: offset.parse().unwrap(),
        };
        let inner = |text: &str| split(text.trim_matches(['{', '}']));
        match fields[1].as_str() {
            "0" => {
                let value = inner(&fields[2]);
                Quantization::PerTensor(pair(&value[0], &value[1]))
            }
            "1" => {
                let value = self.value(&fields[2]);
                let pairs = self
                    .value(&value[2])
                    .iter()
                    .map(|p| pair(&inner(p)[0], &inner(p)[1]))
                    .collect::<Vec<_>>();
                assert_eq!(value[1], pairs.len().to_string());
                Quantization::PerAxis {
                    axis: value[0].parse().unwrap(),
                    pairs,
                }
            }
            "2" => {
                let value = inner(&fields[2]);
                Quantization::Narrow {
                    bits: value[0].parse().unwrap(),
                    pair: pair(&value[1], &value[2]),
                }
            }
            "3" => {
                let value = self.value(&fields[2]);
                let (scales, offsets): (Vec<f32>, Vec<i32>) = (self.numbers(&value[3]), self.numbers(&value[4]));
                assert_eq!(value[2], scales.len().to_string());
                let pairs = scales.into_iter().zip(offsets);
                Quantization::NarrowPerAxis {
                    bits: value[0].parse().unwrap(),
                    axis: value[1].parse().unwrap(),
                    pairs: pairs.map(|(scale, offset)| ScaleOffset { scale, offset }).collect(),
                }
            }
            other => panic!("encoding {other}"),
        }
    }
}

/// The items of a list, without casts and names of members.
fn split(list: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for letter in list.chars() {
        match letter {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().unwrap().push(letter);
    }
    let plain = |item: String| {
        let item = item.trim();
        let item = item
            .strip_prefix('(')
            .and_then(|cast| cast.split_once(')'))
            .map_or(item, |(_, value)| value);
        let item = if item.starts_with('.') {
            item.split_once(" = ").map_or(item, |(_, value)| value)
        } else {
            item
        };
        item.to_string()
    };
    items.into_iter().map(plain).filter(|item| !item.is_empty()).collect()
}
