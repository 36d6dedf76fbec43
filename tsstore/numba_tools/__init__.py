"""What kernels are made with: decorators, and operations that Numba lacks."""
