//! Lifts a portable `.pte` program back into the IR, so that it can be partitioned and compiled again.
//!
//! A plan is a list of kernel calls on memory. Where it is straight-line code, what each call reads is known: the last write
//! that covered exactly those bytes ([`memory`]). Calls of out-variants become nodes of the functional operators that they
//! compute ([`call`]), size arithmetic becomes expressions ([`number`]), and the sizes of dynamic tensors, of which a file
//! has only upper bounds, are derived again from the inputs by shape propagation ([`sizes`], [`demand`]).
//!
//! Whatever cannot be known for certain is refused with the instruction and the reason: the program then runs as it is.

mod call;
mod demand;
mod memory;
mod method;
mod number;
mod sizes;
mod tensor;

use crate::error::{ImportError, Result};
use call::Callee;
use delegraph_ir::{Bytes, Constant, ConstantId, Module, State, StateId, TensorType};
use delegraph_pte::model::{Instruction, Plan, Storage, Tensor};
use delegraph_pte::{DataFile, DataTensor, Verified};
use delegraph_types::DType;
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// Lifts every method of `program`, which was parsed from `file`. Constants stay in the file; `data` is the data file that
/// external constants lie in, with its bytes.
///
/// # Errors
/// [`ImportError::Unsupported`] names the method, the instruction and the reason; the program can still be run as it is.
pub fn lift_program(program: &Verified, file: &Bytes, data: Option<(&DataFile, &Bytes)>) -> Result<Module> {
    if file.as_slice().len() as u64 != program.file_len() {
        return Err(ImportError::malformed("the file changed since it was checked"));
    }
    straight_line(program)?;
    let mut shared = Shared {
        program,
        file,
        data,
        module: Module::default(),
        constants: FxHashMap::default(),
        states: FxHashMap::default(),
        state_names: FxHashMap::default(),
        entries: data
            .iter()
            .flat_map(|(data, _)| &data.entries)
            .map(|entry| (entry.name.as_str(), entry))
            .collect(),
        callees: FxHashMap::default(),
        symbols: 0,
    };
    let mut order: Vec<usize> = (0..program.plans.len()).collect();
    order.sort_by_key(|&i| program.plans[i].name != "forward");
    for index in order {
        let name = &program.plans[index].name;
        let graph = method::lift(&mut shared, index).map_err(|error| error.at(|| format!("method `{name}`")))?;
        shared.module.graphs.push(graph);
    }
    let module = shared.module;
    delegraph_ir::verify(&module)
        .map_err(|error| ImportError::unsupported(format!("the program does not fit together: {error}")))?;
    Ok(module)
}

/// Checks that no method of `program` branches, loops or calls a delegate of its own: the first thing that lifting asks for,
/// and cheap.
///
/// # Errors
/// Names the first instruction that does.
pub fn straight_line(program: &Verified) -> Result<()> {
    for plan in &program.plans {
        for (at, instruction) in plan.instructions.iter().enumerate() {
            let problem = match instruction {
                Instruction::JumpFalse { destination, .. } => {
                    format!("control flow: instruction {at} jumps to {destination}")
                }
                Instruction::Delegate { delegate, .. } => {
                    let id = plan.delegates.get(*delegate as usize).map_or("", |d| d.id.as_str());
                    format!("instruction {at} calls delegate `{id}`, whose contents only it can read")
                }
                _ => continue,
            };
            return Err(ImportError::unsupported(problem).at(|| format!("method `{}`", plan.name)));
        }
    }
    Ok(())
}

/// What the methods of a program share.
pub(crate) struct Shared<'p> {
    program: &'p Verified,
    file: &'p Bytes,
    data: Option<(&'p DataFile, &'p Bytes)>,
    module: Module,
    /// By address of the bytes, type and layout.
    constants: FxHashMap<(usize, DType, Vec<i64>, Vec<i64>), ConstantId>,
    /// By plan and value.
    states: FxHashMap<(usize, u32), StateId>,
    state_names: FxHashMap<String, StateId>,
    /// Entries of the data file.
    entries: FxHashMap<&'p str, &'p DataTensor>,
    /// By full operator name.
    callees: FxHashMap<String, Rc<Callee>>,
    /// Number of the next symbol.
    symbols: usize,
}

