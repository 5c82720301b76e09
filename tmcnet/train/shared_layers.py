"""Layers that act in several processes as they would in one that sees the whole batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.train.gather import gather
from tmcnet.train.processes import processes, rank


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm by the mean and the variance of the images of all processes, each of which holds as many.

    For CPUs: `torch.nn.SyncBatchNorm` takes tensors on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x H x W; in evaluation by the running statistics, as every batch norm."""
        if not self.training:
            return super().forward(x)
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        own_variance, own_mean = torch.var_mean(values, (0, 2, 3), correction=0)
        means, variances = gather(torch.stack([own_mean, own_variance])).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._follow(mean.detach(), variance.detach(), processes() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], values, scale[:, None, None]).to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of the batch; of the variance the unbiased one, as torch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)


class SharedDropout(nn.Dropout):
    """Dropout of what one process would drop of this process's rows, had it seen the whole batch.

    All processes draw for the whole batch, from generators that stand alike, and each takes its part.

    Args:
        p: Share of the values that is dropped.
        tiles: Tiles of each process. The rows of an input are those of its tiles, once or several times over (views,
            sensors); process r holds tiles r * `tiles` to (r + 1) * `tiles` of the batch.
    """

    def __init__(self, p: float, tiles: int) -> None:
        super().__init__(p)
        self.tiles = tiles

    def forward(self, x: Tensor) -> Tensor:
        """Drop from rows x ...; nothing in evaluation."""
        if not self.training or self.p == 0:
            return x
        # Memory laid out as that of the input, in whose order the values are drawn.
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        shape = (processes() * len(x), *x.shape[1:])
        whole = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout).fill_(1)
        kept = F.dropout(whole, self.p).view(-1, processes(), self.tiles, *x.shape[1:])
        return x * kept[:, rank()].flatten(0, 1)


def share_layers(network: nn.Module, tiles: int, gpu: bool) -> None:
    """Put layers that act on the whole batch in place of a network's batch norms and dropouts; tensors keep names.

    Args:
        network: What is trained by all processes.
        tiles: Tiles of each process.
        gpu: Whether it is trained on GPUs, where torch's own batch norm is faster.
    """
    if gpu:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, SharedDropout(child.p, tiles))
            elif isinstance(child, nn.BatchNorm2d) and not gpu:
                setattr(parent, name, _shared(child))


def _shared(norm: nn.BatchNorm2d) -> SharedBatchNorm:
    shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared
