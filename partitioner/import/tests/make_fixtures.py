"""Writes the fixtures `import-*` of conformance/fixtures: small modules that mutate, alias, branch and nest.

    python make_fixtures.py [--prefix PREFIX] [NAME...]

Made with torch 2.15.0; those of another torch have its version as the prefix (`torch-2.9`). The format is that of conformance/fixtures/README.md; expected values are those of the module in
eager mode. `methods` is an archive of several programs and goes to tests/data.
"""
import copy
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch.export import Dim, export, save
from torch.utils import _pytree as pytree

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parents[2] / "conformance" / "fixtures"
PREFIX = "import"


class Slices(torch.nn.Module):
    """A buffer that is written through slices, selects and transposes, and read through other views."""

    def __init__(self):
        super().__init__()
        self.register_buffer("grid", torch.arange(24.0).reshape(4, 6))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.ones(4, 6))

    def forward(self, x):
        row = self.grid[1]
        column = self.grid.select(1, 2)
        flat = self.grid.view(-1)
        self.grid[:, 1:3] += x
        row.mul_(2)
        self.grid.t()[0].copy_(x[:, 0])
        self.grid[::2, -1] = -1.0
        self.steps += 1
        flat[5:7].zero_()
        return row + 0, column.clone(), flat.sum(), self.grid * self.table, self.steps.clone()


class Inputs(torch.nn.Module):
    """Inputs that are written, whole and through views, and returned."""

    def forward(self, x, y, z):
        x[0].add_(y)
        tail = x.view(-1)[2:5]
        tail.mul_(3)
        y.fill_(7)
        z.t().unsqueeze(0)[:, 1:].sub_(1)
        return x, tail, z.sum(0), x[1] + y


class Views(torch.nn.Module):
    """Every kind of view of an intermediate, written through."""

    def forward(self, x):
        a = x.clone()
        first, second = a.chunk(2, dim=1)
        first.add_(1)
        parts = a.split([1, 3], dim=0)
        parts[1].mul_(2)
        top, bottom = a[:2].unbind(0)
        bottom.copy_(top)
        a.diagonal().zero_()
        a.permute(1, 0).narrow(0, 1, 2).sub_(0.5)
        a.unsqueeze(0).squeeze(0).view(2, 2, 4)[0].clamp_(max=3)
        a.unflatten(1, (2, 2)).transpose(1, 2)[:, 0].add_(10)
        a.movedim(0, 1)[3].neg_()
        b = a.detach()
        b[0, 0] = 42
        b.reshape(-1)[-1] = 43
        c = a.t().contiguous()
        c.zero_()
        d = a.flatten()
        d[3:5] = 5
        return a, b, second + 0, d


class Dtypes(torch.nn.Module):
    """In-place operators whose functional form would give another dtype or shape."""

    def forward(self, i, f, h):
        i = i.clone()
        f = f.clone()
        h = h.clone()
        i.add_(3)
        i.mul_(i[:1].clone())
        f.eq_(2.0)
        f.logical_or_(i > 20)
        h.add_(f)
        h.masked_fill_(i > 15, 0.25)
        g = torch.empty(3, dtype=torch.float64)
        g.copy_(i)
        g.div_(h)
        m = i > 12
        m &= f.bool()
        m.logical_not_()
        k = torch.zeros(2, 3, dtype=torch.int32)
        k.copy_(i)
        k[0].copy_(torch.tensor(5.0))
        k.bitwise_and_(6)
        s = torch.ones(3)
        s.index_put_((torch.tensor([0, 2]),), torch.tensor(4.0))
        s.index_add_(0, torch.tensor([1]), torch.tensor([2.5]))
        s.scatter_(0, torch.tensor([1]), 9.0)
        s.pow_(2)
        return i, f, h, g, m, k, torch.nn.functional.hardtanh_(s.relu_(), 0, 50)


class InPlaceShape(torch.nn.Module):
    """In-place operators that change a tensor's shape."""

    def forward(self, x):
        y = x.clone()
        y.unsqueeze_(0)
        y.transpose_(1, 2)
        y.add_(1)
        z = y.squeeze(0)
        z.t_()
        z[0].mul_(2)
        return y + 0, z + 0


