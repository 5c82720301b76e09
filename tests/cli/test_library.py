"""The code of docs/library.md runs, and wrong shapes are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.test_predict import SIDE, write_model, write_scene
from tmcnet.evaluate.trained import Trained, predict_raw, probabilities
from tmcnet.raster.io import read_grid, read_labels, write_raster

PAGE = Path(__file__).parents[2] / "docs" / "library.md"


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page needs."""
    write_model(tmp_path / "weights.safetensors")
    write_scene(tmp_path)
    label = np.random.default_rng(0).integers(0, 3, (1, SIDE, SIDE)).astype("u1")
    write_raster(tmp_path / "label.tif", label, read_grid(tmp_path / "optical.tif"), 255)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_of_the_page_runs(notebook: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (notebook / "map.tif").exists() and (notebook / "map_confidence.tif").exists()
    matrix = names["matrix"]
    assert isinstance(matrix, np.ndarray) and matrix.sum() == SIDE * SIDE
    assert set(np.unique(read_labels(notebook / "map.tif"))) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 32, 32), r"`optical` has the shape 2 x 32 x 32; N x C x H x W is needed.*image\[None\]"),
        ((1, 5, 32, 32), r"an image has 5 bands; the statistics are of \['red', 'nir'\]"),
        ((1, 2, 30, 32), r"sizes differ: `optical` 30 x 32, `sar` 32 x 32"),
    ],
)
def test_wrong_shapes_are_named(notebook: Path, shape: tuple[int, ...], message: str) -> None:
    trained = Trained.read(notebook / "weights.safetensors")
    images = {"optical": np.zeros(shape, "f4"), "sar": np.zeros((1, 2, 32, 32), "f4")}
    with pytest.raises(Exception, match=message):
        predict_raw(trained, images)
    if "bands" not in message:
        with pytest.raises(ValueError, match=message):
            probabilities(trained.network, {name: torch.from_numpy(image) for name, image in images.items()})
