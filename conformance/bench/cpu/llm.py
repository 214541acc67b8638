"""Times language models side by side, as `bench.py` does others: tokens a second of a prompt (prefill) and of one after the other (decode).

    bash conformance/bench/cpu/run --llm [--shapes 110m,1b] [--types Q4_0,Q8_0] [--threads 1,2] [--rounds 15]

Ours is `delegraph bench --llm` on WORK/llama-SHAPE.TYPE.pte, which `run` compiles: weights of 4 bits in groups of 32 with rows of 8 bits (`8da4w`) for Q4_0,
of 8 bits (`w8`) for Q8_0.

Decode reads all weights once a token, but for an embedding that is not the last layer's too. Its limit is the time of reading those of them from
memory that the last cache does not hold.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from engines import Failed, call  # noqa: E402
from figures import paired, summary  # noqa: E402
from llm_export import SHAPES  # noqa: E402
from machine import build, machine  # noqa: E402
from report import head, number, percent  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--shapes", default="110m,1b")
    parser.add_argument("--types", default="Q4_0,Q8_0")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--tokens", type=int, default=16, help="that are decoded")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a start may take")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--delegraph")
    parser.add_argument("--llama", required=True, help="`llama_runner`, built")
    parser.add_argument("--backends", required=True, help="the folder of llama.cpp's libraries")
    parser.add_argument("--limits")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.runner, args.secs = None, 0
    return args


def commands(args, shape, kind, threads):
    counts = ["--threads", threads, "--prompt", args.prompt, "--tokens", args.tokens]
    found = {}
    if args.delegraph:
        program = args.work / f"llama-{shape}.{kind}.pte"
        found["delegraph"] = [args.delegraph, "--quiet", "bench", program, "--llm", "--backend", "cpu", "--threads", threads, "--prompt", args.prompt,
                              "--generate", args.tokens, "--runs", 1, "--json"]
    found["llama.cpp"] = [args.llama, args.work / f"llama-{shape}.{kind}.gguf", "--backends", args.backends, *counts]
    return found


# Of a weight, with its share of a block's scale.
BYTES = {"Q4_0": 18 / 32, "Q8_0": 34 / 32, "F16": 2}


def least_ms(cell, size, read_gbs):
    """The time of a token at the rate of memory."""
    width, _, _, _, _, vocabulary, shared = SHAPES[cell["shape"]]
    embedding = 0 if shared else vocabulary * width * BYTES[cell["type"]]
    return max(0, size - embedding - machine()["cache_bytes"]) / read_gbs / 1e6


def measure(args, cell):
    found = commands(args, cell["shape"], cell["type"], cell["threads"])
    said, limits = {name: [] for name in found}, []
    for turn in range(args.rounds):
        if args.limits:
            limits.append(call([args.limits, cell["threads"]], args))
        order = list(found)
        for name in order[turn % len(order):] + order[:turn % len(order)]:
            if name in cell["failures"]:
                continue
            try:
                got = call(found[name], args)
                if name == "delegraph":
                    got |= {"prefill_ms": [got["prefill_ms"]], "decode_ms": got["times_ms"]}
                said[name].append(got)
            except Failed as failure:
                cell["failures"][name] = str(failure)
    stem = args.work / f"llama-{cell['shape']}.{cell['type']}"
    size = stem.with_name(stem.name + ".gguf").stat().st_size
    cell["size"], cell["read_gbs"] = size, statistics.median(limit["read_gbs"] for limit in limits) if limits else None
    for name, got in said.items():
        if not got or name in cell["failures"]:
            continue
        row = {"engine": name, "prefill": summary([g["prefill_ms"] for g in got]), "decode": summary([g["decode_ms"] for g in got])}
        for key in ("load_ms", "rss_base_mb", "rss_peak_mb"):
            row[key] = statistics.median(g[key] for g in got)
        row["file"] = stem.with_name(stem.name + (".pte" if name == "delegraph" else ".gguf")).stat().st_size
        row["of_limit"] = least_ms(cell, size, cell["read_gbs"]) / row["decode"]["median_ms"] if limits else None
        cell["rows"].append(row)
    rows = {row["engine"]: row for row in cell["rows"]}
    if len(rows) == 2:
        for part in ("prefill", "decode"):
            rows["delegraph"][part]["by_best"] = paired(rows["delegraph"][part]["medians_ms"], rows["llama.cpp"][part]["medians_ms"])


def show(args, report):
    lines = [*head(report), f"A prompt is {args.prompt} tokens, and {args.tokens} are decoded; figures are tokens a second.", "",
             "| model | threads | engine | prefill, p95 | decode, p95 | spread of decode | time by peer: prefill, decode | decode of limit | load ms | RSS peak MB | file MB |",
             "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for cell in report["llm"]:
        for row in cell["rows"]:
            rate = lambda count, ms: number(count / ms * 1e3)
            prefill, decode = row["prefill"], row["decode"]
            ratios = ", ".join(
                f"{part['by_best']['ratio']:.2f}" + (f" [{part['by_best']['low']:.2f}, {part['by_best']['high']:.2f}]" if part["by_best"]["low"] else "")
                for part in (prefill, decode) if "by_best" in part)
            lines.append("| " + " | ".join([
                f"{cell['shape']} {cell['type']}", str(cell["threads"]), row["engine"],
                f"{rate(args.prompt, prefill['median_ms'])}, {rate(args.prompt, prefill['p95_ms'])}",
                f"{rate(1, decode['median_ms'])}, {rate(1, decode['p95_ms'])}", percent(decode["spread"]), ratios or "-",
                percent(row["of_limit"]), number(row["load_ms"]), f"{row['rss_peak_mb']:.0f} (+{row['rss_peak_mb'] - row['rss_base_mb']:.0f})",
                f"{row['file'] / 1e6:.0f}",
            ]) + " |")
        lines += [f"\n{name} failed: {why}" for name, why in cell["failures"].items()]
    return "\n".join(lines)


def main():
    args = arguments()
    report = {
        "machine": machine(), "build": build(args), "begun": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "rounds": args.rounds,
        "secs": args.secs, "prefix": args.prefix, "cells": [], "llm": [],
    }
    for shape in args.shapes.split(","):
        for kind in args.types.split(","):
            for threads in map(int, args.threads.split(",")):
                cell = {"shape": shape, "type": kind, "threads": threads, "rows": [], "failures": {}}
                measure(args, cell)
                report["llm"].append(cell)
                if args.json:
                    args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(show(args, report))
    return 1 if any("delegraph" in cell["failures"] for cell in report["llm"]) else 0


if __name__ == "__main__":
    sys.exit(main())
