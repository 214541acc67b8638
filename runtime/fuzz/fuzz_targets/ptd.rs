//! Data files beside a program.
#![no_main]

delegraph_fuzz::target!("ptd");
