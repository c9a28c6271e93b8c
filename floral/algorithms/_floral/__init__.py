"""FLoRAL in parts: the factory, a client, and the server."""
