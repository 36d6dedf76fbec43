"""Batches: rows of all layers, sample columns, masks."""
