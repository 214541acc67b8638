//! Speed of what lies between large products: one thread, the median of many runs (and the least, which others that run here disturb less), with what the machine can do at most from the same minute.
//!
//! `cargo bench -p delegraph-cpu-kernels --bench layers [word]`: the word picks cases by their names.

use delegraph_cpu_kernels::attention::{Attention, Rows, Strides};
use delegraph_cpu_kernels::elementwise::{self, Binary, Input, Operand, Program, Step, Unary};
use delegraph_cpu_kernels::norm::Norm;
use delegraph_cpu_kernels::pooling::{Pooling, Windows};
use delegraph_cpu_kernels::recurrent::{self, Cell, Recurrent};
use delegraph_cpu_kernels::simd::{Op, Simd, dispatch};
use delegraph_cpu_kernels::softmax::Softmax;
use delegraph_cpu_kernels::{Activation, Isa, Serial, layout};
use std::hint::black_box;
use std::time::Instant;

/// Multiply-adds on registers alone: how many.
struct Peak(usize);

impl Op for Peak {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut sums = [x; 12];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, x, y);
            }
        }
        black_box(sums.iter().map(|x| s.sum(*x)).sum::<f32>());
        (self.0 * 12 * S::LANES * 2) as f64
    }
}

/// Reads all of it, in four streams.
struct Read<'a>(&'a [f32]);

impl Op for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let quarter = self.0.len() / 4;
        let mut sums = [s.splat(0.0); 4];
        for at in (0..quarter / S::LANES * S::LANES).step_by(S::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: within the quarter.
                *sum = s.add(*sum, unsafe { s.load(self.0.as_ptr().add(i * quarter + at)) });
            }
        }
        black_box(sums.iter().map(|x| s.sum(*x)).sum::<f32>());
    }
}

