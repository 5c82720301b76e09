"""Pre-training by two processes: the numbers of one, and an end that stays the same when it is killed."""

import csv
import math
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.tiny import build_tiles, configs
from tmcnet.config import MethodConfig, PretrainConfig
from tmcnet.errors import InputError, TrainingError
from tmcnet.model.weights import read_weights
from tmcnet.train import pretrain as room
from tmcnet.train.callbacks import check_finite
from tmcnet.train.distributed import rank, run_in_processes
from tmcnet.train.loop import STATE_FILE


def settings(**changes):
    sizes = {"batch_size": 4, "crop_size": 32, "patch_size": 8, "patches": 2, "warmup_steps": 2}
    return PretrainConfig(**{**sizes, "steps": 4, "log_every": 1, "checkpoint_every": 3, **changes})


def train(world, out, devices, precision="32-true", **changes):
    world, out = Path(world), Path(out)
    _, model, sensors, compute = configs()
    compute = compute.model_copy(update={"devices": devices, "precision": precision, "pretrain_threads": 1})
    places = world / "tiles", world / "splits", world / "normalisation.json"
    state = out.parent / f"{out.name}_state"
    config = settings(**changes)
    room.pretrain(room.Pretraining(*places, "tmcnet", MethodConfig(), config, model, sensors, compute, out, state))
    return read_weights(out / "weights.safetensors")[0], list(csv.DictReader((out / "curves.csv").open()))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def test_two_processes_train_as_one_with_the_same_batch(world, tmp_path, capfd):
    # In double precision, which no config offers: rounding grows with each step, most where gradients are near zero.
    exact = {"precision": "64-true", "accumulate": 2, "clip_norm": 20.0}
    weights, curves = train(world, tmp_path / "one", 1, **exact)
    capfd.readouterr()
    shared, told = train(world, tmp_path / "two", 2, **exact)
    assert capfd.readouterr().err.count("step 4/4") == 1
    assert not (tmp_path / "two_state").exists()
    assert [row["step"] for row in told] == ["1", "2", "3", "4"]
    for row, expected in zip(told, curves, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-4), name
    assert shared.keys() == weights.keys()  # those of batch norms and their statistics among them
    for name, tensor in weights.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-6, atol=1e-8)


def test_batches_are_shared_evenly(monkeypatch):
    monkeypatch.setattr(room, "processes", lambda: 3)
    names = [Path("train.txt")]
    assert room._batch_size(100, names, 6) == 6
    assert room._batch_size(5, names, 6) == 3
    with pytest.raises(InputError, match=r"`pretrain\.batch_size`: is 4, which 3 processes cannot share"):
        room._batch_size(100, names, 4)
    with pytest.raises(InputError, match=r"train\.txt: name 2 tile\(s\).* at least 3"):
        room._batch_size(2, names, 6)


def looks_at_a_spoilt_loss(folder):
    loss = torch.tensor(math.nan if rank() == 1 else 1.0)
    check_finite(loss, (["t"], torch.full((2, 3), float(rank()))), 5, ["t"], Path(folder))


def test_processes_stop_together_at_a_loss_that_is_not_finite_and_keep_their_shares(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss of step 5 .*not_finite_step_5_process_"):
        run_in_processes(partial(looks_at_a_spoilt_loss, str(tmp_path)), 2, gpu=False)
    for number in range(2):
        share = load_file(tmp_path / f"not_finite_step_5_process_{number}.safetensors")
        assert list(share) == ["2"]
        assert (share["2"] == number).all()


def ignore_interrupts():
    """As a shell does for what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.slow
def test_a_killed_training_of_two_processes_ends_with_the_same_numbers(world, tmp_path, capfd):
    probe = {"every": 10, "fraction": 50}
    expected, curves = train(world, tmp_path / "whole", 2, steps=30, probe=probe)
    assert "probe_miou" in curves[0]
    call = f"import sys; from tests.train.test_distributed import *; train(*sys.argv[1:], 2, steps=30, probe={probe})"
    command = [sys.executable, "-c", call, world, tmp_path / "out"]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=ignore_interrupts)
    while not (tmp_path / "out_state" / STATE_FILE).exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.communicate(timeout=100)  # until its processes, which write there too, have ended as well
    assert not (tmp_path / "out").exists()
    got, again = train(world, tmp_path / "out", 2, steps=30, probe=probe)
    assert "resumes after step" in capfd.readouterr().err
    assert again == curves
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
