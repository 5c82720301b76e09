"""Tiles as tensors: normalised, void kept, kept in memory within the budget."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch

from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Band, Normalisation
from tmcnet.errors import InputError
from tmcnet.hashing import pixel_digest
from tmcnet.raster.io.writer import write_raster
from tmcnet.store import TileStore

SCALING = Normalisation(
    {"optical": (Band("red", 0, 100, 0, 1), Band("nir", 0, 200, 0, 1)), "sar": (Band("vv", -20, 0, 0, 1),)},
    clip=1.5,
    n_tiles=2,
)


@pytest.fixture
def store(tmp_path):
    for name, level in (("a", 50), ("b", 100)):
        optical = np.full((2, 8, 6), level, np.uint8)
        sar = np.full((1, 8, 6), -10.0, np.float32)
        sar[0, 0, 0] = np.nan
        sar[0, 1, 1] = 40.0
        label = np.ones((8, 6), np.uint8)
        label[2] = 255
        for kind, values, nodata in (("optical", optical, None), ("sar", sar, np.nan), ("label", label, 255)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_raster(tmp_path / kind / f"{name}.tif", values, None, nodata=nodata)
    return TileStore(tmp_path)


def test_values_are_normalised_and_void_is_kept(store):
    data = TileDataset(store, ["b", "a"], SCALING, with_labels=True, cache_gib=1)
    assert len(data) == 2
    tile = data[0]
    assert tile.name == "b"
    optical, sar = tile.images["optical"], tile.images["sar"]
    assert optical.dtype == sar.dtype == torch.float32
    assert optical[0, 0, 0] == 1 and optical[1, 0, 0] == 0
    assert sar[0, 0, 0] == 0  # no data
    assert sar[0, 1, 1] == 1.5  # clipped
    assert tile.label.dtype == torch.int64
    assert (tile.label[2] == 255).all() and (tile.label[3] == 1).all()


def test_a_tile_that_was_changed_after_it_was_cut_is_refused(store):
    digests = {name: [] for name in ("a", "b")}
    for name, arrays in digests.items():
        for kind in ("optical", "sar", "label"):
            with rasterio.open(store.own_file(kind, name)) as file:
                arrays.append(file.read(1) if kind == "label" else file.read())
    rows = [f"{name},{pixel_digest(*arrays)}" for name, arrays in digests.items()]
    store.index.write_text("\n".join(["tile,digest", *rows]) + "\n")
    read = lambda name: TileDataset(TileStore(store.root), [name], SCALING, False, 0)[0]  # noqa: E731
    shutil.copy2(store.own_file("optical", "a"), store.root / "copy.tif")
    (store.root / "copy.tif").replace(store.own_file("optical", "a"))  # the same pixels
    read("a")
    shutil.copy2(store.own_file("sar", "a"), store.own_file("sar", "b"))
    read("b")  # these are the same, too
    shutil.copy2(store.own_file("optical", "a"), store.own_file("optical", "b"))
    with pytest.raises(InputError, match="was changed after it was cut"):
        read("b")


def test_labels_are_left_out_when_not_asked_for(store):
    assert TileDataset(store, ["a"], SCALING, with_labels=False, cache_gib=1)[0].label is None


def test_the_cache_keeps_to_its_budget(store, monkeypatch):
    data = TileDataset(store, ["a", "b"], SCALING, with_labels=True, cache_gib=1)
    one = data[0].nbytes
    assert data[0] is data[0]
    small = TileDataset(store, ["a", "b"], SCALING, with_labels=True, cache_gib=1.5 * one / 2**30)
    assert small[0] is small[0]
    assert small[1] is not small[1]
    none = TileDataset(store, ["a"], SCALING, with_labels=False, cache_gib=0)
    assert none[0] is not none[0]


def test_workers_share_the_budget_of_the_cache(store, monkeypatch):
    data = TileDataset(store, ["a", "b"], SCALING, with_labels=True, cache_gib=1)
    two = 2 * data[0].nbytes / 2**30
    monkeypatch.setattr("tmcnet.dataset.loading.get_worker_info", lambda: SimpleNamespace(num_workers=2))
    shared = TileDataset(store, ["a", "b"], SCALING, with_labels=True, cache_gib=two)
    assert shared[0] is shared[0]
    assert shared[1] is not shared[1]


def test_missing_files_are_all_named(store):
    with pytest.raises(InputError) as error:
        TileDataset(store, ["a", "x", "y"], SCALING, with_labels=True, cache_gib=1)
    assert len(error.value.problems) == 6
    with pytest.raises(InputError, match="empty"):
        TileDataset(store, [], SCALING, with_labels=True, cache_gib=1)


def test_files_of_different_size_are_named(store):
    write_raster(store.path("sar", "a"), np.zeros((1, 8, 8), np.float32), None, nodata=np.nan)
    with pytest.raises(InputError, match="differ in size"):
        TileDataset(store, ["a"], SCALING, with_labels=True, cache_gib=1)[0]
