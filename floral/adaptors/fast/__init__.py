"""The factored path: a model with its bank, computed without building the personal weights."""
