//! Convolutions one behind another in one step, a band of lines at a time: one with a filter a channel, with the products before and behind it, as in
//! inverted residual blocks. Longer chains would hold more lines than they save.
//!
//! Whether that is worth it is a matter of sizes, so it is found when a plan is made and not in the program: tensors that lie between are too large
//! for a cache, and weights, which every band reads again, are small.

use super::conv::{self, Conv, Method};
use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use crate::threads::Count;
use delegraph_cpu_kernels::conv::bands::{self, Kind, Link, MOST};
use delegraph_cpu_kernels::conv::{Layout, Shape};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// What the step is called in events.
pub const NAME: &str = "cpu::convs";

/// Bytes of a tensor that had better not be in memory as a whole.
const LARGE: usize = 256 << 10;
/// Bytes of weights that may be read once a band.
const SMALL: usize = 64 << 10;

/// The chain that begins with the first of some nodes: its step, and how many nodes it is. `readers` is how many read a value, each output of the
/// program being one more.
///
/// # Errors
/// A convolution whose arguments do not fit.
pub fn find(
    nodes: &[Arguments<'_>],
    shapes: &Shapes,
    readers: &[u32],
) -> Result<Option<(Box<dyn Step>, usize)>, Error> {
    let mut chain = Chain {
        links: Vec::new(),
        shapes: Vec::new(),
    };
    for (at, node) in nodes.iter().take(MOST).enumerate() {
        if node.op() != conv::NAME || shapes.bytes(node.value(1)?) > SMALL {
            break;
        }
        if let Some(before) = at.checked_sub(1) {
            let between = nodes[before].output(0)?;
            let alone = readers[between.0 as usize] == 1 && node.value(0)? == between;
            if !alone || shapes.bytes(between) < LARGE {
                break;
            }
        }
        let conv = conv::read(node, shapes)?;
        let Some(kind) = kind(&conv) else { break };
        let filters = chain
            .links
            .iter()
            .filter(|(kind, _)| matches!(kind, Kind::Depthwise))
            .count();
        let behind = matches!(chain.links.last(), Some((Kind::Pointwise { .. }, _)));
        let ends = match kind {
            Kind::Depthwise => filters > 0,
            Kind::Pointwise { .. } => behind,
        };
        if ends {
            break;
        }
        chain.shapes.push(conv.shape);
        if bands::band(&chain.shapes).is_none() {
            chain.shapes.pop();
            break;
        }
        chain.links.push((kind, conv));
    }
    let count = chain.links.len();
    Ok((count > 1).then(|| (Box::new(chain) as Box<dyn Step>, count)))
}

fn kind(conv: &Conv) -> Option<Kind> {
    let kind = match conv.method {
        Method::Gemm if conv.layout == Layout::ChannelsLast => Kind::Pointwise { width: conv.width },
        Method::Depthwise => Kind::Depthwise,
        _ => return None,
    };
    bands::fits(kind, &conv.shape).then_some(kind)
}

struct Chain {
    links: Vec<(Kind, Conv)>,
    shapes: Vec<Shape>,
}

impl Step for Chain {
    fn work(&self) -> Work {
        let operations = self.links.iter().map(|(_, conv)| conv.work().operations);
        Work {
            operations: operations.fold(0, u64::saturating_add),
            ..Work::default()
        }
    }

    fn scratch(&self, threads: usize) -> usize {
        bands::scratch_len(&self.shapes, &Count(threads)) * size_of::<f32>()
    }

    /// Inputs are those of the first node, and of each other one all but what the one before it makes.
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let link = |(kind, conv): &(Kind, Conv), at: usize| Link {
            kind: *kind,
            shape: conv.shape,
            weights: io.input(at),
            epilogue: conv.ends.epilogue(&io, at + 1),
        };
        let mut links = [link(&self.links[0], 1); MOST];
        let mut at = 1;
        for (conv, to) in self.links.iter().zip(&mut links) {
            *to = link(conv, at);
            at += 1 + conv.1.ends.count();
        }
        let (input, links) = (io.input(0), &links[..self.links.len()]);
        let (out, scratch) = (io.output::<f32>(0), io.scratch::<f32>());
        bands::conv(Isa::best(), pool, links, input, out, scratch);
        Ok(())
    }
}
