//! Command streams as text: one line a command, with what its fields mean.

use crate::command::{Command, Commands, operation, register, wide};
use crate::container::{Product, Stream};
use crate::error::Error;
use std::fmt::Write;

/// The stream as text. A command without a name is shown by its words.
///
/// # Errors
/// A command is cut off.
pub fn disassemble(stream: &Stream) -> Result<String, Error> {
    let mut text = String::new();
    let config = &stream.config;
    let _ = writeln!(
        text,
        "; {}-{}, config {:#010x}, id {:#010x}, {} words",
        config.product.name(),
        config.macs,
        config.word,
        stream.id,
        stream.words.len()
    );
    for command in Commands::new(&stream.words) {
        line(&mut text, command?, config.product);
    }
    Ok(text)
}

fn line(text: &mut String, command: Command, product: Product) {
    let _ = write!(text, "{:06x}  ", command.offset.0);
    let parameter = command.parameter();
    let Some(name) = command.name() else {
        let _ = match command.payload {
            Some(payload) => writeln!(text, "?      {:08x} {payload:08x}", command.word),
            None => writeln!(text, "?      {:08x}", command.word),
        };
        return;
    };
    match command.payload {
        Some(target) if !command.sets_a_register() => {
            let condition = match parameter {
                0 => String::new(),
                1 => " if the result was not 0".to_string(),
                other => format!(" if {other}"),
            };
            let _ = writeln!(text, "{name} to {target:06x}{condition}");
        }
        Some(payload) if is_scale(command.opcode()) => {
            let _ = write!(text, "SET    {name} {payload} >> {}", parameter & 0x3f);
            if product == Product::U85 {
                let _ = write!(
                    text,
                    "  ; rounding {}, doubled at {}",
                    parameter >> 13,
                    parameter >> 6 & 0x1f
                );
            }
            text.push('\n');
        }
        Some(payload) => {
            let value = u64::from(payload) | u64::from(parameter & 0xff) << 32;
            let _ = writeln!(text, "SET    {name} {value:#x}");
        }
        None if command.opcode() < operation::FIRST_REGISTER => {
            let _ = writeln!(text, "{name}{}", mode(command, product));
        }
        None => {
            let _ = writeln!(text, "SET    {name} {}{}", value(command), meaning(command, product));
        }
    }
}

fn is_scale(opcode: u16) -> bool {
    matches!(opcode, wide::OFM_SCALE | wide::OPA_SCALE | wide::OPB_SCALE)
}

/// Signed where the register is.
fn value(command: Command) -> i32 {
    let parameter = command.parameter();
    match command.opcode() {
        register::IFM_ZERO_POINT
        | register::IFM2_ZERO_POINT
        | register::OFM_ZERO_POINT
        | register::ACTIVATION_MIN
        | register::ACTIVATION_MAX => i32::from(parameter as i16),
        _ => i32::from(parameter),
    }
}

/// Names of the modes of `ELEMENTWISE`.
pub const ELEMENTWISE: &[(u16, &str)] = &[
    (0, "MUL"),
    (1, "ADD"),
    (2, "SUB"),
    (3, "MIN"),
    (4, "MAX"),
    (5, "LRELU"),
    (6, "ABS"),
    (7, "CLZ"),
    (8, "SHR"),
    (9, "SHL"),
    (10, "LSR"),
    (11, "DIV"),
    (16, "CMP_EQ"),
    (17, "CMP_NE"),
    (18, "CMP_GE"),
    (19, "CMP_GT"),
    (33, "AND"),
    (34, "OR"),
    (35, "XOR"),
    (36, "NOT"),
    (42, "AND_NOT"),
];
/// Names of the modes of `POOL`.
pub const POOL: &[(u16, &str)] = &[
    (0, "MAX"),
    (1, "AVERAGE"),
    (2, "REDUCE_SUM"),
    (3, "SUM"),
    (4, "NONE"),
    (5, "MIN"),
    (6, "ARGMAX_X"),
    (7, "ARGMAX_Y"),
];
const RESIZE: &[(u16, &str)] = &[(0, "BILINEAR"), (1, "REPLICATE"), (2, "NEAREST")];

