//! Fusion: which nodes run as one dispatch.
//!
//! A group is a root (a product of matrices, a convolution, an elementwise node) and elementwise nodes behind it, each of which reads the
//! result of the one before and is its only reader. The group runs where its last node stands: whatever its nodes read is made by then, and
//! nothing else reads what they make in between. So no group is part of a cycle.

use crate::chain::{self, Chain, Link, MAX_TENSORS, Operand};
use delegraph_sdk::image::{ArgView, ImageView, NodeIndex, NodeView, Sizes, ValueIndex};
use delegraph_sdk::{DType, Error};

/// Operators whose kernels end with `finish()`.
const ROOTS: &[&str] = &[
    "aten::addmm",
    "aten::baddbmm",
    "aten::bmm",
    "aten::conv1d",
    "aten::conv2d",
    "aten::conv2d.padding",
    "aten::conv_transpose2d.input",
    "aten::convolution",
    "aten::linear",
    "aten::matmul",
    "aten::mm",
];

/// Most links behind a root.
pub const MAX_LINKS: usize = 12;
/// Most links of a chain of elementwise nodes.
pub const MAX_CHAIN: usize = 32;
/// Most tensors that the links behind a root read: the kernel has two buffers for them.
pub const MAX_EXTRA: usize = 2;

/// Who reads a value.
struct Uses {
    /// Number of readers, one a place where it is read; outputs of the graph count.
    counts: Vec<u32>,
    /// The node that makes a value.
    makers: Vec<Option<u32>>,
}

impl Uses {
    fn new(image: &ImageView<'_>) -> Uses {
        let count = image.value_count() as usize;
        let mut uses = Uses {
            counts: vec![0; count],
            makers: vec![None; count],
        };
        for node in image.nodes() {
            for value in node.inputs() {
                uses.counts[value.0 as usize] += 1;
            }
            for value in node.outputs().iter() {
                uses.makers[value.0 as usize] = Some(node.index().0);
            }
        }
        for value in image.outputs().iter() {
            uses.counts[value.0 as usize] += 1;
        }
        uses
    }
}

/// The groups of a graph, each in order, the root first. Takes time linear in the graph.
pub fn plan(image: &ImageView<'_>) -> Vec<Vec<u32>> {
    let uses = Uses::new(image);
    let mut groups: Vec<Vec<u32>> = Vec::new();
    // For each node that may go on: its group.
    let mut group_of: Vec<Option<usize>> = vec![None; image.node_count() as usize];
    for node in image.nodes() {
        let at = node.index().0;
        for argument in 0..node.arg_count() {
            let Some(before) = predecessor(image, &uses, &node, argument) else {
                continue;
            };
            let mut group = match group_of[before as usize] {
                Some(group) if groups[group].last() == Some(&before) => groups[group].clone(),
                Some(_) => continue,
                None => vec![before],
            };
            group.push(at);
            if check(image, &uses, &group).is_ok() {
                match group_of[before as usize] {
                    Some(index) => groups[index] = group,
                    None => groups.push(group),
                }
                let index = group_of[before as usize].unwrap_or(groups.len() - 1);
                group_of[before as usize] = Some(index);
                group_of[at as usize] = Some(index);
                break;
            }
        }
    }
    groups
}

/// Checks groups that were read from a blob.
///
/// # Errors
/// `BLOB_CORRUPT`: one of them cannot run as one.
pub fn verify(image: &ImageView<'_>, groups: &[Vec<u32>]) -> Result<(), Error> {
    let uses = Uses::new(image);
    groups
        .iter()
        .try_for_each(|group| check(image, &uses, group))
        .map_err(|why| Error::corrupt(format!("a group of the plan cannot run as one: {why}")))
}

/// The node that makes the value at an argument, if this node alone reads it.
fn predecessor(image: &ImageView<'_>, uses: &Uses, node: &NodeView<'_>, argument: usize) -> Option<u32> {
    let ArgView::Value(value) = node.arg(argument) else {
        return None;
    };
    let maker = uses.makers[value.0 as usize]?;
    let single = uses.counts[value.0 as usize] == 1 && image.node(NodeIndex(maker)).outputs().len() == 1;
    (single && maker < node.index().0).then_some(maker)
}

