//! Weights: names to constants over the mapped file.

use crate::archive::Archive;
use crate::error::{ImportError, Result};
use crate::pickle::{self, Pickled};
use crate::schema::{Payload, PayloadConfig, STRIDED, Sym, TensorMeta};
use delegraph_ir::{Bytes, Constant, ConstantId, Constants};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A window that is larger than its storage (stride 0) may be unfolded up to this many bytes beyond it.
const MAX_UNFOLDED: usize = 256 << 20;

/// Identity of a window: equal for tied weights.
type Window = ((usize, usize), DType, Vec<i64>, Vec<i64>, usize);

/// The constants of all programs of an archive, made when first asked for: what nothing reads costs nothing.
#[derive(Default)]
pub(crate) struct Weights {
    /// Windows of storage by its address, with the storage: while it is held, no other one lies at that address.
    windows: FxHashMap<Window, (ConstantId, Bytes)>,
    names: FxHashMap<String, ConstantId>,
    pickles: FxHashMap<String, Pickled>,
}

/// The tables of one program.
pub(crate) struct Tables {
    weights: BTreeMap<String, Payload>,
    constants: BTreeMap<String, Payload>,
}

/// Which folder a payload lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Parameters and persistent buffers.
    Weights,
    /// Lifted constants and buffers that are not persistent.
    Constants,
}

impl Tables {
    pub fn read(archive: &Archive, program: &str) -> Result<Tables> {
        let config = |folder: &str| {
            let name = format!("data/{folder}/{program}_{folder}_config.json");
            match archive.find(&name) {
                None => Ok(BTreeMap::new()),
                Some(bytes) => serde_json::from_slice::<PayloadConfig>(bytes.as_slice())
                    .map(|c| c.config)
                    .map_err(|e| ImportError::malformed(e.to_string()).at(|| format!("member `{name}`"))),
            }
        };
        Ok(Tables {
            weights: config("weights")?,
            constants: config("constants")?,
        })
    }

    /// The payload of a name; either folder is searched, the likely one first.
    fn payload(&self, folder: Folder, name: &str) -> Option<(&'static str, &Payload)> {
        let weights = || Some(("data/weights", self.weights.get(name)?));
        let constants = || Some(("data/constants", self.constants.get(name)?));
        match folder {
            Folder::Weights => weights().or_else(constants),
            Folder::Constants => constants().or_else(weights),
        }
    }
}

impl Weights {
    /// The constant of this name.
    pub fn constant(
        &mut self,
        archive: &Archive,
        tables: &Tables,
        folder: Folder,
        name: &str,
        into: &mut Constants,
    ) -> Result<ConstantId> {
        let at = || format!("weight `{name}`");
        let (path, payload) = find(tables, folder, name)?;
        let bytes = member(archive, &path)?;
        if payload.use_pickle {
            return match pickle::read(bytes).map_err(|e| e.at(at))? {
                Pickled::Tensor(constant) => self.add(constant, name, into).map_err(|e| e.at(at)),
                Pickled::Subclass { class, .. } => {
                    let message = format!("tensor subclass `{class}` is used whole");
                    Err(ImportError::unsupported(message).at(at).hint(UNWRAP))
                }
            };
        }
        let meta = payload
            .tensor_meta
            .as_ref()
            .ok_or_else(|| ImportError::malformed("no tensor_meta").at(at))?;
        let constant = constant_of(meta, bytes).map_err(|e| e.at(at))?;
        self.add(constant, name, into).map_err(|e| e.at(at))
    }

    /// The tensor that a subclass wraps at the end of a path of attributes.
    pub fn inner(
        &mut self,
        archive: &Archive,
        tables: &Tables,
        folder: Folder,
        name: &str,
        attributes: &[String],
        into: &mut Constants,
    ) -> Result<Option<ConstantId>> {
        let at = || format!("weight `{name}`");
        let (path, payload) = find(tables, folder, name)?;
        if !payload.use_pickle {
            return Err(ImportError::malformed("an inner tensor is taken of a plain tensor").at(at));
        }
        if !self.pickles.contains_key(&path) {
            let pickled = pickle::read(member(archive, &path)?).map_err(|e| e.at(at))?;
            self.pickles.insert(path.clone(), pickled);
        }
        let mut found = &self.pickles[&path];
        for attribute in attributes {
            found = match found {
                Pickled::Subclass { attributes, class } => attributes.get(attribute).ok_or_else(|| {
                    ImportError::malformed(format!("tensor subclass `{class}` has no tensor `{attribute}`")).at(at)
                })?,
                Pickled::Tensor(_) => return Err(ImportError::malformed("an inner tensor of a plain tensor").at(at)),
            };
        }
        match found {
            Pickled::Subclass { .. } => Ok(None),
            Pickled::Tensor(constant) => {
                let constant = constant.clone();
                let full = format!("{name}.{}", attributes.join("."));
                self.add(constant, &full, into).map(Some).map_err(|e| e.at(at))
            }
        }
    }

