//! Branches and loops become jumps.
//!
//! `.pte` programs know one jump, "go there if false"; an unconditional one tests a constant false. Results of branches and the
//! values that loops carry are tensors of their own, assigned by a copy: memory of a branch never outlives it.

use crate::EmitError;
use crate::graph::{Builder, Scope};
use delegraph_ir::{Arg, Expr, Graph, InputKind, Node, Output, TensorType, Type, ValueId};
use delegraph_pte::model::{EValue, Instruction};

impl Builder<'_, '_> {
    /// Emits a higher-order operator.
    pub(crate) fn control(&mut self, scope: &mut Scope, node: &Node) -> Result<(), EmitError> {
        match (node.op.name(), node.args.as_slice()) {
            ("higher_order::cond", [predicate, Arg::Graph(yes), Arg::Graph(no), operands]) => {
                self.cond(scope, node, predicate, yes, no, operands)
            }
            ("higher_order::map", [Arg::Graph(body), mapped, extra]) => {
                self.scan(scope, node, body, &Arg::Values(Vec::new()), mapped, extra)
            }
            ("higher_order::scan", [Arg::Graph(body), init, xs, extra]) => {
                self.scan(scope, node, body, init, xs, extra)
            }
            ("higher_order::while_loop", [Arg::Graph(condition), Arg::Graph(body), carried, extra]) => {
                self.while_loop(scope, node, condition, body, carried, extra)
            }
            _ => Err(EmitError::NoOutVariant {
                node: node.name.clone(),
                op: node.op.name().to_string(),
            }),
        }
    }

    fn cond(
        &mut self,
        scope: &mut Scope,
        node: &Node,
        predicate: &Arg,
        yes: &Graph,
        no: &Graph,
        operands: &Arg,
    ) -> Result<(), EmitError> {
        let condition = match predicate {
            Arg::Value(value) => self.read(scope, *value)?,
            Arg::Bool(b) => self.values.literal(EValue::Bool(*b)),
            Arg::Sym(expr) | Arg::Int(expr) => self.size(expr)?,
            _ => return Err(argument(node, "pred", "expected a boolean")),
        };
        let operands = self.operands(scope, operands)?;
        let results = self.declare_outputs(scope, node);
        let to_else = self.jump_false(condition);
        self.branch(node, yes, &operands, &results)?;
        let to_end = self.jump();
        self.land(to_else);
        self.branch(node, no, &operands, &results)?;
        self.land(to_end);
        self.bind_outputs(scope, node);
        Ok(())
    }

    fn branch(&mut self, node: &Node, graph: &Graph, operands: &[u32], results: &[u32]) -> Result<(), EmitError> {
        self.scoped(|builder| {
            let outputs = builder.inline(node, graph, operands)?;
            expect_count(node, outputs.len(), results.len())?;
            for (&result, &output) in results.iter().zip(&outputs) {
                builder.assign(result, output);
            }
            Ok(())
        })
    }

