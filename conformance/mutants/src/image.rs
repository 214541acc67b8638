//! A graph image with other numbers in it: how a compiler that reads an attribute wrongly is made from one that does not.

use crate::active;
use delegraph_sdk::image::{ArgView, ImageView, Quant, verify};
use delegraph_sdk::{DType, Error, c};
use std::mem::offset_of;

/// An image whose records can be written.
struct Patch {
    bytes: Vec<u8>,
}

impl Patch {
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    }

    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(
            self.bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
        ))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        self.bytes
            .get_mut(at..at.checked_add(bytes.len())?)?
            .copy_from_slice(bytes);
        Some(())
    }

    /// Where the directory says where a table lies.
    fn entry(&self, kind: c::ImageTableKind) -> Option<usize> {
        let first = self.u32(offset_of!(c::ImageHeader, header_size))? as usize;
        let count = self.u32(offset_of!(c::ImageHeader, table_count))? as usize;
        let size = self.u32(offset_of!(c::ImageHeader, table_size))? as usize;
        (0..count)
            .map(|i| first + i * size)
            .find(|at| self.u32(*at) == Some(kind.0))
    }

    /// Where a record lies.
    fn record(&self, kind: c::ImageTableKind, index: u32) -> Option<usize> {
        let entry = self.entry(kind)?;
        let size = self.u32(entry + offset_of!(c::ImageTable, record_size))? as usize;
        let offset = self.u64(entry + offset_of!(c::ImageTable, offset))? as usize;
        size.checked_mul(index as usize)?.checked_add(offset)
    }

    /// The record of an argument of a node.
    fn argument(&self, node: u32, argument: u32) -> Option<usize> {
        let node = self.record(c::ImageTableKind::NODES, node)?;
        let first = self.u32(node + offset_of!(c::ImageNode, args_start))?;
        self.record(c::ImageTableKind::ARGS, first.checked_add(argument)?)
    }

    /// Gives a node another operator: the texts move to the end of the image, with one more.
    fn rename(&mut self, node: u32, op: &str) -> Option<()> {
        let entry = self.entry(c::ImageTableKind::STRINGS)?;
        let offset = self.u64(entry + offset_of!(c::ImageTable, offset))? as usize;
        let count = self.u64(entry + offset_of!(c::ImageTable, count))? as usize;
        let texts = self.bytes.get(offset..offset.checked_add(count)?)?.to_vec();
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let moved = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&texts);
        self.bytes.extend_from_slice(op.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let total = self.bytes.len() as u64;
        self.put(entry + offset_of!(c::ImageTable, offset), &moved.to_le_bytes())?;
        self.put(
            entry + offset_of!(c::ImageTable, count),
            &((count + op.len()) as u64).to_le_bytes(),
        )?;
        self.put(offset_of!(c::ImageHeader, total_size), &total.to_le_bytes())?;
        let record = self.record(c::ImageTableKind::NODES, node)?;
        self.put(
            record + offset_of!(c::ImageNode, op_offset),
            &(count as u32).to_le_bytes(),
        )?;
        self.put(
            record + offset_of!(c::ImageNode, op_size),
            &(op.len() as u32).to_le_bytes(),
        )
    }
}

/// The image as this process's mutant reads it.
///
/// # Errors
/// The image is damaged.
pub fn misread(image: &[u8]) -> Result<Vec<u8>, Error> {
    misread_as(image, active())
}

fn misread_as(image: &[u8], defect: &str) -> Result<Vec<u8>, Error> {
    let view = verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))?;
    let mut patch = Patch { bytes: image.to_vec() };
    let patched = match defect {
        "ignores-negative-dim" => negative_dims(&view, &mut patch),
        // Tensors are read with their channels second, as in the other form.
        "ignores-normal-form" => patch.put(offset_of!(c::ImageHeader, normal_form), &0u32.to_le_bytes()),
        "ignores-zero-point" => zero_points(&view, &mut patch),
        "loses-quant-limits" => limits(&view, &mut patch),
        "loses-fused-relu" => relu(&view, &mut patch),
        "truncates-when-quantizing" => real_outputs(&view, &mut patch),
        "ignores-gelu-tanh" => gelu(&view, &mut patch),
        _ => Some(()),
    };
    // What cannot be patched is read rightly: the mutant is healthy there.
    Ok(match patched.is_some() && verify(&patch.bytes).is_ok() {
        true => patch.bytes,
        false => image.to_vec(),
    })
}

