//! Transposed convolutions.

use super::layers::{GROUPS, Layer, image, line, lying, pair};
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;

/// One dimension of a transposed convolution, as a convolution that gives each element of a stride as a channel of its own.
///
/// Output `s * q + r` reads input `q + start + t` by tap `t`, with the weight at `s * (last - t) + rest` of the kernel, where there is one.
struct Phases {
    stride: i32,
    /// For each element of a stride: the tap of its first weight, and the place of that weight in the kernel.
    first: Vec<[i32; 2]>,
    /// Where windows begin.
    start: i32,
    taps: i32,
    /// Windows.
    count: i32,
    /// Inputs behind the last that are read; negative where some are not.
    behind: i32,
}

impl Phases {
    fn new(stride: i32, kernel: i32, pad: i32, from: i32, to: i32) -> Phases {
        let first: Vec<[i32; 2]> = (0..stride)
            .map(|r| [(r + pad).div_euclid(stride), (r + pad).rem_euclid(stride)])
            .collect();
        let last = first.iter().map(|[at, _]| *at).max().unwrap_or(0);
        let start = first.iter().map(|[at, rest]| at - (kernel - rest - 1).max(0) / stride);
        let start = start.min().unwrap_or(0);
        let count = (to + stride - 1) / stride;
        Phases {
            stride,
            first,
            start,
            taps: last - start + 1,
            count,
            behind: count - 1 + last - (from - 1),
        }
    }

    /// The place in the kernel that an element of a stride reads at a tap.
    fn place(&self, r: i32, tap: i32, kernel: i32) -> Option<i32> {
        let [at, rest] = self.first[r as usize];
        let steps = at - self.start - tap;
        let place = steps * self.stride + rest;
        (steps >= 0 && place < kernel).then_some(place)
    }
}

/// Where arguments are: stride, padding, groups, dilation. What is padded behind shows in the result's sizes.
///
/// TOSA has an operator for it, of which Vela takes strides up to two for U55 and U65, with zeros between the inputs. A convolution for each place in
/// a stride multiplies by none of these: all of them are one layer, whose channels are then put beside each other.
pub(super) fn transposed(node: &Arguments<'_>, b: &mut Builder<'_>, places: [usize; 4]) -> Result<(), Refusal> {
    let values = [node.value(0)?, node.value(1)?, node.output(0)?];
    let mut w_dims = b.dims(values[1])?;
    let [mut stride, mut pad, mut dilation] = [
        pair(&node.ints(places[0])?, 1)?,
        pair(&node.ints(places[1])?, 0)?,
        pair(&node.ints(places[3])?, 1)?,
    ];
    let is_line = w_dims.len() == 3;
    if is_line {
        w_dims.insert(2, 1);
        (stride, pad, dilation) = (lying(stride, 1), lying(pad, 0), lying(dilation, 1));
    }
    let &[depth, share, rows, columns] = &w_dims[..] else {
        return Err(Refusal::shape(
            "a convolution of another number of dimensions than one or two",
        ));
    };
    let groups = i32::try_from(node.int(places[2])?).map_err(|_| Refusal::attribute("groups beyond 32 bits"))?;
    if !(1..=GROUPS).contains(&groups) || depth % groups != 0 {
        return Err(Refusal::attribute(format!("{groups} groups")));
    }
    let layer = Layer::new(b, values, node.optional_value(2)?, 1, groups)?;
    let tensor = image(b, layer.x)?;
    let x_dims = b.shape_of(tensor);
    let mut out_dims = b.dims(layer.out)?;
    if is_line {
        out_dims = vec![out_dims[0], 1, out_dims[2], out_dims[1]];
    }
    // Dilation: nothing between the weights.
    let kernel = [0, 1].map(|i| ([rows, columns][i] - 1) * dilation[i] + 1);
    let [down, across] = [0, 1].map(|i| Phases::new(stride[i], kernel[i], pad[i], x_dims[1 + i], out_dims[1 + i]));
    // Inputs that no window reads are left out.
    let begin = [0, down.start.max(0), across.start.max(0), 0];
    let mut kept = x_dims.clone();
    for (dim, phases) in [(1, &down), (2, &across)] {
        kept[dim] += phases.behind.min(0) - phases.start.max(0);
    }
    if kept.iter().any(|d| *d < 1) {
        return Err(Refusal::attribute("padding beyond the window"));
    }
    let tensor = b.sliced(tensor, &begin, &kept);
    let attribute = Attribute::Conv {
        pad: [
            -down.start.min(0),
            down.behind.max(0),
            -across.start.min(0),
            across.behind.max(0),
        ],
        stride: [1; 2],
        dilation: [1; 2],
        accumulator: layer.sums,
    };
    let (_, bytes) = b.bytes(layer.weight)?;
    let of_group = depth / groups;
    let spread = stride[0] * stride[1];
    let mut parts = Vec::new();
    for group in 0..groups {
        let own = [kept[0], kept[1], kept[2], of_group];
        let part = b.sliced(tensor, &[0, 0, 0, group * of_group], &own);
        let mut data = Vec::with_capacity((spread * share * down.taps * across.taps * of_group) as usize);
        let mut channels = Vec::with_capacity((spread * share) as usize);
        for (r, c) in (0..stride[0]).flat_map(|r| (0..stride[1]).map(move |c| (r, c))) {
            for oc in 0..share {
                channels.push((group * share + oc) as usize);
                for (y, x) in (0..down.taps).flat_map(|y| (0..across.taps).map(move |x| (y, x))) {
                    let at = down.place(r, y, kernel[0]).zip(across.place(c, x, kernel[1]));
                    let at = at.filter(|(y, x)| y % dilation[0] == 0 && x % dilation[1] == 0);
                    let weight = |ic: i32| match at {
                        Some((y, x)) => {
                            let plane = (group * of_group + ic) * share + oc;
                            bytes[((plane * rows + y / dilation[0]) * columns + x / dilation[1]) as usize]
                        }
                        None => 0,
                    };
                    data.extend((0..of_group).map(weight));
                }
            }
        }
        let weight = b.constant(DType::Int8, &[spread * share, down.taps, across.taps, of_group], data);
        let images = [x_dims[0], down.count, across.count];
        let made = layer.run(b, &channels, (Op::Conv2d, attribute.clone()), (part, weight), images)?;
        // Channels are rows of a stride, columns of it, and those of the result.
        let wide = [x_dims[0] * down.count, across.count, stride[0], stride[1] * share];
        let made = b.reshaped(made, &wide)?;
        let made = b.transposed(made, &[0, 2, 1, 3]);
        let large = [x_dims[0], down.count * stride[0], across.count * stride[1], share];
        let made = b.reshaped(made, &large)?;
        parts.push(b.sliced(made, &[0; 4], &[out_dims[0], out_dims[1], out_dims[2], share]));
    }
    let made = b.joined(&parts, 3);
    let made = if is_line { line(b, made)? } else { made };
    b.finish_plain(layer.out, made)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::conv_transpose1d",
        lower: |n, b| transposed(n, b, [3, 4, 6, 7]),
    },
    Operator {
        name: "aten::conv_transpose2d.input",
        lower: |n, b| transposed(n, b, [3, 4, 6, 7]),
    },
];
