import json
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.splits.tile_indexes import write_hashes
from tests.train.tiny import build_tiles, configs
from tmcnet.config import Run
from tmcnet.config.training import Loss
from tmcnet.errors import InputError, TrainingError
from tmcnet.evaluate.trained import Trained
from tmcnet.model.weights import save_weights
from tmcnet.train import finetune as module
from tmcnet.train.finetune import Finetuning, finetune
from tmcnet.train.loop import STATE_FILE, Training
from tmcnet.train.losses import segmentation_loss

RUN = Run.parse("mssnet-corrected__random__R50__s1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


def train(world, out, run=RUN, weights=None, precision="32-true", **changes):
    config, model, sensors, compute = configs(**changes)
    compute = compute.model_copy(update={"precision": precision})
    places = world / "tiles", world / "splits", world / "normalisation.json"
    state = out.parent / f"{out.name}.state"
    finetune(Finetuning(*places, run, weights, config, model, sensors, compute, out, state))


def test_learns_and_writes_what_later_stages_need(world, tmp_path):
    out = tmp_path / "run"
    train(world, out, steps=60, validate_every=20, learning_rate=5e-3)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["validation"]["miou"] > 0.8
    assert summary["loaded"] == 0
    assert summary["precision"] == "32-true"
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
    forward = module.FinetuneModule.forward

    def killed(self, batch):
        if self.global_step == 7:
            raise KeyboardInterrupt
        return forward(self, batch)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(module.FinetuneModule, "forward", killed)
        train(*arguments, steps=12, validate_every=4, **changes)


def same_ends(first, second):
    """Whether two runs wrote the same weights and curves, bit for bit."""
    states = [load_file(out / "weights.safetensors") for out in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (first / "curves.csv").read_text() == (second / "curves.csv").read_text()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "focal"},
        {"loss": "dice"},
        {"loss": "cross_entropy_dice"},
        {"ema": 0.9},
        {"precision": "bf16-mixed"},
        {"loss": "cross_entropy_dice", "ema": 0.9, "modality_dropout": 0.3},
        {"covered_copies": ["clouds", "no_data"]},
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_same_weights(world, tmp_path, monkeypatch, options):
    train(world, tmp_path / "whole", steps=12, validate_every=4, **options)
    kill_at_step_7(monkeypatch, world, tmp_path / "broken", **options)
    assert (tmp_path / "broken.state" / STATE_FILE).exists()
    train(world, tmp_path / "broken", steps=12, validate_every=4, **options)
    same_ends(tmp_path / "whole", tmp_path / "broken")
    assert not (tmp_path / "broken.state").exists()


def test_the_averaged_weights_are_scored_and_kept(world, tmp_path, monkeypatch):
    scored = []
    score = module.validate
    monkeypatch.setattr(module, "validate", lambda network, *rest: (scored.append(network), score(network, *rest))[1])
    trained = []
    monkeypatch.setattr(module, "Training", lambda m, plan: (trained.append(m.network), Training(m, plan))[1])
    train(world, tmp_path / "run", steps=3, validate_every=3, ema=0.9)
    assert scored[0] is not trained[0]
    kept, last = load_file(tmp_path / "run" / "weights.safetensors"), scored[0].state_dict()
    assert all(torch.equal(kept[name], last[name].cpu()) for name in kept)
    train(world, tmp_path / "plain", steps=3, validate_every=3)
    plain = load_file(tmp_path / "plain" / "weights.safetensors")
    assert any(not torch.equal(kept[name], plain[name]) for name in kept)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_trains_in_bfloat16(world, tmp_path, monkeypatch, loss):
    seen = []

    def spy(logits, *rest):
        found = segmentation_loss(logits, *rest)
        seen.append((torch.is_autocast_enabled("cpu"), found.dtype, bool(torch.isfinite(found))))
        return found

    monkeypatch.setattr(module, "segmentation_loss", spy)
    train(world, tmp_path / "run", precision="bf16-mixed", steps=3, loss=loss)
    assert seen == [(True, torch.float32, True)] * 3
    assert all(
        t.dtype == torch.float32
        for n, t in load_file(tmp_path / "run" / "weights.safetensors").items()
        if not n.endswith("num_batches_tracked")
    )


def test_a_state_left_by_other_labels_is_not_taken_up(world, tmp_path, monkeypatch, capsys):
    kill_at_step_7(monkeypatch, world, tmp_path / "run")
    other = shutil.copytree(world, tmp_path / "world")
    names = (other / "splits" / f"{RUN.subset}_RGB.txt").read_text().split()
    (other / "splits" / f"{RUN.subset}_RGB.txt").write_text("\n".join(names[:-1]) + "\n")
    write_hashes(other / "splits")
    train(other, tmp_path / "run", steps=12, validate_every=4)
    assert "starting again" in capsys.readouterr().err
    train(other, tmp_path / "fresh", steps=12, validate_every=4)
    after, fresh = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "fresh"))
    assert all(torch.equal(after[name], fresh[name]) for name in fresh)


