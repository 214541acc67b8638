//! Scales and roundings, exact to the bit.

/// How a scaled number is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As TFLite's kernels do: twice, where the shift is more than 31; less by so many bits as the number was shifted to the left before.
    Double(u32),
    /// Towards zero.
    Truncate,
    /// A half is added, and the rest cut off.
    Natural,
    /// Halves away from zero.
    Symmetric,
    /// Downwards.
    Floor,
}

impl Rounding {
    /// The two highest bits of a precision register (U55 and U65).
    pub fn of(code: u16) -> Option<Rounding> {
        match code {
            0 => Some(Rounding::Double(0)),
            1 => Some(Rounding::Truncate),
            2 => Some(Rounding::Natural),
            _ => None,
        }
    }

    /// The bits above those of the shift in a scale's parameter (U85).
    pub fn of_scale(parameter: u16) -> Option<Rounding> {
        match (parameter >> 13, parameter >> 6 & 0x1f) {
            (0, bits @ 0..=30) => Some(Rounding::Double(u32::from(bits))),
            (1, _) => Some(Rounding::Natural),
            (3, _) => Some(Rounding::Symmetric),
            (4, _) => Some(Rounding::Truncate),
            (5, _) => Some(Rounding::Floor),
            _ => None,
        }
    }
}

/// A multiplier and a shift to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    pub multiplier: u32,
    pub shift: u32,
}

impl Scale {
    pub const ONE: Scale = Scale {
        multiplier: 1,
        shift: 0,
    };

    /// `value * multiplier / 2^shift`, rounded.
    pub fn apply(self, value: i64, rounding: Rounding) -> i64 {
        let product = i128::from(value) * i128::from(self.multiplier);
        let narrow = |wide: i128| wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        if self.shift == 0 {
            return narrow(product);
        }
        let half = 1i128 << (self.shift - 1);
        narrow(match rounding {
            Rounding::Natural => (product + half) >> self.shift,
            Rounding::Truncate => {
                let magnitude = product.abs() >> self.shift;
                if product < 0 { -magnitude } else { magnitude }
            }
            Rounding::Symmetric => {
                let magnitude = (product.abs() + half) >> self.shift;
                if product < 0 { -magnitude } else { magnitude }
            }
            Rounding::Floor => product >> self.shift,
            Rounding::Double(before) => {
                let first = match (self.shift > 31 - before, product >= 0) {
                    (false, _) => 0,
                    (true, true) => 1i128 << (30 - before),
                    (true, false) => -(1i128 << (30 - before)),
                };
                (product + first + half) >> self.shift
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_where_the_rounding_says() {
        let half = Scale {
            multiplier: 1,
            shift: 1,
        };
        let all = |value| [Rounding::Natural, Rounding::Truncate, Rounding::Double(0)].map(|r| half.apply(value, r));
        assert_eq!(all(3), [2, 1, 2]);
        assert_eq!(all(-3), [-1, -1, -1]);
        assert_eq!(all(-1), [0, 0, 0]);
    }

    #[test]
    fn multipliers_have_no_sign() {
        let scale = Scale {
            multiplier: 0x8000_0001,
            shift: 31,
        };
        assert_eq!(scale.apply(5, Rounding::Natural), 5);
    }

    #[test]
    fn a_shift_above_31_rounds_twice() {
        // 2^31 / 2^32 is a half; what is just below one becomes one only by the first rounding.
        let scale = Scale {
            multiplier: 1 << 30,
            shift: 32,
        };
        assert_eq!(scale.apply(1, Rounding::Natural), 0);
        assert_eq!(scale.apply(1, Rounding::Double(0)), 1);
        assert_eq!(scale.apply(-1, Rounding::Double(0)), 0);
    }
}
