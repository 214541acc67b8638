//! Names of one exported graph: what they are bound to, their types and their size expressions.

use crate::error::{ImportError, Result};
use crate::schema::{self, STRIDED, Sym, SymArg};
use crate::sympy;
use crate::tensor::TensorId;
use crate::weights::{self, Folder};
use delegraph_ir::{Expr, Symbol, TensorType, ValueId};
use delegraph_types::MAX_RANK;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Binding {
    Tensor(TensorId),
    /// A float that is read at run time.
    Number(ValueId),
    /// A parameter or buffer that nothing has read yet.
    Weight {
        folder: Folder,
        name: String,
    },
    /// A tensor subclass, or one inside it.
    Subclass {
        folder: Folder,
        name: String,
        attributes: Vec<String>,
    },
}

/// A symbolic argument, resolved.
pub(crate) enum Resolved {
    Value(ValueId),
    Expr(Expr),
    Bool(bool),
    Float(f64),
}

/// Symbols of one program by their names in the module, which keep the programs of an archive apart.
#[derive(Debug, Default)]
pub(crate) struct SymbolNames {
    /// Names that programs read before use.
    pub taken: FxHashSet<String>,
    /// Names given out.
    pub seen: RefCell<FxHashSet<String>>,
    /// Added to a name that is taken.
    pub suffix: String,
}

impl SymbolNames {
    pub fn name(&self, symbol: &str) -> String {
        let name = match self.taken.contains(symbol) {
            true => format!("{symbol}_{}", self.suffix),
            false => symbol.to_string(),
        };
        self.seen.borrow_mut().insert(name.clone());
        name
    }
}

/// One exported graph while it is read.
pub(crate) struct Scope<'g> {
    pub source: &'g schema::Graph,
    pub names: FxHashMap<&'g str, Binding>,
    /// Sizes that an inner graph calls by symbols of its own.
    substituted: FxHashMap<Symbol, Expr>,
    /// Symbols that stand for run-time floats, which no expression can hold.
    pub floats: FxHashSet<Symbol>,
    symbols: &'g SymbolNames,
    parsed: FxHashMap<&'g str, Expr>,
}

