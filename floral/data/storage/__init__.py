"""Populations larger than memory: mapped from files, made when read, laid out flat."""
