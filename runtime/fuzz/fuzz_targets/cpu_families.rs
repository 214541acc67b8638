//! Tables of the programs in blobs of the CPU delegate.
#![no_main]

delegraph_fuzz::target!("cpu_families");
