//! Products with weights of 4 and 8 bits, and tables of them.

use super::linear::Ends;
use super::{Step, Work, activation};
use crate::plan::Shapes;
use crate::sys::Io;
use crate::threads::Count;
use delegraph_cpu_kernels::quant::Dot;
use delegraph_cpu_kernels::quant::dynamic::{Extent, Formula, Scheme};
use delegraph_cpu_kernels::quant::embedding::{self, Code, Table};
use delegraph_cpu_kernels::quant::q4::{self, Precision, Width};
use delegraph_cpu_kernels::quant::static8::{self, Bias, Stage};
use delegraph_cpu_kernels::quant::weight_only::{self, Bits, Values};
use delegraph_cpu_kernels::{Activation, Isa, Pool};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};

/// `cpu::linear_quantized(x, packed, bias?, residual?, kind, inputs, outputs, group, width, halves, zeros, formula, extent, eps, low, function, number,
/// number, residual_last)`: `kind` is `q4` (activations of 8 bits, see [`scheme_args`]), `w4`, `w8` or `w2` (activations stay floats).
pub const LINEAR: &str = "cpu::linear_quantized";
/// `cpu::linear_rows(x, packed, scales, bias?, zeros?, formula, extent, eps, low, function, number, number)`: rows of floats that are made bytes, see
/// [`scheme_args`], by weights of 8 bits with a scale and a zero point for each output.
pub const ROWS: &str = "cpu::linear_rows";
/// `cpu::embedding(indices, bytes, scales, zeros?, code, group)`
pub const EMBEDDING: &str = "cpu::embedding";
/// `cpu::embedding_packed(indices, packed, columns, rows, group, width, halves, zeros)`: rows of a matrix that is packed for [`LINEAR`].
pub const PACKED_EMBEDDING: &str = "cpu::embedding_packed";
/// The argument of the bias of [`LINEAR`]; the residual follows.
pub const BIAS: usize = 2;
/// The first argument of the scheme of [`LINEAR`].
const SCHEME: usize = 11;
/// The argument of the function's word of [`LINEAR`].
pub const FUNCTION: usize = SCHEME + 4;
/// The argument of the bias of [`ROWS`].
pub const ROWS_BIAS: usize = 3;
/// The argument of the function's word of [`ROWS`].
pub const ROWS_FUNCTION: usize = 9;

/// How floats become bytes, as arguments of a node: the formula's word, `row` or `tensor` for what has a scale of its own, the least scale, the least
/// number.
pub fn scheme_args(scheme: Scheme) -> [Arg; 4] {
    let (word, eps, low) = match scheme.formula {
        Formula::AffineAsymmetric { eps } => ("asymmetric", eps, -128),
        Formula::AffineSymmetric { eps, low } => ("symmetric", eps, low),
        Formula::TokenAsymmetric { wide: true } => ("token_wide", 0.0, -128),
        Formula::TokenAsymmetric { wide: false } => ("token", 0.0, -128),
        Formula::TokenSymmetric => ("token_symmetric", 0.0, -128),
    };
    let extent = match scheme.extent {
        Extent::Row => "row",
        Extent::Tensor => "tensor",
    };
    [
        Arg::Str(word.to_string()),
        Arg::Str(extent.to_string()),
        Arg::Float(f64::from(eps)),
        Arg::Int(i64::from(low)),
    ]
}

/// Whether a scheme of [`LINEAR`] from an argument on is one of a blob of version 2: the formula's word and the least scale.
fn is_short(node: &Arguments<'_>, at: usize) -> bool {
    node.str(at + 1).is_err()
}

/// The scheme of a blob of version 2, by its least scale: the only one that there was.
fn short_scheme(eps: f64) -> Scheme {
    Scheme::rows(Formula::AffineAsymmetric { eps: eps as f32 })
}

