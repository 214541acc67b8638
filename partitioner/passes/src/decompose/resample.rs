//! Interpolation: one- and three-dimensional forms over the planar operators, cubic and exact forms over constant tables.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::{DType, bf16, f16};

pub(super) const RULES: Rules = &[
    ("aten::upsample_nearest1d.vec", |rw| {
        line(rw, Planar::Nearest, Scales::Vector(2), 1)
    }),
    ("aten::upsample_nearest1d", |rw| {
        line(rw, Planar::Nearest, Scales::Separate(2), 1)
    }),
    ("aten::upsample_linear1d.vec", |rw| {
        let corners = rw.bool(2)?;
        line(rw, Planar::Bilinear(corners), Scales::Vector(3), 1)
    }),
    ("aten::upsample_linear1d", |rw| {
        let corners = rw.bool(2)?;
        line(rw, Planar::Bilinear(corners), Scales::Separate(3), 1)
    }),
    ("aten::upsample_nearest2d", |rw| plane(rw, Planar::Nearest, 2)),
    ("aten::upsample_bilinear2d", |rw| {
        let corners = rw.bool(2)?;
        plane(rw, Planar::Bilinear(corners), 3)
    }),
    ("aten::upsample_nearest3d.vec", |rw| {
        volume(rw, Planar::Nearest, Scales::Vector(2))
    }),
    ("aten::upsample_nearest3d", |rw| {
        volume(rw, Planar::Nearest, Scales::Separate(2))
    }),
    ("aten::upsample_trilinear3d.vec", |rw| {
        let corners = rw.bool(2)?;
        volume(rw, Planar::Bilinear(corners), Scales::Vector(3))
    }),
    ("aten::upsample_trilinear3d", |rw| {
        let corners = rw.bool(2)?;
        volume(rw, Planar::Bilinear(corners), Scales::Separate(3))
    }),
    ("aten::upsample_bicubic2d.vec", |rw| bicubic(rw, Scales::Vector(3))),
    ("aten::upsample_bicubic2d", |rw| bicubic(rw, Scales::Separate(3))),
    ("aten::_upsample_nearest_exact1d.vec", |rw| {
        nearest_exact(rw, Scales::Vector(2))
    }),
    ("aten::_upsample_nearest_exact2d.vec", |rw| {
        nearest_exact(rw, Scales::Vector(2))
    }),
    ("aten::_upsample_nearest_exact3d.vec", |rw| {
        nearest_exact(rw, Scales::Vector(2))
    }),
    ("aten::_upsample_nearest_exact1d", |rw| {
        nearest_exact(rw, Scales::Separate(2))
    }),
    ("aten::_upsample_nearest_exact2d", |rw| {
        nearest_exact(rw, Scales::Separate(2))
    }),
    ("aten::_upsample_nearest_exact3d", |rw| {
        nearest_exact(rw, Scales::Separate(2))
    }),
    ("aten::grid_sampler", |rw| {
        let op = match rw.rank(rw.tensor(0)?)? {
            4 => "aten::grid_sampler_2d",
            5 => "aten::grid_sampler_3d",
            _ => return Err(rw.invalid("an image or a volume is expected")),
        };
        one(rw.emit(op, rw.node().args.clone()))
    }),
];

/// The planar operator at work.
#[derive(Clone, Copy)]
enum Planar {
    Nearest,
    /// With `align_corners`.
    Bilinear(bool),
}

/// Where an overload has its scales: one list (`.vec`), or one optional float a dimension.
#[derive(Clone, Copy)]
enum Scales {
    Vector(usize),
    Separate(usize),
}

/// The scales, if they are given; they and not the sizes then say where a result is read from.
fn scales(rw: &Rewrite, scales: Scales, count: usize) -> Result<Option<Vec<f64>>, PassError> {
    match scales {
        Scales::Vector(index) => match rw.arg(index) {
            Arg::None => Ok(None),
            Arg::Floats(items) if items.len() == count => Ok(Some(items)),
            Arg::Ints(_) => Ok(Some(rw.ints(index)?.into_iter().map(|i| i as f64).collect())),
            _ => Err(rw.invalid("the scales")),
        },
        Scales::Separate(index) => {
            let items: Result<Vec<Option<f64>>, PassError> = (0..count).map(|i| rw.optional_float(index + i)).collect();
            Ok(items?.into_iter().collect())
        }
    }
}

