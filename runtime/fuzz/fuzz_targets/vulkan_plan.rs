//! Plans in blobs of the Vulkan delegate.
#![no_main]

delegraph_fuzz::target!("vulkan_plan");
