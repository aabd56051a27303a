"""The table of operators: every entry loads, says what it is, and infers on a sample."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import transect.relax.op as operators
from tests.relax_op.support import scalar, shape, tensor
from transect.ir.expr import Var
from transect.ir.types import ObjectType, TensorType, TupleType, Type, VDevice
from transect.relax.expr import Op
from transect.relax.op import OPERATORS, find_operator
from transect.relax.op.binary import Binary, Bitwise, Logical, Shift
from transect.relax.op.elementwise import LogicalNot, Unary
from transect.relax.op.layout import AxisMap, axis_var
from transect.relax.op.operator import Operator, Parameter, script_parameters
from transect.support.errors import InputError

N = Var("n")
X = tensor(N, 4)
INDEX = tensor(N, 4, dtype="int64")
VECTOR = tensor(4)
IMAGE = tensor(N, 4, 8, 8)
PLACED = {"device_mesh": "mesh[0]", "placement": "S[0], R"}

Sample = tuple[tuple[Type, ...], dict[str, Any]]

SAMPLES: dict[str, Sample] = {
    "astype": ((X,), {"dtype": "int32"}),
    "wrap_param": ((X,), {"dtype": "float16"}),
    "clip": ((X, scalar(0), scalar(6)), {}),
    "where": ((tensor(N, 4, dtype="bool"), X, X), {}),
    "ewise_fma": ((X, X, X), {}),
    "reshape": ((X, shape(4, N)), {}),
    "broadcast_to": ((VECTOR, shape(N, 4)), {}),
    "squeeze": ((tensor(N, 1),), {"axis": 1}),
    "expand_dims": ((X,), {"axis": 0}),
    "concat": ((TupleType((X, X)),), {}),
    "stack": ((TupleType((X, X)),), {}),
    "split": ((X,), {"indices_or_sections": 2, "axis": 1}),
    "meshgrid": ((TupleType((VECTOR, tensor(N))),), {}),
    "repeat": ((X,), {"repeats": 2}),
    "tile": ((X,), {"repeats": 2}),
    "collapse_sum_like": ((X, VECTOR), {}),
    "collapse_sum_to": ((X, shape(4)), {}),
    "full": ((shape(N), scalar(1.0)), {}),
    "full_like": ((X, scalar(1.0)), {}),
    "zeros": ((shape(N),), {}),
    "ones": ((shape(N),), {}),
    "arange": ((scalar(N),), {}),
    "eye": ((scalar(N),), {}),
    "one_hot": ((INDEX, scalar(1.0), scalar(0.0)), {"depth": 3}),
    "hamming_window": ((scalar(N),), {}),
    "nn.attention_window": ((shape(3, N, 0),), {}),
    "nn.dynamic_pad": ((X, shape(N, 0, 1, 2)), {}),
    "nn.max_pool_with_indices": ((IMAGE,), {"pool_size": (2, 2)}),
    "nn.lp_pool": ((IMAGE,), {"pool_size": (2, 2)}),
    "nn.deform_conv2d": ((IMAGE, tensor(6, 4, 1, 1), tensor(N, 2, 8, 8)), {}),
    "nn.col2im": ((tensor(N, 4, 6), shape(3, 4), shape(2, 2)), {}),
    "image.resize": ((IMAGE, shape(N, 3)), {"axes": (2, 3)}),
    "image.roi_align": ((IMAGE, tensor(N, 4), tensor(N, dtype="int64")), {}),
    "image.roi_max_pool": ((IMAGE, tensor(N, 5)), {}),
    "random.uniform": ((shape(N, 3),), {}),
    "random.normal": ((shape(N, 3),), {}),
    "signal.dft": ((tensor(N, 4, 1), shape(4), shape(1)), {}),
    "signal.frames": ((tensor(N, 9, 1), shape(4), shape(2)), {}),
    "signal.mel_weights": ((shape(8, N), tensor(), tensor(), tensor()), {}),
    "determinant": ((tensor(N, 4, 4),), {}),
    "matmul": ((X, tensor(4, 5)), {}),
    "nn.rnn_cell": ((tensor(7, N, 4), X, X, scalar(0)), {}),
    "nn.gru_reset": ((tensor(7, N, 12), tensor(N, 8), X, scalar(0)), {}),
    "nn.gru_cell": ((tensor(7, N, 12), tensor(N, 12), X, scalar(0)), {}),
    "nn.lstm_cell": ((tensor(7, N, 16), tensor(N, 16), X, X, scalar(0)), {}),
    "linear": ((X, tensor(5, 4)), {}),
    "outer": ((VECTOR, tensor(N)), {}),
    "einsum": ((TupleType((X, X)),), {"subscripts": "ij,ij->i"}),
    "strided_slice": ((X, shape(0), shape(1), shape(N)), {}),
    "slice_scatter": ((X, tensor(N, 2), scalar(0), scalar(2)), {"axis": 1}),
    "dynamic_strided_slice": ((X, *[tensor(2, dtype="int64")] * 3), {}),
    "take": ((X, INDEX), {"axis": 0}),
    "gather_elements": ((X, INDEX), {}),
    "gather_nd": ((X, tensor(3, 2, dtype="int64")), {}),
    "scatter_elements": ((X, INDEX, X), {}),
    "scatter_nd": ((X, tensor(3, 1, dtype="int64"), tensor(3, 4)), {}),
    "index_tensor": ((X, TupleType((INDEX,))), {}),
    "index_put": ((X, TupleType((tensor(3, dtype="int64"),)), tensor(3, 4)), {}),
    "reverse_sequence": ((X, tensor(N, dtype="int32")), {}),
    "multinomial_from_uniform": (
        (X, tensor(5, 1), tensor(5, 1, dtype="int64")),
        {},
    ),
    "bucketize": ((X, VECTOR), {}),
    "nn.prelu": ((X, VECTOR), {}),
    "nn.conv1d": ((tensor(N, 4, 8), tensor(6, 4, 3)), {}),
    "nn.conv2d": ((IMAGE, tensor(6, 4, 3, 3)), {}),
    "nn.conv3d": ((tensor(N, 4, 8, 8, 8), tensor(6, 4, 3, 3, 3)), {}),
    "nn.conv1d_transpose": ((tensor(N, 4, 8), tensor(4, 6, 3)), {}),
    "nn.conv2d_transpose": ((IMAGE, tensor(4, 6, 3, 3)), {}),
    "nn.conv3d_transpose": ((tensor(N, 4, 8, 8, 8), tensor(4, 6, 3, 3, 3)), {}),
    "nn.layer_norm": ((X, VECTOR, VECTOR), {}),
    "nn.rms_norm": ((X, VECTOR), {}),
    "nn.group_norm": ((IMAGE, VECTOR, VECTOR), {"num_groups": 2}),
    "nn.instance_norm": ((IMAGE, VECTOR, VECTOR), {}),
    "nn.batch_norm": ((IMAGE, VECTOR, VECTOR, VECTOR, VECTOR), {}),
    "nn.nll_loss": ((X, tensor(N, dtype="int64")), {}),
    "nn.cross_entropy_with_logits": ((X, X), {}),
    "nn.attention": ((IMAGE, IMAGE, IMAGE), {}),
    "nn.attention_bias": ((IMAGE, IMAGE, IMAGE, tensor(8, 4, 4)), {}),
    "nn.attention_var_len": (
        (tensor(1, N, 4, 8),) * 3
        + (tensor(5, dtype="int32"),) * 2
        + (tensor(1, dtype="int32"),) * 2,
        {},
    ),
    "nn.pad": ((X,), {"pad_width": (1, 1, 0, 2)}),
    "nn.pixel_shuffle": ((IMAGE,), {"upscale_factor": 2}),
    "nn.pixel_unshuffle": ((IMAGE,), {"downscale_factor": 2}),
    "quantize": ((X, scalar(1.0), scalar(0, "int8")), {}),
    "dequantize": ((tensor(N, 4, dtype="int8"), scalar(1.0), scalar(0, "int8")), {}),
    "requantize": ((tensor(N, 4, dtype="int32"), scalar(1.0), scalar(0, "int8")), {}),
    "bitcast": ((X,), {"dtype": "int32"}),
    "cast_narrow": ((X,), {"dtype": "float8_e5m2"}),
    "image.resize1d": ((tensor(N, 4, 8), shape(5)), {}),
    "image.resize2d": ((IMAGE, shape(5, 6)), {}),
    "image.resize3d": ((tensor(N, 4, 8, 8, 8), shape(5, 6, 7)), {}),
    "image.affine_grid": ((tensor(N, 2, 3), shape(5, 6)), {}),
    "image.grid_sample": ((IMAGE, tensor(N, 2, 5, 6)), {}),
    "layout_transform": ((X,), {"index_map": AxisMap(2, (axis_var(1), axis_var(0)))}),
    "memory.alloc_storage": ((shape(64),), {}),
    "memory.alloc_tensor": ((tensor(64, dtype="uint8"), scalar(0), shape(4)), {}),
    "memory.view": ((X, shape(4, N)), {}),
    "builtin.alloc_tensor": ((shape(N),), {}),
    "vm.alloc_storage": ((shape(64),), {}),
    "vm.alloc_tensor": ((ObjectType(), scalar(0), shape(4)), {}),
    "vm.call_tir_dyn": ((ObjectType(), TupleType((X, shape(N)))), {}),
    "to_vdevice": ((X,), {"dst_vdevice": VDevice("cuda")}),
    "hint_on_device": ((X,), {"dst_vdevice": VDevice("cuda")}),
    "dist.annotate_sharding": ((X,), PLACED),
    "dist.redistribute": ((X,), PLACED),
    "dist.redistribute_replica_to_shard": ((X,), {"num_workers": 2, "axis": 1}),
    "ccl.allgather": ((X,), {"num_workers": 2}),
    "ccl.scatter_from_worker0": ((X,), {"num_workers": 2, "axis": 1}),
    "call_packed": ((ObjectType(), X), {}),
    "call_pure_packed": ((ObjectType(), X), {}),
    "call_builtin_with_ctx": ((ObjectType(), TupleType((X,))), {}),
    "make_closure": ((ObjectType(), TupleType((X,))), {}),
    "invoke_closure": ((ObjectType(), TupleType((X,))), {}),
    "invoke_pure_closure": ((ObjectType(), TupleType((X,))), {}),
    "null_value": ((), {}),
    "print": ((X,), {}),
    "assert_op": ((tensor(dtype="bool"),), {}),
    "arange_size": ((tensor(), tensor(), tensor()), {}),
    "arange_tensor": ((tensor(), tensor(), shape(N)), {}),
    "tensor_scatter": ((X, X, tensor(N, dtype="int64")), {"axis": 1}),
    "nonzero_positions": ((X, shape(5)), {}),
    "select_boxes": (
        (tensor(2, N, 4), tensor(2, 3, N), tensor(1, dtype="int64"), tensor(1), tensor(1)),
        {},
    ),
    "list_boxes": ((tensor(2, 3, N, dtype="int64"), tensor(2, 3, dtype="int64"), shape(5)), {}),
    "element": ((X, scalar(0)), {"axis": 1}),
    "stretch": ((VECTOR, shape(N, 4)), {}),
    "tensor_to_shape": ((tensor(3, dtype="int64"),), {}),
    "shape_to_tensor": ((shape(N, 4),), {}),
}
TOLD_BY_THE_CALL = {
    "call_tir", "call_tir_inplace", "call_dps_packed", "call_inplace_packed",
    "dist.call_tir", "dist.call_tir_local_view",
}  # fmt: skip
"""Their result is a type argument of the call."""


def sample(name: str, kind: type[Op]) -> Sample:
    """Operands' types and attributes for an operator; by family where it has no own sample."""
    if name in SAMPLES:
        return SAMPLES[name]
    if issubclass(kind, Logical | LogicalNot):
        truth = tensor(N, 4, dtype="bool")
        return ((truth, truth) if issubclass(kind, Logical) else (truth,)), {}
    if issubclass(kind, Bitwise | Shift):
        return (INDEX, INDEX), {}
    if name == "bitwise_not":
        return (INDEX,), {}
    if issubclass(kind, Binary):
        return (X, X), {}
    if "pool1d" in name or "pool3d" in name:
        return (tensor(N, 4, *[8] * int(name[-2])),), {}
    if "pool2d" in name:
        return (IMAGE,), {}
    return (X,), {}


