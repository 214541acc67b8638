//! Pooling over windows of one, two and three dimensions.

use crate::call::Call;
use crate::caps::{Operator, Refusal, floats, no_bool, op, rank};
use crate::tensor::{Data, Tensor, count, room};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

type Made = Result<Vec<Tensor>, Error>;

/// Along one dimension, a window.
struct Window {
    /// Its elements.
    inside: Vec<usize>,
    /// Its size with padding, but not beyond it.
    padded: usize,
}

/// A tensor's last dimensions as windows, one list a dimension.
struct Windows<'a> {
    x: &'a Tensor,
    space: usize,
    axes: Vec<Vec<Window>>,
}

impl Windows<'_> {
    /// For each output element, in order: the plane's start, the positions in the plane, and the padded size.
    fn each(&self, mut f: impl FnMut(usize, &[usize], usize)) {
        let sizes = &self.x.sizes()[self.x.rank() - self.space..];
        let plane: usize = sizes.iter().product();
        if plane == 0 {
            return;
        }
        let total: usize = self.axes.iter().map(Vec::len).product();
        for start in (0..self.x.len()).step_by(plane) {
            for output in 0..total {
                let (mut rest, mut padded) = (output, 1);
                let mut windows = Vec::new();
                for axis in self.axes.iter().rev() {
                    windows.push(&axis[rest % axis.len()]);
                    padded *= axis[rest % axis.len()].padded;
                    rest /= axis.len();
                }
                let mut positions = vec![0];
                for (window, size) in windows.iter().rev().zip(sizes) {
                    let along = |p: usize| window.inside.iter().map(move |i| p * size + i);
                    positions = positions.into_iter().flat_map(along).collect();
                }
                f(start, &positions, padded);
            }
        }
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.x.sizes()[..self.x.rank() - self.space].to_vec();
        sizes.extend(self.axes.iter().map(Vec::len));
        sizes
    }
}

/// Windows of a fixed kernel, from the arguments `(kernel, stride, padding, dilation, ceil_mode)`.
fn fixed<'a>(call: &Call<'a>, space: usize, dilated: bool, ceil: usize) -> Result<Windows<'a>, Error> {
    let x = call.tensor(0)?;
    let kernel = call.ints_of(1, space, &[])?;
    let stride = call.ints_of(2, space, &kernel)?;
    let padding = call.ints_of(3, space, &[0; 3])?;
    let dilation = if dilated {
        call.ints_of(4, space, &[1; 3])?
    } else {
        vec![1; space]
    };
    let ceil = call.bool(ceil)?;
    let start = x
        .rank()
        .checked_sub(space)
        .ok_or_else(|| Error::invalid("too few dimensions"))?;
    let mut axes = Vec::new();
    for (d, size) in x.sizes()[start..].iter().enumerate() {
        let number = |list: &[i64]| list.get(d).copied().filter(|n| *n < 1 << 31);
        let given = (number(&kernel), number(&stride), number(&padding), number(&dilation));
        let (Some(kernel @ 1..), Some(stride @ 1..), Some(padding @ 0..), Some(dilation @ 1..)) = given else {
            return Err(Error::invalid("kernel, stride and dilation are positive numbers"));
        };
        axes.push(axis(*size as i64, kernel, stride, padding, dilation, ceil)?);
    }
    Ok(Windows { x, space, axes })
}

fn axis(size: i64, kernel: i64, stride: i64, padding: i64, dilation: i64, ceil: bool) -> Result<Vec<Window>, Error> {
    let room = size + 2 * padding - dilation * (kernel - 1) - 1;
    if room < 0 || 2 * padding > dilation * (kernel - 1) + 1 {
        return Err(Error::invalid("the kernel does not fit the input"));
    }
    let mut windows = room / stride + 1;
    // One more window if a part is left over, but none that begins in the padding behind.
    if ceil && room % stride != 0 && windows * stride < size + padding {
        windows += 1;
    }
    let window = |i: i64| {
        let start = i * stride - padding;
        let inside = (0..kernel)
            .map(|k| start + k * dilation)
            .filter(|at| (0..size).contains(at));
        Window {
            inside: inside.map(|at| at as usize).collect(),
            padded: ((start + kernel).min(size + padding) - start) as usize,
        }
    };
    let mut all = room_for(windows)?;
    all.extend((0..windows).map(window));
    Ok(all)
}

