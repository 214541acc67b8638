"""Runs single operators, as Delegraph writes them, in stock ExecuTorch.

    PYTHON check_ops.py CORPUS PROGRAMS [--samples]

CORPUS is a corpus of recorded operator calls (`conformance/corpus` is one), PROGRAMS what `delegraph conform ops --corpus CORPUS --programs
PROGRAMS` made of it.
Prints a line for each operator and reason, and a last line of counts:

    unregistered  stock ExecuTorch has no such kernel
    refused       it has, and the kernel or the loader refuses the call
    died          the kernel aborts the process
    differs       the result is not PyTorch's, beyond the corpus's tolerance
    not written   Delegraph has no portable form of it

`--samples` adds a program. Exit 1 when the loader refuses a program, which is never a kernel's fault.
"""

import collections
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from check_stock import Mismatch, difference, read_safetensors, runtime_lines
from executorch.runtime import Runtime

BATCH = 100


def run_case(case, shards, programs):
    """Verdict and reason of one case."""
    program = Runtime.get().load_program(programs / case["file"])
    tensors = shards[case["shard"]]
    outputs = program.load_method("forward").execute([tensors[key].clone() for key in case["inputs"]])
    if len(outputs) != len(case["outputs"]):
        return "differs", f"{len(outputs)} outputs, not {len(case['outputs'])}"
    for k, (got, key) in enumerate(zip(outputs, case["outputs"])):
        try:
            difference(got, tensors[key], case["rtol"] or 0.0, case["atol"] or 0.0)
        except Mismatch as reason:
            return "differs", f"output {k} ({str(tensors[key].dtype)[6:]}): {reason}"
    return "pass", ""


def judge(error, log):
    """Verdict and reason of a call that raised."""
    said = "; ".join(runtime_lines(log)[:2])
    missing = re.search(r"kernel '([^']+)' not found", said)
    if missing:
        return "unregistered", missing.group(1)
    return "refused", f"{error} -- {said}"


def run_batch(cases, shards, programs):
    """Verdicts of cases in one child; the case that kills it is told, and the rest run in another."""
    verdicts = []
    while len(verdicts) < len(cases):
        with tempfile.TemporaryDirectory() as folder:
            answers, log = Path(folder) / "answers", Path(folder) / "log"
            child = os.fork()
            if child == 0:
                descriptor = os.open(log, os.O_RDWR | os.O_CREAT)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                with open(answers, "w") as file:
                    for case in cases[len(verdicts) :]:
                        os.ftruncate(descriptor, 0)
                        os.lseek(descriptor, 0, os.SEEK_SET)
                        try:
                            answer = run_case(case, shards, programs)
                        except BaseException as error:
                            answer = judge(error, log)
                        file.write(json.dumps(answer) + "\n")
                        file.flush()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            verdicts += [json.loads(line) for line in answers.read_text().splitlines()]
            if status != 0:
                verdicts.append(["died", f"signal {status & 127} -- {'; '.join(runtime_lines(log)[:1])}"])
    return verdicts


def main():
    corpus, programs, samples = Path(sys.argv[1]), Path(sys.argv[2]), "--samples" in sys.argv
    cases = [json.loads(line) for line in (programs / "cases.jsonl").read_text().splitlines()]
    shards = {int(path.stem.split("-")[1]): read_safetensors(path) for path in corpus.glob("shard-*.safetensors")}
    counts = collections.Counter()
    by_op = collections.defaultdict(lambda: collections.defaultdict(list))
    runnable = [case for case in cases if "file" in case]
    for case in cases:
        if "file" not in case:
            counts["not written"] += 1
            by_op[case["op"]]["not written"].append((case, case["error"]))
    for start in range(0, len(runnable), BATCH):
        batch = runnable[start : start + BATCH]
        for case, (verdict, reason) in zip(batch, run_batch(batch, shards, programs)):
            counts[verdict] += 1
            by_op[case["op"]][verdict].append((case, reason))
    for op in sorted(by_op):
        total = sum(map(len, by_op[op].values()))
        for verdict, items in sorted(by_op[op].items()):
            # Counts, not numbers, tell two reasons apart.
            groups = collections.defaultdict(list)
            for case, reason in items if verdict != "pass" else []:
                groups[re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?( of \d+)?", "N", reason)].append((case, reason))
            for group in groups.values():
                case, reason = group[0]
                print(f"{op}: {verdict} {len(group)} of {total}: {reason}")
                if samples:
                    print(f"    {case.get('file', '')}")
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.most_common()))
    sys.exit(1 if any("Failed to load" in reason for kinds in by_op.values() for _, reason in kinds["refused"]) else 0)


if __name__ == "__main__":
    main()
