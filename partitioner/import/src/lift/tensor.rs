//! Reading and writing the tensors of a plan.

use super::memory::{DefinitionId, Found, Place};
use super::method::Lifter;
use super::row_major;
use crate::error::{ImportError, Result};
use delegraph_ir::{Arg, Def, Expr, Op, TensorType, Type, ValueId};
use delegraph_pte::model::{Dynamism, Storage, Tensor};

/// ExecuTorch's own convention: mutable buffers lie in this arena.
const STATE_ARENA: u32 = 2;

/// True for a buffer that the file itself marks as one.
pub(super) fn is_marked_state(tensor: &Tensor) -> bool {
    match tensor.storage {
        Storage::MutableWithState(..) => true,
        Storage::Arena(allocation) => allocation.memory_id == STATE_ARENA && tensor.name.is_some(),
        _ => false,
    }
}

impl Lifter<'_, '_> {
    /// What a tensor of the plan holds now.
    pub(super) fn read(&mut self, value: u32) -> Result<ValueId> {
        let tensor = self.tensor(value)?;
        let place = Place::of(value, tensor);
        if place == Place::Constant {
            return self.constant(tensor);
        }
        match self.memory.find(&place) {
            Found::Whole(definition) => self.seen_as(definition, value),
            // Memory lives from run to run, so this is a buffer: nothing else is read before it is written.
            Found::Nothing if matches!(place, Place::Arena { .. }) => {
                let definition = self.begin_state(value, tensor)?;
                self.seen_as(definition, value)
            }
            found => Err(self.unclear(value, &found, "is read")),
        }
    }

    /// The sizes that a tensor of the plan has now.
    pub(super) fn shape(&mut self, value: u32) -> Result<Vec<Expr>> {
        let tensor = self.tensor(value)?;
        if tensor.dynamism == Dynamism::Static {
            return Ok(fixed(tensor));
        }
        if let Some(shape) = self.shapes.get(&value) {
            return Ok(shape.clone());
        }
        Err(ImportError::unsupported(format!(
            "the sizes of %{value} are not known here"
        )))
    }

    /// Makes a tensor of the plan hold a value. `input`: the caller sees the change at the input of this position.
    pub(super) fn define(&mut self, value: u32, new: ValueId, input: Option<u32>) -> Result<()> {
        let tensor = self.tensor(value)?;
        let place = Place::of(value, tensor);
        if place == Place::Constant {
            return Err(ImportError::unsupported(format!(
                "writes %{value}, which is a constant"
            )));
        }
        let input = input.or_else(|| self.positions.get(&value).copied());
        self.memory.write(place, value, new, input);
        self.set_shape(value, tensor, new);
        Ok(())
    }

    /// Makes a tensor of the plan a view of what its bytes hold already.
    pub(super) fn define_view(&mut self, value: u32, definition: DefinitionId, view: ValueId) -> Result<()> {
        let tensor = self.tensor(value)?;
        self.views.insert((definition, value), view);
        self.set_shape(value, tensor, view);
        Ok(())
    }

    fn set_shape(&mut self, value: u32, tensor: &Tensor, new: ValueId) {
        if tensor.dynamism != Dynamism::Static
            && let Some(ty) = self.graph.tensor(new)
        {
            let shape = ty.shape.clone();
            self.shapes.insert(value, shape);
        }
    }

    /// What a write left, as a tensor of the plan sees it: the tensor that was written, or a view through memory.
    pub(super) fn seen_as(&mut self, definition: DefinitionId, value: u32) -> Result<ValueId> {
        if let Some(&view) = self.views.get(&(definition, value)) {
            return Ok(view);
        }
        let (writer, held) = {
            let definition = self.memory.definition(definition);
            (definition.writer, definition.value)
        };
        if writer == value {
            return Ok(held);
        }
        let (from, to) = (self.tensor(writer)?, self.tensor(value)?);
        let shape = self.shape(value)?;
        let Some(have) = self.graph.tensor(held).cloned() else {
            return Err(ImportError::malformed(format!("%{writer} holds no tensor")));
        };
        let alike = from.dtype == to.dtype && from.dim_order == to.dim_order && have.shape == shape;
        if alike {
            self.views.insert((definition, value), held);
            return Ok(held);
        }
        let differ = |text: &str| {
            ImportError::unsupported(format!(
                "%{value} ({}) has the bytes that were written as %{writer} ({}), {text}",
                describe(to),
                describe(from)
            ))
        };
        if !Self::same_layout(from, to) {
            return Err(differ("of another dtype or layout"));
        }
        let (count, wanted) = (Expr::product(&have.shape), Expr::product(&shape));
        if count != wanted {
            self.sizes.equate(&count, &wanted, &mut self.shared.module.symbols);
            return Err(differ("and whether all of them is not known"));
        }
        let view = self.view(held, shape)?;
        self.views.insert((definition, value), view);
        Ok(view)
    }

