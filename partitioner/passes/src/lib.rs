//! Passes: shape functions, decompositions to core ATen, clean-up, the portable dialect.
