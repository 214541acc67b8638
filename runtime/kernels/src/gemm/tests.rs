//! Every path against three plain loops: sizes around the tiles and blocks, any strides, all types.

use super::*;
use core::cell::Cell;
use delegraph_types::{bf16, f16};

std::thread_local! {
    /// What this thread takes the machine not to have.
    static HIDDEN: Cell<&'static [&'static str]> = const { Cell::new(&[]) };
}

/// True if a test wants to see what is done without this.
pub(super) fn is_hidden(feature: &str) -> bool {
    HIDDEN.get().contains(&feature)
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) as usize % limit
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Strides of rows x columns, and how many elements lie behind them: dense or not, either one contiguous, perhaps 0.
    fn strides(&mut self, (rows, columns): (usize, usize), may_repeat: bool) -> ((usize, usize), usize) {
        let gap = self.one_of(&[0, 0, 1, 3]);
        let strides = match self.below(if may_repeat { 7 } else { 6 }) {
            0 | 1 => (columns + gap, 1),
            2 | 3 => (1, rows + gap),
            4 => ((columns + gap) * 2, 2),
            5 => (3, (rows + gap) * 3),
            _ => self.one_of(&[(0, 1), (1, 0), (0, 0)]),
        };
        let strides = (
            strides.0.max(usize::from(!may_repeat)),
            strides.1.max(usize::from(!may_repeat)),
        );
        let len = match (rows, columns) {
            (0, _) | (_, 0) => 0,
            _ => (rows - 1) * strides.0 + (columns - 1) * strides.1 + 1,
        };
        (strides, len)
    }
}

/// One product of random sizes in `sizes`; small integers, so that all sums are exact in every type.
fn check<A: Factor, B: Factor<Sum = A::Sum>>(
    random: &mut Random,
    sizes: &[usize],
    least: i64,
    a_of: impl Fn(i64) -> A,
    b_of: impl Fn(i64) -> B,
    sum_of: impl Fn(i64) -> A::Sum,
) where
    A::Sum: core::fmt::Debug,
{
    let (m, k, n) = (random.one_of(sizes), random.one_of(sizes), random.one_of(sizes));
    // Three large sizes at once take long and show nothing new.
    let (m, n) = if m * k * n > 1 << 24 {
        (m.min(9), n.min(70))
    } else {
        (m, n)
    };
    let ((a_strides, a_len), (b_strides, b_len)) = (random.strides((m, k), true), random.strides((k, n), true));
    let (c_strides, c_len) = random.strides((m, n), false);
    let a: Vec<i64> = (0..a_len).map(|_| random.below(8) as i64 + least).collect();
    let b: Vec<i64> = (0..b_len).map(|_| random.below(8) as i64 - 3).collect();
    let before: Vec<i64> = (0..c_len).map(|_| random.below(100) as i64).collect();
    let (alpha, accumulate) = (random.one_of(&[1, 1, 2, -1, 0]), random.below(2) == 0);

    let mut want = before.clone();
    for row in 0..m {
        for column in 0..n {
            let sum: i64 = (0..k)
                .map(|d| a[row * a_strides.0 + d * a_strides.1] * b[d * b_strides.0 + column * b_strides.1])
                .sum();
            let place = &mut want[row * c_strides.0 + column * c_strides.1];
            *place = alpha * sum + if accumulate { *place } else { 0 };
        }
    }

    let (a, b): (Vec<A>, Vec<B>) = (a.into_iter().map(&a_of).collect(), b.into_iter().map(&b_of).collect());
    let mut have: Vec<A::Sum> = before.into_iter().map(&sum_of).collect();
    let mut panels = vec![Packed::<A>::default(); room::<A::Sum>(m, k, n)];
    product(
        Parallel::SERIAL,
        Matrix::new(&a, (m, k), a_strides).unwrap(),
        Matrix::new(&b, (k, n), b_strides).unwrap(),
        MatrixMut::new(&mut have, (m, n), c_strides).unwrap(),
        sum_of(alpha),
        accumulate,
        &mut panels,
    )
    .unwrap();
    let want: Vec<A::Sum> = want.into_iter().map(&sum_of).collect();
    assert!(
        have == want,
        "{m} x {k} x {n}, {a_strides:?} {b_strides:?} {c_strides:?}, {alpha} {accumulate}: {:?}",
        have.iter().zip(&want).position(|(x, y)| x != y)
    );
}

