"""A page on a run: which layers use their neurons, how sure that is, and what to do next."""
