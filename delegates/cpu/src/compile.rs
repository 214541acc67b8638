//! A region becomes a program: passes rewrite the graph, weights are packed, and both are written into the blob.

use crate::caps::{self, Known};
use crate::graph::{Graph, State};
use crate::passes;
use crate::settings::Settings;
use delegraph_sdk::image::{ImageView, NodeIndex};
use delegraph_sdk::{Compiled, Context, Error, Section, Verdict, Weights};

/// The section with the program's image.
pub const PROGRAM: &str = "program";
/// The section with the packed weights: a table of where each begins and how long it is, two `u64` a weight behind their number, then the weights at
/// multiples of 64.
pub const WEIGHTS: &str = "weights";
/// The section with those of fewer bytes than [`LARGE`], in the same form. What two programs of a model have apart, such as constants that one of them
/// folded, is here, and the large ones are the same bytes, which a file stores once.
pub const SMALL_WEIGHTS: &str = "small_weights";
/// Bytes from which on a weight lies in [`WEIGHTS`].
pub const LARGE: usize = 4096;
/// Multiples that packed weights lie at.
pub const ALIGN: usize = crate::sys::ALIGN;

/// Compiles a region.
///
/// # Errors
/// The first node that is not taken: a delegate may be asked to compile what it was not asked about.
pub fn compile(
    image: &ImageView<'_>,
    weights: &Weights<'_>,
    settings: Settings,
    context: &Context<'_>,
) -> Result<Compiled, Error> {
    let mut graph = Graph::read(image)?;
    let known = Known::of(image);
    for at in 0..image.node_count() {
        let node = image.node(NodeIndex(at));
        if let Verdict::Refuse(_, text) = caps::verdict(&node, &known) {
            return Err(Error::unsupported(text.into_owned()).at(node.index()));
        }
    }
    context.progress(0, 1, "packing weights");
    // States of fixed sizes stay with the session, where the host knows that.
    let states =
        context.takes_states() && !graph.states.is_empty() && graph.states.iter().all(|state| is_fixed(&graph, state));
    if !states {
        graph.states.clear();
    }
    let kept_states = (0..graph.states.len() as u32).collect();
    let target = passes::Target {
        weights,
        isa: settings.isa,
        states,
        winograd: settings.winograd,
    };
    let integers = passes::run(&mut graph, &target)?;
    let (program, packed) = graph.write()?;
    let mut sections = vec![Section {
        name: PROGRAM.to_string(),
        align: 8,
        bytes: program,
    }];
    // The largest come first.
    let (large, small) = packed.split_at(packed.partition_point(|weight| weight.len() >= LARGE));
    for (name, weights) in [(WEIGHTS, large), (SMALL_WEIGHTS, small)] {
        if !weights.is_empty() {
            sections.push(Section {
                name: name.to_string(),
                align: ALIGN as u32,
                bytes: joined(weights),
            });
        }
    }
    Ok(Compiled {
        precision: if integers { "int8".to_string() } else { String::new() },
        sections,
        kept_states,
        ..Compiled::default()
    })
}

/// Whether the sizes of a state are constants, the same before and behind a run, and its places its own.
fn is_fixed(graph: &Graph, state: &State) -> bool {
    let (Some(before), Some(after)) = (
        graph.inputs.get(state.input as usize),
        graph.outputs.get(state.output as usize),
    ) else {
        return false;
    };
    let (a, b) = (&graph.values[*before], &graph.values[*after]);
    graph.sizes(*before).is_some() && a.dims == b.dims && a.dtype == b.dtype
}

/// The section of packed weights.
fn joined(packed: &[Vec<u8>]) -> Vec<u8> {
    let mut at = (8 + 16 * packed.len()).next_multiple_of(ALIGN);
    let mut bytes = (packed.len() as u64).to_le_bytes().to_vec();
    for weight in packed {
        bytes.extend((at as u64).to_le_bytes());
        bytes.extend((weight.len() as u64).to_le_bytes());
        at = (at + weight.len()).next_multiple_of(ALIGN);
    }
    bytes.reserve_exact(at - bytes.len());
    for weight in packed {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        bytes.extend_from_slice(weight);
    }
    bytes
}

/// Where the packed weights lie in their section.
///
/// # Errors
/// The table is damaged.
pub fn table(section: &[u8]) -> Result<Vec<std::ops::Range<usize>>, Error> {
    let damaged = || Error::corrupt("the table of packed weights is damaged");
    let word = |at: usize| -> Result<usize, Error> {
        let bytes = section
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or_else(damaged)?;
        usize::try_from(u64::from_le_bytes(*bytes)).map_err(|_| damaged())
    };
    let count = word(0)?;
    if count > section.len() / 16 {
        return Err(damaged());
    }
    let mut ranges = Vec::with_capacity(count);
    for at in 0..count {
        let (start, length) = (word(8 + 16 * at)?, word(16 + 16 * at)?);
        let end = start
            .checked_add(length)
            .filter(|end| *end <= section.len())
            .ok_or_else(damaged)?;
        if !start.is_multiple_of(ALIGN) {
            return Err(damaged());
        }
        ranges.push(start..end);
    }
    Ok(ranges)
}
