"""What is shown at which step: a function of the seed and the step alone.

Where a step takes several batches, they are counted in place of the steps.

So a resumed run sees what an unbroken one would have seen, and the number of worker processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tmcnet.seeding import generator

Batch = TypeVar("Batch")


def indices_of_step(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which of n items make up the batch of a step.

    Items are shuffled anew each epoch. No item comes twice in a batch, and the items left over at the end of an
    epoch are dropped, unless there are fewer items than a batch needs: then whole shuffles are strung together.

    Args:
        n: Number of items.
        batch_size: Items in a batch.
        seed: The run's own seed.
        step: Step, counted from 0.
    """
    if n >= batch_size:
        epoch, place = divmod(step, n // batch_size)
        order = generator(seed, "order", epoch).permutation(n)
        return [int(i) for i in order[place * batch_size : (place + 1) * batch_size]]
    shuffles = generator(seed, "order", step)
    items: list[int] = []
    while len(items) < batch_size:
        items += [int(i) for i in shuffles.permutation(n)]
    return items[:batch_size]


class StepStream(IterableDataset[Batch]):
    """The batches of the steps first, first + 1, ..., steps - 1, built on demand.

    Args:
        build: Makes the batch of a step, counted from 0; a pure function of the step.
        steps: Number of steps in all.
        first: First step to build.
    """

    def __init__(self, build: Callable[[int], Batch], steps: int, first: int = 0) -> None:
        self.build, self.steps, self.first = build, steps, first

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first + number, self.steps, count):
            yield self.build(step)


def step_loader(build: Callable[[int], Batch], steps: int, first: int, workers: int) -> DataLoader[Batch]:
    """A loader of ready batches in step order; `workers` processes build them, 0 for none beside this one."""
    return DataLoader(StepStream(build, steps, first), batch_size=None, num_workers=workers)
