"""Programs of several nodes: quantized patterns, sizes known at run time, small networks."""
import torch
import torch.nn.functional as functional
from torch import nn

from recorder import seed_of

qd = torch.ops.quantized_decomposed
I8, U8, I16, I32 = torch.int8, torch.uint8, torch.int16, torch.int32


def given(name, shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed_of(f"{name} {shape}"))
    return torch.randn(shape, generator=generator).to(dtype)


class Scheme:
    """Of an activation: scale, zero point, smallest and largest integer."""

    def __init__(self, scale, zero, low, high, dtype):
        self.scale, self.zero, self.low, self.high, self.dtype = scale, zero, low, high, dtype

    def q(self, x):
        return qd.quantize_per_tensor(x, self.scale, self.zero, self.low, self.high, self.dtype)

    def dq(self, x):
        return qd.dequantize_per_tensor(x, self.scale, self.zero, self.low, self.high, self.dtype)

    def clamped(self, low, high):
        """The same where a fused activation narrows the range."""
        return Scheme(self.scale, self.zero, max(low, self.low), min(high, self.high), self.dtype)


def integers(name, shape, scheme):
    generator = torch.Generator().manual_seed(seed_of(f"{name} {shape} {scheme.low} {scheme.high}"))
    return torch.randint(scheme.low, scheme.high + 1, shape, generator=generator).to(scheme.dtype)


SCHEMES = {
    "int8": Scheme(0.043, 3, -128, 127, I8),
    "int8-symmetric": Scheme(0.05, 0, -127, 127, I8),
    "int8-zero-point-min": Scheme(0.021, -128, -128, 127, I8),
    "int8-zero-point-max": Scheme(0.021, 127, -128, 127, I8),
    "uint8": Scheme(0.043, 128, 0, 255, U8),
    "uint8-zero-point-0": Scheme(0.021, 0, 0, 255, U8),
    "int16": Scheme(1.7e-4, 0, -32768, 32767, I16),
}
OUT = {"int8": Scheme(0.11, -7, -128, 127, I8), "uint8": Scheme(0.11, 121, 0, 255, U8), "int16": Scheme(4.1e-4, 0, -32768, 32767, I16)}


def out_of(scheme, scale=None):
    made = OUT[scheme.split("-")[0]]
    return made if scale is None else Scheme(scale, made.zero, made.low, made.high, made.dtype)


class Pointwise(nn.Module):
    """dq, an operator, q."""

    def __init__(self, function, ins, out):
        super().__init__()
        self.function, self.ins, self.out = function, ins, out

    def forward(self, *xs):
        return self.out.q(self.function(*[s.dq(x) for s, x in zip(self.ins, xs)]))


class Unary(Pointwise):
    def forward(self, x):
        return self.out.q(self.function(self.ins[0].dq(x)))


class Binary(Pointwise):
    def forward(self, x, y):
        return self.out.q(self.function(self.ins[0].dq(x), self.ins[1].dq(y)))


def weights(name, shape, per, axis=0, low=-127, high=127):
    """An int8 weight with its scales: per tensor, or a scale for each slice of `axis`."""
    w = given(name, shape) * 0.5
    if per == "tensor":
        scale = float(w.abs().amax() / high)
        return (w / scale).round().clamp(low, high).to(I8), scale
    others = [d for d in range(len(shape)) if d != axis]
    scales = (w.abs().amax(others) / high).float()
    view = [-1 if d == axis else 1 for d in range(len(shape))]
    return (w / scales.reshape(view)).round().clamp(low, high).to(I8), scales


class Layer(nn.Module):
    """dq of the activation and of a constant weight, a convolution or a linear layer, perhaps an activation function, q."""

    def __init__(self, call, w, scale, bias, source, out, axis=0, after=None, low=-127, high=127):
        super().__init__()
        self.register_buffer("w", w)
        self.register_buffer("bias", bias)
        self.per_axis = isinstance(scale, torch.Tensor)
        if self.per_axis:
            self.register_buffer("scales", scale)
            self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int64))
        else:
            self.scale = scale
        self.call, self.source, self.out, self.axis, self.after, self.low, self.high = call, source, out, axis, after, low, high

    def forward(self, x):
        if self.per_axis:
            w = qd.dequantize_per_channel(self.w, self.scales, self.zeros, self.axis, self.low, self.high, I8)
        else:
            w = qd.dequantize_per_tensor(self.w, self.scale, 0, self.low, self.high, I8)
        y = self.call(self.source.dq(x), w, self.bias)
        y = y if self.after is None else self.after(y)
        return self.out.q(y)


