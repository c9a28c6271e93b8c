"""Experiments: a config becomes parts, parts become a run folder."""
