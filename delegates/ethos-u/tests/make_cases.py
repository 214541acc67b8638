#!/usr/bin/env python3
"""Makes `cases/`: operators and small nets on integers, with PyTorch's results, the streams that Vela makes of them, and what Arm's reference model
says of the TOSA graphs.

    make_cases.py [--only GLOB]

1. `cases/NAME.json` is written: nodes, scales, constants, inputs, and what PyTorch makes of them: each operator on dequantized floats, quantized by
   `quantized_decomposed`. Scales are those of the values that occur.
2. `cargo run --example lower` writes the TOSA graph of each case and target.
3. Vela compiles it, the reference model runs it, and `cases/TARGET/NAME.vela` has the stream, the graph's SHA-256, and the model's integers.

Needs torch 2.15.0, `ethos-u-vela` 5.2.0, `tosa-tools` and numpy in one Python, and cargo.
"""

import argparse
import base64
import fnmatch
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
import tosa_reference_model

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "sim/tests"))
import make_cases as sim  # noqa: E402

TARGETS = ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"]
TYPES = {"i8": (numpy.int8, torch.int8), "u8": (numpy.uint8, torch.uint8), "i16": (numpy.int16, torch.int16), "i32": (numpy.int32, torch.int32)}
SETS = 2
SPATIAL = ["conv2d", "convolution", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"]


class Value:
    def __init__(self, index, spec, floats):
        self.index, self.spec, self.floats = index, spec, floats


def text(array):
    return base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode()


class Case:
    """A graph, evaluated as it is written. Images have their channels last, as delegates get them."""

    def __init__(self, name):
        self.random = numpy.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        self.values, self.nodes, self.inputs, self.outputs = [], [], [], []
        self.given = [[] for _ in range(SETS)]

    def add(self, floats, **spec):
        self.values.append(spec)
        return Value(len(self.values) - 1, spec, floats)

    def input(self, shape, scale=0.03, zero=-5, dtype="i8", low=None, high=None):
        kind, whole = TYPES[dtype][0], numpy.iinfo(TYPES[dtype][0])
        floats = []
        for given in self.given:
            low_, high_ = whole.min if low is None else low, whole.max if high is None else high
            integers = self.random.integers(low_, high_, shape, endpoint=True).astype(kind)
            given.append(integers)
            floats.append(torch.tensor((integers.astype(numpy.float32) - zero) * numpy.float32(scale)))
        value = self.add(floats, dtype=dtype, shape=list(shape), scale=scale, zero=zero)
        self.inputs.append(value.index)
        return value

    def weight(self, shape, scale=None, axis=None):
        """Random weights of 8 bits; a scale for each element of `axis`."""
        integers = self.random.integers(-127, 128, shape).astype(numpy.int8)
        terms = max(1, int(numpy.prod(shape)) // shape[axis or 0])
        base = 1 / (74 * terms**0.5) if scale is None else scale
        if axis is None:
            return self.add([torch.tensor(integers * numpy.float32(base))] * SETS, dtype="i8", shape=list(shape), scale=base, zero=0, data=text(integers))
        scales = (base * self.random.uniform(0.5, 1.5, shape[axis])).astype(numpy.float32)
        wide = scales.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return self.add(
            [torch.tensor(integers * wide)] * SETS, dtype="i8", shape=list(shape), axis=axis, scales=text(scales), data=text(integers)
        )

    def bias(self, x, weight, count, groups=1):
        """32 bits, in the product of the scales."""
        scales = numpy.full(count, weight.spec["scale"], numpy.float32) if "scale" in weight.spec else None
        if scales is None:
            scales = numpy.tile(numpy.frombuffer(base64.b64decode(weight.spec["scales"]), numpy.float32), groups)
        scales = (scales * numpy.float32(x.spec["scale"])).astype(numpy.float32)
        integers = self.random.integers(-2000, 2000, count).astype(numpy.int32)
        floats = torch.tensor((integers * scales).astype(numpy.float32))
        return self.add([floats] * SETS, dtype="i32", shape=[count], axis=0, scales=text(scales), data=text(integers))

    def floats(self, values):
        values = numpy.asarray(values, numpy.float32)
        return self.add([torch.tensor(values)] * SETS, dtype="f32", shape=list(values.shape), data=text(values))

    def quantized(self, floats, dtype, keep, limits):
        kind = numpy.iinfo(TYPES[dtype][0])
        if keep is not None:
            scale, zero = keep.spec["scale"], keep.spec["zero"]
        elif limits is not None:
            scale, zero = limits
        else:
            low = min(0.0, *[float(f.min()) for f in floats])
            high = max(0.0, *[float(f.max()) for f in floats])
            if dtype == "i16":
                scale, zero = float(numpy.float32(max(-low, high) / 32767)), 0
            else:
                scale = float(numpy.float32((high - low) / 255))
                zero = int(kind.min - round(low / scale))
        made = []
        for f in floats:
            q = torch.ops.quantized_decomposed.quantize_per_tensor(f, scale, zero, kind.min, kind.max, TYPES[dtype][1])
            made.append(torch.ops.quantized_decomposed.dequantize_per_tensor(q, scale, zero, kind.min, kind.max, TYPES[dtype][1]))
        return made, scale, zero

    def node(self, op, *args, keep=None, dtype=None, limits=None, **extra):
        """An operator on dequantized floats; `keep`: its result has the scale of this value. `limits`: scale and zero point."""
        name, _, overload = op.partition(".")
        is_image = name in SPATIAL
        call = getattr(getattr(torch.ops.aten, name), overload or "default")
        first = next(a for a in args if isinstance(a, (Value, list)))
        first = first if isinstance(first, Value) else first[0]
        is_image = is_image and len(first.spec["shape"]) == 4
        floats = []
        for i in range(SETS):
            def plain(a, at):
                if isinstance(a, Value):
                    t = a.floats[i]
                    return t.permute(0, 3, 1, 2) if is_image and at == 0 else t
                if isinstance(a, list) and a and isinstance(a[0], Value):
                    return [v.floats[i] for v in a]
                return a
            result = call(*[plain(a, at) for at, a in enumerate(args)], **extra)
            result = result[0] if isinstance(result, tuple) else result
            floats.append((result.permute(0, 2, 3, 1) if is_image else result).contiguous())
        dtype = dtype or first.spec["dtype"]
        made, scale, zero = self.quantized(floats, dtype, keep, limits)
        value = self.add(made, dtype=dtype, shape=list(made[0].shape), scale=scale, zero=zero)
        self.nodes.append({"op": f"aten::{op}", "args": [self.argument(a) for a in [*args, *extra.values()]], "output": value.index})
        return value

    def requantized(self, x, scale, zero, dtype):
        """Dequantized, and quantized again."""
        integers = numpy.iinfo(TYPES[x.spec["dtype"]][0]), numpy.iinfo(TYPES[dtype][0])
        between = self.add(x.floats, dtype="f32", shape=x.spec["shape"])
        own = [{"float": x.spec["scale"]}, {"int": x.spec["zero"]}, {"int": int(integers[0].min)}, {"int": int(integers[0].max)}]
        self.nodes.append({"op": "quantized_decomposed::dequantize_per_tensor", "args": [{"value": x.index}, *own], "output": between.index})
        made, scale, zero = self.quantized(x.floats, dtype, None, (scale, zero))
        value = self.add(made, dtype=dtype, shape=x.spec["shape"], scale=scale, zero=zero)
        own = [{"float": scale}, {"int": zero}, {"int": int(integers[1].min)}, {"int": int(integers[1].max)}]
        self.nodes.append({"op": "quantized_decomposed::quantize_per_tensor", "args": [{"value": between.index}, *own], "output": value.index})
        return value

    @staticmethod
    def argument(a):
        if a is None:
            return None
        if isinstance(a, Value):
            return {"value": a.index}
        if isinstance(a, bool):
            return {"bool": a}
        if isinstance(a, int):
            return {"int": a}
        if isinstance(a, float):
            return {"float": a}
        if isinstance(a, str):
            return {"str": a}
        if a and isinstance(a[0], Value):
            return {"values": [v.index for v in a]}
        if a and isinstance(a[0], float):
            return {"floats": a}
        return {"ints": list(a)}

    def output(self, *values):
        self.outputs += values

    def description(self):
        wanted = []
        for i in range(SETS):
            results = []
            for value in self.outputs:
                kind = TYPES[value.spec["dtype"]][0]
                integers = numpy.rint(value.floats[i].numpy().astype(numpy.float64) / value.spec["scale"]) + value.spec["zero"]
                if len(numpy.unique(integers)) < min(7, integers.size):
                    raise RuntimeError("too few distinct values: the case would show nothing")
                results.append(text(integers.astype(kind)))
            wanted.append(results)
        return {
            "values": self.values,
            "nodes": self.nodes,
            "inputs": self.inputs,
            "outputs": [value.index for value in self.outputs],
            "given": [[text(array) for array in given] for given in self.given],
            "torch": wanted,
        }


CASES = {}


def case(name, targets=TARGETS):
    def add(write):
        CASES[name] = (write, targets)
        return write

    return add


def simple(name, op, shape, *args, targets=TARGETS, **options):
    """An operator on one input."""
    given = {key: options.pop(key) for key in ("scale", "zero", "low", "high", "dtype") if key in options}

    @case(name, targets)
    def _(c):
        x = c.input(shape, **given)
        keep = {"keep": x} if options.pop("moves", False) else {}
        c.output(c.node(op, x, *args, **keep, **options))


# Norms ----------------------------------------------------------------------------------------------------------------------------


@case("layer-norm")
def _(c):
    x = c.input([1, 7, 48])
    c.output(c.node("layer_norm", x, [48], c.floats(c.random.normal(1, 0.5, 48)), c.floats(c.random.normal(0, 0.3, 48)), 1e-5, True))


@case("layer-norm-still")
def _(c):
    # Rows of few steps, one without any difference.
    x = c.input([6, 96], low=-6, high=-4)
    for given, floats in zip(c.given, x.floats):
        given[0][0, :] = -5
        floats[0, :] = 0.0
    c.output(c.node("layer_norm", x, [96], c.floats(c.random.normal(1, 0.5, 96)), None, 1e-5, True))


@case("native-layer-norm")
def _(c):
    x = c.input([3, 4, 6, 5], scale=0.2, zero=100)
    c.output(c.node("native_layer_norm", x, [6, 5], None, None, 1e-3))


@case("layer-norm-long")
def _(c):
    x = c.input([2, 1024], scale=0.01, zero=3)
    c.output(c.node("layer_norm", x, [1024], c.floats(c.random.normal(0, 1, 1024)), c.floats(c.random.normal(0, 2, 1024)), 1e-6, True))


@case("rms-norm")
def _(c):
    x = c.input([5, 64], zero=20)
    c.output(c.node("rms_norm", x, [64], c.floats(c.random.normal(1, 0.5, 64)), 1e-6))


@case("group-norm")
def _(c):
    x = c.input([2, 12, 5, 6])
    c.output(c.node("group_norm", x, 3, c.floats(c.random.normal(1, 0.5, 12)), c.floats(c.random.normal(0, 0.5, 12)), 1e-5, True))


@case("instance-norm")
def _(c):
    x = c.input([1, 8, 30])
    c.output(c.node("instance_norm", x, None, None, None, None, True, 0.1, 1e-5, True))


# Images of another size -------------------------------------------------------------------------------------------------------------

IMAGE = [1, 5, 6, 8]
simple("nearest-2x", "upsample_nearest2d", IMAGE, [10, 12], moves=True)
simple("nearest-3x2", "upsample_nearest2d.vec", IMAGE, None, [3.0, 2.0], moves=True)
simple("nearest-uneven", "upsample_nearest2d", IMAGE, [8, 4], moves=True)
simple("bilinear-2x", "upsample_bilinear2d", IMAGE, [10, 12], False)
simple("bilinear-4x", "upsample_bilinear2d.vec", IMAGE, None, False, [4.0, 4.0])
simple("bilinear-corners", "upsample_bilinear2d", IMAGE, [9, 16], True)
# The interpreter does not read the weights that Vela writes of it for U85.
simple("bilinear-down", "upsample_bilinear2d", [1, 9, 12, 5], [6, 5], False, targets=TARGETS[:2])
simple("pixel-shuffle", "pixel_shuffle", [1, 12, 4, 5], 2, moves=True)


# Transposed convolutions ------------------------------------------------------------------------------------------------------------


def transposed(name, shape, channels, kernel, stride, pad, extra, groups=1, dilation=(1, 1), axis=1):
    @case(name)
    def _(c):
        x = c.input(shape)
        weight = c.weight([shape[3], channels // groups, *kernel], axis=axis)
        bias = c.bias(x, weight, channels, groups)
        c.output(c.node("conv_transpose2d.input", x, weight, bias, list(stride), list(pad), list(extra), groups, list(dilation)))


transposed("transposed-3x3", IMAGE, 6, (3, 3), (2, 2), (1, 1), (1, 1))
transposed("transposed-4x4", IMAGE, 6, (4, 4), (2, 2), (1, 1), (0, 0), axis=None)
transposed("transposed-groups", IMAGE, 6, (2, 2), (2, 2), (0, 0), (0, 0), groups=2)
transposed("transposed-dilated", IMAGE, 5, (3, 2), (1, 1), (1, 0), (0, 0), dilation=(2, 2))
transposed("transposed-stride-3", IMAGE, 5, (5, 5), (3, 3), (1, 1), (0, 0))


@case("transposed-1d")
def _(c):
    x = c.input([1, 8, 11])
    weight = c.weight([8, 6, 4], axis=1)
    c.output(c.node("conv_transpose1d", x, weight, c.bias(x, weight, 6), [2], [1], [0], 1, [1]))


# Convolutions ---------------------------------------------------------------------------------------------------------------------


@case("conv1d")
def _(c):
    x = c.input([2, 6, 20])
    weight = c.weight([9, 6, 5], axis=0)
    c.output(c.node("conv1d", x, weight, c.bias(x, weight, 9), [2], [2], [1], 1))


@case("conv1d-depthwise")
def _(c):
    x = c.input([1, 6, 20])
    weight = c.weight([6, 1, 3], axis=0)
    c.output(c.node("conv1d.padding", x, weight, c.bias(x, weight, 6), [1], "same", [2], 6))


@case("conv2d-groups")
def _(c):
    x = c.input([1, 7, 6, 12])
    weight = c.weight([9, 4, 3, 3], axis=0)
    c.output(c.node("conv2d", x, weight, c.bias(x, weight, 9), [1, 1], [1, 1], [1, 1], 3))


@case("conv2d-same")
def _(c):
    x = c.input([1, 7, 6, 5])
    weight = c.weight([4, 5, 4, 3], axis=0)
    c.output(c.node("conv2d.padding", x, weight, c.bias(x, weight, 4), [1, 1], "same", [1, 1], 1))


@case("conv2d-tall")
def _(c):
    # As the first layer of CREPE: a window of 512 samples, four apart.
    x = c.input([1, 1532, 1, 1])
    weight = c.weight([8, 1, 512, 1], axis=0)
    c.output(c.node("conv2d", x, weight, c.bias(x, weight, 8), [4, 1], [0, 0], [1, 1], 1))


@case("conv2d-u8")
def _(c):
    x = c.input([1, 7, 6, 5], dtype="u8", zero=121)
    weight = c.weight([4, 5, 3, 3], axis=0)
    c.output(c.node("conv2d", x, weight, c.bias(x, weight, 4), [1, 1], [1, 1], [1, 1], 1))


@case("matmul-repeated")
def _(c):
    c.output(c.node("matmul", c.input([2, 3, 6, 9]), c.input([3, 9, 5], zero=7)))


# Sums, means, extremes ---------------------------------------------------------------------------------------------------------------

simple("mean-last", "mean.dim", [3, 4, 27], [-1], True)
simple("mean-two", "mean.dim", [3, 5, 7, 4], [1, 3], False)
simple("sum-first", "sum.dim_IntList", [9, 4, 6], [0], False)
simple("avg-pool-included", "avg_pool2d", [1, 8, 7, 5], [3, 3], [2, 2], [1, 1], False, True, None)
simple("avg-pool-2x2", "avg_pool2d", [1, 8, 6, 5], [2, 2], [], [0, 0], False, True, None, limits=(0.0237, 4))
simple("avg-pool-divisor", "avg_pool2d", [1, 8, 6, 5], [3, 2], [2, 2], [0, 0], False, True, 5)
simple("mean-even", "mean.dim", [3, 2, 2, 24], [1, 2], False, scale=1 / 32, zero=-3, limits=(1 / 32, 6))
simple("avg-pool-even", "avg_pool2d", [1, 8, 6, 5], [2, 3], [2, 3], [0, 0], False, True, None, scale=1 / 32, zero=-3, limits=(1 / 32, 6))
simple("amax", "amax", [3, 5, 7, 4], [1, 3], False, moves=True)
simple("amin", "amin", [3, 5, 7], [-1], True, moves=True, low=-20)
simple("softmax-middle", "softmax.int", [2, 9, 5], 1, None, scale=0.05, limits=(1 / 256, -128))

# Functions ------------------------------------------------------------------------------------------------------------------------

WIDE = [1, 8, 16, 4]
simple("gelu", "gelu", WIDE, approximate="none")
simple("elu", "elu", WIDE, 0.7, 1.1, 1.3)
simple("clamp-min", "clamp_min", WIDE, -0.4)
simple("neg", "neg", WIDE)
simple("abs", "abs", WIDE)
simple("mul-number", "mul.Scalar", WIDE, 0.37)
simple("add-number", "add.Scalar", WIDE, 1.5, 2.0)
simple("sub-number", "sub.Scalar", WIDE, 1.5, 2.0)
simple("hardswish-u8", "hardswish", WIDE, dtype="u8", zero=100)

# Moves ----------------------------------------------------------------------------------------------------------------------------

simple("pad", "constant_pad_nd", [1, 5, 6, 7], [2, 1, 0, 3, 1, 0], 0.0, moves=True)
simple("pad-negative", "constant_pad_nd", [3, 5, 6], [-2, 1, 2, -1], 0.5, moves=True)
simple("pad-u8", "constant_pad_nd", [3, 5, 6], [1, 1], 0.0, moves=True, dtype="u8", zero=9)
simple("select", "select.int", [3, 5, 6], 1, -2, moves=True)
simple("narrow", "narrow", [3, 9, 6], 1, 2, 4, moves=True)
simple("expand", "expand", [3, 1, 6], [2, 3, 5, -1], moves=True)
simple("repeat", "repeat", [3, 4], [2, 1, 3], moves=True)
simple("flip", "flip", [3, 5, 6], [0, -1], moves=True)
simple("transpose-5d", "permute", [2, 3, 4, 5, 6], [4, 0, 2, 1, 3], moves=True)


@case("stack")
def _(c):
    a, b = c.input([3, 5]), c.input([3, 5])
    c.output(c.node("stack", [a, b], -1, keep=a))


for name, source, target in [
    ("requantize-i8", ("i8", 0.03, -5), ("i8", 0.047, 11)),
    ("requantize-i8-i16", ("i8", 0.03, -5), ("i16", 0.0007, 0)),
    ("requantize-i16-i8", ("i16", 0.0007, 0), ("i8", 0.13, 3)),
    ("requantize-u8-i8", ("u8", 0.03, 128), ("i8", 0.03, 0)),
]:

    def _(c, source=source, target=target):
        dtype, scale, zero = source
        x = c.input([1, 6, 7, 8], scale=scale, zero=zero, dtype=dtype)
        dtype, scale, zero = target
        c.output(c.requantized(x, scale, zero, dtype))

    case(name)(_)


# Nets -----------------------------------------------------------------------------------------------------------------------------


def conv(c, x, channels, kernel, stride=1, groups=1, pad=None):
    depth = x.spec["shape"][3]
    weight = c.weight([channels, depth // groups, kernel, kernel], axis=0)
    pad = kernel // 2 if pad is None else pad
    return c.node("conv2d", x, weight, c.bias(x, weight, channels), [stride] * 2, [pad] * 2, [1, 1], groups)


@case("net-keywords")
def _(c):
    """A depthwise net on spectra, as for keywords."""
    x = conv(c, c.input([1, 25, 10, 1]), 16, 3, 2)
    for _ in range(2):
        x = c.node("relu", conv(c, x, 16, 3, groups=16))
        x = c.node("relu", conv(c, x, 16, 1))
    x = c.node("mean.dim", x, [1, 2], False)
    weight = c.weight([12, 16], axis=0)
    x = c.node("linear", x, weight, c.bias(x, weight, 12))
    c.output(c.node("softmax.int", x, -1, None, limits=(1 / 256, -128)))


@case("net-squeeze")
def _(c):
    """A block of MobileNetV3: hardswish, squeeze and excite, and the sum."""
    x = c.input([1, 8, 8, 8])
    y = c.node("hardswish", conv(c, x, 24, 1))
    y = c.node("hardswish", conv(c, y, 24, 5, groups=24))
    s = c.node("mean.dim", y, [1, 2], True)
    s = c.node("relu", conv(c, s, 8, 1))
    s = c.node("hardsigmoid", conv(c, s, 24, 1))
    y = c.node("mul.Tensor", y, s)
    c.output(c.node("add.Tensor", conv(c, y, 8, 1), x))


@case("net-vit")
def _(c):
    """A block of a vision transformer: norms, two heads of attention, gelu."""
    tokens, depth, heads = 10, 16, 2
    x = c.input([1, tokens, depth])

    def linear(x, count):
        weight = c.weight([count, x.spec["shape"][-1]], axis=0)
        return c.node("linear", x, weight, c.bias(x, weight, count))

    def norm(x):
        return c.node("layer_norm", x, [depth], c.floats(c.random.normal(1, 0.2, depth)), c.floats(c.random.normal(0, 0.2, depth)), 1e-6, True)

    y = norm(x)
    parts = []
    for _ in range(3):
        p = linear(y, depth)
        p = c.node("view", p, [1, tokens, heads, depth // heads], keep=p)
        parts.append(c.node("transpose.int", p, 1, 2, keep=p))
    q, k, v = parts
    k = c.node("transpose.int", k, -2, -1, keep=k)
    s = c.node("mul.Scalar", c.node("matmul", q, k), (heads / depth) ** 0.5)
    s = c.node("softmax.int", s, -1, None, limits=(1 / 256, -128))
    y = c.node("matmul", s, v)
    y = c.node("transpose.int", y, 1, 2, keep=y)
    y = linear(c.node("reshape", y, [1, tokens, depth], keep=y), depth)
    x = c.node("add.Tensor", x, y)
    y = linear(c.node("gelu", linear(norm(x), 4 * depth), approximate="none"), depth)
    c.output(c.node("add.Tensor", x, y))


@case("net-super-resolution")
def _(c):
    """Twice the size by pixels, and again by a transposed convolution, beside an enlarged input."""
    image = c.input([1, 6, 7, 3], zero=-128)
    x = c.node("relu", conv(c, image, 12, 3))
    x = conv(c, x, 32, 3)
    x = c.node("permute", x, [0, 3, 1, 2], keep=x)
    x = c.node("pixel_shuffle", x, 2, keep=x)
    x = c.node("permute", x, [0, 2, 3, 1], keep=x)
    weight = c.weight([8, 3, 4, 4], axis=1)
    x = c.node("conv_transpose2d.input", x, weight, c.bias(x, weight, 3), [2, 2], [1, 1], [0, 0], 1, [1, 1])
    large = c.node("upsample_bilinear2d", image, [24, 28], False)
    c.output(c.node("add.Tensor", x, large))


# -----------------------------------------------------------------------------------------------------------------------------------


def run(command):
    subprocess.run(command, check=True)


def streams(names, out):
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        run(["cargo", "run", "-q", "-p", "delegraph-ethos-u", "--example", "lower", "--", str(out), str(temporary)])
        failed = 0
        for name in names:
            described = json.loads((out / f"{name}.json").read_text())
            given = []
            for arrays in described["given"]:
                specs = [described["values"][i] for i in described["inputs"]]
                arrays = [numpy.frombuffer(base64.b64decode(a), TYPES[s["dtype"]][0]).reshape(s["shape"]) for a, s in zip(arrays, specs)]
                # TOSA's integers are signed.
                given.append([(a ^ 128).view(numpy.int8) if a.dtype == numpy.uint8 else a for a in arrays])
            for target in CASES[name][1]:
                (out / target).mkdir(exist_ok=True)
                made = temporary / target / f"{name}.tosa"
                try:
                    graph = made.read_bytes()
                    with tempfile.TemporaryDirectory() as folder:
                        data = sim.compile_case("case", graph, target, pathlib.Path(folder))
                    sets = []
                    for arrays in given:
                        results, status = tosa_reference_model.run(graph, arrays)
                        if "VALID" not in str(status):
                            raise RuntimeError(f"the reference model says {status}")
                        sets.append((arrays, results))
                    (out / target / f"{name}.vela").write_bytes(sim.file(graph, data, sets))
                except Exception as error:
                    failed += 1
                    print(f"{target} {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*")
    given = parser.parse_args()
    out = HERE / "cases"
    out.mkdir(exist_ok=True)
    names = fnmatch.filter(CASES, given.only)
    import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers `quantized_decomposed`)

    for name in names:
        c = Case(name)
        CASES[name][0](c)
        (out / f"{name}.json").write_text(json.dumps(c.description(), separators=(",", ":")) + "\n")
    failed = streams(names, out)
    print(f"{len(names)} cases; {failed} streams could not be made", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
