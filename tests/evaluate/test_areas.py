"""Areas of classes are corrected for the errors of the map, and their intervals contain the truth."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from tmcnet.errors import InputError
from tmcnet.evaluate.areas import COLUMNS, Mapped, estimate_shares, measure, read_mapped, write_areas
from tmcnet.model.model_file import read_test_blocks
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.writer import write_raster

CLASSES = 4
COMPOSITION = np.array([0.4, 0.3, 0.2, 0.1])
PIXELS_PER_BLOCK = 1000


def draw_blocks(random: np.random.Generator, number: int, right: float = 0.8) -> np.ndarray:
    """Confusion matrices (truth in rows) of blocks that differ in what they hold and in how well they are mapped."""
    truth = random.multinomial(PIXELS_PER_BLOCK, random.dirichlet(5 * COMPOSITION, number))
    accuracy = random.beta(10 * right, 10 * (1 - right), (number, CLASSES))[..., None]
    return random.multinomial(truth, np.where(np.eye(CLASSES) > 0, accuracy, (1 - accuracy) / (CLASSES - 1)))


def coverage(test_blocks: int, ground_blocks: int, ground_right: float = 0.8, draws: int = 300) -> np.ndarray:
    """Share of draws, by class, in which the 95 % interval contains the true share in the mapped ground."""
    random, hits = np.random.default_rng(5), np.zeros(CLASSES)
    for _ in range(draws):
        test = draw_blocks(random, test_blocks)
        ground = draw_blocks(random, ground_blocks, ground_right).sum(axis=0)
        shares = estimate_shares(Mapped(ground.sum(axis=0), None), test, 0.95)
        truth = ground.sum(axis=1) / ground.sum()
        hits += (shares.low <= truth) & (truth <= shares.high)
    return hits / draws


@pytest.mark.parametrize(("test_blocks", "ground_blocks"), [(12, 200), (30, 10)])
def test_intervals_contain_the_true_area_95_times_in_100(test_blocks: int, ground_blocks: int) -> None:
    found = coverage(test_blocks, ground_blocks)
    assert found.min() > 0.91 and 0.93 < found.mean() < 0.99


def test_intervals_are_wrong_where_the_test_blocks_do_not_represent_the_ground() -> None:
    """On ground that is mapped worse than the test blocks, as in another region: the assumption matters."""
    assert coverage(30, 200, ground_right=0.4).min() < 0.5


def test_the_estimate_is_that_of_olofsson_and_others() -> None:
    """The example of their section 4: deforestation, forest gain, stable forest and non-forest, in pixels."""
    pooled = np.array([[66, 0, 1, 2], [0, 55, 0, 1], [5, 8, 153, 9], [4, 12, 11, 313]])
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000])
    shares = estimate_shares(Mapped(mapped, None), np.stack([pooled, pooled]), 0.95)
    hectares = shares.estimate * mapped.sum() * 0.09
    assert hectares == pytest.approx([21_158, 11_686, 285_770, 581_386], rel=1e-4)


def test_blocks_are_the_units_not_pixels() -> None:
    random = np.random.default_rng(1)
    test, mapped = draw_blocks(random, 20), Mapped(np.full(CLASSES, 10_000_000), None)
    once, hundred_times = estimate_shares(mapped, test, 0.95), estimate_shares(mapped, 100 * test, 0.95)
    assert hundred_times.high - hundred_times.low == pytest.approx(once.high - once.low, rel=0.05)


def test_ground_mapped_as_a_class_that_no_test_pixel_is_mapped_as_widens_all_intervals() -> None:
    blocks = np.stack([np.diag([500, 400, 0])] * 6)
    shares = estimate_shares(Mapped(np.array([600, 300, 100]), None), blocks, 0.95)
    assert shares.estimate == pytest.approx([0.6, 0.3, 0.1])
    assert shares.low == pytest.approx([0.6, 0.3, 0.0])
    assert shares.high == pytest.approx([0.7, 0.4, 0.1])


def test_a_single_block_says_nothing_about_the_variation() -> None:
    shares = estimate_shares(Mapped(np.array([600, 400]), None), np.array([[[90, 10], [10, 90]]]), 0.95)
    assert shares.low.tolist() == [0, 0] and shares.high.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("crs", "transform", "hectares"),
    [
        ("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 6_700_000), [0.25, 0.24]),
        # Mercator: at 60 degrees north a pixel of 10 m covers a quarter of its size in the plane
        ("EPSG:3857", Affine(10, 0, 1_500_000, 0, -10, 8_399_738), [0.0625, 0.06]),
        ("", Affine.identity(), None),
    ],
)
def test_areas_are_those_on_the_ground(tmp_path: Path, crs: str, transform: Affine, hectares: list | None) -> None:
    ids = np.zeros((7, 7), np.uint8)
    ids[:, :4] = 1
    ids[0, :4] = [0, 0, 0, 0]
    ids[6, 6] = 255
    ids[1, 0] = 0
    write_raster(tmp_path / "map.tif", ids, Grid(crs, transform, 7, 7), nodata=255)
    mapped = measure(tmp_path / "map.tif", 3)
    assert mapped.pixels.tolist() == [25, 23, 0]
    if hectares is None:
        assert mapped.hectares is None
    else:
        assert mapped.hectares is not None
        assert mapped.hectares == pytest.approx([hectares[0], hectares[1] * 23 / 24, 0], rel=0.01)


def test_large_pixels_far_apart_have_areas_of_their_own(tmp_path: Path) -> None:
    """A map in degrees from the equator to 60 degrees north, with rows of 0.01 degrees."""
    ids = np.repeat([[0], [1]], [3000, 3000], axis=0).astype(np.uint8)
    write_raster(tmp_path / "map.tif", ids, Grid("EPSG:4326", Affine(1, 0, 10, 0, -0.01, 60), 1, 6000), nodata=255)
    north, south = measure(tmp_path / "map.tif", 2).hectares  # type: ignore[misc]
    expected = (np.sin(np.radians(60)) - np.sin(np.radians(30))) / np.sin(np.radians(30))
    assert north / south == pytest.approx(expected, rel=0.01)


def test_the_table_adds_up_to_all_scenes(tmp_path: Path) -> None:
    scenes = {name: Mapped(np.array([n, 2 * n]), np.array([n, 2 * n]) / 100) for name, n in (("a", 100), ("b", 300))}
    blocks = np.stack([[[90, 10], [20, 80]], [[80, 10], [20, 90]], [[95, 15], [10, 80]]])
    write_areas(tmp_path / "a.csv", scenes, ["water", "land"], blocks, 0.9, whole=True)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["scene"] for row in rows] == ["a", "a", "b", "b", "all scenes", "all scenes"]
    for row in rows:
        assert float(row["ha_low"]) < float(row["ha"]) < float(row["ha_high"])
        assert (row["confidence"], row["test_blocks"]) == ("0.9", "3")
        assert row["assumption"] == "test blocks represent the mapped ground"
    assert sum(float(row["ha"]) for row in rows[4:]) == pytest.approx(12)
    assert rows[5]["mapped_ha"] == "8.0000" and rows[5]["mapped_percent"] == "66.6667"
    names, found = read_mapped([tmp_path / "a.csv"])
    assert names == ["water", "land"] and list(found) == ["a", "b"]
    assert found["b"].pixels.tolist() == [300, 600]
    write_areas(tmp_path / "b.csv", found, names, None, 0.9)
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "a,water,100,1.0000,33.3333,,,,,,,,,"


def test_confusion_matrices_of_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have 2 classes; the map has 1"):
        write_areas(tmp_path / "a.csv", {}, ["water"], np.ones((3, 2, 2), np.int64), 0.95)


def test_scores_of_an_earlier_version_name_the_way_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "tiles.npz", confusion=np.ones((2, 2, 2), np.int64))
    with pytest.raises(InputError, match=r"tiles.npz: cannot be used .*blocks.* the workflow makes it again"):
        read_test_blocks(tmp_path / "tiles.npz")
    np.savez(tmp_path / "tiles.npz", confusion=np.ones((3, 2, 2), np.int64), blocks=["s 0 0", "s 0 1", "s 0 0"])
    assert read_test_blocks(tmp_path / "tiles.npz").tolist() == [[[2, 2], [2, 2]], [[1, 1], [1, 1]]]
