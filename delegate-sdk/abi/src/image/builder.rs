//! Writes an image.

use super::{ExprIndex, ImageError, ValueIndex, WeightIndex, verify};
use crate::c::{
    ArgKind, DType, ExprKind, ExprOp, IMAGE_MAGIC, IMAGE_MAJOR, IMAGE_MINOR, ImageArg, ImageExpr, ImageHeader,
    ImageNode, ImageQuant, ImageState, ImageSymbol, ImageTable, ImageTableKind, ImageValue, ImageWeight, MemoryFormat,
    NONE, OPSET, QuantKind, ValueSource, ValueType,
};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// A tensor.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Sizes.
        dims: Vec<ExprIndex>,
        /// Set where integers stand for real numbers.
        quant: Option<Quant>,
    },
    /// An integer that is read at run time; the expression is the symbol that it binds.
    Int(ExprIndex),
    /// A float that is read at run time.
    Float,
    /// A boolean that is read at run time.
    Bool,
}

impl Type {
    /// A tensor that is not quantized.
    pub fn tensor(dtype: DType, dims: &[ExprIndex]) -> Type {
        Type::Tensor {
            dtype,
            dims: dims.to_vec(),
            quant: None,
        }
    }
}

/// How integers stand for real numbers: `real = (q - zero_point) * scale`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Quant {
    /// One scale and zero point.
    PerTensor {
        scale: f64,
        zero_point: i64,
        quant_min: i64,
        quant_max: i64,
    },
    /// One a slice of `axis`; no zero points: all 0.
    PerAxis {
        axis: u32,
        scales: WeightIndex,
        zero_points: Option<WeightIndex>,
        quant_min: i64,
        quant_max: i64,
    },
    /// One a block; the weights' sizes are the tensor's, each divided by `block`'s.
    PerBlock {
        block: Vec<u32>,
        scales: WeightIndex,
        zero_points: Option<WeightIndex>,
        quant_min: i64,
        quant_max: i64,
    },
}

/// An argument of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// `None`, or a parameter that means nothing here (generator, device).
    None,
    /// A constant integer; at a Tensor parameter it is a Python number, as floats and booleans are.
    Int(i64),
    /// An integer, float or boolean computed from sizes.
    Expr(ExprIndex),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(String),
    /// An element type.
    DType(DType),
    /// A memory format.
    MemoryFormat(MemoryFormat),
    /// A tensor, or a number read at run time.
    Value(ValueIndex),
    /// `int[]`, constant or not.
    Ints(Vec<ExprIndex>),
    /// `float[]`
    Floats(Vec<f64>),
    /// `bool[]`
    Bools(Vec<bool>),
    /// `Scalar[]`: [`Arg::Int`], [`Arg::Float`] and [`Arg::Bool`] only.
    Scalars(Vec<Arg>),
    /// `Tensor[]`
    Values(Vec<ValueIndex>),
    /// `Tensor?[]`
    OptionalValues(Vec<Option<ValueIndex>>),
}

/// Builds an image. Indices are given out in order; mistakes are reported by [`ImageBuilder::finish`].
///
/// The same calls give the same bytes, so that a hash of an image names a graph.
#[derive(Debug)]
pub struct ImageBuilder {
    name: String,
    opset: String,
    normal_form: u32,
    strings: Vec<u8>,
    interned: BTreeMap<String, u32>,
    indices: Vec<u32>,
    words: Vec<u64>,
    symbols: Vec<ImageSymbol>,
    symbol_names: BTreeMap<String, ExprIndex>,
    exprs: Vec<ImageExpr>,
    interned_exprs: BTreeMap<(u32, u32, i64, Vec<u32>), ExprIndex>,
    quants: Vec<ImageQuant>,
    weights: Vec<ImageWeight>,
    weight_ids: BTreeMap<u32, WeightIndex>,
    values: Vec<ImageValue>,
    nodes: Vec<ImageNode>,
    args: Vec<ImageArg>,
    inputs: Vec<u32>,
    outputs: Vec<u32>,
    states: Vec<ImageState>,
}

