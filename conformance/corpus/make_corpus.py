"""Writes a corpus of operator calls: concrete arguments, and the results that PyTorch gave on the CPU.

    PYTHON make_corpus.py OUT [--per-operator N] [--op TEXT]

Needs torch 2.15.0, safetensors and executorch 1.5.1, which registers `quantized_decomposed`: what `cargo xtask provision executorch`
installs. OUT gets `index.jsonl`, `shard-0.safetensors` and `ops.json`; README.md beside this script describes them. What is committed
here was written by `PYTHON make_corpus.py conformance/corpus --per-operator 4`, before complex results got tolerances and the cases of
`fft_*`, `polar` and their like were added: a run of today's script writes more.

Where calls come from:

1. PyTorch's own samples: each entry of OpInfo's database is traced on a few sample inputs and a few dtypes, at three levels
   (as torch.export leaves it, as ATen, and decomposed to core ATen), and every call of an operator in the traces is a case.
2. `edges()` below: calls written by hand, for what samples leave out (no dimensions, no elements, broadcasting, mixed dtypes, special
   values, numbers in place of tensors), and for operators that no sample reaches.

Every call is made again on contiguous copies of its arguments, and it is that result which is recorded. It is dropped where the
result is not determined: see `undetermined()`.
"""
import argparse
import collections
import hashlib
import json
import math
import re
import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db

import torch.ao.quantization.fx._decomposed  # noqa: F401  quantized_decomposed

warnings.filterwarnings("ignore")
aten = torch.ops.aten
CORE_TABLE = core_aten_decompositions()

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
# Elements of all tensors of a case together.
LARGEST = 2048
# torch.testing's defaults: rtol, atol.
TOLERANCE = {torch.float32: (1.3e-6, 1e-5), torch.float16: (1e-3, 1e-5), torch.bfloat16: (1.6e-2, 1e-5)}
# Contents of memory that nobody wrote.
UNWRITTEN = re.compile(r"aten::(new_)?empty(_like|_strided|_permuted)?(\.|$)")
# Operators outside of core ATen that Delegraph refuses by name: a corpus that tests it has nothing to ask of them.
REFUSED = {"aten::" + name for name in """
    _batch_norm_with_update_functional _chunk_cat _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors
    _linalg_slogdet _linalg_svd _lu_with_info _softmax_backward_data _trilinear _unique2 _unsafe_masked_index
    _unsafe_masked_index_put_accumulate as_strided_scatter bincount cholesky_inverse cholesky_solve combinations
    corrcoef cosine_embedding_loss cov cumulative_trapezoid.x dist fractional_max_pool2d fractional_max_pool3d
    frexp.Tensor geqrf gradient.scalarint hinge_embedding_loss histc histogram.bin_ct histogram.bins_tensor igamma igammac
    index_reduce lcm linalg_lu_factor_ex linalg_lu_solve linalg_matrix_exp linalg_qr linalg_svd linspace.Scalar_Tensor
    linspace.Tensor_Scalar linspace.Tensor_Tensor logdet logspace logspace.Scalar_Tensor logspace.Tensor_Scalar
    logspace.Tensor_Tensor lu_solve lu_unpack margin_ranking_loss matrix_exp max_unpool2d max_unpool3d multi_margin_loss
    multilabel_margin_loss multilabel_margin_loss_forward mvlgamma nanmedian nanmedian.dim nanquantile.scalar narrow.Tensor
    new_empty_strided nextafter nonzero_numpy ormqr pdist pinverse poisson_nll_loss polygamma quantile.scalar resize_as
    segment_reduce special_xlog1py svd tensor_split.tensor_indices_or_sections trapezoid.x trapz.x triangular_solve
    triplet_margin_loss unique_consecutive
""".split()}
# Results that only the backward pass reads; what they hold depends on the kernel that was chosen.
UNREAD = {"aten::_embedding_bag": (1, 2, 3), "aten::_embedding_bag_forward_only": (1, 2, 3), "aten::embedding_bag": (1, 2, 3),
          "aten::log_sigmoid_forward": (1,)}
# Defaults of enumerated types are given as their numbers.
SCALAR_TYPES = {0: torch.uint8, 1: torch.int8, 3: torch.int32, 4: torch.int64, 5: torch.float16, 6: torch.float32, 11: torch.bool, 15: torch.bfloat16}
# Operators that choose among equal elements as they like; the first tensor decides.
CHOOSING = {"aten::sort", "aten::topk", "aten::argsort", "aten::kthvalue", "aten::median.dim", "aten::mode", "aten::median"}


# The operators that are wanted.


def parameters(text):
    """Names of a signature's parameters without those that it writes to."""
    inside = text.split("(", 1)[1].rsplit(") ->", 1)[0]
    items = [item for item in re.split(r", (?![^\[]*\])", inside) if item and item != "*"]
    return [item.split("=")[0].split()[-1] for item in items if "!" not in item]


