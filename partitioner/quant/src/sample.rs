//! Calibration samples: the arguments of a method, several times.

use crate::QuantError;
use delegraph_ir::{Constant, Graph, InputKind, Type};
use delegraph_types::nearest;
use std::collections::BTreeMap;

/// An argument.
#[derive(Debug, Clone)]
pub enum Item {
    /// A tensor, or a number as a tensor of one element.
    Tensor(Constant),
    /// What was fixed at export, or is not read.
    Nothing,
}

/// The arguments of a method for one run.
#[derive(Debug, Clone)]
pub struct Sample {
    /// For messages: file and sample.
    pub name: String,
    /// One an input of the method, in order.
    pub inputs: Vec<Item>,
    /// Whether states begin with their first values; if not, they are what the sample before left.
    pub fresh: bool,
}

/// Where a tensor of a file belongs: case and number of the sample, position of the input.
type Place = ((String, u64), usize);

/// The samples of a file. A tensor is named `INPUT` (there is one sample), `INPUT.N` (sample N), or as recorded models name
/// them, `CASE.STEP.inK`; an input goes by its name or its position. Samples run in the order of their numbers and share
/// states; a file and a case start fresh.
///
/// # Errors
/// A tensor that belongs to no input, two that belong to one, an input without a tensor; the message names file and tensor.
pub fn samples_of(graph: &Graph, file: &str, tensors: Vec<(String, Constant)>) -> Result<Vec<Sample>, QuantError> {
    let wrong = |problem: String| QuantError::Sample {
        sample: file.to_string(),
        problem,
    };
    if tensors.is_empty() {
        return Err(wrong("the file holds no tensors".to_string()));
    }
    let mut samples: BTreeMap<(String, u64), Vec<Option<Constant>>> = BTreeMap::new();
    let mut form: Option<(usize, String)> = None;
    for (name, tensor) in tensors {
        let Some((kind, (sample, position))) = place(graph, &name) else {
            let inputs = graph.inputs.iter().map(|input| input.name.as_str());
            let stem = name.split_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let hint = nearest(stem, inputs).map_or_else(
                || format!("inputs are {}", names(graph)),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(wrong(format!(
                "tensor `{name}` belongs to no input\n  hint: {hint}; names are INPUT, INPUT.N or CASE.STEP.inK"
            )));
        };
        match &form {
            Some((other, first)) if *other != kind => {
                return Err(wrong(format!(
                    "tensors `{first}` and `{name}` are named in two ways\n  hint: INPUT, INPUT.N or CASE.STEP.inK, one of them in a file"
                )));
            }
            _ => form = Some((kind, name.clone())),
        }
        let slots = samples.entry(sample).or_insert_with(|| vec![None; graph.inputs.len()]);
        if slots[position].replace(tensor).is_some() {
            return Err(wrong(format!("tensor `{name}` is the second for its input")));
        }
    }
    let mut case: Option<String> = None;
    let mut made = Vec::with_capacity(samples.len());
    for ((of_case, number), slots) in samples {
        let name = match (of_case.is_empty(), form.as_ref().map(|f| f.0)) {
            (true, Some(0)) => file.to_string(),
            (true, _) => format!("{file}[{number}]"),
            (false, _) => format!("{file}[{of_case}.{number}]"),
        };
        let inputs = slots.into_iter().zip(&graph.inputs);
        let inputs: Result<Vec<Item>, QuantError> = inputs
            .map(|(slot, input)| match (slot, &input.kind) {
                (Some(tensor), InputKind::Value(_)) => Ok(Item::Tensor(tensor)),
                (_, InputKind::Literal(_)) => Ok(Item::Nothing),
                (None, InputKind::Value(value)) => Err(QuantError::Sample {
                    sample: name.clone(),
                    problem: format!("input `{}` ({}) is missing", input.name, graph.value(*value).ty),
                }),
            })
            .collect();
        made.push(Sample {
            inputs: inputs?,
            fresh: case.as_ref() != Some(&of_case),
            name,
        });
        case = Some(of_case);
    }
    Ok(made)
}

fn names(graph: &Graph) -> String {
    let names: Vec<String> = graph.inputs.iter().map(|input| format!("`{}`", input.name)).collect();
    names.join(", ")
}

/// The form of a name, and what it says.
fn place(graph: &Graph, name: &str) -> Option<(usize, Place)> {
    let input = |name: &str| {
        let found = graph.inputs.iter().position(|input| input.name == name);
        found.or_else(|| name.parse().ok().filter(|i| *i < graph.inputs.len()))
    };
    if let Some(position) = input(name) {
        return Some((0, ((String::new(), 0), position)));
    }
    let (stem, last) = name.rsplit_once('.')?;
    if let (Some(position), Ok(number)) = (input(stem), last.parse()) {
        return Some((1, ((String::new(), number), position)));
    }
    let (case, step) = stem.rsplit_once('.')?;
    let position: usize = last.strip_prefix("in")?.parse().ok()?;
    let number = step.parse().ok()?;
    (position < graph.inputs.len() && !case.is_empty()).then(|| (2, ((case.to_string(), number), position)))
}

/// Whether an input of this type takes a tensor of one element as a number.
pub(crate) fn is_number(ty: &Type) -> bool {
    !matches!(ty, Type::Tensor(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::TensorType;
    use delegraph_types::{DType, Dims};

    fn graph() -> Graph {
        let mut graph = Graph::new("forward");
        graph.add_input("x", TensorType::fixed(DType::F32, &[1]).into());
        graph.add_input("mask", TensorType::fixed(DType::F32, &[1]).into());
        graph
    }

    fn file(names: &[&str]) -> Vec<(String, Constant)> {
        let tensor = |name: &str| {
            let dims = Dims::new(&[1]).unwrap();
            Constant::contiguous(name, DType::F32, dims, vec![0, 0, 128, 63].into())
        };
        names.iter().map(|name| (name.to_string(), tensor(name))).collect()
    }

    #[test]
    fn each_form_gives_its_samples_in_order() {
        let read = |names: &[&str]| samples_of(&graph(), "f", file(names)).unwrap();
        assert_eq!(read(&["mask", "0"]).len(), 1);
        let some = read(&["x.10", "mask.10", "x.2", "1.2"]);
        assert_eq!(
            some.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            ["f[2]", "f[10]"]
        );
        assert_eq!(some.iter().map(|s| s.fresh).collect::<Vec<_>>(), [true, false]);
        let some = read(&["b.0.in0", "b.0.in1", "a.0.in0", "a.0.in1", "a.1.in0", "a.1.in1"]);
        assert_eq!(some.iter().map(|s| s.fresh).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(some[2].name, "f[b.0]");
    }

    #[test]
    fn a_wrong_file_is_told_by_its_tensor() {
        let problem = |names: &[&str]| samples_of(&graph(), "f", file(names)).unwrap_err().to_string();
        assert!(problem(&[]).contains("no tensors"));
        assert!(problem(&["x", "msk"]).contains("did you mean `mask`?"));
        assert!(problem(&["x", "mask.1"]).contains("in two ways"));
        assert!(problem(&["x", "0", "mask"]).contains("the second for its input"));
        assert!(problem(&["x"]).contains("input `mask` (f32[1]) is missing"));
        assert!(problem(&["a.0.in7"]).contains("belongs to no input"));
        assert!(problem(&["a.b.in0"]).contains("belongs to no input"));
    }
}
