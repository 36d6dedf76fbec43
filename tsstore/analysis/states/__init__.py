"""The distinct states themselves, and tables of them."""
