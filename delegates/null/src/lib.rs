//! The null delegate: honest, takes nothing.
//!
//! It shows the shape of a delegate without any work in it, and proves that a graph runs when nobody wants it. Copy it to
//! begin one of your own. It knows the SDK alone.
//!
//! ```
//! let entry = delegraph_sdk::static_entry::<delegraph_null::Null>();
//! # let _ = entry;
//! ```

use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Info, Options, Partition, Reason,
    Run, Session, Status, Verdict, Weights,
};

/// Why it takes no node and compiles nothing.
const NOTHING: &str = "the null delegate takes nothing";
/// Why it loads nothing.
const NO_BLOBS: &str = "the null delegate makes no blobs";

/// The null delegate.
pub struct Null;

impl Delegate for Null {
    const INFO: Info = Info {
        name: "null",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: "delegraph.null",
        format_version: 0,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Null, Error> {
        options.check(&[])?;
        Ok(Null)
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Null {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |_| {
            Verdict::Refuse(Reason::OTHER, NOTHING.into())
        }))
    }

    fn compile(&self, _: &ImageView<'_>, _: &Weights<'_>, _: &str, _: &Context<'_>) -> Result<Compiled, Error> {
        Err(Error::unsupported(NOTHING))
    }
}

impl Run for Null {
    fn check_blob(&self, _: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::NotMine(NO_BLOBS.into())
    }

    fn load(&self, _: &Blob<'_>, _: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        Err(Error::new(Status::BLOB_INCOMPATIBLE, NO_BLOBS))
    }
}
