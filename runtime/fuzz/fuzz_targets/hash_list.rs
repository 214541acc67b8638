//! Lists of hashes.
#![no_main]

delegraph_fuzz::target!("hash_list");