fn planar(
    rw: &mut Rewrite,
    x: ValueId,
    kind: Planar,
    size: [Expr; 2],
    scales: Option<[f64; 2]>,
) -> Result<ValueId, PassError> {
    let (size, scales) = match scales {
        Some(scales) => (Arg::None, Arg::Floats(scales.to_vec())),
        None => (Arg::Ints(size.to_vec()), Arg::None),
    };
    match kind {
        Planar::Nearest => rw.emit("aten::upsample_nearest2d.vec", args![x, size, scales]),
        Planar::Bilinear(corners) => rw.emit("aten::upsample_bilinear2d.vec", args![x, size, corners, scales]),
    }
}

/// `[N, C, L]` as an image of height 1.
fn line(rw: &mut Rewrite, kind: Planar, at: Scales, count: usize) -> Replacement {
    let x = rw.tensor(0)?;
    let out = rw.output_type(0)?.shape;
    let [_, _, length] = out.as_slice() else {
        return Err(rw.invalid("an input of three dimensions is expected"));
    };
    let scales = scales(rw, at, count)?.map(|s| [1.0, s[0]]);
    let x = rw.unsqueeze(x, 2)?;
    let y = planar(rw, x, kind, [Expr::Int(1), length.clone()], scales)?;
    let y = rw.squeeze(y, 2)?;
    one(rw.view(y, out))
}

fn plane(rw: &mut Rewrite, kind: Planar, at: usize) -> Replacement {
    let (x, size) = (rw.tensor(0)?, rw.exprs(1)?);
    let [height, width] = size.as_slice() else {
        return Err(rw.invalid("two sizes are expected"));
    };
    let scales = scales(rw, Scales::Separate(at), 2)?.map(|s| [s[0], s[1]]);
    one(planar(rw, x, kind, [height.clone(), width.clone()], scales))
}

/// Separable: first every slice over height and width, then depth with height and width as one dimension.
fn volume(rw: &mut Rewrite, kind: Planar, at: Scales) -> Replacement {
    let x = rw.tensor(0)?;
    let (shape, out) = (rw.shape(x)?, rw.output_type(0)?.shape);
    let ([n, c, d, h, w], [_, _, od, oh, ow]) = (shape.as_slice(), out.as_slice()) else {
        return Err(rw.invalid("an input of five dimensions is expected"));
    };
    let scales = scales(rw, at, 3)?;
    let dtype = rw.dtype(x)?;
    let x = match dtype.is_float() {
        true => rw.upcast(x)?,
        false => x,
    };
    let slices = rw.view(x, vec![n.clone(), c.clone() * d.clone(), h.clone(), w.clone()])?;
    let slices = planar(
        rw,
        slices,
        kind,
        [oh.clone(), ow.clone()],
        scales.as_ref().map(|s| [s[1], s[2]]),
    )?;
    let area = oh.clone() * ow.clone();
    let deep = rw.view(slices, vec![n.clone(), c.clone(), d.clone(), area.clone()])?;
    let deep = planar(rw, deep, kind, [od.clone(), area], scales.as_ref().map(|s| [s[0], 1.0]))?;
    let y = rw.view(deep, out.clone())?;
    one(rw.cast(y, dtype))
}

/// Source coordinates advance by this.
fn step(input: i64, output: i64, corners: bool, scale: Option<f64>) -> f64 {
    match (corners, scale) {
        (true, _) if output > 1 => (input - 1) as f64 / (output - 1) as f64,
        (true, _) => 0.0,
        (false, Some(scale)) if scale > 0.0 => 1.0 / scale,
        (false, _) => input as f64 / output as f64,
    }
}

/// Sizes of the last `count` dimensions before and after, which must be constant.
fn extents(rw: &Rewrite, x: ValueId) -> Result<Vec<(i64, i64)>, PassError> {
    let (shape, out) = (rw.shape(x)?, rw.output_type(0)?.shape);
    let pairs = shape.iter().zip(&out).skip(2);
    let pairs: Option<Vec<(i64, i64)>> = pairs.map(|(a, b)| a.as_int().zip(b.as_int())).collect();
    match pairs {
        Some(pairs) if shape.len() == out.len() && pairs.iter().all(|p| p.0 > 0 && (1..1 << 16).contains(&p.1)) => {
            Ok(pairs)
        }
        _ => Err(rw.unsupported("a dynamic or empty image size")),
    }
}

