"""The tables that count a partition."""
