"""Trainings by two processes: the numbers of one, and an end that stays the same when it is killed."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.tiny import build_tiles, configs
from tmcnet.config import ComputeConfig, MethodConfig, PretrainConfig, Run
from tmcnet.errors import InputError, TrainingError
from tmcnet.model.weights import read_weights
from tmcnet.train import finetune as finetuning
from tmcnet.train import pretrain as room
from tmcnet.train.distributed import launch, rank
from tmcnet.train.loop import STATE_FILE, check_finite


def settings(**changes):
    sizes = {"batch_size": 4, "crop_size": 32, "patch_size": 8, "patches": 2, "warmup_steps": 2}
    return PretrainConfig(**{**sizes, "steps": 4, "log_every": 1, "checkpoint_every": 3, **changes})


def work_of(world, out, devices=1, nodes=1, precision="32-true", **changes):
    world, out = Path(world), Path(out)
    _, model, sensors, compute = configs()
    sizes = {"nodes": nodes, "devices": devices, "precision": precision, "pretrain_threads": 1}
    compute = compute.model_copy(update=sizes)
    places = world / "tiles", world / "splits", world / "normalisation.json"
    state = out.parent / f"{out.name}_state"
    config = settings(**changes)
    return room.Pretraining(*places, "tmcnet", MethodConfig(), config, model, sensors, compute, out, state)


def results(out):
    return read_weights(out / "weights.safetensors")[0], list(csv.DictReader((out / "curves.csv").open()))


def train(world, out, devices, **changes):
    room.pretrain(work_of(world, out, devices, **changes))
    return results(Path(out))


# In double precision, which no config offers: rounding grows with each step, most where gradients are near zero.
EXACT = {"precision": "64-true", "accumulate": 2, "clip_norm": 20.0}


def train_exactly(world, out):
    """Train in this process, one of several or the only one."""
    room.train(work_of(world, out, **EXACT))


def train_and_die(world, out):
    """As `train_exactly`, but the second process is killed in the first attempt, after the first checkpoint."""
    forward, killed = room.PretrainModule.forward, Path(out).with_suffix(".killed")

    def dies(self, batch):
        if rank() == 1 and self.global_step == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, batch)

    room.PretrainModule.forward = dies
    train_exactly(world, out)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def one(world, tmp_path_factory):
    """Weights and curves of one process."""
    out = tmp_path_factory.mktemp("one") / "out"
    train_exactly(world, out)
    return results(out)


def test_two_processes_train_as_one_with_the_same_batch(world, one, tmp_path, capfd):
    weights, curves = one
    work = work_of(world, tmp_path / "two", devices=2)
    launch(train_exactly, [str(world), str(work.out)], work.compute, 1, work.state)
    shared, told = results(work.out)
    assert capfd.readouterr().err.count("step 4/4") == 1
    assert [row["step"] for row in told] == ["1", "2", "3", "4"]
    for row, expected in zip(told, curves, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-4), name
    assert shared.keys() == weights.keys()  # those of batch norms and their statistics among them
    for name, tensor in weights.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-6, atol=1e-8)


SRUN = """#!/bin/bash
# As Slurm's: the command once for each node, all on this machine; the end of one ends all.
while [[ $1 == --* ]]; do [[ $1 == --nodes=* ]] && nodes=${1#*=}; shift; done
for ((node = 0; node < nodes; node++)); do "$@" <&0 & done
for ((node = 0; node < nodes; node++)); do wait -n || { kill $(jobs -p); wait; exit 1; }; done
"""


@pytest.mark.slow
def test_two_nodes_train_as_one_process_and_go_on_after_one_was_killed(world, one, tmp_path, monkeypatch, capfd):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    whole, broken = (work_of(world, tmp_path / name, nodes=2) for name in ("whole", "broken"))
    launch(train_exactly, [str(world), str(whole.out)], whole.compute, 1, whole.state)
    weights, curves = results(whole.out)
    assert weights.keys() == one[0].keys()
    for name, tensor in one[0].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-9)
    call = train_and_die, [str(world), str(broken.out)], broken.compute, 1, broken.state
    with pytest.raises(TrainingError, match="ended before its time"):
        launch(*call)
    assert (broken.state / STATE_FILE).exists() and not broken.out.exists()
    launch(*call)
    assert "resumes after step 3" in capfd.readouterr().err
    again, same = results(broken.out)
    assert same == curves
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def finetune_exactly(world, out, devices=1):
    config, model, sensors, compute = configs(steps=3, encoder_rate=0.5, ema=0.9)
    # in double precision, as Adam would make rounding large where a gradient is zero
    compute = compute.model_copy(update={"devices": int(devices), "precision": "64-true"})
    places = Path(world) / "tiles", Path(world) / "splits", Path(world) / "normalisation.json"
    run, state = Run.parse("mssnet-corrected__random__R100__s1"), Path(out).with_suffix(".state")
    finetuning.train(finetuning.Finetuning(*places, run, None, config, model, sensors, compute, Path(out), state))


def test_two_processes_fine_tune_as_one(world, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finetune_exactly(world, one)
    launch(finetune_exactly, [str(world), str(two), "2"], ComputeConfig(accelerator="cpu", devices=2), 1, tmp_path)
    (weights, curves), (shared, told) = results(one), results(two)
    for row, expected in zip(told, curves, strict=True):
        for name, value in expected.items():
            assert float(row[name] or 0) == pytest.approx(float(value or 0), rel=1e-3), name
    assert shared.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-6, atol=1e-8)


def test_wrong_input_that_a_process_finds_is_told(world, tmp_path):
    lists = shutil.copytree(world / "splits", tmp_path / "splits")
    (lists / "train_RGB.txt").unlink()
    work = replace(work_of(world, tmp_path / "out", devices=2), splits=lists)
    with pytest.raises(InputError, match="train_RGB"):
        room.pretrain(work)


def test_batches_are_shared_evenly(monkeypatch):
    monkeypatch.setattr("tmcnet.train.distributed.processes", lambda: 3)
    monkeypatch.setattr("tmcnet.train.distributed.rank", lambda: 0)
    names = [Path("train.txt")]
    assert room._batch_size(100, names, 6) == 6
    assert room._batch_size(5, names, 6) == 3
    with pytest.raises(InputError, match=r"`pretrain\.batch_size`: is 4, which 3 processes cannot share"):
        room._batch_size(100, names, 4)
    with pytest.raises(InputError, match=r"train\.txt: name 2 tile\(s\).* at least 3"):
        room._batch_size(2, names, 6)


def looks_at_a_spoilt_loss(folder):
    loss = torch.tensor(math.nan if rank() == 1 else 1.0)
    check_finite(loss, (["t"], torch.full((2, 3), float(rank()))), 5, Path(folder))


def test_processes_stop_together_at_a_loss_that_is_not_finite_and_keep_their_shares(tmp_path):
    with pytest.raises(TrainingError, match=r"the loss of step 5 .*not_finite_step_5_process_"):
        launch(looks_at_a_spoilt_loss, [str(tmp_path)], ComputeConfig(accelerator="cpu", devices=2), 1, tmp_path)
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
    state = tmp_path / "out_state" / STATE_FILE
    for number in (signal.SIGKILL, signal.SIGTERM):
        job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ignore_interrupts)
        since = state.stat().st_mtime_ns if state.exists() else 0
        while not state.exists() or state.stat().st_mtime_ns == since:
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(number)
        errors = job.communicate(timeout=100)[1]  # until its processes, which write there too, have ended as well
    assert "StoppedError: SIGTERM after step" in errors
    assert not (tmp_path / "out").exists()
    got, again = train(world, tmp_path / "out", 2, steps=30, probe=probe)
    assert "resumes after step" in capfd.readouterr().err
    assert again == curves
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
