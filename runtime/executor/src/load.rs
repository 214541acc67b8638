//! From a plan to steps: operators to kernels, values to operands.

use crate::LoadError;
use crate::engine::Number;
use crate::region::RegionCall;
use crate::step::{Condition, Io, KernelStep, Operand, Source, Step};
use crate::tensors::{Place, SlotId, Tensors};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use delegraph_kernels::Kernel;
use delegraph_opset::{BaseType, Op, Param, Schema};
use delegraph_pte::Verified;
use delegraph_pte::model::{BackendDelegate, DelegateData, Dynamism, EValue, Instruction, Operator, Plan};
use delegraph_types::nearest;

/// The bytes behind a program.
pub trait ProgramData: Send + Sync {
    /// The whole `.pte` file that was verified; the same bytes at the same place every time.
    fn bytes(&self) -> &[u8];
    /// A tensor of a `.ptd` data file, aligned for its dtype. It is asked at load and once at the start of each run.
    fn external(&self, name: &str) -> Option<&[u8]> {
        let _ = name;
        None
    }
    /// Whether the file's writer left out a tensor without data on purpose, because delegates have what they need of it. The method loads
    /// then, and an instruction that reads the tensor fails.
    fn is_left_out(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

impl ProgramData for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A delegate that a plan itself calls, ready to run.
pub struct ResolvedDelegate {
    /// How many of its operands are inputs; the others are outputs.
    pub inputs: usize,
    /// The call.
    pub call: Box<dyn RegionCall>,
}

/// Finds the delegate for a `BackendDelegate` of a file and its blob.
pub type DelegateResolver<'a> = dyn FnMut(&BackendDelegate, &[u8]) -> Option<ResolvedDelegate> + 'a;

/// A method, resolved.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub program: Arc<Verified>,
    pub plan: usize,
    pub tensors: Tensors,
    /// One an instruction.
    pub steps: Vec<Step>,
    /// Full names of the plan's operators.
    pub operators: Vec<String>,
    /// Numbers as the file has them, by value.
    pub numbers: Vec<Number>,
    /// Numbers that a run may change.
    pub volatile: Vec<u32>,
    /// Values that an instruction or an output reads.
    pub used: Vec<bool>,
    /// Operators without a kernel, each with the first instruction that calls it.
    pub missing: Vec<(u32, String)>,
}

impl Loaded {
    pub fn new(
        program: Arc<Verified>,
        method: &str,
        data: &dyn ProgramData,
        delegates: &mut Vec<Box<dyn RegionCall>>,
        resolver: Option<&mut DelegateResolver<'_>>,
    ) -> Result<Loaded, LoadError> {
        let Some(index) = program.plans.iter().position(|plan| plan.name == method) else {
            let have: Vec<String> = program.plans.iter().map(|plan| plan.name.clone()).collect();
            let near = nearest(method, have.iter().map(String::as_str)).map(str::to_string);
            return Err(LoadError::NoMethod {
                name: method.to_string(),
                have,
                nearest: near,
            });
        };
        let plan = &program.plans[index];
        let inputs = resolve_delegates(&program, plan, data.bytes(), delegates, resolver)?;
        let operators: Vec<String> = plan.operators.iter().map(full_name).collect();
        let (resolved, missing) = resolve_operators(plan, &operators);
        let tensors = Tensors::new(&program, plan, data)?;
        let mut loader = Loader {
            plan,
            tensors: &tensors,
            volatile: Vec::new(),
        };
        let mut steps = Vec::with_capacity(plan.instructions.len());
        for (at, instruction) in plan.instructions.iter().enumerate() {
            let step = loader
                .step(instruction, &resolved, &inputs)
                .map_err(|problem| LoadError::Call {
                    instruction: at as u32,
                    operator: instruction_name(instruction, &operators, plan).to_string(),
                    problem,
                })?;
            steps.push(step);
        }
        let mut volatile = loader.volatile;
        volatile.extend(&plan.inputs);
        volatile.sort_unstable();
        volatile.dedup();
        let numbers = plan.values.iter().map(number).collect();
        let used = used_values(plan);
        Ok(Loaded {
            plan: index,
            tensors,
            steps,
            operators,
            numbers,
            volatile,
            used,
            missing,
            program,
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.program.plans[self.plan]
    }

    /// Why these instructions cannot run, if they cannot: there is no kernel for one, or the file was written without what it reads.
    pub fn cannot_run(&self, instructions: Range<usize>) -> Option<String> {
        let steps = self.steps.get(instructions.clone())?;
        if let Some(at) = steps.iter().position(|step| matches!(step, Step::NoKernel)) {
            return Some(format!(
                "there is no kernel for `{}`",
                self.name_of(instructions.start + at)
            ));
        }
        let name = self.left_out(steps)?;
        Some(format!("the file was written without `{name}`"))
    }

    /// The name of a tensor that one of these steps reads and the file was written without.
    fn left_out(&self, steps: &[Step]) -> Option<&str> {
        let mut reads = steps.iter().filter_map(Step::io).flat_map(|io| &io.reads);
        let value = reads.find_map(|read| match read.source {
            Source::LeftOut(value) => Some(value),
            _ => None,
        })?;
        match &self.plan().values[value as usize] {
            EValue::Tensor(tensor) => tensor.name.as_deref(),
            _ => None,
        }
    }

    /// Operator or kind of an instruction.
    pub fn name_of(&self, instruction: usize) -> &str {
        match self.plan().instructions.get(instruction) {
            Some(found) => instruction_name(found, &self.operators, self.plan()),
            None => "end",
        }
    }
}

/// Operator or kind of an instruction.
fn instruction_name<'a>(instruction: &Instruction, operators: &'a [String], plan: &'a Plan) -> &'a str {
    match instruction {
        Instruction::Kernel { op, .. } => operators.get(*op as usize).map_or("?", String::as_str),
        Instruction::Delegate { delegate, .. } => plan.delegates.get(*delegate as usize).map_or("?", |d| d.id.as_str()),
        Instruction::Move { .. } => "move",
        Instruction::JumpFalse { .. } => "jump",
        Instruction::Free { .. } => "free",
    }
}

fn full_name(operator: &Operator) -> String {
    match operator.overload.as_str() {
        "" => operator.name.clone(),
        overload => format!("{}.{overload}", operator.name),
    }
}

/// An operator of the plan that has a kernel.
struct Resolved {
    kernel: Kernel,
    schema: Schema,
}

/// Every operator that an instruction calls, and those without a kernel.
fn resolve_operators(plan: &Plan, names: &[String]) -> (Vec<Option<Resolved>>, Vec<(u32, String)>) {
    let mut resolved: Vec<Option<Resolved>> = names.iter().map(|_| None).collect();
    let mut asked = alloc::vec![false; names.len()];
    let mut missing = Vec::new();
    for (at, instruction) in plan.instructions.iter().enumerate() {
        let Instruction::Kernel { op, .. } = instruction else {
            continue;
        };
        let op = *op as usize;
        if core::mem::replace(&mut asked[op], true) {
            continue;
        }
        match (delegraph_kernels::find(&names[op]), Op::find(&names[op])) {
            (Some(kernel), Some(found)) => {
                let schema = found.schema();
                resolved[op] = Some(Resolved { kernel, schema });
            }
            _ => missing.push((at as u32, names[op].clone())),
        }
    }
    (resolved, missing)
}

/// Makes every delegate of the plan that an instruction calls; returns how many inputs each has.
fn resolve_delegates(
    program: &Verified,
    plan: &Plan,
    file: &[u8],
    delegates: &mut Vec<Box<dyn RegionCall>>,
    mut resolver: Option<&mut DelegateResolver<'_>>,
) -> Result<Vec<usize>, LoadError> {
    let mut inputs = Vec::new();
    for (index, delegate) in plan.delegates.iter().enumerate() {
        let calls =
            |i: &Instruction| matches!(i, Instruction::Delegate { delegate, .. } if *delegate as usize == index);
        let Some(instruction) = plan.instructions.iter().position(calls) else {
            // Never called; its place must be taken all the same.
            inputs.push(0);
            delegates.push(Box::new(crate::region::NeverCalled));
            continue;
        };
        let range = match delegate.processed {
            DelegateData::Inline(i) => program.inline_delegate_data.get(i as usize),
            DelegateData::Segment(i) => program.segments.get(i as usize),
        };
        let blob = range
            .and_then(|range| file.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?))
            .ok_or_else(|| LoadError::Data(format!("the blob of delegate `{}` is not in the file", delegate.id)))?;
        match resolver.as_mut().and_then(|resolver| resolver(delegate, blob)) {
            Some(found) => {
                inputs.push(found.inputs);
                delegates.push(found.call);
            }
            None => {
                return Err(LoadError::Delegate {
                    instruction: instruction as u32,
                    backend: delegate.id.clone(),
                });
            }
        }
    }
    Ok(inputs)
}

struct Loader<'p> {
    plan: &'p Plan,
    tensors: &'p Tensors,
    volatile: Vec<u32>,
}

impl Loader<'_> {
    fn step(
        &mut self,
        instruction: &Instruction,
        resolved: &[Option<Resolved>],
        delegate_inputs: &[usize],
    ) -> Result<Step, String> {
        match instruction {
            Instruction::Kernel { op, args } => match resolved.get(*op as usize) {
                Some(Some(operator)) => self.kernel(operator, args),
                _ => Ok(Step::NoKernel),
            },
            Instruction::Delegate { delegate, args } => {
                let slots = args.iter().map(|&arg| self.slot(arg)).collect::<Result<Vec<_>, _>>()?;
                let inputs = delegate_inputs.get(*delegate as usize).copied().unwrap_or(0);
                let Some((reads, writes)) = slots.split_at_checked(inputs) else {
                    return Err(format!("{} operands, the delegate has {inputs} inputs", slots.len()));
                };
                Ok(Step::Delegate {
                    delegate: *delegate,
                    io: Io::new(&self.tensors.slots, reads, writes)?,
                })
            }
            Instruction::Move { from, to } => self.move_value(*from, *to),
            Instruction::JumpFalse { condition, destination } => {
                let condition = match self.tensors.slot(*condition) {
                    Some(slot) => Condition::Tensor(Io::new(&self.tensors.slots, &[slot], &[])?),
                    None => Condition::Number(*condition),
                };
                Ok(Step::JumpFalse {
                    condition,
                    destination: *destination,
                })
            }
            Instruction::Free { value } => {
                let slot = self.slot(*value)?;
                Ok(Step::Free(match self.tensors.slots[slot.0 as usize].place {
                    Place::Own(memory) => Some(memory),
                    _ => None,
                }))
            }
        }
    }

