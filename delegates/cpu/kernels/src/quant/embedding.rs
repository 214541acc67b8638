//! Rows of quantized tables, looked up and made floats: `(value - zero) * scale`, with a scale for each group of columns.
//!
//! Narrow numbers lie in bytes as ExecuTorch packs them: four bits from the upper half down, shifted by 8 to be positive; two bits from the lowest up, shifted by 2.

use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// How numbers lie in the bytes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A signed byte.
    I8,
    /// An unsigned byte.
    U8,
    /// Two numbers a byte, -8..=7.
    Four,
    /// Four numbers a byte, -2..=1.
    Two,
}

impl Code {
    /// Numbers of a byte.
    pub fn count(self) -> usize {
        match self {
            Code::I8 | Code::U8 => 1,
            Code::Four => 2,
            Code::Two => 4,
        }
    }

    #[inline(always)]
    fn number(self, byte: u8, place: usize) -> i32 {
        match self {
            Code::I8 => i32::from(byte as i8),
            Code::U8 => i32::from(byte),
            Code::Four => i32::from(byte >> (4 * (1 - place % 2)) & 15) - 8,
            Code::Two => i32::from(byte >> (2 * (place % 4)) & 3) - 2,
        }
    }
}

/// A table of quantized rows.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    code: Code,
    rows: usize,
    columns: usize,
    group: usize,
    bytes: &'a [u8],
    scales: &'a [f32],
    zeros: Option<&'a [f32]>,
}

impl<'a> Table<'a> {
    /// `bytes` has `rows` rows of `columns / code.count()`; `scales`, and `zeros` if there are any, as many rows of one for each `group` columns.
    /// `None`: a list is too short, or columns do not fill bytes or groups.
    pub fn new(
        code: Code,
        rows: usize,
        columns: usize,
        group: usize,
        bytes: &'a [u8],
        scales: &'a [f32],
        zeros: Option<&'a [f32]>,
    ) -> Option<Table<'a>> {
        let fits = columns.is_multiple_of(code.count()) && group > 0 && columns.is_multiple_of(group);
        let groups = rows.checked_mul(columns.checked_div(group)?)?;
        let enough = bytes.len() >= rows.checked_mul(columns / code.count())? && scales.len() >= groups;
        (fits && enough && zeros.is_none_or(|zeros| zeros.len() >= groups)).then_some(Table {
            code,
            rows,
            columns,
            group,
            bytes,
            scales,
            zeros,
        })
    }

    /// Writes a row.
    fn row(&self, isa: Isa, row: usize, out: &mut [f32]) {
        let groups = self.columns / self.group;
        let bytes = &self.bytes[row * (self.columns / self.code.count())..][..self.columns / self.code.count()];
        let list = |list: &'a [f32]| &list[row * groups..][..groups];
        let work = Row {
            code: self.code,
            group: self.group,
            bytes,
            scales: list(self.scales),
            zeros: self.zeros.map(list),
            out,
        };
        dispatch(isa, work);
    }
}

/// Looks rows up: `out` gets `columns` floats for each index.
///
/// # Errors
/// The place of an index that is no row; nothing is written then.
///
/// # Panics
/// `out` is too short.
pub fn lookup(isa: Isa, pool: &dyn Pool, table: &Table, indices: &[i64], out: &mut [f32]) -> Result<(), usize> {
    let row = |index: i64| usize::try_from(index).ok().filter(|row| *row < table.rows);
    if let Some(place) = indices.iter().position(|index| row(*index).is_none()) {
        return Err(place);
    }
    assert!(out.len() >= indices.len() * table.columns, "the output is too short");
    let parts = pool::parts(pool, indices.len(), table.columns / 8 + 10);
    let shared = Shared::new(out);
    pool.run(parts, &|part| {
        for place in pool::range(indices.len(), parts, part, 1) {
            // SAFETY: each place has its own row of the output.
            let to = unsafe { shared.slice(place * table.columns..(place + 1) * table.columns) };
            table.row(isa, row(indices[place]).unwrap_or(0), to);
        }
    });
    Ok(())
}

