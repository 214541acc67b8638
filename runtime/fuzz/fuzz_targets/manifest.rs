//! Manifests of delegates.
#![no_main]

delegraph_fuzz::target!("manifest");
