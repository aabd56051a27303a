"""Graph programs: operators, bindings, dataflow blocks, functions, verifier, interpreter."""
