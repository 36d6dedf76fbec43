"""The Dask graph of a count: blocks, exchange, partitions."""
