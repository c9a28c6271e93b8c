"""Several processes of one run: they are launched, join, and agree on what only the host knows."""
