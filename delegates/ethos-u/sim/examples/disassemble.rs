//! Prints a command stream: `disassemble FILE`, a `COP` container or a `vela_bin_stream`.

use delegraph_ethos_u_sim::{Stream, container, disassemble};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let bytes = std::fs::read(path)?;
    let stream = match container::blocks(&bytes) {
        Ok(blocks) => {
            let block = blocks
                .iter()
                .find(|b| b.name == "cmd_data")
                .ok_or("no block `cmd_data`")?;
            Stream::parse(block.data)?
        }
        Err(_) => Stream::parse(&bytes)?,
    };
    print!("{}", disassemble(&stream)?);
    Ok(())
}
