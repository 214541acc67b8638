//! Attention of a few queries over many keys, as language models ask for at each new token: one dispatch in place of three, and no scores
//! in memory. For devices whose barriers cost little.

use super::attention::Shapes;
use super::product::{checked, is_wide};
use super::strided::Strided;
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::facts::Facts;
use crate::kernels;
use crate::tensor::Tensor;
use delegraph_sdk::{DType, Error};

/// Most queries of a head: each reads all keys anew.
const MOST_ROWS: u32 = 4;
/// Widest queries and values: what a workgroup keeps.
const WIDEST: u32 = 256;

/// The operands.
pub struct Few<'a> {
    /// Queries.
    pub query: &'a Strided,
    /// Keys.
    pub key: &'a Strided,
    /// Values.
    pub value: &'a Strided,
    /// What is seen, or what is added to scores.
    pub mask: Option<&'a Tensor>,
    /// Their sizes.
    pub shapes: &'a Shapes,
    /// A query sees the keys up to its own place.
    pub causal: bool,
    /// Factor of scores.
    pub scale: f32,
}

impl Few<'_> {
    /// True if the kernel can, and is the better one.
    pub fn fits(&self, facts: &Facts) -> bool {
        let shapes = self.shapes;
        let dtype = self.query.tensor.dtype;
        let same = [&self.key.tensor, &self.value.tensor].iter().all(|t| t.dtype == dtype);
        let multiples = |of: &Strided, unit: u32| {
            let outer = of.steps.len() - 1;
            of.steps[..outer].iter().all(|step| step.is_multiple_of(unit))
        };
        is_wide(facts)
            && matches!(dtype, DType::F32 | DType::F16)
            && same
            && shapes.rows <= MOST_ROWS
            && shapes.batch.len() <= 3
            && shapes.width.is_multiple_of(4)
            && shapes.depth.is_multiple_of(2)
            && shapes.width.max(shapes.depth) <= WIDEST
            && multiples(self.key, 4)
            && multiples(self.value, 2)
    }

    /// Adds the dispatch.
    ///
    /// # Errors
    /// A tensor that the device does not bind.
    pub fn encode(&self, e: &mut Encoder<'_>, out: &Tensor) -> Result<(), Error> {
        let shapes = self.shapes;
        if out.count() == 0 {
            return Ok(());
        }
        let missing = 3 - shapes.batch.len();
        let mut sizes = [1; 3];
        let mut steps = [[0; 3]; 3];
        for (i, (size, of)) in shapes.batch.iter().enumerate() {
            sizes[missing + i] = *size;
            for (side, step) in of.iter().enumerate() {
                steps[side][missing + i] = *step;
            }
        }
        let (mask_batch, [mask_row, mask_column]) = shapes.mask_steps(self.mask)?;
        let mut mask_steps = [0; 3];
        mask_steps[missing..].copy_from_slice(&mask_batch);
        let number = |dtype: DType| code(dtype).ok_or_else(|| Error::internal(format!("attention of {dtype}")));
        let dtype = out.dtype;
        let rows = sizes.iter().product::<u32>() * shapes.rows;
        let mut params = vec![rows, shapes.columns, shapes.rows, sizes[1], sizes[2]];
        params.push(u32::from(self.mask.is_some()) | u32::from(self.causal) << 1);
        params.push(self.mask.map_or(Ok(0), |mask| number(mask.dtype))?);
        params.extend([number(dtype)?, shapes.width, shapes.depth]);
        params.extend([0, mask_row, mask_column]);
        params.extend(mask_steps);
        for (side, of) in [self.query, self.key, self.value].into_iter().enumerate() {
            params.extend([0, of.steps[of.steps.len() - 2], 0]);
            params.extend(steps[side]);
        }
        params.push(self.scale.to_bits());
        let nothing = e.nothing()?;
        let operands = [
            read(&self.query.tensor),
            read(&self.key.tensor),
            read(&self.value.tensor),
            read(self.mask.unwrap_or(&nothing)),
            write(out),
        ];
        let kernel = match dtype {
            DType::F32 => &kernels::ATTENTION_FEW_F32,
            _ => &kernels::ATTENTION_FEW_F16,
        };
        e.dispatch(kernel, &operands, &params, grid(checked(&[rows, 64])?, 64))
    }
}
