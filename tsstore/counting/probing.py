"""What the hash tables of this room have in common: open addressing, at most half full.

A key's search begins at the slot that the *low* bits of its hash name and goes on to the next
until the key or an empty slot is found. Partitions and passes take the *top* bits, so that keys
of one partition spread over a table as evenly as any others.
"""

from __future__ import annotations

from typing import Final

#: No search in a table of mixed keys at most half full comes near this many slots.
PROBE_LIMIT: Final = 4096

LONG_PROBE: Final = (
    "a hash table was searched for more than 4096 slots, where a few dozen are expected: the hash "
    "was attacked by crafted states or the key scheme is broken; analyse again with another seed"
)


def slots_for(keys: int) -> int:
    """Return the smallest power of two, at least 2, of which `keys` fill no more than half."""
    return 1 << (2 * max(keys, 1) - 1).bit_length()
