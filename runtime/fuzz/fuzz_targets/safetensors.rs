//! Tensors of fixtures and of `--inputs`.
#![no_main]

delegraph_fuzz::target!("safetensors");
