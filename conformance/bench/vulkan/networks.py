"""MobileNetV2, ResNet-50 and ViT-B/16 in plain `torch.nn`, from the tables of their papers, with random weights of a fixed seed.

Layers are as the papers have them, at 224x224 and 1000 classes:

- MobileNetV2, width 1.0: Sandler et al., arXiv 1801.04381, table 2.
- ResNet-50: He et al., arXiv 1512.03385, table 1; the stride of a block is on its 3x3 convolution, as is usual since.
- ViT-B/16: Dosovitskiy et al., arXiv 2010.11929, table 1; norms before attention and MLP.
"""

import torch
from torch import nn

F = nn.functional


def conv_norm(inputs, outputs, kernel, stride=1, groups=1, activation=None):
    """A convolution without bias, its batch norm, and an activation or none."""
    padding = (kernel - 1) // 2
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class InvertedResidual(nn.Module):
    """1x1 that expands, 3x3 depthwise, 1x1 that projects without an activation."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        expand = [conv_norm(inputs, wide, 1, activation=nn.ReLU6)] if expansion != 1 else []
        depthwise = conv_norm(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6)
        self.layers = nn.Sequential(*expand, depthwise, conv_norm(wide, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNetV2(nn.Module):
    # Expansion, channels, blocks, stride of the first.
    TABLE = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self):
        super().__init__()
        layers, channels = [conv_norm(3, 32, 3, 2, activation=nn.ReLU6)], 32
        for expansion, outputs, blocks, stride in self.TABLE:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, conv_norm(channels, 1280, 1, activation=nn.ReLU6))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the channels, and a shortcut that is projected where sizes change."""

    def __init__(self, inputs, channels, stride):
        super().__init__()
        outputs = channels * 4
        self.layers = nn.Sequential(
            conv_norm(inputs, channels, 1, activation=nn.ReLU),
            conv_norm(channels, channels, 3, stride, activation=nn.ReLU),
            conv_norm(channels, outputs, 1),
        )
        self.shortcut = conv_norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x))


class ResNet50(nn.Module):
    # Channels, blocks, stride of the first.
    TABLE = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]

    def __init__(self):
        super().__init__()
        layers, inputs = [conv_norm(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
        for channels, blocks, stride in self.TABLE:
            for block in range(blocks):
                layers.append(Bottleneck(inputs, channels, stride if block == 0 else 1))
                inputs = channels * 4
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.classifier(self.features(x))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViTB16(nn.Module):
    def __init__(self, width=768, layers=12, heads=12, hidden=3072, patch=16, size=224):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads, hidden) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(x.shape[0], -1, -1), patches), 1) + self.positions
        return self.head(self.norm(self.layers(tokens))[:, 0])


# Name, class, seed.
NETWORKS = [("mobilenet-v2", MobileNetV2, 1), ("resnet-50", ResNet50, 2), ("vit-b-16", ViTB16, 3)]


def make(network, seed):
    """The network in eval mode. Its norms have seen an image and then been disturbed, so that none is the identity, and numbers stay near one."""
    torch.manual_seed(seed)
    model = network()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.2)
        if norms:
            model.train()(torch.randn(2, 3, 224, 224))
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    return model.eval()


def image(seed):
    """An input."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(1, 3, 224, 224, generator=generator)
