//! A method: its inputs, its instructions in order, and what it leaves.

use super::memory::{DefinitionId, Found, Memory, Place};
use super::sizes::{self, Sizes};
use super::{Shared, row_major};
use crate::error::{ImportError, Result};
use delegraph_ir::{
    Arg, ConstantId, Expr, Graph, Input, InputKind, Mutation, MutationTarget, Node, Op, Output, StateId, Symbol,
    SymbolRange, TensorType, Type, ValueId,
};
use delegraph_pte::model::{EValue, Instruction, Plan, Tensor};
use rustc_hash::{FxHashMap, FxHashSet};

/// A method is lifted again when sizes were learnt; each round solves a symbol at least, and few have many.
const MAX_ROUNDS: usize = 16;

/// Lifts one method.
pub(super) fn lift(shared: &mut Shared, plan: usize) -> Result<Graph> {
    let mut sizes = Sizes::default();
    let start = shared.symbols;
    for _ in 0..MAX_ROUNDS {
        let mut lifter = Lifter::new(shared, &mut sizes, plan);
        let outcome = lifter.run();
        let Lifter { graph, own_symbols, .. } = lifter;
        // What was found so far may be what a refusal lacked.
        if !sizes.learn(&mut shared.module.symbols) {
            outcome?;
            return Ok(graph);
        }
        for symbol in own_symbols {
            shared.module.symbols.ranges.remove(&symbol);
        }
    }
    let tried = shared.symbols - start;
    Err(ImportError::unsupported(format!(
        "the sizes of its inputs, {tried} of them dynamic, are not settled after {MAX_ROUNDS} rounds"
    )))
}

/// One round over a method.
pub(super) struct Lifter<'s, 'p> {
    pub shared: &'s mut Shared<'p>,
    pub sizes: &'s mut Sizes,
    pub plan: &'p Plan,
    pub plan_index: usize,
    pub graph: Graph,
    pub memory: Memory,
    /// Numbers that are not what the file says: computed, or given by the caller.
    pub numbers: FxHashMap<u32, Arg>,
    /// Constants that were read.
    pub constants: FxHashMap<ConstantId, ValueId>,
    /// Sizes of dynamic tensors, as they were last set.
    pub shapes: FxHashMap<u32, Vec<Expr>>,
    /// A definition as another tensor of the plan sees it.
    pub views: FxHashMap<(DefinitionId, u32), ValueId>,
    /// Mutable buffers: the tensor, and what its bytes are before the run.
    pub states: Vec<(u32, StateId, DefinitionId)>,
    /// Positions of the inputs, by value.
    pub positions: FxHashMap<u32, u32>,
    names: FxHashSet<String>,
    /// Symbols of this round: values that are only known at run time.
    own_symbols: Vec<Symbol>,
}

