//! `where`: what an argument has to be. A total grammar: no expressions, no names of other arguments, nothing that loops.

use super::Parameter;
use delegraph_abi::image::{ArgView, NodeView};
use std::cmp::Ordering;

/// A constant of the manifest or of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `None` of Python; a manifest writes `"absent"`.
    None,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `0.5`
    Float(f64),
    /// `"none"`; element types and memory formats by their names.
    Text(String),
    /// `[1, 1]`
    List(Vec<Literal>),
}

/// One thing that an argument may be. A parameter with several may be any of them.
///
/// | in the manifest | covers |
/// | --- | --- |
/// | `1`, `0.5`, `true`, `"none"` | that number, boolean or text; numbers are compared as numbers |
/// | `"<=7"`, `">0"`, `"!=2"` | a number that compares so |
/// | `"absent"`, `"present"` | `None`, or anything else |
/// | `"tensor"` | a tensor, not a number in its place |
/// | `"channels"` | the size of dimension 1 of the first tensor (the last one, where channels are last) |
/// | `[[1, 1], [2, 2]]` | exactly one of these lists |
///
/// Of a list of numbers each item has to be covered. What is known at run time only is covered by `"present"` and `"channels"` alone.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Equal.
    Equal(Literal),
    /// A number that compares so.
    Compare(Comparison, Literal),
    /// See [`Condition`].
    Word(Word),
}

/// A comparison with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Not,
}

/// A word with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Word {
    Absent,
    Present,
    Tensor,
    Channels,
}

/// Comparisons as they are written, longer ones first.
pub(super) const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("!=", Comparison::Not),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

/// Words as they are written.
pub(super) const WORDS: [(&str, Word); 4] = [
    ("absent", Word::Absent),
    ("present", Word::Present),
    ("tensor", Word::Tensor),
    ("channels", Word::Channels),
];

impl Literal {
    /// How two numbers compare; `None`: one is no number, or is NaN.
    fn order(&self, other: &Literal) -> Option<Ordering> {
        match (self, other) {
            (Literal::Int(a), Literal::Int(b)) => Some(a.cmp(b)),
            (Literal::Int(a), Literal::Float(b)) => (*a as f64).partial_cmp(b),
            (Literal::Float(a), Literal::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Literal::Float(a), Literal::Float(b)) => a.partial_cmp(b),
            _ => None,
        }
    }

    fn equals(&self, other: &Literal) -> bool {
        match (self, other) {
            (Literal::List(a), Literal::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            _ => self == other || self.order(other) == Some(Ordering::Equal),
        }
    }
}

impl Condition {
    /// Whether a constant is covered.
    fn covers(&self, literal: &Literal) -> bool {
        match self {
            Condition::Equal(want) => want.equals(literal),
            Condition::Compare(how, limit) => literal.order(limit).is_some_and(|order| match how {
                Comparison::Less => order.is_lt(),
                Comparison::AtMost => order.is_le(),
                Comparison::More => order.is_gt(),
                Comparison::AtLeast => order.is_ge(),
                Comparison::Not => order.is_ne(),
            }),
            Condition::Word(Word::Absent) => *literal == Literal::None,
            Condition::Word(Word::Present) => *literal != Literal::None,
            Condition::Word(Word::Tensor | Word::Channels) => false,
        }
    }
}

/// Whether the argument of a parameter is among what is allowed; otherwise what it is, as the end of a sentence that begins with the
/// parameter's name.
pub(super) fn check(
    node: &NodeView<'_>,
    at: usize,
    parameter: &Parameter,
    allowed: &[Condition],
) -> Result<(), String> {
    let has = |word| allowed.contains(&Condition::Word(word));
    let arg = node.arg(at);
    if has(Word::Present) && !arg.is_none() || has(Word::Channels) && is_channels(node, &arg) {
        return Ok(());
    }
    if !matches!(arg, ArgView::None) && values_of(&arg) {
        return match has(Word::Tensor) {
            true => Ok(()),
            false => Err("is a tensor".to_string()),
        };
    }
    let literal = match at >= node.arg_count() {
        // An image that ends before the parameter means its default.
        true => parameter.default.clone().unwrap_or(Literal::None),
        false => literal(&arg).ok_or("is known at run time only")?,
    };
    let covered = |literal: &Literal| allowed.iter().any(|condition| condition.covers(literal));
    let whole = covered(&literal);
    let each = matches!(&literal, Literal::List(items) if items.iter().all(covered));
    match whole || each {
        true => Ok(()),
        false => Err(format!("is {literal}, and the claim is of {}", super::listed(allowed))),
    }
}

fn values_of(arg: &ArgView<'_>) -> bool {
    matches!(arg, ArgView::Value(_) | ArgView::Values(_) | ArgView::OptionalValues(_))
}

/// The constant that an argument of an image is; `None`: it is a tensor, or known at run time only.
pub fn literal(arg: &ArgView<'_>) -> Option<Literal> {
    Some(match arg {
        ArgView::None => Literal::None,
        ArgView::Bool(b) => Literal::Bool(*b),
        ArgView::Int(i) => Literal::Int(*i),
        ArgView::Float(x) => Literal::Float(*x),
        ArgView::Str(text) => Literal::Text((*text).to_string()),
        ArgView::DType(dtype) => Literal::Text(dtype.to_string()),
        ArgView::MemoryFormat(format) => Literal::Text(format.name()?.to_ascii_lowercase()),
        ArgView::Ints(items) => Literal::List(items.constant()?.into_iter().map(Literal::Int).collect()),
        ArgView::Numbers(items) => Literal::List(items.iter().map(|item| literal(&item)).collect::<Option<_>>()?),
        _ => return None,
    })
}

/// The argument is the number of channels of the first tensor.
fn is_channels(node: &NodeView<'_>, arg: &ArgView<'_>) -> bool {
    let image = node.image();
    let Some(first) = node.inputs().next().map(|v| image.value(v)) else {
        return false;
    };
    let at = match image.normal_form() {
        1 if first.rank() == 4 => 3,
        _ => 1,
    };
    let Some(channels) = first.dims().get(at) else {
        return false;
    };
    match arg {
        ArgView::Int(i) => image.const_int(channels) == Some(*i),
        ArgView::Expr(expr) => *expr == channels,
        _ => false,
    }
}

impl std::fmt::Display for Literal {
    /// As TOML; absence as the word for it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Literal::None => f.write_str("\"absent\""),
            Literal::Bool(b) => write!(f, "{b}"),
            Literal::Int(i) => write!(f, "{i}"),
            Literal::Float(x) => write!(f, "{}", toml::Value::Float(*x)),
            Literal::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Literal::List(items) => {
                let items: Vec<String> = items.iter().map(Literal::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

impl std::fmt::Display for Condition {
    /// As the manifest has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Equal(literal) => write!(f, "{literal}"),
            Condition::Compare(how, limit) => {
                let sign = COMPARISONS.iter().find(|(_, known)| known == how);
                write!(f, "\"{}{limit}\"", sign.map_or("", |(sign, _)| sign))
            }
            Condition::Word(word) => {
                let name = WORDS.iter().find(|(_, known)| known == word);
                write!(f, "\"{}\"", name.map_or("", |(name, _)| name))
            }
        }
    }
}
