"""What a round takes of a machine: how clients are executed, memory, operations, bytes."""
