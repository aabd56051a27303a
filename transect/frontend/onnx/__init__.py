"""ONNX models: a file or a ModelProto in, an IRModule of one graph function `main` out."""

from transect.frontend.onnx.frontend import OnnxFrontend

__all__ = ["OnnxFrontend"]
