"""What 16 bits leave of a recorded model: each tensor that an operator of it makes, each parameter and each input is rounded to f16, and everything
between is computed in f32 by PyTorch. No device that keeps its tensors in f16 can be expected to do better by more than luck.

    python half.py FOLDER_OF_A_MODEL ...     # each with model.pt2, inputs.safetensors, expected.safetensors and fixture.json
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file


def rounded(value):
    """A tensor of f32 with values of f16; anything else as it is."""
    if torch.is_tensor(value) and value.dtype == torch.float32:
        return value.half().float()
    return value


class Half(torch.fx.Interpreter):
    """Rounds what each operator gives."""

    def run_node(self, node):
        return torch.utils._pytree.tree_map(rounded, super().run_node(node))


def main(folders):
    print("| model | case | output | largest difference | share of the range |")
    print("| --- | --- | --- | --- | --- |")
    for folder in map(pathlib.Path, folders):
        fixture = json.loads((folder / "fixture.json").read_text())
        inputs = load_file(folder / "inputs.safetensors")
        expected = load_file(folder / "expected.safetensors")
        module = torch.export.load(folder / "model.pt2").module()
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.data = rounded(tensor.data)
        for case in fixture["cases"]:
            step = case["steps"][0]
            arguments = [rounded(inputs[given["tensor"]]) for given in step["inputs"]]
            with torch.no_grad():
                outputs = torch.utils._pytree.tree_leaves(Half(module).run(*arguments))
            for index, (output, wanted) in enumerate(zip(outputs, step["outputs"])):
                want = expected[wanted["tensor"]]
                error, span = (output - want).abs().max().item(), want.abs().max().item()
                print(f"| {folder.name} | {case['name']} | {index} | {error:.2e} | {error / span:.2e} |")


if __name__ == "__main__":
    main(sys.argv[1:])