    /// A node that gives a tensor other sizes.
    pub(super) fn view(&mut self, source: ValueId, shape: Vec<Expr>) -> Result<ValueId> {
        let Some(ty) = self.graph.tensor(source) else {
            return Err(ImportError::malformed("a view of no tensor"));
        };
        let ty = TensorType::new(ty.dtype, shape.clone());
        self.node("aten::view", vec![source.into(), Arg::Ints(shape)], ty)
    }

    /// A node with one result.
    pub(super) fn node(&mut self, op: &str, args: Vec<Arg>, ty: TensorType) -> Result<ValueId> {
        let op = Op::find(op).ok_or_else(|| ImportError::Bug(format!("no operator `{op}`")))?;
        let made = self.emit(op, args, vec![ty.into()]);
        made.first()
            .copied()
            .ok_or_else(|| ImportError::Bug("no result".to_string()))
    }

    fn constant(&mut self, tensor: &Tensor) -> Result<ValueId> {
        let constant = self.shared.constant(tensor)?;
        if let Some(&id) = self.constants.get(&constant) {
            return Ok(id);
        }
        let name = self.shared.module.constants[constant].name.clone();
        let name = self.unique(&name);
        let ty = TensorType::fixed(tensor.dtype, tensor.sizes.as_slice());
        let id = self.graph.add_constant(name, ty, constant);
        self.constants.insert(constant, id);
        Ok(id)
    }

    /// From here on a tensor of the plan is a mutable buffer, as it was before the run.
    pub(super) fn begin_state(&mut self, value: u32, tensor: &Tensor) -> Result<DefinitionId> {
        if tensor.dynamism != Dynamism::Static || !row_major(tensor) {
            let problem = format!("%{value} ({}) is a mutable buffer", describe(tensor));
            return Err(ImportError::unsupported(problem));
        }
        let state = self.shared.state(self.plan_index, value, tensor)?;
        let state_type = self.shared.module.states[state.index()].ty.clone();
        let name = self.shared.module.states[state.index()].name.clone();
        let name = self.unique(&name);
        let id = self.graph.add_value(name, Type::Tensor(state_type), Def::State(state));
        let definition = self.memory.write(Place::of(value, tensor), value, id, None);
        self.states.push((value, state, definition));
        Ok(definition)
    }

    /// The refusal of a read that no single write explains.
    pub(super) fn unclear(&self, value: u32, found: &Found, what: &str) -> ImportError {
        let kind = self.tensor(value).map(describe).unwrap_or_default();
        ImportError::unsupported(match found {
            Found::Parts(writers) => {
                let writers: Vec<String> = writers.iter().map(|w| format!("%{w}")).collect();
                format!(
                    "%{value} ({kind}) {what}, whose bytes {} wrote in part",
                    writers.join(", ")
                )
            }
            _ => format!("%{value} ({kind}) {what} before anything writes it"),
        })
    }
}

/// The sizes of a tensor that is not dynamic.
pub(super) fn fixed(tensor: &Tensor) -> Vec<Expr> {
    tensor.sizes.iter().map(|&size| Expr::Int(size)).collect()
}

/// `f32[2x3]`
pub(super) fn describe(tensor: &Tensor) -> String {
    let order = if row_major(tensor) { "" } else { ", not row-major" };
    let bound = match tensor.dynamism {
        Dynamism::Static => "",
        Dynamism::Bounded => " at most",
        Dynamism::Unbounded => " or other sizes",
    };
    format!("{}[{}]{bound}{order}", tensor.dtype, tensor.sizes)
}
