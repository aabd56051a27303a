"""Random ONNX graphs: valid by construction, with dimensions that differ from run to run.

A dimension is the tuple of its extents in the runs of the graph, so that whatever fits in every
run may be combined, equal names or not. Run `python -m tests.fuzz.onnx_graphs --count 10000` for a
long search; a difference is printed with its seed, and the smallest graph that still shows it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = tuple[int, ...]
"""The extents of one dimension, one for each run."""

RUNS = 3
OPSET = 21
LARGEST = 4096
"""Most elements of a value in any run."""


@dataclass(frozen=True)
class Value:
    """A value of the graph. exact: bit for bit the same on every implementation, so that it may
    decide something (a comparison, an index, a rounding)."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    exact: bool = True

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def largest(self) -> int:
        """The most elements it has in a run."""
        return max(math.prod(shape) for shape in zip(*self.dims, strict=True)) if self.dims else 1


@dataclass
class Graph:
    """A graph under construction, and what its inputs are in every run."""

    random: random.Random
    symbolic: bool
    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    names: dict[Dim, str] = field(default_factory=dict)
    count: int = 0

    # --- drawing ----------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(
        self, *dtypes: str, rank: Sequence[int] = (), exact: bool = False, nonempty: bool = False
    ) -> Value | None:
        """A value of one of `dtypes` and one of the ranks, the newest preferred."""
        fitting = [
            value
            for value in self.values
            if (not dtypes or value.dtype in dtypes)
            and (not rank or value.rank in rank)
            and (value.exact or not exact)
            and not (nonempty and any(0 in dim for dim in value.dims))
        ]
        if not fitting:
            return None
        recent = fitting[-4:] if self.chance(0.7) else fitting
        return self.random.choice(recent)

    def dim(self) -> Dim:
        """A new or a known dimension."""
        if self.symbolic and self.chance(0.6):
            if self.names and self.chance(0.6):
                return self.random.choice(list(self.names))
            extents = tuple(self.random.choice((1, 2, 3, 4, 5, 7, 8, 9, 16)) for _ in range(RUNS))
            self.names.setdefault(extents, f"d{len(self.names)}")
            return extents
        return (self.random.choice((1, 2, 3, 4, 5, 6, 8, 16)),) * RUNS

    # --- building ---------------------------------------------------------------------------

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def input(self, dtype: str, dims: Sequence[Dim]) -> Value:
        """A graph input."""
        value = Value(self.fresh(), dtype, tuple(dims))
        self.inputs.append(value)
        self.values.append(value)
        return value

    def weight(self, array: np.ndarray) -> Value:
        """An initializer; not a value that other nodes pick."""
        name = self.fresh()
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        dims = tuple((extent,) * RUNS for extent in np.shape(array))
        return Value(name, str(np.asarray(array).dtype), dims)

    def floats(self, *shape: int) -> Value:
        """An initializer of random floats."""
        draw = np.random.default_rng(self.random.randrange(2**32))
        return self.weight(draw.normal(0, 0.5, shape).astype(np.float32))

    def ints(self, *values: int) -> Value:
        """An initializer that is a vector of int64."""
        return self.weight(np.array(values, np.int64))

    def add(
        self,
        op: str,
        operands: Sequence[Value | None],
        dtype: str,
        dims: Sequence[Dim],
        *,
        exact: bool = False,
        domain: str = "",
        **attributes: object,
    ) -> Value:
        """Append a node with one output."""
        (value,) = self.add_many(
            op, operands, [(dtype, tuple(dims))], exact=exact, domain=domain, **attributes
        )
        return value

    def add_many(
        self,
        op: str,
        operands: Sequence[Value | None],
        outputs: Sequence[tuple[str, tuple[Dim, ...]]],
        *,
        exact: bool = False,
        domain: str = "",
        **attributes: object,
    ) -> list[Value]:
        """Append a node with several outputs."""
        known = exact and all(value is None or value.exact for value in operands)
        made = [Value(self.fresh(), dtype, dims, known) for dtype, dims in outputs]
        self.nodes.append(
            helper.make_node(
                op,
                ["" if value is None else value.name for value in operands],
                [value.name for value in made],
                domain=domain,
                name=f"{op}_{len(self.nodes)}",
                **attributes,
            )
        )
        self.values += [value for value in made if value.largest <= LARGEST]
        return made

    def shape_of(self, value: Value) -> Value:
        """The shape of a value as a tensor."""
        return self.add("Shape", [value], "int64", [(value.rank,) * RUNS], exact=True)

    # --- results ----------------------------------------------------------------------------

    def model(self) -> onnx.ModelProto:
        """The graph as a model: every value that nothing uses is an output."""
        used = {name for node in self.nodes for name in node.input}
        made = [value for value in self.values if value not in self.inputs]
        outputs = [value for value in made if value.name not in used][-6:] or made[-1:]
        graph = helper.make_graph(
            self.nodes,
            "fuzz",
            [self._info(value) for value in self.inputs],
            [
                helper.make_tensor_value_info(value.name, CODES[value.dtype], None)
                for value in outputs
            ],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _info(self, value: Value) -> onnx.ValueInfoProto:
        shape = [self.names.get(dim, dim[0]) for dim in value.dims]
        return helper.make_tensor_value_info(value.name, CODES[value.dtype], shape)

    def feeds(self) -> list[dict[str, np.ndarray]]:
        """The inputs of every run."""
        draw = np.random.default_rng(self.random.randrange(2**32))
        return [
            {
                value.name: _data(draw, value.dtype, tuple(dim[run] for dim in value.dims))
                for value in self.inputs
            }
            for run in range(RUNS)
        ]


CODES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def _data(draw: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "float32":
        return draw.normal(0, 1, shape).astype(np.float32)
    if dtype == "bool":
        return draw.integers(0, 2, shape).astype(bool)
    low = 0 if dtype == "uint8" else -5
    return draw.integers(low, 6, shape).astype(dtype)


def each(function: Callable[..., int], *dims: Dim) -> Dim:
    """A dimension computed from others in every run."""
    return tuple(function(*extents) for extents in zip(*dims, strict=True))


def fixed(size: int) -> Dim:
    return (size,) * RUNS


# --- nodes ------------------------------------------------------------------------------------
# A maker appends a node to the graph, or gives up when nothing fits.


def unary(g: Graph) -> None:
    x = g.pick("float32")
    if x is not None:
        name, attributes = g.random.choice(
            [
                *((name, {}) for name in ("Sigmoid", "Tanh", "Erf", "Softplus", "Softsign")),
                *((name, {}) for name in ("Sin", "Cos", "Mish", "HardSwish", "Atan", "Asinh")),
                ("Elu", {"alpha": 0.7}),
                ("Selu", {}),
                ("Celu", {"alpha": 1.3}),
                ("HardSigmoid", {"alpha": 0.3}),
                ("Gelu", {"approximate": "tanh"}),
                ("Gelu", {}),
                ("LeakyRelu", {"alpha": 0.2}),
            ]
        )
        g.add(name, [x], "float32", x.dims, **attributes)


def exact_unary(g: Graph) -> None:
    x = g.pick("float32")
    if x is not None:
        name = g.random.choice(("Relu", "Neg", "Abs", "Identity"))
        g.add(name, [x], "float32", x.dims, exact=True)


def rounding(g: Graph) -> None:
    x = g.pick("float32", exact=True)
    if x is not None:
        name = g.random.choice(("Floor", "Ceil", "Round", "Sign"))
        g.add(name, [x], "float32", x.dims, exact=True)


def integer_unary(g: Graph) -> None:
    x = g.pick("int64", "int32")
    if x is not None:
        g.add(g.random.choice(("Neg", "Abs", "Sign")), [x], x.dtype, x.dims, exact=True)


def _broadcast(a: Value, b: Value) -> tuple[Dim, ...] | None:
    rank = max(a.rank, b.rank)
    left = (fixed(1),) * (rank - a.rank) + a.dims
    right = (fixed(1),) * (rank - b.rank) + b.dims
    dims: list[Dim] = []
    for x, y in zip(left, right, strict=True):
        if any(p != q and 1 not in (p, q) for p, q in zip(x, y, strict=True)):
            return None
        dims.append(each(lambda p, q: q if p == 1 else p, x, y))
    return tuple(dims)


def _partner(g: Graph, a: Value, *dtypes: str) -> Value | None:
    """A value that broadcasts with `a` in every run; an own small constant if there is none."""
    fitting = [v for v in g.values if v.dtype in dtypes and _broadcast(a, v) is not None]
    if fitting and g.chance(0.85):
        return g.random.choice(fitting[-6:])
    return g.weight(_data(np.random.default_rng(g.random.randrange(2**32)), dtypes[0], (1,)))


def binary(g: Graph) -> None:
    a = g.pick("float32", "int64", "int32")
    b = None if a is None else _partner(g, a, a.dtype)
    if a is None or b is None:
        return
    dims = _broadcast(a, b)
    if dims is not None:
        name = g.random.choice(("Add", "Sub", "Mul", "Max", "Min"))
        exact = a.dtype != "float32" or name in ("Max", "Min")
        if name == "Mul" and a.dtype != "float32":
            name = "Add"  # repeated products overflow, which differs between implementations
        operands = [a, b] if g.chance(0.5) else [b, a]
        g.add(name, operands, a.dtype, dims, exact=exact)


def division(g: Graph) -> None:
    a = g.pick("float32")
    b = g.pick("float32", exact=True) if a is None else _partner(g, a, "float32")
    if a is not None and b is not None:
        dims = _broadcast(a, b)
        if dims is not None:
            size = g.add("Abs", [b], "float32", b.dims, exact=True)
            one = g.weight(np.float32(1.0))
            away = g.add("Add", [size, one], "float32", b.dims)
            g.add("Div", [a, away], "float32", dims)


def integer_division(g: Graph) -> None:
    a = g.pick("int64", "int32", exact=True)
    if a is not None:
        divisor = g.weight(np.array(g.random.choice((-3, -2, 2, 3, 5)), a.dtype))
        name = g.random.choice(("Div", "Mod"))
        attributes = {"fmod": g.random.choice((0, 1))} if name == "Mod" else {}
        g.add(name, [a, divisor], a.dtype, a.dims, exact=True, **attributes)


def comparison(g: Graph) -> None:
    a = g.pick("float32", "int64", exact=True)
    b = None if a is None else _partner(g, a, a.dtype)
    if a is not None and b is not None and b.exact:
        dims = _broadcast(a, b)
        if dims is not None:
            name = g.random.choice(("Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"))
            g.add(name, [a, b], "bool", dims, exact=True)


def logic(g: Graph) -> None:
    a = g.pick("bool")
    b = None if a is None else _partner(g, a, "bool")
    if a is not None and b is not None:
        dims = _broadcast(a, b)
        if dims is not None:
            if g.chance(0.3):
                g.add("Not", [a], "bool", a.dims, exact=True)
            else:
                g.add(g.random.choice(("And", "Or", "Xor")), [a, b], "bool", dims, exact=True)


def where(g: Graph) -> None:
    c, a = g.pick("bool"), g.pick("float32", "int64")
    if c is None or a is None or _broadcast(c, a) is None:
        return
    b = _partner(g, a, a.dtype)
    if b is not None:
        first = _broadcast(a, b)
        if first is not None:
            dims = _broadcast(c, Value("", a.dtype, first))
            if dims is not None:
                g.add("Where", [c, a, b], a.dtype, dims, exact=True)


def cast(g: Graph) -> None:
    x = g.pick("float32", "int64", "int32", "bool", "int8", "uint8", exact=True)
    if x is not None:
        to = g.random.choice(("float32", "int64", "int32", "bool"))
        g.add("Cast", [x], to, x.dims, exact=True, to=CODES[to])


def clip(g: Graph) -> None:
    x = g.pick("float32")
    if x is not None:
        low = g.weight(np.float32(-0.5)) if g.chance(0.7) else None
        high = g.weight(np.float32(0.75)) if g.chance(0.7) else None
        g.add("Clip", [x, low, high], "float32", x.dims, exact=True)


def reduction(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3, 4), nonempty=True)
    if x is None:
        return
    axes = sorted(g.random.sample(range(x.rank), g.random.randint(1, x.rank)))
    keep = g.chance(0.5)
    dims = [fixed(1) if i in axes else dim for i, dim in enumerate(x.dims) if keep or i not in axes]
    names = ["ReduceSum", "ReduceMax", "ReduceMin"]
    if x.dtype == "float32":
        names += ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]
    name = g.random.choice(names)
    given = [axis - x.rank if g.chance(0.3) else axis for axis in axes]
    exact = name in ("ReduceMax", "ReduceMin") or x.dtype != "float32"
    g.add(name, [x, g.ints(*given)], x.dtype, dims, exact=exact, keepdims=int(keep))


