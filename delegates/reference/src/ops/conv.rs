//! Convolutions of one, two and three dimensions, with groups, strides, padding, dilation, and transposed ones.
//!
//! All are one: the patch of the input that an output element sees becomes a row, and rows times weights is a product of
//! matrices. A transposed convolution is a plain one over an input with gaps, with the kernel turned round.

use super::matmul::rows;
use super::view::{flipped, permuted};
use crate::call::Call;
use crate::caps::{Operator, Refusal, floats, op, rank};
use crate::tensor::{Data, Tensor, count, filled};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

/// Spatial dimensions. Fewer are filled up with ones at the front.
const SPACE: usize = 3;

/// Rows of a patch matrix that are in memory at once.
const BLOCK: usize = 256;

/// What a convolution is besides its tensors.
struct Geometry {
    stride: Vec<i64>,
    padding: Vec<i64>,
    dilation: Vec<i64>,
    transposed: bool,
    output_padding: Vec<i64>,
    groups: usize,
}

/// Along one dimension: for each output and each kernel element, the input element, if there is one.
struct Axis {
    output: usize,
    kernel: usize,
    source: Vec<Option<usize>>,
}

impl Axis {
    /// `gap` is the distance of input elements in a transposed convolution; `before` and `after` are the padding.
    fn new(
        size: usize,
        kernel: usize,
        stride: i64,
        dilation: i64,
        gap: i64,
        before: i64,
        after: i64,
    ) -> Result<Axis, Error> {
        let misfit = || Error::invalid("the kernel does not fit the input");
        if stride < 1 || dilation < 1 || gap < 1 || kernel == 0 {
            return Err(misfit());
        }
        let spread = (size as i64 - 1)
            .checked_mul(gap)
            .and_then(|s| s.checked_add(1))
            .ok_or_else(misfit)?;
        let reach = dilation
            .checked_mul(kernel as i64 - 1)
            .and_then(|r| r.checked_add(1))
            .ok_or_else(misfit)?;
        let room = spread
            .checked_add(before)
            .and_then(|r| r.checked_add(after))
            .ok_or_else(misfit)?;
        let last = room.checked_sub(reach).filter(|last| *last >= 0).ok_or_else(misfit)?;
        let output = (last / stride + 1) as usize;
        let mut source = filled(count(&[output, kernel])?, None)?;
        for (o, row) in source.chunks_mut(kernel).enumerate() {
            for (k, slot) in row.iter_mut().enumerate() {
                let at = o as i64 * stride + k as i64 * dilation - before;
                let inside = at >= 0 && at % gap == 0 && at / gap < size as i64;
                *slot = inside.then_some((at / gap) as usize);
            }
        }
        Ok(Axis { output, kernel, source })
    }

    fn at(&self, output: usize) -> &[Option<usize>] {
        &self.source[output * self.kernel..(output + 1) * self.kernel]
    }
}

/// Sizes with ones in front, so that there are `SPACE` spatial dimensions after the first two.
fn spread(sizes: &[usize]) -> Vec<usize> {
    let missing = (SPACE + 2).saturating_sub(sizes.len());
    [&sizes[..2], &vec![1; missing], &sizes[2..]].concat()
}

/// The weights of a transposed convolution as those of a plain one: groups × in × out becomes groups × out × in, turned.
fn turned(weight: &Tensor, groups: usize) -> Result<Tensor, Error> {
    let [inputs, outputs, space @ ..] = weight.sizes() else {
        return Err(Error::invalid("weights have two dimensions at least"));
    };
    if groups == 0 || inputs % groups != 0 {
        return Err(Error::invalid(format!("{inputs} channels are not {groups} groups")));
    }
    let grouped = weight.reshaped([&[groups, inputs / groups, *outputs], space].concat())?;
    let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + space.len()).collect();
    let swapped = permuted(&grouped, &order)?;
    let plain = swapped.reshaped([&[groups * outputs, inputs / groups], space].concat())?;
    flipped(&plain, &(2..2 + space.len()).collect::<Vec<_>>())
}

