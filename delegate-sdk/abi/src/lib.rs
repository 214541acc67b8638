//! The delegate ABI: repr(C) mirror of delegraph.h, the graph image and the blob envelope.
