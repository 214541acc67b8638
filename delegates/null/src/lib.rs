//! The null delegate: honest, takes nothing.
