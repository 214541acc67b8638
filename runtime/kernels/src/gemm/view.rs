//! Matrices over memory at any strides. They are checked when they are made, so that the loops need not check again.

use crate::KernelError;
use core::marker::PhantomData;
use core::ptr::NonNull;

fn outside() -> KernelError {
    KernelError::invalid("self", "a matrix does not lie in its memory")
}

/// Checks that all elements lie in `len` elements of memory; the strides, 1 where they do not matter.
fn checked(
    len: usize,
    (rows, columns): (usize, usize),
    (row_stride, column_stride): (usize, usize),
) -> Result<(usize, usize), KernelError> {
    let strides = (
        if rows > 1 { row_stride } else { 1 },
        if columns > 1 { column_stride } else { 1 },
    );
    if rows == 0 || columns == 0 {
        return Ok((1, 1));
    }
    let last = (rows - 1)
        .checked_mul(strides.0)
        .and_then(|r| (columns - 1).checked_mul(strides.1).and_then(|c| r.checked_add(c)));
    match last {
        Some(last) if last < len => Ok(strides),
        _ => Err(outside()),
    }
}

/// A matrix to read: element (row, column) lies at `row * row_stride + column * column_stride`. Strides may be 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// `(rows, columns)` at `(row_stride, column_stride)` from the start of `data`.
    ///
    /// # Errors
    /// An element lies outside.
    pub fn new(data: &'a [T], dims: (usize, usize), strides: (usize, usize)) -> Result<Matrix<'a, T>, KernelError> {
        let (row_stride, column_stride) = checked(data.len(), dims, strides)?;
        Ok(Matrix {
            data,
            rows: dims.0,
            columns: dims.1,
            row_stride,
            column_stride,
        })
    }

    /// `rows` of `columns` elements, one after the other.
    ///
    /// # Errors
    /// `data` is shorter.
    pub fn dense(data: &'a [T], rows: usize, columns: usize) -> Result<Matrix<'a, T>, KernelError> {
        Matrix::new(data, (rows, columns), (columns, 1))
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> Matrix<'a, T> {
        Matrix {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// Memory from element (0, 0) on.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// `rows` and `columns` from (`row`, `column`) on, cut where the matrix ends.
    pub fn block(self, (row, column): (usize, usize), (rows, columns): (usize, usize)) -> Matrix<'a, T> {
        let rows = rows.min(self.rows.saturating_sub(row));
        let columns = columns.min(self.columns.saturating_sub(column));
        let data = if rows == 0 || columns == 0 {
            &[]
        } else {
            // Element (row, column) is one of the matrix, so the sum neither overflows nor leaves the memory.
            &self.data[row * self.row_stride + column * self.column_stride..]
        };
        Matrix {
            data,
            rows,
            columns,
            ..self
        }
    }
}

/// A matrix to write. No two elements share memory, so that it can be split among threads along rows and along columns.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a, T> {
    start: NonNull<T>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow of its elements, which no other `MatrixMut` has (`new` and the splits below).
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}

impl<'a, T: Copy> MatrixMut<'a, T> {
    /// No rows and no columns.
    pub fn empty() -> MatrixMut<'a, T> {
        MatrixMut {
            start: NonNull::dangling(),
            rows: 0,
            columns: 0,
            row_stride: 1,
            column_stride: 1,
            memory: PhantomData,
        }
    }

    /// `(rows, columns)` at `(row_stride, column_stride)` from the start of `data`.
    ///
    /// # Errors
    /// An element lies outside, or two lie at the same place.
    pub fn new(
        data: &'a mut [T],
        (rows, columns): (usize, usize),
        strides: (usize, usize),
    ) -> Result<MatrixMut<'a, T>, KernelError> {
        let (row_stride, column_stride) = checked(data.len(), (rows, columns), strides)?;
        // Both products were computed by `checked` without overflow.
        if rows > 1
            && columns > 1
            && row_stride <= (columns - 1) * column_stride
            && column_stride <= (rows - 1) * row_stride
            || row_stride == 0
            || column_stride == 0
        {
            return Err(KernelError::invalid("out", "rows of a matrix overlap"));
        }
        Ok(MatrixMut {
            start: NonNull::from(data).cast(),
            rows,
            columns,
            row_stride,
            column_stride,
            memory: PhantomData,
        })
    }

    /// `rows` of `columns` elements, one after the other.
    ///
    /// # Errors
    /// `data` is shorter.
    pub fn dense(data: &'a mut [T], rows: usize, columns: usize) -> Result<MatrixMut<'a, T>, KernelError> {
        MatrixMut::new(data, (rows, columns), (columns, 1))
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub fn column_stride(&self) -> usize {
        self.column_stride
    }

    /// The first element; the others lie at the strides.
    pub fn pointer(&mut self) -> *mut T {
        self.start.as_ptr()
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> MatrixMut<'a, T> {
        MatrixMut {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `rows` and `columns` from (`row`, `column`) on, cut where the matrix ends.
    pub fn block(&mut self, (row, column): (usize, usize), (rows, columns): (usize, usize)) -> MatrixMut<'_, T> {
        let rows = rows.min(self.rows.saturating_sub(row));
        let columns = columns.min(self.columns.saturating_sub(column));
        let mut start = self.start;
        if rows > 0 && columns > 0 {
            // SAFETY: element (row, column) is one of the matrix, which lies in its memory.
            start = unsafe { start.add(row * self.row_stride + column * self.column_stride) };
        }
        MatrixMut {
            start,
            rows,
            columns,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
            memory: PhantomData,
        }
    }

    /// Rows before `row` and the others, which two threads may fill.
    pub fn split_rows(mut self, row: usize) -> (MatrixMut<'a, T>, MatrixMut<'a, T>) {
        let row = row.min(self.rows);
        let start = self.block((row, 0), (usize::MAX, usize::MAX)).start;
        let rest = MatrixMut {
            start,
            rows: self.rows - row,
            ..self
        };
        (MatrixMut { rows: row, ..self }, rest)
    }

    /// Columns before `column` and the others.
    pub fn split_columns(self, column: usize) -> (MatrixMut<'a, T>, MatrixMut<'a, T>) {
        let (left, right) = self.transposed().split_rows(column);
        (left.transposed(), right.transposed())
    }

    /// A row of which the elements lie one after the other; `None` if they do not or there is no such row.
    pub fn row(&mut self, row: usize) -> Option<&mut [T]> {
        if row >= self.rows || (self.column_stride != 1 && self.columns > 1) {
            return None;
        }
        if self.columns == 0 {
            return Some(&mut []);
        }
        // SAFETY: the elements of a row lie in the memory that is borrowed; the borrow of `self` keeps others away.
        Some(unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr().add(row * self.row_stride), self.columns) })
    }

    /// Changes an element; nothing if there is none.
    pub fn change(&mut self, row: usize, column: usize, change: impl FnOnce(T) -> T) {
        if row >= self.rows || column >= self.columns {
            return;
        }
        // SAFETY: the element is one of the matrix, which lies in the memory that is borrowed mutably.
        unsafe {
            let place = self
                .start
                .as_ptr()
                .add(row * self.row_stride + column * self.column_stride);
            place.write(change(place.read()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_lies_in_its_memory() {
        let data = [0u8; 12];
        assert!(Matrix::new(&data, (3, 4), (4, 1)).is_ok());
        assert!(Matrix::new(&data, (3, 4), (5, 1)).is_err());
        assert!(Matrix::new(&data, (3, 4), (0, 0)).is_ok());
        assert!(Matrix::new(&data, (2, 2), (usize::MAX, 1)).is_err());
        assert!(Matrix::new(&data, (2, 2), (usize::MAX, usize::MAX)).is_err());
        assert!(Matrix::new(&data, (1, 1), (usize::MAX, usize::MAX)).is_ok());
        assert!(Matrix::new(&data[..0], (0, usize::MAX), (usize::MAX, 1)).is_ok());
        assert!(Matrix::new(&data[..0], (1, 1), (1, 1)).is_err());
    }

    #[test]
    fn a_matrix_to_write_shares_no_elements() {
        let mut data = [0u8; 12];
        assert!(MatrixMut::new(&mut data, (3, 4), (4, 1)).is_ok());
        assert!(MatrixMut::new(&mut data, (3, 4), (1, 3)).is_ok());
        assert!(MatrixMut::new(&mut data, (3, 4), (3, 1)).is_err());
        assert!(MatrixMut::new(&mut data, (3, 4), (0, 1)).is_err());
        assert!(MatrixMut::new(&mut data, (3, 1), (0, 1)).is_err());
    }

    #[test]
    fn the_parts_of_a_split_are_the_whole() {
        let mut data = [0u8; 12];
        let whole = MatrixMut::dense(&mut data, 3, 4).unwrap();
        let (mut top, bottom) = whole.split_rows(1);
        let (mut left, mut right) = bottom.split_columns(3);
        assert_eq!((top.rows(), left.columns(), right.columns()), (1, 3, 1));
        top.row(0).unwrap().fill(1);
        left.row(1).unwrap().fill(2);
        right.change(0, 0, |_| 3);
        right.change(2, 0, |_| 9);
        assert_eq!(data, [1, 1, 1, 1, 0, 0, 0, 3, 2, 2, 2, 0]);
    }
}
