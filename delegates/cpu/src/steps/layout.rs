//! Dimensions change places.

use super::Step;
use crate::plan::Shapes;
use crate::sys::{Io, Plain};
use delegraph_cpu_kernels::{Isa, Pool, layout};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::permute(x, dims)`: as `aten::permute`, contiguous.
pub const NAME: &str = "cpu::permute";

/// Dimensions that the kernels know: elements of 1, 2, 4 or 8 bytes, by strides of elements.
struct Tensor {
    sizes: Vec<usize>,
    from: Vec<usize>,
    to: Vec<usize>,
    /// Bytes of an element.
    width: usize,
}

/// Dimensions that a kernel can move at once.
const DIMS: usize = 8;

/// Dimensions of sizes and bytes between neighbours, from the outermost: what kernels do not know.
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

/// The step of `aten::permute` and `aten::transpose.int`; `None`: the arguments are unusual.
pub fn operator(node: &Arguments<'_>, shapes: &Shapes) -> Option<Result<Box<dyn Step>, Error>> {
    let input = node.value(0).ok()?;
    let sizes = shapes.of(input);
    let (rank, output) = (sizes.len(), node.output(0).ok()?);
    let axis = |d: i64| {
        usize::try_from(if d < 0 { d + rank as i64 } else { d })
            .ok()
            .filter(|d| *d < rank)
    };
    let mut order: Vec<usize> = (0..rank).collect();
    match node.op() {
        "aten::permute" => order = node.ints(1).ok()?.into_iter().map(axis).collect::<Option<_>>()?,
        _ => order.swap(axis(node.int(1).ok()?)?, axis(node.int(2).ok()?)?),
    }
    let mut sorted = order.clone();
    sorted.sort_unstable();
    let made = order.iter().map(|d| sizes[*d]);
    let same = shapes.dtype(input) == shapes.dtype(output) && made.eq(shapes.of(output).iter().copied());
    let width = shapes
        .dtype(input)
        .size()
        .filter(|_| same && sorted.into_iter().eq(0..rank))?;
    Some(Ok(step(sizes, &order, width)))
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
    if merged.len() <= DIMS && matches!(width, 1 | 2 | 4 | 8) {
        let sizes: Vec<usize> = merged.iter().map(|(size, _)| *size).collect();
        let to = (0..sizes.len()).map(|d| sizes[d + 1..].iter().product()).collect();
        let from = merged.iter().map(|(_, stride)| stride / width).collect();
        return Box::new(Tensor { sizes, from, to, width });
    }
    let mut element = width;
    if let Some(&(size, stride)) = merged.last()
        && stride == width
    {
        element = size * width;
        merged.pop();
    }
    Box::new(Permute {
        sizes: merged.iter().map(|(size, _)| *size).collect(),
        strides: merged.iter().map(|(_, stride)| *stride).collect(),
        width: element,
    })
}

impl Step for Tensor {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        match self.width {
            1 => self.moved::<u8>(io, pool),
            2 => self.moved::<u16>(io, pool),
            4 => self.moved::<f32>(io, pool),
            _ => self.moved::<i64>(io, pool),
        }
        Ok(())
    }
}

impl Tensor {
    /// Moves elements as `T`, which have as many bytes.
    fn moved<T: Plain>(&self, io: Io<'_>, pool: &dyn Pool) {
        let mut io = io;
        let (from, to) = (io.input::<T>(0), io.output::<T>(0));
        layout::permute(Isa::best(), pool, &self.sizes, from, &self.from, to, &self.to);
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
