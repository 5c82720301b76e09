import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.train.tiny import build_tiles, configs
from tmcnet.config import Run
from tmcnet.errors import InputError, TrainingError
from tmcnet.evaluate.trained import Trained
from tmcnet.model.weights import save_weights
from tmcnet.train import finetune as module
from tmcnet.train.finetune import finetune, weighted_loss
from tmcnet.train.validate import Validation

RUN = Run("mssnet", "corrected", "random", 50.0, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def train(world, out, run=RUN, weights=None, **changes):
    config, model, sensors, compute = configs(**changes)
    finetune(
        world / "tiles",
        world / "splits",
        world / "normalisation.json",
        run,
        weights,
        config,
        model,
        sensors,
        compute,
        out,
        out.parent / f"{out.name}.state",
    )


def test_loss_is_the_weighted_mean_over_labelled_pixels():
    torch.manual_seed(0)
    logits, label, weights = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5)), torch.tensor([1.0, 2.0, 0.5])
    label[0] = 255
    assert weighted_loss(logits, label, weights) == pytest.approx(
        float(F.cross_entropy(logits[1:], label[1:], weight=weights))
    )
    void = torch.full_like(label, 255)
    assert weighted_loss(logits, void, weights) == 0


def test_learns_and_writes_what_later_stages_need(world, tmp_path):
    out = tmp_path / "run"
    train(world, out, steps=60, validate_every=20, learning_rate=5e-3)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["validation"]["miou"] > 0.8
    assert summary["loaded"] == 0
    assert not (tmp_path / "run.state").exists()
    curves = np.genfromtxt(out / "curves.csv", delimiter=",", names=True)
    assert set(curves.dtype.names) == {"step", "loss", "val_miou", "val_oa", "learning_rate"}
    best = np.nanargmax(curves["val_miou"])
    assert curves["step"][best] == summary["best_step"]
    trained = Trained.read(out / "weights.safetensors")
    assert trained.run == RUN
    assert trained.classes.names == ["left", "right"]
    assert trained.metrics["miou"] == pytest.approx(curves["val_miou"][best], abs=1e-5)


def kill_at_step_7(monkeypatch, *arguments, **changes):
    look = Validation.on_train_batch_end

    def killed(self, trainer, *args):
        if trainer.global_step == 7:
            raise KeyboardInterrupt
        look(self, trainer, *args)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(Validation, "on_train_batch_end", killed)
        train(*arguments, steps=12, validate_every=4, **changes)


def test_a_killed_run_ends_with_the_same_weights(world, tmp_path, monkeypatch):
    train(world, tmp_path / "whole", steps=12, validate_every=4)
    kill_at_step_7(monkeypatch, world, tmp_path / "broken")
    assert (tmp_path / "broken.state").exists()
    train(world, tmp_path / "broken", steps=12, validate_every=4)
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole" / "curves.csv").read_text() == (tmp_path / "broken" / "curves.csv").read_text()


def test_a_state_left_by_other_labels_is_not_taken_up(world, tmp_path, monkeypatch, capsys):
    kill_at_step_7(monkeypatch, world, tmp_path / "run")
    other = shutil.copytree(world, tmp_path / "world")
    names = (other / "splits" / f"{RUN.subset}_RGB.txt").read_text().split()
    (other / "splits" / f"{RUN.subset}_RGB.txt").write_text("\n".join(names[:-1]) + "\n")
    train(other, tmp_path / "run", steps=12, validate_every=4)
    assert "starting anew" in capsys.readouterr().err
    train(other, tmp_path / "fresh", steps=12, validate_every=4)
    after, fresh = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "fresh"))
    assert all(torch.equal(after[name], fresh[name]) for name in fresh)


def test_start_is_taken_over_and_accounted_for(world, tmp_path):
    _, model, sensors, _ = configs()
    donor = module._build(RUN, sensors, 2, model, seed=5)
    state = {n: t for n, t in donor.state_dict().items() if n.startswith(("backbone_", "aspp."))}
    save_weights(tmp_path / "start.safetensors", {**state, "head": torch.zeros(3)}, {"kind": "encoder"})
    run = Run("mssnet", "corrected", "tmcnet", 50.0, 1)
    train(world, tmp_path / "run", run, tmp_path / "start.safetensors", steps=1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["loaded"] == len([n for n in state if not n.endswith("num_batches_tracked")])
    assert list(summary["not_loaded_names"]) == ["head"]
    assert all(
        n.startswith(("fuse_", "attention_", "decoder.", "detail.")) for n in summary["started_at_random_names"]
    )


def test_a_start_that_fits_nothing_is_an_error(world, tmp_path):
    _, model, sensors, _ = configs()
    wider = model.model_copy(update={"width": 16, "aspp_channels": 24, "decoder_channels": 24})
    state = module._build(RUN, sensors, 2, wider, seed=5).state_dict()
    save_weights(tmp_path / "start.safetensors", state, {"kind": "encoder"})
    run = Run("mssnet", "corrected", "tmcnet", 50.0, 1)
    with pytest.raises(TrainingError, match="no weights were loaded"):
        train(world, tmp_path / "run", run, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match="starts from `tmcnet`"):
        train(world, tmp_path / "run", run, None)


def test_empty_and_missing_lists_are_named(world, tmp_path):
    with pytest.raises(InputError, match=r"trainR7_RGB.txt: cannot be read"):
        train(world, tmp_path / "run", Run("mssnet", "corrected", "random", 7.0, 1))
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    (copy / "splits" / "trainR50_RGB.txt").write_text("")
    with pytest.raises(InputError, match=r"trainR50_RGB.txt: names no tile"):
        train(copy, tmp_path / "run")


@pytest.mark.parametrize(
    ("network", "variant"),
    [
        ("mssnet", "reference"),
        ("early_fusion", "baseline"),
        ("late_fusion", "baseline"),
        ("optical_only", "baseline"),
        ("sar_only", "baseline"),
    ],
)
def test_every_network_trains_from_pre_trained_weights(world, tmp_path, network, variant):
    _, model, sensors, _ = configs()
    donor = module._build(Run("late_fusion", "baseline", "random", 50.0, 1), sensors, 2, model, seed=5)
    save_weights(tmp_path / "start.safetensors", donor.state_dict(), {"kind": "encoder"})
    train(world, tmp_path / "run", Run(network, variant, "tmcnet", 50.0, 1), tmp_path / "start.safetensors", steps=2)
    names = json.loads((tmp_path / "run" / "summary.json").read_text())["loaded_names"]
    assert any(name.endswith("stem.0.weight") for name in names)
    assert any(name.startswith("decoder.") for name in names)
