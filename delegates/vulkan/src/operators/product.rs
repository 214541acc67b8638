//! The engine of all matrix products: `out[z] = alpha * a[z] · b[z] + beta * c[z]` for operands of any steps, and the choice of a kernel.
//!
//! The choice follows from shapes, steps and the kind of device, never from timings of a driver that computes on the processor: these pay for
//! barriers what no graphics processor does.

use crate::codes::code;
use crate::encoder::{Encoder, Finish, grid, read, write};
use crate::facts::{Facts, Kind};
use crate::kernels::{self, Kernel};
use crate::tensor::Tensor;
use delegraph_sdk::{DType, Error};

/// Words of parameters before the links of `finish()`: `include/product.wgsl`.
pub const LINKS: usize = 44;

/// An operand, and how its elements are found.
#[derive(Debug, Clone)]
pub struct Side {
    /// Where it lies.
    pub tensor: Tensor,
    /// The first element.
    pub base: u32,
    /// From a row to the next: of `b` a step of k.
    pub row: u32,
    /// From a column to the next: of `a` a step of k.
    pub column: u32,
}

/// A batch dimension: its size, and the steps of `a`, `b` and `c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Size.
    pub size: u32,
    /// Steps.
    pub steps: [u32; 3],
}

/// The same batches in as few dimensions as their steps allow.
pub fn join(dims: &[Batch]) -> Vec<Batch> {
    let mut joined: Vec<Batch> = Vec::with_capacity(dims.len());
    for dim in dims.iter().filter(|dim| dim.size != 1) {
        match joined.last_mut() {
            Some(outer) if (0..3).all(|i| outer.steps[i] == dim.steps[i].wrapping_mul(dim.size)) => {
                outer.size *= dim.size;
                outer.steps = dim.steps;
            }
            _ => joined.push(*dim),
        }
    }
    joined
}

/// A product.
#[derive(Debug, Clone)]
pub struct Product {
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Terms of a sum.
    pub k: u32,
    /// The outermost first.
    pub batch: Vec<Batch>,
    /// First factor.
    pub a: Side,
    /// Second factor.
    pub b: Side,
    /// Factor of the product.
    pub alpha: f32,
    /// What is added, and its factor.
    pub addend: Option<(Side, f32)>,
}

impl Product {
    /// The steps of `c` in batches are those that [`Batch::steps`] says third.
    fn simplify(&mut self) {
        let mut batch = join(&self.batch);
        // Batches that share `b` are rows of one matrix.
        if let Some(last) = batch.last().copied() {
            let c_row = self.addend.as_ref().map_or(0, |(c, _)| c.row);
            let follows = |step: u32, row: u32| step == row.wrapping_mul(self.m) || self.m == 1;
            if last.steps[1] == 0 && follows(last.steps[0], self.a.row) && follows(last.steps[2], c_row) {
                if self.m == 1 {
                    self.a.row = last.steps[0];
                    if let Some((c, _)) = &mut self.addend {
                        c.row = last.steps[2];
                    }
                }
                self.m *= last.size;
                batch.pop();
            }
        }
        self.batch = batch;
    }

    /// The parameters, for the innermost three batch dimensions.
    fn params(&self, inner: &[Batch], bases: [u32; 4], n: u32, out: &Tensor) -> Result<Vec<u32>, Error> {
        let mut sizes = [1u32; 3];
        let mut steps = [[0u32; 3]; 3];
        let first = 3 - inner.len();
        for (i, dim) in inner.iter().enumerate() {
            sizes[first + i] = dim.size;
            for (side, of) in steps.iter_mut().enumerate() {
                of[first + i] = dim.steps[side];
            }
        }
        let number = |dtype: DType| code(dtype).ok_or_else(|| Error::internal(format!("a product of {dtype}")));
        let (c, beta) = match &self.addend {
            Some((c, beta)) => (Some(c), *beta),
            None => (None, 0.0),
        };
        let codes = number(self.a.tensor.dtype)?
            | number(self.b.tensor.dtype)? << 8
            | c.map_or(Ok(0), |c| number(c.tensor.dtype))? << 16
            | number(out.dtype)? << 24;
        let mut params = vec![self.m, n, self.k, sizes[1], sizes[2], sizes.iter().product()];
        params.extend([self.alpha.to_bits(), beta.to_bits(), u32::from(c.is_some()), codes]);
        params.extend([bases[0], self.a.row, self.a.column]);
        params.extend(steps[0]);
        params.extend([bases[1], self.b.row, self.b.column]);
        params.extend(steps[1]);
        params.extend([bases[2], c.map_or(0, |c| c.row), c.map_or(0, |c| c.column)]);
        params.extend(steps[2]);
        params.extend([bases[3], self.n, self.m * self.n]);
        params.resize(LINKS, 0);
        Ok(params)
    }

