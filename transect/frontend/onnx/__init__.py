"""ONNX models: a file or a ModelProto in, an IRModule of one graph function `main` out.

Imports nothing, so that `wire` costs a compile that is in the cache no import of onnx.
"""
