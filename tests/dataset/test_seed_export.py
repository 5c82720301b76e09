import pytest

from tests.splits.tile_indexes import write_hashes
from tmcnet.classes import ClassTable
from tmcnet.dataset import seed_export
from tmcnet.dataset.seed_export import export_seed_layout
from tmcnet.errors import InputError
from tmcnet.raster.inventory.seed_layout import read_seed_layout

PARTS = {"train": ["s_r0_c0", "s_r0_c8", "s_r8_c0"], "val": ["t.1_r0_c0"], "test": ["u_r0_c0"]}
SUBSETS = {"trainR5": ["s_r0_c8"], "trainR5_s2": ["s_r8_c0"], "trainR100": PARTS["train"]}


@pytest.fixture
def ours(tmp_path):
    tiles, splits = tmp_path / "tiles", tmp_path / "splits"
    splits.mkdir()
    for kind in ("optical", "sar", "label"):
        (tiles / kind).mkdir(parents=True)
        for name in [name for names in PARTS.values() for name in names]:
            (tiles / kind / f"{name}.tif").write_text(kind + name)
    ClassTable.of([("water", "#0000ff"), ("road, paved", "#ff0010")]).write(tiles / "classes.csv")
    for part, names in {**PARTS, **SUBSETS}.items():
        for word in ("RGB", "SAR", "lbl"):
            (splits / f"{part}_{word}.txt").write_text("".join(f"{name}\n" for name in names))
    write_hashes(splits)
    return tiles, splits


@pytest.mark.parametrize("links", [True, False])
def test_round_trip(ours, tmp_path, monkeypatch, links):
    def refuse(source, target):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(seed_export.os, "link", refuse)
    tiles, splits = ours
    export_seed_layout(tiles, splits, tmp_path / "out")
    layout = read_seed_layout(tmp_path / "out")
    assert {t.scene: t.fields["part"] for t in layout.tiles} == {
        n: part for part, names in PARTS.items() for n in names
    }
    of = {t.scene: t.fields["subsets"].split(";") for t in layout.tiles}
    subsets = {s: [name for name in of if s in of[name]] for s in ("R5", "R5_s2", "R100")}
    assert {f"train{s}": names for s, names in subsets.items()} == SUBSETS
    assert layout.classes == [("water", (0, 0, 255)), ("road, paved", (255, 0, 16))]
    for tile in layout.tiles:
        (optical,), (sar,) = tile.images.values()
        assert sar.read_text() == "sar" + tile.scene
        assert tile.label[0].read_text() == "label" + tile.scene
        assert (optical.stat().st_nlink > 1) is links
    assert (tmp_path / "out/trainR5_lbl.txt").read_text() == "s_r0_c8.tif\n"


def test_other_modalities_get_folders_and_lists_of_their_names(ours, tmp_path):
    tiles, splits = ours
    (tiles / "dem").mkdir()
    for name in [name for names in PARTS.values() for name in names]:
        (tiles / "dem" / f"{name}.tif").write_text("dem" + name)
    export_seed_layout(tiles, splits, tmp_path / "out", ["dem"])
    out = tmp_path / "out"
    for part, names in PARTS.items():
        assert {p.stem: p.read_text() for p in (out / f"{part}_dem").iterdir()} == {n: f"dem{n}" for n in names}
    for name in (*PARTS, *SUBSETS):
        assert (out / f"{name}_dem.txt").read_text() == (out / f"{name}_RGB.txt").read_text()
    assert len(read_seed_layout(out).tiles) == 5, "the published layout is what it was"
    (tiles / "dem" / "t.1_r0_c0.tif").unlink()
    with pytest.raises(InputError, match=r"dem.*no file for tiles of val_RGB.txt: t.1_r0_c0"):
        export_seed_layout(tiles, splits, tmp_path / "again", ["dem"])


def test_errors(ours, tmp_path):
    tiles, splits = ours
    (tiles / "sar" / "u_r0_c0.tif").unlink()
    with pytest.raises(InputError, match=r"no file for tiles of test_SAR.txt: u_r0_c0"):
        export_seed_layout(tiles, splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full" / "train_RGB").mkdir(parents=True)
    with pytest.raises(InputError, match="not empty"):
        export_seed_layout(tiles, splits, tmp_path / "full")
    with pytest.raises(InputError, match="no lists"):
        export_seed_layout(tiles, tmp_path, tmp_path / "out")


def test_a_list_with_a_test_tile_is_not_exported(ours, tmp_path):
    tiles, splits = ours
    (splits / "trainR5_RGB.txt").write_text("s_r0_c8\nu_r0_c0\n")
    with pytest.raises(InputError, match=r"trainR5_RGB.txt: names tiles of test: u_r0_c0"):
        export_seed_layout(tiles, splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()
