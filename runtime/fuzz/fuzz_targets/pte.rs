//! Programs: verified, written again, run.
#![no_main]

delegraph_fuzz::target!("pte");
