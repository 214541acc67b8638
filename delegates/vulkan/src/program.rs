//! The blob: what `compile` writes and `load` reads.
//!
//! | section | content |
//! | --- | --- |
//! | `image` | the graph image of the region |
//! | `plan` | [`Plan`], in the form below |
//! | `packed` | packed constants, one behind the other at multiples of 256 bytes; absent if there are none |
//!
//! The plan is words of 32 bits, little-endian: the magic `DGVK`, the version, then groups (their count; for each the count of its nodes and
//! these, the root first), states (their count; for each its three numbers) and constants (their count; for each weight id, offset / 256 and size in `packed`, the name as its length in bytes
//! and words padded with zeros, the count of arguments and these). Everything is checked as it is read.

use crate::packing::{self, Key};
use delegraph_sdk::Error;
use delegraph_sdk::image::{ImageView, ValueIndex};

/// The first word of a plan.
pub const MAGIC: u32 = u32::from_le_bytes(*b"DGVK");
/// Version of this form; also that of the delegate's blobs.
pub const VERSION: u32 = 1;
/// What offsets in `packed` are multiples of.
pub const ALIGN: u64 = 256;

/// Decisions of the compiler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Nodes that run as one, by their index in the image, the root first. A node that is in none runs by itself.
    pub groups: Vec<Vec<u32>>,
    /// States that the session keeps.
    pub states: Vec<State>,
    /// Packed constants and where they lie in the section `packed`.
    pub constants: Vec<(Key, Place)>,
}

/// A state that stays on the device between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Its index in the image.
    pub index: u32,
    /// The input that is its value before a run.
    pub input: u32,
    /// The output that is its value after one.
    pub output: u32,
}

/// Bytes in the section `packed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// A multiple of [`ALIGN`].
    pub offset: u64,
    /// Their number.
    pub bytes: u64,
}

impl Plan {
    /// The section `plan`.
    pub fn write(&self) -> Vec<u8> {
        let mut words = vec![MAGIC, VERSION, self.groups.len() as u32];
        for group in &self.groups {
            words.push(group.len() as u32);
            words.extend(group);
        }
        words.push(self.states.len() as u32);
        words.extend(
            self.states
                .iter()
                .flat_map(|state| [state.index, state.input, state.output]),
        );
        words.push(self.constants.len() as u32);
        for (key, place) in &self.constants {
            words.extend([
                key.weight,
                (place.offset / ALIGN) as u32,
                place.bytes as u32,
                key.packing.len() as u32,
            ]);
            words.extend(key.packing.as_bytes().chunks(4).map(|chunk| {
                let mut bytes = [0; 4];
                bytes[..chunk.len()].copy_from_slice(chunk);
                u32::from_le_bytes(bytes)
            }));
            words.push(key.arguments.len() as u32);
            words.extend(&key.arguments);
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads the section `plan`.
    ///
    /// # Errors
    /// `BLOB_CORRUPT`: it is cut off, of another form, has a node that is not below `nodes`, a node in two groups, or constants beyond
    /// `packed` bytes. States are held against the image by [`Plan::check_states`]. `BLOB_INCOMPATIBLE`: it is of another version.
    pub fn read(bytes: &[u8], nodes: u32, packed: u64) -> Result<Plan, Error> {
        let mut reader = Reader { bytes };
        if reader.word()? != MAGIC {
            return Err(Error::corrupt("the plan does not begin with `DGVK`"));
        }
        let version = reader.word()?;
        if version != VERSION {
            let code = delegraph_sdk::Status::BLOB_INCOMPATIBLE;
            return Err(
                Error::new(code, format!("version {version} of the plan is not {VERSION}"))
                    .hint("compile the model again"),
            );
        }
        let mut seen = vec![false; nodes as usize];
        let mut plan = Plan::default();
        for _ in 0..reader.count()? {
            let group: Vec<u32> = (0..reader.count()?).map(|_| reader.word()).collect::<Result<_, _>>()?;
            for node in &group {
                match seen.get_mut(*node as usize) {
                    Some(seen) if !*seen => *seen = true,
                    Some(_) => return Err(Error::corrupt(format!("node {node} is in two groups"))),
                    None => return Err(Error::corrupt(format!("the plan has node {node} of {nodes}"))),
                }
            }
            if group.len() < 2 || group.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(Error::corrupt("the nodes of a group are not in order"));
            }
            plan.groups.push(group);
        }
        for _ in 0..reader.count()? {
            let (index, input, output) = (reader.word()?, reader.word()?, reader.word()?);
            plan.states.push(State { index, input, output });
        }
        for _ in 0..reader.count()? {
            let (weight, offset, bytes) = (
                reader.word()?,
                u64::from(reader.word()?) * ALIGN,
                u64::from(reader.word()?),
            );
            if offset + bytes > packed {
                return Err(Error::corrupt(format!(
                    "a constant ends at {} of {packed} bytes",
                    offset + bytes
                )));
            }
            let name = reader.text()?;
            let packing = packing::find(&name)
                .ok_or_else(|| Error::corrupt(format!("constants of the form `{name}` are not known here")))?;
            let arguments = (0..reader.count()?).map(|_| reader.word()).collect::<Result<_, _>>()?;
            let key = Key {
                weight,
                packing: packing.name.to_string(),
                arguments,
            };
            plan.constants.push((key, Place { offset, bytes }));
        }
        match reader.bytes {
            [] => Ok(plan),
            rest => Err(Error::corrupt(format!("{} bytes follow the plan", rest.len()))),
        }
    }
}

impl Plan {
    /// The states that a session of this graph can keep: all whose sizes are known, of at least so many bytes.
    pub fn states_of(image: &ImageView<'_>, least: u64) -> Vec<State> {
        let bytes = |value| {
            let value = image.value(value);
            let count: u64 = value.const_dims()?.iter().map(|d| *d as u64).product();
            Some(count * value.dtype()?.size()? as u64)
        };
        let is_large = |value: Option<ValueIndex>| value.and_then(bytes).is_some_and(|bytes| bytes >= least);
        let fixed = |value: Option<ValueIndex>| value.is_some_and(|value| image.value(value).const_dims().is_some());
        let states = image.states().enumerate().map(|(index, state)| State {
            index: index as u32,
            input: state.input,
            output: state.output,
        });
        states
            .filter(|state| {
                is_large(image.inputs().get(state.input as usize)) && fixed(image.outputs().get(state.output as usize))
            })
            .collect()
    }

