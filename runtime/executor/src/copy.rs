//! Copies elements between two layouts of one shape.

use delegraph_types::{Dims, MAX_RANK};

/// Copies a tensor of `sizes` with elements of `item` bytes; strides are in elements. `None` if either side is too short.
pub(crate) fn relayout(
    from: &[u8],
    from_strides: &Dims,
    to: &mut [u8],
    to_strides: &Dims,
    sizes: &Dims,
    item: usize,
) -> Option<()> {
    let count = sizes.numel()?;
    if count == 0 {
        return Some(());
    }
    let rank = sizes.rank();
    let same = (0..rank).all(|d| sizes[d] == 1 || from_strides[d] == to_strides[d]);
    let dense = |strides: &Dims| {
        let last: i64 = (0..rank).map(|d| (sizes[d] - 1).saturating_mul(strides[d])).sum();
        usize::try_from(last).ok() == Some(count - 1)
    };
    if same && dense(to_strides) {
        let bytes = count.checked_mul(item)?;
        to.get_mut(..bytes)?.copy_from_slice(from.get(..bytes)?);
        return Some(());
    }
    let mut at = [0i64; MAX_RANK];
    let (mut source, mut target) = (0i64, 0i64);
    loop {
        let (s, t) = (
            usize::try_from(source).ok()? * item,
            usize::try_from(target).ok()? * item,
        );
        to.get_mut(t..t + item)?.copy_from_slice(from.get(s..s + item)?);
        let mut d = rank;
        loop {
            if d == 0 {
                return Some(());
            }
            d -= 1;
            at[d] += 1;
            source += from_strides[d];
            target += to_strides[d];
            if at[d] < sizes[d] {
                break;
            }
            source -= at[d] * from_strides[d];
            target -= at[d] * to_strides[d];
            at[d] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::relayout;
    use delegraph_types::Dims;

    #[test]
    fn rows_become_columns() {
        let dims = |sizes: &[i64]| Dims::new(sizes).unwrap();
        let mut out = [0u8; 6];
        relayout(
            &[1, 2, 3, 4, 5, 6],
            &dims(&[3, 1]),
            &mut out,
            &dims(&[1, 2]),
            &dims(&[2, 3]),
            1,
        )
        .unwrap();
        assert_eq!(out, [1, 4, 2, 5, 3, 6]);
        assert!(relayout(&[1; 6], &dims(&[3, 1]), &mut [0; 5], &dims(&[1, 2]), &dims(&[2, 3]), 1).is_none());
        assert!(relayout(&[1; 5], &dims(&[3, 1]), &mut out, &dims(&[3, 1]), &dims(&[2, 3]), 1).is_none());
    }
}
