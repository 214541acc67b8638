//! Region to graph image to blob.
