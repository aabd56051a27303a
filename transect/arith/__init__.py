"""Simplification, bounds, iteration maps and proofs over integer terms."""
