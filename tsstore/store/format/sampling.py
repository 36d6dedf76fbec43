"""What a layer says was left out on purpose: checked where a store is opened."""

from __future__ import annotations

from typing import Any

from tsstore.errors import FormatError
from tsstore.store.format.documents import mapping, number, real

_LEAST = {"positions": 1, "seed": 0, "every": 1, "max_bytes": 1}


def check_sampling(value: object, where: str) -> dict[str, Any]:
    """Return what was left out; entries that this version does not know may be anything.

    Raises
    ------
    FormatError
        If one that it knows is no whole number; `positions` may be a share as well.
    """
    said = mapping(value, "sampling", where)
    for name, least in _LEAST.items():
        if name == "positions" and isinstance(said.get(name), float):
            if not 0 < real(said[name], "sampling.positions", where) < 1:
                raise FormatError(
                    f"{where}: sampling.positions is {said[name]!r:.80}; expected a whole number "
                    "of at least 1, or a share between 0 and 1"
                )
        elif name in said:
            number(said[name], f"sampling.{name}", where, least, (1 << 64) - 1)
    return said