def quantized(p):
    def add(op, scheme, edge, module, *inputs, kind="quantized", **more):
        dtype = {I8: "i8", U8: "u8", I16: "i16", torch.float32: "f32", torch.float16: "f16"}[inputs[0].dtype]
        p.add(f"quantized/{op}/{scheme}/{edge}", module, [inputs], kind, op, dtype=dtype, **more)

    linear = functional.linear
    # Quantizing and dequantizing alone: halves to even, saturation, zero points at the ends.
    for scheme, s in SCHEMES.items():
        class Quantize(nn.Module):
            def forward(self, x, s=s):
                return s.q(x)

        class Dequantize(nn.Module):
            def forward(self, x, s=s):
                return s.dq(x)

        add("quantize", scheme, "rounding", Quantize(), given("x", [4, 37]) * s.scale * (s.high - s.low) / 5, kind="quantized-rounding")
        add("quantize", scheme, "saturation", Quantize(), torch.tensor([1e9, -1e9, 0.0, s.scale * (s.high - s.zero), s.scale * (s.low - s.zero), s.scale * (s.high - s.zero + 3), s.scale * (s.low - s.zero - 3), 1e30, -1e30]), kind="quantized-rounding")
        add("dequantize", scheme, "every-step" if s.dtype != I16 else "steps", Dequantize(), torch.arange(s.low, s.high + 1, 1 if s.dtype != I16 else 257).to(s.dtype), kind="elementwise")
        # Move data alone: not one step may change.
        x = integers("x", [2, 3, 6, 6], s)
        for op, function in (("max_pool2d", lambda x: functional.max_pool2d(x, 2)), ("relu", functional.relu), ("permute", lambda x: x.permute(0, 2, 3, 1)), ("cat", None)):
            if op == "relu" and s.zero == s.high:
                # Nothing is above zero: every result would be the zero point.
                continue
            if op == "cat":
                add(op, scheme, "same-scale", Binary(lambda a, b: torch.cat([a, b], 1), [s, s], s), x, integers("y", [2, 2, 6, 6], s), kind="quantized-exact")
            else:
                add(op, scheme, "same-scale", Unary(function, [s], s), x, kind="quantized-exact")
    # Ties of a power of two: what is halfway goes to the even integer.
    half = Scheme(0.5, 0, -128, 127, I8)
    class Halves(nn.Module):
        def forward(self, x):
            return half.q(x)
    add("quantize", "int8", "ties-to-even", Halves(), torch.arange(-16.0, 16.0) * 0.25, kind="quantized-exact")

    for scheme in ("int8", "uint8", "int8-zero-point-min", "int16"):
        s = SCHEMES[scheme]
        out = out_of(scheme)
        x, y = integers("x", [2, 3, 5, 7], s), integers("y", [2, 3, 5, 7], s)
        other = Scheme(s.scale * 1.7, s.zero, s.low, s.high, s.dtype)
        add("add", scheme, "two-scales", Binary(torch.add, [s, other], out), x, y)
        add("mul", scheme, "two-scales", Binary(torch.mul, [s, other], out), x, y)
        add("sub", scheme, "two-scales", Binary(torch.sub, [s, other], out), x, y)
        add("add", scheme, "broadcast", Binary(torch.add, [s, other], out), x, integers("y", [3, 1, 1], s))
        # Half of the sums or so are beyond the range.
        add("add", scheme, "saturation", Binary(torch.add, [s, other], Scheme(s.scale * (1.3 if s.zero == s.low else 0.25), s.zero, s.low, s.high, s.dtype)), x, y)
        add("requantize", scheme, "finer", Unary(lambda x: x, [s], Scheme(s.scale * 0.7, s.zero, s.low, s.high, s.dtype)), x)
        add("requantize", scheme, "coarser", Unary(lambda x: x, [s], Scheme(s.scale * 3.3, s.zero, s.low, s.high, s.dtype)), x)
        add("avg_pool2d", scheme, "kernel2", Unary(lambda x: functional.avg_pool2d(x, 2), [s], s), integers("x", [1, 5, 8, 6], s))
        add("mean", scheme, "spatial", Unary(lambda x: x.mean([-2, -1], True), [s], s), integers("x", [2, 32, 5, 5], s))
        add("cat", scheme, "two-scales", Binary(lambda a, b: torch.cat([a, b], 1), [s, other], out), x, y)
        unit = {"int8": Scheme(1 / 256, -128, -128, 127, I8), "uint8": Scheme(1 / 256, 0, 0, 255, U8), "int16": Scheme(1 / 32768, 0, -32768, 32767, I16)}[scheme.split("-")[0]]
        table = Scheme(8 / (s.high - s.low), (s.high + s.low + 1) // 2, s.low, s.high, s.dtype)
        z = integers("z", [3, 67], table)
        add("sigmoid", scheme, "odd-sizes", Unary(torch.sigmoid, [table], unit), z)
        add("tanh", scheme, "odd-sizes", Unary(torch.tanh, [table], Scheme(2 / (s.high - s.low), (s.high + s.low + 1) // 2, s.low, s.high, s.dtype)), z)
        add("hardswish", scheme, "odd-sizes", Unary(functional.hardswish, [table], Scheme(4.5 / (s.high - s.low), s.low + (s.high - s.low) // 8, s.low, s.high, s.dtype)), z)
        add("gelu", scheme, "odd-sizes", Unary(functional.gelu, [table], Scheme(4.5 / (s.high - s.low), s.low + (s.high - s.low) // 8, s.low, s.high, s.dtype)), z)
        add("softmax", scheme, "last", Unary(lambda x: functional.softmax(x, -1), [table], unit), integers("z", [9, 17], table))

    for scheme in ("int8", "uint8", "int16"):
        s = SCHEMES[scheme]
        shape = [12, 33]
        for per in ("tensor", "axis"):
            w, scale = weights("w", shape, per)
            bias = given("bias", [12])
            reach = {"int8": 0.31, "uint8": 0.31, "int16": 1.2e-3}[scheme]
            x = integers("x", [7, 33], s)
            add("linear", f"{scheme}-per-{per}", "rank2", Layer(linear, w, scale, bias, s, out_of(scheme, reach)), x, k=34)
            add("linear", f"{scheme}-per-{per}", "no-bias", Layer(linear, w, scale, None, s, out_of(scheme, reach)), x, k=33)
            add("linear", f"{scheme}-per-{per}", "rank3", Layer(linear, w, scale, bias, s, out_of(scheme, reach)), integers("x", [2, 5, 33], s), k=34)
            if scheme == "int16":
                continue
            out = out_of(scheme, reach)
            # A fused activation is in the range alone: a delegate that takes scale and zero point and forgets the range loses it.
            add("linear", f"{scheme}-per-{per}", "fused-relu", Layer(linear, w, scale, bias, s, out.clamped(out.zero, out.high)), x, k=34, about="the relu is in quant_min")
            add("linear", f"{scheme}-per-{per}", "fused-relu6", Layer(linear, w, scale, bias, s, out.clamped(out.zero, out.zero + round(6 / out.scale))), x, k=34, about="the relu6 is in quant_min and quant_max")
            add("linear", f"{scheme}-per-{per}", "relu", Layer(linear, w, scale, bias, s, out, after=functional.relu), x, k=34)
            add("linear", f"{scheme}-per-{per}", "saturation", Layer(linear, w, scale, bias, s, out_of(scheme, reach / 9)), x, k=34)
    convs = {
        "conv2d": ([6, 4, 3, 3], [1, 4, 6, 6], lambda x, w, b: functional.conv2d(x, w, b, 1, 1)),
        "conv2d-stride2": ([6, 4, 3, 3], [1, 4, 7, 7], lambda x, w, b: functional.conv2d(x, w, b, 2, 1)),
        "conv2d-pointwise": ([9, 7, 1, 1], [1, 7, 5, 5], lambda x, w, b: functional.conv2d(x, w, b)),
        "conv2d-depthwise": ([6, 1, 3, 3], [1, 6, 6, 6], lambda x, w, b: functional.conv2d(x, w, b, 1, 1, 1, 6)),
        "conv1d": ([6, 4, 3], [1, 4, 19], lambda x, w, b: functional.conv1d(x, w, b, 1, 1)),
        "conv_transpose2d": ([4, 6, 2, 2], [1, 4, 5, 5], lambda x, w, b: functional.conv_transpose2d(x, w, b, 2)),
    }
    for scheme in ("int8", "uint8", "int8-zero-point-min"):
        s = SCHEMES[scheme]
        for name, (shape, size, call) in convs.items():
            op, _, edge = name.partition("-")
            axis = 1 if op == "conv_transpose2d" else 0
            for per in ("tensor", "axis"):
                w, scale = weights("w", shape, per, axis)
                bias, out = given("bias", [shape[axis]]), out_of(scheme, 0.09 if "depthwise" in name else 0.17)
                x = integers("x", size, s)
                k = 1 + w[:, 0].numel() if op == "conv_transpose2d" else 1 + w[0].numel()
                # Padding is zero, which is the zero point: another value at the border is a wrong number.
                add(op, f"{scheme}-per-{per}", edge or "pad1", Layer(call, w, scale, bias, s, out, axis), x, k=k)
                if not edge and op == "conv2d":
                    add(op, f"{scheme}-per-{per}", "fused-relu", Layer(call, w, scale, bias, s, out.clamped(out.zero, out.high), axis), x, k=k, about="the relu is in quant_min")

    # Weights alone: w8 a row and 4 bits a group, and int8 activations that are measured at run time.
    class WeightOnly(nn.Module):
        def __init__(self, w, scales, group=None, low=-127, high=127):
            super().__init__()
            self.register_buffer("w", w)
            self.register_buffer("scales", scales)
            self.register_buffer("zeros", torch.zeros_like(scales, dtype=torch.int64))
            self.group, self.low, self.high = group, low, high

        def weight(self):
            if self.group is None:
                return qd.dequantize_per_channel(self.w, self.scales, self.zeros, 0, self.low, self.high, I8)
            return qd.dequantize_per_channel_group(self.w, self.scales, self.zeros, self.low, self.high, I8, self.group, torch.float32)

        def forward(self, x):
            return functional.linear(x, self.weight())

    class Dynamic(WeightOnly):
        def forward(self, x):
            scale, zero = qd.choose_qparams_per_token_asymmetric(x, I8)
            x = qd.quantize_per_token(x, scale, zero, -128, 127, I8)
            x = qd.dequantize_per_token(x, scale, zero, -128, 127, I8, torch.float32)
            return functional.linear(x, self.weight())

    def groups(shape, group, low, high):
        w = given("w", shape) * 0.5
        parts = w.reshape(shape[0], -1, group)
        scales = (parts.abs().amax(-1) / high).float()
        return (parts / scales[..., None]).round().clamp(low, high).reshape(shape).to(I8), scales

    w, scales = weights("w", [12, 64], "axis")
    x = given("x", [5, 64])
    def reach(w, scales, group=None):
        full = w.double() * (scales.double()[:, None] if group is None else scales.double().repeat_interleave(group, 1))
        return lambda x: x.abs() @ full.abs().T
    add("linear", "w8-per-axis", "rank2", WeightOnly(w, scales), x, kind="reduction", k=64, scale=reach(w, scales))
    add("linear", "w8-per-axis", "odd-sizes", WeightOnly(*weights("w", [7, 37], "axis")), given("x", [3, 37]), kind="reduction", k=37, scale=reach(*weights("w", [7, 37], "axis")))
    for group in (8, 32):
        w4, scales4 = groups([12, 64], group, -8, 7)
        add("linear", f"w4-group{group}", "rank2", WeightOnly(w4, scales4, group, -8, 7), x, kind="reduction", k=64, scale=reach(w4, scales4, group))
        add("linear", f"w4-group{group}", "one-row", WeightOnly(w4, scales4, group, -8, 7), given("x", [1, 64]), kind="reduction", k=64, scale=reach(w4, scales4, group))
        add("linear", f"8da4w-group{group}", "rank2", Dynamic(w4, scales4, group, -8, 7), x, kind="quantized-dynamic", k=64, scale=reach(w4, scales4, group))
    # torchao's affine forms of the same.
    import torchao.quantization.quant_primitives  # noqa: F401  registers the operators

    class Affine(nn.Module):
        def __init__(self, w, scales, group, low, high):
            super().__init__()
            self.register_buffer("w", w)
            self.register_buffer("scales", scales)
            self.register_buffer("zeros", torch.zeros_like(scales, dtype=torch.int64))
            self.group, self.low, self.high = group, low, high

        def forward(self, x):
            w = torch.ops.torchao.dequantize_affine(self.w, [1, self.group], self.scales, self.zeros, I8, self.low, self.high, output_dtype=torch.float32)
            return functional.linear(x, w)

    w4, scales4 = groups([12, 64], 16, -8, 7)
    add("linear", "torchao-w4-group16", "rank2", Affine(w4, scales4, 16, -8, 7), x, kind="reduction", k=64, scale=reach(w4, scales4, 16))
    w8, scales8 = groups([12, 64], 64, -127, 127)
    add("linear", "torchao-w8", "rank2", Affine(w8, scales8, 64, -127, 127), x, kind="reduction", k=64, scale=reach(w8, scales8, 64))

    # Several quantized layers in a row: errors of a step may not grow through them.
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            s, out = SCHEMES["int8"], out_of("int8", 0.17)
            w, scale = weights("w", [4, 4, 3, 3], "axis")
            self.one = Layer(lambda x, w, b: functional.conv2d(x, w, b, 1, 1), w, scale, given("bias", [4]), s, out.clamped(out.zero, out.high))
            w, scale = weights("w2", [4, 4, 3, 3], "axis")
            self.two = Layer(lambda x, w, b: functional.conv2d(x, w, b, 1, 1), w, scale, given("bias2", [4]), out.clamped(out.zero, out.high), out_of("int8", 0.6))
            self.sum = Binary(torch.add, [out_of("int8", 0.6), s], out_of("int8", 0.7))

        def forward(self, x):
            return self.sum(self.two(self.one(x)), x)

    add("residual-block", "int8-per-axis", "two-convolutions", Residual(), integers("x", [1, 4, 6, 6], SCHEMES["int8"]), kind="quantized-deep")


class Function(nn.Module):
    """A function of one or more tensors as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Function2(Function):
    def forward(self, x, y):
        return self.function(x, y)


def dynamic(p):
    Dim = torch.export.Dim

    def sizes(low, high, step=1):
        """In changing order: most, least, between, most again."""
        between = (low + high) // 2 // step * step
        return [high, low, between, high, max(low + step, between - step), low]

    def one(op, edge, module, dim, shape, low, high, kind, step=1, **more):
        make = lambda n: given(f"{op} {edge}", [n if size is None else size for size in shape])
        symbol = Dim("n", min=low // step, max=high // step)
        spec = [{d: (symbol if step == 1 else step * symbol) for d, size in enumerate(shape) if size is None}]
        calls = [(make(n),) for n in sizes(low, high, step)]
        p.add(f"dynamic/{op}/{edge}", module, calls, kind, op, dynamic=tuple(spec), refused=[(make(high + step),), (make(high * 8),)], **more)

    absolute = lambda x: x.abs()
    one("relu", "batch", Function(torch.relu), 0, [None, 7], 2, 33, "exact")
    one("sigmoid", "last", Function(torch.sigmoid), 1, [3, None], 2, 65, "transcendental")
    one("mul", "batch", Function(lambda x: x * 0.75 + 1.0), 0, [None, 5], 2, 16, "elementwise", scale=lambda x: x.abs() + 1)
    one("sum", "over-dynamic", Function(lambda x: x.sum(-1)), 1, [3, None], 2, 64, "reduction", k=64, scale=lambda x: x.abs().sum(-1))
    one("mean", "over-dynamic", Function(lambda x: x.mean(1, keepdim=True)), 1, [2, None, 4], 2, 32, "reduction", k=32, scale=lambda x: x.abs().mean(1, keepdim=True))
    one("softmax", "over-dynamic", Function(lambda x: torch.softmax(x, -1)), 1, [3, None], 2, 64, "transcendental", scale=lambda x: torch.softmax(x, -1) * (1 + x.abs().amax() * 2))
    one("softmax", "batch", Function(lambda x: torch.softmax(x, -1)), 0, [None, 9], 2, 17, "transcendental", scale=lambda x: torch.softmax(x, -1) * (1 + x.abs().amax() * 2))
    one("cat", "with-itself", Function(lambda x: torch.cat([x, x], 0)), 0, [None, 3], 2, 16, "exact")
    one("permute", "last-first", Function(lambda x: x.permute(2, 0, 1)), 1, [2, None, 5], 2, 16, "exact")
    one("reshape", "merge-dynamic", Function(lambda x: x.reshape(x.shape[0] * 2, 6)), 0, [None, 12], 2, 16, "exact")
    one("reshape", "flatten", Function(lambda x: x.flatten(1)), 0, [None, 3, 4], 2, 16, "exact")
    one("slice", "tail", Function(lambda x: x[:, 1:]), 1, [2, None], 3, 32, "exact")
    one("max_pool2d", "height", Function(lambda x: functional.max_pool2d(x, 2)), 2, [1, 2, None, 6], 4, 16, "exact", step=2)
    one("relu", "step4", Function(torch.relu), 1, [2, None], 8, 64, "exact", step=4)
    linear = nn.Linear(11, 6)
    with torch.no_grad():
        linear.weight.copy_(given("weight", [6, 11]))
        linear.bias.copy_(given("bias", [6]))
    w, b = linear.weight.detach().double(), linear.bias.detach().double()
    one("linear", "batch", linear, 0, [None, 11], 2, 24, "reduction", k=12, scale=lambda x: x.abs() @ w.abs().T + b.abs())
    conv = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight.copy_(given("weight", [4, 3, 3, 3]))
        conv.bias.copy_(given("bias", [4]))
    cw, cb = conv.weight.detach().double().abs(), conv.bias.detach().double().abs()
    size = lambda x: functional.conv2d(x.abs(), cw, cb, padding=1)
    one("conv2d", "batch", conv, 0, [None, 3, 5, 5], 2, 6, "reduction", k=28, scale=size)
    one("conv2d", "height", conv, 2, [1, 3, None, 5], 3, 12, "reduction", k=28, scale=size)
    norm = nn.LayerNorm(12)
    one("layer_norm", "batch", norm, 0, [None, 12], 2, 24, "reduction", k=12, scale=lambda x: (x.abs() + x.mean(-1, keepdim=True).abs()) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-5))
    # Two inputs of one symbol, and of two.
    n, m = Dim("n", min=2, max=16), Dim("m", min=2, max=12)
    pair = lambda a, b: (given("a", a), given("b", b))
    p.add("dynamic/add/shared-symbol", Function2(torch.add), [pair([s, 5], [s, 5]) for s in (16, 2, 9, 16)], "elementwise", "add", dynamic=({0: n}, {0: n}), scale=lambda x, y: x.abs() + y.abs(), refused=[pair([17, 5], [17, 5]), pair([9, 5], [8, 5])])
    p.add("dynamic/mm/two-symbols", Function2(torch.mm), [pair([a, 6], [6, b]) for a, b in ((16, 12), (2, 2), (7, 12), (16, 3), (2, 2))], "reduction", "mm", k=6, dynamic=({0: n}, {1: m}), scale=lambda x, y: x.abs() @ y.abs(), refused=[pair([17, 6], [6, 3]), pair([3, 6], [6, 13])])
    p.add("dynamic/bmm/inner-symbol", Function2(torch.bmm), [pair([2, 3, s], [2, s, 4]) for s in (16, 2, 9, 16)], "reduction", "bmm", k=16, dynamic=({2: n}, {1: n}), scale=lambda x, y: x.abs() @ y.abs(), refused=[pair([2, 3, 17], [2, 17, 4])])

    class Attention(nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    one("attention", "sequence", Attention(), 2, [1, 2, None, 8], 2, 24, "reduction", k=24, scale=lambda x: functional.scaled_dot_product_attention(x, x, x.abs(), is_causal=True) * (1 + (x.abs() @ x.abs().transpose(-1, -2)).amax() / 8**0.5))


def settled(module, gain=1.0):
    """Weights that depend on their names alone, of a size that keeps activations near 1."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            drawn = given(name, list(value.shape))
            if value.dim() > 1:
                value.copy_(drawn * gain / value[0].numel() ** 0.5)
            else:
                value.copy_(drawn * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(given(name, list(value.shape)) * 0.1)
            elif name.endswith("running_var"):
                value.copy_(given(name, list(value.shape)).abs() * 0.5 + 0.5)
    return module


class ConvNet(nn.Module):
    """A stem, a residual block, a classifier: ResNet in small."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.one, self.one_norm = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.two, self.two_norm = nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.stem_norm(self.stem(x))), 3, 2, 1)
        y = torch.relu(self.one_norm(self.one(x)))
        x = torch.relu(self.two_norm(self.two(y)) + x)
        return torch.softmax(self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1)), -1)


class Mobile(nn.Module):
    """An inverted residual with squeeze and excitation: MobileNetV3 in small."""

    def __init__(self):
        super().__init__()
        self.expand, self.expand_norm = nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depth, self.depth_norm = nn.Conv2d(12, 12, 5, 1, 2, groups=12, bias=False), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.project, self.project_norm = nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6)

    def forward(self, x):
        y = functional.hardswish(self.expand_norm(self.expand(x)))
        y = functional.hardswish(self.depth_norm(self.depth(y)))
        s = functional.hardsigmoid(self.excite(torch.relu(self.squeeze(y.mean([2, 3], True)))))
        return x + self.project_norm(self.project(y * s))


class Encoder(nn.Module):
    """A transformer block of BERT's kind, with an embedding before it: MiniLM in small."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.words, self.places = nn.Embedding(40, width), nn.Embedding(16, width)
        self.norm0, self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.heads = heads

    def forward(self, tokens, mask):
        n = tokens.shape[1]
        x = self.norm0(self.words(tokens) + self.places(torch.arange(n)))
        split = lambda t: t.view(t.shape[0], n, self.heads, -1).transpose(1, 2)
        bias = (1.0 - mask[:, None, None, :]) * -1e4
        y = functional.scaled_dot_product_attention(split(self.q(x)), split(self.k(x)), split(self.v(x)), attn_mask=bias)
        x = self.norm1(x + self.o(y.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Vision(nn.Module):
    """Patches and a block with the norm first: ViT in small."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 10, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, width), nn.Linear(width, 5)
        self.heads = heads

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


class Decoder(nn.Module):
    """A block of Llama's kind that keeps keys and values: rotation, grouped heads, a cache of 8 places, a gated layer."""

    def __init__(self, width=16, heads=4, groups=2, places=8):
        super().__init__()
        size = width // heads
        self.words = nn.Embedding(32, width)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, groups * size, bias=False)
        self.v, self.o = nn.Linear(width, groups * size, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 24, bias=False), nn.Linear(width, 24, bias=False), nn.Linear(24, width, bias=False)
        self.register_buffer("keys", torch.zeros(1, groups, places, size))
        self.register_buffer("values", torch.zeros(1, groups, places, size))
        angles = torch.outer(torch.arange(places).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.register_buffer("cos", torch.cos(angles).repeat(1, 2))
        self.register_buffer("sin", torch.sin(angles).repeat(1, 2))
        self.register_buffer("order", torch.arange(places))
        self.heads, self.groups, self.size = heads, groups, size

    def rotated(self, x, place):
        a, b = x.chunk(2, -1)
        return x * self.cos[place] + torch.cat([-b, a], -1) * self.sin[place]

    def forward(self, token, place):
        x = self.words(token)
        y = self.norm1(x)
        split = lambda t, n: t.view(1, 1, n, self.size).transpose(1, 2)
        q, k, v = split(self.q(y), self.heads), split(self.k(y), self.groups), split(self.v(y), self.groups)
        q, k = self.rotated(q, place), self.rotated(k, place)
        self.keys.index_copy_(2, place, k)
        self.values.index_copy_(2, place, v)
        mask = self.order <= place
        y = functional.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=mask[None, None, None, :], enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(1, 1, -1))
        y = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return functional.linear(x, self.words.weight)


class Recurrent(nn.Module):
    """An LSTM over a short sequence, and a layer behind it."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.head(y), h


class Upscale(nn.Module):
    """ESPCN in small."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 9, 3, padding=1)

    def forward(self, x):
        return functional.pixel_shuffle(self.two(torch.tanh(self.one(x))), 3)


class Pitch(nn.Module):
    """A layer of CREPE: a long one-dimensional kernel, a norm, pooling, sigmoid."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv1d(1, 8, 32, 4, 14), nn.BatchNorm1d(8), nn.Linear(8 * 16, 6)

    def forward(self, x):
        y = functional.max_pool1d(self.norm(torch.relu(self.conv(x[:, None]))), 2)
        return torch.sigmoid(self.head(y.flatten(1)))


class Detection(nn.Module):
    """A detection head: PReLU as in MTCNN, scores and boxes, the best four."""

    def __init__(self):
        super().__init__()
        self.conv, self.slope = nn.Conv2d(3, 6, 3), nn.PReLU(6)
        self.scores, self.boxes = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        y = functional.max_pool2d(self.slope(self.conv(x)), 2, 2, ceil_mode=True)
        scores = torch.softmax(self.scores(y), 1)[:, 1].flatten(1)
        best, places = scores.topk(4, 1)
        boxes = self.boxes(y).flatten(2).transpose(1, 2)
        chosen = boxes.gather(1, places[:, :, None].expand(-1, -1, 4))
        return best, chosen


class QuantizedNet(nn.Module):
    """An int8 network: two convolutions, one of them depthwise, a mean, a linear layer."""

    def __init__(self):
        super().__init__()
        s, mid, low = SCHEMES["int8"], out_of("int8", 0.17), out_of("int8", 0.2)
        w, scale = weights("net1", [8, 3, 3, 3], "axis")
        self.one = Layer(lambda x, w, b: functional.conv2d(x, w, b, 2, 1), w, scale, given("netb1", [8]), s, mid.clamped(mid.zero, mid.high))
        w, scale = weights("net2", [8, 1, 3, 3], "axis")
        self.two = Layer(lambda x, w, b: functional.conv2d(x, w, b, 1, 1, 1, 8), w, scale, given("netb2", [8]), mid.clamped(mid.zero, mid.high), low.clamped(low.zero, low.high))
        self.mean = Unary(lambda x: x.mean([2, 3]), [low.clamped(low.zero, low.high)], low)
        w, scale = weights("net3", [10, 8], "axis")
        self.three = Layer(functional.linear, w, scale, given("netb3", [10]), low, out_of("int8", 0.05))

    def forward(self, x):
        s, out = SCHEMES["int8"], out_of("int8", 0.05)
        return out.dq(self.three(self.mean(self.two(self.one(s.q(x))))))


def models(p):
    calls = lambda name, *shape: [(given(f"{name} {i}", list(shape)),) for i in range(2)]
    p.add("model/conv-net/float", settled(ConvNet()), calls("conv-net", 1, 3, 16, 16), "network", "conv-net")
    p.add("model/mobile-block/float", settled(Mobile()), calls("mobile", 1, 6, 9, 9), "network", "mobile-block")
    p.add("model/vision-transformer/float", settled(Vision()), calls("vision", 1, 3, 12, 12), "network", "vision-transformer")
    tokens = [torch.randint(0, 40, (1, 9), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    mask = torch.tensor([[1.0] * 7 + [0.0] * 2])
    p.add("model/encoder/float", settled(Encoder()), [(t, mask) for t in tokens], "network", "encoder", wide=True)
    steps = [(torch.tensor([[t]]), torch.tensor([i])) for i, t in enumerate((3, 17, 31, 0, 3, 8))]
    p.add("model/decoder-cache/float", settled(Decoder()), steps, "network", "decoder-cache", functional=True, wide=True)
    p.add("model/lstm/float", settled(Recurrent()), calls("lstm", 1, 7, 6), "network", "lstm")
    p.add("model/super-resolution/float", settled(Upscale()), calls("upscale", 1, 1, 9, 11), "network", "super-resolution")
    p.add("model/pitch/float", settled(Pitch()), calls("pitch", 1, 128), "network", "pitch")
    p.add("model/detection-head/float", settled(Detection()), calls("detection", 1, 3, 12, 12), "network", "detection-head")
    p.add("model/conv-net/int8", QuantizedNet(), calls("int8-net", 1, 3, 12, 12), "quantized-network", "conv-net")


def all_programs(p):
    quantized(p)
    dynamic(p)
    models(p)
