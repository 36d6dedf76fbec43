"""Tensors to rows, on the device where they are."""
