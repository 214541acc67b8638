//! Configurations (`backends.toml`).
#![no_main]

delegraph_fuzz::target!("config");