class Nested(torch.nn.Module):
    """Inputs and outputs in dicts, lists and tuples; None and numbers among them."""

    def forward(self, pair, options, *, extra=None, scale=2):
        a, (b, c) = pair
        total = a + b * scale
        if c is not None:
            total = total + c
        if extra is not None:
            total = total - extra["x"][0]
        return {"sum": total, "parts": [options["left"], (options["right"] * 2, None)], "n": 3, "f": 0.5, "b": True}


class Items(torch.nn.Module):
    """Numbers that are read from tensors at run time."""

    def forward(self, x, n, f):
        k = n.item()
        torch._check(k >= 0)
        torch._check(k <= x.shape[0])
        head = x[:k] * 2
        ramp = torch.arange(k, dtype=torch.float32) + k
        return head.sum(), ramp, x * f.item(), x + k


class BoolItem(torch.nn.Module):
    """A boolean that is read from a tensor and chooses."""

    def forward(self, x, flag):
        return torch.cond(flag.item(), lambda x: x + 1, lambda x: x * 2, (x,))


class CondSize(torch.nn.Module):
    """A branch on a size; the branches use sizes too."""

    def forward(self, x):
        n = x.shape[0]
        return torch.cond(n > 4, lambda x: x.sum(0) / x.shape[0], lambda x: x.amax(0) + x.shape[0], (x,))


