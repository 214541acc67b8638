//! Results become memory: transposed or reversed on the way where U85 is told to; and what sums begin with.

use super::Interpreter;
use crate::command::register;
use crate::container::Product;
use crate::error::Error;
use crate::feature_map::{FeatureMap, Storage};
use crate::memory::Memory;

/// Bit of `ACC_FORMAT`: sums stay in the accumulators.
const OUTPUT_OFF: u16 = 0x40;

/// How results are written: for each axis of what is written, the axis of the result; and the axis that is reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    order: [usize; 3],
    reversed: Option<usize>,
}

impl Turn {
    const NONE: Turn = Turn {
        order: [0, 1, 2],
        reversed: None,
    };
}

impl Interpreter {
    fn turn(&self) -> Result<Turn, Error> {
        let precision = self.state.narrow(register::OFM_PRECISION)?;
        if self.config.product != Product::U85 {
            return Ok(Turn::NONE);
        }
        let order = match precision >> 11 & 7 {
            0 => [0, 1, 2],
            1 => [1, 0, 2],
            2 => [0, 2, 1],
            3 => [1, 2, 0],
            6 => [2, 0, 1],
            7 => [2, 1, 0],
            other => return Err(self.state.error(format!("transposition {other}"))),
        };
        let reversed = usize::from(precision >> 9 & 3).checked_sub(1);
        if reversed.is_some() && order != [0, 1, 2] {
            return Err(self.state.error("an output that is transposed and reversed"));
        }
        Ok(Turn { order, reversed })
    }

    /// The output as it lies in memory.
    pub(super) fn written(&self, ofm: &FeatureMap) -> Result<FeatureMap, Error> {
        let turn = self.turn()?;
        let sizes = [ofm.height, ofm.width, ofm.depth];
        Ok(FeatureMap {
            height: sizes[turn.order[0]],
            width: sizes[turn.order[1]],
            depth: sizes[turn.order[2]],
            ..ofm.clone()
        })
    }

    /// Writes results, `[height][width][depth]` of the output.
    pub(super) fn store(&mut self, ofm: &FeatureMap, memory: &mut Memory<'_>, results: &[i64]) -> Result<(), Error> {
        self.flag = match results {
            [one] => Some(*one != 0),
            _ => None,
        };
        let turn = self.turn()?;
        match ofm.storage {
            Storage::Memory => {}
            Storage::Chained if turn == Turn::NONE && ofm.bits <= 32 => {
                self.chained
                    .insert(ofm.region, results.iter().map(|r| *r as i32).collect());
                return Ok(());
            }
            Storage::Chained => {
                return Err(self
                    .state
                    .error("a chained output that is transposed, reversed or of 64 bits"));
            }
            Storage::Nowhere => return Err(self.state.error("an output that is nowhere")),
        }
        if turn == Turn::NONE {
            let mut pixels = results.chunks_exact(ofm.depth);
            for y in 0..ofm.height {
                for x in 0..ofm.width {
                    ofm.write(memory, y, x, pixels.next().unwrap_or_default())?;
                }
            }
            return Ok(());
        }
        let steps = [ofm.width * ofm.depth, ofm.depth, 1].map(|step| step as isize);
        let written = self.written(ofm)?;
        let sizes = [written.height, written.width, written.depth];
        // Of each axis of what is written: where its first element comes from, and how far it is to the next.
        let axes = [0, 1, 2].map(|axis| match turn.reversed == Some(axis) {
            false => (0, steps[turn.order[axis]]),
            true => ((sizes[axis] as isize - 1) * steps[axis], -steps[axis]),
        });
        let start: isize = axes.iter().map(|(first, _)| first).sum();
        let mut pixel = vec![0; written.depth];
        for y in 0..written.height {
            for x in 0..written.width {
                let at = start + y as isize * axes[0].1 + x as isize * axes[1].1;
                for (c, to) in pixel.iter_mut().enumerate() {
                    *to = results[(at + c as isize * axes[2].1) as usize];
                }
                written.write(memory, y, x, &pixel)?;
            }
        }
        Ok(())
    }

    /// What the sums begin with, where U85 is told so: the sums of the operation before, or the second input.
    pub(super) fn beginning(&mut self, ofm: &FeatureMap, memory: &Memory<'_>) -> Result<Option<Vec<i64>>, Error> {
        if self.config.product != Product::U85 {
            return Ok(None);
        }
        let kept = self.accumulators.take();
        match self.state.narrow(register::ACC_FORMAT)? >> 4 & 3 {
            0 => Ok(None),
            1 => match kept {
                Some(sums) if Some(sums.len()) == ofm.elements() => Ok(Some(sums)),
                Some(sums) => Err(self.state.error(format!("{} sums were kept", sums.len()))),
                None => Err(self.state.error("no sums were kept")),
            },
            2 => {
                let map = self.ifm2(ofm.height, ofm.width, ofm.depth)?;
                self.admit(&[&map])?;
                let zero = i64::from(self.state.signed(register::IFM2_ZERO_POINT)?);
                let mut values = match map.bits {
                    64 if map.storage == Storage::Memory => map.read_wide(memory)?,
                    _ => self.load(&map, memory)?.into_iter().map(i64::from).collect(),
                };
                values.iter_mut().for_each(|v| *v = v.wrapping_sub(zero));
                Ok(Some(values))
            }
            other => Err(self.state.error(format!("sums that begin with {other}"))),
        }
    }

    /// True if the sums of the operation are no results, but what the next one begins with.
    pub(super) fn keeps_sums(&self) -> Result<bool, Error> {
        if self.config.product != Product::U85 {
            return Ok(false);
        }
        Ok(self.state.narrow(register::ACC_FORMAT)? & OUTPUT_OFF != 0)
    }
}
