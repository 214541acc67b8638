"""What was measured on and with: figures of another processor or build do not compare. Standard library only."""

import os
import pathlib
import platform
import re
import subprocess

# Sets of instructions that engines choose kernels by.
FLAGS = [
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve",
]


def machine():
    fields = {}
    if os.path.exists("/proc/cpuinfo"):
        for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpu": fields.get("model name") or platform.machine(), "family": fields.get("cpu family"), "model": fields.get("model"),
        "cores": os.cpu_count(), "isa": [flag for flag in FLAGS if flag in present], "virtual": "hypervisor" in present,
        "cache_bytes": last_cache(), "memory_mb": int(memory.group(1)) // 1024, "kernel": platform.release(),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), "load_before": os.getloadavg()[0],
    }


def read(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return None


def last_cache():
    """Bytes of the largest cache that a processor shares; 0 where it is not told."""
    sizes = [read(path) for path in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << {"K": 10, "M": 20}[size[-1]] for size in sizes if size), default=0)


def build(args):
    """Versions, and where the tree stood."""
    found = {}
    if args.delegraph:
        found["delegraph"] = said([args.delegraph, "--version"])
        found["commit"] = said(["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"])
        found["rustc"] = said(["rustc", "--version"])
    if args.runner:
        found["executorch"] = os.environ.get("BENCH_EXECUTORCH_VERSION")
        found["compiler"] = said([os.environ.get("CXX", "g++"), "--version"]).splitlines()[0]
    return found


def said(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
