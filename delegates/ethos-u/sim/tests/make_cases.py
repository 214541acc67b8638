#!/usr/bin/env python3
"""Makes `cases/`: TOSA graphs, compiled by Arm's Vela, with inputs of random integers and what Arm's TOSA reference model makes of them.

    make_cases.py [--only GLOB] [--target NAME]... [--out FOLDER] [--keep FOLDER]

Needs `ethos-u-vela` 5.2.0, `tosa-tools` 2026.8.0 and numpy (`cargo xtask provision ethos-u`). A case is a file of the blocks that ExecuTorch
writes around Vela's output (`vela_bin_stream`), with blocks of its own behind: `fast_size`, `graph` (the TOSA file's SHA-256), and for each set of
inputs `given`, `expected`: all inputs, and all outputs, one after the other. Every output has many distinct values, or the case is refused. Cases
that begin with `large-` are made when they are named, and are not kept.
"""

import argparse
import fnmatch
import hashlib
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy
import tosa_reference_model
import tosa_serializer as tosa

TARGETS = ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"]
SETS = 2
D, OP = tosa.DType, tosa.Op
TYPES = {D.INT8: numpy.int8, D.INT16: numpy.int16, D.INT32: numpy.int32, D.INT48: numpy.int64, D.BOOL: numpy.bool_}
SINGLE, DOUBLE = tosa.RoundingMode.SINGLE_ROUND, tosa.RoundingMode.DOUBLE_ROUND


class Net:
    """A graph while it is written; constants come from one generator, so that a case is the same each time."""

    def __init__(self, name):
        self.random = numpy.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        self.serializer = tosa.TosaSerializer("")
        self.inputs, self.outputs = [], []

    def input(self, shape, dtype=D.INT8, low=None, high=None, make=None):
        """`make` makes its values from a generator of random numbers; else they are from `low` to `high`, or of the whole range."""
        tensor = self.serializer.addPlaceholder(list(shape), dtype)
        self.inputs.append((list(shape), dtype, low, high, make))
        return tensor

    def const(self, shape, dtype, values):
        values = numpy.asarray(values, TYPES[dtype]).reshape(shape)
        return self.serializer.addConst(list(shape), dtype, values)

    def shape(self, values):
        return self.serializer.addConst([len(values)], D.SHAPE, list(values))

    def add(self, op, inputs, shape, dtype, attribute="", *arguments):
        out = self.serializer.addIntermediate(list(shape), dtype)
        made = tosa.TosaSerializerAttribute()
        if attribute:
            getattr(made, attribute)(*arguments)
        self.serializer.addOperator(op, [t.name if hasattr(t, "name") else t for t in inputs], [out.name], made)
        return out

    # Layers ----------------------------------------------------------------------------------------------------------------------

    def zero(self, dtype, value):
        return self.const([1], dtype, [value])

    def rescale(self, x, shape, source, target, scale, zero_in=0, zero_out=0, rounding=SINGLE, per_channel=0):
        """`scale` is a float, or one a channel."""
        scales = numpy.atleast_1d(numpy.asarray(scale, float))
        wide = source != D.INT48
        multipliers, shifts = [], []
        for value in scales:
            fraction, exponent = numpy.frexp(value)
            bits = 31 if wide else 15
            multiplier, shift = int(round(fraction * (1 << bits))), bits - int(exponent)
            if multiplier == 1 << bits:
                multiplier, shift = multiplier >> 1, shift - 1
            multipliers.append(multiplier)
            shifts.append(shift)
        kind = D.INT32 if wide else D.INT16
        inputs = [
            x,
            self.const([len(scales)], kind, multipliers),
            self.const([len(scales)], D.INT8, shifts),
            self.zero(source, zero_in),
            self.zero(target, zero_out),
        ]
        return self.add(OP.RESCALE, inputs, shape, target, "RescaleAttribute", wide, rounding, len(scales) > 1, False, False)

    def conv(
        self, x, shape, channels, kernel, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), zero=3, dtype=D.INT8, depthwise=False,
        out_zero=-5, per_channel=True, rounding=SINGLE, gain=1.0,
    ):
        rows, columns = kernel
        depth = shape[3]
        out_depth = depth * channels if depthwise else channels
        sizes = [rows, columns, depth, channels] if depthwise else [channels, rows, columns, depth]
        weights = self.const(sizes, D.INT8, self.random.integers(-127, 128, sizes))
        sums = D.INT32 if dtype == D.INT8 else D.INT48
        zero = zero if dtype == D.INT8 else 0
        bias = self.const([out_depth], sums, self.random.integers(-3000, 3000, out_depth))
        height = (shape[1] - 1 + pad[0] + pad[1] - (rows - 1) * dilation[0]) // stride[0] + 1
        width = (shape[2] - 1 + pad[2] + pad[3] - (columns - 1) * dilation[1]) // stride[1] + 1
        out = [shape[0], height, width, out_depth]
        op = OP.DEPTHWISE_CONV2D if depthwise else OP.CONV2D
        name = "DepthwiseConv2dAttribute" if depthwise else "Conv2dAttribute"
        inputs = [x, weights, bias, self.zero(dtype, zero), self.zero(D.INT8, 0)]
        acc = self.add(op, inputs, out, sums, name, list(pad), list(stride), list(dilation), False, sums)
        terms = rows * columns * (1 if depthwise else depth)
        base = gain * 0.5 / (74 * numpy.sqrt(terms))
        scales = base * self.random.uniform(0.5, 1.5, out_depth) if per_channel else base
        out_zero = out_zero if dtype == D.INT8 else 0
        return self.rescale(acc, out, sums, dtype, scales, 0, out_zero, rounding), out

    def output(self, *tensors):
        for tensor in tensors:
            self.serializer.addOutputTensor(tensor)

    def finish(self):
        return bytes(self.serializer.serialize())


