"""Exports MobileNetV2, ResNet-50 and ViT-B/16 with random weights, and what PyTorch computes with them.

    PYTHON conformance/bench/vulkan/export.py FOLDER [NAME...]

FOLDER/NAME/ gets `model.pt2` (torch.export), `inputs.safetensors`, `expected.safetensors` (eager mode, float32 on the CPU), and for
mobilenet-v2 `traced.pt`, which `pnnx` converts. Weights are random and of a fixed seed: nothing here is downloaded, and nothing is committed.
"""

import argparse
import pathlib
import sys

import torch
from safetensors.torch import save_file

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from networks import NETWORKS, image, make  # noqa: E402


def export(folder, name, network, seed):
    folder.mkdir(parents=True, exist_ok=True)
    model, x = make(network, seed), image(seed)
    with torch.no_grad():
        y = model(x)
        exported = torch.export.export(model, (x,))
        torch.export.save(exported, folder / "model.pt2")
        if name == "mobilenet-v2":
            torch.jit.trace(model, x).save(folder / "traced.pt")
    save_file({"0": x.contiguous()}, folder / "inputs.safetensors")
    # Last: who finds it finds all.
    save_file({"0": y.contiguous()}, folder / "expected.safetensors")
    count = sum(p.numel() for p in model.parameters())
    print(f"{name}: {count} parameters, outputs {y.std():.3f} around {y.mean():.3f}, largest {y.abs().max():.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="of " + ", ".join(name for name, _, _ in NETWORKS) + "; all, if absent")
    args = parser.parse_args()
    unknown = set(args.names) - {name for name, _, _ in NETWORKS}
    if unknown:
        parser.error(f"there is no network {sorted(unknown)}")
    for name, network, seed in NETWORKS:
        if not args.names or name in args.names:
            export(args.folder / name, name, network, seed)


if __name__ == "__main__":
    main()
