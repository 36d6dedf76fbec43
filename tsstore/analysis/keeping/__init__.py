"""Analyses on disk: saved, loaded again bit for bit, found again where they were asked before."""
