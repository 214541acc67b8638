"""Images that change their size between convolutions: pools, other sizes, channels that become pixels, concatenations.

    PYTHON images.py

writes beside it `images_unet.pt2` and `images_sizes.pt2`, and of each a `.safetensors` with the input `x0` and PyTorch's results `y0.0`, `y0.1`, ... in
eager mode. torch 2.15.0.
"""

import pathlib

import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
F = nn.functional


def double(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger et al., arXiv 1505.04597, of three levels: one decoded by a transposed convolution, one by a resizing."""

    def __init__(self, channels=8):
        super().__init__()
        self.down = nn.ModuleList([double(3, channels), double(channels, 2 * channels), double(2 * channels, 4 * channels)])
        self.up = nn.ConvTranspose2d(4 * channels, 2 * channels, 2, stride=2)
        self.middle = double(4 * channels, 2 * channels)
        self.last = double(3 * channels, channels)
        self.head = nn.Conv2d(channels, 2, 1)

    def forward(self, x):
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        c = self.middle(torch.cat([self.up(c), b], 1))
        c = F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=False)
        return (self.head(self.last(torch.cat([c, a], 1))),)


class Sizes(nn.Module):
    """Each between two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.ModuleList(
            [nn.Conv2d(8, 4, 1) for _ in range(6)] + [nn.Conv2d(2, 4, 1), nn.Conv2d(32, 4, 1)])

    def forward(self, x):
        x = self.first(x)
        resized = [
            F.interpolate(x, scale_factor=2, mode="nearest"),
            F.interpolate(x, size=(7, 5), mode="nearest"),
            F.interpolate(x, scale_factor=1.7, mode="bilinear"),
            F.interpolate(x, size=(15, 13), mode="bilinear", align_corners=True),
            F.adaptive_avg_pool2d(x, (4, 2)),
            F.adaptive_avg_pool2d(x, 1),
            F.pixel_shuffle(x, 2),
            F.pixel_unshuffle(x, 2),
        ]
        return tuple(layer(x) for layer, x in zip(self.last, resized))


def write(name, model, x):
    model.eval()
    torch.export.save(torch.export.export(model, (x,), strict=False), HERE / f"{name}.pt2")
    tensors = {"x0": x} | {f"y0.{k}": y.contiguous() for k, y in enumerate(model(x))}
    safetensors.torch.save_file(tensors, HERE / f"{name}.safetensors")


torch.manual_seed(12)
with torch.no_grad():
    write("images_unet", UNet(), torch.randn(1, 3, 16, 12))
    write("images_sizes", Sizes(), torch.randn(2, 4, 8, 6))
