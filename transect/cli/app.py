"""The commands with their options, and how they end: output, exit codes, errors.

Nothing of the compiler is imported here, so that `transect --help` is there at once.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from transect.cli.request import Outcome, Request, UsageError, parse_bounds, parse_sizes
from transect.support import flags
from transect.support.errors import TransectError

# What carries out each command.
_COMMANDS = {
    "run": "transect.cli.run:run",
    "bench": "transect.cli.bench:bench",
    "show": "transect.cli.show:show",
    "explain": "transect.cli.explain:explain",
    "compile": "transect.cli.export:export",
    "check": "transect.cli.check:check",
    "profile": "transect.cli.profile:profile",
    "cache": "transect.cli.cache:cache",
}

_OF_USERS = (
    TransectError,
    OSError,
    ValueError,
    TypeError,
    MemoryError,
    IndexError,
    ZeroDivisionError,
)
"""Exceptions of users' mistakes, those that compiled code raises for wrong inputs among them."""

_OK, _FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="transect",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile and run machine-learning models. Every command takes --json. Exit codes: 0 fine,"
    " 1 something is wrong with the model or its inputs, 2 the command was not understood."
    " TRANSECT_DEBUG=1 shows where an error was raised.",
)

Model = Annotated[
    str, typer.Argument(help="An .onnx file, or a .py file with a program in script.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="What an input is: a file (x=x.npy), x=random, x=ones, x=zeros, each with a shape if"
        " you like (x=ones:1x3x224x224); or one .npz file with arrays by name. Without this an"
        " input is random: normal floats, and integers that are 0 or 1, valid as indices, masks"
        " and tokens.",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        metavar="NAME=SIZE",
        help="The size of a symbolic dimension in inputs that are not files. Without this: 1 for"
        " first dimensions, 64 for others.",
    ),
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--bounds",
        metavar="NAME=LEAST:MOST",
        help="What the compiler may assume of a symbolic dimension.",
    ),
]
Target = Annotated[
    str | None, typer.Option("--target", help="The machine to compile for; this one by default.")
]
Plan = Annotated[
    Path | None,
    typer.Option("--plan", help="Answers to choices: a file of `explain --save`."),
]
Entry = Annotated[
    str | None, typer.Option("--entry", help="The function to run, where that is open.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of random inputs.")]
Fresh = Annotated[bool, typer.Option("--no-cache", help="Compile anew, and keep nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, and nothing else.")]
Threads = Annotated[
    int | None, typer.Option("--threads", "-t", min=1, help="Threads; all cores by default.")
]


@app.command()
def run(
    model: Model,
    inputs: Inputs = None,
    dim: Dims = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for the outputs, as .npy files."),
    ] = None,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    seed: Seed = 0,
    threads: Threads = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Run a model once and tell what comes out. MODEL may be a folder that `compile` wrote."""
    request = _request(locals())
    _carry_out("run", request, threads, output=output)


@app.command()
def bench(
    model: Model,
    inputs: Inputs = None,
    dim: Dims = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often each is timed.")] = 30,
    compare: Annotated[
        bool, typer.Option("--compare/--alone", help="Beside ONNX Runtime, if it is installed.")
    ] = True,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    seed: Seed = 0,
    threads: Threads = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Time a model, in turns with ONNX Runtime: median, quartiles, the best and the worst."""
    request = _request(locals())
    _carry_out("bench", request, threads, rounds=rounds, compare=compare)


