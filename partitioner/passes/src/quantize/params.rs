//! Quantize and dequantize nodes whose numbers are known before the run.

use delegraph_ir::{Arg, Constant, ConstantId, Constants, Def, Graph, Node, Quant, TensorType, ValueId};
use delegraph_types::{DType, Scalar};

/// Which way a node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From f32 to integers.
    Quantize,
    /// From integers to f32.
    Dequantize,
}

/// A quantize or dequantize node between f32 and integers, with the quantization of the integer side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub way: Way,
    pub input: ValueId,
    pub output: ValueId,
    pub quant: Quant,
}

impl Step {
    /// The integer side.
    pub fn integers(&self) -> ValueId {
        match self.way {
            Way::Quantize => self.output,
            Way::Dequantize => self.input,
        }
    }
}

/// Reads a node. `None`: it is no such node, its numbers are computed at run time, or they are none that a type can say
/// (another float type than f32, sizes that do not fit).
pub(super) fn step(graph: &Graph, constants: &Constants, node: &Node) -> Option<Step> {
    let name = node.op.name();
    let (way, base) = match name.strip_prefix("quantized_decomposed::") {
        Some(base) => match base.strip_prefix("de") {
            Some(base) => (Way::Dequantize, base),
            None => (Way::Quantize, base),
        },
        None => match name {
            "torchao::quantize_affine" => (Way::Quantize, "quantize_affine"),
            "torchao::dequantize_affine" => (Way::Dequantize, "quantize_affine"),
            _ => return None,
        },
    };
    let (input, output) = (node.args.first()?.as_value()?, *node.outputs.first()?);
    let (real, whole) = match way {
        Way::Quantize => (graph.tensor(input)?, graph.tensor(output)?),
        Way::Dequantize => (graph.tensor(output)?, graph.tensor(input)?),
    };
    if real.dtype != DType::F32
        || !matches!(
            whole.dtype,
            DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32
        )
    {
        return None;
    }
    let reader = Reader {
        graph,
        constants,
        node,
        ty: whole,
    };
    let quant = match base {
        "quantize_per_tensor" | "quantize_per_tensor.tensor" | "quantize_per_tensor.tensor2" => reader.per_tensor()?,
        "quantize_per_channel" => reader.per_channel()?,
        "quantize_per_channel_group" => reader.per_group()?,
        "quantize_affine" => reader.affine()?,
        _ => return None,
    };
    Some(Step {
        way,
        input,
        output,
        quant,
    })
}

struct Reader<'a> {
    graph: &'a Graph,
    constants: &'a Constants,
    node: &'a Node,
    /// Of the integer side.
    ty: &'a TensorType,
}

