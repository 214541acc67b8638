"""The networks that are timed: real architectures, random weights of a fixed seed, fixed sizes.

`build(name, work)` gives a module and its inputs. The first call writes the weights to WORK/weights/NAME.safetensors; every later call loads
these, from whichever environment it comes, so that all engines run the same numbers. Nothing is downloaded.
"""

import torch
from safetensors.torch import load_file, save_file
from torch import nn

F = nn.functional
SEED = 20


class ConvNet(nn.Module):
    """Two convolutions with pools and two linears, for images of 32x32: so small that what an engine costs beside its kernels shows."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        return self.classifier(self.features(x))


class Residual(nn.Module):
    """Two 3x3 convolutions around a rectifier, and what came in."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x):
        return x + self.layers(x)


class SuperResolution(nn.Module):
    """EDSR's baseline, twice the size: Lim et al., arXiv 1707.02921. 16 blocks of 64 channels."""

    def __init__(self, blocks=16, channels=64):
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(Residual(channels) for _ in range(blocks)), nn.Conv2d(channels, channels, 3, padding=1))
        self.tail = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, x):
        x = self.head(x)
        return self.tail(x + self.body(x))


class Recurrent(nn.Module):
    """Two layers of LSTM and a linear."""

    def __init__(self, inputs=64, width=256, layers=2, outputs=32):
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, layers, batch_first=True)
        self.linear = nn.Linear(width, outputs)

    def forward(self, x):
        return self.linear(self.lstm(x)[0])


class Bert(nn.Module):
    """The encoder of `transformers`, all of 128 tokens visible, which is how a fixed length is deployed."""

    def __init__(self, layers, width, heads, hidden):
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=hidden, attn_implementation="sdpa")
        self.model = BertModel(config, add_pooling_layer=False)

    def forward(self, tokens):
        x = self.model.embeddings(input_ids=tokens)
        for layer in self.model.encoder.layer:
            result = layer(x)
            x = result[0] if isinstance(result, tuple) else result
        return x


class Add(nn.Module):
    """One addition of one number: what is left is what a run costs."""

    def forward(self, x, y):
        return x + y


def vision(name):
    def make():
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return make


def floats(*sizes):
    return lambda: tuple(torch.randn(*size) for size in sizes)


def tokens():
    return (torch.randint(0, 30000, (1, 128)),)


IMAGE = floats((1, 3, 224, 224))
# Name: what makes the module, what makes its inputs.
ZOO = {
    "mv2": (vision("mobilenet_v2"), IMAGE),
    "mv3s": (vision("mobilenet_v3_small"), IMAGE),
    "convnet": (ConvNet, floats((1, 3, 32, 32))),
    "bert_tiny": (lambda: Bert(2, 128, 2, 512), tokens),
    "lstm": (Recurrent, floats((1, 32, 64))),
    "edsr": (SuperResolution, floats((1, 3, 64, 64))),
    "minilm_l6": (lambda: Bert(6, 384, 12, 1536), tokens),
    "resnet50": (vision("resnet50"), IMAGE),
    "vit_b16": (vision("vit_b_16"), IMAGE),
    "add1": (Add, floats((1,), (1,))),
}
# Those that have an int8 form too. Random weights have no calibration worth the name: its error says whether an engine computes the same
# network at all, and nothing about int8.
QUANTIZED = ["mv2", "resnet50"]


def settle(module, inputs):
    """Norms get the statistics of their inputs, because values drift into denormals through those that never saw any; and a last layer
    that begins as zeros gets numbers."""
    norms = [part for part in module.modules() if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))]
    module.eval()
    for norm in norms:
        norm.train().momentum = None
    if norms:
        module(*([torch.randn(8, *inputs[0].shape[1:])] if len(inputs) == 1 else inputs))
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)


def build(name, work, zoo=ZOO):
    """The module in eval mode and its inputs."""
    constructor, make_inputs = zoo[name]
    torch.manual_seed(SEED)
    module = constructor()
    torch.manual_seed(SEED + 1)
    inputs = make_inputs()
    if module.state_dict():
        path = work / "weights" / f"{name}.safetensors"
        if path.exists():
            # Into a state of the module's own, which knows the versions of its parts; MNASNet asks for them.
            state = module.state_dict()
            state.update(load_file(path))
            module.load_state_dict(state)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                settle(module, inputs)
            unfinished = path.with_suffix(".tmp")
            save_file({key: value.clone().contiguous() for key, value in module.state_dict().items()}, unfinished)
            unfinished.rename(path)
    return module.eval(), inputs
