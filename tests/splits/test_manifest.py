import json

import pandas as pd
import pytest

import tmcnet
from tests.splits.tile_indexes import build_given, build_index
from tmcnet.config import GivenConfig, SplitsConfig
from tmcnet.errors import InputError
from tmcnet.splits.files import read_list, read_tile_blocks, verified_list
from tmcnet.splits.index import read_index
from tmcnet.splits.manifest import list_entry
from tmcnet.splits.splits import make_splits, verify

CONFIG = SplitsConfig(block_size=64, guard=1, fractions=[10, 40, 100])
PARTS = ("train", "val", "test")
WORDS = ("RGB", "SAR", "lbl")


@pytest.fixture
def case(index_at, tmp_path):
    path = index_at(build_index(unlabelled=0.1))
    make_splits(path, CONFIG, tmp_path / "splits")
    return tmp_path / "splits", path


def rewrite(folder, index, name, tiles, consistent=True):
    """Put other tiles into a list; `consistent` also forges its hash in the manifest."""
    for word in WORDS:
        (folder / f"{name}_{word}.txt").write_text("".join(f"{t}\n" for t in tiles))
    if consistent:
        table = read_index(index, CONFIG)
        known = {t: i for i, t in enumerate(table.tiles)}
        change(folder, lambda m: m["lists"].update({name: list_entry(table, [known[t] for t in tiles], False)}))


def change(folder, edit):
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def messages(folder, index, config=None):
    return "\n".join(map(str, verify(folder, index, config)))


def names(folder, name):
    return read_list(folder / f"{name}_RGB.txt")


def test_untouched_splits_are_right(case):
    assert verify(*case, CONFIG) == []


def test_changed_data(case):
    folder, index = case
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join([*lines[:-1], lines[-1].replace(",32,", ",31,", 1)]))
    assert "the data changed" in messages(folder, index)
    assert "edited by hand" not in messages(folder, index)


def test_changed_data_is_reported_by_tile(case):
    folder, index = case
    table = pd.read_csv(index, keep_default_na=False)
    table.loc[3, "row"] += 1
    table.loc[5, ["label_share", "share_class 1"]] = [0.9, 0.5]
    added = table.iloc[[8]].assign(tile="s9_r0_c0", scene="s9")
    gone = table.loc[10, "tile"]
    pd.concat([table.drop(10), added]).to_csv(index, index=False, float_format="%.6f")
    message = messages(folder, index)
    assert "the data changed: 1 added: s9_r0_c0; 1 removed: " + gone in message
    assert f"1 moved to another place or scene: {table.loc[3, 'tile']}" in message
    assert f"1 changed class counts: {table.loc[5, 'tile']}" in message
    (folder / "tiles.csv").unlink()
    assert "the data changed: it is not the index that the splits were made from" in messages(folder, index)


def test_tiles_of_which_only_pixels_changed_are_named(index_at, tmp_path):
    table = build_index(scenes=4, side=6).assign(digest=[f"{i:016x}" for i in range(1, 145)])
    table["digest"] = table["digest"].str[::-1]
    index, folder = index_at(table), tmp_path / "splits"
    make_splits(index, CONFIG, folder)
    table.loc[7, "digest"] = "f" * 16
    message = messages(folder, index_at(table))
    assert f"the data changed: 1 changed pixels: {table.loc[7, 'tile']}" in message


def test_data_that_changed_where_the_splits_do_not_look(case):
    folder, index = case
    table = pd.read_csv(index, keep_default_na=False).assign(alignment="1.0")
    table.to_csv(index, index=False, float_format="%.6f")
    assert "no tile differs in what the splits use" in messages(folder, index)


def test_changed_config(case):
    message = messages(*case, CONFIG.model_copy(update={"guard": 2, "seed": 9}))
    assert "the config changed: `splits.guard` was 1, is 2, `splits.seed` was 1, is 9" in message


def test_changed_code(case, monkeypatch):
    monkeypatch.setattr(tmcnet, "__version__", "99")
    assert "the code changed: made by version" in messages(*case)


def test_changed_code_of_the_same_version(case, monkeypatch):
    folder, index = case
    monkeypatch.setattr("tmcnet.splits.fractions.MAX_POOL", 1)
    message = messages(folder, index)
    assert "the code or the manifest changed: same data and config now give another trainR10: " in message
    assert "another val" not in message


