"""Operators of programs that run on several workers: how tensors are spread, and collectives.

Types only: a later pass turns them into the calls of a communication library.
"""

from __future__ import annotations

from dataclasses import dataclass

from transect.ir.types import TensorType, Type
from transect.relax.expr import Op
from transect.relax.op.inference import (
    fail,
    normalize_axis,
    require_same,
    simplify,
    tensor,
    unknown_like,
    with_shape,
)
from transect.relax.op.operator import Operator


def check_placement(op: Op, x: TensorType, placement: str) -> None:
    """Refuse a placement such as "S[0], R" that names an axis x does not have."""
    for item in placement.replace(" ", "").split(","):
        axis = item.removeprefix("S[").removesuffix("]")
        if item == "R":
            continue
        if not (item.startswith("S[") and item.endswith("]") and axis.isdecimal()):
            fail(op, f'a placement is "R" or "S[axis]" for each mesh axis, got {placement!r}')
        if x.ndim >= 0:
            normalize_axis(op, int(axis), x.ndim)


@dataclass(frozen=True)
class Placed(Operator):
    """Base of the operators that say how a tensor lies on a mesh of devices.

    device_mesh: the mesh's name in the module's global information, such as "mesh[0]".
    placement: for each axis of the mesh "R" (a copy on each) or "S[k]" (axis k cut into parts).
    """

    device_mesh: str
    placement: str

    def infer(self, input: Type) -> TensorType:
        """The type of the operand."""
        x = tensor(self, input, "input")
        check_placement(self, x, self.placement)
        return x


@dataclass(frozen=True)
class AnnotateSharding(Placed):
    """dist.annotate_sharding(input, device_mesh, placement): input, to lie on the mesh so.

    Source: Relax dist.annotate_sharding.
    """

    name = "dist.annotate_sharding"


@dataclass(frozen=True)
class Redistribute(Placed):
    """dist.redistribute(input, device_mesh, placement): input, moved to lie on the mesh so.

    Source: Relax dist.redistribute.
    """

    name = "dist.redistribute"


@dataclass(frozen=True)
class RedistributeReplicaToShard(Operator):
    """dist.redistribute_replica_to_shard(input, num_workers, axis): of a tensor that every worker
    holds, each worker's part along `axis`. The extent must divide evenly.

    Source: Relax dist.redistribute_replica_to_shard.
    """

    name = "dist.redistribute_replica_to_shard"
    num_workers: int
    axis: int

    def infer(self, input: Type) -> TensorType:
        """The extent of the axis divided by the number of workers."""
        return part_of(self, tensor(self, input, "input"), self.num_workers, self.axis)


def part_of(op: Op, x: TensorType, workers: int, axis: int) -> TensorType:
    """One worker's part of x along an axis."""
    if workers < 1:
        fail(op, f"num_workers must be positive, got {workers}")
    if x.ndim < 0 or x.shape is None:
        return unknown_like(x)
    place = normalize_axis(op, axis, x.ndim)
    size = x.shape[place]
    rest = simplify(size % workers)
    require_same(op, rest, simplify(0), f"the rest of {size!r} over {workers} workers and 0")
    return with_shape(x, [*x.shape[:place], simplify(size // workers), *x.shape[place + 1 :]])


@dataclass(frozen=True)
class CallTIRLocalView(Operator):
    """dist.call_tir_local_view(f, (inputs...)[, tir_vars]): as call_tir, each worker running `f`
    on its own parts. type_args: the result's type. Source: Relax dist.call_tir_local_view.
    """

    name = "dist.call_tir_local_view"


@dataclass(frozen=True)
class DistCallTIR(Operator):
    """dist.call_tir(f, (inputs...)[, tir_vars]): as call_tir, on tensors that lie on a mesh.

    type_args: the result's type. Source: Relax dist.call_tir.
    """

    name = "dist.call_tir"


# --- collectives -------------------------------------------------------------------------------


@dataclass(frozen=True)
class AllReduce(Operator):
    """ccl.allreduce(x, op_type): on every worker the sum, product, min, max or mean of all x.

    op_type: "sum", "prod", "min", "max", "avg". in_group: among the workers of one group only.
    Source: Relax ccl.allreduce.
    """

    name = "ccl.allreduce"
    op_type: str = "sum"
    in_group: bool = True

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        if self.op_type not in ("sum", "prod", "min", "max", "avg"):
            fail(self, f"op_type must be sum, prod, min, max or avg, got {self.op_type!r}")
        return tensor(self, x, "x")


@dataclass(frozen=True)
class AllGather(Operator):
    """ccl.allgather(x, num_workers): on every worker the x of all, joined along the first axis.

    in_group: among the workers of one group only. Source: Relax ccl.allgather.
    """

    name = "ccl.allgather"
    num_workers: int
    in_group: bool = True

    def infer(self, x: Type) -> TensorType:
        """The first extent times the number of workers."""
        data = tensor(self, x, "x")
        if data.ndim == 0:
            fail(self, "x must have at least one dimension")
        if data.shape is None:
            return data
        return with_shape(data, [simplify(data.shape[0] * self.num_workers), *data.shape[1:]])


@dataclass(frozen=True)
class BroadcastFromWorker0(Operator):
    """ccl.broadcast_from_worker0(x): on every worker the x of the first. Source: Relax ccl."""

    name = "ccl.broadcast_from_worker0"

    def infer(self, x: Type) -> TensorType:
        """The type of x."""
        return tensor(self, x, "x")


@dataclass(frozen=True)
class ScatterFromWorker0(Operator):
    """ccl.scatter_from_worker0(x, num_workers, axis): on each worker its part, along `axis`, of
    the x of the first. The extent must divide evenly. Source: Relax ccl.scatter_from_worker0.
    """

    name = "ccl.scatter_from_worker0"
    num_workers: int
    axis: int = 0

    def infer(self, x: Type) -> TensorType:
        """The extent of the axis divided by the number of workers."""
        return part_of(self, tensor(self, x, "x"), self.num_workers, self.axis)