    fn kernel(&mut self, operator: &Resolved, args: &[u32]) -> Result<Step, String> {
        let schema = &operator.schema;
        let Some((given, returned)) = args.split_at_checked(schema.params.len()) else {
            return Err(format!(
                "{} arguments, the signature has {}",
                args.len(),
                schema.params.len()
            ));
        };
        let mut build = Operands::default();
        let mut writes = Vec::new();
        for (param, &arg) in schema.params.iter().zip(given) {
            let described = |problem: String| format!("argument `{}`: {problem}", param.name);
            if param.mutated {
                self.outputs(arg, &mut writes).map_err(described)?;
                if !param.is_out {
                    build.operands.push(Operand::None);
                }
            } else {
                self.operand(param, arg, &mut build).map_err(described)?;
            }
        }
        if schema.name == "executorch_prim::et_view.default"
            && let ([from], [to]) = (&build.reads[..], &writes[..])
            && self.same_bytes(*from, *to)
        {
            return Ok(Step::View {
                from: *from,
                to: *to,
                sizes: build.ints,
            });
        }
        let result = self.returned(schema, returned, &writes)?;
        let io = Io::new(&self.tensors.slots, &build.reads, &writes)?;
        let pure_write = matches!(
            schema.name.as_str(),
            "aten::copy_" | "executorch_prim::et_copy_index.tensor"
        );
        Ok(Step::Kernel(KernelStep {
            kernel: operator.kernel,
            operands: build.operands,
            ints: build.ints,
            optional: build.optional,
            io,
            result,
            reads_outs: schema.is_in_place() && !pure_write,
        }))
    }

