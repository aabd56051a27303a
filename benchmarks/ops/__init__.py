"""Operators beside torch, oneDNN, ONNX Runtime and OpenBLAS: see `__main__`."""
