"""The same quantized models on this project's `ethos-u` delegate and on ExecuTorch's own Arm backend.

ExecuTorch's quantizer for the target (`EthosUQuantizer`) quantizes each model by PT2E, since its partitioner takes what that quantizer makes: layers
without a quantized bias, as others leave them, it does not. The quantized model, as `torch.export.save` writes it, is what Delegraph compiles, and
what ExecuTorch's partitioner is given. Counted are nodes, multiply-accumulates and regions; compared are Delegraph's outputs, its command streams
on the interpreter, with the quantized model in eager PyTorch.
"""

import argparse
import contextlib
import copy
import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
import torchao.quantization.pt2e  # noqa: F401  quantized_decomposed
from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner
from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_quantization_config
from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
from safetensors.torch import load_file, save_file
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import models

# As the command line judges quantized regions: mean under 1 step, 99th percentile at most 4.
MEAN, PERCENTILE = 1.0, 4.0
TARGETS = ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"]
UNCHECKED = EdgeCompileConfig(_check_ir_validity=False)


def quantized(module, calibration, spec):
    """The model as ExecuTorch's quantizer for the target has it: the module, and its exported program."""
    exported = torch.export.export(module, calibration[0], strict=True)
    quantizer = EthosUQuantizer(spec)
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    for inputs in calibration:
        prepared(*inputs)
    converted = convert_pt2e(prepared)
    return converted, torch.export.export(converted, calibration[0], strict=True)


def work(graph):
    """Nodes that compute, without quantizing and dequantizing, and their multiply-accumulates."""
    nodes = macs = 0
    for node in graph.nodes:
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        name = node.target._schema.name
        if name.startswith("quantized_decomposed::") or name.startswith("executorch_call_delegate"):
            continue
        nodes += 1
        value = lambda index: node.args[index].meta["val"]
        if name == "aten::convolution":
            weight = value(1)
            outputs = value(0).numel() if node.args[6] else node.meta["val"].numel()
            macs += outputs * (weight.numel() // weight.shape[0])
        elif name in ("aten::mm", "aten::bmm", "aten::linear", "aten::matmul"):
            macs += node.meta["val"].numel() * value(0).shape[-1]
        elif name in ("aten::addmm", "aten::baddbmm"):
            macs += node.meta["val"].numel() * value(1).shape[-1]
    return nodes, macs


@contextlib.contextmanager
def quiet():
    """Vela, in this process, prints pages."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def theirs(program, spec):
    """What ExecuTorch's backend takes of a program."""
    whole = work(to_edge(copy.deepcopy(program), compile_config=UNCHECKED).exported_program().graph)
    try:
        with quiet():
            lowered = to_edge_transform_and_lower(
                copy.deepcopy(program), partitioner=[EthosUPartitioner(spec)], compile_config=UNCHECKED
            )
    except Exception as error:  # whatever its passes and Vela throw
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}
    graph = lowered.exported_program().graph
    left = work(graph)
    called = [node for node in graph.nodes if "executorch_call_delegate" in str(node.target)]
    return {
        "nodes": whole[0],
        "delegated_nodes": whole[0] - left[0],
        "macs": whole[1],
        "delegated_macs": whole[1] - left[1],
        "regions": len(called),
        "left": sorted({str(node.target._schema.name) for node in graph.nodes if is_work(node)}),
    }


def is_work(node):
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and not schema.name.startswith(("quantized_decomposed::", "executorch_call"))


