//! What a manifest says that its delegate can do: `[[op]]`.
//!
//! A claim is a promise about nodes: each node that it covers is taken by `partition`. A delegate may take more than it claims. The
//! grammar is total: judging a node always ends, reads nothing but the image and the operator table, and never fails. So a host can tell
//! what a delegate would take without its library.
//!
//! ```toml
//! [[op]]
//! op = ["aten::add.Tensor", "aten::mul.*"]   # names or patterns with `*`; or one of them
//! dtypes = ["f32", "f16"]                    # of every tensor; all of one dtype, unless `mixed = true`
//! outputs = ["bool"]                         # of the outputs, where it is not `dtypes`
//! params = { index = ["i64"] }               # of single parameters, where it is not `dtypes`
//! ranks = "0..=4"                            # or [2, 4]: of the first tensor and of every output
//! shapes = "equal"                           # no broadcasting: every tensor has the sizes of the first output
//! weights = "any"                            # "none": no tensor is a constant; ["weight"]: these parameters have to be
//! dynamic = "static"                         # or "bounded": sizes have a `max`; or "any"
//! quant = ["per-tensor"]                     # "per-axis", "per-block": tensors may be quantized so
//! storage = ["i8"]                           # element types of quantized tensors
//! where = { alpha = 1, groups = [1, "channels"], kernel_size = "<=7", bias = "present" }
//! ```
//!
//! Everything but `op` and one of `dtypes`, `quant` may be left out. See [`Condition`] for `where`.

mod condition;
mod parse;
mod write;

pub use condition::{Comparison, Condition, Literal, Word, literal};
pub(crate) use parse::parse;

use delegraph_abi::image::{ArgView, Expr, ExprIndex, Kind, NodeView, Quant, ValueIndex, ValueView};
use delegraph_abi::{DType, Reason};
use delegraph_config::glob_match;
use std::collections::{BTreeMap, BTreeSet};

/// Every element type that a manifest can name.
const DTYPES: [DType; 17] = [
    DType::BOOL,
    DType::U8,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::F8E5M2,
    DType::F8E4M3,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::C64,
    DType::C128,
];

/// All claims of a manifest. A node is claimed if one of them covers it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims {
    /// In the manifest's order; empty: nothing is claimed beforehand.
    pub entries: Vec<Claim>,
}

/// One `[[op]]` table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claim {
    /// Operators with overload, or patterns.
    pub ops: Vec<String>,
    /// Of every tensor that is not quantized and has no rule of its own.
    pub dtypes: Vec<DType>,
    /// Tensors under `dtypes` may differ from one another.
    pub mixed: bool,
    /// Of the outputs; empty: as `dtypes`.
    pub outputs: Vec<DType>,
    /// Of the tensors at a parameter.
    pub params: BTreeMap<String, Vec<DType>>,
    /// Numbers of dimensions, of the first tensor that is read and of every output; empty: any.
    pub ranks: Vec<usize>,
    /// Every tensor that is read has the sizes of the first output.
    pub equal_shapes: bool,
    /// Which tensors may or have to be constants.
    pub weights: WeightRule,
    /// How far sizes may be unknown before a run.
    pub dynamic: Dynamic,
    /// Kinds of quantization that tensors may have; empty: none is quantized.
    pub quant: Vec<QuantKind>,
    /// Element types of quantized tensors.
    pub storage: Vec<DType>,
    /// What arguments have to be: by parameter, one of these.
    pub conditions: BTreeMap<String, Vec<Condition>>,
}

/// `weights`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WeightRule {
    /// `"any"`: every tensor may be a constant or not.
    #[default]
    Any,
    /// `"none"`: no tensor is a constant.
    None,
    /// The tensors at these parameters have to be constants, where they are given.
    Constant(Vec<String>),
}

/// `dynamic`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dynamic {
    /// Every size is a number.
    #[default]
    Static,
    /// Sizes may change from run to run, and have a largest value.
    Bounded,
    /// Sizes may change without bound.
    Any,
}

/// `quant`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuantKind {
    /// One scale.
    PerTensor,
    /// A scale for each slice of an axis.
    PerAxis,
    /// A scale for each block.
    PerBlock,
}