CASES = {}


def case(name):
    def add(write):
        CASES[name] = write
        return write

    return add


def conv_case(name, shape, channels, kernel, dtype=D.INT8, **options):
    def write(net):
        y, _ = net.conv(net.input(shape, dtype), shape, channels, kernel, dtype=dtype, **options)
        net.output(y)

    CASES[name] = write


conv_case("conv-3x3", [1, 8, 8, 3], 4, (3, 3), pad=(1, 1, 1, 1))
conv_case("conv-3x3-stride-2", [1, 9, 9, 16], 8, (3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
conv_case("conv-3x3-stride-3", [1, 12, 15, 8], 8, (3, 3), stride=(3, 3))
conv_case("conv-1x1", [1, 7, 5, 24], 40, (1, 1))
conv_case("conv-1x1-deep", [1, 3, 3, 130], 33, (1, 1), per_channel=False)
conv_case("conv-5x3", [1, 12, 10, 7], 9, (5, 3), pad=(2, 2, 1, 1), zero=-128)
conv_case("conv-7x7-few", [1, 14, 14, 1], 5, (7, 7), pad=(3, 3, 3, 3), zero=127)
conv_case("conv-9x9", [1, 16, 16, 2], 3, (9, 9), pad=(4, 4, 4, 4))
conv_case("conv-dilated", [1, 12, 12, 8], 8, (3, 3), pad=(2, 2, 2, 2), dilation=(2, 2))
conv_case("conv-dilated-5x5", [1, 16, 16, 4], 8, (5, 5), pad=(4, 4, 4, 4), dilation=(2, 2))
conv_case("conv-uneven-pads", [1, 8, 10, 5], 6, (3, 3), stride=(2, 2), pad=(0, 1, 1, 0))
conv_case("conv-double-rounding", [1, 6, 6, 12], 10, (3, 3), rounding=DOUBLE)
conv_case("conv-wide-channels", [1, 2, 2, 48], 200, (1, 1))
conv_case("conv-1x9", [1, 1, 20, 16], 16, (1, 9), pad=(0, 0, 4, 4))
conv_case("conv-saturates", [1, 6, 6, 8], 8, (3, 3), gain=20.0)
conv_case("conv-int16", [1, 8, 8, 6], 5, (3, 3), D.INT16, pad=(1, 1, 1, 1))
conv_case("conv-int16-1x1", [1, 4, 4, 40], 24, (1, 1), D.INT16)
conv_case("depthwise-3x3", [1, 9, 9, 20], 1, (3, 3), pad=(1, 1, 1, 1), depthwise=True)
conv_case("depthwise-3x3-stride-2", [1, 10, 10, 33], 1, (3, 3), stride=(2, 2), pad=(0, 1, 0, 1), depthwise=True)
conv_case("depthwise-5x5", [1, 11, 11, 8], 1, (5, 5), pad=(2, 2, 2, 2), depthwise=True, zero=-7)
conv_case("depthwise-1x9", [1, 1, 30, 16], 1, (1, 9), pad=(0, 0, 4, 4), depthwise=True)
conv_case("depthwise-int16", [1, 7, 7, 10], 1, (3, 3), D.INT16, pad=(1, 1, 1, 1), depthwise=True)
conv_case("depthwise-dilated", [1, 12, 12, 8], 1, (3, 3), pad=(2, 2, 2, 2), dilation=(2, 2), depthwise=True)


def clamp(net, x, shape, low, high, dtype=D.INT8):
    kind = numpy.dtype(TYPES[dtype]).newbyteorder("<")
    limits = [list(numpy.array([v], kind).tobytes()) for v in (low, high)]
    return net.add(OP.CLAMP, [x], shape, dtype, "ClampAttribute", *limits, tosa.NanPropagationMode.PROPAGATE)


@case("conv-clamp")
def _(net):
    y, out = net.conv(net.input([1, 8, 8, 8]), [1, 8, 8, 8], 8, (3, 3))
    net.output(clamp(net, y, out, -30, 60))


@case("clamp")
def _(net):
    net.output(clamp(net, net.input([1, 6, 6, 7]), [1, 6, 6, 7], -50, 77))


def pool_case(name, shape, kernel, stride, pad, average, zero=0, dtype=D.INT8):
    def write(net):
        x = net.input(shape, dtype)
        height = (shape[1] + pad[0] + pad[1] - kernel[0]) // stride[0] + 1
        width = (shape[2] + pad[2] + pad[3] - kernel[1]) // stride[1] + 1
        out = [shape[0], height, width, shape[3]]
        lists = [list(kernel), list(stride), list(pad)]
        if average:
            inputs = [x, net.zero(dtype, zero), net.zero(dtype, zero)]
            y = net.add(OP.AVG_POOL2D, inputs, out, dtype, "AvgPool2dAttribute", *lists, D.INT32)
        else:
            nan = tosa.NanPropagationMode.PROPAGATE
            y = net.add(OP.MAX_POOL2D, [x], out, dtype, "MaxPool2dAttribute", *lists, nan)
        net.output(y)

    CASES[name] = write


pool_case("max-pool-2x2", [1, 8, 8, 9], (2, 2), (2, 2), (0, 0, 0, 0), False)
pool_case("max-pool-3x3-padded", [1, 9, 9, 16], (3, 3), (2, 2), (1, 1, 1, 1), False)
pool_case("max-pool-int16", [1, 8, 8, 4], (2, 2), (2, 2), (0, 0, 0, 0), False, dtype=D.INT16)
pool_case("avg-pool-2x2", [1, 8, 8, 9], (2, 2), (2, 2), (0, 0, 0, 0), True)
pool_case("avg-pool-3x3-padded", [1, 9, 9, 16], (3, 3), (1, 1), (1, 1, 1, 1), True, zero=-3)
pool_case("avg-pool-whole", [1, 7, 7, 24], (7, 7), (1, 1), (0, 0, 0, 0), True, zero=5)
pool_case("avg-pool-int16", [1, 6, 6, 8], (3, 3), (3, 3), (0, 0, 0, 0), True, dtype=D.INT16)


def binary_case(name, op, attribute, a, b, dtype=D.INT8, scales=(0.7, 1.3, 0.4), zeros=(3, -4, 5), shift=None):
    """Operands widened to 32 bits, the operation, and back: how frameworks write it."""

    def write(net):
        shape = list(numpy.broadcast_shapes(a, b))
        x, y = net.input(a, dtype), net.input(b, dtype)
        zx, zy, zo = zeros if dtype == D.INT8 else (0, 0, 0)
        bits = (1 << 20 if dtype == D.INT8 else 1 << 12) if attribute in ("AddAttribute", "SubAttribute") else 1
        x = net.rescale(x, a, dtype, D.INT32, scales[0] * bits if bits > 1 else 1.0, zx, 0, DOUBLE if bits > 1 else SINGLE)
        y = net.rescale(y, b, dtype, D.INT32, scales[1] * bits if bits > 1 else 1.0, zy, 0, DOUBLE if bits > 1 else SINGLE)
        inputs = [x, y]
        if op == OP.MUL:
            inputs.append(net.zero(D.INT8, 0))
        arguments = [tosa.NanPropagationMode.PROPAGATE] if op in (OP.MAXIMUM, OP.MINIMUM) else []
        z = net.add(op, inputs, shape, D.INT32, attribute, *arguments)
        back = scales[2] / bits
        if op == OP.MUL:
            back = scales[2] / (60 if dtype == D.INT8 else 15000)
        net.output(net.rescale(z, shape, D.INT32, dtype, back, 0, zo, SINGLE))

    CASES[name] = write


NHWC = [1, 5, 6, 7]
binary_case("add", OP.ADD, "AddAttribute", NHWC, NHWC)
binary_case("add-channel", OP.ADD, "AddAttribute", NHWC, [1, 1, 1, 7])
binary_case("add-pixel", OP.ADD, "AddAttribute", NHWC, [1, 5, 6, 1])
binary_case("add-row-first", OP.ADD, "AddAttribute", [1, 1, 6, 7], NHWC)
binary_case("add-same-scale", OP.ADD, "AddAttribute", NHWC, NHWC, scales=(1.0, 1.0, 0.5))
binary_case("add-int16", OP.ADD, "AddAttribute", NHWC, NHWC, D.INT16)
binary_case("sub", OP.SUB, "SubAttribute", NHWC, NHWC)
binary_case("sub-channel-first", OP.SUB, "SubAttribute", [1, 1, 1, 7], NHWC)
binary_case("mul", OP.MUL, "MulAttribute", NHWC, NHWC)
binary_case("mul-channel", OP.MUL, "MulAttribute", NHWC, [1, 1, 1, 7])
binary_case("mul-int16", OP.MUL, "MulAttribute", NHWC, NHWC, D.INT16)
binary_case("maximum", OP.MAXIMUM, "MaximumAttribute", NHWC, NHWC, scales=(1, 1, 0.9), zeros=(0, 0, 0))
binary_case("minimum", OP.MINIMUM, "MinimumAttribute", NHWC, [1, 1, 1, 7], scales=(1, 1, 0.9), zeros=(0, 0, 0))


@case("abs-int32")
def _(net):
    x = net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT32, 1.0, 4, 0)
    y = net.add(OP.ABS, [x], NHWC, D.INT32, "AbsAttribute")
    net.output(net.rescale(y, NHWC, D.INT32, D.INT8, 0.9, 0, -100))


@case("shift-right")
def _(net):
    x = net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT32, 64.0, 0, 0)
    s = net.const([1, 1, 1, 7], D.INT32, [0, 1, 3, 6, 7, 8, 9])
    y = net.add(OP.ARITHMETIC_RIGHT_SHIFT, [x, s], NHWC, D.INT32, "ArithmeticRightShiftAttribute", True)
    net.output(net.rescale(y, NHWC, D.INT32, D.INT8, 0.5, 0, 0))


