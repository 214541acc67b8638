//! The operators of ExecuTorch's LLM extension (`extension/llm/custom_ops`): attention over a cache of keys and values.
//!
//! Tensors are `[batch, position, head, width]`; several heads of the query may share one of the keys.

use crate::math::Real;
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, expect_dtype, load_bytes, out_bytes, produce};
use crate::strided::{Move, words};
use crate::wide::convert;
use crate::{Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("llama::custom_sdpa.out", attention),
    ("llama::fast_hadamard_transform.out", hadamard),
    ("llama::sdpa_with_kv_cache.out", attention_with_cache),
    ("llama::update_cache.out", update),
    ("llama::update_cache_with_indices.out", update_at),
];

fn mismatch(argument: &'static str, a: &Tensor, b: &Dims) -> KernelError {
    KernelError::invalid(
        argument,
        format!("a {} tensor of {} for one of {b}", a.dtype(), a.sizes()),
    )
}

/// Where one call's queries stand and what they may look at.
struct Span<'a> {
    start: i64,
    mask: Option<Tensor<'a>>,
    causal: bool,
    scale: Option<f64>,
}

/// The arguments from `start_pos` on; `mask` is the place of the mask.
fn span<'a>(call: &Call<'a, '_>, start: usize, mask: usize) -> Result<Span<'a>, KernelError> {
    let span = Span {
        start: call.int(start)?,
        mask: call.optional_tensor(mask)?,
        causal: call.bool(mask + 2)?,
        scale: call.optional_float(mask + 3)?,
    };
    if !call.is_none(mask + 1) && call.float(mask + 1)? != 0.0 {
        return Err(KernelError::unsupported("drpout_p", "dropout"));
    }
    if span.mask.is_some() && span.causal {
        return Err(KernelError::invalid("is_causal", "a causal mask besides another one"));
    }
    Ok(span)
}

/// `(query, key, value, start_pos, attn_mask, drpout_p, is_causal, scale)`
fn attention(call: &mut Call) -> Result<(), KernelError> {
    let span = span(call, 3, 4)?;
    let (query, key, value) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let inputs = call.args.len();
    let [out] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "an output tensor",
        });
    };
    attend(&query, &key, &value, &span, out, call.scratch)
}

/// `(query, key, value, key_cache, value_cache, start_pos, seq_len, attn_mask, drpout_p, is_causal, scale)`
fn attention_with_cache(call: &mut Call) -> Result<(), KernelError> {
    let span = span(call, 5, 7)?;
    let (query, key, value) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let length = call.int(6)?;
    if query.sizes().get(1) != Some(&length) {
        return Err(KernelError::invalid(
            "seq_len",
            format!("{length} for queries of {}", query.sizes()),
        ));
    }
    let inputs = call.args.len();
    let [keys, values, out] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "three output tensors",
        });
    };
    store_at(&key, keys, span.start)?;
    store_at(&value, values, span.start)?;
    let [mut of_keys, mut of_values] = [Dims::SCALAR; 2];
    attend(
        &query,
        &keys.as_tensor(&mut of_keys)?,
        &values.as_tensor(&mut of_values)?,
        &span,
        out,
        call.scratch,
    )
}

