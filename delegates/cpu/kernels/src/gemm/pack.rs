//! Weights of a product, packed: panels of columns, each `[k][width]`.

use crate::Isa;

/// Elements of packed weights. Sums are always of `f32`.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Halves, as bits.
    F16(&'a [u16]),
    /// The upper halves of floats, as bits.
    BF16(&'a [u16]),
}

impl Stored<'_> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Stored::F32(all) => all.len(),
            Stored::F16(all) | Stored::BF16(all) => all.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Packed weights `W[k, n]`: `ceil(n / width)` panels one behind another, each `[k][width]`, with zeros where there is no column.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// At least [`packed_len`] elements.
    pub stored: Stored<'a>,
    /// Rows: terms of each sum.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Columns of a panel: 8, 16 or 32.
    pub width: usize,
}

/// The width of panels that an instruction set is fastest with. Each reads every width.
pub fn width_for(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 32,
        _ => 16,
    }
}

/// Elements of packed weights.
pub fn packed_len(k: usize, n: usize, width: usize) -> usize {
    k * n.div_ceil(width) * width
}

/// Packs `source(row, column)` for rows below `k` and columns below `n` in the first [`packed_len`] elements of `out`.
///
/// # Panics
/// If `out` is shorter than that.
pub fn pack<T: Copy + Default>(k: usize, n: usize, width: usize, source: impl Fn(usize, usize) -> T, out: &mut [T]) {
    let out = &mut out[..packed_len(k, n, width)];
    if k == 0 {
        return;
    }
    for (panel, to) in out.chunks_exact_mut(k * width).enumerate() {
        let columns = width.min(n - panel * width);
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            for (column, to) in to.iter_mut().enumerate() {
                *to = match column < columns {
                    true => source(row, panel * width + column),
                    false => T::default(),
                };
            }
        }
    }
}

/// Packs a matrix whose element `[row, column]` is at `row * row_stride + column * column_stride`.
///
/// # Panics
/// If `out` is shorter than [`packed_len`], or an element is not in `source`.
pub fn pack_matrix<T: Copy + Default>(
    k: usize,
    n: usize,
    width: usize,
    source: &[T],
    row_stride: usize,
    column_stride: usize,
    out: &mut [T],
) {
    pack(
        k,
        n,
        width,
        |row, column| source[row * row_stride + column * column_stride],
        out,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_are_padded_with_zeros() {
        let mut out = [9.0f32; 2 * 16];
        pack(2, 10, 8, |row, column| (row * 10 + column) as f32, &mut out);
        assert_eq!(out[..8], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(out[16..24], [8.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(out[24..26], [18.0, 19.0]);
        let turned: Vec<f32> = (0..20).map(|i| (i % 2 * 10 + i / 2) as f32).collect();
        let mut other = [7.0; 32];
        pack_matrix(2, 10, 8, &turned, 1, 2, &mut other);
        assert_eq!(out, other);
        pack(0, 10, 8, |_, _| 1.0, &mut other);
    }
}
