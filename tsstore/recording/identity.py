"""Which process of a job this is, and which model: what a resumed run is told apart by."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from dataclasses import dataclass
from numbers import Integral
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tsstore.errors import CaptureError
from tsstore.recording.selection.select import unwrapped

_Named = tuple[str, object]
"""A value, and what it is called where it comes from."""

_RANK_VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    # Within an srun step only: a plain batch script is one process, whatever SLURM_NTASKS says.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
_RUN_ID_VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Job:
    """One process of a job."""

    rank: int = 0
    world_size: int = 1
    run_id: str | None = None


def find_job(
    rank: int | None = None, world_size: int | None = None, run_id: str | None = None
) -> Job:
    """Return which process this is; what is given wins over what is found.

    Rank and world size are looked for in torch.distributed, where it is initialized, then in the
    environment variables of torchrun, of a Slurm step and of Open MPI; else the process is alone.
    The run id is looked for in ``TORCHELASTIC_RUN_ID`` and ``SLURM_JOB_ID``. Where there is none,
    rank 0 of torch.distributed makes one up and broadcasts it, so that all ranks must ask together;
    not where a rank or world size was given, which the group need not share.
    """
    given = ("rank", rank), ("world_size", world_size)
    found = given if None not in (rank, world_size) else _find_rank()
    number, size = _checked(
        *(theirs if mine[1] is None else mine for mine, theirs in zip(given, found, strict=True))
    )
    alone = size == 1 or not (rank is None and world_size is None)
    return Job(number, size, _find_run_id(run_id, size, None if alone else _distributed()))


def _find_rank() -> tuple[_Named, _Named]:
    if distributed := _distributed():
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        return ("torch.distributed's rank", rank), ("its world size", world_size)
    for variables in _RANK_VARIABLES:
        if all(os.environ.get(variable) for variable in variables):
            first, second = variables
            return (first, os.environ[first]), (second, os.environ[second])
    return ("rank", 0), ("world_size", 1)


def _distributed() -> ModuleType | None:
    """Return torch.distributed if it is initialized; torch may have been built without it."""
    module = sys.modules.get("torch.distributed")
    return module if module and module.is_available() and module.is_initialized() else None


def _checked(rank: _Named, world_size: _Named) -> tuple[int, int]:
    number, size = _integer(*rank), _integer(*world_size)
    if not 0 <= number < size:
        raise CaptureError(
            f"{rank[0]} is {number} and {world_size[0]} is {size}; expected a rank from 0 to one "
            "less than the number of processes: pass rank= and world_size="
        )
    return number, size


def _integer(name: str, value: object) -> int:
    try:
        if isinstance(value, str) or (isinstance(value, Integral) and not isinstance(value, bool)):
            return int(value)
    except ValueError:
        pass
    raise CaptureError(f"{name} is {value!r:.80}; expected an integer: pass rank= and world_size=")


def _find_run_id(given: object, world_size: int, distributed: ModuleType | None) -> str | None:
    if given is not None:
        if not isinstance(given, str) or not given:
            raise CaptureError(f"run_id is {given!r:.80}; expected text, the same in all processes")
        return given
    for variable in _RUN_ID_VARIABLES:
        # torchrun without a rendezvous calls every job "none".
        if (value := os.environ.get(variable, "")) not in ("", "none"):
            return value
    if world_size == 1:
        return None
    if distributed is None:
        raise CaptureError(
            f"{world_size} processes write one run, but none of {', '.join(_RUN_ID_VARIABLES)} "
            "names it; pass run_id=, the same text in all of them and another one for each job"
        )
    return _broadcast(distributed)


def _broadcast(distributed: ModuleType) -> str:
    """Return what rank 0 has made up; the other ranks wait for it."""
    held = [uuid.uuid4().hex if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(held, src=0)
    return str(held[0])


SAMPLE = 64
"""Values of each parameter that are hashed at most, evenly spread."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Return a model's class, its number of parameters, and a hash.

    The hash covers the names, shapes and dtypes of all parameters and buffers, and a fixed sample
    of the values of each. Wrappers of the model change nothing; what has no shape yet does not
    count, nor do values that are spread over several processes, or sparse, or quantized.
    """
    model = unwrapped(model)
    digest = hashlib.sha256()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and not is_lazy(tensor):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_sample(tensor))
    known = [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in known),
        "sha256": digest.hexdigest(),
    }


def _sample(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach()
    dense = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
    # Of a subclass, as of a tensor that is spread over processes, values may not be at hand.
    if not dense or type(tensor.data) is not torch.Tensor or not tensor.numel():
        return b""
    every = -(-tensor.numel() // SAMPLE)
    values = tensor.reshape(-1)[::every].cpu().resolve_conj().resolve_neg().contiguous()
    return values.view(torch.uint8).numpy().tobytes()
