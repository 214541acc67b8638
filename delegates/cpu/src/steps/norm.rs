//! Normalisation along rows, and softmax.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::norm::{GroupNorm, Norm};
use delegraph_cpu_kernels::softmax::Softmax;
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::norm(x, weight?, bias?, columns, root_mean_square, epsilon)`
pub const NORM: &str = "cpu::norm";
/// `cpu::group_norm(x, weight?, bias?, groups, epsilon, layout)` of `[n, c, ...]` (`nchw`) or `[n, ..., c]` (`nhwc`).
pub const GROUP_NORM: &str = "cpu::group_norm";
/// `cpu::softmax(x, log)` along the last dimension.
pub const SOFTMAX: &str = "cpu::softmax";

/// Weight and bias of a step, whose inputs follow `x`.
#[derive(Debug, Clone, Copy)]
struct Affine {
    weight: bool,
    bias: bool,
}

impl Affine {
    fn read(node: &Arguments<'_>, shapes: &Shapes, columns: usize) -> Result<Affine, Error> {
        for at in 1..3 {
            if let Some(value) = node.optional_value(at)?
                && shapes.count(value) != columns
            {
                return Err(node.misfit(at, "one number a column"));
            }
        }
        Ok(Affine {
            weight: !node.is_none(1),
            bias: !node.is_none(2),
        })
    }

    /// Operations an element.
    fn operations(self) -> usize {
        usize::from(self.weight) + usize::from(self.bias)
    }

    fn of<'a>(self, io: &Io<'a>) -> (Option<&'a [f32]>, Option<&'a [f32]>) {
        let weight = self.weight.then(|| io.input(1));
        (weight, self.bias.then(|| io.input(1 + usize::from(self.weight))))
    }
}

struct Rows {
    affine: Affine,
    columns: usize,
    elements: usize,
    root_mean_square: bool,
    epsilon: f32,
}

struct Groups {
    affine: Affine,
    batch: usize,
    channels: usize,
    spatial: usize,
    groups: usize,
    epsilon: f32,
    last: bool,
}

struct Soft {
    columns: usize,
    elements: usize,
    log: bool,
}

/// The result has the elements of the first argument.
fn same_size(node: &Arguments<'_>, shapes: &Shapes) -> Result<(), Error> {
    let (x, output) = (shapes.of(node.value(0)?), shapes.of(node.output(0)?));
    match x == output {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "`{}` of sizes {x:?} gives {output:?}",
            node.op()
        ))),
    }
}

/// Makes the step of [`NORM`].
///
/// # Errors
/// Arguments that do not fit.
pub fn norm(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let columns = node.natural(3)?;
    same_size(node, shapes)?;
    if columns == 0 || !shapes.count(node.value(0)?).is_multiple_of(columns) {
        return Err(node.misfit(3, "the length of a row"));
    }
    Ok(Box::new(Rows {
        affine: Affine::read(node, shapes, columns)?,
        columns,
        elements: shapes.count(node.value(0)?),
        root_mean_square: node.bool(4)?,
        epsilon: node.float(5)? as f32,
    }))
}

/// Makes the step of [`GROUP_NORM`].
///
/// # Errors
/// Arguments that do not fit.
pub fn group_norm(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    same_size(node, shapes)?;
    let sizes = shapes.of(node.value(0)?);
    let last = node.str(5)? == "nhwc";
    let [batch, .., end] = sizes else {
        return Err(node.misfit(0, "a tensor with channels"));
    };
    let channels = if last { *end } else { sizes[1] };
    let groups = node.natural(3)?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(node.misfit(3, "a number of groups"));
    }
    let count: usize = sizes.iter().product();
    Ok(Box::new(Groups {
        affine: Affine::read(node, shapes, channels)?,
        batch: *batch,
        channels,
        spatial: count / (batch * channels).max(1),
        groups,
        epsilon: node.float(4)? as f32,
        last,
    }))
}

/// Makes the step of [`SOFTMAX`].
///
/// # Errors
/// Arguments that do not fit.
pub fn softmax(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    same_size(node, shapes)?;
    Ok(Box::new(Soft {
        columns: shapes.of(node.value(0)?).last().copied().unwrap_or(1),
        elements: shapes.count(node.value(0)?),
        log: node.bool(1)?,
    }))
}

impl Step for Rows {
    /// Per element: of the root mean square a square, an add and a product; of the mean and the variance two more and a difference; and those
    /// with weight and bias.
    fn work(&self) -> Work {
        let each = if self.root_mean_square { 3 } else { 6 };
        Work::floats(&[self.elements, each + self.affine.operations()])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let (weight, bias) = self.affine.of(&io);
        let norm = Norm {
            columns: self.columns,
            root_mean_square: self.root_mean_square,
            weight,
            bias,
            epsilon: self.epsilon,
        };
        norm.run(Isa::best(), pool, io.input(0), None, None, io.output(0));
        Ok(())
    }
}

impl Groups {
    fn norm<'a>(&self, io: Option<&Io<'a>>) -> GroupNorm<'a> {
        let (weight, bias) = io.map_or((None, None), |io| self.affine.of(io));
        GroupNorm {
            batch: self.batch,
            channels: self.channels,
            spatial: self.spatial,
            groups: self.groups,
            weight,
            bias,
            epsilon: self.epsilon,
        }
    }
}

impl Step for Groups {
    /// As of rows.
    fn work(&self) -> Work {
        let each = 6 + self.affine.operations();
        Work::floats(&[self.batch, self.channels, self.spatial, each])
    }

    fn scratch(&self, _: usize) -> usize {
        if self.last {
            self.norm(None).scratch_len() * size_of::<f32>()
        } else {
            0
        }
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let norm = self.norm(Some(&io));
        let (x, out) = (io.input(0), io.output(0));
        match self.last {
            true => norm.run_nhwc(Isa::best(), pool, x, out, io.scratch()),
            false => norm.run_nchw(Isa::best(), pool, x, out),
        }
        Ok(())
    }
}

impl Step for Soft {
    /// Per element: the largest, a difference, the exponential, the sum, and the product or the second difference.
    fn work(&self) -> Work {
        Work::floats(&[self.elements, 5])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let softmax = Softmax {
            columns: self.columns,
            scale: 1.0,
            mask: None,
            log: self.log,
        };
        softmax.run(Isa::best(), pool, io.input(0), io.output(0));
        Ok(())
    }
}
