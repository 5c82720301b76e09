"""Several processes that train one network together: how they are started, and how their errors come back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from tmcnet.errors import InputError, Problem, TrainingError
from tmcnet.model.tmcnet import Pair

MEETING = "meeting"
"""File through which the processes find each other; unlike a port it is never taken by another job."""


def processes() -> int:
    """Number of processes that train together; 1 outside of a distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among those that train together, from 0; the first one writes all files."""
    return dist.get_rank() if processes() > 1 else 0


def wait_for_all() -> None:
    """Go on when all processes have come this far."""
    if processes() > 1:
        dist.barrier()


def run_in_processes(function: Callable[[], None], count: int, gpu: bool) -> None:
    """Run a function in several new processes that can talk to each other, and wait for their end.

    They are spawned, since forks of a process that has used threads or a GPU may hang: a script that gets here does
    so below `if __name__ == "__main__"`. They end when this process is killed.

    Args:
        function: What each runs; it can be pickled.
        count: Number of processes.
        gpu: Each has a GPU of its own, and they talk by NCCL; else by Gloo.

    Raises:
        InputError: If there are fewer GPUs than processes, or a process found wrong input.
        TrainingError: If a process could not go on.
        OSError: If a process could not read or write.
    """
    if gpu and torch.cuda.device_count() < count:
        what = f"asks for {count} GPUs; there are {torch.cuda.device_count()}"
        raise InputError(Problem("`compute.devices`", what, "Lower it, or set `compute.accelerator: cpu`."))
    with tempfile.TemporaryDirectory() as folder:
        try:
            start_processes(_enter, (function, count, gpu, folder), count)  # type: ignore[no-untyped-call]
        except ProcessExitedException as error:
            told = [_read(file) for file in sorted(Path(folder).glob("*.json"))]
            if told:
                raise told[0] from None
            raise TrainingError(f"a training process ended before its time: {error}") from None


def _enter(number: int, function: Callable[[], None], count: int, gpu: bool, folder: str) -> None:
    """What a new process does: meet the others, work, and leave a note of what went wrong."""
    Thread(target=_end_with_parent, daemon=True).start()
    # Lightning takes it for a sign that the processes are there already.
    os.environ["LOCAL_RANK"] = str(number)
    if gpu:
        torch.cuda.set_device(number)
    meeting = f"file://{folder}/{MEETING}"
    dist.init_process_group("nccl" if gpu else "gloo", init_method=meeting, rank=number, world_size=count)
    try:
        function()
    except (InputError, TrainingError, OSError) as error:
        # Before this process ends: the others fail as soon as they miss it, and theirs is not the reason.
        (Path(folder) / f"{number}.json").write_text(json.dumps(_note(error)))
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    dist.destroy_process_group()


def _end_with_parent() -> None:
    # The signal that torch asks for when the parent is killed is ignored in whatever a shell runs in the background.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _note(error: InputError | TrainingError | OSError) -> dict[str, Any]:
    if isinstance(error, InputError):
        return {"problems": [[problem.where, problem.what, problem.remedy] for problem in error.problems]}
    if isinstance(error, TrainingError):
        return {"training": str(error)}
    return {"file": [error.errno, error.strerror, error.filename]}


def _read(file: Path) -> InputError | TrainingError | OSError:
    note = json.loads(file.read_text())
    if "problems" in note:
        return InputError(Problem(*problem) for problem in note["problems"])
    return TrainingError(note["training"]) if "training" in note else OSError(*note["file"])


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
