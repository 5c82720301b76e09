"""Processes that train one network: how they start and stop, and what they share.

torchrun starts them, on several nodes with Slurm's `srun` in front of it; each runs this module,
`python -m tmcnet.train.distributed JOB`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import TypeAdapter, validate_call
from torch import Tensor, nn

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError, TrainingError
from tmcnet.model.tmcnet import Pair

T = TypeVar("T")
JOB = "job.json"
ERRORS = "error_of_process_*.json"
MAX_WAIT = timedelta(hours=6)
"""Longest time that processes wait for each other, as while the first one scores the network."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM: time limit, cancellation, pre-emption. SIGUSR1: an earlier warning, as of `sbatch --signal=USR1@120`."""
PASSED_ON = (InputError, TrainingError, StoppedError, OSError)
"""Errors of a process that `launch` raises, too."""


def launch(
    function: Callable[..., None], arguments: Sequence[Any], compute: ComputeConfig, threads: int, folder: Path
) -> None:
    """Call a function in this process, or in `nodes` x `devices` processes of one process group.

    They end when this process ends, however that happens, and save their state when it receives SIGTERM or SIGUSR1.
    They get the arguments as JSON, converted to the annotated types. The `folder`, for the job and its errors, is on
    a file system that all nodes share.

    Raises:
        InputError: If there is no `srun` for several nodes, fewer GPUs than processes, or a process raised it.
        TrainingError: If a process failed.
        StoppedError: If a signal asked to end; the state is saved.
        OSError: If a process raised it.
    """
    if compute.processes == 1:
        function(*arguments)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob(ERRORS):
        file.unlink()
    job, name = folder / JOB, f"{function.__module__}:{function.__qualname__}"
    job.write_bytes(TypeAdapter(Any).dump_json([compute.accelerator, name, arguments]))
    command = [*torchrun_command(compute.nodes, compute.devices, threads), "-m", "tmcnet.train.distributed", str(job)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Nothing is written to the pipe: when it ends, the processes know that this one has, even if it was killed.
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, env=env) as agent,
        stop_requests(lambda _: agent.terminate()),
    ):
        code = agent.wait()
    for file in sorted(folder.glob(ERRORS)):
        raise read_error(file)
    if code:
        raise TrainingError("a process of the training ended before its time; the lines above name it")


def torchrun_command(nodes: int, devices: int, threads: int) -> list[str]:
    """Return the command that starts `devices` processes on each node, without the program that they run.

    With several nodes, the caller is in a Slurm allocation of as many; InputError if there is no `srun`.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices}", "--max-restarts=0"]
    torchrun += ["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]  # passed on to the processes
    if nodes == 1:
        return [*torchrun, "--standalone"]
    if shutil.which("srun") is None:
        remedy = "Run the workflow on a Slurm cluster (README.md), or set it to 1."
        raise InputError(Problem("`compute.nodes`", f"is {nodes}, but `srun` is not found", remedy))
    tasks = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={devices * threads}"]
    # Snakemake's job may be a step itself, which would keep the processors for itself without `--overlap`.
    srun = ["srun", *tasks, "--overlap", "--kill-on-bad-exit=1"]
    with socket.socket() as free:
        free.bind(("", 0))
        meeting = f"{socket.gethostname()}:{free.getsockname()[1]}"
    return [*srun, *torchrun, f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}"]


def run_worker(job: Path) -> None:
    """Join the process group, call the function of a job, and write an error to a file for the process that waits."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    accelerator, name, arguments = json.loads(job.read_text())
    try:
        join(accelerator)
        validate_call(resolve_name(name))(*arguments)
        dist.barrier()  # the first one may still score and write; torchrun of other nodes waits five minutes only
    except PASSED_ON as error:
        # Write before this process ends: the others fail when it is gone, and their errors are not the reason.
        write_error(error, job.with_name(ERRORS.replace("*", os.environ["RANK"])))
        sys.exit(1)
    dist.destroy_process_group()


def _end_with_launcher() -> None:
    """End this process when the launcher ends, which closes the standard input that all processes inherit."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def join(accelerator: str) -> None:
    """Join the process group that torchrun describes in the environment; each process gets a GPU if there are any."""
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    if gpu:
        wanted, found = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if found < wanted:
            what = f"is {wanted}, but there are {found} GPUs on {socket.gethostname()}"
            raise InputError(Problem("`compute.devices`", what, "Lower it, or set `compute.accelerator: cpu`."))
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo", timeout=MAX_WAIT)


def write_error(error: Exception, file: Path) -> None:
    """Write an error of `PASSED_ON` for `read_error`."""
    arguments = [error.problems] if isinstance(error, InputError) else error.__reduce__()[1]
    file.write_bytes(TypeAdapter(Any).dump_json([type(error).__name__, arguments]))


def read_error(file: Path) -> Exception:
    """Return the error that `write_error` wrote; other subclasses of OSError than Python's become one."""
    name, arguments = json.loads(file.read_text())
    if name == "InputError":
        return InputError(Problem(**problem) for problem in arguments[0])
    return {"TrainingError": TrainingError, "StoppedError": StoppedError}.get(name, OSError)(*arguments)


@contextmanager
def stop_requests(note: Callable[[str], object]) -> Iterator[None]:
    """Call `note` with the names of signals that ask this process to end, instead of ending at once.

    Not outside the main thread, where Python allows no handlers.
    """
    noted = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    handlers = {n: signal.signal(n, lambda n, _: note(signal.Signals(n).name)) for n in noted}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:  # noqa: ARG001 - the `worker_init_fn` of a loader
    """Let a process that builds batches go on: signals for a whole job also reach it, and the step still needs it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


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

    Tensors keep their names.
    """
    if gpu:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, SharedDropout(child.p, tiles))
            elif isinstance(child, nn.BatchNorm2d) and not gpu:
                child.__class__ = SharedBatchNorm  # with the same settings and tensors


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]))
