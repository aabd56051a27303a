"""The import contracts of the rooms, as contract types of import-linter.

What the rooms are and in which order stands in pyproject.toml, nowhere else.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

PROJECT = Path(__file__).resolve().parents[1]

# "transect.driver:compile", and nothing around it: how every registry table names what it loads.
# A module alone, "transect.driver", counts if there is one: names with dots have other uses too.
_LOADER = re.compile(r"(transect(?:\.[A-Za-z_]\w*)+)(:[A-Za-z_][\w.]*)?")


class Rooms:
    """The rooms, highest first, and the question whether one module may import another.

    A module belongs to the room with the longest matching name. `only` holds lines
    "room -> room, room" for rooms that may use fewer rooms than all below them.
    """

    def __init__(self, rooms: Sequence[str], only: Sequence[str] = ()) -> None:
        self.rank = {room: height for height, room in enumerate(reversed(rooms))}
        self.only: dict[str, set[str]] = {}
        for line in only:
            room, _, below = line.partition("->")
            names = {name.strip() for name in below.split(",")}
            for name in (room.strip(), *names):
                if name not in self.rank:
                    raise ValueError(f"`only` names {name!r}, which is not in `rooms`")
            self.only[room.strip()] = names

    @classmethod
    def of_project(cls) -> "Rooms":
        """The rooms as pyproject.toml gives them."""
        settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
        contracts = settings["tool"]["importlinter"]["contracts"]
        (contract,) = (each for each in contracts if each["type"] == "rooms")
        return cls(contract["rooms"], contract["only"])

    def room_of(self, module: str) -> str | None:
        """The room of `module`, None if it is in none."""
        while module not in self.rank:
            module, dot, _ = module.rpartition(".")
            if not dot:
                return None
        return module

    def complaint(self, importer: str, imported: str) -> str | None:
        """Why `importer` may not import `imported`, None if it may."""
        above = self.room_of(importer)
        below = self.room_of(imported)
        if above is None or above == below:
            return None  # The top package may import all; a stray module is reported on its own.
        if below is None:
            return f"{imported} is above all rooms"
        if self.rank[below] > self.rank[above]:
            return f"room {below} is above room {above}"
        if below not in self.only.get(above, {below}):
            return f"room {above} may import only {', '.join(sorted(self.only[above]))}"
        return None


def string_loaders(package: Path) -> Iterator[tuple[str, str, str]]:
    """All lazy loaders of the modules of `package`: (module, target module, "file:line").

    A loader is a string constant that is an absolute dotted name of ours, as in the registry
    tables `name -> "transect.relax.op.nn:Softmax"`. Docstrings never match: they hold more.
    """
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                match = _LOADER.fullmatch(node.value)
                if match and (match[2] or _is_module(package.parent, match[1])):
                    where = f"{file.relative_to(package.parent)}:{node.lineno}"
                    yield module, match[1], where


def _is_module(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _lines(graph: ImportGraph, importer: str, imported: str) -> str:
    details = graph.get_import_details(importer=importer, imported=imported)
    return ", ".join(str(line) for line in sorted({each["line_number"] for each in details}))


class _ListingContract(Contract):
    """A contract whose breach is a list of lines to print."""

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["complaints"]:
            output.print_error(f"- {line}", bold=False)
        output.new_line()


class RoomsContract(_ListingContract):
    """A module imports only from its own room and from rooms further down the list.

    Every module belongs to exactly one room and the rooms are in one order, so checking direct
    imports settles indirect ones too. Rooms that do not exist yet are allowed.
    """

    type_name = "rooms"

    rooms: Any = fields.ListField(subfield=fields.StringField())
    only: Any = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        rooms = Rooms(self.rooms, self.only)
        (root,) = {room.partition(".")[0] for room in self.rooms}
        ours = sorted({root} | graph.find_descendants(root))
        complaints = [
            f"{module} is in no room: add its room to pyproject.toml, or move it"
            for module in ours
            if module != root and rooms.room_of(module) is None
        ]
        for importer in ours:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                if imported.partition(".")[0] != root:
                    continue
                complaint = rooms.complaint(importer, imported)
                if complaint:
                    lines = _lines(graph, importer, imported)
                    complaints.append(f"{importer} -> {imported} (l.{lines}): {complaint}")
        return ContractCheck(kept=not complaints, metadata={"complaints": complaints})


class ExternalsContract(_ListingContract):
    """The given rooms import the standard library, `allowed`, and nothing else foreign."""

    type_name = "externals"

    rooms: Any = fields.ListField(subfield=fields.StringField())
    allowed: Any = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        roots = {room.partition(".")[0] for room in self.rooms}
        allowed = roots | set(self.allowed) | set(sys.stdlib_module_names)
        complaints: list[str] = []
        for room in self.rooms:
            if room not in graph.modules:
                continue
            for importer in sorted({room} | graph.find_descendants(room)):
                for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                    if imported.partition(".")[0] not in allowed:
                        lines = _lines(graph, importer, imported)
                        complaints.append(f"{importer} -> {imported} (l.{lines}): not allowed here")
        return ContractCheck(kept=not complaints, metadata={"complaints": complaints})
