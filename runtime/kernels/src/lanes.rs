//! Strided tensors read and written a few hundred elements at a time, converted to the type that a kernel computes in.
//!
//! Every elementwise and row-wise kernel is: read a piece of each input, run a plain loop over slices, write a piece. Where a
//! tensor lies straight in memory in the computing type, the piece is borrowed and nothing is copied.

use crate::wide::{Stored, Wide, with_stored};
use crate::{KernelError, Out, Tensor};
use delegraph_types::{Complex, DType, Dims, Element, MAX_RANK, Scalar};

/// Elements of a piece.
pub(crate) const LANES: usize = 512;

/// A walk over strided elements in row-major order of the given sizes; neighbouring dimensions are joined where they can be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    rank: usize,
    sizes: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    index: [usize; MAX_RANK],
    /// Offset of the present innermost run.
    at: usize,
    /// Elements done of the present innermost run.
    done: usize,
}

impl Walk {
    /// Over `sizes` with `strides` (both in elements, of one length, not negative).
    pub fn new(sizes: &[i64], strides: &[i64]) -> Walk {
        let mut walk = Walk {
            rank: 1,
            sizes: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            index: [0; MAX_RANK],
            at: 0,
            done: 0,
        };
        walk.strides[0] = 1;
        let mut rank = 0usize;
        for (&size, &stride) in sizes.iter().zip(strides) {
            let (size, stride) = (size.max(0) as usize, stride.max(0) as usize);
            if size == 1 {
                continue;
            }
            if rank > 0 && stride.checked_mul(size) == Some(walk.strides[rank - 1]) {
                walk.sizes[rank - 1] = walk.sizes[rank - 1].saturating_mul(size);
                walk.strides[rank - 1] = stride;
            } else if rank < MAX_RANK {
                walk.sizes[rank] = size;
                walk.strides[rank] = stride;
                rank += 1;
            }
        }
        walk.rank = rank.max(1);
        walk
    }

    /// Starts again, with the first element at `offset`.
    pub fn seek(&mut self, offset: usize) {
        self.index = [0; MAX_RANK];
        self.at = offset;
        self.done = 0;
    }

    /// Elements one after the other in the innermost run.
    pub fn is_straight(&self) -> bool {
        self.strides[self.rank - 1] == 1 && self.sizes[self.rank - 1] > 1
    }

    /// Starts again at offset 0, before the element of this number.
    pub fn skip_to(&mut self, element: usize) {
        self.seek(0);
        self.skip(element);
    }

    /// Passes over elements, from where it was sought to.
    pub fn skip(&mut self, element: usize) {
        let inner = self.rank - 1;
        let size = self.sizes[inner].max(1);
        let mut rest = element / size;
        self.done = element % size;
        for d in (0..inner).rev() {
            let size = self.sizes[d].max(1);
            self.index[d] = rest % size;
            self.at += self.index[d] * self.strides[d];
            rest /= size;
        }
    }

    /// Offset of the next `count` elements if they lie one after the other.
    fn straight(&self, count: usize) -> Option<usize> {
        let inner = self.rank - 1;
        (self.strides[inner] == 1 && self.done + count <= self.sizes[inner]).then_some(self.at + self.done)
    }

    /// Goes over the next `count` elements, calling `run(offset, stride, count)` for each piece of an innermost run.
    fn advance(&mut self, count: usize, mut run: impl FnMut(usize, usize, usize)) {
        let mut left = count;
        while left > 0 && self.sizes[self.rank - 1] > 0 {
            let (offset, stride, take) = self.run(left);
            run(offset, stride, take);
            left -= take;
        }
    }

    /// The next elements of the present innermost run, at most `limit`: offset, stride and how many.
    pub fn run(&mut self, limit: usize) -> (usize, usize, usize) {
        let inner = self.rank - 1;
        let (size, stride) = (self.sizes[inner], self.strides[inner]);
        let take = limit.min(size - self.done);
        let offset = self.at + self.done * stride;
        self.done += take;
        if self.done == size {
            self.done = 0;
            self.carry(inner);
        }
        (offset, stride, take)
    }

    fn carry(&mut self, inner: usize) {
        for d in (0..inner).rev() {
            self.index[d] += 1;
            self.at += self.strides[d];
            if self.index[d] < self.sizes[d] {
                return;
            }
            self.at -= self.strides[d] * self.sizes[d];
            self.index[d] = 0;
        }
    }

    /// Offset of the next element.
    pub fn step(&mut self) -> usize {
        let mut offset = 0;
        self.advance(1, |at, _, _| offset = at);
        offset
    }
}

