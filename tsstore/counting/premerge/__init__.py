"""Merging records early: within samples, hot keys, direct tables."""
