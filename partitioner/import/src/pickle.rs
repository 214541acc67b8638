//! A reader of tensor tables in `torch.save` pickles: tensor subclasses have no raw form in a `.pt2`.
//!
//! Nothing is executed. A pickle is read into an inert tree in which a call stays a call, and only the shapes of calls that
//! PyTorch's tensors make are then understood (`torch._utils._rebuild_tensor_v2` and its kin).

use crate::archive::Archive;
use crate::error::{ImportError, Result};
use delegraph_ir::{Bytes, Constant};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

const MAX_NESTING: usize = 16;

/// A pickled tensor: a plain one, or a subclass with the tensors that it wraps by attribute.
#[derive(Debug, Clone)]
pub(crate) enum Pickled {
    Tensor(Constant),
    Subclass {
        class: String,
        attributes: BTreeMap<String, Pickled>,
    },
}

/// Reads the pickled tensor in a member.
pub(crate) fn read(member: &Bytes) -> Result<Pickled> {
    let archive = Archive::open(member)?;
    let pickle = archive
        .find("data.pkl")
        .ok_or_else(|| ImportError::malformed("a pickled tensor without `data.pkl`"))?;
    if let Some(order) = archive.find("byteorder")
        && order.as_slice().trim_ascii() != b"little"
    {
        return Err(ImportError::unsupported("a pickled tensor that is not little-endian"));
    }
    let tree = Tree::read(pickle.as_slice())?;
    tree.tensor(tree.root, &archive, 0)
}

type Id = u32;

