//! Memory planning.
