//! Quantized graphs with an integer reference: what each output is, to the step.

use super::{Maker, per_tensor};
use delegraph_hexagon::graph::*;

/// A graph, its input, and what its output is in steps, before rounding.
pub struct Case {
    pub graph: Graph,
    pub input: Vec<u8>,
    pub want: Vec<f64>,
    /// Largest integer of the output.
    pub most: f64,
}

/// Numbers that repeat on every machine.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, most: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % most
    }

    fn list(&mut self, count: usize, low: i32, high: i32) -> Vec<i32> {
        (0..count)
            .map(|_| low + self.below((high - low + 1) as u32) as i32)
            .collect()
    }
}

fn bytes(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().map(|n| *n as i8 as u8).collect()
}

fn halves(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| (*n as u16).to_le_bytes()).collect()
}

fn words(numbers: &[i32]) -> TensorKind {
    TensorKind::Static(numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
}

fn pairs(scales: &[f32]) -> Vec<ScaleOffset> {
    scales
        .iter()
        .map(|scale| ScaleOffset {
            scale: *scale,
            offset: 0,
        })
        .collect()
}

fn per_axis(axis: u32, scales: &[f32]) -> Quantization {
    Quantization::PerAxis {
        axis,
        pairs: pairs(scales),
    }
}

/// Scales of channels: powers of two times odd numbers, so that all are exact.
fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at % 5 + 3) as f32 / 1024.0).collect()
}

/// 4 x 64 bytes times 16 x 64 signed bytes, with a bias.
pub fn fully_connected() -> Case {
    let mut numbers = Numbers(1);
    let (rows, inner, outer) = (4, 64, 16);
    let (x, w, b) = (
        numbers.list(rows * inner, 0, 255),
        numbers.list(outer * inner, -127, 127),
        numbers.list(outer, -9999, 9999),
    );
    let (x_scale, w_scale, y_scale, x_zero, y_zero) = (1.0 / 64.0, 1.0 / 256.0, 1.0 / 16.0, 121, 130);
    let mut want = Vec::new();
    for row in x.chunks(inner) {
        for (out, weights) in w.chunks(inner).enumerate() {
            let sum: i32 = row.iter().zip(weights).map(|(x, w)| (x - x_zero) * w).sum();
            want.push(f64::from(sum + b[out]) * f64::from(x_scale * w_scale / y_scale) + f64::from(y_zero));
        }
    }
    let mut maker = Maker::new("fully_connected");
    let fixed = DataType::UFixed8;
    let x_id = maker.tensor("x", TensorKind::Input, fixed, &[4, 64], per_tensor(x_scale, x_zero));
    let w_id = maker.tensor(
        "w",
        TensorKind::Static(bytes(&w)),
        DataType::SFixed8,
        &[16, 64],
        per_tensor(w_scale, 0),
    );
    let b_id = maker.tensor(
        "b",
        words(&b),
        DataType::SFixed32,
        &[16],
        per_tensor(x_scale * w_scale, 0),
    );
    let y_id = maker.tensor("y", TensorKind::Output, fixed, &[4, 16], per_tensor(y_scale, y_zero));
    Case {
        graph: maker.node("FullyConnected", vec![], &[x_id, w_id, b_id], &[y_id]).0,
        input: x.iter().map(|n| *n as u8).collect(),
        want,
        most: 255.0,
    }
}

/// 3 x 3 over 8 x 8 of 8 channels to 16, padded by 1, one scale a channel, with a bias.
pub fn convolution() -> Case {
    let mut numbers = Numbers(2);
    let (side, inner, outer) = (8usize, 8usize, 16usize);
    let x = numbers.list(side * side * inner, 0, 255);
    let w = numbers.list(9 * inner * outer, -127, 127);
    let b = numbers.list(outer, -9999, 9999);
    let (x_scale, y_scale, x_zero, y_zero) = (1.0f32 / 64.0, 1.0f32 / 16.0, 117, 126);
    let w_scales = scales(outer);
    let mut want = Vec::new();
    for (row, column, out) in (0..side * side * outer).map(|at| (at / outer / side, at / outer % side, at % outer)) {
        let mut sum = b[out];
        for (kernel, channel) in (0..9 * inner).map(|at| (at / inner, at % inner)) {
            let (from_row, from_column) = (
                (row + kernel / 3).wrapping_sub(1),
                (column + kernel % 3).wrapping_sub(1),
            );
            if from_row < side && from_column < side {
                let x = x[(from_row * side + from_column) * inner + channel] - x_zero;
                sum += x * w[(kernel * inner + channel) * outer + out];
            }
        }
        want.push(f64::from(sum) * f64::from(x_scale * w_scales[out] / y_scale) + f64::from(y_zero));
    }
    let mut maker = Maker::new("convolution");
    let fixed = DataType::UFixed8;
    let x_id = maker.tensor(
        "x",
        TensorKind::Input,
        fixed,
        &[1, 8, 8, 8],
        per_tensor(x_scale, x_zero),
    );
    let w_id = maker.tensor(
        "w",
        TensorKind::Static(bytes(&w)),
        DataType::SFixed8,
        &[3, 3, 8, 16],
        per_axis(3, &w_scales),
    );
    let b_scales: Vec<f32> = w_scales.iter().map(|scale| scale * x_scale).collect();
    let b_id = maker.tensor("b", words(&b), DataType::SFixed32, &[16], per_axis(0, &b_scales));
    let y_id = maker.tensor(
        "y",
        TensorKind::Output,
        fixed,
        &[1, 8, 8, 16],
        per_tensor(y_scale, y_zero),
    );
    let params = vec![
        ("stride", Param::list(&[1, 1])),
        ("pad_amount", Param::U32s(vec![2, 2], vec![1; 4])),
        ("dilation", Param::list(&[1, 1])),
    ];
    Case {
        graph: maker.node("Conv2d", params, &[x_id, w_id, b_id], &[y_id]).0,
        input: x.iter().map(|n| *n as u8).collect(),
        want,
        most: 255.0,
    }
}

