"""TensorIntrin: what an instruction computes, as TIR, and how it is called, as TIR.

The intrinsics themselves live in the folders of `hardware` and in users' packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, Literal, overload

from transect.ir.expr import Expr, as_int
from transect.support.errors import InputError
from transect.target import Target
from transect.tir.buffer import Buffer
from transect.tir.function import PrimFunc
from transect.tir.stmt import Block, BlockRealize
from transect.tir.visit import walk_stmts

ANNOTATION = "tensor_intrin"
"""The annotation of blocks that are an intrinsic: its name."""

ENTRY_POINTS = "transect.tensor_intrins"
"""The entry-point group of users' packages: a TensorIntrin, several, or a function of no arguments
that gives them."""

HARDWARE = "transect.hardware_intrins"
"""The entry-point group of the table of the hardware folders, named by the distribution: this room
knows none."""


@dataclass(frozen=True, eq=False)
class TensorIntrin:
    """An instruction, or a short sequence of them, that stands for a nest of loops.

    description: what it computes: loops around one block without init. implementation: how; its
    parameters are buffers of the same dtypes and shapes, in the same order. A buffer of the
    description without strides must be compact where it is used; strides that are variables take
    what the program has, and the implementation sees their values.
    target: the folder of `hardware` whose processors have it, "" for any. requires: features of
    the Target, all of them. rate: how many of it a core starts per cycle at best, by which the
    schedule rules compare it with others.

    Raises InputError where the two do not fit together.
    """

    name: str
    description: PrimFunc
    implementation: PrimFunc
    target: str = ""
    requires: frozenset[str] = field(default_factory=frozenset[str])
    rate: float = 1.0

    def __post_init__(self) -> None:
        # Names stand in programs, traces and plans.
        if not self.name or any(character.isspace() for character in self.name):
            raise InputError(f"an intrinsic named {self.name!r}", remedy="a name without spaces")
        object.__setattr__(self, "requires", frozenset(self.requires))
        _check(self)

    def __repr__(self) -> str:
        return f"TensorIntrin.get({self.name!r})"

    @property
    def block(self) -> Block:
        """The block of the description that computes."""
        return _blocks(self.description)[0]

    def missing(self, target: Target) -> tuple[str, ...]:
        """What `target` lacks to run it, empty if nothing."""
        if self.target and self.target != target.name:
            return (f"a processor of the kind {self.target!r}",)
        return tuple(sorted(self.requires - target.features))

    @staticmethod
    def register(
        name: str,
        desc: PrimFunc,
        impl: PrimFunc,
        override: bool = False,
        *,
        target: str = "",
        requires: Iterable[str] = (),
        rate: float = 1.0,
    ) -> TensorIntrin:
        """Make an intrinsic known by its name in this process, and give it.

        Raises InputError if the name is taken, unless `override`.
        """
        made = TensorIntrin(name, desc, impl, target, frozenset(requires), rate)
        if override:
            _REGISTERED[name] = made
        else:
            remember(made)
        return made

    @overload
    @staticmethod
    def get(name: str, allow_missing: Literal[False] = False) -> TensorIntrin: ...

    @overload
    @staticmethod
    def get(name: str, allow_missing: bool) -> TensorIntrin | None: ...

    @staticmethod
    def get(name: str, allow_missing: bool = False) -> TensorIntrin | None:
        """The intrinsic of a name: one registered here, of the hardware folders, or of an
        installed package.

        Raises InputError, with the names that are near, if there is none; with `allow_missing`
        gives None.
        """
        found = _lookup(name)
        if found is None and not allow_missing:
            known = sorted(known_names())
            near = get_close_matches(name, known, 3)
            raise InputError(
                f"no tensor intrinsic {name!r}",
                notes=[f"there are: {', '.join(known) or 'none'}"],
                remedy=f"did you mean {near[0]!r}?"
                if near
                else "TensorIntrin.register(name, desc, impl) makes one known",
            )
        return found


Table = Mapping[str, Callable[[], TensorIntrin]]
"""Intrinsics by name, made when they are asked for."""

_REGISTERED: dict[str, TensorIntrin] = {}


class _Hook:
    table: Callable[[], Table] | None = None
    packages: Mapping[str, TensorIntrin] | None = None


_hook = _Hook()


def install(table: Callable[[], Table]) -> None:
    """Use the table of the hardware folders, a room further down. Called by `transect.hardware`."""
    _hook.table = table


def remember(intrin: TensorIntrin) -> None:
    """Make an intrinsic known by its name. Raises InputError if another one has it."""
    other = _lookup(intrin.name)
    if other is not None and other is not intrin:
        raise InputError(
            f"there is another tensor intrinsic named {intrin.name!r}",
            remedy="choose another name, or TensorIntrin.register(..., override=True)",
        )
    _REGISTERED[intrin.name] = intrin


def known_names() -> tuple[str, ...]:
    """The names that `TensorIntrin.get` knows."""
    return tuple(dict.fromkeys((*_REGISTERED, *_of_hardware(), *_of_packages())))


def package_names() -> tuple[str, ...]:
    """The names of the intrinsics that installed packages bring."""
    return tuple(_of_packages())


def _lookup(name: str) -> TensorIntrin | None:
    if name in _REGISTERED:
        return _REGISTERED[name]
    loader = _of_hardware().get(name)
    return loader() if loader is not None else _of_packages().get(name)


def _of_hardware() -> Table:
    if _hook.table is None:
        # In a source tree that is not installed, `import transect.hardware` does it.
        for point in entry_points(group=HARDWARE):
            install(point.load())
    return {} if _hook.table is None else _hook.table()


def _of_packages() -> Mapping[str, TensorIntrin]:
    if _hook.packages is None:
        found: dict[str, TensorIntrin] = {}
        for point in entry_points(group=ENTRY_POINTS):
            given: Any = point.load()
            if callable(given):
                given = given()
            items: list[TensorIntrin] = [given] if isinstance(given, TensorIntrin) else list(given)
            found |= {item.name: item for item in items}
        _hook.packages = found
    return _hook.packages


def _blocks(func: PrimFunc) -> list[Block]:
    root = func.body.block if isinstance(func.body, BlockRealize) else None
    return [s for s in walk_stmts(func.body) if isinstance(s, Block) and s is not root]


def _check(intrin: TensorIntrin) -> None:
    description, implementation = intrin.description, intrin.implementation
    for which, func in (("description", description), ("implementation", implementation)):
        if not isinstance(func.body, BlockRealize):
            raise InputError(
                f"{intrin.name}: the {which} has no block at its root",
                remedy='write its body inside `with T.block("root"):`',
            )
        if len(func.buffers) != len(func.params):
            raise InputError(
                f"{intrin.name}: the {which} has parameters that are no buffers",
                remedy="all parameters of a tensor intrinsic are buffers",
            )
    blocks = _blocks(description)
    if len(blocks) != 1:
        raise InputError(
            f"{intrin.name}: the description has {len(blocks)} blocks",
            remedy="describe it as loops around one block",
        )
    if blocks[0].init is not None:
        raise InputError(
            f"{intrin.name}: the description has an init",
            remedy="describe the update alone; tensorize leaves the init to the block around it",
        )
    ours, theirs = description.buffers, implementation.buffers
    if len(ours) != len(theirs):
        raise InputError(
            f"{intrin.name}: {len(ours)} parameters in the description, "
            f"{len(theirs)} in the implementation"
        )
    for a, b in zip(ours, theirs, strict=True):
        if a.dtype is not b.dtype or _sizes(a) != _sizes(b) or a.scope != b.scope:
            raise InputError(
                f"{intrin.name}: parameter {a.name!r} is {_text(a)} in the description and "
                f"{_text(b)} in the implementation"
            )
        if any(as_int(extent) is None for extent in a.shape):
            raise InputError(
                f"{intrin.name}: parameter {a.name!r} has a symbolic shape",
                remedy="an instruction works on a fixed number of elements",
            )


def _sizes(buffer: Buffer) -> tuple[int | None, ...]:
    return tuple(as_int(extent) for extent in buffer.shape)


def _text(buffer: Buffer) -> str:
    shape: list[Expr] = list(buffer.shape)
    return f"{buffer.dtype} {tuple(shape)!r} in {buffer.scope!r}"
