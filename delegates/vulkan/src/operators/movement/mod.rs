//! Operators that only move elements, and the engine that they share: strided views of tensors are made contiguous by one kernel, for
//! elements of any size.

#[cfg(test)]
mod dispatch_tests;
pub mod edges;
pub mod join;
pub mod pad;
pub mod parts;
pub mod rearrange;
pub mod views;

use crate::caps::{self, Refusal};
use crate::encoder::{Bind, Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor, checked_count, strides};
use delegraph_sdk::image::{NodeView, ValueIndex};
use delegraph_sdk::{DType, Error};

/// Two's logarithm of the bytes of a vector, the widest element that kernels move.
pub const WIDE: u32 = 4;

/// A dimension of a strided view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// How many.
    pub size: u32,
    /// Elements of the source from one to the next.
    pub stride: i64,
}

/// Elements of a tensor, as a start and strides in its memory.
#[derive(Debug, Clone)]
pub struct View {
    /// Where they are.
    pub source: Tensor,
    /// Place of the first.
    pub start: i64,
    /// The outermost first.
    pub axes: Vec<Axis>,
}

impl View {
    /// All elements of a tensor, in whichever layout it lies.
    pub fn of(source: &Tensor) -> View {
        let strides: Vec<u32> = match (source.layout, source.dims.as_slice()) {
            (Layout::Nhwc4, [_, c, h, w]) => {
                let padded = c.next_multiple_of(4);
                vec![h * w * padded, 1, w * padded, padded]
            }
            _ => strides(&source.dims),
        };
        let axes = source.dims.iter().zip(strides);
        View {
            source: source.clone(),
            start: 0,
            axes: axes
                .map(|(size, stride)| Axis {
                    size: *size,
                    stride: i64::from(stride),
                })
                .collect(),
        }
    }

    /// Dimensions in another order.
    #[must_use]
    pub fn permuted(mut self, order: &[usize]) -> View {
        self.axes = order.iter().filter_map(|d| self.axes.get(*d).copied()).collect();
        self
    }

    /// The elements `start`, `start + step`, … of a dimension.
    #[must_use]
    pub fn sliced(mut self, at: usize, start: i64, len: u32, step: i64) -> View {
        if let Some(axis) = self.axes.get_mut(at) {
            self.start += start * axis.stride;
            axis.size = len;
            axis.stride *= step;
        }
        self
    }

    /// Places of the first and the last element in memory; `None` if there are none.
    fn reach(&self) -> Option<(i64, i64)> {
        let (mut first, mut last) = (self.start, self.start);
        for axis in &self.axes {
            let far = i64::from(axis.size.checked_sub(1)?).checked_mul(axis.stride)?;
            (first, last) = (first.checked_add(far.min(0))?, last.checked_add(far.max(0))?);
        }
        Some((first, last))
    }

    /// What has to be bound to reach all elements; `None`: there are none.
    pub fn bound(&self) -> Option<Bound> {
        let element = i64::from(self.source.element());
        let (first, last) = self.reach()?;
        let offset = first * element / 256 * 256;
        Some(Bound {
            offset: offset as u64,
            bytes: ((last + 1) * element - offset) as u64,
            skipped: offset / element,
        })
    }

    /// All elements of a row-major tensor in order, in the sizes of other axes.
    fn dense(of: &Tensor, axes: &[Axis]) -> View {
        let sizes: Vec<u32> = axes.iter().map(|a| a.size).collect();
        let strides = strides(&sizes).into_iter().zip(&sizes);
        let axes = strides.map(|(stride, size)| Axis {
            size: *size,
            stride: i64::from(stride),
        });
        View {
            source: of.clone(),
            start: 0,
            axes: axes.collect(),
        }
    }

