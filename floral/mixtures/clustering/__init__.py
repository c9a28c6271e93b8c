"""Clustering of clients by statistics of their data: features, directions, cells, mixtures."""
