//! Files that explain a failure.

use crate::case::Trial;
use delegraph_runner::Leaf;
use delegraph_types::DType;
use safetensors::tensor::TensorView;

/// Keeps tensors as a safetensors file: `0`, `1`, ... in order.
pub fn keep(trial: &mut Trial<'_>, name: &str, leaves: &[&Leaf]) {
    let mut views = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        if let Leaf::Tensor { dtype, shape, bytes } = leaf
            && let Some(element) = element(*dtype)
            && let Ok(view) = TensorView::new(element, shape.iter().map(|&size| size as usize).collect(), bytes)
        {
            views.push((i.to_string(), view));
        }
    }
    if let Ok(file) = safetensors::serialize(views, None) {
        trial.keep(&format!("{name}.safetensors"), file);
    }
}

/// `f32[2,3] i64[4]` of tensors, for people.
pub fn shapes(leaves: &[&Leaf]) -> String {
    let sizes = |leaf: &&Leaf| match leaf {
        Leaf::Tensor { shape, .. } => {
            let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
            format!("[{}]", sizes.join(","))
        }
        other => other.describe(),
    };
    leaves.iter().map(sizes).collect::<Vec<_>>().join(" ")
}

fn element(dtype: DType) -> Option<safetensors::Dtype> {
    use safetensors::Dtype as S;
    Some(match dtype {
        DType::Bool => S::BOOL,
        DType::U8 => S::U8,
        DType::I8 => S::I8,
        DType::I16 => S::I16,
        DType::U16 => S::U16,
        DType::F16 => S::F16,
        DType::BF16 => S::BF16,
        DType::I32 => S::I32,
        DType::U32 => S::U32,
        DType::F32 => S::F32,
        DType::F64 => S::F64,
        DType::I64 => S::I64,
        DType::U64 => S::U64,
        DType::C64 => S::C64,
        _ => return None,
    })
}
