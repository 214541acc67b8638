#!/usr/bin/env python3
"""Makes further cases of `cases/`: operators that move and compare, those that only U85 has, and shapes that Vela splits.

    make_more_cases.py [--only GLOB] [--target NAME]... [--out FOLDER] [--keep FOLDER]

Needs what `make_cases.py` needs. Cases have the same form.
"""

import sys

import numpy
import tosa_serializer as tosa

import make_cases
from make_cases import D, DOUBLE, OP, SINGLE, TYPES

CASES, PROCESSORS = {}, {}
ALL, U85 = ("u55", "u65", "u85"), ("u85",)
NAN = tosa.NanPropagationMode.PROPAGATE
NHWC = [1, 5, 6, 7]


def case(name, processors=ALL):
    def add(write):
        CASES[name], PROCESSORS[name] = write, processors
        return write

    return add


def word(dtype):
    return {D.INT8: "int8", D.INT16: "int16", D.INT32: "int32", D.BOOL: "bool"}[dtype]


def simple(name, op, attribute, shapes, out, kind, *arguments, dtype=D.INT8, processors=ALL, low=None, high=None, extra=()):
    """One operator on inputs of one type."""

    def write(net):
        inputs = [net.input(shape, dtype, low, high) for shape in shapes]
        inputs += [made(net) for made in extra]
        net.output(net.add(op, inputs, out, kind, attribute, *arguments))

    case(name, processors)(write)


# Of all processors ---------------------------------------------------------------------------------------------------------------

for dtype, processors in ((D.INT8, ALL), (D.INT16, U85)):
    kind = dict(dtype=dtype, processors=processors)
    simple(f"argmax-{word(dtype)}", OP.ARGMAX, "ArgMaxAttribute", [[1, 5, 6, 20]], [1, 5, 6], D.INT32, 3, NAN, **kind)
    kind |= dict(low=-3, high=3)
    simple(f"argmax-few-{word(dtype)}", OP.ARGMAX, "ArgMaxAttribute", [[1, 9, 8, 12]], [1, 9, 8], D.INT32, 3, NAN, **kind)
for dtype in (D.INT8, D.INT16):
    for axis, letter in ((1, "h"), (2, "w")):
        simple(f"reverse-{letter}-{word(dtype)}", OP.REVERSE, "ReverseAttribute", [NHWC], NHWC, dtype, axis, dtype=dtype)
        out = [1 if i == axis else n for i, n in enumerate([1, 6, 7, 12])]
        few = dict(dtype=dtype, low=-100, high=60)
        simple(f"reduce-max-{letter}-{word(dtype)}", OP.REDUCE_MAX, "ReduceMaxAttribute", [[1, 6, 7, 12]], out, dtype, axis, NAN, **few)
        simple(f"reduce-min-{letter}-{word(dtype)}", OP.REDUCE_MIN, "ReduceMinAttribute", [[1, 6, 7, 12]], out, dtype, axis, NAN, **few)
for axis, letter in ((1, "h"), (2, "w"), (3, "c")):
    out = [1 if i == axis else n for i, n in enumerate([1, 6, 7, 12])]
    simple(f"reduce-sum-{letter}", OP.REDUCE_SUM, "ReduceSumAttribute", [[1, 6, 7, 12]], out, D.INT32, axis, dtype=D.INT32, low=-9999, high=9999)
simple("reduce-min-c", OP.REDUCE_MIN, "ReduceMinAttribute", [[1, 6, 7, 24]], [1, 6, 7, 1], D.INT8, 3, NAN, low=-60)
for dtype in (D.INT8, D.INT16, D.INT32):
    multiples = [lambda net: net.shape([1, 2, 3, 2])]
    simple(f"tile-{word(dtype)}", OP.TILE, "TileAttribute", [[1, 3, 4, 5]], [1, 6, 12, 10], dtype, dtype=dtype, extra=multiples)
    for axis in (1, 2, 3):
        shapes = [[1, 4, 5, 6], [1, 4, 5, 6]]
        out = [1, 4, 5, 6]
        shapes[1][axis] += 3
        out[axis] = 2 * out[axis] + 3
        simple(f"concat-{axis}-{word(dtype)}", OP.CONCAT, "ConcatAttribute", shapes, out, dtype, axis, dtype=dtype)
    pads = [lambda net: net.shape([0, 0, 1, 2, 2, 1, 1, 3]), lambda net, dtype=dtype: net.zero(dtype, -9)]
    simple(f"pad-{word(dtype)}", OP.PAD, "PadAttribute", [NHWC], [1, 8, 9, 11], dtype, dtype=dtype, extra=pads)
    cut = [lambda net: net.shape([0, 1, 2, 3]), lambda net: net.shape([1, 4, 4, 15])]
    simple(f"slice-{word(dtype)}", OP.SLICE, "SliceAttribute", [[1, 6, 7, 20]], [1, 4, 4, 15], dtype, dtype=dtype, extra=cut)
for perms in ([0, 1, 3, 2], [0, 2, 1, 3], [0, 2, 3, 1], [0, 3, 1, 2], [0, 3, 2, 1]):
    for dtype in (D.INT8, D.INT16, D.INT32):
        if dtype == D.INT32 and perms in ([0, 2, 3, 1], [0, 3, 1, 2]):
            processors = U85
        else:
            processors = ALL
        out = [[1, 4, 5, 18][p] for p in perms]
        name = f"transpose-{''.join('nhwc'[p] for p in perms)}-{word(dtype)}"
        simple(name, OP.TRANSPOSE, "TransposeAttribute", [[1, 4, 5, 18]], out, dtype, perms, dtype=dtype, processors=processors)
