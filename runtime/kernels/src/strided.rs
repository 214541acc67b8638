//! Moving elements between strided layouts, whatever their dtype: every view, slice, join and broadcast is one [`Move`].

use crate::KernelError;

/// Twice the largest rank: a repeat has two axes for each dimension.
const MAX_AXES: usize = 2 * delegraph_types::MAX_RANK;

/// One loop of a [`Move`]: how many steps, and how far each goes in the source and in the destination (in elements).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Axis {
    /// Steps.
    pub size: usize,
    /// Elements between two steps in the source; 0 repeats, negative reverses.
    pub src: isize,
    /// Elements between two steps in the destination; no two elements may meet.
    pub dst: isize,
}

/// A set of nested loops from one strided layout to another, simplified and checked once, run for any offsets.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    axes: [Axis; MAX_AXES],
    len: usize,
    empty: bool,
}

impl Move {
    /// Loops over `axes`; their order has no meaning.
    ///
    /// # Errors
    /// More axes than twice the largest rank.
    pub fn new(axes: impl IntoIterator<Item = Axis>) -> Result<Move, KernelError> {
        let mut plan = Move {
            axes: [Axis::default(); MAX_AXES],
            len: 0,
            empty: false,
        };
        for axis in axes {
            plan.empty |= axis.size == 0;
            if axis.size == 1 {
                continue;
            }
            if plan.len == MAX_AXES {
                return Err(KernelError::unsupported("self", "a layout of more than 32 axes"));
            }
            // Widest destination stride first, so that memory is written in order.
            let mut at = plan.len;
            while at > 0 && plan.axes[at - 1].dst.unsigned_abs() < axis.dst.unsigned_abs() {
                plan.axes[at] = plan.axes[at - 1];
                at -= 1;
            }
            plan.axes[at] = axis;
            plan.len += 1;
        }
        plan.merge();
        Ok(plan)
    }

    /// Loops over a shape with the strides of both sides.
    ///
    /// # Errors
    /// As [`Move::new`].
    pub fn of(sizes: &[i64], src: &[i64], dst: &[i64]) -> Result<Move, KernelError> {
        Move::new(sizes.iter().zip(src).zip(dst).map(|((&size, &src), &dst)| Axis {
            size: usize::try_from(size).unwrap_or(0),
            src: src as isize,
            dst: dst as isize,
        }))
    }

    /// The same loops over every `src`th element of the source and every `dst`th of the destination: over one part of complex numbers.
    pub fn spread(&self, src: isize, dst: isize) -> Move {
        let mut plan = self.clone();
        for axis in &mut plan.axes[..plan.len] {
            axis.src = axis.src.wrapping_mul(src);
            axis.dst = axis.dst.wrapping_mul(dst);
        }
        plan
    }

    /// Joins neighbouring axes that are one walk in both layouts.
    fn merge(&mut self) {
        let mut kept = 0usize;
        for i in 0..self.len {
            let inner = self.axes[i];
            if kept > 0 {
                let outer = self.axes[kept - 1];
                let size = inner.size as isize;
                if inner.src.checked_mul(size) == Some(outer.src) && inner.dst.checked_mul(size) == Some(outer.dst) {
                    self.axes[kept - 1] = Axis {
                        size: outer.size.saturating_mul(inner.size),
                        ..inner
                    };
                    continue;
                }
            }
            self.axes[kept] = inner;
            kept += 1;
        }
        self.len = kept;
    }

    /// Calls `run(src_start, dst_start, inner axis)` for each innermost loop.
    ///
    /// # Errors
    /// A loop would leave `src_len` or `dst_len` elements.
    pub fn runs(
        &self,
        (src_len, src_offset): (usize, usize),
        (dst_len, dst_offset): (usize, usize),
        mut run: impl FnMut(usize, usize, Axis),
    ) -> Result<(), KernelError> {
        if self.empty {
            return Ok(());
        }
        self.check(|axis| axis.src, src_offset, src_len)?;
        self.check(|axis| axis.dst, dst_offset, dst_len)?;
        let (outer, inner) = match self.axes[..self.len].split_last() {
            Some((inner, outer)) => (outer, *inner),
            None => (
                &[][..],
                Axis {
                    size: 1,
                    src: 1,
                    dst: 1,
                },
            ),
        };
        let (mut src, mut dst) = (src_offset, dst_offset);
        let mut counters = [0usize; MAX_AXES];
        loop {
            run(src, dst, inner);
            let mut at = outer.len();
            loop {
                if at == 0 {
                    return Ok(());
                }
                at -= 1;
                let axis = outer[at];
                counters[at] += 1;
                if counters[at] < axis.size {
                    src = src.wrapping_add_signed(axis.src);
                    dst = dst.wrapping_add_signed(axis.dst);
                    break;
                }
                counters[at] = 0;
                let back = axis.size as isize - 1;
                src = src.wrapping_add_signed(axis.src.wrapping_mul(back).wrapping_neg());
                dst = dst.wrapping_add_signed(axis.dst.wrapping_mul(back).wrapping_neg());
            }
        }
    }

