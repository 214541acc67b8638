//! The input of convolutions and pools: without its zero point, and enlarged where the operation says so.

use super::{Interpreter, Window};
use crate::command::register;
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::Memory;

/// An input with its zero point taken off, and enlarged where the operation says so.
pub(super) struct Input {
    pub height: usize,
    pub width: usize,
    pub depth: usize,
    pub values: Vec<i32>,
}

impl Interpreter {
    /// The input of a window, enlarged where the operation says so.
    pub(super) fn input(
        &mut self,
        ofm: &FeatureMap,
        window: &Window,
        depth: usize,
        memory: &Memory<'_>,
    ) -> Result<Input, Error> {
        let (height, width) = window
            .input(ofm.height, ofm.width)
            .ok_or_else(|| self.state.error("more padding than the window covers"))?;
        let mode = self.state.or_zero(register::IFM_UPSCALE);
        if mode > 2 {
            return Err(self.state.error(format!("upscale mode {mode}")));
        }
        let (rows, columns) = if mode == 0 {
            (height, width)
        } else {
            (height.div_ceil(2), width.div_ceil(2))
        };
        let ifm = self.ifm(rows, columns, depth)?;
        let whole = FeatureMap {
            height,
            width,
            ..ifm.clone()
        };
        self.admit(&[&whole])?;
        let zero = self.state.signed(register::IFM_ZERO_POINT)?;
        let mut values = self.load(&ifm, memory)?;
        values.iter_mut().for_each(|v| *v = v.wrapping_sub(zero));
        if mode != 0 {
            let mut large = vec![0; height * width * depth];
            for y in 0..height {
                for x in 0..width {
                    if mode == 2 && (y % 2 == 1 || x % 2 == 1) {
                        continue;
                    }
                    let (to, from) = ((y * width + x) * depth, (y / 2 * columns + x / 2) * depth);
                    large[to..to + depth].copy_from_slice(&values[from..from + depth]);
                }
            }
            values = large;
        }
        Ok(Input {
            height,
            width,
            depth,
            values,
        })
    }
}
