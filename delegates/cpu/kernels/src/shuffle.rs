//! Channels that change places, channels last: those of several tensors, in groups that take turns, to several tensors.

use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// Channels `c` of all inputs, one behind another, in `groups` equal groups: channel `j` of the outputs, one behind another, is the channel
/// `j / groups` of the group `j % groups`. Inputs and outputs are `[pixels, channels]`, with their numbers of channels.
///
/// # Panics
/// A slice is shorter than that, the outputs have not as many channels as the inputs, or groups do not divide them.
pub fn shuffle(
    isa: Isa,
    pool: &dyn Pool,
    pixels: usize,
    groups: usize,
    inputs: &[(&[f32], usize)],
    outputs: &mut [(&mut [f32], usize)],
) {
    let channels: usize = inputs.iter().map(|(_, n)| n).sum();
    let made: usize = outputs.iter().map(|(_, n)| n).sum();
    assert!(
        groups > 0 && channels.is_multiple_of(groups) && channels == made,
        "{groups} groups of {channels} channels that become {made}"
    );
    let whole = inputs.iter().all(|(x, n)| x.len() >= pixels * n) && outputs.iter().all(|(x, n)| x.len() >= pixels * n);
    assert!(whole, "all elements are there");
    let runs = runs(groups, channels, inputs, outputs);
    let parts = pool::parts(pool, pixels, channels / 4 + 1);
    pool.run(parts, &|part| {
        let pixels = pool::range(pixels, parts, part, 1);
        runs.iter().for_each(|run| {
            dispatch(
                isa,
                Pixels {
                    run: *run,
                    groups,
                    pixels: pixels.clone(),
                },
            )
        });
    });
}

/// Channels that lie one behind another in an input, and every `groups`-th in an output.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: *const f32,
    from_stride: usize,
    /// The other one of two groups, with the first channel of the output right behind this one's: `len` channels, or one less.
    turn: Option<(*const f32, usize, usize)>,
    to: Shared<f32>,
    to_stride: usize,
    len: usize,
}

// SAFETY: what it points to is borrowed while it is used, and pixels are different places.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

fn runs(groups: usize, channels: usize, inputs: &[(&[f32], usize)], outputs: &mut [(&mut [f32], usize)]) -> Vec<Run> {
    let (each, mut start, mut all) = (channels / groups, 0, Vec::new());
    for (to, to_stride) in outputs {
        let (end, to) = (start + *to_stride, Shared::new(to));
        let first = all.len();
        for place in start..end.min(start + groups) {
            let (mut channel, mut place, mut len) = (
                place % groups * each + place / groups,
                place,
                (end - place).div_ceil(groups),
            );
            let mut begin = 0;
            for (from, from_stride) in inputs {
                let here = channel.wrapping_sub(begin);
                if len > 0 && here < *from_stride {
                    let count = len.min(from_stride - here);
                    all.push(Run {
                        from: from.as_ptr().wrapping_add(here),
                        from_stride: *from_stride,
                        turn: None,
                        // A place of the first pixel, which is not gone to where there are no pixels.
                        to: to.ahead(place - start),
                        to_stride: *to_stride,
                        len: count,
                    });
                    (channel, place, len) = (channel + count, place + count * groups, len - count);
                }
                begin += from_stride;
            }
        }
        if groups == 2
            && let [a, b] = all[first..]
        {
            all.truncate(first);
            all.push(Run {
                turn: Some((b.from, b.from_stride, b.len)),
                ..a
            });
        }
        start = end;
    }
    all
}

struct Pixels {
    run: Run,
    groups: usize,
    pixels: std::ops::Range<usize>,
}

impl Op for Pixels {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run {
            from,
            from_stride,
            turn,
            to,
            to_stride,
            len,
        } = self.run;
        for pixel in self.pixels {
            // SAFETY: the pixel's channels are in both, and parts have different pixels.
            unsafe {
                let (from, to) = (from.add(pixel * from_stride), to.at(pixel * to_stride));
                match turn {
                    None => (0..len).for_each(|i| *to.add(i * self.groups) = *from.add(i)),
                    Some((other, other_stride, other_len)) => {
                        let other = other.add(pixel * other_stride);
                        let mut at = 0;
                        while at + S::LANES <= other_len {
                            let [a, b] = s.interleave(s.load(from.add(at)), s.load(other.add(at)));
                            s.store(to.add(2 * at), a);
                            s.store(to.add(2 * at + S::LANES), b);
                            at += S::LANES;
                        }
                        let left = len + other_len - 2 * at;
                        if left > 0 {
                            let (a, b) = (len - at, other_len - at);
                            let [a, b] = s.interleave(
                                s.load_part(from.add(at), a.min(S::LANES)),
                                s.load_part(other.add(at), b),
                            );
                            s.store_part(to.add(2 * at), a, left.min(S::LANES));
                            if left > S::LANES {
                                s.store_part(to.add(2 * at + S::LANES), b, left - S::LANES);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::tests::Several;

    #[test]
    fn groups_take_turns_across_inputs_and_outputs() {
        for (groups, inputs, outputs) in [
            (2, &[58usize, 58][..], &[58usize, 58][..]),
            (2, &[116], &[116]),
            (2, &[29, 29], &[29, 29]),
            (2, &[1, 3], &[3, 1]),
            (2, &[7, 5, 20], &[31, 1]),
            (2, &[66, 0], &[33, 33]),
            (2, &[100, 100], &[99, 101]),
            (3, &[4, 17], &[10, 11]),
            (4, &[16, 16], &[5, 27]),
            (1, &[5, 4], &[2, 7]),
            (8, &[8], &[3, 3, 2]),
        ] {
            for pixels in [0, 1, 13] {
                let channels: usize = inputs.iter().sum();
                // The number of a channel, and of its pixel.
                let number = |channel: usize, pixel: usize| (channel * 1000 + pixel) as f32;
                let mut first = 0;
                let given: Vec<Vec<f32>> = inputs
                    .iter()
                    .map(|n| {
                        first += n;
                        let begin = first - n;
                        (0..pixels * n).map(|i| number(begin + i % n, i / n)).collect()
                    })
                    .collect();
                for isa in Isa::all() {
                    let mut made: Vec<Vec<f32>> = outputs.iter().map(|n| vec![-1.0; pixels * n]).collect();
                    let from: Vec<(&[f32], usize)> =
                        given.iter().map(Vec::as_slice).zip(inputs.iter().copied()).collect();
                    let mut to: Vec<(&mut [f32], usize)> = made
                        .iter_mut()
                        .map(Vec::as_mut_slice)
                        .zip(outputs.iter().copied())
                        .collect();
                    shuffle(isa, &Several(3), pixels, groups, &from, &mut to);
                    for pixel in 0..pixels {
                        let have = made
                            .iter()
                            .zip(outputs)
                            .flat_map(|(x, n)| &x[pixel * n..(pixel + 1) * n]);
                        // `[groups, each]` turned around.
                        let each = channels / groups;
                        let want = (0..each).flat_map(|i| (0..groups).map(move |g| number(g * each + i, pixel)));
                        assert!(have.copied().eq(want), "{isa}, {groups} of {inputs:?} to {outputs:?}");
                    }
                }
            }
        }
    }
}
