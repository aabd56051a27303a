"""compile(): the whole pipeline, in order."""
