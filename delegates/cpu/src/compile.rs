//! A region becomes a program: passes rewrite the graph, weights are packed, and both are written into the blob.

use crate::caps::{self, Known};
use crate::families::{self, Families};
use crate::family::{Family, Packing};
use crate::graph::{Content, Graph, State, ValueId};
use crate::passes;
use crate::settings::Settings;
use delegraph_sdk::image::{ImageView, NodeIndex};
use delegraph_sdk::{Compiled, Context, Error, Section, Verdict, Weights};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// The section with the program's image. Of several programs, each has one with `.` and the name of its first family behind.
pub const PROGRAM: &str = "program";
/// The section with the packed weights: a table of where each begins and how long it is, two `u64` a weight behind their number, then the weights at
/// multiples of 64. What not all programs of a blob read is in sections of the same form with `.` and the names of those that do behind.
pub const WEIGHTS: &str = "weights";
/// The section with those of fewer bytes than [`LARGE`], in the same form. What two programs of a model have apart, such as constants that one of them
/// folded, is here, and the large ones are the same bytes, which a file stores once.
pub const SMALL_WEIGHTS: &str = "small_weights";
/// Bytes from which on a weight lies in [`WEIGHTS`].
pub const LARGE: usize = 4096;
/// Multiples that packed weights lie at.
pub const ALIGN: usize = crate::sys::ALIGN;

/// A program while it is compiled: of families that weights are packed alike for.
struct Part {
    families: Vec<Family>,
    graph: Graph,
    /// Its packed weights.
    contents: Vec<(Content, ValueId)>,
}

/// Weights that lie in one section: those of one kind of size that the same programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    is_small: bool,
    /// Not every program reads them.
    is_partial: bool,
    /// A bit for each program that does.
    readers: u8,
}

/// Compiles a region: a program for each packing of weights that the families of the settings have.
///
/// # Errors
/// The first node that is not taken: a delegate may be asked to compile what it was not asked about.
pub fn compile(
    image: &ImageView<'_>,
    weights: &Weights<'_>,
    settings: &Settings,
    context: &Context<'_>,
) -> Result<Compiled, Error> {
    let known = Known::of(image);
    for at in 0..image.node_count() {
        let node = image.node(NodeIndex(at));
        if let Verdict::Refuse(_, text) = caps::verdict(&node, &known) {
            return Err(Error::unsupported(text.into_owned()).at(node.index()));
        }
    }
    let mut kinds: Vec<(Packing, Vec<Family>)> = Vec::new();
    for family in settings.families() {
        match kinds.iter_mut().find(|(packing, _)| *packing == family.packing()) {
            Some((_, families)) => families.push(family),
            None => kinds.push((family.packing(), vec![family])),
        }
    }
    let (mut parts, mut kept_states, mut integers) = (Vec::new(), Vec::new(), false);
    let count = kinds.len() as u64;
    for (packing, families) in kinds {
        context.progress(
            parts.len() as u64,
            count,
            &format!("packing weights for {}", listed(&families)),
        );
        let mut graph = Graph::read(image)?;
        // States of fixed sizes stay with the session, where the host knows that.
        let states = context.takes_states()
            && !graph.states.is_empty()
            && graph.states.iter().all(|state| is_fixed(&graph, state));
        if !states {
            graph.states.clear();
        }
        kept_states = (0..graph.states.len() as u32).collect();
        let target = passes::Target {
            weights,
            packing,
            states,
            winograd: settings.winograd,
        };
        integers = passes::run(&mut graph, &target)?;
        parts.push(Part {
            families,
            contents: graph.contents(),
            graph,
        });
    }
    Ok(Compiled {
        precision: if integers { "int8".to_string() } else { String::new() },
        sections: sections(parts)?,
        kept_states,
        ..Compiled::default()
    })
}

/// The sections of a blob: the table of its programs, each of them, and their weights.
fn sections(parts: Vec<Part>) -> Result<Vec<Section>, Error> {
    let mut readers: HashMap<Content, u8> = HashMap::new();
    for (at, part) in parts.iter().enumerate() {
        for (content, _) in &part.contents {
            *readers.entry(*content).or_default() |= 1 << at;
        }
    }
    let names: Vec<&str> = parts.iter().map(|part| part.families[0].name()).collect();
    let everybody = u8::MAX >> (u8::BITS as usize - parts.len());
    let group = |content: &Content| Group {
        is_small: content.size.0 < LARGE,
        is_partial: readers[content] != everybody,
        readers: readers[content],
    };
    let base = |group: &Group| if group.is_small { SMALL_WEIGHTS } else { WEIGHTS };
    // What is of some programs alone has their names.
    let suffixed = |base: &str, readers: u8| -> String {
        let of = names.iter().enumerate().filter(|(at, _)| readers & 1 << at != 0);
        let own = (readers != everybody).then(|| of.map(|(_, name)| format!(".{name}")).collect::<String>());
        format!("{base}{}", own.unwrap_or_default())
    };
    let mut programs: Vec<(Vec<u8>, families::Entry)> = Vec::new();
    let mut groups: BTreeMap<Group, Vec<Vec<u8>>> = BTreeMap::new();
    for mut part in parts {
        part.contents.sort_by_key(|(content, _)| (group(content), *content));
        let order: Vec<ValueId> = part.contents.iter().map(|(_, value)| *value).collect();
        let (program, packed) = part.graph.write(&order)?;
        let mut own: BTreeMap<Group, Vec<Vec<u8>>> = BTreeMap::new();
        for ((content, _), weight) in part.contents.iter().zip(packed) {
            own.entry(group(content)).or_default().push(weight);
        }
        let families = part.families.iter().map(|family| family.name().to_string());
        let weights = own.keys().map(|group| suffixed(base(group), group.readers));
        let entry = families::Entry {
            families: families.collect(),
            program: String::new(),
            weights: weights.collect(),
        };
        for (group, weights) in own {
            match groups.entry(group) {
                Entry::Vacant(place) => _ = place.insert(weights),
                // Sizes and hashes are equal: so are the bytes, or this is not to become a file.
                Entry::Occupied(known) if *known.get() == weights => {}
                Entry::Occupied(_) => return Err(Error::internal("packed weights of equal hashes differ")),
            }
        }
        // Nothing in it is of those whose packing differs.
        let same =
            |(image, known): &&mut (Vec<u8>, families::Entry)| *image == program && known.weights == entry.weights;
        match programs.iter_mut().find(same) {
            Some((_, known)) => known.families.extend(entry.families),
            None => programs.push((program, entry)),
        }
    }
    let mut table = Families::default();
    let mut sections = Vec::new();
    let is_only = programs.len() == 1;
    for (program, mut entry) in programs {
        entry.program = match is_only {
            true => PROGRAM.to_string(),
            false => format!("{PROGRAM}.{}", entry.families[0]),
        };
        sections.push(section(&entry.program, 8, program));
        table.programs.push(entry);
    }
    sections.insert(0, section(families::SECTION, 1, table.write()));
    for (group, weights) in groups {
        let name = suffixed(base(&group), group.readers);
        sections.push(section(&name, ALIGN as u32, joined(&weights)));
    }
    Ok(sections)
}

fn section(name: &str, align: u32, bytes: Vec<u8>) -> Section {
    Section {
        name: name.to_string(),
        align,
        bytes,
    }
}

/// `avx2, neon`
fn listed(families: &[Family]) -> String {
    families
        .iter()
        .map(|family| family.name())
        .collect::<Vec<_>>()
        .join(", ")
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