fn check(image: &ImageView<'_>, uses: &Uses, group: &[u32]) -> Result<(), &'static str> {
    let [root, behind @ ..] = group else {
        return Err("it is empty");
    };
    let root = image.node(NodeIndex(*root));
    let mut result = output(&root).ok_or("its first node makes more than one tensor")?;
    for index in behind {
        if uses.counts.get(result.0 as usize) != Some(&1) {
            return Err("what a node makes has other readers");
        }
        let node = image.node(NodeIndex(*index));
        result = output(&node).ok_or("a node makes more than one tensor")?;
    }
    match is_root(&root) {
        true => links_of(image, group, None).map(|_| ()),
        false => chain_of(image, group, None).map(|_| ()),
    }
}

/// True if the operator's kernels end with `finish()`.
pub fn is_root(node: &NodeView<'_>) -> bool {
    ROOTS.contains(&node.op())
}

/// What `finish()` applies for the nodes behind a root.
///
/// # Errors
/// Why they cannot be finished so.
pub fn links_of(image: &ImageView<'_>, group: &[u32], sizes: Option<&Sizes>) -> Result<Vec<Link>, &'static str> {
    let [root, behind @ ..] = group else {
        return Err("it is empty");
    };
    if behind.is_empty() {
        return Ok(Vec::new());
    }
    let out = output(&image.node(NodeIndex(*root))).ok_or("its first node makes more than one tensor")?;
    let dtype = image
        .value(out)
        .dtype()
        .filter(|dtype| matches!(*dtype, DType::F32 | DType::F16));
    let dtype = dtype.ok_or("it does not compute in floats")?;
    let (mut result, mut links) = (out, Vec::new());
    for index in behind {
        let node = image.node(NodeIndex(*index));
        let made = output(&node).ok_or("a node makes more than one tensor")?;
        if !same_type(image, made, out) {
            return Err("a node changes the type");
        }
        links.extend(rounding(dtype));
        links.extend(chain::finish_links(&node, sizes, result).ok_or("a node does not continue the one before")?);
        result = made;
    }
    let extra = tensors_of(&links);
    if links.len() > MAX_LINKS || extra.len() > MAX_EXTRA {
        return Err("it is too long");
    }
    match extra.iter().all(|operand| same_type(image, *operand, out)) {
        true => Ok(links),
        false => Err("a node reads a tensor of another type"),
    }
}

/// The chain that elementwise nodes are together.
///
/// # Errors
/// Why they are none.
pub fn chain_of(image: &ImageView<'_>, group: &[u32], sizes: Option<&Sizes>) -> Result<Chain, &'static str> {
    let [root, behind @ ..] = group else {
        return Err("it is empty");
    };
    let root = image.node(NodeIndex(*root));
    let mut chain = chain::links(&root, sizes).map_err(|_| "its first node is no root")?;
    let out = output(&root).ok_or("its first node makes more than one tensor")?;
    let mut result = out;
    for index in behind {
        let node = image.node(NodeIndex(*index));
        let next = chain::links(&node, sizes).map_err(|_| "a node is not elementwise")?;
        let made = output(&node).ok_or("a node makes more than one tensor")?;
        let dtype = image.value(result).dtype();
        if next.dtype != chain.dtype || dtype != Some(chain.dtype) || !same_sizes(image, made, out) {
            return Err("a node changes the type");
        }
        chain.links.extend(rounding(chain.dtype));
        chain.links.extend(
            next.continues(result)
                .ok_or("a node does not continue the one before")?,
        );
        result = made;
    }
    match chain.links.len() <= MAX_CHAIN && chain.sources().len() <= MAX_TENSORS {
        true => Ok(chain),
        false => Err("it is too long"),
    }
}

/// What a tensor of this type does to numbers that are kept in it, where that is anything.
fn rounding(dtype: DType) -> Option<Link> {
    match dtype {
        DType::F32 | DType::I32 | DType::I64 => None,
        dtype => Link::rounding(dtype),
    }
}

/// The tensors that links read, each once.
pub fn tensors_of(links: &[Link]) -> Vec<ValueIndex> {
    let mut tensors = Vec::new();
    for (value, _) in links
        .iter()
        .flat_map(|link| [link.y, link.z])
        .filter_map(Operand::source)
    {
        if !tensors.contains(&value) {
            tensors.push(value);
        }
    }
    tensors
}

fn output(node: &NodeView<'_>) -> Option<ValueIndex> {
    (node.outputs().len() == 1).then(|| node.outputs().get(0)).flatten()
}

/// One dtype, and sizes that are the same whatever the inputs are.
fn same_type(image: &ImageView<'_>, a: ValueIndex, b: ValueIndex) -> bool {
    image.value(a).dtype() == image.value(b).dtype() && same_sizes(image, a, b)
}

fn same_sizes(image: &ImageView<'_>, a: ValueIndex, b: ValueIndex) -> bool {
    let (a, b) = (image.value(a), image.value(b));
    let same = |(x, y)| x == y || image.const_int(x).is_some_and(|x| image.const_int(y) == Some(x));
    a.rank() == b.rank() && a.dims().iter().zip(b.dims().iter()).all(same)
}

#[cfg(test)]
mod tests {
    use super::{plan, verify as verify_groups};
    use delegraph_sdk::DType;
    use delegraph_sdk::image::{Arg, ImageBuilder, Type, verify};

    /// `y = relu(mm(a, b) + c)`, and, if asked, `mm(a, b)` as an output too.
    fn image(sum_is_output: bool) -> Vec<u8> {
        let mut image = ImageBuilder::new("forward");
        let two = image.int(2);
        let ty = Type::tensor(DType::F32, &[two, two]);
        let [a, b, c] = ["a", "b", "c"].map(|name| image.input(name, &ty));
        let product = image.node("mm", "aten::mm", &[Arg::Value(a), Arg::Value(b)], &[("p", &ty)], "")[0];
        let sum = [Arg::Value(c), Arg::Value(product), Arg::Int(1)];
        let sum = image.node("add", "aten::add.Tensor", &sum, &[("s", &ty)], "")[0];
        let y = image.node("relu", "aten::relu", &[Arg::Value(sum)], &[("y", &ty)], "")[0];
        image.output(y);
        if sum_is_output {
            image.output(sum);
        }
        image.finish().expect("the image is right")
    }

    #[test]
    fn what_follows_a_product_runs_with_it() {
        let bytes = image(false);
        let image = verify(&bytes).unwrap();
        assert_eq!(plan(&image), [[0, 1, 2]]);
        assert!(verify_groups(&image, &plan(&image)).is_ok());
    }

    #[test]
    fn what_others_read_ends_a_group() {
        let bytes = image(true);
        let image = verify(&bytes).unwrap();
        assert_eq!(plan(&image), [[0, 1]]);
        // A blob that says otherwise is refused.
        assert!(verify_groups(&image, &[vec![0, 1, 2]]).is_err());
        // Elementwise nodes are a group without a root, too; but the product is read by its sum alone.
        assert!(verify_groups(&image, &[vec![0, 2]]).is_err());
    }
}
