"""Tensor programs: buffers, blocks, loops, PrimFunc, their verifier and reference interpreter."""
