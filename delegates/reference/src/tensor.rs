//! The tensor that everything is computed with: owned, row-major, in `f64` or `i64`.

use crate::number::{BF16, F16, is_stored, round, wrap};
use delegraph_sdk::{DType, Error, Status, TensorOut};

/// Elements, by class.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Of every float type; each is a value that the type has.
    Float(Vec<f64>),
    /// Of every integer type, and bool as 0 and 1.
    Int(Vec<i64>),
}

/// A tensor. [`Tensor::new`] is the only way to make one, so that values always fit the dtype, and counts the sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    sizes: Vec<usize>,
    data: Data,
}

/// The number of elements of sizes.
///
/// # Errors
/// More than memory can be.
pub fn count(sizes: &[usize]) -> Result<usize, Error> {
    // An empty tensor is empty however large its other sizes are.
    if sizes.contains(&0) {
        return Ok(0);
    }
    sizes
        .iter()
        .try_fold(1usize, |total, size| total.checked_mul(*size))
        .filter(|total| *total <= isize::MAX as usize / 8)
        .ok_or_else(|| {
            Error::new(
                Status::OUT_OF_MEMORY,
                format!("a tensor of sizes {sizes:?} is too large"),
            )
        })
}

/// An empty list with room. Sizes come from outside: too much is an error, and not the end of the process.
///
/// # Errors
/// No memory.
pub fn room<T>(items: usize) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    list.try_reserve_exact(items)
        .map_err(|_| Error::new(Status::OUT_OF_MEMORY, format!("no memory for {items} elements")))?;
    Ok(list)
}

/// A list of one value.
///
/// # Errors
/// No memory.
pub fn filled<T: Clone>(items: usize, value: T) -> Result<Vec<T>, Error> {
    let mut list = room(items)?;
    list.resize(items, value);
    Ok(list)
}