/// 4 x 64 of 16 bits times 16 x 64 of 4 bits, one scale a row of these.
///
/// Sums of products with 16-bit activations come out in units of 256 products of the smallest steps, rounded down: with an output step of 1 / 65536,
/// outputs are up to 4 steps too small. Here a step is 585 of them at least.
pub fn four_bits() -> Case {
    let mut numbers = Numbers(3);
    let (rows, inner, outer) = (4, 64, 16);
    let (x, w) = (numbers.list(rows * inner, 0, 65535), numbers.list(outer * inner, -8, 7));
    let (x_scale, y_scale, x_zero, y_zero) = (1.0f32 / 16384.0, 1.0f32 / 4096.0, 32768, 32768);
    let w_scales = scales(outer);
    let mut want = Vec::new();
    for row in x.chunks(inner) {
        for (out, weights) in w.chunks(inner).enumerate() {
            let sum: i64 = row
                .iter()
                .zip(weights)
                .map(|(x, w)| i64::from(x - x_zero) * i64::from(*w))
                .sum();
            want.push(sum as f64 * f64::from(x_scale * w_scales[out] / y_scale) + f64::from(y_zero));
        }
    }
    let mut maker = Maker::new("four_bits");
    let fixed = DataType::UFixed16;
    let quantization = Quantization::NarrowPerAxis {
        bits: 4,
        axis: 0,
        pairs: pairs(&w_scales),
    };
    let x_id = maker.tensor("x", TensorKind::Input, fixed, &[4, 64], per_tensor(x_scale, x_zero));
    let w_id = maker.tensor(
        "w",
        TensorKind::Static(bytes(&w)),
        DataType::SFixed8,
        &[16, 64],
        quantization,
    );
    let y_id = maker.tensor("y", TensorKind::Output, fixed, &[4, 16], per_tensor(y_scale, y_zero));
    Case {
        graph: maker.node("FullyConnected", vec![], &[x_id, w_id], &[y_id]).0,
        input: halves(&x),
        want,
        most: 65535.0,
    }
}

/// 1 x 1 over 4 x 4 of 64 channels of 16 bits to 8, of 4 bits in blocks of 16 along the input channels.
pub fn blocks() -> Case {
    let mut numbers = Numbers(4);
    let (places, inner, outer, block) = (16, 64, 8, 16);
    let (x, w) = (
        numbers.list(places * inner, 0, 65535),
        numbers.list(inner * outer, -8, 7),
    );
    let block_scales = numbers.list(outer * (inner / block), 1, 15);
    let (x_scale, y_scale, x_zero, y_zero) = (1.0f32 / 16384.0, 1.0f32 / 2048.0, 32768, 32768);
    let w_scales = scales(outer);
    let mut want = Vec::new();
    for place in x.chunks(inner) {
        for out in 0..outer {
            let product = |(channel, x): (usize, &i32)| {
                let scale = block_scales[out * (inner / block) + channel / block];
                i64::from(x - x_zero) * i64::from(w[channel * outer + out] * scale)
            };
            let sum: i64 = place.iter().enumerate().map(product).sum();
            want.push(sum as f64 * f64::from(x_scale * w_scales[out] / y_scale) + f64::from(y_zero));
        }
    }
    let mut maker = Maker::new("blocks");
    let fixed = DataType::UFixed16;
    let quantization = Quantization::Blocks {
        axis: 3,
        channels: pairs(&w_scales),
        blocks: (inner / block) as u32,
        scale_bits: 4,
        block_scales: bytes(&block_scales),
    };
    let x_id = maker.tensor(
        "x",
        TensorKind::Input,
        fixed,
        &[1, 4, 4, 64],
        per_tensor(x_scale, x_zero),
    );
    let w_id = maker.tensor(
        "w",
        TensorKind::Static(bytes(&w)),
        DataType::SFixed8,
        &[1, 1, 64, 8],
        quantization,
    );
    let y_id = maker.tensor(
        "y",
        TensorKind::Output,
        fixed,
        &[1, 4, 4, 8],
        per_tensor(y_scale, y_zero),
    );
    let params = vec![
        ("stride", Param::list(&[1, 1])),
        ("pad_amount", Param::U32s(vec![2, 2], vec![0; 4])),
    ];
    Case {
        graph: maker.node("Conv2d", params, &[x_id, w_id], &[y_id]).0,
        input: halves(&x),
        want,
        most: 65535.0,
    }
}

impl Case {
    /// Fails if an output is more than one step off; says how many are exact.
    pub fn check(&self, output: &[u8]) {
        let wide = self.most > 255.0;
        let got: Vec<f64> = match wide {
            true => output
                .chunks_exact(2)
                .map(|pair| f64::from(u16::from_le_bytes([pair[0], pair[1]])))
                .collect(),
            false => output.iter().map(|n| f64::from(*n)).collect(),
        };
        assert_eq!(got.len(), self.want.len());
        let mut exact = 0;
        let mut inside = 0;
        for (at, (got, want)) in got.iter().zip(&self.want).enumerate() {
            let want = want.round_ties_even().clamp(0.0, self.most);
            assert!(
                (got - want).abs() <= 1.0,
                "{} element {at}: {got}, not {want}",
                self.graph.name
            );
            exact += usize::from(got == &want);
            inside += usize::from(want > 0.0 && want < self.most);
        }
        println!("{}: {exact} of {} exact", self.graph.name, got.len());
        assert!(inside * 2 > got.len(), "most outputs are inside their range: {inside}");
    }
}
