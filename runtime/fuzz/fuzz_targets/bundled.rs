//! Bundled programs.
#![no_main]

delegraph_fuzz::target!("bundled");
