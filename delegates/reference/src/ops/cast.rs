//! Other element types.

use super::view::same;
use crate::call::Call;
use crate::caps::{Operator, anything, op};
use crate::tensor::Tensor;
use delegraph_sdk::Error;

/// The output's dtype is in the image.
fn cast(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    if x.dtype() == call.out_dtype(0)? {
        return same(call);
    }
    Ok(vec![x.to(call.out_dtype(0)?)?])
}

/// A tensor in the sizes and of the dtype of another.
fn copy(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let (like, x) = (call.tensor(0)?, call.tensor(1)?);
    let strides = crate::walk::broadcast_strides(x.sizes(), like.sizes())?;
    let expanded = super::view::strided(x, like.sizes().to_vec(), &strides, 0)?;
    Ok(vec![expanded.to(call.out_dtype(0)?)?])
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::_to_copy", "Tensor dtype? any any any any any", anything, cast),
    op("aten::to.dtype", "Tensor dtype any any any", anything, cast),
    op(
        "aten::to.dtype_layout",
        "Tensor dtype? any any any any any any",
        anything,
        cast,
    ),
    op("aten::to.device", "Tensor any dtype any any any", anything, cast),
    op("aten::type_as", "Tensor Tensor", anything, cast),
    op("aten::copy", "Tensor Tensor any", anything, copy),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives};
    use delegraph_sdk::DType;
    use delegraph_sdk::image::Arg;

    #[test]
    fn floats_are_cut_off() {
        let x = f32s(&[2], &[1.75, -1.75]);
        let items = [
            (&x).into(),
            Arg::DType(DType::I8).into(),
            Arg::None.into(),
            Arg::None.into(),
            Arg::None.into(),
        ];
        gives(
            "aten::to.dtype",
            &items,
            &[f32s(&[2], &[1.0, -1.0]).to(DType::I8).unwrap()],
        );
    }
}
