"""TVMScript: the parser and the printer of T, R and I.

    from transect.script import ir as I, relax as R, tir as T

are the names that programs are written with.
"""

from transect.ir import printing
from transect.script.constants import load_constants, save_constants
from transect.script.printer.entry import script
from transect.script.text import from_source, parse, parse_file

printing.install(script)

__all__ = ["from_source", "load_constants", "parse", "parse_file", "save_constants", "script"]
