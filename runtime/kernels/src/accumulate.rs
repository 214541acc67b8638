//! The reduction engine: a tensor folded along some of its dimensions.
//!
//! A fold is a start, a step, and a join of two folds of which the start is neutral. Rows that lie along memory are folded several lanes
//! side by side, so that steps need not wait for each other; rows that lie across memory are folded many at a time. Long rows are cut at
//! places that depend on their length alone, so that the number of threads never changes a result.

use crate::lanes::{LANES, Lane, Reader, Walk, Writer};
use crate::parallel::{each, portion};
use crate::rows::DimSet;
use crate::wide::Wide;
use crate::{KernelError, Out, Tensor};
use delegraph_types::Parallel;

/// Lanes side by side.
const SIDE: usize = 8;
/// Elements of a piece of a long row, at least.
const PIECE: usize = 1 << 14;
/// Pieces of a row at most.
const PIECES: usize = 64;

/// How a row becomes a number.
pub(crate) struct Fold<S, Step, Join, Finish> {
    /// The fold of no elements, neutral to `join`.
    pub start: S,
    pub step: Step,
    pub join: Join,
    pub finish: Finish,
}

/// Where the rows along `set` lie.
struct Rows<'a> {
    input: Tensor<'a>,
    /// Over the first elements of rows.
    starts: Walk,
    /// Over the elements of a row, from its first one.
    inside: Walk,
    count: usize,
    len: usize,
    /// Neighbouring rows lie side by side, while the elements of a row do not.
    across: bool,
}

