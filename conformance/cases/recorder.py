"""Records calls of operators and small programs with what PyTorch gives for them. README.md beside this file says in what form."""
import hashlib
import json
import math
import zlib

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
SHORT = {
    torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int8: "i8", torch.int16: "i16",
    torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8", torch.bool: "bool",
}
# Defaults of enumerated types are given as their numbers.
SCALAR_TYPES = {0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16, 6: torch.float32, 11: torch.bool, 15: torch.bfloat16}


def number(value):
    """JSON has no infinities and no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def overload_of(name):
    """`aten::add.Tensor` as a callable."""
    namespace, rest = name.split("::")
    base, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), base), overload or "default")


def seed_of(text):
    """What a case draws depends on its own name alone, so that a new case changes no other."""
    return zlib.crc32(text.encode())


def contiguous(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    return [contiguous(item) for item in value] if isinstance(value, (list, tuple)) else value


def mapped(value, function):
    """`function` of each float tensor in a value; float dtypes become float64 ones."""
    if isinstance(value, torch.Tensor):
        return function(value.double()) if value.dtype in FLOATS else value
    if isinstance(value, (list, tuple)):
        return [mapped(item, function) for item in value]
    return torch.float64 if value in FLOATS else value


def flat(results):
    return list(results) if isinstance(results, (list, tuple)) else [results]


def upwards(tensor):
    """A scale as bfloat16, never smaller than it is."""
    half = (tensor.double() * (1 + 2.0**-7)).to(torch.bfloat16)
    return torch.nan_to_num(half, nan=0.0, posinf=3e38, neginf=0.0)


class Store:
    """Tensors by what they hold: equal ones are stored once."""

    def __init__(self):
        self.tensors = {}

    def key(self, tensor):
        tensor = contiguous(tensor)
        if tensor.dtype not in SHORT:
            raise TypeError(f"a tensor of {tensor.dtype}")
        digest = hashlib.sha256(f"{SHORT[tensor.dtype]} {list(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        key = digest.hexdigest()[:10]
        self.tensors[key] = tensor
        return key

    def value(self, value, kind):
        """An argument in the corpus's form; `kind` is the parameter's type in the schema's words."""
        if value is None:
            return None
        if isinstance(value, torch.Tensor):
            return {"t": self.key(value)}
        if isinstance(value, (list, tuple)):
            items = list(value)
            if "Tensor" in kind:
                return {"tl": [None if item is None else self.key(item) for item in items]}
            if "bool" in kind:
                return {"bl": items}
            if "float" in kind:
                return {"fl": [number(float(item)) for item in items]}
            return {"il": items}
        if isinstance(value, bool):
            return {"b": value}
        if isinstance(value, int):
            return {"i": value}
        if isinstance(value, float):
            return {"f": number(value)}
        if isinstance(value, str):
            return {"s": value}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.memory_format):
            return {"memory_format": str(value).removeprefix("torch.")}
        if isinstance(value, torch.layout):
            return {"layout": "strided"}
        if isinstance(value, torch.device):
            return {"device": "cpu"}
        raise TypeError(f"an argument of {type(value)}")


class Recorder:
    """Calls of operators, one a line."""

    def __init__(self):
        self.store = Store()
        self.lines = []
        self.ids = set()
        self.warnings = []

    def bind(self, op, args, kwargs):
        """Arguments by name in the order of the schema, defaults filled in."""
        bound = {}
        for i, parameter in enumerate(op._schema.arguments):
            if parameter.name == "generator":
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
        return bound

    def call(self, op, bound):
        values = {name: contiguous(value) for name, value in bound.items()}
        positional = [values.pop(p.name) for p in op._schema.arguments if p.name in values and not p.kwarg_only]
        return flat(op(*positional, **values))

    def case(self, name, edge, *args, kind="exact", k=1, scale=None, constants=(), policy=None, dtype=None, **kwargs):
        """Records a call; see `record`. `dtype` is the name that the case is filed under, where that is not its first tensor's."""
        self.record(name, edge, args, kwargs, kind, k, scale, constants, policy, dtype)

    def case_with(self, name, edge, args, kwargs, kind="exact", policy=None):
        """The same, where the operator has parameters that `case` has, too."""
        self.record(name, edge, args, kwargs, kind, 1, None, (), policy, None)

    def case_scaled(self, name, edge, args, kwargs, kind, k, scale):
        """The same for a sum."""
        self.record(name, edge, args, kwargs, kind, k, scale, (), None, None)

    def record(self, name, edge, args, kwargs, kind, k, scale, constants, policy, dtype):
        """Records a call.

        kind: exact, elementwise, reduction, transcendental. k: terms of a reduction. scale: "abs" for the operator's own result on
        absolute values, or a function of the float64 arguments by name that gives a tensor for each result (or one).
        """
        op = overload_of(name)
        bound = self.bind(op, args, kwargs)
        kinds = {p.name: str(p.type) for p in op._schema.arguments}
        got = self.call(op, bound)
        first = next((t for v in bound.values() for t in flat(v) if isinstance(t, torch.Tensor)), got[0])
        if dtype is None:
            dtype = SHORT[first.dtype]
        key = f"{dtype}/{edge}"
        identity = f"op/{name}/{key}"
        if identity in self.ids:
            raise ValueError(f"{identity} is there twice")
        self.ids.add(identity)
        listed = [[parameter, self.store.value(value, kinds[parameter])] for parameter, value in bound.items()]
        line = {"id": key, "op": name, "shard": 0, "args": listed, "out": [], "name": edge, "class": kind}
        if k > 1:
            line["k"] = k
        if constants:
            line["constants"] = list(constants)
        if policy:
            line["policy"] = policy
        exact = kind == "exact"
        wide_bound = {parameter: mapped(value, lambda t: t) for parameter, value in bound.items()}
        wide = got if exact else self.call(op, wide_bound)
        precise = []
        rounded = []
        for result, want in zip(got, wide):
            if not isinstance(result, torch.Tensor):
                raise TypeError(f"{identity} gives {type(result)}")
            if result.dtype in FLOATS and not exact:
                rounded.append(want.to(result.dtype))
                precise.append(None if result.dtype == torch.float32 else self.store.key(want.float()))
            else:
                rounded.append(want.to(result.dtype))
                precise.append(None)
                if not exact and not torch.equal(want.to(result.dtype), result):
                    self.warnings.append(f"{identity}: float64 and the dtype itself disagree on {result.dtype}")
        if any("List" in str(r.type) for r in op._schema.returns):
            line["out"].append({"tl": [self.store.key(result) for result in rounded]})
        else:
            line["out"] = [{"t": self.store.key(result)} for result in rounded]
        if any(precise):
            line["precise"] = precise
        scales = None
        if scale == "abs":
            scales = self.call(op, {parameter: mapped(value, torch.abs) for parameter, value in bound.items()})
        elif scale is not None:
            scales = flat(scale(**wide_bound))
        if scales is not None:
            scales = [s.expand_as(r) if isinstance(s, torch.Tensor) else torch.full_like(r, s, dtype=torch.float64) for s, r in zip(scales, got)]
            line["scale"] = [self.store.key(upwards(s.abs())) if r.dtype in FLOATS else None for s, r in zip(scales, got)]
            if len(line["scale"]) < len(got):
                line["scale"] += [None] * (len(got) - len(line["scale"]))
        self.lines.append(line)

    def text(self):
        lines = sorted(self.lines, key=lambda line: (line["op"], line["id"]))
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
