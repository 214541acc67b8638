//! Reads a verified image.

use super::table::{Layout, Table};
use super::{ExprIndex, NodeIndex, Quant, SymbolIndex, ValueIndex, WeightIndex};
use crate::c::{
    ArgKind, DType, ExprKind, ExprOp, ImageArg, ImageExpr, ImageHeader, ImageNode, ImageQuant, ImageState, ImageSymbol,
    ImageTableKind, ImageValue, ImageWeight, MemoryFormat, NONE, QuantKind, ValueSource, ValueType,
};
use alloc::vec::Vec;
use core::mem::offset_of;

/// A verified image. Made by [`super::verify`] only; copying it is cheap.
#[derive(Clone, Copy)]
pub struct ImageView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) layout: Layout,
}

/// A list of indices.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    table: Table<'a>,
    start: u32,
    count: u32,
    wrap: fn(u32) -> T,
}

/// A dynamic size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// As torch.export names it.
    pub name: &'a str,
    /// Smallest value.
    pub min: i64,
    /// Largest value; `None`: unbounded.
    pub max: Option<i64>,
}

/// A state: what one output is in a run, one input is in the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<'a> {
    /// Unique within the graph, one state for all graphs of a program that use it.
    pub name: &'a str,
    /// Position among the inputs: before the run.
    pub input: u32,
    /// Position among the outputs: after the run.
    pub output: u32,
    /// Dimension along which runs append, if any.
    pub growth_axis: Option<u32>,
}

/// A size expression.
#[derive(Debug, Clone, Copy)]
pub enum Expr<'a> {
    /// A constant integer.
    Int(i64),
    /// A constant float.
    Float(f64),
    /// A dynamic size.
    Symbol(SymbolIndex),
    /// An operator on expressions.
    Op(ExprOp, List<'a, ExprIndex>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The input at this position.
    Input(u32),
    /// A weight.
    Weight(WeightIndex),
    /// An output of a node.
    Node(NodeIndex),
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tensor of this element type; sizes are [`ValueView::dims`].
    Tensor(DType),
    /// An integer that is read at run time, binding the symbol that the expression is.
    Int(ExprIndex),
    /// A float that is read at run time.
    Float,
    /// A boolean that is read at run time.
    Bool,
}