/// What an elementwise kernel reads: a tensor, or a number at a tensor's place.
// Made a few times a call and copied freely: a box would cost more than the room.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operand<'a> {
    Tensor(Tensor<'a>),
    Number(Scalar),
}

/// Reads a tensor in pieces of up to [`LANES`] elements of `W`.
pub(crate) struct Reader<'a, W> {
    /// `None`: the buffer holds one number throughout.
    tensor: Option<Tensor<'a>>,
    walk: Walk,
    /// Values are rounded or wrapped to this dtype, which is narrower than the tensor's own.
    settle: Option<DType>,
    buffer: [W; LANES],
}

impl<'a, W: Wide> Reader<'a, W> {
    /// Over `sizes` with `strides` in the tensor's memory.
    pub fn new(tensor: Tensor<'a>, sizes: &[i64], strides: &[i64]) -> Reader<'a, W> {
        Reader::walking(tensor, Walk::new(sizes, strides))
    }

    /// Along a walk in the tensor's memory.
    pub fn walking(tensor: Tensor<'a>, walk: Walk) -> Reader<'a, W> {
        Reader {
            tensor: Some(tensor),
            walk,
            settle: None,
            buffer: [W::ZERO; LANES],
        }
    }

    /// Elements that lie one after the other, from wherever it is sought to.
    pub fn over_lines(tensor: Tensor<'a>) -> Reader<'a, W> {
        Reader::walking(tensor, Walk::new(&[i64::MAX], &[1]))
    }

    /// Reads zeros.
    pub fn empty() -> Reader<'a, W> {
        Reader {
            tensor: None,
            walk: Walk::new(&[], &[]),
            settle: None,
            buffer: [W::ZERO; LANES],
        }
    }

    /// A number, or a tensor broadcast to `sizes`, walked with the dimensions in `order`. Values are settled in `common`.
    ///
    /// # Errors
    /// The dtype has no conversion.
    pub fn broadcast(
        operand: &Operand<'a>,
        sizes: &Dims,
        order: &[usize],
        common: Option<DType>,
    ) -> Result<Reader<'a, W>, KernelError> {
        let mut reader = Reader::empty();
        match operand {
            Operand::Number(number) => {
                let value = match number {
                    Scalar::Float(x) => W::load(*x),
                    other => W::load(other.as_i64()),
                };
                reader.buffer.fill(value);
                if let Some(common) = common {
                    settle(&mut reader.buffer, common)?;
                }
            }
            Operand::Tensor(tensor) => {
                let lead = sizes.rank().saturating_sub(tensor.rank());
                let mut walked = Dims::SCALAR;
                let mut strides = Dims::SCALAR;
                for &d in order {
                    let own = d.checked_sub(lead).filter(|&i| tensor.sizes()[i] != 1);
                    let stride = own.map_or(0, |i| tensor.strides()[i]);
                    // Both hold at most as many dimensions as `sizes`.
                    let _ = walked.push(sizes[d]);
                    let _ = strides.push(stride);
                }
                reader.walk = Walk::new(&walked, &strides);
                reader.tensor = Some(*tensor);
                reader.settle = common.filter(|&common| common != tensor.dtype());
                if tensor.numel() == 1 && sizes.numel() != Some(0) {
                    let value = reader.read(1)?[0];
                    reader.buffer.fill(value);
                    reader.tensor = None;
                }
            }
        }
        Ok(reader)
    }

    /// Starts again, with the first element at `offset`.
    pub fn seek(&mut self, offset: usize) {
        self.walk.seek(offset);
    }

    /// Starts again at offset 0, before the element of this number.
    pub fn skip_to(&mut self, element: usize) {
        self.walk.skip_to(element);
    }

    /// Passes over elements, from where it was sought to.
    pub fn skip(&mut self, element: usize) {
        self.walk.skip(element);
    }

    fn is_direct(&self) -> bool {
        self.settle.is_none() && self.tensor.is_some_and(|tensor| tensor.dtype() == W::DTYPE)
    }

    /// Loads the next `count` elements (at most [`LANES`]); they are then had from [`Reader::piece`].
    ///
    /// # Errors
    /// The dtype has no conversion.
    pub fn load(&mut self, count: usize) -> Result<Option<&'a [W]>, KernelError> {
        let Some(tensor) = self.tensor else {
            return Ok(None);
        };
        if self.is_direct()
            && let Some(from) = self.walk.straight(count)
            && let Some(data) = tensor.data::<W>()
        {
            self.walk.advance(count, |_, _, _| {});
            return Ok(Some(&data[from..from + count]));
        }
        let buffer = &mut self.buffer[..count];
        with_stored!(tensor.dtype(), "self", T => {
            let data = tensor.data::<T>().unwrap_or(&[]);
            gather(&mut self.walk, data, buffer, W::load::<T>);
            Ok(())
        })?;
        if tensor.dtype() == DType::Bool {
            for value in buffer.iter_mut() {
                *value = if *value == W::ZERO { W::ZERO } else { W::ONE };
            }
        }
        if let Some(common) = self.settle {
            settle(buffer, common)?;
        }
        Ok(None)
    }

