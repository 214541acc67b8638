//! Making and reading packed weights of 8 and 2 bits.

use super::{Code, Panel};
use crate::quant::finish::COLUMNS;
use crate::quant::q4::{PackError, Precision, Scales};
use half::f16;

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bits {
    /// -128..=127.
    Eight,
    /// -2..=1.
    Two,
}

/// The layout of packed weights: panels of 16 outputs. In a panel, for each group: 16 scales, 16 zero points if there are any, and blocks of 16 inputs. A block
/// of 8 bits has 16 bytes, one an output, for each input. A block of 2 bits has a word of 32 bits (little-endian) for each output, with input `j` in bits
/// `2 * j`, shifted by 2 to be positive; its zero points are shifted too. Outputs that fill the last panel have scales of 0, inputs that fill a block bits of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Numbers of a row of activations.
    pub inputs: usize,
    /// Numbers of a row of results.
    pub outputs: usize,
    /// Inputs of one scale: a multiple of 16. One scale a channel: any that is not less than the inputs.
    pub group: usize,
    /// Bits of a weight.
    pub bits: Bits,
    /// Of scales and zero points.
    pub precision: Precision,
    /// Groups have zero points.
    pub zeros: bool,
}

impl Shape {
    fn groups(&self) -> usize {
        self.inputs.div_ceil(self.group.max(16))
    }

    fn as_panel(&self, from: *const u8) -> Panel {
        Panel {
            code: match self.bits {
                Bits::Eight => Code::Eight,
                Bits::Two => Code::Two,
            },
            from,
            width: COLUMNS,
            wide: self.precision == Precision::F32,
            zeros: self.zeros,
            zero: match self.bits {
                Bits::Eight => 0.0,
                Bits::Two => 2.0,
            },
            group: self.group,
            inputs: self.inputs,
        }
    }

    fn panel_len(&self) -> usize {
        let panel = self.as_panel(std::ptr::null());
        self.groups() * panel.header() + self.inputs.div_ceil(16) * panel.block_len()
    }

    /// Bytes of packed weights.
    pub fn packed_len(&self) -> usize {
        self.outputs.div_ceil(COLUMNS) * self.panel_len()
    }
}

/// Packed weights, wherever their bytes lie.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// Of bytes that [`pack`] made; `None`: they are too few for the shape, or the group is no multiple of 16.
    pub fn new(shape: Shape, bytes: &'a [u8]) -> Option<Values<'a>> {
        let fits = shape.group >= 16 && shape.group.is_multiple_of(16) && bytes.len() >= shape.packed_len();
        fits.then_some(Values { shape, bytes })
    }

    /// Their layout.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn panel(&self, index: usize) -> Panel {
        let len = self.shape.panel_len();
        self.shape.as_panel(self.bytes[index * len..][..len].as_ptr())
    }
}

/// Packs weights of 8 or 2 bits: `values` has `outputs` rows of `inputs`, `scales` and `zeros` as many rows of one for each group. A weight is
/// `(value - zero) * scale`. A `group` that is not less than the inputs is made a multiple of 16.
///
/// # Errors
/// See [`PackError`]; a group has to be a multiple of 16 here.
pub fn pack(
    bits: Bits,
    outputs: usize,
    inputs: usize,
    group: usize,
    values: &[i8],
    scales: &[f32],
    zeros: Option<&[f32]>,
    how: Scales,
) -> Result<(Shape, Vec<u8>), PackError> {
    let group = if group >= inputs {
        inputs.next_multiple_of(16).max(16)
    } else {
        group
    };
    if group == 0 || !group.is_multiple_of(16) {
        return Err(PackError::Group);
    }
    let groups = inputs.div_ceil(group);
    if values.len() != outputs * inputs
        || [Some(scales), zeros]
            .iter()
            .flatten()
            .any(|list| list.len() != outputs * groups)
    {
        return Err(PackError::Len);
    }
    if bits == Bits::Two && values.iter().any(|value| !(-2..=1).contains(value)) {
        return Err(PackError::Value);
    }
    let shift = if bits == Bits::Two { 2.0 } else { 0.0 };
    let shifted: Option<Vec<f32>> = zeros.map(|zeros| zeros.iter().map(|zero| zero + shift).collect());
    let exact = |x: &f32| f16::from_f32(*x).to_f32().to_bits() == x.to_bits();
    let halves = how == Scales::Halves || scales.iter().chain(shifted.iter().flatten()).all(exact);
    let shape = Shape {
        inputs,
        outputs,
        group,
        bits,
        precision: if halves { Precision::F16 } else { Precision::F32 },
        zeros: zeros.is_some(),
    };
    let mut bytes = Vec::with_capacity(shape.packed_len());
    let value = |output: usize, k: usize| (output < outputs && k < inputs).then(|| values[output * inputs + k]);
    for first in (0..outputs).step_by(COLUMNS) {
        for group_index in 0..groups {
            for list in [Some(scales), shifted.as_deref()].into_iter().flatten() {
                for output in first..first + COLUMNS {
                    let x = if output < outputs {
                        list[output * groups + group_index]
                    } else {
                        0.0
                    };
                    match halves {
                        true => bytes.extend_from_slice(&f16::from_f32(x).to_bits().to_le_bytes()),
                        false => bytes.extend_from_slice(&x.to_le_bytes()),
                    }
                }
            }
            for k in (group_index * group..((group_index + 1) * group).min(inputs)).step_by(16) {
                match bits {
                    Bits::Eight => {
                        let all = (k..k + 16).flat_map(|k| (first..first + COLUMNS).map(move |output| (output, k)));
                        bytes.extend(all.map(|(output, k)| value(output, k).unwrap_or(0) as u8));
                    }
                    Bits::Two => {
                        for output in first..first + COLUMNS {
                            let bits = |j: usize| value(output, k + j).map_or(0, |value| (value + 2) as u32) << (2 * j);
                            let word = (0..16).fold(0, |word, j| word | bits(j));
                            bytes.extend_from_slice(&word.to_le_bytes());
                        }
                    }
                }
            }
        }
    }
    debug_assert_eq!(bytes.len(), shape.packed_len());
    Ok((shape, bytes))
}
