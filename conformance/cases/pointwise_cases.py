"""Calls of operators that treat each element by itself: unary, binary, ternary, comparisons, casts."""
import math

import torch

from recorder import seed_of

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
INTS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
SHAPES = {"scalar": [], "rank1": [7], "rank3": [2, 3, 7], "rank4": [1, 3, 5, 6], "rank5": [2, 1, 3, 2, 4], "empty": [0, 4], "one-element": [1], "odd-sizes": [17, 61]}
NAN, INF = math.nan, math.inf
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.5, -0.5]
LARGE = {F32: [3e38, -3e38, 1e20, -1e20, 1e10, -1e10, 1e-20, -1e-30, 88.0, -87.0, 16777217.0, -1e5], F16: [65504.0, -65504.0, 3e4, -1e3, 11.0, -9.5, 1e-4, 6e-5], BF16: [3e38, -3e38, 1e20, -1e10, 88.0, -87.0, 1e-20, 300.0]}
DENORMAL = [1e-40, -1e-40, 1.4e-45, 5.9e-39, -5.9e-39, 1.1754944e-38, -1.2e-38, 2e-38]


def draw(domain, shape, dtype=F32):
    """Values where an operator is defined, the same ones for every operator of that domain, so that they are stored once."""
    generator = torch.Generator().manual_seed(seed_of(f"{domain} {shape}"))
    normal = torch.randn(shape, generator=generator)
    uniform = torch.rand(shape, generator=generator)
    values = {
        "real": normal * 2, "unit": uniform * 1.9 - 0.95, "positive": normal.abs() * 2 + 0.05, "above-one": 1.05 + normal.abs() * 2,
        "nonzero": torch.where(normal < 0, normal - 0.2, normal + 0.2), "angle": uniform * 2.8 - 1.4, "between": uniform * 0.9 + 0.05,
    }[domain]
    return values.to(dtype)


def integers(shape, dtype, low=-50, high=50, what=""):
    generator = torch.Generator().manual_seed(seed_of(f"integers {shape} {low} {high} {what}"))
    low = 0 if dtype == torch.uint8 else low
    return torch.randint(low, high, shape, generator=generator).to(dtype)


# name, class, domain, arguments behind the tensor, scale of what cancels.
UNARY = [
    ("abs", "exact", "real"), ("neg", "exact", "real"), ("ceil", "exact", "real"), ("floor", "exact", "real"), ("round", "exact", "real"), ("trunc", "exact", "real"),
    ("sign", "exact", "real"), ("relu", "exact", "real"), ("relu6", "exact", "real"), ("hardtanh", "exact", "real"), ("isnan", "exact", "real"), ("isinf", "exact", "real"),
    ("isfinite", "exact", "real"), ("logical_not", "exact", "real"), ("hardshrink", "exact", "real"), ("frac", "elementwise", "real"),
    ("square", "elementwise", "real"), ("sqrt", "elementwise", "positive"), ("rsqrt", "elementwise", "positive"), ("reciprocal", "elementwise", "nonzero"),
    ("hardsigmoid", "elementwise", "real"), ("hardswish", "elementwise", "real"), ("leaky_relu", "elementwise", "real"), ("softshrink", "elementwise", "real"),
    ("acos", "transcendental", "unit"), ("acosh", "transcendental", "above-one"), ("asin", "transcendental", "unit"), ("asinh", "transcendental", "real"),
    ("atan", "transcendental", "real"), ("atanh", "transcendental", "unit"), ("cos", "transcendental", "real"), ("cosh", "transcendental", "real"),
    ("erf", "transcendental", "real"), ("erfc", "transcendental", "real"), ("exp", "transcendental", "real"), ("exp2", "transcendental", "real"), ("expm1", "transcendental", "real"),
    ("log", "transcendental", "positive"), ("log10", "transcendental", "positive"), ("log1p", "transcendental", "positive"), ("log2", "transcendental", "positive"),
    ("sigmoid", "transcendental", "real"), ("sin", "transcendental", "real"), ("sinh", "transcendental", "real"), ("tan", "transcendental", "angle"), ("tanh", "transcendental", "real"),
    ("silu", "transcendental", "real"), ("gelu", "transcendental", "real"), ("mish", "transcendental", "real"), ("elu", "transcendental", "real"), ("celu", "transcendental", "real"),
    ("selu", "transcendental", "real"), ("softplus", "transcendental", "real"), ("log_sigmoid", "transcendental", "real"), ("logit", "transcendental", "between"),
]
# What is left after cancelling is no more exact than what cancelled.
CANCELS = {
    "gelu": lambda self, **_: self, "sin": lambda **_: 1.0, "cos": lambda **_: 1.0, "frac": lambda self, **_: self, "hardsigmoid": lambda **_: 1.0,
    "hardswish": lambda self, **_: self.abs() + 3, "softshrink": lambda self, **_: self, "log": lambda **_: 1.0, "log2": lambda **_: 1.0, "log10": lambda **_: 1.0,
    "acos": lambda **_: 1.0, "acosh": lambda **_: 1.0, "logit": lambda **_: 2.0, "elu": lambda **_: 1.0, "celu": lambda **_: 1.0, "selu": lambda **_: 2.0, "erfc": lambda self, **_: torch.ones_like(self), "expm1": lambda **_: 1.0,
    "mish": lambda self, **_: self, "sinh": lambda self, **_: self, "asinh": lambda self, **_: self, "atanh": lambda self, **_: self, "tan": lambda self, **_: self,
}
# Common ones get every shape.
COMMON = {"abs", "neg", "relu", "sigmoid", "tanh", "exp", "gelu", "silu", "sqrt", "hardswish"}
# Far arguments ask for a reduction by pi that few accelerators have, and no network needs.
PERIODIC = {"sin", "cos", "tan"}


