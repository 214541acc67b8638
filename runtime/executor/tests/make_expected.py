"""Writes data/expected.json: inputs and outputs of the programs in ../../pte/tests/data, as ExecuTorch 1.5.1 runs them.

Needs the `executorch` 1.5.1 wheel. Each entry is one loaded method; its runs follow each other, so that state shows.
"""

import json
import pathlib

import torch
from executorch.runtime import Runtime

HERE = pathlib.Path(__file__).parent
PROGRAMS = HERE / "../../pte/tests/data"
DTYPES = {0: torch.uint8, 1: torch.int8, 3: torch.int32, 4: torch.int64, 5: torch.float16, 6: torch.float32, 11: torch.bool}
# (file, method, sizes of the first dimension of every input for each run; None: as in the file)
CASES = [
    ("arch-cond.pte", "forward", [None, None, None]),
    ("arch-map.pte", "forward", [None]),
    ("arch-scan.pte", "forward", [None, None]),
    ("arch-mlp-dynamic-batch.pte", "forward", [1, 64, 3]),
    ("arch-multi-output.pte", "forward", [None]),
    ("dim-order.pte", "forward", [None]),
    ("two-methods.pte", "forward", [None]),
    ("two-methods.pte", "other", [None]),
    ("two-methods.pte", "max_len", [None]),
    ("two-methods.pte", "eps", [None]),
    ("mutable-buffer.pte", "forward", [None, None, None]),
    ("mutable-buffer-initialised.pte", "forward", [None, None, None]),
]


def leaf(value):
    if not torch.is_tensor(value):
        return {"number": value}
    name = str(value.dtype).removeprefix("torch.")
    flat = value.contiguous().flatten()
    return {"dtype": name, "shape": list(value.shape), "data": flat.to(torch.float64).tolist()}


def main():
    runtime = Runtime.get()
    generator = torch.Generator().manual_seed(11)
    entries = []
    for file, name, batches in CASES:
        method = runtime.load_program(PROGRAMS / file).load_method(name)
        runs = []
        for number, batch in enumerate(batches):
            inputs = []
            for index in range(method.metadata.num_inputs()):
                meta = method.metadata.input_tensor_meta(index)
                sizes = list(meta.sizes())
                if batch is not None:
                    sizes[0] = batch
                dtype = DTYPES[meta.dtype()]
                if dtype is torch.bool:
                    value = torch.full(sizes, number % 2 == 0)
                else:
                    value = torch.randn(sizes, generator=generator).mul(2).to(dtype)
                    # Both branches of `cond` look at the sign of a sum.
                    value = value + (2 if number % 2 == 0 else -2)
                inputs.append(value)
            outputs = [leaf(out) for out in method.execute(inputs)]
            runs.append({"inputs": [leaf(value) for value in inputs], "outputs": outputs})
        entries.append({"file": file, "method": name, "runs": runs})
    text = json.dumps(entries, separators=(",", ":")).replace('{"file"', '\n{"file"')
    (HERE / "data/expected.json").write_text(text + "\n")


main()