#[derive(Debug, Clone)]
enum Item {
    None,
    Int(i64),
    Str(String),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module name`
    Global(String),
    Call(Id, Id),
    /// A reference to a storage.
    Persistent(Id),
    Mark,
    /// Something that tensors do not need.
    Opaque,
}

/// Everything a pickle builds. Items refer to each other by position, so sharing costs nothing and dropping never recurses.
struct Tree {
    items: Vec<Item>,
    root: Id,
}

struct Input<'a> {
    bytes: &'a [u8],
}

fn cut() -> ImportError {
    ImportError::malformed("the pickle of a tensor ends early")
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or_else(cut)?;
        self.bytes = rest;
        Ok(head)
    }

    /// A little-endian unsigned integer of up to 8 bytes.
    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self
            .take(bytes)?
            .iter()
            .rev()
            .fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    fn text(&mut self, length: u64) -> Result<String> {
        let bytes = self.take(usize::try_from(length).map_err(|_| cut())?)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| ImportError::malformed("a string in a pickle is not UTF-8"))
    }

    fn line(&mut self) -> Result<String> {
        let length = self.bytes.iter().position(|b| *b == b'\n').ok_or_else(cut)?;
        let line = self.text(length as u64)?;
        self.take(1)?;
        Ok(line)
    }
}

impl Tree {
    fn read(bytes: &[u8]) -> Result<Tree> {
        let mut tree = Tree {
            items: Vec::new(),
            root: 0,
        };
        let mut input = Input { bytes };
        let mut stack: Vec<Id> = Vec::new();
        let mut memo: FxHashMap<u64, Id> = FxHashMap::default();
        let empty = || ImportError::malformed("the pickle of a tensor takes from an empty stack");
        loop {
            let code = input.take(1)?[0];
            let item = match code {
                0x80 => {
                    input.take(1)?;
                    continue;
                }
                // FRAME
                0x95 => {
                    input.take(8)?;
                    continue;
                }
                b'.' => {
                    tree.root = stack.pop().ok_or_else(empty)?;
                    return Ok(tree);
                }
                b'(' => Item::Mark,
                b'N' => Item::None,
                0x88 | 0x89 => Item::Opaque,
                b'K' => Item::Int(input.number(1)? as i64),
                b'M' => Item::Int(input.number(2)? as i64),
                b'J' => Item::Int(i64::from(input.number(4)? as u32 as i32)),
                // LONG1
                0x8a => {
                    let length = input.number(1)? as usize;
                    if length > 8 {
                        return Err(ImportError::malformed("an integer of more than 8 bytes in a pickle"));
                    }
                    let value = input.number(length)?;
                    let unused = 64 - 8 * length as u32;
                    Item::Int(if length == 0 {
                        0
                    } else {
                        (value << unused) as i64 >> unused
                    })
                }
                b'G' => {
                    input.take(8)?;
                    Item::Opaque
                }
                b'X' => {
                    let length = input.number(4)?;
                    Item::Str(input.text(length)?)
                }
                // SHORT_BINUNICODE
                0x8c => {
                    let length = input.number(1)?;
                    Item::Str(input.text(length)?)
                }
                b')' | b']' => Item::List(Vec::new()),
                b'}' => Item::Dict(Vec::new()),
                b'c' => Item::Global(format!("{} {}", input.line()?, input.line()?)),
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (stack.pop().ok_or_else(empty)?, stack.pop().ok_or_else(empty)?);
                    match (tree.item(module), tree.item(name)) {
                        (Item::Str(m), Item::Str(n)) => Item::Global(format!("{m} {n}")),
                        _ => return Err(ImportError::malformed("a global without a name in a pickle")),
                    }
                }
                b't' => Item::List(tree.to_mark(&mut stack)?),
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let start = stack.len().checked_sub(count).ok_or_else(empty)?;
                    Item::List(stack.split_off(start))
                }
                // REDUCE, NEWOBJ: kept as a call.
                b'R' | 0x81 => {
                    let (args, function) = (stack.pop().ok_or_else(empty)?, stack.pop().ok_or_else(empty)?);
                    Item::Call(function, args)
                }
                b'Q' => Item::Persistent(stack.pop().ok_or_else(empty)?),
                // BUILD: the state of an object that tensors do not need.
                b'b' => {
                    stack.pop().ok_or_else(empty)?;
                    continue;
                }
                b'q' | b'r' | 0x94 => {
                    let slot = match code {
                        b'q' => input.number(1)?,
                        b'r' => input.number(4)?,
                        _ => memo.len() as u64,
                    };
                    memo.insert(slot, *stack.last().ok_or_else(empty)?);
                    continue;
                }
                b'h' | b'j' => {
                    let slot = input.number(if code == b'h' { 1 } else { 4 })?;
                    stack.push(
                        *memo
                            .get(&slot)
                            .ok_or_else(|| ImportError::malformed("an unknown memo in a pickle"))?,
                    );
                    continue;
                }
                b'u' | b's' | b'e' | b'a' => {
                    let added = match code {
                        b'u' | b'e' => tree.to_mark(&mut stack)?,
                        b's' => {
                            let start = stack.len().checked_sub(2).ok_or_else(empty)?;
                            stack.split_off(start)
                        }
                        _ => vec![stack.pop().ok_or_else(empty)?],
                    };
                    let target = *stack.last().ok_or_else(empty)?;
                    match &mut tree.items[target as usize] {
                        Item::Dict(pairs) if added.len() % 2 == 0 => {
                            pairs.extend(added.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                        }
                        Item::List(items) => items.extend(added),
                        // An OrderedDict is a call; its items are not needed.
                        Item::Call(..) => {}
                        _ => return Err(ImportError::malformed("items are added to a non-container in a pickle")),
                    }
                    continue;
                }
                other => {
                    return Err(ImportError::unsupported(format!(
                        "opcode `{other:#04x}` in the pickle of a tensor"
                    )));
                }
            };
            stack.push(tree.items.len() as Id);
            tree.items.push(item);
        }
    }

    fn item(&self, id: Id) -> &Item {
        &self.items[id as usize]
    }

    fn to_mark(&self, stack: &mut Vec<Id>) -> Result<Vec<Id>> {
        let mark = stack.iter().rposition(|id| matches!(self.item(*id), Item::Mark));
        let mark = mark.ok_or_else(|| ImportError::malformed("no mark on the stack of a pickle"))?;
        let items = stack.split_off(mark + 1);
        stack.pop();
        Ok(items)
    }

    /// Function name and arguments, if the item is a call.
    fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.item(id) {
            Item::Call(function, args) => match (self.item(*function), self.item(*args)) {
                (Item::Global(name), Item::List(args)) => Some((name, args)),
                _ => None,
            },
            _ => None,
        }
    }

    fn tensor(&self, id: Id, archive: &Archive, depth: usize) -> Result<Pickled> {
        let strange = || ImportError::unsupported("a pickled object that is not a tensor");
        if depth > MAX_NESTING {
            return Err(ImportError::malformed("tensor subclasses nested too deep"));
        }
        let (name, args) = self.call(id).ok_or_else(strange)?;
        match (name, args) {
            ("torch._utils _rebuild_parameter", [data, ..]) => self.tensor(*data, archive, depth + 1),
            ("torch._utils _rebuild_tensor_v2", [storage, offset, sizes, strides, ..]) => {
                self.plain(archive, *storage, *offset, *sizes, *strides, None)
            }
            ("torch._utils _rebuild_tensor_v3", [storage, offset, sizes, strides, _, _, dtype, ..]) => {
                self.plain(archive, *storage, *offset, *sizes, *strides, Some(*dtype))
            }
            ("torch._tensor _rebuild_from_type_v2", [function, class, args, state, ..]) => {
                let class = match self.item(*class) {
                    Item::Global(name) => name.replace(' ', "."),
                    _ => return Err(strange()),
                };
                if matches!(self.item(*function), Item::Global(f) if f != "torch._utils _rebuild_wrapper_subclass") {
                    // A subclass that only renames a plain tensor: its data are the tensor.
                    let Item::Global(function) = self.item(*function) else {
                        return Err(strange());
                    };
                    if let ("torch._utils _rebuild_tensor_v2", Item::List(args)) = (function.as_str(), self.item(*args))
                        && let [storage, offset, sizes, strides, ..] = args.as_slice()
                    {
                        return self.plain(archive, *storage, *offset, *sizes, *strides, None);
                    }
                    return Err(ImportError::unsupported(format!(
                        "tensor subclass `{class}` with rebuild `{function}`"
                    )));
                }
                let mut attributes = BTreeMap::new();
                let states: &[Id] = match self.item(*state) {
                    Item::List(parts) => parts,
                    _ => std::slice::from_ref(state),
                };
                for state in states {
                    let Item::Dict(pairs) = self.item(*state) else { continue };
                    for (key, value) in pairs {
                        // Only attributes that are tensors matter: the program holds the rest as literals.
                        if let (Item::Str(key), Some((call, _))) = (self.item(*key), self.call(*value))
                            && (call.starts_with("torch._utils _rebuild") || call.starts_with("torch._tensor _rebuild"))
                        {
                            attributes.insert(key.clone(), self.tensor(*value, archive, depth + 1)?);
                        }
                    }
                }
                Ok(Pickled::Subclass { class, attributes })
            }
            (name, _) => Err(ImportError::unsupported(format!(
                "a pickled object made by `{}`",
                name.replace(' ', ".")
            ))),
        }
    }

    fn plain(
        &self,
        archive: &Archive,
        storage: Id,
        offset: Id,
        sizes: Id,
        strides: Id,
        dtype: Option<Id>,
    ) -> Result<Pickled> {
        let bad = || ImportError::malformed("a pickled tensor with strange arguments");
        let Item::Persistent(reference) = self.item(storage) else {
            return Err(bad());
        };
        let Item::List(parts) = self.item(*reference) else {
            return Err(bad());
        };
        let [kind, class, key, ..] = parts.as_slice() else {
            return Err(bad());
        };
        let (Item::Str(kind), Item::Global(class), Item::Str(key)) =
            (self.item(*kind), self.item(*class), self.item(*key))
        else {
            return Err(bad());
        };
        if kind != "storage" {
            return Err(bad());
        }
        let type_name = match dtype.map(|id| self.item(id)) {
            None => class,
            Some(Item::Global(name)) => name,
            Some(_) => return Err(bad()),
        };
        let dtype = dtype_of(type_name)
            .ok_or_else(|| ImportError::unsupported(format!("element type `{}`", type_name.replace(' ', "."))))?;
        let Item::Int(offset) = self.item(offset) else {
            return Err(bad());
        };
        let ints = |id: Id| -> Result<Dims> {
            let Item::List(items) = self.item(id) else {
                return Err(bad());
            };
            let ints: Option<Vec<i64>> = items
                .iter()
                .map(|i| match self.item(*i) {
                    Item::Int(value) => Some(*value),
                    _ => None,
                })
                .collect();
            Dims::new(&ints.ok_or_else(bad)?).map_err(|e| ImportError::unsupported(e.to_string()))
        };
        let bytes = archive
            .find(&format!("data/{key}"))
            .ok_or_else(|| ImportError::malformed(format!("a pickled tensor without its storage `data/{key}`")))?;
        Ok(Pickled::Tensor(Constant {
            name: String::new(),
            dtype,
            sizes: ints(sizes)?,
            strides: ints(strides)?,
            offset: usize::try_from(*offset).map_err(|_| bad())?,
            storage: bytes.clone(),
        }))
    }
}

