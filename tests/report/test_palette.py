from typing import get_args

from tmcnet.config import PIXELWISE
from tmcnet.config.training import Network
from tmcnet.report.palette import NETWORK_NAMES, Series, Styles

EVERY = [
    Series("mssnet", variant, method) for variant in ("corrected", "reference") for method in ("random", "tmcnet")
]
EVERY += [Series(network, "baseline", "random") for network in get_args(Network) if network != "mssnet"]


def test_every_network_has_a_name():
    assert set(NETWORK_NAMES) == set(get_args(Network))


def test_pixel_wise_baselines_are_named_without_a_start():
    labels = [Series(network, "baseline", "random").label for network in PIXELWISE]
    assert labels == ["Pixel-wise logistic regression", "Pixel-wise gradient boosting"]
    assert Series("late_fusion", "baseline", "random").label == "Late fusion, random start"


def test_no_two_series_look_alike_and_baselines_take_no_colour_of_a_start():
    styles = Styles(EVERY)
    looks = [tuple(str(value) for value in styles.of(series).values()) for series in EVERY]
    assert len(set(looks)) == len(EVERY)
    colors = {series.network in PIXELWISE: set() for series in EVERY}
    for series in EVERY:
        colors[series.network in PIXELWISE].add(styles.of(series)["color"])
    assert not colors[True] & colors[False]
    without = Styles([series for series in EVERY if series.network not in PIXELWISE])
    assert all(styles.of(s) == without.of(s) for s in EVERY if s.network not in PIXELWISE)