@case("clz")
def _(net):
    x = net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT32, 1024.0, -128, 0)
    net.output(net.add(OP.CLZ, [x], NHWC, D.INT32, "ClzAttribute"))


def table(net, x, shape, values, dtype=D.INT8, out=None):
    values = net.const([len(values)], dtype, values)
    return net.add(OP.TABLE, [x, values], shape, out or dtype, "TableAttribute")


@case("table")
def _(net):
    values = numpy.round(100 * numpy.sin(numpy.arange(256) / 20)).astype(numpy.int8)
    net.output(table(net, net.input(NHWC), NHWC, values))


@case("table-int16")
def _(net):
    values = numpy.round(30000 * numpy.tanh((numpy.arange(513) - 256) / 90)).astype(numpy.int16)
    y = table(net, net.input(NHWC, D.INT16), NHWC, values, D.INT16, D.INT32)
    net.output(net.rescale(y, NHWC, D.INT32, D.INT16, 1 / 128))


@case("reduce-sum")
def _(net):
    shape = [1, 4, 5, 24]
    x = net.rescale(net.input(shape), shape, D.INT8, D.INT32, 1.0, 3, 0)
    y = net.add(OP.REDUCE_SUM, [x], [1, 4, 5, 1], D.INT32, "ReduceSumAttribute", 3)
    net.output(net.rescale(y, [1, 4, 5, 1], D.INT32, D.INT8, 0.08, 0, 2))


