//! Makes a QNN graph of a graph image: tensors of values in the layouts that operators want, transpositions where they change, constants in
//! the form of the library.
//!
//! A value may be there in two layouts at once: as its sizes say, and channels last. An operator asks for the one that it needs
//! ([`Builder::read`]); the transposition is made once, at the first one who asks, and constants are turned here. What has no wish of its own
//! takes the layout that is there ([`Builder::layout_of`]), so that a chain of convolutions is transposed at its two ends only.
//!
//! f32 and f16 values are `FLOAT_16`; quantized ones of 8 and 16 bits are unsigned fixed point, signed ones shifted by half their range; i64
//! becomes `INT_32`.

use crate::caps::Refusal;
use crate::graph::{
    Convert, DataType, Graph, Node, Param, Port, Quantization, ScaleOffset, Tensor, TensorId, TensorKind,
};
use crate::packing;
use delegraph_sdk::image::{ImageView, NodeIndex, NodeView, Quant, Source, ValueIndex, WeightIndex, WeightView};
use delegraph_sdk::{DType, Error, Reason};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// How the elements of a value lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// In the order of its dimensions.
    #[default]
    RowMajor,
    /// Dimension 1 behind all others: `[N, H, W, C]`, `[N, L, C]`, `[N, D, H, W, C]`. The same as row-major below three dimensions.
    ChannelsLast,
}

/// Gives the bytes of weights by id.
pub trait WeightBytes {
    /// Contiguous, row-major.
    ///
    /// # Errors
    /// There is no such weight.
    fn bytes(&self, id: u32) -> Result<&[u8], Error>;
}

impl WeightBytes for delegraph_sdk::Weights<'_> {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        delegraph_sdk::Weights::bytes(self, id)
    }
}

/// A weight of the image.
#[derive(Debug, Clone)]
pub struct Constant<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub dims: Vec<i64>,
    /// Contiguous, row-major; zeros while a node is only asked about.
    pub bytes: Cow<'a, [u8]>,
    /// True if the bytes are the weight's: what depends on numbers is decided only then, and refused as an error of the compilation.
    pub known: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    row_major: Option<TensorId>,
    channels_last: Option<TensorId>,
}

impl Place {
    fn slot(&mut self, layout: Layout) -> &mut Option<TensorId> {
        match layout {
            Layout::RowMajor => &mut self.row_major,
            Layout::ChannelsLast => &mut self.channels_last,
        }
    }
}

/// The graph while it is made.
pub struct Builder<'a> {
    image: ImageView<'a>,
    weights: Option<&'a dyn WeightBytes>,
    graph: Graph,
    places: HashMap<ValueIndex, Place>,
    names: HashSet<String>,
    /// The node of the image that is being lowered, its name, and how many QNN nodes it has.
    source: Option<NodeIndex>,
    prefix: String,
    made: usize,
    /// Results that are limited further before anybody reads them: what is written, and where it goes.
    clamps: Vec<(TensorId, TensorId, f32, f32)>,
}

/// Sizes of a value as it lies.
pub fn arranged(dims: &[u32], layout: Layout) -> Vec<u32> {
    match layout {
        Layout::ChannelsLast if dims.len() >= 3 => {
            let mut dims = dims.to_vec();
            let channels = dims.remove(1);
            dims.push(channels);
            dims
        }
        _ => dims.to_vec(),
    }
}

/// The permutation from row-major to a layout, or back.
pub fn order(rank: usize, to: Layout) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rank as u32).collect();
    if rank >= 3 {
        match to {
            Layout::ChannelsLast => order[1..].rotate_left(1),
            Layout::RowMajor => order[1..].rotate_right(1),
        }
    }
    order
}

/// Where a dimension of a value is as it lies.
pub fn axis(dim: usize, rank: usize, layout: Layout) -> u32 {
    match layout {
        Layout::ChannelsLast if rank >= 3 => match dim {
            0 => 0,
            1 => rank as u32 - 1,
            _ => dim as u32 - 1,
        },
        _ => dim as u32,
    }
}

