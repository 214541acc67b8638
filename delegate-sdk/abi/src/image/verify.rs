//! Checks an image that came from outside.

use super::table::{Layout, Span, Table};
use super::view::ImageView;
use crate::c::{
    ArgKind, DType, ExprKind, ExprOp, IMAGE_MAGIC, IMAGE_MAJOR, ImageArg, ImageExpr, ImageHeader, ImageNode,
    ImageQuant, ImageState, ImageSymbol, ImageTable, ImageTableKind, ImageValue, ImageWeight, MAX_RANK, NONE,
    QuantKind, ValueSource, ValueType,
};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;

/// Why bytes are not a graph image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a graph image at all.
    Magic,
    /// Another major version.
    Version(u16),
    /// Fewer or more bytes than it states.
    Size {
        /// Bytes stated.
        stated: u64,
        /// Bytes given.
        given: u64,
    },
    /// A table lies outside of the image, or its records are too small.
    Table(ImageTableKind),
    /// A record says something that cannot be.
    Record {
        /// Its table.
        table: ImageTableKind,
        /// Its index.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Larger than an image can be.
    TooLarge,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Magic => f.write_str("not a graph image"),
            ImageError::Version(major) => write!(f, "graph image of major version {major}; this is {IMAGE_MAJOR}"),
            ImageError::Size { stated, given } => {
                write!(f, "a graph image of {stated} bytes is given as {given} bytes")
            }
            ImageError::Table(kind) => write!(f, "table `{kind:?}` of the graph image lies outside or is misshapen"),
            ImageError::Record { table, index, what } => {
                write!(f, "record {index} of table `{table:?}` of the graph image: {what}")
            }
            ImageError::TooLarge => f.write_str("the graph is too large for an image"),
        }
    }
}

impl core::error::Error for ImageError {}

/// Smallest record of each kind, in the order of the kinds from 1.
const RECORDS: [(ImageTableKind, usize); 13] = [
    (ImageTableKind::STRINGS, 1),
    (ImageTableKind::INDICES, 4),
    (ImageTableKind::WORDS, 8),
    (ImageTableKind::SYMBOLS, size_of::<ImageSymbol>()),
    (ImageTableKind::EXPRS, size_of::<ImageExpr>()),
    (ImageTableKind::QUANTS, size_of::<ImageQuant>()),
    (ImageTableKind::WEIGHTS, size_of::<ImageWeight>()),
    (ImageTableKind::VALUES, size_of::<ImageValue>()),
    (ImageTableKind::NODES, size_of::<ImageNode>()),
    (ImageTableKind::ARGS, size_of::<ImageArg>()),
    (ImageTableKind::INPUTS, 4),
    (ImageTableKind::OUTPUTS, 4),
    (ImageTableKind::STATES, size_of::<ImageState>()),
];

/// Checks every offset, index, text and order of an image, in time linear in its size.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(bytes: &[u8]) -> Result<ImageView<'_>, ImageError> {
    let layout = tables(bytes)?;
    let image = ImageView { bytes, layout };
    let mut check = Check {
        image,
        strings: "",
        indices: 0,
        words: 0,
        args: 0,
    };
    check.all(bytes)?;
    Ok(image)
}

