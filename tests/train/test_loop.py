"""The loop that both trainings share, with a network so small that its steps can be checked by hand."""

import csv
import math
import os
import platform
import re
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tmcnet.config import ComputeConfig
from tmcnet.errors import StoppedError
from tmcnet.model.device import bfloat16_gain, choose_precision
from tmcnet.train import loop as room
from tmcnet.train.loop import LoopPlan, OptimiserPlan, StepModule, Training, write_curves

STEPS = 6


def rows(first, count):
    """Rows of a regression, each a function of its number alone."""
    made = [torch.randn(4, generator=torch.Generator().manual_seed(first + i)) for i in range(count)]
    x = torch.stack(made)
    return x, x.sum(1, keepdim=True) * 100


class Regression(StepModule):
    dies_at = None

    def forward(self, batch):
        if self.global_step == self.dies_at:
            raise ConnectionAbortedError("killed")
        x, y = batch
        return {"loss": F.mse_loss(self.network(x), y), "size": torch.tensor(float(len(x)))}


def train(state, batch=4, accumulate=1, dropout=0.0, log_every=2, precision="32-true", **changes):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.Linear(8, 1))
    usual = {"steps": STEPS, "learning_rate": 0.01, "warmup_steps": 2, "weight_decay": 0.1, "clip_norm": math.inf}
    module = Regression(network, OptimiserPlan(**usual | changes), lambda number: rows(number * batch, batch))
    compute = ComputeConfig(accelerator="cpu", precision=precision)
    training = Training(module, LoopPlan("test", batch, log_every, 2, state, 1, compute, 1, accumulate=accumulate))
    training.run()
    return network.state_dict(), training.curves


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path):
    whole, curves = train(tmp_path / "whole", batch=8)
    parts, others = train(tmp_path / "parts", batch=4, accumulate=2)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-5, atol=1e-6)
    assert list(curves) == list(others) == [2, 4, 6]
    for step, row in curves.items():
        assert others[step]["loss"] == pytest.approx(row["loss"], rel=1e-5)
        assert others[step]["gradient_norm"] == pytest.approx(row["gradient_norm"], rel=1e-5)
        assert others[step]["learning_rate"] == row["learning_rate"]


class Faults(Regression):
    def forward(self, batch):
        x, y = batch
        return super().forward((x.repeat(2**20, 1), y.repeat(2**20, 1)))  # 64 MiB and more a layer

    def measure(self):
        return {"page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt}


def test_freed_memory_is_kept_for_the_next_step(tmp_path):
    module = Faults(nn.Linear(4, 8), OptimiserPlan(4, 0.01, 0, 0.1), lambda _: (torch.ones(2, 4), torch.ones(2, 8)))
    training = Training(module, LoopPlan("test", 2, 1, 5, tmp_path, 1, ComputeConfig(accelerator="cpu"), 1))
    training.run()
    counts = [row["page_faults"] for row in training.curves.values()]
    assert min(after - before for before, after in pairwise(counts)) < 1000, "tens of thousands without"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_killed_run_ends_with_the_same_numbers(tmp_path, monkeypatch, accumulate):
    settings = {"accumulate": accumulate, "dropout": 0.5, "clip_norm": 5.0}
    expected, curves = train(tmp_path / "whole", **settings)
    monkeypatch.setattr(Regression, "dies_at", 5)
    with pytest.raises(ConnectionAbortedError):
        train(tmp_path / "killed", **settings)
    monkeypatch.setattr(Regression, "dies_at", None)
    got, resumed = train(tmp_path / "killed", **settings)
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert resumed == curves


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_that_a_signal_ends_saves_its_state_and_ends_with_the_same_numbers(
    tmp_path, monkeypatch, capsys, number
):
    before = signal.getsignal(number)
    expected, curves = train(tmp_path / "whole", dropout=0.5)
    forward = Regression.forward

    def is_ended(self, batch):
        """A scheduler ends the job in the middle of a step."""
        if self.global_step == 2:
            os.kill(os.getpid(), number)
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Regression, "forward", is_ended)
        with pytest.raises(
            StoppedError, match=rf"{signal.Signals(number).name} after step 3 of 6; the state is saved"
        ):
            train(tmp_path / "ended", dropout=0.5)
    assert signal.getsignal(number) == before
    got, resumed = train(tmp_path / "ended", dropout=0.5)
    assert "resumes after step 3" in capsys.readouterr().err
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    assert resumed == curves


def test_a_thread_can_train(tmp_path):
    expected, _ = train(tmp_path / "main")
    with ThreadPoolExecutor(1) as pool:
        got, _ = pool.submit(train, tmp_path / "thread").result()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def slow_batch(number):
    time.sleep(0.05)
    return rows(number, 1), os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_processes_that_build_batches_go_on_after_a_signal_for_the_whole_job(number):
    batches = iter(room.step_loader(slow_batch, 12, 0, 1))
    _, builder = next(batches)
    os.kill(builder, number)
    assert [worker for _, worker in batches] == [builder] * 11


def test_a_state_of_other_accumulation_is_not_taken_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Regression, "dies_at", 5)
    with pytest.raises(ConnectionAbortedError):
        train(tmp_path, accumulate=2)
    monkeypatch.setattr(Regression, "dies_at", None)
    train(tmp_path, accumulate=1)
    assert "has other settings; starting again" in capsys.readouterr().err


