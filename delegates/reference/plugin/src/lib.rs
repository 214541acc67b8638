//! The reference delegate as a shared library.
