"""Pre-training as a whole, small: what it writes, that it resumes exactly, and that it stops when it must."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import uniform_filter

from tests.splits.tile_indexes import write_hashes
from tmcnet.config import ComputeConfig, MethodConfig, ModelConfig, PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.errors import InputError, TrainingError
from tmcnet.model.backbone import Backbone
from tmcnet.model.foreign_weights import common_name
from tmcnet.model.weights import read_weights
from tmcnet.train import pretrain as room
from tmcnet.train.loop import STATE_FILE

MODEL = ModelConfig(width=8, aspp_channels=16, decoder_channels=16)
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["red", "green", "blue"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db"),
)
CPU = ComputeConfig(accelerator="cpu", precision="32-true", pretrain_threads=1)


def settings(**changes):
    small = {
        "steps": 7,
        "batch_size": 4,
        "crop_size": 32,
        "patch_size": 8,
        "patches": 2,
        "log_every": 2,
        "checkpoint_every": 3,
    }
    return PretrainConfig(**{**small, "warmup_steps": 2, **changes})


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Six tiles, their list and their statistics."""
    root = tmp_path_factory.mktemp("pretrain")
    rng = np.random.default_rng(0)
    for kind, bands in (("optical", 3), ("sar", 1)):
        (root / kind).mkdir()
        for index in range(6):
            values = rng.normal(size=(bands, 48, 48)).astype(np.float32)
            profile = {"driver": "GTiff", "count": bands, "height": 48, "width": 48, "dtype": "float32"}
            with rasterio.open(root / kind / f"t{index}.tif", "w", **profile) as file:
                file.write(values)
    (root / "train_RGB.txt").write_text("".join(f"t{i}\n" for i in range(6)))
    write_hashes(root)
    band = {"low": -2.0, "high": 2.0, "mean": 0.0, "std": 1.0}
    statistics = {
        "optical": [{"band": name, **band} for name in SENSORS["optical"].bands],
        "sar": [{"band": "vv", **band}],
        "clip": 1.5,
        "n_tiles": 6,
    }
    (root / "normalisation.json").write_text(json.dumps(statistics))
    return root


