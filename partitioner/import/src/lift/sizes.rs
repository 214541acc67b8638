//! Sizes of dynamic tensors.
//!
//! A file says only that a tensor is dynamic and how large it can become: which of its dimensions change, and which are
//! equal, is not in it. So every dimension of a dynamic input starts as a symbol of its own. What operators demand of
//! them (a matrix product of 16 columns) solves symbols; a method is lifted again with what was learnt until nothing is new.
//!
//! Two rules come from `torch.export`, which never leaves them open: a dynamic dimension is not 0, and dimensions that meet in
//! broadcasting are equal unless one is 1 for ever.

use crate::error::{ImportError, Result};
use delegraph_ir::{Expr, ExprOp, Symbol, SymbolRange, Symbols};
use delegraph_pte::model::{Dynamism, Tensor};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Expressions of more parts than this are refused. The IR itself takes fewer, but pooling that rounds up makes a size of several
/// of its input's, and three poolings in a row occur where the dimension turns out not to change in the end.
const MAX_PARTS: usize = 4096;
/// Expressions that are nested deeper are refused: the functions that walk over them call themselves.
const MAX_DEPTH: usize = 128;
/// Parts of all expressions of a method together, so that a program that is made to be slow is not.
const MAX_WORK: usize = 1 << 22;
/// Dynamic dimensions of all inputs of a method.
const MAX_SYMBOLS: usize = 1024;
/// Symbols that may be fixed at once; see [`Sizes::guess`].
const MAX_GUESS: usize = 5;

/// What is known of the sizes of a method.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Symbols of input dimensions, by value and dimension.
    inputs: FxHashMap<(u32, usize), Symbol>,
    /// Symbols that are solved for: those of `inputs`.
    open: BTreeSet<Symbol>,
    /// Dimensions that may be 1 for ever: their inputs have no bounds, only hints.
    doubtful: BTreeSet<Symbol>,
    known: BTreeMap<Symbol, Expr>,
    /// Found since the method was last begun.
    found: BTreeMap<Symbol, Expr>,
    /// Symbols that were fixed at their bound because a demand holds there.
    guessed: BTreeSet<Symbol>,
    /// Symbols that the program reads: those do change.
    reads: BTreeSet<Symbol>,
    /// Parts of the expressions so far.
    work: usize,
}

impl Sizes {
    /// The sizes of an input.
    ///
    /// # Errors
    /// There are too many dynamic ones.
    pub(super) fn of_input(
        &mut self,
        value: u32,
        tensor: &Tensor,
        symbols: &mut Symbols,
        next: &mut usize,
    ) -> Result<Vec<Expr>> {
        let mut shape = Vec::with_capacity(tensor.sizes.rank());
        for (dim, &size) in tensor.sizes.iter().enumerate() {
            let bounded = tensor.dynamism == Dynamism::Bounded;
            // A dimension that is at most 1 does not change: 0 is not a size that was exported.
            if tensor.dynamism == Dynamism::Static || (bounded && size <= 1) {
                shape.push(Expr::Int(size));
                continue;
            }
            if self.inputs.len() >= MAX_SYMBOLS {
                return Err(ImportError::unsupported(format!(
                    "more than {MAX_SYMBOLS} dynamic sizes of inputs"
                )));
            }
            let symbol = self.inputs.entry((value, dim)).or_insert_with(|| {
                let range = SymbolRange {
                    min: 1,
                    max: bounded.then_some(size),
                };
                let symbol = fresh("s", symbols, next, range);
                self.open.insert(symbol.clone());
                if !bounded && size <= 1 {
                    self.doubtful.insert(symbol.clone());
                }
                symbol
            });
            let known = self.known.get(symbol).cloned();
            shape.push(known.unwrap_or_else(|| Expr::Symbol(symbol.clone())));
        }
        Ok(shape)
    }

    /// The expression with everything that was found since the method was begun.
    fn resolve(&self, e: &Expr) -> Expr {
        match self.found.is_empty() {
            true => e.clone(),
            false => e.substitute(&|symbol| self.found.get(symbol).cloned()),
        }
    }

