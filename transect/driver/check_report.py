"""What `transect.check` finds: comparisons of values, the first that differs, the whole report.

How values are got is in `check`; here they are only compared and told.

Two values agree if no element differs by more than a tolerance times the largest finite magnitude
of the expected tensor; NaN agrees with NaN, and an infinity only with itself. The tolerance goes by
the dtype of the tensor (`TOLERANCES`); integers and bools must be equal. In a model that quantizes,
a value halfway between two steps may fall to either side: there 8-bit integers may differ by one,
and floats by `QUANTIZED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCES: Mapping[str, float] = {
    "float64": 1e-9,
    "float32": 2e-4,
    "float16": 1e-2,
    "bfloat16": 6e-2,
}
"""Of the largest magnitude in a tensor, by dtype; 0.3 for narrower floats, 0 for all others."""

QUANTIZED = 5e-2
"""The tolerance of floats in a model that quantizes."""

_NARROW = 0.3
_SHOWN = 5


@dataclass(frozen=True)
class Mismatch:
    """One element that differs. exact: what float64 gives, None if that is unknown."""

    index: tuple[int, ...]
    value: float
    expected: float
    exact: float | None = None

    def __str__(self) -> str:
        where = ", ".join(map(str, self.index))
        exact = "" if self.exact is None else f"; float64 gives {self.exact:.9g}"
        return f"[{where}]: {self.value:.9g}, expected {self.expected:.9g}{exact}"


@dataclass(frozen=True)
class Error:
    """How far a tensor is from another: the largest difference, and that as a part of the largest
    finite magnitude of the other; infinite where shapes, NaNs or infinities differ."""

    absolute: float
    relative: float

    def __str__(self) -> str:
        return f"{self.absolute:.3g} ({self.relative:.2g} of the largest magnitude)"

    def to_json(self) -> dict[str, Any]:
        """As JSON data; an infinite error is None."""
        finite = np.isfinite(self.absolute)
        return {
            "absolute": self.absolute if finite else None,
            "relative": self.relative if np.isfinite(self.relative) else None,
        }


@dataclass(frozen=True)
class Comparison:
    """One output of the model, compiled against the reference. errors: "interpreter": of what the
    interpreter gives against the reference; "float64": of the compiled value against the model in
    float64; either only where that is known."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    ok: bool
    error: Error
    errors: Mapping[str, Error]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "ok": self.ok,
            "error": self.error.to_json(),
            "errors": {name: error.to_json() for name, error in self.errors.items()},
        }


