"""Processes that train one network: their number, gathered rows, and layers over the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.errors import InputError, Problem
from tmcnet.model.tmcnet import Pair

T = TypeVar("T")


def processes() -> int:
    """Return the number of processes that train together; 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process; rank 0 writes all files."""
    return dist.get_rank() if processes() > 1 else 0


def from_first(make: Callable[[], T]) -> T:
    """Call a function in the first process and return its result, which can be pickled, in all of them."""
    shared = [make()] if rank() == 0 else [None]
    if processes() > 1:
        dist.broadcast_object_list(shared)
    return cast(T, shared[0])


def share_of_batch(key: str, batch_size: int) -> range:
    """Return the rows of a whole batch that this process computes; InputError about `key` if there is a rest."""
    shares = processes()
    if batch_size % shares:
        what = f"is {batch_size}, which {shares} processes cannot share evenly"
        raise InputError(Problem(f"`{key}`", what, f"Make it a multiple of {shares}."))
    own = batch_size // shares
    return range(rank() * own, (rank() + 1) * own)


class _AllGather(torch.autograd.Function):
    """All-gather along the first dimension, with gradient; torch's own is deprecated."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch gives it no public type
        parts = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, ARG004 - torch's
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(processes())[rank()]


def gather(own: Tensor) -> Tensor:
    """Return the rows of all processes by rank, (processes * N) x ..., from N x ... of each.

    Every process computes the loss of all rows, so a row gets its gradient once from each process; the mean that
    `DistributedDataParallel` takes over processes makes it that of one process with the whole batch.
    """
    if processes() == 1:
        return own
    rows: Tensor = _AllGather.apply(own.contiguous())  # type: ignore[no-untyped-call]
    return rows


def gather_rows(embeddings: Mapping[str, Pair]) -> dict[str, Pair]:
    """Return the rows of all processes, (processes * N) x C, from N x C of views 1 and 2 of each input."""
    return {name: (gather(one), gather(two)) for name, (one, two) in embeddings.items()}


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, which have equally many; for CPUs, as SyncBatchNorm needs GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x H x W."""
        if not self.training:
            return super().forward(x)
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        own = torch.stack(torch.var_mean(values, (0, 2, 3), correction=0))
        variances, means = gather(own[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        count = processes() * x.numel() // x.shape[1]
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        with torch.no_grad():  # the running variance is unbiased, as in torch
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], values, scale[:, None, None]).to(x.dtype)


class SharedDropout(nn.Dropout):
    """Dropout with probability `p`, equal to that of one process with the whole batch.

    All processes draw the mask of the whole batch from equal generator states, and each uses its part: process r
    holds tiles r * `tiles` to (r + 1) * `tiles`. An input has rows for these tiles, once for each view and sensor.
    """

    def __init__(self, p: float, tiles: int) -> None:
        super().__init__(p)
        self.tiles = tiles

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of rows x ...; in evaluation mode the identity."""
        if not self.training or self.p == 0:
            return x
        # As `cat` keeps the memory layout, in which values are drawn, it is that of one process.
        whole = torch.ones_like(torch.cat([x.detach()] * processes()))
        kept = F.dropout(whole, self.p).view(-1, processes(), self.tiles, *x.shape[1:])
        return x * kept[:, rank()].flatten(0, 1)


def share_layers(network: nn.Module, tiles: int, gpu: bool) -> None:
    """Turn batch norms and dropouts into layers over the whole batch, of which each process has `tiles`.

    Tensors keep their names. On GPUs batch norms become torch's `SyncBatchNorm`, which needs them.
    """
    if gpu:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, SharedDropout(child.p, tiles))
            elif isinstance(child, nn.BatchNorm2d) and not gpu:
                child.__class__ = SharedBatchNorm  # with the same settings and tensors
