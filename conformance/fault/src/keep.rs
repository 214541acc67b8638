//! States that the fault delegate keeps itself: the reference delegate runs, and its tensors of states never leave this session.

use delegraph_sdk::image::ImageView;
use delegraph_sdk::{Context, DType, Error, Section, Session, TensorOut, TensorView};

/// Where a blob says what it keeps.
pub const SECTION: &str = "states";
/// Words of a state: its number, input, output, dtype, growth axis or all ones, rank; sizes follow.
const WORDS: usize = 6;

/// The states of a graph that can be kept, by number, and the section that says so.
pub fn section(graph: &ImageView<'_>) -> Option<(Vec<u32>, Section)> {
    let (mut kept, mut words) = (Vec::new(), Vec::new());
    for (i, state) in graph.states().enumerate() {
        let value = graph.value(graph.inputs().get(state.input as usize)?);
        let (Some(dtype), Some(sizes)) = (value.dtype(), value.const_dims()) else {
            continue;
        };
        let axis = state.growth_axis.unwrap_or(u32::MAX);
        kept.push(i as u32);
        words.extend([i as u32, state.input, state.output, dtype.0, axis, sizes.len() as u32]);
        words.extend(sizes.iter().map(|size| *size as u32));
    }
    let section = Section {
        name: SECTION.to_string(),
        align: 16,
        bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
    };
    (!kept.is_empty()).then_some((kept, section))
}

/// A state that is kept.
struct State {
    number: u32,
    input: usize,
    output: usize,
    dtype: DType,
    axis: Option<usize>,
    sizes: Vec<i64>,
    /// As words, so that elements are aligned.
    now: Vec<u64>,
    /// What a run has made of it, until it is ended.
    next: Vec<u64>,
    bytes: usize,
}

impl State {
    fn now(&self) -> &[u8] {
        &bytes_of(&self.now)[..self.bytes]
    }
}

/// A session of another delegate, and states in front of it.
pub struct Keeping {
    inner: Box<dyn Session>,
    states: Vec<State>,
}

impl Keeping {
    /// Reads the section.
    pub fn new(inner: Box<dyn Session>, section: &[u8]) -> Result<Keeping, Error> {
        let words: Vec<u32> = section
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let mut rest = &words[..];
        let mut states = Vec::new();
        while let Some((head, tail)) = rest.split_at_checked(WORDS) {
            let damaged = || Error::corrupt("the section `states` is damaged");
            let (sizes, tail) = tail.split_at_checked(head[5] as usize).ok_or_else(damaged)?;
            let dtype = DType(head[3]);
            let elements = sizes.iter().try_fold(1usize, |n, size| n.checked_mul(*size as usize));
            let bytes = elements
                .zip(dtype.size())
                .and_then(|(n, size)| n.checked_mul(size))
                .ok_or_else(damaged)?;
            states.push(State {
                number: head[0],
                input: head[1] as usize,
                output: head[2] as usize,
                dtype,
                axis: (head[4] != u32::MAX).then_some(head[4] as usize),
                sizes: sizes.iter().map(|size| i64::from(*size)).collect(),
                now: vec![0; bytes.div_ceil(8)],
                next: vec![0; bytes.div_ceil(8)],
                bytes,
            });
            rest = tail;
        }
        Ok(Keeping { inner, states })
    }

    fn state(&mut self, number: u32) -> Result<&mut State, Error> {
        let state = self.states.iter_mut().find(|state| state.number == number);
        state.ok_or_else(|| Error::invalid(format!("the session keeps no state {number}")))
    }
}

impl Session for Keeping {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let mut all: Vec<TensorView<'_>> = inputs.to_vec();
        let mut sizes: Vec<Vec<i64>> = self.states.iter().map(|state| state.sizes.clone()).collect();
        let mut rooms: Vec<Option<TensorOut<'_>>> = outputs
            .iter_mut()
            .map(|out| Some(TensorOut::new(out.dtype, &mut *out.sizes, &mut *out.bytes)))
            .collect();
        for (state, sizes) in self.states.iter_mut().zip(&mut sizes) {
            let given = all
                .get(state.input)
                .zip(rooms.get(state.output).and_then(Option::as_ref));
            if given.is_none_or(|(input, output)| !input.bytes.is_empty() || !output.bytes.is_empty()) {
                return Err(Error::invalid("the host gave bytes of a state that is kept"));
            }
            let bytes = state.bytes;
            all[state.input] = TensorView::new(state.dtype, &state.sizes, &bytes_of(&state.now)[..bytes]);
            let room = &mut bytes_of_mut(&mut state.next)[..bytes];
            rooms[state.output] = Some(TensorOut::new(state.dtype, sizes, room));
        }
        let mut rooms: Vec<TensorOut<'_>> = rooms.into_iter().flatten().collect();
        self.inner.execute(&all, &mut rooms, context)
    }

    fn state_commit(&mut self, accept: bool, _: &Context<'_>) -> Result<(), Error> {
        for state in self.states.iter_mut().filter(|_| accept) {
            std::mem::swap(&mut state.now, &mut state.next);
        }
        Ok(())
    }

    fn state_reset(&mut self, state: u32, _: &Context<'_>) -> Result<(), Error> {
        self.state(state)?.now.fill(0);
        Ok(())
    }

    fn state_truncate(&mut self, state: u32, length: u64, _: &Context<'_>) -> Result<(), Error> {
        let state = self.state(state)?;
        let axis = state
            .axis
            .ok_or_else(|| Error::unsupported("the state does not grow"))?;
        let Some(entries) = state.sizes.get(axis).filter(|size| **size > 0) else {
            return Ok(());
        };
        let outer: i64 = state.sizes[..axis].iter().product();
        let (block, entry) = match outer {
            0 => return Ok(()),
            outer => (
                state.bytes / outer as usize,
                state.bytes / outer as usize / *entries as usize,
            ),
        };
        let keep = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_mul(entry)
            .min(block);
        let bytes = state.bytes;
        for block in bytes_of_mut(&mut state.now)[..bytes].chunks_mut(block.max(1)) {
            block[keep..].fill(0);
        }
        Ok(())
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], _: &Context<'_>) -> Result<(), Error> {
        let state = self.state(state)?;
        if out.len() != state.bytes {
            return Err(Error::invalid(format!(
                "the state has {} bytes, not {}",
                state.bytes,
                out.len()
            )));
        }
        out.copy_from_slice(state.now());
        Ok(())
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], _: &Context<'_>) -> Result<(), Error> {
        let state = self.state(state)?;
        if bytes.len() != state.bytes {
            return Err(Error::invalid(format!(
                "the state has {} bytes, not {}",
                state.bytes,
                bytes.len()
            )));
        }
        bytes_of_mut(&mut state.now)[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: words are bytes, and more aligned than those need.
    unsafe { words.align_to::<u8>().1 }
}

fn bytes_of_mut(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are words.
    unsafe { words.align_to_mut::<u8>().1 }
}
