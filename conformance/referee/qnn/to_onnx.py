"""Writes a quantized `.pt2` archive as an ONNX model of QuantizeLinear and DequantizeLinear, node by node: the same integers, scales and zero
points. Needs onnx and numpy, no PyTorch. What it does not know, it refuses by name."""

import json
import zipfile

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

# torch.export's schema, `ScalarType`.
DTYPES = {
    1: numpy.uint8,
    2: numpy.int8,
    3: numpy.int16,
    4: numpy.int32,
    5: numpy.int64,
    7: numpy.float32,
    8: numpy.float64,
    28: numpy.uint16,
}
PREFIX = "torch.ops."


class Archive:
    """The members of an archive that a graph needs."""

    def __init__(self, path):
        self.zip = zipfile.ZipFile(path)
        self.root = self.zip.namelist()[0].split("/")[0]
        self.program = json.loads(self.zip.read(f"{self.root}/models/model.json"))
        folder = f"{self.root}/data"
        weights = self.zip.read(f"{folder}/weights/model_weights_config.json")
        constants = self.zip.read(f"{folder}/constants/model_constants_config.json")
        self.tensors = {}
        for where, text in (("weights", weights), ("constants", constants)):
            for name, entry in json.loads(text)["config"].items():
                self.tensors[name] = (f"{folder}/{where}/{entry['path_name']}", entry["tensor_meta"])

    def tensor(self, name):
        path, meta = self.tensors[name]
        sizes = [size["as_int"] for size in meta["sizes"]]
        strides = [stride["as_int"] for stride in meta["strides"]]
        elements = numpy.frombuffer(self.zip.read(path), DTYPES[meta["dtype"]])[meta["storage_offset"]["as_int"] :]
        steps = [stride * elements.itemsize for stride in strides]
        return numpy.ascontiguousarray(numpy.lib.stride_tricks.as_strided(elements, sizes, steps))


