"""Writes the operators that are timed, each as a program of its own: WORK/NAME.pte, its inputs, and WORK/operators.json.

    PYTHON export.py WORK

The programs are ExecuTorch's own, by `to_edge` and `to_executorch`, without a partitioner. Weights are parameters, as in models.
"""

import argparse
import json
import pathlib
import struct

import torch
from executorch.exir import EdgeCompileConfig, to_edge
from torch import nn

import executorch.kernels.quantized  # noqa: F401  the out-variants of quantized_decomposed

try:
    import torchao.quantization.pt2e  # noqa: F401  quantized_decomposed
except ImportError:
    import torch.ao.quantization.fx._decomposed  # noqa: F401

F = nn.functional
Q = torch.ops.quantized_decomposed

# `linear` stays whole, because ExecuTorch has an optimized kernel for it. Left to itself, `to_edge` makes `permute_copy` and `addmm` of
# it, which are slower by far.
CONFIG = EdgeCompileConfig(_check_ir_validity=False, preserve_ops=[torch.ops.aten.linear.default])


class Call(nn.Module):
    """A function of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


class Right(nn.Module):
    """`x @ weight`."""

    def __init__(self, *sizes, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter((torch.randn(*sizes) / sizes[0] ** 0.5).to(dtype), requires_grad=False)

    def forward(self, x):
        return torch.mm(x, self.weight)


def norm(channels):
    """A batch norm that has seen data."""
    module = nn.BatchNorm2d(channels)
    with torch.no_grad():
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        module.weight.uniform_(0.5, 2)
        module.bias.normal_()
    return module


def f32(*sizes):
    return torch.randn(*sizes)


def f16(*sizes):
    return torch.randn(*sizes).half()


def i8(*sizes):
    return torch.randint(-128, 128, sizes, dtype=torch.int8)


# Name, shape as it is printed, where such a shape stands, module, inputs.
OPERATORS = [
    ("linear, 1 row", "[1,2048] x [2048,2048]", "Llama 1B, a token", lambda: nn.Linear(2048, 2048), [f32(1, 2048)]),
    ("linear", "[128,384] x [384,1536]", "MiniLM", lambda: nn.Linear(384, 1536), [f32(128, 384)]),
    ("mm", "[197,768] x [768,768]", "ViT-B", lambda: Right(768, 768), [f32(197, 768)]),
    ("mm, f16", "[128,768] x [768,768]", "BERT", lambda: Right(768, 768, dtype=torch.float16), [f16(128, 768)]),
    ("bmm", "[12,128,64] x [12,64,128]", "BERT", lambda: Call(torch.bmm), [f32(12, 128, 64), f32(12, 64, 128)]),
    ("convolution 3x3", "[1,64,56,56], 64", "ResNet-50", lambda: nn.Conv2d(64, 64, 3, padding=1), [f32(1, 64, 56, 56)]),
    ("convolution 1x1", "[1,96,56,56], 24", "MobileNetV2", lambda: nn.Conv2d(96, 24, 1), [f32(1, 96, 56, 56)]),
    ("convolution 7x7, stride 2", "[1,3,224,224], 64", "ResNet-50", lambda: nn.Conv2d(3, 64, 7, 2, 3), [f32(1, 3, 224, 224)]),
    ("depthwise 3x3, stride 2", "[1,96,112,112]", "MobileNetV2", lambda: nn.Conv2d(96, 96, 3, 2, 1, groups=96), [f32(1, 96, 112, 112)]),
    ("batch_norm", "[1,64,112,112]", "ResNet-50", lambda: norm(64), [f32(1, 64, 112, 112)]),
    ("layer_norm", "[197,768]", "ViT-B", lambda: nn.LayerNorm(768), [f32(197, 768)]),
    ("softmax", "[12,197,197]", "ViT-B", lambda: Call(lambda x: F.softmax(x, -1)), [f32(12, 197, 197)]),
    ("gelu", "[197,3072]", "ViT-B", lambda: Call(F.gelu), [f32(197, 3072)]),
    ("sigmoid", "[1,128,8192]", "Llama 1B", lambda: Call(torch.sigmoid), [f32(1, 128, 8192)]),
    ("tanh", "[64,1024]", "LSTM", lambda: Call(torch.tanh), [f32(64, 1024)]),
    ("add, broadcast", "[1,197,768] + [768]", "ViT-B", lambda: Call(torch.add), [f32(1, 197, 768), f32(768)]),
    ("mul", "[1,128,8192]", "Llama 1B", lambda: Call(torch.mul), [f32(1, 128, 8192), f32(1, 128, 8192)]),
    ("max_pool2d 3x3, stride 2", "[1,64,112,112]", "ResNet-50", lambda: nn.MaxPool2d(3, 2, 1), [f32(1, 64, 112, 112)]),
    ("mean of H, W", "[1,2048,7,7]", "ResNet-50", lambda: Call(lambda x: x.mean((2, 3))), [f32(1, 2048, 7, 7)]),
    ("sum of dim 0", "[128,768]", "pooled tokens", lambda: Call(lambda x: x.sum(0)), [f32(128, 768)]),
    ("cat", "[1,256,28,28], [1,32,28,28]", "DenseNet-121", lambda: Call(lambda x, y: torch.cat((x, y), 1)), [f32(1, 256, 28, 28), f32(1, 32, 28, 28)]),
    ("permute_copy", "[1,197,12,64]", "ViT-B", lambda: Call(lambda x: x.permute(0, 2, 1, 3)), [f32(1, 197, 12, 64)]),
    ("embedding", "128 of [30522,384]", "MiniLM", lambda: nn.Embedding(30522, 384), [torch.randint(0, 30522, (1, 128))]),
    ("upsample_bilinear2d", "[1,64,56,56] to 112", "U-Net", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), [f32(1, 64, 56, 56)]),
    ("quantize_per_tensor", "[197,768] to i8", "ViT-B", lambda: Call(lambda x: Q.quantize_per_tensor(x, 0.03, 3, -128, 127, torch.int8)), [f32(197, 768)]),
    ("dequantize_per_tensor", "[197,768] of i8", "ViT-B", lambda: Call(lambda x: Q.dequantize_per_tensor(x, 0.03, 3, -128, 127, torch.int8)), [i8(197, 768)]),
    ("cumsum of dim 1", "[1,512,64]", "a mask's positions", lambda: Call(lambda x: x.cumsum(1)), [f32(1, 512, 64)]),
    ("topk, 50", "[1,32000]", "Llama, sampling", lambda: Call(lambda x: torch.topk(x, 50)), [f32(1, 32000)]),
]


def bytes_of(tensor):
    return tensor.contiguous().numpy().tobytes()


def safetensors(path, tensors):
    """The format of `delegraph bench --inputs`; inputs are named by position."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64", torch.int8: "I8"}
    header, at = {}, 0
    for k, tensor in enumerate(tensors):
        size = len(bytes_of(tensor))
        header[str(k)] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(map(bytes_of, tensors)))


