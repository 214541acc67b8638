use super::*;
use crate::Serial;

struct Four;

impl Pool for Four {
    fn threads(&self) -> usize {
        4
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

fn numbers(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * step) % 1009) as f32 / 300.0 - 1.7).collect()
}

#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    value_depth: usize,
    causal: Option<usize>,
    mask: u8,
    rows_first: bool,
}

fn check<T: Element>(case: Case, narrow: impl Fn(f32) -> T) {
    let Case {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        depth,
        value_depth,
        ..
    } = case;
    // The cache is longer than what is filled, and NaN there.
    let room = keys + 3;
    let strides = |heads, rows, depth| match case.rows_first {
        true => Strides::rows_first(heads, rows, depth),
        false => Strides::heads_first(heads, rows, depth),
    };
    let (qs, os) = (strides(heads, queries, depth), strides(heads, queries, value_depth));
    let (ks, vs) = (strides(kv_heads, room, depth), strides(kv_heads, room, value_depth));
    let q = numbers(batch * heads * queries * depth, 7919);
    let fill = |strides: &Strides, depth: usize, step: usize| {
        let source = numbers(batch * kv_heads * room * depth, step);
        let mut cache: Vec<T> = source.iter().map(|_| narrow(f32::NAN)).collect();
        for b in 0..batch {
            for h in 0..kv_heads {
                for j in 0..keys {
                    let at = strides.at(b, h, j);
                    (at..at + depth).for_each(|at| cache[at] = narrow(source[at]));
                }
            }
        }
        cache
    };
    let (k, v) = (fill(&ks, depth, 613), fill(&vs, value_depth, 389));
    let float: Vec<f32> = (0..batch * queries * keys)
        .map(|i| {
            if i % 11 == 3 {
                f32::NEG_INFINITY
            } else {
                (i * 37 % 19) as f32 / 8.0
            }
        })
        .collect();
    let boolean: Vec<u8> = (0..batch * keys).map(|i| u8::from(i % 5 != 2)).collect();
    let mask = match case.mask {
        1 => Some(Mask {
            values: MaskValues::Float(&float),
            batch: queries * keys,
            head: 0,
            query: keys,
            key: 1,
        }),
        2 => Some(Mask {
            values: MaskValues::Bool(&boolean),
            batch: keys,
            head: 0,
            query: 0,
            key: 1,
        }),
        _ => None,
    };
    let attention = Attention {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        depth,
        value_depth,
        scale: 0.3,
        causal: case.causal,
        mask,
        zero_unseen: false,
    };
    let mut want = vec![0.0f64; batch * heads * queries * value_depth];
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..queries {
                let score = |j: usize| -> f64 {
                    let (kat, qat) = (ks.at(b, h / (heads / kv_heads), j), qs.at(b, h, i));
                    let dot: f64 = (0..depth)
                        .map(|d| f64::from(q[qat + d]) * f64::from(k[kat + d].float()))
                        .sum();
                    let hidden = case.causal.is_some_and(|start| j > start + i);
                    let add = mask.map_or(0.0, |m| m.of(b * m.batch, i, j));
                    if hidden {
                        f64::NEG_INFINITY
                    } else {
                        dot * 0.3 + f64::from(add)
                    }
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|x| (x - top).exp()).sum();
                for c in 0..value_depth {
                    let sum: f64 = (0..keys)
                        .map(|j| {
                            (scores[j] - top).exp() * f64::from(v[vs.at(b, h / (heads / kv_heads), j) + c].float())
                        })
                        .sum();
                    want[os.at(b, h, i) + c] = if keys == 0 { 0.0 } else { sum / total };
                }
            }
        }
    }
    for isa in Isa::all() {
        let run = |pool: &dyn Pool| {
            let mut out = vec![7.0; want.len()];
            let mut scratch = vec![f32::NAN; attention.scratch_len(pool.threads())];
            let (k, v) = (
                Rows {
                    values: &k[..],
                    strides: ks,
                },
                Rows {
                    values: &v[..],
                    strides: vs,
                },
            );
            attention.run(
                isa,
                pool,
                Rows {
                    values: &q,
                    strides: qs,
                },
                k,
                v,
                &mut out,
                os,
                &mut scratch,
            );
            out
        };
        let out = run(&Serial);
        assert!(out.iter().zip(&run(&Four)).all(|(a, b)| a.to_bits() == b.to_bits()));
        for (have, want) in out.iter().zip(&want) {
            // A score, of `depth` products of about 1 at most 3, is off by up to `depth` halves of an ulp of it; so is, relatively, its exponential;
            // values are up to 1.7.
            let bound = 1.7 * (depth as f64 * depth as f64 * 3e-8 + 4e-6);
            let same = want.is_nan() && have.is_nan();
            assert!(
                same || (f64::from(*have) - want).abs() <= bound,
                "{isa}, {case:?}: {have}, not {want}"
            );
        }
    }
}

#[test]
fn attention_is_that_of_doubles() {
    let plain = Case {
        batch: 1,
        heads: 2,
        kv_heads: 2,
        queries: 1,
        keys: 1,
        depth: 4,
        value_depth: 4,
        causal: None,
        mask: 0,
        rows_first: false,
    };
    let sizes: [(usize, usize, usize, usize); 8] = [
        (1, 1, 1, 1),
        (1, 70, 32, 32),
        (1, 700, 20, 9),
        (3, 65, 17, 40),
        (9, 9, 64, 64),
        (49, 64, 8, 12),
        (100, 131, 33, 15),
        (12, 0, 4, 4),
    ];
    for (queries, keys, depth, value_depth) in sizes {
        for mask in 0..3 {
            for causal in [None, Some(0), Some(keys.saturating_sub(queries))] {
                let case = Case {
                    queries,
                    keys,
                    depth,
                    value_depth,
                    mask,
                    causal,
                    ..plain
                };
                check(case, |x| x);
                check(
                    Case {
                        batch: 2,
                        heads: 6,
                        kv_heads: 2,
                        rows_first: true,
                        ..case
                    },
                    |x| x,
                );
            }
        }
        let case = Case {
            queries,
            keys,
            depth,
            value_depth,
            heads: 4,
            kv_heads: 1,
            causal: Some(3),
            ..plain
        };
        check(case, f16::from_f32);
        check(case, bf16::from_f32);
    }
}

#[test]
fn a_query_that_sees_nothing_is_nan_or_zero() {
    for queries in [1, 20] {
        let hidden = vec![0u8; 70];
        let (q, k) = (numbers(queries * 8, 13), numbers(70 * 8, 17));
        for zero_unseen in [false, true] {
            let attention = Attention {
                batch: 1,
                heads: 1,
                kv_heads: 1,
                queries,
                keys: 70,
                depth: 8,
                value_depth: 8,
                scale: 1.0,
                causal: None,
                mask: Some(Mask {
                    values: MaskValues::Bool(&hidden),
                    batch: 0,
                    head: 0,
                    query: 0,
                    key: 1,
                }),
                zero_unseen,
            };
            for isa in Isa::all() {
                let mut out = vec![1.0; queries * 8];
                let mut scratch = vec![0.0; attention.scratch_len(1)];
                let strides = Strides::heads_first(1, queries, 8);
                let keys = Rows {
                    values: &k[..],
                    strides: Strides::heads_first(1, 70, 8),
                };
                attention.run(
                    isa,
                    &Serial,
                    Rows { values: &q, strides },
                    keys,
                    keys,
                    &mut out,
                    strides,
                    &mut scratch,
                );
                assert!(out.iter().all(|x| if zero_unseen { *x == 0.0 } else { x.is_nan() }));
            }
        }
    }
}
