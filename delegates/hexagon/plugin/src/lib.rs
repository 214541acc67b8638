//! The Hexagon delegate as a shared library: it exports the entry and has nothing else.

delegraph_sdk::export_delegate!(delegraph_hexagon::Hexagon: compile_set, run);
