//! Resizing on U85: TOSA's `RESIZE`, with sums of 16 bits behind the point.

use super::Interpreter;
use crate::command::{Command, register, wide};
use crate::error::Error;
use crate::memory::Memory;

const FRACTION: u32 = 16;

/// Positions of an output along an axis: `numerator` steps are an input element.
struct Axis {
    numerator: i64,
    step: i64,
    offset: i64,
    size: usize,
}

impl Axis {
    /// The two elements that an output lies between, and how far behind the first one, in steps.
    fn at(&self, out: usize) -> (usize, usize, i64) {
        let position = out as i64 * self.step + self.offset;
        let whole = position.div_euclid(self.numerator);
        let inside = |index: i64| index.clamp(0, self.size as i64 - 1) as usize;
        (inside(whole), inside(whole + 1), position - whole * self.numerator)
    }
}

impl Interpreter {
    pub(super) fn resize(&mut self, command: Command, memory: &mut Memory<'_>) -> Result<(), Error> {
        self.state.begin(command.offset, "RESIZE");
        let bilinear = match command.parameter() {
            0 => true,
            2 => false,
            other => return Err(self.state.error(format!("mode {other}"))),
        };
        let ofm = self.ofm()?;
        let height = self.state.size(register::KERNEL_HEIGHT_M1)?;
        let width = self.state.size(register::KERNEL_WIDTH_M1)?;
        let ifm = self.ifm(height, width, ofm.depth)?;
        self.admit(&[&ifm, &ofm])?;
        let down = self.axis(
            register::RESIZE_Y_SCALE_N_M1,
            register::RESIZE_Y_OFFSET,
            wide::RESIZE_Y,
            height,
        )?;
        let across = self.axis(
            register::RESIZE_X_SCALE_N_M1,
            register::RESIZE_X_OFFSET,
            wide::RESIZE_X,
            width,
        )?;
        let zero = i64::from(self.state.signed(register::IFM_ZERO_POINT)?);
        let values = self.load(&ifm, memory)?;
        let output = self.output(&ofm)?;
        let mut results = Vec::with_capacity(values.len());
        for y in 0..ofm.height {
            let (y0, y1, dy) = down.at(y);
            for x in 0..ofm.width {
                let (x0, x1, dx) = across.at(x);
                let pixel = |y: usize, x: usize| (y * width + x) * ofm.depth;
                let corners = [pixel(y0, x0), pixel(y0, x1), pixel(y1, x0), pixel(y1, x1)];
                let near = usize::from(2 * dy >= down.numerator) * 2 + usize::from(2 * dx >= across.numerator);
                let parts = [
                    (down.numerator - dy) * (across.numerator - dx),
                    (down.numerator - dy) * dx,
                    dy * (across.numerator - dx),
                    dy * dx,
                ];
                for c in 0..ofm.depth {
                    let corner = |i: usize| i64::from(values[corners[i] + c]) - zero;
                    let sum: i64 = match bilinear {
                        true => (0..4).map(|i| parts[i] * corner(i)).sum(),
                        false => corner(near),
                    };
                    results.push(output.finish(sum << FRACTION, output.scale));
                }
            }
        }
        self.store(&ofm, memory, &results)
    }

    /// The step is a whole number of elements and a rest, each in a part of the register.
    fn axis(&self, numerator: u16, offset: u16, step: u16, size: usize) -> Result<Axis, Error> {
        let numerator = self.state.size(numerator)? as i64;
        let (parameter, payload) = self.state.pair(step)?;
        Ok(Axis {
            numerator,
            step: i64::from(parameter & 0xf) * numerator + i64::from(payload & 0xffff),
            // Twelve bits with a sign.
            offset: i64::from((self.state.narrow(offset)? << 4) as i16 >> 4),
            size,
        })
    }
}
