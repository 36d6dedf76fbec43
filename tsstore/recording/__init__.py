"""Recording states from a PyTorch model: hooks, batches, a background writer. Needs torch."""
