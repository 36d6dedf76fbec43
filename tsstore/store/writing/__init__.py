"""Writing one part of a run: batches, commits, seals, and going on with a run."""