fn room_for(windows: i64) -> Result<Vec<Window>, Error> {
    room(windows as usize)
}

/// Windows that divide each dimension into as many parts as the output has.
fn adaptive<'a>(call: &Call<'a>, space: usize) -> Result<Windows<'a>, Error> {
    let x = call.tensor(0)?;
    let start = x
        .rank()
        .checked_sub(space)
        .ok_or_else(|| Error::invalid("too few dimensions"))?;
    let out = call.out_sizes(0)?;
    let mut axes = Vec::new();
    for (size, parts) in x.sizes()[start..].iter().zip(out.iter().skip(start)) {
        let mut all = room(*parts)?;
        for i in 0..*parts {
            let (from, to) = (i * size / parts, ((i + 1) * size).div_ceil(*parts));
            all.push(Window {
                inside: (from..to).collect(),
                padded: to - from,
            });
        }
        axes.push(all);
    }
    Ok(Windows { x, space, axes })
}

/// The largest element of each window, and where it is in its plane, if that is asked for.
fn max_pool(call: &Call<'_>, windows: &Windows<'_>) -> Made {
    let sizes = windows.sizes();
    let mut positions = room(count(&sizes)?)?;
    let (mut floats, mut ints) = (Vec::new(), Vec::new());
    // The first of equals wins, and NaN over all.
    fn best<T: Copy + PartialOrd>(values: &[T], start: usize, window: &[usize]) -> Option<(usize, T)> {
        let line: Vec<T> = window.iter().filter_map(|p| values.get(start + p).copied()).collect();
        let at = super::reduce::arg_extreme(&line, true);
        Some((*window.get(at)?, *line.get(at)?))
    }
    windows.each(|start, window, _| match windows.x.data() {
        Data::Float(values) => {
            if let Some((position, value)) = best(values, start, window) {
                positions.push(position as i64);
                floats.push(value);
            }
        }
        Data::Int(values) => {
            if let Some((position, value)) = best(values, start, window) {
                positions.push(position as i64);
                ints.push(value);
            }
        }
    });
    let is_float = windows.x.dtype().is_float();
    let data = if is_float { Data::Float(floats) } else { Data::Int(ints) };
    let mut made = call.one(sizes.clone(), data)?;
    if call.outputs() == 2 {
        made.push(call.make(1, sizes, Data::Int(positions))?);
    }
    Ok(made)
}

/// The mean of each window, by the divisor that `divide` tells from (elements, padded size).
fn average(call: &Call<'_>, windows: &Windows<'_>, divide: impl Fn(usize, usize) -> f64) -> Made {
    let values = windows.x.floats()?;
    let mut made = room(count(&windows.sizes())?)?;
    windows.each(|start, window, padded| {
        let sum: f64 = window.iter().filter_map(|p| values.get(start + p)).sum();
        made.push(sum / divide(window.len(), padded));
    });
    call.one(windows.sizes(), Data::Float(made))
}

fn average_fixed(call: &Call<'_>, space: usize) -> Made {
    let windows = fixed(call, space, false, 4)?;
    let divisor = call.optional_scalar(6)?.map(|d| d.float());
    let with_padding = call.bool(5)?;
    average(call, &windows, |elements, padded| {
        divisor.unwrap_or(if with_padding { padded } else { elements } as f64)
    })
}

fn average_adaptive(call: &Call<'_>, space: usize) -> Made {
    average(call, &adaptive(call, space)?, |elements, _| elements as f64)
}