/// Reads the directory.
fn tables(bytes: &[u8]) -> Result<Layout, ImageError> {
    let header = Table {
        bytes,
        record_size: size_of::<ImageHeader>(),
        count: 1,
    };
    if bytes.len() < size_of::<ImageHeader>() || header.u32(0, 0) != IMAGE_MAGIC {
        return Err(ImageError::Magic);
    }
    let versions = header.u32(0, offset_of!(ImageHeader, major));
    if versions & 0xffff != IMAGE_MAJOR {
        return Err(ImageError::Version(versions as u16));
    }
    let stated = header.u64(0, offset_of!(ImageHeader, total_size));
    if stated != bytes.len() as u64 {
        return Err(ImageError::Size {
            stated,
            given: bytes.len() as u64,
        });
    }
    let unreadable = ImageError::Table(ImageTableKind(0));
    let start = header.u32(0, offset_of!(ImageHeader, header_size)) as usize;
    let count = header.u32(0, offset_of!(ImageHeader, table_count));
    let record_size = header.u32(0, offset_of!(ImageHeader, table_size)) as usize;
    let fits = record_size
        .checked_mul(count as usize)
        .and_then(|n| n.checked_add(start))
        .is_some_and(|end| end <= bytes.len());
    if !fits || start < size_of::<ImageHeader>() || record_size < size_of::<ImageTable>() {
        return Err(unreadable);
    }
    let directory = Table {
        bytes: &bytes[start..],
        record_size,
        count,
    };
    let mut layout = Layout::default();
    let mut seen = 0u32;
    for i in 0..count {
        let kind = ImageTableKind(directory.u32(i, offset_of!(ImageTable, kind)));
        let record_size = directory.u32(i, offset_of!(ImageTable, record_size)) as usize;
        let offset = directory.u64(i, offset_of!(ImageTable, offset));
        let count = directory.u64(i, offset_of!(ImageTable, count));
        let Some((_, smallest)) = RECORDS.iter().find(|(k, _)| *k == kind) else {
            continue;
        };
        let Some(slot) = layout.slot(kind) else {
            continue;
        };
        let end = (record_size as u64)
            .checked_mul(count)
            .and_then(|n| n.checked_add(offset));
        let inside = end.is_some_and(|end| end <= bytes.len() as u64);
        // Lists are read with the stride of their items.
        let stride = match smallest {
            1 | 4 => record_size == *smallest,
            _ => record_size >= *smallest && record_size % 8 == 0,
        };
        let (Ok(offset), Ok(count)) = (usize::try_from(offset), u32::try_from(count)) else {
            return Err(ImageError::Table(kind));
        };
        if !inside || !stride || offset % 8 != 0 || count == NONE || seen & (1 << kind.0) != 0 {
            return Err(ImageError::Table(kind));
        }
        seen |= 1 << kind.0;
        *slot = Span {
            offset,
            record_size,
            count,
        };
    }
    Ok(layout)
}

/// The checks on records. Lists are counted against the tables that hold them, so that overlapping lists cannot make a small
/// image take long.
struct Check<'a> {
    image: ImageView<'a>,
    strings: &'a str,
    indices: u64,
    words: u64,
    args: u64,
}

type Outcome = Result<(), ImageError>;

impl<'a> Check<'a> {
    fn all(&mut self, bytes: &'a [u8]) -> Outcome {
        let strings = self.image.table(ImageTableKind::STRINGS).bytes;
        self.strings = core::str::from_utf8(strings).map_err(|_| record(ImageTableKind::STRINGS, 0, "not UTF-8"))?;
        let header = Table {
            bytes,
            record_size: size_of::<ImageHeader>(),
            count: 1,
        };
        for offset in [
            offset_of!(ImageHeader, name_offset),
            offset_of!(ImageHeader, opset_offset),
        ] {
            self.text(header, ImageTableKind(0), 0, offset)?;
        }
        self.symbols()?;
        self.exprs()?;
        self.weights()?;
        self.quants()?;
        self.values()?;
        self.nodes()?;
        self.inputs_outputs()?;
        self.states()
    }

    /// The text whose offset lies at `offset` of a record and whose size follows.
    fn text(&self, table: Table<'_>, kind: ImageTableKind, index: u32, offset: usize) -> Outcome {
        let (at, size) = (table.u32(index, offset), table.u32(index, offset + 4));
        self.text_at(kind, index, at, size)
    }

    fn text_at(&self, kind: ImageTableKind, index: u32, at: u32, size: u32) -> Outcome {
        let strings = self.strings;
        let end = (at as usize).checked_add(size as usize);
        let found = end.is_some_and(|end| strings.is_char_boundary(at as usize) && strings.is_char_boundary(end));
        ensure(found, kind, index, "a text lies outside of the strings")
    }

    /// A list in INDICES whose items are below `limit`, or [`NONE`] where that is allowed.
    fn list(
        &mut self,
        kind: ImageTableKind,
        index: u32,
        (start, count): (u32, u32),
        limit: u32,
        none: bool,
    ) -> Outcome {
        let table = self.image.table(ImageTableKind::INDICES);
        ensure(
            table.holds(start, count),
            kind,
            index,
            "a list lies outside of the indices",
        )?;
        self.indices += u64::from(count);
        ensure(self.indices <= u64::from(table.count), kind, index, "lists overlap")?;
        for i in start..start + count {
            let item = table.u32(i, 0);
            ensure(
                item < limit || (none && item == NONE),
                kind,
                index,
                "a list refers to nothing",
            )?;
        }
        Ok(())
    }