def arg_reduction(g: Graph) -> None:
    x = g.pick("float32", "int32", rank=(1, 2, 3, 4), exact=True, nonempty=True)
    if x is not None:
        axis = g.random.randrange(x.rank)
        dims = [fixed(1) if i == axis else dim for i, dim in enumerate(x.dims)]
        name = g.random.choice(("ArgMax", "ArgMin"))
        g.add(name, [x], "int64", dims, exact=True, axis=axis, select_last_index=int(g.chance(0.5)))


def softmax(g: Graph) -> None:
    x = g.pick("float32", rank=(1, 2, 3, 4))
    if x is not None:
        axis = g.random.randrange(-x.rank, x.rank)
        g.add(g.random.choice(("Softmax", "LogSoftmax")), [x], "float32", x.dims, axis=axis)


def normalization(g: Graph) -> None:
    x = g.pick("float32", rank=(2, 3, 4), nonempty=True)
    if x is None:
        return
    last, channels = x.dims[-1], x.dims[1]
    if g.chance(0.5) and len(set(last)) == 1:
        scale, bias = g.floats(last[0]), g.floats(last[0])
        g.add("LayerNormalization", [x, scale, bias], "float32", x.dims, axis=-1)
    elif len(set(channels)) == 1:
        four = [g.floats(channels[0]) for _ in range(3)]
        draw = np.random.default_rng(g.random.randrange(2**32))
        variance = g.weight(draw.uniform(0.5, 2, channels[0]).astype(np.float32))
        g.add("BatchNormalization", [x, *four, variance], "float32", x.dims)


