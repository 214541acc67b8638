//! Which dimensions of a node's values go together: what stands at one index of its results is made of what stands at that index of its arguments.

use super::Encoder;
use crate::chain::Chain;
use crate::fuse;
use crate::node::Node;
use crate::operators::{conv, reduce_rows};
use crate::tensor::Layout;
use delegraph_sdk::Error;
use delegraph_sdk::image::{NodeIndex, ValueIndex};

/// A value, and for each dimension of the first result the dimension of the value that goes along; `None`: all of the value is needed there.
#[derive(Debug, Clone)]
pub(super) struct Along {
    pub value: ValueIndex,
    pub dims: Vec<Option<usize>>,
    /// It has the sizes of the result.
    pub is_whole: bool,
    /// Along this dimension of the result, a part needs more of the value than its own indices.
    pub halo: Option<(usize, Halo)>,
}

/// Result `o` is made of elements `o * multiple + offset + k * step` for `k` below `kernel`, as far as they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halo {
    pub multiple: i64,
    pub offset: i64,
    pub step: i64,
    pub kernel: i64,
}

impl Halo {
    /// First element, and how many, of `size` that results `first` to before `first + count` need.
    pub fn range(&self, first: u32, count: u32, size: u32) -> (u32, u32) {
        let at = |o: i64, k: i64| (o * self.multiple + self.offset + k * self.step).clamp(0, i64::from(size));
        let start = at(i64::from(first), 0);
        let end = at(i64::from(first) + i64::from(count) - 1, self.kernel - 1) + 1;
        // Where all that is needed is padding, one element stands for it.
        let start = start.min(i64::from(size) - 1).max(0);
        (start as u32, (end.min(i64::from(size)) - start).max(1) as u32)
    }
}

impl Along {
    pub fn is_cut(&self) -> bool {
        self.dims.iter().any(Option::is_some)
    }
}

/// How the values lie whose parts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lies {
    Rows,
    ChannelsLast,
    /// As they do: only whole elements of a batch are parts.
    Either,
}

/// How a node is divided.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// What it makes; the first has the dimensions that others are held against.
    pub results: Vec<Along>,
    /// What it reads.
    pub arguments: Vec<Along>,
    /// The first dimension of the result that is not independent.
    pub stop: usize,
    pub lies: Lies,
    /// Sizes do not matter: values of the result's sizes are lines of elements, and the others one number each.
    pub flat: bool,
}

impl Rule {
    pub fn all(&self) -> impl Iterator<Item = &Along> {
        self.results.iter().chain(&self.arguments)
    }

    /// Makes lines of all values, if they are lines or numbers.
    fn flatten(&mut self, e: &Encoder<'_>) -> Result<(), Error> {
        for along in self.all() {
            if !along.is_whole && e.dims(along.value)?.iter().any(|size| *size != 1) {
                return Ok(());
            }
        }
        for along in self.results.iter_mut().chain(&mut self.arguments) {
            along.dims = vec![along.is_whole.then_some(0)];
        }
        (self.stop, self.flat) = (1, true);
        Ok(())
    }

    /// The result that others are held against.
    pub fn first(&self) -> Result<ValueIndex, Error> {
        let first = self.results.first().map(|along| along.value);
        first.ok_or_else(|| Error::internal("a node without results is divided"))
    }
}

/// What a rule is made from.
struct Draft<'e, 'a> {
    e: &'e Encoder<'a>,
    node: Node<'a>,
    out: Vec<u32>,
    arguments: Vec<Along>,
}

impl Draft<'_, '_> {
    fn dims(&self, argument: usize) -> Result<Vec<u32>, Error> {
        self.e.dims(self.node.value(argument)?)
    }

    /// A value whose dimensions go along by `of`, where the sizes are those of the result.
    fn along(&mut self, value: ValueIndex, of: impl Fn(usize) -> Option<usize>) -> Result<(), Error> {
        let dims = self.e.dims(value)?;
        let same = |dim: usize, own: &usize| dims.get(*own) == self.out.get(dim) && self.out[dim] != 1;
        let along = (0..self.out.len())
            .map(|dim| of(dim).filter(|own| same(dim, own)))
            .collect();
        self.arguments.push(Along {
            value,
            dims: along,
            is_whole: dims == self.out,
            halo: None,
        });
        Ok(())
    }

