"""Plain names and colours for what figures and tables show, the same everywhere on the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tmcnet.config import PIXELWISE, RANDOM_START, Run

# Okabe and Ito's colours, told apart by colour-blind readers. Yellow is left out: too faint for lines on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
PARTS = {"train": "#0072B2", "val": "#E69F00", "test": "#CC79A7", "dropped": "#bdbdbd"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))

METRIC_NAMES = {
    "oa": "OA",
    "kappa": "kappa",
    "miou": "mIoU",
    "mf1": "mean F1",
    "ece": "ECE",
    "boundary_f1": "Boundary F1",
}
METRIC_LONG = {
    "oa": "overall accuracy (OA)",
    "kappa": "Cohen's kappa",
    "miou": "mean intersection over union (mIoU)",
    "mf1": "mean F1",
    "boundary_f1": "boundary F1",
    "ece": "expected calibration error (ECE; low is good)",
}
NETWORK_NAMES = {
    "mssnet": "MSSNet",
    "early_fusion": "Early fusion",
    "late_fusion": "Late fusion",
    "optical_only": "Optical only",
    "sar_only": "SAR only",
    "pixel_logistic": "Pixel-wise logistic regression",
    "pixel_boosting": "Pixel-wise gradient boosting",
}
FUSION = ("mssnet", "late_fusion", "early_fusion")


@dataclass(frozen=True, order=True)
class Series:
    """One line of the label-efficiency figure: a network, its variant and how it started."""

    network: str
    variant: str
    method: str

    @property
    def key(self) -> str:
        """Name in run names and tables, such as `mssnet-corrected__tmcnet`."""
        return f"{self.network}-{self.variant}__{self.method}"

    @property
    def label(self) -> str:
        """Name for readers, such as `MSSNet, tmcnet pre-training`; pixel-wise baselines have one start only."""
        name = network_label(self.network, self.variant)
        return name if self.network in PIXELWISE else f"{name}, {method_label(self.method)}"


def network_label(network: str, variant: str) -> str:
    """Name of a network for readers; the variant is named where it departs from the default."""
    name = NETWORK_NAMES.get(network, network)
    return f"{name} (reference)" if variant == "reference" else name


def method_label(method: str) -> str:
    """How a run started, for readers."""
    return "random start" if method == RANDOM_START else f"{method} pre-training"


class Styles:
    """Colour by start, grey for the pixel-wise baselines, marker and dashes by network: fixed for the whole page."""

    def __init__(self, series: list[Series]) -> None:
        methods = sorted({s.method for s in series}, key=lambda m: (m == RANDOM_START, m))
        networks = sorted({(s.network, s.variant) for s in series}, key=_network_order)
        self._colors = {m: OKABE_ITO[i % len(OKABE_ITO)] for i, m in enumerate(methods)}
        self._ranks = {n: i for i, n in enumerate(networks)}

    def of(self, series: Series) -> dict[str, Any]:
        """Keyword arguments for Matplotlib's line plots."""
        rank = self._ranks[series.network, series.variant]
        return {
            "color": GREY if series.network in PIXELWISE else self.color(series.method),
            "marker": MARKERS[rank % len(MARKERS)],
            "linestyle": DASHES[rank % len(DASHES)],
        }

    def color(self, method: str) -> str:
        """Colour of a way to start."""
        return self._colors.get(method, GREY)


def _network_order(network: tuple[str, str]) -> tuple[int, str, str]:
    known = list(NETWORK_NAMES)
    return (known.index(network[0]) if network[0] in known else len(known), *network)


def series_order(series: Series | Run) -> tuple[object, ...]:
    """Sort key: networks as listed, corrected before reference, pre-trained before random start."""
    return (*_network_order((series.network, series.variant)), series.method == RANDOM_START, series.method)