def transpose(g: Graph) -> None:
    x = g.pick(rank=(2, 3, 4))
    if x is not None:
        order = g.random.sample(range(x.rank), x.rank)
        g.add("Transpose", [x], x.dtype, [x.dims[i] for i in order], exact=True, perm=order)


def reshape(g: Graph) -> None:
    """Merge two neighbouring dimensions, by constants or through computed shapes."""
    x = g.pick(rank=(2, 3, 4), nonempty=True)
    if x is None:
        return
    at = g.random.randrange(x.rank - 1)
    dims = [*x.dims[:at], each(lambda a, b: a * b, x.dims[at], x.dims[at + 1]), *x.dims[at + 2 :]]
    if g.chance(0.5):
        known = [0 if i < at else -1 if i == at else 0 for i in range(len(dims))]
        tail = dims[at + 1 :]
        if all(len(set(dim)) == 1 for dim in tail):
            known = [*known[: at + 1], *(dim[0] for dim in tail)]
            g.add("Reshape", [x, g.ints(*known)], x.dtype, dims, exact=True)
            return
    shape = g.shape_of(x)
    parts: list[Value] = []
    for i in range(len(dims)):
        if i == at:
            parts.append(g.ints(-1))
            continue
        index = g.ints(i if i < at else i + 1)
        parts.append(g.add("Gather", [shape, index], "int64", [fixed(1)], exact=True, axis=0))
    target = g.add("Concat", parts, "int64", [fixed(len(dims))], exact=True, axis=0)
    g.add("Reshape", [x, target], x.dtype, dims, exact=True)