@app.command()
def show(
    model: Model,
    after: Annotated[
        str,
        typer.Option("--after", metavar="PASS", help="The program after this pass; see --passes."),
    ] = "input",
    function: Annotated[
        str | None, typer.Option("--function", "-f", help="Only this function of the program.")
    ] = None,
    passes: Annotated[bool, typer.Option("--passes", help="List the passes instead.")] = False,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Print the program as Python, as it was given or after a pass of the compiler."""
    request = _request(locals())
    _carry_out("show", request, None, after=after, function=function, passes=passes)


@app.command()
def explain(
    model: Model,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the plan here, for --plan."),
    ] = None,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Tell what the compiler chose: for every choice the options, their costs, what decided."""
    request = _request(locals())
    _carry_out("explain", request, None, save=save)


@app.command("compile")
def compile_(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write to.")],
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Compile a model to a folder that runs with transect.runtime alone, without a compiler."""
    request = _request(locals())
    _carry_out("compile", request, None, output=output)


@app.command()
def check(
    model: Model,
    inputs: Inputs = None,
    dim: Dims = None,
    every: Annotated[
        bool,
        typer.Option("--every", help="Compare all values in between, even if the outputs agree."),
    ] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="What tolerances are multiplied with.")
    ] = 1.0,
    interpreter_seconds: Annotated[
        float,
        typer.Option("--interpreter-seconds", help="How long the interpreter may take."),
    ] = 20.0,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    seed: Seed = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare compiled code with ONNX Runtime and the interpreter, and find where they part.

    The exit code is 1 if they differ.
    """
    request = _request(locals())
    seconds = interpreter_seconds
    options = {"every": every, "tolerance": tolerance, "interpreter_seconds": seconds}
    _carry_out("check", request, threads, **options)


@app.command()
def profile(
    model: Model,
    inputs: Inputs = None,
    dim: Dims = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="How often the model runs.")] = 10,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows of the table.")] = 40,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a Chrome trace here.")
    ] = None,
    bounds: Bounds = None,
    target: Target = None,
    plan: Plan = None,
    entry: Entry = None,
    seed: Seed = 0,
    threads: Threads = None,
    no_cache: Fresh = False,
    as_json: Json = False,
) -> None:
    """Tell where the time of a call goes, by the nodes of the model."""
    request = _request(locals())
    _carry_out("profile", request, threads, runs=runs, limit=limit, trace=trace)


@app.command()
def cache(
    action: Annotated[
        str, typer.Argument(metavar="[list|clear|path]", help="What to do; by default list.")
    ] = "list",
    key: Annotated[
        str | None, typer.Argument(help="With clear: only this entry; a few first digits will do.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the compiled models that are kept, or forget them."""
    _carry_out("cache", Request("", json=as_json), None, action=action, key=key)


def main() -> None:
    """The entry point of the console script."""
    app(prog_name="transect")


def _request(options: dict[str, Any]) -> Request:
    """The options that several commands share, of the arguments of one."""
    with _Errors(as_json=bool(options["as_json"])):
        return Request(
            options["model"],
            tuple(options.get("inputs") or ()),
            parse_sizes(options.get("dim") or ()),
            parse_bounds(options["bounds"] or ()),
            options["target"],
            options["plan"],
            options["entry"],
            options.get("seed", 0),
            not options.get("no_cache", True),
            options["as_json"],
        )
    raise AssertionError


def _carry_out(name: str, request: Request, threads: int | None, **options: Any) -> None:
    """Do it, print what was found, and end with its exit code."""
    if threads is not None:
        # Before anything that reads it is loaded.
        os.environ["TRANSECT_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    with _Errors(as_json=request.json):
        module, _, function = _COMMANDS[name].partition(":")
        outcome: Outcome = getattr(import_module(module), function)(request, **options)
        if request.json:
            sys.stdout.write(json.dumps(outcome.data, indent=1) + "\n")
        else:
            outcome.show(_console())
        raise typer.Exit(outcome.code)


def _console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for tables where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


class _Errors:
    """Errors as messages: no traceback for what users can mend."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, typer.Exit) or flags.debug():
            return
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(_INTERRUPTED) from None
        if isinstance(error, BrokenPipeError):
            # Who read our output has read enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_OK) from None
        if not isinstance(error, Exception):
            return
        self.report(error)
        raise typer.Exit(_USAGE if isinstance(error, UsageError) else _FAILED) from None

    def report(self, error: Exception) -> None:
        """Print an error: what is wrong, where, what to do."""
        expected = isinstance(error, _OF_USERS)
        text = str(error) or type(error).__name__
        if not expected:
            text = f"{type(error).__name__}: {text}\n  help: this is a fault of transect's own;"
            text += " TRANSECT_DEBUG=1 shows where it happened"
        if self.as_json:
            record: dict[str, Any] = {"type": type(error).__name__, "text": text}
            if isinstance(error, TransectError):
                record |= {
                    "message": error.message,
                    "notes": list(error.notes),
                    "remedy": error.remedy,
                }
            sys.stdout.write(json.dumps({"error": record}, indent=1) + "\n")
        else:
            console = Console(stderr=True, highlight=False, soft_wrap=True)
            console.print(f"[bold red]error:[/] {escape(text)}")
