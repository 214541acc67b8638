"""Judges files that Delegraph compiled by stock ExecuTorch, and the other way round.

Called by `run`, which compiles every recorded model and leaves in WORK/<folder>/<model>/<archive>/<backend>/:

    model.pte                        the compiled program (absent: compile.log says why)
    compile.code                     the exit code of a compilation that failed
    inspect.json                     what is in it: operators, regions, whether sizes are unbounded
    portable/outputs.safetensors     what our own run with the portable kernels gave, keys CASE.STEP.outK
    delegated/outputs.safetensors    what our own run with the delegate gave
    portable.json, delegated.json    the reports of these runs

A program passes when stock ExecuTorch loads it and its outputs agree, within the model's recorded tolerance, with the recorded
outputs, with both of our runs, and with what stock ExecuTorch makes of its own program of that model, where there is one. A
program is skipped, with the reason, when its sizes are unbounded, when it uses an operator that stock ExecuTorch does not
register, when the Python binding cannot pass its arguments, or when a kernel of stock ExecuTorch refuses what its operator
allows. A program of ExecuTorch's own that cannot be lifted to our IR is skipped with our words. Everything else is a failure.

Every program is loaded in a child process: the C++ runtime may abort.
"""

import argparse
import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

# Importing ExecuTorch makes PyTorch warn about a deprecation inside of it.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

import executorch.kernels.quantized  # noqa: E402, F401  registers ExecuTorch's own quantized kernels
from executorch.extension.pybindings import portable_lib  # noqa: E402
from executorch.runtime import Runtime  # noqa: E402

# What stock ExecuTorch cannot do, by its own words, though the program is not at fault.
LIMITS = [
    ("the Python binding", re.compile(r"Unsupported python type [^.]*")),
    # Its convolution has no third spatial dimension.
    ("stock ExecuTorch's kernel", re.compile(r"Expect input tensor to be 3-D or 4-D, but got, 5")),
]

# Exit code of `delegraph` for a file that it cannot read or does not support.
UNSUPPORTED_FILE = 3

# Seconds after which a child counts as hung.
LIMIT = 300

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# ExecuTorch's ScalarType codes, as method metadata gives them.
SCALAR_TYPES = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
    15: torch.bfloat16,
}


class Mismatch(Exception):
    """Two outputs differ."""


class Skip(Exception):
    """The program cannot be judged here; the text says why."""


