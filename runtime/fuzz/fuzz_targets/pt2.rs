//! Archives of `torch.export.save`: imported, compiled, run.
#![no_main]

delegraph_fuzz::target!("pt2");
