"""The command line: `transect run`, `bench`, `show`, `explain`, `compile`, `check` and so on.

`app` declares the commands; each is carried out by the file of its name, loaded when it runs. What
a command finds is an `Outcome`: JSON data with documented keys, and the same for people.
"""

from transect.cli.app import main

__all__ = ["main"]