def test_start_is_taken_over_and_accounted_for(world, tmp_path):
    _, model, sensors, _ = configs()
    donor = module._build(RUN, sensors, 2, model, seed=5)
    state = {n: t for n, t in donor.state_dict().items() if n.startswith(("backbone_", "aspp."))}
    save_weights(tmp_path / "start.safetensors", {**state, "head": torch.zeros(3)}, {"kind": "encoder"})
    run = Run.parse("mssnet-corrected__tmcnet__R50__s1")
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
    run = Run.parse("mssnet-corrected__tmcnet__R50__s1")
    with pytest.raises(TrainingError, match="no weights were loaded"):
        train(world, tmp_path / "run", run, tmp_path / "start.safetensors")
    with pytest.raises(InputError, match="starts from `tmcnet`"):
        train(world, tmp_path / "run", run, None)


def test_a_test_tile_in_the_label_list_stops_the_run(world, tmp_path):
    copy = shutil.copytree(world, tmp_path / "world")
    path = copy / "splits" / "trainR50_RGB.txt"
    path.write_text(path.read_text() + "s2_r0_c0\n")
    with pytest.raises(InputError, match=r"trainR50_RGB.txt: names tiles of test: s2_r0_c0"):
        train(copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_empty_and_missing_lists_are_named(world, tmp_path):
    with pytest.raises(InputError, match=r"trainR7_RGB.txt: cannot be read"):
        train(world, tmp_path / "run", Run.parse("mssnet-corrected__random__R7__s1"))
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    (copy / "splits" / "trainR50_RGB.txt").write_text("")
    write_hashes(copy / "splits")
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
    donor = module._build(Run.parse("late_fusion-baseline__random__R50__s1"), sensors, 2, model, seed=5)
    save_weights(tmp_path / "start.safetensors", donor.state_dict(), {"kind": "encoder"})
    run = Run.parse(f"{network}-{variant}__tmcnet__R50__s1")
    train(world, tmp_path / "run", run, tmp_path / "start.safetensors", steps=2)
    names = json.loads((tmp_path / "run" / "summary.json").read_text())["loaded_names"]
    assert any(name.endswith("stem.0.weight") for name in names)
    assert any(name.startswith("decoder.") for name in names)


def test_only_encoders_that_were_taken_over_learn_at_their_own_rate(world, tmp_path):
    moved = {}
    for name, weights in (("random", None), ("start", tmp_path / "start.safetensors")):
        for rate in (1.0, 1e-6, 0.0):
            out = tmp_path / f"{name}_{rate}"
            run = Run.parse(f"mssnet-corrected__{name}__R50__s1")
            train(world, out, run=run, weights=weights, steps=2, validate_every=2, encoder_rate=rate)
            moved[name, rate] = load_file(out / "weights.safetensors")
        if weights is None:
            save_weights(tmp_path / "start.safetensors", moved["random", 1.0], {"kind": "encoder", "config": {}})
    begun = moved["random", 1.0]
    encoder, head = (
        next(n for n in begun if n.startswith(part) and begun[n].ndim == 4) for part in ("backbone_sar", "decoder")
    )
    for slow in (1e-6, 0.0):
        assert torch.equal(begun[encoder], moved["random", slow][encoder])
        assert (moved["start", slow][head] - begun[head]).abs().max() > 1e-5
    assert torch.equal(begun[encoder], moved["start", 0.0][encoder])
    torch.testing.assert_close(moved["start", 1e-6][encoder], begun[encoder], rtol=0, atol=1e-6)
    assert (moved["start", 1.0][encoder] - begun[encoder]).abs().max() > 1e-5
