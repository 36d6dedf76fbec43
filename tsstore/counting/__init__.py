"""Exact counting: arrays in, arrays out. Knows no Zarr, no Dask, no torch."""
