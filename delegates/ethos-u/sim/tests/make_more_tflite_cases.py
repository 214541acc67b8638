#!/usr/bin/env python3
"""Makes further cases of `cases-tflite/`: functions of tables and of the hardware, operators that move and compare, and recurrent ones.

    make_more_tflite_cases.py [--only GLOB] [--target NAME]... [--out FOLDER]

Needs what `make_tflite_cases.py` needs. Cases have the same form.

Not here, because Vela 5.2 and LiteRT do not mean the same: FULLY_CONNECTED of 16 bits (a scale of 15 bits for one of 31), comparisons of tensors of
two scales and DIV of 8 bits (Vela leaves the scales out), LEAKY_RELU with a slope below zero (halves of the table are rounded differently).
"""

import sys

import numpy
from ai_edge_litert.interpreter import OpResolverType

import make_cases
import make_tflite_cases
from make_tflite_cases import NHWC, SAME, VALID

CASES, PROCESSORS = {}, {}
ALL, U85 = ("u55", "u65", "u85"), ("u85",)
I8, I16, I32, I64, BOOL, U8 = numpy.int8, numpy.int16, numpy.int32, numpy.int64, numpy.bool_, numpy.uint8


def case(name, processors=ALL):
    def add(write):
        CASES[name], PROCESSORS[name] = write, processors
        return write

    return add


def word(dtype):
    return numpy.dtype(dtype).name


def unary(name, kind, options=None, scale_in=0.05, out=(0.05, 0), dtype=I8, version=2, shape=NHWC, zero=None, processors=ALL, make=None, **fields):
    def write(m):
        zero_in = (5 if dtype == I8 else 0) if zero is None else zero
        x = m.input(shape, dtype, scale_in, zero_in, make)
        return m.finish(m.op(kind, [x], shape, dtype, out[0], out[1], options, version, **fields))

    case(name, processors)(write)


# Functions -----------------------------------------------------------------------------------------------------------------------

for step in (1 / 2048, 1 / 4096, 0.0003, 0.0011, 0.00005):
    unary(f"logistic-int16-{step:.6f}", "LOGISTIC", None, step, (1 / 32768, 0), I16)
    unary(f"tanh-int16-{step:.6f}", "TANH", None, step, (1 / 32768, 0), I16)
unary("tanh-uint8", "TANH", None, 0.03, (1 / 128, 128), U8, zero=120)
unary("logistic-uint8", "LOGISTIC", None, 0.03, (1 / 256, 0), U8, zero=120)
unary("elu", "ELU", None, 0.03, (0.03, -10), version=1)
unary("gelu", "GELU", "GeluOptions", 0.03, (0.03, -10), Approximate=False)
unary("gelu-approximate", "GELU", "GeluOptions", 0.03, (0.03, -10), Approximate=True)
unary("exp", "EXP", "ExpOptions", 0.02, (0.05, -128))
unary("exp-int16", "EXP", "ExpOptions", 0.0001, (0.001, 0), I16)
unary("log", "LOG", None, 0.02, (0.03, 0), zero=-128, make=lambda random: random.integers(-127, 128, NHWC))
unary("log-int16", "LOG", None, 0.0001, (0.001, 0), I16, make=lambda random: random.integers(1, 32768, NHWC))
unary("rsqrt", "RSQRT", None, 0.02, (0.05, -128), zero=-128, make=lambda random: random.integers(-127, 128, NHWC))
unary("rsqrt-int16", "RSQRT", None, 0.0005, (0.0005, 0), I16, make=lambda random: random.integers(1, 32768, NHWC))
unary("abs", "ABS", "AbsOptions", 0.05, (0.03, -100))
unary("abs-int16", "ABS", "AbsOptions", 0.001, (0.001, 0), I16)
unary("neg", "NEG", "NegOptions", 0.05, (0.05, 0), version=1, zero=0, make=lambda random: random.integers(-127, 128, NHWC))
unary("relu6", "RELU6", None, 0.05, (0.03, -128))
unary("relu-0-to-1", "RELU_0_TO_1", None, 0.01, (0.004, -128), version=1)
unary("relu-n1-to-1", "RELU_N1_TO_1", None, 0.01, (0.01, 4), version=1)
unary("relu-int16", "RELU", None, 0.001, (0.0007, 0), I16)
unary("hard-swish-uint8", "HARD_SWISH", "HardSwishOptions", 0.05, (0.03, 20), U8, zero=120, version=1)
unary("leaky-relu-larger", "LEAKY_RELU", "LeakyReluOptions", 0.05, (0.09, -5), Alpha=1.7)
unary("softmax-columns", "SOFTMAX", "SoftmaxOptions", out=(1 / 256, -128), shape=[1, 3, 4, 17], Beta=1.0)
unary("softmax-rows-int16", "SOFTMAX", "SoftmaxOptions", 0.0004, (1 / 32768, 0), I16, shape=[1, 6, 24], Beta=1.0)
for source, target, scales, zeros in ((I8, I8, (0.05, 0.08), (5, -3)), (I8, I16, (0.05, 0.0004), (5, 0)), (I16, I8, (0.0004, 0.05), (0, 5)), (U8, I8, (0.05, 0.05), (133, 5)), (I16, I16, (0.001, 0.0013), (0, 0)), (I8, U8, (0.05, 0.04), (3, 140))):

    @case(f"quantize-{word(source)}-{word(target)}")
    def _(m, source=source, target=target, scales=scales, zeros=zeros):
        x = m.input(NHWC, source, scales[0], zeros[0])
        return m.finish(m.op("QUANTIZE", [x], NHWC, target, scales[1], zeros[1], "QuantizeOptions", 2))