def test_lists_from_outside_without_a_manifest(case):
    folder, index = case
    (folder / "manifest.json").unlink()
    dropped = [t for t in read_index(index, CONFIG).tiles if all(t not in names(folder, p) for p in PARTS)]
    message = messages(folder, index)
    assert f"tiles are in no part and not among the dropped: {dropped[0]}" in message
    assert message.count("\n") == 1
    both, small = names(folder, "test")[0], names(folder, "trainR10")[0]
    rewrite(folder, index, "train", sorted([*names(folder, "train"), both]), consistent=False)
    rewrite(folder, index, "trainR40", [t for t in names(folder, "trainR40") if t != small], consistent=False)
    message = messages(folder, index)
    assert f"tiles are in train and in test: {both} (1 in all)" in message
    assert f"trainR10_RGB.txt: is not nested in trainR40: {small} (1 in all)" in message


def test_ready_made_tiles_that_overlap_on_the_ground(index_at, tmp_path):
    table = build_index(scenes=1, side=9, unlabelled=0)
    table = table.assign(scene=table["tile"], x=table["col"] * 10.0, y=table["row"] * -10.0, row=0, col=0)
    table = table.assign(pixel_x=10.0, pixel_y=10.0, pixel_metres=10.0)
    config = CONFIG.model_copy(update={"guard": 0})
    path = index_at(table)
    make_splits(path, config, tmp_path / "splits")
    assert verify(tmp_path / "splits", path, config) == []
    test, train = names(tmp_path / "splits", "test")[0], names(tmp_path / "splits", "train")[0]
    rows = table.set_index("tile")
    rows.loc[test, ["x", "y"]] = rows.loc[train, ["x", "y"]] + 100
    message = messages(tmp_path / "splits", index_at(rows.reset_index()))
    assert "train and test share pixels" in message
    assert f"{min(test, train)} with {max(test, train)}" in message


def test_overlapping_ready_made_tiles_are_in_blocks_on_the_ground(index_at, tmp_path):
    table = build_index(scenes=1, side=16, stride=16, unlabelled=0)
    on_ground = {"x": 5e5 + table["col"] * 10.0, "y": 4e6 - table["row"] * 10.0, "pixel_x": 10.0, "pixel_y": 10.0}
    table = table.assign(scene=table["tile"], row=0, col=0, pixel_metres=10.0, **on_ground)
    config = CONFIG.model_copy(update={"guard": 0, "block_size": 96})
    make_splits(path := index_at(table), config, tmp_path / "splits")
    manifest = json.loads((tmp_path / "splits" / "manifest.json").read_text())
    blocks = read_tile_blocks(path, tmp_path / "splits" / "manifest.json")
    assert {b["scene"] for b in manifest["blocks"]} == {"EPSG:32633"}
    assert len(set(blocks.values())) == len(manifest["blocks"]) in (9, 12, 16)
    part_of = {tile: part for part in ("train", "val", "test") for tile in names(tmp_path / "splits", part)}
    parts = {block: {part_of[t] for t in part_of if blocks[t] == block} for block in blocks.values()}
    assert all(len(of_block) < 2 for of_block in parts.values())
    assert 0 < manifest["dropped_by_guard"] < 0.2 * len(table)
    make_splits(path, config.model_copy(update={"block_size": 32}), tmp_path / "small")
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    assert f"{manifest['dropped_by_guard']} of 256 tiles are in no part, since they share" in manifest["warnings"][0]
    # without a CRS each is a block
    make_splits(bare := index_at(table.assign(crs=""), "bare.csv"), config, tmp_path / "bare")
    assert len(set(read_tile_blocks(bare, tmp_path / "bare" / "manifest.json").values())) == len(table)
    manifest = json.loads((tmp_path / "bare" / "manifest.json").read_text())
    assert len(manifest["blocks"]) == len(table) and not manifest["dropped"]


def test_list_edited_by_hand(case):
    folder, index = case
    rewrite(folder, index, "trainR40", names(folder, "trainR40")[:-1], consistent=False)
    assert messages(folder, index).count("trainR40_RGB.txt: was edited by hand") == 1


def test_list_in_another_order(case):
    folder, index = case
    rewrite(folder, index, "trainR40", names(folder, "trainR40")[::-1], consistent=False)
    # the tiles are the same, the bytes are not
    assert "trainR40_RGB.txt: was edited by hand" in messages(folder, index)


