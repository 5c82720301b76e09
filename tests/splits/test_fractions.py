import numpy as np
import pytest

from tmcnet.config import SplitsConfig
from tmcnet.seeding import generator
from tmcnet.splits import fractions
from tmcnet.splits.fractions import draw_fractions, draw_order, fraction_size
from tmcnet.splits.index import TileIndex
from tmcnet.splits.parts import TRAIN


def areas(n, seed=0, classes=6, rare=3):
    """Labelled pixels; the last class occurs in `rare` tiles only."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.geomspace(1, 0.02, classes), n)
    shares[:, -1] = 0
    shares[rng.choice(n, rare, replace=False), -1] = 0.2
    return np.rint(shares * rng.uniform(100, 1000, (n, 1))).astype(np.int32)


def index_of(area):
    """Tiles that are all labelled."""
    n, k = area.shape
    return TileIndex(
        np.array([f"t{i:05d}" for i in range(n)], object), np.zeros(n, int), ["s"], np.zeros((n, 4), int),
        np.ones(n, bool), area, [f"class {i}" for i in range(k)],
    )  # fmt: skip


def drawn_from(area, config):
    """Label fractions of tiles that are all labelled and in the training part."""
    return draw_fractions(index_of(area), np.full(len(area), TRAIN, np.int8), config, "index.csv")[0]


def off(area, chosen):
    part, whole = area[chosen].sum(axis=0), area.sum(axis=0)
    return np.abs(part / part.sum() - whole / whole.sum()).max()


@pytest.mark.parametrize(("n", "percent", "size"), [(20, 5, 1), (21, 5, 2), (3, 1, 1), (1000, 0.1, 1), (300, 7, 21)])
def test_sizes_are_rounded_up(n, percent, size):
    assert fraction_size(n, percent) == size


def test_order_is_a_permutation():
    order = draw_order(areas(300), *np.zeros((2, 300), int), generator(1, "x"))
    assert sorted(order) == list(range(300))


@pytest.mark.parametrize(("n", "percent"), [(40, 25), (400, 5), (400, 25), (5000, 5)])
def test_fractions_keep_class_shares_better_than_chance(n, percent):
    area = areas(n)
    config = SplitsConfig(fractions=[percent, 100], subsets=5)
    drawn = drawn_from(area, config)
    ours = [off(area, tiles) for name, tiles in drawn.items() if "100" not in name]
    rng = np.random.default_rng(1)
    size = fraction_size(n, percent)
    random = [off(area, rng.choice(n, size, replace=False)) for _ in range(200)]
    assert np.mean(ours) < 0.8 * np.mean(random)
    assert len({tuple(tiles) for name, tiles in drawn.items() if "100" not in name}) == 5


@pytest.mark.parametrize("seed", range(5))
def test_first_tiles_have_every_class(seed):
    area = areas(500, seed)
    order = draw_order(area, *np.zeros((2, 500), int), generator(seed, "x"))
    covered = np.cumsum(area[order[:6]] > 0, axis=0) > 0
    assert covered[5].all()
    assert covered[:3, -1].any()


def test_long_orders_stay_balanced_beyond_the_tiles_chosen_one_by_one(monkeypatch):
    monkeypatch.setattr(fractions, "MAX_CHOSEN", 50)
    area = areas(4000)
    order = draw_order(area, *np.zeros((2, 4000), int), generator(3, "x"))
    assert sorted(order) == list(range(4000))
    dominant = area.argmax(axis=1)
    whole = np.bincount(dominant, minlength=6) / 4000
    for size in (200, 1000, 2500):
        found = np.bincount(dominant[order[50:size]], minlength=6) / (size - 50)
        assert np.abs(found - whole).max() < 0.02


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("n", "percent", "draws"), [(60, 1, 10), (88, 5, 10), (520, 5, 20), (520, 25, 4), (519, 10, 9)]
)
def test_draws_share_no_tiles_as_long_as_there_are_enough(monkeypatch, n, percent, draws, many):
    monkeypatch.setattr(fractions, "MAX_CHOSEN", 10 if many else 10_000)
    drawn = drawn_from(areas(n, rare=n), SplitsConfig(fractions=[percent, 100], subsets=draws))
    tiles = np.concatenate([tiles for name, tiles in drawn.items() if "100" not in name])
    assert len(np.unique(tiles)) == len(tiles)


def test_a_warning_names_draws_that_overlap():
    config = SplitsConfig(fractions=[5, 25, 100], subsets=8)
    index = index_of(areas(100, rare=100))
    _, warnings = draw_fractions(index, np.full(100, TRAIN, np.int8), config, "index.csv")
    assert len([warning for warning in warnings if "overlap" in warning]) == 1
    assert "The 8 draws of R25 overlap: they have 200 tiles, of which 100 are different." in " ".join(warnings)


def test_draws_of_fewer_tiles_than_classes_differ_although_few_tiles_have_a_class():
    drawn = drawn_from(areas(100, rare=1), SplitsConfig(fractions=[1, 5, 100], subsets=10))
    for fraction in ("trainR1", "trainR5"):
        tiles = np.concatenate([t for name, t in drawn.items() if name.split("_")[0] == fraction])
        assert len(np.unique(tiles)) == len(tiles)


def test_a_class_that_few_tiles_have_is_in_every_draw():
    area = areas(100)
    drawn = drawn_from(area, SplitsConfig(fractions=[10, 100], subsets=6))
    carriers = [set(tiles[area[tiles, -1] > 0]) for name, tiles in drawn.items() if "100" not in name]
    assert all(carriers)
    assert len(set.union(*carriers[:3])) == 3


def test_one_tile_and_no_labels_of_a_class():
    drawn = drawn_from(np.array([[5, 0]], np.int32), SplitsConfig(fractions=[1, 100], subsets=1))
    assert {name: tiles.tolist() for name, tiles in drawn.items()} == {"trainR1": [0], "trainR100": [0]}


def test_other_fractions_and_draws_leave_a_list_as_it_is(monkeypatch):
    monkeypatch.setattr(fractions, "MAX_CHOSEN", 50)
    area = areas(1000)
    few = drawn_from(area, SplitsConfig(fractions=[2, 20], subsets=2))
    many = drawn_from(area, SplitsConfig(fractions=[1, 2, 5, 20, 60, 100], subsets=3))
    assert {name: tiles.tolist() for name, tiles in many.items() if name in few} == {
        name: tiles.tolist() for name, tiles in few.items()
    }
