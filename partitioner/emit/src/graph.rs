//! A method becomes a plan.

use crate::EmitError;
use crate::constants::{ConstantTable, StateTable};
use crate::memory;
use crate::origins::OriginTable;
use crate::size::Binding;
use crate::values::{ARENA, REGION_INTERNALS, STATES, Values};
use delegraph_abi::envelope;
use delegraph_ir::{
    Arg, Def, Expr, Graph, InputKind, Module, MutationTarget, Node, Output, RegionId, StateId, Symbol, Type, ValueId,
};
use delegraph_lower::CompiledRegion;
use delegraph_pte::model::{EValue, Instruction, Operator, Plan, Storage};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;

/// The instructions of a compiled region.
pub(crate) struct RegionRange {
    /// Which of the compiled regions.
    pub(crate) index: usize,
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Value indices.
    pub(crate) inputs: Vec<u32>,
    /// Value indices.
    pub(crate) outputs: Vec<u32>,
    /// As the overlay has them.
    pub(crate) rooms: Vec<u64>,
}

/// A plan under construction.
pub(crate) struct Builder<'a, 'c> {
    pub(crate) module: &'a Module,
    pub(crate) constants: &'c mut ConstantTable<'a>,
    pub(crate) states: &'c mut StateTable,
    pub(crate) values: Values,
    pub(crate) instructions: Vec<Instruction>,
    /// Indexes nodes for the instructions made for them.
    pub(crate) origins: &'c mut OriginTable,
    /// The node that is being emitted, as an index plus one; 0: none.
    pub(crate) origin: u32,
    /// As `origin`, for each instruction.
    instruction_origins: Vec<u32>,
    operators: Vec<Operator>,
    operator_index: FxHashMap<&'static str, u32>,
    constant_values: FxHashMap<u32, u32>,
    state_values: FxHashMap<u32, u32>,
    /// What binds each symbol; inner scopes are dropped when left.
    pub(crate) bindings: Vec<FxHashMap<Symbol, Binding>>,
    /// Values of size expressions, by scope as `bindings`.
    pub(crate) sizes: Vec<FxHashMap<Expr, u32>>,
    /// Loops, inner before outer.
    pub(crate) loops: Vec<Range<u32>>,
    /// Arena of values made now.
    arena: u32,
}

/// Value indices of one graph's values.
pub(crate) struct Scope<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) map: Vec<Option<u32>>,
}

impl<'g> Scope<'g> {
    pub(crate) fn new(graph: &'g Graph) -> Scope<'g> {
        Scope {
            graph,
            map: vec![None; graph.values.len()],
        }
    }
}

/// Builds the plan of a graph, and where its compiled regions lie.
pub(crate) fn build<'a>(
    module: &'a Module,
    graph: &Graph,
    regions: &[CompiledRegion],
    constants: &mut ConstantTable<'a>,
    states: &mut StateTable,
    origins: &mut OriginTable,
) -> Result<(Plan, Vec<RegionRange>), EmitError> {
    let mut builder = Builder {
        module,
        constants,
        states,
        values: Values::default(),
        instructions: Vec::new(),
        origins,
        origin: 0,
        instruction_origins: Vec::new(),
        operators: Vec::new(),
        operator_index: FxHashMap::default(),
        constant_values: FxHashMap::default(),
        state_values: FxHashMap::default(),
        bindings: vec![FxHashMap::default()],
        sizes: vec![FxHashMap::default()],
        loops: Vec::new(),
        arena: ARENA,
    };
    let mut scope = Scope::new(graph);
    let inputs = builder.inputs(&mut scope)?;
    let mut ranges = builder.body(&mut scope, regions)?;
    let outputs = builder.results(&mut scope)?;
    // Results and inputs that a mutation writes are read by the caller after the last instruction.
    let end = builder.now();
    for &value in outputs.iter().chain(&inputs) {
        builder.values.touch(value, end);
    }
    // A value has the room that all regions at its borders ask for, not only those before it is read.
    for range in &mut ranges {
        let values = range.inputs.iter().chain(&range.outputs);
        range.rooms = values.map(|&value| builder.values.room(value)).collect();
        let needed = range
            .rooms
            .iter()
            .rposition(|room| *room > 0)
            .map_or(0, |last| last + 1);
        range.rooms.truncate(needed);
    }
    memory::extend_over_loops(&mut builder.values, &builder.loops);
    let buffer_sizes = memory::place(&mut builder.values);
    builder.origins.plan(&graph.name, builder.instruction_origins);
    let plan = Plan {
        name: graph.name.clone(),
        in_spec: graph.in_spec.clone(),
        out_spec: graph.out_spec.clone(),
        values: builder.values.items,
        inputs,
        outputs,
        instructions: builder.instructions,
        operators: builder.operators,
        delegates: Vec::new(),
        buffer_sizes,
    };
    Ok((plan, ranges))
}

