"""Writes tests/data/calls.jsonl: calls of kernels with small tensors, and what PyTorch and ExecuTorch's LLM extension give.

Needs torch 2.15.0 and executorch 1.5.1:  python make_calls.py > data/calls.jsonl

A line: {"kernel": name of the out-variant, "args": [...], "outs": [...]}. A tensor is [dtype, sizes, elements]. An argument is
null or {"t": tensor}, {"m": tensor} (an argument that the call changes: the output with these contents), {"i"}, {"f"}, {"b"},
{"il"}, {"bl"}. Outputs are the changed arguments, then what the operator returns.
"""
import itertools
import json

import torch
import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  llama

torch.manual_seed(7)
NAMES = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.bool: "bool",
}


def tensor(x):
    if not x.is_floating_point():
        items = x.to(torch.int64).flatten().tolist()
    elif x.dtype == torch.float64:
        items = x.flatten().tolist()
    else:
        # Nine digits tell every float from its neighbours.
        items = [float(f"{item:.9g}") for item in x.double().flatten().tolist()]
    return [NAMES[x.dtype], list(x.shape), items]


class Changed:
    def __init__(self, value):
        self.value = value


def argument(x):
    if x is None:
        return None
    if isinstance(x, Changed):
        return {"m": tensor(x.value)}
    if isinstance(x, torch.Tensor):
        return {"t": tensor(x)}
    if isinstance(x, (list, tuple)):
        return {"bl" if x and isinstance(x[0], bool) else "il": list(x)}
    return {{bool: "b", int: "i", float: "f"}[type(x)]: x}


def case(kernel, function, *args):
    given = [argument(x) for x in args]
    values = [x.value.clone() if isinstance(x, Changed) else x for x in args]
    result = function(*values)
    result = result if isinstance(result, (tuple, list)) else (result,)
    # A gradient that the mask leaves out is None: an empty tensor in a program.
    dtype = next(x.dtype for x in values if isinstance(x, torch.Tensor))
    result = [torch.zeros(0, dtype=dtype) if x is None else x for x in result]
    changed = [value for value, x in zip(values, args) if isinstance(x, Changed)]
    print(json.dumps({"kernel": kernel, "args": given, "outs": [tensor(x) for x in changed + result]}))


aten, llama = torch.ops.aten, torch.ops.llama
table = torch.randn(6, 3)
indices, offsets = torch.tensor([0, 2, 3, 5, 2, 1]), torch.tensor([0, 2, 2, 5])
closed = torch.tensor([0, 2, 2, 6])
for mode, padding, include in itertools.product((0, 1, 2), (-1, 2), (False, True)):
    at = closed if include else offsets
    case("aten::_embedding_bag.out", aten._embedding_bag, table, indices, at, False, mode, False, None, include, padding)
weights = torch.randn(6)
case("aten::_embedding_bag.out", aten._embedding_bag, table, indices, offsets, False, 0, False, weights, False, -1)
case("aten::_embedding_bag.out", aten._embedding_bag, table, indices, offsets, False, 0, False, weights, False, 3)
for dtype in (torch.float16, torch.float64):
    for mode in (0, 1, 2):
        case("aten::_embedding_bag.out", aten._embedding_bag, table.to(dtype), indices, offsets, False, mode, False, None, False, -1)
case("aten::_embedding_bag_forward_only.out", aten._embedding_bag_forward_only, table, indices.int(), offsets.int(), False, 1,
     False, None, False, 2)
case("aten::_embedding_bag.out", aten._embedding_bag, table, indices[:0], torch.tensor([0, 0]), False, 2, False, None, False, -1)

gradient = torch.randn(2, 3, 4)
for frequency in (False, True):
    for padding in (-1, 1):
        case("aten::embedding_dense_backward.out", aten.embedding_dense_backward, gradient,
             torch.tensor([[0, 1, 1], [3, 0, 1]]), 5, padding, frequency)