impl QuantKind {
    /// The kind of a quantized type of an image.
    pub fn of(quant: &Quant) -> QuantKind {
        match quant {
            Quant::PerTensor { .. } => QuantKind::PerTensor,
            Quant::PerAxis { .. } => QuantKind::PerAxis,
            Quant::PerBlock { .. } => QuantKind::PerBlock,
        }
    }
}

/// Why the manifest does not claim a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclaimed {
    /// Kind of reason, as `partition` would give it.
    pub kind: Reason,
    /// In words.
    pub reason: String,
}

/// A parameter of an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in the schema.
    pub name: String,
    /// What it is where an image leaves it out; `None`: it may not.
    pub default: Option<Literal>,
}

/// What claims need to know of operators: this crate has no operator table of its own.
pub trait OperatorTable {
    /// The parameters of an operator in the order of its schema; `None`: there is no such operator.
    fn parameters(&self, op: &str) -> Option<Vec<Parameter>>;

    /// Names of all operators.
    fn names(&self) -> Vec<&'static str>;
}

impl Claims {
    /// True if nothing is claimed beforehand.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The claim that covers a node, by its position.
    ///
    /// # Errors
    /// Why none does: of the claims that name the operator, the one that is nearest to covering it tells.
    pub fn judge(&self, node: &NodeView<'_>, table: &dyn OperatorTable) -> Result<usize, Unclaimed> {
        let mut nearest: Option<(usize, Unclaimed)> = None;
        for (i, claim) in self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, claim)| claim.names(node.op()))
        {
            match claim.fit(node, table) {
                Ok(()) => return Ok(i),
                Err((stage, _)) if nearest.as_ref().is_some_and(|(best, _)| *best >= stage) => {}
                Err(found) => nearest = Some(found),
            }
        }
        Err(match nearest {
            Some((_, unclaimed)) => unclaimed,
            None => Unclaimed {
                kind: Reason::UNKNOWN_OP,
                reason: format!("the manifest claims no `{}`", node.op()),
            },
        })
    }

    /// What cannot be true whatever the delegate does: operators and parameters that do not exist. One sentence each.
    pub fn problems(&self, table: &dyn OperatorTable) -> Vec<String> {
        let names = table.names();
        let mut problems = Vec::new();
        for (i, claim) in self.entries.iter().enumerate() {
            for pattern in &claim.ops {
                let place = format!("`[[op]]` {} of the manifest", i + 1);
                let Some(first) = names.iter().find(|name| glob_match(pattern, name)) else {
                    let hint = delegraph_types::nearest(pattern, names.iter().copied());
                    let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                    problems.push(format!(
                        "{place} claims `{pattern}`, and there is no such operator{hint}"
                    ));
                    continue;
                };
                let matching = names.iter().filter(|name| glob_match(pattern, name));
                let params: BTreeSet<String> = matching
                    .filter_map(|name| table.parameters(name))
                    .flatten()
                    .map(|param| param.name)
                    .collect();
                for name in claim.parameters().filter(|name| !params.contains(*name)) {
                    let hint = delegraph_types::nearest(name, params.iter().map(String::as_str));
                    let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                    problems.push(format!("{place}: `{first}` has no parameter `{name}`{hint}"));
                }
            }
        }
        problems
    }
}

/// How far a claim came before it did not cover a node, and why.
type Miss = (usize, Unclaimed);

fn miss<T>(stage: usize, kind: Reason, reason: String) -> Result<T, Miss> {
    Err((stage, Unclaimed { kind, reason }))
}

impl Claim {
    /// Whether it is about an operator.
    pub fn names(&self, op: &str) -> bool {
        self.ops.iter().any(|pattern| pattern == op || glob_match(pattern, op))
    }

    /// Every parameter that it says something of.
    fn parameters(&self) -> impl Iterator<Item = &String> {
        let constant = match &self.weights {
            WeightRule::Constant(names) => names.as_slice(),
            _ => &[],
        };
        self.params.keys().chain(self.conditions.keys()).chain(constant)
    }

