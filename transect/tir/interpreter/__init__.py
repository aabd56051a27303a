"""The parts of the numpy interpreter of tensor programs; its public face is `tir.interpret`.

A PrimFunc is compiled, for one set of sizes, to Python closures over numpy. A loop whose iterations
are proved independent becomes an axis of a grid and runs in lockstep; all others run in order.
"""
