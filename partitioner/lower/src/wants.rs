//! What a backend wants done to a graph before it is asked about it.

use crate::backend::Backend;
use crate::image::Form;
use delegraph_host::Pass;
use delegraph_ir::Op;
use delegraph_opset::{Version, Versions};
use delegraph_types::nearest;

/// The passes of a backend's manifest, and the operator table that it was built for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants {
    /// Quantize and dequantize operators as quantized types.
    pub fold_qdq: bool,
    /// Batch norms in the layers before them.
    pub fold_batch_norm: bool,
    /// Normal form 1.
    pub channels_last: bool,
    /// Operators that it wants whole, by name.
    pub keep: Vec<String>,
    version: Version,
}

impl Wants {
    /// What a backend asks for.
    ///
    /// # Errors
    /// It asks to keep an operator that no table has which it can know.
    pub fn of(backend: &dyn Backend, versions: &Versions) -> Result<Wants, String> {
        let mut wants = Wants {
            version: versions.of_delegate(backend.opset()),
            ..Wants::default()
        };
        for pass in backend.passes() {
            match pass {
                Pass::FoldQdq => wants.fold_qdq = true,
                Pass::FoldBatchNorm => wants.fold_batch_norm = true,
                Pass::Nhwc => wants.channels_last = true,
                Pass::Keep(operator) => {
                    // A later table may have operators that this one lacks; nothing of these can be in a graph here.
                    if !is_operator(operator) && !versions.is_newer(backend.opset()) {
                        let names = Op::all().map(|op| base(op.name()));
                        let hint = nearest(operator, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                        return Err(format!(
                            "its manifest asks for `{pass}`, but there is no operator `{operator}`{hint}"
                        ));
                    }
                    wants.keep.push(operator.clone());
                }
                other => return Err(format!("its manifest asks for `{other}`, which is not done here")),
            }
        }
        Ok(wants)
    }

    /// Whether it is asked about a view, and not about the graph as it is.
    pub fn a_view(&self) -> bool {
        self.fold_qdq || self.fold_batch_norm || !self.keep.is_empty()
    }

    /// Whether it asks for this operator whole.
    pub fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|kept| kept == name || kept == base(name))
    }

    /// How its images are written.
    pub fn form<'a>(&self, versions: &'a Versions) -> Form<'a> {
        Form {
            versions,
            version: self.version,
            channels_last: self.channels_last,
        }
    }
}

/// Without the overload.
fn base(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

fn is_operator(name: &str) -> bool {
    Op::find(name).is_some() || Op::all().any(|op| base(op.name()) == name)
}
