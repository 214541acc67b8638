//! Networks of the Ethos-U delegate: blocks, command streams, coded weights.
#![no_main]

delegraph_fuzz::target!("ethos_u_network");
