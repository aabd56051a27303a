"""How errors print: what, where with the source and a caret, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from transect.support import flags
from transect.support.errors import InputError, InputTypeError, ScriptError, TransectError
from transect.support.span import Layer, Span, merge_spans


def test_an_error_shows_the_source_and_the_remedy(tmp_path: Path) -> None:
    source = tmp_path / "model.py"
    source.write_text("a = 1\n    b = f(x, y)\n", encoding="utf-8")
    span = Span(str(source), 2, 8, 2, 15)
    error = InputError("f takes one argument", span=span, remedy="drop y", notes=["f is builtin"])
    assert str(error).splitlines() == [
        "f takes one argument",
        f"  --> {source}:2:9",
        "   |",
        " 2 |     b = f(x, y)",
        "   |         ^^^^^^^",
        "  note: f is builtin",
        "  help: drop y",
    ]
    assert isinstance(error, ValueError)


def test_a_span_without_its_file_names_the_place() -> None:
    assert Span("<nowhere>", 3, 4, 3, 5).render() == "  at <nowhere>:3:5"
    assert "^^^" in Span("<text>", 3, 0, 4, 1, "abc\nd").render()


def test_a_layer_names_its_node_and_the_source_line() -> None:
    layer = Layer("m.onnx", "conv1", "Conv", "net.py:12")
    assert layer.render() == "  --> Conv node 'conv1' of m.onnx\n      from net.py:12"


def test_the_first_place_wins() -> None:
    here, there = Span("a.py", 1, 0, 1, 1), Span("b.py", 1, 0, 1, 1)
    error = InputTypeError("wrong").at((here,)).at((there,))
    assert error.span == (here,)
    assert merge_spans((here, there), (there,), (here,)) == (here, there)


def test_script_errors_are_shown_together() -> None:
    first, second = ScriptError("first"), ScriptError("second", remedy="try this")
    both = ScriptError("2 errors", errors=[first, second])
    assert str(both) == "2 errors\n\nfirst\n\nsecond\n  help: try this"
    assert isinstance(both, SyntaxError)
    assert isinstance(both, TransectError)


def test_flags_are_read_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRANSECT_CHECK", "0")
    assert not flags.check()
    monkeypatch.setenv("TRANSECT_CHECK", "1")
    assert flags.check()
    monkeypatch.setenv("TRANSECT_DEBUG", "2")
    assert flags.debug() == 2
    monkeypatch.setenv("TRANSECT_DUMP", str(tmp_path))
    assert flags.dump() == tmp_path
    monkeypatch.delenv("TRANSECT_DUMP")
    assert flags.dump() is None
    monkeypatch.setenv("TRANSECT_CACHE_DIR", str(tmp_path / "cache"))
    assert flags.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("TRANSECT_NUM_THREADS", "3")
    assert flags.num_threads() == 3
    monkeypatch.setenv("TRANSECT_NUM_THREADS", "many")
    assert flags.num_threads() >= 1
