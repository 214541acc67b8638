//! Making and reading packed weights.

use super::{Precision, Shape, Width};
use half::f16;

/// How [`pack`] stores scales and zero points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scales {
    /// As halves if every one is a half exactly, else as floats.
    #[default]
    Exact,
    /// As halves, rounded to the nearest.
    Halves,
}

/// Why weights are not packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackError {
    /// Values, scales or zero points are too many or too few.
    Len,
    /// A group is no multiple of 32.
    Group,
    /// A value is not in -8..=7.
    Value,
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PackError::Len => "the number of values, scales or zero points does not fit the sizes",
            PackError::Group => "a group is no multiple of 32",
            PackError::Value => "a value is not in -8..=7",
        })
    }
}

impl std::error::Error for PackError {}

/// Packs weights. `values` has `outputs` rows of `inputs`, each in -8..=7; `scales` has `outputs` rows of a scale for each `group` inputs, and so has `zeros`:
/// a weight is `(value - zero) * scale`.
///
/// # Errors
/// See [`PackError`].
pub fn pack(
    outputs: usize,
    inputs: usize,
    group: usize,
    values: &[i8],
    scales: &[f32],
    zeros: Option<&[f32]>,
    width: Width,
    how: Scales,
) -> Result<(Shape, Vec<u8>), PackError> {
    if group == 0 || !group.is_multiple_of(32) {
        return Err(PackError::Group);
    }
    let groups = inputs.div_ceil(group);
    let lists = [Some(scales), zeros];
    if values.len() != outputs * inputs || lists.iter().flatten().any(|list| list.len() != outputs * groups) {
        return Err(PackError::Len);
    }
    if values.iter().any(|value| !(-8..=7).contains(value)) {
        return Err(PackError::Value);
    }
    // Zero points are stored for bits, which are 8 more than values.
    let shifted: Option<Vec<f32>> = zeros.map(|zeros| zeros.iter().map(|zero| zero + 8.0).collect());
    let exact = |x: &f32| f16::from_f32(*x).to_f32().to_bits() == x.to_bits();
    let halves = how == Scales::Halves || scales.iter().chain(shifted.iter().flatten()).all(exact);
    let shape = Shape {
        inputs,
        outputs,
        group,
        width,
        precision: if halves { Precision::F16 } else { Precision::F32 },
        zeros: zeros.is_some(),
    };
    let mut bytes = Vec::with_capacity(shape.packed_len());
    let rows = width.rows();
    for panel in 0..shape.panels() {
        for group_index in 0..groups {
            for list in [Some(scales), shifted.as_deref()].into_iter().flatten() {
                for output in panel * rows..(panel + 1) * rows {
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
            let blocks = (group / 32).min(shape.blocks() - group_index * (group / 32));
            for block in 0..blocks {
                let first = group_index * group + block * 32;
                for byte in 0..16 * rows {
                    let (v, output) = (byte / (4 * rows), panel * rows + byte / 4 % rows);
                    let bits = |k: usize| match output < outputs && k < inputs {
                        true => (values[output * inputs + k] + 8) as u8,
                        false => 8,
                    };
                    let k = first + 4 * v + byte % 4;
                    bytes.push(bits(k) | bits(k + 16) << 4);
                }
            }
        }
    }
    // Of the numbers as they were stored, summed in wide floats.
    let kept = |x: f32| f64::from(if halves { f16::from_f32(x).to_f32() } else { x });
    for output in 0..shape.panels() * rows {
        let mut sum = 0f64;
        for group_index in (0..groups).take_while(|_| output < outputs) {
            let index = output * groups + group_index;
            let zero = shifted.as_ref().map_or(8.0, |zeros| kept(zeros[index]));
            let inputs_here = group_index * group..((group_index + 1) * group).min(inputs);
            let count = inputs_here.len() as f64;
            let bits: i32 = values[output * inputs..][inputs_here]
                .iter()
                .map(|value| i32::from(*value) + 8)
                .sum();
            sum += kept(scales[index]) * (f64::from(bits) - zero * count);
        }
        bytes.extend_from_slice(&(sum as f32).to_le_bytes());
    }
    debug_assert_eq!(bytes.len(), shape.packed_len());
    Ok((shape, bytes))
}

/// Packed weights, wherever their bytes lie: nothing is asked of their address.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Of bytes that [`pack`] made; `None`: they are too few for the shape, or the group is no multiple of 32.
    pub fn new(shape: Shape, bytes: &'a [u8]) -> Option<Weights<'a>> {
        let fits = shape.group >= 32 && shape.group.is_multiple_of(32) && bytes.len() >= shape.packed_len();
        fits.then_some(Weights { shape, bytes })
    }

    /// Their layout.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes of a panel.
    pub(crate) fn panel(&self, index: usize) -> &'a [u8] {
        let len = self.shape.panel_len();
        &self.bytes[index * len..][..len]
    }

    /// The sums of a panel's rows of weights.
    pub(crate) fn corrections(&self, panel: usize, to: &mut [f32; 16]) {
        let rows = self.shape.width.rows();
        let start = self.shape.panels() * self.shape.panel_len() + panel * rows * 4;
        for (to, bytes) in to.iter_mut().zip(self.bytes[start..][..rows * 4].chunks_exact(4)) {
            *to = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }

    /// Writes a row of weights as floats, `(bits - zero) * scale`: what a table of these weights has at that index. `out` has as many floats as
    /// there are inputs.
    ///
    /// # Panics
    /// There is no such output, or `out` is shorter.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let shape = &self.shape;
        assert!(output < shape.outputs, "there is no such row");
        let rows = shape.width.rows();
        let (panel, lane) = (self.panel(output / rows), output % rows);
        for (group, out) in out[..shape.inputs].chunks_mut(shape.group).enumerate() {
            let (_, scale, zero) = self.at(output, group * shape.group);
            let start = group * (shape.header() + shape.group / 32 * 16 * rows) + shape.header();
            for (block, out) in out.chunks_mut(32).enumerate() {
                let bytes = &panel[start + block * 16 * rows..][..16 * rows];
                for (k, out) in out.iter_mut().enumerate() {
                    let byte = bytes[k % 16 / 4 * 4 * rows + lane * 4 + k % 4];
                    let bits = if k < 16 { byte & 15 } else { byte >> 4 };
                    *out = (f32::from(bits) - zero) * scale;
                }
            }
        }
    }

    /// A weight's four bits, its scale and its zero point for these bits.
    pub fn at(&self, output: usize, input: usize) -> (u8, f32, f32) {
        let shape = &self.shape;
        let rows = shape.width.rows();
        let (panel, lane) = (self.panel(output / rows), output % rows);
        let (group, block) = (input / shape.group, input / 32);
        let start = group * (shape.header() + shape.group / 32 * 16 * rows);
        let parameter = |index: usize| match shape.precision {
            Precision::F16 => {
                let at = start + (index * rows + lane) * 2;
                f16::from_le_bytes([panel[at], panel[at + 1]]).to_f32()
            }
            Precision::F32 => {
                let at = start + (index * rows + lane) * 4;
                f32::from_le_bytes([panel[at], panel[at + 1], panel[at + 2], panel[at + 3]])
            }
        };
        let inner = input % 16;
        let at = start + shape.header() + (block - group * (shape.group / 32)) * 16 * rows;
        let byte = panel[at + inner / 4 * 4 * rows + lane * 4 + inner % 4];
        let bits = if input % 32 < 16 { byte & 15 } else { byte >> 4 };
        (bits, parameter(0), if shape.zeros { parameter(1) } else { 8.0 })
    }
}
