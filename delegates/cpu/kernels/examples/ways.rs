//! What this machine has, one a line: its instruction sets, and its ways to multiply bytes. `cargo xtask cross` compares it with what the processor
//! that is played should have.

use delegraph_cpu_kernels::Isa;
use delegraph_cpu_kernels::quant::Dot;

fn main() {
    for isa in Isa::all() {
        println!("isa {isa}");
    }
    for dot in Dot::all() {
        println!("bytes {}", dot.name());
    }
    println!("best {}", Dot::best().name());
}