impl Builder<'_, '_> {
    /// Index of the next instruction.
    pub(crate) fn now(&self) -> u32 {
        self.instructions.len() as u32
    }

    /// Appends an instruction, keeping what it touches alive.
    pub(crate) fn push(&mut self, instruction: Instruction) {
        let now = self.now();
        match &instruction {
            Instruction::Kernel { args, .. } | Instruction::Delegate { args, .. } => {
                args.iter().for_each(|&value| self.values.touch(value, now));
            }
            Instruction::Move { from, to } => {
                self.values.touch(*from, now);
                self.values.touch(*to, now);
            }
            Instruction::JumpFalse { condition, .. } => self.values.touch(*condition, now),
            Instruction::Free { value } => self.values.touch(*value, now),
        }
        self.instructions.push(instruction);
        self.instruction_origins.push(self.origin);
    }

    /// Appends a kernel call. `name` is `aten::add.out`; without an overload `aten::copy_`.
    pub(crate) fn kernel(&mut self, name: &'static str, args: Vec<u32>) {
        let next = self.operators.len() as u32;
        let op = *self.operator_index.entry(name).or_insert(next);
        if op == next {
            let (base, overload) = split_overload(name);
            self.operators.push(Operator {
                name: base.to_string(),
                overload: overload.to_string(),
            });
        }
        self.push(Instruction::Kernel { op, args });
    }

    /// A new tensor of this type in the present arena.
    pub(crate) fn new_tensor(&mut self, ty: &delegraph_ir::TensorType) -> u32 {
        let now = self.now();
        self.values.tensor(ty, &self.module.symbols, self.arena, now)
    }

    /// A new value of this type.
    pub(crate) fn new_value(&mut self, ty: &Type) -> u32 {
        match ty {
            Type::Tensor(tensor) => self.new_tensor(tensor),
            Type::Int(_) => self.values.push(EValue::Int(0)),
            Type::Float => self.values.push(EValue::Double(0.0)),
            Type::Bool => self.values.push(EValue::Bool(false)),
        }
    }

