//! Project tasks: test, check, gen, provision.
fn main() {}