fn convolve(call: &Call<'_>, geometry: &Geometry) -> Result<Vec<Tensor>, Error> {
    let (x, weight, bias) = (call.tensor(0)?, call.tensor(1)?, call.optional(2)?);
    let space = weight.rank().saturating_sub(2);
    // An input without a batch is a batch of one.
    let is_batch = x.rank() == space + 2;
    let x_sizes = if is_batch {
        x.sizes().to_vec()
    } else {
        [&[1], x.sizes()].concat()
    };
    if space == 0 || space > SPACE || x_sizes.len() != space + 2 {
        return Err(Error::invalid(format!(
            "an input of sizes {:?} does not fit its weights",
            x.sizes()
        )));
    }
    let turned = if geometry.transposed {
        Some(turned(weight, geometry.groups)?)
    } else {
        None
    };
    let weight = turned.as_ref().unwrap_or(weight);
    let (x_sizes, w_sizes) = (spread(&x_sizes), spread(weight.sizes()));
    let mut axes = Vec::new();
    for d in 0..SPACE {
        let given = d.checked_sub(SPACE - space);
        let of = |list: &[i64], default| {
            given.map_or(Ok(default), |i| {
                list.get(i)
                    .copied()
                    .ok_or_else(|| Error::invalid("one number a dimension is needed"))
            })
        };
        let (size, kernel) = (x_sizes[d + 2], w_sizes[d + 2]);
        let (stride, padding) = (of(&geometry.stride, 1)?, of(&geometry.padding, 0)?);
        let dilation = of(&geometry.dilation, 1)?;
        axes.push(if geometry.transposed {
            let extra = of(&geometry.output_padding, 0)?;
            let around = dilation.saturating_mul(kernel as i64 - 1).saturating_sub(padding);
            Axis::new(size, kernel, 1, dilation, stride, around, around.saturating_add(extra))?
        } else {
            Axis::new(size, kernel, stride, dilation, 1, padding, padding)?
        });
    }
    let [batch, channels, ..] = x_sizes[..] else {
        return Err(Error::internal("sizes went missing"));
    };
    let (outputs, inner, groups) = (w_sizes[0], w_sizes[1], geometry.groups);
    if groups == 0 || outputs % groups != 0 || channels != inner * groups {
        return Err(Error::invalid(format!(
            "{channels} channels do not fit {outputs}×{inner} weights in {groups} groups"
        )));
    }
    let positions: usize = axes.iter().map(|a| a.output).product();
    let mut made = filled(count(&[batch, outputs, positions])?, 0.0)?;
    if let Some(bias) = bias {
        let bias = bias.floats()?;
        if bias.len() != outputs {
            return Err(Error::invalid(format!("{} biases for {outputs} channels", bias.len())));
        }
        for (i, plane) in made.chunks_mut(positions.max(1)).enumerate() {
            plane.fill(bias[i % outputs]);
        }
    }
    let plane: usize = x_sizes[2..].iter().product();
    let (x, weights) = (x.floats()?, weight.floats()?);
    let per_group = outputs / groups;
    let k = inner * axes.iter().map(|a| a.kernel).product::<usize>();
    let mut patches = filled(count(&[BLOCK.min(positions.max(1)), k])?, 0.0)?;
    let mut products = filled(count(&[BLOCK.min(positions.max(1)), per_group])?, 0.0)?;
    for (image, group) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
        let x = &x[(image * channels + group * inner) * plane..][..inner * plane];
        let weights = &weights[group * per_group * k..][..per_group * k];
        let made = &mut made[(image * outputs + group * per_group) * positions..][..per_group * positions];
        for start in (0..positions).step_by(BLOCK) {
            let block = BLOCK.min(positions - start);
            for (i, patch) in patches.chunks_exact_mut(k.max(1)).take(block).enumerate() {
                gather(x, &x_sizes[2..], &axes, start + i, patch);
            }
            rows(&patches[..block * k], weights, k, &mut products[..block * per_group]);
            for (i, row) in products.chunks_exact(per_group.max(1)).take(block).enumerate() {
                for (channel, product) in row.iter().enumerate() {
                    made[channel * positions + start + i] += product;
                }
            }
        }
    }
    let mut sizes = vec![batch, outputs];
    sizes.extend(axes[SPACE - space..].iter().map(|a| a.output));
    if !is_batch {
        sizes.remove(0);
    }
    call.one(sizes, Data::Float(made))
}

/// The elements that one output element sees: channel by channel, in the order of the kernel.
fn gather(x: &[f64], sizes: &[usize], axes: &[Axis], position: usize, patch: &mut [f64]) {
    let [depth, height, width] = axes else {
        return;
    };
    let across = position % width.output;
    let down = position / width.output % height.output;
    let deep = position / width.output / height.output;
    let (rows_of, columns_of, plane) = (height.at(down), width.at(across), sizes[1] * sizes[2]);
    let mut slots = patch.iter_mut();
    for channel in x.chunks_exact((sizes[0] * plane).max(1)) {
        for z in depth.at(deep) {
            for y in rows_of {
                let start = z.zip(*y).map(|(z, y)| z * plane + y * sizes[2]);
                for (x, slot) in columns_of.iter().zip(&mut slots) {
                    *slot = start.zip(*x).map_or(0.0, |(start, x)| channel[start + x]);
                }
            }
        }
    }
}

fn plain(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let space = call.tensor(1)?.rank().saturating_sub(2);
    let geometry = Geometry {
        stride: call.ints_of(3, space, &[1; SPACE])?,
        padding: call.ints_of(4, space, &[0; SPACE])?,
        dilation: call.ints_of(5, space, &[1; SPACE])?,
        transposed: false,
        output_padding: Vec::new(),
        groups: call.natural(6)?,
    };
    convolve(call, &geometry)
}