def instructions(program):
    """What the program calls, in order."""
    plan = program.executorch_program.execution_plan[0]
    names = [f"{op.name}.{op.overload}" if op.overload else op.name for op in plan.operators]
    calls = [i.instr_args for chain in plan.chains for i in chain.instructions]
    return [names[call.op_index] for call in calls if hasattr(call, "op_index")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (name, shape, model, module, inputs) in enumerate(OPERATORS):
        torch.manual_seed(index)
        module, stem = module().eval(), f"op{index:02}"
        exported = torch.export.export(module, tuple(inputs))
        program = to_edge(exported, compile_config=CONFIG).to_executorch()
        (work / f"{stem}.pte").write_bytes(program.buffer)
        safetensors(work / f"{stem}.safetensors", inputs)
        for k, tensor in enumerate(inputs):
            (work / f"{stem}.{k}.bin").write_bytes(bytes_of(tensor))
        with torch.no_grad():
            results = module(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        for k, tensor in enumerate(results):
            (work / f"{stem}.want{k}.bin").write_bytes(bytes_of(tensor))
        rows.append({
            "name": name, "shape": shape, "model": model, "stem": stem, "inputs": len(inputs),
            "dtype": str(inputs[0].dtype).removeprefix("torch."), "calls": instructions(program),
            "outputs": [str(tensor.dtype).removeprefix("torch.") for tensor in results],
        })
    (work / "operators.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
