//! Tensors from files: `.npy` and `.safetensors`, and back.

use anyhow::Context;
use delegraph::{InputKind, Session};
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_types::{DType, Dims};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use delegraph_kit::leaf::{leaf, value};

/// The arguments of a method: from `--input NAME=FILE`, from a safetensors file, literals filled in.
///
/// # Errors
/// A file cannot be read, a name is not the method's, an input is missing.
pub fn arguments(session: &Session, given: &[String], file: Option<&Path>) -> anyhow::Result<Vec<Leaf>> {
    let infos = session.inputs();
    let mut by_position: BTreeMap<usize, Leaf> = BTreeMap::new();
    let place = |name: &str| -> anyhow::Result<usize> {
        let found = infos
            .iter()
            .position(|info| info.name == name)
            .or_else(|| name.parse().ok().filter(|&i| i < infos.len()));
        found.ok_or_else(|| {
            let hint = delegraph_types::nearest(name, infos.iter().map(|info| info.name.as_str()));
            let hint = hint.map_or(String::new(), |n| format!("\n  hint: did you mean `{n}`?"));
            crate::usage(format!("the method has no input `{name}`{hint}"))
        })
    };
    if let Some(file) = file {
        let tensors = Tensors::read(file).map_err(|error| crate::bad_input(error.to_string()))?;
        let mut all: Vec<(&str, &Leaf)> = tensors.iter().collect();
        all.sort_by(|(a, _), (b, _)| natural_order(a, b));
        let wanted: Vec<usize> = (0..infos.len())
            .filter(|&i| !matches!(infos[i].kind, InputKind::Literal(_)))
            .collect();
        let named = all.iter().all(|(name, _)| place(name).is_ok());
        if named {
            for (name, leaf) in all {
                by_position.insert(place(name)?, leaf.clone());
            }
        } else if all.len() == wanted.len() {
            // Names of another naming, `case.in2` before `case.in10`: by their order.
            for (&position, (_, leaf)) in wanted.iter().zip(all) {
                by_position.insert(position, leaf.clone());
            }
        } else {
            for (name, _) in all {
                place(name)?;
            }
        }
    }
    for item in given {
        let Some((name, path)) = item.split_once('=') else {
            return Err(crate::usage(format!("`--input {item}` is not NAME=FILE")));
        };
        by_position.insert(place(name)?, read_npy(Path::new(path))?);
    }
    infos
        .iter()
        .enumerate()
        .map(|(i, info)| match (by_position.remove(&i), &info.kind) {
            (Some(leaf), _) => Ok(leaf),
            (None, InputKind::Literal(value)) => Ok(leaf(value.clone())),
            (None, kind) => Err(crate::usage(format!(
                "input {i} `{}` ({kind}) is missing\n  hint: `--input {}=FILE.npy`, or all of them by `--inputs FILE.safetensors`",
                info.name, info.name
            ))),
        })
        .collect()
}