def squeeze(g: Graph) -> None:
    x = g.pick(rank=(1, 2, 3))
    if x is not None:
        axis = g.random.randint(0, x.rank)
        dims = [*x.dims[:axis], fixed(1), *x.dims[axis:]]
        wide = g.add("Unsqueeze", [x, g.ints(axis)], x.dtype, dims, exact=True)
        if g.chance(0.4):
            g.add("Squeeze", [wide, g.ints(axis - x.rank - 1)], x.dtype, x.dims, exact=True)


def flatten(g: Graph) -> None:
    x = g.pick(rank=(1, 2, 3, 4))
    if x is not None:
        axis = g.random.randint(0, x.rank)
        product = [
            tuple(math.prod(dim[run] for dim in part) for run in range(RUNS))
            for part in (x.dims[:axis], x.dims[axis:])
        ]
        g.add("Flatten", [x], x.dtype, product, exact=True, axis=axis)


def concat(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3, 4))
    if x is None:
        return
    axis = g.random.randrange(x.rank)
    others = [
        v
        for v in g.values
        if v.dtype == x.dtype
        and v.rank == x.rank
        and all(a == b for i, (a, b) in enumerate(zip(v.dims, x.dims, strict=True)) if i != axis)
    ]
    parts = [x, *(g.random.choice(others) for _ in range(g.random.randint(0, 2)))]
    total = each(lambda *sizes: sum(sizes), *(part.dims[axis] for part in parts))
    dims = [total if i == axis else dim for i, dim in enumerate(x.dims)]
    g.add("Concat", parts, x.dtype, dims, exact=True, axis=axis)


def split(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3, 4))
    if x is None:
        return
    axis = g.random.randrange(x.rank)
    extent = x.dims[axis]
    if len(set(extent)) != 1 or extent[0] < 2:
        return
    first = g.random.randint(1, extent[0] - 1)
    outputs = [
        (x.dtype, tuple(fixed(size) if i == axis else dim for i, dim in enumerate(x.dims)))
        for size in (first, extent[0] - first)
    ]
    sizes = g.ints(first, extent[0] - first)
    g.add_many("Split", [x, sizes], outputs, exact=True, axis=axis)


def slice_(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3, 4))
    if x is None:
        return
    axis = g.random.randrange(x.rank)
    start = g.random.choice((0, 1, 2, -1, -2, -100))
    step = g.random.choice((1, 1, 2, -1, -2, 3))
    # Backwards, ONNX Runtime takes the largest integer for the beginning, which ONNX does not say.
    far = (2**31, 2**63 - 1) if step > 0 else (-(2**31), -(2**63) + 1)
    end = g.random.choice((1, 3, -1, *far))
    extent = tuple(len(range(size)[start:end:step]) for size in x.dims[axis])
    dims = [extent if i == axis else dim for i, dim in enumerate(x.dims)]
    operands = [x, g.ints(start), g.ints(end), g.ints(axis), g.ints(step)]
    g.add("Slice", operands, x.dtype, dims, exact=True)


