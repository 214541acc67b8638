//! Where images lie, row-major or channels last, chosen over the whole graph before it is lowered.
//!
//! Convolutions, pools and their like make images channels last and read them so; products, reshapes and the region's border have them row-major.
//! Elementwise nodes read either and may write either; what is joined lies as its parts. Each value has one home, the layout that it is made in, and
//! is moved once for all readers that need the other. The choice begins with homes that follow what is read, and gives one after another to the
//! other layout where that moves fewer bytes, until none is left: so it never moves more than the first choice does.

use crate::operators::elementwise;
use crate::operators::movement::views;
use crate::tensor::Layout;
use delegraph_sdk::DType;
use delegraph_sdk::image::{ImageView, NodeIndex, NodeView, Sizes, Source, ValueIndex};

/// Bytes that a dispatch and the barrier before it are worth.
const DISPATCH: u64 = 1 << 16;
/// Most rounds over the graph; few are needed.
const ROUNDS: usize = 8;
/// An image that more units read stays out of the choice: each of them would look at all others.
const MOST_READERS: usize = 64;

/// What a group of nodes does with the layouts of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reads and writes this one.
    Fixed(Layout),
    /// Reads any and writes row-major.
    Reads,
    /// Reads any and writes any; what it reads of its own size is best read as it is written.
    Free,
    /// Reads and writes one, whichever.
    Same,
}

struct Unit {
    kind: Kind,
    /// The image that it makes; its home is the unit's.
    result: Option<usize>,
    /// Images of the result's sizes that it reads, for [`Kind::Fixed`] all that have to lie so.
    reads: Vec<usize>,
    home: Layout,
}

/// What an image is, and who reads it.
#[derive(Default)]
struct Image {
    /// Bytes that a transfer moves; 0: nothing is moved, or it is no image.
    bytes: u64,
    maker: Option<usize>,
    readers: Vec<usize>,
    /// It leaves the region.
    leaves: bool,
}

/// Homes of values, by index; `None`: not chosen here.
pub(super) fn homes(image: &ImageView<'_>, groups: &[Option<&[u32]>], sizes: &Sizes) -> Vec<Option<Layout>> {
    let mut images: Vec<Image> = (0..image.value_count())
        .map(|at| of_value(image, ValueIndex(at), sizes))
        .collect();
    for value in image.outputs().iter() {
        images[value.0 as usize].leaves = true;
    }
    let mut units = Vec::new();
    for index in 0..image.node_count() {
        let alone = [index];
        let group = groups.get(index as usize).copied().flatten().unwrap_or(&alone);
        if group.last() == Some(&index) {
            units.push(unit(image, group, sizes, &images));
        }
    }
    for (at, unit) in units.iter().enumerate() {
        for read in &unit.reads {
            images[*read].readers.push(at);
        }
        if let Some(result) = unit.result {
            images[result].maker = Some(at);
        }
    }
    for image in images.iter_mut().filter(|image| image.readers.len() > MOST_READERS) {
        image.bytes = 0;
        image.readers.clear();
    }
    let graph = Graph { images };
    graph.follow(&mut units);
    graph.improve(&mut units);
    let mut homes = vec![None; graph.images.len()];
    for unit in &units {
        if let (Some(result), Kind::Free | Kind::Same) = (unit.result, unit.kind) {
            homes[result] = Some(unit.home);
        }
    }
    homes
}

fn of_value(image: &ImageView<'_>, value: ValueIndex, sizes: &Sizes) -> Image {
    let known = || -> Option<u64> {
        let dtype = image.value(value).dtype()?;
        let [n, c, h, w] = sizes.dims(image, value)?[..] else {
            return None;
        };
        let constant = matches!(image.value(value).source(), Source::Weight(_));
        let count = n.checked_mul(c)?.checked_mul(h)?.checked_mul(w)?;
        let moves = !constant && h * w != 1 && count > 0;
        let bytes = u64::try_from(count).ok()? * dtype.size()? as u64;
        moves.then_some(2 * bytes + DISPATCH)
    };
    Image {
        bytes: known().unwrap_or(0),
        ..Image::default()
    }
}

/// The name without its namespace and overload.
fn name<'a>(node: &NodeView<'a>) -> &'a str {
    let op = node.op().split_once("::").map_or("", |(_, name)| name);
    op.split('.').next().unwrap_or(op)
}

fn kind(
    image: &ImageView<'_>,
    root: &NodeView<'_>,
    result: Option<ValueIndex>,
    is_image: bool,
    images: &[Image],
) -> Kind {
    let is_float = result
        .and_then(|value| image.value(value).dtype())
        .is_some_and(DType::is_float);
    let name = name(root);
    match name {
        _ if elementwise::has(root.op()) => match is_image && is_float {
            true => Kind::Free,
            false => Kind::Reads,
        },
        _ if name.starts_with("conv") && is_image => Kind::Fixed(Layout::Nhwc4),
        _ if name.contains("pool2d") && is_image => Kind::Fixed(Layout::Nhwc4),
        _ if name.contains("upsample") && name.contains("2d") && is_image => Kind::Fixed(Layout::Nhwc4),
        "cat"
        | "concat"
        | "concatenate"
        | "batch_norm"
        | "native_batch_norm"
        | "_native_batch_norm_legit_no_training"
        | "group_norm"
        | "native_group_norm"
        | "instance_norm"
        | "constant_pad_nd"
        | "pad"
        | "reflection_pad2d"
        | "replication_pad2d"
        | "slice"
        | "split"
        | "split_with_sizes"
        | "chunk"
        | "contiguous"
        | "alias"
            if is_image =>
        {
            Kind::Same
        }
        // These look at a tensor wherever it lies, and what they make is not held to be an image.
        "sum" | "mean" | "amax" | "amin" | "max" | "min" | "argmax" | "argmin" | "var" | "std" | "var_mean"
        | "prod" | "permute" | "transpose" | "select" | "expand" | "flip" | "roll" | "repeat" | "pixel_shuffle"
        | "pixel_unshuffle" | "channel_shuffle" | "unbind" | "index_select" | "gather" | "index" => Kind::Reads,
        _ if views::joins_dimensions(root.op()) && only_turned(image, result, images) => Kind::Reads,
        _ => Kind::Fixed(Layout::RowMajor),
    }
}