    fn word_list(&mut self, kind: ImageTableKind, index: u32, start: u64, count: u64) -> Result<u32, ImageError> {
        let table = self.image.table(ImageTableKind::WORDS);
        let held = start
            .checked_add(count)
            .is_some_and(|end| end <= u64::from(table.count));
        ensure(held, kind, index, "a list lies outside of the words")?;
        self.words += count;
        ensure(self.words <= u64::from(table.count), kind, index, "lists overlap")?;
        Ok(start as u32)
    }

    fn symbols(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::SYMBOLS);
        for i in 0..table.count {
            self.text(table, kind, i, offset_of!(ImageSymbol, name_offset))?;
            let min = table.i64(i, offset_of!(ImageSymbol, min));
            let max = table.i64(i, offset_of!(ImageSymbol, max));
            ensure(min <= max, kind, i, "its range is empty")?;
        }
        Ok(())
    }

    fn exprs(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::EXPRS);
        let symbols = self.image.table(ImageTableKind::SYMBOLS).count;
        for i in 0..table.count {
            let code = table.u32(i, offset_of!(ImageExpr, code));
            match ExprKind(table.u32(i, offset_of!(ImageExpr, kind))) {
                ExprKind::INT | ExprKind::FLOAT => {}
                ExprKind::SYMBOL => ensure(code < symbols, kind, i, "there is no such symbol")?,
                ExprKind::OP => {
                    let start = table.u32(i, offset_of!(ImageExpr, start));
                    let count = table.u32(i, offset_of!(ImageExpr, count));
                    ensure(
                        arity_fits(ExprOp(code), count),
                        kind,
                        i,
                        "wrong operator or number of operands",
                    )?;
                    // Operands are earlier ones: no cycle is possible.
                    self.list(kind, i, (start, count), i, false)?;
                }
                _ => return Err(record(kind, i, "unknown kind")),
            }
        }
        Ok(())
    }

    fn weights(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::WEIGHTS);
        let mut ids: Vec<u32> = Vec::with_capacity(table.count as usize);
        for i in 0..table.count {
            let rank = table.u32(i, offset_of!(ImageWeight, rank));
            ensure(rank <= MAX_RANK, kind, i, "its rank is too large")?;
            let start = table.u32(i, offset_of!(ImageWeight, sizes_start));
            let start = self.word_list(kind, i, u64::from(start), u64::from(rank))?;
            let words = self.image.table(ImageTableKind::WORDS);
            let dtype = DType(table.u32(i, offset_of!(ImageWeight, dtype)));
            let stated = table.u64(i, offset_of!(ImageWeight, byte_size));
            let sizes = (start..start + rank).map(|w| u64::try_from(words.i64(w, 0)).ok());
            let mut bytes = Some(dtype.size().unwrap_or(0) as u64);
            for size in sizes {
                bytes = bytes.zip(size).and_then(|(b, s)| b.checked_mul(s));
            }
            let right = bytes.is_some_and(|b| b == stated || dtype.size().is_none());
            ensure(right, kind, i, "its bytes are not those of its sizes")?;
            ids.push(table.u32(i, offset_of!(ImageWeight, id)));
        }
        ids.sort_unstable();
        ensure(ids.windows(2).all(|w| w[0] != w[1]), kind, 0, "an id occurs twice")
    }

    fn quants(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::QUANTS);
        let weights = self.image.table(ImageTableKind::WEIGHTS).count;
        for i in 0..table.count {
            let quant = QuantKind(table.u32(i, offset_of!(ImageQuant, kind)));
            ensure(
                [QuantKind::PER_TENSOR, QuantKind::PER_AXIS, QuantKind::PER_BLOCK].contains(&quant),
                kind,
                i,
                "unknown kind",
            )?;
            if quant != QuantKind::PER_TENSOR {
                let scales = table.u32(i, offset_of!(ImageQuant, scales));
                let zero_points = table.u32(i, offset_of!(ImageQuant, zero_points));
                let found = scales < weights && (zero_points < weights || zero_points == NONE);
                ensure(found, kind, i, "there is no such weight")?;
            }
            if quant == QuantKind::PER_BLOCK {
                let start = table.u32(i, offset_of!(ImageQuant, block_start));
                let count = table.u32(i, offset_of!(ImageQuant, block_count));
                ensure(count <= MAX_RANK, kind, i, "its rank is too large")?;
                self.list(kind, i, (start, count), u32::MAX, false)?;
                let indices = self.image.table(ImageTableKind::INDICES);
                let positive = (start..start + count).all(|b| indices.u32(b, 0) > 0);
                ensure(positive, kind, i, "a block is empty")?;
            }
        }
        Ok(())
    }

    fn values(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::VALUES);
        let exprs = self.image.table(ImageTableKind::EXPRS);
        let quants = self.image.table(ImageTableKind::QUANTS);
        let weights = self.image.table(ImageTableKind::WEIGHTS);
        for i in 0..table.count {
            self.text(table, kind, i, offset_of!(ImageValue, name_offset))?;
            let rank = table.u32(i, offset_of!(ImageValue, rank));
            let dims = table.u32(i, offset_of!(ImageValue, dims_start));
            let ty = ValueType(table.u32(i, offset_of!(ImageValue, r#type)));
            let quant = table.u32(i, offset_of!(ImageValue, quant));
            match ty {
                ValueType::TENSOR => {
                    ensure(rank <= MAX_RANK, kind, i, "its rank is too large")?;
                    self.list(kind, i, (dims, rank), exprs.count, false)?;
                    ensure(
                        quant == NONE || quant < quants.count,
                        kind,
                        i,
                        "there is no such quantization",
                    )?;
                    if quant != NONE {
                        let fits = match QuantKind(quants.u32(quant, offset_of!(ImageQuant, kind))) {
                            QuantKind::PER_AXIS => quants.u32(quant, offset_of!(ImageQuant, axis)) < rank,
                            QuantKind::PER_BLOCK => quants.u32(quant, offset_of!(ImageQuant, block_count)) == rank,
                            _ => true,
                        };
                        ensure(fits, kind, i, "its quantization has another rank")?;
                    }
                }
                ValueType::INT | ValueType::FLOAT | ValueType::BOOL => {
                    ensure(rank == 0 && quant == NONE, kind, i, "a number has sizes")?;
                    let expr = table.u32(i, offset_of!(ImageValue, expr));
                    let found = ty != ValueType::INT || expr < exprs.count;
                    ensure(found, kind, i, "there is no such expression")?;
                }
                _ => return Err(record(kind, i, "unknown type")),
            }
            let at = table.u32(i, offset_of!(ImageValue, source_index));
            let source = ValueSource(table.u32(i, offset_of!(ImageValue, source)));
            match source {
                ValueSource::INPUT => {
                    let inputs = self.image.table(ImageTableKind::INPUTS);
                    let listed = at < inputs.count && inputs.u32(at, 0) == i;
                    ensure(listed, kind, i, "it is not the input that it says")?;
                }
                ValueSource::WEIGHT => {
                    ensure(
                        ty == ValueType::TENSOR && at < weights.count,
                        kind,
                        i,
                        "there is no such weight",
                    )?;
                    let same_rank = weights.u32(at, offset_of!(ImageWeight, rank)) == rank;
                    let dtype = table.u32(i, offset_of!(ImageValue, dtype));
                    let same_dtype = weights.u32(at, offset_of!(ImageWeight, dtype)) == dtype;
                    let sizes = weights.u32(at, offset_of!(ImageWeight, sizes_start));
                    let (words, indices) = (
                        self.image.table(ImageTableKind::WORDS),
                        self.image.table(ImageTableKind::INDICES),
                    );
                    let same_sizes = (0..rank).all(|d| {
                        let expr = indices.u32(dims + d, 0);
                        exprs.u32(expr, offset_of!(ImageExpr, kind)) == ExprKind::INT.0
                            && exprs.i64(expr, offset_of!(ImageExpr, value)) == words.i64(sizes + d, 0)
                    });
                    ensure(
                        same_rank && same_dtype && same_sizes,
                        kind,
                        i,
                        "it is not the weight that it says",
                    )?;
                }
                // Checked with the nodes.
                ValueSource::NODE => {}
                _ => return Err(record(kind, i, "unknown source")),
            }
        }
        Ok(())
    }

    fn nodes(&mut self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::NODES);
        let values = self.image.table(ImageTableKind::VALUES);
        let args = self.image.table(ImageTableKind::ARGS);
        // Inputs and weights are there from the start; a node's outputs once it has run.
        let mut defined: Vec<bool> = (0..values.count)
            .map(|v| values.u32(v, offset_of!(ImageValue, source)) != ValueSource::NODE.0)
            .collect();
        for i in 0..table.count {
            for offset in [
                offset_of!(ImageNode, name_offset),
                offset_of!(ImageNode, op_offset),
                offset_of!(ImageNode, debug_offset),
            ] {
                self.text(table, kind, i, offset)?;
            }
            let start = table.u32(i, offset_of!(ImageNode, args_start));
            let count = table.u32(i, offset_of!(ImageNode, args_count));
            ensure(args.holds(start, count), kind, i, "its arguments lie outside")?;
            self.args += u64::from(count);
            ensure(self.args <= u64::from(args.count), kind, i, "arguments overlap")?;
            for a in start..start + count {
                self.arg(args, a, &defined)?;
            }
            let start = table.u32(i, offset_of!(ImageNode, outputs_start));
            let count = table.u32(i, offset_of!(ImageNode, outputs_count));
            self.list(kind, i, (start, count), values.count, false)?;
            let indices = self.image.table(ImageTableKind::INDICES);
            for o in start..start + count {
                let v = indices.u32(o, 0);
                let mine = values.u32(v, offset_of!(ImageValue, source)) == ValueSource::NODE.0
                    && values.u32(v, offset_of!(ImageValue, source_index)) == i
                    && !defined[v as usize];
                ensure(mine, kind, i, "an output is another's, or made twice")?;
                defined[v as usize] = true;
            }
        }
        match defined.iter().position(|d| !d) {
            None => Ok(()),
            Some(v) => Err(record(ImageTableKind::VALUES, v as u32, "no node makes it")),
        }
    }

    fn arg(&mut self, args: Table<'_>, at: u32, defined: &[bool]) -> Outcome {
        let kind = ImageTableKind::ARGS;
        let count = args.u32(at, offset_of!(ImageArg, count));
        let value = args.u64(at, offset_of!(ImageArg, value));
        let index = u32::try_from(value).unwrap_or(NONE);
        let ready = |v: u32| defined.get(v as usize).copied().unwrap_or(false);
        match ArgKind(args.u32(at, offset_of!(ImageArg, kind))) {
            ArgKind::EXPR => {
                let exprs = self.image.table(ImageTableKind::EXPRS);
                ensure(index < exprs.count, kind, at, "there is no such expression")
            }
            ArgKind::STR => self.text_at(kind, at, index, count),
            ArgKind::VALUE => ensure(ready(index), kind, at, "it is read before it is made"),
            ArgKind::INTS => {
                let exprs = self.image.table(ImageTableKind::EXPRS);
                self.list(kind, at, (index, count), exprs.count, false)
            }
            ArgKind::FLOATS | ArgKind::BOOLS => self.word_list(kind, at, value, u64::from(count)).map(|_| ()),
            ArgKind::SCALARS => {
                let start = self.word_list(kind, at, value, 2 * u64::from(count))?;
                let words = self.image.table(ImageTableKind::WORDS);
                let known = [ArgKind::INT, ArgKind::FLOAT, ArgKind::BOOL].map(|k| u64::from(k.0));
                let all = (0..count).all(|i| known.contains(&words.u64(start + 2 * i, 0)));
                ensure(all, kind, at, "an item is no number")
            }
            list @ (ArgKind::VALUES | ArgKind::OPTIONAL_VALUES) => {
                let values = self.image.table(ImageTableKind::VALUES);
                let none = list == ArgKind::OPTIONAL_VALUES;
                self.list(kind, at, (index, count), values.count, none)?;
                let indices = self.image.table(ImageTableKind::INDICES);
                let all = (index..index + count).all(|i| {
                    let v = indices.u32(i, 0);
                    ready(v) || (none && v == NONE)
                });
                ensure(all, kind, at, "it is read before it is made")
            }
            // The others hold their value in the record; a kind that is not known makes the node unsupported.
            _ => Ok(()),
        }
    }

    fn inputs_outputs(&mut self) -> Outcome {
        let values = self.image.table(ImageTableKind::VALUES);
        let (kind, inputs) = self.table(ImageTableKind::INPUTS);
        let mut seen = vec![false; values.count as usize];
        for i in 0..inputs.count {
            let v = inputs.u32(i, 0);
            let is_input = v < values.count
                && values.u32(v, offset_of!(ImageValue, source)) == ValueSource::INPUT.0
                && values.u32(v, offset_of!(ImageValue, source_index)) == i
                && !core::mem::replace(&mut seen[v as usize], true);
            ensure(is_input, kind, i, "it is not an input")?;
        }
        let (kind, outputs) = self.table(ImageTableKind::OUTPUTS);
        for i in 0..outputs.count {
            ensure(outputs.u32(i, 0) < values.count, kind, i, "there is no such value")?;
        }
        Ok(())
    }

    fn states(&self) -> Outcome {
        let (kind, table) = self.table(ImageTableKind::STATES);
        let (inputs, outputs) = (self.image.inputs(), self.image.outputs());
        let mut seen = [vec![false; inputs.len()], vec![false; outputs.len()]];
        let mut names: Vec<&str> = Vec::new();
        for i in 0..table.count {
            self.text(table, kind, i, offset_of!(ImageState, name_offset))?;
            let at = table.u32(i, offset_of!(ImageState, input)) as usize;
            let before = inputs.get(at).ok_or(record(kind, i, "there is no such input"))?;
            ensure(
                !core::mem::replace(&mut seen[0][at], true),
                kind,
                i,
                "its input is another state's",
            )?;
            let at = table.u32(i, offset_of!(ImageState, output)) as usize;
            let after = outputs.get(at).ok_or(record(kind, i, "there is no such output"))?;
            ensure(
                !core::mem::replace(&mut seen[1][at], true),
                kind,
                i,
                "its output is another state's",
            )?;
            let (before, after) = (self.image.value(before), self.image.value(after));
            let tensor = before.dtype().is_some() && before.dtype() == after.dtype();
            ensure(tensor, kind, i, "it is no tensor of one dtype")?;
            // Equal expressions have equal indices, as the builder makes them.
            let same = before.dims().iter().map(|e| e.0).eq(after.dims().iter().map(|e| e.0));
            ensure(
                same || before.const_dims().is_some_and(|dims| Some(dims) == after.const_dims()),
                kind,
                i,
                "its sizes change",
            )?;
            let axis = table.u32(i, offset_of!(ImageState, growth_axis));
            ensure(
                axis == NONE || (axis as usize) < before.rank(),
                kind,
                i,
                "it grows along no dimension of it",
            )?;
            names.push(self.image.state(i).map_or("", |state| state.name));
        }
        names.sort_unstable();
        ensure(names.windows(2).all(|w| w[0] != w[1]), kind, 0, "a name occurs twice")
    }

    fn table(&self, kind: ImageTableKind) -> (ImageTableKind, Table<'a>) {
        (kind, self.image.table(kind))
    }
}

fn arity_fits(op: ExprOp, count: u32) -> bool {
    match op {
        ExprOp::ADD | ExprOp::MUL | ExprOp::MAX | ExprOp::MIN | ExprOp::AND | ExprOp::OR => count >= 1,
        ExprOp::NOT | ExprOp::TO_FLOAT | ExprOp::TRUNC | ExprOp::FLOOR | ExprOp::CEIL | ExprOp::ROUND => count == 1,
        ExprOp::WHERE => count == 3,
        op if op.name().is_some() => count == 2,
        _ => false,
    }
}

fn record(table: ImageTableKind, index: u32, what: &'static str) -> ImageError {
    ImageError::Record { table, index, what }
}

fn ensure(holds: bool, table: ImageTableKind, index: u32, what: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(record(table, index, what)) }
}
