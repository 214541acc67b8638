"""The engines: which files each needs, how it is started for one model, and how far its output is from PyTorch's. Standard library only.

Each start prints one JSON object with `times_ms`, and what it knows of `load_ms`, `first_ms`, `rss_base_mb`, `rss_peak_mb`, `error`, `size`
and `version`.
"""

import array
import json
import math
import os
import pathlib
import shlex
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent
OURS = "{delegraph} bench {model} --inputs {inputs} --threads {threads} --secs {secs} --quiet --json"


class Failed(Exception):
    """A program that did not do what it was to do."""


def call(command, args, timed=True):
    """Runs a program; the last JSON object that it printed, or None."""
    words = [*(shlex.split(args.prefix) if timed else []), *map(str, command)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=args.timeout, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    except subprocess.TimeoutExpired as error:
        raise Failed(f"took more than {args.timeout:g} s") from error
    except OSError as error:
        raise Failed(str(error)) from error
    if done.returncode != 0:
        said = " ".join((done.stderr.strip() or done.stdout.strip() or "nothing").split())
        raise Failed(f"ended with {done.returncode} and said: {said[-300:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else None


def name_of(stem):
    """Of a stem that is NAME or NAME.i8: inputs and the expected output are the same."""
    return stem.removesuffix(".i8")


def facts_of(args, stem):
    return json.loads((args.work / f"{name_of(stem)}.json").read_text())


# Of a safetensors header and of `numpy`'s names: the codes of `array`.
CODES = {"float32": "f", "int64": "q", "int8": "b", "uint8": "B", "int32": "i"}


def distance(args, stem, path, skip=0):
    """The largest difference of an output from PyTorch's, of its largest value. `skip`: bytes before the numbers."""
    facts = facts_of(args, stem)
    code = CODES[facts["output"][1]]
    want, got = array.array(code), array.array(code)
    want.frombytes((args.work / f"{name_of(stem)}.want.bin").read_bytes())
    got.frombytes(path.read_bytes()[skip:])
    if len(want) != len(got):
        raise Failed(f"{len(got)} numbers where {len(want)} are expected")
    if not all(map(math.isfinite, got)):
        return math.inf
    return max(map(lambda a, b: abs(a - b), want, got)) / max(max(map(abs, want)), 1e-30)


class Peer:
    """In a Python of its own."""

    def __init__(self, name, python, files, title=None):
        self.name, self.title, self.python, self.files = name, title or name, python, files

    def takes(self, args, stem, threads):
        present = all((args.work / (stem + suffix)).exists() for suffix in self.files)
        return bool(self.python) and present and not (self.name == "tract" and threads > 1)

    def command(self, args, stem, threads):
        return [self.python, HERE / "peer.py", self.name, args.work, stem, "--threads", threads, "--secs", args.secs]

    def error(self, args, stem, threads):
        """Each start says its own."""
        return None

    def size(self, args, stem):
        return sum((args.work / (stem + suffix)).stat().st_size for suffix in self.files)


class ExecuTorch(Peer):
    """In C++, on the libraries of its package."""

    def __init__(self, name, suffix, title):
        super().__init__(name, None, [suffix], title)

    def takes(self, args, stem, threads):
        return bool(args.runner) and (args.work / (stem + self.files[0])).exists()

    def command(self, args, stem, threads):
        count = len(facts_of(args, stem)["inputs"])
        inputs = ",".join(str(args.work / f"{name_of(stem)}.{k}.bin") for k in range(count))
        return [args.runner, args.work / (stem + self.files[0]), "--inputs", inputs, "--threads", threads, "--secs", args.secs]

    def error(self, args, stem, threads):
        with tempfile.TemporaryDirectory() as folder:
            call([*self.command(args, stem, threads), "--outputs", f"{folder}/"], args, timed=False)
            return distance(args, stem, pathlib.Path(folder, "0.bin"))


class Delegraph(Peer):
    """Ours, compiled ahead of time into WORK/STEM.NAME.pte; or whatever command is given."""

    def __init__(self, name="delegraph", template=OURS, backend=""):
        super().__init__(name, None, [".pt2"])
        self.template, self.backend = template, ["--backend", backend] if backend else []

    def model(self, args, stem):
        return args.work / f"{stem}.{self.name}.pte"

    def takes(self, args, stem, threads):
        return bool(args.delegraph) and (args.work / f"{stem}.pt2").exists()

    def prepare(self, args, stem):
        """Compiles once a run, for the binary may be another one than the last time."""
        if "{model}" in self.template:
            call([args.delegraph, "compile", args.work / f"{stem}.pt2", "-o", self.model(args, stem), *self.backend, "--quiet"], args, timed=False)

    def filled(self, args, stem, threads):
        names = {
            "delegraph": args.delegraph, "model": self.model(args, stem), "pt2": args.work / f"{stem}.pt2", "stem": args.work / stem,
            "inputs": args.work / f"{name_of(stem)}.inputs.safetensors", "threads": threads, "secs": args.secs,
        }
        return [word.format(**names) for word in shlex.split(self.template)]

    def command(self, args, stem, threads):
        return [*self.filled(args, stem, threads), *self.backend]

    def error(self, args, stem, threads):
        model = self.model(args, stem) if "{model}" in self.template else args.work / f"{stem}.pt2"
        inputs = args.work / f"{name_of(stem)}.inputs.safetensors"
        with tempfile.TemporaryDirectory() as folder:
            call([args.delegraph, "run", model, "--inputs", inputs, "--output-dir", folder, "--quiet", *self.backend], args, timed=False)
            path = sorted(pathlib.Path(folder).glob("*.npy"))[0]
            # The header of `.npy`: ten bytes and as many more as the last two of these say.
            return distance(args, stem, path, 10 + int.from_bytes(path.read_bytes()[8:10], "little"))

    def size(self, args, stem):
        return (self.model(args, stem) if "{model}" in self.template else args.work / f"{stem}.pt2").stat().st_size


def engines(args):
    """Ours first. A variant is NAME=COMMAND, or NAME=@BACKENDS for the usual command with these."""
    ours = []
    for variant in args.ours or [f"delegraph=@{args.backend}"]:
        name, _, text = variant.partition("=")
        ours.append(Delegraph(name, backend=text[1:]) if text.startswith("@") else Delegraph(name, text))
    peers = [
        ExecuTorch("xnnpack", ".xnnpack.pte", "ExecuTorch, XNNPACK"),
        Peer("onnxruntime", args.peers, [".onnx"], "ONNX Runtime"), Peer("openvino", args.peers, [".onnx"], "OpenVINO"),
        Peer("litert", args.peers, [".tflite"], "LiteRT"), Peer("ncnn", args.peers, [".ncnn.param", ".ncnn.bin"]),
        Peer("tract", args.peers, [".onnx"]),
    ]
    if args.undelegated:
        peers.append(ExecuTorch("executorch", ".pte", "ExecuTorch, no delegate"))
    wanted = args.only.split(",") if args.only else None
    ours = [engine for engine in ours if args.delegraph]
    return ours, [engine for engine in peers if not wanted or engine.name in wanted]