def fixture(folder, name, inputs, outputs):
    """The inputs and PyTorch's outputs in the form that `delegraph run --fixture` reads."""
    cases, given, expected = [], {}, {}
    for number, (values, output) in enumerate(zip(inputs, outputs)):
        one = lambda key, tensor: {"tensor": key, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        keys = [f"{number}.0.in{i}" for i in range(len(values))]
        given.update({key: value.contiguous() for key, value in zip(keys, values)})
        expected[f"{number}.0.out0"] = output.contiguous()
        step = {"inputs": [one(*pair) for pair in zip(keys, values)], "outputs": [one(f"{number}.0.out0", output)]}
        cases.append({"name": str(number), "steps": [step]})
    described = {"name": name, "rtol": 1e-4, "atol": 1e-4, "dynamic": {}, "files": {}, "cases": cases}
    (folder / "fixture.json").write_text(json.dumps(described))
    save_file(given, folder / "inputs.safetensors")
    save_file(expected, folder / "expected.safetensors")


def ours(delegraph, folder, target):
    """What Delegraph's delegate takes, and what its command streams give on the interpreter."""
    program, report = folder / "model.pte", folder / "compile.json"
    common = ["--backend", "ethos-u", "--quiet", "--color", "never"]
    words = [delegraph, "compile", folder / "model.pt2", "-o", program, *common, "--target", f"ethos-u:{target}", "--json", report]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[0]}, None
    # A difference from eager PyTorch is counted in steps, below.
    words = [delegraph, "run", program, "--fixture", folder, "--output-dir", folder, *common, "--json", folder / "run.json"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    compiled = json.loads(report.read_text())
    nodes = [node for graph in compiled["graphs"] for node in graph["nodes"]]
    nodes = [node for node in nodes if not node["op"].startswith("quantized_decomposed::")]
    left = [node for node in nodes if node["owner"] is None]
    found = {
        "nodes": len(nodes),
        "delegated_nodes": len(nodes) - len(left),
        "macs": sum(node["macs"] for node in nodes),
        "delegated_macs": sum(node["macs"] for node in nodes if node["owner"]),
        "regions": sum(len(graph["regions"]) for graph in compiled["graphs"]),
        "left": sorted({node["op"] for node in left}),
        "problems": [problem["message"] for graph in compiled["graphs"] for problem in graph["problems"]],
    }
    ran = json.loads((folder / "run.json").read_text())["cases"] if (folder / "run.json").is_file() else []
    if not (folder / "outputs.safetensors").is_file() or any(case["fallbacks"] or not case["delegated_nodes"] for case in ran):
        return {**found, "error": "it did not run as it was compiled"}, None
    return found, load_file(folder / "outputs.safetensors")


def last_step(program):
    """The step of the output: the scale of the quantization that it was last through."""
    scales = [node.args[1] for node in program.graph.nodes if "dequantize_per_tensor" in str(node.target)]
    return float(scales[-1])


def distance(a, b, step):
    steps = (a.double() - b.double()).abs() / step
    return [float(steps.mean()), float(torch.quantile(steps, 0.99)), float(steps.max())]


def prepared(name, load, target, folder, known):
    """Quantizes a model into a folder, with what ExecuTorch's backend takes of it; what is there already is taken as it is."""
    file = folder / "theirs.json"
    if file.is_file():
        return json.loads(file.read_text())
    spec = EthosUCompileSpec(target)
    # Targets of one profile are quantized alike.
    key = (name, str(spec.tosa_spec))
    if key not in known:
        module, calibration, inputs = load()
        converted, program = quantized(module, calibration, spec)
        with torch.no_grad():
            known[key] = program, inputs, [converted(*values) for values in inputs]
    program, inputs, outputs = known[key]
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / "model.pt2")
    fixture(folder, name, inputs, outputs)
    found = {"theirs": theirs(program, spec), "step": last_step(program)}
    file.write_text(json.dumps(found))
    return found


def compared(name, target, folder, made, delegraph):
    """A row of the record."""
    mine, results = ours(delegraph, folder, target)
    row = {"model": name, "target": target, "theirs": made["theirs"], "ours": mine}
    if results is not None:
        expected = load_file(folder / "expected.safetensors")
        a, b = (torch.cat([tensors[key].ravel() for key in sorted(expected)]) for tensors in (results, expected))
        row.update(values=a.numel(), distinct=len(a.unique()), steps=distance(a, b, made["step"]))
    row["verdict"] = verdict(row)
    return row


def verdict(row):
    """A share that is less than theirs is said, and is a failure where it is of multiply-accumulates."""
    if "steps" not in row or "error" in row["ours"]:
        return "fail"
    if not (row["steps"][0] < MEAN and row["steps"][1] <= PERCENTILE):
        return "differs"
    if row["distinct"] <= 8:
        return "flat"
    if "error" in row["theirs"]:
        return "pass"
    return "pass" if share(row["ours"]) >= share(row["theirs"]) else "fewer"