    fn add(&mut self, mut constant: Constant, name: &str, into: &mut Constants) -> Result<ConstantId> {
        check_window(&constant)?;
        let address = constant.storage.address();
        let (sizes, strides) = (constant.sizes.as_slice().to_vec(), constant.strides.as_slice().to_vec());
        let window = (address, constant.dtype, sizes, strides, constant.offset);
        if let Some((id, _)) = self.windows.get(&window) {
            return Ok(*id);
        }
        let storage = constant.storage.clone();
        if !address.0.is_multiple_of(constant.dtype.size()) {
            // Only archives that PyTorch did not write are not aligned.
            constant.storage = Bytes::from(constant.storage.as_slice().to_vec());
        }
        constant.name = name.to_string();
        if let Some(&id) = self.names.get(name) {
            // Another program of the archive has a weight of this name: one constant if it is the same.
            if same_elements(&into[id], &constant) {
                self.windows.insert(window, (id, storage));
                return Ok(id);
            }
            let mut number = 1;
            while self.names.contains_key(&format!("{name}@{number}")) {
                number += 1;
            }
            constant.name = format!("{name}@{number}");
        }
        let key = constant.name.clone();
        let id = into.push(constant);
        self.names.insert(key, id);
        self.windows.insert(window, (id, storage));
        Ok(id)
    }
}

pub(crate) const UNWRAP: &str = "unwrap tensor subclasses before export, for example with \
    `torchao.utils.unwrap_tensor_subclass`";

fn find<'t>(tables: &'t Tables, folder: Folder, name: &str) -> Result<(String, &'t Payload)> {
    match tables.payload(folder, name) {
        Some((folder, payload)) => Ok((format!("{folder}/{}", payload.path_name), payload)),
        None => Err(ImportError::malformed("not in the archive's tables").at(|| format!("weight `{name}`"))),
    }
}

fn member<'a>(archive: &'a Archive, path: &str) -> Result<&'a Bytes> {
    archive
        .find(path)
        .ok_or_else(|| ImportError::malformed("the member is missing").at(|| format!("member `{path}`")))
}

/// dtype of a code of `schema.py`.
pub(crate) fn dtype(code: i64) -> Result<DType> {
    let name = match code {
        9 => "complex32",
        31 => "float8_e4m3fnuz",
        32 => "float8_e5m2fnuz",
        33 => "float8_e8m0fnu",
        _ => "",
    };
    match u8::try_from(code).ok().and_then(DType::from_pt2) {
        Some(dtype) => Ok(dtype),
        None if name.is_empty() => Err(ImportError::malformed(format!("unknown element type code `{code}`"))),
        None => Err(ImportError::unsupported(format!("element type `{name}`"))),
    }
}

fn fixed(sizes: &[Sym]) -> Result<Dims> {
    let ints: Option<Vec<i64>> = sizes
        .iter()
        .map(|s| match s {
            Sym::Int(i) => Some(*i),
            _ => None,
        })
        .collect();
    let ints = ints.ok_or_else(|| ImportError::malformed("a weight with a symbolic size"))?;
    Dims::new(&ints).map_err(|e| ImportError::unsupported(e.to_string()))
}

fn constant_of(meta: &TensorMeta, bytes: &Bytes) -> Result<Constant> {
    if meta.layout != STRIDED {
        return Err(ImportError::unsupported(format!(
            "layout code `{}` (only strided tensors)",
            meta.layout
        )));
    }
    let Sym::Int(offset) = meta.storage_offset else {
        return Err(ImportError::malformed("a weight with a symbolic offset"));
    };
    Ok(Constant {
        name: String::new(),
        dtype: dtype(meta.dtype)?,
        sizes: fixed(&meta.sizes)?,
        strides: fixed(&meta.strides)?,
        offset: usize::try_from(offset).map_err(|_| ImportError::malformed("a negative storage offset"))?,
        storage: bytes.clone(),
    })
}

