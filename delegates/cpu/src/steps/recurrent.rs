//! One direction of one layer of an LSTM or a GRU.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::recurrent::{Cell, Recurrent, packed_len};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::recurrent(x, h, packed, c?, cell, hidden, batch_first, reverse)` gives the outputs of all steps, and the last `h` and, of an LSTM, `c`.
/// `x` is `[time, batch, features]` or with the batch first; states are `[1, batch, hidden]`.
pub const NAME: &str = "cpu::recurrent";

struct Layer {
    plain: Recurrent<'static>,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, hidden, batch_first) = (node.value(0)?, node.natural(5)?, node.bool(6)?);
    let &[a, b, inputs] = shapes.of(x) else {
        return Err(node.misfit(0, "a tensor of three dimensions"));
    };
    let (time, batch) = if batch_first { (b, a) } else { (a, b) };
    let cell = match node.str(4)? {
        "lstm" => Cell::Lstm,
        "gru" => Cell::Gru,
        _ => return Err(node.misfit(4, "a cell")),
    };
    let state = |at: usize| -> Result<bool, Error> { Ok(shapes.count(node.value(at)?) == batch * hidden) };
    let fits = hidden > 0
        && shapes.count(node.value(2)?) == packed_len(cell, inputs, hidden)
        && state(1)?
        && (cell == Cell::Gru || state(3)?)
        && shapes.count(node.output(0)?) == time * batch * hidden
        && node.view().outputs().len() == if cell == Cell::Lstm { 3 } else { 2 };
    if !fits {
        return Err(Error::corrupt("sizes of a recurrent layer do not fit"));
    }
    let strides = |width: usize| {
        if batch_first {
            [width, time * width]
        } else {
            [batch * width, width]
        }
    };
    Ok(Box::new(Layer {
        plain: Recurrent {
            cell,
            inputs,
            hidden,
            packed: &[],
            time,
            batch,
            reverse: node.bool(7)?,
            x_strides: strides(inputs),
            out_strides: strides(hidden),
        },
    }))
}

impl Step for Layer {
    /// The products of all gates with features and hidden numbers.
    fn work(&self) -> Work {
        let gates = match self.plain.cell {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        };
        let Recurrent {
            time,
            batch,
            hidden,
            inputs,
            ..
        } = self.plain;
        Work::floats(&[2, gates, time, batch, hidden, inputs + hidden])
    }

    fn scratch(&self, _: usize) -> usize {
        self.plain.scratch_len() * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let layer = Recurrent {
            packed: io.input(2),
            ..self.plain
        };
        let h: &mut [f32] = io.output(1);
        h.copy_from_slice(io.input(1));
        let mut none = [];
        let c: &mut [f32] = match layer.cell {
            Cell::Lstm => io.output(2),
            Cell::Gru => &mut none,
        };
        if layer.cell == Cell::Lstm {
            c.copy_from_slice(io.input(3));
        }
        let (x, out, scratch) = (io.input(0), io.output(0), io.scratch());
        layer.run(Isa::best(), pool, x, h, c, out, scratch);
        Ok(())
    }
}