    /// The number of elements.
    ///
    /// # Errors
    /// There are more than kernels count, or some lie outside of the tensor.
    fn check(&self) -> Result<u32, Error> {
        let sizes: Vec<u32> = self.axes.iter().map(|a| a.size).collect();
        let count = checked_count(&sizes)?;
        let inside = |(first, last)| first >= 0 && last < i64::from(self.source.stored());
        match count == 0 || self.reach().is_some_and(inside) {
            true => Ok(count),
            false => Err(Error::invalid("a view reaches beyond the memory of its tensor")),
        }
    }
}

/// Axes without those of size 1, neighbours joined where they are one.
pub fn compact(axes: &[Axis]) -> Vec<Axis> {
    let mut kept: Vec<Axis> = Vec::with_capacity(axes.len());
    for axis in axes.iter().filter(|a| a.size != 1) {
        match kept.last_mut() {
            Some(outer) if outer.stride == axis.stride * i64::from(axis.size) => {
                *outer = Axis {
                    size: outer.size.saturating_mul(axis.size),
                    stride: axis.stride,
                };
            }
            _ => kept.push(*axis),
        }
    }
    kept
}

/// Two's logarithm of the bytes of an element.
pub fn kind(dtype: DType) -> u32 {
    dtype.size().map_or(0, usize::trailing_zeros)
}

/// How many times an element can be widened, as two's logarithm: to vectors, else to whole words, else to half words.
pub fn widening(kind: u32, fits: impl Fn(i64) -> bool) -> u32 {
    let steps = [WIDE, 2, 1].into_iter().filter_map(|wide| wide.checked_sub(kind));
    steps.filter(|by| *by > 0).find(|by| fits(1 << *by)).unwrap_or(0)
}

/// Invocations for `count` elements: a word each, or a vector.
pub fn units(count: u32, kind: u32) -> u32 {
    match kind {
        WIDE => count,
        2.. => count << (kind - 2),
        _ => count.div_ceil(4 >> kind),
    }
}

/// A number that a kernel takes as a word: negative ones wrap.
fn word(value: i64) -> u32 {
    value as u32
}

/// The filling of `include/pull.wgsl`: the bits of an element, repeated to 8 bytes.
pub fn filling(bits: u64, kind: u32) -> [u32; 2] {
    let bits = match kind {
        0 => (bits & 0xff) * 0x0101_0101_0101_0101,
        1 => (bits & 0xffff) * 0x0001_0001_0001_0001,
        2 => (bits & 0xffff_ffff) * 0x0000_0001_0000_0001,
        _ => bits,
    };
    [bits as u32, (bits >> 32) as u32]
}

/// Writes the elements of a view to a new tensor `out`, in order.
///
/// # Errors
/// The view reaches beyond its tensor, or the device cannot.
pub fn strided(e: &mut Encoder<'_>, view: &View, out: &Tensor) -> Result<(), Error> {
    let count = view.check()?;
    if count == 0 {
        return Ok(());
    }
    let range = e.facts().limits.storage_range;
    if out.bytes().next_multiple_of(16) > range || view.bound().is_some_and(|part| part.bytes > range) {
        return parts::put(e, view, &View::dense(out, &view.axes));
    }
    let (source, mut start) = bound(e, view);
    let mut axes = compact(&view.axes);
    let mut kind = kind(out.dtype);
    // One run may be copied to the end of its last vector: tensors end where vectors do.
    let run = matches!(axes[..], [] | [Axis { stride: 1, .. }]);
    let by = widening(kind, |by| {
        let last = axes.last().map_or(run, |a| a.stride == 1);
        let outer = axes.iter().rev().skip(1).all(|a| a.stride % by == 0);
        last && outer && start % by == 0 && (run || axes.last().is_some_and(|a| i64::from(a.size) % by == 0))
    });
    if axes.is_empty() {
        axes.push(Axis { size: 1, stride: 1 });
    }
    if by > 0 {
        kind += by;
        start >>= by;
        let inner = axes.len() - 1;
        axes[..inner].iter_mut().for_each(|a| a.stride >>= by);
        axes[inner].size = axes[inner].size.div_ceil(1 << by);
    }
    let count: u32 = axes.iter().map(|a| a.size).product();
    let mut params = vec![count, kind, 0, 0, word(start), axes.len() as u32];
    params.extend(axes.iter().flat_map(|a| [a.size, word(a.stride)]));
    let kernel = if kind == WIDE {
        &kernels::MOVE_WIDE
    } else {
        &kernels::MOVE_WORDS
    };
    e.dispatch(kernel, &[source, write(out)], &params, grid(units(count, kind), 64))
}

