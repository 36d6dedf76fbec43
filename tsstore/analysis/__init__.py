"""Evaluating a store: the plan, the Dask graph, the results."""