impl<'a> Rows<'a> {
    fn new(input: Tensor<'a>, set: DimSet) -> Rows<'a> {
        let (sizes, strides) = (input.sizes(), input.strides());
        let (inner_sizes, inner_strides) = (set.inside(sizes), set.inside(strides));
        let outer = set.others();
        let (outer_sizes, outer_strides) = (outer.inside(sizes), outer.inside(strides));
        let starts = Walk::new(&outer_sizes, &outer_strides);
        let inside = Walk::new(&inner_sizes, &inner_strides);
        Rows {
            input,
            count: outer_sizes.numel().unwrap_or(0),
            len: inner_sizes.numel().unwrap_or(0),
            across: starts.is_straight() && !inside.is_straight(),
            starts,
            inside,
        }
    }
}

/// Folds each row of `input` along `set` into an element of `out`, which has the shape that is left.
///
/// # Errors
/// A dtype has no conversion.
pub(crate) fn accumulate<W, S, R>(
    input: Tensor,
    set: DimSet,
    out: &mut Out,
    fold: Fold<S, impl Fn(S, W) -> S + Sync, impl Fn(S, S) -> S + Sync, impl Fn(S) -> R + Sync>,
) -> Result<(), KernelError>
where
    W: Wide,
    S: Copy + Send + Sync,
    R: Lane,
{
    let rows = Rows::new(input, set);
    if !out.is_contiguous() {
        let mut writer = Writer::<R>::whole(out);
        return span(&rows, 0, rows.count, &fold, |values| {
            writer.write(out, values.len(), |slots| slots.copy_from_slice(values))
        });
    }
    let (parallel, dtype) = (out.parallel(), out.dtype());
    // Few rows are divided themselves.
    if rows.count < parallel.threads() && !rows.across && rows.len >= 2 * PIECE {
        let mut writer = Writer::<R>::whole(out);
        for row in 0..rows.count {
            let value = (fold.finish)(long_row(&rows, row, &fold, parallel)?);
            writer.push(out, value)?;
        }
        return Ok(());
    }
    let len = portion(parallel, rows.count, rows.len.max(1), 1);
    each(parallel, out.chunks(len).enumerate(), |(i, chunk)| {
        let mut out = Out::of_chunk(dtype, chunk);
        let count = out.sizes()[0] as usize;
        let mut writer = Writer::<R>::new(out.sizes(), &[1]);
        span(&rows, i * len, count, &fold, |values| {
            writer.write(&mut out, values.len(), |slots| slots.copy_from_slice(values))
        })
    })
}

/// Folds `count` rows from the row `first` on; their values go to `store` in order.
fn span<W: Wide, S: Copy + Send + Sync, R: Lane>(
    rows: &Rows,
    first: usize,
    count: usize,
    fold: &Fold<S, impl Fn(S, W) -> S + Sync, impl Fn(S, S) -> S + Sync, impl Fn(S) -> R + Sync>,
    mut store: impl FnMut(&[R]) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    let mut starts = rows.starts;
    starts.skip_to(first);
    let mut values = [R::default(); LANES];
    let mut done = 0usize;
    if rows.across {
        let mut reader = Reader::<W>::over_lines(rows.input);
        while done < count {
            let (start, _, take) = starts.run(LANES.min(count - done));
            let mut states = [fold.start; LANES];
            let states = &mut states[..take];
            let mut inside = rows.inside;
            inside.seek(start);
            for _ in 0..rows.len {
                reader.seek(inside.step());
                for (state, &x) in states.iter_mut().zip(reader.read(take)?) {
                    *state = (fold.step)(*state, x);
                }
            }
            for (value, &state) in values.iter_mut().zip(&*states) {
                *value = (fold.finish)(state);
            }
            store(&values[..take])?;
            done += take;
        }
        return Ok(());
    }
    let mut reader = Reader::<W>::walking(rows.input, rows.inside);
    while done < count {
        let take = LANES.min(count - done);
        for value in &mut values[..take] {
            let start = starts.step();
            let mut state = None;
            for (from, len) in cuts(rows.len) {
                reader.seek(start);
                reader.skip(from);
                let piece = along(&mut reader, len, fold)?;
                state = Some(state.map_or(piece, |have| (fold.join)(have, piece)));
            }
            *value = (fold.finish)(state.unwrap_or(fold.start));
        }
        store(&values[..take])?;
        done += take;
    }
    Ok(())
}

/// Where a row of `len` elements is cut: first element and length of each piece.
fn cuts(len: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    let piece = len.div_ceil(PIECES).max(PIECE);
    (0..len.div_ceil(piece)).map(move |i| (i * piece, piece.min(len - i * piece)))
}

/// Folds the row of this number, its pieces on several threads.
fn long_row<W: Wide, S: Copy + Send + Sync, R>(
    rows: &Rows,
    row: usize,
    fold: &Fold<S, impl Fn(S, W) -> S + Sync, impl Fn(S, S) -> S + Sync, impl Fn(S) -> R + Sync>,
    parallel: Parallel,
) -> Result<S, KernelError> {
    let mut starts = rows.starts;
    starts.skip_to(row);
    let start = starts.step();
    let mut states = [fold.start; PIECES];
    let count = cuts(rows.len).len();
    each(
        parallel,
        states[..count].iter_mut().zip(cuts(rows.len)),
        |(state, (from, len))| {
            let mut reader = Reader::<W>::walking(rows.input, rows.inside);
            reader.seek(start);
            reader.skip(from);
            *state = along(&mut reader, len, fold)?;
            Ok(())
        },
    )?;
    Ok(states[1..count]
        .iter()
        .fold(states[0], |have, &piece| (fold.join)(have, piece)))
}

/// Folds the next `len` elements.
fn along<W: Wide, S: Copy + Send + Sync, R>(
    reader: &mut Reader<W>,
    len: usize,
    fold: &Fold<S, impl Fn(S, W) -> S + Sync, impl Fn(S, S) -> S + Sync, impl Fn(S) -> R + Sync>,
) -> Result<S, KernelError> {
    let mut states = [fold.start; SIDE];
    let mut done = 0usize;
    while done < len {
        let take = LANES.min(len - done);
        let piece = reader.read(take)?;
        let mut chunks = piece.chunks_exact(SIDE);
        for chunk in &mut chunks {
            for (state, &x) in states.iter_mut().zip(chunk) {
                *state = (fold.step)(*state, x);
            }
        }
        for (state, &x) in states.iter_mut().zip(chunks.remainder()) {
            *state = (fold.step)(*state, x);
        }
        done += take;
    }
    Ok(states[1..]
        .iter()
        .fold(states[0], |have, &state| (fold.join)(have, state)))
}
