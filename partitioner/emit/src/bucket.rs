//! Buckets in the overlay: sizes that blobs were compiled for, and where a method's inputs tell them.

use crate::EmitError;
use delegraph_ir::{Graph, Symbol};
use delegraph_lower::{Bucket as Sizes, told_by_inputs};
use delegraph_pte::overlay::{Bucket, BucketSize, SymbolPlace};
use std::collections::BTreeMap;

/// The buckets of a method, in the order in which candidates name them.
pub(crate) struct Buckets {
    told: BTreeMap<Symbol, (usize, usize, i64, i64)>,
    known: Vec<Sizes>,
    buckets: Vec<Bucket>,
    symbols: Vec<SymbolPlace>,
}

impl Buckets {
    pub(crate) fn of(graph: &Graph) -> Buckets {
        Buckets {
            told: told_by_inputs(graph),
            known: Vec::new(),
            buckets: Vec::new(),
            symbols: Vec::new(),
        }
    }

    /// The index of a bucket.
    ///
    /// # Errors
    /// It names a symbol that no input tells.
    pub(crate) fn index(&mut self, bucket: &Sizes) -> Result<u32, EmitError> {
        if let Some(index) = self.known.iter().position(|known| known == bucket) {
            return Ok(index as u32);
        }
        let mut sizes = Vec::with_capacity(bucket.sizes.len());
        for (symbol, (min, max)) in &bucket.sizes {
            sizes.push(BucketSize {
                symbol: self.symbol(symbol)?,
                min: *min,
                max: *max,
            });
        }
        self.known.push(bucket.clone());
        self.buckets.push(Bucket { sizes });
        Ok(self.buckets.len() as u32 - 1)
    }

    fn symbol(&mut self, symbol: &Symbol) -> Result<u32, EmitError> {
        let name = symbol.to_string();
        if let Some(index) = self.symbols.iter().position(|place| place.name == name) {
            return Ok(index as u32);
        }
        let told = self.told.get(symbol);
        let &(input, dimension, factor, offset) = told.ok_or_else(|| EmitError::Undefined(name.clone()))?;
        self.symbols.push(SymbolPlace {
            name,
            input: input as u32,
            dimension: dimension as u32,
            factor,
            offset,
        });
        Ok(self.symbols.len() as u32 - 1)
    }

    pub(crate) fn finish(self) -> (Vec<Bucket>, Vec<SymbolPlace>) {
        (self.buckets, self.symbols)
    }
}