# Two operands --------------------------------------------------------------------------------------------------------------------


def binary(name, kind, options, scales, zeros=(3, -9, 6), dtype=I8, shapes=(NHWC, NHWC), processors=ALL, version=2, makes=(None, None), kind_out=None, **fields):
    def write(m):
        a, b = (m.input(shape, dtype, scale, zero, make) for shape, scale, zero, make in zip(shapes, scales, zeros, makes))
        shape = list(numpy.broadcast_shapes(*shapes))
        return m.finish(m.op(kind, [a, b], shape, kind_out or dtype, scales[2], zeros[2], options, version, **fields))

    case(name, processors)(write)


none = (0, 0, 0)
plain = dict(FusedActivationFunction=0)
for name, kind in (("maximum", "MAXIMUM"), ("minimum", "MINIMUM")):
    binary(name, kind, "MaximumMinimumOptions", (0.1, 0.1, 0.1), (4, 4, 4), shapes=(NHWC, [1, 1, 7, 1]))
    binary(f"{name}-int16", kind, "MaximumMinimumOptions", (0.001, 0.001, 0.001), none, I16)
binary("squared-difference", "SQUARED_DIFFERENCE", "SquaredDifferenceOptions", (0.05, 0.04, 0.3), (3, -9, -128))
binary("prelu", "PRELU", None, (0.05, 0.01, 0.06), (3, 7, -5), shapes=(NHWC, [1, 1, 9]), version=1)
binary("add-uint8", "ADD", "AddOptions", (0.1, 0.07, 0.15), (130, 110, 140), U8, **plain)
binary("add-int32", "ADD", "AddOptions", (1.0, 1.0, 1.0), none, I32, makes=[lambda r: r.integers(-999, 999, NHWC)] * 2, **plain)
binary("mul-uint8", "MUL", "MulOptions", (0.1, 0.07, 0.6), (130, 110, 140), U8, **plain)
binary("sub-int16", "SUB", "SubOptions", (0.001, 0.0007, 0.0015), none, I16, **plain)
binary("add-relu6", "ADD", "AddOptions", (0.1, 0.07, 0.05), FusedActivationFunction=3)
binary("add-pixel-of-row", "ADD", "AddOptions", (0.1, 0.07, 0.15), shapes=([1, 1, 7, 9], [1, 6, 1, 9]), processors=U85, **plain)
divisors = numpy.array([-999, -7, -2, -1, 1, 2, 3, 77])
makes = (lambda r: r.integers(-9999, 9999, NHWC), lambda r: r.choice(divisors, NHWC))
binary("div-int32", "DIV", "DivOptions", (1.0, 1.0, 1.0), none, I32, processors=U85, version=1, makes=makes, **plain)
for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
    options = "".join(part.title() for part in name.split("_")) + "Options"
    for dtype, scale in ((I8, 0.1), (I16, 0.1), (I32, 1.0)):
        few = [lambda r: r.integers(-3, 4, NHWC), lambda r: r.integers(-3, 4, [1, 6, 1, 9])]
        binary(
            f"{name.replace('_', '-')}-{word(dtype)}", name.upper(), options, (scale, scale, 1.0), (0, 0, 0), dtype, (NHWC, [1, 6, 1, 9]),
            U85, makes=few, kind_out=BOOL,
        )