    /// `scan`, and `map` as a scan that carries nothing.
    fn scan(
        &mut self,
        scope: &mut Scope,
        node: &Node,
        body: &Graph,
        init: &Arg,
        xs: &Arg,
        extra: &Arg,
    ) -> Result<(), EmitError> {
        let stacked: Vec<(ValueId, TensorType)> = xs
            .values()
            .filter_map(|value| Some((value, scope.graph.tensor(value)?.clone())))
            .collect();
        let Some(count) = stacked.first().and_then(|(_, ty)| ty.shape.first()).cloned() else {
            return Err(argument(node, "xs", "expected tensors of rank 1 or more"));
        };
        let init = self.operands(scope, init)?;
        let extra = self.operands(scope, extra)?;
        let mut sources = Vec::new();
        for (value, _) in &stacked {
            sources.push(self.read(scope, *value)?);
        }
        let length = self.size(&count)?;
        let results = self.declare_outputs(scope, node);
        if results.len() < init.len() {
            return Err(argument(node, "init", "more carried values than results"));
        }
        let (carried, collected) = results.split_at(init.len());
        // `et_copy_index` gives its target the size that is filled so far.
        collected.iter().for_each(|&output| self.values.make_bounded(output));
        for (&target, &source) in carried.iter().zip(&init) {
            self.assign(target, source);
        }
        // With no iterations nothing else gives the collected results their sizes.
        if count.lower_bound(&self.module.symbols).is_none_or(|low| low < 1) {
            for (&output, &value) in collected.iter().zip(&node.outputs[init.len()..]) {
                self.fill_zero(scope, output, value)?;
            }
        }
        let counter = self.values.push(EValue::Int(0));
        self.kernel("executorch_prim::sub.Scalar", vec![counter, counter, counter]);
        let top = self.now();
        let more = self.prim("executorch_prim::lt.Scalar", &[counter, length], EValue::Bool(false));
        let to_end = self.jump_false(more);
        self.scoped(|builder| {
            let mut operands = carried.to_vec();
            let dim = builder.values.literal(EValue::Int(0));
            for ((_, ty), &source) in stacked.iter().zip(&sources) {
                let item = builder.new_tensor(&TensorType::new(ty.dtype, ty.shape[1..].to_vec()));
                builder.kernel("aten::select_copy.int_out", vec![source, dim, counter, item, item]);
                operands.push(item);
            }
            operands.extend(&extra);
            let outputs = builder.inline(node, body, &operands)?;
            expect_count(node, outputs.len(), results.len())?;
            let (next, rows) = outputs.split_at(carried.len());
            for (&target, &row) in collected.iter().zip(rows) {
                builder.kernel("executorch_prim::et_copy_index.tensor", vec![target, row, counter]);
            }
            builder.assign_all(node, body, carried, next)
        })?;
        let one = self.values.literal(EValue::Int(1));
        self.kernel("executorch_prim::add.Scalar", vec![counter, one, counter]);
        self.jump_back(top);
        self.land(to_end);
        self.bind_outputs(scope, node);
        Ok(())
    }

    fn while_loop(
        &mut self,
        scope: &mut Scope,
        node: &Node,
        condition: &Graph,
        body: &Graph,
        carried: &Arg,
        extra: &Arg,
    ) -> Result<(), EmitError> {
        let init = self.operands(scope, carried)?;
        let extra = self.operands(scope, extra)?;
        let results = self.declare_outputs(scope, node);
        expect_count(node, init.len(), results.len())?;
        for (&target, &source) in results.iter().zip(&init) {
            self.assign(target, source);
        }
        let operands: Vec<u32> = results.iter().chain(&extra).copied().collect();
        let top = self.now();
        let to_end = self.scoped(|builder| {
            let outputs = builder.inline(node, condition, &operands)?;
            match outputs.as_slice() {
                [more] => Ok(builder.jump_false(*more)),
                _ => Err(argument(node, "cond_graph", "expected one result")),
            }
        })?;
        self.scoped(|builder| {
            let outputs = builder.inline(node, body, &operands)?;
            expect_count(node, outputs.len(), results.len())?;
            builder.assign_all(node, body, &results, &outputs)
        })?;
        self.jump_back(top);
        self.land(to_end);
        self.bind_outputs(scope, node);
        Ok(())
    }

    /// Assigns all at once: a source that is another's target is copied aside first.
    fn assign_all(&mut self, node: &Node, body: &Graph, targets: &[u32], sources: &[u32]) -> Result<(), EmitError> {
        let mut staged = Vec::with_capacity(sources.len());
        for (k, &source) in sources.iter().enumerate() {
            let crossed = targets
                .iter()
                .position(|&target| target == source)
                .is_some_and(|j| j != k);
            staged.push(match crossed {
                false => source,
                true => {
                    let ty = match body.outputs.get(k) {
                        Some(Output::Value(value)) => body.value(*value).ty.clone(),
                        _ => return Err(argument(node, "body", "a literal among the carried values")),
                    };
                    let aside = self.new_value(&ty);
                    self.assign(aside, source);
                    aside
                }
            });
        }
        for (&target, &source) in targets.iter().zip(&staged) {
            if target != source {
                self.assign(target, source);
            }
        }
        Ok(())
    }

