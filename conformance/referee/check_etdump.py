"""Opens the ETDumps of our runs with ExecuTorch's own Inspector, and holds what it sees against the model.

    PYTHON check_etdump.py --delegraph BINARY [--fixtures FOLDER]

Every model is compiled and run once with the portable kernels, and once with the delegate `reference`, where it can be had. The Inspector
has to see one run, an event for every instruction, one call for every region, and for each node of a region an event with a name that
the exported archive gives to a node. All times have to lie within the run, and those of a delegate within its call. The last line is
`N passed, N failed, N skipped`; exit 1 when something fails, or nothing was run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

from check_stock import Mismatch, Skip, in_child, read_safetensors, write_safetensors

# Straight-line, of several regions, of changing shapes, quantized, with branches, with loops.
MODELS = [
    "arch-mlp-dynamic-batch",
    "mtcnn-pnet",
    "arch-multi-output",
    "quant-pt2e-residual",
    "arch-cond",
    "arch-while",
]
# What an instruction's own event is called.
INSTRUCTIONS = ("OPERATOR_CALL", "DELEGATE_CALL", "MOVE_CALL", "JF_CALL", "FREE_CALL")


def command(*parts):
    """Runs our binary; its standard error is the reason of a failure."""
    done = subprocess.run([str(part) for part in parts], capture_output=True, text=True)
    if done.returncode != 0:
        raise Mismatch(f"{' '.join(str(part) for part in parts[1:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def archive_names(archive):
    """The names that an exported program gives to its nodes, and to what they make, subgraphs included."""
    names = set()

    def walk(item):
        if isinstance(item, dict):
            names.update(item[key] for key in ("name", "as_name") if isinstance(item.get(key), str))
            item = list(item.values())
        if isinstance(item, list):
            for part in item:
                walk(part)

    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            if "/models/" in member and member.endswith(".json"):
                walk(json.loads(opened.read(member)))
    return names


def first_inputs(fixture, path):
    """The inputs of the first step of a recorded model, by position."""
    description = json.loads((fixture / "fixture.json").read_text())
    tensors = read_safetensors(fixture / "inputs.safetensors")
    items = description["cases"][0]["steps"][0]["inputs"]
    if not all("tensor" in item for item in items):
        raise Skip("an input is no tensor")
    write_safetensors(path, {str(i): tensors[item["tensor"]] for i, item in enumerate(items)})


def judge(delegraph, fixture, backend):
    """One run and its dump. Returns numbers for the table."""
    from executorch.devtools import Inspector
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

    with tempfile.TemporaryDirectory() as folder:
        program, dump, inputs = (Path(folder) / name for name in ("model.pte", "run.etdp", "inputs.safetensors"))
        first_inputs(fixture, inputs)
        backends = [] if backend == "portable" else ["--backend", backend]
        common = ["--quiet", "--color", "never"]
        command(delegraph, "compile", fixture / "model.pt2", "-o", program, *backends, *common)
        inspected = json.loads(command(delegraph, "inspect", program, *common, "--json").stdout)
        started = time.monotonic_ns()
        load = ["--no-load"] if backend == "portable" else []
        ran = command(delegraph, "run", program, "--inputs", inputs, "--etdump", dump, *backends, *load, *common, "--json")
        wall = time.monotonic_ns() - started
        report = json.loads(ran.stdout)
        bytes_ = dump.read_bytes()
        inspector = Inspector(etdump_path=str(dump))

    if [block.name for block in inspector.event_blocks] != ["Execute"]:
        raise Mismatch(f"blocks {[block.name for block in inspector.event_blocks]}")
    (run,) = deserialize_from_etdump_flatcc(bytes_).run_data
    raw = [event.profile_event for event in run.events]
    whole = [event for event in raw if event.name == "Method::execute"]
    if len(whole) != 1 or whole[0].chain_index != -1:
        raise Mismatch("no event of the whole run")
    whole = whole[0]
    if not 0 < whole.end_time - whole.start_time < wall:
        raise Mismatch(f"the run took {whole.end_time - whole.start_time} ns of {wall}")
    for event in raw:
        if not whole.start_time <= event.start_time <= event.end_time <= whole.end_time:
            raise Mismatch(f"{event} does not lie within the run")

    # One event an instruction, each after the one before.
    steps = [event for event in raw if event.name in INSTRUCTIONS]
    for before, after in zip(steps, steps[1:]):
        if before.end_time > after.start_time:
            raise Mismatch(f"{before} and {after} overlap")
    kinds = Counter(event.name for event in steps)
    (method,) = (method for method in inspected["methods"] if method["name"] == "forward")
    kernels = sum(count for name, count in method["operators"].items() if "::" in name)
    straight = kernels == method["instructions"]
    bound = [region for region in report["regions"] if region["delegated_runs"]]
    if backend != "portable" and not bound:
        raise Skip("the delegate took no part")
    inside = sum(region["end"] - region["start"] for region in bound)
    if kinds["DELEGATE_CALL"] != len(bound):
        raise Mismatch(f"{kinds['DELEGATE_CALL']} calls of delegates, {len(bound)} regions")
    if straight and kinds["OPERATOR_CALL"] != kernels - inside:
        raise Mismatch(f"{kinds['OPERATOR_CALL']} kernels, not {kernels - inside}")
    if not straight and not kinds["JF_CALL"]:
        raise Mismatch("no jump in a program with branches")
    named = Counter(event.name for event in raw if event.name and event.name.startswith("native_call_"))
    known = {"native_call_" + name.split("::")[1] for name in method["operators"] if "::" in name}
    if not set(named) <= known or (backend == "portable" and not named):
        raise Mismatch(f"kernels {sorted(set(named) - known)} that the program does not have")

    # A delegate's events: one a node, named as the archive names nodes, within the call of their region.
    calls = {event.instruction_id: event for event in steps if event.name == "DELEGATE_CALL"}
    own = [event for event in raw if event.delegate_debug_id_str]
    nodes = sum(region["nodes"] for region in bound)
    if len(own) != nodes:
        raise Mismatch(f"{len(own)} events of delegates, {nodes} nodes")
    for event in own:
        call = calls[event.instruction_id]
        if not call.start_time <= event.start_time <= event.end_time <= call.end_time:
            raise Mismatch(f"{event} does not lie within its call")
    strangers = {event.delegate_debug_id_str for event in own} - archive_names(fixture / "model.pt2")
    if strangers:
        raise Mismatch(f"events of nodes that the archive does not name: {sorted(strangers)}")

    # And all of it through the Inspector.
    (block,) = inspector.event_blocks
    delegated = {event.name for event in block.events if event.is_delegated_op}
    if delegated != {event.delegate_debug_id_str for event in own}:
        raise Mismatch(f"the Inspector sees {sorted(delegated)}")
    table = block.to_dataframe()
    wanted = {"Method::execute", *kinds, *named, *delegated}
    if not wanted <= set(table["event_name"]):
        raise Mismatch(f"the Inspector does not see {sorted(wanted - set(table['event_name']))}")
    for event in block.events:
        if event.is_delegated_op and not {"event", "backend", "op"} <= set(json.loads(bytes(event.raw_delegate_debug_metadatas[0]))):
            raise Mismatch(f"{event.name}: no metadata")
    return {"steps": len(steps), "kernels": kinds["OPERATOR_CALL"], "regions": len(calls), "nodes": len(own)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delegraph", required=True, help="the binary")
    parser.add_argument("--fixtures", type=Path, default=Path(__file__).parent.parent / "fixtures", help="recorded models")
    arguments = parser.parse_args()
    counts = Counter()
    for name in MODELS:
        for backend in ("portable", "reference"):
            verdict, reason, numbers = in_child(lambda: judge(arguments.delegraph, arguments.fixtures / name, backend))
            counts[verdict] += 1
            said = reason or ", ".join(f"{count} {what}" for what, count in numbers.items())
            print(f"etdump  {name:<24} {backend:<10} {verdict:<5} {said}")
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    sys.exit(1 if counts["fail"] or not counts["pass"] else 0)


if __name__ == "__main__":
    main()
