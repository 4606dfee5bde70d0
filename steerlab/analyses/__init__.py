"""Analyses of what a steer has learnt: pure functions of its matrices, the output embeddings and cached states."""
