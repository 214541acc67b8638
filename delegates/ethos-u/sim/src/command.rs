//! Commands: one word, or two where bit 14 says so. The low ten bits are the opcode, the high half the parameter.

use crate::error::{Error, Offset};

/// A command of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Where it is.
    pub offset: Offset,
    /// Its first word.
    pub word: u32,
    /// Its second word, if it has two (`cmd1`).
    pub payload: Option<u32>,
}

const TWO_WORDS: u32 = 0x4000;

impl Command {
    /// Opcode; those of commands of one word and of two are apart.
    pub fn opcode(self) -> u16 {
        (self.word & 0x3ff) as u16
    }

    /// Parameter.
    pub fn parameter(self) -> u16 {
        (self.word >> 16) as u16
    }
}

/// The commands of a stream, one after the other.
#[derive(Debug, Clone)]
pub struct Commands<'a> {
    words: &'a [u32],
    at: usize,
}

impl<'a> Commands<'a> {
    /// From the first word on.
    pub fn new(words: &'a [u32]) -> Commands<'a> {
        Commands { words, at: 0 }
    }

    /// Goes on at another command; `None`: there is none at this byte.
    pub fn jump(&mut self, target: Offset) -> Option<()> {
        let inside = target.0.is_multiple_of(4) && target.0 / 4 < self.words.len();
        inside.then(|| self.at = target.0 / 4)
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, Error>;

    fn next(&mut self) -> Option<Result<Command, Error>> {
        let word = *self.words.get(self.at)?;
        let offset = Offset(self.at * 4);
        let two = word & TWO_WORDS != 0;
        let payload = if two {
            self.words.get(self.at + 1).copied()
        } else {
            None
        };
        self.at += 1 + usize::from(two);
        Some(match two && payload.is_none() {
            true => Err(Error::Cut(offset)),
            false => Ok(Command { offset, word, payload }),
        })
    }
}

/// Operations (`cmd0`).
pub mod operation {
    #![allow(missing_docs)]
    pub const STOP: u16 = 0x000;
    pub const IRQ: u16 = 0x001;
    pub const CONV: u16 = 0x002;
    pub const DEPTHWISE: u16 = 0x003;
    pub const POOL: u16 = 0x005;
    pub const ELEMENTWISE: u16 = 0x006;
    pub const RESIZE: u16 = 0x007;
    pub const DMA_START: u16 = 0x010;
    pub const DMA_WAIT: u16 = 0x011;
    pub const KERNEL_WAIT: u16 = 0x012;
    pub const PMU_MASK: u16 = 0x013;

    /// Below it a `cmd0` is an operation, from it on a register.
    pub const FIRST_REGISTER: u16 = 0x100;

    /// Names of operations.
    pub const NAMES: &[(u16, &str)] = &[
        (STOP, "STOP"),
        (IRQ, "IRQ"),
        (CONV, "CONV"),
        (DEPTHWISE, "DEPTHWISE"),
        (POOL, "POOL"),
        (ELEMENTWISE, "ELEMENTWISE"),
        (RESIZE, "RESIZE"),
        (DMA_START, "DMA_START"),
        (DMA_WAIT, "DMA_WAIT"),
        (KERNEL_WAIT, "KERNEL_WAIT"),
        (PMU_MASK, "PMU_MASK"),
    ];
}

/// Registers that commands of one word set.
pub mod register {
    #![allow(missing_docs)]
    pub const IFM_PAD_TOP: u16 = 0x100;
    pub const IFM_PAD_LEFT: u16 = 0x101;
    pub const IFM_PAD_RIGHT: u16 = 0x102;
    pub const IFM_PAD_BOTTOM: u16 = 0x103;
    pub const IFM_DEPTH_M1: u16 = 0x104;
    pub const IFM_PRECISION: u16 = 0x105;
    pub const IFM_UPSCALE: u16 = 0x107;
    pub const IFM_BROADCAST: u16 = 0x108;
    pub const IFM_ZERO_POINT: u16 = 0x109;
    pub const IFM_WIDTH0_M1: u16 = 0x10a;
    pub const IFM_HEIGHT0_M1: u16 = 0x10b;
    pub const IFM_HEIGHT1_M1: u16 = 0x10c;
    pub const IFM_IB_END: u16 = 0x10d;
    pub const IFM_REGION: u16 = 0x10f;
    pub const OFM_WIDTH_M1: u16 = 0x111;
    pub const OFM_HEIGHT_M1: u16 = 0x112;
    pub const OFM_DEPTH_M1: u16 = 0x113;
    pub const OFM_PRECISION: u16 = 0x114;
    pub const OFM_BLK_WIDTH_M1: u16 = 0x115;
    pub const OFM_BLK_HEIGHT_M1: u16 = 0x116;
    pub const OFM_BLK_DEPTH_M1: u16 = 0x117;
    pub const OFM_ZERO_POINT: u16 = 0x118;
    pub const OFM_WIDTH0_M1: u16 = 0x11a;
    pub const OFM_HEIGHT0_M1: u16 = 0x11b;
    pub const OFM_HEIGHT1_M1: u16 = 0x11c;
    pub const OFM_REGION: u16 = 0x11f;
    pub const KERNEL_WIDTH_M1: u16 = 0x120;
    pub const KERNEL_HEIGHT_M1: u16 = 0x121;
    pub const KERNEL_STRIDE: u16 = 0x122;
    pub const PARALLEL_MODE: u16 = 0x123;
    pub const ACC_FORMAT: u16 = 0x124;
    pub const ACTIVATION: u16 = 0x125;
    pub const ACTIVATION_MIN: u16 = 0x126;
    pub const ACTIVATION_MAX: u16 = 0x127;
    pub const WEIGHT_REGION: u16 = 0x128;
    pub const SCALE_REGION: u16 = 0x129;
    pub const RESIZE_X_SCALE_N_M1: u16 = 0x12a;
    pub const RESIZE_Y_SCALE_N_M1: u16 = 0x12b;
    pub const RESIZE_X_OFFSET: u16 = 0x12c;
    pub const RESIZE_Y_OFFSET: u16 = 0x12d;
    pub const WEIGHT_FORMAT: u16 = 0x12e;
    pub const BLOCKDEP: u16 = 0x12f;
    pub const DMA0_SRC_REGION: u16 = 0x130;
    pub const DMA0_DST_REGION: u16 = 0x131;
    pub const DMA0_SIZE0: u16 = 0x132;
    pub const DMA0_SIZE1: u16 = 0x133;
    pub const DMA0_IDX_REGION: u16 = 0x134;
    pub const AB_START: u16 = 0x12d;
    pub const IFM2_BROADCAST: u16 = 0x180;
    pub const IFM2_SCALAR: u16 = 0x181;
    pub const IFM2_PRECISION: u16 = 0x185;
    pub const IFM2_ZERO_POINT: u16 = 0x189;
    pub const IFM2_WIDTH0_M1: u16 = 0x18a;
    pub const IFM2_HEIGHT0_M1: u16 = 0x18b;
    pub const IFM2_HEIGHT1_M1: u16 = 0x18c;
    pub const IFM2_IB_START: u16 = 0x18d;
    pub const IFM2_REGION: u16 = 0x18f;

    /// Their names.
    pub const NAMES: &[(u16, &str)] = &[
        (IFM_PAD_TOP, "IFM_PAD_TOP"),
        (IFM_PAD_LEFT, "IFM_PAD_LEFT"),
        (IFM_PAD_RIGHT, "IFM_PAD_RIGHT"),
        (IFM_PAD_BOTTOM, "IFM_PAD_BOTTOM"),
        (IFM_DEPTH_M1, "IFM_DEPTH_M1"),
        (IFM_PRECISION, "IFM_PRECISION"),
        (IFM_UPSCALE, "IFM_UPSCALE"),
        (IFM_BROADCAST, "IFM_BROADCAST"),
        (IFM_ZERO_POINT, "IFM_ZERO_POINT"),
        (IFM_WIDTH0_M1, "IFM_WIDTH0_M1"),
        (IFM_HEIGHT0_M1, "IFM_HEIGHT0_M1"),
        (IFM_HEIGHT1_M1, "IFM_HEIGHT1_M1"),
        (IFM_IB_END, "IFM_IB_END"),
        (IFM_REGION, "IFM_REGION"),
        (OFM_WIDTH_M1, "OFM_WIDTH_M1"),
        (OFM_HEIGHT_M1, "OFM_HEIGHT_M1"),
        (OFM_DEPTH_M1, "OFM_DEPTH_M1"),
        (OFM_PRECISION, "OFM_PRECISION"),
        (OFM_BLK_WIDTH_M1, "OFM_BLK_WIDTH_M1"),
        (OFM_BLK_HEIGHT_M1, "OFM_BLK_HEIGHT_M1"),
        (OFM_BLK_DEPTH_M1, "OFM_BLK_DEPTH_M1"),
        (OFM_ZERO_POINT, "OFM_ZERO_POINT"),
        (OFM_WIDTH0_M1, "OFM_WIDTH0_M1"),
        (OFM_HEIGHT0_M1, "OFM_HEIGHT0_M1"),
        (OFM_HEIGHT1_M1, "OFM_HEIGHT1_M1"),
        (OFM_REGION, "OFM_REGION"),
        (KERNEL_WIDTH_M1, "KERNEL_WIDTH_M1"),
        (KERNEL_HEIGHT_M1, "KERNEL_HEIGHT_M1"),
        (KERNEL_STRIDE, "KERNEL_STRIDE"),
        (PARALLEL_MODE, "PARALLEL_MODE"),
        (ACC_FORMAT, "ACC_FORMAT"),
        (ACTIVATION, "ACTIVATION"),
        (ACTIVATION_MIN, "ACTIVATION_MIN"),
        (ACTIVATION_MAX, "ACTIVATION_MAX"),
        (WEIGHT_REGION, "WEIGHT_REGION"),
        (SCALE_REGION, "SCALE_REGION"),
        (RESIZE_X_SCALE_N_M1, "RESIZE_X_SCALE_N_M1"),
        (RESIZE_Y_SCALE_N_M1, "RESIZE_Y_SCALE_N_M1"),
        (RESIZE_X_OFFSET, "RESIZE_X_OFFSET"),
        (RESIZE_Y_OFFSET, "RESIZE_Y_OFFSET / AB_START"),
        (WEIGHT_FORMAT, "WEIGHT_FORMAT"),
        (BLOCKDEP, "BLOCKDEP"),
        (DMA0_SRC_REGION, "DMA0_SRC_REGION"),
        (DMA0_DST_REGION, "DMA0_DST_REGION"),
        (DMA0_SIZE0, "DMA0_SIZE0"),
        (DMA0_SIZE1, "DMA0_SIZE1"),
        (DMA0_IDX_REGION, "DMA0_IDX_REGION"),
        (IFM2_BROADCAST, "IFM2_BROADCAST"),
        (IFM2_SCALAR, "IFM2_SCALAR"),
        (IFM2_PRECISION, "IFM2_PRECISION"),
        (IFM2_ZERO_POINT, "IFM2_ZERO_POINT"),
        (IFM2_WIDTH0_M1, "IFM2_WIDTH0_M1"),
        (IFM2_HEIGHT0_M1, "IFM2_HEIGHT0_M1"),
        (IFM2_HEIGHT1_M1, "IFM2_HEIGHT1_M1"),
        (IFM2_IB_START, "IFM2_IB_START"),
        (IFM2_REGION, "IFM2_REGION"),
    ];
}

/// Registers that commands of two words set: addresses, strides, scales.
pub mod wide {
    #![allow(missing_docs)]
    pub const IFM_BASE0: u16 = 0x000;
    pub const IFM_STRIDE_X: u16 = 0x004;
    pub const IFM_STRIDE_Y: u16 = 0x005;
    pub const IFM_STRIDE_C: u16 = 0x006;
    pub const OFM_BASE0: u16 = 0x010;
    pub const OFM_STRIDE_X: u16 = 0x014;
    pub const OFM_STRIDE_Y: u16 = 0x015;
    pub const OFM_STRIDE_C: u16 = 0x016;
    pub const WEIGHT_BASE: u16 = 0x020;
    pub const WEIGHT_LENGTH: u16 = 0x021;
    pub const SCALE_BASE: u16 = 0x022;
    pub const SCALE_LENGTH: u16 = 0x023;
    pub const OFM_SCALE: u16 = 0x024;
    pub const OPA_SCALE: u16 = 0x025;
    pub const OPB_SCALE: u16 = 0x026;
    pub const OP_SCALAR: u16 = 0x027;
    pub const DMA0_SRC: u16 = 0x030;
    pub const DMA0_DST: u16 = 0x031;
    pub const DMA0_LEN: u16 = 0x032;
    pub const DMA0_SKIP0: u16 = 0x033;
    pub const DMA0_SKIP1: u16 = 0x034;
    pub const DMA0_DST_STRIDE0: u16 = 0x035;
    pub const DMA0_DST_STRIDE1: u16 = 0x036;
    pub const DMA0_IDX: u16 = 0x037;
    pub const DMA0_IDX_MAX: u16 = 0x038;
    pub const DMA0_IDX_SKIP1: u16 = 0x039;
    pub const IFM2_BASE0: u16 = 0x080;
    pub const IFM2_STRIDE_X: u16 = 0x084;
    pub const IFM2_STRIDE_Y: u16 = 0x085;
    pub const IFM2_STRIDE_C: u16 = 0x086;
    pub const WEIGHT1_BASE: u16 = 0x090;
    pub const WEIGHT1_LENGTH: u16 = 0x091;
    pub const SCALE1_BASE: u16 = 0x092;
    pub const SCALE1_LENGTH: u16 = 0x093;
    pub const WEIGHT3_BASE: u16 = 0x094;
    pub const WEIGHT3_LENGTH: u16 = 0x095;
    pub const RESIZE_X: u16 = 0x096;
    pub const RESIZE_Y: u16 = 0x097;

    /// From it on a `cmd1` is an operation, below it a register.
    pub const FIRST_OPERATION: u16 = 0x100;
    pub const BRANCH: u16 = 0x100;

    /// Their names.
    pub const NAMES: &[(u16, &str)] = &[
        (IFM_BASE0, "IFM_BASE0"),
        (IFM_BASE0 + 1, "IFM_BASE1"),
        (IFM_BASE0 + 2, "IFM_BASE2"),
        (IFM_BASE0 + 3, "IFM_BASE3"),
        (IFM_STRIDE_X, "IFM_STRIDE_X"),
        (IFM_STRIDE_Y, "IFM_STRIDE_Y"),
        (IFM_STRIDE_C, "IFM_STRIDE_C"),
        (OFM_BASE0, "OFM_BASE0"),
        (OFM_BASE0 + 1, "OFM_BASE1"),
        (OFM_BASE0 + 2, "OFM_BASE2"),
        (OFM_BASE0 + 3, "OFM_BASE3"),
        (OFM_STRIDE_X, "OFM_STRIDE_X"),
        (OFM_STRIDE_Y, "OFM_STRIDE_Y"),
        (OFM_STRIDE_C, "OFM_STRIDE_C"),
        (WEIGHT_BASE, "WEIGHT_BASE"),
        (WEIGHT_LENGTH, "WEIGHT_LENGTH"),
        (SCALE_BASE, "SCALE_BASE"),
        (SCALE_LENGTH, "SCALE_LENGTH"),
        (OFM_SCALE, "OFM_SCALE"),
        (OPA_SCALE, "OPA_SCALE"),
        (OPB_SCALE, "OPB_SCALE"),
        (OP_SCALAR, "OP_SCALAR"),
        (DMA0_SRC, "DMA0_SRC"),
        (DMA0_DST, "DMA0_DST"),
        (DMA0_LEN, "DMA0_LEN"),
        (DMA0_SKIP0, "DMA0_SRC_STRIDE0 / SKIP0"),
        (DMA0_SKIP1, "DMA0_SRC_STRIDE1 / SKIP1"),
        (DMA0_DST_STRIDE0, "DMA0_DST_STRIDE0"),
        (DMA0_DST_STRIDE1, "DMA0_DST_STRIDE1"),
        (DMA0_IDX, "DMA0_IDX"),
        (DMA0_IDX_MAX, "DMA0_IDX_MAX"),
        (DMA0_IDX_SKIP1, "DMA0_IDX_SKIP1"),
        (IFM2_BASE0, "IFM2_BASE0"),
        (IFM2_BASE0 + 1, "IFM2_BASE1"),
        (IFM2_BASE0 + 2, "IFM2_BASE2"),
        (IFM2_BASE0 + 3, "IFM2_BASE3"),
        (IFM2_STRIDE_X, "IFM2_STRIDE_X"),
        (IFM2_STRIDE_Y, "IFM2_STRIDE_Y"),
        (IFM2_STRIDE_C, "IFM2_STRIDE_C"),
        (WEIGHT1_BASE, "WEIGHT1_BASE"),
        (WEIGHT1_LENGTH, "WEIGHT1_LENGTH"),
        (SCALE1_BASE, "SCALE1_BASE / WEIGHT2_BASE"),
        (SCALE1_LENGTH, "SCALE1_LENGTH / WEIGHT2_LENGTH"),
        (WEIGHT3_BASE, "WEIGHT3_BASE"),
        (WEIGHT3_LENGTH, "WEIGHT3_LENGTH"),
        (RESIZE_X, "RESIZE_X"),
        (RESIZE_Y, "RESIZE_Y"),
        (BRANCH, "BRANCH"),
    ];
}

fn find(names: &[(u16, &'static str)], opcode: u16) -> Option<&'static str> {
    names.iter().find(|(code, _)| *code == opcode).map(|(_, name)| *name)
}

impl Command {
    /// True if it sets a register, and does nothing by itself.
    pub fn sets_a_register(self) -> bool {
        match self.payload {
            Some(_) => self.opcode() < wide::FIRST_OPERATION,
            None => self.opcode() >= operation::FIRST_REGISTER,
        }
    }

    /// Its name, if there is such a command.
    pub fn name(self) -> Option<&'static str> {
        match self.payload {
            Some(_) => find(wide::NAMES, self.opcode()),
            None if self.opcode() < operation::FIRST_REGISTER => find(operation::NAMES, self.opcode()),
            None => find(register::NAMES, self.opcode()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_commands() {
        let words = [0x0003_0111, 0x0000_4020, 0x1234, 0xffff_0000];
        let all: Vec<Command> = Commands::new(&words).collect::<Result<_, _>>().unwrap();
        let names: Vec<_> = all.iter().map(|c| c.name().unwrap()).collect();
        assert_eq!(names, ["OFM_WIDTH_M1", "WEIGHT_BASE", "STOP"]);
        assert_eq!((all[0].parameter(), all[1].payload), (3, Some(0x1234)));
        assert_eq!(all[2].offset, Offset(12));
        assert!(matches!(
            Commands::new(&words[..2]).last(),
            Some(Err(Error::Cut(Offset(4))))
        ));
    }

    #[test]
    fn no_code_has_two_names() {
        for names in [operation::NAMES, register::NAMES, wide::NAMES] {
            let mut codes: Vec<u16> = names.iter().map(|(code, _)| *code).collect();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), names.len());
        }
    }
}