fn mode(command: Command, product: Product) -> String {
    let parameter = command.parameter();
    let names = match command.opcode() {
        operation::ELEMENTWISE => ELEMENTWISE,
        operation::POOL => POOL,
        operation::RESIZE if product == Product::U85 => RESIZE,
        operation::STOP | operation::IRQ | operation::DMA_WAIT | operation::KERNEL_WAIT | operation::PMU_MASK => {
            return format!(" {parameter:#x}");
        }
        _ => &[],
    };
    match names.iter().find(|(code, _)| *code == parameter & 0x3f) {
        Some((_, name)) => format!(" {name}"),
        None if parameter == 0 => String::new(),
        None => format!(" {parameter:#x}"),
    }
}

/// What the fields of a register say.
fn meaning(command: Command, product: Product) -> String {
    let p = command.parameter();
    let kind = |signed: bool, bits: u16| format!("{}{}", if signed { "i" } else { "u" }, 8 << bits);
    let format = |p: u16| if p >> 6 & 3 == 1 { "NHCWB16" } else { "NHWC" };
    match command.opcode() {
        register::IFM_PRECISION | register::IFM2_PRECISION => {
            let mut text = format!("  ; {} {}", kind(p & 1 != 0, p >> 2 & 3), format(p));
            if product != Product::U85 {
                let _ = write!(text, " scale mode {}, rounding {}", p >> 8 & 3, p >> 14);
            }
            text
        }
        register::OFM_PRECISION => {
            let mut text = format!("  ; {} {}", kind(p & 1 != 0, p >> 1 & 3), format(p));
            text += if p & 0x100 != 0 {
                " one scale"
            } else {
                " scale a channel"
            };
            match product {
                Product::U85 => {
                    let _ = write!(text, " transpose {}, reverse {}", p >> 11 & 7, p >> 9 & 3);
                }
                _ => {
                    let _ = write!(text, " rounding {}", p >> 14);
                }
            }
            text
        }
        register::DMA0_SRC_REGION | register::DMA0_DST_REGION => {
            let region = if p & 0x100 != 0 {
                "internal memory".to_string()
            } else {
                format!("region {}", p & 7)
            };
            let pieces = if command.opcode() == register::DMA0_SRC_REGION {
                ["", ", a row of pieces", ", rows of pieces", ", mode 3"][usize::from(p >> 9 & 3)]
            } else {
                ""
            };
            format!("  ; {region}{pieces}{}", if p & 0x800 != 0 { ", indexed" } else { "" })
        }
        register::KERNEL_STRIDE => {
            let (x, y) = strides(p);
            let order = if p & 4 != 0 { "part kernel first" } else { "depth first" };
            format!(
                "  ; stride {x}x{y}, dilation {}x{}, {order}, sub-kernels of {}",
                1 + (p >> 3 & 1),
                1 + (p >> 4 & 1),
                if p & 0x20 != 0 { 4 } else { 8 }
            )
        }
        _ => String::new(),
    }
}

/// Strides in x and y: the lowest bits of both come first, the others further up.
pub(crate) fn strides(parameter: u16) -> (usize, usize) {
    let p = usize::from(parameter);
    (
        1 + (p & 1) + ((p >> 6 & 7) << 1),
        1 + (p >> 1 & 1) + ((p >> 9 & 7) << 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Config;

    #[test]
    fn fields_are_in_words() {
        let stream = Stream {
            config: Config::new(Product::U55, 128),
            id: 0x1006_6001,
            words: vec![
                0x0045_0105,
                0xfff6_0109,
                0x0003_0122,
                0x0005_4024,
                7,
                0x0001_0006,
                0x03ff_0000,
                0x0c01_0130,
                0x0001_4100,
                0x0000_000c,
                0xffff_0000,
            ],
        };
        let text = disassemble(&stream).unwrap();
        let want = "\
; Ethos-U55-128, config 0x00001807, id 0x10066001, 11 words
000000  SET    IFM_PRECISION 69  ; i16 NHCWB16 scale mode 0, rounding 0
000004  SET    IFM_ZERO_POINT -10
000008  SET    KERNEL_STRIDE 3  ; stride 2x2, dilation 1x1, depth first, sub-kernels of 8
00000c  SET    OFM_SCALE 7 >> 5
000014  ELEMENTWISE ADD
000018  STOP 0x3ff
00001c  SET    DMA0_SRC_REGION 3073  ; region 1, rows of pieces, indexed
000020  BRANCH to 00000c if the result was not 0
000028  STOP 0xffff
";
        assert_eq!(text, want);
    }
}