    /// The elements of the last [`Reader::load`] that gave `None`.
    pub fn piece(&self, count: usize) -> &[W] {
        &self.buffer[..count]
    }

    /// The next `count` elements, at most [`LANES`].
    ///
    /// # Errors
    /// The dtype has no conversion.
    pub fn read(&mut self, count: usize) -> Result<&[W], KernelError> {
        Ok(match self.load(count)? {
            Some(direct) => direct,
            None => &self.buffer[..count],
        })
    }
}

fn gather<T: Copy, W>(walk: &mut Walk, data: &[T], buffer: &mut [W], convert: impl Fn(T) -> W)
where
    W: Copy,
{
    let mut filled = 0usize;
    let count = buffer.len();
    walk.advance(count, |from, stride, count| {
        let slots = &mut buffer[filled..filled + count];
        filled += count;
        match stride {
            0 => slots.fill(convert(data[from])),
            1 => {
                for (slot, &value) in slots.iter_mut().zip(&data[from..from + count]) {
                    *slot = convert(value);
                }
            }
            _ => {
                for (slot, &value) in slots.iter_mut().zip(data[from..].iter().step_by(stride)) {
                    *slot = convert(value);
                }
            }
        }
    });
}

/// Rounds or wraps values as if they had been stored in `dtype`.
fn settle<W: Wide>(values: &mut [W], dtype: DType) -> Result<(), KernelError> {
    if dtype == W::DTYPE {
        return Ok(());
    }
    if dtype == DType::Bool {
        for value in values {
            *value = if *value == W::ZERO { W::ZERO } else { W::ONE };
        }
        return Ok(());
    }
    with_stored!(dtype, "self", T => {
        for value in values {
            *value = W::load(T::from_wide(*value));
        }
        Ok(())
    })
}

/// A type that kernels give: a [`Wide`] one, or `u8` for truth values (0 or 1).
pub(crate) trait Lane: Element + Default {
    /// The dtype stored as this without conversion.
    const PLAIN: DType;
    /// The value as an element.
    fn narrow<T: Stored>(self) -> T;
    /// Not zero.
    fn is_true(self) -> bool;
    /// Real and imaginary part.
    fn parts(self) -> [f64; 2];
}

macro_rules! wide_lane {
    ($($ty:ty),*) => {
        $(impl Lane for $ty {
            const PLAIN: DType = <$ty as Element>::DTYPE;
            fn narrow<T: Stored>(self) -> T {
                T::from_wide(self)
            }
            fn is_true(self) -> bool {
                self != <$ty as Wide>::ZERO
            }
            fn parts(self) -> [f64; 2] {
                [Wide::to_f64(self), 0.0]
            }
        })*
    };
}
wide_lane!(f32, f64, i64);

impl Lane for u8 {
    const PLAIN: DType = DType::Bool;
    fn narrow<T: Stored>(self) -> T {
        T::from_wide(i64::from(self))
    }
    fn is_true(self) -> bool {
        self != 0
    }
    fn parts(self) -> [f64; 2] {
        [f64::from(self), 0.0]
    }
}

/// The imaginary part is lost in a real dtype: kernels refuse such an output before.
impl Lane for Complex<f64> {
    const PLAIN: DType = DType::C128;
    fn narrow<T: Stored>(self) -> T {
        T::from_wide(self.re)
    }
    fn is_true(self) -> bool {
        self.re != 0.0 || self.im != 0.0
    }
    fn parts(self) -> [f64; 2] {
        [self.re, self.im]
    }
}

/// Writes an output in pieces of up to [`LANES`] elements.
pub(crate) struct Writer<R> {
    walk: Walk,
    buffer: [R; LANES],
}

impl<R: Lane> Writer<R> {
    /// Over `sizes` with `strides` in the output's memory.
    pub fn new(sizes: &[i64], strides: &[i64]) -> Writer<R> {
        Writer {
            walk: Walk::new(sizes, strides),
            buffer: [R::default(); LANES],
        }
    }

    /// Over the whole output in row-major order.
    pub fn whole(out: &Out) -> Writer<R> {
        Writer::new(out.sizes(), &out.strides())
    }

