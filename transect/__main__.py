"""`python -m transect`: the command line."""

from transect.cli import main

main()