def unary(r):
    for name, kind, domain in UNARY:
        op, scale = f"aten::{name}", CANCELS.get(name)
        same = {"kind": kind, "scale": scale}
        for edge, shape in SHAPES.items():
            if edge in ("rank5", "one-element", "scalar") and name not in COMMON:
                continue
            r.case(op, edge, draw(domain, shape), **same)
        r.case(op, "non-finite", torch.tensor(SPECIAL), policy="non-finite", **same)
        if name not in PERIODIC:
            # Beyond where the result leaves the range of the type, what cancels has no size either.
            r.case(op, "large-magnitude", torch.tensor(LARGE[F32]), policy="range", **same)
        r.case(op, "denormal", torch.tensor(DENORMAL), policy="denormal", **same)
        if name in COMMON:
            r.case(op, "negative-zero", torch.tensor([-0.0, 0.0, -0.0, 1.0]), policy="negative-zero", **same)
        for dtype in (F16, BF16):
            r.case(op, "rank3", draw(domain, [2, 3, 7], dtype), **same)
            if name in COMMON:
                r.case(op, "odd-sizes", draw(domain, [3, 37], dtype), **same)
                r.case(op, "large-magnitude", torch.tensor(LARGE[dtype], dtype=dtype), policy="range", **same)
            if name in COMMON or kind == "exact":
                r.case(op, "non-finite", torch.tensor(SPECIAL, dtype=dtype), policy="non-finite", **same)
    for name in ("abs", "neg", "sign", "relu", "square"):
        for dtype in INTS:
            if not (name == "neg" and dtype == torch.uint8):
                r.case(f"aten::{name}", "rank2", integers([3, 11], dtype, -10, 10), kind="exact")
    for name in ("bitwise_not", "logical_not"):
        for dtype in INTS + (torch.bool,):
            x = integers([3, 11], torch.int8, 0, 2).bool() if dtype == torch.bool else integers([3, 11], dtype, -3, 3)
            r.case(f"aten::{name}", "rank2", x)
    x = draw("real", [2, 3, 7])
    r.case("aten::gelu", "tanh", x, approximate="tanh", kind="transcendental", scale=CANCELS["gelu"])
    r.case("aten::gelu", "tanh-odd-sizes", draw("real", [17, 61]), approximate="tanh", kind="transcendental", scale=CANCELS["gelu"])
    for dtype in (F16, BF16):
        r.case("aten::gelu", "tanh", x.to(dtype), approximate="tanh", kind="transcendental", scale=CANCELS["gelu"])
    r.case("aten::hardtanh", "bounds", x, -0.5, 1.25)
    r.case("aten::leaky_relu", "slope", x, 0.3, kind="elementwise")
    r.case("aten::leaky_relu", "negative-slope", x, -0.3, kind="elementwise")
    r.case("aten::elu", "alpha", x, 0.5, 1.5, 2.0, kind="transcendental", scale=lambda **_: 1.0)
    r.case("aten::celu", "alpha", x, 0.5, kind="transcendental", scale=lambda **_: 1.0)
    r.case("aten::softplus", "beta-threshold", x, 2.0, 1.0, kind="transcendental")
    r.case("aten::softplus", "threshold", torch.tensor([19.9, 20.0, 20.1, -100.0, 100.0]), kind="transcendental", policy="range")
    r.case("aten::hardshrink", "lambda", x, 1.0)
    r.case("aten::softshrink", "lambda", x, 1.0, kind="elementwise", scale=CANCELS["softshrink"])
    # Halves go to the even neighbour.
    halves = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388608.5, -1e9])
    for name in ("round", "floor", "ceil", "trunc"):
        r.case(f"aten::{name}", "halves", halves)
    r.case("aten::round.decimals", "decimals", x, decimals=1, kind="elementwise", scale=lambda self, **_: self)
    # Where the result has next to nothing left of its argument.
    near = torch.tensor([1e-8, -1e-8, 1e-5, -1e-4, 1e-3, 0.01, -0.05])
    for name in ("expm1", "log1p", "tanh", "sinh", "asinh", "atanh", "sin", "tan", "erf"):
        r.case(f"aten::{name}", "near-zero", near, kind="transcendental")
    steep = torch.tensor([-104.0, -90.0, -88.0, -20.0, -17.0, 17.0, 20.0, 88.0, 89.0, 104.0])
    for name in ("exp", "sigmoid", "tanh", "silu", "softplus", "log_sigmoid", "erf"):
        # `silu` multiplies what may be flushed by its argument: its values stay where the factor is a normal number.
        r.case(f"aten::{name}", "saturation", steep.clamp(min=-86) if name == "silu" else steep, kind="transcendental", policy="denormal")


