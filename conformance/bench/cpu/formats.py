"""What each engine reads, made from one module. A function a format: it gets the module, its inputs and the file to write.

The first three need executorch, the others the converters of the peers: two environments, because these want different versions of torch.
"""

import pathlib
import shutil
import tempfile

import numpy
import torch

# Batches that ranges of int8 are chosen by.
SAMPLES = 4


def exported(module, inputs):
    return torch.export.export(module, inputs, strict=False)


def sampled(inputs):
    return tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs)


def pt2(module, inputs, path):
    """Delegraph's: as it is exported, nothing decomposed."""
    torch.export.save(exported(module, inputs), path)


def pt2_i8(module, inputs, path):
    """Quantized by torchao with XNNPACK's quantizer: int8 with a scale for each channel of the weights. Delegraph and ExecuTorch get this graph."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported(module, inputs).module(), quantizer)
    for _ in range(SAMPLES):
        prepared(*sampled(inputs))
    pt2(convert_pt2e(prepared), inputs, path)


def write_pte(program, path, partitioners):
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=partitioners).to_executorch()
    with open(path, "wb") as file:
        lowered.write_to_file(file)


def xnnpack():
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return [XnnpackPartitioner()]


def pte(module, inputs, path):
    """ExecuTorch without a delegate."""
    write_pte(exported(module, inputs), path, None)


def pte_xnnpack(module, inputs, path):
    """ExecuTorch with XNNPACK."""
    write_pte(exported(module, inputs), path, xnnpack())


def pte_xnnpack_i8(module, inputs, path):
    import torchao.quantization.pt2e  # noqa: F401  the operators of the graph

    write_pte(torch.export.load(str(path).replace(".xnnpack.pte", ".pt2")), path, xnnpack())


def onnx(module, inputs, path):
    torch.onnx.export(module, inputs, str(path), dynamo=True, opset_version=18, external_data=False, verbose=False)


def onnx_i8(module, inputs, path):
    """By ONNX Runtime: activations u8, weights s8 with a scale for each channel. Weights take 7 bits where the processor has no VNNI, since
    sums saturate there."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source = str(path).replace(".i8.onnx", ".onnx")
    name = onnxruntime.InferenceSession(source).get_inputs()[0].name

    class Samples(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{name: sampled(inputs)[0].numpy()} for _ in range(SAMPLES)])

        def get_next(self):
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, str(path), Samples(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=not has_vnni(),
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def has_vnni():
    cpu = pathlib.Path("/proc/cpuinfo")
    return cpu.exists() and bool({"avx512_vnni", "avx_vnni"} & set(cpu.read_text().split()))


def tflite(module, inputs, path):
    import litert_torch

    litert_torch.convert(module, inputs).export(str(path))


def tflite_i8(module, inputs, path):
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    source = str(path).replace(".i8.tflite", ".tflite")
    name, signature = next(iter(Interpreter(source).get_signature_list().items()))
    making = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    samples = [{signature["inputs"][0]: sampled(inputs)[0].numpy().astype(numpy.float32)} for _ in range(SAMPLES)]
    making.quantize(making.calibrate({name: samples})).export_model(str(path))


def ncnn(module, inputs, path):
    """Two files: `path`, and a `.bin` beside it. Weights are float32, as those of the others are."""
    import pnnx

    with tempfile.TemporaryDirectory() as folder:
        pnnx.export(module, f"{folder}/model.pt", inputs, fp16=False)
        shutil.move(f"{folder}/model.ncnn.bin", path.with_suffix(".bin"))
        shutil.move(f"{folder}/model.ncnn.param", path)


# Name: the end of the file's name, the function. Those of int8 belong to the stem NAME.i8.
FORMATS = {
    "pt2": (".pt2", pt2), "pte": (".pte", pte), "xnnpack": (".xnnpack.pte", pte_xnnpack),
    "onnx": (".onnx", onnx), "tflite": (".tflite", tflite), "ncnn": (".ncnn.param", ncnn),
    "pt2_i8": (".i8.pt2", pt2_i8), "xnnpack_i8": (".i8.xnnpack.pte", pte_xnnpack_i8),
    "onnx_i8": (".i8.onnx", onnx_i8), "tflite_i8": (".i8.tflite", tflite_i8),
}
