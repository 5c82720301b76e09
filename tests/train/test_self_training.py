"""Self-training: a teacher labels unlabelled tiles, and nothing is learnt from labels that the run does not have."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.splits.tile_indexes import write_hashes
from tests.train.test_points_training import write_points
from tests.train.tiny import build_tiles, configs
from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, Run
from tmcnet.config.training import FinetuneConfig, SelfTrainingConfig, expand_sweep
from tmcnet.dataset.loading import Tile
from tmcnet.errors import InputError
from tmcnet.raster.io.reader import read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.report.names import Series
from tmcnet.splits.files import require_unlabelled
from tmcnet.train.finetune import Finetuning, finetune
from tmcnet.train.self_training import choose_unlabelled, label_tiles

ENSEMBLE = {"ensemble": ["pixel_boosting", "mssnet"]}


def train(world, out, run, teacher=None, **changes):
    config, model, sensors, compute = configs(
        steps=8, **{"pixelwise": {"pixels": 600, "iterations": 6, "steps": 40}, **changes}
    )
    folders = world / "tiles", world / "splits", world / "normalisation.json"
    work = Finetuning(*folders, Run.parse(run), None, config, model, sensors, compute, out, out / "state")
    finetune(Finetuning(**{**vars(work), "teacher": teacher, "teaching": SelfTrainingConfig(confident=0.6)}))
    return out / "weights.safetensors"


def turn_around(path):
    """Swap the classes of a label raster."""
    label = read_labels(path)
    write_raster(path, np.where(label == IGNORE, IGNORE, 1 - label).astype(np.uint8), None, nodata=IGNORE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def teacher(world, tmp_path_factory):
    return train(world, tmp_path_factory.mktemp("teacher"), "pixel_boosting-baseline__random__R50__s1")


def test_the_most_confident_share_of_each_class_is_used():
    shares = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.45, 0.2, 0.3], [0.5, 0.5, 0.5, 0.5]])  # of the first class
    shares[2, :2] = 0.99

    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            first = images["optical"]
            return torch.cat([first, 1 - first, torch.zeros_like(first)], dim=1).log()

    image = torch.from_numpy(shares).float()[None]
    image[:, 2, 2:] = 0  # no data, which would be of the second class
    tiles = [Tile("a", {"optical": image}, None)]
    for share, first, second in (
        (0.5, {0.9, 0.99}, {0.1, 0.2}),
        (1.0, {0.9, 0.8, 0.7, 0.6, 0.99}, {0.1, 0.2, 0.3, 0.45}),
    ):
        found = label_tiles(Teacher(), tiles, 3, SelfTrainingConfig(confident=share), 1)
        (label,) = found.labels
        assert set(shares[label == 0]) == first
        assert set(shares[label == 1]) == second
        assert (label[2, 2:] == IGNORE).all()
        assert found.given.tolist() == [6, 4, 0]
        assert found.kept.tolist() == [(label == 0).sum(), (label == 1).sum(), 0]
        summary = found.summary(
            ClassTable.of([("x", "#000000"), ("y", "#111111"), ("z", "#222222")]), np.array([1, 1, 2])
        )
        assert summary["classes"]["y"]["given"] == 0.4
        assert summary["classes"]["z"] == {"labelled": 0.5, "given": 0.0, "used": 0.0, "threshold": None}


def test_unlabelled_tiles_are_drawn_in_proportion():
    names, labelled = [f"t{number}" for number in range(20)], ["t3", "t4"]
    config = SelfTrainingConfig(tiles=3)
    drawn = choose_unlabelled(names, labelled, config, 1)
    assert drawn == choose_unlabelled(names, labelled, config, 1) != choose_unlabelled(names, labelled, config, 2)
    assert len(drawn) == 6
    assert not set(drawn) & set(labelled)
    assert drawn == sorted(drawn, key=names.index)
    assert len(choose_unlabelled(names, labelled, SelfTrainingConfig(tiles=50), 1)) == 18


def test_labels_of_all_tiles_leave_none_to_a_teacher(tmp_path):
    for name, tiles in {"train": "a\nb\nc\n", "trainR50": "a\nb\n", "trainR100": "c\nb\na\n"}.items():
        (tmp_path / f"{name}_RGB.txt").write_text(tiles)
    require_unlabelled(tmp_path, ["trainR50"])
    with pytest.raises(
        InputError, match=r"trainR100 has all tiles of the training part(?s:.*)`self-training` out of"
    ):
        require_unlabelled(tmp_path, ["trainR100", "trainR50"])


@pytest.mark.parametrize(
    "run", ["pixel_mlp-baseline__self-training__R50__s1", "mssnet-corrected__self-training__R50__s1"]
)
def test_students_learn_from_the_teacher_and_from_no_other_label(world, teacher, tmp_path, run):
    changed = build_tiles(tmp_path / "changed")
    for name in ("s0_r2_c0", "s0_r3_c0"):  # in the training part, but not among the labelled half
        turn_around(changed / "tiles" / "label" / f"{name}.tif")
    outs = [
        train(place, tmp_path / place.name, run, teacher, covered_copies=["clouds"]) for place in (world, changed)
    ]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    alone = train(world, tmp_path / "alone", run.replace("self-training", "random"), covered_copies=["clouds"])
    assert alone.read_bytes() != outs[0].read_bytes()
    about, without = (json.loads((out.parent / "summary.json").read_text()) for out in (outs[0], alone))
    assert about["labelled_pixels"] == without["labelled_pixels"]
    assert about["tiles"] == 2
    assert about["self_training"]["tiles"] == 2
    assert 0.6 <= about["self_training"]["used"] <= 1
    assert about["validation"]["miou"] > 0.5


def test_sparse_labels_are_kept_beside_those_of_the_teacher(teacher, tmp_path):
    world = build_tiles(tmp_path / "world")
    write_points(world, "trainP6", 3, ("s0_r0_c0", "s0_r1_c0"))
    write_hashes(world / "splits")
    out = train(world, tmp_path / "out", "mssnet-corrected__self-training__P6__s1", teacher)
    about = json.loads((out.parent / "summary.json").read_text())
    assert about["labelled_pixels"] == {"left": 6, "right": 6}
    assert about["self_training"]["tiles"] == 2


def test_a_second_round_learns_from_the_first():
    config = FinetuneConfig.model_validate(
        {
            "self_training": {"teacher": ENSEMBLE, "start": "tmcnet"},
            "sweep": [
                {
                    "methods": ["random", "self-training-2"],
                    "networks": ["pixel_mlp", "mssnet", {"ensemble": ["pixel_mlp", "encoder_logistic"]}],
                    "fractions": [5],
                    "seeds": [1],
                }
            ],
        }
    )
    runs = expand_sweep(config.sweep)
    assert Counter(run.method for run in runs) == {"random": 3, "self-training-2": 3}
    student = Run.parse("pixel_mlp-baseline__self-training-2__R5__s1")
    assert student in runs
    first = config.teacher_of(student)
    assert first.name == "pixel_mlp-baseline__self-training__R5__s1"
    assert config.teacher_of(first).name == "pixel_boosting_and_mssnet-corrected__tmcnet__R5__s1"
    assert config.start_of(student) == "random"
    assert config.start_of(Run.parse("mssnet-corrected__self-training-2__R5__s1")) == "tmcnet"
    mean = Run.parse("pixel_mlp_and_encoder_logistic-baseline__self-training-2__R5__s1")
    assert config.teacher_of(mean) is None
    assert [member.method for member in mean.members] == ["self-training-2"] * 2
    needed = [run.name for run in config.with_needed([mean])]
    assert set(needed) >= {
        "encoder_logistic-baseline__self-training__R5__s1",
        "pixel_boosting-baseline__random__R5__s1",
        "mssnet-corrected__tmcnet__R5__s1",
    }
    assert len(needed) == len(set(needed)) == 8
    assert Series.of(student).label == "Pixel-wise neural network, self-training, round 2"
