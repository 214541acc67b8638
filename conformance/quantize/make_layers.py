"""Quantizes a small float model by torchao, by the schemes that need no samples, and records what torchao writes and computes.

A folder with `model.pt2` (float), `inputs.safetensors`, and for each scheme `NAME.safetensors` (of each layer `LAYER.integers` and
`LAYER.scales`, and `output`, what PyTorch computes with torchao's tensors) and `NAME.json`: the operators of torchao's export, with
the arguments that are no tensors. Scales are computed here, by the rule of `vendor-docs/quantize.md`, in torch and numpy; integers,
graph and output are torchao's. `partitioner/quant/tests/layers.rs` and `runtime/delegraph/tests/quantize.rs` read them.

    python make_layers.py OUTPUT-FOLDER      # torch 2.15, torchao 0.18
"""

import json
import pathlib
import sys

import numpy
import torch
from safetensors.torch import save_file
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8Tensor,
    IntxUnpackedToInt8TensorActivationQuantization,
)
from torchao.utils import unwrap_tensor_subclass

SCHEMES = {
    # scheme: bits, group, activations, clip, bits of the table
    "8da4w:clip=minmax": (4, 32, True, "minmax", 8),
    "8da4w;embedding=4": (4, 32, True, "mse", 4),
    "w8a8-dynamic": (8, None, True, "mse", 8),
    "w8:clip=minmax": (8, None, False, "minmax", 8),
    "w4:group=64": (4, 64, False, "mse", 8),
}


class Layers(torch.nn.Module):
    """A table that is the last layer too, and layers of 64, 96 and 48 input channels."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(40, 64)
        self.up = torch.nn.Linear(64, 96)
        self.down = torch.nn.Linear(96, 48, bias=False)
        self.out = torch.nn.Linear(48, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.head = torch.nn.Linear(64, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        y = self.down(torch.nn.functional.gelu(self.up(x)))
        return self.head(self.norm(x + self.out(torch.relu(y))))


def upward(scale):
    """The next number that f16 has."""
    scale = numpy.maximum(scale.astype(numpy.float32), numpy.float32(2.0**-23))
    near = scale.astype(numpy.float16)
    up = numpy.where(near.astype(numpy.float32) < scale, numpy.nextafter(near, numpy.float16(numpy.inf)), near)
    return up.astype(numpy.float32)


def scales(weight, bits, group, clip):
    """One scale a group: the smallest that cuts nothing off, or of that and 16 smaller ones the one with the least error."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = weight.numpy().reshape(weight.shape[0], -1, group)
    least, most = numpy.minimum(rows.min(-1), 0), numpy.maximum(rows.max(-1), 0)
    full = numpy.maximum(most / numpy.float32(high), least / numpy.float32(low))

    def error(scale):
        inverse = (numpy.float32(1) / scale)[..., None]
        back = numpy.clip(numpy.round(rows * inverse), low, high) * scale[..., None]
        return ((rows - back).astype(numpy.float64) ** 2).sum(-1)

    chosen = upward(full)
    best = error(chosen)
    for i in range(1, 17 if clip == "mse" else 1):
        tried = upward(full * (numpy.float32(1) - numpy.float32(i) * numpy.float32(0.025)))
        now = error(tried)
        chosen, best = numpy.where(now < best, tried, chosen), numpy.minimum(now, best)
    return torch.from_numpy(chosen)


def quantized(weight, bits, group, clip, dynamic):
    group = group or weight.shape[1]
    scale = scales(weight, bits, group, clip)
    return IntxUnpackedToInt8Tensor.from_hp(
        weight,
        (1, group),
        torch.int4 if bits == 4 else torch.int8,
        activation_quantization=IntxUnpackedToInt8TensorActivationQuantization.INT8_ASYM_PER_TOKEN if dynamic else None,
        intx_choose_qparams_algorithm=None,
        custom_scale=scale,
        custom_zero_point=torch.zeros_like(scale, dtype=torch.int8),
    )


def text(arg):
    """An argument that is no tensor."""
    if isinstance(arg, torch.dtype):
        return str(arg).removeprefix("torch.")
    return list(arg) if isinstance(arg, (list, tuple)) else arg


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    ids = torch.randint(0, 40, (2, 5))
    model = Layers().eval()
    with torch.no_grad():
        # Outliers, so that cutting off pays, and a row and a group of zeros.
        for layer in (model.up, model.down, model.out):
            layer.weight.mul_(torch.randn_like(layer.weight).abs())
        model.up.weight[3] = 0
        model.down.weight[2, :32] = 0
    torch.export.save(torch.export.export(model, (ids,)), folder / "model.pt2")
    save_file({"ids": ids}, folder / "inputs.safetensors")
    for scheme, (bits, group, dynamic, clip, table) in SCHEMES.items():
        model_now = Layers().eval()
        model_now.load_state_dict(model.state_dict())
        tensors = {}
        with torch.no_grad():
            for name in ("table", "up", "down", "out", "head"):
                layer = getattr(model_now, name)
                weight = layer.weight.detach().clone()
                of_table = name == "table"
                now = (table, 32 if table == 4 else None) if of_table else (bits, group)
                if now[1] and weight.shape[1] % now[1]:
                    continue
                made = quantized(weight, *now, clip, dynamic and not of_table)
                tensors[f"{name}.integers"], tensors[f"{name}.scales"] = made.qdata, made.scale
                layer.weight = torch.nn.Parameter(made, requires_grad=False)
            tensors["output"] = model_now(ids)
        unwrap_tensor_subclass(model_now)
        graph = torch.export.export(model_now, (ids,)).graph
        nodes = []
        for node in graph.nodes:
            if node.op == "call_function" and not isinstance(node.target, type(len)):
                plain = [text(arg) for arg in node.args if not isinstance(arg, torch.fx.Node)]
                nodes.append([node.target.name().removesuffix(".default"), plain])
        name = scheme.replace(":", "-").replace(";", "-").replace("=", "-")
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps({"scheme": scheme, "nodes": nodes}, indent=0) + "\n")


main(sys.argv[1])
