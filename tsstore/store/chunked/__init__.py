"""One array: its chunks and shards, read and written."""
