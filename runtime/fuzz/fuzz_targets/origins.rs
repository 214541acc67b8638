//! Names of nodes: looked up as a trace does.
#![no_main]

delegraph_fuzz::target!("origins");
