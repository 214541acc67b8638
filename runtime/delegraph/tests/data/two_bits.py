"""A product with weights of 2 bits in groups of 16 columns, as torchao writes them, with zero points and without.

    PYTHON two_bits.py

writes `two_bits.pt2` and `two_bits.safetensors` (`x`, `y` in eager PyTorch) beside it. torch 2.15.0, torchao 0.17.0.
"""

import pathlib

import safetensors.torch
import torch
import torchao  # noqa: F401, registers the operators
from torchao.quantization.quant_primitives import dequantize_affine

HERE = pathlib.Path(__file__).parent
ROWS, COLUMNS, GROUP = 24, 64, 16


class Product(torch.nn.Module):
    def __init__(self, seed, zeros):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("values", torch.randint(-2, 2, (ROWS, COLUMNS), generator=random, dtype=torch.int8))
        self.register_buffer("scales", torch.rand((ROWS, COLUMNS // GROUP), generator=random) + 0.1)
        points = torch.randint(-2, 2, (ROWS, COLUMNS // GROUP), generator=random, dtype=torch.int8)
        self.register_buffer("zeros", points if zeros else torch.zeros_like(points))

    def forward(self, x):
        weight = dequantize_affine(self.values, (1, GROUP), self.scales, self.zeros, torch.int8, -2, 1)
        return torch.nn.functional.linear(x, weight)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.plain, self.shifted = Product(0, False), Product(1, True)

    def forward(self, x):
        return torch.cat([self.plain(x), self.shifted(x)], -1)


model = Model().eval()
x = torch.randn((3, COLUMNS), generator=torch.Generator().manual_seed(2))
torch.export.save(torch.export.export(model, (x,), strict=False), HERE / "two_bits.pt2")
safetensors.torch.save_file({"x": x, "y": model(x)}, HERE / "two_bits.safetensors")
