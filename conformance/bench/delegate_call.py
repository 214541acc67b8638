"""What ExecuTorch's own call of a delegate costs, beside an empty delegate's here.

A chain of n additions of two numbers, each delegated to XNNPACK on its own, is run by ExecuTorch's Python runtime; so is the same
chain on its portable kernels. What a chain of 64 costs more than one of 1, divided by 63, is one call: with XNNPACK's own addition of
four numbers, and without Python's share. It is an upper bound of an empty call, and says so.

    python conformance/bench/delegate_call.py [path of the example `call_overhead`]

Prints nanoseconds. Needs torch and executorch; measured once more for Delegraph if the example's binary is given, in the same process
order and on the same machine.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer


class Chain(torch.nn.Module):
    """n additions, with an operator between them that XNNPACK does not take, so that each is a region of its own."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def forward(self, x, y):
        for _ in range(self.n):
            x = torch.erf(x + y)
        return x


def program(n, delegated):
    example = (torch.zeros(4), torch.zeros(4))
    exported = torch.export.export(Chain(n).eval(), example, strict=True)
    partitioner = [XnnpackPartitioner()] if delegated else []
    lowered = to_edge_transform_and_lower(exported, partitioner=partitioner)
    graph = lowered.exported_program().graph
    calls = sum("executorch_call_delegate" in str(node.target) for node in graph.nodes)
    return lowered.to_executorch().buffer, calls


def median_ns(buffer):
    module = _load_for_executorch_from_buffer(buffer)
    inputs = (torch.zeros(4), torch.zeros(4))
    for _ in range(200):
        module.forward(inputs)
    times = []
    for _ in range(3000):
        start = time.perf_counter_ns()
        module.forward(inputs)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times)


def main():
    long, short = 64, 1
    costs = {}
    for delegated in (False, True):
        programs = {n: program(n, delegated) for n in (short, long)}
        found = programs[long][1]
        if delegated and found != long:
            print(f"skipped: XNNPACK made {found} regions of {long} additions", file=sys.stderr)
            return
        times = {n: median_ns(buffer) for n, (buffer, _) in programs.items()}
        costs[delegated] = (times[long] - times[short]) / (long - short)
    # Both chains have the same erf; what differs is the addition, delegated or portable.
    print(f"ExecuTorch, an addition of 4 numbers and an erf, portable:      {costs[False]:8.0f} ns")
    print(f"ExecuTorch, the same with the addition delegated to XNNPACK:    {costs[True]:8.0f} ns")
    if len(sys.argv) > 1:
        output = subprocess.run([sys.argv[1], "--json"], capture_output=True, text=True, check=True).stdout
        for call in json.loads(output)["calls"]:
            name = f"Delegraph, an empty delegate, {call['name']}, {call['bytes']} bytes:"
            print(f"{name:<63} {call['median_ns']:8.0f} ns, p99 {call['p99_ns']:.0f} ns, {call['allocations']:.1f} allocations")


if __name__ == "__main__":
    main()