def read_safetensors(path):
    """All tensors of a safetensors file."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        flat = torch.frombuffer(bytearray(body[start:end]), dtype=dtype) if end > start else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Writes tensors to a safetensors file."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        span = [len(body), len(body) + len(data)]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
        body += data
    text = json.dumps(header).encode()
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def as_tensor(value):
    """A leaf as a tensor; None and texts stay what they are."""
    if isinstance(value, torch.Tensor) or value is None or isinstance(value, str):
        return value
    dtype = {bool: torch.bool, int: torch.int64, float: torch.float64}[type(value)]
    return torch.tensor(value, dtype=dtype)


def difference(got, want, rtol, atol):
    """The largest absolute difference of two leaves. Floats within the tolerance, everything else exact."""
    got, want = as_tensor(got), as_tensor(want)
    if not isinstance(want, torch.Tensor) or not isinstance(got, torch.Tensor):
        if type(got) is not type(want) or got != want:
            raise Mismatch(f"got {got!r}, want {want!r}")
        return 0.0
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Mismatch(f"got {got.dtype}{list(got.shape)}, want {want.dtype}{list(want.shape)}")
    if got.numel() == 0:
        return 0.0
    if not want.dtype.is_floating_point:
        wrong = int((got != want).sum())
        if wrong:
            raise Mismatch(f"{wrong} of {got.numel()} {want.dtype} elements differ")
        return 0.0
    got, want = got.double(), want.double()
    same = (got == want) | (got.isnan() & want.isnan())
    delta = torch.where(same, torch.zeros_like(got), (got - want).abs())
    worst = float(delta.max())
    bad = ~(delta <= atol + rtol * want.abs()) & ~same
    if bool(bad.any()):
        raise Mismatch(f"{int(bad.sum())} of {got.numel()} elements differ, by up to {worst:.3g}")
    return worst


class Fixture:
    """A recorded model: its cases and steps, tensors resolved."""

    def __init__(self, folder):
        self.folder = Path(folder)
        description = json.loads((self.folder / "fixture.json").read_text())
        self.rtol, self.atol = description["rtol"], description["atol"]
        inputs = read_safetensors(self.folder / "inputs.safetensors")
        expected = read_safetensors(self.folder / "expected.safetensors")
        leaf = lambda source, item: source[item["tensor"]] if "tensor" in item else item["const"]
        self.cases = [
            (
                case["name"],
                [
                    ([leaf(inputs, i) for i in step["inputs"]], [leaf(expected, o) for o in step["outputs"]])
                    for step in case["steps"]
                ],
            )
            for case in description["cases"]
        ]

    def compare(self, what, got, want):
        """The worst difference of `got` and `want`, {(case, step): leaves}."""
        worst = 0.0
        for name, steps in self.cases:
            for index, _ in enumerate(steps):
                mine, other = got[name, index], want[name, index]
                # ExecuTorch's exporter returns an input that the model changes before the results.
                mine, other = mine[max(0, len(mine) - len(other)) :], other[max(0, len(other) - len(mine)) :]
                if not mine and other:
                    raise Mismatch(f"{what}: no outputs")
                for k, (a, b) in enumerate(zip(mine, other)):
                    try:
                        worst = max(worst, difference(a, b, self.rtol, self.atol))
                    except Mismatch as reason:
                        raise Mismatch(f"{what}: case {name}, step {index}, output {k}: {reason}") from None
        return worst

    def recorded(self):
        """The recorded outputs."""
        return {(name, i): step[1] for name, steps in self.cases for i, step in enumerate(steps)}

    def ours(self, path):
        """Outputs that `delegraph run --fixture --output-dir` wrote. Leaves that have no tensor form are the recorded ones."""
        tensors = read_safetensors(path)
        outputs = {}
        for name, steps in self.cases:
            for index, (_, want) in enumerate(steps):
                prefix = f"{name}.{index}.out"
                given = {int(key[len(prefix) :]): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
                # A lifted program of ExecuTorch's may return changed inputs before the results.
                extra = max(0, max(given, default=-1) + 1 - len(want))
                leaves = []
                for k, leaf in enumerate(want):
                    if k + extra not in given and isinstance(as_tensor(leaf), torch.Tensor):
                        raise Mismatch(f"our own run gave no output {k} in case {name}, step {index}")
                    leaves.append(given.get(k + extra, leaf))
                outputs[name, index] = leaves
        return outputs

    def stock(self, program):
        """Outputs of a program in stock ExecuTorch: a fresh load a case, its steps in order."""
        outputs = {}
        for name, steps in self.cases:
            method = Runtime.get().load_program(Path(program)).load_method("forward")
            for index, (inputs, _) in enumerate(steps):
                given = [i.clone() if isinstance(i, torch.Tensor) else i for i in inputs]
                outputs[name, index] = list(method.execute(given))
        return outputs


def unregistered(inspected):
    """Operators of a program that this ExecuTorch does not register."""
    registered = set(Runtime.get().operator_registry.operator_names)
    used = {op for method in inspected["methods"] for op in method["operators"] if "::" in op}
    return sorted(used - registered)


def judge_compiled(fixture_folder, folder):
    """One compiled program in stock ExecuTorch. Returns the differences; raises Skip or Mismatch."""
    inspected = json.loads((folder / "inspect.json").read_text())
    if any(method["unbounded"] for method in inspected["methods"]):
        raise Skip("sizes without an upper bound")
    missing = unregistered(inspected)
    if missing:
        raise Skip("not registered by stock ExecuTorch: " + ", ".join(missing))
    fixture = Fixture(fixture_folder)
    stock = fixture.stock(folder / "model.pte")
    differences = {"recorded": fixture.compare("recorded outputs", stock, fixture.recorded())}
    for run in ("portable", "delegated"):
        if run == "delegated" and regions_of(inspected) == 0:
            continue
        path = folder / run / "outputs.safetensors"
        if not path.is_file():
            raise Mismatch(f"our own {run} run gave nothing: {first_line(folder / (run + '.log'))}")
        differences[run] = fixture.compare(f"our own {run} run", stock, fixture.ours(path))
        cases = json.loads((folder / f"{run}.json").read_text())["cases"]
        nodes, fallbacks = (sum(case[key] for case in cases) for key in ("delegated_nodes", "fallbacks"))
        if (run == "delegated") != (nodes > 0) or fallbacks > 0 and run == "delegated":
            raise Mismatch(f"our own {run} run: {nodes} delegated nodes, {fallbacks} regions fell back")
    own = fixture.folder / "model.pte"
    if own.is_file():
        try:
            theirs = fixture.stock(own)
        except RuntimeError as error:
            differences["executorch"] = f"its own program: {error}"
        else:
            differences["executorch"] = fixture.compare("ExecuTorch's own program", stock, theirs)
    return differences


def regions_of(inspected):
    """Number of regions with a candidate `reference`."""
    return sum(
        any(candidate["backend"] == "reference" for candidate in region["candidates"])
        for method in inspected["overlay"].get("methods", [])
        for region in method["regions"]
    )


def example_inputs(meta):
    """Arguments made up from a method's metadata."""
    generator = torch.Generator().manual_seed(7)
    inputs = []
    for index in range(meta.num_inputs()):
        info = meta.input_tensor_meta(index)
        dtype = SCALAR_TYPES[info.dtype()]
        values = torch.randn(tuple(info.sizes()), generator=generator)
        inputs.append(values.to(dtype) if dtype.is_floating_point else (values * 2).abs().to(dtype))
    return inputs


