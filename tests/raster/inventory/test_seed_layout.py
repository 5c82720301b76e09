from pathlib import Path

import pytest

from tmcnet.errors import InputError, format_names
from tmcnet.raster.inventory.seed_layout import read_seed_layout

WORDS = ("RGB", "SAR", "lbl")


def make_folder(root: Path, parts: dict[str, list[str]], suffix: str = ".tif", lists: bool = True) -> Path:
    for part, names in parts.items():
        for word in WORDS:
            (root / f"{part}_{word}").mkdir(parents=True)
            for name in names:
                (root / f"{part}_{word}" / f"{name}{suffix}").write_bytes(b"raster")
            if lists:
                write_list(root, part, word, names)
    return root


def write_list(root: Path, subset: str, word: str, lines: list[str]) -> None:
    (root / f"{subset}_{word}.txt").write_text("".join(f"{line}\n" for line in lines))


def errors_of(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_seed_layout(root)
    return str(caught.value)


def test_lists_in_every_spelling(tmp_path):
    root = make_folder(tmp_path, {"train": ["a", "b.1", "c"], "val": ["d"]}, lists=False)
    (root / "train_RGB.txt").write_bytes(b"c\r\n\r\nb.1.tif\r\n")
    (root / "train_SAR.txt").write_text("b.1\n/data/train_SAR/c.tif\n\n")
    (root / "train_lbl.txt").write_text("C:\\data\\train_lbl\\c.tif\nb.1.tif")
    for word in WORDS:
        write_list(root, "trainR1", word, ["c"])
        write_list(root, "trainR5", word, ["c", "b.1"])
    layout = read_seed_layout(root)
    assert [(t.scene, *t.fields.values()) for t in layout.tiles] == [
        ("b.1", "train", "R5"),
        ("c", "train", "R1;R5"),
        ("d", "val", ""),
    ]
    assert layout.tiles[1].images["sar"] == (root / "train_SAR" / "c.tif",)
    assert layout.classes is None


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".TIF"])
def test_folders_alone_suffice(tmp_path, suffix):
    root = make_folder(tmp_path, {"train": ["a"], "val": ["b"], "test": ["c"]}, suffix, lists=False)
    assert [(t.scene, t.fields["part"], t.label[0].name) for t in read_seed_layout(root).tiles] == [
        ("a", "train", f"a{suffix}"),
        ("b", "val", f"b{suffix}"),
        ("c", "test", f"c{suffix}"),
    ]


def test_class_dict(tmp_path):
    root = make_folder(tmp_path, {"train": ["a"]})
    (root / "class_dict.txt").write_text("name,r,g,b\n water , 0, 0, 255\n\nroad,255,0,0\n")
    assert read_seed_layout(root).classes == [("water", (0, 0, 255)), ("road", (255, 0, 0))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("water,0,0,255\n", "line 1"),
        ("name,r,g,b\nwater,0,0,256\n", "line 2"),
        ("name,r,g,b\nwater,0,0\n", "line 2"),
        ("name,r,g,b\nwater,0,0,1\nwater,0,0,2\n", "'water'"),
        ("name,r,g,b\nwater,0,0,1\nroad,0,0,1\n", "(0, 0, 1)"),
        ("name,r,g,b\n", "no class"),
    ],
)
def test_class_dict_errors(tmp_path, text, message):
    root = make_folder(tmp_path, {"train": ["a"]})
    (root / "class_dict.txt").write_text(text)
    assert message in errors_of(root)


def test_all_wrong_names_are_reported_at_once(tmp_path):
    root = make_folder(tmp_path, {"train": ["a", "b", "lonely"], "val": ["v"]})
    write_list(root, "train", "SAR", ["a", "b", "b"])
    write_list(root, "train", "RGB", ["a", "b", "lonely", "ghost"])
    (root / "val_lbl" / "v.tif").unlink()
    message = errors_of(root)
    assert "names tiles twice: b" in message
    assert "train_SAR: lacks tiles that the others have: ghost, lonely" in message
    assert "no file for: ghost" in message
    assert "val_lbl.txt: names tiles that val_lbl has no file for: v" in message


def test_unpaired_files_are_reported_without_lists(tmp_path):
    root = make_folder(tmp_path, {"train": ["a", "b"]}, lists=False)
    (root / "train_SAR" / "b.tif").unlink()
    assert "train_SAR: lacks tiles that the others have: b" in errors_of(root)


def test_two_files_of_one_name(tmp_path):
    root = make_folder(tmp_path, {"train": ["a"]})
    (root / "train_RGB" / "a.png").write_bytes(b"")
    assert "a.png, a.tif" in errors_of(root)
    write_list(root, "train", "RGB", ["a.png"])
    assert read_seed_layout(root).tiles[0].images["optical"][0].name == "a.png"


def test_name_in_two_parts(tmp_path):
    root = make_folder(tmp_path, {"train": ["a", "b"], "val": ["b"]})
    assert "train and val both have tiles b" in errors_of(root)


def test_missing_list_folder_and_strangers(tmp_path):
    root = make_folder(tmp_path, {"train": ["a", "b"], "val": ["v"]})
    (root / "train_lbl.txt").unlink()
    for word in WORDS:
        write_list(root, "trainR1", word, ["v"])
        (root / f"val_{word}" / "v.tif").unlink()
    (root / "val_SAR").rmdir()
    message = errors_of(root)
    assert "train_lbl.txt: is missing" in message
    assert "val_SAR: is missing" in message
    assert "trainR1_RGB.txt: names tiles that train does not have: v" in message


def test_nothing_there(tmp_path):
    assert "neither folders" in errors_of(tmp_path)
    assert "not a folder" in errors_of(tmp_path / "nowhere")


def test_long_lists_of_names_are_counted():
    assert format_names(str(i) for i in range(12)) == "0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more"