def test_dropout_differs_between_the_batches_of_a_step(tmp_path):
    # both batches of a step hold the same rows, so that only dropout can tell them apart
    torch.manual_seed(0)
    network, masks = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1)), []
    network[1].register_forward_hook(lambda _, __, out: masks.append(out == 0) or None)
    module = Regression(network, OptimiserPlan(1, 0.01, 0, 0.0), lambda number: rows(0, 2))
    compute = ComputeConfig(accelerator="cpu", precision="32-true")
    Training(module, LoopPlan("test", 2, 1, 5, tmp_path, 1, compute, 1, accumulate=2)).run()
    assert len(masks) == 2 and not torch.equal(*masks)


def gradient_length(network):
    """Length of the gradient that the optimiser saw, which is still there after the step."""
    return float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm())


def test_long_gradients_are_clipped_and_their_own_length_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Regression, "measure", lambda self: {"length": gradient_length(self.network)})
    _, curves = train(tmp_path / "free", log_every=1)
    _, clipped = train(tmp_path / "clipped", log_every=1, clip_norm=1.5)
    free = [row["length"] for row in curves.values()]
    assert min(free) > 100
    assert [row["length"] for row in clipped.values()] == pytest.approx([1.5] * STEPS, rel=1e-4)
    assert train(tmp_path / "means")[1][2]["gradient_norm"] == pytest.approx(sum(free[:2]) / 2, rel=1e-5)
    assert train(tmp_path / "told", clip_norm=1.5)[1][2]["gradient_norm"] > 100


def test_progress_tells_loss_speed_and_time_left(tmp_path, capsys):
    train(tmp_path, batch=4, accumulate=2)
    told = re.findall(r"test: step 6/6, loss (\S+), (\S+) tiles/s, 0 s left", capsys.readouterr().err)
    assert len(told) == 1
    assert float(told[0][0]) > 0 and float(told[0][1]) > 0


def test_convolutions_are_trained_channels_last(tmp_path):
    network = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 8, 3, padding=1), nn.Flatten(), nn.Linear(8, 1))
    module = Regression(network, OptimiserPlan(2, 0.01, 0, 0.0), lambda number: rows(number, 2))
    Training(module, LoopPlan("test", 2, 1, 5, tmp_path, 1, ComputeConfig(accelerator="cpu"), 1)).run()
    weight = network[1].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_half_precision_on_the_cpu(tmp_path):
    single, _ = train(tmp_path / "single")
    half, curves = train(tmp_path / "half", precision="bf16-mixed", clip_norm=1e6)
    for name, tensor in single.items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], tensor, rtol=0.05, atol=0.02)
    assert not all(torch.equal(half[name], tensor) for name, tensor in single.items())
    write_curves(tmp_path / "curves.csv", curves)
    assert [row["step"] for row in csv.DictReader((tmp_path / "curves.csv").open())] == ["2", "4", "6"]


def has_instructions(monkeypatch, *names, gain=3.0):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False, **dict.fromkeys(names, True)})
    monkeypatch.setattr("tmcnet.model.device.bfloat16_gain", lambda: gain)


@pytest.mark.parametrize(
    ("instructions", "gain", "expected"),
    [
        ("amx_bf16", 3.0, "bf16-mixed"),
        ("avx512_bf16", 1.7, "bf16-mixed"),
        ("avx512_bf16", 1.1, "32-true"),
        ("avx2", 3.0, "32-true"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_faster(monkeypatch, instructions, gain, expected):
    has_instructions(monkeypatch, instructions, gain=gain)
    auto = ComputeConfig(accelerator="cpu")
    assert auto.precision == "auto"
    assert choose_precision(auto) == expected
    assert choose_precision(ComputeConfig(accelerator="cpu", precision="16-mixed")) == "16-mixed"


def test_a_resumed_run_keeps_the_precision_it_chose(tmp_path, monkeypatch):
    has_instructions(monkeypatch, "amx_bf16")
    expected, _ = train(tmp_path / "whole", precision="auto")
    monkeypatch.setattr(Regression, "dies_at", 5)
    with pytest.raises(ConnectionAbortedError):
        train(tmp_path / "killed", precision="auto")
    monkeypatch.setattr(Regression, "dies_at", None)
    has_instructions(monkeypatch)
    got, _ = train(tmp_path / "killed", precision="auto")
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_auto_trains_in_what_it_chooses(tmp_path, monkeypatch):
    has_instructions(monkeypatch, "amx_bf16")
    half, _ = train(tmp_path / "half", precision="bf16-mixed")
    chosen, _ = train(tmp_path / "auto", precision="auto")
    assert all(torch.equal(chosen[name], tensor) for name, tensor in half.items())


def test_the_check_of_bfloat16_takes_less_than_a_second():
    began = time.process_time()
    assert bfloat16_gain() > 0
    assert time.process_time() - began < 1


def test_torch_knows_the_instructions_of_this_cpu():
    assert {"amx_bf16", "avx512_bf16"} <= torch.cpu.get_capabilities().keys() or platform.machine() != "x86_64"
