#!/usr/bin/env python3
"""Makes `cases-tflite/`: TFLite models of single operators, compiled by Arm's Vela, with what LiteRT's reference kernels make of random inputs.

    make_tflite_cases.py [--only GLOB] [--target NAME]... [--out FOLDER]

Needs what `make_cases.py` needs, and `ai-edge-litert` 2.3.0. Cases have the same form.
"""

import argparse
import fnmatch
import importlib
import pathlib
import sys
import tempfile

import flatbuffers
import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import make_cases

TYPES = {numpy.int8: 9, numpy.int16: 7, numpy.int32: 2, numpy.int64: 4, numpy.uint8: 3, numpy.bool_: 6}
SAME, VALID = 0, 1


def schema(name):
    return importlib.import_module(f"ethosu.vela.tflite.{name}")


class Model:
    def __init__(self, name):
        self.b = flatbuffers.Builder(1024)
        self.random = make_cases.Net(name).random
        self.tensors, self.buffers, self.operators, self.codes = [], [b""], [], []
        self.inputs, self.outputs, self.made = [], [], {}

    def tensor(self, shape, dtype=numpy.int8, scale=0.1, zero=0, values=None, axis=0):
        buffer = 0
        if values is not None:
            self.buffers.append(numpy.asarray(values, dtype).tobytes())
            buffer = len(self.buffers) - 1
        self.tensors.append((list(shape), dtype, scale, zero, buffer, axis))
        return len(self.tensors) - 1

    def input(self, shape, dtype=numpy.int8, scale=0.1, zero=0, make=None):
        """`make` makes its values from a generator of random numbers."""
        index = self.tensor(shape, dtype, scale, zero)
        self.inputs.append(index)
        if make or dtype == numpy.bool_:
            self.made[index] = make or (lambda random: random.integers(0, 2, shape))
        return index

    def op(self, name, inputs, shape, dtype=numpy.int8, scale=0.1, zero=0, options=None, version=1, **fields):
        out = self.tensor(shape, dtype, scale, zero)
        code = getattr(schema("BuiltinOperator").BuiltinOperator, name)
        if (code, version) not in self.codes:
            self.codes.append((code, version))
        self.operators.append((self.codes.index((code, version)), inputs, [out], options, fields))
        return out

    def finish(self, *outputs):
        b = self.b

        def vector(items, start, kind="UOffsetTRelative"):
            start(b, len(items))
            for item in reversed(items):
                getattr(b, f"Prepend{kind}")(item)
            return b.EndVector()

        def table(name, **fields):
            module = schema(name)
            getattr(module, f"{name}Start")(b)
            for field, value in fields.items():
                getattr(module, f"{name}Add{field}")(b, value)
            return getattr(module, f"{name}End")(b)

        def ints(items, module, field):
            return vector(items, getattr(schema(module), f"{module}Start{field}Vector"), "Int32")

        buffers = []
        for data in self.buffers:
            made = b.CreateByteVector(data) if data else None
            buffers.append(table("Buffer", **({"Data": made} if data else {})))
        tensors = []
        for i, (shape, dtype, scale, zero, buffer, axis) in enumerate(self.tensors):
            name = b.CreateString(f"t{i}")
            dims = ints(shape, "Tensor", "Shape")
            quantization = None
            if scale is not None:
                module = schema("QuantizationParameters")
                scales = numpy.atleast_1d(scale)
                made = vector([float(s) for s in scales], module.QuantizationParametersStartScaleVector, "Float32")
                zeros = vector([int(zero)] * len(scales), module.QuantizationParametersStartZeroPointVector, "Int64")
                quantization = table("QuantizationParameters", Scale=made, ZeroPoint=zeros, QuantizedDimension=axis)
            fields = {"Shape": dims, "Type": TYPES[dtype], "Buffer": buffer, "Name": name}
            tensors.append(table("Tensor", **fields, **({"Quantization": quantization} if quantization else {})))
        operators = []
        for code, inputs, outputs, options, fields in self.operators:
            extra = {}
            if options:
                kind = getattr(schema("BuiltinOptions").BuiltinOptions, options)
                made = {k: ints(v, options, k) if isinstance(v, list) else v for k, v in fields.items()}
                extra = {"BuiltinOptionsType": kind, "BuiltinOptions": table(options, **made)}
            i, o = ints(inputs, "Operator", "Inputs"), ints(outputs, "Operator", "Outputs")
            operators.append(table("Operator", OpcodeIndex=code, Inputs=i, Outputs=o, **extra))
        codes = []
        for code, version in self.codes:
            codes.append(table("OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code, Version=version))
        graph = schema("SubGraph")
        made = vector(tensors, graph.SubGraphStartTensorsVector), vector(operators, graph.SubGraphStartOperatorsVector)
        i, o = ints(self.inputs, "SubGraph", "Inputs"), ints(list(outputs), "SubGraph", "Outputs")
        main = table("SubGraph", Tensors=made[0], Inputs=i, Outputs=o, Operators=made[1])
        module = schema("Model")
        lists = [
            vector(codes, module.ModelStartOperatorCodesVector),
            vector([main], module.ModelStartSubgraphsVector),
            vector(buffers, module.ModelStartBuffersVector),
        ]
        model = table("Model", Version=3, OperatorCodes=lists[0], Subgraphs=lists[1], Buffers=lists[2])
        b.Finish(model, b"TFL3")
        return bytes(b.Output())

    def conv(self, x, shape, channels, kernel, stride=1, padding=SAME, dtype=numpy.int8, depthwise=False, activation=0, out_scale=0.05):
        depth = shape[3]
        sizes = [1, *kernel, depth] if depthwise else [channels, *kernel, depth]
        out_depth = depth if depthwise else channels
        scales = self.random.uniform(0.002, 0.006, out_depth)
        weights = self.random.integers(-127, 128, sizes)
        weights = self.tensor(sizes, numpy.int8, scales, 0, weights, 3 if depthwise else 0)
        wide = dtype == numpy.int16
        bias_type = numpy.int64 if wide else numpy.int32
        in_scale = self.tensors[x][2]
        bias = self.tensor([out_depth], bias_type, scales * in_scale, 0, self.random.integers(-900, 900, out_depth), 0)
        size = [-(-shape[1 + i] // stride) if padding == SAME else (shape[1 + i] - kernel[i]) // stride + 1 for i in (0, 1)]
        out = [1, *size, out_depth]
        fields = dict(Padding=padding, StrideW=stride, StrideH=stride, FusedActivationFunction=activation)
        fields |= dict(DilationWFactor=1, DilationHFactor=1)
        name, options = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
        if depthwise:
            fields["DepthMultiplier"] = 1
        zero = 0 if wide else -3
        return self.op(name, [x, weights, bias], out, dtype, out_scale, zero, options, 5, **fields), out


CASES = {}


def case(name):
    def add(write):
        CASES[name] = write
        return write

    return add


NHWC = [1, 6, 7, 9]


@case("conv-same")
def _(m):
    y, _ = m.conv(m.input([1, 9, 9, 5], zero=4), [1, 9, 9, 5], 8, (3, 3), 2)
    return m.finish(y)


@case("conv-relu6")
def _(m):
    y, _ = m.conv(m.input([1, 8, 8, 6], zero=-7), [1, 8, 8, 6], 8, (3, 3), 1, VALID, activation=3)
    return m.finish(y)


@case("depthwise-same")
def _(m):
    y, _ = m.conv(m.input([1, 9, 9, 12], zero=4), [1, 9, 9, 12], 0, (3, 3), 2, depthwise=True, out_scale=0.02)
    return m.finish(y)


@case("net")
def _(m):
    x, shape = m.conv(m.input([1, 16, 16, 3], zero=-1), [1, 16, 16, 3], 8, (3, 3), 2, activation=1)
    y, _ = m.conv(x, shape, 0, (3, 3), 1, depthwise=True, out_scale=0.03)
    z = m.op("ADD", [x, y], shape, scale=0.06, zero=5, options="AddOptions", version=2, FusedActivationFunction=0)
    fields = dict(Padding=VALID, StrideW=2, StrideH=2, FilterWidth=2, FilterHeight=2, FusedActivationFunction=0)
    return m.finish(m.op("AVERAGE_POOL_2D", [z], [1, 4, 4, 8], scale=0.06, zero=5, options="Pool2DOptions", version=2, **fields))


def pool(name, kind, padding, kernel, stride, shape, out):
    def write(m):
        fields = dict(Padding=padding, StrideW=stride, StrideH=stride, FilterWidth=kernel, FilterHeight=kernel)
        fields["FusedActivationFunction"] = 0
        return m.finish(m.op(kind, [m.input(shape, zero=3)], out, zero=3, options="Pool2DOptions", version=2, **fields))

    CASES[name] = write


pool("avg-pool-same", "AVERAGE_POOL_2D", SAME, 3, 2, [1, 9, 9, 8], [1, 5, 5, 8])
pool("max-pool-same", "MAX_POOL_2D", SAME, 3, 2, [1, 8, 8, 8], [1, 4, 4, 8])


def binary(name, kind, options, scales, dtype=numpy.int8, b_shape=None, activation=0):
    def write(m):
        zeros = (3, -9, 6) if dtype == numpy.int8 else (0, 0, 0)
        x, y = m.input(NHWC, dtype, scales[0], zeros[0]), m.input(b_shape or NHWC, dtype, scales[1], zeros[1])
        fields = {"FusedActivationFunction": activation}
        return m.finish(m.op(kind, [x, y], NHWC, dtype, scales[2], zeros[2], options, 2, **fields))

    CASES[name] = write


binary("add", "ADD", "AddOptions", (0.1, 0.07, 0.15))
binary("add-relu", "ADD", "AddOptions", (0.1, 0.3, 0.25), activation=1)
binary("add-channel", "ADD", "AddOptions", (0.1, 0.07, 0.15), b_shape=[1, 1, 1, 9])
binary("add-int16", "ADD", "AddOptions", (0.001, 0.0007, 0.0015), numpy.int16)
binary("sub", "SUB", "SubOptions", (0.1, 0.07, 0.15))
binary("mul", "MUL", "MulOptions", (0.1, 0.07, 0.6))
binary("mul-int16", "MUL", "MulOptions", (0.001, 0.0007, 0.02), numpy.int16)


def unary(name, kind, options=None, scale_in=0.05, out=(0.05, 0), dtype=numpy.int8, version=2, shape=NHWC, **fields):
    def write(m):
        x = m.input(shape, dtype, scale_in, 5 if dtype == numpy.int8 else 0)
        return m.finish(m.op(kind, [x], shape, dtype, out[0], out[1], options, version, **fields))

    CASES[name] = write


unary("softmax", "SOFTMAX", "SoftmaxOptions", out=(1 / 256, -128), shape=[1, 40], Beta=1.0)
unary("softmax-rows", "SOFTMAX", "SoftmaxOptions", out=(1 / 256, -128), shape=[1, 12, 12], Beta=1.0)
unary("softmax-int16", "SOFTMAX", "SoftmaxOptions", 0.0004, (1 / 32768, 0), numpy.int16, shape=[1, 40], Beta=1.0)
unary("logistic", "LOGISTIC", out=(1 / 256, -128))
unary("tanh", "TANH", out=(1 / 128, 0))
unary("hard-swish", "HARD_SWISH", "HardSwishOptions", out=(0.03, -110), version=1)
unary("leaky-relu", "LEAKY_RELU", "LeakyReluOptions", out=(0.05, 5), Alpha=0.1)
unary("leaky-relu-int16", "LEAKY_RELU", "LeakyReluOptions", 0.001, (0.001, 0), numpy.int16, Alpha=0.1)
unary("relu", "RELU", out=(0.03, -128))


@case("fully-connected")
def _(m):
    x = m.input([4, 24], zero=2)
    w = m.tensor([10, 24], numpy.int8, 0.004, 0, m.random.integers(-127, 128, [10, 24]))
    bias = m.tensor([10], numpy.int32, 0.0004, 0, m.random.integers(-900, 900, 10))
    fields = dict(FusedActivationFunction=0, KeepNumDims=False)
    return m.finish(m.op("FULLY_CONNECTED", [x, w, bias], [4, 10], scale=0.04, zero=1, options="FullyConnectedOptions", version=4, **fields))


@case("mean")
def _(m):
    x = m.input([1, 6, 7, 9], zero=2)
    axes = m.tensor([2], numpy.int32, None, 0, [1, 2])
    return m.finish(m.op("MEAN", [x, axes], [1, 1, 1, 9], scale=0.02, zero=7, options="ReducerOptions", version=2, KeepDims=True))


@case("transpose-conv")
def _(m):
    sizes = m.tensor([4], numpy.int32, None, 0, [1, 10, 12, 6])
    w = m.tensor([6, 3, 3, 8], numpy.int8, m.random.uniform(0.002, 0.006, 6), 0, m.random.integers(-127, 128, [6, 3, 3, 8]))
    x = m.input([1, 5, 6, 8], zero=2)
    fields = dict(Padding=SAME, StrideW=2, StrideH=2)
    return m.finish(m.op("TRANSPOSE_CONV", [sizes, w, x], [1, 10, 12, 6], scale=0.05, options="TransposeConvOptions", version=1, **fields))


def resize(name, kind, options, out, **fields):
    def write(m):
        size = m.tensor([2], numpy.int32, None, 0, list(out))
        x = m.input([1, 5, 6, 8], zero=2)
        return m.finish(m.op(kind, [x, size], [1, *out, 8], zero=2, options=options, version=3, **fields))

    CASES[name] = write


resize("resize-bilinear", "RESIZE_BILINEAR", "ResizeBilinearOptions", (10, 12), AlignCorners=False, HalfPixelCenters=False)
resize("resize-bilinear-half", "RESIZE_BILINEAR", "ResizeBilinearOptions", (10, 12), AlignCorners=False, HalfPixelCenters=True)
resize("resize-nearest", "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", (10, 12), AlignCorners=False, HalfPixelCenters=False)


def write_case(name, target, folder, cases=CASES, kernels=OpResolverType.BUILTIN_REF):
    model = Model(name)
    graph = cases[name](model)
    data = make_cases.compile_case(name, graph, target, folder, ".tflite")

    def run(given):
        interpreter = Interpreter(model_content=graph, experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        for detail, array in zip(interpreter.get_input_details(), given):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

    sets = []
    for _ in range(make_cases.SETS):
        given = []
        for index in model.inputs:
            shape, dtype = model.tensors[index][:2]
            if index in model.made:
                given.append(numpy.asarray(model.made[index](model.random)).reshape(shape).astype(dtype))
                continue
            whole = numpy.iinfo(dtype)
            given.append(model.random.integers(whole.min, whole.max, shape, endpoint=True).astype(dtype))
        sets.append((given, run(given)))
    return make_cases.file(graph, data, sets)


if __name__ == "__main__":
    sys.exit(make_cases.main(CASES, write_case, "cases-tflite"))
