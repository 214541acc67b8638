"""Writes src/schemas.txt: the signature of every operator that Delegraph may meet, one a line, sorted by byte order.

Needs torch 2.15.0, torchao 0.18.0 and executorch 1.5.1:  python make_schemas.py > src/schemas.txt

Columns, separated by a tab:  flags  signature
flags: c = tagged core ATen, e = ExecuTorch 1.5.1's wheel registers this out-variant (its LLM extension included),
       i = CompositeImplicit (PyTorch decomposes it by itself), r = draws random numbers, v = returns a view of its first
       argument, - = none of these.
Left out: operators on quantized or sparse engines, foreach operators, named-dimension overloads, and backward operators but
those of pooling and norms. What is tagged core and what ExecuTorch registers is never left out, nor are its other variants.
Added: out-variants for the operators of quantized_decomposed that have none, so that a program can call them. ExecuTorch
does not know these, and no flag says that it does.
"""
import re
import sys

import torch
import executorch.exir  # registers executorch_prim, dim_order_ops
import executorch.exir.passes.dim_order_ops_registry  # noqa: F401
import torch.ao.quantization.fx._decomposed  # noqa: F401  quantized_decomposed
import torchao.quantization.quant_primitives  # noqa: F401  torchao
import executorch.kernels.quantized  # noqa: F401
import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401  llama
from executorch.extension.pybindings.portable_lib import _get_operator_names

registered = set(_get_operator_names())
NAMESPACES = {"aten", "quantized_decomposed", "torchao", "dim_order_ops", "executorch_prim", "et_copy", "llama"}
SKIP = re.compile(
    r"aten::(_foreach|_fused|cudnn|miopen|mkldnn|_mkldnn|_sparse|sparse|_cudnn|fbgemm|_cslt|_nested|_jagged|_thnn|hspmm"
    r"|_validate|_test|_mps|_xnnpack|_nnpack|_make_dep|_coalesce|coalesce|to_sparse|_to_sparse|q_|qscheme|_coo|_csr)"
    r"|llama::_quantized_moe_ffn_active"
)


def overload_of(schema):
    namespace, name = schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name, None)
    return getattr(packet, schema.overload_name or "default", None) if packet is not None else None


def is_core(schema):
    overload = overload_of(schema)
    return overload is not None and torch.Tag.core in overload.tags


schemas = torch._C._jit_get_all_schemas()
kept = {name.split(".")[0] for name in registered}
kept |= {schema.name for schema in schemas if schema.name.startswith("aten::") and is_core(schema)}


def wanted(schema):
    ns = schema.name.split("::")[0]
    if ns not in NAMESPACES or SKIP.match(schema.name):
        return False
    text = str(schema)[len(schema.name):]  # the name itself may look like a type: `aten::t`
    if re.search(r"Dimname|Stream|Storage|QScheme|__torch__|Dict\(|str\[\]|Future|\bt1?\b|Any|\bcomplex\b|\.\.\.", text):
        return False
    return (
        schema.name in kept
        or not re.search(r"(_backward|_jvp)\b", schema.name)
        or "pool" in schema.name
        or "norm" in schema.name
    )


rows = {}
for schema in schemas:
    if not wanted(schema):
        continue
    name = schema.name + ("." + schema.overload_name if schema.overload_name else "")
    flags = ""
    overload = overload_of(schema)
    if overload is not None:
        flags += "c" if torch.Tag.core in overload.tags else ""
        try:
            flags += "i" if overload._can_decompose() and torch._C._dispatch_has_kernel_for_dispatch_key(
                overload.name(), "CompositeImplicitAutograd") else ""
        except Exception:
            pass
        flags += "r" if torch.Tag.nondeterministic_seeded in overload.tags else ""
        flags += "v" if getattr(overload, "is_view", False) else ""
    flags += "e" if name in registered or name.removesuffix(".default") in registered else ""
    rows[name] = (flags or "-", str(schema))
# Out-variants of our own.
for name in [n for n in rows if n.startswith("quantized_decomposed::")]:
    flags, text = rows[name]
    base, _, overload = name.partition(".")
    inputs, returned = text[len(name) + 1:].rsplit(") -> ", 1)
    own = base + "." + (overload + "_out" if overload else "out")
    if "!" in text or "Tensor" not in returned or own in rows:
        continue
    siblings = [rows[n][1].split("(", 1)[1] for n in rows if n.startswith(base + ".") and "!" in rows[n][1]]
    if any(other.startswith(inputs) for other in siblings):
        continue
    count = returned.count("Tensor")
    outs = [f"Tensor({chr(97 + i)}!)" for i in range(count)]
    names = ["out"] if count == 1 else [f"out{i}" for i in range(count)]
    given = inputs + (", " if "*" in inputs else ", *, ") + ", ".join(f"{ty} {name}" for ty, name in zip(outs, names))
    rows[own] = ("-", f"{own}({given}) -> " + (outs[0] if count == 1 else "(" + ", ".join(outs) + ")"))
# Operators without a schema object in torch: ExecuTorch's C++ primitives (prim_ops/register_prim_ops.cpp) and torch.export's
# higher-order operators, whose operands are positional.
for flags, text in [
    ("e", "executorch_prim::et_copy_index.tensor(Tensor(a!) copy_to, Tensor copy_from, SymInt index) -> ()"),
    ("e", "executorch_prim::et_view.default(Tensor self, SymInt[] size, *, Tensor(a!) out) -> Tensor(a!)"),
    ("e", "executorch_prim::floordiv.int(Scalar a, Scalar b) -> Scalar"),
    ("e", "executorch_prim::mod.int(Scalar a, Scalar b) -> Scalar"),
    ("e", "executorch_prim::sym_ite.Scalar(bool condition, Scalar a, Scalar b) -> Scalar"),
    ("-", "higher_order::cond(Any pred, Graph true_graph, Graph false_graph, Tensor[] operands) -> Tensor[]"),
    ("-", "higher_order::map(Graph body, Tensor[] mapped, Tensor[] extra) -> Tensor[]"),
    ("-", "higher_order::scan(Graph body, Tensor[] init, Tensor[] xs, Tensor[] extra) -> Tensor[]"),
    ("-", "higher_order::while_loop(Graph cond_graph, Graph body_graph, Tensor[] carried, Tensor[] extra) -> Tensor[]"),
]:
    rows[text.split("(")[0]] = (flags, text)
for name in sorted(registered):
    if name not in rows and name.removesuffix(".default") not in rows:
        print("no schema for registered", name, file=sys.stderr)
for name in sorted(rows, key=lambda n: n.encode()):
    print(rows[name][0], rows[name][1], sep="\t")
