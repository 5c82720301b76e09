from pathlib import Path

import pytest
import yaml

from tests.report.results_folder import SENSORS
from tmcnet.config import SensorsConfig, is_pixelwise
from tmcnet.registry import NETWORKS
from tmcnet.report.charts import OKABE_ITO, PART_COLOURS, Styles, look_alike
from tmcnet.report.names import Series, modality_titles

EVERY = [
    Series("mssnet", variant, method) for variant in ("corrected", "reference") for method in ("random", "tmcnet")
]
EVERY += [Series(network, "baseline", "random") for network in NETWORKS if network != "mssnet"]


def test_pixel_wise_baselines_are_named_without_a_start():
    labels = [Series(network, "baseline", "random").label for network in NETWORKS if is_pixelwise(network)]
    assert labels == ["Pixel-wise logistic regression", "Pixel-wise gradient boosting", "Pixel-wise neural network"]
    assert Series("late_fusion", "baseline", "random").label == "Late fusion, random start"


def test_no_two_series_look_alike_and_baselines_take_no_colour_of_a_start():
    styles = Styles(EVERY)
    looks = [tuple(str(value) for value in styles.of(series).values()) for series in EVERY]
    assert len(set(looks)) == len(EVERY)
    colors = {is_pixelwise(series.network): set() for series in EVERY}
    for series in EVERY:
        colors[is_pixelwise(series.network)].add(styles.of(series)["color"])
    assert not colors[True] & colors[False]
    without = Styles([series for series in EVERY if not is_pixelwise(series.network)])
    assert all(styles.of(s) == without.of(s) for s in EVERY if not is_pixelwise(s.network))


ROOT = Path(__file__).parents[2]
RECIPES = [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_reader_confuses_the_classes_of_a_recipe(path):
    classes = yaml.safe_load(path.read_text()).get("labels", {}).get("classes", [])
    assert look_alike({one["name"]: one["color"] for one in classes}) == []


def test_no_reader_confuses_the_colours_of_charts():
    assert look_alike({color: color for color in OKABE_ITO}) == []
    assert look_alike(PART_COLOURS) == []


def test_colours_that_some_readers_confuse_are_found():
    red, green, other = "#cc4433", "#778833", "#2255cc"
    assert look_alike({"red": red, "green": green, "blue": other}) == [("red", "green")]
    assert look_alike({"a": "#4477aa", "b": "#228833"}) == [("a", "b")], "not without receptors for short waves"
    assert look_alike({"a": "#cccc44", "b": "#cccc46"}) == [("a", "b")], "not by anybody"


def test_modalities_are_named_by_the_config():
    dem = {"bands": ["elevation"], "kind": "elevation"}
    sensors = SensorsConfig.model_validate({**SENSORS, "slope_deg": dem})
    assert modality_titles(sensors) == {"optical": "Optical", "sar": "SAR", "slope_deg": "slope deg"}
    assert modality_titles(SensorsConfig.model_validate({**SENSORS, "sar": dem}))["sar"] == "Elevation"