/// What [`scheme_args`] wrote from an argument on.
///
/// # Errors
/// It is something else.
pub fn scheme(node: &Arguments<'_>, at: usize) -> Result<Scheme, Error> {
    let eps = node.float(at + 2)? as f32;
    let formula = match (node.str(at)?, node.int(at + 3)?) {
        ("asymmetric", _) => Formula::AffineAsymmetric { eps },
        ("symmetric", low @ (-128 | -127)) => Formula::AffineSymmetric { eps, low: low as i8 },
        ("token_wide", _) => Formula::TokenAsymmetric { wide: true },
        ("token", _) => Formula::TokenAsymmetric { wide: false },
        ("token_symmetric", _) => Formula::TokenSymmetric,
        _ => return Err(node.misfit(at, "a formula of scales")),
    };
    match node.str(at + 1)? {
        "row" => Ok(Scheme::rows(formula)),
        "tensor" => Ok(Scheme::tensor(formula)),
        _ => Err(node.misfit(at + 1, "what has a scale")),
    }
}

/// A layout as arguments of a node say it: inputs, outputs, group, width, halves, zeros.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Numbers of a row of activations.
    pub inputs: usize,
    /// Numbers of a row of results.
    pub outputs: usize,
    /// Inputs of one scale.
    pub group: usize,
    /// Outputs of a panel of 4 bits.
    pub width: usize,
    /// Scales are halves.
    pub halves: bool,
    /// Groups have zero points.
    pub zeros: bool,
}

impl Layout {
    /// Of the arguments from `at` on.
    fn read(node: &Arguments<'_>, at: usize) -> Result<Layout, Error> {
        let layout = Layout {
            inputs: node.natural(at)?,
            outputs: node.natural(at + 1)?,
            group: node.natural(at + 2)?,
            width: node.natural(at + 3)?,
            halves: node.bool(at + 4)?,
            zeros: node.bool(at + 5)?,
        };
        // Products of these have to fit a size.
        let small = [layout.inputs, layout.outputs, layout.group]
            .iter()
            .all(|x| *x < 1 << 30);
        match small && layout.group > 0 && matches!(layout.width, 8 | 16) {
            true => Ok(layout),
            false => Err(Error::corrupt("sizes of packed weights are not right")),
        }
    }

    fn precision(&self) -> Precision {
        if self.halves { Precision::F16 } else { Precision::F32 }
    }

    fn four(&self) -> q4::Shape {
        q4::Shape {
            inputs: self.inputs,
            outputs: self.outputs,
            group: self.group,
            width: if self.width == 8 { Width::Eight } else { Width::Sixteen },
            precision: self.precision(),
            zeros: self.zeros,
        }
    }

    fn plain(&self, bits: Bits) -> weight_only::Shape {
        weight_only::Shape {
            inputs: self.inputs,
            outputs: self.outputs,
            group: self.group,
            bits,
            precision: self.precision(),
            zeros: self.zeros,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Activations are quantized by this.
    Dynamic(Scheme),
    Four,
    /// Weights of 8 or 2 bits.
    Plain(Bits),
}

struct Linear {
    kind: Kind,
    rows: usize,
    layout: Layout,
    ends: Ends,
}

/// Makes the step of [`LINEAR`].
///
/// # Errors
/// Arguments that do not fit.
pub fn linear(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let layout = Layout::read(node, 5)?;
    let short = is_short(node, SCHEME);
    let kind = match node.str(4)? {
        "q4" if short && node.str(SCHEME)? == "asymmetric" => Kind::Dynamic(short_scheme(node.float(SCHEME + 1)?)),
        "q4" => Kind::Dynamic(scheme(node, SCHEME)?),
        "w4" => Kind::Four,
        "w8" => Kind::Plain(Bits::Eight),
        "w2" => Kind::Plain(Bits::Two),
        _ => return Err(node.misfit(4, "a kind of weights")),
    };
    let x = shapes.of(node.value(0)?);
    let rows: usize = x.iter().rev().skip(1).product();
    let floats = [node.value(0)?, node.output(0)?].map(|value| shapes.dtype(value) == DType::F32);
    let fits = floats == [true; 2]
        && x.last() == Some(&layout.inputs)
        && shapes.count(node.output(0)?) == rows * layout.outputs;
    let linear = Linear {
        kind,
        rows,
        layout,
        ends: Ends::read(node, BIAS, if short { SCHEME + 2 } else { FUNCTION })?,
    };
    let bytes = shapes.bytes(node.value(1)?);
    let need = match kind {
        Kind::Plain(bits) => layout.plain(bits).packed_len(),
        _ => layout.four().packed_len(),
    };
    match fits
        && bytes == need
        && layout
            .group
            .is_multiple_of(if matches!(kind, Kind::Plain(_)) { 16 } else { 32 })
    {
        true => Ok(Box::new(linear)),
        false => Err(Error::corrupt(format!("packed weights do not fit {layout:?}"))),
    }
}

impl Linear {
    fn weights<'a>(&self, bytes: &'a [u8]) -> Result<weight_only::Weights<'a>, Error> {
        let made = match self.kind {
            Kind::Plain(bits) => Values::new(self.layout.plain(bits), bytes).map(weight_only::Weights::Values),
            _ => q4::Weights::new(self.layout.four(), bytes).map(weight_only::Weights::Four),
        };
        made.ok_or_else(|| Error::corrupt("packed weights are too few"))
    }
}