    /// Arguments whose dimensions are those of the result, up to `stop`.
    fn leading(&mut self, stop: usize, arguments: &[usize]) -> Result<usize, Error> {
        for argument in arguments {
            self.along(self.node.value(*argument)?, |dim| (dim < stop).then_some(dim))?;
        }
        // A dimension counts as far as all of them have it.
        let have = |along: &Along, dim: usize| self.out[dim] == 1 || along.dims[dim].is_some();
        let together = |dim: &usize| self.arguments.iter().all(|along| have(along, *dim));
        Ok((0..stop.min(self.out.len())).take_while(together).count())
    }

    /// A value that is broadcast to the result.
    fn broadcast(&mut self, value: ValueIndex) -> Result<(), Error> {
        let (rank, own) = (self.out.len(), self.e.dims(value)?.len());
        self.along(value, |dim| (dim + own).checked_sub(rank))
    }

    /// The smallest of the dimensions at an argument.
    fn first_of(&self, argument: usize) -> Result<usize, Error> {
        let rank = self.dims(0)?.len();
        let along = reduce_rows::along(&self.node, argument, rank)?;
        Ok(along.iter().position(|reduced| *reduced).unwrap_or(0))
    }

    /// A product of matrices, and of batches of them.
    fn product(&mut self, a: usize, b: usize) -> Result<usize, Error> {
        let (rank, own, other) = (self.out.len(), self.dims(a)?.len(), self.dims(b)?.len());
        if own < 2 {
            return Ok(0);
        }
        // A vector as the second factor leaves no dimension.
        let inner = usize::from(other > 1);
        let rows = rank.saturating_sub(1 + inner);
        let value = self.node.value(a)?;
        self.along(value, |dim| {
            (dim <= rows)
                .then(|| (dim + own).checked_sub(rank + 1 - inner))
                .flatten()
        })?;
        let value = self.node.value(b)?;
        self.along(value, |dim| {
            (dim < rows).then(|| (dim + other).checked_sub(rank)).flatten()
        })?;
        Ok(rows + 1)
    }
}

/// Elementwise nodes: everything goes along as it is broadcast.
fn of_chain(chain: &Chain, draft: &mut Draft<'_, '_>) -> Result<(), Error> {
    for (value, list) in chain.sources() {
        match list {
            Some(lies) => draft.along(value, |dim| (dim == lies as usize).then_some(0))?,
            None => draft.broadcast(value)?,
        }
    }
    Ok(())
}

/// The name of an operator without its namespace and overload.
fn name<'a>(node: &Node<'a>) -> &'a str {
    let op = node.op().split_once("::").map_or("", |(_, name)| name);
    op.split('.').next().unwrap_or(op)
}

/// How many dimensions an operator on images works on, by its name.
fn space(op: &str) -> usize {
    let digit = op.split_once("d_").map_or(op, |(name, _)| name);
    ["1", "2", "3"]
        .iter()
        .position(|n| digit.trim_end_matches("d").ends_with(n))
        .map_or(2, |at| at + 1)
}

