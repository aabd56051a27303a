"""Pass, Pipeline, Context: order, default context, verification after each pass, dumps."""

import os
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import numpy as np
import pytest

import transect
from transect.driver.dump import dump_scripts
from transect.driver.verify import verify_module
from transect.ir.function import IRModule
from transect.ir.node import replace
from transect.ir.structural import structural_equal, structural_mismatch
from transect.plan import GreedyPolicy
from transect.script import ir as I
from transect.script import parse_file
from transect.script import relax as R
from transect.script import tir as T
from transect.support.errors import VerifyError
from transect.target import host_target
from transect.tir.function import PrimFunc
from transect.tir.stmt import BufferStore
from transect.tir.visit import StmtRewriter
from transect.transform import Context, Pass, Pipeline

n = T.symbolic("n")


@I.ir_module
class Mixed:
    @T.prim_func
    def scale(X: T.Buffer[(n,), "float32"], Y: T.Buffer[(n,), "float32"]):
        for i in T.grid(n):
            with T.block("scale"):
                vi = T.axis.spatial(n, i)
                Y[vi] = X[vi] * T.float32(2)

    @R.function
    def main(x: R.Tensor[(n,), "float32"]):
        with R.dataflow():
            y = R.call_tir(scale, [x], R.Tensor[(n,), "float32"])
            z = R.add(y, R.const(0, "float32"))
            R.output(z)
        return z


@dataclass(frozen=True)
class Rename(Pass):
    """Add `suffix` to the module's functions' attribute "renamed"."""

    suffix: str

    def run(self, module: IRModule, context: Context) -> IRModule:
        del context
        return module.map_functions(
            lambda _, function: function.with_attrs(
                renamed=function.attrs.get("renamed", "") + self.suffix
            )
        )


@dataclass(frozen=True)
class Nothing(Pass):
    """Leaves the module alone."""

    def run(self, module: IRModule, context: Context) -> IRModule:
        del context
        return module


@dataclass(frozen=True)
class Break(Pass):
    """Gives every store twice its indices: a program that no verifier lets pass."""

    def run(self, module: IRModule, context: Context) -> IRModule:
        del context

        def visit(_: str, function: object) -> object:
            if not isinstance(function, PrimFunc):
                return function
            return replace(function, body=_Breaking().visit(function.body))

        return module.map_functions(visit)  # type: ignore[arg-type]


class _Breaking(StmtRewriter):
    def visit_store(self, stmt: BufferStore) -> BufferStore:
        return replace(stmt, indices=(*stmt.indices, *stmt.indices))


def renamed(module: IRModule) -> set[str]:
    return {function.attrs.get("renamed", "") for function in module.functions.values()}


def test_passes_run_in_order_and_pipelines_nest() -> None:
    inner = Pipeline(Rename("b"), Rename("c"))
    result = Pipeline(Rename("a"), inner, Rename("d"))(Mixed)
    assert renamed(result) == {"abcd"}
    assert renamed(Mixed) == {""}, "the module given is not changed"


def test_nothing_changes_nothing() -> None:
    assert Pipeline(Nothing(), Pipeline())(Mixed) is Mixed


def test_a_pass_alone_gets_a_context_of_this_machine() -> None:
    seen: list[Context] = []

    @dataclass(frozen=True)
    class Look(Pass):
        def run(self, module: IRModule, context: Context) -> IRModule:
            seen.append(context)
            return module

    Look()(Mixed)
    Pipeline(Look())(Mixed)
    for context in seen:
        assert context.target == host_target()
        assert isinstance(context.planner.policy, GreedyPolicy)
        assert dict(context.dims) == {}
        assert context.verify is None
        assert context.dump is None
    assert seen[0].planner is not seen[1].planner, "a choice of one compile leaks into the next"


def test_a_pass_is_its_fields() -> None:
    assert Rename("a") == Rename("a")
    assert Rename("a") != Rename("b")
    assert Rename("a").name == "Rename"
    with pytest.raises(FrozenInstanceError):
        Rename("a").suffix = "b"  # type: ignore[misc]


def test_every_result_is_observed() -> None:
    seen: list[tuple[str, IRModule]] = []
    context = Context(observe=lambda name, module: seen.append((name, module)))
    result = Pipeline(Rename("a"), Nothing(), Rename("b"))(Mixed, context)
    assert [name for name, _ in seen] == ["Rename", "Nothing", "Rename"]
    assert [renamed(module) for _, module in seen] == [{"a"}, {"a"}, {"ab"}]
    assert seen[-1][1] is result


def test_verification_stops_at_the_pass_that_broke_the_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "TRANSECT_CHECK", "1")
    seen: list[str] = []
    context = Context(verify=verify_module, observe=lambda name, _: seen.append(name))
    with pytest.raises(VerifyError) as caught:
        Pipeline(Nothing(), Break(), Nothing())(Mixed, context)
    assert seen == ["Nothing"]
    assert caught.value.message == "Y has 1 dimensions and is indexed with 2"
    assert "note: after the pass Break" in str(caught.value)


def test_without_the_flag_nothing_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TRANSECT_CHECK", "0")
    called: list[IRModule] = []
    Pipeline(Nothing(), Break())(Mixed, Context(verify=called.append))
    assert called == []


def test_dumps_are_numbered_and_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TRANSECT_DUMP", str(tmp_path / "not" / "yet"))
    result = Pipeline(Rename("a"), Nothing(), Rename("b"))(Mixed)
    files = sorted((tmp_path / "not" / "yet").iterdir())
    assert [file.name for file in files] == ["00_Rename.py", "01_Nothing.py", "02_Rename.py"]
    last = parse_file(files[-1])
    assert isinstance(last, IRModule)
    assert structural_mismatch(result, last) is None
    assert renamed(last) == {"ab"}
    assert not structural_equal(parse_file(files[0]), last)


def test_large_constants_lie_beside_the_dumps(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)

    @R.function
    def main(x: R.Tensor[(n, 3), "float32"]):
        return R.add(R.take(R.const(table), R.const(np.arange(1)), axis=0), x)

    module = IRModule.of(main=main)
    Pipeline(Nothing(), Rename("a"))(module, Context(dump=dump_scripts(tmp_path)))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["00_Nothing.py", "01_Rename.py", "constants.npz"]
    parsed = parse_file(tmp_path / "00_Nothing.py")
    assert isinstance(parsed, IRModule)
    assert structural_mismatch(module, parsed) is None


def test_a_compile_dumps_what_its_stages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TRANSECT_DUMP", str(tmp_path))
    model = transect.compile(Mixed)
    monkeypatch.delitem(os.environ, "TRANSECT_DUMP")
    files = sorted(tmp_path.glob("*.py"))
    stages = list(model.stages.values())[1:]
    assert len(files) == len(stages)
    for file, stage in zip(files, stages, strict=True):
        parsed = parse_file(file)
        assert isinstance(parsed, IRModule)
        assert structural_mismatch(stage, parsed) is None, file.name
    np.testing.assert_array_equal(model(np.ones(3, np.float32)), np.full(3, 2, np.float32))