@dataclass(frozen=True)
class Difference:
    """The first value that differs, in the order of the model.

    value: the model's name of the tensor. node, operator: what computes it. place: where that is,
    as errors print it. error: against the reference. float64: error of the compiled value, and
    reference_float64 that of the reference, against the node computed in float64 from the
    reference's inputs; None if that could not be done. elements: how many differ, of how many.
    mismatches: the first of them. verdict: what the interpreter says of it.
    """

    value: str
    node: str
    operator: str
    place: str
    dtype: str
    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    error: Error
    float64: Error | None
    reference_float64: Error | None
    elements: tuple[int, int]
    mismatches: tuple[Mismatch, ...]
    verdict: str

    def __str__(self) -> str:
        lines = [
            f"the first value that differs is {self.value!r}, of {self.operator} {self.node!r}"
        ]
        if self.place:
            lines.append(self.place)
        if self.shape != self.expected_shape:
            lines.append(f"  shape {self.shape}, expected {self.expected_shape}")
        else:
            count, total = self.elements
            lines.append(f"  {count} of {total} elements differ; {self.dtype} {self.shape}")
        lines.append(f"  error against the reference: {self.error}")
        if self.float64 is not None:
            lines.append(f"  error against float64: {self.float64}")
            lines.append(f"  the reference's error against float64: {self.reference_float64}")
        lines += [f"  {mismatch}" for mismatch in self.mismatches]
        if self.verdict:
            lines.append(f"  {self.verdict}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "value": self.value,
            "node": self.node,
            "operator": self.operator,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "expected_shape": list(self.expected_shape),
            "error": self.error.to_json(),
            "float64": None if self.float64 is None else self.float64.to_json(),
            "reference_float64": (
                None if self.reference_float64 is None else self.reference_float64.to_json()
            ),
            "elements_different": self.elements[0],
            "elements": self.elements[1],
            "mismatches": [
                {
                    "index": list(item.index),
                    "value": repr(item.value),
                    "expected": repr(item.expected),
                    "float64": None if item.exact is None else repr(item.exact),
                }
                for item in self.mismatches
            ],
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class CheckReport:
    """Whether compiled code computes what the model says.

    reference: what it was compared with: "onnxruntime", "interpreter" or "onnx.reference".
    outputs: of the model. compared: how many values were compared in all. notes: what was left
    out, and why.
    """

    model: str
    reference: str
    outputs: tuple[Comparison, ...]
    first_difference: Difference | None
    compared: int
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all values agree."""
        return self.first_difference is None and all(item.ok for item in self.outputs)

    def __str__(self) -> str:
        verdict = "agrees with" if self.ok else "DIFFERS from"
        lines = [f"{self.model}: compiled code {verdict} {self.reference}, {self.compared} values"]
        told = {"interpreter": "the interpreter's", "float64": "against float64"}
        for item in self.outputs:
            shape = "x".join(map(str, item.shape)) or "scalar"
            more = "".join(f"; {told[name]} {error}" for name, error in item.errors.items())
            mark = "ok" if item.ok else "differs"
            lines.append(f"  {item.name}: {mark}, {item.dtype} {shape}, error {item.error}{more}")
        if self.first_difference is not None:
            lines.append(str(self.first_difference))
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        first = self.first_difference
        return {
            "model": self.model,
            "ok": self.ok,
            "reference": self.reference,
            "compared": self.compared,
            "outputs": [item.to_json() for item in self.outputs],
            "first_difference": None if first is None else first.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Rules:
    """How near is near enough. factor: what the user multiplies all tolerances with."""

    quantized: bool = False
    factor: float = 1.0

    def tolerance(self, dtype: np.dtype[Any]) -> float:
        """Of the largest magnitude, for floats; for integers the difference itself."""
        if dtype.kind in "biuOSUM":
            steps = self.quantized and dtype.name in ("int8", "uint8")
            return 1.0 if steps else 0.0
        if self.quantized:
            return self.factor * max(QUANTIZED, TOLERANCES.get(dtype.name, _NARROW))
        return self.factor * TOLERANCES.get(dtype.name, _NARROW)

    def different(self, value: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> Any:
        """A mask of the elements that differ; the shapes must be equal."""
        if value.dtype.kind in "OSU":
            return value != expected
        tolerance = self.tolerance(expected.dtype)
        a, b = wide(value), wide(expected)
        if expected.dtype.kind in "biu":
            return np.abs(a - b) > tolerance
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= tolerance * magnitude(b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        return ~(same | (near & np.isfinite(a) & np.isfinite(b)))

    def agree(self, value: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
        """Whether two tensors agree in shape, dtype and elements."""
        if value.shape != expected.shape or value.dtype != expected.dtype:
            return False
        return not np.any(self.different(value, expected))


def wide(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In a dtype that differences can be taken in."""
    if value.dtype.kind in "biu":
        # Exact, and without overflow: 64-bit integers differ by more than any of them holds.
        return value.astype(object if value.dtype.itemsize == 8 else np.int64)
    return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)


def magnitude(value: np.ndarray[Any, Any]) -> float:
    """The largest finite magnitude."""
    finite = np.abs(value[np.isfinite(value)]) if value.dtype != object else np.abs(value)
    return float(np.max(finite, initial=0))


def error_of(value: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> Error:
    """How far `value` is from `expected`."""
    if value.shape != expected.shape:
        return Error(np.inf, np.inf)
    if value.dtype.kind in "OSU":
        return Error(0.0, 0.0) if np.array_equal(value, expected) else Error(np.inf, np.inf)
    a, b = wide(value), wide(expected)
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    if a.dtype == object:
        largest = float(np.max(np.abs(a - b), initial=0))
    else:
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            distance = np.where(same, 0.0, np.abs(a - b))
        largest = float(np.max(np.where(np.isnan(distance), np.inf, distance), initial=0.0))
    scale = magnitude(b)
    return Error(largest, largest / scale if scale else (0.0 if largest == 0 else np.inf))


def mismatches(
    value: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    exact: np.ndarray[Any, Any] | None,
    rules: Rules,
) -> tuple[int, tuple[Mismatch, ...]]:
    """How many elements differ, and the first of them."""
    if value.shape != expected.shape or value.dtype.kind in "OSU":
        return value.size, ()
    mask = np.asarray(rules.different(value, expected), bool)
    indices = np.argwhere(mask)
    found: list[Mismatch] = []
    for row in indices[:_SHOWN]:
        index = tuple(map(int, row))
        right = None if exact is None or exact.shape != value.shape else float(exact[index])
        found.append(Mismatch(index, float(value[index]), float(expected[index]), right))
    return len(indices), tuple(found)
