//! The reference delegate: plain and right.
