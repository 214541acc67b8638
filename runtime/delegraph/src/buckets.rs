//! Buckets while running: which of them the inputs of a run are in.

use delegraph_executor::Input;
use delegraph_pte::overlay::MethodOverlay;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The buckets of a method, and the one that the run is in.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    method: MethodOverlay,
    /// One more than the bucket's index; 0: none.
    chosen: AtomicUsize,
    /// The symbols' values in the last run.
    values: Mutex<Vec<Option<i64>>>,
}

impl Buckets {
    /// The buckets of a method.
    ///
    /// # Errors
    /// The overlay names a symbol that it does not have.
    pub(crate) fn new(method: &MethodOverlay) -> Result<Buckets, String> {
        let symbols = method.symbols.len();
        for size in method.buckets.iter().flat_map(|bucket| &bucket.sizes) {
            if size.symbol as usize >= symbols {
                return Err(format!("a bucket names symbol {} of {symbols}", size.symbol));
            }
        }
        Ok(Buckets {
            method: MethodOverlay {
                regions: Vec::new(),
                ..method.clone()
            },
            chosen: AtomicUsize::new(0),
            values: Mutex::new(vec![None; symbols]),
        })
    }

    /// Notes the sizes of a run: it is in the first bucket that has them all.
    pub(crate) fn choose(&self, inputs: &[Input<'_>]) {
        if self.method.buckets.is_empty() {
            return;
        }
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for (value, place) in values.iter_mut().zip(&self.method.symbols) {
            let sizes = inputs.get(place.input as usize).and_then(sizes_of);
            let size = sizes.and_then(|sizes| sizes.get(place.dimension as usize));
            *value = size.and_then(|size| place.value(*size));
        }
        let fits = |size: &delegraph_pte::overlay::BucketSize| {
            let value = values.get(size.symbol as usize).copied().flatten();
            value.is_some_and(|value| size.min <= value && value <= size.max)
        };
        let mut buckets = self.method.buckets.iter();
        let chosen = buckets.position(|bucket| bucket.sizes.iter().all(fits));
        self.chosen
            .store(chosen.map_or(0, |bucket| bucket + 1), Ordering::Relaxed);
    }

    /// The bucket of the run.
    pub(crate) fn chosen(&self) -> Option<usize> {
        self.chosen.load(Ordering::Relaxed).checked_sub(1)
    }

    /// A bucket in words.
    pub(crate) fn name(&self, bucket: usize) -> String {
        self.method.bucket_name(bucket as u32)
    }

    /// Why none of the buckets that there are blobs for runs these sizes: `no bucket for s77=5; compiled for 1, 16`.
    pub(crate) fn none_of(&self, compiled: &[usize]) -> String {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let symbols = self.method.symbols.iter().zip(values.iter());
        let sizes: Vec<String> = symbols
            .map(|(place, value)| match value {
                Some(value) => format!("{}={value}", place.name),
                None => format!("{} of no value", place.name),
            })
            .collect();
        let one = self.method.symbols.len() == 1;
        let names = compiled.iter().map(|bucket| {
            let name = self.name(*bucket);
            match name.split_once('=') {
                Some((_, sizes)) if one => sizes.to_string(),
                _ => format!("({name})"),
            }
        });
        let names: Vec<String> = names.collect();
        format!("no bucket for {}; compiled for {}", sizes.join(", "), names.join(", "))
    }
}

fn sizes_of<'a>(input: &'a Input<'_>) -> Option<&'a [i64]> {
    match input {
        Input::Bytes { sizes, .. } | Input::InPlace(sizes) => Some(sizes),
        Input::Tensor(tensor) => Some(tensor.sizes().as_slice()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Dims};
    use delegraph_pte::overlay::{Bucket, BucketSize, SymbolPlace};

    fn method(sizes: &[(i64, i64)]) -> MethodOverlay {
        let bucket = |&(min, max): &(i64, i64)| Bucket {
            sizes: vec![BucketSize { symbol: 0, min, max }],
        };
        MethodOverlay {
            method: "forward".to_string(),
            buckets: sizes.iter().map(bucket).collect(),
            symbols: vec![SymbolPlace {
                name: "s7".to_string(),
                input: 0,
                dimension: 1,
                factor: 2,
                offset: 1,
            }],
            ..MethodOverlay::default()
        }
    }

    #[test]
    fn the_first_bucket_that_has_the_sizes_is_chosen() {
        let buckets = Buckets::new(&method(&[(4, 4), (2, 8)])).unwrap();
        for (size, chosen) in [(9, Some(0)), (7, Some(1)), (17, Some(1)), (19, None), (8, None)] {
            let sizes = Dims::new(&[3, size]).unwrap();
            let data = vec![0; 4 * 3 * size as usize];
            let dtype = DType::F32;
            buckets.choose(&[Input::Bytes {
                dtype,
                sizes: &sizes,
                data: &data,
            }]);
            assert_eq!(buckets.chosen(), chosen, "{size}");
        }
        assert_eq!(
            buckets.none_of(&[0, 1]),
            "no bucket for s7 of no value; compiled for 4, 2..8"
        );
        buckets.choose(&[Input::InPlace(&[3, 19])]);
        assert_eq!(buckets.none_of(&[0]), "no bucket for s7=9; compiled for 4");
    }

    #[test]
    fn a_symbol_that_is_not_there_is_refused() {
        let mut method = method(&[(4, 4)]);
        method.symbols.clear();
        assert!(Buckets::new(&method).unwrap_err().contains("symbol 0 of 0"));
    }
}
