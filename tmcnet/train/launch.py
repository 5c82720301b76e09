"""Start the processes that share a training: torchrun, and Slurm's `srun` in front of it on several nodes.

torchrun starts this module in each of them: `python -m tmcnet.train.launch JOB`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter, validate_call

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError, TrainingError
from tmcnet.train.interruption import stop_requests

JOB = "job.json"
ERRORS = "error_of_process_*.json"
MAX_WAIT = timedelta(hours=6)
"""Longest time that processes wait for each other, as while the first one scores the network."""
POLL_SECONDS = 0.2


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
    command = [*torchrun_command(compute.nodes, compute.devices, threads), "-m", "tmcnet.train.launch", str(job)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Nothing is written to the pipe: when it ends, the processes know that this one has, even if it was killed.
    with stop_requests() as received, subprocess.Popen(command, stdin=subprocess.PIPE, env=env) as agent:
        while agent.poll() is None and not received:
            time.sleep(POLL_SECONDS)
        if received:
            agent.terminate()
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
    Thread(target=_end_with_launcher, daemon=True).start()
    accelerator, name, arguments = json.loads(job.read_text())
    try:
        join(accelerator)
        validate_call(resolve_name(name))(*arguments)
        dist.barrier()  # the first one may still score and write; torchrun of other nodes waits five minutes only
    except (InputError, TrainingError, StoppedError, OSError) as error:
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


def write_error(error: InputError | TrainingError | StoppedError | OSError, file: Path) -> None:
    """Write an error so that `read_error` returns it as it was."""
    arguments: list[Any] = [str(error)]
    if isinstance(error, InputError):
        arguments = [[problem.where, problem.what, problem.remedy] for problem in error.problems]
    elif isinstance(error, OSError):
        arguments = [error.errno, error.strerror, error.filename]
    file.write_text(json.dumps([type(error).__name__, arguments]))


def read_error(file: Path) -> InputError | TrainingError | StoppedError | OSError:
    """Return the error that `write_error` wrote; subclasses of OSError follow from its number."""
    name, arguments = json.loads(file.read_text())
    if name == "InputError":
        return InputError(Problem(*entry) for entry in arguments)
    if name in ("TrainingError", "StoppedError"):
        return (TrainingError if name == "TrainingError" else StoppedError)(*arguments)
    return OSError(*arguments)


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]))