/// How a group of nodes is divided; `None`: it cannot be, or does it by itself.
///
/// # Errors
/// An argument is not what the operator's schema says.
pub(super) fn rule(e: &Encoder<'_>, group: &[u32]) -> Result<Option<Rule>, Error> {
    let [root, ..] = group else {
        return Ok(None);
    };
    let image = e.image;
    let view = image.node(NodeIndex(*root));
    let node = Node::new(view, e.sizes);
    let last = image.node(NodeIndex(*group.last().unwrap_or(root)));
    let Some(result) = last.outputs().get(0) else {
        return Ok(None);
    };
    let mut draft = Draft {
        e,
        node,
        out: e.dims(result)?,
        arguments: Vec::new(),
    };
    let rank = draft.out.len();
    let chain = match fuse::is_root(&view) {
        true => None,
        false => fuse::chain_of(&image, group, Some(e.sizes)).ok(),
    };
    let (stop, lies) = match &chain {
        Some(chain) => {
            of_chain(chain, &mut draft)?;
            let lies = match e.home(result) {
                Some(Layout::Nhwc4) => Lies::ChannelsLast,
                _ => Lies::Rows,
            };
            (rank, lies)
        }
        None => match stop(&mut draft)? {
            Some((stop, lies)) => (stop, lies),
            None => return Ok(None),
        },
    };
    let mut results: Vec<Along> = Vec::new();
    for (at, index) in group.iter().enumerate().rev() {
        for value in image.node(NodeIndex(*index)).outputs().iter() {
            let dims = e.dims(value)?;
            let of =
                |dim: usize| (dim < stop && dims.get(dim) == draft.out.get(dim) && draft.out[dim] != 1).then_some(dim);
            let along = Along {
                value,
                dims: (0..rank).map(of).collect(),
                is_whole: dims == draft.out,
                halo: None,
            };
            // All that is made goes along, or nothing.
            let misses = |dim: &usize| draft.out[*dim] != 1 && along.dims[*dim].is_none();
            if !dims.contains(&0) && (0..stop).any(|dim| misses(&dim)) {
                return Ok(None);
            }
            results.push(along);
        }
        // What the nodes behind a root read.
        if chain.is_none() && at > 0 {
            let made: Vec<ValueIndex> = group
                .iter()
                .flat_map(|i| image.node(NodeIndex(*i)).outputs().iter())
                .collect();
            for value in image
                .node(NodeIndex(*index))
                .inputs()
                .filter(|value| !made.contains(value))
            {
                draft.broadcast(value)?;
            }
        }
    }
    let mut rule = Rule {
        results,
        arguments: draft.arguments,
        stop,
        lies,
        flat: false,
    };
    let each = chain.is_some()
        || matches!(
            name(&node),
            "full" | "ones" | "zeros" | "quantize_per_tensor" | "dequantize_per_tensor"
        );
    if each && lies == Lies::Rows {
        rule.flatten(e)?;
    }
    Ok(Some(rule))
}