class Writer:
    def __init__(self, archive):
        self.archive = archive
        graph = archive.program["graph_module"]
        self.graph, self.signature = graph["graph"], graph["signature"]
        self.nodes, self.constants = [], {}
        # Name of a value to its elements, where it is a constant of the program.
        self.known = {}
        self.inputs = []
        for spec in self.signature["input_specs"]:
            for kind, key in (("parameter", "parameter_name"), ("buffer", "buffer_name")):
                if kind in spec:
                    self.known[spec[kind]["arg"]["name"]] = archive.tensor(spec[kind][key])
            if "user_input" in spec:
                self.inputs.append(spec["user_input"]["arg"]["as_tensor"]["name"])

    def constant(self, elements, name=None):
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(numpy.asarray(elements), name)
        return name

    def value(self, name):
        if name in self.known:
            return self.constant(self.known[name], name)
        return name

    def sizes(self, name):
        return [size["as_int"] for size in self.graph["tensor_values"][name]["sizes"]]

    def emit(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    def write(self):
        for node in self.graph["nodes"]:
            self.node(node)
        outputs = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in self.signature["output_specs"]]
        info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, self.sizes(name))
        graph = helper.make_graph(
            self.nodes,
            "forward",
            [info(name) for name in self.inputs],
            [info(name) for name in outputs],
            list(self.constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
        model.ir_version = 10
        onnx.checker.check_model(model)
        return model

    def node(self, node):
        name = node["target"].removeprefix(PREFIX)
        output = node["outputs"][0]["as_tensor"]["name"]
        arguments = {}
        for entry in node["inputs"]:
            (kind, value), = entry["arg"].items()
            # `self` is the writer here.
            key = "x" if entry["name"] == "self" else entry["name"]
            arguments[key] = value["name"] if kind == "as_tensor" else None if kind == "as_none" else value
        writer = getattr(self, name.replace(".", "_"), None)
        if writer is None:
            raise SystemExit(f"`{name}` is not written as ONNX here")
        writer(output, **arguments)

    # Quantization ----------------------------------------------------------------------------------------------------------------

    def quantized_decomposed_quantize_per_tensor_default(self, out, input, scale, zero_point, quant_min, quant_max, dtype):
        kind = DTYPES[dtype]
        whole = numpy.iinfo(kind)
        if (quant_min, quant_max) != (whole.min, whole.max):
            raise SystemExit(f"`{out}` uses {quant_min} to {quant_max} of {kind.__name__}: QuantizeLinear uses all of it")
        self.emit("QuantizeLinear", [self.value(input), *self.pair(scale, zero_point, kind)], out)

    def quantized_decomposed_dequantize_per_tensor_default(
        self, out, input, scale, zero_point, quant_min, quant_max, dtype
    ):
        self.emit("DequantizeLinear", [self.value(input), *self.pair(scale, zero_point, DTYPES[dtype])], out)

    def quantized_decomposed_dequantize_per_channel_default(
        self, out, input, scales, zero_points, axis, quant_min, quant_max, dtype
    ):
        zeros = self.known[zero_points].astype(DTYPES[dtype])
        pair = [self.constant(self.known[scales].astype(numpy.float32)), self.constant(zeros)]
        self.emit("DequantizeLinear", [self.value(input), *pair], out, axis=axis)

    def pair(self, scale, zero_point, kind):
        return [self.constant(numpy.float32(scale)), self.constant(kind(zero_point))]

    # Layers ----------------------------------------------------------------------------------------------------------------------

    def aten_conv2d_default(
        self, out, input, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1
    ):
        inputs = [input, weight] + ([self.value(bias)] if bias else [])
        pads = [*padding, *padding]
        self.emit("Conv", inputs, out, strides=stride, pads=pads, dilations=dilation, group=groups)

    def aten_linear_default(self, out, input, weight, bias=None):
        inputs = [input, weight] + ([self.value(bias)] if bias else [])
        if len(self.sizes(input)) == 2:
            return self.emit("Gemm", inputs, out, transB=1)
        turned = f"{out}.weight"
        self.emit("Transpose", [weight], turned, perm=[1, 0])
        if not bias:
            return self.emit("MatMul", [input, turned], out)
        self.emit("MatMul", [input, turned], f"{out}.product")
        self.emit("Add", [f"{out}.product", self.value(bias)], out)

    def aten_matmul_default(self, out, x, other):
        self.emit("MatMul", [x, other], out)

    def aten_relu_default(self, out, x):
        self.emit("Relu", [x], out)

    def aten_hardtanh_default(self, out, x, min_val=-1.0, max_val=1.0):
        limits = [self.constant(numpy.float32(min_val)), self.constant(numpy.float32(max_val))]
        self.emit("Clip", [x, *limits], out)

    def aten_add_Tensor(self, out, x, other):
        self.emit("Add", [x, other], out)

    def aten_div_Tensor(self, out, x, other):
        divisor = self.constant(numpy.float32(other)) if isinstance(other, float) else other
        self.emit("Div", [x, divisor], out)

    def aten_softmax_int(self, out, x, dim, dtype=None):
        self.emit("Softmax", [x], out, axis=dim)

    def aten_max_pool2d_default(self, out, x, kernel_size, stride=None, padding=(0, 0)):
        stride = stride or kernel_size
        self.emit("MaxPool", [x], out, kernel_shape=kernel_size, strides=stride, pads=[*padding, *padding])

    def aten_mean_dim(self, out, x, dim, keepdim=False):
        axes = self.constant(numpy.array(dim, numpy.int64))
        self.emit("ReduceMean", [x, axes], out, keepdims=int(keepdim))

    def aten_layer_norm_default(self, out, input, normalized_shape, weight=None, bias=None, eps=1e-5, **_):
        inputs = [input, self.value(weight), self.value(bias)]
        self.emit("LayerNormalization", inputs, out, axis=-len(normalized_shape), epsilon=eps)

    def reshaped(self, out, input):
        self.emit("Reshape", [input, self.constant(numpy.array(self.sizes(out), numpy.int64))], out)

    def aten_view_default(self, out, x, **_):
        self.reshaped(out, x)

    aten_reshape_default = aten_view_default

    def aten_transpose_int(self, out, x, dim0, dim1):
        order = list(range(len(self.sizes(out))))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        self.emit("Transpose", [x], out, perm=order)


def convert(path):
    """The ONNX model of an archive, and the names of its inputs and outputs in order."""
    model = Writer(Archive(path)).write()
    return model, [value.name for value in model.graph.input], [value.name for value in model.graph.output]
