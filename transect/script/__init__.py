"""TVMScript: the parser and the printer of T, R and I.

    from transect.script import ir as I, relax as R, tir as T

are the names that programs are written with.
"""

from transect.ir import printing
from transect.script.printer.entry import script

printing.install(script)

__all__ = ["script"]