@pytest.mark.parametrize("word", WORDS)
def test_lists_that_are_not_paired(case, word):
    folder, index = case
    path = folder / f"val_{word}.txt"
    gone = names(folder, "val")[0]
    path.write_text(path.read_text().replace(f"{gone}\n", ""))
    assert f"three lists are not paired: {gone} (1 in all)" in messages(folder, index)


def test_lists_paired_with_other_tiles(case):
    folder, index = case
    path = folder / "val_SAR.txt"
    first, second, *rest = names(folder, "val")
    path.write_text("".join(f"{t}\n" for t in [second, first, *rest]))
    assert f"three lists are not paired: {first}, {second} (2 in all)" in messages(folder, index)
    path.write_text("".join(f"{t}\n" for t in [first, first, second, *rest]))
    assert f"three lists are not paired: {first} (1 in all)" in messages(folder, index)


def test_missing_and_unknown_lists(case):
    folder, index = case
    (folder / "trainR10_lbl.txt").rename(folder / "trainR11_lbl.txt")
    message = messages(folder, index)
    assert "lacks lists: trainR10_lbl.txt" in message
    assert "has lists that the manifest does not know: trainR11_lbl.txt" in message


def test_tile_in_two_parts(case):
    folder, index = case
    both = names(folder, "test")[3]
    rewrite(folder, index, "train", sorted([*names(folder, "train"), both]))
    message = messages(folder, index)
    assert f"tiles are in train and in test: {both} (1 in all)" in message
    assert "edited by hand" not in message


def test_tile_in_no_part(case):
    folder, index = case
    lost = names(folder, "test")[:12]
    rewrite(folder, index, "test", names(folder, "test")[12:])
    message = messages(folder, index)
    assert "in no part and not among the dropped" in message
    assert ", ".join(lost[:10]) + " and 2 more (12 in all)" in message


def test_dropped_tile_in_a_part(case):
    folder, index = case
    tile = names(folder, "train")[0]
    change(folder, lambda m: m["dropped"].append(tile))
    assert f"tiles are in train and in dropped: {tile} (1 in all)" in messages(folder, index)


def test_doubled_and_unknown_tiles(case):
    folder, index = case
    tiles = names(folder, "val")
    rewrite(folder, index, "val", [tiles[0], *tiles, "ghost"], consistent=False)
    message = messages(folder, index)
    assert f"names tiles twice: {tiles[0]} (1 in all)" in message
    assert "names tiles that the index does not have: ghost (1 in all)" in message


def test_fractions_that_are_not_nested(case):
    folder, index = case
    small, large = names(folder, "trainR10"), names(folder, "trainR40")
    rewrite(folder, index, "trainR40", [t for t in large if t != small[0]])
    assert f"trainR10_RGB.txt: is not nested in trainR40: {small[0]} (1 in all)" in messages(folder, index)
    rewrite(folder, index, "trainR40", sorted([*large, names(folder, "val")[0]]))
    assert f"trainR40_RGB.txt: is not nested in train: {names(folder, 'val')[0]}" in messages(folder, index)


def test_unlabelled_tiles_where_labels_are_needed(case):
    folder, index = case
    table = read_index(index, CONFIG)
    blind = next(t for t in names(folder, "train") if not table.labelled[list(table.tiles).index(t)])
    rewrite(folder, index, "trainR100", sorted([*names(folder, "trainR100"), blind]))
    assert f"names tiles without labels: {blind} (1 in all)" in messages(folder, index)


def test_parts_that_share_pixels(case):
    folder, index = case
    table = read_index(index, CONFIG)
    kept = [t for t in table.tiles[table.labelled] if t.startswith("s0_")]
    # all of a scene but one tile in the test part: the odd one touches its neighbours, closer than the guard band
    odd = kept[len(kept) // 2]
    for name in ("train", "val", "test"):
        rewrite(folder, index, name, [t for t in names(folder, name) if not t.startswith("s0_")])
    change(folder, lambda m: m.update(dropped=[t for t in m["dropped"] if t not in kept]))
    rewrite(folder, index, "train", sorted([*names(folder, "train"), odd]))
    rewrite(folder, index, "test", sorted([*names(folder, "test"), *(t for t in kept if t != odd)]))
    message = messages(folder, index)
    assert "train and test share pixels or are closer than 1 pixels" in message
    assert odd in message


def test_figures_that_do_not_follow(case):
    folder, index = case
    change(folder, lambda m: m["lists"]["val"].update(n=1))
    assert "says other n of val than follow" in messages(folder, index)


def test_fractions_missing_from_the_manifest(case):
    folder, index = case
    change(folder, lambda m: m["lists"].pop("trainR40_s2"))
    for word in WORDS:
        (folder / f"trainR40_s2_{word}.txt").unlink()
    assert "has no list trainR40_s2, which its config needs" in messages(folder, index)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"version": 1, "config": {"guard": -1}, "lists": {}}'])
