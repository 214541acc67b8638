"""An inverted residual block on an image so large that what lies between its convolutions should not be in memory as a whole.

    PYTHON inverted_residual.py

writes `inverted_residual.pt2` and `inverted_residual.safetensors` (`x`, `y` in eager PyTorch) beside it. torch 2.15.0.
"""

import pathlib

import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
# 48 channels of 41 by 43 floats are 338 kB.
CHANNELS, WIDE, HEIGHT, WIDTH = 6, 48, 41, 43


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(CHANNELS, WIDE, 1)
        self.filter = nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=WIDE, bias=False)
        self.norm = nn.BatchNorm2d(WIDE)
        self.project = nn.Conv2d(WIDE, CHANNELS, 1)
        self.widen = nn.Conv2d(CHANNELS, WIDE, 1)
        self.shrink = nn.Conv2d(WIDE, WIDE, 5, stride=2, padding=2, groups=WIDE)

    def forward(self, x):
        y = nn.functional.hardswish(self.norm(self.filter(torch.clamp(self.expand(x), 0, 6))))
        x = x + self.project(y)
        return self.shrink(torch.relu(self.widen(x)))


torch.manual_seed(0)
model = Block()
model.norm.running_mean.uniform_(-0.1, 0.1)
model.norm.running_var.uniform_(0.5, 1.5)
model.eval()
x = torch.randn(1, CHANNELS, HEIGHT, WIDTH)
with torch.no_grad():
    torch.export.save(torch.export.export(model, (x,), strict=False), HERE / "inverted_residual.pt2")
    safetensors.torch.save_file({"x": x, "y": model(x)}, HERE / "inverted_residual.safetensors")
