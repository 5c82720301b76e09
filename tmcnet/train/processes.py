"""Several processes that train one network together: how they are started, and how their errors come back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from tmcnet.errors import InputError, Problem, TrainingError

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
