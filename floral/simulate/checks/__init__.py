"""What must fit before a simulator is compiled, each misfit in one sentence."""