/// A product with a constant matrix along each of height and width (Keys' kernel, a = -0.75; edges repeat).
fn bicubic(rw: &mut Rewrite, at: Scales) -> Replacement {
    let (x, corners) = (rw.tensor(0)?, rw.bool(2)?);
    let scales = scales(rw, at, 2)?;
    let dtype = rw.dtype(x)?;
    if dtype == DType::U8 {
        return bicubic_bytes(rw, at, scales);
    }
    let extents = extents(rw, x)?;
    let [height, width] = extents.as_slice() else {
        return Err(rw.invalid("an input of four dimensions is expected"));
    };
    let matrix = |rw: &mut Rewrite, (input, output): (i64, i64), scale: Option<f64>| {
        if input.saturating_mul(output) > 1 << 22 {
            return Err(rw.unsupported(format!("cubic interpolation from {input} to {output}")));
        }
        let step = step(input, output, corners, scale);
        let mut items = vec![0f32; (input * output) as usize];
        for o in 0..output {
            let source = if corners {
                step * o as f64
            } else {
                (o as f64 + 0.5) * step - 0.5
            };
            let low = source.floor();
            let t = source - low;
            for (k, weight) in cubic(t).into_iter().enumerate() {
                let i = (low as i64 - 1 + k as i64).clamp(0, input - 1);
                // [input, output]: the image is multiplied from the left.
                items[(i * output + o) as usize] += rounded(weight, dtype);
            }
        }
        rw.constant_f32(&[input, output], &items)
    };
    let across = matrix(rw, *width, scales.as_ref().map(|s| s[1]))?;
    let down = matrix(rw, *height, scales.as_ref().map(|s| s[0]))?;
    if !dtype.is_float() || dtype == DType::F64 {
        return Err(rw.unsupported(format!("cubic interpolation of {dtype}")));
    }
    let x = rw.upcast(x)?;
    let y = super::matmul::matmul(rw, x, across)?;
    let y = rw.transpose_last(y)?;
    let y = super::matmul::matmul(rw, y, down)?;
    one(rw.transpose_last(y))
}

/// Between the passes over bytes PyTorch rounds, which a product of matrices does not: the kernel does it whole.
fn bicubic_bytes(rw: &mut Rewrite, at: Scales, scales: Option<Vec<f64>>) -> Replacement {
    if let Scales::Separate(_) = at {
        return Ok(None);
    }
    let ty = rw.output_type(0)?;
    let size = ty.shape.get(2..).unwrap_or_default().to_vec();
    let scale = |i: usize| scales.as_ref().map(|s| s[i]);
    let args = args![rw.arg(0), size, rw.arg(2), scale(0), scale(1)];
    rw.emit_as("aten::upsample_bicubic2d", args, vec![ty.into()]).map(Some)
}

/// PyTorch keeps the weights of an image in the image's dtype.
fn rounded(weight: f64, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f64(weight).to_f32(),
        DType::BF16 => bf16::from_f64(weight).to_f32(),
        _ => weight as f32,
    }
}

fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// The element whose centre is nearest, by constant places.
fn nearest_exact(rw: &mut Rewrite, at: Scales) -> Replacement {
    let x = rw.tensor(0)?;
    let extents = extents(rw, x)?;
    let scales = scales(rw, at, extents.len())?;
    let mut indices: Vec<Option<ValueId>> = vec![None, None];
    for (d, &(input, output)) in extents.iter().enumerate() {
        // ATen computes in f32.
        let step = step(input, output, false, scales.as_ref().map(|s| s[d])) as f32;
        let items: Vec<i64> = (0..output)
            .map(|o| (((o as f32 + 0.5) * step).floor() as i64).clamp(0, input - 1))
            .collect();
        let mut sizes = vec![output];
        sizes.extend(std::iter::repeat_n(1, extents.len() - 1 - d));
        indices.push(Some(rw.constant_i64(&sizes, &items)?));
    }
    one(rw.emit("aten::index.Tensor", args![x, indices]))
}