ARITHMETIC = [
    ("add.Tensor", "elementwise"), ("sub.Tensor", "elementwise"), ("mul.Tensor", "elementwise"), ("div.Tensor", "elementwise"), ("maximum", "exact"), ("minimum", "exact"),
    ("atan2", "transcendental"), ("fmod.Tensor", "elementwise"), ("remainder.Tensor", "elementwise"), ("eq.Tensor", "exact"), ("ne.Tensor", "exact"), ("lt.Tensor", "exact"), ("le.Tensor", "exact"),
    ("gt.Tensor", "exact"), ("ge.Tensor", "exact"), ("pow.Tensor_Tensor", "transcendental"), ("hypot", "transcendental"), ("copysign.Tensor", "exact"), ("logaddexp", "transcendental"),
]
SUMS = {"add.Tensor", "sub.Tensor"}


def sum_scale(self, other, alpha=1, **_):
    size = lambda value: value.abs() if isinstance(value, torch.Tensor) else abs(float(value))
    return size(self) + abs(alpha) * size(other)


def other_operand(name, shape, dtype=F32, base="nonzero"):
    if name.startswith("pow"):
        return draw("unit", shape, dtype) * 3
    return draw(base, shape, dtype)


def scale_of(name):
    """What an operator's rounding is measured by beside its result; None: by that alone."""
    return {
        "add.Tensor": sum_scale, "sub.Tensor": sum_scale, "fmod.Tensor": lambda self, other, **_: self.abs() + other.abs(),
        "remainder.Tensor": lambda self, other, **_: self.abs() + other.abs(), "logaddexp": lambda self, other, **_: torch.maximum(self.abs(), other.abs()) + 1,
    }.get(name)