@case("reduce-max")
def _(net):
    shape = [1, 4, 5, 24]
    nan = tosa.NanPropagationMode.PROPAGATE
    net.output(net.add(OP.REDUCE_MAX, [net.input(shape, high=60)], [1, 4, 5, 1], D.INT8, "ReduceMaxAttribute", 3, nan))


@case("concat")
def _(net):
    a, b = net.input([1, 4, 5, 6]), net.input([1, 4, 5, 10])
    net.output(net.add(OP.CONCAT, [a, b], [1, 4, 5, 16], D.INT8, "ConcatAttribute", 3))


@case("transpose")
def _(net):
    net.output(net.add(OP.TRANSPOSE, [net.input([1, 4, 5, 6])], [1, 6, 4, 5], D.INT8, "TransposeAttribute", [0, 3, 1, 2]))


@case("pad")
def _(net):
    x = net.input([1, 5, 6, 7])
    pads = net.shape([0, 0, 1, 2, 2, 1, 0, 0])
    net.output(net.add(OP.PAD, [x, pads, net.zero(D.INT8, -9)], [1, 8, 9, 7], D.INT8, "PadAttribute"))


@case("slice")
def _(net):
    x = net.input([1, 6, 7, 20])
    start, size = net.shape([0, 1, 2, 3]), net.shape([1, 4, 4, 15])
    net.output(net.add(OP.SLICE, [x, start, size], [1, 4, 4, 15], D.INT8, "SliceAttribute"))


