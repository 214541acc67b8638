"""A module to a program of the kit: what `torch.export` makes of it, as JSON, with what PyTorch gives for a few calls."""
import copy
import json

import sympy
import torch
from torch.export.graph_signature import InputKind, OutputKind

from recorder import FLOATS, Store, mapped, flat, upwards


def expression(value):
    """A size: an integer, a symbol by name, or ["add" | "mul" | "floordiv" | "mod", ...]."""
    if isinstance(value, int):
        return value
    found = sympy.sympify(value.node.expr if hasattr(value, "node") else value)
    return of_sympy(found)


def of_sympy(found):
    if found.is_Integer:
        return int(found)
    if found.is_Symbol:
        return str(found)
    parts = [of_sympy(part) for part in found.args]
    kind = {"Add": "add", "Mul": "mul", "FloorDiv": "floordiv", "Mod": "mod", "PythonMod": "mod"}.get(type(found).__name__)
    if kind is None:
        raise TypeError(f"a size `{found}` of kind {type(found).__name__}")
    return [kind, *parts]


class Programs:
    """Programs, one a line."""

    def __init__(self):
        self.store = Store()
        self.lines = []

    def argument(self, value, kind):
        if isinstance(value, torch.fx.Node):
            if isinstance(value.meta["val"], torch.Tensor):
                return {"v": value.name}
            return {"e": expression(value.meta["val"])}
        if isinstance(value, (list, tuple)) and any(isinstance(item, torch.fx.Node) for item in value):
            if "Tensor" in kind:
                return {"vl": [None if item is None else item.name for item in value]}
            return {"el": [expression(item.meta["val"]) if isinstance(item, torch.fx.Node) else item for item in value]}
        return self.store.value(value, kind)

    def add(self, identity, module, calls, kind, op, k=1, dynamic=None, scale=None, refused=(), functional=False, policy=None, about=None, wide=None, dtype="f32"):
        """`calls`: tuples of inputs, run in this order on one module, whose buffers keep what it writes to them. `refused`: inputs that are
        too large. `wide`: compute the wanted results in float64; by default where nothing is quantized and there are no states. `scale`: a function of the
        float64 inputs that gives a tensor for each result."""
        module = module.eval()
        with torch.no_grad():
            exported = torch.export.export(module, tuple(calls[0]), dynamic_shapes=dynamic)
            if functional:
                exported = exported.run_decompositions({})
        line = {"id": identity, "op": op, "shard": 1, "class": kind, "dtype": dtype}
        if k > 1:
            line["k"] = k
        if policy:
            line["policy"] = policy
        if about:
            line["about"] = about
        ranges = {str(symbol): r for symbol, r in exported.range_constraints.items() if symbol.is_Symbol}
        line["symbols"] = {name: [int(r.lower), int(r.upper)] for name, r in sorted(ranges.items())}
        signature = exported.graph_signature
        kinds = {spec.arg.name: spec for spec in signature.input_specs}
        written = {spec.target: spec.arg.name for spec in signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION}
        inputs, constants, states, nodes = [], [], [], []
        state = {**exported.state_dict, **exported.constants}
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                spec = kinds[node.name]
                if spec.kind == InputKind.USER_INPUT:
                    value = node.meta["val"]
                    inputs.append([node.name, str(value.dtype).removeprefix("torch."), [expression(size) for size in value.shape]])
                elif spec.target in written:
                    states.append([node.name, self.store.key(state[spec.target]), written[spec.target]])
                else:
                    constants.append([node.name, self.store.key(state[spec.target])])
            elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                schema = node.target._schema
                if schema.name.startswith("aten::sym_") or schema.name.startswith("aten::_assert"):
                    continue
                arguments = []
                for i, parameter in enumerate(schema.arguments):
                    if parameter.name == "generator":
                        continue
                    if i < len(node.args) and not parameter.kwarg_only:
                        arguments.append([parameter.name, self.argument(node.args[i], str(parameter.type))])
                    elif parameter.name in node.kwargs:
                        arguments.append([parameter.name, self.argument(node.kwargs[parameter.name], str(parameter.type))])
                name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
                many = isinstance(node.meta["val"], (list, tuple))
                results = [node.name]
                if many:
                    results = [f"{node.name}.{i}" for i in range(len(node.meta["val"]))]
                nodes.append([name, arguments, results])
            elif node.op == "call_function" and node.target.__name__ == "getitem":
                source, index = node.args
                rename(nodes, f"{source.name}.{index}", node.name)
            elif node.op == "call_function":
                if isinstance(node.meta.get("val"), torch.Tensor):
                    raise TypeError(f"{identity}: {node.target}")
        for spec in signature.output_specs:
            if spec.kind == OutputKind.USER_INPUT_MUTATION:
                raise TypeError(f"{identity}: an input is written")
        line["inputs"] = inputs
        line["constants"] = constants
        if states:
            line["states"] = states
        line["nodes"] = nodes
        line["outputs"] = [spec.arg.name for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
        floats_only = not states and all(t.dtype in FLOATS for t in exported.state_dict.values())
        plain = not any(name.startswith(("quantized", "torchao")) for name, _, _ in nodes)
        wide = floats_only and plain if wide is None else wide
        steps = []
        judge = copy.deepcopy(module).double() if wide else module
        # States begin as the program has them, whatever exporting did to the module.
        for name, value in judge.named_buffers():
            if name in written:
                value.copy_(state[name])
        with torch.no_grad():
            for call in calls:
                widened = [mapped(item, lambda t: t) for item in call] if wide else [item.clone() for item in call]
                wants = flat(judge(*widened))
                step = {"in": [self.store.key(item) for item in call]}
                step["out"] = [self.store.key(want.float() if want.dtype == torch.float64 else want) for want in wants]
                if scale is not None:
                    scales = flat(scale(*[mapped(item, lambda t: t) for item in call]))
                    step["scale"] = [self.store.key(upwards(s.abs().expand(w.shape))) for s, w in zip(scales, wants)]
                steps.append(step)
        line["steps"] = steps
        if refused:
            line["refused"] = [[self.store.key(item) for item in call] for call in refused]
        self.lines.append(line)

    def text(self):
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in sorted(self.lines, key=lambda line: line["id"]))


def rename(nodes, old, new):
    for node in nodes:
        node[2] = [new if name == old else name for name in node[2]]