def binary(r):
    for name, kind in ARITHMETIC:
        op = f"aten::{name}"
        base = "positive" if name.startswith("pow") else "real"
        first = lambda shape, dtype=F32: draw(base, shape, dtype)
        same = {"kind": kind, "scale": scale_of(name)}
        both = lambda edge, shape, dtype=F32: r.case(op, edge, first(shape, dtype), other_operand(name, shape, dtype), **same)
        for edge in ("rank1", "rank3", "rank4", "empty", "odd-sizes"):
            both(edge, SHAPES[edge])
        if name in ("add.Tensor", "mul.Tensor", "sub.Tensor", "div.Tensor", "maximum", "minimum"):
            for edge in ("scalar", "rank5", "one-element"):
                both(edge, SHAPES[edge])
        for edge, a, b in (("broadcast", [2, 1, 4], [3, 1]), ("broadcast-row", [5, 13], [13]), ("broadcast-both", [3, 1, 5], [1, 4, 1]), ("broadcast-scalar", [2, 3, 7], [])):
            r.case(op, edge, first(a), other_operand(name, b), **same)
        r.case(op, "broadcast-left", first([7]), other_operand(name, [2, 3, 7]), **same)
        special = torch.tensor(SPECIAL)
        if name not in ("fmod.Tensor", "remainder.Tensor"):
            pairs = torch.cartesian_prod(special, special)
            r.case(op, "non-finite", pairs[:, 0], pairs[:, 1], policy="non-finite", kind=kind)
        if name in SUMS or name in ("mul.Tensor", "div.Tensor", "maximum", "minimum"):
            large = torch.tensor(LARGE[F32])
            r.case(op, "large-magnitude", large, large.flip(0), policy="range", **same)
            r.case(op, "denormal", torch.tensor(DENORMAL), torch.tensor(DENORMAL).flip(0), policy="denormal", kind=kind)
            r.case(op, "negative-zero", torch.tensor([-0.0, -0.0, 0.0, -0.0]), torch.tensor([-0.0, 0.0, -0.0, 1.0]), policy="negative-zero", **same)
            r.case(op, "constant-operand", first([1, 3, 5, 6]), other_operand(name, [3, 1, 1]), constants=["other"], **same)
        if kind == "exact" and name[:2] in ("eq", "ne", "lt", "le", "gt", "ge"):
            x = integers([4, 9], F32, -2, 3)
            r.case(op, "equal-elements", x, integers([4, 9], F32, -2, 3, "other"))
        for dtype in (F16, BF16):
            if name not in ("fmod.Tensor", "remainder.Tensor") and not (name == "hypot" and dtype == F16):
                both("rank3", [2, 3, 7], dtype)
                r.case(op, "broadcast-row", first([5, 13], dtype), other_operand(name, [13], dtype), **same)
    for name in ("add.Tensor", "sub.Tensor", "mul.Tensor", "maximum", "minimum", "eq.Tensor", "ne.Tensor", "lt.Tensor", "le.Tensor", "gt.Tensor", "ge.Tensor"):
        for dtype in INTS:
            r.case(f"aten::{name}", "rank2", integers([3, 11], dtype, -10, 10), integers([3, 11], dtype, -10, 10, "other"))
        r.case(f"aten::{name}", "broadcast", integers([3, 1], torch.int32), integers([5], torch.int32, what="other"))
    for name in ("bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor", "logical_and", "logical_or", "logical_xor"):
        for dtype in (torch.int32, torch.uint8, torch.bool, torch.int64):
            x, y = integers([3, 11], dtype, -5, 5), integers([3, 11], dtype, -5, 5, "other")
            r.case(f"aten::{name}", "rank2", x, y)
        r.case(f"aten::{name}", "broadcast", integers([3, 1], torch.bool, 0, 2), integers([5], torch.bool, 0, 2, "other"))
    # Numbers in place of tensors, as PyTorch leaves `x * 0.5` in a graph.
    x, whole = draw("real", [2, 3, 7]), integers([3, 11], torch.int32, -10, 10)
    for name, value, kind in (("add.Tensor", 0.3, "elementwise"), ("sub.Tensor", 1, "elementwise"), ("mul.Tensor", -0.125, "exact"), ("mul.Tensor", 1.1, "elementwise"), ("div.Tensor", 3.0, "elementwise")):
        edge = "number" if value != -0.125 else "number-power-of-two"
        for dtype in (F32, F16, BF16):
            r.case(f"aten::{name}", edge, x.to(dtype), value, kind=kind, scale=scale_of(name) if kind != "exact" else None)
        if isinstance(value, int):
            r.case(f"aten::{name}", "number", whole, value)
    for name in ("eq.Scalar", "ne.Scalar", "lt.Scalar", "le.Scalar", "gt.Scalar", "ge.Scalar"):
        r.case(f"aten::{name}", "rank3", x, 0.5)
        r.case(f"aten::{name}", "rank2", whole, 3)
        r.case(f"aten::{name}", "non-finite", torch.tensor(SPECIAL), 1.0, policy="non-finite")
    for dtype in (F32, F16):
        r.case("aten::add.Tensor", "alpha", x.to(dtype), draw("nonzero", [2, 3, 7], dtype), alpha=2, kind="elementwise", scale=sum_scale)
        r.case("aten::sub.Tensor", "alpha", x.to(dtype), draw("nonzero", [2, 3, 7], dtype), alpha=0.5, kind="elementwise", scale=sum_scale)
        r.case("aten::rsub.Scalar", "number", x.to(dtype), 1.0, kind="elementwise", scale=sum_scale)
        r.case("aten::pow.Tensor_Scalar", "square", x.to(dtype), 2, kind="transcendental")
        r.case("aten::pow.Tensor_Scalar", "cube", x.to(dtype), 3, kind="transcendental")
        r.case("aten::pow.Tensor_Scalar", "root", x.to(dtype).abs(), 0.5, kind="transcendental")
        r.case("aten::pow.Tensor_Scalar", "inverse", draw("nonzero", [2, 3, 7], dtype), -1.0, kind="transcendental")
        r.case("aten::pow.Scalar", "base", 2.0, x.to(dtype), kind="transcendental", dtype="f32" if dtype == F32 else "f16")
    # Types of operands that differ: the result's is as PyTorch promotes.
    for edge, a, b in (("promote-i64", torch.int64, F32), ("promote-f16", F16, F32), ("promote-bf16-f16", BF16, F16), ("promote-i8", torch.int8, torch.int32), ("promote-bool", torch.bool, torch.int64), ("promote-u8", torch.uint8, torch.int8)):
        left, right = integers([3, 11], torch.int64, 0, 9).to(a), integers([3, 11], torch.int64, 1, 9, "other").to(b)
        r.case("aten::add.Tensor", edge, left, right, kind="elementwise" if b in (F32, F16) else "exact")
        r.case("aten::mul.Tensor", edge, left, right, kind="elementwise" if b in (F32, F16) else "exact")
    for mode in ("floor", "trunc"):
        r.case("aten::div.Tensor_mode", f"{mode}", integers([3, 11], F32, -20, 20), integers([3, 11], F32, 1, 5, "other"), rounding_mode=mode)
        r.case("aten::div.Tensor_mode", f"{mode}", integers([3, 11], torch.int32, -20, 20), integers([3, 11], torch.int32, 1, 5, "other"), rounding_mode=mode)
    r.case("aten::div.Tensor", "integers", integers([3, 11], torch.int32), integers([3, 11], torch.int32, 1, 9, "other"), kind="elementwise", dtype="i32")
    r.case("aten::floor_divide", "rank2", integers([3, 11], torch.int64, -20, 20), integers([3, 11], torch.int64, 1, 5, "other"))
    for dtype in (torch.int32, torch.int64):
        r.case("aten::remainder.Scalar", "negative", integers([3, 11], dtype, -20, 20), 3)
        r.case("aten::fmod.Scalar", "negative", integers([3, 11], dtype, -20, 20), 3)
    top = torch.tensor([127, -128, 100, -100, 1], dtype=torch.int8)
    r.case("aten::add.Tensor", "wrap-around", top, torch.tensor([1, -1, 100, -100, 1], dtype=torch.int8))
    r.case("aten::mul.Tensor", "wrap-around", top, torch.tensor([2, 2, 3, 3, 1], dtype=torch.int8))
    r.case("aten::add.Tensor", "beyond-f64", torch.tensor([2**53 + 1, -(2**60), 7]), torch.tensor([2, 1, 2**62]))


