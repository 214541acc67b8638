"""The same quantized models on this project's `hexagon` delegate and on ONNX Runtime's QNN provider, with the processor forbidden to both.

Both use Qualcomm's library for the same chip in its emulation on this machine. Compared are outputs, in steps of the output's quantization.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnxruntime
import onnxruntime_qnn
from safetensors.numpy import load_file

import to_onnx

# As the command line judges quantized regions: mean under 1 step, 99th percentile at most 4.
MEAN, PERCENTILE = 1.0, 4.0


def last_step(model):
    """The step of the model's output: the scale of the quantization that it was last through."""
    constants = {item.name: item for item in model.graph.initializer}
    scales = [node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    scalars = [to_onnx.numpy_helper.to_array(constants[name]) for name in scales]
    return float([scale for scale in scalars if scale.ndim == 0][-1])


def provider(model, soc):
    """A session of the QNN provider that cannot use the processor."""
    name = "QNN"
    if not any(device.ep_name == name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    entries = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "soc_model": str(soc)}
    # The emulation is one device; the first is it.
    options.add_provider_for_devices(devices[:1], entries)
    return onnxruntime.InferenceSession(model, options)


def ours(delegraph, fixture, archive, soc, work):
    """Outputs by name of the fixture's tensors, and how much was delegated."""
    target = f"hexagon:{soc}"
    program = work / "model.pte"
    common = ["--backend", "hexagon", "--target", target, "--strict", "--quiet", "--color", "never"]
    compiled = work / "compile.json"
    run = [delegraph, "compile", archive, "-o", program, *common, "--json", compiled]
    subprocess.run([str(word) for word in run], check=True, stdout=subprocess.DEVNULL)
    report = work / "run.json"
    words = [delegraph, "run", program, "--fixture", fixture, "--output-dir", work, *common[:2], *common[4:], "--json", report]
    # A mismatch with PyTorch's float sums is no failure here: who is right is asked below.
    subprocess.run([str(word) for word in words], check=False, stdout=subprocess.DEVNULL)
    return load_file(work / "outputs.safetensors"), json.loads(compiled.read_text()), json.loads(report.read_text())


def distance(a, b, step):
    steps = numpy.abs(a.astype(numpy.float64) - b.astype(numpy.float64)) / step
    return float(steps.mean()), float(numpy.percentile(steps, 99)), float(steps.max())


def shown(numbers):
    return "mean {:.3f}, p99 {:.1f}, max {:.1f}".format(*numbers)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--delegraph", required=True)
    parser.add_argument("--soc", default="sm8650")
    parser.add_argument("--soc-id", type=int, default=57)
    parser.add_argument("--record", type=pathlib.Path)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    given = parser.parse_args()
    rows, failed, disputed = [], 0, 0
    for folder in given.folders:
        fixture = json.loads((folder / "fixture.json").read_text())
        inputs, expected = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
        model, names, outputs = to_onnx.convert(folder / "model.pt2")
        step = last_step(model)
        session = provider(model.SerializeToString(), given.soc_id)
        with tempfile.TemporaryDirectory() as temporary:
            results, compiled, report = ours(
                given.delegraph, folder, folder / "model.pt2", given.soc, pathlib.Path(temporary)
            )
        a, b, c = [], [], []
        for case in fixture["cases"]:
            for case_step in case["steps"]:
                feed = {name: inputs[value["tensor"]] for name, value in zip(names, case_step["inputs"])}
                theirs = session.run(None, feed)
                for value, their in zip(case_step["outputs"], theirs):
                    a.append(results[value["tensor"]].ravel())
                    b.append(their.ravel())
                    c.append(expected[value["tensor"]].ravel())
        a, b, c = (numpy.concatenate(part) for part in (a, b, c))
        between = distance(a, b, step)
        within = lambda numbers: numbers[0] < MEAN and numbers[1] <= PERCENTILE
        alive = len(numpy.unique(a)) > 8
        # Where the two differ and PyTorch agrees with one, the other is named; it is no pass.
        verdict = "fail"
        if alive and within(between):
            verdict = "pass"
        elif alive and within(distance(a, c, step)) and not within(distance(b, c, step)):
            verdict = "provider differs"
        failed += verdict == "fail"
        disputed += verdict == "provider differs"
        row = {
            "model": folder.name,
            "cases": len(fixture["cases"]),
            "step": step,
            "values": int(a.size),
            "distinct": int(len(numpy.unique(a))),
            "ours_and_theirs": between,
            "ours_and_pytorch": distance(a, c, step),
            "theirs_and_pytorch": distance(b, c, step),
            "macs_delegated": compiled.get("macs_delegated", compiled.get("summary", {}).get("macs_delegated")),
            "verdict": verdict,
        }
        rows.append(row)
        print(
            f"{row['verdict']}  {row['model']}: in steps, ours and the provider's {shown(between)};"
            f" ours and PyTorch's {shown(row['ours_and_pytorch'])}; the provider's and PyTorch's {shown(row['theirs_and_pytorch'])}"
        )
    passed = len(rows) - failed - disputed
    print(f"{passed} passed, {failed} failed, {disputed} in which the provider differs from PyTorch and ours does not")
    if given.record:
        record(given.record, given.soc, rows)
    return 1 if failed or not passed else 0


def record(path, soc, rows):
    lines = [
        "# A second opinion on `hexagon`: ONNX Runtime's QNN provider",
        "",
        f"Chip {soc}, in the emulation of Qualcomm's library on this machine; ONNX Runtime {onnxruntime.__version__}, its processor forbidden."
        " Written by `conformance/referee/qnn/run`. Distances are in steps of the output's quantization: mean, 99th percentile, largest.",
        "",
        "| model | values | distinct | ours and the provider's | ours and PyTorch's | the provider's and PyTorch's | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [" ".join(f"{n:.3f}" for n in row[key]) for key in ("ours_and_theirs", "ours_and_pytorch", "theirs_and_pytorch")]
        lines.append(f"| {row['model']} | {row['values']} | {row['distinct']} | {' | '.join(cells)} | {row['verdict']} |")
    if any(row["verdict"] == "provider differs" for row in rows):
        lines += [
            "",
            "Where the provider differs from PyTorch, the model has a `hardtanh` from 0 to 6 between quantized tensors, which the provider makes a"
            " `ReluMinMax`: the library's has no effect where a limit lies at an end of the integers' range. The delegate takes the larger and the"
            " smaller of two instead.",
        ]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
