//! Graph images.
#![no_main]

delegraph_fuzz::target!("graph_image");
