"""A network that PT2E has quantized ahead of time, with pools and concatenations between its convolutions.

    PYTHON pools_int8.py

writes beside it `pools_int8.pt2`, and `pools_int8.safetensors` with inputs `x0`, `x1` and what the program gives for them in eager PyTorch, `y0`, `y1`.
torch 2.15.0, torchao 0.18.0, executorch 1.5.1.
"""

import pathlib

import safetensors.torch
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

HERE = pathlib.Path(__file__).parent
F = nn.functional


class Pools(nn.Module):
    """As GoogLeNet and DenseNet have them."""

    def __init__(self):
        super().__init__()
        self.first, self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 12, 3, padding=1)
        self.c, self.d = nn.Conv2d(20, 24, 1), nn.Conv2d(24, 8, 3, padding=1)
        self.last = nn.Linear(8 * 2 * 3, 5)

    def forward(self, x):
        x = F.max_pool2d(self.first(x).relu(), 3, stride=2, padding=1)
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        x = F.avg_pool2d(self.c(x), 3, stride=1, padding=1)
        x = F.max_pool2d(self.d(x).relu(), 2)
        x = F.adaptive_avg_pool2d(x, (2, 3))
        return self.last(x.flatten(1))


torch.manual_seed(13)
with torch.no_grad():
    model, inputs = Pools().eval(), [torch.randn(2, 3, 16, 24), torch.randn(2, 3, 16, 24) * 0.3 + 0.5]
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(model, (inputs[0],), strict=False).module(), quantizer)
    for _ in range(4):
        prepared(torch.randn(2, 3, 16, 24))
    program = convert_pt2e(prepared)
    exported = torch.export.export(program, (inputs[0],), strict=False)
    torch.export.save(exported, HERE / "pools_int8.pt2")
    tensors = {f"x{at}": x for at, x in enumerate(inputs)} | {f"y{at}": program(x).contiguous() for at, x in enumerate(inputs)}
    safetensors.torch.save_file(tensors, HERE / "pools_int8.safetensors")
    for node in exported.graph.nodes:
        print(node.name, node.target, [str(a)[:40] for a in node.args])
