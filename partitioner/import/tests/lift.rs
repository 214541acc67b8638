//! Lifting, on ExecuTorch's own files and on plans made for one trait each.

use delegraph_import::lift_program;
use delegraph_ir::{Bytes, Module, verify};
use delegraph_pte::model::{Allocation, Dynamism, EValue, Instruction, Operator, Plan, Storage, Tensor};
use delegraph_pte::{ProgramParts, Verified, write};
use delegraph_types::{DType, Dims};
use std::path::Path;
use std::time::Instant;

fn lift(file: Vec<u8>) -> Result<Module, String> {
    let file = Bytes::from(file);
    let program = Verified::parse(file.as_slice()).unwrap();
    let module = lift_program(&program, &file, None).map_err(|error| error.to_string())?;
    verify(&module).unwrap();
    Ok(module)
}

fn sample(name: &str) -> Result<Module, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/pte/tests/data");
    lift(std::fs::read(folder.join(name)).unwrap())
}

#[test]
fn a_dynamic_batch_is_found_and_the_other_sizes_are_fixed() {
    assert_eq!(
        sample("arch-mlp-dynamic-batch.pte").unwrap().to_string(),
        "\
symbol s0 in 1..64
forward(%input_0: f32[s0,16]):
  %constant_1: f32[32,16] = constant c0
  %constant_2: f32[32] = constant c1
  %constant_5: f32[32] = constant c2
  %constant_6: f32[32] = constant c3
  %constant_3: f32[8,32] = constant c4
  %constant_4: f32[8] = constant c5
  %permute_0: f32[16,32] = aten::permute(%constant_1, [1, 0])
  %addmm_1: f32[s0,32] = aten::addmm(%constant_2, %input_0, %permute_0)
  %native_layer_norm_2: f32[s0,32], %native_layer_norm_2_1: f32[s0,1], %native_layer_norm_2_2: f32[s0,1] = \
aten::native_layer_norm(%addmm_1, [32], %constant_5, %constant_6, 1e-5)
  %gelu_3: f32[s0,32] = aten::gelu(%native_layer_norm_2)
  %permute_4: f32[32,8] = aten::permute(%constant_3, [1, 0])
  %addmm_5: f32[s0,8] = aten::addmm(%constant_4, %gelu_3, %permute_4)
  %_softmax_6: f32[s0,8] = aten::_softmax(%addmm_5, -1, false)
  return %_softmax_6
"
    );
}

#[test]
fn a_buffer_is_known_by_its_initial_state_or_by_being_read_first() {
    let body = "\
forward(%input_0: f32[4]):
  %forward.buffer_0: f32[4] = state s0
  %constant_1: i64[] = constant CONSTANT
  %add_0: f32[4] = aten::add.Tensor(%forward.buffer_0, %input_0)
  %_to_copy_1: f32[] = aten::_to_copy(%constant_1, dtype=f32)
  %mul_2: f32[4] = aten::mul.Tensor(%add_0, %_to_copy_1)
  write s0 = %add_0
  return %mul_2
";
    assert_eq!(
        sample("mutable-buffer.pte").unwrap().to_string(),
        format!(
            "state s0 `forward.buffer_0`: f32[4]\n{}",
            body.replace("CONSTANT", "c0")
        )
    );
    let module = sample("mutable-buffer-initialised.pte").unwrap();
    assert_eq!(
        module.to_string(),
        format!(
            "state s0 `forward.buffer_0`: f32[4] = c0\n{}",
            body.replace("CONSTANT", "c1")
        )
    );
    let initial = module.states[0].initial.unwrap();
    let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(module.constants[initial].storage.as_slice(), bytes);
}

#[test]
fn methods_keep_their_names_and_share_constants() {
    let module = sample("two-methods.pte").unwrap();
    let names: Vec<&str> = module.graphs.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["forward", "other", "max_len", "eps"]);
    assert_eq!(module.constants.len(), 2);
    assert_eq!(module.graphs[2].to_string(), "max_len():\n  return 128");
    assert_eq!(module.graphs[3].to_string(), "eps():\n  return 0.5");
}

