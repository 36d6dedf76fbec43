"""How the loops of this room are compiled."""

from __future__ import annotations

from tsstore.compiling import compiled

kernel = compiled(nogil=True, _nrt=False)
"""Compile a function of arrays and numbers that allocates nothing, without the lock of Python.

Kernels call small functions for each row. Numba would count a reference to each array in each
of these calls, with atomic instructions that take longer than all the rest, and cannot always
leave that out where there is a branch; what allocates nothing needs no counting. See
https://github.com/numba/numba/issues/2345.
"""

inlined = compiled(nogil=True, _nrt=False, forceinline=True)
"""Compile a small function that kernels call for each row, into each of them.

An array is seven numbers to whom it is passed: a call that LLVM does not inline of its own accord
takes longer than what these functions do.
"""
