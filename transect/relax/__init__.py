"""Graph programs: operators, bindings, dataflow blocks, functions, their verifier and interpreter."""