@pytest.mark.parametrize("name", OPERATORS)
def test_entry(name: str) -> None:
    kind = find_operator(name)
    assert kind.name == name
    assert dataclasses.is_dataclass(kind)
    assert "__doc__" in vars(kind)
    assert kind.__doc__ is not None
    assert kind.__doc__.startswith(name)
    if name in TOLD_BY_THE_CALL:
        return
    types, fields = sample(name, kind)
    assert isinstance(kind(**fields).infer(*types), Type)


@pytest.mark.parametrize("name", OPERATORS)
def test_entries_that_compute_say_how(name: str) -> None:
    kind = find_operator(name)
    if not issubclass(kind, Operator) or not kind.__module__.startswith("transect.relax.op."):
        return
    lowered_later = kind.__module__.rpartition(".")[2] in ("lowered", "distributed", "memory")
    depends_on_data = name in (
        "nonzero", "unique", "dynamic_strided_slice", "nn.attention_var_len"
    )  # fmt: skip
    has_body = hasattr(kind, "legalize") or hasattr(kind, "decompose")
    assert has_body or lowered_later or depends_on_data


@pytest.mark.parametrize("name", OPERATORS)
def test_an_unknown_tensor_gives_an_unknown_tensor(name: str) -> None:
    kind = find_operator(name)
    if name in TOLD_BY_THE_CALL or not issubclass(kind, Unary | Binary):
        return
    types, fields = sample(name, kind)
    unknown = TensorType(None, None, -1)
    result = kind(**fields).infer(*[unknown] * len(types))
    assert isinstance(result, TensorType)
    assert result.shape is None