fn dtype_of(name: &str) -> Option<DType> {
    let name = name.strip_prefix("torch ")?;
    Some(match name {
        "ByteStorage" => DType::U8,
        "CharStorage" => DType::I8,
        "ShortStorage" => DType::I16,
        "IntStorage" => DType::I32,
        "LongStorage" => DType::I64,
        "HalfStorage" => DType::F16,
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "ComplexFloatStorage" => DType::C64,
        "ComplexDoubleStorage" => DType::C128,
        "BoolStorage" => DType::Bool,
        "BFloat16Storage" => DType::BF16,
        other => DType::from_name(other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_pickle_is_refused_and_never_run() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "ends early"),
            (b".", "empty stack"),
            (b"t", "no mark"),
            (b"h\x01", "unknown memo"),
            (b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
            (b"N.", "not a tensor"),
            (b"Ni", "opcode"),
            (b"X\xff\xff\xff\xff", "ends early"),
            (b"NNs", "empty stack"),
        ];
        for (bytes, want) in cases {
            let archive = Archive::open(&Bytes::from(Vec::new())).err();
            assert!(archive.is_some());
            let error = Tree::read(bytes).and_then(|tree| match tree.call(tree.root) {
                Some((name, _)) => Err(ImportError::unsupported(name.replace(' ', "."))),
                None => Err(ImportError::unsupported("not a tensor")),
            });
            let error = error.map(|_: ()| ()).unwrap_err().to_string();
            assert!(error.contains(want), "{bytes:?}: {error}");
        }
    }
}
