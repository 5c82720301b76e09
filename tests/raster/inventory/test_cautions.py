"""Gaps of one modality that others fill are measured, and warned of unless a network is trained for them."""

import numpy as np
import pytest

from tests.raster.test_deliveries import SIZE, optical, power, rows, use
from tests.raster.test_quality_masks import masked
from tmcnet.config import load
from tmcnet.raster.inventory.cautions import MIN_GAP_SHARE, cautions
from tmcnet.readers import read_record

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def random():
    return np.random.default_rng(5)


def config(fractions=(1, 100), **finetune):
    sweep = [{"networks": finetune.pop("networks", ["mssnet"]), "fractions": fractions, "seeds": [1]}]
    finetune = {"sweep": sweep} | finetune
    classes = [{"name": name, "codes": [code], "color": f"#00000{code}"} for code, name in enumerate("ab")]
    return load(
        {
            "splits": {"fractions": fractions},
            "source": {"layout": "scenes", "sheet": "scenes.csv"},
            "sensors": {"optical": {"bands": ["b"]}, "sar": {"bands": ["vv"]}},
            "labels": {"classes": classes},
            "finetune": finetune,
        }
    )


def entries(label=True, **gaps):
    images = ({f"{name}": {"gap_share": share} for name, share in of.items()} for of in gaps.values())
    given = {"role": "train", "label": [{}] if label else None}
    return [{"scene": scene, "images": of, **given} for scene, of in zip(gaps, images, strict=True)]


def test_the_inventory_measures_what_a_mask_takes_out_of_one_image(source, random):
    use(source)
    sar = power(random)
    sar[:, : SIZE // 2] = np.nan
    source.write("s.tif", sar)
    source.write("o.tif", optical(random))
    mask = np.zeros((SIZE, SIZE), "u1")
    mask[: SIZE // 4] = 9
    source.write("scl.tif", mask)
    masked(source, "scl.tif", mask_codes=[9])
    source.take()
    (row,) = rows(source)
    assert float(row["optical_gap_share"]) == pytest.approx(1 / 8, abs=0.01)
    assert float(row["sar_gap_share"]) == pytest.approx(3 / 8, abs=0.01)
    measured = read_record(source.json)["entries"]
    _, optical_gap, sar_gap = cautions(measured, config())
    assert optical_gap.startswith("1 of 1 scenes (a) have no optical data on up to 1")
    assert "`finetune: {covered_copies: [no_data]}` or `finetune: {modality_dropout: 0.3}`" in optical_gap
    assert "no sar data on up to 3" in sar_gap and "covered_copies" not in sar_gap


@pytest.mark.parametrize(
    ("finetune", "warned"),
    [
        ({}, ["optical", "sar"]),
        ({"covered_copies": ["clouds"]}, ["optical", "sar"]),
        ({"covered_copies": ["clouds", "no_data"]}, ["sar"]),
        ({"modality_dropout": 0.3}, []),
        ({"networks": ["optical_only", "sar_only"]}, []),
        ({"networks": [{"ensemble": ["optical_only", "pixel_mlp"]}]}, ["optical", "sar"]),
    ],
)
def test_a_warning_depends_on_what_networks_are_trained_for(finetune, warned):
    found = cautions(entries(a={"optical": 0.2, "sar": 0.3}, b={"optical": 0.0, "sar": 0.0}), config(**finetune))
    assert [next(name for name in ("optical", "sar") if f"no {name} data" in text) for text in found] == warned


def test_small_gaps_and_inventories_without_the_measure_give_no_warning():
    small = MIN_GAP_SHARE / 2
    assert cautions(entries(a={"optical": small, "sar": small}, b={"optical": small}), config()) == []
    assert cautions([{"scene": "a", "role": "train", "label": [{}], "images": {"sar": {}}}], config()) == []


def test_training_scenes_without_any_label_are_named_before_they_are_aligned():
    (found,) = cautions(entries(label=False, a={}, b={}), config())
    assert found.startswith("none of the 2 scenes or tiles of role `train` has a label")
    (found,) = cautions(entries(label=False, a={}, b={}), config(sweep=[]))
    assert found.startswith("`finetune.sweep` is empty")


def test_fractions_that_look_like_shares_are_named():
    (found,) = cautions([], config(fractions=[0.25, 1]))
    assert found.startswith("`splits.fractions` [0.25, 1.0] are percentages, at most 1 % of the labels")
    assert cautions([], config(fractions=[0.5, 100])) == []