def test_an_unknown_name_gets_the_closest_ones() -> None:
    with pytest.raises(InputError) as info:
        find_operator("nn.sofmax")
    assert "there is no operator 'nn.sofmax'" in str(info.value)
    assert "'nn.softmax'" in str(info.value)


def test_a_package_adds_operators_through_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine.exp", "transect.relax.op.elementwise:Exp", operators.ENTRY_POINTS)
    wrong = EntryPoint("mine.wrong", "dataclasses:field", operators.ENTRY_POINTS)
    monkeypatch.setattr(operators, "entry_points", lambda group: [point, wrong])
    assert find_operator("mine.exp") is find_operator("exp")
    with pytest.raises(InputError, match=r"of 'mine\.wrong' is no operator"):
        find_operator("mine.wrong")
    find_operator.cache_clear()


def test_attributes_are_made_canonical() -> None:
    kind: Any = find_operator("permute_dims")
    assert kind([0, 1]) == kind((0, 1))
    assert hash(kind([0, 1])) == hash(kind((0, 1)))
    cast: Any = find_operator("astype")
    assert str(cast("float16").dtype) == "float16"


def test_parameters_of_scripts() -> None:
    assert script_parameters(find_operator("nn.softmax")) == (
        Parameter("x", "operand", required=True),
        Parameter("axis", "attribute", required=False),
    )
    names = [item.name for item in script_parameters(find_operator("memory.view"))]
    assert names == ["x", "shape", "dtype", "relative_byte_offset"]
    astype = script_parameters(find_operator("astype"))
    assert astype[1] == Parameter("dtype", "attribute", required=True)