def share(found):
    return 100.0 * found["delegated_macs"] / found["macs"] if found["macs"] else 0.0


def shown(found):
    if "error" in found:
        return f"error: {found['error']}"
    return f"{found['delegated_nodes']}/{found['nodes']} nodes, {share(found):.1f} % of {found['macs']} MACs, {found['regions']} regions"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--delegraph", help="without it, ExecuTorch's part alone is done, into --work")
    parser.add_argument("--models", type=pathlib.Path, help="folder of the recorded float models")
    parser.add_argument("--target", action="append", help=f"unless said: {', '.join(TARGETS)}")
    parser.add_argument("--model", action="append", help="only these")
    parser.add_argument("--work", type=pathlib.Path, help="keeps what is made, and takes what is there")
    parser.add_argument("--record", type=pathlib.Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    skipped, available = [], dict.fromkeys(models.SMALL)
    for name in models.RECORDED:
        if given.models and (given.models / name / "model.pt2").is_file():
            available[name] = given.models / name
        else:
            skipped.append(name)
    rows, known = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        work_folder = given.work or pathlib.Path(temporary)
        for name, folder in available.items():
            if given.model and name not in given.model:
                continue
            for target in given.target or TARGETS:
                load = functools.partial(models.recorded, folder) if folder else functools.partial(models.small, name)
                place = work_folder / f"{name}-{target}"
                made = prepared(name, load, target, place, known)
                if not given.delegraph:
                    print(f"prepared  {name} {target}: ExecuTorch {shown(made['theirs'])}", flush=True)
                    continue
                row = compared(name, target, place, made, given.delegraph)
                rows.append(row)
                steps = "mean {:.3f}, p99 {:.1f}, max {:.1f}".format(*row["steps"]) if "steps" in row else "not run"
                print(
                    f"{row['verdict']}  {name} {target}: ExecuTorch {shown(row['theirs'])}; Delegraph {shown(row['ours'])};"
                    f" in steps from eager PyTorch {steps}",
                    flush=True,
                )
    if not given.delegraph:
        return 0
    for name in skipped:
        print(f"skipped  {name}: no such folder in --models")
    bad = [row for row in rows if row["verdict"] != "pass"]
    print(f"{len(rows) - len(bad)} passed, {len(bad)} did not, {len(skipped)} models skipped")
    if given.record:
        record(given.record, rows)
    return 1 if bad or not rows else 0


def record(path, rows):
    version = importlib.metadata.version
    cell = lambda found: found["error"] if "error" in found else (
        f"{found['delegated_nodes']} of {found['nodes']} | {share(found):.1f} | {found['regions']}"
    )
    wide = lambda found: cell(found) if "error" not in found else f"{cell(found)} | - | -"
    lines = [
        "# `ethos-u` beside ExecuTorch's Arm backend",
        "",
        f"ExecuTorch {version('executorch')}, torch {version('torch').split('+')[0]}, tosa-tools {version('tosa-tools')},"
        f" Vela {version('ethos-u-vela')} for both. Written by `conformance/referee/ethos-u/run`; its README says what is counted. Steps are those"
        " of the output's quantization: mean, 99th percentile, largest, between the command streams on the interpreter and eager PyTorch.",
        "",
        "| model | target | nodes, ExecuTorch | MACs, % | regions | nodes, Delegraph | MACs, % | regions | MACs | values | distinct | steps | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        steps = " ".join(f"{n:.3f}" for n in row["steps"]) if "steps" in row else "not run"
        macs = row["ours"].get("macs", row["theirs"].get("macs", "-"))
        lines.append(
            f"| {row['model']} | {row['target']} | {wide(row['theirs'])} | {wide(row['ours'])} | {macs} | {row.get('values', '-')} |"
            f" {row.get('distinct', '-')} | {steps} | {row['verdict']} |"
        )
    lines += ["", "Operators that are left to the processor:", ""]
    for row in rows:
        of = lambda found: ", ".join(f"`{name}`" for name in found.get("left", [])) or "none"
        lines.append(f"- {row['model']}, {row['target']}: ExecuTorch {of(row['theirs'])}; Delegraph {of(row['ours'])}.")
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
