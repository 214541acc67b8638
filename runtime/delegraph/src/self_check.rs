//! `self_check = "first-run"`: which limits the outputs of each region are judged by.

use crate::tolerance::{judge, limit};
use delegraph_executor::{Checked, SelfCheck};
use delegraph_kernels::Tensor;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Judges outputs by their dtype and by the precision that the region's blob declares.
#[derive(Debug, Default)]
pub(crate) struct RegionCheck {
    /// By the region's first instruction.
    precisions: Mutex<BTreeMap<u32, String>>,
}

impl RegionCheck {
    /// The blob of a region computes in a lower precision than its graph.
    pub(crate) fn declare(&self, start: u32, precision: &str) {
        let mut precisions = self.precisions.lock().unwrap_or_else(PoisonError::into_inner);
        precisions.insert(start, precision.to_string());
    }

    /// What was declared; empty: nothing.
    pub(crate) fn declared(&self, start: u32) -> String {
        let precisions = self.precisions.lock().unwrap_or_else(PoisonError::into_inner);
        precisions.get(&start).cloned().unwrap_or_default()
    }
}

impl SelfCheck for RegionCheck {
    fn compare(&self, start: u32, _: usize, delegate: &Tensor<'_>, portable: &Tensor<'_>) -> Result<(), String> {
        let precisions = self.precisions.lock().unwrap_or_else(PoisonError::into_inner);
        let precision = precisions.get(&start).map_or("", String::as_str);
        let limit = limit(delegate.dtype(), precision);
        judge(delegate.dtype(), delegate.bytes(), portable.bytes(), limit)
    }
}

/// What a check found, in words; `None`: nothing was checked.
pub(crate) fn words(checked: &Checked) -> Option<String> {
    match checked {
        Checked::Not => None,
        Checked::Agrees => Some("agrees with the portable plan".to_string()),
        Checked::Differs(how) => Some(how.clone()),
        Checked::Impossible(why) => Some(format!("could not be checked: {why}")),
    }
}