impl Step for Linear {
    fn work(&self) -> Work {
        let counts = [2, self.rows, self.layout.inputs, self.layout.outputs];
        match self.kind {
            Kind::Dynamic(_) => Work::bytes(&counts),
            Kind::Four | Kind::Plain(_) => Work::floats(&counts),
        }
    }

    fn scratch(&self, threads: usize) -> usize {
        let floats = match self.kind {
            Kind::Dynamic(_) => self.layout.four().scratch_len(self.rows),
            _ => weight_only::scratch_len_of(self.layout.inputs, self.rows, &Count(threads)),
        };
        floats * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let epilogue = self.ends.epilogue(&io, 2);
        let bytes = io.bytes(1);
        let (x, out, scratch) = (io.input(0), io.output(0), io.scratch());
        match self.kind {
            Kind::Dynamic(scheme) => {
                let weights = q4::Weights::new(self.layout.four(), bytes);
                let weights = weights.ok_or_else(|| Error::corrupt("packed weights are too few"))?;
                q4::linear(
                    Dot::best(),
                    pool,
                    scheme,
                    x,
                    self.rows,
                    &weights,
                    &epilogue,
                    scratch,
                    out,
                );
            }
            _ => weight_only::linear(
                Isa::best(),
                pool,
                x,
                self.rows,
                &self.weights(bytes)?,
                &epilogue,
                scratch,
                out,
            ),
        }
        Ok(())
    }
}

struct Rows {
    rows: usize,
    shape: static8::Shape,
    scheme: Scheme,
    bias: bool,
    zeros: bool,
    activation: Activation,
}

/// Makes the step of [`ROWS`].
///
/// # Errors
/// Arguments that do not fit.
pub fn rows(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let (x, out) = (shapes.of(node.value(0)?), shapes.of(node.output(0)?));
    let (Some(&inputs), Some(&outputs)) = (x.last(), out.last()) else {
        return Err(node.misfit(0, "rows"));
    };
    let shape = static8::Shape { inputs, outputs };
    let rows: usize = x.iter().rev().skip(1).product();
    let each = |at: usize, dtype: DType| -> Result<bool, Error> {
        let fits = |value| shapes.count(value) == outputs && shapes.dtype(value) == dtype;
        Ok(node.optional_value(at)?.is_none_or(fits))
    };
    let floats = [node.value(0)?, node.output(0)?].map(|value| shapes.dtype(value) == DType::F32);
    let fits = floats == [true; 2]
        && shapes.count(node.output(0)?) == rows * outputs
        && shapes.bytes(node.value(1)?) == shape.packed_len()
        && each(2, DType::F32)?
        && each(3, DType::F32)?
        && each(4, DType::I32)?;
    // In a blob of version 2, the least scale is all that follows.
    let (scheme, activation) = match node.float(5) {
        Ok(eps) => (short_scheme(eps), Activation::None),
        Err(_) => (scheme(node, 5)?, activation(node, ROWS_FUNCTION)?),
    };
    match fits {
        true => Ok(Box::new(Rows {
            rows,
            shape,
            scheme,
            bias: !node.is_none(ROWS_BIAS),
            zeros: !node.is_none(4),
            activation,
        })),
        false => Err(Error::corrupt("packed bytes do not fit")),
    }
}

impl Step for Rows {
    fn work(&self) -> Work {
        Work::bytes(&[2, self.rows, self.shape.inputs, self.shape.outputs])
    }

