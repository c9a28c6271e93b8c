"""What a run keeps on disk, written and read back: numbers, states, and where they come from."""
