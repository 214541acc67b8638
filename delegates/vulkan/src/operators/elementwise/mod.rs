//! Operators on each element by itself: each is described as a chain (`chain.rs`), and one kernel runs them all.
//!
//! A row holds an operator's name and the function that describes a node of it. The same description decides whether a node is taken, lowers it, and
//! lets chains of several nodes be joined.
//!
//! Integers divided by zero are an error, as for PyTorch: a divisor that is a number is checked when it is read, a tensor by a kernel of its own, which sets
//! the flag of the run.

mod arithmetic;
mod choose;
mod compare;
mod convert;
mod reader;
mod unary;

use crate::caps::{Operator, Refusal};
use crate::chain::{self, Chain, Class, MAX_TENSORS, Op, Operand};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::Error;
use delegraph_sdk::image::{NodeView, Sizes};
use reader::Reader;
use std::collections::HashSet;
use std::sync::OnceLock;

/// An operator and how a node of it is described.
pub(crate) struct Row(&'static str, fn(&Reader<'_>) -> Result<Chain, Refusal>);

const TABLES: [&[Row]; 5] = [
    arithmetic::ROWS,
    choose::ROWS,
    compare::ROWS,
    convert::ROWS,
    unary::ROWS,
];

const COUNT: usize = {
    let (mut count, mut table) = (0, 0);
    while table < TABLES.len() {
        count += TABLES[table].len();
        table += 1;
    }
    count
};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &{
    const FIRST: Operator = operator("");
    let mut operators = [FIRST; COUNT];
    let (mut count, mut table) = (0, 0);
    while table < TABLES.len() {
        let mut row = 0;
        while row < TABLES[table].len() {
            operators[count] = operator(TABLES[table][row].0);
            count += 1;
            row += 1;
        }
        table += 1;
    }
    operators
};

const fn operator(name: &'static str) -> Operator {
    Operator { name, accept, encode }
}

/// What a node computes, as a chain. Without `sizes` numbers that depend on sizes stand as 0.
///
/// # Errors
/// It is not an operator of this family, or one of a kind that is not taken.
pub fn describe(node: &NodeView<'_>, sizes: Option<&Sizes>) -> Result<Chain, Refusal> {
    let row = TABLES
        .iter()
        .flat_map(|table| table.iter())
        .find(|row| row.0 == node.op());
    let Row(_, describe) = row.ok_or_else(|| Refusal::attribute(format!("`{}` is not elementwise", node.op())))?;
    let reader = Reader::new(*node, sizes);
    let chain = describe(&reader)?;
    let class = Class::of(chain.dtype);
    let class = class.ok_or_else(|| Refusal::dtype(format!("`{}` is not computed in {}", node.op(), chain.dtype)))?;
    let out = reader.out()?;
    if code(out).is_none() {
        return Err(Refusal::dtype(format!("no kernel writes {out}")));
    }
    let sources = chain.sources();
    if sources.len() > MAX_TENSORS {
        return Err(Refusal::shape(format!("a chain of {} tensors", sources.len())));
    }
    for (value, _) in sources {
        let view = node.image().value(value);
        let dtype = view.dtype().filter(|dtype| code(*dtype).is_some());
        let dtype = dtype.ok_or_else(|| Refusal::dtype(format!("no kernel reads the dtype of `{}`", view.name())))?;
        if class != Class::Float && Class::of(dtype) == Some(Class::Float) {
            return Err(Refusal::dtype(format!(
                "`{}` is not computed in {dtype} and {out}",
                node.op()
            )));
        }
    }
    Ok(chain)
}

/// True for the operators of this family.
pub fn has(op: &str) -> bool {
    static NAMES: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let names = || TABLES.iter().flat_map(|table| table.iter().map(|row| row.0)).collect();
    NAMES.get_or_init(names).contains(op)
}

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    describe(node, None).map(|_| ())
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let chain = describe(&node.view(), Some(node.sizes())).map_err(|refusal| Error::unsupported(refusal.text))?;
    encode_chain(&chain, node, e)
}

/// Runs a chain whose result is the output of this node: one node, or the last of several that were fused.
///
/// # Errors
/// A tensor that is too large, or what the device cannot.
pub fn encode_chain(chain: &Chain, node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let value = node.output(0)?;
    let (dtype, dims) = (e.dtype(value)?, e.dims(value)?);
    let mut tensors: Vec<Tensor> = Vec::new();
    for (source, _) in chain.sources() {
        let layout = e.layout(source);
        tensors.push(e.tensor(source, layout)?);
    }
    if let ([only], [tensor]) = (chain.links.as_slice(), tensors.as_slice())
        && only.op == Op::Load
        && matches!(only.y, Operand::Value(_))
        && (tensor.dtype, &tensor.dims) == (dtype, &dims)
    {
        // The same elements: another name for them.
        e.set(value, tensor.clone());
        return Ok(());
    }
    let layout = e.home(value).unwrap_or(Layout::RowMajor);
    check_divisors(chain, e)?;
    let out = e.output(node, 0, layout)?;
    chain::dispatch(e, chain, &tensors, &out)
}

/// Lets the run fail where an integer is divided by 0.
fn check_divisors(chain: &Chain, e: &mut Encoder<'_>) -> Result<(), Error> {
    if Class::of(chain.dtype) == Some(Class::Float) {
        return Ok(());
    }
    for link in &chain.links {
        let (Op::FloorDiv | Op::TruncDiv | Op::Fmod | Op::Remainder, Operand::Value(value)) = (link.op, link.y) else {
            continue;
        };
        let divisor = e.tensor(value, Layout::RowMajor)?;
        let code =
            code(divisor.dtype).ok_or_else(|| Error::unsupported(format!("no kernel reads {}", divisor.dtype)))?;
        let (flag, count) = (e.flag()?, divisor.count());
        let operands = [read(&divisor), write(&flag)];
        if count > 0 {
            e.dispatch(&kernels::ZEROS, &operands, &[count, code], grid(count, 64))?;
        }
    }
    Ok(())
}