    /// Both are equal in every run that gets here: symbols are solved where that is possible. Where it is not, nothing is lost:
    /// the kernel that demands it checks it at run time.
    pub(super) fn equate(&mut self, a: &Expr, b: &Expr, symbols: &mut Symbols) {
        if (a.is_constant() && b.is_constant()) || !self.spend(a, 1) || !self.spend(b, 1) {
            return;
        }
        let (a, b) = (self.resolve(a), self.resolve(b));
        if a == b {
            return;
        }
        let difference = a.clone() - b.clone();
        if let Some((symbol, factor, offset)) = difference.as_linear() {
            if self.open.contains(&symbol)
                && let Some(value) = offset.checked_neg().filter(|o| o.checked_rem(factor) == Some(0))
                && in_range(symbols.range(&symbol), value / factor)
            {
                self.set(symbol, Expr::Int(value / factor));
            }
            return;
        }
        for (symbol, other) in [(&b, &a), (&a, &b)] {
            if let Expr::Symbol(symbol) = symbol
                && self.open.contains(symbol)
                && !mentions(other, symbol)
            {
                narrow(symbols, other, symbols.range(symbol));
                self.set(symbol.clone(), other.clone());
                return;
            }
        }
        self.guess(&a, &b, symbols);
    }

    /// A demand that cannot be solved, such as a rounded-down size that has to be 8. It holds for a few sizes at most, and if
    /// it holds where some dimensions are at their bounds, those do not change: the exporter makes no program for
    /// one or two sizes of a dynamic dimension. The fewest dimensions that explain the demand are taken.
    fn guess(&mut self, a: &Expr, b: &Expr, symbols: &Symbols) {
        let mut names = BTreeSet::new();
        for e in [a, b] {
            e.for_each_symbol(&mut |symbol| {
                let may = self.open.contains(symbol) && !self.reads.contains(symbol);
                if may && symbols.range(symbol).max.is_some() {
                    names.insert(symbol.clone());
                }
            });
        }
        let names: Vec<Symbol> = names.into_iter().collect();
        if names.is_empty() || names.len() > MAX_GUESS {
            return;
        }
        let mut subsets: Vec<u32> = (1..1 << names.len()).collect();
        subsets.sort_by_key(|set| set.count_ones());
        for set in subsets {
            if !self.spend(a, 4) || !self.spend(b, 4) {
                return;
            }
            let chosen = |symbol: &Symbol| {
                let at = names.iter().position(|name| name == symbol)?;
                let max = (set >> at & 1 == 1).then(|| symbols.range(symbol).max)??;
                Some(Expr::Int(max))
            };
            if same(&a.substitute(&chosen), &b.substitute(&chosen)) {
                for name in &names {
                    if let Some(value) = chosen(name) {
                        self.guessed.insert(name.clone());
                        self.set(name.clone(), value);
                    }
                }
                return;
            }
        }
    }

    fn set(&mut self, symbol: Symbol, value: Expr) {
        for other in self.found.values_mut() {
            *other = other.substitute(&|s| (*s == symbol).then(|| value.clone()));
        }
        self.open.remove(&symbol);
        self.found.insert(symbol, value);
    }

    /// Takes over what was found since the method was begun; true if that was anything, and the method has to be lifted again.
    pub(super) fn learn(&mut self, symbols: &mut Symbols) -> bool {
        if self.found.is_empty() {
            return false;
        }
        let found = std::mem::take(&mut self.found);
        for value in self.known.values_mut() {
            *value = value.substitute(&|symbol| found.get(symbol).cloned());
        }
        for symbol in found.keys() {
            symbols.ranges.remove(symbol);
        }
        self.known.extend(found);
        true
    }

    /// The program reads a size of a dynamic tensor, so that size does change; a constant there shows that a guess was wrong.
    ///
    /// # Errors
    /// It cannot be known which.
    pub(super) fn read(&mut self, size: &Expr) -> Result<()> {
        size.for_each_symbol(&mut |symbol| {
            self.reads.insert(symbol.clone());
        });
        if size.is_constant() && !self.guessed.is_empty() {
            return Err(ImportError::unsupported(format!(
                "it cannot be known whether the size `{size}` that is read changes"
            )));
        }
        Ok(())
    }