@case("rescale")
def _(net):
    net.output(net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT8, 0.73, 5, -8))


@case("rescale-double")
def _(net):
    net.output(net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT8, 1.31, -5, 8, DOUBLE))


@case("rescale-int16")
def _(net):
    net.output(net.rescale(net.input(NHWC), NHWC, D.INT8, D.INT16, 190.5, 5, 0))


@case("matmul")
def _(net):
    a, b = net.input([2, 6, 9]), net.input([2, 9, 5])
    inputs = [a, b, net.zero(D.INT8, 2), net.zero(D.INT8, -3)]
    y = net.add(OP.MATMUL, inputs, [2, 6, 5], D.INT32, "MatMulAttribute")
    net.output(net.rescale(y, [2, 6, 5], D.INT32, D.INT8, 0.003, 0, 4))


@case("transpose-conv")
def _(net):
    shape, channels = [1, 5, 6, 8], 6
    weights = net.const([channels, 3, 3, 8], D.INT8, net.random.integers(-127, 128, [channels, 3, 3, 8]))
    bias = net.const([channels], D.INT32, net.random.integers(-999, 999, channels))
    out = [1, 11, 13, channels]
    inputs = [net.input(shape), weights, bias, net.zero(D.INT8, 3), net.zero(D.INT8, 0)]
    arguments = [[0, 0, 0, 0], [2, 2], False, D.INT32]
    y = net.add(OP.TRANSPOSE_CONV2D, inputs, out, D.INT32, "TransposeConv2dAttribute", *arguments)
    net.output(net.rescale(y, out, D.INT32, D.INT8, 0.0009, 0, -5))


def resize_case(name, mode, scale, offset, border, out):
    def write(net):
        shape = [1, 5, 6, 8]
        sizes = [1, *out, 8]
        inputs = [net.input(shape), net.shape(scale), net.shape(offset), net.shape(border)]
        bilinear = mode == tosa.ResizeMode.BILINEAR
        kind = D.INT32 if bilinear else D.INT8
        y = net.add(OP.RESIZE, inputs, sizes, kind, "ResizeAttribute", mode)
        net.output(net.rescale(y, sizes, D.INT32, D.INT8, 1 / (scale[0] * scale[2])) if bilinear else y)

    CASES[name] = write


resize_case("resize-nearest-2x", tosa.ResizeMode.NEAREST, [4, 2, 4, 2], [0, 0], [2, 2], [10, 12])
resize_case("resize-bilinear-2x", tosa.ResizeMode.BILINEAR, [4, 2, 4, 2], [0, 0], [2, 2], [10, 12])


conv_case("conv-zero-points", [1, 6, 6, 10], 12, (3, 3), zero=-100, out_zero=90)
conv_case("conv-2x2-even", [1, 8, 8, 6], 10, (2, 2), stride=(2, 2))
conv_case("conv-1x1-stride-2", [1, 9, 9, 20], 12, (1, 1), stride=(2, 2))
conv_case("conv-3x5-stride-1x2", [1, 10, 13, 6], 7, (3, 5), stride=(1, 2), pad=(1, 1, 2, 2))
conv_case("conv-one-channel", [1, 10, 10, 1], 1, (3, 3), pad=(1, 1, 1, 1))
conv_case("conv-int16-stride-2", [1, 9, 9, 12], 8, (3, 3), D.INT16, stride=(2, 2), pad=(1, 1, 1, 1))
conv_case("conv-300-channels", [1, 3, 3, 300], 16, (1, 1))
conv_case("depthwise-7x7", [1, 14, 14, 12], 1, (7, 7), pad=(3, 3, 3, 3), depthwise=True)
conv_case("depthwise-9x9", [1, 18, 18, 5], 1, (9, 9), pad=(4, 4, 4, 4), depthwise=True)
conv_case("depthwise-stride-3", [1, 12, 12, 9], 1, (3, 3), stride=(3, 3), depthwise=True)
conv_case("depthwise-64", [1, 8, 8, 64], 1, (3, 3), pad=(1, 1, 1, 1), depthwise=True, zero=-128)
pool_case("max-pool-3x2", [1, 9, 8, 5], (3, 2), (1, 2), (0, 0, 0, 0), False)
pool_case("avg-pool-3x3-stride-2", [1, 9, 9, 7], (3, 3), (2, 2), (1, 1, 1, 1), True, zero=9)
pool_case("avg-pool-1x5", [1, 4, 20, 6], (1, 5), (1, 5), (0, 0, 0, 0), True)
binary_case("sub-int16", OP.SUB, "SubAttribute", NHWC, NHWC, D.INT16)
binary_case("add-scales", OP.ADD, "AddAttribute", NHWC, NHWC, scales=(0.01, 3.7, 0.3), zeros=(-128, 127, -100))
binary_case("mul-saturates", OP.MUL, "MulAttribute", NHWC, NHWC, scales=(1, 1, 3.0))