for name in ("and", "or"):
    options = f"Logical{name.title()}Options"
    binary(f"logical-{name}", f"LOGICAL_{name.upper()}", options, (1.0, 1.0, 1.0), none, BOOL, processors=U85, version=1)
unary("logical-not", "LOGICAL_NOT", "LogicalNotOptions", 1.0, (1.0, 0), BOOL, 1, processors=U85)


for name, options, dtype in (("SELECT_V2", "SelectV2Options", I8), ("SELECT_V2", "SelectV2Options", I16), ("SELECT", "SelectOptions", I8)):

    @case(f"{name.lower().replace('_', '-')}-{word(dtype)}", U85)
    def _(m, name=name, options=options, dtype=dtype):
        c = m.input(NHWC, BOOL, 1.0)
        a, b = m.input(NHWC, dtype, 0.1, 0), m.input(NHWC, dtype, 0.1, 0)
        return m.finish(m.op(name, [c, a, b], NHWC, dtype, 0.1, 0, options, 1))


# Moves ---------------------------------------------------------------------------------------------------------------------------


def numbers(m, values, dtype=I32):
    values = numpy.asarray(values, dtype)
    return m.tensor(list(values.shape), dtype, None, 0, values)


for dtype, scale in ((I8, 0.1), (I16, 0.001)):
    kind = word(dtype)

    @case(f"strided-slice-{kind}")
    def _(m, dtype=dtype, scale=scale):
        x = m.input([1, 9, 10, 6], dtype, scale)
        ends = [numbers(m, values) for values in ([0, 1, 0, 1], [1, 9, 10, 5], [1, 2, 3, 1])]
        fields = dict(BeginMask=0, EndMask=0, EllipsisMask=0, NewAxisMask=0, ShrinkAxisMask=0)
        return m.finish(m.op("STRIDED_SLICE", [x, *ends], [1, 4, 4, 4], dtype, scale, 0, "StridedSliceOptions", 2, **fields))

    @case(f"pad-{kind}")
    def _(m, dtype=dtype, scale=scale):
        zero = 7 if dtype == I8 else 0
        pads = numbers(m, [[0, 0], [1, 2], [2, 1], [0, 3]])
        return m.finish(m.op("PAD", [m.input(NHWC, dtype, scale, zero), pads], [1, 9, 10, 12], dtype, scale, zero, "PadOptions", 2))

    for mode in (0, 1):

        @case(f"mirror-pad-{mode}-{kind}")
        def _(m, dtype=dtype, scale=scale, mode=mode):
            pads = numbers(m, [[0, 0], [2, 1], [1, 3], [0, 0]])
            x = m.input(NHWC, dtype, scale)
            return m.finish(m.op("MIRROR_PAD", [x, pads], [1, 9, 11, 9], dtype, scale, 0, "MirrorPadOptions", 2, Mode=mode))

    @case(f"split-{kind}")
    def _(m, dtype=dtype, scale=scale):
        parts = [m.tensor([1, 6, 7, 3], dtype, scale, 0) for _ in range(3)]
        m.op("SPLIT", [numbers(m, 3), m.input(NHWC, dtype, scale)], [1], dtype, scale, 0, "SplitOptions", 2, NumSplits=3)
        code, inputs, _, options, fields = m.operators[-1]
        m.operators[-1] = (code, inputs, parts, options, fields)
        return m.finish(*parts)

    @case(f"pack-{kind}")
    def _(m, dtype=dtype, scale=scale):
        inputs = [m.input([6, 7], dtype, scale) for _ in range(3)]
        return m.finish(m.op("PACK", inputs, [6, 3, 7], dtype, scale, 0, "PackOptions", 2, ValuesCount=3, Axis=1))

    @case(f"transpose-{kind}")
    def _(m, dtype=dtype, scale=scale):
        x = m.input([1, 4, 5, 18], dtype, scale)
        return m.finish(m.op("TRANSPOSE", [x, numbers(m, [0, 3, 1, 2])], [1, 18, 4, 5], dtype, scale, 0, "TransposeOptions", 2))

    @case(f"tile-{kind}")
    def _(m, dtype=dtype, scale=scale):
        return m.finish(m.op("TILE", [m.input([1, 3, 4, 5], dtype, scale), numbers(m, [1, 2, 1, 3])], [1, 6, 4, 15], dtype, scale, 0, "TileOptions", 2))

    @case(f"reverse-{kind}", U85)
    def _(m, dtype=dtype, scale=scale):
        return m.finish(m.op("REVERSE_V2", [m.input(NHWC, dtype, scale), numbers(m, [2])], NHWC, dtype, scale, 0, "ReverseV2Options", 2))

    @case(f"batch-matmul-{kind}", ALL if dtype == I8 else U85)
    def _(m, dtype=dtype, scale=scale):
        zeros = (3, -4, 5) if dtype == I8 else (0, 0, 0)
        a, b = m.input([2, 6, 9], dtype, scale, zeros[0]), m.input([2, 9, 5], dtype, scale, zeros[1])
        fields = dict(AdjX=False, AdjY=False, AsymmetricQuantizeInputs=False)
        out = 0.5 if dtype == I8 else 0.005
        return m.finish(m.op("BATCH_MATMUL", [a, b], [2, 6, 5], dtype, out, zeros[2], "BatchMatMulOptions", 4, **fields))

    for kind_of_index in (I32, I64):

        @case(f"gather-{kind}-{word(kind_of_index)}", U85)
        def _(m, dtype=dtype, scale=scale, kind_of_index=kind_of_index):
            x = m.input([9, 5], dtype, scale)
            i = m.input([7], kind_of_index, None, make=lambda random: random.integers(0, 9, 7))
            return m.finish(m.op("GATHER", [x, i], [7, 5], dtype, scale, 0, "GatherOptions", 4, Axis=0, BatchDims=0))

    @case(f"gather-batches-{kind}", U85)
    def _(m, dtype=dtype, scale=scale):
        x = m.input([3, 9, 5], dtype, scale)
        i = m.input([3, 4], I32, None, make=lambda random: random.integers(0, 9, [3, 4]))
        return m.finish(m.op("GATHER", [x, i], [3, 4, 5], dtype, scale, 0, "GatherOptions", 4, Axis=1, BatchDims=1))

    @case(f"reduce-max-{kind}")
    def _(m, dtype=dtype, scale=scale):
        x = m.input(NHWC, dtype, scale, make=lambda random: random.integers(-100, 50, NHWC))
        return m.finish(m.op("REDUCE_MAX", [x, numbers(m, [1])], [1, 1, 7, 9], dtype, scale, 0, "ReducerOptions", 2, KeepDims=True))

    @case(f"mean-rows-{kind}")
    def _(m, dtype=dtype, scale=scale):
        x = m.input(NHWC, dtype, scale, 2 if dtype == I8 else 0)
        out = (0.6 * scale, 7) if dtype == I8 else (scale, 0)
        return m.finish(m.op("MEAN", [x, numbers(m, [1])], [1, 1, 7, 9], dtype, *out, "ReducerOptions", 2, KeepDims=True))

    @case(f"sum-{kind}")
    def _(m, dtype=dtype, scale=scale):
        x = m.input(NHWC, dtype, scale, 2 if dtype == I8 else 0)
        return m.finish(m.op("SUM", [x, numbers(m, [3])], [1, 6, 7, 1], dtype, 3.7 * scale, 0, "ReducerOptions", 2, KeepDims=True))


