//! The CPU delegate as a shared library: it exports the entry and has nothing else.

delegraph_sdk::export_delegate!(delegraph_cpu::Cpu: compile, run, state);