# Nets ----------------------------------------------------------------------------------------------------------------------------


@case("net-residual")
def _(net):
    x, shape = net.conv(net.input([1, 16, 16, 3]), [1, 16, 16, 3], 16, (3, 3), stride=(2, 2), pad=(0, 1, 0, 1))
    y, _ = net.conv(clamp(net, x, shape, -5, 127), shape, 16, (3, 3), pad=(1, 1, 1, 1), zero=-5)
    a = net.rescale(x, shape, D.INT8, D.INT32, 1 << 20, -5, 0, DOUBLE)
    b = net.rescale(y, shape, D.INT8, D.INT32, 0.8 * (1 << 20), -5, 0, DOUBLE)
    z = net.add(OP.ADD, [a, b], shape, D.INT32, "AddAttribute")
    z = net.rescale(z, shape, D.INT32, D.INT8, 0.6 / (1 << 20), 0, 2, SINGLE)
    pool = [z, net.zero(D.INT8, 2), net.zero(D.INT8, 2)]
    z = net.add(OP.AVG_POOL2D, pool, [1, 1, 1, 16], D.INT8, "AvgPool2dAttribute", [8, 8], [1, 1], [0] * 4, D.INT32)
    z, _ = net.conv(z, [1, 1, 1, 16], 24, (1, 1), zero=2, gain=4.0)
    net.output(z)


@case("net-depthwise")
def _(net):
    shape = [1, 25, 10, 1]
    x, shape = net.conv(net.input(shape), shape, 24, (5, 4), stride=(2, 2), pad=(2, 2, 1, 1))
    for _ in range(3):
        x, shape = net.conv(x, shape, 1, (3, 3), pad=(1, 1, 1, 1), zero=-5, depthwise=True, gain=2.0)
        x, shape = net.conv(clamp(net, x, shape, -5, 127), shape, 24, (1, 1), zero=-5, gain=2.0)
    net.output(x)


@case("net-attention")
def _(net):
    """One head: products, a softmax of tables and sums as frameworks lower it, and a sum with the input."""
    rows, depth = 9, 16
    x = net.input([1, rows, depth])

    def linear(x, zero, gain):
        weights = net.const([depth, 1, 1, depth], D.INT8, net.random.integers(-127, 128, [depth, 1, 1, depth]))
        bias = net.const([depth], D.INT32, net.random.integers(-999, 999, depth))
        flat = net.add(OP.RESHAPE, [x, net.shape([1, rows, 1, depth])], [1, rows, 1, depth], D.INT8, "ReshapeAttribute")
        inputs = [flat, weights, bias, net.zero(D.INT8, zero), net.zero(D.INT8, 0)]
        arguments = [[0] * 4, [1, 1], [1, 1], False, D.INT32]
        y = net.add(OP.CONV2D, inputs, [1, rows, 1, depth], D.INT32, "Conv2dAttribute", *arguments)
        y = net.rescale(y, [1, rows, 1, depth], D.INT32, D.INT8, gain / (74 * depth**0.5), 0, 0)
        return net.add(OP.RESHAPE, [y, net.shape([1, rows, depth])], [1, rows, depth], D.INT8, "ReshapeAttribute")

    def matmul(a, b, shape, scale, zero_a=0, zero_out=0):
        inputs = [a, b, net.zero(D.INT8, zero_a), net.zero(D.INT8, 0)]
        y = net.add(OP.MATMUL, inputs, shape, D.INT32, "MatMulAttribute")
        return net.rescale(y, shape, D.INT32, D.INT8, scale, 0, zero_out)

    q, k, v = (linear(x, 3, 0.5) for _ in range(3))
    k = net.add(OP.TRANSPOSE, [k], [1, depth, rows], D.INT8, "TransposeAttribute", [0, 2, 1])
    scores, one = [1, rows, rows], [1, rows, 1]
    s = matmul(q, k, scores, 0.004)
    top = net.add(OP.REDUCE_MAX, [s], one, D.INT8, "ReduceMaxAttribute", 2, tosa.NanPropagationMode.PROPAGATE)
    wide = net.rescale(s, scores, D.INT8, D.INT32, 1.0)
    top = net.rescale(top, one, D.INT8, D.INT32, 1.0)
    below = net.add(OP.SUB, [wide, top], scores, D.INT32, "SubAttribute")
    below = net.rescale(below, scores, D.INT32, D.INT8, 1.0, 0, 127)
    exponents = numpy.round(255 * numpy.exp((numpy.arange(256) - 255) / 30)).astype(int) - 128
    powers = table(net, below, scores, exponents.astype(numpy.int8))
    total = net.rescale(powers, scores, D.INT8, D.INT32, 1.0, -128)
    total = net.add(OP.REDUCE_SUM, [total], one, D.INT32, "ReduceSumAttribute", 2)
    total = net.rescale(total, one, D.INT32, D.INT8, 1 / 9, 0, -128)
    inverse = numpy.round(255 * 28 / numpy.maximum(numpy.arange(256), 28)).astype(int) - 128
    inverse = table(net, total, one, inverse.astype(numpy.int8))
    a = net.rescale(powers, scores, D.INT8, D.INT32, 1.0, -128)
    b = net.rescale(inverse, one, D.INT8, D.INT32, 1.0, -128)
    shares = net.add(OP.MUL, [a, b, net.zero(D.INT8, 0)], scores, D.INT32, "MulAttribute")
    shares = net.rescale(shares, scores, D.INT32, D.INT8, 1 / 255, 0, -128)
    y = matmul(shares, v, [1, rows, depth], 0.004, zero_a=-128)
    y = linear(y, 0, 1.0)
    a = net.rescale(x, [1, rows, depth], D.INT8, D.INT32, 1 << 20, 3, 0, DOUBLE)
    b = net.rescale(y, [1, rows, depth], D.INT8, D.INT32, 0.5 * (1 << 20), 0, 0, DOUBLE)
    y = net.add(OP.ADD, [a, b], [1, rows, depth], D.INT32, "AddAttribute")
    net.output(net.rescale(y, [1, rows, depth], D.INT32, D.INT8, 0.6 / (1 << 20), 0, 1))


