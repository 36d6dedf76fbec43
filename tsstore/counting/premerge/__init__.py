"""Counting rows before they become records: hot keys, direct tables."""
