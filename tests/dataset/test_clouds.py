"""Covered copies of tiles: same labels, other images untouched, the same at each reading."""

import numpy as np
import pytest
import torch

from tests.train.tiny import build_tiles, configs
from tmcnet.dataset.clouds import SHARE, CoveredTiles, draw_clouds, draw_opacity
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.seeding import generator
from tmcnet.store import TileStore
from tmcnet.train.samples import BatchBuilder, class_counts


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    root = build_tiles(tmp_path_factory.mktemp("world"))
    names = (root / "splits" / "train_RGB.txt").read_text().split()
    scaling = Normalisation.read(root / "normalisation.json")
    return TileDataset(TileStore(root / "tiles"), names, scaling, with_labels=True, cache_gib=1)


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_copies_have_covered_images_and_the_same_labels(tiles, cache_gib):
    covered = CoveredTiles(tiles, ["clouds", "no_data", "clouds"], ["optical"], cache_gib, seed=1)
    assert len(covered) == 4 * len(tiles)
    clip = tiles.normalisation.clip
    for index in range(len(tiles)):
        plain, *copies = (covered[4 * index + number] for number in range(4))
        assert torch.equal(plain.images["optical"], tiles[index].images["optical"])
        for copy in copies:
            assert torch.equal(copy.truth, plain.truth)
            assert torch.equal(copy.images["sar"], plain.images["sar"])
            changed = (copy.images["optical"] != plain.images["optical"]).any(dim=0).float().mean()
            assert 0.1 < changed <= 1
            assert copy.images["optical"].abs().max() <= clip
        cloud, gap, other_cloud = (copy.images["optical"] for copy in copies)
        emptied = (gap == 0).all(dim=0)
        assert emptied.any() and torch.equal(gap[:, ~emptied], plain.images["optical"][:, ~emptied])
        assert not torch.equal(cloud, other_cloud)
        assert torch.equal(cloud, covered[4 * index + 1].images["optical"])
    other_seed = CoveredTiles(tiles, ["clouds"], ["optical"], cache_gib, seed=2)
    assert not torch.equal(other_seed[1].images["optical"], covered[1].images["optical"])


def test_each_modality_has_clouds_of_its_own(tiles):
    covered = CoveredTiles(tiles, ["no_data"], ["optical", "sar"], 0, seed=1)
    optical, sar = ((covered[1].images[name] == 0).all(dim=0) for name in ("optical", "sar"))
    assert not torch.equal(optical, sar)


@pytest.mark.parametrize("size", [(128, 128), (40, 200), (2, 3)])
def test_clouds_cover_a_share_within_the_limits(size):
    shares = [float((draw_opacity(size, generator(1, "clouds", n)) > 0).float().mean()) for n in range(40)]
    if min(size) > 30:
        assert SHARE[0] - 0.01 <= min(shares) < 0.4 < 0.7 < max(shares) <= SHARE[1] + 0.01
    assert np.isfinite(shares).all()


def test_no_data_stays_no_data_and_clear_ground_stays_as_it_is():
    image = torch.full((3, 64, 64), -0.5)
    image[:, :10] = 0
    opacity = draw_opacity((64, 64), generator(3, "clouds"))
    clouded = draw_clouds(image, generator(3, "clouds"), clip=1.5)
    assert (clouded[:, :10] == 0).all()
    clear = opacity == 0
    clear[:10] = False
    assert clear.any() and (clouded[:, clear] == -0.5).all()
    opaque = opacity == 1
    opaque[:10] = False
    of_other_ground = draw_clouds(image * 0.2, generator(3, "clouds"), clip=1.5)
    assert opaque.any()
    torch.testing.assert_close(clouded[:, opaque], of_other_ground[:, opaque])


def test_batches_and_counts_have_tiles_and_copies_alike(tiles):
    config, _, sensors, _ = configs()
    covered = CoveredTiles(tiles, ["clouds"], ["optical"], 1, seed=1)
    assert (class_counts(covered, 2) == 2 * class_counts(tiles, 2)).all()
    build = BatchBuilder(covered, config, sensors, "mssnet", 1)
    drawn = {crop.tile for step in range(12) for crop in build(step).crops}
    assert drawn == set(range(len(covered)))