    /// Starts again, with the first element at `offset`.
    pub fn seek(&mut self, offset: usize) {
        self.walk.seek(offset);
    }

    /// Lets `fill` give the next `count` elements, at most [`LANES`].
    ///
    /// # Errors
    /// The output's dtype has no conversion.
    pub fn write(&mut self, out: &mut Out, count: usize, fill: impl FnOnce(&mut [R])) -> Result<(), KernelError> {
        if out.dtype() == R::PLAIN
            && let Some(to) = self.walk.straight(count)
            && let Some(data) = out.data_mut::<R>()
        {
            fill(&mut data[to..to + count]);
            self.walk.advance(count, |_, _, _| {});
            return Ok(());
        }
        fill(&mut self.buffer[..count]);
        let values = &self.buffer[..count];
        if out.dtype() == DType::Bool {
            let data = out.data_mut::<u8>().unwrap_or(&mut []);
            scatter(&mut self.walk, values, data, |value| u8::from(value.is_true()));
            return Ok(());
        }
        match out.dtype() {
            DType::C64 => {
                let data = out.data_mut::<Complex<f32>>().unwrap_or(&mut []);
                scatter(&mut self.walk, values, data, |value| {
                    let [re, im] = value.parts();
                    Complex::new(re as f32, im as f32)
                });
                return Ok(());
            }
            DType::C128 => {
                let data = out.data_mut::<Complex<f64>>().unwrap_or(&mut []);
                scatter(&mut self.walk, values, data, |value| {
                    let [re, im] = value.parts();
                    Complex::new(re, im)
                });
                return Ok(());
            }
            _ => {}
        }
        with_stored!(out.dtype(), "out", T => {
            let data = out.data_mut::<T>().unwrap_or(&mut []);
            scatter(&mut self.walk, values, data, R::narrow::<T>);
            Ok(())
        })
    }

    /// Writes one element.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn push(&mut self, out: &mut Out, value: R) -> Result<(), KernelError> {
        self.write(out, 1, |slots| slots[0] = value)
    }
}

fn scatter<R: Copy, T: Copy>(walk: &mut Walk, values: &[R], data: &mut [T], convert: impl Fn(R) -> T) {
    let mut taken = 0usize;
    walk.advance(values.len(), |to, stride, count| {
        let values = &values[taken..taken + count];
        taken += count;
        if stride == 1 {
            for (slot, &value) in data[to..to + count].iter_mut().zip(values) {
                *slot = convert(value);
            }
        } else {
            for (slot, &value) in data[to..].iter_mut().step_by(stride.max(1)).zip(values) {
                *slot = convert(value);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(sizes: &[i64], strides: &[i64], piece: usize) -> Vec<usize> {
        let count = sizes.iter().product::<i64>() as usize;
        let mut walk = Walk::new(sizes, strides);
        let mut all = Vec::new();
        while all.len() < count {
            let take = piece.min(count - all.len());
            walk.advance(take, |at, stride, n| all.extend((0..n).map(|i| at + i * stride)));
        }
        all
    }

    #[test]
    fn a_walk_visits_elements_in_row_major_order_in_pieces_of_any_size() {
        for piece in 1..8 {
            assert_eq!(offsets(&[2, 3], &[1, 2], piece), [0, 2, 4, 1, 3, 5]);
            assert_eq!(offsets(&[2, 1, 2, 2], &[4, 9, 2, 1], piece), [0, 1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(offsets(&[2, 3], &[0, 1], piece), [0, 1, 2, 0, 1, 2]);
            assert_eq!(offsets(&[3, 2], &[1, 0], piece), [0, 0, 1, 1, 2, 2]);
        }
        assert_eq!(offsets(&[], &[], 1), [0]);
    }

    #[test]
    fn a_walk_begins_anywhere() {
        for (sizes, strides) in [
            ([2i64, 3, 4], [12i64, 4, 1]),
            ([2, 3, 4], [1, 2, 6]),
            ([3, 1, 5], [0, 9, 2]),
        ] {
            let all = offsets(&sizes, &strides, 1);
            for from in 0..all.len() {
                let mut walk = Walk::new(&sizes, &strides);
                walk.skip_to(from);
                let rest: Vec<usize> = (from..all.len()).map(|_| walk.step()).collect();
                assert_eq!(rest, all[from..]);
            }
        }
    }

    #[test]
    fn contiguous_dimensions_are_joined() {
        assert_eq!(Walk::new(&[2, 3, 4], &[12, 4, 1]).straight(24), Some(0));
        assert_eq!(Walk::new(&[2, 3, 4], &[24, 4, 1]).straight(13), None);
    }
}