simple("transpose-batches", OP.TRANSPOSE, "TransposeAttribute", [[2, 3, 4, 5]], [4, 5, 2, 3], D.INT8, [2, 3, 0, 1])
simple("transpose-5d", OP.TRANSPOSE, "TransposeAttribute", [[2, 3, 4, 5, 6]], [3, 6, 2, 5, 4], D.INT8, [1, 4, 0, 3, 2])
for dtype in (D.INT8, D.INT16, D.INT32):
    zeros = [lambda net, dtype=dtype: net.zero(dtype, 3 if dtype == D.INT8 else 0)] * 2
    simple(f"negate-{word(dtype)}", OP.NEGATE, "NegateAttribute", [NHWC], NHWC, dtype, dtype=dtype, extra=zeros)
for source, target in ((D.INT8, D.INT16), (D.INT8, D.INT32), (D.INT16, D.INT32)):
    simple(f"cast-{word(source)}-{word(target)}", OP.CAST, "CastAttribute", [NHWC], NHWC, target, dtype=source)
for source, target in ((D.INT16, D.INT8), (D.INT32, D.INT8), (D.INT32, D.INT16)):
    simple(f"cast-{word(source)}-{word(target)}", OP.CAST, "CastAttribute", [NHWC], NHWC, target, dtype=source, processors=U85)
for name, op, attribute in (("add", OP.ADD, "AddAttribute"), ("sub", OP.SUB, "SubAttribute")):
    simple(f"{name}-int32", op, attribute, [NHWC, NHWC], NHWC, D.INT32, dtype=D.INT32, low=-(1 << 30), high=1 << 30)
for name, op in (("maximum", OP.MAXIMUM), ("minimum", OP.MINIMUM)):
    for b in (NHWC, [1, 1, 6, 1]):
        wide = dict(dtype=D.INT32)
        simple(f"{name}-int32-{b[1]}", op, f"{name.title()}Attribute", [NHWC, b], NHWC, D.INT32, NAN, **wide)
simple("abs-int32-whole", OP.ABS, "AbsAttribute", [NHWC], NHWC, D.INT32, dtype=D.INT32, low=-(1 << 31) + 1)


@case("shift-left")
def _(net):
    s = net.input(NHWC, D.INT32, 0, 31)
    net.output(net.add(OP.LOGICAL_LEFT_SHIFT, [net.input(NHWC, D.INT32), s], NHWC, D.INT32, "LogicalLeftShiftAttribute"))


@case("shift-right-rounds")
def _(net):
    s = net.input(NHWC, D.INT32, 1, 31)
    x = net.input(NHWC, D.INT32)
    net.output(net.add(OP.ARITHMETIC_RIGHT_SHIFT, [x, s], NHWC, D.INT32, "ArithmeticRightShiftAttribute", True))


