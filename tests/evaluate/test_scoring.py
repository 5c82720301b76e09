import numpy as np
import pytest
import torch
from torch import nn

from tests.train.tiny import build_tiles
from tmcnet.config import EvaluateConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.evaluate import metrics
from tmcnet.evaluate.evaluate import count_tiles
from tmcnet.evaluate.metrics import boundary_counts
from tmcnet.splits.files import read_list
from tmcnet.store import TileStore


class OneSensor(nn.Module):
    """A network that follows optical brightness where there is any, else SAR, upside down."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        optical = images["optical"]
        seen = optical.mean(1) if optical.any() else -images["sar"].mean(1)
        return self.scale * torch.stack([-seen, seen], 1)


class Counting(TileDataset):
    """Counts how often a tile is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    root = build_tiles(tmp_path_factory.mktemp("world"))
    names = read_list(root / "splits" / "test_RGB.txt")
    scaling = Normalisation.read(root / "normalisation.json")
    return Counting(TileStore(root / "tiles"), names, scaling, with_labels=True, cache_gib=0)


def count(tiles, withheld, tolerance=2):
    return count_tiles(
        OneSensor(), tiles, 2, EvaluateConfig(batch_size=3, boundary_tolerance=tolerance), 1.0, withheld, {}
    )


def test_a_withheld_sensor_is_all_zeros_and_the_other_is_untouched(tiles):
    found = count(tiles, ("optical", "sar"))
    assert metrics.overall_accuracy(found.withheld["optical"]) < 0.2
    assert metrics.overall_accuracy(found.withheld["sar"]) > 0.9
    # this network never looks at SAR while it sees the optical image
    assert found.withheld["sar"].tolist() == found.tiles.sum(0).tolist()
    assert found.withheld["optical"].sum() == found.tiles.sum()


def test_each_tile_is_read_once_and_more_passes_change_no_score(tiles):
    tiles.reads = 0
    both, alone = count(tiles, ("optical", "sar")), count(tiles, ())
    assert tiles.reads == 2 * len(tiles)
    assert alone.withheld == {}
    assert np.array_equal(both.tiles, alone.tiles)
    assert np.array_equal(both.boundary, alone.boundary)


@pytest.mark.parametrize("tolerance", [0, 2])
def test_boundaries_are_added_up_over_the_tiles(tiles, tolerance):
    expected = 0
    for tile in (tiles[i] for i in range(len(tiles))):
        guess = (tile.images["optical"].mean(0) > 0).long().numpy()
        expected = expected + boundary_counts(tile.label.numpy(), guess, 2, tolerance)
    assert np.array_equal(count(tiles, (), tolerance).boundary.sum(axis=0), expected)
