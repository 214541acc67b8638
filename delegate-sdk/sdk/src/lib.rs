//! Write a delegate in safe Rust.
