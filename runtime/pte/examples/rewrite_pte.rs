//! Reads a `.pte` and writes it again: `rewrite_pte IN OUT`. With one argument, prints the program.

use delegraph_pte::{Contents, Verified, write};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let input = args.next().ok_or("usage: rewrite_pte IN [OUT]")?;
    let file = std::fs::read(&input)?;
    let program = Verified::parse(&file)?;
    let Some(output) = args.next() else {
        for plan in &program.plans {
            println!(
                "method {} inputs {:?} outputs {:?} arenas {:?}",
                plan.name, plan.inputs, plan.outputs, plan.buffer_sizes
            );
            for (index, value) in plan.values.iter().enumerate() {
                println!("  v{index} = {value:?}");
            }
            for (index, instruction) in plan.instructions.iter().enumerate() {
                match instruction {
                    delegraph_pte::model::Instruction::Kernel { op, args } => {
                        let op = &plan.operators[*op as usize];
                        println!("  {index}: {}.{} {args:?}", op.name, op.overload);
                    }
                    other => println!("  {index}: {other:?}"),
                }
            }
        }
        return Ok(());
    };
    let contents = Contents::of(&program, &file)?;
    let mut out = Vec::new();
    write(&contents.with_plans(&program.plans), &mut out)?;
    std::fs::write(output, out)?;
    Ok(())
}
