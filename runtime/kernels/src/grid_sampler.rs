//! `grid_sampler_2d` and `grid_sampler_3d`: an image or a volume read at places that another tensor names.

use crate::elementwise::with_real;
use crate::math::Real;
use crate::registry::Kernel;
use crate::stage::{Arena, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::{Call, KernelError};
use alloc::format;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::grid_sampler_2d.out", sample),
    ("aten::grid_sampler_3d.out", sample),
];

/// How places outside are answered: PyTorch's `GridSamplerPadding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// PyTorch's `GridSamplerInterpolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interpolation {
    Bilinear,
    Nearest,
    Bicubic,
}

/// One dimension of the image.
#[derive(Debug, Clone, Copy)]
struct Side {
    size: usize,
    padding: Padding,
    align_corners: bool,
}

impl Side {
    /// From -1..1 to elements.
    fn place<W: Real>(&self, at: W) -> W {
        let size = W::from_f64(self.size as f64);
        let two = W::from_f64(2.0);
        let shifted = at.plus(W::ONE);
        if self.align_corners {
            shifted.over(two).times(size.minus(W::ONE))
        } else {
            shifted.times(size).minus(W::ONE).over(two)
        }
    }

    /// Moves a place into the image as the padding says.
    fn pad<W: Real>(&self, at: W) -> W {
        let last = W::from_f64(self.size as f64 - 1.0);
        let inside = match self.padding {
            Padding::Zeros => return finite(at),
            Padding::Border => at,
            Padding::Reflection if self.align_corners => reflect(at, 0.0, self.size as f64 - 1.0),
            Padding::Reflection => reflect(at, -0.5, self.size as f64),
        };
        let inside = if inside > W::ZERO { inside } else { W::ZERO };
        finite(if inside < last { inside } else { last })
    }

    /// The element, if it is in the image.
    fn element<W: Real>(&self, at: W) -> Option<usize> {
        let at = usize::try_from(at.to_i64()).ok()?;
        (at < self.size).then_some(at)
    }
}

/// A place that an integer can hold; outside of every image where it could not.
fn finite<W: Real>(at: W) -> W {
    let limit = W::from_f64(2_147_483_648.0);
    if at < limit && at > limit.negate() {
        at
    } else {
        W::from_f64(-100.0)
    }
}

/// Folds a place between `low` and `low + span`.
fn reflect<W: Real>(at: W, low: f64, span: f64) -> W {
    if span <= 0.0 {
        return W::ZERO;
    }
    let (low, span) = (W::from_f64(low), W::from_f64(span));
    let at = at.minus(low).magnitude();
    let extra = at.fmod(span);
    let even = at.over(span).floor().fmod(W::from_f64(2.0)) == W::ZERO;
    if even {
        extra.plus(low)
    } else {
        span.minus(extra).plus(low)
    }
}

/// Weights of the four neighbours for a place `t` past the second: cubic convolution with -0.75.
fn cubic<W: Real>(t: W) -> [W; 4] {
    let number = W::from_f64;
    let a = number(-0.75);
    let near = |x: W| {
        let slope = a.plus(number(2.0)).times(x).minus(a.plus(number(3.0)));
        slope.times(x).times(x).plus(W::ONE)
    };
    let far = |x: W| {
        let inner = a.times(x).minus(number(5.0).times(a));
        inner
            .times(x)
            .plus(number(8.0).times(a))
            .times(x)
            .minus(number(4.0).times(a))
    };
    let rest = W::ONE.minus(t);
    [far(t.plus(W::ONE)), near(t), near(rest), far(rest.plus(W::ONE))]
}

