"""Calls of operators that sum, order, move or make elements: reductions, layers, pooling, views, indexing, attention."""
import math

import torch
import torch.nn.functional as functional

from pointwise_cases import BF16, F16, F32, INF, INTS, NAN, SPECIAL, draw, integers
from recorder import seed_of

FLOATS = (F32, F16, BF16)


def given(name, shape, dtype=F32):
    """Normal values; each name is another draw."""
    generator = torch.Generator().manual_seed(seed_of(f"{name} {shape}"))
    return torch.randn(shape, generator=generator).to(dtype)


def distinct(shape, dtype=F32, name="order"):
    """Values that all differ, in any of the float types."""
    generator = torch.Generator().manual_seed(seed_of(f"{name} {shape}"))
    count = math.prod(shape)
    return ((torch.randperm(count, generator=generator) - count // 2).to(torch.float32) / 4).reshape(shape).to(dtype)


def reductions(r):
    shape = [2, 3, 4, 5]
    dims = {"last": [-1], "first": [0], "middle": [1, 2], "all": [0, 1, 2, 3], "negative-dim": [-2, -1]}
    for dtype in FLOATS:
        x = given("x", shape, dtype)
        for edge, dim in dims.items():
            if dtype != F32 and edge in ("first", "negative-dim"):
                continue
            k = math.prod(shape[d] for d in dim)
            r.case("aten::sum.dim_IntList", edge, x, dim, kind="reduction", k=k, scale="abs")
            r.case("aten::mean.dim", edge, x, dim, kind="reduction", k=k, scale="abs")
            for name in ("amax", "amin"):
                r.case(f"aten::{name}", edge, x, dim)
        for name, kind, scale in (("sum.dim_IntList", "reduction", "abs"), ("mean.dim", "reduction", "abs"), ("amax", "exact", None), ("amin", "exact", None)):
            r.case(f"aten::{name}", "keepdim", x, [1, -1], True, kind=kind, k=15, scale=scale)
        for edge, dim in (("last", [-1]), ("middle", [1, 2])):
            k = math.prod(shape[d] for d in dim)
            r.case("aten::var.correction", edge, x, dim, correction=1, kind="reduction", k=k, scale=lambda self, **_: (self**2).amax())
            r.case("aten::std.correction", edge, x, dim, correction=0, kind="reduction", k=k, scale=lambda self, **_: self.abs().amax())
            r.case("aten::linalg_vector_norm", edge, x, 2.0, dim, kind="reduction", k=k, scale="abs")
        for name in ("argmax", "argmin"):
            r.case(f"aten::{name}", "last", distinct(shape, dtype), -1)
            r.case(f"aten::{name}", "keepdim", distinct(shape, dtype), 1, True)
        for name in ("max.dim", "min.dim"):
            r.case(f"aten::{name}", "last", distinct(shape, dtype), -1)
            r.case(f"aten::{name}", "keepdim", distinct(shape, dtype), 1, True)
        r.case("aten::logsumexp", "last", x, [-1], kind="transcendental", scale=lambda self, **_: self.abs().amax() + 2)
    long = given("x", [3, 1031])
    for name, scale in (("sum.dim_IntList", "abs"), ("mean.dim", "abs"), ("amax", None), ("amin", None)):
        r.case(f"aten::{name}", "odd-sizes", long, [-1], kind="reduction" if scale else "exact", k=1031, scale=scale)
        if name != "mean.dim":
            r.case(f"aten::{name}", "one-element", given("x", [1, 1]), [0], kind="reduction" if scale else "exact", scale=scale)
        r.case(f"aten::{name}", "first-odd-sizes", given("x", [33, 19]), [0], kind="reduction" if scale else "exact", k=33, scale=scale)
        r.case(f"aten::{name}", "non-finite", torch.tensor([[1.0, NAN, 2.0], [INF, 1.0, 2.0], [-INF, 0.0, 1.0], [INF, -INF, 0.0]]), [1], policy="non-finite", kind="reduction" if scale else "exact", k=3)
    r.case("aten::argmax", "odd-sizes", distinct([3, 1031]), -1)
    r.case("aten::argmax", "ties", torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), 1)
    r.case("aten::argmax", "whole", distinct([4, 9]), None)
    r.case("aten::sum.dim_IntList", "empty", torch.zeros(3, 0), [1], kind="reduction", scale="abs")
    r.case("aten::sum.dim_IntList", "large-magnitude", torch.tensor([[1e30, 1.0, -1e30], [3e38, -3e38, 2.0], [1e8, 1.0, 1.0]]), [1], kind="reduction", k=3, scale="abs")
    for name in ("sum", "mean", "max", "min"):
        scale = "abs" if name in ("sum", "mean") else None
        r.case(f"aten::{name}", "rank3", given("x", [2, 3, 7]), kind="reduction" if scale else "exact", k=42, scale=scale)
    r.case("aten::prod.dim_int", "last", given("x", [4, 6]), -1, kind="reduction", k=6, scale="abs")
    for dtype in INTS:
        x = integers([3, 11], dtype, -9, 9)
        r.case("aten::sum.dim_IntList", "last", x, [-1])
        for name in ("amax", "amin"):
            r.case(f"aten::{name}", "last", x, [-1])
        r.case("aten::sum.dim_IntList", "first", x, [0])
    for name in ("any.dim", "all.dim"):
        x = integers([4, 3], torch.bool, 0, 2)
        r.case(f"aten::{name}", "last", x, -1)
        r.case(f"aten::{name}", "keepdim", x, 0, True)
    for name in ("any", "all"):
        r.case(f"aten::{name}", "rank2", integers([4, 3], torch.bool, 0, 2))


def softmaxes(r):
    sure = lambda self, dim, **_: torch.softmax(self, dim) * (1 + (self - self.amax(dim, keepdim=True)).abs())
    log = lambda self, dim, **_: (self - self.amax(dim, keepdim=True)).abs() + math.log(self.shape[dim] if self.dim() else 1) + 1
    for name, scale in (("softmax.int", sure), ("log_softmax.int", log)):
        for dtype in FLOATS:
            x = given("scores", [2, 3, 7], dtype) * 3
            for edge, dim in (("last", -1), ("middle", 1), ("first", 0)):
                r.case(f"aten::{name}", edge, x, dim, kind="transcendental", scale=scale)
            r.case(f"aten::{name}", "odd-sizes", given("scores", [3, 131], dtype) * 3, -1, kind="transcendental", scale=scale)
            r.case(f"aten::{name}", "large-magnitude", torch.tensor([[1e4, 1e4, -1e4], [300.0, 299.0, 0.0], [-6e4, -6e4, -6e4]], dtype=dtype), -1, kind="transcendental", scale=scale)
        r.case(f"aten::{name}", "rank1", given("scores", [9]), 0, kind="transcendental", scale=scale)
        r.case(f"aten::{name}", "rank4", given("scores", [1, 2, 5, 17]) * 3, -1, kind="transcendental", scale=scale)
        r.case(f"aten::{name}", "one-element", given("scores", [4, 1]), -1, kind="transcendental", scale=scale)
        r.case(f"aten::{name}", "long-row", given("scores", [2, 1031]) * 3, -1, kind="transcendental", scale=scale)
        r.case(f"aten::{name}", "masked", torch.tensor([[0.5, -INF, 1.0, -INF], [-INF, -INF, -INF, 2.0]]), -1, kind="transcendental", policy="non-finite")


def norms(r):
    def layer(input, normalized_shape, weight=None, bias=None, eps=1e-5, **_):
        dims = list(range(-len(normalized_shape), 0))
        mean, var = input.mean(dims, keepdim=True), input.var(dims, correction=0, keepdim=True)
        size = (input.abs() + mean.abs()) / torch.sqrt(var + eps)
        size = size if weight is None else size * weight.abs()
        return size if bias is None else size + bias.abs()

    for dtype in FLOATS:
        for edge, shape, normal in (("rank2", [5, 16], [16]), ("rank3", [2, 3, 17], [17]), ("two-dims", [2, 4, 6], [4, 6])):
            x, w, b = given("x", shape, dtype), given("weight", normal, dtype), given("bias", normal, dtype)
            k = math.prod(normal)
            r.case("aten::layer_norm", edge, x, normal, w, b, constants=["weight", "bias"], kind="reduction", k=k, scale=layer)
        r.case("aten::layer_norm", "no-weight", given("x", [5, 16], dtype), [16], None, None, kind="reduction", k=16, scale=layer)
        r.case("aten::rms_norm", "rank3", given("x", [2, 3, 17], dtype), [17], given("weight", [17], dtype), 1e-6, constants=["weight"], kind="reduction", k=17, scale="abs")
        r.case("aten::rms_norm", "no-weight", given("x", [2, 3, 17], dtype), [17], None, 1e-6, kind="reduction", k=17, scale="abs")

        def group(input, num_groups, weight=None, bias=None, eps=1e-5, **_):
            grouped = input.reshape(input.shape[0], num_groups, -1)
            mean, var = grouped.mean(-1, keepdim=True), grouped.var(-1, correction=0, keepdim=True)
            size = ((grouped.abs() + mean.abs()) / torch.sqrt(var + eps)).reshape(input.shape)
            per = [1, -1] + [1] * (input.dim() - 2)
            size = size if weight is None else size * weight.abs().reshape(per)
            return size if bias is None else size + bias.abs().reshape(per)

        for edge, shape, groups in (("groups", [2, 6, 5], 3), ("rank4", [1, 4, 3, 5], 2), ("one-group", [2, 4, 7], 1), ("each-channel", [2, 4, 3, 3], 4)):
            channels = shape[1]
            k = math.prod(shape[1:]) // groups
            r.case("aten::group_norm", edge, given("x", shape, dtype), groups, given("weight", [channels], dtype), given("bias", [channels], dtype), constants=["weight", "bias"], kind="reduction", k=k, scale=group)
    r.case("aten::layer_norm", "weights-as-inputs", given("x", [5, 16]), [16], given("weight", [16]), given("bias", [16]), kind="reduction", k=16, scale=layer)
    r.case("aten::layer_norm", "odd-sizes", given("x", [3, 131]), [131], given("weight", [131]), given("bias", [131]), constants=["weight", "bias"], kind="reduction", k=131, scale=layer)
    r.case("aten::layer_norm", "offset", given("x", [5, 16]) + 100, [16], given("weight", [16]), given("bias", [16]), constants=["weight", "bias"], kind="reduction", k=16, scale=layer)
    r.case("aten::layer_norm", "constant-row", torch.full([2, 16], 3.0), [16], None, None, kind="reduction", k=16, scale=lambda **_: 3 / 1e-5**0.5)
    r.case("aten::layer_norm", "large-epsilon", given("x", [5, 16]), [16], None, None, 1.0, kind="reduction", k=16, scale=layer)

    def batch(input, weight, bias, running_mean, running_var, eps=1e-5, **_):
        per = [1, -1] + [1] * (input.dim() - 2)
        size = (input.abs() + running_mean.abs().reshape(per)) / torch.sqrt(running_var.reshape(per) + eps)
        size = size if weight is None else size * weight.abs().reshape(per)
        return size if bias is None else size + bias.abs().reshape(per)

    names = ["weight", "bias", "running_mean", "running_var"]
    for dtype in FLOATS:
        for edge, shape in (("rank4", [2, 5, 3, 4]), ("rank2", [4, 6]), ("rank3", [2, 3, 7])):
            c = shape[1]
            w, b, mean, var = (given(n, [c], dtype) for n in ("weight", "bias", "mean", "var"))
            r.case("aten::batch_norm", edge, given("x", shape, dtype), w, b, mean, var.abs() + 0.25, False, 0.1, 1e-5, False, constants=names, kind="elementwise", scale=batch)
    c = 5
    w, b, mean, var = (given(n, [c]) for n in ("weight", "bias", "mean", "var"))
    r.case("aten::batch_norm", "no-weight", given("x", [2, c, 3, 4]), None, None, mean, var.abs() + 0.25, False, 0.1, 1e-3, False, constants=names[2:], kind="elementwise", scale=batch)
    r.case("aten::batch_norm", "odd-sizes", given("x", [1, c, 13, 17]), w, b, mean, var.abs() + 0.25, False, 0.1, 1e-5, False, constants=names, kind="elementwise", scale=batch)


def products(r):
    for dtype in FLOATS:
        for edge, m, k, n in (("square", 8, 8, 8), ("odd-sizes", 5, 13, 7), ("row", 1, 17, 9), ("column", 9, 17, 1), ("one-element", 1, 1, 1)):
            a, b = given("a", [m, k], dtype), given("b", [k, n], dtype)
            r.case("aten::mm", edge, a, b, kind="reduction", k=k, scale="abs")
            if edge in ("square", "odd-sizes"):
                r.case("aten::bmm", edge, given("a", [3, m, k], dtype), given("b", [3, k, n], dtype), kind="reduction", k=k, scale="abs")
                r.case("aten::mm", f"constant-{edge}", a, b, constants=["mat2"], kind="reduction", k=k, scale="abs")
                r.case("aten::addmm", edge, given("c", [n], dtype), a, b, kind="reduction", k=k + 1, scale="abs")
        for edge, shape, k, n in (("rank1", [13], 13, 6), ("rank2", [5, 13], 13, 7), ("rank3", [2, 3, 16], 16, 8), ("rank4", [1, 2, 3, 9], 9, 5), ("odd-sizes", [3, 67], 67, 19)):
            w, b = given("weight", [n, k], dtype), given("bias", [n], dtype)
            r.case("aten::linear", edge, given("x", shape, dtype), w, b, constants=["weight", "bias"], kind="reduction", k=k + 1, scale="abs")
        w = given("weight", [8, 16], dtype)
        r.case("aten::linear", "no-bias", given("x", [2, 3, 16], dtype), w, None, constants=["weight"], kind="reduction", k=16, scale="abs")
        r.case("aten::linear", "weights-as-inputs", given("x", [2, 3, 16], dtype), w, given("bias", [8], dtype), kind="reduction", k=17, scale="abs")
        for edge, left, right, k in (("vectors", [13], [13], 13), ("rank2", [5, 13], [13, 7], 13), ("vector-matrix", [13], [13, 7], 13), ("matrix-vector", [5, 13], [13], 13), ("batched", [2, 3, 4, 5], [2, 3, 5, 6], 5), ("broadcast", [2, 1, 4, 5], [3, 5, 6], 5), ("rank3-rank2", [2, 4, 5], [5, 6], 5)):
            if dtype == F32 or edge in ("batched", "broadcast"):
                r.case("aten::matmul", edge, given("a", left, dtype), given("b", right, dtype), kind="reduction", k=k, scale="abs")
        r.case("aten::baddbmm", "alpha-beta", given("c", [2, 4, 6], dtype), given("a", [2, 4, 5], dtype), given("b", [2, 5, 6], dtype), beta=0.5, alpha=2.0, kind="reduction", k=6, scale="abs")
    r.case("aten::mm", "long-row", given("a", [2, 1031]), given("b", [1031, 3]), kind="reduction", k=1031, scale="abs")
    r.case("aten::mm", "empty", torch.zeros(0, 5), given("b", [5, 3]), kind="reduction", k=5, scale="abs")
    r.case("aten::mm", "no-terms", torch.zeros(4, 0), torch.zeros(0, 3), kind="reduction", scale="abs")
    r.case("aten::mm", "non-finite", torch.tensor([[1.0, NAN], [INF, 1.0], [2.0, 3.0]]), torch.tensor([[1.0, 2.0], [0.5, -1.0]]), kind="reduction", k=2, policy="non-finite")
    r.case("aten::mm", "large-magnitude", torch.tensor([[1e20, 1.0], [1e-20, 1e10]]), torch.tensor([[1e15, 1e-15], [2.0, 1e20]]), kind="reduction", k=2, scale="abs")
    r.case("aten::mm", "cancelling", torch.tensor([[1e4, -1e4, 1.0]]), torch.tensor([[1.0], [1.0], [1.0]]), kind="reduction", k=3, scale="abs")
    r.case("aten::addmm", "alpha-beta", given("c", [5, 7]), given("a", [5, 13]), given("b", [13, 7]), beta=0.5, alpha=2.0, kind="reduction", k=14, scale="abs")
    r.case("aten::mv", "odd-sizes", given("a", [5, 13]), given("b", [13]), kind="reduction", k=13, scale="abs")
    r.case("aten::dot", "odd-sizes", given("a", [37]), given("b", [37]), kind="reduction", k=37, scale="abs")


# edge: input, weight, arguments by name. A convolution's weight is [out, in / groups, kernel...].
CONV2D = {
    "plain": ([1, 3, 6, 6], [4, 3, 3, 3], {}),
    "pointwise": ([1, 5, 4, 7], [6, 5, 1, 1], {}),
    "stride2": ([1, 3, 7, 7], [4, 3, 3, 3], {"stride": [2, 2]}),
    "pad1": ([1, 3, 5, 5], [4, 3, 3, 3], {"padding": [1, 1]}),
    "stride2-pad1-dilation2": ([1, 2, 9, 9], [3, 2, 3, 3], {"stride": [2, 2], "padding": [1, 1], "dilation": [2, 2]}),
    "dilation2": ([1, 2, 8, 8], [3, 2, 3, 3], {"dilation": [2, 2]}),
    "groups": ([1, 4, 5, 5], [6, 2, 3, 3], {"groups": 2, "padding": [1, 1]}),
    "depthwise": ([1, 6, 5, 5], [6, 1, 3, 3], {"groups": 6, "padding": [1, 1]}),
    "depthwise-stride2": ([1, 6, 7, 7], [6, 1, 3, 3], {"groups": 6, "padding": [1, 1], "stride": [2, 2]}),
    "depthwise-multiplier": ([1, 3, 5, 5], [6, 1, 3, 3], {"groups": 3}),
    "kernel5": ([1, 2, 7, 7], [3, 2, 5, 5], {"padding": [2, 2]}),
    "asymmetric": ([1, 2, 6, 9], [3, 2, 1, 5], {"padding": [0, 2], "stride": [1, 2]}),
    "asymmetric-stride": ([1, 2, 9, 6], [3, 2, 3, 2], {"padding": [1, 0], "stride": [3, 1], "dilation": [1, 2]}),
    "batch": ([3, 2, 5, 5], [4, 2, 3, 3], {"padding": [1, 1]}),
    "odd-sizes": ([1, 7, 11, 13], [9, 7, 3, 3], {"padding": [1, 1]}),
    "kernel-covers-input": ([2, 3, 4, 4], [5, 3, 4, 4], {}),
}


def convolutions(r):
    for dtype in FLOATS:
        for edge, (shape, weight, how) in CONV2D.items():
            if dtype != F32 and edge not in ("plain", "pointwise", "stride2-pad1-dilation2", "depthwise", "groups"):
                continue
            k = math.prod(weight[1:]) + 1
            x, w, b = given("x", shape, dtype), given("weight", weight, dtype), given("bias", weight[:1], dtype)
            r.case("aten::conv2d", edge, x, w, b, **how, constants=["weight", "bias"], kind="reduction", k=k, scale="abs")
        for edge, shape, weight, how in (("plain", [1, 3, 9], [4, 3, 3], {}), ("stride2-pad1-dilation2", [1, 2, 11], [3, 2, 3], {"stride": [2], "padding": [1], "dilation": [2]}), ("groups", [1, 4, 7], [6, 2, 3], {"groups": 2}), ("depthwise", [1, 6, 9], [6, 1, 3], {"groups": 6, "padding": [1]}), ("long-kernel", [1, 1, 65], [4, 1, 33], {"stride": [4], "padding": [16]})):
            if dtype != F32 and edge in ("groups", "long-kernel"):
                continue
            k = math.prod(weight[1:]) + 1
            r.case("aten::conv1d", edge, given("x", shape, dtype), given("weight", weight, dtype), given("bias", weight[:1], dtype), **how, constants=["weight", "bias"], kind="reduction", k=k, scale="abs")
        for edge, shape, weight, how in (
            ("plain", [1, 3, 4, 4], [3, 4, 3, 3], {}),
            ("stride2", [1, 3, 4, 4], [3, 4, 2, 2], {"stride": [2, 2]}),
            ("stride2-pad1-output1", [1, 2, 4, 5], [2, 3, 3, 3], {"stride": [2, 2], "padding": [1, 1], "output_padding": [1, 1]}),
            ("groups", [1, 4, 4, 4], [4, 3, 3, 3], {"groups": 2}),
            ("dilation2", [1, 2, 4, 4], [2, 3, 3, 3], {"dilation": [2, 2]}),
        ):
            if dtype != F32 and edge not in ("plain", "stride2-pad1-output1"):
                continue
            k = weight[0] * weight[2] * weight[3] + 1
            channels = weight[1] * how.get("groups", 1)
            r.case("aten::conv_transpose2d.input", edge, given("x", shape, dtype), given("weight", weight, dtype), given("bias", [channels], dtype), **how, constants=["weight", "bias"], kind="reduction", k=k, scale="abs")
    x, w, b = given("x", [1, 3, 6, 6]), given("weight", [4, 3, 3, 3]), given("bias", [4])
    r.case("aten::conv2d", "no-bias", x, w, None, constants=["weight"], kind="reduction", k=27, scale="abs")
    r.case("aten::conv2d", "weights-as-inputs", x, w, b, kind="reduction", k=28, scale="abs")
    r.case("aten::conv2d", "constant-bias-only", x, w, b, constants=["bias"], kind="reduction", k=28, scale="abs")
    r.case("aten::conv2d.padding", "same", given("x", [1, 3, 5, 6]), w, b, padding="same", constants=["weight", "bias"], kind="reduction", k=28, scale="abs")
    for edge, how in (("plain", {}), ("stride2-pad1", {"stride": [2, 2, 2], "padding": [1, 1, 1]})):
        r.case("aten::conv3d", edge, given("x", [1, 2, 4, 5, 5]), given("weight", [3, 2, 2, 3, 3]), given("bias", [3]), **how, constants=["weight", "bias"], kind="reduction", k=37, scale="abs")
    for edge, how in (("plain", {}), ("stride2-pad1", {"stride": [2], "padding": [1]})):
        r.case("aten::conv_transpose1d", edge, given("x", [1, 2, 7]), given("weight", [2, 3, 4]), given("bias", [3]), **how, constants=["weight", "bias"], kind="reduction", k=9, scale="abs")


def pooling(r):
    for dtype in FLOATS:
        for edge, shape, args in (
            ("kernel2", [1, 3, 6, 6], ([2, 2], [2, 2])), ("kernel3-stride2-pad1", [1, 2, 7, 7], ([3, 3], [2, 2], [1, 1])), ("overlapping", [1, 2, 5, 6], ([3, 2], [1, 1])), ("ceil-mode", [1, 2, 6, 7], ([3, 3], [2, 2], [0, 0], "dilation", True)), ("rank3", [2, 5, 6], ([2, 2], [2, 2])),
        ):
            maximum = [[1, 1] if item == "dilation" else item for item in args]
            average = [item for item in args if item != "dilation"]
            k = math.prod(args[0])
            if dtype == F32 or edge in ("kernel2", "kernel3-stride2-pad1"):
                # Every value below zero: padding must never win.
                r.case("aten::max_pool2d", edge, -given("x", shape, dtype).abs() - 0.5, *maximum)
                r.case("aten::avg_pool2d", edge, given("x", shape, dtype), *average, kind="reduction", k=k, scale="abs")
        r.case("aten::adaptive_avg_pool2d", "global", given("x", [1, 5, 7, 6], dtype), [1, 1], kind="reduction", k=42, scale="abs")
        r.case("aten::adaptive_avg_pool2d", "uneven", given("x", [1, 2, 7, 5], dtype), [3, 2], kind="reduction", k=9, scale="abs")
    x = given("x", [1, 2, 7, 7])
    r.case("aten::max_pool2d", "dilation2", x, [3, 3], [1, 1], [1, 1], [2, 2])
    r.case("aten::max_pool2d", "odd-sizes", given("x", [1, 5, 13, 17]), [3, 3], [2, 2], [1, 1])
    r.case("aten::max_pool2d_with_indices", "kernel2", distinct([1, 2, 6, 6]), [2, 2], [2, 2])
    r.case("aten::max_pool2d_with_indices", "kernel3-stride2-pad1", distinct([1, 2, 7, 7]), [3, 3], [2, 2], [1, 1])
    r.case("aten::avg_pool2d", "padding-not-counted", x, [3, 3], [2, 2], [1, 1], False, False, kind="reduction", k=9, scale="abs")
    r.case("aten::avg_pool2d", "divisor", x, [3, 3], [2, 2], [1, 1], False, True, 5, kind="reduction", k=9, scale="abs")
    r.case("aten::avg_pool2d", "odd-sizes", given("x", [1, 5, 13, 17]), [3, 3], [2, 2], [1, 1], kind="reduction", k=9, scale="abs")
    r.case("aten::max_pool1d", "kernel3-stride2", given("x", [1, 3, 11]), [3], [2], [1])
    r.case("aten::avg_pool1d", "kernel3-stride2", given("x", [1, 3, 11]), [3], [2], [1], kind="reduction", k=3, scale="abs")
    r.case("aten::max_pool3d", "kernel2", given("x", [1, 2, 4, 4, 4]), [2, 2, 2], [2, 2, 2])
    r.case("aten::adaptive_max_pool2d", "uneven", distinct([1, 2, 7, 5]), [3, 2])


def resampling(r):
    for dtype in FLOATS:
        x = given("x", [1, 2, 4, 5], dtype)
        size = lambda input, **_: input.abs().amax() * max(input.shape[-2:])
        for edge, args in (("double", (None, [2.0, 2.0])), ("output-size", ([7, 3], None)), ("half", (None, [0.5, 0.5]))):
            r.case("aten::upsample_nearest2d.vec", edge, x, *args)
        for edge, args in (("double", (None, False, [2.0, 2.0])), ("corners", ([8, 10], True, None)), ("output-size", ([7, 3], False, None)), ("half", (None, False, [0.5, 0.5]))):
            if dtype == F32 or edge in ("double", "corners"):
                r.case("aten::upsample_bilinear2d.vec", edge, x, *args, kind="reduction", k=4, scale=size)
        r.case("aten::pixel_shuffle", "double", given("x", [1, 8, 3, 4], dtype), 2)
        r.case("aten::pixel_unshuffle", "half", given("x", [1, 2, 6, 4], dtype), 2)
    r.case("aten::pixel_shuffle", "triple", given("x", [1, 9, 3, 5]), 3)
    r.case("aten::upsample_bicubic2d.vec", "double", given("x", [1, 2, 4, 5]), None, False, [2.0, 2.0], kind="reduction", k=16, scale=lambda input, **_: input.abs().amax() * 5)
    r.case("aten::upsample_nearest1d.vec", "double", given("x", [1, 3, 5]), None, [2.0])
    r.case("aten::upsample_linear1d.vec", "output-size", given("x", [1, 3, 5]), [9], False, None, kind="reduction", k=2, scale=lambda input, **_: input.abs().amax() * 5)


def views(r):
    for dtype in (F32, F16, BF16, torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool):
        wide = dtype in (F32, torch.int8)
        make = lambda shape: distinct(shape, dtype) if dtype.is_floating_point else integers(shape, dtype, 0 if dtype == torch.bool else -50, 2 if dtype == torch.bool else 50)
        x, y = make([2, 3, 4, 5]), make([2, 3, 4])
        r.case("aten::permute", "nchw-to-nhwc", x, [0, 2, 3, 1])
        r.case("aten::reshape", "merge", x, [6, 20])
        r.case("aten::cat", "channels", [y, make([2, 1, 4])], 1)
        r.case("aten::slice.Tensor", "step2", x, -1, 1, 5, 2)
        r.case("aten::constant_pad_nd", "around", y, [1, 2, 0, 1], 1)
        r.case("aten::transpose.int", "last", y, -2, -1)
        if dtype == torch.bool:
            continue
        r.case("aten::expand", "broadcast", make([2, 1, 4]), [2, 3, 4])
        r.case("aten::flip", "two-dims", y, [0, -1])
        r.case("aten::select.int", "negative-index", x, 1, -1)
        if not wide:
            continue
        for edge, order in (("rank2", [1, 0]), ("rank3", [2, 0, 1]), ("rank5", [4, 1, 0, 3, 2]), ("negative-dim", [0, -1, 1])):
            shape = [2, 3, 4, 3, 2][: len(order)]
            r.case("aten::permute", edge, make(shape), order)
        r.case("aten::permute", "odd-sizes", make([17, 5, 13]), [1, 2, 0])
        r.case("aten::transpose.int", "odd-sizes", make([31, 37]), 0, 1)
        r.case("aten::t", "rank2", make([5, 13]))
        for edge, sizes in (("minus-one", [-1, 5]), ("split", [2, 3, 2, 2, 5]), ("flat", [-1])):
            r.case("aten::reshape", edge, x, sizes)
            r.case("aten::view", edge, x, sizes)
        r.case("aten::reshape", "to-scalar", make([1, 1]), [])
        r.case("aten::flatten.using_ints", "from-1", x, 1, -1)
        r.case("aten::unsqueeze", "negative-dim", y, -1)
        r.case("aten::unsqueeze", "first", y, 0)
        r.case("aten::squeeze.dim", "middle", make([2, 1, 4]), 1)
        r.case("aten::squeeze.dims", "two-dims", make([1, 3, 1]), [0, -1])
        r.case("aten::expand", "new-dim", make([3, 1]), [2, -1, 4])
        r.case("aten::repeat", "more-dims", make([2, 3]), [2, 1, 2])
        r.case("aten::cat", "last-odd-sizes", [make([3, 7]), make([3, 1]), make([3, 13])], -1)
        r.case("aten::cat", "with-empty", [make([2, 0, 4]), y], 1)
        r.case("aten::cat", "four", [make([1, 5]), make([2, 5]), make([3, 5]), make([4, 5])], 0)
        r.case("aten::stack", "first", [y, make([2, 3, 4]) if dtype != F32 else y + 100], 0)
        r.case("aten::stack", "last", [y, y, y], -1)
        for edge, args in (("plain", (0, 0, 1)), ("negative-start", (2, -2, None)), ("beyond-end", (1, 1, 100)), ("step3", (3, 0, 5, 3)), ("empty", (1, 2, 2))):
            r.case("aten::slice.Tensor", edge, x, *args)
        r.case("aten::split.Tensor", "uneven", make([2, 7]), 3, 1)
        r.case("aten::split_with_sizes", "uneven", make([2, 7]), [1, 4, 2], 1)
        r.case("aten::chunk", "uneven", make([2, 7]), 3, 1)
        r.case("aten::unbind.int", "first", y, 0)
        r.case("aten::roll", "two-dims", y, [1, -1], [0, 2])
        r.case("aten::roll", "flat", y, [5], [])
        r.case("aten::flip", "odd-sizes", make([17, 61]), [1])
        for edge, args in (("one-side", ([0, 3], 7)), ("crop", ([-1, 2], 0)), ("rank4", ([1, 1, 2, 0, 0, 1], 2))):
            r.case("aten::constant_pad_nd", edge, y if edge != "rank4" else x, *args)
        r.case("aten::tril", "rank2", make([5, 7]))
        r.case("aten::triu", "diagonal", make([5, 7]), 1)
        r.case("aten::tile", "rank2", make([2, 3]), [2, 2])
        r.case("aten::diagonal", "offset", make([4, 5]), 1)
    x = distinct([1, 2, 5, 6])
    for dtype in (F32, F16):
        r.case("aten::reflection_pad2d", "around", x.to(dtype), [1, 2, 3, 1])
        r.case("aten::replication_pad2d", "around", x.to(dtype), [1, 2, 3, 1])
        r.case("aten::pad", "constant", x.to(dtype), [1, 1, 2, 2], "constant", 0.5)
    r.case("aten::reflection_pad1d", "around", distinct([1, 2, 7]), [3, 2])
    r.case("aten::permute", "non-finite", torch.tensor([[NAN, INF, -INF], [-0.0, 1.0, 0.0]]), [1, 0], policy="bits")
    r.case("aten::cat", "non-finite", [torch.tensor(SPECIAL), torch.tensor(SPECIAL)], 0, policy="bits")
    r.case("aten::slice.Tensor", "non-finite", torch.tensor(SPECIAL), 0, 1, 9, 2, policy="bits")


def indexing(r):
    for dtype in (F32, F16, BF16, torch.int8, torch.int32, torch.int64):
        make = lambda shape, name="order": distinct(shape, dtype, name) if dtype.is_floating_point else integers(shape, dtype, -50, 50, name)
        table, places = make([11, 7]), torch.tensor([[0, 10, 3], [3, 9, 1]])
        if dtype.is_floating_point:
            r.case("aten::embedding", "rank2", table, places, constants=["weight"])
        r.case("aten::index_select", "first", table, 0, torch.tensor([10, 0, 4, 4]))
        r.case("aten::gather", "last", table, 1, torch.tensor([[0, 6, 3], [1, 1, 1], [5, 0, 2]]))
        r.case("aten::index.Tensor", "one-index", table, [torch.tensor([2, 2, 10, 0])])
        r.case("aten::scatter.src", "last", make([4, 7]), 1, torch.tensor([[0, 6, 3], [1, 2, 5]]), make([2, 3], "source"))
    f = distinct([11, 7])
    r.case("aten::embedding", "rank1", f, torch.tensor([10, 0, 0]), constants=["weight"])
    r.case("aten::embedding", "i32", f, torch.tensor([10, 0, 0], dtype=torch.int32), constants=["weight"])
    r.case("aten::embedding", "padding", f, torch.tensor([10, 2, 0]), 2, constants=["weight"])
    r.case("aten::embedding", "weights-as-inputs", f, torch.tensor([[10, 0], [1, 1]]))
    r.case("aten::embedding", "empty", f, torch.zeros(0, dtype=torch.int64), constants=["weight"])
    r.case("aten::index_select", "negative-dim", f, -1, torch.tensor([6, 0, 3]))
    r.case("aten::gather", "first", f, 0, torch.tensor([[0, 10, 3, 1, 1, 2, 2], [5, 5, 5, 0, 0, 0, 10]]))
    r.case("aten::gather", "negative-dim", f, -1, torch.tensor([[6], [0], [3]]))
    r.case("aten::index.Tensor", "two-indices", f, [torch.tensor([0, 10, 3]), torch.tensor([6, 0, 2])])
    r.case("aten::index.Tensor", "second-only", f, [None, torch.tensor([6, 0])])
    r.case("aten::index.Tensor", "negative-index", f, [torch.tensor([-1, -11, 3])])
    r.case("aten::index.Tensor", "broadcast", f, [torch.tensor([[0], [10]]), torch.tensor([6, 0, 2])])
    r.case("aten::scatter.value", "first", f, 0, torch.tensor([[0, 1, 2, 3, 4, 5, 6]]), -9.0)
    r.case("aten::scatter_add", "repeated", torch.zeros(3, 7), 1, torch.tensor([[0, 0, 3], [1, 1, 1]]), given("s", [2, 3]), kind="reduction", k=3, scale="abs")
    r.case("aten::index_put", "rows", f, [torch.tensor([2, 5])], distinct([2, 7], name="source"))
    r.case("aten::index_put", "accumulate", torch.zeros(5, 3), [torch.tensor([1, 1, 4])], given("s", [3, 3]), True, kind="reduction", k=3, scale="abs")
    r.case("aten::index_copy", "rows", f, 0, torch.tensor([9, 0]), distinct([2, 7], name="source"))
    r.case("aten::index_add", "repeated", f, 0, torch.tensor([9, 0, 9]), given("s", [3, 7]), kind="reduction", k=3, scale="abs")
    r.case("aten::select_scatter", "middle", distinct([3, 4, 5]), distinct([3, 5], name="source"), 1, -2)
    r.case("aten::slice_scatter", "step2", distinct([3, 7]), distinct([3, 3], name="source"), 1, 1, 7, 2)
    r.case("aten::scatter_reduce.two", "amax", torch.zeros(2, 5), 1, torch.tensor([[0, 0, 3], [1, 1, 4]]), given("s", [2, 3]), "amax")
    r.case("aten::take_along_dim", "last", f, torch.tensor([[6, 0]]), 1)
    r.case("aten::masked_fill.Tensor", "broadcast", f, torch.tensor([True, False, True, False, False, True, False]), torch.tensor(-1.5))


def ordering(r):
    for dtype in (F32, F16, BF16, torch.int32, torch.int8):
        x = distinct([3, 11], dtype) if dtype.is_floating_point else torch.stack([torch.randperm(11, generator=torch.Generator().manual_seed(i)) for i in range(3)]).to(dtype)
        r.case("aten::topk", "largest", x, 4)
        r.case("aten::sort", "ascending", x)
        r.case("aten::sort", "descending", x, -1, True)
    x = distinct([5, 3, 7])
    r.case("aten::topk", "smallest", x, 2, 0, False)
    r.case("aten::topk", "all", x, 7)
    r.case("aten::topk", "one", x, 1)
    r.case("aten::topk", "odd-sizes", distinct([2, 517]), 31)
    r.case("aten::sort", "first", x, 0)
    r.case("aten::sort", "odd-sizes", distinct([2, 517]))
    r.case("aten::argsort", "last", x, -1)
    for dtype in FLOATS:
        r.case("aten::cumsum", "last", given("x", [3, 11], dtype), -1, kind="reduction", k=11, scale="abs")
        r.case("aten::cumsum", "first", given("x", [4, 5], dtype), 0, kind="reduction", k=4, scale="abs")
    r.case("aten::cumsum", "odd-sizes", given("x", [2, 517]), 1, kind="reduction", k=517, scale="abs")
    r.case("aten::cumsum", "one-element", given("x", [1]), 0, kind="reduction", scale="abs")
    for dtype in (torch.int32, torch.int64, torch.bool):
        r.case("aten::cumsum", "last", integers([3, 11], dtype, 0, 2), -1)
    r.case("aten::cumprod", "last", given("x", [3, 6]), -1, kind="reduction", k=6, scale="abs")


def attention(r):
    def weighed(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False, **_):
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        factor = scale if scale is not None else query.shape[-1] ** -0.5
        size = (query.abs() @ key.abs().transpose(-1, -2) * factor).amax()
        plain = functional.scaled_dot_product_attention(query, key, value.abs(), attn_mask=attn_mask, is_causal=is_causal, scale=scale)
        return plain * (1 + size)

    name = "aten::scaled_dot_product_attention"
    for dtype in FLOATS:
        q, k, v = (given(n, [1, 2, 5, 8], dtype) for n in "qkv")
        same = {"kind": "reduction", "k": 8, "scale": weighed}
        r.case(name, "plain", q, k, v, **same)
        r.case(name, "causal", q, k, v, None, 0.0, True, **same)
        r.case(name, "float-mask", q, k, v, given("mask", [5, 5], dtype), **same)
        r.case(name, "bool-mask", q, k, v, torch.ones(5, 5, dtype=torch.bool).tril(1), **same)
    q, k, v = (given(n, [1, 2, 5, 8]) for n in "qkv")
    same = {"kind": "reduction", "k": 8, "scale": weighed}
    r.case_scaled(name, "own-scale", [q, k, v], {"scale": 0.3}, kind="reduction", k=8, scale=weighed)
    r.case(name, "gqa", given("q", [1, 4, 5, 8]), given("k", [1, 2, 5, 8]), given("v", [1, 2, 5, 8]), enable_gqa=True, **same)
    r.case(name, "longer-keys", given("q", [2, 2, 3, 8]), given("k", [2, 2, 7, 8]), given("v", [2, 2, 7, 8]), **same)
    r.case(name, "one-query", given("q", [1, 2, 1, 16]), given("k", [1, 2, 13, 16]), given("v", [1, 2, 13, 16]), **{**same, "k": 16})
    r.case(name, "rank3", given("q", [2, 5, 8]), given("k", [2, 5, 8]), given("v", [2, 5, 8]), **same)
    r.case(name, "odd-sizes", given("q", [1, 3, 17, 13]), given("k", [1, 3, 19, 13]), given("v", [1, 3, 19, 13]), **{**same, "k": 13})


def creation(r):
    x = given("x", [3, 5])
    for name in ("zeros_like", "ones_like"):
        r.case(f"aten::{name}", "rank2", x)
    r.case("aten::full_like", "rank2", x, 1.5)
    r.case("aten::glu", "last", given("x", [3, 8]), -1, kind="transcendental")
    r.case("aten::glu", "middle", given("x", [2, 6, 5]), 1, kind="transcendental")
    r.case("aten::masked_fill.Scalar", "broadcast", x, torch.tensor([True, False, True, False, False]), 0.0)


def all_cases(r):
    for part in (reductions, softmaxes, norms, products, convolutions, pooling, resampling, views, indexing, ordering, attention, creation):
        part(r)