def tables():
    """Operator to tier, from Delegraph's operator table: `core`, `portable` (its out-variant is in ExecuTorch), `quantized`, `export`."""
    rows = [line.split("\t") for line in (ROOT / "runtime/opset/src/schemas.txt").read_text().splitlines()]
    outs = collections.defaultdict(list)
    for flags, text in rows:
        if "e" in flags and "!" in text:
            outs[text.split("(")[0].split(".")[0]].append(parameters(text))
    # What the out-variant's memory says, it need not be told.
    said = {"dtype", "layout", "device", "pin_memory"}
    tiers = {}
    for flags, text in rows:
        name = text.split("(")[0]
        if not name.startswith(("aten::", "quantized_decomposed::")):
            continue
        base = name.split(".")[0]
        inputs = [p for p in parameters(text) if p not in said]
        if "c" in flags:
            tiers[name] = "core"
        elif "!" in text:
            continue
        elif name.startswith("quantized_decomposed::"):
            tiers[name] = "quantized"
        else:
            known = any([p for p in other if p not in said] == inputs for other in outs[base] + outs[base + "_copy"])
            tiers[name] = "portable" if known else "export"
    return tiers


def overload_of(name):
    """`aten::add.Tensor` as a callable."""
    namespace, rest = name.split("::")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base)
    return getattr(packet, overload or "default")


def name_of(op):
    schema = op._schema
    return schema.name + (f".{schema.overload_name}" if schema.overload_name else "")


# Values of arguments and results.


def number(value):
    """JSON has no infinities and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


class Refused(Exception):
    """The format has no such value."""


class Case:
    """A call with its tensors, by key."""

    def __init__(self, op, source):
        self.op, self.source, self.tensors = op, source, {}
        self.line = {}

    def key(self, tensor):
        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.complex64:
            tensor = torch.view_as_real(tensor.resolve_conj()).contiguous()
        if tensor.dtype not in DTYPES:
            raise Refused(f"{tensor.dtype}")
        digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.clone().reshape(-1).view(torch.uint8).numpy().tobytes())
        key = digest.hexdigest()[:16]
        self.tensors[key] = tensor.clone()
        return key

    def tensor(self, tensor):
        value = {"t": self.key(tensor)}
        return {**value, "complex": True} if tensor.dtype == torch.complex64 else value

    def tensors_of(self, items):
        """A list of tensors; the mark of complex ones is that of the whole list."""
        complex_ones = {item.dtype == torch.complex64 for item in items if item is not None}
        if len(complex_ones) > 1:
            raise Refused("complex tensors beside real ones in a list")
        value = {"tl": [None if item is None else self.key(item) for item in items]}
        return {**value, "complex": True} if True in complex_ones else value

    def value(self, value, kind):
        """`kind` is the parameter's type in the schema's words."""
        if value is None:
            return None
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, (list, tuple)):
            items = list(value)
            if "Tensor" in kind:
                return self.tensors_of(items)
            if any(isinstance(item, (torch.SymInt, torch.SymFloat)) for item in items):
                raise Refused("symbolic")
            if "number" in kind.lower() or "scalar" in kind.lower():
                return {"sl": [self.value(item, "Scalar") for item in items]}
            if "bool" in kind:
                return {"bl": items}
            if "float" in kind:
                return {"fl": [number(float(item)) for item in items]}
            if all(isinstance(item, int) for item in items):
                return {"il": items}
            raise Refused(f"list {items}")
        if isinstance(value, bool):
            return {"b": value}
        # A parameter of type int holds dtypes, layouts and memory formats too, as PyTorch's own classes.
        if isinstance(value, int):
            return {"i": value}
        if isinstance(value, float):
            return {"f": number(value)}
        if isinstance(value, str):
            return {"s": value}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.layout):
            return {"layout": str(value).removeprefix("torch.")}
        if isinstance(value, torch.memory_format):
            return {"memory_format": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value.type)}
        raise Refused(f"{type(value)}")


def contiguous(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, (list, tuple)):
        return [contiguous(item) for item in value]
    return value


def widened(value):
    """Floats as float64, to compare with what rounding in between does."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return [widened(item) for item in value]
    return torch.float64 if value in TOLERANCE else value


def flat(results):
    return list(results) if isinstance(results, (list, tuple)) else [results]


def tensors_of(values):
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_of(value)
    return found


def equal(a, b):
    """Equal bits, as far as anyone can tell."""
    real = lambda t: torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
    return a.shape == b.shape and torch.equal(torch.nan_to_num(real(a).double()), torch.nan_to_num(real(b).double()))