    /// Refuses expressions that are too long to compute with.
    ///
    /// # Errors
    /// It is.
    pub(super) fn check(&mut self, e: &Expr) -> Result<()> {
        match self.spend(e, 1) {
            true => Ok(()),
            false => Err(ImportError::unsupported("a size that is computed in too many steps")),
        }
    }

    /// Counts work on an expression, so many times its parts; false if that is too much.
    fn spend(&mut self, e: &Expr, times: usize) -> bool {
        fn parts(e: &Expr, depth: usize, left: &mut usize) -> bool {
            if *left == 0 || depth == 0 {
                return false;
            }
            *left -= 1;
            match e {
                Expr::Op(_, args) => args.iter().all(|arg| parts(arg, depth - 1, left)),
                _ => true,
            }
        }
        if matches!(e, Expr::Int(_)) {
            return true;
        }
        let mut left = MAX_PARTS;
        let short = parts(e, MAX_DEPTH, &mut left);
        self.work = self.work.saturating_add((MAX_PARTS - left) * times);
        short && self.work <= MAX_WORK
    }

    /// Two sizes meet in broadcasting.
    ///
    /// # Errors
    /// One of them may be 1 for ever.
    pub(super) fn broadcast(&mut self, a: &Expr, b: &Expr, symbols: &mut Symbols) -> Result<()> {
        if a == b || a.as_int() == Some(1) || b.as_int() == Some(1) {
            return Ok(());
        }
        for size in [a, b] {
            let mut doubtful = false;
            size.for_each_symbol(&mut |symbol| doubtful |= self.doubtful.contains(symbol));
            if doubtful {
                return Err(ImportError::unsupported(format!(
                    "sizes `{a}` and `{b}` are broadcast, and it cannot be known whether one of them is always 1"
                )));
            }
        }
        self.equate(a, b, symbols);
        Ok(())
    }
}

/// A new symbol of this range.
pub(super) fn fresh(prefix: &str, symbols: &mut Symbols, next: &mut usize, range: SymbolRange) -> Symbol {
    let symbol = Symbol::new(&format!("{prefix}{next}"));
    *next += 1;
    symbols.ranges.insert(symbol.clone(), range);
    symbol
}

/// Equal, also where one is a quotient that was not reduced.
fn same(a: &Expr, b: &Expr) -> bool {
    let quotient = |a: &Expr, b: &Expr| match a {
        Expr::Op(ExprOp::FloorDiv, args) => match args.as_slice() {
            [dividend, divisor] => *dividend == b.clone() * divisor.clone(),
            _ => false,
        },
        _ => false,
    };
    a == b || quotient(a, b) || quotient(b, a)
}

fn mentions(e: &Expr, symbol: &Symbol) -> bool {
    let mut found = false;
    e.for_each_symbol(&mut |s| found |= s == symbol);
    found
}

fn in_range(range: SymbolRange, value: i64) -> bool {
    value >= range.min && range.max.is_none_or(|max| value <= max)
}

