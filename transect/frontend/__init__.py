"""Importers of models from other frameworks, one folder each."""
