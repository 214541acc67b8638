//! Look-up in the sorted table.

use crate::rows::Rows;
use crate::schema::Schema;
use core::fmt;

static TABLE: Rows = Rows::new(include_str!("schemas.txt"), |row| {
    let name = row.split_once('\t').map_or(row, |(_, text)| text);
    &name[..name.find('(').unwrap_or(name.len())]
});

/// An operator of the table, named `namespace::name` or `namespace::name.overload` (the overload `default` has no suffix).
///
/// Cheap to copy and compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    /// Byte offset of the operator's line in the table.
    line: u32,
}

impl Op {
    /// The operator of this name; a trailing `.default` is accepted.
    pub fn find(name: &str) -> Option<Op> {
        let search = |name: &str| Some(op_at(TABLE.find(name)?));
        search(name).or_else(|| search(name.strip_suffix(".default")?))
    }

    /// Every operator of the table, in order.
    pub fn all() -> impl Iterator<Item = Op> {
        TABLE.from(0).map(op_at)
    }

    /// Operators in order, from the first whose name is not below `base` + `suffix`.
    pub(crate) fn from_name_on(base: &str, suffix: &str) -> impl Iterator<Item = Op> + use<> {
        TABLE.from(TABLE.lower_bound(base, suffix)).map(op_at)
    }

    /// `aten::add.Tensor`
    pub fn name(self) -> &'static str {
        TABLE.name(self.line as usize)
    }

    /// The signature as PyTorch prints it.
    pub fn signature(self) -> &'static str {
        let line = TABLE.row(self.line as usize);
        line.split_once('\t').map_or(line, |(_, text)| text)
    }

    /// The parsed signature. Parsing costs about a microsecond: keep the result where a loop needs it.
    pub fn schema(self) -> Schema {
        Schema::parse(self.signature()).unwrap_or_else(|error| unreachable!("the table was parsed by a test: {error}"))
    }

    /// Tagged `core` in PyTorch: part of the core ATen operator set.
    pub fn is_core(self) -> bool {
        self.flags().contains('c')
    }

    /// Registered by ExecuTorch 1.5.1's wheel (quantized kernels included).
    pub fn in_executorch(self) -> bool {
        self.flags().contains('e')
    }

    /// PyTorch itself treats the operator as a composition of others.
    pub fn is_composite(self) -> bool {
        self.flags().contains('i')
    }

    /// Draws random numbers: two calls with the same arguments differ.
    pub fn is_random(self) -> bool {
        self.flags().contains('r')
    }

    /// The result aliases the first argument.
    pub fn is_view(self) -> bool {
        self.flags().contains('v')
    }

    fn flags(self) -> &'static str {
        let line = TABLE.row(self.line as usize);
        line.split_once('\t').map_or("", |(flags, _)| flags)
    }
}

fn op_at(line: usize) -> Op {
    Op { line: line as u32 }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_and_parses() {
        let mut count = 0;
        let mut last = "";
        let mut unparsed = Vec::new();
        for op in Op::all() {
            let name = op.name();
            assert!(last < name, "{last} {name}");
            last = name;
            assert_eq!(Op::find(name), Some(op), "{name}");
            if let Err(error) = Schema::parse(op.signature()) {
                unparsed.push(alloc::format!("{name}: {error}"));
            }
            count += 1;
        }
        assert!(unparsed.is_empty(), "{unparsed:#?}");
        assert!(count > 2800);
        assert_eq!(Op::find("aten::nothing"), None);
        assert_eq!(Op::find(""), None);
        assert_eq!(Op::find("zzz"), None);
    }

    #[test]
    fn what_draws_random_numbers_says_so() {
        for (name, want) in [
            ("aten::rand", true),
            ("aten::rand.out", true),
            ("aten::native_dropout", true),
            ("aten::full", false),
        ] {
            assert_eq!(Op::find(name).unwrap().is_random(), want, "{name}");
        }
    }

    #[test]
    fn core_aten_is_complete() {
        // As many overloads carry the tag in torch 2.15.
        assert_eq!(Op::all().filter(|op| op.is_core()).count(), 193);
    }
}
