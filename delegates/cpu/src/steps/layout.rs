//! Dimensions change places.

use super::Step;
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::Pool;
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::permute(x, dims)`: as `aten::permute`, contiguous.
pub const NAME: &str = "cpu::permute";

/// Rows and columns that change places, for each of a batch; elements may be runs of bytes.
struct Transpose {
    batch: usize,
    rows: usize,
    columns: usize,
    /// Bytes of an element.
    width: usize,
}

/// Dimensions of sizes and bytes between neighbours, from the outermost: what cannot be said as one transposition.
struct Permute {
    sizes: Vec<usize>,
    strides: Vec<usize>,
    /// Bytes that stay together.
    width: usize,
}

/// Makes the step.
///
/// # Errors
/// Dimensions that are no permutation.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (input, dims) = (node.value(0)?, node.ints(1)?);
    let sizes = shapes.of(input);
    let width = shapes.dtype(input).size().unwrap_or(1);
    let order: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let order = order.filter(|order| {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted.into_iter().eq(0..sizes.len())
    });
    let order = order.ok_or_else(|| node.misfit(1, "a permutation of the dimensions"))?;
    let made = shapes.of(node.output(0)?);
    match order.iter().map(|d| sizes[*d]).eq(made.iter().copied()) {
        true => Ok(step(sizes, &order, width)),
        false => Err(Error::invalid(format!(
            "sizes {sizes:?} in the order {order:?} are not {made:?}"
        ))),
    }
}

/// The step that moves elements of `width` bytes, by the sizes of the input and the order of its dimensions in the output.
pub fn step(sizes: &[usize], order: &[usize], width: usize) -> Box<dyn Step> {
    let mut strides = vec![width; sizes.len()];
    for d in (0..sizes.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * sizes[d + 1];
    }
    // Dimensions of one element say nothing; neighbours that stay neighbours are one.
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for &d in order.iter().filter(|d| sizes[**d] != 1) {
        match merged.last_mut() {
            Some((size, stride)) if *stride == sizes[d] * strides[d] => {
                (*size, *stride) = (*size * sizes[d], strides[d])
            }
            _ => merged.push((sizes[d], strides[d])),
        }
    }
    let mut element = width;
    if let Some(&(size, stride)) = merged.last()
        && stride == width
    {
        element = size * width;
        merged.pop();
    }
    match merged[..] {
        [] => Box::new(Permute {
            sizes: vec![1],
            strides: vec![0],
            width: element,
        }),
        // Columns of the input are rows of the output.
        [(columns, near), (rows, far)] if near == element && far == columns * element => Box::new(Transpose {
            batch: 1,
            rows,
            columns,
            width: element,
        }),
        [(batch, all), (columns, near), (rows, far)]
            if near == element && far == columns * element && all == rows * columns * element =>
        {
            Box::new(Transpose {
                batch,
                rows,
                columns,
                width: element,
            })
        }
        _ => Box::new(Permute {
            sizes: merged.iter().map(|(size, _)| *size).collect(),
            strides: merged.iter().map(|(_, stride)| *stride).collect(),
            width: element,
        }),
    }
}

/// Rows and columns of a block that is moved while it is in the first cache.
const BLOCK: usize = 16;

impl Step for Transpose {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let (from, to) = (io.bytes(0), io.output_bytes(0));
        let (rows, columns, width) = (self.rows, self.columns, self.width);
        let one = rows * columns * width;
        if one == 0 || self.batch == 0 {
            return Ok(());
        }
        let stripes = columns.div_ceil(BLOCK);
        let work = one / stripes / 4;
        let parts = delegraph_cpu_kernels::pool::parts(pool, self.batch * stripes, work);
        let shared = delegraph_cpu_kernels::pool::Shared::new(to);
        pool.run(parts, &|part| {
            for at in delegraph_cpu_kernels::pool::range(self.batch * stripes, parts, part, 1) {
                let (batch, stripe) = (at / stripes, at % stripes);
                let (first, last) = (stripe * BLOCK, ((stripe + 1) * BLOCK).min(columns));
                let from = &from[batch * one..][..one];
                let start = batch * one + first * rows * width;
                // SAFETY: stripes are parts of the output that nobody else has.
                let to = unsafe { shared.slice(start..start + (last - first) * rows * width) };
                match width {
                    4 => stripe_of::<4>(from, to, (rows, columns), first..last),
                    2 => stripe_of::<2>(from, to, (rows, columns), first..last),
                    1 => stripe_of::<1>(from, to, (rows, columns), first..last),
                    8 => stripe_of::<8>(from, to, (rows, columns), first..last),
                    _ => {
                        for column in first..last {
                            for row in 0..rows {
                                let at = ((column - first) * rows + row) * width;
                                to[at..at + width].copy_from_slice(&from[(row * columns + column) * width..][..width]);
                            }
                        }
                    }
                }
            }
        });
        Ok(())
    }
}

/// Moves some columns of a matrix, of elements of `W` bytes, to the rows of another.
fn stripe_of<const W: usize>(
    from: &[u8],
    to: &mut [u8],
    (rows, columns): (usize, usize),
    range: std::ops::Range<usize>,
) {
    let (from, to) = (from.as_chunks::<W>().0, to.as_chunks_mut::<W>().0);
    for block in (0..rows).step_by(BLOCK) {
        for row in block..(block + BLOCK).min(rows) {
            for (at, element) in from[row * columns + range.start..row * columns + range.end]
                .iter()
                .enumerate()
            {
                to[at * rows + row] = *element;
            }
        }
    }
}

impl Step for Permute {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let (from, to) = (io.bytes(0), io.output_bytes(0));
        let count: usize = self.sizes.iter().product();
        if count == 0 || self.width == 0 {
            return Ok(());
        }
        let parts = delegraph_cpu_kernels::pool::parts(pool, count, 1 + self.width / 4);
        let shared = delegraph_cpu_kernels::pool::Shared::new(to);
        pool.run(parts, &|part| {
            let range = delegraph_cpu_kernels::pool::range(count, parts, part, 1);
            let mut place: Vec<usize> = vec![0; self.sizes.len()];
            let (mut rest, mut offset) = (range.start, 0);
            for d in (0..place.len()).rev() {
                place[d] = rest % self.sizes[d];
                rest /= self.sizes[d];
                offset += place[d] * self.strides[d];
            }
            // SAFETY: ranges are parts of the output that nobody else has.
            let to = unsafe { shared.slice(range.start * self.width..range.end * self.width) };
            for element in to.chunks_exact_mut(self.width) {
                element.copy_from_slice(&from[offset..offset + self.width]);
                for d in (0..place.len()).rev() {
                    place[d] += 1;
                    offset += self.strides[d];
                    if place[d] < self.sizes[d] {
                        break;
                    }
                    offset -= self.strides[d] * self.sizes[d];
                    place[d] = 0;
                }
            }
        });
        Ok(())
    }
}