/// The source of a view as an operand, and where the view begins in it. Only what is read is bound, where all of it is too much for the device.
fn bound(e: &Encoder<'_>, view: &View) -> (Bind, i64) {
    match view.bound() {
        Some(part) if view.source.bytes().next_multiple_of(16) > e.facts().limits.storage_range => (
            read(&view.source).part(part.offset, part.bytes),
            view.start - part.skipped,
        ),
        _ => (read(&view.source), view.start),
    }
}

/// The bytes of a tensor that a view needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// First byte, a multiple of 256.
    pub offset: u64,
    /// Bytes from there on.
    pub bytes: u64,
    /// Elements before the first byte.
    pub skipped: i64,
}

/// Says that a value is what a view shows: the same memory where that is one run of it, else a new tensor.
///
/// # Errors
/// The view has other elements than the graph declares, or as [`strided`].
pub fn show(e: &mut Encoder<'_>, value: ValueIndex, view: &View) -> Result<(), Error> {
    let (dtype, dims) = (e.dtype(value)?, e.dims(value)?);
    let count = view.check()?;
    if count != checked_count(&dims)? || dtype != view.source.dtype {
        return Err(Error::invalid(format!("{count} elements do not make up {dims:?}")));
    }
    let run = matches!(compact(&view.axes)[..], [] | [Axis { stride: 1, .. }]);
    let skipped = view.start as u64 * u64::from(view.source.element());
    if run && count > 0 && skipped.is_multiple_of(256) {
        let tensor = Tensor {
            offset: view.source.offset + skipped,
            dims,
            layout: Layout::RowMajor,
            ..view.source.clone()
        };
        e.set(value, tensor);
        return Ok(());
    }
    let out = e.make(dtype, &dims, Layout::RowMajor)?;
    strided(e, view, &out)?;
    e.set(value, out);
    Ok(())
}

/// The tensor at an argument in the layout that it lies in.
///
/// # Errors
/// As [`Encoder::tensor`].
pub fn as_it_lies(e: &mut Encoder<'_>, value: ValueIndex) -> Result<Tensor, Error> {
    let layout = e.layout(value);
    e.tensor(value, layout)
}

/// The view of all of the tensor at an argument, in whichever layout it lies.
///
/// # Errors
/// As [`Encoder::tensor`].
pub fn view_of(e: &mut Encoder<'_>, node: &Node<'_>, argument: usize) -> Result<View, Error> {
    Ok(View::of(&as_it_lies(e, node.value(argument)?)?))
}

/// The same elements in another layout; the same memory where they lie the same in both.
///
/// # Errors
/// The tensor does not fit the layout.
pub fn to_layout(e: &mut Encoder<'_>, tensor: &Tensor, layout: Layout) -> Result<Tensor, Error> {
    let [batch, channels, height, width] = tensor.dims[..] else {
        return Err(Error::internal("only tensors of four dimensions change their layout"));
    };
    let padded = channels.next_multiple_of(4);
    let area = height * width;
    // The elements in order are those in memory, and where there is padding behind them, it is only needed channels last.
    let same = match layout {
        Layout::RowMajor => channels == 1 && padded == 1 || area == 1 && (padded == channels || batch == 1),
        Layout::Nhwc4 => area == 1 && padded == channels,
    };
    if same {
        return Ok(Tensor {
            layout,
            ..tensor.clone()
        });
    }
    let moved = e.make(tensor.dtype, &tensor.dims, layout)?;
    let (count, kind) = (moved.stored(), kind(tensor.dtype));
    if count == 0 {
        return Ok(moved);
    }
    if tensor.bytes().max(moved.bytes()).next_multiple_of(16) > e.facts().limits.storage_range {
        if layout == Layout::Nhwc4 && padded != channels {
            e.clear(&moved)?;
        }
        parts::put(e, &View::of(tensor), &View::of(&moved))?;
        return Ok(moved);
    }
    let kernel = match layout {
        Layout::Nhwc4 => &kernels::TRANSFER_TO_NHWC4,
        Layout::RowMajor => &kernels::TRANSFER_TO_NCHW,
    };
    let params = [count, kind, 0, 0, channels, padded, area];
    let groups = grid(units(count, kind), 64);
    e.dispatch(kernel, &[read(tensor), write(&moved)], &params, groups)?;
    Ok(moved)
}