    /// The value that takes a returned number. Returned tensors must be outputs of the call.
    fn returned(&mut self, schema: &Schema, returned: &[u32], writes: &[SlotId]) -> Result<Option<u32>, String> {
        let number = schema.returns.first().is_some_and(|r| r.ty.base != BaseType::Tensor);
        if number {
            let &[value] = returned else {
                return Err(format!("{} return values, the signature has 1", returned.len()));
            };
            if !is_number(&self.plan.values[value as usize]) {
                return Err(format!("returns a number to value {value}, which is none"));
            }
            self.volatile.push(value);
            return Ok(Some(value));
        }
        let mut slots = Vec::new();
        for &value in returned {
            self.outputs(value, &mut slots)?;
        }
        match slots.iter().find(|slot| !writes.contains(slot)) {
            Some(slot) => Err(format!(
                "returns value {}, which is no output of the call",
                self.tensors.slots[slot.0 as usize].value
            )),
            None => Ok(None),
        }
    }

    fn move_value(&mut self, from: u32, to: u32) -> Result<Step, String> {
        if let (Some(source), Some(target)) = (self.tensors.slot(from), self.tensors.slot(to)) {
            let slots = &self.tensors.slots;
            let (a, b) = (&slots[source.0 as usize], &slots[target.0 as usize]);
            if a.dtype != b.dtype || a.dim_order != b.dim_order {
                return Err(format!(
                    "moves {} {} to {} {}",
                    a.dtype, a.dim_order, b.dtype, b.dim_order
                ));
            }
            let io = match self.same_bytes(source, target) {
                true => None,
                false => Some(Io::new(slots, &[source], &[target])?),
            };
            return Ok(Step::MoveTensor {
                from: source,
                to: target,
                io,
            });
        }
        let value = |index: u32| &self.plan.values[index as usize];
        if is_number(value(from)) && is_number(value(to)) {
            self.volatile.push(to);
            return Ok(Step::MoveNumber { from, to });
        }
        Err(format!("moves value {from} to value {to}, which is of another kind"))
    }

