"""Script text to IR: sources and spans, Python expressions, the dialects' statements."""
