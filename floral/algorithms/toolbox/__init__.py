"""What methods are made of: local training, uploads, guarded server steps, roles of parts."""
