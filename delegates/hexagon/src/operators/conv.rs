//! Convolutions of one, two and three dimensions, plain and transposed, with groups.
//!
//! | convolution | QNN |
//! | --- | --- |
//! | one or two dimensions | `Conv2d`; a line is a plane of a height of 1 |
//! | a channel a group | `DepthWiseConv2d` |
//! | transposed, of one or two dimensions | `TransposeConv2d`; a dilated kernel has zeros between its elements |
//! | three dimensions | `Conv3d` |

use super::images;
use super::weight::{self, Form};
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::Param;
use crate::node::Node;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::conv1d"),
    row("aten::conv2d"),
    row("aten::conv3d"),
    row("aten::conv1d.padding"),
    row("aten::conv2d.padding"),
    row("aten::conv3d.padding"),
    row("aten::conv_transpose1d"),
    row("aten::conv_transpose2d.input"),
    row("aten::convolution"),
];

const fn row(name: &'static str) -> Operator {
    Operator { name, lower }
}

/// What a convolution is besides its tensors, along its dimensions of space.
#[derive(Debug, PartialEq)]
struct Geometry {
    stride: Vec<u32>,
    /// Before and after.
    padding: Vec<[u32; 2]>,
    dilation: Vec<u32>,
    /// Added to the size of a transposed one's output.
    extra: Vec<u32>,
    groups: u32,
    transposed: bool,
}

impl Geometry {
    fn of(node: &Node<'_>, kernel: &[u32]) -> Result<Geometry, Refusal> {
        let space = kernel.len();
        let transposed = match node.op() {
            "aten::convolution" => node.bool(6)?,
            op => op.starts_with("aten::conv_transpose"),
        };
        let (dilation, extra, groups) = match node.op() {
            "aten::convolution" => (node.ints(5)?, node.ints(7)?, node.int(8)?),
            _ if transposed => (node.ints(7)?, node.ints(5)?, node.int(6)?),
            _ => (node.ints(5)?, Vec::new(), node.int(6)?),
        };
        let dilation = images::each(&dilation, &[1], space)?;
        let same = |d: usize| -> Result<[u32; 2], Refusal> {
            let total = dilation[d].checked_mul(kernel[d] - 1).ok_or_else(too_large)?;
            Ok([total / 2, total - total / 2])
        };
        let padding = match node.op().ends_with(".padding") {
            true if node.str(4)? == "same" => (0..space).map(same).collect::<Result<_, _>>()?,
            true => vec![[0, 0]; space],
            false => {
                let padding = images::each(&node.ints(4)?, &[0], space)?;
                padding.into_iter().map(|p| [p, p]).collect()
            }
        };
        Ok(Geometry {
            stride: images::each(&node.ints(3)?, &[1], space)?,
            padding,
            dilation,
            extra: match transposed {
                true => images::each(&extra, &[0], space)?,
                false => vec![0; space],
            },
            groups: u32::try_from(groups)
                .ok()
                .filter(|g| *g > 0)
                .ok_or_else(|| Refusal::attribute(format!("{groups} groups")))?,
            transposed,
        })
    }

    /// With dimensions in front that change nothing.
    fn widened(self, wanted: usize) -> Geometry {
        let mut padding = vec![[0, 0]; wanted - self.padding.len()];
        padding.extend(self.padding);
        Geometry {
            stride: images::filled(&self.stride, 1, wanted),
            padding,
            dilation: images::filled(&self.dilation, 1, wanted),
            extra: images::filled(&self.extra, 0, wanted),
            ..self
        }
    }

    fn pad_amount(&self) -> Param {
        let flat = self.padding.iter().flatten().copied().collect();
        Param::U32s(vec![self.padding.len() as u32, 2], flat)
    }
}

fn too_large() -> Refusal {
    Refusal::shape("a kernel that is larger than any image")
}

/// Most elements of a kernel that zeros are put into.
const MOST_SPREAD: u64 = 1 << 24;

fn lower(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, w, out) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let weight_dims = b.logical_dims(w)?;
    let [first, second, kernel @ ..] = &weight_dims[..] else {
        return Err(Refusal::shape(format!("a kernel of {weight_dims:?}")));
    };
    let space = kernel.len();
    if !(1..=3).contains(&space) {
        return Err(Refusal::shape(format!("a convolution of {space} dimensions")));
    }
    let wanted = space.max(2);
    let g = Geometry::of(node, kernel)?.widened(wanted);
    if space == 3 && (g.transposed || g.groups > 1) {
        return Err(Refusal::attribute(
            "a convolution of three dimensions that is transposed or has groups",
        ));
    }
    images::one_type(b, &[x, out])?;
    let input = images::input(b, x, space, wanted)?;
    let channels = b.tensor(input).dims[wanted + 1];
    let all = second.checked_mul(g.groups).ok_or_else(too_large)?;
    let (inputs, outputs) = match g.transposed {
        true => (*first, all),
        false => (all, *first),
    };
    if inputs != channels || !channels.is_multiple_of(g.groups) || outputs % g.groups != 0 {
        return Err(Refusal::shape(format!(
            "{channels} channels do not fit a kernel of {weight_dims:?} in {} groups",
            g.groups
        )));
    }
    let depthwise = !g.transposed && g.groups > 1 && g.groups == channels && wanted == 2;
    let mut dims = vec![*first, *second];
    dims.extend(images::filled(kernel, 1, wanted));
    let order: &[u32] = match (wanted, g.transposed) {
        (3, _) => &[2, 3, 4, 1, 0],
        // A transposed kernel has its inputs first.
        (_, true) => &[2, 3, 0, 1],
        (_, false) => &[2, 3, 1, 0],
    };
    let mut spread = Vec::new();
    if g.transposed {
        let dilated = g.dilation.iter().enumerate().filter(|(_, d)| **d > 1);
        spread.extend(dilated.map(|(d, apart)| (2 + d, *apart)));
        let all = spread
            .iter()
            .fold(dims.iter().map(|d| u64::from(*d)).product(), |all: u64, (_, apart)| {
                all.saturating_mul(u64::from(*apart))
            });
        if !spread.is_empty() && all > MOST_SPREAD {
            return Err(too_large());
        }
    }
    let form = Form {
        dims,
        order,
        channel: usize::from(g.transposed),
        spread,
        narrow: !g.transposed && !depthwise && wanted == 2 && g.groups == 1,
    };
    let weight = weight::weight(b, w, input, &form)?;
    weight::is_fine(b, input, &weight, out)?;
    let bias = weight::bias(b, node.optional_value(2)?, outputs, input, &weight)?;
    let mut inputs = vec![input, weight.id];
    inputs.extend(bias);

    let mut params = vec![("stride", Param::list(&g.stride)), ("pad_amount", g.pad_amount())];
    let op = match (wanted, g.transposed) {
        (3, _) => "Conv3d",
        (_, true) => "TransposeConv2d",
        (_, false) if depthwise => "DepthWiseConv2d",
        _ => "Conv2d",
    };
    if g.transposed {
        params.push(("output_padding", Param::list(&g.extra)));
    } else {
        params.push(("dilation", Param::list(&g.dilation)));
    }
    if g.groups > 1 && !depthwise {
        params.push(("group", Param::U32(g.groups)));
    }
    images::output(b, out, space, wanted, |b, y| {
        b.op(op, params, &inputs, &[y]);
        Ok(())
    })
}
