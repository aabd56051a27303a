"""transect.check: does compiled code compute what the model says, and if not, where does it begin?

The compiled model, the interpreter and, for ONNX models, ONNX Runtime run side by side. If an
output differs, the model is compiled again with its intermediate values as outputs, and the first
of them that differs is reported by the model's own name. How values are compared, and how near is
near enough, is in `check_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from transect.driver import check_onnx
from transect.driver.check_graph import BoundedInterpreter, GraphModel, NamedValue, TooSlow, flat
from transect.driver.check_onnx import OnnxModel
from transect.driver.check_report import (
    CheckReport,
    Comparison,
    Difference,
    Error,
    Rules,
    error_of,
    mismatches,
)
from transect.driver.compile import compile
from transect.frontend import load_model_file
from transect.ir.function import BaseFunc, IRModule
from transect.plan import Plan, Policy
from transect.relax.interpret import Interpreter
from transect.runtime.arrays import as_numpy, as_sequence
from transect.support.errors import InputError, TransectError
from transect.target import Target

Array = np.ndarray[Any, Any]


def check(
    model: Any,
    inputs: Any,
    *,
    target: Target | str | None = None,
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    plan: Plan | None = None,
    policy: Policy | None = None,
    entry: str | None = None,
    every: bool = False,
    tolerance: float = 1.0,
    interpreter_seconds: float = 20.0,
) -> CheckReport:
    """Run a model compiled, interpreted and by ONNX Runtime, and find where they part.

    model: as for `compile`, and so are target, dims, plan, policy and entry; use those that the
    model was compiled with. inputs: one array, a sequence of them in order, or a mapping by name.
    every: compare all intermediate values even if the outputs agree.
    tolerance: what all tolerances are multiplied with. interpreter_seconds: how long the
    interpreter may take by its own estimate (half a microsecond for each iteration of a loop).

    The reference is ONNX Runtime with its optimizations off, if it is installed and the model is
    ONNX; else the interpreter; else, for ONNX models that are too large for it, `onnx.reference`.
    Nothing is taken from or put into the compile cache.
    """
    options: dict[str, Any] = {
        "target": target,
        "dims": dims,
        "plan": plan,
        "policy": policy,
        "cache": False,
    }
    if isinstance(model, BaseFunc):
        model = IRModule.of(**{model.attrs.get("global_symbol", "main"): model})
    subject: OnnxModel | GraphModel
    if isinstance(model, IRModule):
        subject = GraphModel(model, entry)
        options["entry"] = subject.entry
    else:
        subject = OnnxModel(model)
    rules = Rules(subject.quantized, tolerance)
    return _Check(subject, options, rules, interpreter_seconds, every).run(model, inputs)


@dataclass
class _Check:
    subject: OnnxModel | GraphModel
    options: dict[str, Any]
    rules: Rules
    seconds: float
    every: bool
    notes: list[str] = field(default_factory=list[str])
    arguments: list[Any] = field(default_factory=list[Any])

    def run(self, model: Any, inputs: Any) -> CheckReport:
        """The report."""
        # Not the file itself: what is compiled is what the others run.
        original = self._original(model)
        compiled = compile(original, **self.options)
        parameters = [parameter.name for parameter in compiled.signature.parameters]
        self.arguments = _arguments(inputs, parameters, self._input_names(parameters))
        got = list(flat(compiled(*self.arguments)))
        names = self._output_names(len(got))
        reference, expected, interpreted = self._references(original, names)
        # What is too large for the interpreter is so for a reference in Python, too.
        exact = self._exact(names, expected) if interpreted is not None else None
        others = {
            "interpreter": None if reference == "interpreter" else interpreted,
            "float64": exact,
        }
        comparisons = tuple(
            self._compare(
                name, value, right, {who: found[i] for who, found in others.items() if found}
            )
            for i, (name, value, right) in enumerate(zip(names, got, expected, strict=True))
        )
        first: Difference | None = None
        compared = len(comparisons)
        differs = not all(item.ok for item in comparisons)
        if differs or self.every:
            first, count = self._first_difference(reference, certain=differs)
            compared += count
            if first is None and differs:
                first = self._of_outputs(names, got, expected)
        return CheckReport(
            self.subject.title, reference, comparisons, first, compared, tuple(self.notes)
        )

    # --- running ----------------------------------------------------------------------------

    def _original(self, model: Any) -> Any:
        if isinstance(self.subject, OnnxModel):
            return model if isinstance(model, str | Path) else self._variant(self.subject.outputs)
        return model

    def _variant(self, names: Sequence[str]) -> Any:
        return self.subject.variant(names)

    def _input_names(self, parameters: list[str]) -> Sequence[str]:
        """The model's own names of the parameters."""
        return self.subject.inputs if isinstance(self.subject, OnnxModel) else parameters

    def _output_names(self, count: int) -> list[str]:
        if isinstance(self.subject, OnnxModel):
            return list(self.subject.outputs)
        return ["result"] if count == 1 else [f"result[{i}]" for i in range(count)]

    def _feeds(self) -> dict[str, Array]:
        assert isinstance(self.subject, OnnxModel)
        return dict(zip(self.subject.inputs, self.arguments, strict=True))

    def _references(
        self, original: Any, names: Sequence[str]
    ) -> tuple[str, list[Array], list[Array] | None]:
        """The name of the reference, its outputs, and those of the interpreter if it ran."""
        interpreted: list[Array] | None = None
        try:
            interpreted = self._interpret(original)
        except TooSlow:
            self.notes.append(
                "the interpreter would take longer than "
                f"{self.seconds:g} s for the whole model: it runs only the node under suspicion"
            )
        except TransectError as error:
            self.notes.append(f"the interpreter cannot run the model: {error.message}")
        if isinstance(self.subject, OnnxModel):
            for name, run in _oracles():
                try:
                    found = run(self.subject.variant(names), self._feeds())
                    return name, [np.asarray(item) for item in found], interpreted
                except InputError as error:
                    self.notes.append(error.message)
                if interpreted is not None:
                    break
        if interpreted is None:
            raise InputError(
                "nothing can run the model to compare with",
                notes=self.notes,
                remedy="give smaller inputs, or more interpreter_seconds",
            )
        return "interpreter", interpreted, interpreted

    def _interpret(self, model: Any) -> list[Array]:
        module = model if isinstance(model, IRModule) else load_model_file(model)
        name = self.subject.entry if isinstance(self.subject, GraphModel) else "main"
        runner = BoundedInterpreter(module, self.seconds)
        return list(flat(runner.run(name, *map(_copied, self.arguments))))

    def _exact(self, names: Sequence[str], expected: Sequence[Array]) -> list[Array] | None:
        """The outputs in float64, where onnx.reference can compute them and means the same."""
        if not isinstance(self.subject, OnnxModel) or self.subject.quantized:
            return None
        found = check_onnx.outputs_in_float64(self.subject.variant(names), self._feeds())
        if found is None:
            return None
        pairs = zip(expected, found, strict=True)
        if not all(self.rules.agree(right, wide.astype(right.dtype)) for right, wide in pairs):
            self.notes.append("onnx.reference gives something else: no error against float64")
            return None
        return found

    def _compare(
        self, name: str, value: Array, expected: Array, others: Mapping[str, Array]
    ) -> Comparison:
        errors: dict[str, Error] = {}
        if "interpreter" in others:
            errors["interpreter"] = error_of(others["interpreter"], expected)
        if "float64" in others and others["float64"].shape == value.shape:
            errors["float64"] = error_of(value, others["float64"])
        return Comparison(
            name,
            value.dtype.name,
            value.shape,
            self.rules.agree(value, expected),
            error_of(value, expected),
            errors,
        )

    # --- finding where it begins ------------------------------------------------------------

    def _first_difference(self, reference: str, *, certain: bool) -> tuple[Difference | None, int]:
        """The first value that differs, and how many were compared. certain: there is one."""
        named = self.subject.values
        expected = self._expected(reference, [value.name for value in named])
        values = [value for value in named if value.name in expected]
        found, compared = self._all_at_once(values, expected)
        if found is None and (certain or not compared):
            if compared:
                self.notes.append(
                    "with all values as outputs they agree: the fault is in how kernels are fused"
                )
            found, more = self._one_at_a_time(values, expected)
            compared += more
        return None if found is None else self._describe(*found, expected), compared

    def _expected(self, reference: str, names: list[str]) -> dict[str, Array]:
        """The reference's values of all intermediate tensors."""
        if reference == "interpreter":
            results = self._interpret(self._variant(names))
        else:
            run = dict(_oracles())[reference]
            results = run(self._variant(names), self._feeds())
        arrays = [as_numpy(item) for item in results]
        return {name: a for name, a in zip(names, arrays, strict=True) if a is not None}

    def _all_at_once(
        self, values: Sequence[NamedValue], expected: Mapping[str, Array]
    ) -> tuple[tuple[NamedValue, Array] | None, int]:
        """The first value that differs in a compile with all of them as outputs, and how many were
        compared: none if that compile fails. What is fused otherwise may be right there."""
        try:
            got = self._compiled([value.name for value in values])
        except TransectError as error:
            self.notes.append(f"not all values can be outputs at once: {error.message}")
            return None, 0
        for number, (value, array) in enumerate(zip(values, got, strict=True), 1):
            if not self.rules.agree(array, expected[value.name]):
                return (value, array), number
        return None, len(values)

    def _one_at_a_time(
        self, values: Sequence[NamedValue], expected: Mapping[str, Array]
    ) -> tuple[tuple[NamedValue, Array] | None, int]:
        """Bisect with one value as the only output; what comes after a wrong value is taken to be
        wrong too. How many were compared, besides."""
        low, high = 0, len(values) - 1
        found: tuple[NamedValue, Array] | None = None
        tried = 0
        while low <= high:
            middle = (low + high) // 2
            value = values[middle]
            try:
                (array,) = self._compiled([value.name])
            except (TransectError, ValueError):
                low = middle + 1
                continue
            tried += 1
            if self.rules.agree(array, expected[value.name]):
                low = middle + 1
            else:
                found = value, array
                high = middle - 1
        return found, tried

    def _compiled(self, names: Sequence[str]) -> list[Array]:
        model = compile(self._variant(names), **self.options)
        return list(flat(model(*map(_copied, self.arguments))))

    # --- describing it ----------------------------------------------------------------------

    def _describe(self, value: NamedValue, got: Array, expected: Mapping[str, Array]) -> Difference:
        right = expected[value.name]
        interpreted, exact = self._alone(value, expected)
        verdict = ""
        if interpreted is not None:
            agrees = self.rules.agree(interpreted, right)
            verdict = (
                "the interpreter agrees with the reference on this node: its compiled code is wrong"
                if agrees
                else "the interpreter differs from the reference too: the operator's definition, or"
                " how the model was imported, is wrong"
            )
        return self._difference(value, got, right, exact, verdict)

    def _difference(
        self, value: NamedValue, got: Array, right: Array, exact: Array | None, verdict: str
    ) -> Difference:
        count, first = mismatches(got, right, exact, self.rules)
        known = exact is not None and exact.shape == right.shape
        return Difference(
            value.name,
            value.node,
            value.operator,
            "\n".join(origin.render() for origin in value.span),
            got.dtype.name,
            got.shape,
            right.shape,
            error_of(got, right),
            error_of(got, exact) if known and exact is not None else None,
            error_of(right, exact) if known and exact is not None else None,
            (count, got.size),
            first,
            verdict,
        )

    def _alone(
        self, value: NamedValue, expected: Mapping[str, Array]
    ) -> tuple[Array | None, Array | None]:
        """The node of a value from the reference's inputs: by the interpreter, and in float64."""
        subject = self.subject
        if isinstance(subject, GraphModel):
            found = [
                subject.alone(value.name, expected, self.arguments, wide=wide)
                for wide in (False, True)
            ]
            narrow, wide_one = (next(flat(item), None) for item in found)
            return narrow, wide_one
        operands = subject.operands(value.name, {**self._feeds(), **expected})
        if operands is None:
            return None, None
        alone = subject.alone(value.name, operands)
        exact = check_onnx.in_float64(alone, operands)
        try:
            module = load_model_file(alone)
            passed = [a for a in operands.values() if not check_onnx.is_folded(a)]
            interpreted = next(flat(BoundedInterpreter(module, self.seconds).run("main", *passed)))
        except TransectError as error:
            self.notes.append(f"the interpreter did not run the node: {error.message}")
            return None, exact
        if exact is None:
            exact = self._widened(subject, value, operands)
        return interpreted, exact

    def _widened(
        self, subject: OnnxModel, value: NamedValue, operands: Mapping[str, Array]
    ) -> Array | None:
        """The node in float64 by the interpreter."""
        wide = {name: check_onnx.widened(array) for name, array in operands.items()}
        passed = [array for array in wide.values() if not check_onnx.is_folded(array)]
        try:
            module = load_model_file(subject.alone(value.name, wide))
            return next(flat(Interpreter(module).run("main", *passed)))
        except TransectError:
            return None

    def _of_outputs(
        self, names: Sequence[str], got: Sequence[Array], expected: Sequence[Array]
    ) -> Difference:
        """The first output that differs, where no value before it does by itself."""
        for name, value, right in zip(names, got, expected, strict=True):
            if not self.rules.agree(value, right):
                known = next((v for v in self.subject.values if v.name == name), None)
                named = known or NamedValue(name, name, "output")
                return self._difference(named, value, right, None, "")
        raise AssertionError("no output differs")


