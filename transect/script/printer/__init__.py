"""IR to script text: names, scalar expressions, statements, functions, types, graph values, modules."""
