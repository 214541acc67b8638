//! Writes every compiled shader to `FOLDER/ENVIRONMENT/NAME.spv`, for `spirv-val --target-env ENVIRONMENT` (`cargo xtask shaders`).
//!
//! ```text
//! cargo run -p delegraph-vulkan --example dump_shaders -- FOLDER
//! ```

use delegraph_vulkan::kernels::{ALL, Kernel, Needs};
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: dump_shaders FOLDER")?;
    let folder = PathBuf::from(folder);
    for kernel in ALL {
        let folder = folder.join(environment(kernel));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(kernel.name).with_extension("spv"), kernel.spirv)?;
    }
    println!("{} shaders in {}", ALL.len(), folder.display());
    Ok(())
}

/// The first Vulkan that has all of it in its core.
fn environment(kernel: &Kernel) -> &'static str {
    match kernel.needs.has(Needs::F16) || kernel.needs.has(Needs::DOT) {
        true => "vulkan1.3",
        false => "vulkan1.1",
    }
}
