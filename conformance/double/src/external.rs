//! Tensors of a run where a handle's map has them: what the host sees of them is not looked at.

use super::mapping::Mapping;
use delegraph_sdk::{Error, Imported, TensorOut, TensorView};

/// Calls `run` with tensors whose bytes are those of the map that their buffer is of, as `mapping` tells it from the offset in the buffer.
///
/// # Errors
/// A tensor does not lie in its buffer, or what `run` gives.
pub fn in_place(
    inputs: &[TensorView<'_>],
    outputs: &mut [TensorOut<'_>],
    mapping: impl for<'m> Fn(&Imported<'m>) -> Result<Option<(&'m Mapping, u64)>, Error>,
    run: impl FnOnce(&[TensorView<'_>], &mut [TensorOut<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    let outside = || Error::invalid("a tensor does not lie in its buffer");
    let mut views = Vec::with_capacity(inputs.len());
    for input in inputs {
        let found = match &input.buffer {
            Some(buffer) => mapping(buffer)?,
            None => None,
        };
        views.push(match found {
            Some((map, offset)) => {
                let bytes = map.read(offset, input.bytes.len()).ok_or_else(outside)?;
                TensorView::new(input.dtype, input.sizes, bytes)
            }
            None => *input,
        });
    }
    let mut rooms = Vec::with_capacity(outputs.len());
    for output in outputs.iter_mut() {
        let found = match &output.buffer {
            Some(buffer) => mapping(buffer)?,
            None => None,
        };
        let buffer = output.buffer;
        let mut room = match found {
            Some((map, offset)) => {
                let bytes = map.write(offset, output.bytes.len()).ok_or_else(outside)?;
                TensorOut::new(output.dtype, output.sizes, bytes)
            }
            None => TensorOut::new(output.dtype, output.sizes, output.bytes),
        };
        if found.is_none() {
            room.buffer = buffer;
        }
        rooms.push(room);
    }
    run(&views, &mut rooms)
}
