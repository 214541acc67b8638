//! Scaled dot product attention.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::attention::{Attention, Mask, MaskValues, Rows, Strides};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::{DType, Error};

/// `cpu::attention(q, k, v, mask?, causal, scale?, layouts)`: a word for each of q, k, v and the output, `bhtd` or `bthd`.
pub const NAME: &str = "cpu::attention";

struct Attend {
    plain: Attention<'static>,
    strides: [Strides; 4],
    /// Element type and strides of the mask, and its elements if they are rows of keys; else none.
    mask: Option<(DType, [usize; 4], usize)>,
}

/// Sizes as batch, heads, time and depth, and where rows lie.
fn rows(node: &Arguments<'_>, sizes: &[usize], layout: &str) -> Result<([usize; 4], Strides), Error> {
    let &[batch, a, b, depth] = sizes else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    match layout {
        "bhtd" => Ok(([batch, a, b, depth], Strides::heads_first(a, b, depth))),
        "bthd" => Ok(([batch, b, a, depth], Strides::rows_first(b, a, depth))),
        _ => Err(node.misfit(6, "layouts")),
    }
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let layouts: Vec<&str> = node.str(6)?.split(' ').collect();
    let &[of_q, of_k, of_v, of_out] = layouts.as_slice() else {
        return Err(node.misfit(6, "four layouts"));
    };
    let (q, q_strides) = rows(node, shapes.of(node.value(0)?), of_q)?;
    let (k, k_strides) = rows(node, shapes.of(node.value(1)?), of_k)?;
    let (v, v_strides) = rows(node, shapes.of(node.value(2)?), of_v)?;
    let (out, out_strides) = rows(node, shapes.of(node.output(0)?), of_out)?;
    let [batch, heads, queries, depth] = q;
    let [_, kv_heads, keys, _] = k;
    let fits = k == [batch, kv_heads, keys, depth]
        && v[..3] == k[..3]
        && out == [batch, heads, queries, v[3]]
        && kv_heads > 0
        && heads.is_multiple_of(kv_heads);
    if !fits {
        return Err(Error::invalid(format!(
            "attention of queries {q:?}, keys {k:?} and values {v:?} to {out:?}"
        )));
    }
    let mask = match node.optional_value(3)? {
        None => None,
        Some(mask) => {
            let full = [batch, heads, queries, keys];
            let sizes = shapes.of(mask);
            let missing = 4usize
                .checked_sub(sizes.len())
                .ok_or_else(|| node.misfit(3, "at most four dimensions"))?;
            let mut strides = [0; 4];
            let mut step = 1;
            for (dim, size) in sizes.iter().enumerate().rev() {
                if *size != 1 {
                    strides[missing + dim] = step;
                }
                if *size != 1 && *size != full[missing + dim] {
                    return Err(node.misfit(3, "a mask of the scores' sizes"));
                }
                step *= size;
            }
            let rows = if strides[3] == 1 || keys == 1 {
                shapes.count(mask)
            } else {
                0
            };
            Some((shapes.dtype(mask), strides, rows))
        }
    };
    let scale = match node.optional_scalar(5)? {
        Some(scale) => scale.float() as f32,
        None => 1.0 / (depth as f32).sqrt(),
    };
    Ok(Box::new(Attend {
        plain: Attention {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            depth,
            value_depth: v[3],
            scale,
            causal: node.bool(4)?.then_some(0),
            mask: None,
            zero_unseen: true,
        },
        strides: [q_strides, k_strides, v_strides, out_strides],
        mask,
    }))
}

/// Keys up to the last that any row of a mask shows: of a cache, those behind it are not filled yet. All, where the mask has no rows of keys.
fn seen(mask: &[u8], keys: usize) -> usize {
    if mask.is_empty() || keys == 0 {
        return keys;
    }
    let mut most = 0;
    for row in mask.chunks_exact(keys) {
        if let Some(last) = row[most..].iter().rposition(|byte| *byte != 0) {
            most += last + 1;
        }
    }
    most
}

impl Step for Attend {
    /// Scores and sums of values, a product each; with `causal` those that a query sees. Masks are data: all keys count.
    fn work(&self) -> Work {
        let Attention {
            batch,
            heads,
            queries,
            keys,
            depth,
            value_depth,
            causal,
            ..
        } = self.plain;
        let pairs = match causal {
            None => queries * keys,
            Some(shift) => (0..queries).map(|query| (query + shift + 1).min(keys)).sum(),
        };
        Work::floats(&[2, batch, heads, pairs, depth + value_depth])
    }

    fn scratch(&self, threads: usize) -> usize {
        self.plain.scratch_len(threads) * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let mask = self.mask.map(|(dtype, [batch, head, query, key], _)| Mask {
            values: match dtype {
                DType::F32 => MaskValues::Float(io.input(3)),
                _ => MaskValues::Bool(io.bytes(3)),
            },
            batch,
            head,
            query,
            key,
        });
        let keys = match self.mask {
            Some((DType::BOOL, _, count)) => seen(&io.bytes(3)[..count], self.plain.keys),
            _ => self.plain.keys,
        };
        let attention = Attention {
            mask,
            keys,
            ..self.plain
        };
        let rows = |at: usize| Rows {
            values: io.input::<f32>(at),
            strides: self.strides[at],
        };
        let (q, k, v) = (rows(0), rows(1), rows(2));
        attention.run(Isa::best(), pool, q, k, v, io.output(0), self.strides[3], io.scratch());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_behind_the_last_that_is_shown_are_left_out() {
        assert_eq!(seen(&[1, 1, 0, 0, 1, 1, 1, 0], 4), 3);
        assert_eq!(seen(&[1, 1, 1, 0, 1, 0, 0, 0], 4), 3);
        assert_eq!(seen(&[0, 0, 0, 0], 4), 0);
        assert_eq!(seen(&[0, 1], 2), 2);
        assert_eq!(seen(&[], 4), 4);
    }
}
