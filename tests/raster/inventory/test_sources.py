import math
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tmcnet.config import SourceConfig
from tmcnet.config.data import Scale
from tmcnet.errors import InputError
from tmcnet.raster.inventory.sources import find_entries


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def tiles(**changes) -> SourceConfig:
    patterns = {"optical": "{part}/o{tile:d}.png", "sar": "sar/{part}_{tile:d}.tif", "label": "{part}/l_{tile:d}.png"}
    return SourceConfig(layout="tiles", **(patterns | changes))


def test_files_are_paired_by_number_despite_zeros_and_order(tmp_path):
    touch(tmp_path, "a/o2.png", "a/o10.png", "b/o2.png", "a/l_02.png", "a/l_10.png", "b/l_0002.png")
    touch(tmp_path, "sar/a_002.tif", "sar/a_010.tif", "sar/b_2.tif", "a/notes.txt", "a/ox.png")
    entries = find_entries(tiles(), tmp_path)
    assert [e.scene for e in entries] == ["a_10", "a_2", "b_2"]
    assert entries[1].images["sar"] == (tmp_path / "sar/a_002.tif",) and entries[1].label == (
        tmp_path / "a/l_02.png",
    )
    assert entries[2].fields == {"part": "b", "tile": "2"} and entries[2].role == "train"


def test_text_fields_keep_their_zeros(tmp_path):
    touch(tmp_path, "o_02.png", "s_2.png", "l_02.png")
    source = SourceConfig(layout="tiles", optical="o_{tile}.png", sar="s_{tile}.png", label="l_{tile}.png")
    with pytest.raises(InputError, match=r"no sar file for 1 of 2: 02"):
        find_entries(source, tmp_path)


def test_fields_of_fixed_width_divide_a_number_that_stays_the_name(tmp_path):
    numbers = ("0000", "0099", "0100", "1234")
    touch(tmp_path, *(f"{kind}_{number}.png" for kind in "osl" for number in numbers), "o_mean.png")
    patterns = {kind: f"{kind[0]}_{{run:2}}{{rest}}.png" for kind in ("optical", "sar", "label")}
    with pytest.raises(InputError, match="no sar file for 1 of 5: mean "):
        find_entries(tiles(**patterns), tmp_path)
    entries = find_entries(tiles(**patterns, exclude=["mean", "1234"]), tmp_path)
    assert [e.scene for e in entries] == ["0000", "0099", "0100"]
    assert [e.fields for e in entries][1:] == [{"run": "00", "rest": "99"}, {"run": "01", "rest": "00"}]
    apart = {kind: text.replace("}{", "}{rest:1}/{") for kind, text in patterns.items()}
    touch(tmp_path, "o_123/45.png", "s_123/45.png", "l_123/45.png")
    with pytest.raises(InputError, match="other fields"):
        find_entries(tiles(**patterns | {"optical": apart["optical"].replace("{rest}", "{tile}")}), tmp_path)
    (entry,) = find_entries(tiles(**{k: text.replace("{rest}", "{tile}") for k, text in apart.items()}), tmp_path)
    assert entry.scene == "123_45" and entry.fields == {"run": "12", "rest": "3", "tile": "45"}


@pytest.mark.parametrize("pattern", ["{run:2}{rest}", "{run:2}{rest:1}"])
def test_numbers_without_leading_zeros_are_not_cut_at_a_fixed_width(tmp_path, pattern):
    touch(tmp_path, *(f"{kind}/a{number}.png" for kind in "osl" for number in (107, 1070)))
    patterns = {kind: f"{kind[0]}/a{pattern}.png" for kind in ("optical", "sar", "label")}
    with pytest.raises(InputError, match=r"cuts numbers of several lengths: 107, 1070.*leading zeros"):
        find_entries(tiles(**patterns), tmp_path)


