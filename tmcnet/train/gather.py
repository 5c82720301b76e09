"""Rows of all processes of a distributed training: each place has those of the others as negatives too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tmcnet.model.tmcnet import Pair
from tmcnet.train.processes import processes, rank


class _AllOf(torch.autograd.Function):
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
        return total[rank()]


def gather(own: Tensor) -> Tensor:
    """The tensors of all processes, in the order of their ranks, along a new first dimension; the same on each.

    The gradient flows back to the process a tensor came from. Every process computes the loss of all rows, so a
    tensor gets its gradient once from each process; the mean over processes that `DistributedDataParallel` takes of
    the gradients of weights makes it that of the loss itself, as if one process had seen the whole batch.

    Args:
        own: A contiguous tensor, of the same shape in all processes.

    Returns:
        processes x the shape of `own`.
    """
    found: Tensor = _AllOf.apply(own)  # type: ignore[no-untyped-call]
    return found


def gather_rows(embeddings: Mapping[str, Pair]) -> dict[str, Pair]:
    """The rows of all processes, in the order of their ranks; the same on each of them.

    Args:
        embeddings: Views 1 and 2 of each input by name, each N x C, with the same N in all processes.

    Returns:
        The same with (processes * N) x C; the embeddings themselves where there is one process.
    """
    if processes() == 1:
        return dict(embeddings)
    rows = gather(torch.stack([view for pair in embeddings.values() for view in pair]))  # one message for all
    views = rows.transpose(0, 1).flatten(1, 2).unbind()
    return dict(zip(embeddings, zip(views[::2], views[1::2], strict=True), strict=True))
