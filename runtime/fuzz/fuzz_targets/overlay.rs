//! Overlays: bound to a program.
#![no_main]

delegraph_fuzz::target!("overlay");