fn check_rank(node: &NodeView<'_>, space: usize) -> Result<(), Refusal> {
    match rank(node, 0) {
        Some(rank) if rank == space + 1 || rank == space + 2 => Ok(()),
        rank => Err(Refusal::rank(format!(
            "pooling of {space} dimensions of a tensor of rank {}",
            rank.unwrap_or(0)
        ))),
    }
}

fn check<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    no_bool(node)?;
    check_rank(node, SPACE)
}

fn check_floats<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    check_rank(node, SPACE)
}

const MAX: &str = "Tensor int[] int[] int[] int[] bool";
const AVERAGE: &str = "Tensor int[] int[] int[] bool bool int?";

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::max_pool1d", MAX, check::<1>, |c| {
        max_pool(c, &fixed(c, 1, true, 5)?)
    }),
    op("aten::max_pool2d", MAX, check::<2>, |c| {
        max_pool(c, &fixed(c, 2, true, 5)?)
    }),
    op("aten::max_pool3d", MAX, check::<3>, |c| {
        max_pool(c, &fixed(c, 3, true, 5)?)
    }),
    op("aten::max_pool2d_with_indices", MAX, check::<2>, |c| {
        max_pool(c, &fixed(c, 2, true, 5)?)
    }),
    op("aten::max_pool3d_with_indices", MAX, check::<3>, |c| {
        max_pool(c, &fixed(c, 3, true, 5)?)
    }),
    op("aten::adaptive_max_pool2d", "Tensor int[]", check::<2>, |c| {
        max_pool(c, &adaptive(c, 2)?)
    }),
    op(
        "aten::avg_pool1d",
        "Tensor int[] int[] int[] bool bool",
        check_floats::<1>,
        |c| average_fixed(c, 1),
    ),
    op("aten::avg_pool2d", AVERAGE, check_floats::<2>, |c| average_fixed(c, 2)),
    op("aten::avg_pool3d", AVERAGE, check_floats::<3>, |c| average_fixed(c, 3)),
    op("aten::adaptive_avg_pool1d", "Tensor int[]", check_floats::<1>, |c| {
        average_adaptive(c, 1)
    }),
    op("aten::adaptive_avg_pool2d", "Tensor int[]", check_floats::<2>, |c| {
        average_adaptive(c, 2)
    }),
    op("aten::_adaptive_avg_pool2d", "Tensor int[]", check_floats::<2>, |c| {
        average_adaptive(c, 2)
    }),
    op("aten::_adaptive_avg_pool3d", "Tensor int[]", check_floats::<3>, |c| {
        average_adaptive(c, 3)
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn windows() {
        let x = f32s(&[1, 1, 5], &[1.0, 4.0, 2.0, 3.0, 5.0]);
        let items = |ceil| {
            let lists = [[2][..].into(), [2][..].into(), [0][..].into(), [1][..].into()];
            let head = [(&x).into()].into_iter().chain(lists);
            head.chain([Arg::Bool(ceil).into()]).collect::<Vec<_>>()
        };
        gives("aten::max_pool1d", &items(false), &[f32s(&[1, 1, 2], &[4.0, 3.0])]);
        gives("aten::max_pool1d", &items(true), &[f32s(&[1, 1, 3], &[4.0, 3.0, 5.0])]);
        let two = [(&x).into(), [2][..].into()];
        gives(
            "aten::adaptive_avg_pool1d",
            &two,
            &[f32s(&[1, 1, 2], &[7.0 / 3.0, 10.0 / 3.0])],
        );
        let x = f32s(&[1, 2, 2], &[1.0, 2.0, 2.0, 0.0]);
        let all = [(&x).into(), [1, 1][..].into()];
        let wants = [f32s(&[1, 1, 1], &[2.0]), i64s(&[1, 1, 1], &[1])];
        gives("aten::adaptive_max_pool2d", &all, &wants);
    }
}
