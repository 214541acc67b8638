//! Lock files of delegates.
#![no_main]

delegraph_fuzz::target!("lock");
