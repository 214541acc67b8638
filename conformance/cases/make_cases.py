"""Writes the recorded cases of the conformance kit.

    PYTHON make_cases.py [OUT]

Needs torch 2.15.0, executorch 1.5.1, which registers `quantized_decomposed`, and safetensors: what `cargo xtask provision executorch`
installs. OUT (this folder) gets `index.jsonl` and `shard-0.safetensors`, calls of operators; and `programs.jsonl` and
`shard-1.safetensors`, programs of several nodes. README.md describes them. Running it again writes the same bytes.
"""
import sys
import warnings
from collections import Counter
from pathlib import Path

import safetensors.torch
import torch

import torch.ao.quantization.fx._decomposed  # noqa: F401  quantized_decomposed

import pointwise_cases
import program_cases
import structured_cases
from exporter import Programs
from recorder import Recorder

warnings.filterwarnings("ignore")


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    recorder = Recorder()
    pointwise_cases.all_cases(recorder)
    structured_cases.all_cases(recorder)
    (out / "index.jsonl").write_text(recorder.text())
    safetensors.torch.save_file(dict(sorted(recorder.store.tensors.items())), out / "shard-0.safetensors")
    programs = Programs()
    program_cases.all_programs(programs)
    (out / "programs.jsonl").write_text(programs.text())
    safetensors.torch.save_file(dict(sorted(programs.store.tensors.items())), out / "shard-1.safetensors")
    for warning in recorder.warnings:
        print(warning)
    counts = Counter(line["class"] for line in recorder.lines)
    print(f"{len(recorder.lines)} calls of {len({line['op'] for line in recorder.lines})} operators: {dict(sorted(counts.items()))}")
    kinds = Counter(line["id"].split("/")[0] for line in programs.lines)
    print(f"{len(programs.lines)} programs: {dict(sorted(kinds.items()))}")


if __name__ == "__main__":
    main()
