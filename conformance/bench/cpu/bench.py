"""Times our engine and every peer on the same weights, in turns, and prints the table. `run` beside it says how it is called.

A cell is a model and a number of threads. In each round every engine of a cell is started once, in an order that moves on by one a round, and so
are the limits of the machine; a slow minute hits all. What fails once is left out of its cell and said.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from engines import Failed, call, engines, facts_of  # noqa: E402
from figures import least_ms, paired, summary  # noqa: E402
from machine import build, machine  # noqa: E402
from report import show  # noqa: E402

# An output that is further from PyTorch's than this, of its largest value, is of another network: the row stands and is no peer. Winograd's
# and half-precision stores are within it. Random weights have no calibration, so that int8 is held to nothing but finite numbers.
TOLERANCE = {"f32": 1e-2, "i8": float("inf")}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--models", default="mv2,mv3s,convnet,bert_tiny,lstm,edsr,minilm_l6,resnet50,vit_b16,mv2.i8,resnet50.i8")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--secs", type=float, default=1, help="seconds of timed runs of an engine in a round; one run at least")
    parser.add_argument("--timeout", type=float, default=300, help="seconds that a start may take")
    parser.add_argument("--prefix", default="", help="put before what is timed, such as `chrt -f 10` on a machine that others use")
    parser.add_argument("--delegraph", help="the binary; absent: peers alone")
    parser.add_argument("--backend", default="cpu", help="of ours, as `delegraph compile --backend` has it; empty: portable kernels")
    parser.add_argument("--ours", action="append", help="NAME=@BACKENDS, or NAME=COMMAND with {delegraph} {model} {pt2} {inputs} {threads} {secs}; again for more")
    parser.add_argument("--only", default="", help="these peers alone")
    parser.add_argument("--skip", default="", help="MODEL:ENGINE,... that are not started")
    parser.add_argument("--undelegated", action="store_true", help="ExecuTorch without a delegate too, which takes seconds to minutes a run")
    parser.add_argument("--peers", help="a Python with the peers")
    parser.add_argument("--runner", help="`et_runner`, built")
    parser.add_argument("--limits", help="`limits`, built")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--record", type=pathlib.Path, help="what is printed, as a file")
    return parser.parse_args()


def rounds_of(cell, ours, peers, args):
    """Starts everything `rounds` times; what each engine said, what the limits said, and who failed."""
    stem, threads = cell["model"], cell["threads"]
    skipped = {tuple(item.split(":")) for item in args.skip.split(",") if item}
    members = [e for e in [*ours, *peers] if e.takes(args, stem, threads) and (stem, e.name) not in skipped]
    said, limits, failures, errors = {e.name: [] for e in members}, [], {}, {}
    for engine in members:
        try:
            if engine in ours:
                engine.prepare(args, stem)
            errors[engine.name] = engine.error(args, stem, threads)
        except (Failed, KeyError, IndexError, OSError) as failure:
            failures[engine.name] = str(failure)
    for turn in range(args.rounds):
        if args.limits:
            limits.append(call([args.limits, threads], args))
        for k in range(len(members)):
            engine = members[(k + turn) % len(members)]
            if engine.name in failures:
                continue
            if sys.stderr.isatty():
                print(f"\r\033[K{stem} T{threads}, round {turn + 1} of {args.rounds}: {engine.name}", end="", file=sys.stderr)
            try:
                got = call(engine.command(args, stem, threads), args)
                if not (got and got.get("times_ms")):
                    raise Failed("printed no times")
                got["load_average"] = os.getloadavg()[0]
                said[engine.name].append(got)
            except Failed as failure:
                failures[engine.name] = str(failure)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return [e for e in members if e.name not in failures], said, limits, failures, errors


def middle(said, key):
    values = [got[key] for got in said if got.get(key) is not None]
    return statistics.median(values) if values else None


def measure(cell, ours, peers, args):
    """The rows of a cell."""
    stem = cell["model"]
    form = "i8" if stem.endswith(".i8") else "f32"
    facts = facts_of(args, stem)
    members, said, limits, cell["failures"], errors = rounds_of(cell, ours, peers, args)
    cell["limits"] = {
        key: statistics.median(limit[key] for limit in limits) if key.endswith(("gflops", "gops", "gbs")) else limits[0][key]
        for key in limits[0]
    } if limits else None
    if limits:
        cell["least_ms"], cell["bound"] = least_ms(facts, cell["limits"], form == "i8", machine()["cache_bytes"])
    cell["operations"], cell["weight_bytes"] = facts["operations"], facts["weight_bytes"]
    for engine in members:
        got = said[engine.name]
        error = errors[engine.name] if errors[engine.name] is not None else max((g["error"] for g in got if g.get("error") is not None), default=None)
        row = {
            "engine": engine.name, "title": engine.title, "ours": engine in ours, **summary([g["times_ms"] for g in got]),
            **{key: middle(got, key) for key in ("load_ms", "first_ms", "rss_peak_mb", "rss_base_mb")},
            "size": engine.size(args, stem), "error": error, "version": got[0].get("version"),
            "load_average": [g["load_average"] for g in got],
        }
        row["right"] = error is not None and error <= TOLERANCE[form]
        row["of_limit"] = cell["least_ms"] / row["median_ms"] if limits else None
        cell["rows"].append(row)
    rivals = [row for row in cell["rows"] if not row["ours"] and row["right"]]
    best = min(rivals, key=lambda row: row["median_ms"], default=None)
    cell["best_peer"] = best and best["engine"]
    for row in cell["rows"]:
        if best and row is not best:
            row["by_best"] = paired(row["medians_ms"], best["medians_ms"])
    cell["rows"].sort(key=lambda row: row["median_ms"])


def main():
    args = arguments()
    ours, peers = engines(args)
    report = {
        "machine": machine(), "build": build(args), "begun": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "rounds": args.rounds, "secs": args.secs, "prefix": args.prefix, "tolerance": TOLERANCE["f32"], "cells": [],
    }
    record = args.work / "export.json"
    report["not_exported"] = {
        path: why for path, why in json.loads(record.read_text() if record.exists() else "{}").items()
        if any(path.startswith(stem.removesuffix(".i8") + ".") for stem in args.models.split(","))
    }
    for stem in args.models.split(","):
        if not (args.work / f"{stem.removesuffix('.i8')}.json").exists():
            print(f"{stem}: not exported", file=sys.stderr)
            return 2
        for threads in map(int, args.threads.split(",")):
            cell = {"model": stem, "threads": threads, "rows": []}
            measure(cell, ours, peers, args)
            report["cells"].append(cell)
            # As far as it got: a run takes hours.
            if args.json:
                args.json.write_text(json.dumps(report, indent=1) + "\n")
            if sys.stderr.isatty():
                print(f"{stem} T{threads}: {len(cell['rows'])} engines", file=sys.stderr)
    text = show(report)
    print(text)
    if args.record:
        args.record.write_text(text + "\n")
    wrong = [row for cell in report["cells"] for row in cell["rows"] if row["ours"] and not row["right"]]
    failed = [name for cell in report["cells"] for name in cell["failures"] if name in {engine.name for engine in ours}]
    return 1 if wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
