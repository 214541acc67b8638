//! `delegraph bench --llm`: a prompt and then token after token, by a method that takes tokens and their positions and keeps its cache in states.

use crate::args::BenchArgs;
use crate::output::Output;
use delegraph::{InputKind, Session, Value};
use delegraph_types::{DType, Dims, bf16, f16};
use std::time::Instant;

/// What was measured, in tokens a second and milliseconds.
#[derive(Debug)]
pub struct Measured {
    /// Tokens of the prompt a second.
    pub prefill: f64,
    /// Tokens a second, one by one.
    pub decode: f64,
    /// Each decoded token.
    pub times_ms: Vec<f64>,
    /// The prompt.
    pub prefill_ms: f64,
}

/// A model's sessions: one that takes any number of tokens, or one for the prompt and one for what follows.
pub struct Model {
    /// Takes the prompt.
    pub prefill: Session,
    /// Takes the tokens behind it; `None`: the same session.
    pub decode: Option<Session>,
}

/// The inputs that tokens and positions are, and how many tokens there may be.
struct Border {
    tokens: usize,
    positions: Option<usize>,
    most: usize,
}

impl Model {
    /// Of the session that decodes, and, where it takes but one token, another for the prompt.
    ///
    /// # Errors
    /// The other cannot be had.
    pub fn of(decode: Session, prefill: impl FnOnce() -> anyhow::Result<Session>) -> anyhow::Result<Model> {
        if border(&decode)?.most > 1 {
            return Ok(Model {
                prefill: decode,
                decode: None,
            });
        }
        Ok(Model {
            prefill: prefill()?,
            decode: Some(decode),
        })
    }

    /// The session that takes the tokens behind the prompt.
    pub fn behind(&mut self) -> &mut Session {
        self.decode.as_mut().unwrap_or(&mut self.prefill)
    }
}

/// Finds tokens, `i64[1, n]`, and their positions, `i64[n]`, among the inputs.
fn border(session: &Session) -> anyhow::Result<Border> {
    let infos = session.inputs();
    let find = |rank: usize| {
        let fits = |kind: &InputKind<'_>| match kind {
            InputKind::Tensor { dtype, sizes, .. } => *dtype == DType::I64 && sizes.rank() == rank,
            _ => false,
        };
        infos.iter().position(|info| fits(&info.kind))
    };
    let Some(tokens) = find(2) else {
        return Err(crate::usage(
            "`--llm` needs a method that takes tokens as `i64[1, n]` and keeps its cache in states".to_string(),
        ));
    };
    let most = match &infos[tokens].kind {
        InputKind::Tensor { sizes, .. } => usize::try_from(sizes[1]).unwrap_or(0),
        _ => 0,
    };
    Ok(Border {
        tokens,
        positions: find(1),
        most,
    })
}

/// Runs tokens at positions from `start` on; gives the most probable next token.
fn step(session: &mut Session, border: &Border, tokens: &[i64], start: usize) -> anyhow::Result<i64> {
    let ids: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let places: Vec<u8> = (start..start + tokens.len())
        .flat_map(|place| (place as i64).to_le_bytes())
        .collect();
    let count = tokens.len() as i64;
    let mut values: Vec<Value<'_>> = Vec::new();
    for (at, info) in session.inputs().iter().enumerate() {
        values.push(match &info.kind {
            _ if at == border.tokens => Value::tensor(DType::I64, Dims::new(&[1, count])?, &ids),
            _ if Some(at) == border.positions => Value::tensor(DType::I64, Dims::new(&[count])?, &places),
            InputKind::Literal(_) => Value::None,
            _ => {
                return Err(crate::usage(format!(
                    "`--llm` does not know what to give to input `{}`",
                    info.name
                )));
            }
        });
    }
    session.run(&values)?;
    let Value::Tensor(logits) = session.output(0)? else {
        return Err(crate::usage(
            "the method's first output is no tensor of logits".to_string(),
        ));
    };
    let vocabulary = logits.shape.as_slice().last().copied().unwrap_or(0).max(1) as usize;
    let width = logits.dtype.size();
    let last = logits
        .bytes
        .len()
        .checked_sub(vocabulary * width)
        .map(|at| &logits.bytes[at..]);
    let wide = |word: &[u8; 2]| u16::from_le_bytes(*word);
    let numbers: Vec<f32> = match (logits.dtype, last) {
        (DType::F32, Some(last)) => last
            .as_chunks()
            .0
            .iter()
            .map(|word| f32::from_le_bytes(*word))
            .collect(),
        (DType::BF16, Some(last)) => last
            .as_chunks()
            .0
            .iter()
            .map(|word| bf16::from_bits(wide(word)).to_f32())
            .collect(),
        (DType::F16, Some(last)) => last
            .as_chunks()
            .0
            .iter()
            .map(|word| f16::from_bits(wide(word)).to_f32())
            .collect(),
        _ => {
            return Err(crate::usage(
                "the method's first output is no tensor of logits in `f32`, `f16` or `bf16`".to_string(),
            ));
        }
    };
    let best = numbers.into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(best.map_or(0, |(token, _)| token as i64))
}

/// Measures the prompt and the tokens that follow, once to warm up and then so often as asked for.
///
/// # Errors
/// A method of another form, or a prompt that is too long.
pub fn measure(model: &mut Model, args: &BenchArgs, output: &Output) -> anyhow::Result<Measured> {
    let prefill_border = border(&model.prefill)?;
    let decode_border = border(model.behind())?;
    let (prompt, generate) = (args.prompt.max(1) as usize, args.generate.max(1) as usize);
    // A model of single tokens does not say how many there may be.
    let most = prefill_border.most;
    let wanted = if model.decode.is_some() {
        prompt
    } else {
        prompt + generate
    };
    if wanted > most {
        return Err(crate::usage(format!(
            "a prompt of {prompt} and {generate} tokens more are beyond the {} that the method takes",
            most
        )));
    }
    let rounds = args.runs.unwrap_or(3).max(1) as usize;
    let (mut prefills, mut times) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let tokens: Vec<i64> = (0..prompt).map(|at| (at * 37 + 11) as i64 % 97).collect();
        let started = Instant::now();
        let mut token = step(&mut model.prefill, &prefill_border, &tokens, 0)?;
        if let Some(decode) = &mut model.decode {
            decode.adopt_state(&mut model.prefill)?;
        }
        let prefill = started.elapsed().as_secs_f64();
        let mut each = Vec::with_capacity(generate);
        for at in 0..generate {
            let started = Instant::now();
            token = step(model.behind(), &decode_border, &[token], prompt + at)?;
            each.push(started.elapsed().as_secs_f64() * 1e3);
        }
        // The first round meets fresh memory and plans.
        if round > 0 {
            prefills.push(prefill * 1e3);
            times.extend(each);
        }
        output.talk(format!(
            "round {round} of {rounds}: prompt {:.1} ms, last token {:.1} ms",
            prefill * 1e3,
            times.last().copied().unwrap_or(0.0)
        ));
    }
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) / 2]
    };
    let prefill_ms = median(&prefills);
    Ok(Measured {
        prefill: prompt as f64 * 1e3 / prefill_ms,
        decode: 1e3 / median(&times),
        times_ms: times,
        prefill_ms,
    })
}

/// One token more behind the prompt, for a trace.
///
/// # Errors
/// As [`measure`].
pub fn once(model: &mut Model, args: &BenchArgs) -> anyhow::Result<()> {
    let border = border(model.behind())?;
    step(model.behind(), &border, &[1], args.prompt as usize)?;
    Ok(())
}
