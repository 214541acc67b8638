//! The one unsafe leaf: matrix products by the `gemm` crate, behind slices and checked strides.

use crate::KernelError;
use crate::wide::Wide;

/// A matrix over a slice: element (row, column) lies at `row * row_stride + column * column_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    /// Its memory.
    pub data: &'a [T],
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Rows of `columns` elements, one after the other.
    pub fn rows(data: &'a [T], columns: usize) -> Matrix<'a, T> {
        Matrix {
            data,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'a, T> {
        Matrix {
            data: self.data,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A type with a matrix product.
pub(crate) trait Product: Wide {
    /// `dst (+)= a * b` for `dims` m, k, n: `a` of m x k, `b` of k x n, `dst` a slice of rows and how far apart they start.
    ///
    /// # Errors
    /// A matrix does not lie in its memory.
    fn product(
        dims: (usize, usize, usize),
        a: Matrix<Self>,
        b: Matrix<Self>,
        dst: (&mut [Self], usize),
        accumulate: bool,
    ) -> Result<(), KernelError>;
}

macro_rules! product_by_gemm {
    ($($ty:ty),*) => {
        $(impl Product for $ty {
            fn product(
                (m, k, n): (usize, usize, usize),
                a: Matrix<$ty>,
                b: Matrix<$ty>,
                (dst, dst_stride): (&mut [$ty], usize),
                accumulate: bool,
            ) -> Result<(), KernelError> {
                if !checked((m, k, n), &a, &b, (dst, dst_stride), accumulate)? {
                    return Ok(());
                }
                // SAFETY: `checked` made sure that every element of the three matrices lies in its slice, that the rows of
                // `dst` do not overlap, and that all strides fit isize; `dst` is borrowed mutably, so it aliases nothing.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        dst.as_mut_ptr(),
                        1,
                        dst_stride as isize,
                        accumulate,
                        a.data.as_ptr(),
                        a.column_stride as isize,
                        a.row_stride as isize,
                        b.data.as_ptr(),
                        b.column_stride as isize,
                        b.row_stride as isize,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
                Ok(())
            }
        })*
    };
}
product_by_gemm!(f32, f64);

impl Product for i64 {
    fn product(
        (m, k, n): (usize, usize, usize),
        a: Matrix<i64>,
        b: Matrix<i64>,
        (dst, dst_stride): (&mut [i64], usize),
        accumulate: bool,
    ) -> Result<(), KernelError> {
        if !checked((m, k, n), &a, &b, (dst, dst_stride), accumulate)? {
            return Ok(());
        }
        for row in 0..m {
            let line = &mut dst[row * dst_stride..][..n];
            if !accumulate {
                line.fill(0);
            }
            for depth in 0..k {
                let left = a.data[row * a.row_stride + depth * a.column_stride];
                for (column, slot) in line.iter_mut().enumerate() {
                    *slot = slot.plus(left.times(b.data[depth * b.row_stride + column * b.column_stride]));
                }
            }
        }
        Ok(())
    }
}

/// Checks that all elements lie in memory; false if there is nothing to multiply (an empty sum is then already written).
fn checked<T: Wide>(
    (m, k, n): (usize, usize, usize),
    a: &Matrix<T>,
    b: &Matrix<T>,
    (dst, dst_stride): (&mut [T], usize),
    accumulate: bool,
) -> Result<bool, KernelError> {
    if m == 0 || n == 0 {
        return Ok(false);
    }
    let fits = |len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize| {
        let last = (rows - 1)
            .checked_mul(row_stride)
            .and_then(|r| (columns - 1).checked_mul(column_stride).and_then(|c| r.checked_add(c)));
        last.is_some_and(|last| last < len && last <= isize::MAX as usize / size_of::<T>())
            && row_stride <= isize::MAX as usize
            && column_stride <= isize::MAX as usize
    };
    let outside = || KernelError::invalid("self", "a matrix does not lie in its memory");
    if !fits(dst.len(), m, n, dst_stride, 1) || (m > 1 && dst_stride < n) {
        return Err(outside());
    }
    if k == 0 {
        if !accumulate {
            for row in 0..m {
                dst[row * dst_stride..][..n].fill(T::ZERO);
            }
        }
        return Ok(false);
    }
    if !fits(a.data.len(), m, k, a.row_stride, a.column_stride)
        || !fits(b.data.len(), k, n, b.row_stride, b.column_stride)
    {
        return Err(outside());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_of_every_type_is_the_same() {
        fn run<T: Product>(number: impl Fn(i64) -> T) -> Vec<f64> {
            let a: Vec<T> = (0..6).map(&number).collect();
            let b: Vec<T> = (1..13).map(&number).collect();
            let mut dst = [T::ONE; 8];
            let b = Matrix::rows(&b, 3).transposed();
            T::product((2, 3, 4), Matrix::rows(&a, 3), b, (&mut dst, 4), true).unwrap();
            dst.iter().map(|x| x.to_f64()).collect()
        }
        // numpy: 1 + arange(6).reshape(2, 3) @ arange(1, 13).reshape(4, 3).T
        let want = [9.0, 18.0, 27.0, 36.0, 27.0, 63.0, 99.0, 135.0];
        assert_eq!(run(|i| i as f32), want);
        assert_eq!(run(|i| i as f64), want);
        assert_eq!(run(|i| i), want);
    }

    #[test]
    fn an_empty_sum_is_zero_and_short_memory_is_an_error() {
        let mut dst = [5f32; 4];
        let empty = Matrix::rows(&[][..], 0);
        f32::product((2, 0, 2), empty, empty, (&mut dst, 2), false).unwrap();
        assert_eq!(dst, [0.0; 4]);
        let short = [1f32; 3];
        let matrix = Matrix::rows(&short[..], 2);
        assert!(f32::product((2, 2, 2), matrix, matrix, (&mut dst, 2), false).is_err());
        let full = [1f32; 4];
        let matrix = Matrix::rows(&full[..], 2);
        assert!(f32::product((2, 2, 2), matrix, matrix, (&mut dst[..3], 2), false).is_err());
        assert!(f32::product((2, 2, 2), matrix, matrix, (&mut dst, 1), false).is_err());
    }
}