/// The median time and the least, in seconds.
fn time(mut body: impl FnMut()) -> (f64, f64) {
    body();
    let begin = Instant::now();
    let mut all = Vec::new();
    while all.len() < 7 || (begin.elapsed().as_millis() < 300 && all.len() < 2000) {
        let start = Instant::now();
        body();
        all.push(start.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0])
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

struct Bench {
    isa: Isa,
    word: String,
    peak: f64,
    read: f64,
}

impl Bench {
    fn bytes(&self, name: &str, bytes: usize, body: impl FnMut()) {
        if name.contains(&self.word) {
            let (seconds, least) = time(body);
            let rate = bytes as f64 / seconds / 1e9;
            println!(
                "{:7} {name:36} {:9.1} us ({:.1} at least) {rate:7.1} GB/s ({:3.0} % of reading)",
                self.isa,
                seconds * 1e6,
                least * 1e6,
                rate / self.read * 100.0
            );
        }
    }

    fn operations(&self, name: &str, operations: usize, body: impl FnMut()) {
        if name.contains(&self.word) {
            let (seconds, least) = time(body);
            let rate = operations as f64 / seconds / 1e9;
            println!(
                "{:7} {name:36} {:9.1} us ({:.1} at least) {rate:7.1} GFLOP/s ({:3.0} % of peak)",
                self.isa,
                seconds * 1e6,
                least * 1e6,
                rate / self.peak * 100.0
            );
        }
    }

    fn elements(&self) {
        for (name, n) in [("cached", 4096), ("large", 1 << 23)] {
            let (x, mut out) = (numbers(n), vec![0.0; n]);
            for (what, function) in [
                ("relu", Activation::Relu),
                ("gelu", Activation::Gelu),
                ("silu", Activation::Silu),
                ("tanh", Activation::Tanh),
                ("hardswish", Activation::HardSwish),
            ] {
                self.bytes(&format!("{what} {name}"), 8 * n, || {
                    elementwise::unary(self.isa, &Serial, Unary::Activation(function), &x, &mut out);
                });
            }
            self.bytes(&format!("add {name}"), 12 * n, || {
                elementwise::binary(self.isa, &Serial, Binary::Add, &x, &x, Activation::None, &mut out);
            });
            let row = numbers(64);
            let steps = vec![
                Step::Binary(Binary::Mul, Operand::Input(0), Operand::Input(1)),
                Step::Binary(Binary::Add, Operand::Step(0), Operand::Constant(0.5)),
                Step::Binary(Binary::Max, Operand::Step(1), Operand::Constant(0.0)),
                Step::Binary(Binary::Mul, Operand::Step(2), Operand::Input(0)),
            ];
            let program = Program::new(steps, 2).expect("a program");
            self.bytes(&format!("program of 4 steps {name}"), 8 * n, || {
                program.run(self.isa, &Serial, &[Input::Full(&x), Input::Row(&row)], 64, &mut out);
            });
        }
    }

    fn rows(&self) {
        for (rows, columns) in [(197 * 12, 197), (128, 384), (8192, 1024)] {
            let n = rows * columns;
            let (x, mut out) = (numbers(n), vec![0.0; n]);
            let softmax = Softmax {
                columns,
                scale: 1.0,
                mask: None,
                log: false,
            };
            self.bytes(&format!("softmax {rows} x {columns}"), 8 * n, || {
                softmax.run(self.isa, &Serial, &x, &mut out)
            });
            let w = numbers(columns);
            let norm = Norm {
                columns,
                root_mean_square: false,
                weight: Some(&w),
                bias: Some(&w),
                epsilon: 1e-5,
            };
            self.bytes(&format!("layer norm {rows} x {columns}"), 8 * n, || {
                norm.run(self.isa, &Serial, &x, None, None, &mut out);
            });
            let norm = Norm {
                root_mean_square: true,
                bias: None,
                ..norm
            };
            self.bytes(&format!("rms norm {rows} x {columns}"), 8 * n, || {
                norm.run(self.isa, &Serial, &x, None, None, &mut out);
            });
        }
    }

    fn attention(&self) {
        for (name, heads, kv_heads, queries, keys, depth, causal) in [
            ("attention 12 x 197 x 64", 12, 12, 197, 197, 64, None),
            ("attention 12 x 128 x 32", 12, 12, 128, 128, 32, None),
            ("attention 2 x 128 x 64", 2, 2, 128, 128, 64, None),
            ("attention 8 x 1024 x 64 causal", 8, 8, 1024, 1024, 64, Some(0)),
            ("decoding 32/8 x 64, 1024 keys", 32, 8, 1, 1024, 64, Some(1023)),
            ("decoding 12 x 64, 1024 keys", 12, 12, 1, 1024, 64, Some(1023)),
        ] {
            let (q, k) = (numbers(heads * queries * depth), numbers(kv_heads * keys * depth));
            let mut out = vec![0.0; q.len()];
            let attention = Attention {
                batch: 1,
                heads,
                kv_heads,
                queries,
                keys,
                depth,
                value_depth: depth,
                scale: 0.125,
                causal,
                mask: None,
                zero_unseen: false,
            };
            let mut scratch = vec![0.0; attention.scratch_len(1)];
            let strides = Strides::rows_first(heads, queries, depth);
            let v = k.clone();
            let all = |x| Rows {
                values: x,
                strides: Strides::rows_first(kv_heads, keys, depth),
            };
            let run = || {
                let q = Rows {
                    values: &q[..],
                    strides,
                };
                attention.run(self.isa, &Serial, q, all(&k), all(&v), &mut out, strides, &mut scratch);
            };
            match queries {
                1 => self.bytes(name, 8 * k.len(), run),
                _ => {
                    let pairs = if causal.is_some() {
                        queries * (queries + 1) / 2
                    } else {
                        queries * keys
                    };
                    self.operations(name, 4 * heads * pairs * depth, run);
                }
            }
        }
    }

    fn sequences(&self) {
        let (inputs, hidden, time) = (256, 256, 32);
        for (name, cell, batch) in [
            ("lstm 256, 32 steps", Cell::Lstm, 1),
            ("lstm 256, 32 steps, batch 4", Cell::Lstm, 4),
            ("gru 256, 32 steps", Cell::Gru, 1),
        ] {
            let gates = cell.gates();
            let w = numbers(gates * hidden * inputs)
                .iter()
                .map(|x| x / 16.0)
                .collect::<Vec<_>>();
            let packed = recurrent::pack(cell, inputs, hidden, &w, &w, None, None);
            let call = Recurrent {
                cell,
                inputs,
                hidden,
                packed: &packed,
                time,
                batch,
                reverse: false,
                x_strides: [batch * inputs, inputs],
                out_strides: [batch * hidden, hidden],
            };
            let x = numbers(time * batch * inputs);
            let (mut h, mut c) = (vec![0.0; batch * hidden], vec![0.0; batch * hidden]);
            let (mut out, mut scratch) = (vec![0.0; time * batch * hidden], vec![0.0; call.scratch_len()]);
            self.operations(name, 2 * time * batch * gates * hidden * (inputs + hidden), || {
                call.run(self.isa, &Serial, &x, &mut h, &mut c, &mut out, &mut scratch);
            });
        }
    }

    fn layouts(&self) {
        for (batch, rows, columns) in [
            (1, 64, 3136),
            (1, 512, 49),
            (1, 3, 50_176),
            (12, 197, 64),
            (1, 2048, 2048),
        ] {
            let n = batch * rows * columns;
            let (x, mut out) = (numbers(n), vec![0.0; n]);
            self.bytes(&format!("transpose {batch} x {rows} x {columns}"), 8 * n, || {
                layout::transpose(self.isa, &Serial, batch, rows, columns, &x, &mut out);
            });
        }
        let w = Windows {
            batch: 1,
            channels: 64,
            input: [112, 112],
            output: [56, 56],
            kernel: [3, 3],
            stride: [2, 2],
            padding: [1, 1],
            dilation: [1, 1],
        };
        let (x, mut out) = (numbers(112 * 112 * 64), vec![0.0; 56 * 56 * 64]);
        self.bytes("max pool 3 x 3 / 2, 112 x 112 x 64", 4 * (x.len() + out.len()), || {
            w.run(self.isa, &Serial, Pooling::Max, &x, &mut out);
        });
    }
}

fn main() {
    let word = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with('-'))
        .unwrap_or_default();
    let memory = numbers(1 << 25);
    for isa in Isa::all() {
        let mut made = 0.0;
        let (_, seconds) = time(|| made = dispatch(isa, Peak(200_000)));
        let peak = made / seconds / 1e9;
        let read = 4.0 * memory.len() as f64 / time(|| dispatch(isa, Read(&memory))).0 / 1e9;
        println!("{isa}: {peak:.1} GFLOP/s of registers, {read:.1} GB/s read");
        let bench = Bench {
            isa,
            word: word.clone(),
            peak,
            read,
        };
        bench.elements();
        bench.rows();
        bench.attention();
        bench.sequences();
        bench.layouts();
    }
}
