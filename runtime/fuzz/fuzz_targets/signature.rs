//! Signatures and public keys of minisign.
#![no_main]

delegraph_fuzz::target!("signature");
