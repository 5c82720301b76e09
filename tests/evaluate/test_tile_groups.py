"""Groups of test tiles: which tiles belong to them, and what is computed on them."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.evaluate.test_summary import RUNS, TILES, gather, write_run
from tests.train.tiny import build_tiles
from tmcnet.config import EvaluateConfig, load_section
from tmcnet.config.results import TileGroup
from tmcnet.errors import InputError
from tmcnet.evaluate.groups import covered_share, group_tiles
from tmcnet.evaluate.summary import summarise
from tmcnet.raster.io.reader import read_float

BRIGHT = TileGroup(modality="optical", above={"red": 10, "nir": 20}, share=0.5)


def image(red, nir):
    return np.array([[red], [[0.0] * len(red)], [nir]], dtype=np.float32)


@pytest.mark.parametrize(
    ("red", "nir", "share"),
    [
        ([11, 11, 0, 0], [21, 20, 21, 0], 0.25),  # all bands count, and a value itself is not above it
        ([np.nan, 11], [np.nan, 21], 0.5),  # a pixel with data in any band has data
        ([0, 0], [0, 0], 0),
    ],
)
def test_pixels_above_all_values_are_covered(red, nir, share):
    assert covered_share(image(red, nir), ["red", "green", "nir"], BRIGHT) == share


def test_pixels_without_data_are_covered():
    nothing = np.full((3, 1, 4), np.nan, np.float32)
    nothing[1, 0, 0] = 0
    for group in (BRIGHT, TileGroup(modality="optical")):
        assert covered_share(nothing, ["red", "green", "nir"], group) == 0.75


def test_test_tiles_are_grouped_by_their_raw_values(tmp_path):
    root = build_tiles(tmp_path)
    bands = {"optical": ["b0", "b1", "b2"], "sar": ["b0"]}
    test = (root / "splits" / "test_RGB.txt").read_text().split()
    shares = {name: (read_float(root / "tiles" / "optical" / f"{name}.tif") > 100).all(0).mean() for name in test}
    limit = float(np.median(list(shares.values())))
    groups = {
        "bright": TileGroup(modality="optical", above={"b0": 100, "b1": 100, "b2": 100}, share=limit),
        "gaps": TileGroup(modality="sar", share=0.005),  # 16 of 1600 pixels
        "none": TileGroup(modality="sar", share=0.01),
    }
    group_tiles(root / "tiles", [root / "splits"], groups, bands, tmp_path / "groups.json")
    found = json.loads((tmp_path / "groups.json").read_text())
    assert found == {"bright": [name for name in test if shares[name] > limit], "gaps": test, "none": []}
    assert 0 < len(found["bright"]) < len(test)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"modality": "optical", "share": 1}, "less than 1"),
        ({"modality": "optical", "above": {"red": "bright"}}, "valid number"),
        ({"above": {"red": 3}}, "`groups.cloudy.modality`: is missing"),
    ],
)
def test_wrong_groups_are_refused(group, message):
    with pytest.raises(InputError, match=message):
        load_section(EvaluateConfig, {"groups": {"cloudy": group}})


def test_scores_of_a_group_are_those_of_its_tiles_alone(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    for run in RUNS:
        write_run(whole, run)
        write_run(part, run)
    kept = TILES[4:12]
    for run in RUNS:
        path = part / "evaluate" / run.name / "tiles.npz"
        with np.load(path) as file:
            arrays = {name: values[4:12] for name, values in file.items()}
        np.savez(path, **arrays)
    gather(whole)
    gather(part)
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({"cloudy": [*kept, "tile of another fold"], "none": []}))
    config = EvaluateConfig(bootstrap=400, seed=1)
    summarise(whole / "evaluate", RUNS, whole / "index.csv", whole / "manifest.json", config, whole, groups=groups)
    means = pd.read_csv(whole / "groups.csv")
    assert means.groupby("group").n_tiles.unique().str[0].to_dict() == {"cloudy": 8, "not cloudy": 16, "not none": 24}
    expected = json.loads((part / "metrics.json").read_text())
    for row in means[means.group == "cloudy"].itertuples():
        entry = expected[f"{row.network}-{row.variant}"][row.method][f"R{row.fraction:g}"][row.metric]
        limits = {key: getattr(row, key) for key in entry}
        assert limits == pytest.approx(entry, abs=1e-5)
    compared = pd.read_csv(whole / "group_comparisons.csv")
    cloudy = compared[compared.group == "cloudy"].drop(columns=["group", "n_tiles"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(cloudy, pd.read_csv(part / "comparisons.csv"))
    everything = compared[compared.group == "not none"].drop(columns=["group", "n_tiles"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(everything, pd.read_csv(whole / "comparisons.csv"))
    summarise(whole / "evaluate", RUNS, whole / "index.csv", whole / "manifest.json", config, whole)
    assert not list(whole.glob("group*.csv")), "those of an earlier run are not of these runs"