def test_files_whose_endings_differ_in_capitals_are_not_left_out_in_silence(tmp_path):
    touch(tmp_path, "a/o1.png", "sar/a_1.tif", "a/l_1.png", "a/o2.PNG", "sar/a_2.TIF", "a/l_2.PNG")
    with pytest.raises(InputError, match=r"endings differ in capitals: a/o2\.PNG") as caught:
        find_entries(tiles(), tmp_path)
    assert len(caught.value.problems) == 3


def test_all_unpaired_files_are_named_at_once(tmp_path):
    touch(tmp_path, *(f"a/o{i}.png" for i in range(30)), *(f"sar/a_{i}.tif" for i in range(1, 30)))
    touch(tmp_path, *(f"a/l_{i}.png" for i in range(15)), "sar/a_77.tif")
    with pytest.raises(InputError) as caught:
        find_entries(tiles(), tmp_path)
    message = str(caught.value)
    assert "no sar file for 1 of 31: a_0 " in message and "no optical file for 1 of 31: a_77" in message
    assert "no label file for 16 of 31" in message and "and 6 more" in message
    assert len(caught.value.problems) == 3


def test_two_files_for_one_tile_are_an_error(tmp_path):
    touch(tmp_path, "a/o2.png", "a/o02.png", "sar/a_2.tif", "a/l_2.png")
    with pytest.raises(InputError, match=r"a/o02\.png and a/o2\.png"):
        find_entries(tiles(), tmp_path)


def test_a_field_named_twice_must_have_one_value(tmp_path):
    touch(tmp_path, "x/x.tif", "x/y.tif", "s/x.tif")
    source = SourceConfig(layout="scenes", optical="{scene}/{scene}.tif", sar="s/{scene}.tif")
    assert [e.scene for e in find_entries(source, tmp_path)] == ["x"]


def test_excluded_names_need_no_partner_and_unknown_ones_are_reported(tmp_path):
    touch(tmp_path, "a/o1.png", "sar/a_1.tif", "a/l_1.png", "a/o2.png")
    assert [e.scene for e in find_entries(tiles(exclude=["a_2"]), tmp_path)] == ["a_1"]
    with pytest.raises(InputError, match="names `a_3`, which is not there"):
        find_entries(tiles(exclude=["a_2", "a_3"]), tmp_path)


def test_nothing_found_names_pattern_and_folder(tmp_path):
    with pytest.raises(InputError) as caught:
        find_entries(tiles(), tmp_path / "nowhere")
    assert len(caught.value.problems) == 3
    assert "`sar/{part}_{tile:d}.tif` matches no file below" in str(caught.value) and "nowhere" in str(caught.value)


@pytest.mark.parametrize("bad", ["{}.png", "{tile:x}.png", "plain.png", "{a{tile}.png"])
def test_broken_patterns_are_reported(tmp_path, bad):
    with pytest.raises(InputError, match="is not a pattern"):
        find_entries(tiles(optical=bad), tmp_path)


def test_patterns_with_other_fields_are_reported(tmp_path):
    touch(tmp_path, "a/o1.png", "sar/a_1.tif", "a/l_1.png")
    with pytest.raises(InputError, match="has other fields than"):
        find_entries(tiles(sar="sar/{part}_{tile}.tif"), tmp_path)


def test_scenes_without_their_label_are_for_prediction(tmp_path):
    touch(tmp_path, "a_o.tif", "a_s.tif", "a_l.tif", "b_o.tif", "b_s.tif")
    patterns = {"optical": "{scene}_o.tif", "sar": "{scene}_s.tif"}
    roles = [e.role for e in find_entries(SourceConfig(layout="scenes", **patterns, label="{scene}_l.tif"), tmp_path)]
    assert roles == ["train", "predict"]
    assert [e.role for e in find_entries(SourceConfig(layout="scenes", **patterns), tmp_path)] == ["train", "train"]


def sheet(tmp_path: Path, text: str) -> SourceConfig:
    (tmp_path / "scenes.csv").write_text(text)
    return SourceConfig(layout="scenes", sheet=str(tmp_path / "scenes.csv"))