    /// True if all that a vector of four begins at is a multiple of 4.
    fn aligned(&self, inner: &[Batch], bases: [u32; 4]) -> bool {
        self.k.is_multiple_of(4)
            && self.a.column == 1
            && (self.a.row.is_multiple_of(4) || self.m == 1)
            && bases[0].is_multiple_of(4)
            && bases[1].is_multiple_of(4)
            && inner
                .iter()
                .all(|dim| dim.steps[0].is_multiple_of(4) && dim.steps[1].is_multiple_of(4))
    }

    /// Rows of `b` along k, as `nt` kernels read it.
    fn b_along_k(&self) -> bool {
        self.b.row == 1 && (self.b.column.is_multiple_of(4) || self.n == 1)
    }

    /// Rows of `b` along n, as `nn` kernels read it.
    fn b_along_n(&self) -> bool {
        self.b.column == 1 && self.b.row.is_multiple_of(4) && self.n.is_multiple_of(4)
    }
}

/// A kernel, and how many elements of a row and of a column a group of invocations makes.
struct Choice {
    kernel: &'static Kernel,
    /// Invocations that make one tile.
    lanes: u32,
    tile: [u32; 2],
}

/// True for devices whose barriers and shared memory cost little.
pub fn is_wide(facts: &Facts) -> bool {
    matches!(facts.kind, Kind::Discrete | Kind::Integrated | Kind::Virtual)
}

