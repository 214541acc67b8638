//! Claims from answers: for each operator, the fewest words that cover what was taken and nothing that was refused.
//!
//! What was never asked is covered too, if nothing that was asked tells it apart: a proposal is to be read before it is pasted.

use super::Asked;
use delegraph_abi::DType;
use delegraph_abi::image::{ArgView, ImageView, NodeIndex, NodeView, ValueIndex, verify};
use delegraph_host::Claims;
use delegraph_host::claims::{Claim, Condition, Dynamic, Literal, OperatorTable, QuantKind, WeightRule, Word, literal};
use delegraph_lower::Operators;
use std::collections::{BTreeMap, BTreeSet};

/// Most values of an argument that a claim lists.
const MOST_VALUES: usize = 8;

/// Claims, and what could not be claimed.
#[derive(Debug, Clone, Default)]
pub struct Proposal {
    /// Operators with equal claims share a table.
    pub claims: Claims,
    /// What is taken at times and in no claim, because no claim tells what is taken from what is refused. One sentence each.
    pub left: Vec<String>,
}

/// An answer, and what a claim can see of its question.
struct Fact<'a> {
    image: ImageView<'a>,
    taken: bool,
    dynamic: bool,
    /// The dtype that the node is about.
    main: DType,
    /// Kinds and element types of quantized tensors.
    quant: BTreeSet<QuantKind>,
    storage: BTreeSet<DType>,
    /// dtypes of the tensors at each parameter that has some.
    params: BTreeMap<String, BTreeSet<DType>>,
    outputs: BTreeSet<DType>,
}

impl<'a> Fact<'a> {
    fn new(asked: &'a Asked, names: &[String]) -> Option<Fact<'a>> {
        let image = verify(&asked.question.image).ok()?;
        let node = image.node(NodeIndex(0));
        let dtype = |value: ValueIndex| image.value(value).dtype();
        let outputs: Vec<DType> = node.outputs().iter().filter_map(dtype).collect();
        let inputs: Vec<DType> = node.inputs().filter_map(dtype).collect();
        let result = outputs.first().copied();
        let main = match inputs.first() {
            Some(&DType::BOOL) => result.filter(|dtype| inputs.contains(dtype)).unwrap_or(DType::BOOL),
            Some(first) => *first,
            None => result?,
        };
        let mut params: BTreeMap<String, BTreeSet<DType>> = BTreeMap::new();
        for (arg, name) in node.args().zip(names) {
            let found: BTreeSet<DType> = tensors(&arg).into_iter().filter_map(dtype).collect();
            if !found.is_empty() {
                params.insert(name.clone(), found);
            }
        }
        let (mut quant, mut storage) = (BTreeSet::new(), BTreeSet::new());
        for value in node
            .inputs()
            .chain(node.outputs().iter())
            .map(|value| image.value(value))
        {
            if let Some(kind) = value.quant() {
                quant.insert(QuantKind::of(&kind));
                storage.extend(value.dtype());
            }
        }
        Some(Fact {
            quant,
            storage,
            taken: asked.taken.is_ok(),
            dynamic: asked.question.variant == "dynamic",
            main,
            outputs: outputs.into_iter().collect(),
            params,
            image,
        })
    }

    fn node(&self) -> NodeView<'a> {
        self.image.node(NodeIndex(0))
    }

    /// Every output has the main dtype.
    fn keeps_dtype(&self) -> bool {
        self.outputs.iter().all(|dtype| *dtype == self.main)
    }

    fn is_covered(&self, claim: &Claim) -> bool {
        claim.covers(&self.node(), &Operators).is_ok()
    }
}

fn tensors(arg: &ArgView<'_>) -> Vec<ValueIndex> {
    match arg {
        ArgView::Value(value) => vec![*value],
        ArgView::Values(list) => list.iter().collect(),
        ArgView::OptionalValues(list) => list.iter().flatten().collect(),
        _ => Vec::new(),
    }
}

/// Proposes claims.
pub fn propose(asked: &[Asked]) -> Proposal {
    let mut by_op: BTreeMap<&str, Vec<&Asked>> = BTreeMap::new();
    for one in asked {
        by_op.entry(&one.question.op).or_default().push(one);
    }
    let mut proposal = Proposal::default();
    let mut entries: Vec<Claim> = Vec::new();
    for (op, asked) in by_op {
        let names: Vec<String> = Operators
            .parameters(op)
            .unwrap_or_default()
            .into_iter()
            .map(|parameter| parameter.name)
            .collect();
        let facts: Vec<Fact<'_>> = asked.iter().filter_map(|one| Fact::new(one, &names)).collect();
        for claim in of_operator(op, facts, &names, &mut proposal.left) {
            let same = |other: &&mut Claim| {
                let mut body = (*other).clone();
                body.ops.clone_from(&claim.ops);
                body == claim
            };
            match entries.iter_mut().find(same) {
                Some(entry) => entry.ops.push(op.to_string()),
                None => entries.push(claim),
            }
        }
    }
    proposal.claims = Claims { entries };
    proposal
}

