//! The IR inside of a `.pte`: read, compiled, run.
#![no_main]

delegraph_fuzz::target!("ir_segment");