def _oracles() -> list[tuple[str, Callable[[Any, Mapping[str, Array]], list[Any]]]]:
    """Who else can run an ONNX model, the best first."""
    found: list[tuple[str, Callable[[Any, Mapping[str, Array]], list[Any]]]] = []
    if check_onnx.has_runtime():
        found.append(("onnxruntime", check_onnx.run_in_runtime))
    found.append(("onnx.reference", check_onnx.run_in_reference))
    return found


def _arguments(inputs: Any, parameters: Sequence[str], names: Sequence[str]) -> list[Any]:
    """The inputs in order."""
    if isinstance(inputs, Mapping):
        given = cast(Mapping[str, Any], inputs)
        wanted = [n if n in given else p for n, p in zip(names, parameters, strict=True)]
        missing = [name for name in wanted if name not in given]
        unknown = [name for name in given if name not in wanted]
        if missing or unknown:
            raise InputError(
                f"missing inputs: {', '.join(map(repr, missing))}"
                if missing
                else f"no input is named {', '.join(map(repr, unknown))}",
                notes=[f"it takes: {', '.join(names)}"],
            )
        return [given[name] for name in wanted]
    array = as_numpy(inputs)
    items = [array] if array is not None else as_sequence(inputs)
    if items is None or len(items) != len(parameters):
        raise InputError(
            f"the model takes {len(parameters)} inputs: {', '.join(names)}",
            remedy="give a sequence of them, or a mapping by name",
        )
    return list(items)


def _copied(value: Any) -> Any:
    """An array of its own, as programs may write to their arguments."""
    array = as_numpy(value)
    return value if array is None else np.array(array)
