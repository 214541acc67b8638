"""Compares outputs, times both engines in turns, and prints the table. `run` beside it says how it is called."""

import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

import numpy

# Relative to the largest value of an output: sums in another order, and functions that are good to a few units in the last place.
TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "int64": 0, "int8": 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--delegraph", required=True)
    parser.add_argument("--runner", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="each starts both engines once for every operator")
    parser.add_argument("--secs", type=float, default=0.3, help="seconds of timed runs a round")
    parser.add_argument("--only", default="", help="operators whose name has this word")
    parser.add_argument("--prefix", default="", help="put before what is timed, such as `chrt -f 10` on a shared machine")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()

    rows = [row for row in json.loads((args.work / "operators.json").read_text()) if args.only in row["name"]]
    failures = []
    for row in rows:
        try:
            row["error"] = differences(args, row)
        except (RuntimeError, OSError, ValueError) as error:
            failures.append(f"{row['name']}: {error}")
    for failure in failures:
        print(f"FAILED  {failure}", file=sys.stderr)
    if failures or not rows:
        return 1

    begun = os.getloadavg()[0]
    times = {(row["stem"], engine): [] for row in rows for engine in ENGINES}
    for done in range(args.rounds):
        for row in rows:
            for engine, command in ENGINES.items():
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {done + 1} of {args.rounds}: {row['name']}", end="", file=sys.stderr)
                times[row["stem"], engine].append(timed(shlex.split(args.prefix) + command(args, row)))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)

    for row in rows:
        for engine in ENGINES:
            rounds = times[row["stem"], engine]
            medians = [statistics.median(runs) for runs in rounds]
            every = sorted(run for runs in rounds for run in runs)
            row[engine] = {
                "median_ms": statistics.median(medians), "p95_ms": every[int((len(every) - 1) * 0.95)],
                "spread": max(medians) / min(medians) - 1, "runs": len(every), "medians_ms": medians,
            }
        row["ratio"] = row["executorch"]["median_ms"] / row["delegraph"]["median_ms"]
    report = {
        "machine": machine() | {"load_before": begun}, "build": build(args), "threads": args.threads, "rounds": args.rounds,
        "secs": args.secs, "prefix": args.prefix and f", `{args.prefix}`", "operators": rows,
        "geometric_mean": math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows)),
        "slower": [row["name"] for row in rows if row["ratio"] < 1],
    }
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def executorch(args, row):
    return [args.runner, stem(args, row, ".pte"), *runner_inputs(args, row), "--threads", str(args.threads), "--secs", str(args.secs)]


def delegraph(args, row):
    return [args.delegraph, "bench", stem(args, row, ".pte"), "--inputs", stem(args, row, ".safetensors"), "--threads", str(args.threads),
            "--secs", str(args.secs), "--quiet", "--no-load", "--json"]


ENGINES = {"executorch": executorch, "delegraph": delegraph}


def stem(args, row, suffix):
    return str(args.work / (row["stem"] + suffix))


def runner_inputs(args, row):
    return ["--inputs", ",".join(stem(args, row, f".{k}.bin") for k in range(row["inputs"]))]


def ran(command):
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if result.returncode != 0:
        raise RuntimeError(f"`{pathlib.Path(command[0]).name}` ends with {result.returncode}: {result.stderr.strip()[-300:]}")
    return result.stdout


def timed(command):
    line = next(line for line in ran(command).splitlines() if line.startswith("{"))
    return json.loads(line)["times_ms"]


def differences(args, row):
    """How far both engines are from PyTorch's eager results; an error if it is too far."""
    worst = {}
    with tempfile.TemporaryDirectory() as folder:
        ran([args.runner, stem(args, row, ".pte"), *runner_inputs(args, row), "--threads", str(args.threads), "--outputs", f"{folder}/et"])
        ran([args.delegraph, "run", stem(args, row, ".pte"), "--inputs", stem(args, row, ".safetensors"), "--output-dir", f"{folder}/ours",
             "--quiet", "--no-load"])
        ours = sorted(pathlib.Path(folder, "ours").glob("*.npy"))
        if len(ours) != len(row["outputs"]):
            raise RuntimeError(f"{len(ours)} outputs where {len(row['outputs'])} are expected")
        for k, dtype in enumerate(row["outputs"]):
            want = numpy.fromfile(stem(args, row, f".want{k}.bin"), dtype)
            found = {"executorch": numpy.fromfile(f"{folder}/et{k}.bin", dtype), "delegraph": numpy.load(ours[k]).ravel()}
            for engine, got in found.items():
                if got.dtype != want.dtype or got.shape != want.shape:
                    raise RuntimeError(f"output {k} of {engine}: {got.dtype} {got.shape} instead of {want.dtype} {want.shape}")
                a, b = got.astype("float64"), want.astype("float64")
                error = float(numpy.abs(a - b).max() / max(numpy.abs(b).max(), 1e-30))
                if not error <= TOLERANCE[dtype]:
                    raise RuntimeError(f"output {k} of {engine} is {error:.1e} of the largest value away from PyTorch's")
                worst[engine] = max(worst.get(engine, 0), error)
    return worst


def machine():
    """Which processor this was: figures of different ones do not compare."""
    fields = {}
    if os.path.exists("/proc/cpuinfo"):
        for line in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    flags = set(fields.get("flags", "").split())
    return {
        "cpu": fields.get("model name", "unknown"), "family": fields.get("cpu family"), "model": fields.get("model"),
        "cores": os.cpu_count(), "flags": sorted(flags & {"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_fp16"}),
    }


def build(args):
    return {
        "delegraph": ran([args.delegraph, "--version"]).strip(), "profile": "release",
        "executorch": importlib.metadata.version("executorch"), "torch": importlib.metadata.version("torch"),
    }


def show(report):
    machine, build = report["machine"], report["build"]
    print(f"machine    {machine['cpu']} (family {machine['family']}, model {machine['model']}), {machine['cores']} cores, {' '.join(machine['flags'])}")
    print(f"build      {build['delegraph']}, {build['profile']}; executorch {build['executorch']}, torch {build['torch']}")
    print(f"runs       {report['rounds']} rounds of {report['secs']} s, in turns, {report['threads']} thread(s){report['prefix']}; load before {machine['load_before']:.1f}")
    print()
    print("| operator | shape | dtype | ExecuTorch ms | Delegraph ms | p95 ms | times faster | spread |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in report["operators"]:
        et, ours = row["executorch"], row["delegraph"]
        print(f"| {row['name']} | {row['shape']} | {row['dtype']} | {et['median_ms']:.4f} | {ours['median_ms']:.4f} | "
              f"{et['p95_ms']:.4f}, {ours['p95_ms']:.4f} | {row['ratio']:.2f} | {et['spread'] * 100:.0f} %, {ours['spread'] * 100:.0f} % |")
    print()
    count = len(report["operators"])
    print(f"{count} operators: geometric mean {report['geometric_mean']:.2f} times faster, {len(report['slower'])} slower"
          + (f" ({', '.join(report['slower'])})" if report["slower"] else ""))


if __name__ == "__main__":
    sys.exit(main())