fn transposed(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let space = call.tensor(1)?.rank().saturating_sub(2);
    let geometry = Geometry {
        stride: call.ints_of(3, space, &[1; SPACE])?,
        padding: call.ints_of(4, space, &[0; SPACE])?,
        output_padding: call.ints_of(5, space, &[0; SPACE])?,
        groups: call.natural(6)?,
        dilation: call.ints_of(7, space, &[1; SPACE])?,
        transposed: true,
    };
    convolve(call, &geometry)
}

fn convolution(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let space = call.tensor(1)?.rank().saturating_sub(2);
    let geometry = Geometry {
        stride: call.ints_of(3, space, &[1; SPACE])?,
        padding: call.ints_of(4, space, &[0; SPACE])?,
        dilation: call.ints_of(5, space, &[1; SPACE])?,
        transposed: call.bool(6)?,
        output_padding: call.ints_of(7, space, &[0; SPACE])?,
        groups: call.natural(8)?,
    };
    convolve(call, &geometry)
}

fn check(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match (rank(node, 0), rank(node, 1)) {
        (Some(x), Some(w @ 3..=5)) if x == w || x + 1 == w => Ok(()),
        (x, w) => Err(Refusal::rank(format!(
            "a convolution of an input of rank {} with weights of rank {}",
            x.unwrap_or(0),
            w.unwrap_or(0)
        ))),
    }
}

const PLAIN: &str = "Tensor Tensor Tensor? int[] int[] int[] int";
const TRANSPOSED: &str = "Tensor Tensor Tensor? int[] int[] int[] int int[]";

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::conv1d", PLAIN, check, plain),
    op("aten::conv2d", PLAIN, check, plain),
    op("aten::conv3d", PLAIN, check, plain),
    op("aten::conv_transpose1d", TRANSPOSED, check, transposed),
    op("aten::conv_transpose2d.input", TRANSPOSED, check, transposed),
    op("aten::conv_transpose3d.input", TRANSPOSED, check, transposed),
    op(
        "aten::convolution",
        "Tensor Tensor Tensor? int[] int[] int[] bool int[] int",
        check,
        convolution,
    ),
];

#[cfg(test)]
mod tests {
    use crate::testing::{Item, f32s, gives, refusal, try_run};
    use delegraph_sdk::Reason;
    use delegraph_sdk::image::Arg;

    fn ints(items: &[i64]) -> Item {
        items.into()
    }

    #[test]
    fn a_kernel_of_two_over_a_line() {
        let (x, w, b) = (
            f32s(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]),
            f32s(&[1, 1, 2], &[1.0, 10.0]),
            f32s(&[1], &[0.5]),
        );
        let items = |stride, padding, dilation| {
            let lists = [ints(&[stride]), ints(&[padding]), ints(&[dilation]), Arg::Int(1).into()];
            [(&x).into(), (&w).into(), (&b).into()]
                .into_iter()
                .chain(lists)
                .collect::<Vec<Item>>()
        };
        gives(
            "aten::conv1d",
            &items(1, 0, 1),
            &[f32s(&[1, 1, 3], &[21.5, 32.5, 43.5])],
        );
        gives("aten::conv1d", &items(2, 1, 1), &[f32s(&[1, 1, 3], &[10.5, 32.5, 4.5])]);
        gives("aten::conv1d", &items(1, 0, 2), &[f32s(&[1, 1, 2], &[31.5, 42.5])]);
        assert!(try_run("aten::conv1d", &items(1, 0, 9), std::slice::from_ref(&x)).is_err());
        assert!(try_run("aten::conv1d", &items(0, 0, 1), std::slice::from_ref(&x)).is_err());
    }

    #[test]
    fn transposed_adds_where_kernels_overlap() {
        let (x, w) = (f32s(&[1, 1, 2], &[1.0, 2.0]), f32s(&[1, 1, 3], &[1.0, 10.0, 100.0]));
        let items = [
            (&x).into(),
            (&w).into(),
            Arg::None.into(),
            ints(&[2]),
            ints(&[0]),
            ints(&[1]),
            Arg::Int(1).into(),
            ints(&[1]),
        ];
        gives(
            "aten::conv_transpose1d",
            &items,
            &[f32s(&[1, 1, 6], &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0])],
        );
    }

    #[test]
    fn four_spatial_dimensions_are_refused() {
        let x = f32s(&[1, 1, 1, 1, 1, 1], &[1.0]);
        let lists = [ints(&[1]), ints(&[0]), ints(&[1]), Arg::Int(1).into()];
        let items: Vec<Item> = [(&x).into(), (&x).into(), Arg::None.into()]
            .into_iter()
            .chain(lists)
            .collect();
        assert_eq!(refusal("aten::conv3d", &items, &[x]).reason, Reason::RANK);
    }
}
