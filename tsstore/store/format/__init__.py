"""Format 1: its documents, attributes, paths and commit records, and their validation."""
