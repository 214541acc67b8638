//! Headers in blobs of the Hexagon delegate.
#![no_main]

delegraph_fuzz::target!("hexagon_blob");