impl<'a> ImageView<'a> {
    /// The image itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Name of the graph.
    pub fn name(&self) -> &'a str {
        self.header_text(offset_of!(ImageHeader, name_offset))
    }

    /// Version of the operator table.
    pub fn opset(&self) -> &'a str {
        self.header_text(offset_of!(ImageHeader, opset_offset))
    }

    /// Normal form of the graph; 0: functional ATen with composite operators; 1: the same with channels last.
    pub fn normal_form(&self) -> u32 {
        self.header().u32(0, offset_of!(ImageHeader, normal_form))
    }

    /// Nodes in execution order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeView<'a>> + Clone + use<'a> {
        let view = *self;
        (0..self.node_count()).map(move |i| view.node(NodeIndex(i)))
    }

    /// Number of nodes.
    pub fn node_count(&self) -> u32 {
        self.table(ImageTableKind::NODES).count
    }

    /// A node.
    pub fn node(&self, index: NodeIndex) -> NodeView<'a> {
        NodeView { image: *self, index }
    }

    /// Number of values.
    pub fn value_count(&self) -> u32 {
        self.table(ImageTableKind::VALUES).count
    }

    /// Every value.
    pub fn values(&self) -> impl ExactSizeIterator<Item = ValueView<'a>> + Clone + use<'a> {
        let view = *self;
        (0..self.value_count()).map(move |i| view.value(ValueIndex(i)))
    }

    /// A value.
    pub fn value(&self, index: ValueIndex) -> ValueView<'a> {
        ValueView { image: *self, index }
    }

    /// Values that the caller gives, in order.
    pub fn inputs(&self) -> List<'a, ValueIndex> {
        List::whole(self.table(ImageTableKind::INPUTS), ValueIndex)
    }

    /// Values that the caller gets, in order.
    pub fn outputs(&self) -> List<'a, ValueIndex> {
        List::whole(self.table(ImageTableKind::OUTPUTS), ValueIndex)
    }

    /// States: outputs that are inputs of the next run.
    pub fn states(&self) -> impl Iterator<Item = State<'a>> + Clone + use<'a> {
        let view = *self;
        (0..self.table(ImageTableKind::STATES).count).filter_map(move |i| view.state(i))
    }

    /// The state of an index.
    pub fn state(&self, index: u32) -> Option<State<'a>> {
        let table = self.table(ImageTableKind::STATES);
        if index >= table.count {
            return None;
        }
        let name = table.u32(index, offset_of!(ImageState, name_offset));
        let axis = table.u32(index, offset_of!(ImageState, growth_axis));
        Some(State {
            name: self.text(name, table.u32(index, offset_of!(ImageState, name_size))),
            input: table.u32(index, offset_of!(ImageState, input)),
            output: table.u32(index, offset_of!(ImageState, output)),
            growth_axis: (axis != NONE).then_some(axis),
        })
    }

    /// Number of weights.
    pub fn weight_count(&self) -> u32 {
        self.table(ImageTableKind::WEIGHTS).count
    }

    /// Every weight.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = WeightView<'a>> + Clone + use<'a> {
        let view = *self;
        (0..self.weight_count()).map(move |i| view.weight(WeightIndex(i)))
    }

    /// A weight.
    pub fn weight(&self, index: WeightIndex) -> WeightView<'a> {
        WeightView { image: *self, index }
    }

    /// Number of symbols.
    pub fn symbol_count(&self) -> u32 {
        self.table(ImageTableKind::SYMBOLS).count
    }

    /// A symbol.
    pub fn symbol(&self, index: SymbolIndex) -> Symbol<'a> {
        let table = self.table(ImageTableKind::SYMBOLS);
        let name = table.u32(index.0, offset_of!(ImageSymbol, name_offset));
        let size = table.u32(index.0, offset_of!(ImageSymbol, name_size));
        let max = table.i64(index.0, offset_of!(ImageSymbol, max));
        Symbol {
            name: self.text(name, size),
            min: table.i64(index.0, offset_of!(ImageSymbol, min)),
            max: (max != i64::MAX).then_some(max),
        }
    }

    /// Number of expressions.
    pub fn expr_count(&self) -> u32 {
        self.table(ImageTableKind::EXPRS).count
    }

    /// An expression. Its operands are earlier ones, and may be shared: walk the table, not the tree.
    pub fn expr(&self, index: ExprIndex) -> Expr<'a> {
        let table = self.table(ImageTableKind::EXPRS);
        let code = table.u32(index.0, offset_of!(ImageExpr, code));
        let value = table.i64(index.0, offset_of!(ImageExpr, value));
        match ExprKind(table.u32(index.0, offset_of!(ImageExpr, kind))) {
            ExprKind::INT => Expr::Int(value),
            ExprKind::FLOAT => Expr::Float(f64::from_bits(value as u64)),
            ExprKind::SYMBOL => Expr::Symbol(SymbolIndex(code)),
            _ => {
                let start = table.u32(index.0, offset_of!(ImageExpr, start));
                let count = table.u32(index.0, offset_of!(ImageExpr, count));
                Expr::Op(ExprOp(code), self.list(start, count, ExprIndex))
            }
        }
    }

    /// The integer that an expression is, if it is a constant one.
    pub fn const_int(&self, index: ExprIndex) -> Option<i64> {
        match self.expr(index) {
            Expr::Int(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn table(&self, kind: ImageTableKind) -> Table<'a> {
        self.layout.table(self.bytes, kind)
    }

    fn header(&self) -> Table<'a> {
        Table {
            bytes: self.bytes,
            record_size: size_of::<ImageHeader>(),
            count: 1,
        }
    }

    fn header_text(&self, offset: usize) -> &'a str {
        self.text(self.header().u32(0, offset), self.header().u32(0, offset + 4))
    }

    fn text(&self, offset: u32, size: u32) -> &'a str {
        self.table(ImageTableKind::STRINGS).text(offset, size)
    }

    fn list<T>(&self, start: u32, count: u32, wrap: fn(u32) -> T) -> List<'a, T> {
        List {
            table: self.table(ImageTableKind::INDICES),
            start,
            count,
            wrap,
        }
    }

    fn words(&self, start: u64, count: u32) -> impl ExactSizeIterator<Item = u64> + Clone + use<'a> {
        let table = self.table(ImageTableKind::WORDS);
        (0..count).map(move |i| table.u64(start as u32 + i, 0))
    }
}

