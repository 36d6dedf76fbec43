"""An example input: what a model is called with, as the user gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments and keyword arguments that an example input stands for.

    Parameters
    ----------
    example
        A batch, a tuple of arguments, or a mapping of keyword arguments, as a tokenizer gives it.
        A model whose one argument is a mapping has the example ``(mapping,)``.
    """
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    return (example if isinstance(example, tuple) else (example,)), {}
