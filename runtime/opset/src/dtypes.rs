//! Sets of dtypes, and the short notation that the table has for them.

use core::fmt;
use delegraph_types::DType::{self, *};

/// A set of dtypes.
///
/// The table writes it as words: `any` for every dtype, `float`, `complex`, `f8` and `int` for the classes below, and single names such as
/// `u64`; `-` for none. It prints as it is written there.
///
/// ```
/// use delegraph_opset::{DTypes, Op};
/// use delegraph_types::DType;
///
/// let dtypes = Op::find("aten::gelu").unwrap().dtypes();
/// assert!(dtypes.contains(DType::BF16) && !dtypes.contains(DType::I64));
/// assert_eq!(dtypes.to_string(), "float");
/// assert_eq!(DTypes::parse("int bool").unwrap().iter().count(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct DTypes {
    /// One bit a dtype, in declaration order.
    bits: u32,
}

/// Classes, each written before what it is a part of. `int` has no `u64`: half of the kernels have no arithmetic for it.
const CLASSES: [(&str, &[DType]); 4] = [
    ("float", &[F16, BF16, F32, F64]),
    ("complex", &[C64, C128]),
    ("f8", &[F8E5M2, F8E4M3]),
    ("int", &[U8, I8, I16, I32, I64, U16, U32]),
];

impl DTypes {
    /// Reads the notation of the table; `None` where a word is unknown.
    pub fn parse(text: &str) -> Option<DTypes> {
        let mut set = DTypes::default();
        if text == "-" {
            return Some(set);
        }
        for word in text.split(' ') {
            match CLASSES.iter().find(|(class, _)| *class == word) {
                Some((_, members)) => set.extend(members.iter().copied()),
                None if word == "any" => set.extend(DType::all()),
                None => set.extend([DType::all().find(|dtype| dtype.name() == word)?]),
            }
        }
        Some(set)
    }

    /// True if the dtype is in it.
    pub fn contains(self, dtype: DType) -> bool {
        self.bits & bit(dtype) != 0
    }

    /// No dtype at all.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The dtypes, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = DType> {
        DType::all().filter(move |&dtype| self.contains(dtype))
    }
}

fn bit(dtype: DType) -> u32 {
    1 << dtype as u32
}

impl Extend<DType> for DTypes {
    fn extend<I: IntoIterator<Item = DType>>(&mut self, dtypes: I) {
        for dtype in dtypes {
            self.bits |= bit(dtype);
        }
    }
}

impl FromIterator<DType> for DTypes {
    fn from_iter<I: IntoIterator<Item = DType>>(dtypes: I) -> DTypes {
        let mut set = DTypes::default();
        set.extend(dtypes);
        set
    }
}

impl fmt::Display for DTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        if self.iter().count() == DType::all().count() {
            return f.write_str("any");
        }
        let (mut left, mut between) = (*self, "");
        for (class, members) in CLASSES {
            if members.iter().all(|&dtype| self.contains(dtype)) {
                write!(f, "{between}{class}")?;
                between = " ";
                left.bits &= !members.iter().copied().collect::<DTypes>().bits;
            }
        }
        for dtype in left.iter() {
            write!(f, "{between}{dtype}")?;
            between = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for DTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_notation_is_read_and_written() {
        for (text, count) in [
            ("-", 0),
            ("any", 17),
            ("float", 4),
            ("int", 7),
            ("float int bool u64", 13),
            ("f8 f16", 3),
            ("float complex int", 13),
            ("u8 bool", 2),
        ] {
            let set = DTypes::parse(text).unwrap();
            assert_eq!(set.iter().count(), count, "{text}");
            assert_eq!(DTypes::parse(&set.to_string()), Some(set), "{text}");
            assert_eq!(set.is_empty(), count == 0);
        }
        for text in ["", "floats", "float  int", "f32,f16", "any -"] {
            assert_eq!(DTypes::parse(text), None, "{text}");
        }
        assert!(DTypes::parse("float complex f8 int u64 bool").unwrap() == DTypes::parse("any").unwrap());
    }
}