/// True if all readers of a value only turn it over: they look behind how its dimensions were joined.
fn only_turned(image: &ImageView<'_>, result: Option<ValueIndex>, images: &[Image]) -> bool {
    let Some(result) = result else { return false };
    let leaves = images[result.0 as usize].leaves;
    // A reader stands soon after what it reads.
    let Source::Node(maker) = image.value(result).source() else {
        return false;
    };
    let behind = (maker.0 + 1..image.node_count().min(maker.0 + 9)).map(|at| image.node(NodeIndex(at)));
    let mut readers = behind
        .filter(|node| node.inputs().any(|value| value == result))
        .peekable();
    !leaves && readers.peek().is_some() && readers.all(|node| matches!(name(&node), "permute" | "transpose"))
}

fn unit(image: &ImageView<'_>, group: &[u32], sizes: &Sizes, images: &[Image]) -> Unit {
    let nodes = || group.iter().map(|index| image.node(NodeIndex(*index)));
    let root = image.node(NodeIndex(group.first().copied().unwrap_or(0)));
    let last = image.node(NodeIndex(group.last().copied().unwrap_or(0)));
    let result = last.outputs().get(0);
    let dims = result.and_then(|value| sizes.dims(image, value));
    let is_image = dims.as_ref().is_some_and(|dims| dims.len() == 4);
    let kind = kind(image, &root, result, is_image, images);
    let made: Vec<ValueIndex> = nodes().flat_map(|node| node.outputs().iter()).collect();
    let mut reads = Vec::new();
    for value in nodes().flat_map(|node| node.inputs()) {
        let at = value.0 as usize;
        let same = || sizes.dims(image, value) == dims;
        let counts = match kind {
            Kind::Fixed(_) => true,
            Kind::Free => same(),
            // What is joined or normalized, and no weights.
            Kind::Same => true,
            Kind::Reads => false,
        };
        if counts && images[at].bytes > 0 && !made.contains(&value) && !reads.contains(&at) {
            reads.push(at);
        }
    }
    Unit {
        kind,
        result: result.filter(|_| is_image).map(|value| value.0 as usize),
        reads,
        home: match kind {
            Kind::Fixed(layout) => layout,
            _ => Layout::RowMajor,
        },
    }
}

struct Graph {
    images: Vec<Image>,
}

impl Graph {
    fn home(&self, units: &[Unit], image: usize) -> Layout {
        self.images[image]
            .maker
            .map_or(Layout::RowMajor, |maker| units[maker].home)
    }

    /// Homes by what is read: what the lowering did by itself.
    fn follow(&self, units: &mut [Unit]) {
        for at in 0..units.len() {
            let last = units[at]
                .reads
                .iter()
                .filter(|read| self.home(units, **read) == Layout::Nhwc4)
                .count();
            let all = units[at].reads.len();
            units[at].home = match units[at].kind {
                Kind::Free if last > 0 => Layout::Nhwc4,
                Kind::Same if 2 * last >= all.max(1) => Layout::Nhwc4,
                Kind::Free | Kind::Same | Kind::Reads => Layout::RowMajor,
                Kind::Fixed(layout) => layout,
            };
        }
    }

    /// What it costs to have an image read as its readers want it.
    fn cost(&self, units: &[Unit], image: usize) -> u64 {
        let home = self.home(units, image);
        let of = &self.images[image];
        let mut moved = of.leaves && home != Layout::RowMajor;
        let mut mixed = 0;
        for reader in of
            .readers
            .iter()
            .map(|reader| &units[*reader])
            .filter(|reader| reader.home != home)
        {
            match reader.kind {
                Kind::Fixed(_) | Kind::Same => moved = true,
                // Neighbours in memory are not neighbours in the kernel.
                Kind::Free => mixed += of.bytes / 4,
                Kind::Reads => {}
            }
        }
        mixed + if moved { of.bytes } else { 0 }
    }

    /// What a unit's home decides on.
    fn around(&self, units: &[Unit], at: usize) -> u64 {
        let images = units[at].reads.iter().chain(&units[at].result);
        images.map(|image| self.cost(units, *image)).sum()
    }

    fn improve(&self, units: &mut [Unit]) {
        for round in 0..ROUNDS {
            let mut changed = false;
            for step in 0..units.len() {
                // Backwards first: what reads an image decides.
                let at = if round % 2 == 0 { units.len() - 1 - step } else { step };
                if !matches!(units[at].kind, Kind::Free | Kind::Same) {
                    continue;
                }
                let before = self.around(units, at);
                let home = units[at].home;
                units[at].home = match home {
                    Layout::RowMajor => Layout::Nhwc4,
                    Layout::Nhwc4 => Layout::RowMajor,
                };
                match self.around(units, at) < before {
                    true => changed = true,
                    false => units[at].home = home,
                }
            }
            if !changed {
                break;
            }
        }
    }
}

#[cfg(test)]
#[path = "homes_tests.rs"]
mod tests;