    fn check(&self, stride: impl Fn(&Axis) -> isize, offset: usize, len: usize) -> Result<(), KernelError> {
        let (mut low, mut high) = (offset as i128, offset as i128);
        for axis in &self.axes[..self.len] {
            let reach = stride(axis) as i128 * (axis.size as i128 - 1);
            low += reach.min(0);
            high += reach.max(0);
        }
        if low < 0 || high >= len as i128 {
            return Err(KernelError::invalid(
                "self",
                alloc::format!("elements {low} to {high} are read or written in memory of {len}"),
            ));
        }
        Ok(())
    }

    /// Copies elements of one type.
    ///
    /// # Errors
    /// A loop would leave `src` or `dst`.
    pub fn copy<E: Copy>(
        &self,
        src: &[E],
        src_offset: usize,
        dst: &mut [E],
        dst_offset: usize,
    ) -> Result<(), KernelError> {
        self.runs(
            (src.len(), src_offset),
            (dst.len(), dst_offset),
            |from, to, axis| match (axis.src, axis.dst) {
                (1, 1) => dst[to..to + axis.size].copy_from_slice(&src[from..from + axis.size]),
                (0, 1) => dst[to..to + axis.size].fill(src[from]),
                (step, 1) => {
                    let mut at = from;
                    for slot in &mut dst[to..to + axis.size] {
                        *slot = src[at];
                        at = at.wrapping_add_signed(step);
                    }
                }
                (src_step, dst_step) => {
                    let (mut at, mut put) = (from, to);
                    for _ in 0..axis.size {
                        dst[put] = src[at];
                        at = at.wrapping_add_signed(src_step);
                        put = put.wrapping_add_signed(dst_step);
                    }
                }
            },
        )
    }

    /// Copies elements of `size` bytes; offsets count elements.
    ///
    /// # Errors
    /// A loop would leave `src` or `dst`, or they are not aligned.
    pub fn copy_bytes(
        &self,
        size: usize,
        src: &[u8],
        src_offset: usize,
        dst: &mut [u8],
        dst_offset: usize,
    ) -> Result<(), KernelError> {
        match size {
            1 => self.copy(src, src_offset, dst, dst_offset),
            2 => self.copy::<u16>(words(src)?, src_offset, words_mut(dst)?, dst_offset),
            4 => self.copy::<u32>(words(src)?, src_offset, words_mut(dst)?, dst_offset),
            // A complex number of two floats need not be aligned as a `u64`.
            8 if !(src.as_ptr() as usize | dst.as_ptr() as usize).is_multiple_of(8) => {
                self.copy::<[u32; 2]>(words(src)?, src_offset, words_mut(dst)?, dst_offset)
            }
            8 => self.copy::<u64>(words(src)?, src_offset, words_mut(dst)?, dst_offset),
            16 => self.copy::<[u64; 2]>(words(src)?, src_offset, words_mut(dst)?, dst_offset),
            _ => Err(KernelError::unsupported(
                "self",
                alloc::format!("an element of {size} bytes"),
            )),
        }
    }
}

/// Bytes as whole words; a trailing part of a word is left out.
pub(crate) fn words<E: bytemuck::Pod>(bytes: &[u8]) -> Result<&[E], KernelError> {
    let whole = bytes.len() / size_of::<E>() * size_of::<E>();
    bytemuck::try_cast_slice(&bytes[..whole]).map_err(|_| misaligned())
}

/// Bytes as whole words, to write to.
pub(crate) fn words_mut<E: bytemuck::Pod>(bytes: &mut [u8]) -> Result<&mut [E], KernelError> {
    let whole = bytes.len() / size_of::<E>() * size_of::<E>();
    bytemuck::try_cast_slice_mut(&mut bytes[..whole]).map_err(|_| misaligned())
}

fn misaligned() -> KernelError {
    KernelError::invalid("self", "memory is not aligned for its dtype")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_walks_both_strides() {
        let src: [u16; 6] = [0, 1, 2, 3, 4, 5];
        let mut dst = [9u16; 6];
        Move::of(&[3, 2], &[1, 3], &[2, 1])
            .unwrap()
            .copy(&src, 0, &mut dst, 0)
            .unwrap();
        assert_eq!(dst, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn negative_strides_reverse_and_zero_strides_repeat() {
        let src = [1u8, 2, 3];
        let mut dst = [0u8; 6];
        Move::of(&[2, 3], &[0, -1], &[3, 1])
            .unwrap()
            .copy(&src, 2, &mut dst, 0)
            .unwrap();
        assert_eq!(dst, [3, 2, 1, 3, 2, 1]);
    }

    #[test]
    fn contiguous_axes_become_one_run() {
        let plan = Move::of(&[2, 3, 4], &[12, 4, 1], &[12, 4, 1]).unwrap();
        let mut runs = 0;
        plan.runs((24, 0), (24, 0), |_, _, axis| {
            runs += 1;
            assert_eq!(axis.size, 24);
        })
        .unwrap();
        assert_eq!(runs, 1);
    }

    #[test]
    fn leaving_the_memory_is_an_error() {
        let plan = Move::of(&[4], &[2], &[1]).unwrap();
        assert!(plan.copy(&[0u8; 6], 0, &mut [0u8; 4], 0).is_err());
        assert!(plan.copy(&[0u8; 7], 0, &mut [0u8; 3], 0).is_err());
        assert!(plan.copy(&[0u8; 7], 0, &mut [0u8; 4], 0).is_ok());
        let back = Move::of(&[2], &[-1], &[1]).unwrap();
        assert!(back.copy(&[0u8; 2], 0, &mut [0u8; 2], 0).is_err());
    }
}