impl Tensor {
    /// A tensor of values, which are rounded or wrapped to the dtype.
    ///
    /// # Errors
    /// The number of values is not that of the sizes, or the dtype is not computed with.
    pub fn new(dtype: DType, sizes: Vec<usize>, data: Data) -> Result<Tensor, Error> {
        let len = match &data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
        };
        if !is_stored(dtype) || count(&sizes)? != len {
            return Err(Error::internal(format!("{len} values do not make {dtype}{sizes:?}")));
        }
        let data = match (data, dtype.is_float()) {
            (Data::Float(mut values), true) => {
                values.iter_mut().for_each(|v| *v = round(dtype, *v));
                Data::Float(values)
            }
            (Data::Int(mut values), false) => {
                values.iter_mut().for_each(|v| *v = wrap(dtype, *v));
                Data::Int(values)
            }
            (Data::Int(values), true) => Data::Float(values.iter().map(|v| round(dtype, *v as f64)).collect()),
            (Data::Float(values), false) if dtype == DType::BOOL => {
                Data::Int(values.iter().map(|v| i64::from(*v != 0.0)).collect())
            }
            (Data::Float(values), false) => Data::Int(values.iter().map(|v| wrap(dtype, *v as i64)).collect()),
        };
        Ok(Tensor { dtype, sizes, data })
    }

    /// A tensor of little-endian bytes.
    ///
    /// # Errors
    /// The number of bytes is not that of the sizes.
    pub fn from_bytes(dtype: DType, sizes: Vec<usize>, bytes: &[u8]) -> Result<Tensor, Error> {
        let width = dtype.size().unwrap_or(1);
        if Some(bytes.len()) != count(&sizes)?.checked_mul(width) {
            return Err(Error::invalid(format!(
                "{} bytes are not {dtype}{sizes:?}",
                bytes.len()
            )));
        }
        fn read<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
            let (items, _) = bytes.as_chunks::<N>();
            let mut values = room(items.len())?;
            values.extend(items.iter().map(|item| convert(*item)));
            Ok(values)
        }
        let data = match dtype {
            DType::F64 => Data::Float(read(bytes, f64::from_le_bytes)?),
            DType::F32 => Data::Float(read(bytes, |b| f64::from(f32::from_le_bytes(b)))?),
            DType::F16 => Data::Float(read(bytes, |b| F16.decode(u16::from_le_bytes(b)))?),
            DType::BF16 => Data::Float(read(bytes, |b| BF16.decode(u16::from_le_bytes(b)))?),
            DType::I64 => Data::Int(read(bytes, i64::from_le_bytes)?),
            DType::I32 => Data::Int(read(bytes, |b| i64::from(i32::from_le_bytes(b)))?),
            DType::I16 => Data::Int(read(bytes, |b| i64::from(i16::from_le_bytes(b)))?),
            // Only where a type is quantized: nothing computes with it as it is.
            DType::U16 => Data::Int(read(bytes, |b| i64::from(u16::from_le_bytes(b)))?),
            DType::I8 => Data::Int(read(bytes, |b| i64::from(i8::from_le_bytes(b)))?),
            DType::U8 => Data::Int(read(bytes, |[b]: [u8; 1]| i64::from(b))?),
            DType::BOOL => Data::Int(read(bytes, |[b]: [u8; 1]| i64::from(b != 0))?),
            _ => return Err(Error::unsupported(format!("tensors of {dtype}"))),
        };
        Ok(Tensor { dtype, sizes, data })
    }

    /// Writes the sizes and the elements to an output of the session.
    ///
    /// # Errors
    /// Another dtype, or no room.
    pub fn write(&self, out: &mut TensorOut<'_>) -> Result<(), Error> {
        if out.dtype != self.dtype {
            let (have, want) = (self.dtype, out.dtype);
            return Err(Error::internal(format!("an output is {have}, its room is for {want}")));
        }
        let sizes: Vec<i64> = self.sizes.iter().map(|s| *s as i64).collect();
        out.set_sizes(&sizes)?;
        fn put<const N: usize, T: Copy>(bytes: &mut [u8], values: &[T], convert: impl Fn(T) -> [u8; N]) -> bool {
            let (items, _) = bytes.as_chunks_mut::<N>();
            let fits = items.len() >= values.len();
            for (item, value) in items.iter_mut().zip(values) {
                *item = convert(*value);
            }
            fits
        }
        let bytes = &mut *out.bytes;
        let fits = match (&self.data, self.dtype) {
            (Data::Float(v), DType::F64) => put(bytes, v, f64::to_le_bytes),
            (Data::Float(v), DType::F16) => put(bytes, v, |x| F16.encode(x).to_le_bytes()),
            (Data::Float(v), DType::BF16) => put(bytes, v, |x| BF16.encode(x).to_le_bytes()),
            (Data::Float(v), _) => put(bytes, v, |x| (x as f32).to_le_bytes()),
            (Data::Int(v), DType::I64) => put(bytes, v, i64::to_le_bytes),
            (Data::Int(v), DType::I32) => put(bytes, v, |x| (x as i32).to_le_bytes()),
            (Data::Int(v), DType::I16 | DType::U16) => put(bytes, v, |x| (x as u16).to_le_bytes()),
            (Data::Int(v), _) => put(bytes, v, |x| [x as u8]),
        };
        match fits {
            true => Ok(()),
            false => Err(Error::new(Status::BUFFER_TOO_SMALL, "an output has too little room")),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements of a tensor of a float type.
    ///
    /// # Errors
    /// It is of another type.
    pub fn floats(&self) -> Result<&[f64], Error> {
        match &self.data {
            Data::Float(values) => Ok(values),
            Data::Int(_) => Err(Error::internal(format!("{} where floats were expected", self.dtype))),
        }
    }

    /// The elements of a tensor of an integer type or bool.
    ///
    /// # Errors
    /// It is of a float type.
    pub fn ints(&self) -> Result<&[i64], Error> {
        match &self.data {
            Data::Int(values) => Ok(values),
            Data::Float(_) => Err(Error::internal(format!("{} where integers were expected", self.dtype))),
        }
    }

    /// The elements as floats, whatever they are.
    pub fn to_floats(&self) -> Vec<f64> {
        match &self.data {
            Data::Float(values) => values.clone(),
            Data::Int(values) => values.iter().map(|v| *v as f64).collect(),
        }
    }

    /// The elements as integers: floats are cut off towards 0.
    pub fn to_ints(&self) -> Vec<i64> {
        match &self.data {
            Data::Float(values) => values.iter().map(|v| *v as i64).collect(),
            Data::Int(values) => values.clone(),
        }
    }

    /// Whether each element is not 0.
    pub fn to_bools(&self) -> Vec<bool> {
        match &self.data {
            Data::Float(values) => values.iter().map(|v| *v != 0.0).collect(),
            Data::Int(values) => values.iter().map(|v| *v != 0).collect(),
        }
    }

    /// Another element type.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn to(&self, dtype: DType) -> Result<Tensor, Error> {
        Tensor::new(dtype, self.sizes.clone(), self.data.clone())
    }

    /// The same elements in other sizes.
    ///
    /// # Errors
    /// Sizes of another number of elements.
    pub fn reshaped(&self, sizes: Vec<usize>) -> Result<Tensor, Error> {
        if count(&sizes)? != self.len() {
            let have = &self.sizes;
            return Err(Error::invalid(format!(
                "a tensor of sizes {have:?} cannot have sizes {sizes:?}"
            )));
        }
        Ok(Tensor {
            dtype: self.dtype,
            sizes,
            data: self.data.clone(),
        })
    }

    /// The elements at these positions, in these sizes.
    ///
    /// # Errors
    /// A position outside, or another number of positions.
    pub fn pick(&self, sizes: Vec<usize>, positions: impl Iterator<Item = isize>) -> Result<Tensor, Error> {
        fn each<T: Copy>(values: &[T], items: usize, at: impl Iterator<Item = isize>) -> Result<Vec<T>, Error> {
            let mut picked = room(items)?;
            for position in at.take(items) {
                let value = usize::try_from(position).ok().and_then(|p| values.get(p));
                picked.push(*value.ok_or_else(|| Error::invalid("an index lies outside of its tensor"))?);
            }
            Ok(picked)
        }
        let items = count(&sizes)?;
        let data = match &self.data {
            Data::Float(values) => Data::Float(each(values, items, positions)?),
            Data::Int(values) => Data::Int(each(values, items, positions)?),
        };
        Tensor::new(self.dtype, sizes, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_made_to_fit() {
        let floats = |dtype| Tensor::new(dtype, vec![2], Data::Float(vec![0.1, -2.7])).unwrap();
        assert_eq!(floats(DType::F32).floats().unwrap()[0], f64::from(0.1f32));
        assert_eq!(floats(DType::I8).ints().unwrap(), [0, -2]);
        assert_eq!(floats(DType::BOOL).ints().unwrap(), [1, 1]);
    }

    #[test]
    fn bytes_go_in_and_out() {
        for (dtype, bytes) in [
            (DType::F16, vec![0x00, 0x3c, 0x01, 0x00]),
            (DType::F32, 1.5f32.to_le_bytes().repeat(2)),
            (DType::I16, vec![0xff, 0xff, 2, 0]),
            (DType::BOOL, vec![1, 0]),
        ] {
            let tensor = Tensor::from_bytes(dtype, vec![2], &bytes).unwrap();
            let (mut sizes, mut room) = ([3], bytes.repeat(2));
            let mut out = TensorOut::new(dtype, &mut sizes, &mut room);
            tensor.write(&mut out).unwrap();
            assert_eq!((sizes, &room[..bytes.len()]), ([2], &bytes[..]));
        }
    }

    #[test]
    fn hostile_sizes_are_errors() {
        assert_eq!(count(&[usize::MAX, 2]).unwrap_err().code, Status::OUT_OF_MEMORY);
        assert_eq!(count(&[usize::MAX, 0]).unwrap(), 0);
        assert_eq!(filled(1 << 58, 0u64).unwrap_err().code, Status::OUT_OF_MEMORY);
        let x = Tensor::new(DType::I64, vec![2], Data::Int(vec![1, 2])).unwrap();
        assert!(x.pick(vec![1], [2].into_iter()).is_err());
        assert!(x.reshaped(vec![3]).is_err());
        assert!(Tensor::from_bytes(DType::F32, vec![2], &[0; 7]).is_err());
    }
}
