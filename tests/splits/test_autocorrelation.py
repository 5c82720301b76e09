import numpy as np
import pytest

from tmcnet.splits.autocorrelation import autocorrelation
from tmcnet.splits.index import TileIndex

TILE = 100


def random_field(rng, side, length):
    """A Gaussian random field with correlation exp(-distance / length), drawn on a torus twice as large."""
    steps = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side))
    covariance = np.exp(-np.hypot(steps[:, None], steps) / length)
    amplitude = np.sqrt(np.maximum(np.fft.fft2(covariance).real, 0))
    noise = rng.standard_normal(covariance.shape)
    return np.fft.ifft2(amplitude * np.fft.fft2(noise)).real[:side, :side]


def index_of(length, scenes=4, side=40, seed=0):
    """Tiles in squares, with two classes whose shares are random fields of a range of `length` tiles."""
    rng = np.random.default_rng(seed)
    share = np.concatenate([0.5 + 0.1 * random_field(rng, side, length).ravel() for _ in range(scenes)]).clip(0, 1)
    n = len(share)
    scene = np.repeat(np.arange(scenes), side * side)
    corner = np.tile(np.stack(np.divmod(np.arange(side * side), side), 1) * TILE, (scenes, 1))
    area = np.rint(np.stack([share, 1 - share], 1) * TILE**2).astype(np.int32)
    names = np.array([f"t{i:06d}" for i in range(n)], object)
    window = np.hstack([corner, np.full((n, 2), TILE)])
    names_of_scenes = [f"s{k}" for k in range(scenes)]
    return TileIndex(names, scene, names_of_scenes, window, np.ones(n, bool), area, ["a", "b"])


@pytest.mark.parametrize("length", [2, 4])
def test_range_of_simulated_fields(length):
    found = [autocorrelation(index_of(length, seed=s), np.random.default_rng(s)) for s in range(4)]
    assert {one["relation"] for one in found} == {"about"}
    assert np.mean([one["range_pixels"] for one in found]) == pytest.approx(length * TILE, rel=0.25)
    assert found[0]["range_metres"] is None
    assert found[0]["correlations"][0] > 0.5


def test_labels_without_autocorrelation():
    found = autocorrelation(index_of(0.1), np.random.default_rng(0))
    assert (found["relation"], found["range_pixels"]) == ("at most", pytest.approx(1.2 * TILE, rel=0.1))


def test_a_range_longer_than_the_scenes_is_a_lower_bound():
    index = index_of(1, scenes=1, side=12)
    ramp = np.rint(np.linspace(0, TILE**2, 144)).astype(np.int32)
    found = autocorrelation(TileIndex(**{**vars(index), "area": np.stack([ramp, TILE**2 - ramp], 1)}), rng())
    assert found["relation"] in ("about", "at least")
    assert found["range_pixels"] > 3 * TILE


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (index_of(2, scenes=1, side=5), "only 25 labelled tiles"),
        (index_of(2, scenes=20, side=2), "scenes are too small"),
        (index_of(2, scenes=36, side=1), "only 0 labelled tiles"),
    ],
)
def test_what_cannot_be_known_is_reported(index, reason):
    found = autocorrelation(index, rng())
    assert (found["range_pixels"], found["relation"]) == (None, "unknown")
    assert reason in found["reason"]


def test_scenes_of_one_class_share_tell_nothing():
    index = index_of(2)
    area = np.full_like(index.area, 50)
    assert "same class shares" in autocorrelation(TileIndex(**{**vars(index), "area": area}), rng())["reason"]


def test_same_generator_same_range():
    index = index_of(2)
    assert autocorrelation(index, rng()) == autocorrelation(index, rng())


def rng():
    return np.random.default_rng(0)