def gather(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3), nonempty=True)
    if x is None:
        return
    axis = g.random.randrange(x.rank)
    least = min(x.dims[axis])
    shape = g.random.choice(((), (1,), (3,), (2, 2)))
    draw = np.random.default_rng(g.random.randrange(2**32))
    index = g.weight(draw.integers(-least, least, shape, np.int64))
    dims = [*x.dims[:axis], *(fixed(size) for size in shape), *x.dims[axis + 1 :]]
    g.add("Gather", [x, index], x.dtype, dims, exact=True, axis=axis)


def gather_elements(g: Graph) -> None:
    x = g.pick("float32", rank=(1, 2, 3), nonempty=True)
    if x is not None:
        axis = g.random.randrange(x.rank)
        order = g.add("ArgMax", [x], "int64", [*_without(x, axis)], axis=axis, exact=True)
        g.add("GatherElements", [x, order], "float32", order.dims, exact=True, axis=axis)


def _without(x: Value, axis: int) -> list[Dim]:
    return [fixed(1) if i == axis else dim for i, dim in enumerate(x.dims)]


def expand(g: Graph) -> None:
    """Broadcast to the shape of another value."""
    x, like = g.pick("float32", "int64", "bool"), g.pick(rank=(1, 2, 3, 4))
    if x is not None and like is not None:
        dims = _broadcast(x, like)
        if dims is not None:
            g.add("Expand", [x, g.shape_of(like)], x.dtype, dims, exact=True)


def tile(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3))
    if x is not None:
        times = [g.random.choice((1, 1, 2, 3)) for _ in range(x.rank)]
        dims = [each(lambda a, n=n: a * n, dim) for dim, n in zip(x.dims, times, strict=True)]
        g.add("Tile", [x, g.ints(*times)], x.dtype, dims, exact=True)


def pad(g: Graph) -> None:
    x = g.pick("float32", rank=(1, 2, 3, 4), nonempty=True)
    if x is None:
        return
    mode = g.random.choice(("constant", "reflect", "edge", "wrap"))
    least = [min(dim) for dim in x.dims]
    most = [(1 if mode != "reflect" else min(1, size - 1)) for size in least]
    pads = [g.random.randint(0, limit) for limit in (*most, *most)]
    dims = [
        each(lambda a, p=pads[i] + pads[i + x.rank]: a + p, dim) for i, dim in enumerate(x.dims)
    ]
    value = g.weight(np.float32(0.5)) if mode == "constant" and g.chance(0.5) else None
    g.add("Pad", [x, g.ints(*pads), value], "float32", dims, exact=True, mode=mode)


def matmul(g: Graph) -> None:
    a = g.pick("float32", rank=(1, 2, 3, 4), nonempty=True)
    if a is None:
        return
    inner = a.dims[-1]
    fitting = [v for v in g.values if v.dtype == "float32" and v.rank == 2 and v.dims[0] == inner]
    if fitting and g.chance(0.6):
        b = g.random.choice(fitting)
    elif len(set(inner)) == 1:
        b = g.floats(inner[0], g.random.choice((1, 3, 8, 17)))
    else:
        return
    g.add("MatMul", [a, b], "float32", [*a.dims[:-1], b.dims[1]])


def batched_matmul(g: Graph) -> None:
    a = g.pick("float32", rank=(3, 4), nonempty=True)
    if a is not None:
        order = [*range(a.rank - 2), a.rank - 1, a.rank - 2]
        dims = [a.dims[i] for i in order]
        b = g.add("Transpose", [a], "float32", dims, exact=True, perm=order)
        g.add("MatMul", [a, b], "float32", [*a.dims[:-1], a.dims[-2]])


def gemm(g: Graph) -> None:
    a = g.pick("float32", rank=(2,), nonempty=True)
    if a is None:
        return
    across = g.chance(0.4)
    rows, inner = (a.dims[1], a.dims[0]) if across else a.dims
    if len(set(inner)) == 1:
        n = g.random.choice((1, 4, 9))
        flip = g.chance(0.5)
        b = g.floats(*((n, inner[0]) if flip else (inner[0], n)))
        c = g.floats(n) if g.chance(0.7) else None
        dims = [rows, fixed(n)]
        attributes = {"transA": int(across), "transB": int(flip), "alpha": 0.5, "beta": 2.0}
        g.add("Gemm", [a, b, c], "float32", dims, **attributes)


def einsum(g: Graph) -> None:
    x = g.pick("float32", rank=(2, 3), nonempty=True)
    if x is not None:
        if x.rank == 2:
            g.add("Einsum", [x, x], "float32", [x.dims[0]] * 2, equation="ij,kj->ik")
        else:
            dims = [x.dims[0], x.dims[1], x.dims[1]]
            g.add("Einsum", [x, x], "float32", dims, equation="bij,bkj->bik")


def _image(g: Graph) -> Value | None:
    """A value of rank 4 with a constant number of channels; made by a new input if need be."""
    x = g.pick("float32", rank=(4,), nonempty=True)
    if x is not None and len(set(x.dims[1])) == 1:
        return x
    dims = [g.dim(), fixed(g.random.choice((1, 2, 4))), g.dim(), g.dim()]
    value = Value("", "float32", tuple(dims))
    return g.input("float32", dims) if value.largest <= LARGEST else None