/// The dimension from which on an operator's results are not independent, and how they lie.
fn stop(draft: &mut Draft<'_, '_>) -> Result<Option<(usize, Lies)>, Error> {
    let (node, rank) = (draft.node, draft.out.len());
    let op = node.op().split_once("::").map_or("", |(_, name)| name);
    let name = name(&node);
    let rows = |stop| Ok(Some((stop, Lies::Rows)));
    let last = rank.saturating_sub(1);
    match name {
        "linear" => rows(draft.leading(last, &[0])?),
        "mm" | "bmm" | "matmul" | "linalg_matmul" | "mv" => rows(draft.product(0, 1)?),
        "addmm" | "baddbmm" | "addmv" => {
            draft.broadcast(node.value(0)?)?;
            rows(draft.product(1, 2)?)
        }
        "scaled_dot_product_attention" => {
            let stop = draft.leading(rank.saturating_sub(2), &[0, 1, 2])?;
            if let Some(mask) = node.optional_value(3)? {
                let own = draft.e.dims(mask)?.len();
                draft.along(mask, |dim| {
                    (dim < stop).then(|| (dim + own).checked_sub(rank)).flatten()
                })?;
            }
            rows(stop)
        }
        "conv1d" | "conv2d" | "conv3d" | "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d"
        | "convolution" => {
            let is_batch = draft.dims(0)?.len() == draft.dims(1)?.len();
            let stop = draft.leading(usize::from(is_batch), &[0])?;
            match conv::rows(&node, draft.e)? {
                Some(axis) if is_batch && rank == 4 => {
                    let x = draft
                        .arguments
                        .last_mut()
                        .ok_or_else(|| Error::internal("a convolution of nothing"))?;
                    x.dims[2] = (draft.out[2] != 1).then_some(2);
                    let [multiple, offset, step, kernel] = axis;
                    let halo = Halo {
                        multiple,
                        offset,
                        step,
                        kernel,
                    };
                    x.halo = Some((2, halo));
                    Ok(Some((3, Lies::ChannelsLast)))
                }
                _ => Ok(Some((stop, Lies::Either))),
            }
        }
        "batch_norm" | "_native_batch_norm_legit_no_training" => {
            draft.broadcast(node.value(0)?)?;
            for argument in 1..5 {
                if let Some(weights) = node.optional_value(argument)? {
                    draft.along(weights, |dim| (dim == 1).then_some(0))?;
                }
            }
            let last = draft.e.home(node.output(0)?) == Some(Layout::Nhwc4);
            Ok(Some((rank, if last { Lies::ChannelsLast } else { Lies::Rows })))
        }
        "group_norm" | "native_group_norm" | "instance_norm" => Ok(Some((draft.leading(1, &[0])?, Lies::Either))),
        "grid_sampler" | "grid_sampler_2d" => Ok(Some((draft.leading(1, &[0, 1])?, Lies::Either))),
        name if name.contains("pool") || name.contains("upsample") => {
            let stop = rank.saturating_sub(space(name));
            // Parts of channels that lie last are copied.
            let lies = if rank == 4 { Lies::Either } else { Lies::Rows };
            Ok(Some((draft.leading(stop, &[0])?, lies)))
        }
        "softmax" | "_softmax" | "_safe_softmax" | "log_softmax" | "_log_softmax" | "cumsum" | "cumprod"
        | "logcumsumexp" | "cummax" | "cummin" | "index_select" => {
            let stop = node.dim(1, draft.dims(0)?.len())?;
            rows(draft.leading(stop, &[0])?)
        }
        "gather" => {
            let stop = node.dim(1, draft.dims(0)?.len())?;
            rows(draft.leading(stop, &[0, 2])?)
        }
        "sort" | "argsort" => {
            let dim = if op.ends_with(".stable") { 2 } else { 1 };
            let stop = node.dim(dim, draft.dims(0)?.len())?;
            rows(draft.leading(stop, &[0])?)
        }
        "topk" | "kthvalue" => {
            let stop = node.dim(2, draft.dims(0)?.len())?;
            rows(draft.leading(stop, &[0])?)
        }
        "layer_norm" | "native_layer_norm" | "rms_norm" => {
            let stop = rank.saturating_sub(node.ints(1)?.len());
            rows(draft.leading(stop, &[0])?)
        }
        "sum" | "nansum" | "mean" | "prod" | "amax" | "amin" | "max" | "min" | "argmax" | "argmin" | "any" | "all"
        | "logsumexp" | "count_nonzero" | "var" | "std" | "var_mean" | "std_mean" | "aminmax" => {
            let whole = matches!(
                op,
                "max" | "min" | "any" | "all" | "count_nonzero" | "sum" | "mean" | "prod"
            );
            if whole || matches!(op, "var" | "std" | "var_mean" | "std_mean") {
                return Ok(None);
            }
            let stop = draft.first_of(1)?;
            rows(draft.leading(stop, &[0])?)
        }
        "linalg_vector_norm" | "norm" => {
            let stop = draft.first_of(2)?;
            rows(draft.leading(stop, &[0])?)
        }
        "embedding" => rows(draft.leading(last, &[1])?),
        "one_hot" => rows(draft.leading(last, &[0])?),
        "tril" | "triu" => rows(draft.leading(rank.saturating_sub(2), &[0])?),
        "full" | "full_like" | "ones" | "ones_like" | "zeros" | "zeros_like" | "new_full" | "new_ones"
        | "new_zeros" => rows(rank),
        "quantize_per_tensor" | "dequantize_per_tensor" => rows(draft.leading(rank, &[0])?),
        "quantize_per_token" | "dequantize_per_token" => rows(draft.leading(last, &[0, 1, 2])?),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_of_rows_needs() {
        // 3 rows with padding 1, of 8.
        let halo = Halo {
            multiple: 1,
            offset: -1,
            step: 1,
            kernel: 3,
        };
        assert_eq!(halo.range(0, 3, 8), (0, 4));
        assert_eq!(halo.range(3, 2, 8), (2, 4));
        assert_eq!(halo.range(6, 2, 8), (5, 3));
        // Steps of 2, 2 apart.
        let halo = Halo {
            multiple: 2,
            offset: 0,
            step: 2,
            kernel: 2,
        };
        assert_eq!(halo.range(1, 2, 9), (2, 5));
        // Nothing but padding.
        let halo = Halo {
            multiple: 1,
            offset: -5,
            step: 1,
            kernel: 1,
        };
        assert_eq!(halo.range(0, 2, 4), (0, 1));
        assert_eq!(halo.range(12, 2, 4), (3, 1));
    }

    #[test]
    fn dimensions_of_images_by_the_name() {
        assert_eq!(
            ["max_pool2d", "adaptive_avg_pool3d", "avg_pool1d"].map(space),
            [2, 3, 1]
        );
        assert_eq!(
            [
                "max_pool2d_with_indices",
                "upsample_nearest1d",
                "_upsample_nearest_exact3d"
            ]
            .map(space),
            [2, 1, 3]
        );
    }
}
