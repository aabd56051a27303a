"""`python -m transect.cli`."""

from transect.cli import main

main()