/// Negative dimensions are taken for 0, where that changes no size.
fn negative_dims(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    const OPERATORS: [&str; 7] = [
        "aten::softmax.int",
        "aten::_softmax",
        "aten::log_softmax.int",
        "aten::_log_softmax",
        "aten::cumsum",
        "aten::sort",
        "aten::logcumsumexp",
    ];
    for node in view.nodes().filter(|node| OPERATORS.contains(&node.op())) {
        if node.arg(1).int().is_some_and(|dim| dim < 0) {
            let argument = patch.argument(node.index().0, 1)?;
            let kind = patch.u32(argument + offset_of!(c::ImageArg, kind))?;
            if kind == c::ArgKind::INT.0 {
                patch.put(argument + offset_of!(c::ImageArg, value), &0u64.to_le_bytes())?;
            }
        }
    }
    Some(())
}

/// Quantized types go as far as their integers do.
fn limits(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    for value in view.values() {
        let record = patch.record(c::ImageTableKind::VALUES, value.index().0)?;
        let quant = patch.u32(record + offset_of!(c::ImageValue, quant))?;
        let (Some(_), Some((low, high))) = (value.quant(), value.dtype().and_then(range)) else {
            continue;
        };
        let quant = patch.record(c::ImageTableKind::QUANTS, quant)?;
        patch.put(quant + offset_of!(c::ImageQuant, quant_min), &low.to_le_bytes())?;
        patch.put(quant + offset_of!(c::ImageQuant, quant_max), &high.to_le_bytes())?;
    }
    Some(())
}

/// Every zero point is taken for 0.
fn zero_points(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    for value in view.values().filter(|value| value.quant().is_some()) {
        let record = patch.record(c::ImageTableKind::VALUES, value.index().0)?;
        let quant = patch.u32(record + offset_of!(c::ImageValue, quant))?;
        let quant = patch.record(c::ImageTableKind::QUANTS, quant)?;
        patch.put(quant + offset_of!(c::ImageQuant, zero_point), &0i64.to_le_bytes())?;
    }
    Some(())
}

fn range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::I8 => Some((-128, 127)),
        DType::U8 => Some((0, 255)),
        DType::I16 => Some((-32768, 32767)),
        _ => None,
    }
}

/// A relu after another node is no more than its input.
fn relu(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    for node in view.nodes().filter(|node| node.op() == "aten::relu") {
        if !view.inputs().iter().any(|input| node.arg(0).value() == Some(input)) {
            patch.rename(node.index().0, "aten::alias")?;
        }
    }
    Some(())
}

/// Quantized outputs of the graph stay numbers; [`crate::numbers`] quantizes them.
fn real_outputs(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    for output in truncated_outputs(view) {
        let record = patch.record(c::ImageTableKind::VALUES, view.outputs().get(output)?.0)?;
        patch.put(record + offset_of!(c::ImageValue, dtype), &DType::F32.0.to_le_bytes())?;
        patch.put(record + offset_of!(c::ImageValue, quant), &c::NONE.to_le_bytes())?;
    }
    Some(())
}

/// Outputs that a node makes in integers with one scale, by number.
pub fn truncated_outputs<'a>(view: &'a ImageView<'a>) -> impl Iterator<Item = usize> + 'a {
    let explicit = |index| {
        let maker = view
            .nodes()
            .find(|node| node.outputs().iter().any(|output| output == index));
        maker.is_none_or(|node| node.op().starts_with("quantized_decomposed::"))
    };
    let outputs = view.outputs();
    (0..outputs.len()).filter(move |i| {
        outputs
            .get(*i)
            .is_some_and(|index| matches!(view.value(index).quant(), Some(Quant::PerTensor { .. })) && !explicit(index))
    })
}