/// Queries at `start`, `start + 1`, … over the keys up to the last of them, or over as many as the mask has.
fn attend<'a>(
    query: &Tensor<'a>,
    key: &Tensor<'a>,
    value: &Tensor<'a>,
    span: &Span<'a>,
    out: &mut Out,
    scratch: &'a mut Scratch,
) -> Result<(), KernelError> {
    let (&[batch, length, heads, width], &[same, all, shared, key_width]) =
        (query.sizes().as_slice(), key.sizes().as_slice())
    else {
        return Err(mismatch("key", key, query.sizes()));
    };
    if batch != same || width != key_width || shared == 0 || heads % shared != 0 || width == 0 {
        return Err(mismatch("key", key, query.sizes()));
    }
    if value.sizes() != key.sizes() {
        return Err(mismatch("value", value, key.sizes()));
    }
    if !matches!(query.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return Err(KernelError::unsupported("query", format!("dtype {}", query.dtype())));
    }
    let keys = match span.mask {
        Some(mask) if *mask.sizes().as_slice() == [length, all] => all,
        Some(mask) => return Err(mismatch("attn_mask", &mask, key.sizes())),
        None => span.start.saturating_add(length),
    };
    if span.start < 0 || keys > all {
        return Err(KernelError::invalid(
            "start_pos",
            format!("positions from {} to {keys} of {all}", span.start),
        ));
    }
    expect_dtype(out, 0, query.dtype())?;
    out.resize(query.sizes())?;
    let bytes = [query, key, value]
        .map(load_bytes::<f32>)
        .into_iter()
        .chain([
            span.mask.as_ref().map_or(0, load_bytes::<f32>),
            out_bytes::<f32>(out),
            bytes_of::<f32>(keys as usize),
        ])
        .fold(0, usize::saturating_add);
    let mut arena = Arena::new(scratch, bytes)?;
    let q = arena.load::<f32>(query)?;
    let (k, v) = (arena.load::<f32>(key)?, arena.load::<f32>(value)?);
    let mask = match &span.mask {
        Some(mask) => Some(arena.load::<f32>(mask)?),
        None => None,
    };
    let scores = arena.take::<f32>(keys as usize)?;
    let scale = span.scale.unwrap_or_else(|| 1.0 / Real::sqrt(width as f64)) as f32;
    let (length, heads, width) = (length as usize, heads as usize, width as usize);
    let (all, shared, keys) = (all as usize, shared as usize, keys as usize);
    let start = span.start as usize;
    produce::<f32>(out, &mut arena, |slots, _| {
        for (row, (slots, q)) in slots.chunks_mut(width).zip(q.chunks(width)).enumerate() {
            let (head, position, batch) = (row % heads, row / heads % length, row / heads / length);
            let lane = head / (heads / shared);
            let at = |key: usize| ((batch * all + key) * shared + lane) * width;
            let seen = if span.causal {
                keys.min(start + position + 1)
            } else {
                keys
            };
            let scores = &mut scores[..seen];
            for (key, score) in scores.iter_mut().enumerate() {
                *score = dot(q, &k[at(key)..][..width]) * scale;
                if let Some(mask) = mask {
                    *score += mask[position * keys + key];
                }
            }
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // A row that may look at nothing gives zeros, as ExecuTorch's does.
            let most = if most == f32::NEG_INFINITY { 0.0 } else { most };
            let mut sum = 0f32;
            for score in scores.iter_mut() {
                *score = Real::exp(*score - most);
                sum += *score;
            }
            let factor = if sum == 0.0 { 0.0 } else { 1.0 / sum };
            slots.fill(0.0);
            for (key, score) in scores.iter().enumerate() {
                let part = score * factor;
                for (slot, value) in slots.iter_mut().zip(&v[at(key)..][..width]) {
                    *slot += part * value;
                }
            }
        }
        Ok(())
    })
}

/// In eight sums, which the compiler keeps in one register.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut sums, mut rest) = ([0f32; 8], 0f32);
    let (a_pieces, b_pieces) = (a.chunks_exact(8), b.chunks_exact(8));
    for (a, b) in a_pieces.remainder().iter().zip(b_pieces.remainder()) {
        rest += a * b;
    }
    for (a, b) in a_pieces.zip(b_pieces) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Writes `[batch, length, ...]` over the positions from `start` on of `[batch, all, ...]`.
fn store_at(value: &Tensor, cache: &mut Out, start: i64) -> Result<(), KernelError> {
    let strides = cache.strides();
    let fits = value.rank() == 4
        && cache.sizes().rank() == 4
        && (0..4).all(|d| d == 1 || value.sizes()[d] == cache.sizes()[d])
        && value.dtype() == cache.dtype();
    if !fits {
        return Err(mismatch("value", value, cache.sizes()));
    }
    let all = cache.sizes()[1];
    if start < 0 || start.saturating_add(value.sizes()[1]) > all {
        let length = value.sizes()[1];
        return Err(KernelError::invalid(
            "start_pos",
            format!("{length} positions from {start} on, of {all}"),
        ));
    }
    let plan = Move::of(value.sizes(), value.strides(), &strides)?;
    let (dtype, offset) = (cache.dtype(), (start * strides[1]) as usize);
    convert(
        &plan,
        (value.dtype(), value.bytes(), 0),
        (dtype, cache.bytes_mut(), offset),
    )
}

