"""Colours and markers, the same everywhere on the page, and a check whether readers can distinguish colours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from tmcnet.config import PIXELWISE, RANDOM_START
from tmcnet.report.names import Series, network_order

# The colours of Okabe and Ito, which colour-blind readers can distinguish, without yellow: too faint for lines.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
PARTS = {"train": "#0072B2", "val": "#E69F00", "test": "#CC79A7", "dropped": "#bdbdbd"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))

MIN_COLOUR_DIFFERENCE = 10.0
"""CIEDE2000 difference from which small fields of two colours on a map are distinct at a glance."""

_RECEPTORS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
"""Linear RGB as seen with all receptors, and without those for long (protanopia), middle (deuteranopia) and short
waves (tritanopia). Machado, G. M., Oliveira, M. M. and Fernandes, L. A. F. (2009): A physiologically-based model for
simulation of color vision deficiency. IEEE TVCG 15, 1291-1298, at full severity."""


class Styles:
    """Colour by start, grey for the pixel-wise baselines, marker and dashes by network: fixed for the whole page."""

    def __init__(self, series: list[Series]) -> None:
        methods = sorted({s.method for s in series}, key=lambda m: (m == RANDOM_START, m))
        networks = sorted({(s.network, s.variant) for s in series}, key=network_order)
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

    def of_methods(self, methods: list[str]) -> dict[str, str]:
        """Colours of pre-training methods; those without a scored run get a colour that is still free."""
        spare = iter(OKABE_ITO[len(self._colors) :] + OKABE_ITO)
        return {m: self._colors[m] if m in self._colors else next(spare) for m in methods}


def look_alike(colors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of colours that readers with or without full colour vision can hardly distinguish.

    Args:
        colors: `#rrggbb` by name.

    Returns:
        Pairs of names in the order given.
    """
    seen = {name: _seen(color) for name, color in colors.items()}
    return [
        (one, two)
        for one, two in combinations(seen, 2)
        if deltaE_ciede2000(seen[one], seen[two]).min() < MIN_COLOUR_DIFFERENCE
    ]


def _seen(color: str) -> npt.NDArray[np.float64]:
    """A colour as each kind of reader sees it, R x 3, CIELAB."""
    value = np.array(to_rgb(color))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip([receptors @ linear for receptors in _RECEPTORS], 0.0, 1.0)
    return np.asarray(rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)))
