//! Results become memory: transposed on the way where U85 is told to; and what sums begin with.

use super::Interpreter;
use crate::command::register;
use crate::container::Product;
use crate::error::Error;
use crate::feature_map::FeatureMap;
use crate::memory::Memory;

impl Interpreter {
    /// Writes results, `[height][width][depth]` of the output.
    pub(super) fn store(&mut self, ofm: &FeatureMap, memory: &mut Memory<'_>, results: &[i32]) -> Result<(), Error> {
        let precision = self.state.narrow(register::OFM_PRECISION)?;
        let (transpose, reverse) = match self.config.product {
            Product::U85 => (precision >> 11 & 7, precision >> 9 & 3),
            _ => (0, 0),
        };
        if reverse != 0 {
            return Err(self.state.error(format!("reversal {reverse}")));
        }
        if ofm.chained {
            if transpose != 0 {
                return Err(self.state.error("a chained output that is transposed"));
            }
            self.chained.insert(ofm.region, results.to_vec());
            return Ok(());
        }
        // For each axis of what is written, the axis of the result.
        let order: [usize; 3] = match transpose {
            0 => {
                let mut pixels = results.chunks_exact(ofm.depth);
                for y in 0..ofm.height {
                    for x in 0..ofm.width {
                        ofm.write(memory, y, x, pixels.next().unwrap_or_default())?;
                    }
                }
                return Ok(());
            }
            1 => [1, 0, 2],
            2 => [0, 2, 1],
            3 => [1, 2, 0],
            6 => [2, 0, 1],
            7 => [2, 1, 0],
            other => return Err(self.state.error(format!("transposition {other}"))),
        };
        let sizes = [ofm.height, ofm.width, ofm.depth];
        let steps = [ofm.width * ofm.depth, ofm.depth, 1];
        let written = FeatureMap {
            height: sizes[order[0]],
            width: sizes[order[1]],
            depth: sizes[order[2]],
            ..ofm.clone()
        };
        let mut pixel = vec![0; written.depth];
        for y in 0..written.height {
            for x in 0..written.width {
                let start = y * steps[order[0]] + x * steps[order[1]];
                for (c, to) in pixel.iter_mut().enumerate() {
                    *to = results[start + c * steps[order[2]]];
                }
                written.write(memory, y, x, &pixel)?;
            }
        }
        Ok(())
    }

    /// What the sums begin with: the second input, where U85 is told so.
    pub(super) fn beginning(&mut self, ofm: &FeatureMap, memory: &Memory<'_>) -> Result<Option<Vec<i32>>, Error> {
        if self.config.product != Product::U85 {
            return Ok(None);
        }
        let format = self.state.narrow(register::ACC_FORMAT)?;
        if format & 0x40 != 0 {
            return Err(self.state.error("sums that stay in the accumulators"));
        }
        match format >> 4 & 3 {
            0 => Ok(None),
            2 => {
                let map = self.ifm2(ofm.height, ofm.width, ofm.depth)?;
                self.admit(&[&map])?;
                let zero = self.state.signed(register::IFM2_ZERO_POINT)?;
                let mut values = self.load(&map, memory)?;
                values.iter_mut().for_each(|v| *v = v.wrapping_sub(zero));
                Ok(Some(values))
            }
            other => Err(self.state.error(format!("sums that begin with {other}"))),
        }
    }
}