def mobilenet(net, size):
    """MobileNetV2 in its widths and depths, with random weights and scales that keep its values alive."""
    x, shape = net.conv(net.input([1, size, size, 3]), [1, size, size, 3], 32, (3, 3), stride=(2, 2), pad=(0, 1, 0, 1))
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, count, stride in blocks:
        for step in range(count):
            y, out = x, shape
            if expand > 1:
                y, out = net.conv(clamp(net, y, out, -128, 127), out, out[3] * expand, (1, 1), zero=-5, gain=2.0)
            once = stride if step == 0 else 1
            pad = (1, 1, 1, 1) if once == 1 else (0, 1, 0, 1)
            y = clamp(net, y, out, -5, 127)
            y, out = net.conv(y, out, 1, (3, 3), stride=(once, once), pad=pad, zero=-5, depthwise=True, gain=2.0)
            y, out = net.conv(clamp(net, y, out, -5, 127), out, channels, (1, 1), zero=-5, gain=2.0)
            if step > 0:
                a = net.rescale(x, out, D.INT8, D.INT32, 1 << 20, -5, 0, DOUBLE)
                b = net.rescale(y, out, D.INT8, D.INT32, 1 << 20, -5, 0, DOUBLE)
                y = net.add(OP.ADD, [a, b], out, D.INT32, "AddAttribute")
                y = net.rescale(y, out, D.INT32, D.INT8, 0.7 / (1 << 20), 0, -5, SINGLE)
            x, shape = y, out
    x, shape = net.conv(x, shape, 1280, (1, 1), zero=-5, gain=2.0)
    inputs = [clamp(net, x, shape, -5, 127), net.zero(D.INT8, -5), net.zero(D.INT8, -5)]
    window = [[shape[1], shape[2]], [1, 1], [0, 0, 0, 0], D.INT32]
    x = net.add(OP.AVG_POOL2D, inputs, [1, 1, 1, 1280], D.INT8, "AvgPool2dAttribute", *window)
    x, _ = net.conv(x, [1, 1, 1, 1280], 1000, (1, 1), zero=-5, gain=6.0)
    net.output(x)


@case("large-mobilenet-v2-96")
def _(net):
    mobilenet(net, 96)


@case("large-mobilenet-v2-224")
def _(net):
    mobilenet(net, 224)


# -----------------------------------------------------------------------------------------------------------------------------------


def block(name, data):
    header = name.encode().ljust(16, b"\0") + struct.pack("<IB11x", len(data), 0)
    return header + data + b"\0" * (-len(data) % 16)


