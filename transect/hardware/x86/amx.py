"""The tensor intrinsics of AMX: loading, clearing, multiplying and storing tiles.

Source: Intel's Software Developer's Manual, volume 2 (TILELOADD, TDPBF16PS, TDPBSSD, ...). Tiles
are buffers of the scope "amx.tile"; what runs around them is in `codegen.llvm.amx`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from transect.hardware.templates import prim_func
from transect.ir.dtype import DType, as_dtype
from transect.tir.tensor_intrin import Table, TensorIntrin
from transect.tir.tiles import ROW_BYTES, TILE_ROWS

_MOVE = """
@T.prim_func
def {which}(a: T.handle, b: T.handle):
    s = T.int64()
    A = T.match_buffer(a, SHAPE, KIND, scope={source}, {strided_a}offset_factor=1)
    B = T.match_buffer(b, SHAPE, KIND, scope={target}, {strided_b}offset_factor=1)
    with T.block("root"):
        T.reads(A[{box}])
        T.writes(B[{box}])
{body}
"""
_COPY = """
        for {loops} in T.grid({extents}):
            with T.block("copy"):
                {variables} = T.axis.remap("{kinds}", [{loops}])
                B[{variables}] = A[{variables}]
"""
_LOAD = "        T.amx_tile_load(T.address_of(B), T.address_of(A), {stride})"
_STORE = "        T.amx_tile_store(T.address_of(B), {stride}, T.address_of(A))"


def _move(
    name: str, kind: DType, shape: tuple[int, ...], *, strided: bool, load: bool
) -> TensorIntrin:
    """A tile from memory or to memory. strided: whether its rows may lie apart there."""
    loops = [f"i{n}" for n in range(len(shape))]
    text = {
        "source": '"global"' if load else '"amx.tile"',
        "target": '"amx.tile"' if load else '"global"',
        "strided_a": "strides=(s, 1), " if strided and load else "",
        "strided_b": "strides=(s, 1), " if strided and not load else "",
        "box": ", ".join(f"0:{extent}" for extent in shape),
        "loops": ", ".join(loops),
        "extents": ", ".join(map(str, shape)),
        "variables": ", ".join(f"v{loop}" for loop in loops),
        "kinds": "S" * len(shape),
    }
    names = {"SHAPE": shape, "KIND": str(kind)}
    stride = f"s * {kind.bytes}" if strided else str(ROW_BYTES)
    call = (_LOAD if load else _STORE).format(stride=stride)
    return TensorIntrin(
        name,
        prim_func(_MOVE.format(which="description", body=_COPY.format(**text), **text), names),
        prim_func(_MOVE.format(which="implementation", body=call, **text), names),
        target="x86",
        requires=frozenset({"amx_tile"}),
        rate=1 / 8,
    )


_ZERO = """
@T.prim_func
def {which}(c: T.handle):
    C = T.match_buffer(c, (16, 16), KIND, scope="amx.tile", offset_factor=1)
    with T.block("root"):
        T.reads()
        T.writes(C[0:16, 0:16])
{body}
"""
_ZERO_DESCRIPTION = """
        for i, j in T.grid(16, 16):
            with T.block("zero"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = T.cast(0, KIND)
"""


def _zero(name: str, kind: str) -> TensorIntrin:
    call = "        T.amx_tile_zero(T.address_of(C))"
    return TensorIntrin(
        name,
        prim_func(_ZERO.format(which="description", body=_ZERO_DESCRIPTION), {"KIND": kind}),
        prim_func(_ZERO.format(which="implementation", body=call), {"KIND": kind}),
        target="x86",
        requires=frozenset({"amx_tile"}),
    )


_PRODUCT = """
@T.prim_func
def {which}(a: T.handle, b: T.handle, c: T.handle):
    A = T.match_buffer(a, (16, DEPTH), LEFT, scope="amx.tile", offset_factor=1)
    B = T.match_buffer(b, (16, 16, GROUP), RIGHT, scope="amx.tile", offset_factor=1)
    C = T.match_buffer(c, (16, 16), RESULT, scope="amx.tile", offset_factor=1)
    with T.block("root"):
        T.reads(C[0:16, 0:16], A[0:16, 0:DEPTH], B[0:16, 0:16, 0:GROUP])
        T.writes(C[0:16, 0:16])
{body}
"""
_PRODUCT_DESCRIPTION = """
        for i, j, k in T.grid(16, 16, DEPTH):
            with T.block("update"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                C[vi, vj] = C[vi, vj] + T.cast(A[vi, vk], RESULT) * T.cast(
                    B[vk // GROUP, vj, vk % GROUP], RESULT
                )
"""


@dataclass(frozen=True)
class TileProduct:
    """A product of tiles: C[16, 16] += A[16, depth] * B[depth / group, 16, group].

    instruction: the name in assembler. left, right, result: the dtypes. feature: what the
    processor must have.
    """

    instruction: str
    left: DType
    right: DType
    result: DType
    feature: str

    @property
    def group(self) -> int:
        """How many rows of B lie side by side, so that they fill 32 bits."""
        return 4 // self.right.bytes

    @property
    def depth(self) -> int:
        """How many columns of A a tile has."""
        return ROW_BYTES // self.left.bytes

    @property
    def name(self) -> str:
        """The name of the intrinsic."""
        return f"x86.amx.{self.instruction}"

    @property
    def load_rows(self) -> str:
        """The name of the intrinsic that loads A."""
        return f"x86.amx.load_{self.left}_{TILE_ROWS}x{self.depth}"

    @property
    def load_columns(self) -> str:
        """The name of the intrinsic that loads B."""
        return f"x86.amx.load_{self.right}_{TILE_ROWS}x{TILE_ROWS}x{self.group}"

    @property
    def zero(self) -> str:
        """The name of the intrinsic that clears C."""
        return f"x86.amx.zero_{self.result}"

    @property
    def store(self) -> str:
        """The name of the intrinsic that stores C."""
        return f"x86.amx.store_{self.result}"


def _row(instruction: str, left: str, right: str, result: str, feature: str) -> TileProduct:
    return TileProduct(instruction, as_dtype(left), as_dtype(right), as_dtype(result), feature)


PRODUCTS: tuple[TileProduct, ...] = (
    _row("tdpbf16ps", "bfloat16", "bfloat16", "float32", "amx_bf16"),
    _row("tdpbssd", "int8", "int8", "int32", "amx_int8"),
    _row("tdpbusd", "uint8", "int8", "int32", "amx_int8"),
    _row("tdpbsud", "int8", "uint8", "int32", "amx_int8"),
    _row("tdpbuud", "uint8", "uint8", "int32", "amx_int8"),
)
"""What tiles can be multiplied. TDPBF16PS takes values below the normal range for 0, in operands
and results; sums of pairs are rounded to the nearest, in another order than a loop's."""


def _product(product: TileProduct) -> TensorIntrin:
    names = {
        "DEPTH": product.depth,
        "GROUP": product.group,
        "LEFT": str(product.left),
        "RIGHT": str(product.right),
        "RESULT": str(product.result),
    }
    call = "        T.amx_tile_dot(T.address_of(C), T.address_of(A), T.address_of(B))"
    return TensorIntrin(
        product.name,
        prim_func(_PRODUCT.format(which="description", body=_PRODUCT_DESCRIPTION), names),
        prim_func(_PRODUCT.format(which="implementation", body=call), names),
        target="x86",
        requires=frozenset({"amx_tile", product.feature}),
        rate=1 / 16,
    )


def _table() -> Table:
    found: dict[str, Callable[[], TensorIntrin]] = {}
    for item in PRODUCTS:
        rows, columns = (TILE_ROWS, item.depth), (TILE_ROWS, TILE_ROWS, item.group)
        square = (TILE_ROWS, TILE_ROWS)
        found[item.name] = partial(_product, item)
        found[item.zero] = partial(_zero, item.zero, str(item.result))
        found[item.load_rows] = partial(
            _move, item.load_rows, item.left, rows, strided=True, load=True
        )
        found[item.load_columns] = partial(
            _move, item.load_columns, item.right, columns, strided=False, load=True
        )
        found[item.store] = partial(
            _move, item.store, item.result, square, strided=True, load=False
        )
    return {name: cache(make) for name, make in found.items()}


INTRINSICS: Table = _table()
"""The intrinsics by name."""
