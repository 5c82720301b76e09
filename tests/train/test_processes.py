"""Starting processes that train together, and what becomes of their errors."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tmcnet.errors import InputError, Problem, TrainingError
from tmcnet.train.distributed import processes, rank, run_in_processes, wait_for_all

FOUND = Problem("tile 3", "has no pixel", "Cut it again.")


def counts(folder):
    total = torch.tensor(float(rank()))
    dist.all_reduce(total)
    wait_for_all()
    (Path(folder) / str(rank())).write_text(f"{processes()} {total}")


def finds_wrong_input(_):
    if rank() == 1:
        raise InputError([FOUND, FOUND])
    wait_for_all()  # in vain


def fills_the_disk(_):
    if rank() == 0:
        raise OSError(errno.ENOSPC, "No space left on device", "state")
    wait_for_all()


def dies(_):
    os._exit(3)


def test_processes_meet_and_know_their_number(tmp_path):
    run_in_processes(partial(counts, str(tmp_path)), 2, gpu=False)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"0": "2 1.0", "1": "2 1.0"}
    assert (processes(), rank()) == (1, 0)


def test_the_error_of_one_process_comes_back_as_itself(tmp_path):
    with pytest.raises(InputError) as wrong:
        run_in_processes(partial(finds_wrong_input, 0), 2, gpu=False)
    assert wrong.value.problems == [FOUND, FOUND]
    with pytest.raises(OSError, match="No space left") as full:
        run_in_processes(partial(fills_the_disk, 0), 2, gpu=False)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "state")


def test_a_process_that_dies_ends_the_training():
    with pytest.raises(TrainingError, match="exit code 3"):
        run_in_processes(partial(dies, 0), 2, gpu=False)


def test_too_few_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="is 2, but there are 1 GPUs"):
        run_in_processes(partial(dies, 0), 2, gpu=True)
