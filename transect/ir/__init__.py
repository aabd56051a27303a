"""Data types, terms (scalar expressions, shapes, types), functions, IRModule, structural equality.

What a tensor program or a graph is made of lives in `tir` and `relax`.
"""
