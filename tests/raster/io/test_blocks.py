import numpy as np
import pytest
from affine import Affine

from tmcnet.raster.io import blocks
from tmcnet.raster.io.blocks import block_windows, log_duration, log_progress
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import Raster
from tmcnet.raster.io.writer import RasterProfile, write_draft

GRID = Grid("EPSG:3035", Affine(20, 0, 4e6, 0, -20, 3e6), 600, 530)


@pytest.mark.parametrize(
    ("height", "width", "bands"), [(20_000, 20_000, 4), (530, 600, 2), (10, 90_000, 13), (3, 5, 1)]
)
def test_blocks_cover_a_raster_once_and_follow_its_tiles(height, width, bands):
    seen = block_windows(height, width, bands)
    assert sum(h * w for _, _, h, w in seen) == height * width
    assert len({(row, column) for row, column, _, _ in seen}) == len(seen)
    for row, column, h, w in seen:
        assert row % 256 == column % 256 == 0 and h * w * bands <= max(blocks.MAX_BLOCK_VALUES, 256 * 256 * bands)
        assert (h % 256 == 0 or row + h == height) and (w % 256 == 0 or column + w == width)


def test_blocks_with_a_rim_are_windows_of_the_whole(monkeypatch, tmp_path):
    monkeypatch.setattr(blocks, "MAX_BLOCK_VALUES", 2 * 256 * 256)
    image = np.random.default_rng(0).normal(size=(2, 530, 600)).astype("f4")
    image[0, 100:300, 200:270] = np.nan
    write_draft(tmp_path / "a.tif", GRID, RasterProfile(2, "float32", np.nan), [((0, 0, 530, 600), image)])
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), constant_values=np.nan)
    found = list(Raster.of(tmp_path / "a.tif").blocks(rim=3))
    assert len(found) > 4
    for (row, column, height, width), values in found:
        np.testing.assert_array_equal(values, padded[:, row : row + height + 6, column : column + width + 6])
    declared = list(Raster.of(tmp_path / "a.tif", nodata=float(image[1, 0, 0])).blocks())
    assert np.isnan(declared[0][1][1, 0, 0]) and not np.isnan(found[0][1][1, 3, 3])


def test_a_long_step_logs_its_progress(monkeypatch, capsys):
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(blocks.time, "monotonic", lambda: float(next(clock)))
    parts = [((row, 0, 2, 10), row) for row in range(0, 10, 2)]
    assert [row for _, row in log_progress(parts, 100, "label")] == [0, 2, 4, 6, 8]
    # three seconds pass between two looks at the clock
    assert capsys.readouterr().err.splitlines() == ["label: 40%, 18 s left", "label: 80%, 7 s left"]


def test_a_short_step_logs_its_duration_and_a_failed_one_nothing(capsys):
    with log_duration("picture"):
        assert not capsys.readouterr().err
    assert capsys.readouterr().err == "picture: 0.0 s\n"
    with pytest.raises(ValueError, match="x"), log_duration("matching"):
        raise ValueError("x")
    assert not capsys.readouterr().err
