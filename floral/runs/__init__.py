"""Runs: methods are trained, evaluated and saved, and go on where they stopped."""