fn choose(facts: &Facts, product: &Product, inner: &[Batch], bases: [u32; 4]) -> Result<Choice, Error> {
    let (a, b) = (product.a.tensor.dtype, product.b.tensor.dtype);
    let pair = match (a, b) {
        (DType::F32, DType::F32) => Some(0),
        (DType::F16, DType::F16) => Some(1),
        _ => None,
    };
    let registers = |kernel, rows| {
        Ok(Choice {
            kernel,
            lanes: 1,
            tile: [rows, 4],
        })
    };
    let vectors = product.aligned(inner, bases);
    let few = product.m <= 4;
    if is_wide(facts) && !few && product.n >= 16 && product.k >= 16 {
        let kernel = match pair {
            Some(0) => &kernels::GEMM_TILE_F32,
            Some(_) => &kernels::GEMM_TILE_F16,
            None => &kernels::GEMM_TILE_CODE,
        };
        return Ok(Choice {
            kernel,
            lanes: 64,
            tile: [64, 64],
        });
    }
    if let Some(pair) = pair {
        let of = |kernels: [&'static Kernel; 2]| kernels[pair];
        if is_wide(facts) && few && vectors && product.b_along_k() && product.k >= 64 {
            let best = of([&kernels::GEMV_F32_SUBGROUP, &kernels::GEMV_F16_SUBGROUP]);
            return Ok(Choice {
                kernel: facts.pick(&[best, of([&kernels::GEMV_F32, &kernels::GEMV_F16])])?,
                lanes: 64,
                tile: [1, 4],
            });
        }
        if vectors && product.b_along_k() {
            return match product.m {
                1 => registers(of([&kernels::GEMM_ROW_F32, &kernels::GEMM_ROW_F16]), 1),
                _ => registers(of([&kernels::GEMM_NT_F32, &kernels::GEMM_NT_F16]), 4),
            };
        }
        if vectors && product.b_along_n() {
            return registers(of([&kernels::GEMM_NN_F32, &kernels::GEMM_NN_F16]), 4);
        }
        if pair == 0 {
            return registers(&kernels::GEMM_ANY_F32, 4);
        }
    }
    registers(&kernels::GEMM_ANY_CODE, 4)
}

/// Adds the dispatches of a product; its result lies row-major, batches one after the other.
///
/// # Errors
/// An operand that no device binds at once.
pub fn encode(e: &mut Encoder<'_>, mut product: Product, finish: &Finish) -> Result<(), Error> {
    let out = &finish.out;
    if out.count() == 0 {
        return Ok(());
    }
    product.simplify();
    if product.batch.len() > 3 {
        return Err(Error::unsupported(format!(
            "a product over {} batch dimensions that do not join",
            product.batch.len()
        )));
    }
    let inner = product.batch.clone();
    let c_base = product.addend.as_ref().map_or(0, |(c, _)| c.base);
    let bases = [product.a.base, product.b.base, c_base, 0];
    match out.element() < 4 && product.n % 2 == 1 {
        true => flat(e, &product, &inner, bases, finish),
        false => tiled(e, &product, &inner, bases, finish),
    }
}

/// By one of the kernels that make tiles; `b` in parts where it is larger than what a device binds.
fn tiled(
    e: &mut Encoder<'_>,
    product: &Product,
    inner: &[Batch],
    bases: [u32; 4],
    finish: &Finish,
) -> Result<(), Error> {
    let batches: u32 = inner.iter().map(|dim| dim.size).product();
    let choice = choose(e.facts(), product, inner, bases)?;
    let element = u64::from(product.b.tensor.element());
    let range = e.facts().limits.storage_range;
    let bytes = product.b.tensor.bytes();
    let parted = bytes > range && product.b.row == 1 && product.b.base == 0 && inner.iter().all(|d| d.steps[1] == 0);
    // Columns of a part: so many that parts begin at a multiple of 256 bytes.
    let width = match parted {
        true => {
            let column = u64::from(product.b.column) * element;
            let columns = (range / column.max(1)) as u32 / 256 * 256;
            columns.max(256)
        }
        false => product.n,
    };
    let (c, out) = (product.addend.as_ref().map(|(c, _)| &c.tensor), &finish.out);
    let mut first = 0;
    while first < product.n {
        let columns = width.min(product.n - first);
        let mut at = bases;
        at[2] += first * product.addend.as_ref().map_or(0, |(c, _)| c.column);
        at[3] += first;
        let mut b = read(&product.b.tensor);
        if parted {
            let column = u64::from(product.b.column) * element;
            b = b.part(u64::from(first) * column, u64::from(columns) * column);
        }
        let mut params = product.params(inner, at, columns, out)?;
        params[31] = u32::from(product.a.column == 1) | u32::from(product.b.row == 1) << 1;
        params.extend_from_slice(&finish.links);
        let [rows, wide] = choice.tile;
        let tiles = checked(&[product.m.div_ceil(rows), columns.div_ceil(wide), batches, choice.lanes])?;
        let operands = [
            read(&product.a.tensor),
            b,
            read(c.unwrap_or(&finish.extra[0])),
            read(&finish.extra[0]),
            read(&finish.extra[1]),
            write(out),
        ];
        e.dispatch(choice.kernel, &operands, &params, grid(tiles, 64))?;
        first += columns;
    }
    Ok(())
}

/// One word of the result an invocation: rows of an odd number of narrow elements share words.
fn flat(
    e: &mut Encoder<'_>,
    product: &Product,
    inner: &[Batch],
    bases: [u32; 4],
    finish: &Finish,
) -> Result<(), Error> {
    let mut params = product.params(inner, bases, product.n, &finish.out)?;
    params[31] = 1f32.to_bits();
    params[33] = product.k.max(1);
    params.extend_from_slice(&finish.links);
    let operands = [
        read(&product.a.tensor),
        read(&product.b.tensor),
        read(&finish.extra[0]),
        read(&finish.extra[0]),
        read(product.addend.as_ref().map_or(&finish.extra[0], |(c, _)| &c.tensor)),
        read(&finish.extra[0]),
        read(&finish.extra[1]),
        write(&finish.out),
    ];
    let batches: u32 = inner.iter().map(|dim| dim.size).product();
    let count = checked(&[product.m, product.n, batches])?;
    let words = (u64::from(count) * u64::from(finish.out.element())).div_ceil(4) as u32;
    e.dispatch(&kernels::GEMM_FLAT, &operands, &params, grid(words, 64))
}

/// A number of invocations.
///
/// # Errors
/// More than kernels count.
pub fn checked(factors: &[u32]) -> Result<u32, Error> {
    let all = factors
        .iter()
        .try_fold(1u64, |product, f| product.checked_mul(u64::from(*f)));
    all.filter(|all| *all <= i32::MAX as u64)
        .map(|all| all as u32)
        .ok_or_else(|| Error::unsupported("a product of more tiles than kernels count"))
}

#[cfg(test)]
#[path = "product_tests.rs"]
mod tests;