    fn scratch(&self, threads: usize) -> usize {
        static8::linear_dynamic_scratch_len(self.shape.inputs, self.rows, &Count(threads)) * size_of::<f32>()
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let weights = static8::Weights::new(self.shape, io.bytes(1));
        let weights = weights.ok_or_else(|| Error::corrupt("packed bytes are too few"))?;
        let stage = Stage {
            multiplier: io.input(2),
            bias: if self.bias {
                Bias::Floats(io.input(3))
            } else {
                Bias::None
            },
            activation: self.activation,
        };
        let zeros: &[i32] = match self.zeros {
            true => io.input(3 + usize::from(self.bias)),
            false => &[],
        };
        let (x, scratch) = (io.input(0), io.scratch());
        static8::linear_dynamic(
            Dot::best(),
            pool,
            self.scheme,
            x,
            self.rows,
            weights,
            zeros,
            &stage,
            scratch,
            &mut static8::Target::F32(io.output(0)),
        );
        Ok(())
    }
}

struct Lookup {
    code: Code,
    rows: usize,
    columns: usize,
    group: usize,
    zeros: bool,
}

/// Makes the step of [`EMBEDDING`].
///
/// # Errors
/// Arguments that do not fit.
pub fn embedding(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let code = match node.str(4)? {
        "i8" => Code::I8,
        "four" => Code::Four,
        _ => return Err(node.misfit(4, "a code")),
    };
    let &[rows, bytes] = shapes.of(node.value(1)?) else {
        return Err(node.misfit(1, "a table"));
    };
    let (columns, group) = (bytes * code.count(), node.natural(5)?);
    let scales = rows * columns.checked_div(group).unwrap_or(0);
    let fits = group > 0
        && columns.is_multiple_of(group)
        && shapes.count(node.value(2)?) == scales
        && node
            .optional_value(3)?
            .is_none_or(|zeros| shapes.count(zeros) == scales)
        && shapes.count(node.output(0)?) == shapes.count(node.value(0)?) * columns;
    match fits {
        true => Ok(Box::new(Lookup {
            code,
            rows,
            columns,
            group,
            zeros: !node.is_none(3),
        })),
        false => Err(Error::corrupt("the sizes of an embedding do not fit")),
    }
}

impl Step for Lookup {
    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let zeros = self.zeros.then(|| io.input(3));
        let table = Table::new(
            self.code,
            self.rows,
            self.columns,
            self.group,
            io.bytes(1),
            io.input(2),
            zeros,
        );
        let table = table.ok_or_else(|| Error::corrupt("a table is too short"))?;
        let indices: &[i64] = io.input(0);
        embedding::lookup(Isa::best(), pool, &table, indices, io.output(0))
            .map_err(|place| Error::invalid(format!("index {} is not below {}", indices[place], self.rows)))
    }
}

struct PackedLookup(Layout);

/// Makes the step of [`PACKED_EMBEDDING`].
///
/// # Errors
/// Arguments that do not fit.
pub fn packed_embedding(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let layout = Layout::read(node, 2)?;
    let fits = shapes.bytes(node.value(1)?) == layout.four().packed_len()
        && (shapes.dtype(node.value(0)?), shapes.dtype(node.output(0)?)) == (DType::I64, DType::F32)
        && layout.group.is_multiple_of(32)
        && shapes.count(node.output(0)?) == shapes.count(node.value(0)?) * layout.inputs;
    match fits {
        true => Ok(Box::new(PackedLookup(layout))),
        false => Err(Error::corrupt(format!("packed weights do not fit {layout:?}"))),
    }
}

impl Step for PackedLookup {
    fn run(&self, io: Io<'_>, _: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let PackedLookup(layout) = self;
        let weights = q4::Weights::new(layout.four(), io.bytes(1));
        let weights = weights.ok_or_else(|| Error::corrupt("packed weights are too few"))?;
        let indices: &[i64] = io.input(0);
        let row = |index: i64| usize::try_from(index).ok().filter(|row| *row < layout.outputs);
        if let Some(index) = indices.iter().find(|index| row(**index).is_none()) {
            return Err(Error::invalid(format!("index {index} is not below {}", layout.outputs)));
        }
        let out: &mut [f32] = io.output(0);
        let rows = out.chunks_exact_mut(layout.inputs.max(1));
        for (out, index) in rows.zip(indices.iter().filter_map(|index| row(*index))) {
            weights.row(index, out);
        }
        Ok(())
    }
}
