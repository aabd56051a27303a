"""Running compiled models: tensors, packed functions, CompiledModel. Needs no compiler."""