struct Row<'a> {
    code: Code,
    group: usize,
    bytes: &'a [u8],
    scales: &'a [f32],
    zeros: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Op for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Plain loops, which compilers make vectors of, once for each code.
        match self.code {
            Code::I8 => self.each::<1>(|byte, _| Code::I8.number(byte, 0)),
            Code::U8 => self.each::<1>(|byte, _| Code::U8.number(byte, 0)),
            Code::Four => self.each::<2>(|byte, place| Code::Four.number(byte, place)),
            Code::Two => self.each::<4>(|byte, place| Code::Two.number(byte, place)),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn each<const N: usize>(self, number: impl Fn(u8, usize) -> i32) {
        let parameters = |group: usize| (self.scales[group], self.zeros.map_or(0.0, |zeros| zeros[group]));
        if !self.group.is_multiple_of(N) {
            for (i, out) in self.out.iter_mut().enumerate() {
                let (scale, zero) = parameters(i / self.group);
                *out = (number(self.bytes[i / N], i % N) as f32 - zero) * scale;
            }
            return;
        }
        let pieces = self
            .out
            .chunks_exact_mut(self.group)
            .zip(self.bytes.chunks_exact(self.group / N));
        for (group, (out, bytes)) in pieces.enumerate() {
            let (scale, zero) = parameters(group);
            for (out, byte) in out.as_chunks_mut::<N>().0.iter_mut().zip(bytes) {
                for (place, out) in out.iter_mut().enumerate() {
                    *out = (number(*byte, place) as f32 - zero) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    #[test]
    fn rows_are_those_of_the_formula() {
        for code in [Code::I8, Code::U8, Code::Four, Code::Two] {
            for (columns, group) in [(4, 4), (64, 32), (60, 20), (36, 6), (12, 3), (96, 96), (8, 1)] {
                let (rows, groups) = (5, columns / group);
                let bytes: Vec<u8> = (0..rows * columns / code.count())
                    .map(|i| (i * 73 + 19) as u8)
                    .collect();
                let scales: Vec<f32> = (0..rows * groups).map(|i| 0.1 + i as f32 * 0.03).collect();
                let zeros: Vec<f32> = (0..rows * groups).map(|i| i as f32 * 0.5 - 2.0).collect();
                for zeros in [None, Some(&zeros[..])] {
                    let table = Table::new(code, rows, columns, group, &bytes, &scales, zeros).unwrap();
                    let indices = [4i64, 0, 0, 3];
                    for isa in Isa::all() {
                        let mut out = vec![f32::NAN; 4 * columns];
                        lookup(isa, &Serial, &table, &indices, &mut out).unwrap();
                        for (i, out) in out.iter().enumerate() {
                            let (row, column) = (indices[i / columns] as usize, i % columns);
                            let byte = bytes[(row * columns + column) / code.count()];
                            let q = match code {
                                Code::I8 => i32::from(byte as i8),
                                Code::U8 => i32::from(byte),
                                Code::Four if column % 2 == 0 => i32::from(byte / 16) - 8,
                                Code::Four => i32::from(byte % 16) - 8,
                                Code::Two => i32::from(byte / [1, 4, 16, 64][column % 4] % 4) - 2,
                            };
                            let at = row * groups + column / group;
                            let want = (q as f32 - zeros.map_or(0.0, |zeros| zeros[at])) * scales[at];
                            assert_eq!(*out, want, "{isa} {code:?} {columns} {group} {i}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = |columns, group, len| Table::new(Code::Four, 2, columns, group, &[0; 64][..len], &[1.0; 8], None);
        assert!(
            table(7, 7, 64).is_none()
                && table(8, 3, 64).is_none()
                && table(8, 4, 7).is_none()
                && table(8, 0, 64).is_none()
        );
        let table = table(8, 4, 8).unwrap();
        for (indices, place) in [([0i64, 2], 1), ([-1, 0], 0)] {
            let mut out = [7.0; 16];
            assert_eq!(lookup(Isa::Scalar, &Serial, &table, &indices, &mut out), Err(place));
            assert_eq!(out, [7.0; 16]);
        }
    }
}
