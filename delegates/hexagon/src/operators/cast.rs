//! Element types: what can change without loss, and floats to integers.
//!
//! f32 and f16 are both `FLOAT_16`, i32 and i64 both `INT_32`: between these there is no node. Integers of 32 bits to floats are refused:
//! f16 holds them up to 2048.

use super::common::{Elements, Steps, as_float, elements, plain, same};
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Quantization};
use crate::node::Node;
use delegraph_sdk::DType;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::_to_copy",
        lower: cast,
    },
    Operator {
        name: "aten::to.dtype",
        lower: cast,
    },
    Operator {
        name: "aten::to.dtype_layout",
        lower: cast,
    },
    Operator {
        name: "aten::to.other",
        lower: cast,
    },
    Operator {
        name: "aten::type_as",
        lower: cast,
    },
    Operator {
        name: "prims::convert_element_type",
        lower: cast,
    },
];

fn cast(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let image = b.image();
    let (from, to) = (image.value(x).dtype(), image.value(out).dtype());
    let (have, want) = (elements(b, x)?, elements(b, out)?);
    if have.is_fixed() || want.is_fixed() {
        return Err(Refusal::quantization(
            "quantized numbers change their type by quantizing",
        ));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let none = || Quantization::None;
    match (have, want) {
        _ if from == to => same(b, read, out, layout),
        (Elements::Float, Elements::Float) => same(b, read, out, layout),
        (Elements::Int | Elements::Index, Elements::Int | Elements::Index) => same(b, read, out, layout),
        // Not a number above 2048 is cut off wrongly, and beyond the range of i32 the library stops at its end.
        (Elements::Float | Elements::Bool, Elements::Int | Elements::Index) => {
            let whole = b.cast("Cast", read, DataType::Int32, none());
            same(b, whole, out, layout)
        }
        (Elements::Bool | Elements::Small, Elements::Float) => {
            let float = as_float(b, read, have)?;
            same(b, float, out, layout)
        }
        (Elements::Small, Elements::Int | Elements::Index) if from == Some(DType::I16) || from == Some(DType::U16) => {
            Err(Refusal::dtype("from integers of 16 bits to integers of 32"))
        }
        (Elements::Small, Elements::Int | Elements::Index) => {
            // The library casts the integers as they lie, which begin at the zero point.
            let Quantization::PerTensor(pair) = b.tensor(read).quantization else {
                return Err(Refusal::dtype("integers without a zero point"));
            };
            let whole = b.cast("Cast", read, DataType::Int32, none());
            let whole = match pair.offset {
                0 => whole,
                offset => b.with("ElementWiseAdd", whole, f64::from(offset))?,
            };
            same(b, whole, out, layout)
        }
        (Elements::Bool, Elements::Small) if b.representation(out)?.1 == plain() => {
            let bytes = b.cast("Cast", read, DataType::UFixed8, plain());
            same(b, bytes, out, layout)
        }
        (_, Elements::Bool) => {
            let zero = super::common::number_in(b, 0.0, read)?;
            let truth = b.truth("ElementWiseNotEqual", read, zero);
            same(b, truth, out, layout)
        }
        _ => Err(Refusal::dtype(format!(
            "from {} to {}",
            from.map_or("?".to_string(), |d| d.to_string()),
            to.map_or("?".to_string(), |d| d.to_string())
        ))),
    }
}
