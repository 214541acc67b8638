//! A session: what it takes and gives as C sees it, and the memory behind the pointers that it hands out.

use crate::Model;
use crate::error::{Failure, text};
use crate::generated::{kind, list};
use delegraph::{DType, Dims, InputInfo, InputKind, LoadOptions, Value};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

/// `delegraph_memory`.
pub struct Memory(pub(crate) Arc<delegraph::Memory>);

/// `delegraph_session`.
pub struct Session {
    inputs: Vec<Place>,
    outputs: Vec<Place>,
    states: Vec<Place>,
    inner: Mutex<Inner>,
}

/// A place of a list.
pub(crate) struct Place {
    pub(crate) name: CString,
    pub(crate) kind: u32,
    pub(crate) dtype: u32,
    pub(crate) sizes: Vec<u64>,
    pub(crate) data_size: u64,
    pub(crate) dynamic: bool,
    pub(crate) fixed: bool,
}

/// What a call changes.
pub(crate) struct Inner {
    session: delegraph::Session,
    outputs: Vec<Shown>,
    states: BTreeMap<String, Shown>,
    report: CString,
}

/// Memory behind the pointers of a value that was shown.
#[derive(Default)]
struct Shown {
    sizes: Vec<u64>,
    /// A row-major copy of a tensor that lies otherwise.
    gathered: Vec<u8>,
}

/// A value as C sees it; the slices live until the session's next call that changes it.
pub(crate) enum Shape<'a> {
    None,
    Tensor {
        dtype: u32,
        sizes: &'a [u64],
        data: &'a [u8],
    },
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
}

impl Session {
    pub(crate) fn open(model: &Model, method: Option<&str>, threads: Option<usize>) -> Result<Session, Failure> {
        let mut options = LoadOptions {
            data: model.data.clone(),
            threads,
            ..LoadOptions::default()
        };
        if let Some(method) = method {
            options.method = method.to_string();
        }
        let mut session = delegraph::Session::open(&model.source, &model.config, &model.host, options)?;
        let places = |infos: Vec<InputInfo>| infos.iter().map(Place::of).collect::<Vec<_>>();
        let names: Vec<String> = session.state_names().map(str::to_string).collect();
        let mut states = Vec::new();
        for name in &names {
            if let Some(Value::Tensor(tensor)) = session.state(name)? {
                states.push(Place::tensor(name, tensor.dtype, &tensor.shape, false));
            }
        }
        Ok(Session {
            inputs: places(session.inputs()),
            outputs: places(session.outputs()),
            states,
            inner: Mutex::new(Inner {
                outputs: (0..session.output_count()).map(|_| Shown::default()).collect(),
                states: BTreeMap::new(),
                report: CString::default(),
                session,
            }),
        })
    }

    pub(crate) fn places(&self, which: u32) -> Result<&[Place], Failure> {
        match which {
            list::INPUTS => Ok(&self.inputs),
            list::OUTPUTS => Ok(&self.outputs),
            list::STATES => Ok(&self.states),
            _ => Err(Failure::usage(format!("`list` is {which}: there is no such list"))),
        }
    }

    /// For one call.
    ///
    /// # Errors
    /// Another one is under way.
    pub(crate) fn enter(&self) -> Result<MutexGuard<'_, Inner>, Failure> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(inner),
            // Nobody knows what a panic left half done.
            Err(TryLockError::Poisoned(_)) => Err(Failure::usage(
                "the session met a defect in an earlier call\n  hint: free it, and open another",
            )),
            Err(TryLockError::WouldBlock) => Err(Failure::usage(
                "the session is in use by another call\n  hint: a session takes one call at a time; open one for each thread",
            )),
        }
    }
}

impl Place {
    fn of(info: &InputInfo) -> Place {
        match &info.kind {
            InputKind::Tensor { dtype, sizes, dynamic } => Place::tensor(&info.name, *dtype, sizes, *dynamic),
            InputKind::Int => Place::plain(&info.name, kind::INT, false),
            InputKind::Float => Place::plain(&info.name, kind::FLOAT, false),
            InputKind::Bool => Place::plain(&info.name, kind::BOOL, false),
            InputKind::Literal(value) => {
                let kind = match value {
                    Value::Int(_) => kind::INT,
                    Value::Float(_) => kind::FLOAT,
                    Value::Bool(_) => kind::BOOL,
                    _ => kind::NONE,
                };
                Place::plain(&info.name, kind, true)
            }
        }
    }

    fn plain(name: &str, kind: u32, fixed: bool) -> Place {
        Place {
            name: text(name),
            kind,
            dtype: 0,
            sizes: Vec::new(),
            data_size: 0,
            dynamic: false,
            fixed,
        }
    }

    fn tensor(name: &str, dtype: DType, sizes: &Dims, dynamic: bool) -> Place {
        let bytes = sizes.numel().and_then(|count| count.checked_mul(dtype.size()));
        Place {
            dtype: code(dtype),
            sizes: sizes.iter().map(|size| u64::try_from(*size).unwrap_or(0)).collect(),
            // A size without a bound is far beyond any memory.
            data_size: bytes.map_or(u64::MAX, |bytes| bytes as u64),
            dynamic,
            ..Place::plain(name, kind::TENSOR, false)
        }
    }
}

