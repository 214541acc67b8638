"""Layers whose activations become bytes by scales that are chosen when they run, as PT2E and torchao write them.

    PYTHON dynamic_int8.py

writes beside it, for each way: `dynamic_WAY.pt2`, and `dynamic_WAY.safetensors` with inputs `x0`, `x1`, ... and what the program gives for them in
eager PyTorch, `y0`, `y1`, .... torch 2.15.0, torchao 0.18.0, executorch 1.5.1.

Layers stand side by side: one behind another would round what differs by a last bit to other bytes.
"""

import pathlib

import safetensors.torch
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

HERE = pathlib.Path(__file__).parent
INPUTS = 64


class Layers(torch.nn.Module):
    """With and without a bias, with a function behind it, and two that read the same."""

    def __init__(self, inputs=INPUTS):
        super().__init__()
        self.a, self.b = torch.nn.Linear(inputs, 24), torch.nn.Linear(inputs, 40, bias=False)
        self.c = torch.nn.Linear(inputs, 7)

    def forward(self, x):
        return torch.cat([torch.relu(self.a(x)), self.b(x), torch.nn.functional.silu(self.c(x * 0.5 + 0.25))], -1)


class Images(torch.nn.Module):
    """A convolution with a function behind it."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Conv2d(6, 20, 3, padding=1)

    def forward(self, x):
        return self.a(x).relu()


class Filters(torch.nn.Module):
    """Convolutions that XNNPACK's quantizer leaves as they are, as it would write them: of groups, of each channel, of one dimension."""

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(6)
        for name, sizes in {"b": (8, 3, 3, 3), "c": (6, 1, 3, 3), "d": (5, 9, 3)}.items():
            self.register_buffer(name, torch.randint(-127, 128, sizes, generator=random, dtype=torch.int8))
            self.register_buffer(name + "_scales", torch.rand(sizes[0], generator=random) * 0.01 + 0.001)
            self.register_buffer(name + "_zeros", torch.zeros(sizes[0], dtype=torch.int64))

    def weight(self, name):
        return torch.ops.quantized_decomposed.dequantize_per_channel.default(
            getattr(self, name), getattr(self, name + "_scales"), getattr(self, name + "_zeros"), 0, -127, 127, torch.int8)

    def forward(self, x):
        b = torch.nn.functional.conv2d(dynamic(x), self.weight("b"), stride=2, padding=1, groups=2)
        c = torch.nn.functional.conv2d(dynamic(x * 0.5 + 0.25), self.weight("c"), padding=1, groups=6)
        d = torch.nn.functional.conv1d(dynamic(x.reshape(2, 9, -1)), self.weight("d"), padding=2, dilation=2)
        return b, c, d


def dynamic(x):
    ops, limits = torch.ops.quantized_decomposed, (-128, 127)
    scale, zero = ops.choose_qparams.tensor(x, *limits, 2**-12, torch.int8)
    x = ops.quantize_per_tensor.tensor(x, scale, zero, *limits, torch.int8)
    return ops.dequantize_per_tensor.tensor(x, scale, zero, *limits, torch.int8)


class Tokens(torch.nn.Module):
    """8 bits a token by 4 bits in groups, as torchao's `Int8DynActInt4WeightQuantizer` wrote it until 0.12."""

    def __init__(self, group=32, outputs=24):
        super().__init__()
        random = torch.Generator().manual_seed(5)
        self.group = group
        self.register_buffer("weight", torch.randint(-8, 8, (outputs, INPUTS), generator=random, dtype=torch.int8))
        self.register_buffer("scales", torch.rand((outputs, INPUTS // group), generator=random) * 0.1 + 0.01)
        self.register_buffer("zeros", torch.zeros((outputs, INPUTS // group)))

    def forward(self, x):
        ops = torch.ops.quantized_decomposed
        scales, zeros = ops.choose_qparams_per_token_asymmetric.default(x, torch.int8)
        x = ops.quantize_per_token.default(x, scales, zeros, -128, 127, torch.int8)
        x = ops.dequantize_per_token.default(x, scales, zeros, -128, 127, torch.int8, torch.float32)
        weight = ops.dequantize_per_channel_group.default(
            self.weight, self.scales, self.zeros, -8, 7, torch.int8, self.group, torch.float32)
        return torch.nn.functional.linear(x, weight)


def pt2e(model, x, **config):
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_dynamic=True, **config))
    prepared = prepare_pt2e(torch.export.export(model, (x,), strict=False).module(), quantizer)
    prepared(x)
    return convert_pt2e(prepared)


def torchao(model):
    quantize_(model, Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=PerGroup(32)))
    return model


def rows(*sizes):
    """Numbers around a middle of their own, numbers that are all positive, nothing but zeros, and some that are very far apart."""
    random = torch.Generator().manual_seed(7)
    x = torch.randn(sizes, generator=random)
    return [x + 0.7, x.abs() + 3.0, torch.zeros(sizes), x * torch.logspace(-4, 1, sizes[-2])[:, None]]


def write(name, program, inputs):
    exported = torch.export.export(program, (inputs[0],), strict=False)
    torch.export.save(exported, HERE / f"dynamic_{name}.pt2")
    results = [program(x) for x in inputs]
    tensors = {f"x{at}": x.contiguous() for at, x in enumerate(inputs)}
    for at, result in enumerate(results):
        for k, y in enumerate(result if isinstance(result, tuple) else (result,)):
            tensors[f"y{at}" if not isinstance(result, tuple) else f"y{at}.{k}"] = y.contiguous()
    safetensors.torch.save_file(tensors, HERE / f"dynamic_{name}.safetensors")
    print(name, sorted({str(node.target) for node in exported.graph.nodes if node.op == "call_function"}))


def seeded(module, *args):
    torch.manual_seed(3)
    return module(*args).eval()


with torch.no_grad():
    x, images = rows(2, 5, INPUTS), rows(2, 6, 6, 7)
    write("channels", pt2e(seeded(Layers), x[0], is_per_channel=True), x)
    write("tensor", pt2e(seeded(Layers), x[0], is_per_channel=False), x)
    write("four", pt2e(seeded(Layers), x[0], is_per_channel=True, weight_qmin=-8, weight_qmax=7), x)
    write("images", pt2e(seeded(Images), images[0], is_per_channel=True), images)
    write("filters", seeded(Filters), images)
    write("tokens", seeded(Tokens), x)
    write("8da4w", torchao(seeded(Layers)), x)
