"""The probe: what labels a feature pixel has, what is scored, and that training does not notice it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.train.tiny import build_tiles, configs
from tmcnet.config import IGNORE, MethodConfig
from tmcnet.config.pretraining import ProbeConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError
from tmcnet.model.tmcnet import TMCNet
from tmcnet.raster.io.writer import write_raster
from tmcnet.splits.files import read_list
from tmcnet.store import TileStore
from tmcnet.train import probe as room
from tmcnet.train.loop import LoopPlan, OptimiserPlan, StepModule, Training
from tmcnet.train.probe import Probe, cell_labels

STRIDE = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return build_tiles(tmp_path_factory.mktemp("probe"))


def parts(root):
    scaling = Normalisation.read(root / "normalisation.json")
    lists = (read_list(root / "splits" / f"{part}_RGB.txt") for part in ("train", "val"))
    return [TileDataset(TileStore(root / "tiles"), names, scaling, with_labels=True, cache_gib=1) for names in lists]


def config(**changes):
    return ProbeConfig(**{"every": 2, "classifier": "knn", "tiles": 10, "pixels": 1000, **changes})


class Means(nn.Module):
    """Features that tell the classes apart: the means of the bands around each pixel of the map."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, images):
        assert not self.training
        both = F.pad(torch.cat([images["optical"], images["sar"]], dim=1), [STRIDE // 2] * 4, mode="replicate")
        return self.scale * F.avg_pool2d(both, STRIDE, ceil_mode=True)[..., :3, :3]


class Noise(Means):
    """Features that say nothing."""

    def features(self, images):
        random = torch.Generator().manual_seed(int(images["optical"].sum().abs() * 1e3))
        return torch.randn(super().features(images).shape, generator=random)


def slow_cell_labels(label, stride):
    height, width = label.shape
    rows, columns = -(-height // stride), -(-width // stride)
    found = np.empty((rows, columns), np.int64)
    for r in range(rows):
        for c in range(columns):
            top, left = (max(k * stride - stride // 2, 0) for k in (r, c))
            around = label[top : r * stride + stride // 2, left : c * stride + stride // 2]
            ids, counts = np.unique(around, return_counts=True)
            found[r, c] = ids[counts.argmax()]
    return found


@pytest.mark.parametrize("shape", [(40, 40), (48, 33), (7, 65)])
@pytest.mark.parametrize("stride", [8, 16])
def test_a_cell_has_the_most_frequent_class_around_its_centre(shape, stride):
    random = np.random.default_rng(0)
    label = random.choice([0, 1, 2, IGNORE], shape).astype(np.int64)
    np.testing.assert_array_equal(cell_labels(label, stride), slow_cell_labels(label, stride))


@pytest.mark.parametrize("classifier", ["knn", "linear"])
def test_features_that_show_the_classes_score_higher_than_noise(root, classifier):
    probes = [Probe(net, *parts(root), 2, config(classifier=classifier), 1) for net in (Means(), Noise())]
    good, bad = (probe.score() for probe in probes)
    assert good["probe_oa"] > 0.8 and good["probe_miou"] > 0.65
    assert bad["probe_oa"] < 0.8 and bad["probe_miou"] < 0.6


def test_tiles_and_pixels_are_capped_and_the_same_at_each_look(root):
    few = config(tiles=2, pixels=8)
    first, second = (Probe(Means(), *parts(root), 2, few, 1) for _ in range(2))
    for (_, chosen), (_, again) in zip(first.parts, second.parts, strict=True):
        assert len(chosen) == 2
        assert [len(some.cells) for some in chosen] == [4, 4]
        assert all(np.array_equal(a.cells, b.cells) for a, b in zip(chosen, again, strict=True))
        assert all(IGNORE not in some.truth for some in chosen)
    assert first.score() == second.score()


def test_labels_of_one_class_only_are_an_answer_too(root, monkeypatch):
    monkeypatch.setattr(room, "cell_labels", lambda label, stride: np.ones((3, 3), np.int64))
    scores = Probe(Means(), *parts(root), 2, config(classifier="linear"), 1).score()
    assert scores == {"probe_oa": 1.0, "probe_miou": 1.0}


def test_a_part_without_labels_is_told_before_training(tmp_path):
    root = build_tiles(tmp_path)
    for name in read_list(root / "splits" / "val_RGB.txt"):
        write_raster(root / "tiles" / "label" / f"{name}.tif", np.full((40, 40), 255, np.uint8), None, nodata=255)
    with pytest.raises(InputError, match="validation tiles"):
        Probe(Means(), *parts(root), 2, config(), 1)


class Unlabelled(StepModule):
    """A training that never sees a label."""

    dies_at = probe = None

    def evaluate(self, step):
        return self.probe.score()

    def forward(self, batch):
        if self.global_step == self.dies_at:
            raise ConnectionAbortedError("killed")
        return {"loss": self.network.features(batch).square().mean()}


def train(root, state, probed=True):
    _, model, _, compute = configs()
    torch.manual_seed(0)
    network = TMCNet({"optical": 3, "sar": 1}, model, MethodConfig(lambda_global=1))
    labelled, validation = parts(root)

    def build(step):
        tiles = [labelled[(step + i) % len(labelled)] for i in range(2)]
        return {name: torch.stack([t.images[name] for t in tiles]) for name in ("optical", "sar")}

    module = Unlabelled(network, OptimiserPlan(5, 0.01, 0, 0.0), build)
    if probed:
        module.probe = Probe(network, labelled, validation, 2, config(classifier="linear"), 1)
        module.evaluated = (0, 2, 4, 5)
    training = Training(module, LoopPlan("test", 2, 2, 2, state, 1, compute, 1))
    training.run()
    return network.state_dict(), training.curves


def test_training_does_not_notice_the_probe_and_resumes_with_it_exactly(root, tmp_path, monkeypatch):
    expected, rows = train(root, tmp_path / "whole")
    assert [step for step, row in rows.items() if "probe_oa" in row] == [0, 2, 4, 5]
    assert set(rows[0]) == {"probe_oa", "probe_miou"}
    alone, _ = train(root, tmp_path / "alone", probed=False)
    monkeypatch.setattr(Unlabelled, "dies_at", 3)
    with pytest.raises(ConnectionAbortedError):
        train(root, tmp_path / "killed")
    monkeypatch.setattr(Unlabelled, "dies_at", None)
    resumed, same = train(root, tmp_path / "killed")
    for name, tensor in expected.items():
        assert torch.equal(alone[name], tensor) and torch.equal(resumed[name], tensor)
    assert same == rows