class Wrapped(torch.nn.Module):
    """Autograd modes and a disabled autocast around parts of the graph, one of which writes."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        with torch.no_grad():
            y = self.linear(x)
            self.seen.add_(y.sum(0))
        with torch.autocast("cpu", enabled=False):
            z = y.float() @ y.t()
        with torch.enable_grad():
            z = z + self.seen.sum()
        return z, y


class Sizes(torch.nn.Module):
    """Arithmetic on sizes, writes at symbolic places, derived dimensions."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(16, 3))

    def forward(self, x, y):
        n, m = x.shape[0], y.shape[0]
        self.cache[:n].copy_(x)
        half = torch.arange(n // 2 + 2)
        grid = torch.zeros(n, m + 1)
        grid[:, 1:] = x.sum(1, keepdim=True)
        grid.select(1, 0).add_(n * 2.0)
        scale = n / (m + 1)
        pad = torch.full((torch.sym_max(n, 3) * 2, 3), 0.5)
        return half, grid, y * scale, torch.cat([x, pad]), n + m, self.cache.sum()


class TrainedNorm(torch.nn.Module):
    """A batch normalization in training mode: it writes its running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x)


class Loops(torch.nn.Module):
    """Higher-order operators inside each other, with weights and outer tensors."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 9).reshape(3, 3))

    def forward(self, x, bias):
        from torch._higher_order_ops.map import map as hop_map
        from torch._higher_order_ops.scan import scan
        from torch._higher_order_ops.while_loop import while_loop

        def branch(row, bias):
            return torch.cond(row.sum() > 0, lambda r, b: r @ self.weight + b, lambda r, b: r - b, (row, bias))

        rows = hop_map(branch, x, bias)
        carry, sums = scan(lambda c, r: (c * 0.5 + r, (c * r).sum()), torch.zeros(3), rows)
        count, grown = while_loop(
            lambda i, v: (i < 5) & (v.abs().max() < 100),
            lambda i, v: (i + 1, torch.cond(v.sum() > 0, lambda v: v * 3, lambda v: 1 - v, (v,))),
            (torch.tensor(0), carry),
        )
        return rows, carry, sums, count, grown


class Tied(torch.nn.Module):
    """Weights that share memory: tied, transposed, sliced; a constant made in forward; a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        base = torch.arange(48.0).reshape(8, 6)
        self.embed = torch.nn.Embedding(8, 6)
        self.head = torch.nn.Linear(6, 8, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("upper", base[:4])
        self.register_buffer("turned", base[4:].t())
        self.register_buffer("wide", torch.tensor([[1.0], [2.0]]).expand(2, 5), persistent=False)
        self.register_buffer("none", torch.zeros(0, 3))

    def forward(self, ids):
        hidden = self.embed(ids)
        shift = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        return self.head(hidden + shift), self.upper @ self.turned, self.wide.sum(0), self.none.shape[0]


class Spectrum(torch.nn.Module):
    """Complex tensors: a spectrogram in mel bands and back, a filter in the frequency domain, a rotary embedding, sizes of every kind."""

    def __init__(self):
        super().__init__()
        r = seed()
        self.register_buffer("window", torch.hann_window(4))
        self.register_buffer("mel", torch.rand(2, 3))
        self.register_buffer("response", r(17, dtype=torch.complex64))

    def forward(self, x):
        spectrogram = torch.stft(x, 4, 2, window=self.window, return_complex=True)
        mel = torch.log(self.mel @ spectrogram.abs().pow(2) + 1e-3)
        back = torch.istft(spectrogram, 4, 2, window=self.window, length=32)
        filtered = torch.fft.irfft(torch.fft.rfft(x) * self.response, norm="forward")
        turns = torch.polar(torch.ones(16), torch.arange(16.0))
        z = torch.view_as_complex(x.reshape(-1, 16, 2)) * turns
        turned = torch.view_as_real(z).flatten(1)
        prime = torch.fft.fft(z, n=37, norm="ortho")
        power = (prime * prime.conj()).real + (0.5j * prime).imag
        odd = torch.fft.irfft2(torch.stack([z, z / (1 + z)]), s=(3, 15), dim=(0, 2))
        return mel, back, filtered, turned, prime, power, odd, z.angle(), z.sum(-1) - z.mean(-1)


def seed():
    torch.manual_seed(0)
    return torch.randn


def cases():
    """name -> (module, dynamic shapes, {case: [step arguments, ...]}, options)"""
    r = seed()
    n = Dim("n", min=2, max=16)
    m = Dim("m", min=2, max=16)
    return {
        "slices": (Slices().eval(), None, {"a": [(r(4, 2),), (r(4, 2),)]}, {}),
        "inputs": (Inputs(), None, {"a": [(r(2, 3), r(3), r(3, 4))]}, {}),
        "views": (Views(), None, {"a": [(r(4, 4),)]}, {}),
        "dtypes": (Dtypes(), None, {"a": [(torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0]), r(3).half())]}, {}),
        "in-place-shape": (InPlaceShape(), None, {"a": [(r(3, 4),)]}, {}),
        "nested": (
            Nested(),
            None,
            {"a": [((r(2), (r(2), None)), {"left": r(3), "right": r(2, 2)}, {"extra": {"x": [r(2)]}, "scale": 3})]},
            {},
        ),
        "items": (
            Items(),
            None,
            {str(k): [(r(6, 2), torch.tensor(k), torch.tensor(0.25 * k))] for k in (3, 0, 6)},
            {},
        ),
        "bool-item": (BoolItem(), None, {str(k): [(r(3), torch.tensor(k))] for k in (True, False)}, {}),
        "cond-size": (CondSize(), {"x": {0: n}}, {str(k): [(r(k, 3),)] for k in (6, 3)}, {}),
        "wrapped": (Wrapped(), None, {"a": [(r(3, 4),), (r(3, 4),)]}, {}),
        "sizes": (Sizes(), {"x": {0: Dim.DYNAMIC}, "y": {0: Dim.DYNAMIC}}, {"a": [(r(5, 3), r(4))], "b": [(r(2, 3), r(9))]}, {}),
        "trained-norm": (TrainedNorm().train(), None, {"a": [(r(2, 3, 4, 4),), (r(2, 3, 4, 4),)]}, {}),
        "loops": (Loops(), None, {"a": [(r(4, 3), r(3))], "b": [(-r(4, 3).abs(), r(3))]}, {}),
        "spectrum": (Spectrum(), {"x": {0: n}}, {"a": [(r(3, 32),)], "b": [(r(2, 32),)]}, {}),
        "tied": (Tied(), None, {"a": [(torch.tensor([1, 7, 0]),)]}, {}),
    }


def strip(program):
    """Drops what tells of the machine that exported."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "from_node", "custom", "source_fn_stack"):
                    node.meta.pop(key, None)


def split(arguments):
    """A trailing dict beside others is keyword arguments where the module takes them."""
    if isinstance(arguments[-1], dict) and "extra" in arguments[-1]:
        return arguments[:-1], arguments[-1]
    return arguments, {}


def leaves(tree):
    return pytree.tree_flatten(tree)[0]


def record(table, prefix, tree):
    out = []
    for i, leaf in enumerate(leaves(tree)):
        if isinstance(leaf, torch.Tensor):
            key = f"{prefix}{i}"
            table[key] = leaf.detach().contiguous().clone()
            out.append({"tensor": key, "dtype": str(leaf.dtype)[6:], "shape": list(leaf.shape)})
        else:
            out.append({"const": leaf})
    return out


def changed(before, after):
    pairs = zip(leaves(before), leaves(after))
    return any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in pairs)