def convolution(g: Graph) -> None:
    x = _image(g)
    if x is None:
        return
    channels = x.dims[1][0]
    groups = g.random.choice([n for n in (1, channels, 2) if channels % n == 0])
    filters = groups * g.random.choice((1, 2, 3))
    kernel, stride = g.random.choice((1, 2, 3)), g.random.choice((1, 1, 2))
    dilation, padding = g.random.choice((1, 1, 2)), g.random.choice((0, 1, 2))
    reach = dilation * (kernel - 1) + 1
    if any(size + 2 * padding < reach for dim in x.dims[2:] for size in dim):
        return

    def out(size: int) -> int:
        return (size + 2 * padding - reach) // stride + 1

    w = g.floats(filters, channels // groups, kernel, kernel)
    bias = g.floats(filters) if g.chance(0.5) else None
    dims = [x.dims[0], fixed(filters), each(out, x.dims[2]), each(out, x.dims[3])]
    attributes: dict[str, object] = {"strides": [stride] * 2, "dilations": [dilation] * 2}
    g.add("Conv", [x, w, bias], "float32", dims, group=groups, pads=[padding] * 4, **attributes)


def transposed_convolution(g: Graph) -> None:
    x = _image(g)
    if x is not None:
        kernel, stride = g.random.choice((2, 3)), g.random.choice((1, 2))
        w = g.floats(x.dims[1][0], 2, kernel, kernel)
        dims = [each(lambda a: (a - 1) * stride + kernel, dim) for dim in x.dims[2:]]
        dims = [x.dims[0], fixed(2), *dims]
        g.add("ConvTranspose", [x, w], "float32", dims, strides=[stride] * 2)


def pooling(g: Graph) -> None:
    x = _image(g)
    if x is None:
        return
    kernel, stride, ceil = g.random.choice((2, 3)), g.random.choice((1, 2)), g.chance(0.3)
    if any(size < kernel for dim in x.dims[2:] for size in dim):
        return

    def out(size: int) -> int:
        count = (size - kernel + (stride - 1 if ceil else 0)) // stride + 1
        return count - 1 if ceil and (count - 1) * stride >= size else count

    dims = [x.dims[0], x.dims[1], each(out, x.dims[2]), each(out, x.dims[3])]
    name = g.random.choice(("MaxPool", "AveragePool"))
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": int(ceil)}
    g.add(name, [x], "float32", dims, exact=name == "MaxPool", **attributes)


def global_pooling(g: Graph) -> None:
    x = _image(g)
    if x is not None:
        name = g.random.choice(("GlobalAveragePool", "GlobalMaxPool"))
        g.add(name, [x], "float32", [*x.dims[:2], fixed(1), fixed(1)])


def resize(g: Graph) -> None:
    x = _image(g)
    if x is None:
        return
    mode = g.random.choice(("nearest", "linear"))
    scale = g.random.choice((2.0, 0.5, 3.0))
    dims = [each(lambda a: math.floor(a * scale), dim) for dim in x.dims[2:]]
    if any(0 in dim for dim in dims):
        return
    scales = g.weight(np.array([1, 1, scale, scale], np.float32))
    attributes: dict[str, object] = {
        "mode": mode,
        "coordinate_transformation_mode": g.random.choice(("half_pixel", "asymmetric")),
        "nearest_mode": "floor",
    }
    g.add("Resize", [x, None, scales], "float32", [*x.dims[:2], *dims], **attributes)


def depth_to_space(g: Graph) -> None:
    x = _image(g)
    if x is not None and x.dims[1][0] % 4 == 0:
        dims = [
            x.dims[0],
            fixed(x.dims[1][0] // 4),
            *(each(lambda a: 2 * a, d) for d in x.dims[2:]),
        ]
        mode = g.random.choice(("DCR", "CRD"))
        g.add("DepthToSpace", [x], "float32", dims, exact=True, blocksize=2, mode=mode)


def topk(g: Graph) -> None:
    x = g.pick("float32", rank=(1, 2, 3), exact=True, nonempty=True)
    if x is not None:
        axis = g.random.randrange(x.rank)
        k = g.random.randint(1, min(x.dims[axis]))
        dims = tuple(fixed(k) if i == axis else dim for i, dim in enumerate(x.dims))
        outputs = [("float32", dims), ("int64", dims)]
        largest = int(g.chance(0.7))
        g.add_many("TopK", [x, g.ints(k)], outputs, exact=True, axis=axis, largest=largest)


def cumsum(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(1, 2, 3))
    if x is not None:
        axis = g.weight(np.array(g.random.randrange(x.rank), np.int64))
        attributes = {"exclusive": int(g.chance(0.3)), "reverse": int(g.chance(0.3))}
        g.add("CumSum", [x, axis], x.dtype, x.dims, exact=x.dtype == "int64", **attributes)


def one_hot(g: Graph) -> None:
    x = g.pick("int64", "int32", rank=(1, 2))
    if x is not None:
        depth = g.random.randint(1, 6)
        off_on = g.weight(np.array([0.0, 1.0], np.float32))
        axis = g.random.randint(-x.rank - 1, x.rank)
        at = axis % (x.rank + 1)
        dims = [*x.dims[:at], fixed(depth), *x.dims[at:]]
        operands = [x, g.weight(np.array(depth, np.int64)), off_on]
        g.add("OneHot", operands, "float32", dims, exact=True, axis=axis)


def nonzero(g: Graph) -> None:
    """The size depends on data, so what comes after must not need it: a sum over it."""
    x = g.pick("bool", "int64", rank=(1, 2, 3), exact=True)
    if x is not None:
        found = g.fresh()
        g.nodes.append(
            helper.make_node("NonZero", [x.name], [found], name=f"NonZero_{len(g.nodes)}")
        )
        indices = Value(found, "int64", (fixed(x.rank), fixed(0)))
        g.add("ReduceSum", [indices, g.ints(1)], "int64", [fixed(x.rank)], exact=True, keepdims=0)


def trilu(g: Graph) -> None:
    x = g.pick("float32", "int64", rank=(2, 3))
    if x is not None:
        k = g.weight(np.array(g.random.randint(-2, 2), np.int64))
        g.add("Trilu", [x, k], x.dtype, x.dims, exact=True, upper=int(g.chance(0.5)))


def range_(g: Graph) -> None:
    """0, 1, … as many as a dimension of a value."""
    x = g.pick(rank=(1, 2, 3))
    if x is not None:
        axis = g.random.randrange(x.rank)
        index = g.weight(np.array(axis, np.int64))
        shape = g.shape_of(x)
        limit = g.add("Gather", [shape, index], "int64", [], exact=True, axis=0)
        start, step = (g.weight(np.array(value, np.int64)) for value in (0, 1))
        g.add("Range", [start, limit, step], "int64", [x.dims[axis]], exact=True)


def constant_of_shape(g: Graph) -> None:
    x = g.pick(rank=(1, 2, 3))
    if x is not None:
        value = numpy_helper.from_array(np.array([0.25], np.float32))
        g.add("ConstantOfShape", [g.shape_of(x)], "float32", x.dims, exact=True, value=value)


def scatter_nd(g: Graph) -> None:
    x = g.pick("float32", rank=(1, 2), nonempty=True)
    if x is not None:
        rows = g.random.sample(range(min(x.dims[0])), min(2, *x.dims[0]))
        index = g.weight(np.array([[row] for row in rows], np.int64))
        source = g.add("Gather", [x, g.ints(*rows)], "float32", [fixed(len(rows)), *x.dims[1:]])
        flipped = g.add("Neg", [source], "float32", source.dims, exact=True)
        name = g.random.choice(("none", "add", "max"))
        operands = [x, index, flipped]
        g.add("ScatterND", operands, "float32", x.dims, exact=name == "none", reduction=name)


def conditional(g: Graph) -> None:
    """One of two branches over an outer value, decided by data."""
    x, c = g.pick("float32"), g.pick("bool", rank=(1, 2), exact=True, nonempty=True)
    if x is None or c is None:
        return
    size = g.add("Cast", [c], "int64", c.dims, exact=True, to=TensorProto.INT64)
    total = g.add("ReduceSum", [size], "int64", [], exact=True, keepdims=0)
    limit = g.weight(np.array(1, np.int64))
    condition = g.add("Greater", [total, limit], "bool", [], exact=True)
    branches: list[onnx.GraphProto] = []
    for op in ("Relu", "Neg"):
        out = g.fresh()
        node = helper.make_node(op, [x.name], [out])
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node], f"branch_{op}", [], [info]))
    made = Value(g.fresh(), "float32", x.dims, x.exact)
    g.nodes.append(
        helper.make_node(
            "If",
            [condition.name],
            [made.name],
            name=f"If_{len(g.nodes)}",
            then_branch=branches[0],
            else_branch=branches[1],
        )
    )
    g.values.append(made)


