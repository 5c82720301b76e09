"""What a CUDA device computes is what the CPU computes, and a whole training runs there; by `make test-gpu`."""

import json
import time

import numpy as np
import pytest
import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.config import EvaluateConfig, MethodConfig, PretrainConfig, Run
from tmcnet.evaluate.evaluate import evaluate_run
from tmcnet.loss import TupleNTXent
from tmcnet.model.networks import build_network
from tmcnet.model.weights import read_weights
from tmcnet.train import contrastive
from tmcnet.train.contrastive import build_method
from tmcnet.train.finetune import Finetuning, finetune
from tmcnet.train.pretrain import Pretraining, pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
GPU = "cuda"
BANDS = {"optical": 3, "sar": 1}
SHARED = PretrainConfig(steps=6, batch_size=4, crop_size=32, patch_size=8, patches=2, warmup_steps=1, log_every=1)
METHODS = {
    "corrected": MethodConfig(),
    "published": MethodConfig(variant="reference"),
    "cross_modal": MethodConfig(method="cross_modal"),
    "simclr": MethodConfig(method="simclr"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def on_gpu(precision="32-true"):
    _, model, sensors, compute = configs()
    return model, sensors, compute.model_copy(update={"accelerator": "gpu", "precision": precision})


def start(world, out, name="corrected", precision="32-true", **changes):
    places = world / "tiles", world / "splits", world / "normalisation.json"
    config = SHARED.model_copy(update=changes)
    pretrain(Pretraining(*places, name, METHODS[name], config, *on_gpu(precision), out, out.with_suffix(".state")))
    return read_weights(out / "weights.safetensors")[0], json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_loss_and_gradients_are_those_of_the_cpu(variant):
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn(24, 16, dtype=torch.float64, generator=random) for _ in range(4)]
    found = {}
    for device in ("cpu", GPU):
        inputs = [x.to(device).requires_grad_() for x in drawn]
        loss = TupleNTXent(variant=variant)(*inputs)
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
        found[device] = [x.cpu() for x in (loss.detach(), *gradients) if x is not None]
    for one, other in zip(found["cpu"], found[GPU], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "variant"),
    [("mssnet", "reference"), ("mssnet", "corrected"), ("early_fusion", "baseline"), ("pixel_logistic", "baseline")],
)
def test_networks_say_what_they_say_on_the_cpu(network, variant):
    _, model, _, _ = configs()
    torch.manual_seed(0)
    net = build_network(network, variant, BANDS, 4, model).double().eval()
    images = {name: torch.randn(2, bands, 45, 70, dtype=torch.float64) for name, bands in BANDS.items()}
    with torch.no_grad():
        expected = net(images)
        found = net.to(GPU)({name: image.to(GPU) for name, image in images.items()})
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_pre_trains(world, tmp_path, name, precision):
    weights, told = start(world, tmp_path / "pretrained", name, precision)
    assert told["device"] == "cuda" and told["gpu_memory_mib"] > 0
    assert np.isfinite(told["metrics"]["loss"])
    assert all(tensor.isfinite().all() for tensor in weights.values())
    method = build_method(METHODS[name])
    assert {n.split(".")[0] for n in weights} <= {n for n, _ in method.network(BANDS, on_gpu()[0]).named_children()}


def test_a_killed_pre_training_goes_on(world, tmp_path, monkeypatch):
    unbroken, _ = start(world, tmp_path / "unbroken", checkpoint_every=2)
    step = contrastive.PretrainModule.forward
    done = []

    def dies(self, *arguments):
        done.append(1)
        if len(done) == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(contrastive.PretrainModule, "forward", dies)
        start(world, tmp_path / "killed", checkpoint_every=2)
    resumed, _ = start(world, tmp_path / "killed", checkpoint_every=2)
    for name, tensor in unbroken.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-2, atol=1e-3)


def test_fine_tuning_learns_and_is_scored_alike_on_both(world, tmp_path):
    config, *_ = configs(steps=60, validate_every=20, learning_rate=5e-3)
    model, sensors, compute = on_gpu()
    run, out = Run.parse("mssnet-corrected__random__R50__s1"), tmp_path / "run"
    splits = world / "splits"
    places = world / "tiles", splits, world / "normalisation.json"
    finetune(Finetuning(*places, run, None, config, model, sensors, compute, out, tmp_path / "state"))
    told = json.loads((out / "summary.json").read_text())
    assert told["device"] == "cuda" and told["validation"]["miou"] > 0.8
    scores = {}
    for accelerator in ("gpu", "cpu"):
        where, there = tmp_path / accelerator, compute.model_copy(update={"accelerator": accelerator})
        evaluate_run(world / "tiles", splits, out / "weights.safetensors", run, EvaluateConfig(), there, where)
        scores[accelerator] = json.loads((where / "metrics.json").read_text())["miou"]
    assert scores["gpu"] == pytest.approx(scores["cpu"], abs=0.01)


def test_a_thousand_places_take_little_memory_and_less_time_than_on_the_cpu():
    criterion, random = TupleNTXent(variant="corrected"), torch.Generator().manual_seed(0)
    drawn = [torch.randn(1024, 64, generator=random) for _ in range(4)]
    torch.cuda.reset_peak_memory_stats()
    seconds = {}
    for device in ("cpu", GPU):
        inputs = [x.to(device).requires_grad_() for x in drawn]
        for _ in range(3):  # the first call compiles kernels; the last one counts
            began = time.perf_counter()
            torch.autograd.grad(criterion(*inputs), inputs)
            torch.cuda.synchronize()
            seconds[device] = time.perf_counter() - began
    assert torch.cuda.max_memory_allocated() < 2 * 2**30
    assert seconds[GPU] < seconds["cpu"]