def judge_sample(program, delegraph):
    """A program of ExecuTorch's own, all of its methods, in both runtimes, once, on made-up inputs."""
    import numpy

    data = program.with_suffix(".ptd")
    data = data if data.is_file() else None
    bundled = program.suffix == ".bpte"
    if bundled:
        bundle = portable_lib._load_bundled_program_from_buffer(program.read_bytes())
        module = portable_lib._load_for_executorch_from_bundled_program(bundle)
        names = list(module.method_names())
    else:
        loaded = Runtime.get().load_program(program, data_path=data)
        names = sorted(loaded.method_names)
    worst = 0.0
    for name in names:
        meta = module.method_meta(name) if bundled else loaded.metadata(name)
        inputs = example_inputs(meta)
        want = module.run_method(name, tuple(inputs)) if bundled else loaded.load_method(name).execute(inputs)
        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder) / "inputs.safetensors"
            # Positions are names that any program understands.
            write_safetensors(given, {str(i): tensor for i, tensor in enumerate(inputs)})
            command = [delegraph, "run", program, "--method", name, "--output-dir", folder, "--quiet", "--no-load"]
            command += ["--inputs", given] if inputs else []
            command += ["--data", data] if data else []
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
            if done.returncode != 0:
                raise Mismatch(f"method {name}: delegraph run: {done.stderr.strip().splitlines()[0]}")
            for k, leaf in enumerate(want):
                got = torch.from_numpy(numpy.load(Path(folder) / f"output_{k}.npy"))
                try:
                    worst = max(worst, difference(got, leaf, 1e-4, 1e-5))
                except Mismatch as reason:
                    raise Mismatch(f"method {name}, output {k}: {reason}") from None
    return {"executorch": worst, "methods": names}


def first_line(path):
    """The first line of a log that says something."""
    lines = [line for line in Path(path).read_text().splitlines() if line.strip()] if Path(path).is_file() else []
    return lines[0] if lines else "no message"


def runtime_lines(log):
    """The first lines that the C++ runtime wrote to a log, without its looking around in the machine."""
    lines = Path(log).read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("[") and "cpuinfo" not in line][:3]