def convolution(sizes, channels, kernel, stride, padding, dilation, groups=1, transposed=False, extra=None, mask=(True,) * 3,
                dtype=torch.float32):
    x = torch.randn(*sizes).to(dtype)
    w = torch.randn(*((sizes[1], channels // groups) if transposed else (channels, sizes[1] // groups)), *kernel).to(dtype)
    extra = extra or [0] * len(kernel)
    y = aten.convolution(x, w, None, stride, padding, dilation, transposed, extra, groups)
    g = torch.randn(y.shape).to(dtype)
    case("aten::convolution_backward.out", aten.convolution_backward, g, x, w, [channels], stride, padding, dilation,
         transposed, extra, groups, list(mask))


convolution((2, 3, 7), 4, (3,), [2], [1], [1])
convolution((1, 4, 5, 6), 6, (3, 2), [1, 2], [1, 0], [1, 2], groups=2)
convolution((1, 2, 5, 6), 2, (3, 3), [2, 1], [1, 1], [1, 1], groups=2, dtype=torch.float64)
convolution((1, 2, 3, 4, 3), 2, (2, 2, 2), [2, 1, 1], [1, 0, 1], [1, 1, 1])
convolution((1, 4, 3, 4), 6, (3, 2), [2, 3], [1, 0], [1, 2], groups=2, transposed=True, extra=[1, 0])
convolution((2, 2, 5), 3, (3,), [2], [0], [1], transposed=True)
convolution((1, 2, 4, 4), 3, (3, 3), [1, 1], [0, 0], [1, 1], mask=(False, True, False))
convolution((1, 2, 4, 4), 3, (3, 3), [1, 1], [0, 0], [1, 1], mask=(True, False, True))

for kernel, stride, padding, ceil, counted, divisor in (
    ([2, 2], [], [0, 0], False, True, None),
    ([3, 2], [2, 1], [1, 0], False, True, None),
    ([3, 2], [2, 2], [1, 1], True, False, None),
    ([3, 3], [2, 2], [1, 1], True, True, None),
    ([3, 3], [2, 2], [0, 0], True, True, 5),
):
    x = torch.randn(2, 2, 5, 6)
    y = aten.avg_pool2d(x, kernel, stride, padding, ceil, counted, divisor)
    case("aten::avg_pool2d_backward.grad_input", aten.avg_pool2d_backward, torch.randn(y.shape), x, kernel, stride, padding,
         ceil, counted, divisor)

for mode, padding, corners in itertools.product((0, 1), (0, 1, 2), (False, True)):
    case("aten::grid_sampler_3d.out", aten.grid_sampler_3d, torch.randn(1, 1, 3, 2, 4), torch.randn(1, 2, 2, 1, 3) * 1.2, mode,
         padding, corners)

for training in (False, True):
    case("aten::_native_batch_norm_legit.out", aten._native_batch_norm_legit, torch.randn(3, 2, 4), torch.randn(2),
         torch.randn(2), Changed(torch.randn(2)), Changed(torch.rand(2) + 0.5), training, 0.1, 1e-5)

resize = lambda x, size, _: aten.resize(x, size)  # noqa: E731
case("aten::resize.out", resize, torch.arange(6.0), [2, 2], None)
case("aten::resize.out", resize, torch.arange(6.0).reshape(2, 3), [6], None)

query, key, value = torch.randn(2, 3, 4, 4), torch.randn(2, 10, 2, 4), torch.randn(2, 10, 2, 4)
for start, causal in ((0, True), (4, True), (4, False), (7, True)):
    case("llama::custom_sdpa.out", llama.custom_sdpa, query, key, value, start, None, 0.0, causal, None)
case("llama::custom_sdpa.out", llama.custom_sdpa, query, key, value, 4, torch.randn(3, 10), 0.0, False, 0.25)
case("llama::sdpa_with_kv_cache.out", llama.sdpa_with_kv_cache, query, key[:, :3], value[:, :3], Changed(key.flip(1)),
     Changed(value.flip(1)), 4, 3, None, 0.0, True, None)
out = lambda f: lambda *args: (f(*args), torch.zeros(1))[1]  # noqa: E731  the element returned says nothing
case("llama::update_cache.out", out(llama.update_cache), value[:, :2], Changed(key), 5)
case("llama::update_cache_with_indices.out", out(llama.update_cache_with_indices), value[:, :2], Changed(key), 0,
     torch.tensor([[5, 0], [1, 9]]))
case("llama::fast_hadamard_transform.out", llama.fast_hadamard_transform, torch.randn(2, 16))