for shift in (0, 5, 31):

    @case(f"mul-int32-shift-{shift}", ALL if shift == 0 else U85)
    def _(net, shift=shift):
        limit = 1 << (15 if shift == 0 else 15 + shift // 2)
        a, b = net.input(NHWC, D.INT32, -limit, limit - 1), net.input([1, 1, 6, 7], D.INT32, -limit, limit - 1)
        net.output(net.add(OP.MUL, [a, b, net.zero(D.INT8, shift)], NHWC, D.INT32, "MulAttribute"))


def rescale_case(name, source, target, scale, zeros=(0, 0), rounding=SINGLE, low=None, high=None, processors=ALL):
    def write(net):
        x = net.input([1, 4, 5, 9], source, low, high)
        net.output(net.rescale(x, [1, 4, 5, 9], source, target, scale, *zeros, rounding))

    case(name, processors)(write)


rescale_case("rescale-int32-int8", D.INT32, D.INT8, 0.0003, (0, -7), low=-500000, high=500000)
rescale_case("rescale-int32-int8-double", D.INT32, D.INT8, 0.0003, (0, -7), DOUBLE, low=-500000, high=500000)
rescale_case("rescale-int32-int32", D.INT32, D.INT32, 0.37, low=-(1 << 29), high=1 << 29)
rescale_case("rescale-int16-int8", D.INT16, D.INT8, 0.003, (0, 9))
rescale_case("rescale-int16-int32", D.INT16, D.INT32, 77.7)
rescale_case("rescale-int8-channels", D.INT8, D.INT8, numpy.linspace(0.2, 1.7, 9), (4, -3))
rescale_case("rescale-int16-channels", D.INT16, D.INT16, numpy.linspace(0.1, 0.9, 9))
rescale_case("rescale-int32-channels", D.INT32, D.INT16, numpy.linspace(0.001, 0.03, 9), low=-900000, high=900000)


def conv_case(name, shape, channels, kernel, dtype=D.INT8, processors=ALL, **options):
    def write(net):
        y, _ = net.conv(net.input(shape, dtype), shape, channels, kernel, dtype=dtype, **options)
        net.output(y)

    case(name, processors)(write)


conv_case("conv-stride-4", [1, 17, 21, 6], 8, (3, 5), processors=U85, stride=(4, 5), pad=(1, 1, 2, 2))
conv_case("conv-stride-4-int16", [1, 17, 21, 6], 8, (3, 3), D.INT16, processors=U85, stride=(4, 4), pad=(1, 1, 1, 1))
conv_case("conv-patches", [1, 16, 16, 3], 20, (8, 8), processors=U85, stride=(8, 8))
conv_case("conv-dilated-3", [1, 16, 16, 4], 6, (3, 3), processors=U85, pad=(3, 3, 3, 3), dilation=(3, 3))
conv_case("conv-dilated-4x5", [1, 18, 20, 4], 6, (3, 3), processors=U85, pad=(4, 4, 5, 5), dilation=(4, 5))
conv_case("conv-70-columns", [1, 4, 90, 3], 5, (1, 70), pad=(0, 0, 3, 3))
conv_case("conv-batches", [3, 6, 7, 5], 6, (3, 3), pad=(1, 1, 1, 1))
conv_case("depthwise-stride-4", [1, 19, 23, 6], 1, (3, 3), processors=U85, stride=(4, 4), depthwise=True)
conv_case("depthwise-twice", [1, 8, 9, 5], 2, (3, 3), pad=(1, 1, 1, 1), depthwise=True)
conv_case("depthwise-twice-one", [1, 8, 9, 1], 6, (3, 3), pad=(1, 1, 1, 1), depthwise=True)
conv_case("depthwise-dilated-3", [1, 16, 16, 4], 1, (3, 3), processors=U85, pad=(3, 3, 3, 3), dilation=(3, 3), depthwise=True)
conv_case("depthwise-batches", [2, 6, 7, 5], 1, (3, 3), pad=(1, 1, 1, 1), depthwise=True)


@case("conv-weight-zero-point")
def _(net):
    weights = net.const([6, 3, 3, 5], D.INT8, net.random.integers(-127, 128, [6, 3, 3, 5]))
    bias = net.const([6], D.INT32, net.random.integers(-999, 999, 6))
    x = net.input([1, 7, 8, 5])
    y = net.add(
        OP.CONV2D, [x, weights, bias, net.zero(D.INT8, -4), net.zero(D.INT8, 7)], [1, 7, 8, 6], D.INT32, "Conv2dAttribute",
        [1, 1, 1, 1], [1, 1], [1, 1], False, D.INT32,
    )
    net.output(net.rescale(y, [1, 7, 8, 6], D.INT32, D.INT8, 0.0009, 0, -5))


@case("conv-32-bits")
def _(net):
    """The sums themselves."""
    weights = net.const([6, 3, 3, 5], D.INT8, net.random.integers(-127, 128, [6, 3, 3, 5]))
    bias = net.const([6], D.INT32, net.random.integers(-99999, 99999, 6))
    inputs = [net.input([1, 7, 8, 5]), weights, bias, net.zero(D.INT8, -4), net.zero(D.INT8, 0)]
    net.output(net.add(OP.CONV2D, inputs, [1, 5, 6, 6], D.INT32, "Conv2dAttribute", [0] * 4, [1, 1], [1, 1], False, D.INT32))


for name, depth, kernel, processors in (("flat", 1, (1, 3, 3), ALL), ("deep", 4, (3, 3, 3), U85), ("strided", 6, (2, 2, 2), U85)):

    @case(f"conv3d-{name}", processors)
    def _(net, name=name, depth=depth, kernel=kernel):
        stride = [2, 2, 2] if name == "strided" else [1, 1, 1]
        pad = [0] * 6 if name == "strided" else [kernel[0] // 2] * 2 + [1] * 4
        shape = [1, depth, 6, 8, 3]
        sizes = [(shape[1 + i] + pad[2 * i] + pad[2 * i + 1] - kernel[i]) // stride[i] + 1 for i in range(3)]
        out = [1, *sizes, 5]
        weights = net.const([5, *kernel, 3], D.INT8, net.random.integers(-127, 128, [5, *kernel, 3]))
        bias = net.const([5], D.INT32, net.random.integers(-999, 999, 5))
        inputs = [net.input(shape), weights, bias, net.zero(D.INT8, -4), net.zero(D.INT8, 0)]
        y = net.add(OP.CONV3D, inputs, out, D.INT32, "Conv3dAttribute", pad, stride, [1, 1, 1], False, D.INT32)
        net.output(net.rescale(y, out, D.INT32, D.INT8, 0.0009, 0, -5))


def pool_case(name, shape, kernel, stride, pad, average, zero=0, dtype=D.INT8, processors=ALL):
    make_cases.pool_case(name, shape, kernel, stride, pad, average, zero, dtype)
    case(name, processors)(make_cases.CASES.pop(name))


pool_case("max-pool-12x20", [1, 30, 40, 2], (12, 20), (3, 2), (0, 0, 0, 0), False, dtype=D.INT16)
pool_case("max-pool-stride-4", [1, 19, 23, 6], (3, 3), (4, 4), (0, 0, 0, 0), False, processors=U85)
pool_case("max-pool-batches", [2, 9, 9, 6], (3, 3), (2, 2), (0, 0, 0, 0), False)
pool_case("avg-pool-12x9", [1, 24, 21, 5], (12, 9), (3, 2), (0, 0, 0, 0), True)
pool_case("avg-pool-12x9-zero", [1, 24, 21, 5], (12, 9), (3, 2), (0, 0, 0, 0), True, zero=-20)
pool_case("avg-pool-12x9-padded", [1, 24, 21, 5], (12, 9), (3, 2), (3, 3, 2, 2), True, zero=4, processors=U85)
pool_case("avg-pool-stride-4", [1, 19, 23, 6], (3, 3), (4, 4), (0, 0, 0, 0), True, processors=U85)
pool_case("avg-pool-18x20", [1, 18, 20, 12], (18, 20), (1, 1), (0, 0, 0, 0), True, dtype=D.INT16)


def resize_case(name, mode, scale, offset, border, shape, out, dtype=D.INT8, processors=ALL):
    def write(net):
        inputs = [net.input(shape, dtype), net.shape(scale), net.shape(offset), net.shape(border)]
        bilinear = mode == "BILINEAR"
        sums = D.INT32 if dtype == D.INT8 else D.INT48
        kind = sums if bilinear else dtype
        sizes = [shape[0], *out, shape[3]]
        y = net.add(OP.RESIZE, inputs, sizes, kind, "ResizeAttribute", getattr(tosa.ResizeMode, mode))
        net.output(net.rescale(y, sizes, sums, dtype, 1 / (scale[0] * scale[2])) if bilinear else y)

    case(name, processors)(write)


for mode in ("NEAREST", "BILINEAR"):
    lower = mode.lower()
    resize_case(f"resize-{lower}-4x", mode, [8, 2, 8, 2], [0, 0], [6, 6], [1, 3, 4, 5], [12, 16], processors=U85)
    resize_case(f"resize-{lower}-4x2", mode, [8, 2, 4, 2], [0, 0], [6, 2], [1, 3, 4, 5], [12, 8], processors=U85)
    resize_case(f"resize-{lower}-align", mode, [8, 4, 8, 4], [0, 0], [0, 0], [1, 4, 5, 6], [7, 9], processors=U85)
    resize_case(f"resize-{lower}-half", mode, [4, 2, 4, 2], [-1, -1], [1, 1], [1, 5, 6, 8], [10, 12], processors=U85)
    resize_case(f"resize-{lower}-down", mode, [2, 4, 2, 6], [1, 1], [-1, -3], [1, 8, 15, 5], [4, 5], processors=U85)
    resize_case(f"resize-{lower}-int16", mode, [4, 2, 4, 2], [-1, -1], [1, 1], [1, 5, 6, 8], [10, 12], D.INT16, U85)
    resize_case(f"resize-{lower}-uneven", mode, [16, 10, 8, 6], [-3, 2], [-3, -4], [1, 6, 7, 5], [9, 8], processors=U85)


# Of U85 only ---------------------------------------------------------------------------------------------------------------------

WHOLE = (D.INT8, D.INT16, D.INT32)
for name in ("and", "or", "xor"):
    for dtype in WHOLE:
        op, attribute = getattr(OP, f"BITWISE_{name.upper()}"), f"Bitwise{name.title()}Attribute"
        simple(f"bitwise-{name}-{word(dtype)}", op, attribute, [NHWC, [1, 5, 1, 7]], NHWC, dtype, dtype=dtype, processors=U85)
    op, attribute = getattr(OP, f"LOGICAL_{name.upper()}"), f"Logical{name.title()}Attribute"
    simple(f"logical-{name}", op, attribute, [NHWC, NHWC], NHWC, D.BOOL, dtype=D.BOOL, processors=U85)
for dtype in WHOLE:
    simple(f"bitwise-not-{word(dtype)}", OP.BITWISE_NOT, "BitwiseNotAttribute", [NHWC], NHWC, dtype, dtype=dtype, processors=U85)
simple("logical-not", OP.LOGICAL_NOT, "LogicalNotAttribute", [NHWC], NHWC, D.BOOL, dtype=D.BOOL, processors=U85)
for name, op in (("Equal", OP.EQUAL), ("Greater", OP.GREATER), ("GreaterEqual", OP.GREATER_EQUAL)):
    for b in (NHWC, [1, 1, 6, 1]):
        limits = dict(dtype=D.INT32, low=-2, high=2, processors=U85)
        simple(f"{name.lower()}-{b[1]}", op, f"{name}Attribute", [NHWC, b], NHWC, D.BOOL, **limits)
    simple(f"{name.lower()}-wide", op, f"{name}Attribute", [NHWC, NHWC], NHWC, D.BOOL, dtype=D.INT32, processors=U85)


@case("equal-wide", U85)
def _(net):
    """Numbers of which many are equal, and far apart where they are not."""
    values = numpy.array([-(1 << 31), -(1 << 31) + 1, -1, 0, 1, (1 << 31) - 2, (1 << 31) - 1])
    a, b = (net.input(NHWC, D.INT32, make=lambda random: random.choice(values, NHWC)) for _ in range(2))
    net.output(net.add(OP.EQUAL, [a, b], NHWC, D.BOOL, "EqualAttribute"))


for dtype in (*WHOLE, D.BOOL):
    for condition in (NHWC, [1, 5, 1, 1]):

        @case(f"select-{word(dtype)}-{condition[2]}", U85)
        def _(net, dtype=dtype, condition=condition):
            inputs = [net.input(condition, D.BOOL), net.input(NHWC, dtype), net.input([1, 1, 1, 7], dtype)]
            net.output(net.add(OP.SELECT, inputs, NHWC, dtype, "SelectAttribute"))


@case("compare-and-select", U85)
def _(net):
    a, b = net.input(NHWC, D.INT32, -99, 99), net.input(NHWC, D.INT32, -99, 99)
    c, d = net.input(NHWC, D.INT16), net.input(NHWC, D.INT16)
    first = net.add(OP.GREATER, [a, b], NHWC, D.BOOL, "GreaterAttribute")
    second = net.add(OP.EQUAL, [a, net.const([1, 1, 1, 1], D.INT32, [7])], NHWC, D.BOOL, "EqualAttribute")
    both = net.add(OP.LOGICAL_OR, [first, second], NHWC, D.BOOL, "LogicalOrAttribute")
    net.output(net.add(OP.SELECT, [both, c, d], NHWC, D.INT16, "SelectAttribute"))


for name in ("all", "any"):
    for axis in (1, 2, 3):
        shape = [1, 4, 5, 6]

        @case(f"reduce-{name}-{axis}", U85)
        def _(net, name=name, axis=axis, shape=shape):
            few = 0.25 if name == "any" else 0.75
            x = net.input(shape, D.BOOL, make=lambda random: random.random(shape) < few)
            out = [1 if i == axis else n for i, n in enumerate(shape)]
            attribute = f"Reduce{name.title()}Attribute"
            net.output(net.add(getattr(OP, f"REDUCE_{name.upper()}"), [x], out, D.BOOL, attribute, axis))


for dtype in WHOLE:

    @case(f"shift-right-logical-{word(dtype)}", U85)
    def _(net, dtype=dtype):
        bits = 8 * numpy.dtype(TYPES[dtype]).itemsize
        inputs = [net.input(NHWC, dtype), net.input([1, 5, 6, 1], dtype, 0, bits - 1)]
        net.output(net.add(OP.LOGICAL_RIGHT_SHIFT, inputs, NHWC, dtype, "LogicalRightShiftAttribute"))

    @case(f"shift-right-arithmetic-{word(dtype)}", U85)
    def _(net, dtype=dtype):
        bits = 8 * numpy.dtype(TYPES[dtype]).itemsize
        inputs = [net.input(NHWC, dtype), net.input([1, 5, 6, 1], dtype, 0, bits - 1)]
        net.output(net.add(OP.ARITHMETIC_RIGHT_SHIFT, inputs, NHWC, dtype, "ArithmeticRightShiftAttribute", False))

    @case(f"shift-left-{word(dtype)}", U85)
    def _(net, dtype=dtype):
        bits = 8 * numpy.dtype(TYPES[dtype]).itemsize
        inputs = [net.input(NHWC, dtype), net.input([1, 5, 6, 1], dtype, 0, bits - 1)]
        net.output(net.add(OP.LOGICAL_LEFT_SHIFT, inputs, NHWC, dtype, "LogicalLeftShiftAttribute"))

    @case(f"gather-{word(dtype)}", U85)
    def _(net, dtype=dtype):
        inputs = [net.input([2, 9, 5], dtype), net.input([2, 7], D.INT32, 0, 8)]
        net.output(net.add(OP.GATHER, inputs, [2, 7, 5], dtype, "GatherAttribute"))

    @case(f"scatter-{word(dtype)}", U85)
    def _(net, dtype=dtype):
        unique = lambda random: numpy.stack([random.permutation(9)[:4] for _ in range(2)])
        inputs = [net.input([2, 9, 5], dtype), net.input([2, 4], D.INT32, make=unique), net.input([2, 4, 5], dtype)]
        net.output(net.add(OP.SCATTER, inputs, [2, 9, 5], dtype, "ScatterAttribute"))


@case("gather-one", U85)
def _(net):
    inputs = [net.input([1, 30, 16]), net.input([1, 1], D.INT32, 0, 29)]
    net.output(net.add(OP.GATHER, inputs, [1, 1, 16], D.INT8, "GatherAttribute"))


@case("gather-table", U85)
def _(net):
    """Rows of a constant: an embedding."""
    rows = net.const([1, 40, 12], D.INT8, net.random.integers(-128, 128, [1, 40, 12]))
    net.output(net.add(OP.GATHER, [rows, net.input([1, 11], D.INT32, 0, 39)], [1, 11, 12], D.INT8, "GatherAttribute"))


@case("gather-of-constants", U85)
def _(net):
    """Constant indices."""
    indices = net.const([1, 11], D.INT32, net.random.integers(0, 20, [1, 11]))
    net.output(net.add(OP.GATHER, [net.input([1, 20, 12], D.INT16), indices], [1, 11, 12], D.INT16, "GatherAttribute"))


@case("intdiv", U85)
def _(net):
    some = numpy.array([-(1 << 31), -7777, -9, -2, -1, 1, 2, 3, 10, 1000, (1 << 31) - 1])
    a = net.input(NHWC, D.INT32, low=-(1 << 31) + 1)
    b = net.input(NHWC, D.INT32, make=lambda random: random.choice(some, NHWC))
    net.output(net.add(OP.INTDIV, [a, b], NHWC, D.INT32, "IntDivAttribute"))


simple("argmax-h", OP.ARGMAX, "ArgMaxAttribute", [[1, 9, 7, 12]], [1, 7, 12], D.INT32, 1, NAN, low=-20, high=20, processors=U85)
simple("argmax-w", OP.ARGMAX, "ArgMaxAttribute", [[1, 6, 11, 12]], [1, 6, 12], D.INT32, 2, NAN, low=-20, high=20, processors=U85)
simple("argmax-c-300", OP.ARGMAX, "ArgMaxAttribute", [[1, 3, 4, 300]], [1, 3, 4], D.INT32, 3, NAN, processors=U85)
simple("argmax-w-600", OP.ARGMAX, "ArgMaxAttribute", [[1, 1, 600, 7]], [1, 1, 7], D.INT32, 2, NAN, dtype=D.INT16, processors=U85)
simple("reverse-c", OP.REVERSE, "ReverseAttribute", [NHWC], NHWC, D.INT8, 3, processors=U85)
simple("reverse-c-20-int16", OP.REVERSE, "ReverseAttribute", [[1, 5, 6, 20]], [1, 5, 6, 20], D.INT16, 3, dtype=D.INT16, processors=U85)
for axis in (1, 2, 3):
    simple(f"reverse-{axis}-int32", OP.REVERSE, "ReverseAttribute", [NHWC], NHWC, D.INT32, axis, dtype=D.INT32, processors=U85)


@case("reverse-behind-conv", U85)
def _(net):
    y, shape = net.conv(net.input([1, 8, 9, 5]), [1, 8, 9, 5], 6, (3, 3))
    net.output(net.add(OP.REVERSE, [y], shape, D.INT8, "ReverseAttribute", 2))


@case("matmul-int16", U85)
def _(net):
    a, b = net.input([2, 6, 9], D.INT16), net.input([2, 9, 5], D.INT16)
    y = net.add(OP.MATMUL, [a, b, net.zero(D.INT16, 0), net.zero(D.INT16, 0)], [2, 6, 5], D.INT48, "MatMulAttribute")
    net.output(net.rescale(y, [2, 6, 5], D.INT48, D.INT16, 0.00001))


@case("conv-weights-that-are-inputs", U85)
def _(net):
    x, w, b = net.input([1, 6, 7, 8]), net.input([5, 3, 3, 8], low=-127), net.input([5], D.INT32, -3000, 3000)
    inputs = [x, w, b, net.zero(D.INT8, 2), net.zero(D.INT8, 0)]
    y = net.add(OP.CONV2D, inputs, [1, 6, 7, 5], D.INT32, "Conv2dAttribute", [1] * 4, [1, 1], [1, 1], False, D.INT32)
    net.output(net.rescale(y, [1, 6, 7, 5], D.INT32, D.INT8, 0.0008, 0, -5))


@case("depthwise-weights-that-are-inputs", U85)
def _(net):
    x, w, b = net.input([1, 6, 7, 8]), net.input([3, 3, 8, 1], low=-127), net.input([8], D.INT32, -3000, 3000)
    inputs = [x, w, b, net.zero(D.INT8, 2), net.zero(D.INT8, 0)]
    lists = [[1] * 4, [1, 1], [1, 1], False, D.INT32]
    y = net.add(OP.DEPTHWISE_CONV2D, inputs, [1, 6, 7, 8], D.INT32, "DepthwiseConv2dAttribute", *lists)
    net.output(net.rescale(y, [1, 6, 7, 8], D.INT32, D.INT8, 0.002, 0, -5))


for stride in ([1, 1], [2, 2], [3, 2]):

    @case(f"transpose-conv-stride-{stride[0]}x{stride[1]}", ALL if stride[0] < 3 else U85)
    def _(net, stride=stride):
        shape, channels, kernel = [1, 5, 6, 8], 6, [4, 3]
        sizes = [(shape[1 + i] - 1) * stride[i] + kernel[i] for i in (0, 1)]
        out = [1, *sizes, channels]
        weights = net.const([channels, *kernel, 8], D.INT8, net.random.integers(-127, 128, [channels, *kernel, 8]))
        bias = net.const([channels], D.INT32, net.random.integers(-999, 999, channels))
        inputs = [net.input(shape), weights, bias, net.zero(D.INT8, 3), net.zero(D.INT8, 0)]
        y = net.add(OP.TRANSPOSE_CONV2D, inputs, out, D.INT32, "TransposeConv2dAttribute", [0] * 4, stride, False, D.INT32)
        net.output(net.rescale(y, out, D.INT32, D.INT8, 0.0009, 0, -5))


def block(net, name, shapes, dtypes):
    """A basic block with its inputs; what is added next is in it."""
    net.serializer.startRegion(name)
    net.serializer.addBasicBlock(name)
    return [net.serializer.addPlaceholder(shape, dtype) for shape, dtype in zip(shapes, dtypes)]


for answer in (False, True):

    @case(f"cond-if-{str(answer).lower()}", U85)
    def _(net, answer=answer):
        a, b = net.input(NHWC, D.INT32, -999, 999), net.input(NHWC, D.INT32, -999, 999)
        condition = net.input([1], D.BOOL, make=lambda random: numpy.array([answer]))
        net.output(net.add(OP.COND_IF, [condition, a, b], NHWC, D.INT32, "CondIfAttribute", "then", "else"))
        for name, op, attribute in (("then", OP.ADD, "AddAttribute"), ("else", OP.SUB, "SubAttribute")):
            x, y = block(net, name, [NHWC, NHWC], [D.INT32, D.INT32])
            net.output(net.add(op, [x, y], NHWC, D.INT32, attribute))


@case("while-loop", U85)
def _(net):
    """Doubles a tensor and adds the turn to it, until the turns are over."""
    turn, x = net.input([1], D.INT32, 1, 4), net.input(NHWC, D.INT32, -99, 99)
    shapes, dtypes = [[1], NHWC], [D.INT32, D.INT32]
    outs = [net.serializer.addIntermediate(shape, dtype) for shape, dtype in zip(shapes, dtypes)]
    made = tosa.TosaSerializerAttribute()
    made.WhileLoopAttribute("condition", "body")
    net.serializer.addOperator(OP.WHILE_LOOP, [turn.name, x.name], [out.name for out in outs], made)
    net.output(outs[1])
    n, y = block(net, "condition", shapes, dtypes)
    net.output(net.add(OP.GREATER, [n, net.const([1], D.INT32, [0])], [1], D.BOOL, "GreaterAttribute"))
    n, y = block(net, "body", shapes, dtypes)
    z = net.add(OP.ADD, [y, y], NHWC, D.INT32, "AddAttribute")
    z = net.add(OP.ADD, [z, net.add(OP.RESHAPE, [n, net.shape([1] * 4)], [1] * 4, D.INT32, "ReshapeAttribute")], NHWC, D.INT32, "AddAttribute")
    net.output(net.add(OP.SUB, [n, net.const([1], D.INT32, [1])], [1], D.INT32, "SubAttribute"), z)


for name, scale in (("", 0.0009), ("-channels", numpy.array([0.0007, 0.001, 0.0012, 0.0003]))):

    @case(f"rescale-int48-twice{name}", U85)
    def _(net, scale=scale):
        """Sums of 48 bits that two operators read."""
        shape = [1, 6, 7, 5]
        weights = net.const([4, 3, 3, 5], D.INT8, net.random.integers(-127, 128, [4, 3, 3, 5]))
        bias = net.const([4], D.INT48, net.random.integers(-(1 << 20), 1 << 20, 4))
        inputs = [net.input(shape, D.INT16), weights, bias, net.zero(D.INT16, 0), net.zero(D.INT8, 0)]
        out = [1, 4, 5, 4]
        y = net.add(OP.CONV2D, inputs, out, D.INT48, "Conv2dAttribute", [0] * 4, [1, 1], [1, 1], False, D.INT48)
        net.output(net.rescale(y, out, D.INT48, D.INT16, scale), net.rescale(y, out, D.INT48, D.INT32, 300 * scale))


# How Vela is told to compile --------------------------------------------------------------------------------------------------


def stack(net):
    """Layers that do not fit a small memory whole: Vela runs them in stripes, through buffers that go round."""
    x, shape = net.conv(net.input([1, 30, 20, 4]), [1, 30, 20, 4], 24, (3, 3), pad=(1, 1, 1, 1))
    x, shape = net.conv(x, shape, 1, (5, 5), pad=(2, 2, 2, 2), zero=-5, depthwise=True, gain=2.0)
    x, shape = net.conv(x, shape, 24, (3, 3), pad=(1, 1, 1, 1), zero=-5, gain=2.0)
    y, shape = net.conv(x, shape, 2, (1, 1), zero=-5, gain=2.0)
    net.output(y)


case("striped")(stack)
make_cases.OPTIONS["striped"] = ["--arena-cache-size", "20000"]


@case("cop2")
def _(net):
    y, _ = net.conv(net.input([1, 6, 7, 5]), [1, 6, 7, 5], 6, (3, 3))
    net.output(y)


make_cases.OPTIONS["cop2"] = ["--cop-format", "COP2"]


# Chains, numbers in place of tensors, and types -----------------------------------------------------------------------------------


@case("chain")
def _(net):
    """Operators that U85 hands from one to the next without memory."""
    y, shape = net.conv(net.input([1, 6, 7, 5]), [1, 6, 7, 5], 9, (3, 3))
    y = net.rescale(y, shape, D.INT8, D.INT32, 1.0, -5, 0)
    for op, attribute, arguments in ((OP.ADD, "AddAttribute", []), (OP.MAXIMUM, "MaximumAttribute", [NAN]), (OP.SUB, "SubAttribute", [])):
        y = net.add(op, [y, net.input([1, 1, 1, 9], D.INT32, -50, 50)], shape, D.INT32, attribute, *arguments)
    y = net.add(OP.ABS, [y], shape, D.INT32, "AbsAttribute")
    net.output(net.rescale(y, shape, D.INT32, D.INT8, 0.7, 0, -100))


for name, op in (("add", OP.ADD), ("sub", OP.SUB), ("mul", OP.MUL)):
    for first in (False, True):

        @case(f"{name}-number-{'first' if first else 'second'}")
        def _(net, name=name, op=op, first=first):
            x = net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT32, 1.0, 3, 0)
            number = net.const([1, 1, 1, 1], D.INT32, [37])
            inputs = [number, x] if first else [x, number]
            y = net.add(op, inputs + [net.zero(D.INT8, 0)] * (op == OP.MUL), NHWC, D.INT32, f"{name.title()}Attribute")
            net.output(net.rescale(y, NHWC, D.INT32, D.INT8, 0.02 if op == OP.MUL else 0.7, 0, 9))


for source in (D.INT8, D.INT16):

    @case(f"mul-{word(source)}-int32")
    def _(net, source=source):
        inputs = [net.input(NHWC, source), net.input([1, 5, 1, 7], source), net.zero(D.INT8, 0)]
        net.output(net.add(OP.MUL, inputs, NHWC, D.INT32, "MulAttribute"))


@case("clamp-int16")
def _(net):
    net.output(make_cases.clamp(net, net.input(NHWC, D.INT16), NHWC, -9000, 12345, D.INT16))


@case("conv-weights-of-4-bits")
def _(net):
    weights = net.serializer.addConst([6, 3, 3, 8], D.INT4, net.random.integers(-7, 8, [6, 3, 3, 8]).astype(numpy.int8))
    bias = net.const([6], D.INT32, net.random.integers(-999, 999, 6))
    inputs = [net.input([1, 7, 8, 8]), weights, bias, net.zero(D.INT8, -4), net.serializer.addConst([1], D.INT4, numpy.zeros(1, numpy.int8))]
    y = net.add(OP.CONV2D, inputs, [1, 5, 6, 6], D.INT32, "Conv2dAttribute", [0] * 4, [1, 1], [1, 1], False, D.INT32)
    net.output(net.rescale(y, [1, 5, 6, 6], D.INT32, D.INT8, 0.009, 0, -5))


@case("transpose-behind-conv", U85)
def _(net):
    y, shape = net.conv(net.input([1, 6, 7, 5]), [1, 6, 7, 5], 20, (3, 3))
    net.output(net.add(OP.TRANSPOSE, [y], [1, 20, 4, 5], D.INT8, "TransposeAttribute", [0, 3, 1, 2]))


@case("matmul-deep", U85)
def _(net):
    a, b = net.input([1, 5, 300]), net.input([1, 300, 20])
    y = net.add(OP.MATMUL, [a, b, net.zero(D.INT8, 2), net.zero(D.INT8, -3)], [1, 5, 20], D.INT32, "MatMulAttribute")
    net.output(net.rescale(y, [1, 5, 20], D.INT32, D.INT8, 0.0005, 0, 4))


for dtype in (D.INT8, D.INT16):
    for name, shape, channels, kernel in (("few", [1, 5, 6, 9], 6, (1, 1)), ("many", [1, 4, 5, 40], 20, (1, 1)), ("3x3", [1, 6, 7, 24], 12, (3, 3)), ("deep", [1, 4, 4, 150], 9, (2, 2))):

        @case(f"conv-sparse-{name}-{word(dtype)}", U85)
        def _(net, dtype=dtype, shape=shape, channels=channels, kernel=kernel):
            """Two of four weights are zero, which U85 has a form for."""
            depth = shape[3]
            values = net.random.integers(1, 128, [channels, *kernel, depth])
            places = numpy.arange(depth).reshape(1, 1, 1, depth) % 4
            first = net.random.integers(0, 4, [channels, *kernel, -(-depth // 4)]).repeat(4, 3)[..., :depth]
            values = numpy.where((places == first) | (places == (first + 1) % 4), values, 0)
            sums = D.INT32 if dtype == D.INT8 else D.INT48
            weights = net.const([channels, *kernel, depth], D.INT8, values)
            bias = net.const([channels], sums, net.random.integers(-999, 999, channels))
            inputs = [net.input(shape, dtype), weights, bias, net.zero(dtype, 3 if dtype == D.INT8 else 0), net.zero(D.INT8, 0)]
            out = [1, shape[1] - kernel[0] + 1, shape[2] - kernel[1] + 1, channels]
            y = net.add(OP.CONV2D, inputs, out, sums, "Conv2dAttribute", [0] * 4, [1, 1], [1, 1], False, sums)
            net.output(net.rescale(y, out, sums, dtype, 0.002, 0, 0))


@case("avg-pool-other-zero")
def _(net):
    lists = [[3, 3], [2, 2], [1, 1, 1, 1]]
    inputs = [net.input([1, 9, 9, 6]), net.zero(D.INT8, -7), net.zero(D.INT8, 11)]
    net.output(net.add(OP.AVG_POOL2D, inputs, [1, 5, 5, 6], D.INT8, "AvgPool2dAttribute", *lists, D.INT32))


for unsigned in ("in", "out"):

    @case(f"rescale-unsigned-{unsigned}")
    def _(net, unsigned=unsigned):
        inputs = [
            net.input(NHWC),
            net.const([1], D.INT32, [1 << 30]),
            net.const([1], D.INT8, [30]),
            net.zero(D.INT8, 100 if unsigned == "in" else -20),
            net.zero(D.INT8, 100 if unsigned == "out" else -20),
        ]
        net.output(net.add(OP.RESCALE, inputs, NHWC, D.INT8, "RescaleAttribute", True, SINGLE, False, unsigned == "in", unsigned == "out"))


@case("five-dimensions", U85)
def _(net):
    shape = [2, 3, 4, 5, 6]
    a, b = net.input(shape, D.INT32, -999, 999), net.input([1, 3, 1, 5, 1], D.INT32, -999, 999)
    y = net.add(OP.ADD, [a, b], shape, D.INT32, "AddAttribute")
    net.output(net.add(OP.REDUCE_SUM, [y], [2, 1, 4, 5, 6], D.INT32, "ReduceSumAttribute", 1))


if __name__ == "__main__":

    def write(name, target, folder):
        return make_cases.write_case(name, target, folder, CASES)

    sys.exit(make_cases.main(CASES, write, "cases", PROCESSORS))
