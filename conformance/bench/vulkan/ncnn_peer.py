"""Runs a model in ncnn on Vulkan, and prints one JSON object: times, memory, and the largest difference from what is expected.

    PYTHON ncnn_peer.py PARAM BIN INPUTS EXPECTED [--loader FILE] [--runs N] [--fp16]

PYTHON is one that has ncnn (`cargo xtask provision ncnn`). Loading makes ncnn's pipelines and uploads its weights; the first run is timed apart.
Without --fp16 storage and arithmetic are float32, as PyTorch's are.
"""

import argparse
import json
import time

import numpy as np
import ncnn
from safetensors.numpy import load_file


def memory(key):
    """In MB, of this process."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("param")
    parser.add_argument("bin")
    parser.add_argument("inputs")
    parser.add_argument("expected")
    parser.add_argument("--runs", type=int, default=1, help="steady runs after the first")
    parser.add_argument("--fp16", action="store_true", help="ncnn's own defaults")
    parser.add_argument("--loader", help="Vulkan's; left to itself, ncnn opens a driver without one, and no layer is heard")
    args = parser.parse_args()

    image = load_file(args.inputs)["0"][0]
    want = load_file(args.expected)["0"].reshape(-1)
    base, cpu_base = memory("VmRSS:"), time.process_time()

    begin = time.perf_counter()
    if args.loader and ncnn.create_gpu_instance(args.loader):
        raise SystemExit(f"ncnn cannot use {args.loader}")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = True
    if not args.fp16:
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            if hasattr(net.opt, name):
                setattr(net.opt, name, False)
    net.set_vulkan_device(0)
    if net.load_param(args.param) or net.load_model(args.bin):
        raise SystemExit("ncnn cannot load the model")
    load = time.perf_counter() - begin
    source, result = net.input_names()[0], net.output_names()[0]

    def run():
        with net.create_extractor() as extractor:
            extractor.input(source, ncnn.Mat(np.ascontiguousarray(image)))
            status, out = extractor.extract(result)
            if status:
                raise SystemExit(f"ncnn cannot run the model: {status}")
            return np.array(out).reshape(-1)

    begin = time.perf_counter()
    got = run()
    first = time.perf_counter() - begin
    times = []
    for _ in range(args.runs):
        begin = time.perf_counter()
        again = run()
        times.append((time.perf_counter() - begin) * 1e3)
        if not np.array_equal(again, got):
            raise SystemExit("ncnn's outputs differ from run to run")
    print(json.dumps({
        "version": ncnn.__version__, "device": ncnn.get_gpu_info(0).device_name(), "load_ms": load * 1e3, "first_ms": first * 1e3,
        "times_ms": times, "rss_base_mb": base, "cpu_base_ms": cpu_base * 1e3, "rss_peak_mb": memory("VmHWM:"),
        "max_abs": float(np.abs(got - want).max()), "largest": float(np.abs(want).max()),
    }))


if __name__ == "__main__":
    main()
