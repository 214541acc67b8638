//! The cases of numbers as a source of the registry.

use super::{Info, Numerics, data, infos};
use crate::registry::{Batch, CaseInfo, Ran, Source};
use crate::subject::Subject;
use delegraph_runner::{CaseRecord, Category, Verdict};
use std::collections::BTreeMap;

/// A line of [`crate::registry::SOURCES`].
pub const SOURCE: Source = Source {
    list,
    open,
    references: data::references,
};

fn list() -> Vec<CaseInfo> {
    let case = |info: &Info| CaseInfo {
        id: info.id.clone(),
        about: about(info),
        category: info.category,
        op: info.op.clone(),
        dtype: info.dtype.clone(),
        limit: info.limit,
        // Times are taken, and memory is measured, in a process that did nothing else.
        batch: info.category != Category::Performance,
    };
    infos().iter().map(case).collect()
}

fn about(info: &Info) -> String {
    let edge = info.id.rsplit('/').next().unwrap_or_default();
    let about = data::programs()
        .unwrap_or_default()
        .iter()
        .find(|program| program.id == info.id);
    if let Some(program) = about.filter(|program| !program.about.is_empty()) {
        return program.about.clone();
    }
    match info.category {
        Category::Op if edge.starts_with("random-") => {
            format!("{} with random arguments, against double precision", info.op)
        }
        Category::Op => format!("{} of {}: {edge}, against PyTorch", info.op, info.dtype),
        Category::Performance => format!("times and bytes of {}", info.op),
        _ => format!("{}: {edge}, against PyTorch", info.op),
    }
}

fn open(subject: &Subject, seed: u64) -> Box<dyn Batch + '_> {
    Box::new(Numbers {
        cases: Numerics::new(subject),
        seed,
    })
}

struct Numbers<'s> {
    cases: Result<Numerics<'s>, String>,
    seed: u64,
}

impl Numbers<'_> {
    fn with(&self, id: &str, run: impl FnOnce(&Numerics<'_>) -> Ran) -> Ran {
        match &self.cases {
            Ok(cases) => run(cases),
            Err(problem) => (CaseRecord::new(id, Verdict::Fail, problem.clone()), BTreeMap::new()),
        }
    }
}

impl Batch for Numbers<'_> {
    fn run(&mut self, id: &str) -> Ran {
        self.with(id, |cases| cases.run(id, Some(self.seed)))
    }

    fn support(&mut self, id: &str) -> Option<Ran> {
        Some(self.with(id, |cases| cases.support(id, Some(self.seed))))
    }
}
