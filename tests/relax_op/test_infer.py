"""Inference over symbolic shapes, and what it refuses, with the messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.relax_op.support import scalar, shape, tensor
from transect.arith import Analyzer
from transect.ir.dtype import FLOAT32, as_dtype
from transect.ir.expr import EQ, Expr, Var, as_expr, select
from transect.ir.types import (
    VOID_TYPE,
    ObjectType,
    ShapeType,
    TensorType,
    TupleType,
    Type,
    VDevice,
    tensor_type,
)
from transect.relax.op import find_operator
from transect.relax.op.inference import assumptions
from transect.support.errors import InferenceError

N, M = Var("n"), Var("m")
UNKNOWN = tensor_type(None, FLOAT32)
RANK_2 = tensor_type(None, FLOAT32, 2)


def infer(name: str, *types: Type, **fields: Any) -> Any:
    """The inferred type."""
    return find_operator(name)(**fields).infer(*types)


def proved(a: Expr | int, b: Expr | int) -> bool:
    """Whether two dimensions are equal."""
    analyzer = Analyzer()
    for var in (N, M):
        analyzer.bind(var, (0, None))
    return analyzer.can_prove(EQ(*shape(a, b).values or ()))


@pytest.mark.parametrize(
    ("name", "types", "fields", "expected"),
    [
        ("add", (tensor(N, M), tensor(M)), {}, (N, M)),
        ("add", (tensor(N, 1), tensor(1, M)), {}, (N, M)),
        ("add", (tensor(N * 2), tensor(N + N)), {}, (N * 2,)),
        ("flatten", (tensor(N, M),), {}, (N * M,)),
        ("reshape", (tensor(N, 6), shape(-1, 3)), {}, (N * 2, 3)),
        ("reshape", (tensor(N, M), shape(M, N)), {}, (M, N)),
        ("concat", (TupleType((tensor(N, 4), tensor(M, 4))),), {}, (N + M, 4)),
        ("matmul", (tensor(N, 1, 3, M), tensor(2, M, 5)), {}, (N, 2, 3, 5)),
        ("sum", (tensor(N, M),), {"axis": 0, "keepdims": True}, (1, M)),
        ("strided_slice", (tensor(N), shape(0), shape(0), shape(N)), {}, (N,)),
        ("strided_slice", (tensor(N + 2), shape(0), shape(1), shape(-1)), {}, (N,)),
        (
            "strided_slice",
            (tensor(N), shape(0), shape(-1), shape(-(2**63)), shape(-1)),
            {},
            (N,),
        ),
        ("arange", (scalar(N),), {}, (N,)),
        ("take", (tensor(N, M), tensor(3, 4, dtype="int32")), {"axis": 1}, (N, 3, 4)),
        ("tile", (tensor(N, M),), {"repeats": (2, 3)}, (N * 2, M * 3)),
        ("nn.conv1d", (tensor(N, 4, M), tensor(8, 4, 3)), {"padding": 1}, (N, 8, M)),
        ("nn.conv1d", (tensor(N, 4, M * 2), tensor(8, 4, 2)), {"strides": 2}, (N, 8, M)),
        ("nn.max_pool1d", (tensor(N, 4, M * 2),), {"pool_size": 2, "strides": 2}, (N, 4, M)),
        ("nn.pixel_shuffle", (tensor(N, 8, M, 3),), {"upscale_factor": 2}, (N, 2, M * 2, 6)),
    ],
)
def test_symbolic(
    name: str, types: tuple[Type, ...], fields: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    result = infer(name, *types, **fields)
    assert len(result.shape) == len(expected)
    assert all(proved(a, b) for a, b in zip(result.shape, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "types", "fields", "rank"),
    [
        ("exp", (UNKNOWN,), {}, -1),
        ("add", (RANK_2, tensor(3)), {}, 2),
        ("add", (UNKNOWN, tensor(3)), {}, -1),
        ("matmul", (RANK_2, tensor(2, 3, 4)), {}, 3),
        ("reshape", (UNKNOWN, shape(2, -1)), {}, 2),
        ("reshape", (tensor(3), ShapeType(None, 4)), {}, 4),
        ("flatten", (UNKNOWN,), {}, 1),
        ("sum", (RANK_2,), {"axis": 1}, 1),
        ("sum", (UNKNOWN,), {}, 0),
        ("permute_dims", (RANK_2,), {}, 2),
        ("concat", (TupleType((RANK_2, tensor(3, 4))),), {}, 2),
        ("take", (RANK_2, tensor(3, 4, dtype="int64")), {"axis": 0}, 3),
        ("nn.conv2d", (UNKNOWN, tensor(4, 3, 2, 2)), {}, 4),
        ("nonzero", (tensor(3, 4),), {}, 2),
        ("unique", (tensor(3, 4),), {}, 1),
        ("squeeze", (RANK_2,), {"axis": 0}, 1),
        ("strided_slice", (tensor(3), shape(0), ShapeType(None, 1), shape(2)), {}, 1),
    ],
)
def test_unknown(name: str, types: tuple[Type, ...], fields: dict[str, Any], rank: int) -> None:
    result = infer(name, *types, **fields)
    assert result.ndim == rank
    assert result.shape is None or rank == 0


def test_the_device_is_that_of_the_operands() -> None:
    gpu = VDevice("cuda")
    x = TensorType(tensor(N).shape, FLOAT32, 1, gpu)
    assert infer("add", x, tensor(N)).device is gpu
    assert infer("to_vdevice", tensor(N), dst_vdevice=gpu).device is gpu
    other = TensorType(x.shape, FLOAT32, 1, VDevice("cuda", 1))
    with pytest.raises(InferenceError, match="add: the operands are on different devices"):
        infer("add", x, other)


def test_an_absent_operand_may_be_the_empty_tuple() -> None:
    x = tensor(N, 4)
    assert infer("nn.layer_norm", x, VOID_TYPE, VOID_TYPE) is x
    assert infer("clip", x, VOID_TYPE, scalar(1.0)) is x


def test_unique_tells_what_it_was_asked() -> None:
    result = infer("unique", tensor(N, 3), return_inverse=True, return_counts=True)
    assert [item.ndim for item in result.items] == [1, 1, 1]
    assert proved(result.items[1].shape[0], N * 3)


BOOL = as_dtype("bool")

REFUSED: list[tuple[str, tuple[Type, ...], dict[str, Any], str]] = [
    ("exp", (tensor(3, dtype="int32"),), {}, "x must have a float dtype, got int32"),
    ("exp", (shape(3),), {}, "x must be a tensor"),
    ("exp", (ObjectType(),), {}, "x is an object of unknown type"),
    ("add", (tensor(3), tensor(3, dtype="float64")), {}, "different dtypes, float32 and float64"),
    ("add", (tensor(3, dtype="bool"),) * 2, {}, "the operands must be numbers, got bool"),
    ("add", (tensor(3), tensor(4)), {}, "do not broadcast"),
    ("add", (tensor(N), tensor(N + 1)), {}, "do not broadcast"),
    ("logical_and", (tensor(3), tensor(3)), {}, "the operands must be bool, got float32"),
    ("bitwise_and", (tensor(3), tensor(3)), {}, "must be integers or bool"),
    ("where", (tensor(3), tensor(3), tensor(3)), {}, "condition must have dtype bool"),
    ("clip", (tensor(3), tensor(2)), {}, "min must be a scalar"),
    ("reshape", (tensor(3, 4), shape(5, 2)), {}, "the numbers of elements differ"),
    ("reshape", (tensor(3, 4), shape(-1, -1)), {}, "only one dimension can be -1"),
    ("reshape", (tensor(3), tensor(1)), {}, "shape must be a shape"),
    ("squeeze", (tensor(3, 1),), {"axis": 0}, "the extent of axis 0 and 1 differ"),
    ("squeeze", (tensor(N, 1),), {}, "cannot tell whether axis 0 has extent 1"),
    ("expand_dims", (tensor(3),), {"axis": (0, 0)}, "axis repeated"),
    ("permute_dims", (tensor(3, 4),), {"axes": (0,)}, "does not permute 2 dimensions"),
    ("permute_dims", (tensor(3, 4),), {"axes": (0, 2)}, "axis 2 is out of range for 2 dimensions"),
    ("broadcast_to", (tensor(3), shape(4)), {}, "the extents of axis 0 differ"),
    ("broadcast_to", (tensor(3, 4), shape(4)), {}, "more than the 1 of shape"),
    ("concat", (TupleType((tensor(3, 4), tensor(3, 5))),), {}, "the extents of axis 1 differ"),
    ("concat", (TupleType(()),), {}, "needs at least one tensor"),
    ("concat", (TupleType((tensor(3), tensor(3, 5))),), {}, "different ranks, [1, 2]"),
    ("concat", (tensor(3),), {}, "tensors must be a tuple of tensors"),
    ("split", (tensor(3),), {"indices_or_sections": 0}, "cannot split into 0 parts"),
    ("split", (tensor(3),), {"indices_or_sections": (2, 1)}, "nor decrease"),
    ("sum", (tensor(3),), {"axis": 1}, "axis 1 is out of range for 1 dimensions"),
    ("mean", (tensor(3, dtype="int32"),), {}, "x must have a float dtype"),
    ("sum", (tensor(3, dtype="bool"),), {}, "x must have a numeric dtype, got bool"),
    ("matmul", (tensor(3, 4), tensor(5, 6)), {}, "the contracted extents differ"),
    ("matmul", (tensor(), tensor(3)), {}, "a must have at least one dimension"),
    ("einsum", (TupleType((tensor(3, 4),)),), {"subscripts": "ij,jk"}, "names 2 operands, got 1"),
    ("einsum", (TupleType((tensor(3, 4),)),), {"subscripts": "i->i"}, "does not fit an operand"),
    ("einsum", (TupleType((tensor(3),)),), {"subscripts": "i->k"}, "'k' of the result"),
    ("einsum", (TupleType((tensor(3),)),), {"subscripts": "i->ii"}, "repeated in the result"),
    ("strided_slice", (tensor(3), shape(0), shape(0), shape(2), shape(0)), {}, "must not be 0"),
    ("strided_slice", (tensor(3), shape(0), shape(0, 1), shape(2)), {}, "1 axes, 2 begins"),
    ("strided_slice", (tensor(3), shape(N), shape(0), shape(2)), {}, "an axis must be constant"),
    ("arange", (scalar(0), scalar(3), scalar(0)), {}, "step must not be 0"),
    ("take", (tensor(3), tensor(2)), {"axis": 0}, "indices must have an integer dtype"),
    ("take", (tensor(3), tensor(2, dtype="int32")), {"axis": 0, "mode": "x"}, "mode must be"),
    ("argmax", (tensor(3, 0),), {"axis": 1}, "there is no position in an axis of extent 0"),
    ("topk", (tensor(3),), {"k": 4}, "k = 4 is more than the 3 elements"),
    ("nn.conv2d", (tensor(1, 4, 8, 8), tensor(6, 3, 3, 3)), {}, "the input channels"),
    ("nn.conv2d", (tensor(1, 4, 2, 8), tensor(6, 4, 3, 3)), {}, "a window of"),
    ("nn.conv2d", (tensor(1, 4, 8, 8), tensor(6, 4, 3, 3)), {"strides": 0}, "must be positive"),
    ("nn.conv2d", (tensor(4, 8, 8), tensor(6, 4, 3, 3)), {}, "data must have 4 dimensions, got 3"),
    (
        "nn.conv2d",
        (tensor(1, 4, 8, 8), tensor(6, 4, 3, 3)),
        {"data_layout": "NCHX"},
        "data_layout must be a permutation of 'NCHW'",
    ),
    (
        "nn.conv2d",
        (tensor(1, 4, 8, 8), tensor(6, 4, 3, 3)),
        {"padding": (1, 2, 3)},
        "padding must have 1, 2 or 4 values, got 3",
    ),
    ("nn.max_pool2d", (tensor(1, 4, 8, 8),), {"pool_size": 2, "padding": 2}, "only padding"),
    ("nn.softmax", (tensor(3),), {"axis": 1}, "axis 1 is out of range"),
    ("nn.layer_norm", (tensor(3, 4), tensor(3)), {}, "the extents of x and gamma differ"),
    ("nn.group_norm", (tensor(1, 6, 4),), {"num_groups": 4}, "left over by the groups"),
    ("nn.nll_loss", (tensor(3, 4), tensor(2, dtype="int64")), {}, "the extents of predictions"),
    ("nn.attention", (tensor(1, 2, 3, N),) * 3, {}, "the last extent of query is symbolic"),
    ("nn.attention", (tensor(1, 2, 3, 4),) * 3, {"window_size": 2}, "needs causal_mask"),
    ("nn.pad", (tensor(3),), {"pad_width": (1,)}, "pad_width must have 2 values"),
    ("nn.pad", (tensor(3),), {"pad_width": (1, 1), "pad_mode": "x"}, "pad_mode must be one of"),
    ("nn.pad", (tensor(3),), {"pad_width": (-2, -2)}, "cannot be cropped"),
    ("nn.dropout", (tensor(3),), {"rate": 1.0}, "rate must be in [0, 1)"),
    ("nn.pixel_shuffle", (tensor(1, 6, 2, 2),), {"upscale_factor": 2}, "left over by the blocks"),
    ("quantize", (tensor(3), tensor(2), scalar(0)), {}, "the extents of x and scale differ"),
    ("image.resize2d", (tensor(1, 2, 3, 4), shape(1, 2, 3)), {}, "size must have 2 values, got 3"),
    ("image.resize2d", (tensor(1, 2, 3, 4), shape(5)), {"method": "x"}, "method must be one of"),
    ("memory.view", (tensor(4), shape(5)), {}, "reaches beyond"),
    (
        "dist.annotate_sharding",
        (tensor(3),),
        {"device_mesh": "mesh[0]", "placement": "S[1]"},
        "axis 1 is out of range",
    ),
    ("one_hot", (tensor(3), scalar(1.0), scalar(0.0)), {"depth": 2}, "indices must be integers"),
    ("triu", (tensor(3),), {}, "x must have at least 2 dimensions, got 1"),
    ("gather_elements", (tensor(3, 4), tensor(4, 2, dtype="int64")), {"axis": 1}, "is larger than"),
]


@pytest.mark.parametrize(
    ("name", "types", "fields", "message"), REFUSED, ids=[f"{x[0]}-{x[3]}" for x in REFUSED]
)
def test_refused(name: str, types: tuple[Type, ...], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceError) as info:
        infer(name, *types, **fields)
    assert info.value.message.startswith(f"{name}: ")
    assert message in info.value.message


ASSUMED = [
    (
        "add",
        (tensor(N), tensor(M)),
        "add: what broadcasts on axis -1",
        select(EQ(N, as_expr(1)), M, N),
    ),
    ("add", (tensor(N), tensor(4)), "add: what broadcasts on axis -1", as_expr(4)),
    ("reshape", (tensor(N), shape(M)), "reshape: the numbers of elements", M),
    ("matmul", (tensor(3, N), tensor(M, 6)), "matmul: the contracted extents", as_expr(3)),
]


@pytest.mark.parametrize(("name", "types", "what", "size"), ASSUMED)
def test_what_cannot_be_proved_is_assumed(name, types, what, size):
    """The first dimension of the result, and what a program has to check."""
    result = infer(name, *types)
    assert isinstance(result, TensorType)
    assert result.shape is not None
    assert result.shape[0] is size
    (found,) = assumptions(find_operator(name)(), types)
    assert found.what == what


def test_what_is_proved_is_not_assumed():
    assert not assumptions(find_operator("add")(), (tensor(N, M), tensor(N, M)))