#[test]
fn layouts_are_kept_as_memory_formats_and_a_changed_input_as_a_mutation() {
    let text = sample("dim-order.pte").unwrap().to_string();
    assert!(
        text.contains("aten::clone(%input_0, memory_format=ChannelsLast)"),
        "{text}"
    );
    assert!(
        text.contains("f16[1,2,3,4] = aten::_to_copy(%input_0, dtype=f16)"),
        "{text}"
    );
    let text = sample("arch-variety.pte").unwrap().to_string();
    assert!(text.contains("write input input_1 = %add_2"), "{text}");
    assert!(
        text.contains("input_2=true, input_3=2, input_4=0.5, input_5=None"),
        "{text}"
    );
    assert!(text.contains("%nonzero_6: i64[u0,1] = aten::nonzero"), "{text}");
}

/// A plan under construction: tensors, and calls that name them.
#[derive(Default)]
struct Program {
    plan: Plan,
}

impl Program {
    fn value(&mut self, value: EValue) -> u32 {
        self.plan.values.push(value);
        self.plan.values.len() as u32 - 1
    }

    fn tensor(&mut self, sizes: &[i64], offset: u64) -> u32 {
        self.any_tensor(DType::F32, sizes, Dynamism::Static, offset)
    }

    fn any_tensor(&mut self, dtype: DType, sizes: &[i64], dynamism: Dynamism, offset: u64) -> u32 {
        let storage = match dynamism {
            Dynamism::Unbounded => Storage::Unplanned,
            _ => Storage::Arena(Allocation { memory_id: 1, offset }),
        };
        self.value(EValue::Tensor(Tensor {
            dtype,
            sizes: Dims::new(sizes).unwrap(),
            dim_order: (0..sizes.len() as u8).collect(),
            dynamism,
            storage,
            name: None,
        }))
    }

    fn input(&mut self, value: u32) -> u32 {
        self.plan.inputs.push(value);
        value
    }

    fn call(&mut self, name: &str, overload: &str, args: &[u32]) {
        let operator = Operator {
            name: name.to_string(),
            overload: overload.to_string(),
        };
        let known = self.plan.operators.iter().position(|have| *have == operator);
        let op = known.unwrap_or_else(|| {
            self.plan.operators.push(operator);
            self.plan.operators.len() - 1
        });
        self.plan.instructions.push(Instruction::Kernel {
            op: op as u32,
            args: args.to_vec(),
        });
    }

    fn unary(&mut self, name: &str, from: u32, to: u32) {
        self.call(name, "out", &[from, to, to]);
    }

    fn binary(&mut self, name: &str, a: u32, b: u32, to: u32) {
        let alpha = self.value(EValue::Int(1));
        let args = match name {
            "aten::add" => vec![a, b, alpha, to, to],
            _ => vec![a, b, to, to],
        };
        self.call(name, "out", &args);
    }

    fn copy(&mut self, to: u32, from: u32) {
        let non_blocking = self.value(EValue::Bool(false));
        self.call("aten::copy_", "", &[to, from, non_blocking, to]);
    }

    fn file(mut self, outputs: &[u32]) -> Vec<u8> {
        self.plan.name = "forward".to_string();
        self.plan.outputs = outputs.to_vec();
        self.plan.buffer_sizes = vec![0, 1 << 20];
        let parts = ProgramParts {
            plans: &[self.plan],
            constants: &[],
            mutable_states: &[],
            named: &[],
        };
        let mut file = Vec::new();
        write(&parts, &mut file).unwrap();
        file
    }

