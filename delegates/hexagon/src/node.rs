//! A node with its arguments as operators read them: shapes are fixed by now.

pub use delegraph_sdk::arguments::{Arguments as Node, Scalar, wrap};
