//! Convolutions, pools and pads that read one of their attributes wrongly.

use crate::is;
use crate::numbers::Scene;
use delegraph_reference::tensor::Tensor;
use delegraph_sdk::Error;
use delegraph_sdk::image::{ImageView, NodeView};

/// Two numbers of an attribute: one stands for both.
fn pair(node: &NodeView<'_>, argument: usize) -> Option<[usize; 2]> {
    let list = node.arg(argument).ints()?;
    let at = |i: usize| list.get(i).or(list.first()).map(|value| *value as usize);
    Some([at(0)?, at(1)?])
}

/// A convolution over two dimensions with dilation 1, or with the first group's channels for all.
pub fn convolution(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let at = match node.op() {
        "aten::convolution" if node.arg(6).bool() == Some(true) => return None,
        "aten::convolution" => 8,
        _ => 6,
    };
    let groups = node.arg(at).int()? as usize;
    let (stride, padding) = (pair(node, 3)?, pair(node, 4)?);
    let dilation = match is("ignores-dilation") {
        true => [1, 1],
        false => pair(node, 5)?,
    };
    let (x, w) = (scene.tensor(node, 0)?, scene.tensor(node, 1)?);
    let (&[images, channels, height, width], &[outs, within, rows, columns]) = (x.sizes(), w.sizes()) else {
        return None;
    };
    let &[_, _, out_height, out_width] = made.sizes() else {
        return None;
    };
    if scene_is_last(node) || groups == 0 {
        return None;
    }
    let bias = match node.arg(2).is_none() {
        true => vec![0.0; outs],
        false => scene.tensor(node, 2)?.to_floats(),
    };
    let (x, w) = (x.to_floats(), w.to_floats());
    let mut all = Vec::with_capacity(made.len());
    for image in 0..images {
        for out in 0..outs {
            let group = if is("ignores-groups") {
                0
            } else {
                out / (outs / groups).max(1)
            };
            for (i, j) in (0..out_height).flat_map(|i| (0..out_width).map(move |j| (i, j))) {
                let mut sum = bias[out];
                for c in 0..within {
                    for (r, s) in (0..rows).flat_map(|r| (0..columns).map(move |s| (r, s))) {
                        let row = (i * stride[0] + r * dilation[0]).checked_sub(padding[0]);
                        let column = (j * stride[1] + s * dilation[1]).checked_sub(padding[1]);
                        let (Some(row), Some(column)) = (row.filter(|r| *r < height), column.filter(|c| *c < width))
                        else {
                            continue;
                        };
                        let from = ((image * channels + group * within + c) * height + row) * width + column;
                        sum += x[from] * w[((out * within + c) * rows + r) * columns + s];
                    }
                }
                all.push(sum);
            }
        }
    }
    Some(all)
}

fn scene_is_last(node: &NodeView<'_>) -> bool {
    node.image().normal_form() == 1
}

/// A maximum that takes what lies outside for 0.
pub fn zero_padded_maximum(scene: &Scene<'_>, node: &NodeView<'_>, made: &Tensor) -> Option<Vec<f64>> {
    let x = scene.tensor(node, 0)?;
    let kernel = pair(node, 1)?;
    let stride = pair(node, 2).unwrap_or(kernel);
    let (padding, dilation) = (pair(node, 3)?, pair(node, 4)?);
    let (from, to) = (x.sizes(), made.sizes());
    if from.len() < 2 || scene_is_last(node) {
        return None;
    }
    let outside = |at: usize, d: usize, size: usize| {
        let first = at * stride[d];
        first < padding[d] || first + (kernel[d] - 1) * dilation[d] >= size + padding[d]
    };
    let (height, width) = (from[from.len() - 2], from[from.len() - 1]);
    let (out_height, out_width) = (to[to.len() - 2], to[to.len() - 1]);
    let each = |(n, value): (usize, &f64)| {
        let (i, j) = (n / out_width % out_height, n % out_width);
        match outside(i, 0, height) || outside(j, 1, width) {
            true => value.max(0.0),
            false => *value,
        }
    };
    Some(made.floats().ok()?.iter().enumerate().map(each).collect())
}

/// Tensors of four dimensions with their channels first, where the graph has them last.
///
/// # Errors
/// A tensor that cannot be.
pub fn contiguous(view: &ImageView<'_>, made: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    let places = view.outputs();
    let spatial = |at: usize| {
        let maker = view.nodes().find(|node| node.outputs().get(0) == places.get(at));
        maker.is_some_and(|node| {
            node.op().contains("conv") || node.op().contains("pool") || node.op().contains("upsample")
        })
    };
    let each = |(at, tensor): (usize, Tensor)| match tensor.sizes() {
        &[images, height, width, channels] if spatial(at) => {
            let position = move |n: usize| {
                // Element `n` in the order of channels first, read from where it lies with them last.
                let (image, rest) = (n / (height * width * channels), n % (height * width * channels));
                let (channel, pixel) = (rest / (height * width), rest % (height * width));
                ((image * height * width + pixel) * channels + channel) as isize
            };
            tensor.pick(vec![images, height, width, channels], (0..tensor.len()).map(position))
        }
        _ => Ok(tensor),
    };
    made.into_iter().enumerate().map(each).collect()
}
