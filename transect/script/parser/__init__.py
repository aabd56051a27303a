"""Script text to IR: source and spans, evaluation of Python expressions, the dialects' statements."""
