//! Convolutions, pools and pads that read one of their attributes wrongly.

use crate::is;
use crate::numbers::Scene;
use delegraph_reference::tensor::Tensor;
use delegraph_sdk::image::NodeView;

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
