"""Reading a run: parts, layers, ids, as far as they are committed."""
