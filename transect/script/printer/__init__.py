"""IR to script text: names, expressions, statements, functions, types, graph values, modules."""