def finite(bound):
    """An end of a range; None where there is none."""
    return None if abs(bound) > 2**40 else int(bound)


def write(name, module, dynamic, steps_of, options):
    folder = FIXTURES / f"{PREFIX}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    first = copy.deepcopy(next(iter(steps_of.values()))[0])
    args, kwargs = split(first)
    program = export(copy.deepcopy(module), args, kwargs, dynamic_shapes=dynamic, strict=options.get("strict", False))
    files = {"model.pt2": "as torch.export wrote it (no decomposition)"}
    strip(program)
    save(program, folder / "model.pt2")
    try:
        core = program.run_decompositions()
        strip(core)
        save(core, folder / "model.core.pt2")
        files["model.core.pt2"] = "the same program after run_decompositions() (core ATen, functional)"
    except Exception as error:
        print(f"{name}: no model.core.pt2: {error}")
    inputs, expected, recorded = {}, {}, []
    buffers = {k for k, _ in module.named_buffers()}
    for case, steps in steps_of.items():
        fresh = copy.deepcopy(module)
        before_buffers = {k: v.clone() for k, v in fresh.named_buffers()}
        entry = {"name": case, "steps": []}
        for number, step in enumerate(steps):
            prefix = f"{case}.{number}."
            given = copy.deepcopy(step)
            args, kwargs = split(given)
            record_in = record(inputs, prefix + "in", split(step))
            with torch.no_grad():
                result = fresh(*args, **kwargs)
            result = copy.deepcopy(result)
            entry["steps"].append({"inputs": record_in, "outputs": record(expected, prefix + "out", result)})
            if changed(step, given):
                entry["steps"][-1]["inputs_after"] = record(expected, prefix + "after", (args, kwargs))
        after = {k: v for k, v in fresh.named_buffers() if not torch.equal(v, before_buffers[k])}
        if after:
            entry["buffers_after"] = {}
            for key, value in after.items():
                expected[f"{case}.buffer.{key}"] = value.contiguous().clone()
                entry["buffers_after"][key] = f"{case}.buffer.{key}"
        recorded.append(entry)
    save_file(inputs, folder / "inputs.safetensors")
    save_file(expected, folder / "expected.safetensors")
    ranges = {str(k): [finite(v.lower), finite(v.upper)] for k, v in program.range_constraints.items()}
    fixture = {"name": f"{PREFIX}-{name}", "files": files, "rtol": 1e-4, "atol": 1e-5, "dynamic": ranges, "cases": recorded}
    (folder / "fixture.json").write_text(json.dumps(fixture, indent=1) + "\n")
    (folder / "README.md").write_text(
        f"# {PREFIX}-{name}\n\n{type(module).__doc__}\n\nWritten by `partitioner/import/tests/make_fixtures.py` (torch {torch.__version__.split('+')[0]}).\n"
    )


class Counter(torch.nn.Module):
    """Two methods of one module: they share a weight and a buffer, and both have a dynamic dimension."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        self.count.add_(1)
        return self.linear(x) + self.count[0]

    def peek(self, x):
        return self.linear(x) * self.count[1]


class Peek(torch.nn.Module):
    def __init__(self, counter):
        super().__init__()
        self.linear = counter.linear
        self.register_buffer("count", counter.count)

    def forward(self, x):
        return self.linear(x) * self.count[1]


def methods():
    from torch.export.pt2_archive._package import package_pt2

    torch.manual_seed(0)
    counter = Counter()
    n = Dim("n", min=2, max=16)
    programs = {
        "peek": export(Peek(counter), (torch.randn(5, 3),), dynamic_shapes={"x": {0: Dim("k", min=3, max=9)}}),
        "forward": export(counter, (torch.randn(4, 3),), dynamic_shapes={"x": {0: n}}),
    }
    for program in programs.values():
        strip(program)
    (HERE / "data").mkdir(exist_ok=True)
    package_pt2(str(HERE / "data" / "methods.pt2"), exported_programs=programs)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    if wanted[:1] == ["--prefix"]:
        PREFIX = wanted[1]
        wanted = wanted[2:]
    failed = 0
    for name, (module, dynamic, steps, options) in cases().items():
        if wanted and name not in wanted:
            continue
        try:
            write(name, module, dynamic, steps, options)
        except Exception as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {str(error)[:1500]}")
    if not wanted or "methods" in wanted:
        methods()
    sys.exit(failed > 0)
