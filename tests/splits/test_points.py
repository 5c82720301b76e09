"""Points: drawn from the index alone, written, recorded in the manifest, and placed in the labels."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.splits.tile_indexes import build_index
from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, SplitsConfig
from tmcnet.dataset.seed_export import export_seed_layout
from tmcnet.errors import InputError
from tmcnet.raster.inventory.seed_layout import read_seed_layout
from tmcnet.raster.io.reader import read_grid, read_labels
from tmcnet.raster.io.writer import write_raster
from tmcnet.splits import points as module
from tmcnet.splits.files import keep_points, points_file, read_list, verified_list
from tmcnet.splits.index import read_index
from tmcnet.splits.points import draw_points, points_text, read_points, read_tile_points
from tmcnet.splits.splits import make_splits, verify
from tmcnet.store import TileStore

CONFIG = SplitsConfig(block_size=64, fractions=[10, 100], points=[3, 40], subsets=2)
NAMES = ("trainP3", "trainP40", "trainP3_s2", "trainP40_s2")


def rows(points):
    tile, class_id = (points[column].str.split().str[1].astype(int) for column in ("tile", "class"))
    return list(zip(tile, class_id, points["pixel"].tolist(), strict=True))


def draw(area, points, subsets=1, seed=1, classes=None):
    config = SplitsConfig(points=points, subsets=subsets, seed=seed)
    area = np.asarray(area, np.int32)
    names = classes or [f"class {k}" for k in range(area.shape[1])]
    return draw_points(area, np.array([f"tile {i}" for i in range(100, 100 + len(area))], object), names, config)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    tiles=st.integers(1, 12),
    classes=st.integers(1, 4),
    most=st.sampled_from([1, 9, 400]),
    shuffled=st.sampled_from([0, 2**20]),
    points=st.lists(st.integers(1, 300), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_points_of_any_index(seed, tiles, classes, most, shuffled, points):
    random = np.random.default_rng(seed)
    area = random.integers(0, most + 1, (tiles, classes)) * random.integers(0, 2, (tiles, classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_SHUFFLED", shuffled)
        drawn = draw(area, points, subsets=2, seed=seed)
        assert list(drawn) == [f"trainP{n}{end}" for end in ("", "_s2") for n in points]
        # neither other numbers of points nor other classes change what is drawn
        assert rows(draw(area, points[:1], seed=seed)[f"trainP{points[0]}"]) == rows(drawn[f"trainP{points[0]}"])
        alone = draw(area[:, :1], points, seed=seed, classes=["class 0"])[f"trainP{points[-1]}"]
    assert rows(alone) == [row for row in rows(drawn[f"trainP{points[-1]}"]) if row[1] == 0]
    for end in ("", "_s2"):
        chain = [rows(drawn[f"trainP{n}{end}"]) for n in points]
        assert all(set(small) <= set(large) for small, large in pairwise(chain))
        for n, found in zip(points, chain, strict=True):
            assert found == sorted(set(found))
            assert all(0 <= pixel < area[tile - 100, class_id] for tile, class_id, pixel in found)
            counts = np.bincount([class_id for _, class_id, _ in found], minlength=classes)
            np.testing.assert_array_equal(counts, np.minimum(area.sum(axis=0), n))


@pytest.mark.parametrize("shuffled", [0, 2**20])
def test_every_pixel_has_the_same_chance(monkeypatch, shuffled):
    monkeypatch.setattr(module, "_MAX_SHUFFLED", shuffled)
    area = np.array([[5], [0], [60], [35]])
    drawn = [draw(area, [10], seed=seed)["trainP10"] for seed in range(1000)]
    first = {"tile 100": 0, "tile 102": 5, "tile 103": 65}
    pixels = np.concatenate([points["pixel"] + points["tile"].map(first) for points in drawn])
    hits = np.bincount(pixels, minlength=100)
    # a pixel is drawn in a tenth of the draws: 100 times, with a standard deviation of 9.5
    assert hits.sum() == 10_000
    assert (np.abs(hits - 100) < 5 * 9.5).all()
    assert 6 < hits.std() < 13


def test_draws_are_independent():
    area = np.full((50, 2), 1000)
    first, second = draw(area, [100], subsets=2).values()
    assert len(set(rows(first)) & set(rows(second))) < 10
    classes = [{(tile, pixel) for tile, k, pixel in rows(first) if k == class_id} for class_id in (0, 1)]
    assert len(classes[0] & classes[1]) < 10


def test_counts_beyond_32_bits():
    area = np.full((3000, 1), 2**30)
    points = draw(area, [500])["trainP500"]
    assert len(set(rows(points))) == 500
    assert max(tile for tile, _, _ in rows(points)) > 2500
    assert points["pixel"].between(0, 2**30 - 1).all()


def test_points_are_found_by_their_number_row_by_row():
    label = np.array([[1, 0, 1], [255, 1, 0]], np.uint8)
    sparse = keep_points(label, np.array([[1, 1], [0, 0], [1, 2]]), "t")
    np.testing.assert_array_equal(sparse, [[255, 0, 1], [255, 1, 255]])
    # one more than there are, which rounded shares may promise: the last one
    np.testing.assert_array_equal(keep_points(label, np.array([[0, 2]]), "t"), [[255] * 3, [255, 255, 0]])
    with pytest.raises(InputError, match=r"t: its label has no pixel of class id 2, .* Run the tiling stage again"):
        keep_points(label, np.array([[2, 0]]), "t")


@pytest.fixture
def case(index_at, tmp_path):
    path = index_at(build_index(unlabelled=0.1, rare=(9,)).replace({"share_class 4": 0.2}, 0.005))
    make_splits(path, CONFIG, tmp_path / "splits")
    return tmp_path / "splits", path


def test_splits_write_points_and_the_manifest_records_them(case):
    folder, path = case
    index = read_index(path, CONFIG)
    manifest = json.loads((folder / "manifest.json").read_text())
    train = np.flatnonzero(np.isin(index.tiles, read_list(folder / "train_RGB.txt")))
    total = index.area[train].sum(axis=0, dtype=int)
    assert 3 <= total[4] < 40 < total[:4].min()  # a class with fewer pixels than wanted
    for name in NAMES:
        n = 3 if "P3" in name else 40
        table = pd.read_csv(points_file(folder, name))
        assert list(table.columns) == ["tile", "class", "pixel"]
        assert table.equals(table.sort_values(["tile", "class", "pixel"], ignore_index=True))
        tiles = sorted(set(table["tile"]))
        for word in ("RGB", "SAR", "lbl"):
            assert read_list(folder / f"{name}_{word}.txt") == tiles
        counts = dict(zip(index.classes, np.minimum(total, n).tolist(), strict=True))
        assert table["class"].value_counts().to_dict() == counts
        entry = manifest["lists"][name]
        assert entry["points"]["of_class"] == counts
        assert entry["points"]["sha256"] == hashlib.sha256(points_file(folder, name).read_bytes()).hexdigest()
        assert entry["class_shares"]["class 4"] == pytest.approx(counts["class 4"] / sum(counts.values()), abs=1e-6)
        # what is read back is what was written
        assert (
            points_text(read_points(points_file(folder, name), index.classes))
            == points_file(folder, name).read_bytes()
        )
    short = f"P40 needs 40 labelled pixels of each class; the training part has fewer of some: class 4 ({total[4]})."
    assert [w for w in manifest["warnings"] if " needs " in w] == [f"{short} All of them are taken."]
    assert verify(folder, path, CONFIG) == []


def test_points_of_earlier_splits_are_removed(case):
    folder, path = case
    make_splits(path, CONFIG.model_copy(update={"points": [5]}), folder)
    assert sorted(p.name for p in folder.glob("*points*")) == ["trainP5_points.csv", "trainP5_s2_points.csv"]
    make_splits(path, CONFIG.model_copy(update={"points": []}), folder)
    assert not list(folder.glob("*P*"))


def messages(folder, index, config=None):
    return "\n".join(map(str, verify(folder, index, config)))


def edit(folder, name, change, consistent=False):
    """Change the table of points; `consistent` also forges its hash and counts in the manifest, and its lists."""
    path = points_file(folder, name)
    table = change(pd.read_csv(path, dtype={"pixel": int}))
    path.write_text(table.to_csv(index=False))
    if not consistent:
        return
    manifest = json.loads((folder / "manifest.json").read_text())
    text = "".join(f"{tile}\n" for tile in sorted(set(table["tile"])))
    for word in ("RGB", "SAR", "lbl"):
        (folder / f"{name}_{word}.txt").write_text(text)
    entry = manifest["lists"][name]
    entry.update(n=text.count("\n"), sha256=hashlib.sha256(text.encode()).hexdigest())
    entry["points"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_points_edited_by_hand(case):
    folder, index = case
    edit(folder, "trainP3", lambda t: t.assign(pixel=t["pixel"].where(t.index > 0, 0)))
    message = messages(folder, index)
    assert "trainP3_points.csv: was edited by hand: its hash is not the one in the manifest" in message
    assert "trainP3_points.csv: is not nested in trainP40: " in message
    assert "trainP3_RGB.txt" not in message


def test_a_list_whose_points_were_edited_is_not_read(case):
    folder, _ = case
    assert verified_list(folder, "trainP40") == read_list(folder / "trainP40_RGB.txt")
    edit(folder, "trainP40", lambda t: t.assign(pixel=t["pixel"].where(t.index > 0, 0)))
    with pytest.raises(InputError, match=r"trainP40_points.csv: was edited by hand"):
        verified_list(folder, "trainP40")


def test_points_that_are_not_nested(case):
    folder, index = case
    small = pd.read_csv(points_file(folder, "trainP3")).query("`class` == 'class 0'").iloc[0]
    edit(
        folder,
        "trainP40",
        lambda t: t[~((t["tile"] == small["tile"]) & (t["pixel"] == small["pixel"]))],
        consistent=True,
    )
    message = messages(folder, index)
    point = f"{small['tile']} {small['class']} {small['pixel']} (1 in all)"
    assert f"trainP3_points.csv: is not nested in trainP40: {point}" in message
    assert f"has other numbers of points than it should: {small['class']} 39 in place of 40" in message
    assert "now give other points of trainP40" in message or "now give another trainP40" in message
    assert "edited by hand" not in message


def test_points_outside_the_training_part(case):
    folder, index = case
    table = read_index(index, CONFIG)
    test = read_list(folder / "test_RGB.txt")[0]
    class_id = int(table.area[list(table.tiles).index(test)].argmax())

    def move(points):
        chosen = points.index[points["class"] == f"class {class_id}"][0]
        points.loc[chosen, ["tile", "pixel"]] = [test, 0]
        return points.sort_values(["tile", "class", "pixel"])

    edit(folder, "trainP40", move, consistent=True)
    message = messages(folder, index)
    assert f"trainP40_RGB.txt: is not nested in train: {test} (1 in all)" in message
    edit(folder, "trainP3", move)
    assert f"trainP3_points.csv: and its list do not name the same tiles: {test}" in messages(folder, index)
    edit(folder, "trainP3", lambda t: t.assign(tile=t["tile"].where(t.index > 1, "zz_ghost")))
    assert "trainP3_points.csv: names tiles that the index does not have: zz_ghost (1 in all)." in messages(
        folder, index
    )


def test_points_doubled_or_past_the_last_pixel(case):
    folder, index = case
    edit(folder, "trainP3", lambda t: pd.concat([t.iloc[[0]], t]))
    first = pd.read_csv(points_file(folder, "trainP3")).iloc[0]
    message = messages(folder, index)
    assert f"names points twice: {first['tile']} {first['class']} {first['pixel']} (1 in all)" in message
    edit(folder, "trainP3", lambda t: t.assign(pixel=t["pixel"].where(t.index > 1, 1024))[1:])
    message = messages(folder, index)
    assert (
        f"has points past the last pixel of their class: {first['tile']} {first['class']} 1024 (1 in all)" in message
    )


def test_points_missing_or_unknown(case):
    folder, index = case
    points_file(folder, "trainP3").rename(points_file(folder, "trainP4"))
    message = messages(folder, index)
    assert "trainP3_points.csv: cannot be read (No such file or directory). Restore it, or delete" in message
    assert "has lists that the manifest does not know: trainP4_points.csv" in message
    assert "figures" not in message and "says other" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged"),
        ("tile,class\n", "its columns are not tile, class, pixel"),
        ("tile,class,pixel\nt,water,3\nt,marsh,4\n", "line 3 names no class and pixel (t, marsh, 4)"),
        ("tile,class,pixel\nt,water,-1\n", "line 2 names no class and pixel (t, water, -1)"),
        ("tile,class,pixel\nt,water\n", "line 2 names no class and pixel (t, water, "),
        ("tile,class,pixel\nt,water,0\nu,water,0\n", "and its list do not name the same tiles: u "),
        (b"\x89PNG\xff\xfe", "is damaged"),
    ],
)
def test_damaged_points_are_reported(tmp_path, text, said):
    path = tmp_path / "trainP1_points.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_tile_points(path, ["t"], ["water", "road, paved"])
    assert said in str(error.value)
    assert "delete `manifest.json` and run the same command again." in str(error.value)


def test_class_and_tile_names_of_any_kind(tmp_path):
    path = tmp_path / "trainP1_points.csv"
    path.write_text('tile,class,pixel\n007,"road, paved",12\nnan,"road, paved",3\nnan,NA,0\n')
    points = read_tile_points(path, ["nan", "007"], ["NA", "road, paved"])
    assert {tile: found.tolist() for tile, found in points.items()} == {"007": [[1, 12]], "nan": [[1, 3], [0, 0]]}


def test_changed_code_and_changed_config(case, monkeypatch):
    folder, index = case
    assert "`splits.points` was [3, 40], is [3]" in messages(folder, index, CONFIG.model_copy(update={"points": [3]}))
    monkeypatch.setattr(module, "_MAX_SHUFFLED", 0)
    message = messages(folder, index)
    for name in NAMES:
        assert f"now give another {name}: " in message or f"now give other points of {name}" in message
    assert "trainR10" not in message


def test_points_without_a_manifest(case):
    folder, index = case
    (folder / "manifest.json").unlink()
    edit(folder, "trainP3", lambda t: t[1:])
    message = messages(folder, index)
    assert "trainP3_points.csv: has other numbers of points than it should: class" in message
    assert "2 in place of 3" in message


def test_points_missing_from_the_manifest(case):
    folder, index = case
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["lists"]["trainP3_s2"]["points"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json: cannot be used (`points` is missing)" in messages(folder, index)


@pytest.fixture
def world(tmp_path):
    """Real label tiles of three classes with void, their index, and splits with points."""
    random = np.random.default_rng(0)
    table = build_index(scenes=3, side=4, classes=3, unlabelled=0)
    store = TileStore(tmp_path / "tiles")
    for at, tile in enumerate(table["tile"]):
        label = random.choice([0, 1, 2, 255], (32, 32), p=[0.5, 0.29, 0.01, 0.2]).astype(np.uint8)
        counts = np.bincount(label.ravel(), minlength=256)[:3]
        table.loc[at, "label_share"] = counts.sum() / 1024
        table.loc[at, ["share_class 0", "share_class 1", "share_class 2"]] = counts / counts.sum()
        write_raster(store.path("label", tile), label, None, nodata=255)
        for kind in ("optical", "sar"):
            write_raster(store.path(kind, tile), np.zeros((1, 32, 32), np.float32), None)
    ClassTable.of([(f"class {k}", f"#00000{k}") for k in range(3)]).write(store.root / "classes.csv")
    table.sort_values("tile").to_csv(store.index, index=False, float_format="%.6f", lineterminator="\n")
    make_splits(store.index, CONFIG, tmp_path / "splits")
    return store, tmp_path / "splits"


def test_points_drawn_from_the_index_are_labelled_pixels_of_their_class(world):
    store, folder = world
    for name, n in (("trainP3", 3), ("trainP40_s2", 40)):
        points = read_tile_points(
            points_file(folder, name), read_list(folder / f"{name}_RGB.txt"), store.classes.names
        )
        counts = np.zeros(256, int)
        for tile, some in points.items():
            label = read_labels(store.path("label", tile))
            sparse = keep_points(label, some, tile)
            assert (sparse[sparse != IGNORE] == label[sparse != IGNORE]).all()
            counts += np.bincount(sparse.ravel(), minlength=256)
        assert counts[:3].tolist() == [n, n, n]


def test_export_lays_sparse_labels_beside_the_others(world, tmp_path):
    store, folder = world
    out = tmp_path / "seed"
    export_seed_layout(store.root, folder, out)
    for name in NAMES:
        tiles = read_list(folder / f"{name}_RGB.txt")
        assert (out / f"{name}_lbl.txt").read_text() == "".join(f"{tile}.tif\n" for tile in tiles)
        assert sorted(path.stem for path in (out / f"{name}_lbl").iterdir()) == tiles
        points = read_tile_points(points_file(folder, name), tiles, store.classes.names)
        for tile in tiles:
            path = out / f"{name}_lbl" / f"{tile}.tif"
            np.testing.assert_array_equal(
                read_labels(path), keep_points(read_labels(store.path("label", tile)), points[tile], tile)
            )
            assert read_grid(path) == read_grid(store.path("label", tile))
    layout = read_seed_layout(out)
    chosen = [t.scene for t in layout.tiles if "P3" in t.fields["subsets"].split(";")]
    assert chosen == read_list(folder / "trainP3_RGB.txt")
    points_file(folder, "trainP3_s2").unlink()
    with pytest.raises(InputError, match=r"trainP3_s2_points.csv: cannot be read"):
        export_seed_layout(store.root, folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()
