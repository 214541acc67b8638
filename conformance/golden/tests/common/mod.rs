//! The delegates of today.

use delegraph_host::{Host, HostOptions, Pass};
use delegraph_null::Null;
use delegraph_reference::Reference;
use delegraph_sdk::static_entry;
use std::sync::Arc;

/// A host with the reference delegate and the null delegate, as their manifests describe them.
pub fn host() -> Arc<Host> {
    let host = Host::discover(HostOptions::default());
    host.register_static_with("reference", static_entry::<Reference>(), vec![Pass::FoldQdq])
        .expect("a name that is free");
    host.register_static("null", static_entry::<Null>())
        .expect("a name that is free");
    Arc::new(host)
}