impl<'a> Builder<'a> {
    /// For a whole graph.
    pub fn new(image: ImageView<'a>, weights: &'a dyn WeightBytes, name: &str) -> Builder<'a> {
        let mut builder = Builder::empty(image, Some(weights), name);
        for value in image.inputs().iter() {
            builder.graph.inputs.push(port(&image, value));
        }
        builder
    }

    /// For one node, about which is only asked: constants have no bytes.
    pub fn asking(image: ImageView<'a>, node: &NodeView<'_>) -> Builder<'a> {
        Builder::empty(image, None, node.name())
    }

    fn empty(image: ImageView<'a>, weights: Option<&'a dyn WeightBytes>, name: &str) -> Builder<'a> {
        Builder {
            image,
            weights,
            graph: Graph {
                name: name.to_string(),
                ..Graph::default()
            },
            places: HashMap::new(),
            names: HashSet::new(),
            source: None,
            prefix: String::new(),
            made: 0,
            clamps: Vec::new(),
        }
    }

    /// From here on, QNN nodes are of this node.
    pub fn begin(&mut self, node: &NodeView<'_>) {
        self.source = Some(node.index());
        self.prefix = node.name().to_string();
        self.made = 0;
    }

    /// The image.
    pub fn image(&self) -> ImageView<'a> {
        self.image
    }

    /// True while a node is only asked about.
    pub fn is_asking(&self) -> bool {
        self.weights.is_none()
    }

    /// A tensor of the graph.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        self.graph.tensor(id)
    }

    /// Sizes of a value, `[1]` for one without dimensions.
    ///
    /// # Errors
    /// One is not constant, or does not fit 32 bits.
    pub fn dims(&self, value: ValueIndex) -> Result<Vec<u32>, Refusal> {
        let mut dims = self.logical_dims(value)?;
        if dims.is_empty() {
            dims.push(1);
        }
        Ok(dims)
    }

    /// Sizes of a value.
    ///
    /// # Errors
    /// As [`Builder::dims`].
    pub fn logical_dims(&self, value: ValueIndex) -> Result<Vec<u32>, Refusal> {
        let view = self.image.value(value);
        let dims = view.const_dims().and_then(|dims| {
            let all: Option<Vec<u32>> = dims.into_iter().map(|d| u32::try_from(d).ok()).collect();
            all
        });
        dims.ok_or_else(|| Refusal::shape(format!("`{}` has no fixed shape", view.name())))
    }

    /// The layouts that a value is there in; the wish of those that have none of their own. Constants have no wish.
    pub fn layout_of(&self, value: ValueIndex) -> Layout {
        match self.places.get(&value) {
            Some(place) if place.row_major.is_none() && place.channels_last.is_some() => Layout::ChannelsLast,
            _ => Layout::RowMajor,
        }
    }

    /// The layout for a node on single elements: channels last if an input of the result's rank is there only so.
    ///
    /// # Errors
    /// As [`Builder::dims`].
    pub fn elementwise_layout(&self, inputs: &[ValueIndex], output: ValueIndex) -> Result<Layout, Refusal> {
        let rank = self.image.value(output).rank();
        let wants = |value: &ValueIndex| {
            self.image.value(*value).rank() == rank && self.layout_of(*value) == Layout::ChannelsLast
        };
        Ok(match rank >= 3 && inputs.iter().any(wants) {
            true => Layout::ChannelsLast,
            false => Layout::RowMajor,
        })
    }

    /// The tensor of a value in a layout.
    ///
    /// # Errors
    /// Its type has no QNN type.
    pub fn read(&mut self, value: ValueIndex, layout: Layout) -> Result<TensorId, Refusal> {
        let rank = self.image.value(value).rank();
        let layout = if rank < 3 { Layout::RowMajor } else { layout };
        let place = self.places.entry(value).or_default();
        if let Some(tensor) = *place.slot(layout) {
            return Ok(tensor);
        }
        let other = match layout {
            Layout::RowMajor => place.channels_last,
            Layout::ChannelsLast => place.row_major,
        };
        let tensor = match (other, self.image.value(value).source()) {
            (_, Source::Weight(_)) => self.weight(value, layout)?,
            (Some(other), _) => self.transposed(other, &order(rank, layout)),
            (None, Source::Input(at)) if self.weights.is_some() => {
                let tensor = self.declare(value, Layout::RowMajor, TensorKind::Input)?;
                self.graph.inputs[at as usize].tensor = Some(tensor);
                self.bind(value, Layout::RowMajor, tensor);
                return self.read(value, layout);
            }
            (None, _) if self.weights.is_none() => {
                // Asked about: it comes in the layout that is wanted.
                let tensor = self.declare(value, layout, TensorKind::Input)?;
                let port = Port {
                    tensor: Some(tensor),
                    ..port(&self.image, value)
                };
                self.graph.inputs.push(port);
                tensor
            }
            (None, _) => {
                let name = self.image.value(value).name();
                return Err(Refusal::new(
                    Reason::OTHER,
                    format!("`{name}` is read before it is made"),
                ));
            }
        };
        self.bind(value, layout, tensor);
        Ok(tensor)
    }

    /// The tensor of a value as an operand of a result of `rank` dimensions: with leading dimensions of 1 where it has fewer.
    ///
    /// # Errors
    /// As [`Builder::read`].
    pub fn read_broadcast(&mut self, value: ValueIndex, rank: usize, layout: Layout) -> Result<TensorId, Refusal> {
        let own = self.image.value(value).rank();
        if own == rank || layout == Layout::RowMajor || rank < 3 {
            // The library broadcasts as PyTorch does.
            return self.read(value, layout);
        }
        let row_major = self.read(value, Layout::RowMajor)?;
        let mut dims = vec![1; rank - own];
        dims.extend(self.logical_dims(value)?);
        let wide = self.reshaped(row_major, &dims)?;
        match dims[1..].iter().filter(|d| **d != 1).count() {
            0 => Ok(wide),
            _ => Ok(self.transposed(wide, &order(rank, layout))),
        }
    }

    /// The weight that a value is; `None`: it is computed, or given for each run.
    ///
    /// # Errors
    /// The host has no such weight.
    pub fn constant(&self, value: ValueIndex) -> Result<Option<Constant<'a>>, Refusal> {
        match self.image.value(value).weight() {
            None => Ok(None),
            Some(weight) => self.weight_bytes(weight).map(Some),
        }
    }

    fn weight_bytes(&self, weight: WeightView<'a>) -> Result<Constant<'a>, Refusal> {
        let dims: Vec<i64> = weight.sizes().collect();
        let size = usize::try_from(weight.byte_size())
            .map_err(|_| Refusal::shape("a weight does not fit the address space"))?;
        let bytes = match self.weights {
            // Zeros of the allocator take no memory until somebody writes there.
            None => Cow::Owned(vec![0; size]),
            Some(weights) => Cow::Borrowed(weights.bytes(weight.id())?),
        };
        if bytes.len() != size {
            return Err(Error::corrupt(format!("weight {} has {} bytes, not {size}", weight.id(), bytes.len())).into());
        }
        Ok(Constant {
            dtype: weight.dtype(),
            dims,
            bytes,
            known: self.weights.is_some(),
        })
    }

    /// The numbers of a weight, in order.
    ///
    /// # Errors
    /// It is of a type without numbers.
    pub fn numbers(&self, constant: &Constant<'_>) -> Result<Vec<f64>, Refusal> {
        packing::numbers(constant.dtype, &constant.bytes)
            .ok_or_else(|| Refusal::dtype(format!("a constant of type {}", constant.dtype)))
    }

    fn scales(&self, index: WeightIndex) -> Result<Vec<f64>, Refusal> {
        let constant = self.weight_bytes(self.image.weight(index))?;
        let numbers = self.numbers(&constant)?;
        Ok(match constant.known {
            true => numbers,
            false => vec![1.0; numbers.len()],
        })
    }

    /// Scale and zero point of each slice: `(axis, pairs)`. While a node is only asked about, scales are 1.
    ///
    /// # Errors
    /// The quantization is of another kind than per axis.
    pub fn per_axis(&self, value: ValueIndex) -> Result<(u32, Vec<(f64, i64)>), Refusal> {
        match self.image.value(value).quant() {
            Some(Quant::PerAxis {
                axis,
                scales,
                zero_points,
                ..
            }) => {
                let scales = self.scales(scales)?;
                let zeros = match zero_points {
                    None => vec![0.0; scales.len()],
                    Some(index) => {
                        let constant = self.weight_bytes(self.image.weight(index))?;
                        self.numbers(&constant)?
                    }
                };
                let pairs = scales.into_iter().zip(zeros).map(|(s, z)| (s, z as i64));
                Ok((axis, pairs.collect()))
            }
            _ => Err(Refusal::quantization("not quantized per axis")),
        }
    }

    /// The numbers of a per-block quantization: block sizes, scales, zero points, as [`Quant::PerBlock`] has them.
    ///
    /// # Errors
    /// The quantization is of another kind.
    pub fn per_block(&self, value: ValueIndex) -> Result<(Vec<u32>, Vec<f64>, Option<Vec<f64>>), Refusal> {
        match self.image.value(value).quant() {
            Some(Quant::PerBlock {
                block,
                scales,
                zero_points,
                ..
            }) => {
                let zeros = match zero_points {
                    None => None,
                    Some(index) => {
                        let constant = self.weight_bytes(self.image.weight(index))?;
                        Some(self.numbers(&constant)?)
                    }
                };
                Ok((block, self.scales(scales)?, zeros))
            }
            _ => Err(Refusal::quantization("not quantized per block")),
        }
    }

    /// QNN's type of a value, and how its integers stand for numbers.
    ///
    /// # Errors
    /// There is none.
    pub fn representation(&self, value: ValueIndex) -> Result<(DataType, Quantization), Refusal> {
        let view = self.image.value(value);
        let dtype = view.dtype().unwrap_or(DType::F32);
        match view.quant() {
            None => data_type(dtype)
                .map(|data_type| (data_type, Quantization::None))
                .ok_or_else(|| Refusal::dtype(format!("`{}` is of {dtype}, which has no QNN type here", view.name()))),
            Some(Quant::PerTensor { scale, zero_point, .. }) => {
                let (data_type, shift) = match dtype {
                    DType::U8 => (DataType::UFixed8, 0),
                    DType::I8 => (DataType::UFixed8, 128),
                    DType::U16 => (DataType::UFixed16, 0),
                    DType::I16 => (DataType::UFixed16, 32768),
                    DType::I32 => (DataType::SFixed32, 0),
                    _ => {
                        return Err(Refusal::quantization(format!(
                            "`{}` is quantized as {dtype}",
                            view.name()
                        )));
                    }
                };
                let pair = scale_offset(scale, zero_point + shift)?;
                Ok((data_type, Quantization::PerTensor(pair)))
            }
            Some(_) => Err(Refusal::quantization(format!(
                "`{}` has scales of its own a slice, and is no weight of a layer",
                view.name()
            ))),
        }
    }

    /// The tensor that a node's result goes to: write it in one QNN node. Where the result's range is narrower than its type, it is limited
    /// behind that.
    ///
    /// # Errors
    /// Its type has no QNN type.
    pub fn write(&mut self, value: ValueIndex, layout: Layout) -> Result<TensorId, Refusal> {
        let layout = if self.image.value(value).rank() < 3 {
            Layout::RowMajor
        } else {
            layout
        };
        let tensor = self.declare(value, layout, TensorKind::Native)?;
        self.bind(value, layout, tensor);
        let Some((low, high)) = self.narrowed(value)? else {
            return Ok(tensor);
        };
        let wide = self.like(tensor);
        self.clamps.push((wide, tensor, low, high));
        Ok(wide)
    }

    /// The numbers that a quantized value is limited to, if its range is narrower than the type that it is held in.
    fn narrowed(&self, value: ValueIndex) -> Result<Option<(f32, f32)>, Refusal> {
        let view = self.image.value(value);
        let Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        }) = view.quant()
        else {
            return Ok(None);
        };
        let (low, high) = match view.dtype() {
            Some(DType::U8) => (0, 255),
            Some(DType::I8) => (-128, 127),
            Some(DType::U16) => (0, 65535),
            Some(DType::I16) => (-32768, 32767),
            _ => return Ok(None),
        };
        if quant_min <= low && quant_max >= high {
            return Ok(None);
        }
        let number = |q: i64| ((q.clamp(low, high) - zero_point) as f64 * scale) as f32;
        Ok(Some((number(quant_min), number(quant_max))))
    }

    /// Says that a value is in a tensor.
    pub fn bind(&mut self, value: ValueIndex, layout: Layout, tensor: TensorId) {
        *self.places.entry(value).or_default().slot(layout) = Some(tensor);
    }

    /// A tensor between nodes.
    pub fn temporary(&mut self, data_type: DataType, dims: &[u32], quantization: Quantization) -> TensorId {
        let name = format!("{}.t{}", self.prefix, self.graph.tensors.len());
        self.add(Tensor {
            name,
            kind: TensorKind::Native,
            data_type,
            dims: dims.to_vec(),
            quantization,
        })
    }

    /// A tensor between nodes of the type and sizes of another.
    pub fn like(&mut self, id: TensorId) -> TensorId {
        let tensor = self.graph.tensor(id).clone();
        self.temporary(tensor.data_type, &tensor.dims, tensor.quantization)
    }

    /// A constant tensor.
    pub fn fixed(&mut self, data_type: DataType, dims: &[u32], quantization: Quantization, bytes: Vec<u8>) -> TensorId {
        let name = format!("{}.c{}", self.prefix, self.graph.tensors.len());
        self.add(Tensor {
            name,
            kind: TensorKind::Static(bytes),
            data_type,
            dims: dims.to_vec(),
            quantization,
        })
    }

    /// A constant of one element, as an operand beside `like`: exact in integers, rounded to f16 in floats.
    ///
    /// # Errors
    /// A number that the type does not hold.
    pub fn number(&mut self, number: f64, like: TensorId) -> Result<TensorId, Refusal> {
        let data_type = self.graph.tensor(like).data_type;
        let (quantization, bytes) = packing::number(number, data_type)
            .ok_or_else(|| Refusal::attribute(format!("{number} beside {data_type}")))?;
        Ok(self.fixed(data_type, &[1], quantization, bytes))
    }

    /// Adds a QNN node.
    pub fn op(
        &mut self,
        op: &'static str,
        params: Vec<(&'static str, Param)>,
        inputs: &[TensorId],
        outputs: &[TensorId],
    ) {
        let name = match self.made {
            0 => self.prefix.clone(),
            n => format!("{}.{n}", self.prefix),
        };
        self.made += 1;
        self.graph.nodes.push(Node {
            name,
            op,
            params,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            source: self.source,
        });
        for output in outputs {
            if let Some(at) = self.clamps.iter().position(|(wide, ..)| wide == output) {
                let (wide, narrow, low, high) = self.clamps.swap_remove(at);
                let limits = vec![("min_value", Param::F32(low)), ("max_value", Param::F32(high))];
                self.op("ReluMinMax", limits, &[wide], &[narrow]);
            }
        }
    }

    /// The same elements under other sizes; constants and equal sizes need no node.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshaped(&mut self, id: TensorId, dims: &[u32]) -> Result<TensorId, Refusal> {
        let tensor = self.graph.tensor(id).clone();
        if tensor.dims == dims {
            return Ok(id);
        }
        if tensor.elements() != dims.iter().map(|d| *d as usize).product::<usize>() {
            return Err(Refusal::shape(format!("{:?} does not become {dims:?}", tensor.dims)));
        }
        if let TensorKind::Static(bytes) = tensor.kind {
            return Ok(self.fixed(tensor.data_type, dims, tensor.quantization, bytes));
        }
        let out = self.temporary(tensor.data_type, dims, tensor.quantization);
        self.op("Reshape", Vec::new(), &[id], &[out]);
        Ok(out)
    }

    /// The elements in another order of dimensions: dimension `i` of the result is dimension `order[i]`. Constants are turned here.
    pub fn transposed(&mut self, id: TensorId, order: &[u32]) -> TensorId {
        let tensor = self.graph.tensor(id).clone();
        if order.iter().enumerate().all(|(i, from)| i as u32 == *from) {
            return id;
        }
        let dims: Vec<u32> = order.iter().map(|from| tensor.dims[*from as usize]).collect();
        if let TensorKind::Static(bytes) = tensor.kind {
            let bytes = packing::permuted(&bytes, tensor.data_type.size(), &tensor.dims, order);
            return self.fixed(tensor.data_type, &dims, tensor.quantization, bytes);
        }
        let out = self.temporary(tensor.data_type, &dims, tensor.quantization);
        self.op("Transpose", vec![("perm", Param::list(order))], &[id], &[out]);
        out
    }

    fn declare(&mut self, value: ValueIndex, layout: Layout, kind: TensorKind) -> Result<TensorId, Refusal> {
        let (data_type, quantization) = self.representation(value)?;
        let dims = arranged(&self.dims(value)?, layout);
        let name = self.image.value(value).name().to_string();
        Ok(self.add(Tensor {
            name,
            kind,
            data_type,
            dims,
            quantization,
        }))
    }

    fn weight(&mut self, value: ValueIndex, layout: Layout) -> Result<TensorId, Refusal> {
        let (data_type, quantization) = self.representation(value)?;
        let view = self.image.value(value);
        let constant = self.constant(value)?.ok_or_else(|| Error::internal("no weight"))?;
        let bytes = packing::converted(
            constant.dtype,
            &constant.bytes,
            convert(constant.dtype, view.quant().is_some()),
        )?;
        let dims = self.dims(value)?;
        let bytes = match layout {
            Layout::ChannelsLast => packing::permuted(&bytes, data_type.size(), &dims, &order(dims.len(), layout)),
            Layout::RowMajor => bytes,
        };
        Ok(self.add(Tensor {
            name: view.name().to_string(),
            kind: TensorKind::Static(bytes),
            data_type,
            dims: arranged(&dims, layout),
            quantization,
        }))
    }

    fn add(&mut self, mut tensor: Tensor) -> TensorId {
        if !self.names.insert(tensor.name.clone()) {
            tensor.name = format!("{}.{}", tensor.name, self.graph.tensors.len());
            self.names.insert(tensor.name.clone());
        }
        self.graph.tensors.push(tensor);
        TensorId(self.graph.tensors.len() as u32 - 1)
    }

    /// Ends the graph: these values are what it gives, row-major.
    ///
    /// # Errors
    /// One that nobody made.
    pub fn finish(mut self, outputs: &[ValueIndex]) -> Result<Graph, Refusal> {
        self.source = None;
        self.prefix = "output".to_string();
        self.made = 0;
        for value in outputs {
            // Who asks about one node takes its results as they lie.
            let layout = if self.is_asking() {
                self.layout_of(*value)
            } else {
                Layout::RowMajor
            };
            let mut id = self.read(*value, layout)?;
            if self.graph.tensor(id).kind != TensorKind::Native {
                // An input or a constant that is given back, or one result twice.
                let copy = self.like(id);
                self.op("Reshape", Vec::new(), &[id], &[copy]);
                id = copy;
            }
            self.graph.tensors[id.0 as usize].kind = TensorKind::Output;
            let port = Port {
                tensor: Some(id),
                ..port(&self.image, *value)
            };
            self.graph.outputs.push(port);
        }
        Ok(self.graph)
    }
}

