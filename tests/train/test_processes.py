"""Starting processes that train together, and what becomes of their errors."""

import atexit
import errno
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError, TrainingError
from tmcnet.train.distributed import (
    from_first,
    join,
    launch,
    processes,
    rank,
    read_error,
    torchrun_command,
    write_error,
)

FOUND = Problem("tile 3", "has no pixel", "Cut it again.")


def start(function, folder, processes=2):
    launch(function, [str(folder)], ComputeConfig(accelerator="cpu", devices=processes), 1, Path(folder))


def counts_and_finds_wrong_input(folder):
    total = torch.tensor(float(rank()))
    dist.all_reduce(total)
    dist.barrier()
    known = from_first(lambda: {"rank": rank()})
    (Path(folder) / str(rank())).write_text(f"{processes()} {total} {known}")
    if rank() == 1:
        raise InputError([FOUND, FOUND])
    dist.barrier()  # in vain


def dies(_):
    os._exit(3)


def test_processes_know_their_number_and_the_error_of_one_comes_back_as_itself(tmp_path):
    with pytest.raises(InputError) as wrong:
        start(counts_and_finds_wrong_input, tmp_path)
    assert wrong.value.problems == [FOUND, FOUND]
    found = {name: (tmp_path / name).read_text() for name in ("0", "1")}
    assert found == {"0": "2 1.0 {'rank': 0}", "1": "2 1.0 {'rank': 0}"}
    assert (processes(), rank()) == (1, 0)


def first_writes_last(folder):
    written = Path(folder, "written")
    if rank() == 0:
        time.sleep(1)
        written.touch()
    else:
        atexit.register(lambda: Path(folder, f"written_first_{written.exists()}").touch())


def test_processes_end_when_the_first_one_has_written(tmp_path):
    start(first_writes_last, tmp_path)
    assert (tmp_path / "written_first_True").exists()


class LibraryError(OSError):
    """As rasterio's, with a message but without a number."""


def test_errors_are_read_as_they_were_written(tmp_path):
    write_error(OSError(errno.ENOSPC, "No space left on device", "state"), tmp_path / "full")
    full = read_error(tmp_path / "full")
    assert isinstance(full, OSError)
    assert (full.errno, full.filename) == (errno.ENOSPC, "state")
    write_error(TrainingError("the loss is nan"), tmp_path / "loss")
    assert isinstance(read_error(tmp_path / "loss"), TrainingError)
    write_error(StoppedError("SIGTERM after step 3"), tmp_path / "stop")
    assert isinstance(read_error(tmp_path / "stop"), StoppedError)
    assert str(read_error(tmp_path / "loss")) == "the loss is nan"
    write_error(LibraryError("tile.tif: cannot be opened"), tmp_path / "library")
    library = read_error(tmp_path / "library")
    assert isinstance(library, OSError) and str(library) == "tile.tif: cannot be opened"


def test_a_process_that_dies_ends_the_training(tmp_path, capfd):
    with pytest.raises(TrainingError, match="ended before its time"):
        start(dies, tmp_path)
    assert "exitcode: 3" in capfd.readouterr().err.replace(" :", ":").replace("  ", " ")


def test_too_few_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="is 2, but there are 1 GPUs"):
        join("auto")


def test_several_nodes_are_started_by_srun(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    command = torchrun_command(nodes=3, devices=4, threads=2)
    assert command[:5] == ["srun", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=8"]
    assert {"--nnodes=3", "--nproc-per-node=4", "--rdzv-backend=c10d"} < set(command)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"`compute\.nodes`: is 3, but `srun` is not found"):
        torchrun_command(nodes=3, devices=4, threads=2)
