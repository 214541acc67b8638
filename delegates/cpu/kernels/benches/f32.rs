//! Speed of the `f32` kernels: GFLOP/s of shapes of well-known models, and the share of the machine's own peak, measured beside each.
//! Each is the best of some runs, and in brackets the median, and what it would be if only the time counted that the thread ran.
//! `cargo bench -p delegraph-cpu-kernels --bench f32 -- [part of a name] [isa]`

use delegraph_cpu_kernels::conv::{self, Layout, Shape, depthwise, grouped, winograd};
use delegraph_cpu_kernels::gemm::{self, Batch, Packed, Stored};
use delegraph_cpu_kernels::simd::{Op, Simd, dispatch};
use delegraph_cpu_kernels::{Activation, Epilogue, Isa, Pool, Serial};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Memory at multiples of a cache's lines, as the delegate has it.
struct Lines;

fn aligned(layout: Block) -> Block {
    layout.align_to(64).expect("no size near the end of memory")
}

// SAFETY: the system's, of a larger alignment.
unsafe impl GlobalAlloc for Lines {
    unsafe fn alloc(&self, layout: Block) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { System.alloc(aligned(layout)) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Block) {
        // SAFETY: as the caller says, and as it was allocated.
        unsafe { System.dealloc(at, aligned(layout)) }
    }
}

#[global_allocator]
static LINES: Lines = Lines;

/// A thread beside the calling one, which spins.
#[derive(Default)]
struct Two {
    body: std::sync::Mutex<Option<(&'static (dyn Fn(usize) + Sync), usize)>>,
    round: AtomicUsize,
    next: AtomicUsize,
    done: AtomicUsize,
    stop: AtomicBool,
}

impl Two {
    fn work(&self, body: &(dyn Fn(usize) + Sync), parts: usize) {
        loop {
            match self.next.fetch_add(1, SeqCst) {
                part if part < parts => body(part),
                _ => return,
            }
        }
    }

    fn other(&self) {
        let mut seen = 0;
        while !self.stop.load(SeqCst) {
            if self.round.load(SeqCst) == seen {
                std::hint::spin_loop();
                continue;
            }
            seen += 1;
            let job = *self.body.lock().expect("no panics");
            if let Some((body, parts)) = job {
                self.work(body, parts);
            }
            self.done.store(seen, SeqCst);
        }
    }
}

impl Pool for Two {
    fn threads(&self) -> usize {
        2
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        if parts < 2 {
            return (0..parts).for_each(body);
        }
        // SAFETY: the other thread is done with it before this returns.
        let long: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(body) };
        *self.body.lock().expect("no panics") = Some((long, parts));
        self.next.store(0, SeqCst);
        let round = self.round.fetch_add(1, SeqCst) + 1;
        self.work(body, parts);
        while self.done.load(SeqCst) != round {
            std::hint::spin_loop();
        }
    }
}

/// Products in registers alone.
struct Peak(usize);

impl Op for Peak {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(black_box(1.0)); 12];
        let (x, y) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, x, y);
            }
        }
        sums.iter().map(|x| s.sum(*x)).sum()
    }
}

/// Seconds that this thread ran, as Linux counts them by its ticks.
fn ran() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    first.unwrap_or(f64::NAN) / 1e9
}

/// Seconds: the least, the median, and those that the thread ran, in the mean. Others may use the cores: the least and the last say what the kernel
/// does, the median what was had.
fn time(mut body: impl FnMut()) -> [f64; 3] {
    body();
    let (start, before, mut all) = (Instant::now(), ran(), Vec::new());
    while start.elapsed() < Duration::from_millis(120) || all.len() < 9 {
        let one = Instant::now();
        body();
        all.push(one.elapsed().as_secs_f64());
    }
    all.sort_by(f64::total_cmp);
    [all[0], all[all.len() / 2], (ran() - before) / all.len() as f64]
}