impl ImageBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> ImageBuilder {
        ImageBuilder {
            name: name.to_string(),
            opset: OPSET.to_string(),
            normal_form: 0,
            strings: Vec::new(),
            interned: BTreeMap::new(),
            indices: Vec::new(),
            words: Vec::new(),
            symbols: Vec::new(),
            symbol_names: BTreeMap::new(),
            exprs: Vec::new(),
            interned_exprs: BTreeMap::new(),
            quants: Vec::new(),
            weights: Vec::new(),
            weight_ids: BTreeMap::new(),
            values: Vec::new(),
            nodes: Vec::new(),
            args: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
        }
    }

    /// States the version of the operator table; left alone, this version's.
    pub fn opset(&mut self, version: &str) {
        self.opset = version.to_string();
    }

    /// States the normal form; left alone, 0.
    pub fn normal_form(&mut self, form: u32) {
        self.normal_form = form;
    }

    /// A dynamic size. The same name gives the same expression; the first range stays.
    pub fn symbol(&mut self, name: &str, min: i64, max: Option<i64>) -> ExprIndex {
        if let Some(known) = self.symbol_names.get(name) {
            return *known;
        }
        let (name_offset, name_size) = self.text(name);
        let index = self.symbols.len() as u32;
        self.symbols.push(ImageSymbol {
            name_offset,
            name_size,
            min,
            max: max.unwrap_or(i64::MAX),
        });
        let expr = self.expr(ExprKind::SYMBOL, index, 0, &[]);
        self.symbol_names.insert(name.to_string(), expr);
        expr
    }

    /// A constant integer.
    pub fn int(&mut self, value: i64) -> ExprIndex {
        self.expr(ExprKind::INT, 0, value, &[])
    }

    /// A constant float.
    pub fn float(&mut self, value: f64) -> ExprIndex {
        self.expr(ExprKind::FLOAT, 0, value.to_bits() as i64, &[])
    }

    /// An operator on expressions.
    pub fn op(&mut self, op: ExprOp, operands: &[ExprIndex]) -> ExprIndex {
        let operands: Vec<u32> = operands.iter().map(|e| e.0).collect();
        self.expr(ExprKind::OP, op.0, 0, &operands)
    }

    /// A weight: its id for the host, element type and sizes. The same id gives the same weight.
    pub fn weight(&mut self, id: u32, dtype: DType, sizes: &[i64]) -> WeightIndex {
        if let Some(known) = self.weight_ids.get(&id) {
            return *known;
        }
        let index = WeightIndex(self.weights.len() as u32);
        // A size that cannot be is found by the check in `finish`.
        let bytes = sizes.iter().try_fold(dtype.size().unwrap_or(0) as u64, |bytes, size| {
            bytes.checked_mul(u64::try_from(*size).ok()?)
        });
        let sizes_start = self.words.len() as u32;
        self.words.extend(sizes.iter().map(|s| *s as u64));
        self.weights.push(ImageWeight {
            id,
            dtype,
            byte_size: bytes.unwrap_or(u64::MAX),
            sizes_start,
            rank: sizes.len() as u32,
        });
        self.weight_ids.insert(id, index);
        index
    }

    /// A value that the caller gives, at the end of the inputs.
    pub fn input(&mut self, name: &str, ty: &Type) -> ValueIndex {
        let at = self.inputs.len() as u32;
        let value = self.value(name, ty, ValueSource::INPUT, at);
        self.inputs.push(value.0);
        value
    }

    /// A value that is a weight; the type has the weight's dtype and sizes.
    pub fn weight_value(&mut self, name: &str, ty: &Type, weight: WeightIndex) -> ValueIndex {
        self.value(name, ty, ValueSource::WEIGHT, weight.0)
    }

    /// A node at the end, and its outputs (name and type). `debug`: the source line; may be empty.
    pub fn node(
        &mut self,
        name: &str,
        op: &str,
        args: &[Arg],
        outputs: &[(&str, &Type)],
        debug: &str,
    ) -> Vec<ValueIndex> {
        let node = self.nodes.len() as u32;
        let (name_offset, name_size) = self.text(name);
        let (op_offset, op_size) = self.text(op);
        let (debug_offset, debug_size) = self.text(debug);
        let args_start = self.args.len() as u32;
        for arg in args {
            let arg = self.arg(arg);
            self.args.push(arg);
        }
        let values: Vec<ValueIndex> = outputs
            .iter()
            .map(|(name, ty)| self.value(name, ty, ValueSource::NODE, node))
            .collect();
        let (outputs_start, outputs_count) = self.list(values.iter().map(|v| v.0));
        self.nodes.push(ImageNode {
            name_offset,
            name_size,
            op_offset,
            op_size,
            args_start,
            args_count: args.len() as u32,
            outputs_start,
            outputs_count,
            debug_offset,
            debug_size,
        });
        values
    }

    /// A value that the caller gets, at the end of the outputs.
    pub fn output(&mut self, value: ValueIndex) {
        self.outputs.push(value.0);
    }

    /// A state: the input at a position is, in each run, what the output at a position was in the run before. `growth_axis`: the
    /// dimension along which runs append. Gives its index.
    pub fn state(&mut self, name: &str, input: u32, output: u32, growth_axis: Option<u32>) -> u32 {
        let (name_offset, name_size) = self.text(name);
        self.states.push(ImageState {
            name_offset,
            name_size,
            input,
            output,
            growth_axis: growth_axis.unwrap_or(NONE),
            ..ImageState::new()
        });
        self.states.len() as u32 - 1
    }

    /// The image.
    ///
    /// # Errors
    /// An index that was not given out, or a graph that [`super::verify`] would refuse.
    pub fn finish(mut self) -> Result<Vec<u8>, ImageError> {
        let (name, opset) = (core::mem::take(&mut self.name), core::mem::take(&mut self.opset));
        let (name_offset, name_size) = self.text(&name);
        let (opset_offset, opset_size) = self.text(&opset);
        let tables = self.tables();
        let header_size = size_of::<ImageHeader>();
        let mut end = (header_size + tables.len() * size_of::<ImageTable>()) as u64;
        let mut directory = Vec::new();
        for (kind, record_size, bytes) in &tables {
            end = end.next_multiple_of(8);
            directory.push(ImageTable {
                kind: *kind,
                record_size: *record_size as u32,
                offset: end,
                count: (bytes.len() / record_size) as u64,
            });
            end += bytes.len() as u64;
        }
        // Offsets into tables are 32 bits wide.
        if end > u64::from(u32::MAX) {
            return Err(ImageError::TooLarge);
        }
        let mut out = Bytes(Vec::with_capacity(end as usize));
        out.u32(IMAGE_MAGIC);
        out.u32(IMAGE_MAJOR | (IMAGE_MINOR << 16));
        out.u32(header_size as u32);
        out.u32(tables.len() as u32);
        out.u32(size_of::<ImageTable>() as u32);
        out.u32(self.normal_form);
        out.u64(end);
        for word in [opset_offset, opset_size, name_offset, name_size] {
            out.u32(word);
        }
        for table in &directory {
            out.u32(table.kind.0);
            out.u32(table.record_size);
            out.u64(table.offset);
            out.u64(table.count);
        }
        for (table, (_, _, bytes)) in directory.iter().zip(&tables) {
            out.0.resize(table.offset as usize, 0);
            out.0.extend_from_slice(bytes);
        }
        verify(&out.0)?;
        Ok(out.0)
    }

    /// Kind, record size and bytes of every table; records are written field by field, in the order of the header file.
    fn tables(&self) -> Vec<(ImageTableKind, usize, Vec<u8>)> {
        let symbols = records(&self.symbols, |out, r| {
            out.u32s(&[r.name_offset, r.name_size]);
            out.u64(r.min as u64);
            out.u64(r.max as u64);
        });
        let exprs = records(&self.exprs, |out, r| {
            out.u32s(&[r.kind.0, r.code]);
            out.u64(r.value as u64);
            out.u32s(&[r.start, r.count]);
        });
        let quants = records(&self.quants, |out, r| {
            out.u32s(&[r.kind.0, r.axis]);
            out.u64(r.scale.to_bits());
            for word in [r.zero_point, r.quant_min, r.quant_max] {
                out.u64(word as u64);
            }
            out.u32s(&[r.scales, r.zero_points, r.block_start, r.block_count]);
        });
        let weights = records(&self.weights, |out, r| {
            out.u32s(&[r.id, r.dtype.0]);
            out.u64(r.byte_size);
            out.u32s(&[r.sizes_start, r.rank]);
        });
        let values = records(&self.values, |out, r| {
            out.u32s(&[r.name_offset, r.name_size, r.r#type.0, r.dtype.0, r.dims_start, r.rank]);
            out.u32s(&[r.quant, r.expr, r.source.0, r.source_index]);
        });
        let nodes = records(&self.nodes, |out, r| {
            out.u32s(&[
                r.name_offset,
                r.name_size,
                r.op_offset,
                r.op_size,
                r.args_start,
                r.args_count,
            ]);
            out.u32s(&[r.outputs_start, r.outputs_count, r.debug_offset, r.debug_size]);
        });
        let args = records(&self.args, |out, r| {
            out.u32s(&[r.kind.0, r.count]);
            out.u64(r.value);
        });
        let mut tables = alloc::vec![
            (ImageTableKind::STRINGS, 1, self.strings.clone()),
            (ImageTableKind::INDICES, 4, records(&self.indices, |out, i| out.u32(*i))),
            (ImageTableKind::WORDS, 8, records(&self.words, |out, w| out.u64(*w))),
            (ImageTableKind::SYMBOLS, size_of::<ImageSymbol>(), symbols),
            (ImageTableKind::EXPRS, size_of::<ImageExpr>(), exprs),
            (ImageTableKind::QUANTS, size_of::<ImageQuant>(), quants),
            (ImageTableKind::WEIGHTS, size_of::<ImageWeight>(), weights),
            (ImageTableKind::VALUES, size_of::<ImageValue>(), values),
            (ImageTableKind::NODES, size_of::<ImageNode>(), nodes),
            (ImageTableKind::ARGS, size_of::<ImageArg>(), args),
            (ImageTableKind::INPUTS, 4, records(&self.inputs, |out, i| out.u32(*i))),
            (ImageTableKind::OUTPUTS, 4, records(&self.outputs, |out, i| out.u32(*i))),
        ];
        // Absent where there are none, so that such images are as they were before there were states.
        if !self.states.is_empty() {
            let states = records(&self.states, |out, r| {
                out.u32s(&[r.name_offset, r.name_size, r.input, r.output, r.growth_axis, r.reserved]);
            });
            tables.push((ImageTableKind::STATES, size_of::<ImageState>(), states));
        }
        tables
    }

    fn text(&mut self, text: &str) -> (u32, u32) {
        let size = text.len() as u32;
        if let Some(offset) = self.interned.get(text) {
            return (*offset, size);
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.interned.insert(text.to_string(), offset);
        (offset, size)
    }

    fn list(&mut self, items: impl Iterator<Item = u32>) -> (u32, u32) {
        let start = self.indices.len() as u32;
        self.indices.extend(items);
        (start, self.indices.len() as u32 - start)
    }

    fn expr(&mut self, kind: ExprKind, code: u32, value: i64, operands: &[u32]) -> ExprIndex {
        let key = (kind.0, code, value, operands.to_vec());
        if let Some(known) = self.interned_exprs.get(&key) {
            return *known;
        }
        let index = ExprIndex(self.exprs.len() as u32);
        let (start, count) = self.list(operands.iter().copied());
        self.exprs.push(ImageExpr {
            kind,
            code,
            value,
            start,
            count,
        });
        self.interned_exprs.insert(key, index);
        index
    }

    fn value(&mut self, name: &str, ty: &Type, source: ValueSource, source_index: u32) -> ValueIndex {
        let (name_offset, name_size) = self.text(name);
        let mut record = ImageValue {
            name_offset,
            name_size,
            r#type: ValueType::TENSOR,
            dtype: DType(NONE),
            dims_start: 0,
            rank: 0,
            quant: NONE,
            expr: NONE,
            source,
            source_index,
        };
        match ty {
            Type::Tensor { dtype, dims, quant } => {
                record.dtype = *dtype;
                (record.dims_start, record.rank) = self.list(dims.iter().map(|d| d.0));
                if let Some(quant) = quant {
                    record.quant = self.quant(quant);
                }
            }
            Type::Int(expr) => {
                record.r#type = ValueType::INT;
                record.expr = expr.0;
            }
            Type::Float => record.r#type = ValueType::FLOAT,
            Type::Bool => record.r#type = ValueType::BOOL,
        }
        self.values.push(record);
        ValueIndex(self.values.len() as u32 - 1)
    }

    fn quant(&mut self, quant: &Quant) -> u32 {
        let mut record = ImageQuant {
            scales: NONE,
            zero_points: NONE,
            ..ImageQuant::new()
        };
        match quant {
            Quant::PerTensor {
                scale,
                zero_point,
                quant_min,
                quant_max,
            } => {
                record.kind = QuantKind::PER_TENSOR;
                (record.scale, record.zero_point) = (*scale, *zero_point);
                (record.quant_min, record.quant_max) = (*quant_min, *quant_max);
            }
            Quant::PerAxis {
                axis,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                record.kind = QuantKind::PER_AXIS;
                record.axis = *axis;
                (record.scales, record.zero_points) = (scales.0, zero_points.map_or(NONE, |z| z.0));
                (record.quant_min, record.quant_max) = (*quant_min, *quant_max);
            }
            Quant::PerBlock {
                block,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                record.kind = QuantKind::PER_BLOCK;
                (record.block_start, record.block_count) = self.list(block.iter().copied());
                (record.scales, record.zero_points) = (scales.0, zero_points.map_or(NONE, |z| z.0));
                (record.quant_min, record.quant_max) = (*quant_min, *quant_max);
            }
        }
        self.quants.push(record);
        self.quants.len() as u32 - 1
    }

    fn arg(&mut self, arg: &Arg) -> ImageArg {
        let (kind, count, value) = match arg {
            Arg::None => (ArgKind::NONE, 0, 0),
            Arg::Int(i) => (ArgKind::INT, 0, *i as u64),
            Arg::Expr(e) => (ArgKind::EXPR, 0, u64::from(e.0)),
            Arg::Float(f) => (ArgKind::FLOAT, 0, f.to_bits()),
            Arg::Bool(b) => (ArgKind::BOOL, 0, u64::from(*b)),
            Arg::Str(s) => {
                let (offset, size) = self.text(s);
                (ArgKind::STR, size, u64::from(offset))
            }
            Arg::DType(d) => (ArgKind::DTYPE, 0, u64::from(d.0)),
            Arg::MemoryFormat(m) => (ArgKind::MEMORY_FORMAT, 0, u64::from(m.0)),
            Arg::Value(v) => (ArgKind::VALUE, 0, u64::from(v.0)),
            Arg::Ints(items) => {
                let (start, count) = self.list(items.iter().map(|e| e.0));
                (ArgKind::INTS, count, u64::from(start))
            }
            Arg::Floats(items) => self.words(ArgKind::FLOATS, items.len(), items.iter().map(|f| f.to_bits())),
            Arg::Bools(items) => self.words(ArgKind::BOOLS, items.len(), items.iter().map(|b| u64::from(*b))),
            Arg::Scalars(items) => {
                let pairs = items.iter().flat_map(|item| match item {
                    Arg::Int(i) => [u64::from(ArgKind::INT.0), *i as u64],
                    Arg::Float(f) => [u64::from(ArgKind::FLOAT.0), f.to_bits()],
                    Arg::Bool(b) => [u64::from(ArgKind::BOOL.0), u64::from(*b)],
                    // Not a number: the check in `finish` finds it.
                    _ => [u64::from(ArgKind::NONE.0), 0],
                });
                self.words(ArgKind::SCALARS, items.len(), pairs)
            }
            Arg::Values(items) => {
                let (start, count) = self.list(items.iter().map(|v| v.0));
                (ArgKind::VALUES, count, u64::from(start))
            }
            Arg::OptionalValues(items) => {
                let (start, count) = self.list(items.iter().map(|v| v.map_or(NONE, |v| v.0)));
                (ArgKind::OPTIONAL_VALUES, count, u64::from(start))
            }
        };
        ImageArg { kind, count, value }
    }

    fn words(&mut self, kind: ArgKind, count: usize, words: impl Iterator<Item = u64>) -> (ArgKind, u32, u64) {
        let start = self.words.len() as u64;
        self.words.extend(words);
        (kind, count as u32, start)
    }
}

/// Little-endian bytes.
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|v| self.u32(*v));
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

fn records<T>(items: &[T], write: impl Fn(&mut Bytes, &T)) -> Vec<u8> {
    let mut out = Bytes(Vec::new());
    items.iter().for_each(|item| write(&mut out, item));
    out.0
}