def undetermined(name, bound):
    """Whether the operator's result on these arguments is one of several."""
    base = name.split(".")[0]
    tensors = tensors_of(bound.values())
    drops = bound.get("train", True) is not False and bound.get("p", 0)
    if bound.get("dropout_p") or ("dropout" in base and drops) or bound.get("ord") == "nuc":
        return True
    if name in CHOOSING or base in ("aten::sort", "aten::topk", "aten::argsort", "aten::kthvalue", "aten::mode"):
        first = tensors[0].flatten()
        return bool(first.isnan().any()) or len(torch.unique(first)) != first.numel()
    if base in ("aten::scatter", "aten::index_copy") or (base == "aten::index_put" and not bound["accumulate"]):
        if base == "aten::index_put":
            target = bound["self"].double()
            ones = torch.ones(bound["values"].shape, dtype=torch.float64)
            hits = aten.index_put(torch.zeros_like(target), bound["indices"], ones, True)
        elif base == "aten::index_copy":
            return len(torch.unique(bound["index"])) != bound["index"].numel()
        else:
            index = bound["index"]
            hits = torch.zeros(bound["self"].shape, dtype=torch.float64)
            hits = hits.scatter_add(bound["dim"], index, torch.ones(index.shape, dtype=torch.float64))
        return bool((hits > 1).any())
    if base in ("aten::_to_copy", "aten::to") and tensors[0].is_floating_point():
        dtype = bound.get("dtype")
        if dtype is not None and not dtype.is_floating_point and not dtype.is_complex and dtype != torch.bool:
            low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
            x = tensors[0].double()
            return not bool((x.isfinite() & (x > low - 1) & (x < high + 1)).all())
    return False


def record(op, args, kwargs, source):
    """The case of a call, or None where it is not one that can be judged."""
    name, schema = name_of(op), op._schema
    case = Case(name, source)
    bound = {}
    for i, parameter in enumerate(schema.arguments):
        if parameter.name == "generator" or "Generator" in str(parameter.type):
            continue
        if i < len(args) and not parameter.kwarg_only:
            bound[parameter.name] = contiguous(args[i])
        elif parameter.name in kwargs:
            bound[parameter.name] = contiguous(kwargs[parameter.name])
        elif parameter.has_default_value():
            default, real = parameter.default_value, str(parameter.real_type)
            if isinstance(default, int) and "ScalarType" in real:
                default = SCALAR_TYPES[default]
            if isinstance(default, int) and "MemoryFormat" in real:
                default = torch.contiguous_format
            bound[parameter.name] = default
        else:
            bound[parameter.name] = None
    if sum(t.numel() for t in tensors_of(bound.values())) > LARGEST:
        return None
    if any(t.layout != torch.strided or t.device.type != "cpu" for t in tensors_of(bound.values())):
        return None
    listed = []
    kinds = {p.name: str(p.type) for p in schema.arguments}

    def call(values, seed):
        torch.manual_seed(seed)
        values = {k: contiguous(v) for k, v in values.items()}
        positional = [values.pop(p.name) for p in schema.arguments if p.name in values and not p.kwarg_only]
        return flat(op(*positional, **values))

    try:
        if undetermined(name, bound):
            return None
        arguments = {k: contiguous(v) for k, v in bound.items()}
        for key, value in bound.items():
            listed.append([key, case.value(value, kinds[key])])
        first = call(arguments, 0)
        seeds = range(1, 9) if torch.Tag.nondeterministic_seeded in op.tags else (1,)
        others = [call(arguments, seed) for seed in seeds]
    except (Refused, RuntimeError, NotImplementedError, IndexError, ValueError, TypeError):
        return None
    if sum(t.numel() for t in tensors_of(first)) > LARGEST:
        return None
    # A complex number is as exact as its parts.
    involved = [torch.float32 if t.dtype == torch.complex64 else t.dtype for t in tensors_of(bound.values()) + tensors_of(first)]
    involved = [dtype for dtype in involved if dtype in TOLERANCE]
    exact_op = not any(t.dtype in TOLERANCE or t.is_complex() for t in tensors_of(first)) and not any(isinstance(r, float) for r in first)
    rtol, atol = 0.0, 0.0
    if involved and not exact_op:
        rtol, atol = max(TOLERANCE[d] for d in involved)
    out = []
    try:
        wide = call({k: widened(v) for k, v in bound.items()}, 1)
    except Exception:
        wide = [None] * len(first)
    lists = any("List" in str(r.type) for r in schema.returns)
    items = [first] if lists else [[f] for f in first]
    if lists:
        out.append(case.tensors_of(first))
    for k, a in enumerate(first):
        if k in UNREAD.get(name.split(".")[0], ()):
            out.append({"skip": True})
            continue
        if not isinstance(a, torch.Tensor):
            if not isinstance(a, (bool, int, float)):
                return None
            out.append(case.value(a, "Scalar"))
            continue
        same = all(equal(a, other[k]) for other in others)
        if UNWRITTEN.match(name) or not same:
            if lists:
                return None
            out.append({"meta": {"dtype": str(a.dtype).removeprefix("torch."), "shape": list(a.shape)}})
            continue
        w = wide[k] if k < len(wide) else None
        if isinstance(w, torch.Tensor) and w.shape == a.shape and not a.is_complex():
            if a.dtype in TOLERANCE:
                want = a.double()
                gap = torch.maximum((w.double() - want).abs(), (w.to(a.dtype).double() - want).abs())
                gap = torch.where(want.isfinite() & w.isfinite() & gap.isfinite(), gap, 0.0) - rtol * torch.nan_to_num(want.abs(), posinf=0.0)
                need = float(gap.max()) if gap.numel() else 0.0
                scale = float(torch.nan_to_num(want.abs(), posinf=0.0).max()) if want.numel() else 0.0
                # Far from the true value: rounding decides, not the operator.
                if need > 50 * (atol + rtol * max(scale, 1e-3)):
                    return None
                if need > atol:
                    atol = float(f"{1.1 * need:.3g}")
            elif involved and not torch.equal(w.to(a.dtype), a):
                return None
        if not lists:
            try:
                out.append(case.tensor(a))
            except Refused:
                return None
    case.line = {"op": name, "shard": 0, "args": listed, "out": out}
    if rtol or atol:
        case.line |= {"rtol": rtol, "atol": atol}
    case.line["source"] = source
    identity = json.dumps([name, listed, out], sort_keys=True)
    case.line = {"id": hashlib.sha256(identity.encode()).hexdigest()[:16], **case.line}
    return case