def test_a_sheet_lists_scenes_in_any_order(tmp_path):
    touch(tmp_path, "b1.tif", "b2.tif", "s.tif", "l.tif")
    text = (
        "\ufeffscene,optical,sar,label,role,area\nz,b1.tif;b2.tif,s.tif,l.tif,,north\na,b1.tif,s.tif,,predict,south\n"
    )
    a, z = find_entries(sheet(tmp_path, text), tmp_path)
    assert (a.scene, a.role, a.label) == ("a", "predict", ())
    assert z.images["optical"] == (tmp_path / "b1.tif", tmp_path / "b2.tif") and z.role == "train"
    assert z.fields == {"area": "north"}


def test_a_sheet_may_name_patterns_and_values_for_one_scene(tmp_path):
    touch(tmp_path, "t/b_B02.tif", "t/a_B02.tif", "t/a_B03.tif", "t/x/a_B02.tif", "s[1].tif", "s1.tif")
    text = "scene,optical,sar,optical_nodata,sar_nodata,sar_scale\nz,t/*_B02.tif;t/a_B0[3].tif,s[1].tif,0,nan,db\n"
    (z,) = find_entries(sheet(tmp_path, text), tmp_path)
    assert z.images["optical"] == (tmp_path / "t/*_B02.tif", tmp_path / "t/a_B03.tif") and z.images["sar"] == (
        tmp_path / "s[1].tif",
    )
    assert z.files == [tmp_path / name for name in ("t/a_B02.tif", "t/b_B02.tif", "t/a_B03.tif", "s[1].tif")]
    assert z.declared["optical"] == {"nodata": 0} and z.fields == {}
    assert math.isnan(z.declared["sar"]["nodata"]) and z.declared["sar"]["scale"] == "db"


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_a_sheet_may_begin_with_its_separator_as_excel_writes_it(tmp_path, first):
    for name in ("o.tif", "p.tif", "s.tif"):
        (tmp_path / name).touch()
    text = f'\ufeff{first}\r\nscene;optical;sar;note\r\na;"o.tif;p.tif";s.tif;1,5\r\n'
    (a,) = find_entries(sheet(tmp_path, text), tmp_path)
    assert a.images["optical"] == (tmp_path / "o.tif", tmp_path / "p.tif") and a.fields == {"note": "1,5"}
    with pytest.raises(InputError, match=r"line 4 \(b\): the file .*gone\.tif does not exist"):
        find_entries(sheet(tmp_path, f"{text}b;gone.tif;s.tif;\r\n"), tmp_path)
    assert len(find_entries(sheet(tmp_path, "sep=,\nscene,optical,sar\na,o.tif,s.tif\n"), tmp_path)) == 1


def test_a_sheet_may_name_files_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "home/o.tif", "s.tif")
    (z,) = find_entries(sheet(tmp_path, "scene,optical,sar\nz,~/o.tif,s.tif\n"), tmp_path)
    assert z.images["optical"] == (tmp_path / "home" / "o.tif",)


def test_wrong_values_for_one_scene_are_reported(tmp_path):
    touch(tmp_path, "o.tif", "s.tif")
    text = "scene,optical,sar,optical_nodata,sar_scale\na,o.tif,s.tif,none,decibel\n"
    with pytest.raises(InputError) as caught:
        find_entries(sheet(tmp_path, text), tmp_path)
    message = str(caught.value)
    assert "has `none` in `optical_nodata`" in message and "unknown scale `decibel`" in message
    for scale in get_args(Scale):
        assert find_entries(sheet(tmp_path, f"scene,optical,sar,sar_scale\na,o.tif,s.tif,{scale}\n"), tmp_path)