/// `(input [n, c, d?, h, w], grid [n, od?, oh, ow, 2 or 3], interpolation, padding, align_corners)`; an image is a volume one deep.
fn sample(call: &mut Call) -> Result<(), KernelError> {
    let (input, grid) = (call.tensor(0)?, call.tensor(1)?);
    let interpolation = match call.int(2)? {
        0 => Interpolation::Bilinear,
        1 => Interpolation::Nearest,
        2 => Interpolation::Bicubic,
        other => return Err(KernelError::invalid("interpolation_mode", format!("mode {other}"))),
    };
    let padding = match call.int(3)? {
        0 => Padding::Zeros,
        1 => Padding::Border,
        2 => Padding::Reflection,
        other => return Err(KernelError::invalid("padding_mode", format!("mode {other}"))),
    };
    let align_corners = call.bool(4)?;
    let mismatch = || {
        let (a, b) = (grid.sizes(), input.sizes());
        let (x, y) = (grid.dtype(), input.dtype());
        KernelError::invalid("grid", format!("a {x} grid of {a} for a {y} input of {b}"))
    };
    let (&[n, c, ref sides @ ..], &[grids, ref places @ .., coordinates]) =
        (input.sizes().as_slice(), grid.sizes().as_slice())
    else {
        return Err(mismatch());
    };
    let same = places.len() == sides.len() && coordinates as usize == sides.len() && (2..=3).contains(&sides.len());
    if !same || grids != n || sides.contains(&0) || grid.dtype() != input.dtype() {
        return Err(mismatch());
    }
    if sides.len() == 3 && interpolation == Interpolation::Bicubic {
        return Err(KernelError::invalid(
            "interpolation_mode",
            "cubic interpolation of a volume",
        ));
    }
    let mut sizes = *input.sizes();
    sizes[2..].copy_from_slice(places);
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(&dims_of(&sizes, "grid")?)?;
    let side = |d: usize| Side {
        size: sides.len().checked_sub(d).map_or(1, |at| sides[at]) as usize,
        padding,
        align_corners,
    };
    let volume = Volume {
        depths: side(3),
        rows: side(2),
        columns: side(1),
    };
    let flat = sides.len() == 2;
    let size = count(sides);
    let (c, places, coordinates) = (c as usize, count(places), sides.len());
    with_real!(input.dtype(), "input", W => {
        let bytes = load_bytes::<W>(&input).saturating_add(load_bytes::<W>(&grid));
        let mut arena = Arena::new(scratch, bytes.saturating_add(out_bytes::<W>(out)))?;
        let (image, grid) = (arena.load::<W>(&input)?, arena.load::<W>(&grid)?);
        produce::<W>(out, &mut arena, |slots, _| {
            for (i, at) in grid.chunks_exact(coordinates).enumerate() {
                let (batch, place) = (i / places, i % places);
                let (x, y) = (volume.columns.place(at[0]), volume.rows.place(at[1]));
                let z = if flat { W::default() } else { volume.depths.place(at[2]) };
                let taps = Taps::new(interpolation, &volume, x, y, z);
                for channel in batch * c..(batch + 1) * c {
                    slots[channel * places + place] = taps.read(&image[channel * size..][..size]);
                }
            }
            Ok(())
        })
    })
}

/// What is read.
struct Volume {
    depths: Side,
    rows: Side,
    columns: Side,
}

/// The elements that make one place, with their weights: the same in every channel.
struct Taps<W> {
    taps: [(usize, W); 16],
    count: usize,
}

impl<W: Real> Taps<W> {
    fn new(interpolation: Interpolation, volume: &Volume, x: W, y: W, z: W) -> Taps<W> {
        let Volume { depths, rows, columns } = volume;
        let mut taps = Taps {
            taps: [(0, W::ZERO); 16],
            count: 0,
        };
        match interpolation {
            Interpolation::Nearest => {
                let [x, y, z] = [columns.pad(x), rows.pad(y), depths.pad(z)].map(W::round_even);
                taps.add(volume, [x, y, z], W::ONE);
            }
            Interpolation::Bilinear => {
                let (x, y, z) = (columns.pad(x), rows.pad(y), depths.pad(z));
                let (left, top, front) = (x.floor(), y.floor(), z.floor());
                let (dx, dy, dz) = (x.minus(left), y.minus(top), z.minus(front));
                for (depth, part) in [(front, W::ONE.minus(dz)), (front.plus(W::ONE), dz)] {
                    for (row, weight) in [(top, W::ONE.minus(dy)), (top.plus(W::ONE), dy)] {
                        let weight = weight.times(part);
                        taps.add(volume, [left, row, depth], W::ONE.minus(dx).times(weight));
                        taps.add(volume, [left.plus(W::ONE), row, depth], dx.times(weight));
                    }
                }
            }
            Interpolation::Bicubic => {
                let (left, top) = (x.floor(), y.floor());
                let (across, down) = (cubic(x.minus(left)), cubic(y.minus(top)));
                for (i, &weight) in down.iter().enumerate() {
                    let row = rows.pad(top.plus(W::from_f64(i as f64 - 1.0)));
                    for (j, &part) in across.iter().enumerate() {
                        let column = columns.pad(left.plus(W::from_f64(j as f64 - 1.0)));
                        taps.add(volume, [column, row, W::ZERO], part.times(weight));
                    }
                }
            }
        }
        taps
    }

    /// Adds an element with its weight, if it is in the volume.
    fn add(&mut self, volume: &Volume, [x, y, z]: [W; 3], weight: W) {
        let Volume { depths, rows, columns } = volume;
        if let (Some(depth), Some(row), Some(column)) = (depths.element(z), rows.element(y), columns.element(x)) {
            self.taps[self.count] = ((depth * rows.size + row) * columns.size + column, weight);
            self.count += 1;
        }
    }

    fn read(&self, plane: &[W]) -> W {
        let taps = self.taps[..self.count].iter();
        taps.fold(W::ZERO, |sum, &(at, weight)| sum.plus(plane[at].times(weight)))
    }
}