/// Where a symbol stands for another from now on, both ranges hold.
fn narrow(symbols: &mut Symbols, e: &Expr, range: SymbolRange) {
    if let Expr::Symbol(symbol) = e {
        let have = symbols.range(symbol);
        let max = [have.max, range.max].into_iter().flatten().min();
        let min = have.min.max(range.min).min(max.unwrap_or(i64::MAX));
        symbols.ranges.insert(symbol.clone(), SymbolRange { min, max });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_pte::model::Storage;
    use delegraph_types::{DType, Dims};

    fn input(dynamism: Dynamism, sizes: &[i64]) -> Tensor {
        Tensor {
            dtype: DType::F32,
            sizes: Dims::new(sizes).unwrap(),
            dim_order: (0..sizes.len() as u8).collect(),
            dynamism,
            storage: Storage::Unplanned,
            name: None,
        }
    }

    #[test]
    fn demands_solve_symbols_and_the_next_round_knows_them() {
        let (mut sizes, mut symbols, mut next) = (Sizes::default(), Symbols::default(), 0);
        let tensor = input(Dynamism::Bounded, &[64, 16, 1]);
        let dims = sizes.of_input(0, &tensor, &mut symbols, &mut next).unwrap();
        assert_eq!(dims, [Expr::symbol("s0"), Expr::symbol("s1"), Expr::Int(1)]);
        sizes.equate(&dims[1], &Expr::Int(16), &mut symbols);
        assert!(sizes.learn(&mut symbols));
        assert!(!sizes.learn(&mut symbols));
        let dims = sizes.of_input(0, &tensor, &mut symbols, &mut next).unwrap();
        assert_eq!(dims, [Expr::symbol("s0"), Expr::Int(16), Expr::Int(1)]);
        assert_eq!(symbols.ranges.len(), 1);
    }

    #[test]
    fn equal_dimensions_become_one_symbol_with_both_bounds() {
        let (mut sizes, mut symbols, mut next) = (Sizes::default(), Symbols::default(), 0);
        let a = sizes
            .of_input(0, &input(Dynamism::Bounded, &[64]), &mut symbols, &mut next)
            .unwrap();
        let b = sizes
            .of_input(1, &input(Dynamism::Bounded, &[32]), &mut symbols, &mut next)
            .unwrap();
        sizes.broadcast(&a[0], &b[0], &mut symbols).unwrap();
        assert!(sizes.learn(&mut symbols));
        let b = sizes
            .of_input(1, &input(Dynamism::Bounded, &[32]), &mut symbols, &mut next)
            .unwrap();
        assert_eq!(a, b);
        assert_eq!(symbols.range(&Symbol::new("s0")).max, Some(32));
    }

    #[test]
    fn what_holds_at_the_bound_alone_fixes_the_dimension() {
        let (mut sizes, mut symbols, mut next) = (Sizes::default(), Symbols::default(), 0);
        let dims = sizes
            .of_input(0, &input(Dynamism::Bounded, &[8, 1024]), &mut symbols, &mut next)
            .unwrap();
        let pooled = dims[1].clone().floor_div(Expr::Int(4)) + Expr::Int(1);
        let count = Expr::op(ExprOp::Mul, vec![dims[0].clone(), pooled]);
        let wanted = Expr::op(ExprOp::Mul, vec![dims[0].clone(), Expr::Int(257)]);
        sizes.equate(&count, &wanted, &mut symbols);
        assert!(sizes.learn(&mut symbols));
        let dims = sizes
            .of_input(0, &input(Dynamism::Bounded, &[8, 1024]), &mut symbols, &mut next)
            .unwrap();
        assert_eq!(dims, [Expr::symbol("s0"), Expr::Int(1024)]);
        assert!(sizes.read(&dims[0]).is_ok());
        assert!(sizes.read(&dims[1]).is_err());
    }

    #[test]
    fn a_hint_of_one_is_not_broadcast() {
        let (mut sizes, mut symbols, mut next) = (Sizes::default(), Symbols::default(), 0);
        let dims = sizes
            .of_input(0, &input(Dynamism::Unbounded, &[1, 4]), &mut symbols, &mut next)
            .unwrap();
        assert!(sizes.broadcast(&dims[0], &Expr::Int(5), &mut symbols).is_err());
        assert!(sizes.broadcast(&dims[1], &Expr::Int(5), &mut symbols).is_ok());
    }

    #[test]
    fn long_expressions_are_refused() {
        let mut sizes = Sizes::default();
        let mut e = Expr::symbol("s0");
        let refused = (0..20).any(|_| {
            e = e.clone().max(e.clone().floor_div(Expr::Int(2)));
            sizes.check(&e).is_err()
        });
        assert!(refused);
        let many = Expr::op(ExprOp::Max, (0..300).map(|i| Expr::symbol(&format!("s{i}"))).collect());
        assert!(
            (0..100_000).any(|_| sizes.check(&many).is_err()),
            "all together are too many"
        );
    }
}