/// QNN's type of an element type that stands for itself.
pub fn data_type(dtype: DType) -> Option<DataType> {
    Some(match dtype {
        DType::F32 | DType::F16 => DataType::Float16,
        DType::I32 | DType::I64 => DataType::Int32,
        DType::U8 => DataType::Uint8,
        DType::I8 => DataType::Int8,
        DType::BOOL => DataType::Bool,
        _ => return None,
    })
}

fn convert(dtype: DType, quantized: bool) -> Convert {
    match dtype {
        DType::F32 => Convert::Half,
        DType::I64 => Convert::Narrow,
        DType::I8 | DType::I16 if quantized => Convert::FlipSign,
        _ => Convert::Same,
    }
}

fn port(image: &ImageView<'_>, value: ValueIndex) -> Port {
    let view = image.value(value);
    let dtype = view.dtype().unwrap_or(DType::F32);
    Port {
        tensor: None,
        dtype,
        convert: convert(dtype, view.quant().is_some()),
    }
}

/// QNN's form of a scale and a zero point.
///
/// # Errors
/// A scale that is no positive number, or a zero point beyond 32 bits.
pub fn scale_offset(scale: f64, zero_point: i64) -> Result<ScaleOffset, Refusal> {
    let narrow = scale as f32;
    match i32::try_from(-zero_point) {
        Ok(offset) if narrow.is_finite() && narrow > 0.0 => Ok(ScaleOffset { scale: narrow, offset }),
        _ => Err(Refusal::quantization(format!(
            "a scale of {scale} with the zero point {zero_point}"
        ))),
    }
}
