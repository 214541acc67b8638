//! Envelopes of blobs.
#![no_main]

delegraph_fuzz::target!("envelope");