    fn operand(&self, param: &Param, arg: u32, build: &mut Operands) -> Result<(), String> {
        let operand = match &self.plan.values[arg as usize] {
            EValue::Null | EValue::Int(_) | EValue::Bool(_) | EValue::Double(_) => Operand::Number(arg),
            EValue::String(_) => Operand::Str(arg),
            EValue::Tensor(_) => {
                build.reads.push(self.slot(arg)?);
                Operand::Tensor(build.reads.len() - 1)
            }
            // An empty list does not show its kind: the signature does.
            EValue::IntList(items) if items.is_empty() && param.ty.list && param.ty.base != BaseType::Int => {
                match (param.ty.base, param.ty.optional_items) {
                    (BaseType::Tensor, false) => Operand::Tensors(0..0),
                    (BaseType::Tensor, true) => Operand::OptionalTensors(0..0),
                    _ => Operand::None,
                }
            }
            EValue::IntList(items) => {
                let start = build.ints.len();
                build.ints.extend(items);
                Operand::Ints(start..build.ints.len())
            }
            EValue::DoubleList(_) => Operand::Doubles(arg),
            EValue::BoolList(_) => Operand::Bools(arg),
            EValue::TensorList(items) if param.ty.optional_items => {
                let start = build.optional.len();
                for &item in items {
                    build.reads.push(self.slot(item)?);
                    build.optional.push(Some(build.reads.len() as u32 - 1));
                }
                Operand::OptionalTensors(start..build.optional.len())
            }
            EValue::TensorList(items) => {
                let start = build.reads.len();
                for &item in items {
                    build.reads.push(self.slot(item)?);
                }
                Operand::Tensors(start..build.reads.len())
            }
            EValue::OptionalTensorList(items) => {
                let start = build.optional.len();
                for item in items {
                    let slot = item.and_then(|item| self.tensors.slot(item));
                    build.optional.push(slot.map(|slot| {
                        build.reads.push(slot);
                        build.reads.len() as u32 - 1
                    }));
                }
                Operand::OptionalTensors(start..build.optional.len())
            }
        };
        build.operands.push(operand);
        Ok(())
    }

    /// Adds the tensor, or all tensors of the list, to `writes`. `None` adds nothing.
    fn outputs(&self, arg: u32, writes: &mut Vec<SlotId>) -> Result<(), String> {
        match &self.plan.values[arg as usize] {
            EValue::TensorList(items) => {
                for &item in items {
                    writes.push(self.slot(item)?);
                }
            }
            _ => writes.push(self.slot(arg)?),
        }
        Ok(())
    }

    fn slot(&self, value: u32) -> Result<SlotId, String> {
        self.tensors
            .slot(value)
            .ok_or_else(|| format!("value {value} is no tensor"))
    }

    fn same_bytes(&self, a: SlotId, b: SlotId) -> bool {
        let slots = &self.tensors.slots;
        a == b || slots[a.0 as usize].place == slots[b.0 as usize].place
    }
}

#[derive(Default)]
struct Operands {
    operands: Vec<Operand>,
    reads: Vec<SlotId>,
    ints: Vec<u32>,
    optional: Vec<Option<u32>>,
}

fn is_number(value: &EValue) -> bool {
    matches!(
        value,
        EValue::Int(_) | EValue::Bool(_) | EValue::Double(_) | EValue::Null
    )
}

fn number(value: &EValue) -> Number {
    match value {
        EValue::Int(i) => Number::Int(*i),
        EValue::Bool(b) => Number::Bool(*b),
        EValue::Double(f) => Number::Float(*f),
        _ => Number::None,
    }
}

/// Values that an instruction or an output reads, through lists too.
fn used_values(plan: &Plan) -> Vec<bool> {
    let mut used = alloc::vec![false; plan.values.len()];
    let mut mark = |value: u32| {
        used[value as usize] = true;
        if let EValue::IntList(items) | EValue::TensorList(items) = &plan.values[value as usize] {
            for &item in items {
                used[item as usize] = true;
            }
        }
    };
    for instruction in &plan.instructions {
        match instruction {
            Instruction::Kernel { args, .. } | Instruction::Delegate { args, .. } => {
                args.iter().for_each(|&arg| mark(arg))
            }
            Instruction::Move { from, .. } => mark(*from),
            Instruction::JumpFalse { condition, .. } => mark(*condition),
            Instruction::Free { .. } => {}
        }
    }
    plan.outputs.iter().for_each(|&output| mark(output));
    used
}

/// True if the tensor's sizes never change.
pub(crate) fn is_static(tensors: &Tensors, slot: SlotId) -> bool {
    tensors.slots[slot.0 as usize].dynamism == Dynamism::Static
}