# Calls out of PyTorch's samples.


class Recorder(torch.fx.Interpreter):
    """Runs a traced graph and hands every call of an operator to `take`."""

    def __init__(self, graph, take):
        super().__init__(graph)
        self.take = take

    def call_function(self, target, args, kwargs):
        if isinstance(target, torch._ops.OpOverload):
            self.take(target, args, kwargs)
        return super().call_function(target, args, kwargs)


def traces(function, tensors, core):
    """A function as torch.export leaves it, as ATen, and, which takes long, decomposed to core ATen."""
    functional = torch.func.functionalize(function)
    levels = [(function, {"pre_dispatch": True}), (functional, {})]
    if core:
        levels.append((functional, {"decomposition_table": CORE_TABLE}))
    for traced, options in levels:
        try:
            yield make_fx(traced, **options)(*tensors)
        except Exception:
            continue


def samples(entry, dtype, limit):
    torch.manual_seed(0)
    try:
        found = entry.sample_inputs("cpu", dtype, requires_grad=False)
        for i, sample in enumerate(found):
            if i >= limit:
                return
            yield sample
    except Exception:
        return


def from_samples(take, only, per_dtype):
    for entry in op_db:
        source = entry.name + (f".{entry.variant_test_name}" if entry.variant_test_name else "")
        if entry.name.startswith(("linalg", "fft", "sparse", "special", "masked", "torch.ops.aten._safe", "signal")) and entry.name not in WELCOME:
            continue
        for dtype in (d for d in DTYPES + (torch.complex64,) if entry.supports_dtype(d, "cpu")):
            if dtype == torch.complex64 and entry.name not in COMPLEX:
                continue
            for i, sample in enumerate(samples(entry, dtype, per_dtype)):
                leaves, spec = torch.utils._pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
                places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
                if sum(leaves[k].numel() for k in places) > LARGEST:
                    continue

                def function(*tensors):
                    filled = list(leaves)
                    for k, tensor in zip(places, tensors):
                        filled[k] = tensor
                    value, args, kwargs = torch.utils._pytree.tree_unflatten(filled, spec)
                    return entry.op(value, *args, **kwargs)

                tensors = [leaves[k] for k in places]
                core = dtype == torch.float32 and i == 0
                for graph in traces(function, tensors, core):
                    try:
                        Recorder(graph, lambda op, args, kwargs: take(op, args, kwargs, source)).run(*tensors)
                    except Exception:
                        continue


WELCOME = {"linalg.vector_norm", "linalg.norm", "linalg.cross", "special.xlog1py", "signal.windows.hann"}
WELCOME |= {"fft." + name for name in "fft fft2 fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftn".split()}
# Entries of which complex samples are taken, too.
COMPLEX = WELCOME | set("""
    __radd__ __rdiv__ __rmul__ __rsub__ abs add angle bmm cat clone conj conj_physical cos cosh div eq exp expand flip full_like gather imag
    index_put index_select istft log masked_fill matmul mean mm mul ne neg ones_like permute real reciprocal repeat reshape resolve_conj
    roll rsqrt rsub select sgn sigmoid sin sinh sqrt square stack stft sub sum tanh tril true_divide view_as_complex view_as_real where
    zeros_like
""".split())


# Calls written by hand.


