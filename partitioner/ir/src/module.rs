//! A whole model.

use crate::{ConstantId, Constants, Graph, Symbols, TensorType};

/// A mutable buffer that the host keeps between runs. One per buffer name, shared by every method.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Fully qualified buffer name.
    pub name: String,
    /// Its type; sizes are constant.
    pub ty: TensorType,
    /// Value before the first run; `None`: zeros.
    pub initial: Option<ConstantId>,
}

/// A model: its methods and what they share.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// One a method; `forward` first.
    pub graphs: Vec<Graph>,
    /// Weights and literals.
    pub constants: Constants,
    /// Mutable buffers, indexed by [`crate::StateId`].
    pub states: Vec<State>,
    /// Symbols of dynamic dimensions, shared by all methods.
    pub symbols: Symbols,
}

impl Module {
    /// The method of this name.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        self.graphs.iter().find(|g| g.name == name)
    }
}
