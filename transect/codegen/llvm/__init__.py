"""PrimFunc -> LLVM IR text -> object code -> loaded machine code, for the host and CPU kernels.

Expects functions that `tir.transform.lowering` has lowered: flat buffers, no blocks.
"""
