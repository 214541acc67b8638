//! Runs a verified program: arenas, kernels, delegated ranges with fallback, state.
