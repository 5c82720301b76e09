"""The batches of a training: the order of the tiles, loading by workers, and the move to a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tmcnet.seeding import generator
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


class _Steps(Dataset[Batch]):
    def __init__(self, build: Callable[[int], Batch]) -> None:
        self.build = build

    def __getitem__(self, step: int) -> Batch:
        return self.build(step)


def step_loader(build: Callable[[int], Batch], steps: int, first: int, workers: int) -> DataLoader[Batch]:
    """Return a loader of the batches of the steps first, ..., steps - 1, in this order.

    `build` makes the batch of a step; it is a pure function. `workers` processes call it; 0: this one does.
    """
    wanted = range(first, steps)
    return DataLoader(_Steps(build), None, sampler=wanted, num_workers=workers, worker_init_fn=ignore_signals)


def move(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401 - any nesting of containers
    """Move the tensors of a batch to a device; floating-point ones get a type.

    A batch is a tensor, or a mapping, list or (named) tuple of such; anything else is kept.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else None)
    if isinstance(batch, Mapping):
        return {name: move(part, device, dtype) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [move(part, device, dtype) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
