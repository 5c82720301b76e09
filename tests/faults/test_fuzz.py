"""Damaged files of every kind: a parser accepts them or raises the project's own error, and nothing else.

`TMCNET_FUZZ_SECONDS` fuzzes that long with new seeds (`make fuzz`); without it few fixed files are tried.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.faults import acts, weight_rows
from tests.raster.conftest import Source
from tests.splits.tile_indexes import build_index, write_hashes
from tmcnet.config import TilesConfig
from tmcnet.errors import InputError
from tmcnet.evaluate.trained import Trained
from tmcnet.model.weights import read_weights
from tmcnet.raster.inventory.records import Inventory
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.writer import write_raster
from tmcnet.raster.tiling.tiles import scene_strips
from tmcnet.splits.files import verified_list

SECONDS = float(os.environ.get("TMCNET_FUZZ_SECONDS", "0"))
EXAMPLES = 25
ROOT = Path(__file__).parents[2]
PIECES = [
    b"\0",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b",",
    b"\n",
    b"\xff",
    b"9" * 30,
    b": ",
    b"#",
    b"=A1",
]
"""What is inserted beside random bytes."""
HEADER_BYTES = 6000
"""Files of weights are damaged in their header."""


@st.composite
def damage(draw: st.DrawFn, content: bytes, within: int) -> bytes:
    """Replace a few short pieces of a valid file."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, min(len(data), within))), draw(st.integers(0, 8))
        data[at : at + length] = draw(st.binary(max_size=8) | st.sampled_from(PIECES))
    return bytes(data)


def alignment(folder: Path, content: bytes) -> None:
    path = acts.write(folder / "a" / "alignment.json", content)
    if not path.with_name("optical.tif").exists():
        grid = Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_400_000), 64, 64)
        write_raster(path.with_name("optical.tif"), np.ones((1, 64, 64), "u1"), grid)
    acts.record(folder / "a", "alignment.json", content)
    scene_strips(SimpleNamespace(scene="a"), folder, TilesConfig(size=32, stride=32))


def tile_list(folder: Path, content: bytes) -> None:
    if not (folder / "manifest.json").exists():
        for part, names in {"train": "a\nb\n", "val": "c\n", "test": "d\n"}.items():
            (folder / f"{part}_RGB.txt").write_text(names)
        write_hashes(folder)
    verified_list(folder, "train")
    (folder / "train_RGB.txt").write_bytes(content)
    try:
        assert verified_list(folder, "train") == ["a", "b"], "a changed list was accepted"
    finally:
        (folder / "train_RGB.txt").write_text("a\nb\n")


def file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    return lambda folder, content: read(acts.write(folder / name, content)) and None


def kinds(folder: Path) -> dict[str, tuple[Callable[[Path, bytes], None], bytes]]:
    """Parser and a valid file of each kind."""
    source = Source(folder)
    source.scene("a")
    source.take()
    write_hashes(folder)
    torch.save({"backbone.a.weight": torch.zeros(2, 3, 1, 1)}, folder / "theirs.pth")
    record = {"status": "aligned", "model": "shift", "matrix": [[1, 0, 2], [0, 1, 1]], "rmse_px": 0.4, "n_points": 1}
    record |= {
        "n_inliers": 1,
        "reason": "",
        "nodes": [],
        "points": [[1, 2, 0.5, 0.5, 1]],
        "digests": {"optical": "0"},
    }
    index = build_index(scenes=1, side=3).to_csv(index=False).encode()
    band = {"band": "b", "low": 0, "high": 1, "mean": 0, "std": 1}
    scaling = {"optical": [band], "sar": [band], "clip": 1.5, "n_tiles": 3}
    model = weight_rows.network(folder).read_bytes()

    def by(name: str) -> Callable[[Path, bytes], None]:
        return lambda folder, content: acts.record(folder, name, content)

    return {
        "config": (acts.config, (ROOT / "config" / "recipes" / "zion.yaml").read_bytes()),
        "sheet": (acts.sheet, b"scene,optical,sar,label,role,sar_nodata\na,a_o.tif,a_s.tif,a_l.tif,train,0\n"),
        "class_dict": (acts.class_dict, b"name,r,g,b\nwater,0,0,255\nland,0,255,0\n"),
        "seed list": (acts.seed_list, b"a.tif\n"),
        "class table": (by("classes.csv"), b"id,name,color\n0,water,#0000ff\n1,land,#00ff00\n"),
        "normalisation": (by("normalisation.json"), json.dumps(scaling).encode()),
        "manifest": (by("manifest.json"), (folder / "manifest.json").read_bytes()),
        "list": (tile_list, b"a\nb\n"),
        "index": (by("index.csv"), index),
        "tile store": (by("tiles/index.csv"), index),
        "points": (by("points.csv"), b"tile,class,pixel\na,a,3\n"),
        "alignment": (alignment, json.dumps(record).encode()),
        "inventory": (file("inventory.json", Inventory.read), source.json.read_bytes()),
        "weights": (file("w.safetensors", read_weights), model),
        "model": (file("w.safetensors", Trained.read), model),
        "pth": (file("theirs.pth", read_weights), (folder / "theirs.pth").read_bytes()),
    }  # fmt: skip


KINDS = (
    *("config", "sheet", "class_dict", "seed list", "class table", "normalisation", "manifest", "list", "index"),
    *("tile store", "points", "alignment", "inventory", "weights", "model", "pth"),
)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[[Path, bytes], None], bytes]]:
    return kinds(tmp_path_factory.mktemp("valid"))


def seeds() -> Iterator[int]:
    """Seeds of the rounds: 0 alone, or new ones until the time of the kind is over."""
    end = time.monotonic() + SECONDS / len(KINDS)
    yield int(time.time()) if SECONDS else 0
    for number in count(int(time.time()) + 1):
        if time.monotonic() > end:
            return
        yield number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_only_the_own_error_comes_out(
    kind: str, valid: dict[str, tuple[Callable[[Path, bytes], None], bytes]], tmp_path: Path
) -> None:
    act, content = valid[kind]
    within = HEADER_BYTES if kind in ("weights", "model") else len(content)
    tried = 0

    def attempt(damaged: bytes) -> None:
        nonlocal tried
        tried += 1
        try:
            act(tmp_path, damaged)
        except InputError as error:
            assert all(problem.remedy for problem in error.problems)

    act(tmp_path, content) if kind not in ("pth",) else None
    common = {"deadline": None, "database": None, "max_examples": EXAMPLES, "phases": [Phase.generate, Phase.shrink]}
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    for number in seeds():
        fuzz = settings(**common, suppress_health_check=health)(given(damage(content, within))(attempt))
        seed(number)(fuzz)()
    print(f"{kind}: {tried} files")
