"""Runs the exported networks on the Vulkan delegate, compares with PyTorch, and prints the tables. Called by `run`; standard library only.

Each figure is of a process of its own: the first inference is what an app's user waits for, so nothing may be warm. Mesa's own cache of shaders is
off, and the delegate's cache of pipelines is empty but where a row says otherwise. Counts are of other processes than times, under
`count_layer.c`, and are the same for both engines; a run's are an eighth of the difference between a process of 9 steady
runs and one of 1.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import resource
import statistics
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
NETWORKS = ["mobilenet-v2", "resnet-50", "vit-b-16"]
BACKENDS = ["--backend", "vulkan"]
# Of the largest expected output. It is what float32 in another order makes of networks of this depth, ten times over.
TOLERANCE = 1e-4


def read_floats(path):
    """The one float32 tensor of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    ((_, entry),) = ((k, v) for k, v in json.loads(data[8 : 8 + size]).items() if k != "__metadata__")
    begin, end = (8 + size + at for at in entry["data_offsets"])
    return struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])


LINES = []


def say(line=""):
    """Prints, and keeps for the record."""
    LINES.append(line)
    print(line, flush=True)


def machine(args):
    """What the figures are of."""
    try:
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        cpu = platform.processor() or platform.machine()
    try:
        summary = subprocess.run(["vulkaninfo", "--summary"], capture_output=True, text=True).stdout
    except OSError:
        summary = ""
    devices = re.findall(r"deviceName\s*= (.*)", summary)
    drivers = [f"{name} {info}".strip() for name, info in zip(re.findall(r"driverName\s*= (.*)", summary), re.findall(r"driverInfo\s*= (.*)", summary))]
    version = subprocess.run([args.delegraph, "--version"], capture_output=True, text=True).stdout.strip()
    return f"{version}; {cpu}, {os.cpu_count()} cores; " + "; ".join(f"{device}, {driver}" for device, driver in zip(devices, drivers))


class Failed(Exception):
    """A program that did not do what it was to do."""


