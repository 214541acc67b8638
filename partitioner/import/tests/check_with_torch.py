"""Runs imported programs on PyTorch's operators and compares with the recorded values.

    cargo build -p delegraph-import --example torch_source
    python check_with_torch.py FOLDER...

A folder is a fixture (conformance/fixtures/README.md). No part of Delegraph but the importer takes part.
"""
import json
import pathlib
import subprocess
import sys

import torch

EXAMPLE = pathlib.Path(__file__).parents[3] / "target/debug/examples/torch_source"


def constant(dtype, sizes, text):
    dtype = getattr(torch, dtype)
    data = bytearray.fromhex(text)
    return torch.frombuffer(data, dtype=dtype).reshape(sizes) if data else torch.empty(sizes, dtype=dtype)


def results(value):
    """The results as a flat list; values are contiguous and share no memory."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [i.clone(memory_format=torch.contiguous_format) if isinstance(i, torch.Tensor) else i for i in items]


def check_dtype(value, dtype):
    assert not isinstance(value, torch.Tensor) or value.dtype == dtype, (value.dtype, dtype)


def check_size(value, dimension, size):
    assert value.shape[dimension] == size, (value.shape, dimension, size)


def hop_cond(pred, yes, no, operands):
    return (yes if bool(pred) else no)(*operands)


def hop_map(body, mapped, extra):
    rows = [body(*(m[i] for m in mapped), *extra) for i in range(mapped[0].shape[0])]
    return [torch.stack(column) for column in zip(*rows)]


def hop_scan(body, init, xs, extra):
    carry, rows = list(init), []
    for i in range(xs[0].shape[0]):
        out = body(*carry, *(x[i] for x in xs), *extra)
        carry, row = out[: len(init)], out[len(init) :]
        rows.append(row)
    return carry + [torch.stack(column) for column in zip(*rows)]


def hop_while_loop(condition, body, carried, extra):
    carried = list(carried)
    while bool(condition(*carried, *extra)[0]):
        carried = body(*carried, *extra)
    return carried


def compare(got, want, tensors, fixture, where):
    if "tensor" not in want:
        if got != want["const"]:
            raise AssertionError(f"{where}: {got} is not {want['const']}")
        return
    expected = tensors[want["tensor"]]
    if not isinstance(got, torch.Tensor) or got.dtype != expected.dtype or got.shape != expected.shape:
        raise AssertionError(f"{where}: {got} is not {expected}")
    torch.testing.assert_close(got, expected, rtol=fixture["rtol"], atol=fixture["atol"], equal_nan=True, msg=lambda m: f"{where}: {m}")


def check(folder, file):
    from safetensors.torch import load_file

    fixture = json.loads((folder / "fixture.json").read_text())
    inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    source = subprocess.run([EXAMPLE, folder / file], capture_output=True, text=True)
    if source.returncode:
        raise AssertionError(source.stderr.strip())
    program = {}
    exec(compile(source.stdout, "imported", "exec"), program)
    for case in fixture["cases"]:
        states = {name: value.clone() for name, value in program["STATES"].items()}
        for number, step in enumerate(case["steps"]):
            given = [inputs[i["tensor"]].clone() if "tensor" in i else i["const"] for i in step["inputs"]]
            with torch.no_grad():
                outputs = program["method_forward"](given, states)
            where = f"{case['name']}.{number}"
            if len(outputs) != len(step["outputs"]):
                raise AssertionError(f"{where}: {len(outputs)} outputs, not {len(step['outputs'])}")
            for i, (got, want) in enumerate(zip(outputs, step["outputs"])):
                compare(got, want, expected, fixture, f"{where} output {i}")
            for i, (got, want) in enumerate(zip(given, step.get("inputs_after", []))):
                compare(got, want, expected, fixture, f"{where} input {i} after")
        for name, key in case.get("buffers_after", {}).items():
            compare(states[name], {"tensor": key}, expected, fixture, f"{case['name']} buffer {name}")


def main():
    # Registers quantized_decomposed and torchao operators.
    import torchao  # noqa: F401
    from torch.ao.quantization.fx import _decomposed  # noqa: F401

    good = bad = 0
    for argument in sys.argv[1:]:
        folder = pathlib.Path(argument)
        for file in ("model.pt2", "model.core.pt2"):
            if not (folder / file).exists():
                continue
            try:
                check(folder, file)
                good += 1
            except Exception as error:
                bad += 1
                print(f"{folder.name}/{file}: {type(error).__name__}: {str(error)[:600]}")
    print(f"{good} equal, {bad} not")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
