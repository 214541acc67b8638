"""The models of ExecuTorch's backend test suite (`backends/test/suite/models` in its repository): 20 of torchvision and 3 of torchaudio.

    PYTHON conformance/bench/cpu/suite.py WORK [--models LIST]

writes each, with random weights, as `.pt2` and as a program that is lowered to XNNPACK, as `export.py` does. Sizes are the suite's own. PYTHON
has executorch, torchvision and torchaudio.
"""

import pathlib
import sys

import torch
from torch import nn

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from export import main  # noqa: E402
from zoo import IMAGE, floats, vision  # noqa: E402

VISION = [
    "alexnet", "convnext_small", "densenet161", "efficientnet_b4", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet1_0",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_1_6gf", "resnet50", "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_v2_t",
    "vgg11", "vit_b_16", "wide_resnet50_2",
]


class Conformer(nn.Module):
    """Takes the mask of padding in place of lengths, from which a graph cannot make it; the suite does so too."""

    def __init__(self):
        super().__init__()
        import torchaudio

        self.model = torchaudio.models.Conformer(input_dim=80, num_heads=4, ffn_dim=128, num_layers=4, depthwise_conv_kernel_size=31)

    def forward(self, frames, padding):
        x = frames.transpose(0, 1)
        for layer in self.model.conformer_layers:
            x = layer(x, padding)
        return x.transpose(0, 1)


def utterances():
    """Ten of up to 400 frames, and which of them are padding."""
    lengths = torch.randint(1, 400, (10,))
    longest = int(lengths.max())
    return torch.rand(10, longest, 80), torch.arange(longest)[None, :] >= lengths[:, None]


def wav2letter():
    import torchaudio

    return torchaudio.models.Wav2Letter()


def wavernn():
    import torchaudio

    return torchaudio.models.WaveRNN(upsample_scales=[5, 5, 8], n_classes=512, hop_length=200)


SUITE = {name: (vision(name), IMAGE) for name in VISION} | {
    "conformer": (Conformer, utterances),
    "wav2letter": (wav2letter, floats((1, 1, 1024))),
    # 12,000 steps, which ExecuTorch's export would unroll; its suite skips the model for the time that it takes.
    "wavernn": (wavernn, floats((1, 1, 60 * 200), (1, 1, 128, 64))),
}

if __name__ == "__main__":
    main(SUITE, formats="pt2,xnnpack", skipped={("wavernn", "xnnpack")})
