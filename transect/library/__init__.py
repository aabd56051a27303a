"""One file per library: what it can do and how it is called."""