impl Inner {
    pub(crate) fn run(&mut self, inputs: &[Value<'_>]) -> Result<(), Failure> {
        Ok(self.session.run(inputs)?)
    }

    pub(crate) fn output(&mut self, index: u64) -> Result<Shape<'_>, Failure> {
        let count = self.outputs.len();
        let index = usize::try_from(index).ok().filter(|index| *index < count);
        let index = index.ok_or_else(|| Failure::usage(format!("the method has {count} outputs")))?;
        let value = self.session.output(index)?;
        self.outputs[index].show(value)
    }

    pub(crate) fn state(&mut self, name: &str) -> Result<Shape<'_>, Failure> {
        if !self.session.state_names().any(|have| have == name) {
            let names: Vec<String> = self.session.state_names().map(|name| format!("`{name}`")).collect();
            let hint = if names.is_empty() {
                "it has none with a name".to_string()
            } else {
                format!("it has {}", names.join(", "))
            };
            return Err(Failure::usage(format!(
                "the method has no buffer `{name}`\n  hint: {hint}"
            )));
        }
        let value = self.session.state(name)?.unwrap_or(Value::None);
        if !self.states.contains_key(name) {
            self.states.insert(name.to_string(), Shown::default());
        }
        match self.states.get_mut(name) {
            Some(shown) => shown.show(value),
            None => Ok(Shape::None),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.session.reset();
    }

    pub(crate) fn bind_output(
        &mut self,
        index: usize,
        memory: &Arc<delegraph::Memory>,
        offset: usize,
        size: usize,
    ) -> Result<(), Failure> {
        self.session.bind_output(index, memory, offset, size)?;
        Ok(())
    }

    pub(crate) fn unbind_output(&mut self, index: usize) -> Result<(), Failure> {
        Ok(self.session.unbind_output(index)?)
    }

    pub(crate) fn forget_memory(&mut self, memory: &Arc<delegraph::Memory>) -> Result<(), Failure> {
        Ok(self.session.forget_memory(memory)?)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn import_memory(&self, handle: delegraph::Handle) -> Result<Arc<delegraph::Memory>, Failure> {
        Ok(self.session.import_memory(handle)?)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn export_memory(
        &self,
        kind: delegraph::HandleType,
        size: u64,
    ) -> Result<Arc<delegraph::Memory>, Failure> {
        Ok(self.session.export_memory(kind, size)?)
    }

    pub(crate) fn adopt_state(&mut self, from: &mut Inner) -> Result<u64, Failure> {
        Ok(self.session.adopt_state(&mut from.session)? as u64)
    }

    pub(crate) fn report(&mut self) -> &CStr {
        let report = self.session.report();
        self.report = text(
            &serde_json::json!({
                "schema": "delegraph.report/1", "ran": report.ran(), "why_portable": report.why_portable(),
                "delegated_nodes": report.delegated_nodes(), "portable_nodes": report.portable_nodes,
                "fallbacks": report.fallbacks(), "regions": report.regions,
                "not_partitioned": report.not_partitioned, "memory": report.memory,
            })
            .to_string(),
        );
        &self.report
    }
}

impl Shown {
    fn show<'a>(&'a mut self, value: Value<'a>) -> Result<Shape<'a>, Failure> {
        Ok(match value {
            Value::Tensor(tensor) => {
                self.sizes.clear();
                self.sizes
                    .extend(tensor.shape.iter().map(|size| u64::try_from(*size).unwrap_or(0)));
                let data = match tensor.to_contiguous() {
                    std::borrow::Cow::Borrowed(bytes) => bytes,
                    std::borrow::Cow::Owned(bytes) => {
                        self.gathered = bytes;
                        &self.gathered
                    }
                };
                Shape::Tensor {
                    dtype: code(tensor.dtype),
                    sizes: &self.sizes,
                    data,
                }
            }
            Value::Int(value) => Shape::Int(value),
            Value::Float(value) => Shape::Float(value),
            Value::Bool(value) => Shape::Bool(value),
            Value::Str(value) => Shape::Text(value),
            Value::None | Value::InPlace(_) | Value::Memory(_) => Shape::None,
        })
    }
}

/// The number that the header gives a dtype: that of `.pte` files.
fn code(dtype: DType) -> u32 {
    dtype.pte_code() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::dtype;

    #[test]
    fn dtypes_have_the_numbers_of_the_header() {
        let expected = [
            (DType::U8, dtype::U8),
            (DType::F32, dtype::F32),
            (DType::Bool, dtype::BOOL),
            (DType::BF16, dtype::BF16),
            (DType::F8E4M3, dtype::F8E4M3),
            (DType::F8E5M2, dtype::F8E5M2),
            (DType::C128, dtype::C128),
            (DType::U64, dtype::U64),
        ];
        for (dtype, number) in expected {
            assert_eq!(code(dtype), number, "{dtype}");
        }
    }
}