/// The claims of one operator. Outputs of the same dtype as the inputs and others are claimed apart, unless one claim can say it as well.
fn of_operator(op: &str, facts: Vec<Fact<'_>>, names: &[String], left: &mut Vec<String>) -> Vec<Claim> {
    let (quantized, facts): (Vec<Fact<'_>>, Vec<Fact<'_>>) = facts.into_iter().partition(|fact| !fact.quant.is_empty());
    let mut claims = of_numbers(op, &facts, names, left);
    if quantized.iter().any(|fact| fact.taken) && !of_quantized(op, &mut claims, &quantized, &facts, names) {
        left.push(format!(
            "`{op}`: {} of {} nodes of quantized types are taken, and nothing that a claim can say tells which",
            quantized.iter().filter(|fact| fact.taken).count(),
            quantized.len()
        ));
    }
    claims
}

/// Adds what is taken of quantized types: to the claim of f32, whose numbers they stand for, or in one of its own. False: not possible.
fn of_quantized(
    op: &str,
    claims: &mut Vec<Claim>,
    quantized: &[Fact<'_>],
    plain: &[Fact<'_>],
    names: &[String],
) -> bool {
    let core: Vec<&Fact<'_>> = quantized.iter().filter(|fact| fact.taken).collect();
    let refused: Vec<&Fact<'_>> = quantized.iter().chain(plain).filter(|fact| !fact.taken).collect();
    let with = |claim: &Claim| Claim {
        quant: core
            .iter()
            .flat_map(|fact| fact.quant.iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        storage: core
            .iter()
            .flat_map(|fact| fact.storage.iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        ..claim.clone()
    };
    for claim in claims.iter_mut().filter(|claim| claim.dtypes.contains(&DType::F32)) {
        let both = with(claim);
        // As of numbers: nodes whose other tensors are of odd dtypes may stay out.
        let covers = core.iter().any(|fact| fact.is_covered(&both));
        if covers && !refused.iter().any(|fact| fact.is_covered(&both)) {
            *claim = both;
            return true;
        }
    }
    let others: BTreeSet<DType> = core
        .iter()
        .flat_map(|fact| fact.params.values().flatten().chain(&fact.outputs))
        .copied()
        .filter(|dtype| !core.iter().any(|fact| fact.storage.contains(dtype)))
        .collect();
    let alone = with(&Claim {
        ops: vec![op.to_string()],
        dtypes: others.into_iter().collect(),
        mixed: true,
        ..Claim::default()
    });
    let alone = Claim {
        mixed: alone.dtypes.len() > 1,
        ..alone
    };
    match narrowed(alone, &core, &refused, names).filter(|claim| is_true(claim, &[&core], &refused)) {
        None => false,
        Some(claim) => {
            claims.push(claim);
            true
        }
    }
}

/// The claims of numbers that stand for themselves.
fn of_numbers(op: &str, facts: &[Fact<'_>], names: &[String], left: &mut Vec<String>) -> Vec<Claim> {
    let own = own_params(facts);
    let mut failed = Vec::new();
    let mut apart = of_outputs(op, facts, names, &own, Some(true), &mut failed);
    apart.extend(of_outputs(op, facts, names, &own, Some(false), &mut failed));
    let mut failed_together = Vec::new();
    let together = of_outputs(op, facts, names, &own, None, &mut failed_together);
    let one_output = matches!(together.as_slice(), [one] if one.outputs.len() < 2);
    let better = one_output || apart.len() > 2 && together.len() < apart.len();
    match better && failed_together.len() <= failed.len() {
        true => {
            left.extend(failed_together);
            together
        }
        false => {
            left.extend(failed);
            apart
        }
    }
}

/// Parameters whose tensors have dtypes of their own, whatever the dtype that the node is about, and which: indices, masks. Those of
/// the others are the node's, but for nodes that PyTorch promotes.
fn own_params(facts: &[Fact<'_>]) -> BTreeMap<String, Vec<DType>> {
    // By parameter: the dtypes that it has, the nodes' dtypes where it has another, and where it has that.
    let mut seen: BTreeMap<&String, (BTreeSet<DType>, BTreeSet<DType>, BTreeSet<DType>)> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.taken) {
        for (name, dtypes) in &fact.params {
            let (all, other, same) = seen.entry(name).or_default();
            all.extend(dtypes);
            match dtypes.contains(&fact.main) {
                true => same.insert(fact.main),
                false => other.insert(fact.main),
            };
        }
    }
    seen.into_iter()
        .filter(|(_, (_, other, same))| other.len() > same.len() || same.is_empty())
        .map(|(name, (all, ..))| (name.clone(), all.into_iter().collect()))
        .collect()
}

/// The claims of one operator whose outputs keep the dtype, or do not, or both: by dtype first, then those put together that may be.
fn of_outputs(
    op: &str,
    facts: &[Fact<'_>],
    names: &[String],
    own: &BTreeMap<String, Vec<DType>>,
    keeps: Option<bool>,
    left: &mut Vec<String>,
) -> Vec<Claim> {
    let refused: Vec<&Fact<'_>> = facts.iter().filter(|fact| !fact.taken).collect();
    let dtypes: BTreeSet<DType> = facts.iter().filter(|fact| fact.taken).map(|fact| fact.main).collect();
    let mut groups: Vec<(Claim, Vec<&Fact<'_>>)> = Vec::new();
    for dtype in dtypes {
        let of_dtype = |fact: &&Fact<'_>| fact.main == dtype && keeps.is_none_or(|keeps| fact.keeps_dtype() == keeps);
        let here: Vec<&Fact<'_>> = facts.iter().filter(of_dtype).collect();
        let Some((claim, core)) = basis(op, dtype, own, &here) else {
            continue;
        };
        let Some(claim) = narrowed(claim, &core, &refused, names) else {
            left.push(format!(
                "`{op}` in {dtype}: {} of {} nodes are taken, and nothing that a claim can say tells which",
                here.iter().filter(|fact| fact.taken).count(),
                here.len()
            ));
            continue;
        };
        let joined = groups.iter_mut().any(|(group, cores)| {
            match joined(group, &claim).filter(|both| is_true(both, &[cores, &core], &refused)) {
                None => false,
                Some(both) => {
                    *group = both;
                    cores.extend(&core);
                    true
                }
            }
        });
        if !joined {
            groups.push((claim, core));
        }
    }
    groups.into_iter().map(|(claim, _)| claim).collect()
}

/// A claim covers all of this and none of that.
fn is_true(claim: &Claim, cores: &[&Vec<&Fact<'_>>], refused: &[&Fact<'_>]) -> bool {
    cores.iter().all(|core| core.iter().all(|fact| fact.is_covered(claim)))
        && !refused.iter().any(|fact| fact.is_covered(claim))
}

/// The claim of an operator in one dtype without any condition, and the nodes that it is made for. Nodes of several dtypes that PyTorch
/// promotes are not among them.
fn basis<'f, 'a>(
    op: &str,
    dtype: DType,
    own: &BTreeMap<String, Vec<DType>>,
    facts: &[&'f Fact<'a>],
) -> Option<(Claim, Vec<&'f Fact<'a>>)> {
    let follows = |(name, dtypes): (&String, &BTreeSet<DType>)| {
        own.contains_key(name) || dtypes.iter().all(|found| *found == dtype)
    };
    let plain: Vec<&Fact<'_>> = facts
        .iter()
        .copied()
        .filter(|fact| fact.params.iter().all(follows))
        .collect();
    let mut moving = plain.iter().filter(|fact| fact.dynamic).peekable();
    let dynamic = match moving.peek().is_some() && moving.all(|fact| fact.taken) {
        true => Dynamic::Bounded,
        false => Dynamic::Static,
    };
    let is_core = |fact: &&Fact<'_>| fact.taken && (!fact.dynamic || dynamic == Dynamic::Bounded);
    let core: Vec<&Fact<'_>> = plain.into_iter().filter(is_core).collect();
    if !core.iter().any(|fact| !fact.dynamic) {
        return None;
    }
    let outputs: BTreeSet<DType> = core.iter().flat_map(|fact| fact.outputs.iter().copied()).collect();
    let keeps = core.iter().all(|fact| fact.keeps_dtype());
    let used = |name: &String| core.iter().any(|fact| fact.params.contains_key(name));
    let claim = Claim {
        ops: vec![op.to_string()],
        dtypes: vec![dtype],
        outputs: if keeps {
            Vec::new()
        } else {
            outputs.into_iter().collect()
        },
        params: own
            .iter()
            .filter(|(name, _)| used(name))
            .map(|(name, dtypes)| (name.clone(), dtypes.clone()))
            .collect(),
        dynamic,
        ..Claim::default()
    };
    Some((claim, core))
}

/// The claim with conditions until it covers nothing that was refused: at each step the one that leaves the fewest of them. `None`: no
/// condition leaves fewer.
fn narrowed(mut claim: Claim, core: &[&Fact<'_>], refused: &[&Fact<'_>], names: &[String]) -> Option<Claim> {
    let candidates = candidates(&claim, core, names);
    let mut wrong: Vec<&Fact<'_>> = refused.iter().copied().filter(|fact| fact.is_covered(&claim)).collect();
    while !wrong.is_empty() {
        let left = |narrow: &dyn Fn(&mut Claim)| {
            let mut tried = claim.clone();
            narrow(&mut tried);
            let fits = core.iter().all(|fact| fact.is_covered(&tried));
            let left: Vec<&Fact<'_>> = wrong.iter().copied().filter(|fact| fact.is_covered(&tried)).collect();
            (fits && left.len() < wrong.len()).then_some((left.len(), tried, left))
        };
        let best = candidates
            .iter()
            .filter_map(|narrow| left(narrow))
            .min_by_key(|(count, ..)| *count);
        (_, claim, wrong) = best?;
    }
    Some(claim)
}

/// Adds a condition to a claim.
type Narrow = Box<dyn Fn(&mut Claim)>;

/// What can be said of all nodes that a claim is made for.
fn candidates(claim: &Claim, core: &[&Fact<'_>], names: &[String]) -> Vec<Narrow> {
    let mut all: Vec<Narrow> = vec![
        Box::new(|claim| claim.equal_shapes = true),
        Box::new(|claim| claim.weights = WeightRule::None),
    ];
    for (at, name) in names.iter().enumerate() {
        let args = || core.iter().map(|fact| fact.node().arg(at));
        let has_tensor = |arg: &ArgView<'_>| !tensors(arg).is_empty();
        let name = name.clone();
        if args().all(|arg| has_tensor(&arg)) {
            let owned = name.clone();
            all.push(Box::new(move |claim| {
                claim.weights = WeightRule::Constant(vec![owned.clone()])
            }));
            all.push(Box::new(move |claim| {
                claim
                    .conditions
                    .insert(name.clone(), vec![Condition::Word(Word::Tensor)]);
            }));
            continue;
        }
        let mut allowed: Vec<Condition> = Vec::new();
        for arg in args() {
            let condition = match literal(&arg) {
                _ if has_tensor(&arg) => Condition::Word(Word::Tensor),
                Some(Literal::None) => Condition::Word(Word::Absent),
                Some(literal) => Condition::Equal(literal),
                None => Condition::Word(Word::Present),
            };
            if !allowed.contains(&condition) {
                allowed.push(condition);
            }
        }
        let words = allowed.iter().all(|one| {
            matches!(
                one,
                Condition::Equal(Literal::Text(_) | Literal::Bool(_)) | Condition::Word(_)
            )
        });
        if allowed.len() <= MOST_VALUES && !allowed.is_empty() {
            let condition: Narrow = Box::new(move |claim| {
                claim.conditions.insert(name.clone(), allowed.clone());
            });
            // Of two that do as well the first is taken: words and flags tell more than numbers that happened to be.
            match words {
                true => all.insert(0, condition),
                false => all.push(condition),
            }
        }
    }
    let mut ranks = BTreeSet::new();
    for fact in core {
        let node = fact.node();
        let first = node.inputs().next();
        ranks.extend(
            first
                .into_iter()
                .chain(node.outputs().iter())
                .map(|v| fact.image.value(v).rank()),
        );
    }
    let ranks: Vec<usize> = ranks.into_iter().collect();
    if claim.ranks.is_empty() {
        all.push(Box::new(move |claim| claim.ranks.clone_from(&ranks)));
    }
    all
}

/// Two claims of one operator in one, if they speak of the same things.
fn joined(a: &Claim, b: &Claim) -> Option<Claim> {
    let conditions = a.conditions.keys().eq(b.conditions.keys());
    let alike = a.equal_shapes == b.equal_shapes && a.weights == b.weights && a.dynamic == b.dynamic;
    if !conditions || !alike || a.ranks.is_empty() != b.ranks.is_empty() {
        return None;
    }
    let mut both = a.clone();
    both.dtypes = united(&a.dtypes, &b.dtypes);
    // Without a rule of their own, outputs have the dtype of the inputs.
    let outputs = |claim: &Claim| match claim.outputs.is_empty() {
        true => claim.dtypes.clone(),
        false => claim.outputs.clone(),
    };
    both.outputs = match a.outputs.is_empty() && b.outputs.is_empty() {
        true => Vec::new(),
        false => united(&outputs(a), &outputs(b)),
    };
    both.ranks = united(&a.ranks, &b.ranks);
    for (name, dtypes) in &b.params {
        let known = both.params.entry(name.clone()).or_default();
        *known = united(known, dtypes);
    }
    for (name, allowed) in &b.conditions {
        let known = both.conditions.entry(name.clone()).or_default();
        known.extend(allowed.iter().filter(|one| !a.conditions[name].contains(one)).cloned());
    }
    Some(both)
}

/// In order.
fn united<T: Copy + Ord>(a: &[T], b: &[T]) -> Vec<T> {
    let all: BTreeSet<T> = a.iter().chain(b).copied().collect();
    all.into_iter().collect()
}