    /// Whether a node of one of its operators is covered.
    ///
    /// # Errors
    /// Why not.
    pub fn covers(&self, node: &NodeView<'_>, table: &dyn OperatorTable) -> Result<(), Unclaimed> {
        self.fit(node, table).map_err(|(_, unclaimed)| unclaimed)
    }

    fn fit(&self, node: &NodeView<'_>, table: &dyn OperatorTable) -> Result<(), Miss> {
        // The table is asked only where a name has to be found: most claims have none.
        let names = self.parameters().next().is_some();
        let parameters = match names.then(|| table.parameters(node.op())) {
            None => Vec::new(),
            Some(Some(parameters)) => parameters,
            Some(None) => {
                return miss(
                    0,
                    Reason::UNKNOWN_OP,
                    format!("`{}` is in no operator table", node.op()),
                );
            }
        };
        if node.args().any(|arg| matches!(arg, ArgView::Unknown(_))) {
            return miss(0, Reason::ATTRIBUTE, "an argument is of an unknown kind".to_string());
        }
        self.covers_dtypes(node, &parameters)?;
        self.covers_shapes(node)?;
        self.covers_weights(node, &parameters)?;
        for (name, allowed) in &self.conditions {
            let Some(at) = parameters.iter().position(|param| param.name == *name) else {
                return miss(
                    5,
                    Reason::ATTRIBUTE,
                    format!("`{}` has no parameter `{name}`", node.op()),
                );
            };
            condition::check(node, at, &parameters[at], allowed)
                .or_else(|reason| miss(5, Reason::ATTRIBUTE, format!("`{name}` {reason}")))?;
        }
        Ok(())
    }

    fn covers_dtypes(&self, node: &NodeView<'_>, parameters: &[Parameter]) -> Result<(), Miss> {
        let mut common = None;
        for (i, arg) in node.args().enumerate() {
            let own = parameters.get(i).and_then(|param| self.params.get(&param.name));
            for value in values(&arg) {
                self.covers_dtype(node, value, own, &mut common)?;
            }
        }
        let own = (!self.outputs.is_empty()).then_some(&self.outputs);
        for value in node.outputs().iter() {
            self.covers_dtype(node, value, own, &mut common)?;
        }
        Ok(())
    }

    /// One tensor; `own` are the dtypes that a rule allows it besides `dtypes`, `common` is the dtype of those before it without one.
    fn covers_dtype(
        &self,
        node: &NodeView<'_>,
        value: ValueIndex,
        own: Option<&Vec<DType>>,
        common: &mut Option<DType>,
    ) -> Result<(), Miss> {
        let value = node.image().value(value);
        let (name, Kind::Tensor(dtype)) = (value.name(), value.kind()) else {
            return miss(
                1,
                Reason::OTHER,
                format!("`{}` is a number that is read at run time", value.name()),
            );
        };
        if let Some(quant) = value.quant() {
            let kind = QuantKind::of(&quant);
            return match self.quant.contains(&kind) && self.storage.contains(&dtype) {
                true => Ok(()),
                false => miss(
                    1,
                    Reason::QUANTIZATION,
                    format!("`{name}` is {dtype} quantized {kind}, which is not claimed"),
                ),
            };
        }
        let allowed = own.unwrap_or(&self.dtypes);
        if !allowed.contains(&dtype) {
            let wanted = match allowed.as_slice() {
                [] => "quantized".to_string(),
                allowed => listed(allowed),
            };
            return miss(1, Reason::DTYPE, format!("`{name}` is {dtype}, not {wanted}"));
        }
        match common {
            _ if own.is_some() || self.mixed => Ok(()),
            Some(first) if *first != dtype => miss(
                1,
                Reason::DTYPE,
                format!("`{name}` is {dtype}, another tensor {first}: tensors of one dtype are claimed"),
            ),
            _ => {
                *common = Some(dtype);
                Ok(())
            }
        }
    }

