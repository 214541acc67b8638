"""Writes the networks in every format that this Python can make, and what PyTorch computes with them.

    PYTHON conformance/bench/cpu/export.py WORK --formats pt2,pte,xnnpack,pt2_i8,xnnpack_i8     # a Python with executorch
    PYTHON conformance/bench/cpu/export.py WORK --formats onnx,tflite,ncnn,onnx_i8,tflite_i8    # a Python with the peers' converters

WORK/NAME.SUFFIX is a model, WORK/NAME.inputs.safetensors and WORK/NAME.K.bin its inputs, WORK/NAME.want.bin the first output in eager mode,
WORK/NAME.json sizes and what the network costs. What is there already is kept. What cannot be made is said, and is no error: a peer that
cannot take a network has no row. WORK/export.json says why.
"""

import argparse
import json
import pathlib
import sys
import time
import warnings

import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from formats import FORMATS  # noqa: E402
from zoo import QUANTIZED, ZOO, build  # noqa: E402


def operations(module, inputs):
    """Floating point operations of matrix products and convolutions, a multiply-add as two. Fused operators are taken apart, for they are not counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def weight_bytes(module):
    """Of parameters that a run reads whole; of an embedding it reads rows."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    return sum(p.numel() * p.element_size() for p in module.parameters() if id(p) not in tables)


def describe(module, inputs, work, name):
    """Inputs, the expected output and what is known of the network; once."""
    facts = work / f"{name}.json"
    if facts.exists():
        return
    result = module(*inputs)
    want = result[0] if isinstance(result, (tuple, list)) else result
    for k, x in enumerate(inputs):
        x.contiguous().numpy().tofile(work / f"{name}.{k}.bin")
    save_file({str(k): x.contiguous() for k, x in enumerate(inputs)}, work / f"{name}.inputs.safetensors")
    want.contiguous().numpy().tofile(work / f"{name}.want.bin")
    facts.write_text(json.dumps({
        "inputs": [[list(x.shape), str(x.dtype).removeprefix("torch.")] for x in inputs],
        "output": [list(want.shape), str(want.dtype).removeprefix("torch.")],
        "operations": operations(module, inputs), "weight_bytes": weight_bytes(module), "torch": torch.__version__,
    }))


def export(work, zoo, names, formats, quantized=(), skipped=()):
    """Makes what is not there; what could not be made, with the reason."""
    record = work / "export.json"
    failures = json.loads(record.read_text()) if record.exists() else {}
    for name in names:
        for form in formats:
            suffix, make = FORMATS[form]
            path = work / (name + suffix)
            if path.exists() or (name, form) in skipped or (form.endswith("_i8") and name not in quantized):
                continue
            begun = time.monotonic()
            try:
                with torch.no_grad():
                    module, inputs = build(name, work, zoo)
                    describe(module, inputs, work, name)
                    make(module, inputs, path)
                failures.pop(path.name, None)
                print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB in {time.monotonic() - begun:.0f} s", flush=True)
            except Exception as error:  # noqa: BLE001  converters fail in every way there is
                path.unlink(missing_ok=True)
                failures[path.name] = f"{type(error).__name__}: {str(error)[:300]}"
                print(f"{path.name}: not made: {failures[path.name]}", file=sys.stderr, flush=True)
            record.write_text(json.dumps(failures, indent=1) + "\n")
    return failures


def main(zoo=ZOO, quantized=QUANTIZED, formats="pt2", skipped=()):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--formats", default=formats, help="of " + ", ".join(FORMATS))
    parser.add_argument("--models", default=",".join(zoo), help="of " + ", ".join(zoo))
    args = parser.parse_args()
    names, wanted = args.models.split(","), args.formats.split(",")
    if unknown := (set(names) - set(zoo)) | (set(wanted) - set(FORMATS)):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    args.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    export(args.work, zoo, names, wanted, quantized, skipped)


if __name__ == "__main__":
    main()