/// The approximation by tanh is taken for the exact function.
fn gelu(view: &ImageView<'_>, patch: &mut Patch) -> Option<()> {
    for node in view.nodes().filter(|node| node.op() == "aten::gelu") {
        let argument = patch.argument(node.index().0, 1)?;
        let kind = patch.u32(argument + offset_of!(c::ImageArg, kind))?;
        let at = patch.u64(argument + offset_of!(c::ImageArg, value))? as u32;
        // Both words have four letters.
        if kind == c::ArgKind::STR.0 && matches!(node.arg(1), ArgView::Str("tanh")) {
            let text = patch.record(c::ImageTableKind::STRINGS, at)?;
            patch.put(text, b"none")?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_sdk::image::{Arg, ImageBuilder, Type};

    /// A graph of a node and a relu over a quantized tensor.
    fn graph(op: &str, args: &[Arg], quant_min: i64) -> Vec<u8> {
        let mut image = ImageBuilder::new("forward");
        let three = image.int(3);
        let quant = Some(Quant::PerTensor {
            scale: 0.5,
            zero_point: 3,
            quant_min,
            quant_max: 127,
        });
        let ty = Type::Tensor {
            dtype: DType::I8,
            dims: vec![three],
            quant,
        };
        let x = image.input("x", &ty);
        let args: Vec<Arg> = [Arg::Value(x)].into_iter().chain(args.iter().cloned()).collect();
        let y = image.node("n", op, &args, &[("y", &ty)], "")[0];
        let y = image.node("last", "aten::relu", &[Arg::Value(y)], &[("z", &ty)], "")[0];
        image.output(y);
        image.finish().unwrap()
    }

    #[test]
    fn each_patch_changes_what_it_should() {
        let relu = graph("aten::relu", &[], -128);
        let patched = misread_as(&relu, "loses-fused-relu").unwrap();
        let view = verify(&patched).unwrap();
        let names: Vec<&str> = view.nodes().map(|node| node.op()).collect();
        assert_eq!(names, ["aten::relu", "aten::alias"]);

        let patched = misread_as(&graph("aten::relu", &[], 3), "loses-quant-limits").unwrap();
        let view = verify(&patched).unwrap();
        let quant = view.value(view.outputs().get(0).unwrap()).quant();
        assert!(
            matches!(quant, Some(Quant::PerTensor { quant_min: -128, .. })),
            "{quant:?}"
        );

        let patched = misread_as(&relu, "ignores-zero-point").unwrap();
        let view = verify(&patched).unwrap();
        let quant = view.value(view.outputs().get(0).unwrap()).quant();
        assert!(
            matches!(quant, Some(Quant::PerTensor { zero_point: 0, .. })),
            "{quant:?}"
        );

        let patched = misread_as(&relu, "truncates-when-quantizing").unwrap();
        let view = verify(&patched).unwrap();
        assert_eq!(view.value(view.outputs().get(0).unwrap()).dtype(), Some(DType::F32));

        let softmax = graph("aten::softmax.int", &[Arg::Int(-1), Arg::None], -128);
        let patched = misread_as(&softmax, "ignores-negative-dim").unwrap();
        assert_eq!(verify(&patched).unwrap().nodes().next().unwrap().arg(1).int(), Some(0));

        let gelu = graph("aten::gelu", &[Arg::Str("tanh".to_string())], -128);
        let patched = misread_as(&gelu, "ignores-gelu-tanh").unwrap();
        let view = verify(&patched).unwrap();
        assert!(matches!(view.nodes().next().unwrap().arg(1), ArgView::Str("none")));

        assert_eq!(misread_as(&relu, "none").unwrap(), relu);
    }
}