impl<'a, T: 'a> List<'a, T> {
    fn whole(table: Table<'a>, wrap: fn(u32) -> T) -> List<'a, T> {
        List {
            table,
            start: 0,
            count: table.count,
            wrap,
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The item at a position.
    pub fn get(&self, at: usize) -> Option<T> {
        let at = u32::try_from(at).ok().filter(|at| *at < self.count)?;
        Some((self.wrap)(self.table.u32(self.start + at, 0)))
    }

    /// The items.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + Clone + use<'a, T> {
        let (table, start, wrap) = (self.table, self.start, self.wrap);
        (0..self.count).map(move |i| wrap(table.u32(start + i, 0)))
    }
}

impl<T> core::fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list()
            .entries((0..self.count).map(|i| self.table.u32(self.start + i, 0)))
            .finish()
    }
}

/// A node.
#[derive(Clone, Copy)]
pub struct NodeView<'a> {
    image: ImageView<'a>,
    index: NodeIndex,
}

impl<'a> NodeView<'a> {
    /// Its index.
    pub fn index(&self) -> NodeIndex {
        self.index
    }

    /// The image that it is of.
    pub fn image(&self) -> ImageView<'a> {
        self.image
    }

    /// Name, unique within the graph.
    pub fn name(&self) -> &'a str {
        self.text(offset_of!(ImageNode, name_offset))
    }

    /// Operator with overload, for example `aten::add.Tensor`.
    pub fn op(&self) -> &'a str {
        self.text(offset_of!(ImageNode, op_offset))
    }

    /// Source line of the exporting program; may be empty.
    pub fn debug(&self) -> &'a str {
        self.text(offset_of!(ImageNode, debug_offset))
    }

    /// Values that it makes.
    pub fn outputs(&self) -> List<'a, ValueIndex> {
        let start = self.field(offset_of!(ImageNode, outputs_start));
        let count = self.field(offset_of!(ImageNode, outputs_count));
        self.image.list(start, count, ValueIndex)
    }

    /// Number of arguments.
    pub fn arg_count(&self) -> usize {
        self.field(offset_of!(ImageNode, args_count)) as usize
    }

    /// The argument of the i-th parameter of the schema; [`ArgView::None`] past the last.
    pub fn arg(&self, i: usize) -> ArgView<'a> {
        if i >= self.arg_count() {
            return ArgView::None;
        }
        let at = self.field(offset_of!(ImageNode, args_start)) + i as u32;
        ArgView::read(self.image, at)
    }

    /// The arguments.
    pub fn args(&self) -> impl ExactSizeIterator<Item = ArgView<'a>> + Clone + use<'a> {
        let node = *self;
        (0..self.arg_count()).map(move |i| node.arg(i))
    }

    /// Values that it reads, in argument order, repeats included.
    pub fn inputs(&self) -> impl Iterator<Item = ValueIndex> + use<'a> {
        self.args().flat_map(|arg| {
            let (one, many, optional) = match arg {
                ArgView::Value(v) => (Some(v), None, None),
                ArgView::Values(list) => (None, Some(list.iter()), None),
                ArgView::OptionalValues(list) => (None, None, Some(list.iter().flatten())),
                _ => (None, None, None),
            };
            one.into_iter()
                .chain(many.into_iter().flatten())
                .chain(optional.into_iter().flatten())
        })
    }

    fn field(&self, offset: usize) -> u32 {
        self.image.table(ImageTableKind::NODES).u32(self.index.0, offset)
    }

    fn text(&self, offset: usize) -> &'a str {
        self.image.text(self.field(offset), self.field(offset + 4))
    }
}

