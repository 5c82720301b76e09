"""The batches of a training: the order of the tiles, loading by workers, and one whose loss is not finite."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from tmcnet.errors import TrainingError
from tmcnet.seeding import generator
from tmcnet.train.distributed import processes, rank
from tmcnet.train.interruption import ignore_signals

Batch = TypeVar("Batch")


def indices_of_step(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the indices, out of n, of the items in the batch of a step (counted from 0).

    Items are shuffled every epoch, and the incomplete batch at its end is dropped. If there are fewer items than a
    batch needs, whole shuffles are concatenated.
    """
    if n >= batch_size:
        epoch, place = divmod(step, n // batch_size)
        order = _order_of_epoch(n, seed, epoch)
        return [int(i) for i in order[place * batch_size : (place + 1) * batch_size]]
    shuffles = generator(seed, "order", step)
    items: list[int] = []
    while len(items) < batch_size:
        items += [int(i) for i in shuffles.permutation(n)]
    return items[:batch_size]


@lru_cache(maxsize=1)  # shuffling a million items takes 30 ms
def _order_of_epoch(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return generator(seed, "order", epoch).permutation(n)


def step_loader(build: Callable[[int], Batch], steps: int, first: int, workers: int) -> DataLoader[Batch]:
    """Return a loader of the batches of the steps first, ..., steps - 1, in this order.

    `build` makes the batch of a step; it is a pure function. `workers` processes call it; 0: this one does.
    """
    # any sequence is a dataset, and without batching each item is "collated" alone
    wanted: Any = range(first, steps)
    make: Any = build
    return DataLoader(wanted, None, num_workers=workers, collate_fn=make, worker_init_fn=ignore_signals)


def map_tensors(batch: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:  # noqa: ANN401
    """Return a batch with each tensor replaced by `change(its name, tensor)`.

    A batch is a tensor, or a mapping, list or (named) tuple of such; anything else is kept. Names are those of fields
    and keys, or places counted from 1, one after the other; a mapping adds its keys only.
    """
    if isinstance(batch, Tensor):
        return change(name, batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(part, change, f"{name}{key}") for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        fields = getattr(batch, "_fields", range(1, len(batch) + 1))
        named = [
            ("" if isinstance(part, Mapping) else field, part) for field, part in zip(fields, batch, strict=True)
        ]
        parts = [map_tensors(part, change, f"{name}{field}") for field, part in named]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def check_finite(loss: Tensor, batch: object, step: int, state: Path) -> None:
    """Stop before a non-finite loss reaches the weights, and save its batch and the names of its tiles.

    Processes that train together stop together, and each saves its share of the batch in the folder `state`.

    Raises:
        TrainingError: If the loss of any process is not finite.
    """
    several = processes() > 1
    non_finite = (~torch.isfinite(loss.detach())).float()
    if several:
        dist.all_reduce(non_finite)
    if not non_finite:
        return
    share = f"_process_{rank()}" if several else ""
    file = state / f"not_finite_step_{step}{share}.safetensors"
    state.mkdir(parents=True, exist_ok=True)
    tiles = getattr(batch, "names", [])
    file.with_suffix(".json").write_text(json.dumps({"step": step, "tiles": list(tiles)}, indent=1))
    tensors: dict[str, Tensor] = {}
    map_tensors(batch, tensors.setdefault)
    save_file({name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}, file)
    if several:
        dist.barrier()  # the first process that ends ends the others
    raise TrainingError(
        f"the loss of step {step} is {float(loss.detach())}; its batch is in {file}, and the names of its tiles "
        "are in the .json file beside it. Check their values, or lower the learning rate."
    )