/// Every element must lie inside the storage.
fn check_window(constant: &Constant) -> Result<()> {
    let (sizes, strides) = (&constant.sizes, &constant.strides);
    let described = || format!("sizes {sizes:?}, strides {strides:?}, offset `{}`", constant.offset);
    if sizes.rank() != strides.rank() || sizes.as_slice().iter().chain(strides.as_slice()).any(|s| *s < 0) {
        return Err(ImportError::malformed(format!("a strange window: {}", described())));
    }
    let storage = constant.storage.address().1;
    let bytes = sizes.numel().and_then(|n| n.checked_mul(constant.dtype.size()));
    let bytes = bytes.ok_or_else(|| ImportError::malformed(format!("too many elements: {}", described())))?;
    if bytes == 0 {
        return Ok(());
    }
    let last = (0..sizes.rank()).try_fold(constant.offset as i128, |sum, d| {
        sum.checked_add(i128::from(sizes[d] - 1) * i128::from(strides[d]))
    });
    let inside = last.is_some_and(|last| (last + 1) * constant.dtype.size() as i128 <= storage as i128);
    if !inside {
        let message = format!(
            "{} of `{}` lie outside the {storage} bytes of the storage",
            described(),
            constant.dtype
        );
        return Err(ImportError::malformed(message));
    }
    if bytes > storage.saturating_add(MAX_UNFOLDED) {
        return Err(ImportError::unsupported(format!(
            "{bytes} bytes expanded from a storage of {storage}"
        )));
    }
    Ok(())
}

fn same_elements(a: &Constant, b: &Constant) -> bool {
    a.dtype == b.dtype
        && a.sizes == b.sizes
        && a.to_contiguous()
            .zip(b.to_contiguous())
            .is_some_and(|(a, b)| a.as_slice() == b.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sizes: &[i64], strides: &[i64], offset: usize, bytes: usize) -> Constant {
        Constant {
            name: String::new(),
            dtype: DType::F32,
            sizes: Dims::new(sizes).unwrap(),
            strides: Dims::new(strides).unwrap(),
            offset,
            storage: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn windows_must_lie_in_their_storage() {
        assert!(check_window(&window(&[2, 3], &[1, 2], 0, 24)).is_ok());
        assert!(check_window(&window(&[0, 3], &[3, 1], 9, 0)).is_ok());
        let cases = [
            (window(&[2, 3], &[1, 2], 1, 24), "outside"),
            (window(&[2], &[-1], 1, 24), "strange"),
            (window(&[2, 3], &[1], 0, 24), "strange"),
            (window(&[i64::MAX, i64::MAX], &[0, 0], 0, 24), "too many"),
            (window(&[2], &[i64::MAX], 0, 24), "outside"),
            (window(&[1 << 40], &[0], 0, 24), "expanded"),
        ];
        for (constant, want) in cases {
            let error = check_window(&constant).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn tied_weights_are_one_constant_and_another_weight_of_the_name_is_not() {
        let (mut weights, mut constants) = (Weights::default(), Constants::default());
        let a = window(&[2], &[1], 0, 8);
        let first = weights.add(a.clone(), "a", &mut constants).unwrap();
        assert_eq!(weights.add(a.clone(), "tied", &mut constants).unwrap(), first);
        let equal = Constant {
            storage: Bytes::from(vec![0; 8]),
            ..a.clone()
        };
        assert_eq!(weights.add(equal, "a", &mut constants).unwrap(), first);
        let other = Constant {
            storage: Bytes::from(vec![1; 8]),
            ..a
        };
        let second = weights.add(other, "a", &mut constants).unwrap();
        assert_ne!(second, first);
        assert_eq!(constants[second].name, "a@1");
    }

    #[test]
    fn element_types_that_are_not_held_are_named() {
        assert_eq!(dtype(7).unwrap(), DType::F32);
        assert_eq!(dtype(10).unwrap(), DType::C64);
        assert!(dtype(9).unwrap_err().to_string().contains("complex32"));
        assert!(dtype(99).unwrap_err().to_string().contains("99"));
        assert!(dtype(-1).is_err());
    }
}
