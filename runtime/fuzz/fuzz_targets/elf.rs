//! What ELF libraries need.
#![no_main]

delegraph_fuzz::target!("elf");