def elements(net):
    arrays = []
    for shape, dtype, low, high, make in net.inputs:
        if make or dtype == D.BOOL:
            values = make(net.random) if make else net.random.integers(0, 2, shape)
            arrays.append(values.reshape(shape).astype(TYPES[dtype]))
            continue
        whole = numpy.iinfo(TYPES[dtype])
        low, high = whole.min if low is None else low, whole.max if high is None else high
        arrays.append(net.random.integers(low, high, shape, endpoint=True).astype(TYPES[dtype]))
    return arrays


# More that Vela is told for a case.
OPTIONS = {}


def compile_case(name, graph, target, folder, ending=".tosa"):
    source = folder / f"{name}{ending}"
    source.write_bytes(graph)
    command = [str(pathlib.Path(sys.executable).parent / "vela"), str(source), "--accelerator-config", target]
    configs = {
        "u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
        "u65": ("Ethos_U65_High_End", "Dedicated_Sram_384KB"),
        "u85": ("Ethos_U85_SYS_DRAM_Mid", "Sram_Only"),
    }
    system, memory = configs[target.split("-")[1]]
    command += ["--config", "Arm/vela.ini", "--system-config", system, "--memory-mode", memory]
    command += ["--output-format", "raw", "--output-dir", str(folder), *OPTIONS.get(name, [])]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError((result.stdout + result.stderr).strip().splitlines()[-1])
    return numpy.load(folder / f"{name}_vela.npz", allow_pickle=True)


def raw(array):
    return bytes(memoryview(numpy.ascontiguousarray(array)).cast("B")) if array.size else b""


def tensors(data, kind):
    shapes, sizes = data[f"{kind}_shape"], data[f"{kind}_elem_size"]
    regions, offsets = data[f"{kind}_region"], data[f"{kind}_offset"]
    packed = struct.pack("<i", len(shapes))
    for shape, size, region, offset in zip(shapes, sizes, regions, offsets):
        packed += struct.pack("<9i", *[int(n) for n in shape], int(size), int(offset), int(region))
    return packed


def file(graph, data, sets):
    """The blocks of a case: Vela's output, and sets of inputs with what is expected of them."""
    blocks = [
        block("vela_bin_stream", b""),
        block("cmd_data", raw(data["cmd_data"])),
        block("weight_data", raw(data["weight_data"])),
        block("scratch_size", struct.pack("<I", int(data["scratch_shape"][0]))),
        block("inputs", tensors(data, "input")),
        block("outputs", tensors(data, "output")),
        block("fast_size", struct.pack("<I", int(data["scratch_fast_shape"][0]))),
        block("graph", hashlib.sha256(graph).hexdigest().encode()),
    ]
    for given, results in sets:
        for result in results:
            distinct = len(numpy.unique(result))
            if distinct < min(2 if result.dtype == numpy.bool_ else 7, result.size):
                raise RuntimeError(f"only {distinct} distinct values: the case would show nothing")
        blocks.append(block("given", b"".join(raw(array) for array in given)))
        blocks.append(block("expected", b"".join(raw(array) for array in results)))
    blocks.append(block("vela_end_stream", b""))
    return b"".join(blocks)


def write_case(name, target, folder, cases=CASES):
    net = Net(name)
    cases[name](net)
    graph = net.finish()
    data = compile_case(name, graph, target, folder)
    sets = []
    for _ in range(SETS):
        given = elements(net)
        results, status = tosa_reference_model.run(graph, given)
        if "VALID" not in str(status):
            raise RuntimeError(f"the reference model says {status}")
        sets.append((given, results))
    return file(graph, data, sets)


def main(cases=CASES, write=write_case, folder="cases", processors=None):
    """`processors` says which ones a case is for, where it is not for all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="*")
    parser.add_argument("--target", action="append")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / folder)
    parser.add_argument("--keep", type=pathlib.Path)
    given = parser.parse_args()
    failed = 0
    for target in given.target or TARGETS:
        (given.out / target).mkdir(parents=True, exist_ok=True)
        names = fnmatch.filter(cases, given.only)
        names = [name for name in names if target.split("-")[1] in (processors or {}).get(name, ("u55", "u65", "u85"))]
        for name in names if given.only != "*" else [name for name in names if not name.startswith("large-")]:
            with tempfile.TemporaryDirectory() as temporary:
                temporary = given.keep or pathlib.Path(temporary)
                temporary.mkdir(parents=True, exist_ok=True)
                try:
                    content = write(name, target, temporary)
                except Exception as error:
                    failed += 1
                    print(f"{target} {name}: {type(error).__name__}: {error}", file=sys.stderr)
                    continue
                (given.out / target / f"{name}.vela").write_bytes(content)
    print(f"{len(cases)} cases; {failed} could not be made", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
