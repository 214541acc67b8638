//! What element-wise operators share: apply a function to elements that were broadcast together.

use crate::call::{Call, Operand};
use crate::tensor::{Data, Tensor, room};
use crate::walk::{broadcast, expanded};
use delegraph_sdk::Error;

/// A function of the elements of one tensor, in the class of the output's dtype.
pub fn map(
    call: &Call<'_>,
    x: &Tensor,
    float: impl Fn(f64) -> f64,
    int: impl Fn(i64) -> i64,
) -> Result<Vec<Tensor>, Error> {
    let data = if call.out_dtype(0)?.is_float() {
        Data::Float(x.to_floats().into_iter().map(float).collect())
    } else {
        Data::Int(x.to_ints().into_iter().map(int).collect())
    };
    call.one(x.sizes().to_vec(), data)
}

/// A function of the elements of one tensor as floats.
pub fn map_floats(call: &Call<'_>, float: impl Fn(f64) -> f64) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    let data = x.to_floats().into_iter().map(float).collect();
    call.one(x.sizes().to_vec(), Data::Float(data))
}

/// Broadcasts two lists and applies a function to each pair.
pub fn zip<A: Copy, B: Copy, R>(
    (a, a_sizes): (&[A], &[usize]),
    (b, b_sizes): (&[B], &[usize]),
    f: impl Fn(A, B) -> R,
) -> Result<(Vec<usize>, Vec<R>), Error> {
    let sizes = broadcast(&[a_sizes, b_sizes])?;
    let mut made = room(crate::tensor::count(&sizes)?)?;
    // The usual case: a number, or a tensor without dimensions, with a tensor.
    if b.len() == 1 && a_sizes == sizes {
        made.extend(a.iter().map(|a| f(*a, b[0])));
    } else {
        let (a, b) = (expanded(a, a_sizes, &sizes)?, expanded(b, b_sizes, &sizes)?);
        made.extend(a.iter().zip(b.iter()).map(|(a, b)| f(*a, *b)));
    }
    Ok((sizes, made))
}

/// A function of pairs of elements, in the class of the output's dtype. An integer function may refuse a pair.
pub fn zip_class(
    call: &Call<'_>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    float: impl Fn(f64, f64) -> f64,
    int: impl Fn(i64, i64) -> Option<i64>,
) -> Result<Vec<Tensor>, Error> {
    let (a, b) = (&a.tensor, &b.tensor);
    let (sizes, data) = if call.out_dtype(0)?.is_float() {
        let (a_values, b_values) = (a.to_floats(), b.to_floats());
        let (sizes, made) = zip((&a_values, a.sizes()), (&b_values, b.sizes()), float)?;
        (sizes, Data::Float(made))
    } else {
        let (a_values, b_values) = (a.to_ints(), b.to_ints());
        let (sizes, made) = zip((&a_values, a.sizes()), (&b_values, b.sizes()), int)?;
        let made: Option<Vec<i64>> = made.into_iter().collect();
        let made = made.ok_or_else(|| Error::invalid("an integer is divided by zero, or overflows"))?;
        (sizes, Data::Int(made))
    };
    call.one(sizes, data)
}

/// The elements of a tensor repeated to sizes, as floats.
pub fn spread_floats(x: &Tensor, sizes: &[usize]) -> Result<Vec<f64>, Error> {
    Ok(expanded(&x.to_floats(), x.sizes(), sizes)?.into_owned())
}

/// The elements of a tensor repeated to sizes, as integers.
pub fn spread_ints(x: &Tensor, sizes: &[usize]) -> Result<Vec<i64>, Error> {
    Ok(expanded(&x.to_ints(), x.sizes(), sizes)?.into_owned())
}

/// The elements of a tensor repeated to sizes, as truth values.
pub fn spread_bools(x: &Tensor, sizes: &[usize]) -> Result<Vec<bool>, Error> {
    Ok(expanded(&x.to_bools(), x.sizes(), sizes)?.into_owned())
}