impl<'s, 'p> Lifter<'s, 'p> {
    fn new(shared: &'s mut Shared<'p>, sizes: &'s mut Sizes, plan_index: usize) -> Lifter<'s, 'p> {
        let plan = shared.plan(plan_index);
        let mut graph = Graph::new(plan.name.clone());
        graph.in_spec.clone_from(&plan.in_spec);
        graph.out_spec.clone_from(&plan.out_spec);
        Lifter {
            shared,
            sizes,
            plan,
            plan_index,
            graph,
            memory: Memory::default(),
            numbers: FxHashMap::default(),
            constants: FxHashMap::default(),
            shapes: FxHashMap::default(),
            views: FxHashMap::default(),
            states: Vec::new(),
            positions: FxHashMap::default(),
            names: FxHashSet::default(),
            own_symbols: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<()> {
        let given = self.inputs()?;
        self.named_states()?;
        for (at, instruction) in self.plan.instructions.iter().enumerate() {
            let step = self.instruction(instruction);
            step.map_err(|error| error.at(|| format!("method `{}`, {}", self.plan.name, self.place(at))))?;
        }
        self.outputs()?;
        self.mutations(&given)
    }

    fn instruction(&mut self, instruction: &'p Instruction) -> Result<()> {
        match instruction {
            Instruction::Kernel { op, args } => self.kernel(*op, args),
            Instruction::Move { from, to } => self.move_value(*from, *to),
            Instruction::Free { value } => {
                self.memory.free(*value);
                Ok(())
            }
            // The program was found to be straight-line code.
            Instruction::JumpFalse { .. } => Err(ImportError::unsupported("a jump")),
            Instruction::Delegate { .. } => Err(ImportError::unsupported("a delegate's call")),
        }
    }

    /// An instruction in words.
    fn place(&self, at: usize) -> String {
        let name = match self.plan.instructions.get(at) {
            Some(Instruction::Kernel { op, .. }) => match self.plan.operators.get(*op as usize) {
                Some(operator) if operator.overload.is_empty() => operator.name.clone(),
                Some(operator) => format!("{}.{}", operator.name, operator.overload),
                None => String::new(),
            },
            Some(Instruction::Move { .. }) => "move".to_string(),
            Some(Instruction::Free { .. }) => "free".to_string(),
            _ => String::new(),
        };
        format!("instruction {at} (`{name}`)")
    }

    /// The caller's arguments. Gives the first definition of each tensor, by position.
    fn inputs(&mut self) -> Result<Vec<(u32, u32, DefinitionId)>> {
        let used = used_numbers(self.plan);
        let mut given = Vec::new();
        for (position, &value) in self.plan.inputs.iter().enumerate() {
            if self.positions.insert(value, position as u32).is_some() {
                return Err(ImportError::unsupported(format!("value %{value} is two inputs")));
            }
            let name = format!("input_{position}");
            let ty = match self.evalue(value)? {
                EValue::Tensor(tensor) => {
                    given.push(self.tensor_input(position, value, tensor)?);
                    continue;
                }
                EValue::Int(_) if used.contains(&value) => {
                    let any = SymbolRange {
                        min: i64::MIN,
                        max: None,
                    };
                    let symbol = self.symbol("i", any);
                    Type::Int(Expr::Symbol(symbol))
                }
                EValue::Double(_) if used.contains(&value) => Type::Float,
                EValue::Bool(_) if used.contains(&value) => Type::Bool,
                EValue::IntList(_)
                | EValue::DoubleList(_)
                | EValue::BoolList(_)
                | EValue::TensorList(_)
                | EValue::OptionalTensorList(_) => {
                    return Err(ImportError::unsupported(format!("input {position} is a list")));
                }
                _ => {
                    let kind = InputKind::Literal(self.number(value)?);
                    self.graph.inputs.push(Input { name, kind });
                    continue;
                }
            };
            let name = self.unique(&name);
            let id = self.graph.add_input(name, ty.clone());
            let number = match ty {
                Type::Int(e) => Arg::Int(e),
                _ => Arg::Value(id),
            };
            self.numbers.insert(value, number);
        }
        Ok(given)
    }

    fn tensor_input(&mut self, position: usize, value: u32, tensor: &Tensor) -> Result<(u32, u32, DefinitionId)> {
        let place = Place::of(value, tensor);
        if place == Place::Constant {
            return Err(ImportError::unsupported(format!("input {position} is a constant")));
        }
        let Shared { module, symbols, .. } = &mut *self.shared;
        let shape = self.sizes.of_input(value, tensor, &mut module.symbols, symbols)?;
        let name = tensor.name.clone().unwrap_or_else(|| format!("input_{position}"));
        let name = self.unique(&name);
        let id = self
            .graph
            .add_input(name, TensorType::new(tensor.dtype, shape.clone()).into());
        self.shapes.insert(value, shape);
        let definition = self.memory.write(place, value, id, Some(position as u32));
        Ok((position as u32, value, definition))
    }

    /// The buffers that the file marks: those with an initial state, and the named ones of the arena for buffers. Others show
    /// by being read before anything is written.
    fn named_states(&mut self) -> Result<()> {
        for (value, tensor) in self.plan.values.iter().enumerate() {
            let value = value as u32;
            if let EValue::Tensor(tensor) = tensor
                && super::tensor::is_marked_state(tensor)
                && !self.positions.contains_key(&value)
                && !matches!(self.memory.find(&Place::of(value, tensor)), Found::Whole(_))
            {
                self.begin_state(value, tensor)?;
            }
        }
        Ok(())
    }

    fn move_value(&mut self, from: u32, to: u32) -> Result<()> {
        let EValue::Tensor(target) = self.evalue(to)? else {
            let number = self.number(from)?;
            self.numbers.insert(to, number);
            return Ok(());
        };
        let source = self.tensor(from)?;
        if source.dtype != target.dtype || source.sizes.rank() != target.sizes.rank() {
            return Err(ImportError::unsupported(format!("%{from} and %{to} differ in type")));
        }
        let value = self.read(from)?;
        self.define(to, value, None)
    }

    fn outputs(&mut self) -> Result<()> {
        for (position, &value) in self.plan.outputs.iter().enumerate() {
            let at = |error: ImportError| error.at(|| format!("method `{}`, output {position}", self.plan.name));
            let output = match self.evalue(value)? {
                EValue::Tensor(_) => Output::Value(self.read(value).map_err(at)?),
                _ => match self.number(value).map_err(at)? {
                    Arg::Value(id) => Output::Value(id),
                    literal => Output::Literal(literal),
                },
            };
            self.graph.outputs.push(output);
        }
        Ok(())
    }

    /// What the caller sees of its inputs afterwards, and what buffers hold.
    fn mutations(&mut self, given: &[(u32, u32, DefinitionId)]) -> Result<()> {
        for &(position, value, first) in given {
            let tensor = self.tensor(value)?;
            // Elsewhere the planner gave the input's memory to others, which is no change of the input.
            let Found::Whole(last) = self.memory.find(&Place::of(value, tensor)) else {
                continue;
            };
            if last != first && self.memory.definition(last).input == Some(position) {
                let new = self.seen_as(last, value)?;
                let target = MutationTarget::Input(position);
                self.mutation(target, new, value, self.graph_type(first))?;
            }
        }
        for (value, state, first) in self.states.clone() {
            let tensor = self.tensor(value)?;
            let last = match self.memory.find(&Place::of(value, tensor)) {
                Found::Whole(last) => last,
                found => return Err(self.unclear(value, &found, "is left in the mutable buffer")),
            };
            if last != first {
                let new = self.seen_as(last, value)?;
                self.mutation(MutationTarget::State(state), new, value, self.graph_type(first))?;
            }
        }
        Ok(())
    }

    fn graph_type(&self, definition: DefinitionId) -> Type {
        self.graph.value(self.memory.definition(definition).value).ty.clone()
    }

    fn mutation(&mut self, target: MutationTarget, value: ValueId, tensor: u32, ty: Type) -> Result<()> {
        let have = &self.graph.value(value).ty;
        if *have != ty {
            return Err(ImportError::unsupported(format!(
                "{have} is written to %{tensor}, which is {ty}"
            )));
        }
        self.graph.mutations.push(Mutation { target, value });
        Ok(())
    }

    /// Adds a node with new results.
    pub(super) fn emit(&mut self, op: Op, args: Vec<Arg>, types: Vec<Type>) -> Vec<ValueId> {
        let base = op.name().rsplit_once("::").map_or(op.name(), |(_, name)| name);
        let base = base.split('.').next().unwrap_or(base);
        let name = self.unique(&format!("{base}_{}", self.graph.nodes.len()));
        let outputs: Vec<ValueId> = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| {
                let name = match i {
                    0 => name.clone(),
                    _ => self.unique(&format!("{name}_{i}")),
                };
                self.graph.add_value(name, ty, delegraph_ir::Def::Node)
            })
            .collect();
        self.graph.nodes.push(Node {
            name,
            op,
            args: delegraph_ir::fill_defaults(op, args),
            outputs: outputs.clone(),
            source: None,
            region: None,
        });
        outputs
    }

    /// A symbol for a number that is only known at run time.
    pub(super) fn symbol(&mut self, prefix: &str, range: SymbolRange) -> Symbol {
        let Shared { module, symbols, .. } = &mut *self.shared;
        let symbol = sizes::fresh(prefix, &mut module.symbols, symbols, range);
        self.own_symbols.push(symbol.clone());
        symbol
    }

    /// A name that no value of the graph has.
    pub(super) fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_string();
        let mut number = self.names.len();
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{number}");
            number += 1;
        }
        unique
    }

    pub(super) fn evalue(&self, value: u32) -> Result<&'p EValue> {
        let found = self.plan.values.get(value as usize);
        found.ok_or_else(|| ImportError::malformed(format!("value %{value} does not exist")))
    }

    pub(super) fn tensor(&self, value: u32) -> Result<&'p Tensor> {
        match self.evalue(value)? {
            EValue::Tensor(tensor) => Ok(tensor),
            _ => Err(ImportError::unsupported(format!("value %{value} is no tensor"))),
        }
    }

    /// True if bytes of one tensor can be read as the other's.
    pub(super) fn same_layout(a: &Tensor, b: &Tensor) -> bool {
        a.dtype == b.dtype && row_major(a) && row_major(b)
    }
}

/// Numbers that an instruction or an output reads: one that nothing reads was built into the program at export.
fn used_numbers(plan: &Plan) -> FxHashSet<u32> {
    let mut used: FxHashSet<u32> = plan.outputs.iter().copied().collect();
    for instruction in &plan.instructions {
        match instruction {
            Instruction::Kernel { args, .. } | Instruction::Delegate { args, .. } => used.extend(args),
            Instruction::Move { from, .. } => drop(used.insert(*from)),
            Instruction::JumpFalse { condition, .. } => drop(used.insert(*condition)),
            Instruction::Free { .. } => {}
        }
    }
    for value in &plan.values {
        if let EValue::IntList(items) = value {
            used.extend(items);
        }
    }
    used
}
