"""Transposed convolutions as decoders and vocoders have them.

    PYTHON transposed.py

writes beside it `transposed_2d.pt2` and `transposed_1d.pt2`, and of each a `.safetensors` with the input `x0` and PyTorch's results `y0.0`, `y0.1`, ...
in eager mode. torch 2.15.0.
"""

import pathlib

import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent


class Images(nn.Module):
    """Kernels as U-Net, DCGAN and FCN have them, groups, dilation, sizes that are no multiples, and two of stride 1."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([
            nn.ConvTranspose2d(8, 20, 2, stride=2),
            nn.Sequential(nn.ConvTranspose2d(8, 5, 3, stride=2, padding=1, output_padding=1, bias=False), nn.ReLU()),
            nn.Sequential(nn.ConvTranspose2d(8, 17, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(17), nn.LeakyReLU(0.2)),
            nn.Sequential(nn.ConvTranspose2d(8, 3, (3, 5), stride=(3, 2), padding=(0, 3), output_padding=(2, 1), dilation=(2, 3)), nn.Tanh()),
            nn.ConvTranspose2d(8, 12, 3, stride=2, groups=2),
            nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8),
            nn.ConvTranspose2d(8, 6, 3, padding=1),
            nn.ConvTranspose2d(8, 4, 3, stride=1, padding=2, dilation=2, groups=2),
        ])

    def forward(self, x):
        return tuple(layer(x) for layer in self.layers)


class Rows(nn.Module):
    """HiFi-GAN's: twice the length of the kernel by the stride."""

    def __init__(self):
        super().__init__()
        self.a = nn.ConvTranspose1d(16, 8, 16, stride=8, padding=4)
        self.b = nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1)
        self.c = nn.Conv1d(4, 1, 7, padding=3)

    def forward(self, x):
        x = torch.nn.functional.leaky_relu(self.a(x), 0.1)
        x = torch.nn.functional.leaky_relu(self.b(x), 0.1)
        return (torch.tanh(self.c(x)),)


def write(name, model, x):
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(), part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 2), part.bias.data.normal_()
    model.eval()
    torch.export.save(torch.export.export(model, (x,), strict=False), HERE / f"{name}.pt2")
    tensors = {"x0": x} | {f"y0.{k}": y.contiguous() for k, y in enumerate(model(x))}
    safetensors.torch.save_file(tensors, HERE / f"{name}.safetensors")


torch.manual_seed(11)
with torch.no_grad():
    write("transposed_2d", Images(), torch.randn(2, 8, 5, 7))
    write("transposed_1d", Rows(), torch.randn(1, 16, 13))