/// The cache and what the operator returns: one element that says nothing.
fn cache_of<'c, 'a>(call: &'c mut Call<'a, '_>) -> Result<&'c mut Out<'a>, KernelError> {
    let inputs = call.args.len();
    let [cache, out] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "two output tensors",
        });
    };
    out.resize(&Dims::filled(1, 1))?;
    out.bytes_mut().fill(0);
    Ok(cache)
}

/// `(value, cache, start_pos)`
fn update(call: &mut Call) -> Result<(), KernelError> {
    let (value, start) = (call.tensor(0)?, call.int(2)?);
    store_at(&value, cache_of(call)?, start)
}

/// `(value, cache, start_pos, indices [batch, length])`: each position has a place of its own in the cache.
fn update_at(call: &mut Call) -> Result<(), KernelError> {
    let (value, start, indices) = (call.tensor(0)?, call.int(2)?, call.tensor(3)?);
    let cache = cache_of(call)?;
    let strides = cache.strides();
    let fits = value.rank() == 4
        && cache.sizes().rank() == 4
        && [0, 2, 3].iter().all(|&d| value.sizes()[d] == cache.sizes()[d])
        && value.dtype() == cache.dtype();
    if !fits {
        return Err(mismatch("value", &value, cache.sizes()));
    }
    if indices.dtype() != DType::I64 || *indices.sizes().as_slice() != value.sizes()[..2] {
        return Err(mismatch("indices", &indices, value.sizes()));
    }
    let all = cache.sizes()[1];
    if !(0..=all).contains(&start) {
        return Err(KernelError::invalid("start_pos", format!("position {start} of {all}")));
    }
    let places = words::<i64>(indices.bytes())?;
    let row = Move::of(&value.sizes()[2..], &value.strides()[2..], &strides[2..])?;
    for batch in 0..value.sizes()[0] {
        for position in 0..value.sizes()[1] {
            let at = batch * indices.strides()[0] + position * indices.strides()[1];
            let place = places.get(at as usize).copied().unwrap_or(-1);
            if !(0..all).contains(&place) {
                return Err(KernelError::invalid("indices", format!("position {place} of {all}")));
            }
            let from = batch * value.strides()[0] + position * value.strides()[1];
            let to = batch * strides[0] + place * strides[1];
            let width = value.dtype().size();
            row.copy_bytes(width, value.bytes(), from as usize, cache.bytes_mut(), to as usize)?;
        }
    }
    Ok(())
}

/// `(mat)`: each row times Hadamard's matrix over the square root of its size, for a power of two.
fn hadamard(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let width = input.sizes().last().copied().unwrap_or(1) as usize;
    if !width.is_power_of_two() {
        return Err(KernelError::unsupported("mat", format!("rows of {width}")));
    }
    if !input.dtype().is_float() {
        return Err(KernelError::invalid("mat", format!("dtype {}", input.dtype())));
    }
    let (out, scratch) = crate::stage::parts(call, 0)?;
    expect_dtype(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    let mut arena = Arena::new(scratch, load_bytes::<f32>(&input).saturating_add(out_bytes::<f32>(out)))?;
    let data = arena.load::<f32>(&input)?;
    let scale = 1.0 / Real::sqrt(width as f32);
    produce::<f32>(out, &mut arena, |slots, _| {
        for (slots, data) in slots.chunks_mut(width).zip(data.chunks(width)) {
            for (slot, x) in slots.iter_mut().zip(data) {
                *slot = x * scale;
            }
            let mut half = 1;
            while half < width {
                for block in slots.chunks_mut(2 * half) {
                    let (low, high) = block.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                half *= 2;
            }
        }
        Ok(())
    })
}