/// The order in which a person would put names: runs of digits count as numbers.
pub fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let mut rest = (a, b);
    loop {
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (x, y) = (digits(rest.0), digits(rest.1));
        let order = if x > 0 && y > 0 {
            let (m, n) = (rest.0[..x].trim_start_matches('0'), rest.1[..y].trim_start_matches('0'));
            rest = (&rest.0[x..], &rest.1[y..]);
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        } else {
            let mut chars = (rest.0.chars(), rest.1.chars());
            let order = chars.0.next().cmp(&chars.1.next());
            if rest.0.is_empty() || rest.1.is_empty() {
                return order.then_with(|| a.cmp(b));
            }
            rest = (chars.0.as_str(), chars.1.as_str());
            order
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Reads a `.npy` file.
///
/// # Errors
/// It cannot be read, or holds a type that tensors do not have.
pub fn read_npy(path: &Path) -> anyhow::Result<Leaf> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    parse_npy(&bytes).ok_or_else(|| {
        crate::bad_input(format!(
            "`{}` is no .npy file of a dtype that tensors have",
            path.display()
        ))
    })
}

/// Little-endian row-major arrays of numpy's plain types.
fn parse_npy(bytes: &[u8]) -> Option<Leaf> {
    let file = npyz::NpyFile::new(bytes).ok()?;
    if file.order() != npyz::Order::C {
        return None;
    }
    let shape: Vec<i64> = file
        .shape()
        .iter()
        .map(|&d| i64::try_from(d).ok())
        .collect::<Option<_>>()?;
    let npyz::DType::Plain(kind) = file.dtype() else {
        return None;
    };
    let text = kind.to_string();
    let dtype = match text.trim_matches('\'').get(1..)? {
        "f4" => DType::F32,
        "f8" => DType::F64,
        "f2" => DType::F16,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        "c8" => DType::C64,
        "c16" => DType::C128,
        _ => return None,
    };
    let big_endian = text.trim_matches('\'').starts_with('>') && dtype.size() > 1;
    let count = Dims::new(&shape).ok()?.numel()?;
    let length = count.checked_mul(dtype.size())?;
    let start = bytes.len().checked_sub(length)?;
    (!big_endian).then(|| Leaf::Tensor {
        dtype,
        shape,
        bytes: bytes[start..].to_vec(),
    })
}

/// A leaf as a `.npy` file; `None` for what numpy has no type for.
pub fn to_npy(leaf: &Leaf) -> Option<Vec<u8>> {
    let (dtype, shape, bytes) = match leaf {
        Leaf::Tensor { dtype, shape, bytes } => (*dtype, shape.clone(), bytes.clone()),
        Leaf::Int(i) => (DType::I64, Vec::new(), i.to_le_bytes().to_vec()),
        Leaf::Float(f) => (DType::F64, Vec::new(), f.to_le_bytes().to_vec()),
        Leaf::Bool(b) => (DType::Bool, Vec::new(), vec![u8::from(*b)]),
        Leaf::None | Leaf::Str(_) => return None,
    };
    let kind = match dtype {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::BF16 | DType::F8E5M2 | DType::F8E4M3 => return None,
    };
    let sizes: Vec<String> = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!(
        "{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}",
        sizes.join(" ")
    );
    // NEP 1: magic, version, header length; the data begins at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    Some(file)
}

/// Leaves as a safetensors file: tensors of every dtype, numbers as tensors of rank 0. What has neither form is left out.
///
/// # Errors
/// A name occurs twice, or a tensor is none.
pub fn to_safetensors(leaves: &[(String, Leaf)]) -> anyhow::Result<Vec<u8>> {
    use safetensors::Dtype as S;
    let number = |dtype: S, bytes: &[u8]| Some((dtype, Vec::new(), bytes.to_vec()));
    let mut items = Vec::new();
    let mut names = BTreeSet::new();
    for (name, leaf) in leaves {
        // The crate indexes out of bounds on a name that occurs twice.
        anyhow::ensure!(names.insert(name), "two tensors are named `{name}`");
        let item = match leaf {
            Leaf::Tensor { dtype, shape, bytes } => {
                let dtype = match dtype {
                    DType::Bool => S::BOOL,
                    DType::U8 => S::U8,
                    DType::I8 => S::I8,
                    DType::I16 => S::I16,
                    DType::U16 => S::U16,
                    DType::F16 => S::F16,
                    DType::BF16 => S::BF16,
                    DType::I32 => S::I32,
                    DType::U32 => S::U32,
                    DType::F32 => S::F32,
                    DType::F64 => S::F64,
                    DType::I64 => S::I64,
                    DType::U64 => S::U64,
                    DType::C64 => S::C64,
                    DType::C128 => anyhow::bail!("`{name}` is of dtype c128, which safetensors files do not have"),
                    DType::F8E5M2 => S::F8_E5M2,
                    DType::F8E4M3 => S::F8_E4M3,
                };
                Some((dtype, shape.iter().map(|&d| d as usize).collect(), bytes.clone()))
            }
            Leaf::Int(i) => number(S::I64, &i.to_le_bytes()),
            Leaf::Float(f) => number(S::F64, &f.to_le_bytes()),
            Leaf::Bool(b) => number(S::BOOL, &[u8::from(*b)]),
            Leaf::None | Leaf::Str(_) => None,
        };
        items.extend(item.map(|item| (name, item)));
    }
    let views = items
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes)
                .with_context(|| format!("tensor `{name}`"))?;
            Ok((name.as_str(), view))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_the_order_of_their_numbers() {
        let mut names = ["a.0.in10", "a.0.in2", "a.0.in1", "b", "a.0.in", "a.00.in2"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["a.0.in", "a.0.in1", "a.0.in2", "a.00.in2", "a.0.in10", "b"]);
    }

    #[test]
    fn safetensors_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leaves.safetensors");
        let tensor = |dtype: DType, shape: &[i64]| Leaf::Tensor {
            dtype,
            shape: shape.to_vec(),
            bytes: vec![1; shape.iter().product::<i64>() as usize * dtype.size()],
        };
        let leaves = [
            ("a".to_string(), tensor(DType::BF16, &[2, 3])),
            ("b".to_string(), tensor(DType::I64, &[])),
            ("c".to_string(), Leaf::Int(7)),
            ("d".to_string(), Leaf::None),
        ];
        std::fs::write(&path, to_safetensors(&leaves).unwrap()).unwrap();
        let read = Tensors::read(&path).unwrap();
        let read: Vec<_> = read.iter().collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[0], ("a", &leaves[0].1));
        assert_eq!(read[1], ("b", &leaves[1].1));
        assert_eq!(read[2].1.describe(), "i64[]");
        let twice = [("a".to_string(), Leaf::Int(1)), ("a".to_string(), Leaf::Int(1))];
        assert!(to_safetensors(&twice).is_err());
    }

    #[test]
    fn npy_round_trips() {
        for (dtype, shape, bytes) in [
            (DType::F32, vec![2, 1], vec![0u8; 8]),
            (DType::I64, vec![], vec![7, 0, 0, 0, 0, 0, 0, 0]),
            (DType::Bool, vec![3], vec![1, 0, 1]),
            (DType::F32, vec![0, 4], vec![]),
        ] {
            let leaf = Leaf::Tensor { dtype, shape, bytes };
            assert_eq!(parse_npy(&to_npy(&leaf).unwrap()), Some(leaf));
        }
        assert_eq!(parse_npy(b"not an array"), None);
        let mut short = to_npy(&Leaf::Int(3)).unwrap();
        short.truncate(short.len() - 1);
        assert!(parse_npy(&short).is_none_or(|leaf| leaf != Leaf::Int(3)));
    }
}
