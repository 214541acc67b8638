//! The Ethos-U delegate as a shared library: it exports the entry and has nothing else.

delegraph_sdk::export_delegate!(delegraph_ethos_u::EthosU: compile, run);
