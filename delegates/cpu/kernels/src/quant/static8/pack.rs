//! Packed weights of matrices.

/// The layout: panels of 16 outputs; in a panel, for each four inputs, four bytes of each output. Behind all panels, the sum of each output's weights in 32 bits
/// (little-endian), 16 a panel. What fills the last panel, or the last four inputs, is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
}

impl Shape {
    pub(super) fn panels(&self) -> usize {
        self.outputs.div_ceil(16)
    }

    pub(super) fn panel_len(&self) -> usize {
        self.inputs.next_multiple_of(4) * 16
    }

    /// Bytes of packed weights.
    pub fn packed_len(&self) -> usize {
        self.panels() * (self.panel_len() + 64)
    }
}

/// Packed weights, wherever their bytes lie.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    shape: Shape,
    bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Of bytes that [`pack`] made; `None`: they are too few.
    pub fn new(shape: Shape, bytes: &'a [u8]) -> Option<Weights<'a>> {
        (bytes.len() >= shape.packed_len()).then_some(Weights { shape, bytes })
    }

    /// Their sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn panel(&self, index: usize) -> &'a [u8] {
        let len = self.shape.panel_len();
        &self.bytes[index * len..][..len]
    }

    pub(super) fn sums(&self, panel: usize) -> [i32; 16] {
        let bytes = &self.bytes[self.shape.panels() * self.shape.panel_len() + panel * 64..][..64];
        std::array::from_fn(|i| {
            i32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        })
    }
}

/// Packs `outputs` rows of `inputs` weights behind what is in `to`.
///
/// # Panics
/// There are fewer weights.
pub fn pack(shape: Shape, weights: &[i8], to: &mut Vec<u8>) {
    assert!(weights.len() >= shape.inputs * shape.outputs, "weights are missing");
    let start = to.len();
    for first in (0..shape.outputs).step_by(16) {
        for k in (0..shape.inputs).step_by(4) {
            for output in first..first + 16 {
                for k in k..k + 4 {
                    let here = output < shape.outputs && k < shape.inputs;
                    to.push(if here {
                        weights[output * shape.inputs + k] as u8
                    } else {
                        0
                    });
                }
            }
        }
    }
    for output in 0..shape.panels() * 16 {
        let row = if output < shape.outputs {
            &weights[output * shape.inputs..][..shape.inputs]
        } else {
            &[]
        };
        to.extend_from_slice(&row.iter().map(|w| i32::from(*w)).sum::<i32>().to_le_bytes());
    }
    debug_assert_eq!(to.len() - start, shape.packed_len());
}