def ternary(r):
    for dtype in (F32, F16, BF16):
        for edge, shape in (("rank1", [7]), ("rank3", [2, 3, 7]), ("rank4", [1, 3, 5, 6])):
            x, y = draw("real", shape, dtype), draw("nonzero", shape, dtype)
            mask = draw("unit", shape) > 0
            r.case("aten::where.self", edge, mask, x, y, dtype={F32: "f32", F16: "f16", BF16: "bf16"}[dtype])
            r.case("aten::clamp", edge, x, -0.5, 1.25)
            r.case("aten::masked_fill.Scalar", edge, x, mask, -1e4)
            total = lambda self, tensor1, tensor2, value=1, **_: self.abs() + abs(value) * (tensor1 * tensor2).abs()
            r.case("aten::addcmul", edge, x, y, x, value=0.5, kind="elementwise", scale=total)
            r.case("aten::addcdiv", edge, x, x, y, value=2.0, kind="elementwise", scale=lambda self, tensor1, tensor2, value=1, **_: self.abs() + abs(value) * (tensor1 / tensor2).abs())
            r.case("aten::lerp.Scalar", edge, x, y, 0.3, kind="elementwise", scale=lambda self, end, **_: self.abs() + end.abs())
    mask, x, y = draw("unit", [3, 1]) > 0, draw("real", [5]), draw("nonzero", [2, 3, 5])
    r.case("aten::where.self", "broadcast", mask, x, y, dtype="f32")
    r.case("aten::where.self", "non-finite", torch.tensor([True, False, True, False]), torch.tensor([NAN, NAN, INF, 1.0]), torch.tensor([1.0, -INF, NAN, NAN]), dtype="f32", policy="non-finite")
    r.case("aten::where.self", "odd-sizes", draw("unit", [17, 61]) > 0, draw("real", [17, 61]), draw("nonzero", [17, 61]), dtype="f32")
    for dtype in (torch.int32, torch.int64, torch.uint8, torch.bool):
        whole = integers([3, 11], dtype, -9, 9)
        r.case("aten::where.self", "rank2", draw("unit", [3, 11]) > 0, whole, integers([3, 11], dtype, -9, 9, "other"), dtype={torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8", torch.bool: "bool"}[dtype])
    for dtype in INTS:
        r.case("aten::clamp", "rank2", integers([3, 11], dtype), 2, 20)
    x = draw("real", [2, 3, 7])
    r.case("aten::clamp", "low-only", x, -0.5, None)
    r.case("aten::clamp", "high-only", x, None, 0.75)
    r.case("aten::clamp", "odd-sizes", draw("real", [17, 61]), -1.0, 1.0)
    r.case("aten::clamp", "non-finite", torch.tensor(SPECIAL), -1.0, 1.0, policy="non-finite")
    r.case("aten::clamp", "crossed-bounds", x, 1.0, -1.0)
    r.case("aten::clamp.Tensor", "broadcast", x, draw("unit", [7]) - 1, draw("unit", [3, 1]) + 1)
    for name, value in (("clamp_min", -0.5), ("clamp_max", 0.5)):
        r.case(f"aten::{name}", "rank3", x, value)
        r.case(f"aten::{name}", "odd-sizes", draw("real", [17, 61]), value)
    r.case("aten::threshold", "rank3", x, 0.5, -2.0)
    r.case("aten::prelu", "per-channel", draw("real", [2, 3, 5, 5]), draw("unit", [3]), constants=["weight"], kind="elementwise")
    r.case("aten::prelu", "shared", draw("real", [2, 3, 5, 5]), draw("unit", [1]), constants=["weight"], kind="elementwise")
    r.case("aten::nan_to_num", "non-finite", torch.tensor(SPECIAL), 0.5, 100.0, -100.0, policy="non-finite")
    r.case("aten::masked_fill.Scalar", "infinity", x, draw("unit", [3, 7]) > 0, -INF, policy="non-finite")


def casts(r):
    exact_values = integers([3, 11], torch.int64, -50, 50)
    types = [F32, F16, BF16, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool]
    names = {F32: "f32", F16: "f16", BF16: "bf16", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8", torch.bool: "bool"}
    for source in types:
        low = 0 if torch.uint8 in (source,) else -50
        for target in types:
            if source != target:
                x = integers([3, 11], torch.int64, 0 if target == torch.uint8 else low, 50).to(source)
                cast(r, x, f"to-{names[target]}", target)
    # Rounding to the nearest, halves to even; towards zero into integers.
    for target in (F16, BF16):
        cast(r, draw("real", [17, 61]), f"rounding-to-{names[target]}", target)
        cast(r, torch.tensor(SPECIAL + [65519.0, 65520.0, 1e-8, 6e-8, -3e-8, 3.3e38, 1 + 2.0**-9, 1 + 3 * 2.0**-9, 1 + 2.0**-12, 1 + 3 * 2.0**-12]), f"non-finite-to-{names[target]}", target, policy="non-finite")
    for target in (torch.int32, torch.int8, torch.int64):
        cast(r, torch.tensor([0.5, 1.5, -0.5, -1.5, 2.999999, -2.999999, 100.7, -100.7]), f"truncation-to-{names[target]}", target)
    cast(r, torch.tensor([0.0, -0.0, 0.1, -3.0, NAN]), "truth-to-bool", torch.bool)
    cast(r, torch.tensor([2**24 + 1, 2**31 - 1, -(2**31), 2**40 + 3]), "beyond-f32", F32)
    cast(r, torch.tensor([300, -1, 128, 255, 2**33 + 5]), "wrap-to-u8", torch.uint8)
    cast(r, torch.tensor([300, -129, 128, 255, 2**33 + 5]), "wrap-to-i8", torch.int8)


def cast(r, x, edge, target, policy=None):
    r.case_with("aten::_to_copy", edge, [x], {"dtype": target}, policy=policy)


def all_cases(r):
    unary(r)
    binary(r)
    ternary(r)
    casts(r)