/// Rounds of all types, as the machine is and as older ones are.
fn check_all(rounds: usize, sizes: &[usize], seed: u64) {
    let mut random = Random(seed);
    let r = &mut random;
    let kinds: [&[&str]; 3] = [&[], &["avx512"], &["avx512", "avx2"]];
    for hidden in (0..rounds).flat_map(|_| kinds) {
        HIDDEN.set(hidden);
        check::<f32, f32>(r, sizes, -3, |i| i as f32, |i| i as f32, |i| i as f32);
        check::<f32, f32>(r, sizes, -3, |i| i as f32, |i| i as f32, |i| i as f32);
        check::<f64, f64>(r, sizes, -3, |i| i as f64, |i| i as f64, |i| i as f64);
        check::<i64, i64>(r, sizes, -3, |i| i, |i| i, |i| i);
        let (half, brain) = (|i: i64| f16::from_f32(i as f32), |i: i64| bf16::from_f32(i as f32));
        check::<f16, f16>(r, sizes, -3, half, half, |i| i as f32);
        check::<bf16, bf16>(r, sizes, -3, brain, brain, |i| i as f32);
        check::<f32, f16>(r, sizes, -3, |i| i as f32, half, |i| i as f32);
        check::<bf16, f32>(r, sizes, -3, brain, |i| i as f32, |i| i as f32);
        check::<i8, i8>(r, sizes, -3, |i| i as i8, |i| i as i8, |i| i as i32);
        check::<u8, i8>(r, sizes, 0, |i| i as u8, |i| i as i8, |i| i as i32);
    }
}

#[test]
fn small_products_are_those_of_three_loops() {
    check_all(
        300,
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 25, 31, 32, 33],
        1,
    );
}

#[test]
fn products_of_several_blocks_are_those_of_three_loops() {
    check_all(12, &[1, 4, 5, 17, 48, 191, 192, 193, 255, 256, 257, 513, 1025, 2049], 2);
}

#[test]
fn the_largest_bytes_are_exact() {
    let (k, n) = (1031, 37);
    for m in [1, 3, 40] {
        let (a, b) = (vec![255u8; m * k], vec![-128i8; k * n]);
        let mut c = vec![0i32; m * n];
        let mut panels = vec![0i16; room::<i32>(m, k, n)];
        for b in [
            Matrix::dense(&b, k, n).unwrap(),
            Matrix::dense(&b, n, k).unwrap().transposed(),
        ] {
            let (a, c) = (
                Matrix::dense(&a, m, k).unwrap(),
                MatrixMut::dense(&mut c, m, n).unwrap(),
            );
            product(Parallel::SERIAL, a, b, c, 1, false, &mut panels).unwrap();
        }
        assert!(c.iter().all(|&sum| sum == -128 * 255 * 1031));
        let b = vec![255u8; k * n];
        let (a, b) = (Matrix::dense(&a, m, k).unwrap(), Matrix::dense(&b, k, n).unwrap());
        product(
            Parallel::SERIAL,
            a,
            b,
            MatrixMut::dense(&mut c, m, n).unwrap(),
            1,
            false,
            &mut panels,
        )
        .unwrap();
        assert!(c.iter().all(|&sum| sum == 255 * 255 * 1031));
    }
}

#[test]
fn what_is_overwritten_is_not_read() {
    for (m, k, n) in [(1, 5, 7), (3, 0, 9), (40, 300, 50), (1, 40, 1)] {
        let (a, b) = (vec![1f32; m * k], vec![1f32; k * n]);
        let mut c = vec![f32::NAN; m * n];
        let mut panels = vec![f32::NAN; room::<f32>(m, k, n)];
        let (left, right) = (Matrix::dense(&a, m, k).unwrap(), Matrix::dense(&b, k, n).unwrap());
        product(
            Parallel::SERIAL,
            left,
            right,
            MatrixMut::dense(&mut c, m, n).unwrap(),
            1.0,
            false,
            &mut panels,
        )
        .unwrap();
        assert!(c.iter().all(|&x| x == k as f32));
    }
}

#[test]
fn sizes_that_differ_and_little_room_are_errors() {
    let data = [1f32; 6];
    let (a, mut c) = (Matrix::dense(&data, 2, 3).unwrap(), [0f32; 4]);
    let mut panels = [0f32; 1000];
    let c = &mut c;
    assert!(
        product(
            Parallel::SERIAL,
            a,
            a,
            MatrixMut::dense(c, 2, 2).unwrap(),
            1.0,
            false,
            &mut panels
        )
        .is_err()
    );
    assert!(
        product(
            Parallel::SERIAL,
            a,
            a.transposed(),
            MatrixMut::dense(c, 1, 2).unwrap(),
            1.0,
            false,
            &mut panels
        )
        .is_err()
    );
    assert!(
        product(
            Parallel::SERIAL,
            a,
            a.transposed(),
            MatrixMut::dense(c, 2, 2).unwrap(),
            1.0,
            false,
            &mut []
        )
        .is_err()
    );
    assert!(
        product(
            Parallel::SERIAL,
            a,
            a.transposed(),
            MatrixMut::dense(c, 2, 2).unwrap(),
            1.0,
            false,
            &mut panels
        )
        .is_ok()
    );
    assert_eq!(*c, [3.0; 4]);
}
