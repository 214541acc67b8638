"""Quantizes two small float models by PT2E in eager PyTorch, and records what its observers and its outputs are.

For each model, a folder with `model.pt2` (float), `calibration.safetensors` (`INPUT.N`), and `pt2e.json`: for each value that PT2E
observed, the range that MinMaxObserver saw and the scale and zero point that it chose; for each output, signal to noise of the
quantized model against the float one, over the same samples. `partitioner/quant/tests/pt2e.rs` reads them.

    python make.py OUTPUT-FOLDER      # torch 2.15, torchao, executorch 1.5
"""

import json
import math
import pathlib
import sys

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import QuantizationConfig
from safetensors.torch import save_file
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec

SAMPLES = 8


class Convnet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(16)
        self.depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = torch.nn.Conv2d(16, 16, 1)
        self.last = torch.nn.Conv2d(16, 24, 3, padding=1)
        self.classify = torch.nn.Linear(24, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        y = torch.nn.functional.hardtanh(self.depthwise(x), 0.0, 6.0)
        x = x + self.point(y)
        x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.last(x))
        return self.classify(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(torch.nn.Module):
    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (torch.nn.Linear(width, width) for _ in range(4))
        self.up, self.down = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, x):
        batch, length, width = x.shape
        split = lambda t: t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


def settings():
    """As XNNPACK's static settings a channel, but with MinMaxObserver for activations."""
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=torch.finfo(torch.float32).eps),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=torch.finfo(torch.float32).eps),
    )
    return QuantizationConfig(activation, activation, weight, None)


def snr(pairs):
    signal = sum((want.double() ** 2).sum().item() for want, _ in pairs)
    noise = sum(((want.double() - got.double()) ** 2).sum().item() for want, got in pairs)
    return 10 * math.log10(signal / noise)


def record(folder, name, model, samples):
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    exported = torch.export.export(model, (samples[0],))
    torch.export.save(exported, folder / "model.pt2")
    save_file({f"x.{i}": sample.contiguous() for i, sample in enumerate(samples)}, folder / "calibration.safetensors")
    prepared = prepare_pt2e(exported.module(), XNNPACKQuantizer().set_global(settings()))
    for sample in samples:
        prepared(sample)
    values = {}
    for node in prepared.graph.nodes:
        if node.op != "call_module" or not node.target.startswith("activation_post_process"):
            continue
        observer = getattr(prepared, node.target)
        if not isinstance(observer, MinMaxObserver):
            continue
        scale, zero_point = observer.calculate_qparams()
        values[node.args[0].name] = {
            "min": observer.min_val.item(),
            "max": observer.max_val.item(),
            "scale": scale.item(),
            "zero_point": int(zero_point.item()),
        }
    quantized = convert_pt2e(prepared)
    pairs = [(exported.module()(sample), quantized(sample)) for sample in samples]
    result = {"torch": torch.__version__, "values": values, "snr_db": snr(pairs)}
    (folder / "pt2e.json").write_text(json.dumps(result, indent=1) + "\n")
    print(name, len(values), "values", round(result["snr_db"], 2), "dB")


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(7)
    model = Convnet()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.3, 0.3)
        model.norm.running_var.uniform_(0.3, 1.5)
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.uniform_(-0.5, 0.5)
    record(folder, "convnet", model, [torch.randn(1, 3, 24, 24) for _ in range(SAMPLES)])
    record(folder, "attention", Attention(), [torch.randn(1, 12, 32) for _ in range(SAMPLES)])


main()
