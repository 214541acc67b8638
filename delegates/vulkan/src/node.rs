//! A node with its arguments as operators read them: sizes are numbers by now.

pub use delegraph_sdk::arguments::{Arguments as Node, Scalar, wrap};
