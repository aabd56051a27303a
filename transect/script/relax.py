"""The names of R."""
