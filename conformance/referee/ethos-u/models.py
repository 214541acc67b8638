"""Small float models with random weights, and recorded ones, with inputs to calibrate them and to compare by."""

import pathlib

import torch
from safetensors.torch import load_file

CALIBRATION, COMPARED = 8, 4
# Recorded float models, with the size of the batch that is fixed; None: as it is.
RECORDED = {"arch-mobilenet-v2-quarter": None, "crepe-tiny": 1}


class Int8Convnet(torch.nn.Module):
    """The layers of the recorded model `arch-int8-convnet`."""

    def __init__(self):
        super().__init__()
        self.c1 = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.c2 = torch.nn.Conv2d(8, 16, 3, stride=2, groups=8)
        self.f = torch.nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.c2(torch.relu(self.c1(x))))
        x = x + torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1)
        return self.f(x.mean((2, 3)))


class Residual(torch.nn.Module):
    """A block of ResNet's with a way around it that is a convolution, and one without."""

    def __init__(self, width=16):
        super().__init__()
        layers = lambda size, stride, padding, come: torch.nn.Sequential(
            torch.nn.Conv2d(come, width, size, stride, padding, bias=False), torch.nn.BatchNorm2d(width)
        )
        self.stem, self.first, self.second = layers(3, 1, 1, 3), layers(3, 2, 1, width), layers(3, 1, 1, width)
        self.around, self.third, self.fourth = layers(1, 2, 0, width), layers(3, 1, 1, width), layers(3, 1, 1, width)
        self.classify = torch.nn.Linear(width, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + self.around(x))
        x = torch.relu(self.fourth(torch.relu(self.third(x))) + x)
        return self.classify(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(torch.nn.Module):
    """A transformer's block: layer norm, attention, layer norm, two layers."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (torch.nn.Linear(width, width) for _ in range(4))
        self.up, self.down = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, width)
        self.before, self.between = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)

    def forward(self, x):
        batch, length, width = x.shape
        y = self.before(x)
        split = lambda t: t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
        query, key, value = split(self.query(y)), split(self.key(y)), split(self.value(y))
        weights = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.between(x))))


class Keyword(torch.nn.Module):
    """Keyword spotting as DS-CNN does it: a wide convolution over the spectrogram, then depthwise and pointwise ones in turn."""

    def __init__(self, width=24, blocks=3):
        super().__init__()
        layers = [torch.nn.Conv2d(1, width, (10, 4), stride=(2, 2), padding=(4, 1), bias=False)]
        for _ in range(blocks):
            layers += [torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            layers += [torch.nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)]
            layers += [torch.nn.BatchNorm2d(width), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 1, bias=False)]
        self.layers = torch.nn.Sequential(*layers, torch.nn.BatchNorm2d(width), torch.nn.ReLU())
        self.classify = torch.nn.Linear(width, 12)

    def forward(self, x):
        return self.classify(torch.nn.functional.adaptive_avg_pool2d(self.layers(x), 1).flatten(1))


class MobileNetV2(torch.nn.Module):
    """MobileNetV2 of a quarter's width. (The recorded `arch-mobilenet-v2-quarter` has values below the quantizer's smallest scale.)"""

    def __init__(self, width=0.25):
        super().__init__()
        wide = lambda channels: max(8, int(channels * width + 4) // 8 * 8)
        layers = lambda come, go, size, stride, groups=1: [
            torch.nn.Conv2d(come, go, size, stride, size // 2, groups=groups, bias=False),
            torch.nn.BatchNorm2d(go),
        ]
        come = wide(32)
        self.stem = torch.nn.Sequential(*layers(3, come, 3, 2), torch.nn.ReLU6())
        self.blocks, self.around = torch.nn.ModuleList(), []
        for factor, channels, count, first in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
        ):  # fmt: skip
            for number in range(count):
                go, stride, inner = wide(channels), first if number == 0 else 1, come * factor
                expand = [*layers(come, inner, 1, 1), torch.nn.ReLU6()] if factor > 1 else []
                depthwise = [*layers(inner, inner, 3, stride, inner), torch.nn.ReLU6()]
                self.blocks.append(torch.nn.Sequential(*expand, *depthwise, *layers(inner, go, 1, 1)))
                self.around.append(stride == 1 and come == go)
                come = go
        self.last = torch.nn.Sequential(*layers(come, 1280, 1, 1), torch.nn.ReLU6())
        self.classify = torch.nn.Linear(1280, 10)

    def forward(self, x):
        x = self.stem(x)
        for block, around in zip(self.blocks, self.around):
            x = x + block(x) if around else block(x)
        return self.classify(torch.nn.functional.adaptive_avg_pool2d(self.last(x), 1).flatten(1))


# Module and the sizes of its input.
SMALL = {
    "int8-convnet": (Int8Convnet, (1, 3, 16, 16)),
    "residual": (Residual, (1, 3, 32, 32)),
    "attention": (Attention, (1, 16, 32)),
    "keyword": (Keyword, (1, 1, 49, 10)),
    "mobilenet-v2-quarter": (MobileNetV2, (1, 3, 64, 64)),
}


def trained(module):
    """Norms as after some training, whose values are not 0 and 1; in a deep net, layers that keep the size of their values."""
    for part in module.modules():
        if isinstance(module, MobileNetV2) and isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
        if isinstance(part, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, -0.5, 0.5)
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(part.running_var, 0.3, 1.5)
    return module.eval()


def small(name):
    """Module, inputs to calibrate by, inputs to compare by."""
    make, sizes = SMALL[name]
    torch.manual_seed(8)
    module = trained(make())
    inputs = [(torch.randn(sizes),) for _ in range(CALIBRATION + COMPARED)]
    return module, inputs[:CALIBRATION], inputs[CALIBRATION:]


def recorded(folder: pathlib.Path):
    """The same of a recorded model of one input. Other inputs than the recorded ones are these, louder, softer and noisy."""
    batch = RECORDED[folder.name]
    module = torch.export.load(folder / "model.pt2").module(check_guards=False)
    kept = [tensor for name, tensor in sorted(load_file(folder / "inputs.safetensors").items())]
    if batch is not None:
        kept = [part for tensor in kept for part in tensor.split(batch) if len(part) == batch]
    torch.manual_seed(8)
    inputs = list(kept)
    while len(inputs) < CALIBRATION + COMPARED:
        base = kept[len(inputs) % len(kept)]
        inputs.append(base * (0.5 + torch.rand(())) + 0.1 * base.std() * torch.randn(base.shape))
    inputs = [(tensor,) for tensor in inputs]
    return module, inputs[-CALIBRATION:], inputs[:COMPARED]
