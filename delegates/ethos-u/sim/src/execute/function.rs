//! `tanh` and `sigmoid` of 16 bits, which are functions of the hardware.
//!
//! Both are read from one curve of 256 points and straight lines between them. U85 is given the curve as a table; U55 and U65 have it within. That
//! these have the same one, and that values are rounded as LiteRT's kernels do, is what Arm's compiler and LiteRT's kernels (which are Arm's too)
//! have in common; no chip was asked.

/// `tanh(i / 48)` with 15 bits behind the point, as Vela 5.2 writes it for U85.
const CURVE: [u16; 256] = [
    0, 683, 1365, 2045, 2725, 3401, 4075, 4745, 5412, 6073, 6730, 7381, 8026, 8664, 9296, 9920, 10536, 11144, 11743,
    12334, 12915, 13487, 14049, 14601, 15143, 15675, 16196, 16707, 17207, 17696, 18174, 18641, 19097, 19543, 19977,
    20401, 20813, 21215, 21606, 21987, 22357, 22717, 23066, 23406, 23735, 24055, 24365, 24665, 24956, 25239, 25512,
    25776, 26032, 26280, 26520, 26751, 26975, 27191, 27400, 27602, 27797, 27985, 28167, 28342, 28511, 28673, 28831,
    28982, 29128, 29268, 29404, 29534, 29660, 29781, 29898, 30010, 30118, 30222, 30322, 30418, 30511, 30600, 30686,
    30768, 30847, 30923, 30997, 31067, 31135, 31200, 31262, 31322, 31380, 31436, 31489, 31540, 31589, 31637, 31682,
    31726, 31768, 31808, 31846, 31884, 31919, 31953, 31986, 32018, 32048, 32077, 32105, 32132, 32158, 32182, 32206,
    32229, 32251, 32271, 32292, 32311, 32329, 32347, 32364, 32381, 32396, 32411, 32426, 32440, 32453, 32466, 32478,
    32490, 32501, 32512, 32523, 32533, 32542, 32551, 32560, 32569, 32577, 32584, 32592, 32599, 32606, 32613, 32619,
    32625, 32631, 32636, 32642, 32647, 32652, 32657, 32661, 32665, 32670, 32674, 32677, 32681, 32685, 32688, 32691,
    32694, 32697, 32700, 32703, 32706, 32708, 32711, 32713, 32715, 32717, 32720, 32721, 32723, 32725, 32727, 32729,
    32730, 32732, 32733, 32735, 32736, 32737, 32739, 32740, 32741, 32742, 32743, 32744, 32745, 32746, 32747, 32748,
    32749, 32749, 32750, 32751, 32752, 32752, 32753, 32754, 32754, 32755, 32755, 32756, 32756, 32757, 32757, 32758,
    32758, 32758, 32759, 32759, 32760, 32760, 32760, 32761, 32761, 32761, 32761, 32762, 32762, 32762, 32762, 32763,
    32763, 32763, 32763, 32763, 32764, 32764, 32764, 32764, 32764, 32764, 32765, 32765, 32765, 32765, 32765, 32765,
    32765, 32765, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32766, 32767,
];

/// Points below zero, and from zero on.
const HALF: i64 = 256;

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Tanh,
    Sigmoid,
}

/// A function with its curve: points, and how far it is to the next one.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    function: Function,
    points: Vec<(i32, i32)>,
}

impl Curve {
    /// With a curve of 512 points.
    pub fn new(function: Function, points: Vec<(i32, i32)>) -> Curve {
        Curve { function, points }
    }

    /// The one that U55 and U65 have within.
    pub fn within(function: Function) -> Curve {
        let at = |i: i64| match CURVE.get(i.unsigned_abs() as usize) {
            Some(point) => i32::from(*point) * i.signum() as i32,
            None => 32767 * i.signum() as i32,
        };
        let mut points: Vec<(i32, i32)> = (-HALF..HALF).map(|i| (at(i), at(i + 1) - at(i))).collect();
        if function == Function::Sigmoid {
            // As Vela's table of it has it, too: so it ends at 1, and not at 0.
            points[0].1 = 1;
        }
        Curve::new(function, points)
    }

    /// Of a number of which 12288 are one; the result has 15 bits behind the point.
    pub fn of(&self, value: i64) -> i64 {
        // The logistic function is half as steep.
        let bits = match self.function {
            Function::Tanh => 8,
            Function::Sigmoid => 9,
        };
        let end = (HALF << bits) - 1;
        let place = value.clamp(-end, end) + (HALF << bits);
        let (point, slope) = self.points.get((place >> bits) as usize).copied().unwrap_or_default();
        let height = (i64::from(point) << bits) + i64::from(slope) * (place & ((1 << bits) - 1));
        // Halves go away from the middle.
        let below = i64::from(value < 0);
        let result = match self.function {
            Function::Tanh => (height + 128 - below) >> 8,
            Function::Sigmoid => (height + (32768 << 9) + 512 - below) >> 10,
        };
        result.min(32767)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_the_functions() {
        let (tanh, sigmoid) = (Curve::within(Function::Tanh), Curve::within(Function::Sigmoid));
        for value in (-150_000..150_000).step_by(37) {
            let x = value as f64 / 12288.0;
            let near = |got: i64, want: f64| (got as f64 - want.min(32767.0)).abs() <= 4.0;
            assert!(near(tanh.of(value), 32768.0 * x.tanh()), "tanh {value}");
            assert!(near(sigmoid.of(value), 32768.0 / (1.0 + (-x).exp())), "sigmoid {value}");
        }
    }
}