def in_child(judge):
    """Runs `judge` in a child process. Returns (verdict, reason, differences)."""
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer", Path(folder) / "log"
        child = os.fork()
        if child == 0:
            # What the C++ runtime says goes to a file of its own.
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            signal.alarm(LIMIT)
            try:
                result = ["pass", "", judge()]
            except Skip as reason:
                result = ["skip", str(reason), {}]
            except Mismatch as reason:
                result = ["fail", str(reason), {}]
            except BaseException as error:  # the child's report is all that is left of it
                text = f"{type(error).__name__}: {error}"
                said = text + log.read_text(errors="replace")
                found = [f"{whose}: {match.group(0)}" for whose, words in LIMITS if (match := words.search(said))]
                result = ["skip", found[0], {}] if found else ["fail", text, {}]
            answer.write_text(json.dumps(result))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        spoken = runtime_lines(log)
        if not answer.is_file():
            return "fail", f"the runtime died (wait status {status}): {'; '.join(spoken)}", {}
        verdict, reason, differences = json.loads(answer.read_text())
        if verdict == "fail" and spoken:
            reason += " -- " + "; ".join(spoken)
        return verdict, " ".join(reason.split()), differences


def row(file, backend, size, regions, verdict, reason, differences):
    """A line of the record."""
    return {
        "file": file,
        "backend": backend,
        "bytes": size,
        "regions": regions,
        "verdict": verdict,
        "reason": reason,
        "max_abs": differences,
    }


def compiled_rows(index, folder, work):
    """Every compiled program of a folder."""
    folder = Path(folder)
    fixtures = [folder] if (folder / "fixture.json").is_file() else sorted(p.parent for p in folder.glob("*/fixture.json"))
    for fixture in fixtures:
        # As `run` names it: a link keeps its name, `.` does not.
        made = work / str(index) / fixture.name
        for archive in ("model.pt2", "model.core.pt2", "model.pte"):
            for backend in ("portable", "reference"):
                place = made / archive / backend
                if not place.is_dir():
                    continue
                file = f"{fixture.name}/{archive}"
                program = place / "model.pte"
                if not (place / "inspect.json").is_file():
                    code = place / "compile.code"
                    code = int(code.read_text()) if code.is_file() else 0
                    log = "compile.log" if code else "inspect.log"
                    # A foreign program need not be straight-line code; a recorded model has to compile.
                    verdict = "skip" if archive == "model.pte" and code == UNSUPPORTED_FILE else "fail"
                    said = first_line(place / log).replace(f"{fixture}/", "")
                    yield row(file, backend, 0, 0, verdict, f"not compiled: {said}", {})
                    continue
                regions = regions_of(json.loads((place / "inspect.json").read_text()))
                outcome = in_child(lambda: judge_compiled(fixture, place))
                yield row(file, backend, program.stat().st_size, regions, *outcome)


def sample_rows(folder, delegraph):
    """ExecuTorch's programs that come without recorded cases."""
    folder = Path(folder)
    places = sorted({path.parent for pattern in ("*.pte", "*/*.pte", "*.bpte", "*/*.bpte") for path in folder.glob(pattern)})
    for place in places:
        if (place / "fixture.json").is_file():
            continue
        for program in sorted([*place.glob("*.pte"), *place.glob("*.bpte")]):
            outcome = in_child(lambda: judge_sample(program, delegraph))
            yield row(f"{place.name}/{program.name}", "executorch", program.stat().st_size, 0, *outcome)


def number(value):
    """A difference for a table."""
    return "-" if value is None else value if isinstance(value, str) else "0" if value == 0 else f"{value:.1e}"


COLUMNS = ("recorded", "portable", "delegated", "executorch")


def line_of(entry):
    """A row of the table, as texts."""
    cells = [entry["file"], entry["backend"], str(entry["bytes"]), str(entry["regions"]), entry["verdict"]]
    short = lambda value: "refused" if isinstance(value, str) else number(value)
    return cells + [short(entry["max_abs"].get(column)) for column in COLUMNS] + [entry["reason"]]