impl<'p> Shared<'p> {
    fn plan(&self, index: usize) -> &'p Plan {
        &self.program.plans[index]
    }

    /// The constant that a tensor of the file is; equal windows are one constant.
    fn constant(&mut self, tensor: &Tensor) -> Result<ConstantId> {
        let (bytes, name) = match tensor.storage {
            Storage::Constant(index) => {
                let start = self.program.constant_offsets.get(index as usize).copied();
                (self.window(start, tensor)?, format!("constant_{index}"))
            }
            Storage::MutableWithState(_, segment, index) => {
                let states = self.program.mutable_segments.get(segment as usize);
                let start = states.and_then(|(_, offsets)| offsets.get(index as usize)).copied();
                (self.window(start, tensor)?, format!("state_{index}"))
            }
            Storage::External => self.external(tensor)?,
            Storage::Arena(_) | Storage::Unplanned => {
                return Err(ImportError::malformed(
                    "a tensor in memory where a constant was expected",
                ));
            }
        };
        let name = tensor.name.clone().unwrap_or(name);
        self.add_constant(name, tensor, bytes)
    }

    fn add_constant(&mut self, name: String, tensor: &Tensor, bytes: Bytes) -> Result<ConstantId> {
        let strides = tensor.sizes.strides_of_dim_order(&tensor.dim_order);
        let strides = strides.ok_or_else(|| ImportError::malformed("a dim_order that is no permutation"))?;
        let (sizes, steps) = (tensor.sizes.as_slice().to_vec(), strides.as_slice().to_vec());
        let key = (bytes.address().0, tensor.dtype, sizes, steps);
        if let Some(&id) = self.constants.get(&key) {
            return Ok(id);
        }
        let aligned = bytes.address().0.is_multiple_of(tensor.dtype.size());
        let id = self.module.constants.push(Constant {
            name,
            dtype: tensor.dtype,
            sizes: tensor.sizes,
            strides,
            offset: 0,
            // Only files that ExecuTorch did not write are not aligned.
            storage: if aligned {
                bytes
            } else {
                Bytes::from(bytes.as_slice().to_vec())
            },
        });
        self.constants.insert(key, id);
        Ok(id)
    }

    /// Bytes of a tensor that start at an offset of the file.
    fn window(&self, start: Option<u64>, tensor: &Tensor) -> Result<Bytes> {
        let start = start.and_then(|start| usize::try_from(start).ok());
        let length = byte_count(tensor).and_then(|n| usize::try_from(n).ok());
        start
            .zip(length)
            .and_then(|(start, length)| self.file.slice(start, length))
            .ok_or_else(|| ImportError::malformed("a constant does not lie in the file"))
    }

    fn external(&self, tensor: &Tensor) -> Result<(Bytes, String)> {
        let name = tensor.name.as_deref().unwrap_or_default();
        let Some((_, bytes)) = self.data else {
            return Err(
                ImportError::unsupported(format!("constant `{name}` is in another file"))
                    .hint("give its data file, or run the program as it is"),
            );
        };
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| ImportError::malformed(format!("the data file has no constant `{name}`")))?;
        let fits = match &entry.layout {
            Some((dtype, sizes, order)) => {
                (*dtype, *sizes, order.as_slice()) == (tensor.dtype, tensor.sizes, tensor.dim_order.as_slice())
            }
            None => true,
        };
        if !fits {
            let problem = format!(
                "constant `{name}` of the data file is not {}[{}]",
                tensor.dtype, tensor.sizes
            );
            return Err(ImportError::malformed(problem));
        }
        let length = byte_count(tensor).filter(|n| *n <= entry.range.end - entry.range.start);
        usize::try_from(entry.range.start)
            .ok()
            .zip(length.and_then(|n| usize::try_from(n).ok()))
            .and_then(|(start, length)| bytes.slice(start, length))
            .map(|bytes| (bytes, name.to_string()))
            .ok_or_else(|| ImportError::malformed(format!("constant `{name}` does not lie in the data file")))
    }

    /// The state that a tensor of a plan is. Methods share the states that have a name.
    fn state(&mut self, plan: usize, value: u32, tensor: &Tensor) -> Result<StateId> {
        if let Some(&id) = self.states.get(&(plan, value)) {
            return Ok(id);
        }
        let initial = match tensor.storage {
            Storage::MutableWithState(..) => Some(self.constant(tensor)?),
            _ => None,
        };
        let ty = TensorType::fixed(tensor.dtype, tensor.sizes.as_slice());
        let name = match &tensor.name {
            Some(name) => name.clone(),
            None => format!("{}.buffer_{value}", self.program.plans[plan].name),
        };
        let id = match self.state_names.get(&name).copied() {
            None => {
                let id = StateId::from(self.module.states.len());
                self.state_names.insert(name.clone(), id);
                self.module.states.push(State { name, ty, initial });
                id
            }
            Some(id) => {
                let state = &self.module.states[id.index()];
                if state.ty != ty || state.initial != initial {
                    let problem = format!("two mutable buffers `{name}` that differ");
                    return Err(ImportError::unsupported(problem));
                }
                id
            }
        };
        self.states.insert((plan, value), id);
        Ok(id)
    }
}

/// Bytes of a tensor at its sizes, which are upper bounds where they are dynamic.
fn byte_count(tensor: &Tensor) -> Option<u64> {
    tensor.sizes.numel()?.checked_mul(tensor.dtype.size()).map(|n| n as u64)
}

/// True if the elements lie in row-major order whatever the sizes are.
fn row_major(tensor: &Tensor) -> bool {
    tensor.dim_order.iter().enumerate().all(|(i, d)| usize::from(*d) == i)
}