def loop(g: Graph) -> None:
    """A state that shrinks in every step, and the states of all steps."""
    x = g.pick("float32", rank=(1, 2))
    if x is None:
        return
    steps = g.random.randint(0, 4)
    step, before, state, scan, more, half = (g.fresh() for _ in range(6))
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], [half], value_float=0.5),
            helper.make_node("Mul", [before, half], [state]),
            helper.make_node("Identity", [state], [scan]),
            helper.make_node("Identity", [step + "_c"], [more]),
        ],
        "body",
        [
            helper.make_tensor_value_info(step, TensorProto.INT64, []),
            helper.make_tensor_value_info(step + "_c", TensorProto.BOOL, []),
            helper.make_tensor_value_info(before, TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info(more, TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, TensorProto.FLOAT, None),
            helper.make_tensor_value_info(scan, TensorProto.FLOAT, None),
        ],
    )
    count = g.weight(np.array(steps, np.int64))
    outputs = [("float32", x.dims), ("float32", (fixed(steps), *x.dims))]
    if steps:  # what no step has made has no shape that all agree on
        g.add_many("Loop", [count, None, x], outputs, body=body)


def recurrent(g: Graph) -> None:
    x = g.pick("float32", rank=(3,), nonempty=True)
    if x is None or len(set(x.dims[2])) != 1:
        return
    name, gates = g.random.choice((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    hidden, width = g.random.choice((2, 5)), x.dims[2][0]
    direction, count = g.random.choice((("forward", 1), ("reverse", 1), ("bidirectional", 2)))
    operands = [
        x,
        g.floats(count, gates * hidden, width),
        g.floats(count, gates * hidden, hidden),
        g.floats(count, 2 * gates * hidden) if g.chance(0.6) else None,
    ]
    sequence, batch = x.dims[0], x.dims[1]
    last = ("float32", (fixed(count), batch, fixed(hidden)))
    outputs = [("float32", (sequence, fixed(count), batch, fixed(hidden))), last]
    attributes: dict[str, object] = {"hidden_size": hidden, "direction": direction}
    if name == "GRU":
        attributes["linear_before_reset"] = int(g.chance(0.5))
    g.add_many(name, operands, outputs, **attributes)


def quantized(g: Graph) -> None:
    x = g.pick("float32", exact=True)
    if x is not None:
        scale, zero = g.weight(np.float32(0.0625)), g.weight(np.uint8(128))
        q = g.add("QuantizeLinear", [x, scale, zero], "uint8", x.dims, exact=True)
        g.add("DequantizeLinear", [q, scale, zero], "float32", x.dims, exact=True)


def integer_matmul(g: Graph) -> None:
    a = g.pick("uint8", "int8", rank=(2, 3), nonempty=True)
    if a is not None and len(set(a.dims[-1])) == 1:
        draw = np.random.default_rng(g.random.randrange(2**32))
        b = g.weight(draw.integers(-8, 8, (a.dims[-1][0], 5)).astype(np.int8))
        zero = g.weight(np.array(3, a.dtype))
        g.add("MatMulInteger", [a, b, zero], "int32", [*a.dims[:-1], fixed(5)], exact=True)


MAKERS: tuple[tuple[Callable[[Graph], None], int], ...] = (
    (unary, 6),
    (exact_unary, 3),
    (rounding, 2),
    (integer_unary, 1),
    (binary, 8),
    (division, 2),
    (integer_division, 2),
    (comparison, 3),
    (logic, 2),
    (where, 3),
    (cast, 3),
    (clip, 2),
    (reduction, 5),
    (arg_reduction, 2),
    (softmax, 3),
    (normalization, 3),
    (transpose, 4),
    (reshape, 5),
    (squeeze, 3),
    (flatten, 1),
    (concat, 4),
    (split, 2),
    (slice_, 4),
    (gather, 3),
    (gather_elements, 1),
    (expand, 3),
    (tile, 2),
    (pad, 3),
    (matmul, 4),
    (batched_matmul, 3),
    (gemm, 2),
    (einsum, 1),
    (convolution, 5),
    (transposed_convolution, 2),
    (pooling, 3),
    (global_pooling, 1),
    (resize, 3),
    (depth_to_space, 1),
    (topk, 2),
    (cumsum, 2),
    (one_hot, 1),
    (nonzero, 1),
    (trilu, 1),
    (range_, 2),
    (constant_of_shape, 1),
    (scatter_nd, 2),
    (conditional, 1),
    (loop, 1),
    (recurrent, 1),
    (quantized, 1),
    (integer_matmul, 1),
)


def random_graph(seed: int) -> Graph:
    """A graph of 1 to 15 operators on inputs of several dtypes; half of them with symbolic
    dimensions."""
    g = Graph(random.Random(seed), symbolic=seed % 2 == 1)
    for dtype in g.random.sample(("float32", "float32", "int64", "bool", "uint8"), 3):
        while True:
            dims = tuple(g.dim() for _ in range(g.random.choice((1, 2, 2, 3, 3, 4))))
            if Value("", dtype, dims).largest <= LARGEST:
                break
        g.input(dtype, dims)
    makers = [maker for maker, weight in MAKERS for _ in range(weight)]
    wanted = g.random.randint(1, 15)
    for _ in range(4 * wanted):
        if len(g.nodes) >= wanted:
            break
        g.random.choice(makers)(g)
    if not g.nodes:
        exact_unary(g)
        integer_unary(g)
        logic(g)
        quantized(g)
    return g