    /// Emits a subgraph's nodes in place; returns its outputs.
    fn inline(&mut self, node: &Node, graph: &Graph, operands: &[u32]) -> Result<Vec<u32>, EmitError> {
        expect_count(node, operands.len(), graph.inputs.len())?;
        let mut scope = Scope::new(graph);
        for (input, &operand) in graph.inputs.iter().zip(operands) {
            if let InputKind::Value(value) = input.kind {
                scope.map[value.index()] = Some(operand);
                self.bind(operand, &graph.value(value).ty);
            }
        }
        for inner in &graph.nodes {
            self.node(&mut scope, inner)?;
        }
        let mut outputs = Vec::with_capacity(graph.outputs.len());
        for output in &graph.outputs {
            outputs.push(match output {
                Output::Value(value) => self.read(&mut scope, *value)?,
                Output::Literal(Arg::Bool(b)) => self.values.literal(EValue::Bool(*b)),
                Output::Literal(Arg::Int(expr) | Arg::Sym(expr)) => self.size(expr)?,
                Output::Literal(Arg::Float(f)) => self.values.literal(EValue::Double(*f)),
                Output::Literal(_) => return Err(argument(node, "graph", "a result that is no tensor and no number")),
            });
        }
        Ok(outputs)
    }

    fn operands(&mut self, scope: &mut Scope, arg: &Arg) -> Result<Vec<u32>, EmitError> {
        arg.values().map(|value| self.read(scope, value)).collect()
    }

    fn declare_outputs(&mut self, scope: &mut Scope, node: &Node) -> Vec<u32> {
        let mut results = Vec::with_capacity(node.outputs.len());
        for &output in &node.outputs {
            let index = self.new_value(&scope.graph.value(output).ty);
            scope.map[output.index()] = Some(index);
            results.push(index);
        }
        results
    }

    fn bind_outputs(&mut self, scope: &Scope, node: &Node) {
        for &output in &node.outputs {
            if let (Some(index), ty @ Type::Tensor(_)) = (scope.map[output.index()], &scope.graph.value(output).ty) {
                self.bind(index, ty);
            }
        }
    }

    fn fill_zero(&mut self, scope: &Scope, output: u32, value: ValueId) -> Result<(), EmitError> {
        let Some(ty) = scope.graph.tensor(value) else {
            return Ok(());
        };
        let shape: Vec<Expr> = ty.shape.clone();
        let size = self.int_list(&shape)?;
        let zero = self.values.literal(EValue::Int(0));
        self.kernel("aten::full.out", vec![size, zero, output, output]);
        Ok(())
    }

    /// A jump to be aimed by [`Builder::land`].
    fn jump_false(&mut self, condition: u32) -> usize {
        self.push(Instruction::JumpFalse {
            condition,
            destination: 0,
        });
        self.instructions.len() - 1
    }

    fn jump(&mut self) -> usize {
        let never = self.values.literal(EValue::Bool(false));
        self.jump_false(never)
    }

    /// Closes the loop that begins at `top`.
    fn jump_back(&mut self, top: u32) {
        let jump = self.jump();
        if let Instruction::JumpFalse { destination, .. } = &mut self.instructions[jump] {
            *destination = top;
        }
        let end = self.now() - 1;
        self.loops.push(top..end);
    }

    /// Aims a jump at the next instruction.
    fn land(&mut self, jump: usize) {
        let here = self.now();
        if let Some(Instruction::JumpFalse { destination, .. }) = self.instructions.get_mut(jump) {
            *destination = here;
        }
    }
}

fn argument(node: &Node, argument: &str, problem: &str) -> EmitError {
    EmitError::Argument {
        node: node.name.clone(),
        op: node.op.name().to_string(),
        argument: argument.to_string(),
        problem: problem.to_string(),
    }
}

fn expect_count(node: &Node, got: usize, want: usize) -> Result<(), EmitError> {
    if got == want {
        return Ok(());
    }
    Err(argument(
        node,
        "graph",
        &format!("{got} values where {want} are expected"),
    ))
}
