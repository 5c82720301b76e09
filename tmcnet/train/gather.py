"""Embeddings of all processes of a distributed training: each place has those of the others as negatives too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """Number of processes that train together; 1 outside of a distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllRows(torch.autograd.Function):
    """Tensors of all processes along a new first dimension; torch has one too, but deprecated."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch gives it no public type
        parts = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch's
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def gather_rows(embeddings: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of their ranks; the same on each of them.

    The gradient flows back to the process a row came from. Every process then computes the loss of all rows, so a row
    gets its gradient once from each process; the mean over processes that `DistributedDataParallel` takes of the
    gradients of weights makes it that of the loss itself, as if one process had seen the whole batch.

    Batch norm is not part of this: it sees the images of its own process unless it is made a `SyncBatchNorm`, which
    torch has for GPUs only.

    Args:
        embeddings: Embeddings of views and sensors, each N x C, with the same N in all processes.

    Returns:
        As many, each (processes * N) x C; the embeddings themselves where there is one process.
    """
    if processes() == 1:
        return tuple(embeddings)
    rows: Tensor = _AllRows.apply(torch.stack(list(embeddings)))  # type: ignore[no-untyped-call]  # one message for all
    return rows.transpose(0, 1).flatten(1, 2).unbind()
