"""Configs: text becomes a checked mapping, a checked mapping becomes the parts of an experiment."""
