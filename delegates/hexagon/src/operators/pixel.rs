//! Channels that become pixels, pixels that become channels, and channels that change places.

use super::images;
use crate::builder::{Builder, Layout, axis};
use crate::caps::{Operator, Refusal};
use crate::graph::{Param, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::pixel_shuffle", |n, b| shuffle(n, b, "DepthToSpace")),
    row("aten::pixel_unshuffle", |n, b| shuffle(n, b, "SpaceToDepth")),
    row("aten::channel_shuffle", channels),
    row("aten::native_channel_shuffle", channels),
];

const fn row(name: &'static str, lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}

/// The value as planes `[N, H, W, C]`; dimensions before the channels are one batch.
fn planes(b: &mut Builder<'_>, value: ValueIndex) -> Result<TensorId, Refusal> {
    let dims = b.logical_dims(value)?;
    match dims[..] {
        [.., _, _, _] if dims.len() <= 4 => images::input(b, value, 2, 2),
        [n, m, c, h, w] => {
            let plain = b.read(value, Layout::RowMajor)?;
            let flat = b.reshaped(plain, &[n * m, c, h, w])?;
            Ok(b.transposed(flat, &crate::builder::order(4, Layout::ChannelsLast)))
        }
        _ => Err(Refusal::shape(format!("channels and pixels of {dims:?}"))),
    }
}

fn shuffle(node: &Node<'_>, b: &mut Builder<'_>, op: &'static str) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::same_numbers(b, x, out)?;
    let factor = u32::try_from(node.int(1)?).ok().filter(|f| *f > 0);
    let factor = factor.ok_or_else(|| Refusal::attribute("a factor that is not positive"))?;
    let input = planes(b, x)?;
    let params = vec![
        ("block_size", Param::list(&[factor, factor])),
        // Channels of one pixel lie one behind the other, as in PyTorch.
        ("mode", Param::U32(1)),
    ];
    let make = |b: &mut Builder<'_>, y: TensorId| {
        b.op(op, params, &[input], &[y]);
        Ok(())
    };
    let dims = b.logical_dims(out)?;
    match dims[..] {
        [n, m, c, h, w] => {
            let (data_type, quantization) = b.representation(out)?;
            let last = b.temporary(data_type, &[n * m, h, w, c], quantization);
            make(b, last)?;
            let turned = b.transposed(last, &crate::builder::order(4, Layout::RowMajor));
            let out = b.write(out, Layout::RowMajor)?;
            b.op("Reshape", Vec::new(), &[turned], &[out]);
            Ok(())
        }
        _ => images::output(b, out, 2, 2, make),
    }
}

fn channels(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::same_numbers(b, x, out)?;
    let dims = b.logical_dims(x)?;
    let groups = u32::try_from(node.int(1)?).unwrap_or(0);
    match dims.get(1) {
        Some(channels) if groups > 0 && channels.is_multiple_of(groups) && dims.len() >= 3 => {}
        _ => return Err(Refusal::shape(format!("{groups} groups of the channels of {dims:?}"))),
    }
    let rank = dims.len();
    let input = b.read(x, Layout::ChannelsLast)?;
    let params = vec![
        ("num_groups", Param::U32(groups)),
        ("axis", Param::U32(axis(1, rank, Layout::ChannelsLast))),
    ];
    let out = b.write(out, Layout::ChannelsLast)?;
    b.op("ChannelShuffle", params, &[input], &[out]);
    Ok(())
}