    /// Holds the states against the image.
    ///
    /// # Errors
    /// `BLOB_CORRUPT`: one is not a state of the image.
    pub fn check_states(&self, image: &ImageView<'_>) -> Result<(), Error> {
        let known = Plan::states_of(image, 0);
        match self.states.iter().find(|state| !known.contains(state)) {
            None => Ok(()),
            Some(state) => Err(Error::corrupt(format!(
                "the plan keeps a state {} that the graph does not have",
                state.index
            ))),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| Error::corrupt("the plan is cut off"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn word(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    /// A number of things that follow, each of a word at least.
    fn count(&mut self) -> Result<u32, Error> {
        let count = self.word()?;
        match count as usize <= self.bytes.len() / 4 {
            true => Ok(count),
            false => Err(Error::corrupt("the plan is cut off")),
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = self.word()? as usize;
        if length > self.bytes.len() {
            return Err(Error::corrupt("the plan is cut off"));
        }
        let padded = self.take(length.next_multiple_of(4))?;
        let text =
            std::str::from_utf8(&padded[..length]).map_err(|_| Error::corrupt("a name in the plan is not UTF-8"))?;
        Ok(text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let state = State {
            index: 0,
            input: 1,
            output: 2,
        };
        Plan {
            groups: vec![vec![0, 1, 3], vec![2, 4]],
            states: vec![state],
            constants: Vec::new(),
        }
    }

    #[test]
    fn a_plan_comes_back_as_it_was() {
        assert_eq!(Plan::read(&plan().write(), 5, 0).unwrap(), plan());
    }

    #[test]
    fn every_cut_and_every_wrong_node_is_noticed() {
        let bytes = plan().write();
        for end in 0..bytes.len() {
            assert!(Plan::read(&bytes[..end], 5, 0).is_err(), "{end}");
        }
        assert!(Plan::read(&bytes, 4, 0).is_err());
        assert!(Plan::read(&[bytes.as_slice(), &[0; 4]].concat(), 5, 0).is_err());
    }

    #[test]
    fn flipped_bits_never_panic() {
        let bytes = plan().write();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let _ = Plan::read(&flipped, 5, 0);
        }
    }
}