impl<'g> Scope<'g> {
    pub fn new(source: &'g schema::Graph, symbols: &'g SymbolNames) -> Scope<'g> {
        Scope {
            source,
            names: FxHashMap::default(),
            substituted: FxHashMap::default(),
            floats: FxHashSet::default(),
            symbols,
            parsed: FxHashMap::default(),
        }
    }

    /// A scope for a graph inside this one.
    pub fn inner(&self, source: &'g schema::Graph) -> Scope<'g> {
        let mut scope = Scope::new(source, self.symbols);
        scope.floats = self.floats.clone();
        scope.substituted = self.substituted.clone();
        scope
    }

    /// Binds a name for the first time.
    pub fn bind(&mut self, name: &'g str, binding: Binding) -> Result<()> {
        match self.names.insert(name, binding) {
            None => Ok(()),
            Some(_) => Err(ImportError::malformed(format!("`{name}` is defined twice"))),
        }
    }

    pub fn find(&self, name: &str) -> Result<&Binding> {
        self.names
            .get(name)
            .ok_or_else(|| ImportError::malformed(format!("`{name}` is read before it is defined")))
    }

    /// dtype and sizes of a name.
    pub fn tensor_type(&mut self, name: &str) -> Result<TensorType> {
        let source = self.source;
        let meta = source
            .tensor_values
            .get(name)
            .ok_or_else(|| ImportError::malformed(format!("`{name}` has no entry in tensor_values")))?;
        if meta.layout != STRIDED {
            let message = format!("`{name}` has layout code `{}` (only strided tensors)", meta.layout);
            return Err(ImportError::unsupported(message));
        }
        if meta.sizes.len() > MAX_RANK {
            return Err(ImportError::unsupported(format!(
                "`{name}` has {} dimensions",
                meta.sizes.len()
            )));
        }
        let dtype = weights::dtype(meta.dtype)?;
        let shape: Vec<Expr> = meta.sizes.iter().map(|s| self.expr(s)).collect::<Result<_>>()?;
        if shape
            .iter()
            .any(|s| s.as_int().is_some_and(|s| s < 0) || matches!(s, Expr::Float(_)))
        {
            return Err(ImportError::malformed(format!("`{name}` has a negative size")));
        }
        Ok(TensorType::new(dtype, shape))
    }

    /// Strides of a name at export; `None` if they cannot be told.
    pub fn strides(&mut self, name: &str) -> Option<Vec<Expr>> {
        let source = self.source;
        let meta = source.tensor_values.get(name)?;
        if meta.strides.len() != meta.sizes.len() {
            return None;
        }
        meta.strides.iter().map(|s| self.expr(s).ok()).collect()
    }

    /// The expression of a `SymInt`, `SymBool` or `SymFloat`.
    pub fn expr(&mut self, sym: &'g Sym) -> Result<Expr> {
        let text = match sym {
            Sym::Int(i) => return Ok(Expr::Int(*i)),
            Sym::Bool(b) => return Ok(Expr::Int(i64::from(*b))),
            Sym::Float(x) => return Ok(Expr::float(*x)),
            Sym::Expr(text) => text.as_str(),
        };
        if let Some(expr) = self.parsed.get(text) {
            return Ok(expr.clone());
        }
        let mut expr = sympy::parse(text, &|symbol| self.symbols.name(symbol))?;
        if !self.substituted.is_empty() {
            expr = expr.substitute(&|symbol| self.substituted.get(symbol).cloned());
        }
        self.parsed.insert(text, expr.clone());
        Ok(expr)
    }

    /// The expression that a name of a size, boolean or float stands for.
    pub fn named_expr(&mut self, name: &str) -> Result<Expr> {
        let source = self.source;
        let sym = source
            .sym_int_values
            .get(name)
            .or_else(|| source.sym_bool_values.get(name))
            .or_else(|| source.sym_float_values.get(name))
            .ok_or_else(|| ImportError::malformed(format!("`{name}` has no entry in sym_int_values")))?;
        self.expr(sym)
    }

    /// Calls a symbol by an outer expression from now on.
    pub fn substitute(&mut self, symbol: Symbol, outer: Expr) {
        self.substituted.insert(symbol, outer);
        self.parsed.clear();
    }

    pub fn resolve(&mut self, arg: &SymArg) -> Result<Resolved> {
        let name = match arg {
            SymArg::Int(i) => return Ok(Resolved::Expr(Expr::Int(*i))),
            SymArg::Float(x) => return Ok(Resolved::Float(*x)),
            SymArg::Bool(b) => return Ok(Resolved::Bool(*b)),
            SymArg::Name(name) => name,
        };
        if let Some(Binding::Number(value)) = self.names.get(name.as_str()) {
            return Ok(Resolved::Value(*value));
        }
        let expr = self.named_expr(name)?;
        let mut float = None;
        expr.for_each_symbol(&mut |symbol| {
            if self.floats.contains(symbol) {
                float = Some(symbol.clone());
            }
        });
        match float {
            None => Ok(Resolved::Expr(expr)),
            Some(_) => Err(ImportError::unsupported(format!(
                "`{name}` is computed in Python from a float that is read at run time (`{expr}`)"
            ))
            .hint("compute it on tensors, before `item()`")),
        }
    }

    /// A size: an expression over integers.
    pub fn size(&mut self, arg: &SymArg) -> Result<Expr> {
        match self.resolve(arg)? {
            Resolved::Expr(expr) => Ok(expr),
            Resolved::Bool(b) => Ok(Expr::Int(i64::from(b))),
            _ => Err(ImportError::unsupported("a size that is a float")),
        }
    }
}
