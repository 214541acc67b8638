//! The delegraph command.
fn main() {}
