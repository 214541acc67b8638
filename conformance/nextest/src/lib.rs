//! The cases of the conformance kit as tests of one binary that speaks the protocol of Rust's own test harness, so that cargo-nextest
//! lists, shards, retries and reports them. Everything is in `tests/conform.rs`; environment variables say what is tested:
//!
//! - `DELEGRAPH_CONFORM_LIBRARY`: the library or manifest. Without it there are no tests.
//! - `DELEGRAPH_CONFORM_LIST`: lists, with commas between them. Without it: every case.
//! - `DELEGRAPH_CONFORM_OUT`: a folder; each case leaves a folder of its own there, and `delegraph conform merge OUT/* -o DIR` joins them.
//! - `DELEGRAPH_CONFORM_ARGS`: further flags of `delegraph conform run`, with spaces between them.
//! - `DELEGRAPH_BIN`: the program `delegraph`. Without it: the one that was built beside this test.