@case("arg-max")
def _(m):
    x = m.input([1, 5, 6, 20], zero=3)
    return m.finish(m.op("ARG_MAX", [x, numbers(m, 3)], [1, 5, 6], I32, None, 0, "ArgMaxOptions", 2, OutputType=2))


@case("scatter-nd", U85)
def _(m):
    indices = m.tensor([4, 1], I32, None, 0, m.random.permutation(9)[:4].reshape(4, 1))
    return m.finish(m.op("SCATTER_ND", [indices, m.input([4, 5], I32, None, make=lambda r: r.integers(-99, 99, [4, 5])), numbers(m, [9, 5])], [9, 5], I32, None, 0, "ScatterNdOptions", 1))


# Layers --------------------------------------------------------------------------------------------------------------------------


def conv(name, shape, channels, kernel, processors=ALL, **options):
    def write(m):
        dtype = options.get("dtype", I8)
        x = m.input(shape, dtype, 0.1 if dtype == I8 else 0.001, 4 if dtype == I8 else 0)
        y, _ = m.conv(x, shape, channels, kernel, **options)
        return m.finish(y)

    case(name, processors)(write)


conv("conv-int16", [1, 9, 9, 5], 8, (3, 3), dtype=I16, out_scale=0.02)
conv("conv-5x5-stride-2", [1, 11, 12, 5], 8, (5, 5), stride=2)
conv("depthwise-int16", [1, 9, 9, 12], 0, (3, 3), dtype=I16, depthwise=True, out_scale=0.02)
conv("conv-stride-4", [1, 17, 18, 5], 8, (3, 3), stride=4, processors=U85)