    /// The lifted graph without its first line and indentation, or the refusal.
    fn lifted(self, outputs: &[u32]) -> String {
        match lift(self.file(outputs)) {
            Ok(module) => {
                let text = module.graphs[0].to_string();
                text.lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error,
        }
    }
}

#[test]
fn a_place_that_is_used_again_holds_the_last_write() {
    let mut p = Program::default();
    let x = p.tensor(&[4], 0);
    p.input(x);
    let (a, b, c) = (p.tensor(&[4], 16), p.tensor(&[4], 0), p.tensor(&[4], 16));
    p.unary("aten::neg", x, a);
    // The input's memory, then the first result's, are given to others.
    p.unary("aten::abs", a, b);
    p.unary("aten::sin", b, c);
    assert_eq!(
        p.lifted(&[c]),
        "%neg_0: f32[4] = aten::neg(%input_0)\n%abs_1: f32[4] = aten::abs(%neg_0)\n%sin_2: f32[4] = aten::sin(%abs_1)\nreturn %sin_2"
    );
}

#[test]
fn another_shape_of_the_same_bytes_is_a_view() {
    let mut p = Program::default();
    let x = p.tensor(&[2, 3], 0);
    p.input(x);
    let flat = p.tensor(&[6], 0);
    let y = p.tensor(&[6], 64);
    p.unary("aten::neg", flat, y);
    assert_eq!(
        p.lifted(&[y, flat]),
        "%view_0: f32[6] = aten::view(%input_0, [6])\n%neg_1: f32[6] = aten::neg(%view_0)\nreturn %neg_1, %view_0"
    );
}

#[test]
fn bytes_that_several_writes_made_are_refused_by_name() {
    let mut p = Program::default();
    let x = p.tensor(&[4], 0);
    p.input(x);
    let (a, b, both) = (p.tensor(&[4], 32), p.tensor(&[4], 48), p.tensor(&[8], 32));
    let y = p.tensor(&[8], 64);
    p.unary("aten::neg", x, a);
    p.unary("aten::abs", x, b);
    p.unary("aten::sin", both, y);
    assert_eq!(
        p.lifted(&[y]),
        "method `forward`, instruction 2 (`aten::sin.out`): %3 (f32[8]) is read, whose bytes %1, %2 wrote in part"
    );
    // Reinterpreting bits is no view.
    let mut p = Program::default();
    let x = p.tensor(&[4], 0);
    p.input(x);
    let bits = p.any_tensor(DType::I32, &[4], Dynamism::Static, 0);
    let y = p.any_tensor(DType::I32, &[4], Dynamism::Static, 64);
    p.unary("aten::neg", bits, y);
    assert!(p.lifted(&[y]).contains("of another dtype or layout"));
}

#[test]
fn a_write_through_a_view_of_an_input_changes_the_input() {
    let mut p = Program::default();
    let x = p.tensor(&[2, 3], 0);
    let y = p.tensor(&[6], 64);
    p.input(x);
    p.input(y);
    let flat = p.tensor(&[6], 0);
    p.copy(flat, y);
    assert_eq!(
        p.lifted(&[x]),
        "%view_0: f32[2,3] = aten::view(%input_1, [2, 3])\nwrite input input_0 = %view_0\nreturn %view_0"
    );
}

#[test]
fn a_copy_takes_the_dtype_and_sizes_of_its_target() {
    let mut p = Program::default();
    let x = p.any_tensor(DType::I64, &[3], Dynamism::Static, 0);
    p.input(x);
    let y = p.tensor(&[2, 3], 64);
    p.copy(y, x);
    assert_eq!(
        p.lifted(&[y]),
        "%expand_0: i64[2,3] = aten::expand(%input_0, [2, 3])\n%_to_copy_1: f32[2,3] = aten::_to_copy(%expand_0, dtype=f32)\nreturn %_to_copy_1"
    );
}

#[test]
fn dynamic_inputs_that_meet_have_one_size() {
    let mut p = Program::default();
    let (x, y) = (
        p.any_tensor(DType::F32, &[8, 4], Dynamism::Bounded, 0),
        p.any_tensor(DType::F32, &[6, 4], Dynamism::Bounded, 128),
    );
    p.input(x);
    p.input(y);
    let sum = p.any_tensor(DType::F32, &[6, 4], Dynamism::Bounded, 256);
    p.binary("aten::add", x, y, sum);
    let module = lift(p.file(&[sum])).unwrap();
    assert_eq!(
        module.to_string(),
        "\
symbol s0 in 1..6
symbol s1 in 1..4
forward(%input_0: f32[s0,s1], %input_1: f32[s0,s1]):
  %add_0: f32[s0,s1] = aten::add.Tensor(%input_0, %input_1)
  return %add_0
"
    );
}

#[test]
fn a_hint_of_one_may_be_broadcast_so_it_is_refused() {
    let mut p = Program::default();
    let (x, y) = (
        p.any_tensor(DType::F32, &[1], Dynamism::Unbounded, 0),
        p.any_tensor(DType::F32, &[5], Dynamism::Static, 128),
    );
    p.input(x);
    p.input(y);
    let sum = p.any_tensor(DType::F32, &[5], Dynamism::Unbounded, 0);
    p.binary("aten::add", x, y, sum);
    assert!(
        p.lifted(&[sum])
            .contains("it cannot be known whether one of them is always 1")
    );
}

#[test]
fn sizes_are_computed_with_and_views_take_them() {
    let mut p = Program::default();
    let x = p.any_tensor(DType::F32, &[8, 4], Dynamism::Bounded, 0);
    p.input(x);
    let [zero, four, rows, count] = [0, 4, 0, 0].map(|i| p.value(EValue::Int(i)));
    p.call("aten::sym_size", "int", &[x, zero, rows]);
    p.call("executorch_prim::mul", "Scalar", &[rows, four, count]);
    let size = p.value(EValue::IntList(vec![count]));
    let flat = p.any_tensor(DType::F32, &[32], Dynamism::Bounded, 0);
    p.call("executorch_prim::et_view", "default", &[x, size, flat]);
    let y = p.any_tensor(DType::F32, &[32], Dynamism::Bounded, 256);
    p.unary("aten::neg", flat, y);
    // The tensor that was viewed is still what it was.
    let z = p.any_tensor(DType::F32, &[8, 4], Dynamism::Bounded, 512);
    p.unary("aten::abs", x, z);
    assert_eq!(
        p.lifted(&[y, z, count]),
        "%view_0: f32[4*s0] = aten::view(%input_0, [4*s0])\n%neg_1: f32[4*s0] = aten::neg(%view_0)\n%abs_2: f32[s0,4] = aten::abs(%input_0)\nreturn %neg_1, %abs_2, 4*s0"
    );
}

/// As in networks for pictures of one size in batches: the file says of no dimension which it is.
#[test]
fn picture_sizes_behind_poolings_are_fixed_by_what_a_matrix_needs() {
    let mut p = Program::default();
    let x = p.any_tensor(DType::F32, &[8, 3, 48, 48], Dynamism::Bounded, 0);
    p.input(x);
    let (zero, rows) = (p.value(EValue::Int(0)), p.value(EValue::Int(0)));
    p.call("aten::sym_size", "int", &[x, zero, rows]);
    let pair = |p: &mut Program, i: i64| {
        let item = p.value(EValue::Int(i));
        p.value(EValue::IntList(vec![item, item]))
    };
    let (none, one, two) = (pair(&mut p, 0), pair(&mut p, 1), pair(&mut p, 2));
    let ceil = p.value(EValue::Bool(true));
    let mut last = x;
    for (i, size) in [24i64, 12, 6].into_iter().enumerate() {
        let offset = 300_000 + 100_000 * i as u64;
        let out = p.any_tensor(DType::F32, &[8, 3, size, size], Dynamism::Bounded, offset);
        let indices = p.any_tensor(DType::I64, &[8, 3, size, size], Dynamism::Bounded, 600_000);
        let list = p.value(EValue::TensorList(vec![out, indices]));
        let args = [last, two, two, none, one, ceil, out, indices, list];
        p.call("aten::max_pool2d_with_indices", "out", &args);
        last = out;
    }
    let rest = p.value(EValue::Int(-1));
    let size = p.value(EValue::IntList(vec![rows, rest]));
    let flat = p.any_tensor(DType::F32, &[8, 108], Dynamism::Bounded, 500_000);
    p.call("executorch_prim::et_view", "default", &[last, size, flat]);
    let weight = p.tensor(&[108, 2], 800_000);
    let y = p.any_tensor(DType::F32, &[8, 2], Dynamism::Bounded, 900_000);
    p.input(weight);
    p.binary("aten::mm", flat, weight, y);
    let module = lift(p.file(&[y])).unwrap();
    let text = module.to_string();
    assert!(
        text.starts_with("symbol s0 in 1..8\nforward(%input_0: f32[s0,3,48,48]"),
        "{text}"
    );
}

#[test]
fn what_has_no_functional_form_is_refused_with_the_reason() {
    type Break = fn(&mut Program, u32);
    let cases: &[(&str, Break)] = &[
        ("the operator is not known", |p, x| p.call("mine::op", "out", &[x, x])),
        ("how far its result grows depends on the run", |p, x| {
            let index = p.value(EValue::Int(0));
            p.call("executorch_prim::et_copy_index", "tensor", &[x, x, index]);
        }),
        ("a copy to dim_order [1, 0]", |p, x| {
            let items = [1, 0].map(|i| p.value(EValue::Int(i))).to_vec();
            let (order, plain) = (p.value(EValue::IntList(items)), p.value(EValue::Bool(false)));
            p.call("dim_order_ops::_clone_dim_order", "out", &[x, plain, order, x, x]);
        }),
        ("operands, which its signature does not have", |p, x| {
            p.call("aten::neg", "out", &[x])
        }),
        ("it gives f32[4,4], where", |p, x| {
            let wrong = p.tensor(&[2, 8], 512);
            p.unary("aten::neg", x, wrong);
        }),
        ("argument `dim`: a number in place of a list", |p, x| {
            let (text, keep) = (p.value(EValue::String("no".into())), p.value(EValue::Bool(false)));
            p.call("aten::mean", "out", &[x, text, keep, text, x, x]);
        }),
        ("is read before anything writes it", |p, x| {
            let own = p.any_tensor(DType::F32, &[4, 4], Dynamism::Unbounded, 0);
            p.unary("aten::neg", own, x);
        }),
        ("a size of its result depends on data", |p, x| {
            let out = p.any_tensor(DType::F32, &[16], Dynamism::Bounded, 512);
            let mask = p.any_tensor(DType::Bool, &[4, 4], Dynamism::Static, 768);
            let list = p.value(EValue::OptionalTensorList(vec![Some(mask)]));
            p.call("aten::index", "Tensor_out", &[x, list, out, out]);
        }),
    ];
    for (want, breaks) in cases {
        let mut p = Program::default();
        let x = p.tensor(&[4, 4], 0);
        p.input(x);
        breaks(&mut p, x);
        let got = p.lifted(&[x]);
        assert!(
            got.contains(want) && got.contains("instruction 0"),
            "`{want}` is not in `{got}`"
        );
    }
}

#[test]
fn control_flow_is_refused_before_anything_else() {
    assert_eq!(
        sample("arch-cond.pte").unwrap_err(),
        "method `forward`: control flow: instruction 2 jumps to 8"
    );
    let error = sample("xnnpack.pte").unwrap_err();
    assert!(error.contains("calls delegate `XnnpackBackend`"), "{error}");
}

/// Each step makes a size of twice the parts of the last one's.
#[test]
fn sizes_that_explode_are_refused_at_once() {
    let mut p = Program::default();
    let x = p.any_tensor(DType::F32, &[4096], Dynamism::Bounded, 0);
    p.input(x);
    let (zero, two) = (p.value(EValue::Int(0)), p.value(EValue::Int(2)));
    let (mut size, mut half) = (p.value(EValue::Int(0)), p.value(EValue::Int(0)));
    p.call("aten::sym_size", "int", &[x, zero, size]);
    for _ in 0..64 {
        p.call("executorch_prim::floordiv", "Scalar", &[size, two, half]);
        let next = p.value(EValue::Int(0));
        p.call("executorch_prim::sym_max", "Scalar", &[size, half, next]);
        size = next;
        half = p.value(EValue::Int(0));
    }
    let started = Instant::now();
    assert!(p.lifted(&[size]).contains("too many steps"));
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn the_work_grows_with_the_instructions_and_not_faster() {
    let time = |count: usize| {
        let mut p = Program::default();
        let x = p.tensor(&[4], 0);
        p.input(x);
        let places = [p.tensor(&[4], 16), p.tensor(&[4], 32)];
        p.unary("aten::neg", x, places[0]);
        for i in 0..count {
            p.unary("aten::neg", places[i % 2], places[(i + 1) % 2]);
        }
        let file = p.file(&[places[count % 2]]);
        let started = Instant::now();
        let module = lift(file).unwrap();
        assert_eq!(module.graphs[0].nodes.len(), count + 1);
        started.elapsed()
    };
    let (few, many) = (time(2_000), time(20_000));
    assert!(many < few * 40, "{few:?} for 2,000 instructions, {many:?} for 20,000");
}
