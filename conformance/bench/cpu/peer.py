"""Runs one model in one engine that is called from Python, and prints one JSON object. A process of its own for each: nothing is warm.

    PYTHON conformance/bench/cpu/peer.py ENGINE WORK STEM --threads N --secs S

ENGINE is `onnxruntime`, `openvino`, `litert`, `ncnn` or `tract`. Inputs are given again in each run where the engine's own use does so.
`load_ms` is from the file to an engine that can run, without importing it; `rss_base_mb` is before, with everything imported.
"""

import argparse
import json
import os
import pathlib
import time

# Shorter runs than this are timed many at a time, so that the clock costs nothing.
LEAST_MS = 0.2


def memory(key):
    """In MB, of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


class OnnxRuntime:
    files = [".onnx"]

    def __init__(self):
        import onnxruntime

        self.module, self.version = onnxruntime, onnxruntime.__version__

    def load(self, stem, inputs, threads):
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        session = self.module.InferenceSession(stem + ".onnx", options, providers=["CPUExecutionProvider"])
        feed = {node.name: x for node, x in zip(session.get_inputs(), inputs)}
        return lambda: session.run(None, feed)[0]


class OpenVino:
    files = [".onnx"]

    def __init__(self):
        import openvino

        self.module, self.version = openvino, openvino.__version__.split("-")[0]

    def load(self, stem, inputs, threads):
        # Left to itself it computes in bfloat16 where the processor can.
        model = self.module.Core().compile_model(stem + ".onnx", "CPU", {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        request = model.create_infer_request()
        for k, x in enumerate(inputs):
            request.set_input_tensor(k, self.module.Tensor(x))

        def run():
            request.infer()
            return request.get_output_tensor(0).data

        return run


class LiteRt:
    files = [".tflite"]

    def __init__(self):
        import importlib.metadata

        from ai_edge_litert.interpreter import Interpreter

        self.interpreter, self.version = Interpreter, importlib.metadata.version("ai-edge-litert")

    def load(self, stem, inputs, threads):
        import numpy

        model = self.interpreter(stem + ".tflite", num_threads=threads)
        model.allocate_tensors()
        output = model.get_output_details()[0]
        scale, zero = output["quantization"]
        for entry, x in zip(sorted(model.get_input_details(), key=lambda entry: entry["name"]), inputs):
            if x.dtype != entry["dtype"]:
                step, offset = entry["quantization"]
                x = numpy.clip(numpy.round(x / step) + offset, -128, 127) if step else x
            model.set_tensor(entry["index"], x.astype(entry["dtype"]))

        def run():
            model.invoke()
            y = model.tensor(output["index"])()
            return (y.astype("float32") - zero) * scale if scale else y

        return run


class Ncnn:
    files = [".ncnn.param", ".ncnn.bin"]

    def __init__(self):
        import ncnn

        self.module, self.version = ncnn, ncnn.__version__

    def load(self, stem, inputs, threads):
        import numpy

        net = self.module.Net()
        net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, name, False)
        if net.load_param(stem + ".ncnn.param") or net.load_model(stem + ".ncnn.bin"):
            raise SystemExit("ncnn cannot load the model")
        # A `Mat` is a view of its array, which has to outlive it.
        arrays = [numpy.ascontiguousarray(x[0] if x.ndim > 1 else x, "int32" if x.dtype.kind == "i" else "float32") for x in inputs]
        views = [self.module.Mat(array) for array in arrays]
        names, output = net.input_names(), net.output_names()[0]

        def run(arrays=arrays):
            extractor = net.create_extractor()
            for name, view in zip(names, views):
                extractor.input(name, view)
            status, y = extractor.extract(output)
            if status:
                raise SystemExit(f"ncnn cannot run the model: {status}")
            return y

        return run


class Tract:
    files = [".onnx"]

    def __init__(self):
        import importlib.metadata

        import tract

        self.module, self.version = tract, importlib.metadata.version("tract")

    def load(self, stem, inputs, threads):
        if threads != 1:
            raise SystemExit("tract has one thread")
        model = self.module.onnx().load(stem + ".onnx")
        names = {"float32": "f32", "int64": "i64"}
        for k, x in enumerate(inputs):
            model.set_input_fact(k, ",".join([*map(str, x.shape), names[str(x.dtype)]]))
        runnable = model.into_model().into_runnable()
        return lambda: runnable.run(list(inputs))[0]


ENGINES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": LiteRt, "ncnn": Ncnn, "tract": Tract}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("stem", help="NAME, or NAME.i8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--secs", type=float, default=1)
    parser.add_argument("--warmup", type=int, default=5)
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    import numpy

    name = args.stem.removesuffix(".i8")
    facts = json.loads((args.work / f"{name}.json").read_text())
    inputs = [numpy.fromfile(args.work / f"{name}.{k}.bin", dtype).reshape(sizes) for k, (sizes, dtype) in enumerate(facts["inputs"])]
    engine, stem = ENGINES[args.engine](), str(args.work / args.stem)

    base, begin = memory("VmRSS:"), time.perf_counter()
    run = engine.load(stem, inputs, args.threads)
    load = time.perf_counter() - begin
    begin = time.perf_counter()
    result = run()
    first = time.perf_counter() - begin
    got = numpy.array(result.to_numpy() if args.engine == "tract" else result, "float64").reshape(-1)
    del result  # LiteRT refuses to run while a view of its memory is held

    begin, warm = time.perf_counter(), 0
    while warm < args.warmup and (warm == 0 or time.perf_counter() - begin < args.secs):
        run()
        warm += 1
    once = (time.perf_counter() - begin) / warm * 1e3
    batch = int(LEAST_MS / max(once, 1e-4)) + 1 if once < LEAST_MS else 1
    times, begun = [], time.perf_counter()
    while not times or time.perf_counter() - begun < args.secs:
        begin = time.perf_counter()
        for _ in range(batch):
            run()
        times.append((time.perf_counter() - begin) / batch * 1e3)
    peak = memory("VmHWM:")

    want = numpy.fromfile(args.work / f"{name}.want.bin", facts["output"][1]).astype("float64")
    error = float(numpy.abs(got - want).max() / max(numpy.abs(want).max(), 1e-30)) if got.size == want.size else None
    print(json.dumps({
        "version": engine.version, "load_ms": load * 1e3, "first_ms": first * 1e3, "rss_base_mb": base, "rss_peak_mb": peak,
        "error": error, "batch": batch, "times_ms": times, "size": sum(os.path.getsize(stem + suffix) for suffix in engine.files),
    }))


if __name__ == "__main__":
    main()
