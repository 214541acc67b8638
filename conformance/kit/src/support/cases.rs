//! The questions as cases, an operator and dtype each: `partition/support/aten::add.Tensor/f32`. They ask what is taken and compute nothing.

use super::{Asked, Proposal, Setting, ask_all, of_kit, propose, setting_of, table};
use crate::case;
use crate::numerics::engine::Engine;
use crate::registry::{CaseInfo, Ran};
use crate::subject::Subject;
use delegraph_host::{Claims, Delegate, NodeVerdict};
use delegraph_lower::image::Form;
use delegraph_opset::Versions;
use delegraph_runner::Claim;
use delegraph_types::DType;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What every id begins with.
const PREFIX: &str = "partition/support/";

/// Every operator and dtype that there is a question about, in the order of their names.
pub fn infos() -> Vec<CaseInfo> {
    // What is embedded is well formed: a test reads it.
    let versions = Versions::builtin();
    let setting = Setting {
        form: Form::newest(&versions),
        quantized: true,
    };
    let all = of_kit(None, setting).unwrap_or_default();
    let pairs: BTreeSet<(String, &'static str)> = all.into_iter().map(|q| (q.op, q.dtype.name())).collect();
    let info = |(op, dtype): (String, &str)| {
        let info = CaseInfo::new(format!("{PREFIX}{op}/{dtype}"), "which calls of an operator are taken")?;
        Some(CaseInfo {
            op,
            dtype: dtype.to_string(),
            batch: true,
            ..info
        })
    };
    pairs.into_iter().filter_map(info).collect()
}

/// Asks one library.
pub struct Asker<'s> {
    subject: &'s Subject,
    engine: Result<Engine, String>,
    delegate: Option<Arc<Delegate>>,
}

impl<'s> Asker<'s> {
    /// Of this library, which is loaded at the first question.
    pub fn new(subject: &'s Subject) -> Asker<'s> {
        Asker {
            subject,
            engine: Engine::new(subject),
            delegate: None,
        }
    }

    /// Asks about a case: `pass` where some of its questions are taken, `skip` with the delegate's reason where none is, `fail-claimed`
    /// where the manifest claims one that is not. How many is measured.
    pub fn run(&mut self, id: &str) -> Ran {
        let subject = self.subject;
        case::run(id, subject, 0, |trial| {
            let pair = id.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('/'));
            let (op, dtype) = pair.ok_or_else(|| format!("there is no question `{id}`"))?;
            let dtype = DType::from_name(dtype).ok_or_else(|| format!("there is no dtype `{dtype}`"))?;
            trial.record.op = op.to_string();
            trial.record.dtype = dtype.name().to_string();
            let asked = self.ask(Some((op, dtype)))?;
            if asked.is_empty() {
                return Err(case::Failure::skip(format!(
                    "there is no `{op}` in {dtype} in the operator table that the delegate was built for, or in the graphs that its \
                     manifest asks for"
                )));
            }
            let total = table(&asked).total();
            for (name, count) in [
                ("asked", total.asked),
                ("taken", total.taken),
                ("claimed", total.claimed),
                ("broken", total.broken),
            ] {
                trial.measure(name, count as f64);
            }
            trial.record.claim = match (total.claimed, total.taken) {
                (1.., _) => Claim::Claimed,
                (0, 1..) => Claim::Taken,
                (0, 0) => Claim::None,
            };
            if let Some(one) = asked.iter().find(|one| one.is_broken_promise()) {
                let why = one.taken.as_ref().err().cloned().unwrap_or_default();
                return Err(case::Failure::claimed(format!("{}: {why}", one.question.name())));
            }
            if total.taken == 0 {
                let why = asked.iter().find_map(|one| one.taken.as_ref().err());
                return Err(case::Failure::skip(why.cloned().unwrap_or_default()));
            }
            Ok(())
        })
    }

    /// What claims fit the answers to all questions: for a vendor to read, and to paste into the manifest.
    ///
    /// # Errors
    /// The library does not answer.
    pub fn propose(&mut self) -> Result<Proposal, String> {
        Ok(propose(&self.ask(None)?))
    }

    /// The answers for an operator and dtype, or for all.
    fn ask(&mut self, about: Option<(&str, DType)>) -> Result<Vec<Asked>, String> {
        let delegate = match &self.delegate {
            Some(delegate) => Arc::clone(delegate),
            None => {
                let delegate = self.engine.as_ref().map_err(Clone::clone)?.delegate()?;
                Arc::clone(self.delegate.insert(delegate))
            }
        };
        let versions = Versions::builtin();
        let setting = setting_of(self.subject, &versions, &delegate.info().opset);
        let mut questions = of_kit(about.map(|(op, _)| op), setting)?;
        questions.retain(|question| about.is_none_or(|(_, dtype)| question.dtype == dtype));
        let none = Claims::default();
        let claims = self
            .subject
            .manifest
            .as_ref()
            .map_or(&none, |(_, manifest)| &manifest.claims);
        ask_all(questions, claims, &mut |image| {
            let partition = delegate.partition(image, "").map_err(|error| error.to_string())?;
            let first: Option<&NodeVerdict> = partition.verdicts.first();
            let first = first.ok_or("the delegate gives no verdict on the only node")?;
            Ok(match first.supported {
                true => Ok(()),
                false => Err(first.reason.clone()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::data;

    #[test]
    fn there_is_a_question_for_every_operator_that_was_recorded() {
        let infos = infos();
        let asked: BTreeSet<&str> = infos.iter().map(|info| info.op.as_str()).collect();
        let recorded: BTreeSet<&str> = data::calls()
            .unwrap()
            .iter()
            .map(|call| call.case.op.as_str())
            .collect();
        let missing: Vec<&&str> = recorded.difference(&asked).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let ids: BTreeSet<&str> = infos.iter().map(|info| info.id.as_str()).collect();
        assert_eq!(ids.len(), infos.len());
    }
}