def edges(take):
    torch.manual_seed(0)

    def edge(name, *args, **kwargs):
        take(overload_of(name), args, kwargs, "edge")

    f32, f16, i64 = torch.float32, torch.float16, torch.int64
    normal = lambda *shape, dtype=f32: torch.randn(shape).to(dtype)
    special = torch.tensor([0.0, -0.0, 1.0, -1.5, math.inf, -math.inf, math.nan, 1e-3, 88.0])
    integers = torch.tensor([[-3, 0, 5], [7, -1, 2]])
    unary = "abs acos acosh asin asinh atan atanh bitwise_not ceil clone cos cosh erf exp expm1 floor gelu hardtanh isinf isnan leaky_relu log log10 log1p log2 logical_not neg reciprocal relu round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc elu".split()
    for base in unary:
        for x in (special, normal(2, 3, dtype=f16), normal(2, 3, dtype=torch.bfloat16), torch.tensor(0.5), torch.zeros(0, 3), integers, torch.tensor([True, False])):
            edge(f"aten::{base}", x)
    pairs = "add.Tensor sub.Tensor mul.Tensor div.Tensor atan2 maximum minimum eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor fmod.Tensor remainder.Tensor pow.Tensor_Tensor logical_and logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor".split()
    operands = [
        (normal(2, 3), normal(3)),
        (normal(2, 1), normal(1, 3, dtype=f16)),
        (integers, torch.tensor([[2], [3]], dtype=torch.int32)),
        (torch.tensor([True, False]), torch.tensor([3, 4], dtype=torch.uint8)),
        (normal(0, 3), normal(1, 3)),
        (torch.tensor(2.5), integers),
        (special, special.flip(0).contiguous()),
        (normal(4, dtype=f16), 2),
        (integers, 3),
    ]
    for base in pairs:
        for a, b in operands:
            edge(f"aten::{base}", a, b)
    for base in "add.Scalar sub.Scalar mul.Scalar div.Scalar eq.Scalar ne.Scalar lt.Scalar le.Scalar gt.Scalar ge.Scalar fmod.Scalar remainder.Scalar pow.Tensor_Scalar bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar".split():
        for x, y in ((normal(2, 3), 2), (integers, 3), (normal(3, dtype=f16), 0.5), (torch.tensor(7), 2), (torch.zeros(0), 1), (torch.tensor([1, 2], dtype=torch.int8), True)):
            edge(f"aten::{base}", x, y)
    edge("aten::pow.Scalar", 2, normal(2, 3))
    edge("aten::pow.Scalar", 2.0, torch.tensor([1, 2, 3]))
    for mode in (None, "trunc", "floor"):
        edge("aten::div.Tensor_mode", normal(2, 3), normal(3), rounding_mode=mode)
        edge("aten::div.Scalar_mode", integers, 2, rounding_mode=mode)
    for base in "sum.dim_IntList mean.dim amax amin".split():
        edge(f"aten::{base}", normal(2, 3, 4), [-1])
        edge(f"aten::{base}", normal(2, 3, 4, dtype=f16), [0, 2], True)
    for base in "any.dim argmax argmin max.dim min.dim cumsum prod.dim_int _softmax _log_softmax".split():
        x = normal(2, 3)
        last = (False,) if "softmax" in base else ()
        edge(f"aten::{base}", x, -1, *last)
        edge(f"aten::{base}", x.to(f16), 0, *last)
    for name in ("aten::any", "aten::prod", "aten::mean", "aten::any.dims"):
        edge(name, normal(2, 3), *([[0]] if name.endswith("dims") else []))
        edge(name, torch.tensor([[True, False]]), *([[0]] if name.endswith("dims") else []))
    for name in ("aten::var.correction", "aten::var.dim"):
        edge(name, normal(3, 4), [1])
        edge(name, normal(3, 4), [0, 1])
    # Creation.
    edge("aten::full", [2, 3], 1.5)
    edge("aten::full", [], 7, dtype=i64)
    edge("aten::full_like", normal(2), 3)
    edge("aten::arange.start_step", 1, 10, 3)
    edge("aten::arange.start_step", 0.5, 2.0, 0.5)
    edge("aten::scalar_tensor", 2.5)
    edge("aten::scalar_tensor", 3, dtype=torch.int32)
    for shape in ([2, 3], [], [0, 2]):
        edge("aten::empty.memory_format", shape)
        edge("aten::empty_strided", shape, list(torch.zeros(shape).stride()), dtype=f16)
        edge("aten::rand", shape)
        edge("aten::randn", shape, dtype=f16)
    edge("aten::randperm", 7)
    edge("aten::randperm", 0)
    # Sizes and numbers.
    for x in (normal(2, 3), torch.zeros(0, 4, dtype=f16), integers):
        edge("aten::sym_size.int", x, -1)
        edge("aten::sym_stride.int", x, 0)
        edge("aten::sym_numel", x)
        edge("aten::sym_storage_offset", x)
        edge("aten::sym_is_contiguous", x)
    for x in (torch.tensor(2.5), torch.tensor([7]), torch.tensor(True), torch.tensor(1.5, dtype=f16)):
        edge("aten::_local_scalar_dense", x)
    # Reading and writing by index.
    table, places = normal(5, 3), torch.tensor([[0, 4], [2, 2]])
    edge("aten::embedding", table, places)
    edge("aten::embedding", table.to(f16), places, 2)
    edge("aten::embedding_dense_backward", normal(2, 2, 3), places, 5, -1, False)
    edge("aten::embedding_dense_backward", normal(2, 2, 3), places, 5, 2, True)
    for mode in range(3):
        edge("aten::_embedding_bag", table, torch.tensor([0, 1, 4, 2]), torch.tensor([0, 3]), False, mode)
    edge("aten::_embedding_bag", table, torch.tensor([0, 1, 4, 2]), torch.tensor([0, 0, 3]), False, 0, False, normal(4))
    edge("aten::index.Tensor", normal(3, 4), [None, torch.tensor([1, -1])])
    edge("aten::index.Tensor", normal(3), [torch.tensor([True, False, True])])
    edge("aten::index_select", normal(3, 4), 1, torch.tensor([3, 0]))
    edge("aten::index_put", normal(4), [torch.tensor([0, 2])], normal(2), True)
    edge("aten::gather", normal(2, 3), 1, torch.tensor([[0, 2], [1, 1]]))
    edge("aten::scatter.src", torch.zeros(2, 3), 1, torch.tensor([[0, 2], [1, 0]]), normal(2, 2))
    edge("aten::scatter.value", torch.zeros(2, 3), 0, torch.tensor([[0, 1, 0]]), 4.0)
    edge("aten::scatter_add", torch.zeros(2, 3), 1, torch.tensor([[0, 0], [1, 2]]), normal(2, 2))
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        edge("aten::scatter_reduce.two", torch.ones(2, 3), 1, torch.tensor([[0, 0], [1, 2]]), normal(2, 2), reduce)
    edge("aten::masked_scatter", torch.zeros(4), torch.tensor([True, False, True, True]), normal(4))
    edge("aten::select_scatter", torch.zeros(2, 3), normal(3), 0, -1)
    edge("aten::slice_scatter", torch.zeros(4), normal(2), 0, 1, 4, 2)
    edge("aten::nonzero", torch.tensor([[0, 1], [2, 0]]))
    edge("aten::nonzero", torch.tensor(3.0))
    edge("aten::where.self", torch.tensor([True, False]), normal(2), torch.tensor(0.0))
    edge("aten::topk", torch.tensor([3.0, 1.0, 2.0]), 2)
    edge("aten::sort", torch.tensor([[3.0, 1.0, 2.0]]), -1, True)
    edge("aten::repeat", normal(2), [3, 1])
    edge("aten::flip", normal(2, 3), [-1])
    edge("aten::resize_", normal(2, 3), [2, 3])
    edge("aten::fill.Scalar", normal(2, 3), 2)
    edge("aten::copy", torch.zeros(2, 3), normal(3, dtype=f16))
    # Layers.
    edge("aten::_native_batch_norm_legit", normal(2, 3, 4), normal(3), normal(3), torch.zeros(3), torch.ones(3), True, 0.1, 1e-5)
    edge("aten::_native_batch_norm_legit", normal(2, 3, 4), None, None, normal(3), normal(3).abs(), False, 0.1, 1e-5)
    edge("aten::_native_batch_norm_legit.no_stats", normal(2, 3, 4), normal(3), normal(3), True, 0.1, 1e-5)
    edge("aten::_native_batch_norm_legit_no_training", normal(2, 3), normal(3), None, normal(3), normal(3).abs(), 0.1, 1e-5)
    edge("aten::native_layer_norm", normal(2, 3), [3], normal(3), normal(3), 1e-5)
    edge("aten::native_layer_norm", normal(2, 3, dtype=f16), [3], None, None, 1e-5)
    edge("aten::native_group_norm", normal(2, 4, 3), normal(4), None, 2, 4, 3, 2, 1e-5)
    edge("aten::native_dropout", normal(2, 3), 0.5, False)
    one = ([1], [0], [1], False, [0], 1)
    edge("aten::convolution", normal(1, 2, 5), normal(3, 2, 3), normal(3), *one)
    edge("aten::convolution", normal(1, 2, 4, 4, dtype=f16), normal(2, 1, 3, 3, dtype=f16), None, [2, 1], [1, 1], [1, 1], False, [0, 0], 2)
    edge("aten::convolution", normal(1, 2, 3), normal(2, 1, 3), None, [2], [1], [1], True, [1], 1)
    edge("aten::convolution_backward", normal(1, 3, 3), normal(1, 2, 5), normal(3, 2, 3), [3], *one, [True, True, True])
    edge("aten::convolution_backward", normal(1, 2, 4, 4), normal(1, 2, 4, 4), normal(2, 1, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2, [True, True, False])
    mean, deviation = normal(2, 2), normal(2, 2).abs() + 0.5
    edge("aten::native_group_norm_backward", normal(2, 4, 3), normal(2, 4, 3), mean, deviation, normal(4), 2, 4, 3, 2, [True, True, True])
    for weight, bias, mask in ((normal(3), normal(3), [True, True, True]), (None, None, [True, False, False])):
        edge("aten::native_layer_norm_backward", normal(2, 3), normal(2, 3), [3], mean[:, :1], deviation[:, :1], weight, bias, mask)
    for name in ("reflection_pad", "replication_pad"):
        for rank in (1, 2, 3):
            edge(f"aten::{name}{rank}d", normal(1, 2, *[3] * rank), [1, 2] * rank)
            edge(f"aten::{name}{rank}d", normal(2, *[4] * rank, dtype=f16), [1, 0] * rank)
    for name, rank in (("avg_pool1d", 1), ("avg_pool2d", 2), ("avg_pool3d", 3)):
        edge(f"aten::{name}", normal(1, 2, *[4] * rank), [2] * rank, [2] * rank, [0] * rank)
        edge(f"aten::{name}", normal(1, 2, *[5] * rank), [3] * rank, [2] * rank, [1] * rank, True, False)
    edge("aten::avg_pool2d_backward", normal(1, 2, 2, 2), normal(1, 2, 4, 4), [2, 2], [2, 2], [0, 0], False, True, None)
    edge("aten::avg_pool2d_backward", normal(1, 1, 2, 2), normal(1, 1, 4, 4), [3, 3], [2, 2], [1, 1], False, False, 5)
    edge("aten::max_pool2d_with_indices", normal(1, 2, 4, 4), [2, 2], [2, 2])
    edge("aten::max_pool2d_with_indices_backward", normal(1, 1, 2, 2), torch.arange(16.0).reshape(1, 1, 4, 4), [2, 2], [2, 2], [0, 0], [1, 1], False, torch.tensor([[[[5, 7], [13, 15]]]]))
    edge("aten::max_pool3d_with_indices", normal(1, 1, 4, 4, 4), [2, 2, 2])
    edge("aten::_adaptive_avg_pool2d", normal(1, 2, 5, 4), [2, 3])
    edge("aten::_adaptive_avg_pool2d_backward", normal(1, 2, 2, 2), normal(1, 2, 5, 4))
    edge("aten::_adaptive_avg_pool3d", normal(1, 1, 4, 3, 5), [2, 2, 2])
    edge("aten::adaptive_avg_pool1d", normal(1, 2, 5), [3])
    edge("aten::grid_sampler_2d", normal(1, 1, 3, 3), torch.rand(1, 2, 2, 2) * 2 - 1, 0, 0, False)
    edge("aten::upsample_bilinear2d.vec", normal(1, 1, 2, 3), [4, 5], True, None)
    edge("aten::upsample_nearest2d.vec", normal(1, 1, 2, 3), None, [2.0, 2.0])
    edge("aten::_cdist_forward", normal(2, 3), normal(4, 3), 2.0, None)
    edge("aten::_cdist_forward", normal(2, 3), normal(4, 3), 1.0, None)
    edge("aten::_pdist_forward", normal(4, 3), 2.0)
    edge("aten::col2im", normal(1, 4, 4), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1])
    edge("aten::atan2.out", normal(2, 3), normal(3), out=torch.zeros(2, 3))
    edge("aten::one_hot", torch.tensor([0, 2, 1]))
    edge("aten::one_hot", torch.tensor([0, 2, 1]), 4)
    edge("aten::take_along_dim", normal(2, 3), torch.tensor([[-1], [2]]), 1)
    # Fourier transforms: even, odd, prime and smooth sizes, each mode, several dimensions, in any order.
    for mode, size in enumerate((16, 15, 37)):
        wave = normal(3, size)
        edge("aten::_fft_r2c", wave, [1], mode, True)
        edge("aten::_fft_r2c", wave, [-1, 0], mode, False)
        spectrum = torch.complex(normal(3, size // 2 + 1), normal(3, size // 2 + 1))
        edge("aten::_fft_c2r", spectrum, [1], mode, size)
        edge("aten::_fft_c2r", spectrum, [0, -1], mode, size)
        for forward in (True, False):
            edge("aten::_fft_c2c", torch.complex(wave, wave.flip(0)), [1], mode, forward)
            edge("aten::_fft_c2c", torch.complex(wave, wave.flip(1)), [1, 0], mode, forward)
    edge("aten::_fft_r2c", normal(1), [0], 0, True)
    edge("aten::_fft_r2c", normal(0, 4), [1], 0, True)
    edge("aten::_fft_c2r", torch.complex(normal(1, 2), normal(1, 2)), [0], 2, 1)
    edge("aten::polar", normal(2, 3), normal(3))
    edge("aten::complex", normal(2, 3), normal(3))

    # quantized_decomposed.
    x, scales, zeros = normal(4, 6), torch.rand(4) * 0.1 + 0.05, torch.tensor([0, 3, -2, 1])
    for dtype, low, high in ((torch.int8, -128, 127), (torch.uint8, 0, 255), (torch.int32, -1000, 1000)):
        q = torch.randint(max(low, -50), min(high, 90), (4, 6)).to(dtype)
        edge("quantized_decomposed::quantize_per_tensor", x, 0.1, 3, low, high, dtype)
        edge("quantized_decomposed::quantize_per_tensor.tensor", x, torch.tensor(0.1), torch.tensor(3), low, high, dtype)
        edge("quantized_decomposed::quantize_per_tensor.tensor2", x, torch.tensor(0.1), torch.tensor(3), torch.tensor(low), torch.tensor(high), dtype)
        edge("quantized_decomposed::dequantize_per_tensor", q, 0.1, 3, low, high, dtype)
        edge("quantized_decomposed::dequantize_per_tensor.tensor", q, torch.tensor(0.1), torch.tensor(3), low, high, dtype)
        edge("quantized_decomposed::dequantize_per_tensor.tensor2", q, torch.tensor(0.1), torch.tensor(3), torch.tensor(low), torch.tensor(high), dtype)
        edge("quantized_decomposed::quantize_per_channel", x, scales, zeros, 0, low, high, dtype)
        edge("quantized_decomposed::dequantize_per_channel", q, scales, zeros, 0, low, high, dtype)
        if dtype == torch.int8:
            rows, zero_rows = scales.reshape(4, 1), zeros.reshape(4, 1)
            edge("quantized_decomposed::quantize_per_token", x, rows, zero_rows, low, high, dtype)
            edge("quantized_decomposed::dequantize_per_token", q, rows, zero_rows, low, high, dtype, f32)
            groups, zero_groups = torch.rand(4, 2) * 0.1 + 0.05, torch.randint(-3, 3, (4, 2))
            edge("quantized_decomposed::quantize_per_channel_group", x, groups, zero_groups, low, high, dtype, 3)
            edge("quantized_decomposed::dequantize_per_channel_group", q, groups, zero_groups, low, high, dtype, 3, f32)
    edge("quantized_decomposed::choose_qparams_per_token", x, torch.int8)


# The files.


def choose(cases, count):
    """The `count` cases of an operator that differ most: another dtype each while there are any, hand-written ones first, then small ones."""
    def rank(case):
        return (case.source != "edge", sum(t.nbytes for t in case.tensors.values()), case.line["id"])

    chosen, seen = [], set()
    for case in sorted(cases, key=rank):
        kinds = tuple(str(t.dtype) for t in case.tensors.values())[:2]
        if kinds not in seen and len(chosen) < count:
            seen.add(kinds)
            chosen.append(case)
    # What is left of the count goes to the samples: they reach arguments that nobody thought of.
    rest = [case for case in sorted(cases, key=lambda c: (c.source == "edge",) + rank(c)) if case not in chosen]
    return chosen + rest[: count - len(chosen)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-operator", type=int, help="cases of an operator to keep (default: all)")
    parser.add_argument("--op", default="", help="operators whose name contains this text")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
    tiers = tables()
    cases, seen = collections.defaultdict(dict), collections.Counter()

    def take(op, args, kwargs, source):
        name = name_of(op)
        if name not in tiers or name in REFUSED or options.op not in name:
            return
        mutating = any(a.alias_info is not None and a.alias_info.is_write for a in op._schema.arguments)
        if mutating and tiers[name] != "core":
            return
        # What computes gradients is in graphs of inference only where core ATen has it.
        if "backward" in name and tiers[name] != "core":
            return
        # Hundreds of samples of an operator teach nothing that scores of them do not.
        if seen[name, source] >= 40:
            return
        case = record(op, args, kwargs, source)
        if case is not None and case.line["id"] not in cases[name]:
            seen[name, source] += 1
            cases[name][case.line["id"]] = case

    edges(take)
    from_samples(take, options.op, 3 if options.per_operator else 8)
    tensors, lines, summary = {}, [], {}
    for name in sorted(cases):
        found = list(cases[name].values())
        found = choose(found, options.per_operator) if options.per_operator else found
        dtypes = collections.Counter()
        for case in sorted(found, key=lambda c: c.line["id"]):
            lines.append(json.dumps(case.line, separators=(",", ":")))
            tensors |= case.tensors
            first = [t.dtype for t in case.tensors.values()][:1]
            dtypes[str(first[0]).removeprefix("torch.") if first else "none"] += 1
        schema = str(overload_of(name)._schema)
        summary[name] = {"tier": tiers[name], "schema": schema, "cases": len(found), "dtypes": dict(sorted(dtypes.items()))}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "index.jsonl").write_text("".join(line + "\n" for line in lines))
    safetensors.torch.save_file(dict(sorted(tensors.items())), options.out / "shard-0.safetensors")
    head = {"format": 1, "torch": torch.__version__.split("+")[0], "cases": len(lines), "shards": 1, "ops": summary}
    (options.out / "ops.json").write_text(json.dumps(head, indent=0) + "\n")
    core = [name for name, tier in tiers.items() if tier == "core"]
    missing = [name for name in core if name not in cases]
    print(f"{len(lines)} cases of {len(summary)} operators; core ATen: {len(core) - len(missing)} of {len(core)}; missing: {missing}")


if __name__ == "__main__":
    main()
