//! A language model as it is run: a method for the prompt and one for the tokens behind it, which give the logits of the last token alone.

use crate::PassError;
use delegraph_ir::{
    Arg, Def, Expr, Graph, MergeError, Module, Node, Op, Output, Symbols, Type, ValueId, fill_defaults, infer,
};

/// The method that takes the prompt.
pub const PREFILL: &str = "prefill";
/// The method that takes a token at a time.
pub const DECODE: &str = "decode";

/// Why a module is no language model.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LanguageModelError {
    /// It has other methods.
    #[error("a language model has one method, `forward`; this one has {0}")]
    Methods(String),
    /// Its first output is no logits.
    #[error("the first output of `{method}` is {got}; logits are floats of `[batch, tokens, vocabulary]`")]
    Logits {
        /// The method.
        method: String,
        /// What it is.
        got: String,
    },
    /// The two files are not of one model.
    #[error("the models of the prompt and of single tokens do not fit together: {0}")]
    Merge(#[from] MergeError),
    /// Sizes of the cut graph cannot be told.
    #[error(transparent)]
    Pass(#[from] PassError),
}

/// Makes `forward` give the logits of the last token alone: what is computed behind the last layer that mixes tokens is computed for one.
///
/// # Errors
/// The module has other methods, or gives no logits.
pub fn last_logits(module: &mut Module) -> Result<(), LanguageModelError> {
    let [graph] = module.graphs.as_mut_slice() else {
        let names: Vec<&str> = module.graphs.iter().map(|graph| graph.name.as_str()).collect();
        return Err(LanguageModelError::Methods(names.join(", ")));
    };
    let logits = logits(graph)?;
    if graph.tensor(logits).is_some_and(|ty| ty.shape[1] == Expr::Int(1)) {
        return Ok(());
    }
    cut(graph, &module.symbols, logits)?;
    Ok(())
}

/// One module with the methods [`PREFILL`] and [`DECODE`]: of two modules, or both of one that takes any number of tokens. Weights and
/// buffers are shared.
///
/// # Errors
/// A module has other methods than one, or the two have buffers of one name and another type.
pub fn methods(mut prompt: Module, single: Option<Module>) -> Result<Module, LanguageModelError> {
    let mut single = single.unwrap_or_else(|| prompt.clone());
    for (module, name) in [(&mut prompt, PREFILL), (&mut single, DECODE)] {
        let [graph] = module.graphs.as_mut_slice() else {
            let names: Vec<&str> = module.graphs.iter().map(|graph| graph.name.as_str()).collect();
            return Err(LanguageModelError::Methods(names.join(", ")));
        };
        graph.name = name.to_string();
    }
    // Single tokens go on from what a prompt left: what their own file began with, such as a count of tokens that its export had seen, is of
    // no account.
    for state in &mut single.states {
        let same = prompt
            .states
            .iter()
            .find(|known| known.name == state.name && known.ty == state.ty);
        if let Some(known) = same {
            let initial = known.initial.and_then(|id| prompt.constants.find(id)).cloned();
            state.initial = initial.map(|constant| single.constants.push(constant));
        }
    }
    prompt.merge(single)?;
    Ok(prompt)
}

fn logits(graph: &Graph) -> Result<ValueId, LanguageModelError> {
    let wrong = |got: String| LanguageModelError::Logits {
        method: graph.name.clone(),
        got,
    };
    match graph.outputs.first() {
        Some(Output::Value(value)) => match graph.value(*value).ty.as_tensor() {
            Some(ty) if ty.rank() == 3 && ty.dtype.is_float() => Ok(*value),
            _ => Err(wrong(graph.value(*value).ty.to_string())),
        },
        Some(Output::Literal(_)) => Err(wrong("a number".to_string())),
        None => Err(wrong("not there".to_string())),
    }
}

/// Takes the last token of what the nodes behind the last mixing one read.
fn cut(graph: &mut Graph, symbols: &Symbols, logits: ValueId) -> Result<(), PassError> {
    let (makers, users) = (graph.producers(), graph.users());
    let results: Vec<ValueId> = graph.results().collect();
    let times_given = |value: ValueId| results.iter().filter(|result| **result == value).count();
    // From the logits back: nodes that compute each token by itself, which nobody else reads.
    let mut chain: Vec<usize> = Vec::new();
    let mut value = logits;
    while let Some(at) = makers[value.index()].map(|id| id.index()) {
        let last = usize::from(value == logits);
        let read_once = users[value.index()].len() == 1 - last && times_given(value) == last;
        let Some(next) = read_once.then(|| row_by_row(graph, &graph.nodes[at])).flatten() else {
            break;
        };
        chain.push(at);
        value = next;
    }
    let Some(op) = Op::find("aten::slice.Tensor") else {
        return Ok(());
    };
    let given = vec![Arg::Value(value), Arg::int(1), Arg::int(-1)];
    let mut node = Node {
        name: format!("{}_last", graph.value(value).name),
        op,
        args: fill_defaults(op, given),
        outputs: Vec::new(),
        source: None,
        region: None,
    };
    while graph.nodes.iter().any(|other| other.name == node.name) || graph.values.iter().any(|v| v.name == node.name) {
        node.name.push('_');
    }
    let Type::Tensor(mut ty) = graph.value(value).ty.clone() else {
        return Err(PassError::bug(&node, "it cuts no tensor"));
    };
    ty.shape[1] = Expr::Int(1);
    let last = graph.add_value(node.name.clone(), ty.into(), Def::Node);
    node.outputs.push(last);
    // Behind what makes the value, and before what reads it.
    let place = chain.last().copied().unwrap_or(graph.nodes.len());
    match chain.last() {
        None => {
            let first = graph
                .outputs
                .iter_mut()
                .find(|output| **output == Output::Value(logits));
            if let Some(first) = first {
                *first = Output::Value(last);
            }
        }
        Some(at) => graph.nodes[*at].args.iter_mut().for_each(|arg| {
            arg.map_values(|read| if read == value { last } else { read });
        }),
    }
    for at in chain.iter().rev() {
        let types = infer(graph.nodes[*at].op, &graph.nodes[*at].args, graph, symbols)
            .map_err(|error| PassError::bug(&graph.nodes[*at], error.to_string()))?;
        let outputs = graph.nodes[*at].outputs.clone();
        for (output, ty) in outputs.into_iter().zip(types) {
            graph.values[output.index()].ty = ty;
        }
    }
    graph.nodes.insert(place, node);
    Ok(())
}

/// What a node reads that has a row a token, if it computes its result row by row.
fn row_by_row(graph: &Graph, node: &Node) -> Option<ValueId> {
    let value = node.args.first()?.as_value()?;
    let ty = graph.tensor(value)?;
    let fits = match node.op.name() {
        "aten::linear" => true,
        "aten::to.dtype" | "aten::_to_copy" | "aten::alias" | "aten::clone" | "aten::tanh" | "aten::contiguous"
        | "aten::detach" => true,
        "aten::mul.Tensor" | "aten::div.Tensor" | "aten::mul.Scalar" | "aten::div.Scalar" => {
            // By a number, or one constant.
            match node.args.get(1)? {
                Arg::Value(by) => graph.tensor(*by)?.rank() == 0,
                _ => true,
            }
        }
        "aten::slice.Tensor" => {
            let number = |at: usize| node.args.get(at).and_then(Arg::as_int);
            let whole = number(1) == Some(1)
                && number(2).is_none_or(|start| start == 0)
                && number(4).is_none_or(|step| step == 1);
            whole && graph.tensor(*node.outputs.first()?)?.shape == ty.shape
        }
        _ => false,
    };
    (fits && ty.rank() == 3 && node.outputs.len() == 1).then_some(value)
}
