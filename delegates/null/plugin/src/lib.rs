//! The null delegate as a shared library.