def test_manifest_that_cannot_be_used(case, text):
    folder, index = case
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    assert "cannot be used" in messages(folder, index)


def test_index_that_cannot_be_used(case):
    folder, index = case
    index.unlink()
    assert "does not exist" in messages(folder, index)


def refusal(folder, name):
    """The message with which a list is not read, which is one sentence and a way out."""
    with pytest.raises(InputError) as error:
        verified_list(folder, name)
    (problem,) = error.value.problems
    assert "delete `manifest.json` and run the workflow again" in problem.remedy
    return str(problem)


def append(folder, name, tile):
    path = folder / f"{name}_RGB.txt"
    path.write_text(f"{path.read_text()}{tile}\n")
    return path


def test_untouched_lists_are_read(case):
    folder, _ = case
    for name in json.loads((folder / "manifest.json").read_text())["lists"]:
        assert verified_list(folder, name) == names(folder, name)


@pytest.mark.parametrize("name", ["train", "trainR10", "trainR40_s2"])
def test_a_list_with_a_test_tile_is_not_read(case, name):
    folder, index = case
    tile = names(folder, "test")[1]
    path = append(folder, name, tile)
    assert refusal(folder, name).startswith(f"{path}: names tiles of test: {tile} (1 in all).")
    rewrite(folder, index, name, names(folder, name))  # with the hash of the changed list in the manifest
    assert refusal(folder, name).startswith(f"{path}: names tiles of test: {tile} (1 in all).")
    rewrite(folder, index, "test", [t for t in names(folder, "test") if t != tile], consistent=False)
    assert "test_RGB.txt: was edited by hand" in refusal(folder, name)


def test_a_list_with_a_tile_of_the_guard_band_is_not_read(case):
    folder, index = case
    dropped = json.loads((folder / "manifest.json").read_text())["dropped"][0]
    append(folder, "trainR40", dropped)
    rewrite(folder, index, "trainR40", names(folder, "trainR40"))
    assert f"trainR40_RGB.txt: names tiles that are in no part: {dropped} (1 in all)" in refusal(folder, "trainR40")


def test_a_list_with_a_tile_twice_is_not_read(case):
    folder, _ = case
    tile = names(folder, "trainR10")[0]
    path = append(folder, "trainR10", tile)
    assert refusal(folder, "trainR10").startswith(f"{path}: names tiles twice: {tile} (1 in all).")
    assert verified_list(folder, "trainR40") == names(folder, "trainR40")


def test_a_list_that_lost_a_tile_or_is_not_in_the_manifest_is_not_read(case):
    folder, index = case
    rewrite(folder, index, "val", names(folder, "val")[1:], consistent=False)
    assert "val_RGB.txt: was edited by hand: its hash is not the one in the manifest" in refusal(folder, "trainR40")
    make_splits(index, CONFIG, folder)
    (folder / "trainR41_RGB.txt").write_text(f"{names(folder, 'trainR40')[0]}\n")
    assert "trainR41_RGB.txt: is not in `manifest.json`" in refusal(folder, "trainR41")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"version": 1}', '{"version": 1, "lists": {"train": {}}}'])
def test_no_list_is_read_without_a_manifest(case, text):
    folder, _ = case
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    assert refusal(folder, "trainR40").startswith(f"{folder / 'manifest.json'}: cannot be used")


def test_a_manifest_with_another_hash(case):
    folder, _ = case
    change(folder, lambda m: m["lists"]["trainR40"].update(sha256="0" * 64))
    assert "trainR40_RGB.txt: was edited by hand" in refusal(folder, "trainR40")


def test_given_parts_and_fractions_are_read(index_at, tmp_path):
    config = SplitsConfig(method="given", given=GivenConfig(), given_fractions=True, fractions=[5, 20, 100])
    make_splits(index_at(build_given()), config, tmp_path / "splits")
    assert verified_list(tmp_path / "splits", "trainR5") == [f"train_{i:04d}" for i in range(3)]
    assert verified_list(tmp_path / "splits", "test") == [f"test_{i:04d}" for i in range(15)]
