"""TVMScript: the parser and the printer of T, R and I."""