    /// Runs `f` in a scope of sizes and symbol bindings that is forgotten afterwards: what it computes may not have been
    /// computed when control goes another way.
    pub(crate) fn scoped<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, EmitError>) -> Result<T, EmitError> {
        self.bindings.push(FxHashMap::default());
        self.sizes.push(FxHashMap::default());
        let result = f(self);
        self.bindings.pop();
        self.sizes.pop();
        result
    }

    fn inputs(&mut self, scope: &mut Scope) -> Result<Vec<u32>, EmitError> {
        let mut inputs = Vec::new();
        for input in &scope.graph.inputs {
            let index = match &input.kind {
                InputKind::Value(value) => {
                    let ty = &scope.graph.value(*value).ty;
                    let index = self.new_value(ty);
                    if let EValue::Tensor(tensor) = &mut self.values.items[index as usize] {
                        tensor.name = Some(input.name.clone());
                    }
                    scope.map[value.index()] = Some(index);
                    self.bind(index, ty);
                    index
                }
                // An own value each: the caller's argument is written to it.
                InputKind::Literal(arg) => {
                    let literal = literal(arg).ok_or_else(|| EmitError::Undefined(input.name.clone()))?;
                    self.values.push(literal)
                }
            };
            inputs.push(index);
        }
        Ok(inputs)
    }

    /// The index of a value that is read now.
    pub(crate) fn read(&mut self, scope: &mut Scope, value: ValueId) -> Result<u32, EmitError> {
        let Some(record) = scope.graph.values.get(value.index()) else {
            return Err(EmitError::Undefined(value.to_string()));
        };
        if let Some(index) = scope.map[value.index()] {
            return Ok(index);
        }
        let index = match record.def {
            Def::Constant(id) => match self.constant_values.get(&id.0) {
                Some(&index) => index,
                None => {
                    let left_out = self.constants.left_out(id);
                    let storage = match left_out {
                        Some(_) => Storage::External,
                        None => Storage::Constant(self.constants.index(id)?),
                    };
                    let constant = self
                        .constants
                        .constant(id)
                        .ok_or_else(|| EmitError::Constant(id.to_string()))?;
                    let index = self.values.push(EValue::Tensor(delegraph_pte::model::Tensor {
                        dtype: constant.dtype,
                        sizes: constant.sizes,
                        dim_order: (0..constant.sizes.rank() as u8).collect(),
                        dynamism: delegraph_pte::model::Dynamism::Static,
                        storage,
                        name: left_out.map(str::to_string),
                    }));
                    self.constant_values.insert(id.0, index);
                    index
                }
            },
            Def::State(id) => self.state(id.0)?,
            Def::Input | Def::Node => return Err(EmitError::Undefined(record.name.clone())),
        };
        scope.map[value.index()] = Some(index);
        Ok(index)
    }

    fn state(&mut self, id: u32) -> Result<u32, EmitError> {
        if let Some(&index) = self.state_values.get(&id) {
            return Ok(index);
        }
        let state = self
            .module
            .states
            .get(id as usize)
            .ok_or_else(|| EmitError::Undefined(format!("state {id}")))?;
        let index = self.values.tensor(&state.ty, &self.module.symbols, STATES, 0);
        let initial = match state.initial {
            None => None,
            Some(constant) => {
                let constant = self
                    .module
                    .constants
                    .find(constant)
                    .ok_or_else(|| EmitError::Constant(state.name.clone()))?;
                Some(self.states.index(id, constant)?)
            }
        };
        if let EValue::Tensor(tensor) = &mut self.values.items[index as usize] {
            tensor.name = Some(state.name.clone());
            if let Some(initial) = initial {
                let nowhere = delegraph_pte::model::Allocation {
                    memory_id: STATES,
                    offset: 0,
                };
                tensor.storage = Storage::MutableWithState(nowhere, 0, initial);
            }
        }
        self.state_values.insert(id, index);
        Ok(index)
    }

    /// All nodes of a method; returns where the compiled regions lie.
    fn body(&mut self, scope: &mut Scope, regions: &[CompiledRegion]) -> Result<Vec<RegionRange>, EmitError> {
        let graph = scope.graph;
        let mut ranges = Vec::new();
        let mut seen: FxHashSet<RegionId> = FxHashSet::default();
        let index_of: FxHashMap<RegionId, usize> = regions.iter().enumerate().map(|(i, r)| (r.id, i)).collect();
        for run in graph.nodes.chunk_by(|a, b| a.region == b.region) {
            let compiled = run[0].region.and_then(|id| index_of.get(&id).copied());
            let Some(index) = compiled else {
                for node in run {
                    self.node(scope, node)?;
                }
                continue;
            };
            let region = &regions[index];
            if !seen.insert(region.id) {
                return Err(EmitError::Region(region.id));
            }
            if let Some(range) = self.region(scope, run, region, index)? {
                ranges.push(range);
            }
        }
        Ok(ranges)
    }

    /// The nodes of one region: an atomic step, whose inputs live to its end and whose outputs from its start.
    fn region(
        &mut self,
        scope: &mut Scope,
        nodes: &[Node],
        region: &CompiledRegion,
        index: usize,
    ) -> Result<Option<RegionRange>, EmitError> {
        let mut inputs = Vec::new();
        for &value in &region.inputs {
            inputs.push(self.read(scope, value)?);
        }
        let start = self.now();
        let outputs: FxHashSet<ValueId> = region.outputs.iter().copied().collect();
        self.scoped(|builder| {
            for node in nodes {
                // Outputs of the region live among the activations, everything else in memory of its own.
                let leaves = node.outputs.iter().any(|value| outputs.contains(value));
                builder.arena = if leaves { ARENA } else { REGION_INTERNALS };
                builder.node(scope, node)?;
            }
            Ok(())
        })?;
        self.arena = ARENA;
        let end = self.now();
        let mut output_values = Vec::new();
        for &value in &region.outputs {
            let output = self.read(scope, value)?;
            self.values.alive_from(output, start);
            self.bind(output, &scope.graph.value(value).ty);
            output_values.push(output);
        }
        if start == end {
            return Ok(None);
        }
        for &input in &inputs {
            self.values.touch(input, end - 1);
        }
        for &output in &output_values {
            self.values.touch(output, end - 1);
        }
        self.require(region, &inputs, &output_values);
        Ok(Some(RegionRange {
            index,
            start,
            end,
            inputs,
            outputs: output_values,
            rooms: Vec::new(),
        }))
    }

    /// Has the values at a region's border lie as all its candidates require: which of them runs is known on the device only.
    fn require(&mut self, region: &CompiledRegion, inputs: &[u32], outputs: &[u32]) {
        for candidate in &region.candidates {
            // What is no blob in its envelope states nothing; loading it says so.
            let Ok(envelope) = envelope::parse(&candidate.blob) else {
                continue;
            };
            let meta = envelope.meta;
            for (&value, spec) in inputs.iter().zip(&meta.inputs).chain(outputs.iter().zip(&meta.outputs)) {
                self.values.require(value, spec.requirement);
            }
        }
    }

    /// Outputs, then the writes of mutations.
    fn results(&mut self, scope: &mut Scope) -> Result<Vec<u32>, EmitError> {
        let graph = scope.graph;
        let mut states: FxHashSet<StateId> = FxHashSet::default();
        let mut written: FxHashSet<ValueId> = FxHashSet::default();
        for mutation in &graph.mutations {
            match mutation.target {
                MutationTarget::State(state) => {
                    states.insert(state);
                }
                MutationTarget::Input(position) => {
                    if let Some(InputKind::Value(value)) = graph.inputs.get(position as usize).map(|input| &input.kind)
                    {
                        written.insert(*value);
                    }
                }
            }
        }
        for (i, value) in graph.values.iter().enumerate() {
            if matches!(value.def, Def::State(state) if states.contains(&state)) {
                written.insert(ValueId::from(i));
            }
        }
        let mut outputs = Vec::new();
        for output in &graph.outputs {
            outputs.push(match output {
                Output::Value(value) if written.contains(value) => self.copy(scope, *value)?,
                Output::Value(value) => self.read(scope, *value)?,
                Output::Literal(arg) => self.output_literal(arg)?,
            });
        }
        let mut writes = Vec::new();
        for mutation in &graph.mutations {
            let source = match written.contains(&mutation.value) {
                true => self.copy(scope, mutation.value)?,
                false => self.read(scope, mutation.value)?,
            };
            let target = match mutation.target {
                MutationTarget::State(id) => self.state(id.0)?,
                MutationTarget::Input(position) => match graph.inputs.get(position as usize).map(|input| &input.kind) {
                    Some(InputKind::Value(value)) => self.read(scope, *value)?,
                    _ => return Err(EmitError::Undefined(format!("mutated input {position}"))),
                },
            };
            writes.push((target, source));
        }
        let non_blocking = self.values.literal(EValue::Bool(false));
        for (target, source) in writes {
            if target != source {
                self.kernel("aten::copy_", vec![target, source, non_blocking, target]);
            }
        }
        Ok(outputs)
    }

    fn output_literal(&mut self, arg: &Arg) -> Result<u32, EmitError> {
        match arg {
            Arg::Int(expr) | Arg::Sym(expr) => self.size(expr),
            other => {
                let value = literal(other).ok_or_else(|| EmitError::Undefined(format!("output {other:?}")))?;
                Ok(self.values.literal(value))
            }
        }
    }

    /// A copy of a value, made now.
    fn copy(&mut self, scope: &mut Scope, value: ValueId) -> Result<u32, EmitError> {
        let source = self.read(scope, value)?;
        let ty = scope.graph.value(value).ty.clone();
        let copy = self.new_value(&ty);
        self.assign(copy, source);
        Ok(copy)
    }

    /// Instructions that make `target` equal to `source`.
    pub(crate) fn assign(&mut self, target: u32, source: u32) {
        if self.values.as_tensor(target).is_some() {
            let non_blocking = self.values.literal(EValue::Bool(false));
            let dim_order = self.values.literal(EValue::Null);
            self.kernel(
                "dim_order_ops::_clone_dim_order.out",
                vec![source, non_blocking, dim_order, target, target],
            );
        } else {
            self.push(Instruction::Move {
                from: source,
                to: target,
            });
        }
    }
}

/// A constant argument as a value; `None` for what has no value form.
fn literal(arg: &Arg) -> Option<EValue> {
    match arg {
        Arg::None => Some(EValue::Null),
        Arg::Int(expr) => expr.as_int().map(EValue::Int),
        Arg::Float(f) => Some(EValue::Double(*f)),
        Arg::Bool(b) => Some(EValue::Bool(*b)),
        Arg::Str(s) => Some(EValue::String(s.clone())),
        _ => None,
    }
}

/// `aten::add.out` -> (`aten::add`, `out`)
fn split_overload(name: &str) -> (&str, &str) {
    let start = name.find("::").map_or(0, |i| i + 2);
    match name[start..].find('.') {
        Some(dot) => (&name[..start + dot], &name[start + dot + 1..]),
        None => (name, ""),
    }
}