def call(command, environment=None, counts=None):
    """Runs a program with an empty cache of its own; what it printed."""
    with tempfile.TemporaryDirectory() as cache:
        merged = {
            **os.environ, "XDG_CACHE_HOME": cache, "DELEGRAPH_CACHE_DIR": cache, "MESA_SHADER_CACHE_DISABLE": "true",
            **(environment or {}),
        }
        if counts:
            merged |= {"VK_INSTANCE_LAYERS": "VK_LAYER_DELEGRAPH_count", "DELEGRAPH_COUNT_FILE": str(counts)}
        done = subprocess.run([str(word) for word in command], env=merged, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(word) for word in command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Delegraph:
    name = "Delegraph"

    def __init__(self, args, network):
        self.binary, self.folder = args.delegraph, args.work / network
        self.program = self.folder / "model.pte"
        self.inputs = ["--inputs", self.folder / "inputs.safetensors"]

    def compile(self):
        """Writes the program; what is delegated."""
        report = self.folder / "compile.json"
        call([self.binary, "compile", self.folder / "model.pt2", *BACKENDS, "-o", self.program, "--json", report])
        report = json.loads(report.read_text())
        coverage, regions = report["coverage"], sum(len(graph["regions"]) for graph in report["graphs"])
        problems = [f"{state['backend']}: {state['problem']}" for state in report["backends"] if state["problem"]]
        return {**coverage, "regions": regions, "bytes": report["bytes"]["total"], "problems": problems}

    def check(self):
        """The largest difference from PyTorch; it fails where that is too large or a region fell back."""
        largest = max(map(abs, read_floats(self.folder / "expected.safetensors")))
        report = self.folder / "run.json"
        expect = ["--expect", self.folder / "expected.safetensors", "--rtol", 0, "--atol", TOLERANCE * largest]
        text = call([self.binary, "run", self.program, *BACKENDS, *self.inputs, *expect, "--json", report])
        report = json.loads(report.read_text())
        if report["fallbacks"]:
            raise Failed(f"{self.program}: {report['fallbacks']} regions fell back: {report['problems']}")
        return float(re.search(r"max_abs ([0-9.e+-]+)", text).group(1)), largest

    def measure(self, runs, counts=None, environment=None):
        with tempfile.NamedTemporaryFile(suffix=".json") as report:
            command = [self.binary, "bench", self.program, *BACKENDS, *self.inputs, "--warmup", 1, "--runs", runs]
            call([*command, "--json", report.name], environment, counts)
            return json.loads(pathlib.Path(report.name).read_text())


class Warm(Delegraph):
    """With the pipelines of an earlier process on disk."""

    name = "Delegraph, pipelines cached"

    def measure(self, runs, counts=None, environment=None):
        with tempfile.TemporaryDirectory() as cache:
            kept = {"XDG_CACHE_HOME": cache, "DELEGRAPH_CACHE_DIR": cache}
            super().measure(1, None, kept)
            return super().measure(runs, counts, kept)


class Ncnn:
    def __init__(self, args, fp16=False):
        self.name = "ncnn, float16" if fp16 else "ncnn, float32"
        folder, model = args.work / "mobilenet-v2", args.work / "ncnn/mobilenet-v2"
        self.command = [
            args.peer, HERE / "ncnn_peer.py", f"{model}.param", f"{model}.bin", folder / "inputs.safetensors",
            folder / "expected.safetensors", "--loader", "libvulkan.so.1", *(["--fp16"] if fp16 else []),
        ]

    def measure(self, runs, counts=None):
        text = call([*self.command, "--runs", runs], None, counts)
        return json.loads(text.splitlines()[-1])


def cpu_ms():
    """Of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e3


def count(engine, work):
    """What making everything ready and the first run take, and what a further run takes."""
    totals = []
    for runs in (1, 9):
        path = work / "counts.json"
        path.unlink(missing_ok=True)
        before = cpu_ms()
        report = engine.measure(runs, path)
        used = cpu_ms() - before - report.get("cpu_base_ms", 0)
        if not path.exists():
            return None
        totals.append({**json.loads(path.read_text()), "cpu_ms": used})
    one, nine = totals
    keys = ("dispatches", "barriers", "copies", "copy_bytes", "dispatch_bytes", "submits", "cpu_ms")
    run = {key: (nine[key] - one[key]) / 8 for key in keys}
    made = {key: one[key] for key in ("pipelines", "pipeline_ms", "allocations", "peak_bytes")}
    return {"run": run, "first_cpu_ms": one["cpu_ms"] - run["cpu_ms"], **made}


def side_by_side(engines, args):
    """Rounds in turns, so that a slow minute hits all."""
    seen = {engine.name: [] for engine in engines}
    for _ in range(args.rounds):
        for engine in engines:
            seen[engine.name].append(engine.measure(args.runs))
    rows = []
    for engine in engines:
        rounds = seen[engine.name]
        median = lambda values: statistics.median(list(values))
        rows.append({
            "engine": engine.name,
            "load_ms": median(r["load_ms"] for r in rounds),
            "first_ms": median(r["load_ms"] + r["first_ms"] for r in rounds),
            "steady_ms": median(statistics.median(r["times_ms"]) for r in rounds),
            "rss_peak_mb": max(r["rss_peak_mb"] for r in rounds),
            "rss_added_mb": max(r["rss_peak_mb"] - r["rss_base_mb"] for r in rounds),
            "counts": count(engine, args.work) if type(engine) is not Warm else None,
            "version": rounds[0].get("version"), "max_abs": max((r["max_abs"] for r in rounds if "max_abs" in r), default=None),
        })
    return rows


def mb(count):
    return f"{count / 1e6:.1f}"


def table(header, rows):
    say("| " + " | ".join(header) + " |")
    say("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        say("| " + " | ".join(row) + " |")
    say()


def print_side_by_side(rows):
    def cells(row):
        counts, run = row["counts"], (row["counts"] or {}).get("run")
        times = [f"{row[key]:.0f}" for key in ("first_ms", "steady_ms", "rss_peak_mb", "rss_added_mb")]
        if counts is None:
            return [row["engine"], *times, *["-"] * 8]
        reached = run["dispatch_bytes"] + 2 * run["copy_bytes"]
        return [
            row["engine"], *times, f"{counts['first_cpu_ms']:.0f}", f"{run['cpu_ms']:.0f}", f"{counts['pipelines']}",
            mb(counts["peak_bytes"]), f"{run['dispatches']:g}", f"{run['barriers']:g}", f"{run['submits']:g}", mb(reached),
        ]

    table(["MobileNetV2, 1x3x224x224", "first ms", "steady ms", "RSS peak MB", "added MB", "first CPU ms", "steady CPU ms", "pipelines",
           "device MB", "dispatches", "barriers", "submits", "MB reached"], map(cells, rows))
    ours = rows[0]
    for row in rows[1:]:
        if row["engine"].startswith("ncnn"):
            say(f"Beside {row['engine']} {row['version']}: the first inference is {row['first_ms'] / ours['first_ms']:.2f} times faster, "
                f"a steady one {row['steady_ms'] / ours['steady_ms']:.2f} times; its outputs differ from PyTorch's by {row['max_abs']:.1e} at most.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--delegraph", required=True)
    parser.add_argument("--peer", type=pathlib.Path, help="a Python that has ncnn")
    parser.add_argument("--only", choices=NETWORKS, action="append", help="these networks alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5, help="steady runs of a process")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures")
    parser.add_argument("--record", type=pathlib.Path, help="write what is printed")
    args = parser.parse_args()

    record, failed = {"networks": {}, "peer": None}, False
    say(machine(args))
    say(f"Steady times are medians of {args.runs} runs; where engines are compared, figures are medians of {args.rounds} rounds.")
    say()
    rows = []
    for network in args.only or NETWORKS:
        engine = Delegraph(args, network)
        try:
            made = engine.compile()
            for problem in made["problems"]:
                print(f"{network}: {problem}", file=sys.stderr)
            difference, largest = engine.check()
            times = engine.measure(args.runs)
        except Failed as failure:
            failed = True
            rows.append([network, "failed", *["-"] * 8])
            print(f"{network}: {failure}", file=sys.stderr, flush=True)
            continue
        share = made["delegated_macs"] / made["macs"]
        first, steady = times["load_ms"] + times["first_ms"], statistics.median(times["times_ms"])
        record["networks"][network] = {
            **made, "max_abs": difference, "largest": largest, "first_ms": first, "steady_ms": steady, "rss_peak_mb": times["rss_peak_mb"],
        }
        rows.append([
            network, f"{share:.2%}", str(made["regions"]), f"{made['delegated_nodes']} of {made['nodes']}", mb(made["macs"]), f"{difference:.1e}",
            f"{largest:.2f}", f"{first:.0f}", f"{steady:.0f}", f"{times['rss_peak_mb']:.0f}",
        ])
    table(["network", "MACs delegated", "regions", "nodes", "million MACs", "largest error", "largest output", "first ms", "steady ms",
           "RSS peak MB"], rows)

    if args.no_peer or (args.only and "mobilenet-v2" not in args.only):
        pass
    elif not (args.peer and args.peer.exists()):
        say("skipped: the peer: run `cargo xtask provision ncnn`")
    elif "mobilenet-v2" in record["networks"]:
        try:
            engines = [Delegraph(args, "mobilenet-v2"), Warm(args, "mobilenet-v2"), Ncnn(args), Ncnn(args, fp16=True)]
            record["peer"] = side_by_side(engines, args)
            print_side_by_side(record["peer"])
        except Failed as failure:
            failed = True
            print(failure, file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    if args.record and not failed:
        args.record.write_text("# The last run\n\n" + "\n".join(LINES) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
