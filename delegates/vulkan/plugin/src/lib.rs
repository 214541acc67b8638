//! The Vulkan delegate as a shared library: it exports the entry and has nothing else.

#[cfg(unix)]
delegraph_sdk::export_delegate!(delegraph_vulkan::Vulkan: compile, run, submit, external, state);
#[cfg(not(unix))]
delegraph_sdk::export_delegate!(delegraph_vulkan::Vulkan: compile, run, submit, import, state);