    fn covers_shapes(&self, node: &NodeView<'_>) -> Result<(), Miss> {
        let image = node.image();
        let first = node.inputs().next();
        for value in first.into_iter().chain(node.outputs().iter()).map(|v| image.value(v)) {
            if !self.ranks.is_empty() && !self.ranks.contains(&value.rank()) {
                return miss(
                    2,
                    Reason::RANK,
                    format!(
                        "`{}` has rank {}, not {}",
                        value.name(),
                        value.rank(),
                        write::ranks(&self.ranks)
                    ),
                );
            }
        }
        if self.equal_shapes {
            let Some(want) = node.outputs().get(0).map(|v| image.value(v)) else {
                return miss(2, Reason::SHAPE, "it has no output".to_string());
            };
            // Equal sizes are equal expressions, known now or not.
            let differs = |value: &ValueView<'_>| !value.dims().iter().eq(want.dims().iter());
            if let Some(other) = node.inputs().map(|v| image.value(v)).find(differs) {
                return miss(
                    2,
                    Reason::SHAPE,
                    format!("`{}` has other sizes than `{}`", other.name(), want.name()),
                );
            }
        }
        for value in node.inputs().chain(node.outputs().iter()).map(|v| image.value(v)) {
            let mut seen = BTreeSet::new();
            for dim in value.dims().iter() {
                let found = dynamic(node, dim, &mut seen);
                if found > self.dynamic {
                    return miss(
                        3,
                        Reason::DYNAMIC_SHAPE,
                        format!("`{}` has {found}, and the claim is of {}", value.name(), self.dynamic),
                    );
                }
            }
        }
        Ok(())
    }

    fn covers_weights(&self, node: &NodeView<'_>, parameters: &[Parameter]) -> Result<(), Miss> {
        let constant = |v| node.image().value(v).weight().is_some();
        match &self.weights {
            WeightRule::Any => Ok(()),
            WeightRule::None => match node.inputs().find(|v| constant(*v)) {
                None => Ok(()),
                Some(v) => {
                    let name = node.image().value(v).name();
                    miss(4, Reason::OTHER, format!("`{name}` is a constant"))
                }
            },
            WeightRule::Constant(names) => {
                for (i, arg) in node.args().enumerate() {
                    let Some(param) = parameters.get(i).filter(|param| names.contains(&param.name)) else {
                        continue;
                    };
                    if values(&arg).any(|v| !constant(v)) {
                        return miss(4, Reason::OTHER, format!("`{}` is no constant", param.name));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The tensors of an argument.
fn values<'a>(arg: &ArgView<'a>) -> impl Iterator<Item = ValueIndex> + use<'a> {
    let (one, many, optional) = match *arg {
        ArgView::Value(v) => (Some(v), None, None),
        ArgView::Values(list) => (None, Some(list.iter()), None),
        ArgView::OptionalValues(list) => (None, None, Some(list.iter().flatten())),
        _ => (None, None, None),
    };
    let many = many.into_iter().flatten();
    one.into_iter().chain(many).chain(optional.into_iter().flatten())
}

/// How far a size is known. `seen` holds expressions that were looked at: operands may be shared, and each is looked at once.
fn dynamic(node: &NodeView<'_>, size: ExprIndex, seen: &mut BTreeSet<u32>) -> Dynamic {
    let image = node.image();
    let mut worst = Dynamic::Static;
    let mut open = vec![size];
    while let Some(next) = open.pop() {
        if !seen.insert(next.0) {
            continue;
        }
        match image.expr(next) {
            Expr::Int(_) | Expr::Float(_) => {}
            Expr::Symbol(symbol) => {
                worst = worst.max(match image.symbol(symbol).max {
                    Some(_) => Dynamic::Bounded,
                    None => Dynamic::Any,
                });
            }
            Expr::Op(_, operands) => open.extend(operands.iter()),
        }
    }
    worst
}

/// `f32, f16`
fn listed<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl std::fmt::Display for Dynamic {
    /// In a sentence.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dynamic::Static => "fixed sizes",
            Dynamic::Bounded => "dynamic sizes with a bound",
            Dynamic::Any => "dynamic sizes without bound",
        })
    }
}

impl std::fmt::Display for QuantKind {
    /// As the manifest has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            QuantKind::PerTensor => "per-tensor",
            QuantKind::PerAxis => "per-axis",
            QuantKind::PerBlock => "per-block",
        })
    }
}

#[cfg(test)]
mod tests;