def test_all_faults_of_a_sheet_are_reported_at_once(tmp_path):
    touch(tmp_path, "o.tif", "s.tif")
    rows = ["scene,optical,sar,role", "a,o.tif,s.tif,tain", "b,gone.tif,s.tif,", ",o.tif,,"]
    with pytest.raises(InputError) as caught:
        find_entries(sheet(tmp_path, "\n".join(rows)), tmp_path)
    message = str(caught.value)
    for part in ("unknown role `tain`", "gone.tif does not exist", "no scene name", "no file in `sar`", "line 4"):
        assert part in message


def test_only_scenes_to_be_predicted_may_lack_a_sensor(tmp_path):
    touch(tmp_path, "o.tif", "s.tif")
    text = "scene,optical,sar,role\na,o.tif,,predict\nb,,s.tif,predict\n"
    a, b = find_entries(sheet(tmp_path, text), tmp_path)
    assert (a.images["optical"], a.images["sar"]) == ((tmp_path / "o.tif",), ())
    assert (b.images["optical"], b.images["sar"]) == ((), (tmp_path / "s.tif",))
    for role in ("train", ""):
        with pytest.raises(InputError, match=r"line 3 \(b\): names no file in `optical`.* role predict may"):
            find_entries(sheet(tmp_path, f"scene,optical,sar,role\na,o.tif,,predict\nb,,s.tif,{role}\n"), tmp_path)
    with pytest.raises(InputError, match=r"line 2 \(a\): names no file in `optical` and `sar`"):
        find_entries(sheet(tmp_path, "scene,optical,sar,role\na,,,predict\n"), tmp_path)


def test_a_partner_that_no_pattern_finds_is_an_error_even_without_label(tmp_path):
    touch(tmp_path, "a_o.tif", "a_s.tif", "a_l.tif", "b_o.tif")
    patterns = {kind: f"{{scene}}_{kind[0]}.tif" for kind in ("optical", "sar", "label")}
    with pytest.raises(InputError, match=r"no sar file for 1 of 2: b .*in a sample sheet, with role predict"):
        find_entries(SourceConfig(layout="scenes", **patterns), tmp_path)


def test_missing_columns_and_doubled_scenes_are_reported(tmp_path):
    touch(tmp_path, "o.tif", "s.tif")
    with pytest.raises(InputError, match="lacks the columns sar"):
        find_entries(sheet(tmp_path, "scene,optical\na,o.tif\n"), tmp_path)
    with pytest.raises(InputError, match="more than once: a"):
        find_entries(sheet(tmp_path, "scene,optical,sar\na,o.tif,s.tif\na,o.tif,s.tif\n"), tmp_path)
    with pytest.raises(InputError, match=r"cannot be file names: '\.\./x'"):
        find_entries(sheet(tmp_path, "scene,optical,sar\n../x,o.tif,s.tif\n"), tmp_path)


def test_demo_scenes_are_known_before_their_files_exist(tmp_path):
    entries = find_entries(SourceConfig(), tmp_path)
    assert len(entries) == 4
    assert entries[0].images["optical"] == (tmp_path / "demo" / entries[0].scene / "optical.tif",)


def test_seed_tiles_carry_part_and_subsets(tmp_path):
    for part in ("train", "test"):
        touch(tmp_path, *(f"{part}_{kind}/{part}{i}.tif" for kind in ("RGB", "SAR", "lbl") for i in range(3)))
    for kind in ("RGB", "SAR", "lbl"):
        (tmp_path / f"train_{kind}.txt").write_text("train0\ntrain1\ntrain2\n")
        (tmp_path / f"trainR5_{kind}.txt").write_text("train1\n")
    entries = find_entries(SourceConfig(layout="seed"), tmp_path)
    assert [e.scene for e in entries] == ["test0", "test1", "test2", "train0", "train1", "train2"]
    assert entries[4].fields == {"part": "train", "subsets": "R5"}


def test_finding_scenes_needs_no_heavy_library():
    heavy = ("rasterio", "torch", "numpy", "pydantic")
    code = f"import sys, tmcnet.raster.inventory.sources; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