/// An argument of a node; see [`super::Arg`].
#[derive(Debug, Clone, Copy)]
pub enum ArgView<'a> {
    /// `None`, or a parameter that means nothing here.
    None,
    /// A constant integer.
    Int(i64),
    /// An integer, float or boolean computed from sizes.
    Expr(ExprIndex),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(&'a str),
    /// An element type.
    DType(DType),
    /// A memory format.
    MemoryFormat(MemoryFormat),
    /// A tensor, or a number read at run time.
    Value(ValueIndex),
    /// `int[]`, constant or not.
    Ints(IntsView<'a>),
    /// `float[]`, `bool[]` or `Scalar[]`: each item is [`ArgView::Float`], [`ArgView::Bool`] or [`ArgView::Int`].
    Numbers(NumbersView<'a>),
    /// `Tensor[]`
    Values(List<'a, ValueIndex>),
    /// `Tensor?[]`
    OptionalValues(List<'a, Option<ValueIndex>>),
    /// A kind that this version does not know: the node is not supported.
    Unknown(ArgKind),
}

impl<'a> ArgView<'a> {
    fn read(image: ImageView<'a>, at: u32) -> ArgView<'a> {
        let table = image.table(ImageTableKind::ARGS);
        let kind = ArgKind(table.u32(at, offset_of!(ImageArg, kind)));
        let count = table.u32(at, offset_of!(ImageArg, count));
        let value = table.u64(at, offset_of!(ImageArg, value));
        let low = value as u32;
        let numbers = |of| {
            ArgView::Numbers(NumbersView {
                image,
                of,
                start: low,
                count,
            })
        };
        match kind {
            ArgKind::NONE => ArgView::None,
            ArgKind::INT => ArgView::Int(value as i64),
            ArgKind::EXPR => ArgView::Expr(ExprIndex(low)),
            ArgKind::FLOAT => ArgView::Float(f64::from_bits(value)),
            ArgKind::BOOL => ArgView::Bool(value != 0),
            ArgKind::STR => ArgView::Str(image.text(low, count)),
            ArgKind::DTYPE => ArgView::DType(DType(low)),
            ArgKind::MEMORY_FORMAT => ArgView::MemoryFormat(MemoryFormat(low)),
            ArgKind::VALUE => ArgView::Value(ValueIndex(low)),
            ArgKind::INTS => ArgView::Ints(IntsView {
                image,
                items: image.list(low, count, ExprIndex),
            }),
            ArgKind::FLOATS | ArgKind::BOOLS | ArgKind::SCALARS => numbers(kind),
            ArgKind::VALUES => ArgView::Values(image.list(low, count, ValueIndex)),
            ArgKind::OPTIONAL_VALUES => {
                ArgView::OptionalValues(image.list(low, count, |v| (v != NONE).then_some(ValueIndex(v))))
            }
            _ => ArgView::Unknown(kind),
        }
    }

    /// The value, if it is one.
    pub fn value(&self) -> Option<ValueIndex> {
        match self {
            ArgView::Value(v) => Some(*v),
            _ => None,
        }
    }

    /// The integer, if it is a constant one.
    pub fn int(&self) -> Option<i64> {
        match self {
            ArgView::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The boolean, if it is a constant one.
    pub fn bool(&self) -> Option<bool> {
        match self {
            ArgView::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The number as a float, if it is a constant number.
    pub fn float(&self) -> Option<f64> {
        match self {
            ArgView::Int(i) => Some(*i as f64),
            ArgView::Float(f) => Some(*f),
            ArgView::Bool(b) => Some(f64::from(u8::from(*b))),
            _ => None,
        }
    }

    /// The integers, if it is a list of constant ones.
    pub fn ints(&self) -> Option<Vec<i64>> {
        match self {
            ArgView::Ints(items) => items.constant(),
            _ => None,
        }
    }

    /// True for [`ArgView::None`].
    pub fn is_none(&self) -> bool {
        matches!(self, ArgView::None)
    }
}

/// An `int[]`.
#[derive(Clone, Copy)]
pub struct IntsView<'a> {
    image: ImageView<'a>,
    items: List<'a, ExprIndex>,
}

impl<'a> IntsView<'a> {
    /// The items as expressions.
    pub fn exprs(&self) -> List<'a, ExprIndex> {
        self.items
    }

    /// The integers, if all are constant.
    pub fn constant(&self) -> Option<Vec<i64>> {
        self.items.iter().map(|e| self.image.const_int(e)).collect()
    }
}

impl core::fmt::Debug for IntsView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list()
            .entries(self.items.iter().map(|e| self.image.expr(e)))
            .finish()
    }
}

/// A `float[]`, `bool[]` or `Scalar[]`.
#[derive(Clone, Copy)]
pub struct NumbersView<'a> {
    image: ImageView<'a>,
    of: ArgKind,
    start: u32,
    count: u32,
}

impl<'a> NumbersView<'a> {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ArgView<'a>> + use<'a> {
        let (words, of, start) = (self.image.table(ImageTableKind::WORDS), self.of, self.start);
        (0..self.count).map(move |i| {
            let (kind, word) = match of {
                ArgKind::SCALARS => (
                    ArgKind(words.u64(start + 2 * i, 0) as u32),
                    words.u64(start + 2 * i + 1, 0),
                ),
                ArgKind::BOOLS => (ArgKind::BOOL, words.u64(start + i, 0)),
                _ => (ArgKind::FLOAT, words.u64(start + i, 0)),
            };
            match kind {
                ArgKind::INT => ArgView::Int(word as i64),
                ArgKind::BOOL => ArgView::Bool(word != 0),
                _ => ArgView::Float(f64::from_bits(word)),
            }
        })
    }
}

impl core::fmt::Debug for NumbersView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A value.
#[derive(Clone, Copy)]
pub struct ValueView<'a> {
    image: ImageView<'a>,
    index: ValueIndex,
}

impl<'a> ValueView<'a> {
    /// Its index.
    pub fn index(&self) -> ValueIndex {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        let name = self.field(offset_of!(ImageValue, name_offset));
        self.image.text(name, self.field(offset_of!(ImageValue, name_size)))
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match ValueType(self.field(offset_of!(ImageValue, r#type))) {
            ValueType::INT => Kind::Int(ExprIndex(self.field(offset_of!(ImageValue, expr)))),
            ValueType::FLOAT => Kind::Float,
            ValueType::BOOL => Kind::Bool,
            _ => Kind::Tensor(DType(self.field(offset_of!(ImageValue, dtype)))),
        }
    }

    /// Element type, if it is a tensor.
    pub fn dtype(&self) -> Option<DType> {
        match self.kind() {
            Kind::Tensor(dtype) => Some(dtype),
            _ => None,
        }
    }

    /// A tensor's sizes.
    pub fn dims(&self) -> List<'a, ExprIndex> {
        let start = self.field(offset_of!(ImageValue, dims_start));
        self.image
            .list(start, self.field(offset_of!(ImageValue, rank)), ExprIndex)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.field(offset_of!(ImageValue, rank)) as usize
    }

    /// A tensor's sizes, if all are constant.
    pub fn const_dims(&self) -> Option<Vec<i64>> {
        self.dims().iter().map(|e| self.image.const_int(e)).collect()
    }

    /// Where it comes from.
    pub fn source(&self) -> Source {
        let at = self.field(offset_of!(ImageValue, source_index));
        match ValueSource(self.field(offset_of!(ImageValue, source))) {
            ValueSource::INPUT => Source::Input(at),
            ValueSource::WEIGHT => Source::Weight(WeightIndex(at)),
            _ => Source::Node(NodeIndex(at)),
        }
    }

    /// The weight that it is, if it is one.
    pub fn weight(&self) -> Option<WeightView<'a>> {
        match self.source() {
            Source::Weight(index) => Some(self.image.weight(index)),
            _ => None,
        }
    }

    /// How its integers stand for real numbers, if they do.
    pub fn quant(&self) -> Option<Quant> {
        let at = self.field(offset_of!(ImageValue, quant));
        if at == NONE {
            return None;
        }
        let table = self.image.table(ImageTableKind::QUANTS);
        let quant_min = table.i64(at, offset_of!(ImageQuant, quant_min));
        let quant_max = table.i64(at, offset_of!(ImageQuant, quant_max));
        let scales = WeightIndex(table.u32(at, offset_of!(ImageQuant, scales)));
        let zero_points = table.u32(at, offset_of!(ImageQuant, zero_points));
        let zero_points = (zero_points != NONE).then_some(WeightIndex(zero_points));
        Some(match QuantKind(table.u32(at, offset_of!(ImageQuant, kind))) {
            QuantKind::PER_AXIS => Quant::PerAxis {
                axis: table.u32(at, offset_of!(ImageQuant, axis)),
                scales,
                zero_points,
                quant_min,
                quant_max,
            },
            QuantKind::PER_BLOCK => {
                let start = table.u32(at, offset_of!(ImageQuant, block_start));
                let count = table.u32(at, offset_of!(ImageQuant, block_count));
                Quant::PerBlock {
                    block: self.image.list(start, count, |b| b).iter().collect(),
                    scales,
                    zero_points,
                    quant_min,
                    quant_max,
                }
            }
            _ => Quant::PerTensor {
                scale: table.f64(at, offset_of!(ImageQuant, scale)),
                zero_point: table.i64(at, offset_of!(ImageQuant, zero_point)),
                quant_min,
                quant_max,
            },
        })
    }

    fn field(&self, offset: usize) -> u32 {
        self.image.table(ImageTableKind::VALUES).u32(self.index.0, offset)
    }
}

/// A weight.
#[derive(Clone, Copy)]
pub struct WeightView<'a> {
    image: ImageView<'a>,
    index: WeightIndex,
}

impl<'a> WeightView<'a> {
    /// Its index.
    pub fn index(&self) -> WeightIndex {
        self.index
    }

    /// Id for the host.
    pub fn id(&self) -> u32 {
        self.field(offset_of!(ImageWeight, id))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        DType(self.field(offset_of!(ImageWeight, dtype)))
    }

    /// Bytes.
    pub fn byte_size(&self) -> u64 {
        let table = self.image.table(ImageTableKind::WEIGHTS);
        table.u64(self.index.0, offset_of!(ImageWeight, byte_size))
    }

    /// Sizes.
    pub fn sizes(&self) -> impl ExactSizeIterator<Item = i64> + Clone + use<'a> {
        let start = self.field(offset_of!(ImageWeight, sizes_start));
        let rank = self.field(offset_of!(ImageWeight, rank));
        self.image.words(u64::from(start), rank).map(|w| w as i64)
    }

    fn field(&self, offset: usize) -> u32 {
        self.image.table(ImageTableKind::WEIGHTS).u32(self.index.0, offset)
    }
}