/// Element types that are moved: any of 1, 2, 4 or 8 bytes that is one number.
pub fn is_movable(dtype: DType) -> bool {
    !matches!(dtype, DType::C64) && matches!(dtype.size(), Some(1 | 2 | 4 | 8))
}

/// Every tensor is of a type that is moved, and all that are read are of the type that is made.
///
/// # Errors
/// The first that is not.
pub fn moves(node: &NodeView<'_>) -> Result<(), Refusal> {
    movable(node)?;
    let made = caps::output_dtype(node);
    match node.inputs().all(|v| caps::dtype_of(node, v) == made) {
        true => Ok(()),
        false => Err(Refusal::dtype(format!("`{}` of different types", node.op()))),
    }
}

/// Every tensor is of a type that is moved.
///
/// # Errors
/// The first that is not.
pub fn movable(node: &NodeView<'_>) -> Result<(), Refusal> {
    for value in node.inputs().chain(node.outputs().iter()) {
        if !caps::dtype_of(node, value).is_some_and(is_movable) {
            let name = node.image().value(value).name();
            return Err(Refusal::dtype(format!("`{name}` is of a type that is not moved")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[u32], layout: Layout) -> Tensor {
        Tensor {
            storage: 0,
            offset: 0,
            dtype: DType::F32,
            dims: dims.to_vec(),
            layout,
        }
    }

    #[test]
    fn neighbours_are_joined() {
        let axis = |size, stride| Axis { size, stride };
        let view = View::of(&tensor(&[2, 1, 3, 4], Layout::RowMajor));
        assert_eq!(compact(&view.axes), [axis(24, 1)]);
        assert_eq!(
            compact(&view.clone().permuted(&[2, 3, 0, 1]).axes),
            [axis(12, 1), axis(2, 12)]
        );
        assert_eq!(compact(&view.sliced(3, 3, 4, -1).axes), [axis(6, 4), axis(4, -1)]);
        let last = View::of(&tensor(&[1, 8, 2, 3], Layout::Nhwc4)).permuted(&[0, 2, 3, 1]);
        assert_eq!(compact(&last.axes), [axis(48, 1)]);
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let view = View::of(&tensor(&[2, 3], Layout::RowMajor));
        assert_eq!(view.check().unwrap(), 6);
        assert_eq!(view.clone().sliced(1, 2, 3, -1).check().unwrap(), 6);
        assert!(view.clone().sliced(1, 1, 3, 1).check().is_err());
        assert!(view.clone().sliced(1, 1, 3, -1).check().is_err());
        assert_eq!(view.sliced(1, 9, 0, 1).check().unwrap(), 0);
    }

    #[test]
    fn widths() {
        assert_eq!(widening(0, |by| 8 % by == 0), 2);
        assert_eq!(widening(0, |by| 2 % by == 0), 1);
        assert_eq!(widening(2, |by| 8 % by == 0), 2);
        assert_eq!(widening(2, |by| 2 % by == 0), 0);
        assert_eq!(widening(3, |by| 2 % by == 0), 1);
        assert_eq!(units(5, 0), 2);
        assert_eq!(units(5, 1), 3);
        assert_eq!(units(5, 3), 10);
        assert_eq!(filling(0x1_02, 0), [0x0202_0202; 2]);
    }
}