def run(tiles, out, config=None, method=None, splits=None):
    work = room.Pretraining(
        tiles,
        splits or tiles,
        tiles / "normalisation.json",
        "tmcnet",
        method or MethodConfig(),
        config or settings(),
        MODEL,
        SENSORS,
        CPU,
        out,
        out.parent / f"{out.name}_state",
    )
    room.pretrain(work)
    return read_weights(out / "weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def dies_at_step_six(forward):
    def dies(self, batch):
        if self.global_step == 5:
            raise ConnectionAbortedError("killed")
        return forward(self, batch)

    return dies


@pytest.fixture(scope="module")
def unbroken(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    return out, *run(tiles, out)


def test_writes_weights_curves_and_summary(unbroken):
    out, state, header = unbroken
    assert header["kind"] == "encoder"
    assert header["normalisation"]["n_tiles"] == 6
    assert {name.split(".")[0] for name in state} >= {"backbone_optical", "backbone_sar", "aspp", "decoder"}
    rows = list(csv.DictReader((out / "curves.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "6", "7"]
    assert {"loss", "loss_global", "loss_local", "learning_rate", "alignment", "effective_rank"} <= rows[0].keys()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["batch_size"] == 4
    assert summary["metrics"]["loss"] == pytest.approx(header["metrics"]["loss"])
    assert not (out.parent / "out_state").exists()


def test_a_killed_run_ends_with_the_same_numbers(unbroken, tiles, tmp_path, monkeypatch):
    whole, expected, _ = unbroken
    forward = room.PretrainModule.forward
    monkeypatch.setattr(room.PretrainModule, "forward", dies_at_step_six(forward))
    with pytest.raises(ConnectionAbortedError):
        run(tiles, tmp_path / "out")
    assert (tmp_path / "out_state" / STATE_FILE).exists()
    begun = []

    def counts(self, batch):
        begun.append(self.global_step)
        return forward(self, batch)

    monkeypatch.setattr(room.PretrainModule, "forward", counts)
    got, _ = run(tiles, tmp_path / "out")
    assert begun == [3, 4, 5, 6]
    assert same(got, expected)
    assert (tmp_path / "out" / "curves.csv").read_text() == (whole / "curves.csv").read_text()


def test_a_killed_run_draws_the_same_shifts(tiles, tmp_path, monkeypatch):
    few = MethodConfig(variant="reference", shifts=1)
    expected, _ = run(tiles, tmp_path / "whole", method=few)
    forward = room.PretrainModule.forward
    with monkeypatch.context() as patch, pytest.raises(ConnectionAbortedError):
        patch.setattr(room.PretrainModule, "forward", dies_at_step_six(forward))
        run(tiles, tmp_path / "out", method=few)
    assert same(run(tiles, tmp_path / "out", method=few)[0], expected)


def test_accumulated_batches_draw_their_own_shifts_and_the_same_when_resumed(tiles, tmp_path, monkeypatch):
    few, drawn = MethodConfig(variant="reference", shifts=1, lambda_global=0), []
    draws = room.PretrainModule._draws

    def notes(self, level):
        found = draws(self, level)
        drawn.append(found.bit_generator.state["state"]["state"])
        return found

    monkeypatch.setattr(room.PretrainModule, "_draws", notes)
    run(tiles, tmp_path / "whole", config=settings(accumulate=2), method=few)
    whole, drawn[:] = list(drawn), []
    assert len(set(whole)) == 14
    forward = room.PretrainModule.forward
    with monkeypatch.context() as patch, pytest.raises(ConnectionAbortedError):
        patch.setattr(room.PretrainModule, "forward", dies_at_step_six(forward))
        run(tiles, tmp_path / "out", config=settings(accumulate=2), method=few)
    assert drawn == whole[:10]
    drawn.clear()
    run(tiles, tmp_path / "out", config=settings(accumulate=2), method=few)
    assert drawn == whole[6:]


def test_methods_are_shown_the_same_tiles_and_views(tiles, tmp_path, monkeypatch):
    shown = []
    forward = room.PretrainModule.forward

    def looks(self, batch):
        shown.append((batch.names, [image.sum().item() for pair in batch.views.values() for image in pair]))
        return forward(self, batch)

    monkeypatch.setattr(room.PretrainModule, "forward", looks)
    for name in ("tuples", "simclr", "cross_modal"):
        run(tiles, tmp_path / name, config=settings(steps=2), method=MethodConfig(method=name))
    assert shown[:2] == shown[2:4] == shown[4:]


def test_a_state_of_other_settings_is_not_taken_up(unbroken, tiles, tmp_path, monkeypatch):
    forward = room.PretrainModule.forward
    monkeypatch.setattr(room.PretrainModule, "forward", dies_at_step_six(forward))
    with pytest.raises(ConnectionAbortedError):
        run(tiles, tmp_path / "out", config=settings(learning_rate=0.02))
    monkeypatch.setattr(room.PretrainModule, "forward", forward)
    assert same(run(tiles, tmp_path / "out")[0], unbroken[1])


def test_a_damaged_state_is_not_taken_up(unbroken, tiles, tmp_path, monkeypatch):
    forward = room.PretrainModule.forward
    monkeypatch.setattr(room.PretrainModule, "forward", dies_at_step_six(forward))
    with pytest.raises(ConnectionAbortedError):
        run(tiles, tmp_path / "out")
    file = tmp_path / "out_state" / STATE_FILE
    file.write_bytes(file.read_bytes()[:2000])
    monkeypatch.setattr(room.PretrainModule, "forward", forward)
    assert same(run(tiles, tmp_path / "out")[0], unbroken[1])


def test_the_seed_decides(unbroken, tiles, tmp_path):
    assert same(run(tiles, tmp_path / "again")[0], unbroken[1])
    assert not same(run(tiles, tmp_path / "other", config=settings(seed=2))[0], unbroken[1])


@pytest.mark.parametrize(
    "method",
    [
        MethodConfig(variant="reference"),
        MethodConfig(style=False),
        MethodConfig(lambda_global=0),
        MethodConfig(lambda_global=1),
        MethodConfig(perturbation=False),
        MethodConfig(perturbed_negatives="both", shifts=2, positive_in_denominator=False, mask_same_tile=False),
        MethodConfig(variant="reference", perturbed_views="both", wrong_partners="both", perturbed_gradient=True),
        MethodConfig(variant="reference", dropout_before_statistics=False, photometric_by_sensor=True),
        MethodConfig(modality="optical"),
        MethodConfig(modality="sar", variant="reference"),
        MethodConfig(method="simclr"),
        MethodConfig(method="cross_modal", lambda_global=0),
        MethodConfig(patch_scales=[1, 0.5], reconstruction=1),
        MethodConfig(variant="reference", reconstruction=0.5, hidden=0.5),
        MethodConfig(method="cross_modal", lambda_global=1, reconstruction=1, hidden=0.3),
    ],
)
def test_every_method_and_ablation_runs(tiles, tmp_path, method):
    state, header = run(tiles, tmp_path / "out", config=settings(steps=2), method=method)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert header["config"]["settings"]["variant"] == method.variant
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").open()))
    assert ("loss_global" in rows[0]) == (method.lambda_global > 0)
    assert ("loss_local" in rows[0]) == (method.lambda_global < 1)
    assert ("loss_reconstruction" in rows[0]) == (method.reconstruction > 0)


def test_one_modality_is_learnt_from_the_other(tiles, tmp_path):
    """SAR that follows from the optical image is predicted better than that of another tile."""
    errors = []
    for shift in (0, 1):
        root = shutil.copytree(tiles, tmp_path / str(shift))
        for index in range(6):
            with rasterio.open(root / "optical" / f"t{index}.tif") as file:
                values = 9 * uniform_filter(file.read().mean(axis=0), 9)
            with rasterio.open(root / "sar" / f"t{(index + shift) % 6}.tif", "r+") as file:
                file.write(values.astype(np.float32), 1)
        write_hashes(root)
        config = settings(steps=80, log_every=20, learning_rate=1e-2, photometric=0)
        run(root, tmp_path / f"out{shift}", config, MethodConfig(reconstruction=10))
        rows = list(csv.DictReader((tmp_path / f"out{shift}" / "curves.csv").open()))
        errors.append(float(rows[-1]["loss_reconstruction"]))
    assert errors[0] < 0.8 * errors[1]


def test_encoders_begin_from_initial_weights(tiles, tmp_path):
    donor = Backbone(3, MODEL, 0.1)
    file = tmp_path / "resnet.safetensors"
    save_file({common_name(name): tensor for name, tensor in donor.state_dict().items()}, file)
    still = settings(steps=1, learning_rate=1e-12, initial_weights=str(file))
    state, header = run(tiles, tmp_path / "out", config=still)
    for sensor in ("optical", "sar"):
        name = "deeper.0.0.body.0.weight"
        torch.testing.assert_close(state[f"backbone_{sensor}.{name}"], donor.state_dict()[name])
    assert len(header["config"]["initial_weights_sha256"]) == 64
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        run(tiles, tmp_path / "none", config=settings(initial_weights="absent.safetensors"))


def test_fewer_tiles_than_the_batch(tiles, tmp_path):
    (tmp_path / "train_RGB.txt").write_text("t0\nt3\n")
    write_hashes(tmp_path)
    run(tiles, tmp_path / "out", config=settings(steps=2), splits=tmp_path)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["batch_size"], summary["batch_size_wanted"], summary["n_tiles"]) == (2, 4, 2)


def test_a_test_tile_or_a_doubled_line_in_the_list_stops_pretraining(tiles, tmp_path):
    for part, text in (("train", "t0\nt1\n"), ("val", "t2\n"), ("test", "t3\n")):
        (tmp_path / f"{part}_RGB.txt").write_text(text)
    write_hashes(tmp_path)
    for tile, what in (("t3", "names tiles of test: t3"), ("t0", "names tiles twice: t0")):
        (tmp_path / "train_RGB.txt").write_text(f"t0\nt1\n{tile}\n")
        with pytest.raises(InputError, match=rf"train_RGB\.txt: {what}"):
            run(tiles, tmp_path / "out", splits=tmp_path)
    assert not (tmp_path / "out").exists()


def test_bad_lists_are_named(tiles, tmp_path):
    train = tmp_path / "train_RGB.txt"
    train.write_text("t0\n")
    write_hashes(tmp_path)
    with pytest.raises(InputError, match=r"train_RGB\.txt"):
        run(tiles, tmp_path / "out", splits=tmp_path)
    train.write_text("t0\nt1\nnowhere\n")
    write_hashes(tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        run(tiles, tmp_path / "out", splits=tmp_path)


def test_all_parts_asked_for_are_seen_and_no_other(tiles, tmp_path, monkeypatch):
    for part, names in (("train", "t0\nt1\n"), ("val", "t2\n"), ("test", "t3\n")):
        (tmp_path / f"{part}_RGB.txt").write_text(names)
    write_hashes(tmp_path)
    seen = set()
    forward = room.PretrainModule.forward

    def watched(self, batch):
        seen.update(batch.names)
        return forward(self, batch)

    monkeypatch.setattr(room.PretrainModule, "forward", watched)
    run(tiles, tmp_path / "out", config=settings(steps=3, batch_size=2, parts=["train", "val"]), splits=tmp_path)
    assert seen == {"t0", "t1", "t2"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n_tiles"] == 3


def test_a_loss_that_is_not_finite_stops_and_names_its_tiles(tiles, tmp_path, monkeypatch):
    forward = room.PretrainModule.forward

    def breaks(self, batch):
        found = forward(self, batch)
        return {**found, "loss": found["loss"] * float("nan")} if self.global_step == 1 else found

    monkeypatch.setattr(room.PretrainModule, "forward", breaks)
    with pytest.raises(TrainingError, match=r"step 2 is nan; its batch is in .*not_finite_step_2\.safetensors"):
        run(tiles, tmp_path / "out")
    told = json.loads((tmp_path / "out_state" / "not_finite_step_2.json").read_text())
    assert len(told["tiles"]) == 4
    batch = load_file(tmp_path / "out_state" / "not_finite_step_2.safetensors")
    assert {name: list(tensor.shape) for name, tensor in batch.items()} == {
        **{f"optical{view}": [4, 3, 32, 32] for view in (1, 2)},
        **{f"sar{view}": [4, 1, 32, 32] for view in (1, 2)},
        **{f"corners{view}": [4, 2, 2] for view in (1, 2)},
    }
    assert not (tmp_path / "out" / "weights.safetensors").exists()