fn peak(isa: Isa) -> f64 {
    let lanes = match isa {
        Isa::Avx512 => 16.0,
        Isa::Avx2 => 8.0,
        _ => 4.0,
    };
    let count = 100_000;
    count as f64 * 24.0 * lanes / time(|| _ = black_box(dispatch(isa, Peak(count))))[0] / 1e9
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

struct Run<'a> {
    isa: Isa,
    pools: [&'a dyn Pool; 2],
    filter: Option<String>,
}

impl Run<'_> {
    fn case(&self, name: &str, flops: f64, mut body: impl FnMut(&dyn Pool)) {
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            return;
        }
        let peak = peak(self.isa);
        let [one, two] = self
            .pools
            .map(|pool| time(|| body(pool)).map(|seconds| flops / seconds / 1e9));
        let (isa, share) = (self.isa, one[0] / peak * 100.0);
        println!(
            "{isa:7} {name:34} {:6.1} GFLOP/s ({:6.1}, {:6.1}), {share:4.0} % of {peak:5.0}; 2 threads {:6.1} ({:6.1})",
            one[0], one[1], one[2], two[0], two[1]
        );
    }

    fn gemm(&self, name: &str, m: usize, k: usize, n: usize) {
        let width = gemm::width_for(self.isa);
        let (a, b) = (numbers(m * k), numbers(k * n));
        let mut packed = vec![0.0; gemm::packed_len(k, n, width)];
        gemm::pack_matrix(k, n, width, &b, n, 1, &mut packed);
        let (mut out, bias) = (vec![0.0; m * n], numbers(n));
        let epilogue = Epilogue {
            bias: Some(&bias),
            activation: Activation::Relu,
            ..Epilogue::default()
        };
        let weights = Packed {
            stored: Stored::F32(&packed),
            k,
            n,
            width,
        };
        let name = format!("gemm {name} {m}x{k}x{n}");
        self.case(&name, 2.0 * (m * k * n) as f64, |pool| {
            gemm::gemm(self.isa, pool, m, &a, k, &weights, &mut out, n, &epilogue, n)
        });
        if m == 1 {
            let halves: Vec<u16> = packed.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            let weights = Packed {
                stored: Stored::BF16(&halves),
                ..weights
            };
            self.case(&format!("{name} bf16"), 2.0 * (m * k * n) as f64, |pool| {
                gemm::gemm(self.isa, pool, m, &a, k, &weights, &mut out, n, &epilogue, n)
            });
        }
    }

    fn conv(&self, name: &str, size: usize, channels: usize, out: usize, kernel: usize, stride: usize) {
        let width = gemm::width_for(self.isa);
        let groups = if out == 0 { channels } else { 1 };
        let shape = Shape {
            batch: 1,
            height: size,
            width: size,
            channels,
            out_channels: if out == 0 { channels } else { out },
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [[kernel / 2; 2]; 2],
            dilation: [1; 2],
            groups,
        };
        let [height, out_width] = shape.output();
        let flops = 2.0 * (height * out_width * shape.out_channels * shape.terms()) as f64;
        let (input, filter) = (
            numbers(size * size * channels),
            numbers(shape.out_channels * shape.terms()),
        );
        let bias = numbers(shape.out_channels);
        let epilogue = Epilogue {
            bias: Some(&bias),
            activation: Activation::Relu,
            ..Epilogue::default()
        };
        let mut output = vec![0.0; height * out_width * shape.out_channels];
        let name = format!("{name} {size}x{size}x{channels} {out} {kernel}x{kernel} /{stride}");
        let at = |o: usize, c: usize, y: usize, x: usize| {
            filter[((o * shape.group_channels() + c) * kernel + y) * kernel + x]
        };
        if out == 0 {
            let mut packed = vec![0.0; depthwise::packed_len(&shape)];
            depthwise::pack(&shape, |c, y, x| at(c, 0, y, x), &mut packed);
            return self.case(&format!("dw {name}"), flops, |pool| {
                depthwise::conv(self.isa, pool, &shape, &input, &packed, &mut output, &epilogue)
            });
        }
        let mut packed = vec![0.0; conv::packed_len(&shape, width)];
        conv::pack(&shape, width, at, &mut packed);
        let mut scratch = vec![0.0; conv::scratch_len(&shape, Layout::ChannelsLast, 2)];
        self.case(&format!("conv {name}"), flops, |pool| {
            let (layout, stored) = (Layout::ChannelsLast, Stored::F32(&packed));
            conv::conv(
                self.isa,
                pool,
                &shape,
                layout,
                &input,
                stored,
                width,
                &mut output,
                &epilogue,
                &mut scratch,
            )
        });
        if winograd::fits(&shape) {
            let mut packed = vec![0.0; winograd::packed_len(&shape, width)];
            winograd::pack(&shape, width, at, &mut packed);
            let most = winograd::scratch_len(&shape, 1).max(winograd::scratch_len(&shape, 2));
            let mut scratch = vec![0.0; most];
            self.case(&format!("wino {name}"), flops, |pool| {
                let stored = Stored::F32(&packed);
                winograd::conv(
                    self.isa,
                    pool,
                    &shape,
                    &input,
                    stored,
                    width,
                    &mut output,
                    &epilogue,
                    &mut scratch,
                )
            });
        }
    }

    fn attention(&self, heads: usize, m: usize, k: usize, n: usize) {
        let shape = Batch {
            batch: heads,
            m,
            k,
            n,
            a: [m * k, k],
            b: [n * k, 1, k],
            out: [m * n, n],
        };
        let (a, b) = (numbers(heads * m * k), numbers(heads * n * k));
        let mut out = vec![0.0; heads * m * n];
        let mut scratch = vec![0.0; 2 * gemm::scratch_len(self.isa, &shape, 2)];
        self.case(
            &format!("matmul {heads} of {m}x{k}x{n}, turned"),
            2.0 * (heads * m * k * n) as f64,
            |pool| {
                gemm::matmul(
                    self.isa,
                    pool,
                    &shape,
                    &a,
                    &b,
                    &mut out,
                    &Epilogue::default(),
                    &mut scratch,
                )
            },
        );
    }

    fn groups(&self, size: usize, channels: usize, groups: usize) {
        let shape = Shape {
            batch: 1,
            height: size,
            width: size,
            channels,
            out_channels: channels,
            kernel: [3; 2],
            stride: [1; 2],
            padding: [[1; 2]; 2],
            dilation: [1; 2],
            groups,
        };
        let flops = 2.0 * (size * size * channels * shape.terms()) as f64;
        let (input, filter) = (numbers(size * size * channels), numbers(channels * shape.terms()));
        let mut output = vec![0.0; size * size * channels];
        let at = |o: usize, c: usize, y: usize, x: usize| filter[((o * shape.group_channels() + c) * 3 + y) * 3 + x];
        let (name, epilogue) = (format!("{size}x{size}x{channels} in {groups}"), Epilogue::default());
        let width = gemm::width_for(self.isa);
        let mut packed = vec![0.0; conv::packed_len(&shape, width)];
        conv::pack(&shape, width, at, &mut packed);
        let grouped_width = grouped::width_for(self.isa);
        let most = conv::scratch_len(&shape, Layout::ChannelsLast, 2);
        let mut scratch = vec![0.0; most.max(grouped::scratch_len(&shape, grouped_width, 2))];
        self.case(&format!("groups {name} as products"), flops, |pool| {
            let (isa, layout, stored) = (self.isa, Layout::ChannelsLast, Stored::F32(&packed));
            let (scratch, output) = (&mut scratch, &mut output);
            conv::conv(
                isa, pool, &shape, layout, &input, stored, width, output, &epilogue, scratch,
            )
        });
        let width = grouped_width;
        if grouped::fits(&shape, width) {
            let mut packed = vec![0.0; grouped::packed_len(&shape, width)];
            grouped::pack(&shape, width, at, &mut packed);
            self.case(&format!("groups {name}"), flops, |pool| {
                let (isa, scratch, output) = (self.isa, &mut scratch, &mut output);
                grouped::conv(isa, pool, &shape, &input, &packed, width, output, &epilogue, scratch)
            });
        }
    }

    fn all(&self) {
        for (size, channels, groups) in [(56, 128, 32), (28, 256, 32), (14, 512, 32), (7, 1024, 32), (28, 120, 5)] {
            self.groups(size, channels, groups);
        }
        self.gemm("few", 8, 8000, 2000);
        for (m, k, n) in [
            (196, 1024, 1024),
            (49, 1024, 2048),
            (49, 464, 1024),
            (784, 58, 58),
            (3136, 256, 64),
        ] {
            self.gemm("image", m, k, n);
        }
        self.gemm("vit", 197, 768, 3072);
        self.gemm("bert", 128, 384, 1536);
        self.gemm("bert", 128, 128, 512);
        self.gemm("gemv", 1, 2048, 2048);
        self.gemm("gemv", 1, 512, 512);
        self.attention(12, 197, 64, 197);
        self.attention(8, 1, 64, 512);
        for (size, channels, out) in [
            (112, 32, 16),
            (112, 16, 96),
            (56, 24, 144),
            (28, 192, 32),
            (14, 384, 64),
            (7, 160, 960),
            (7, 320, 1280),
        ] {
            self.conv("mobilenet", size, channels, out, 1, 1);
        }
        for (size, channels, stride) in [
            (112, 32, 1),
            (112, 96, 2),
            (56, 144, 1),
            (28, 192, 1),
            (14, 384, 1),
            (14, 576, 2),
            (7, 960, 1),
        ] {
            self.conv("mobilenet", size, channels, 0, 3, stride);
        }
        self.conv("mobilenet3", 14, 240, 0, 5, 1);
        self.conv("mobilenet3", 28, 96, 0, 5, 2);
        self.conv("mobilenet first", 224, 3, 32, 3, 2);
        self.conv("resnet first", 224, 3, 64, 7, 2);
        for (size, channels) in [(56, 64), (28, 128), (14, 256), (7, 512)] {
            self.conv("resnet", size, channels, channels * 4, 1, 1);
            self.conv("resnet", size, channels * 4, channels, 1, 1);
            self.conv("resnet", size, channels, channels, 3, 1);
        }
        self.conv("resnet", 56, 256, 512, 1, 2);
        self.conv("edsr", 64, 64, 64, 3, 1);
        for (size, channels) in [(64, 8), (32, 16), (32, 32), (8, 32), (8, 64), (4, 64)] {
            self.conv("small", size, channels, channels, 3, 1);
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let two = Two::default();
    std::thread::scope(|scope| {
        scope.spawn(|| two.other());
        for isa in Isa::all() {
            let wanted = words.iter().any(|word| word == isa.name());
            let named = Isa::all().iter().any(|isa| words.iter().any(|word| word == isa.name()));
            if wanted || (!named && isa != Isa::Scalar) {
                let filter = words
                    .iter()
                    .find(|word| Isa::all().iter().all(|isa| isa.name() != word.as_str()));
                Run {
                    isa,
                    pools: [&Serial, &two],
                    filter: filter.cloned(),
                }
                .all();
            }
        }
        two.stop.store(true, SeqCst);
    });
}