HEADER = ["file", "made for", "bytes", "regions", "verdict", *COLUMNS, "reason"]


def print_table(rows):
    """The table for people."""
    lines = [HEADER] + [line_of(entry) for entry in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADER) - 1)]
    for line in lines:
        print("  ".join([cell.ljust(width) for cell, width in zip(line, widths)] + [line[-1]]).rstrip())


def markdown(record):
    """The record as a page."""
    versions = record["versions"]
    text = [
        "# Record of the referee",
        "",
        f"Written by `bash conformance/referee/run PYTHON --record` with executorch {versions['executorch']}, torch "
        f"{versions['torch']}. Do not edit.",
        "",
        "`made for`: `portable` is compiled without a backend, `reference` with `--backend reference`, `executorch` was written by",
        "ExecuTorch and is run here. The differences are the largest absolute ones between stock ExecuTorch's outputs and: the recorded",
        "outputs of eager PyTorch, our own portable run, our own delegated run, ExecuTorch's own program of that model in stock",
        "ExecuTorch (for ExecuTorch's samples: our run of them).",
        "",
        *[f"- {text}" for text in record["summary"]],
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
    ]
    text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line_of(entry)) + " |" for entry in record["files"]]
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="what `run` made")
    parser.add_argument("--delegraph", required=True, help="the binary")
    parser.add_argument("--record", type=Path, help="folder for record.json and record.md")
    parser.add_argument("--wanted", type=int, default=0, help="files with reference regions that have to run equal")
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()

    from importlib.metadata import version

    versions = {"executorch": version("executorch"), "torch": torch.__version__.split("+")[0]}
    rows, conform = [], []
    for index, folder in enumerate(arguments.folders):
        rows += compiled_rows(index, folder, arguments.work)
        rows += sample_rows(folder, arguments.delegraph)
        report = arguments.work / str(index) / "conform.json"
        if report.is_file():
            conform.append(json.loads(report.read_text()))
    print(f"executorch {versions['executorch']}, torch {versions['torch']}")
    print_table(rows)

    count = lambda verdict: sum(entry["verdict"] == verdict for entry in rows)
    with_regions = [entry for entry in rows if entry["regions"] > 0]
    equal = [entry for entry in with_regions if entry["verdict"] == "pass"]
    models = {entry["file"].split("/")[0] for entry in equal}
    devices = arguments.work / "devices.json"
    delegates = json.loads(devices.read_text())["delegates"] if devices.is_file() else []
    state = next((d["state"] for d in delegates if d["backend"] == "reference"), "absent")
    available = state.startswith("loaded")

    problems = []
    summary = [f"{len(equal)} files with reference regions ran equal (of {len(with_regions)}), of {len(models)} models"]
    if not available:
        summary.append(f"the delegate `reference` took no part: {state}")
    elif len(equal) < arguments.wanted:
        problems.append(f"fewer than {arguments.wanted} files with reference regions ran equal")
    for report in conform:
        counts = report["summary"]
        told = ", ".join(f"{n} {name}" for name, n in counts.items() if name != "total" and isinstance(n, int) and n > 0)
        summary.append(f"ExecuTorch's programs run here (conform models --from pte): {counts['total']} cases: {told}")
        for case in report["cases"]:
            if case["verdict"] not in ("pass", "skip", "waived", "quality-warning"):
                problems.append(f"{case['id']} from pte: {case['verdict']}: {case['reason']}")
    print()
    for text in summary + problems:
        print(text)
    total = f"{count('pass')} passed, {count('fail')} failed, {count('skip')} skipped"
    if arguments.record:
        summary.insert(0, total)
        record = {"schema": "delegraph.referee/1", "versions": versions, "summary": summary + problems, "files": rows}
        (arguments.record / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        (arguments.record / "record.md").write_text(markdown(record))
    print(total)
    sys.exit(1 if count("fail") or problems or not count("pass") else 0)


if __name__ == "__main__":
    main()