impl Reader<'_> {
    fn named(&self, name: &str) -> Option<&Arg> {
        self.node.arg(name)
    }

    fn constant(&self, arg: &Arg) -> Option<(ConstantId, &Constant)> {
        let id = constant_of(self.graph, arg.as_value()?)?;
        Some((id, self.constants.find(id)?))
    }

    /// A number, or a constant of one element.
    fn number(&self, arg: &Arg) -> Option<f64> {
        match arg {
            Arg::Value(_) => match numbers(self.constant(arg)?.1)?.as_slice() {
                [one] => Some(*one),
                _ => None,
            },
            _ => arg.as_scalar().map(Scalar::as_f64),
        }
    }

    /// `quant_min` and `quant_max`, or the limits of the dtype; they must lie in it.
    fn limits(&self) -> Option<(i64, i64)> {
        let (least, most) = self.ty.dtype.int_range()?;
        let limit = |name: &str, default: i128| match self.named(name) {
            None | Some(Arg::None) => Some(default),
            Some(arg) => self.number(arg).map(|n| n as i128),
        };
        let (low, high) = (limit("quant_min", least)?, limit("quant_max", most)?);
        let fits = least <= low && low <= high && high <= most;
        Some((i64::try_from(low).ok()?, i64::try_from(high).ok()?)).filter(|_| fits)
    }

    fn one(&self, scale: f64, zero_point: f64) -> Option<Quant> {
        let (quant_min, quant_max) = self.limits()?;
        // Kernels use the scale in f32.
        let usable = (scale as f32).is_normal() && scale > 0.0 && (1.0 / scale as f32).is_finite();
        let whole = zero_point.fract() == 0.0 && zero_point.abs() < 2f64.powi(31);
        (usable && whole).then_some(Quant::PerTensor {
            scale,
            zero_point: zero_point as i64,
            quant_min,
            quant_max,
        })
    }

    fn per_tensor(&self) -> Option<Quant> {
        let (scale, zero_point) = (self.node.args.get(1)?, self.node.args.get(2)?);
        self.one(self.number(scale)?, self.number(zero_point)?)
    }

    /// Scales of these sizes, and zero points of the same.
    fn many(&self, scales: &Arg, zero_points: &Arg, sizes: &[i64]) -> Option<(ConstantId, Option<ConstantId>)> {
        let fits = |constant: &Constant| constant.sizes.iter().copied().eq(sizes.iter().copied());
        let (scales, constant) = self.constant(scales)?;
        if !fits(constant) || !matches!(constant.dtype, DType::F32 | DType::F64) {
            return None;
        }
        let zero_points = match zero_points {
            Arg::None => None,
            arg => match self.constant(arg)? {
                (_, none) if none.sizes.numel() == Some(0) => None,
                (id, some) if fits(some) && some.dtype.is_int() => Some(id),
                _ => return None,
            },
        };
        Some((scales, zero_points))
    }

    fn per_channel(&self) -> Option<Quant> {
        let axis = self.named("axis")?.as_int()?;
        let rank = self.ty.rank() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        let count = self.ty.shape.get(usize::try_from(axis).ok()?)?.as_int()?;
        self.axis(axis as u32, self.node.args.get(1)?, self.node.args.get(2)?, count)
    }

    fn axis(&self, axis: u32, scales: &Arg, zero_points: &Arg, count: i64) -> Option<Quant> {
        let (scales, zero_points) = self.many(scales, zero_points, &[count])?;
        let (quant_min, quant_max) = self.limits()?;
        Some(Quant::PerAxis {
            axis,
            scales,
            zero_points,
            quant_min,
            quant_max,
        })
    }

    fn per_group(&self) -> Option<Quant> {
        let group = self.named("group_size")?.as_int()?;
        let mut block = vec![1; self.ty.rank()];
        *block.last_mut()? = group;
        self.block(&block, self.node.args.get(1)?, self.node.args.get(2)?)
    }

    fn block(&self, block: &[i64], scales: &Arg, zero_points: &Arg) -> Option<Quant> {
        let sizes = self.ty.static_dims()?;
        let mut counts = Vec::with_capacity(block.len());
        for (size, block) in sizes.iter().zip(block) {
            if *block <= 0 || size % block != 0 {
                return None;
            }
            counts.push(size / block);
        }
        let (scales, zero_points) = self.many(scales, zero_points, &counts)?;
        let (quant_min, quant_max) = self.limits()?;
        let block = block.iter().map(|b| u32::try_from(*b).ok()).collect::<Option<_>>()?;
        Some(Quant::PerBlock {
            block,
            scales,
            zero_points,
            quant_min,
            quant_max,
        })
    }

    /// torchao says everything by blocks. Scales have no dimension where a block spans it, unless `keepdim` was asked for.
    fn affine(&self) -> Option<Quant> {
        let Arg::Ints(block) = self.named("block_size")? else {
            return None;
        };
        let (scale, zero_point) = (self.named("scale")?, self.named("zero_point")?);
        if block.len() != self.ty.rank() {
            return None;
        }
        if block.iter().zip(&self.ty.shape).all(|(block, size)| block == size) {
            let zero_point = match zero_point {
                Arg::None => 0.0,
                arg => self.number(arg)?,
            };
            return self.one(self.number(scale)?, zero_point);
        }
        let block: Vec<i64> = block.iter().map(|b| b.as_int()).collect::<Option<_>>()?;
        if let Some(quant) = self.block(&block, scale, zero_point) {
            return Some(quant);
        }
        let sizes = self.ty.static_dims()?;
        let mut kept = (0..sizes.rank()).filter(|d| block[*d] != sizes[*d]);
        let axis = kept.next().filter(|_| kept.next().is_none())?;
        (block[axis] == 1).then_some(())?;
        self.axis(axis as u32, scale, zero_point, sizes[axis])
    }
}

/// The constant that a value is.
pub(super) fn constant_of(graph: &Graph, value: ValueId) -> Option<ConstantId> {
    match graph.values.get(value.index())?.def {
        Def::Constant(id) => Some(id),
        _ => None,
    }
}

/// The elements of a constant, where `f64` holds them all exactly enough.
pub(super) fn numbers(constant: &Constant) -> Option<Vec<f64>> {
    let bytes = constant.to_contiguous()?;
    let items = bytes.as_slice().chunks_exact(constant.dtype.size());
    let read: fn(&[u8]) -> Option<f64> = match constant.dtype {
        DType::F32 => |b| Some(f64::from(f32::from_le_bytes(b.try_into().ok()?))),
        DType::F64 => |b| Some(f64::from_le_bytes(b.try_into().ok()?)),
        DType::I8 => |b| Some(f64::from(*b.first()? as i8)),
        DType::U8 => |b| Some(f64::from(*b.first()?)),
        DType::U16 => |b| Some(f64::from(u16::from_le_bytes(b.try_into().ok()?))),
        DType::I16 => |b| Some(f64::from(i16::from_le_bytes(b.try_into().ok()?))),
        DType::I32 => |b| Some(f64::from(i32::from_le_bytes(b.try_into().ok()?))),
        DType::I64 => |b| Some(i64::from_le_bytes(b.try_into().ok()?) as f64),
        _ => return None,
    };
    items.map(read).collect()
}

/// The integer that stands for a number, in the arithmetic of `quantize_per_tensor`: f32, halves to even.
pub(super) fn quantized(number: f64, scale: f64, zero_point: i64, low: i64, high: i64) -> i64 {
    let steps = (number as f32 * (1.0 / scale) as f32).round_ties_even();
    (steps + zero_point as f32).clamp(low as f32, high as f32) as i64
}