def resize(name, kind, options, size, dtype=I8, shape=(1, 5, 6, 8), processors=ALL, **fields):
    def write(m):
        scale, zero = (0.1, 2) if dtype == I8 else (0.001, 0)
        out = [1, *size, shape[3]]
        x = m.input(list(shape), dtype, scale, zero)
        return m.finish(m.op(kind, [x, numbers(m, list(size))], out, dtype, scale, zero, options, 3, **fields))

    case(name, processors)(write)


for kind, options, short in (("RESIZE_BILINEAR", "ResizeBilinearOptions", "bilinear"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", "nearest")):
    resize(f"resize-{short}-4x", kind, options, (20, 24), AlignCorners=False, HalfPixelCenters=False)
    resize(f"resize-{short}-align", kind, options, (9, 11), AlignCorners=True, HalfPixelCenters=False)
    resize(f"resize-{short}-4x-align", kind, options, (17, 21), AlignCorners=True, HalfPixelCenters=False)
    resize(f"resize-{short}-int16", kind, options, (10, 12), I16, AlignCorners=False, HalfPixelCenters=False)
    resize(f"resize-{short}-half-4x", kind, options, (20, 24), AlignCorners=False, HalfPixelCenters=True, processors=U85)


@case("transpose-conv-stride-1")
def _(m):
    w = m.tensor([6, 3, 3, 8], I8, m.random.uniform(0.002, 0.006, 6), 0, m.random.integers(-127, 128, [6, 3, 3, 8]))
    x = m.input([1, 5, 6, 8], zero=2)
    fields = dict(Padding=VALID, StrideW=1, StrideH=1)
    return m.finish(m.op("TRANSPOSE_CONV", [numbers(m, [1, 7, 8, 6]), w, x], [1, 7, 8, 6], scale=0.05, options="TransposeConvOptions", version=1, **fields))


if __name__ == "__main__":

    def write(name, target, folder):
        # There is no reference kernel of ELU, and what that of SUM gives is not the sum.
        fast = name.startswith("sum-") or name == "elu"
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if fast else OpResolverType.BUILTIN_REF
        return make_tflite_cases.write_case(name, target, folder, CASES, kernels)

    sys.exit(make_cases.main(CASES, write, "cases-tflite", PROCESSORS))
