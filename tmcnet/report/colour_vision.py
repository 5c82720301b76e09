"""How far apart colours are to readers who see all of them and to those who do not."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

CLEAR = 10.0
"""Least CIEDE2000 difference at which small fields of two colours on a map are told apart at a glance."""

_RECEPTORS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
"""Linear RGB as seen with all receptors, and without those for long (protanopia), middle (deuteranopia) and short
waves (tritanopia). Machado, G. M., Oliveira, M. M. and Fernandes, L. A. F. (2009): A physiologically-based model for
simulation of color vision deficiency. IEEE TVCG 15, 1291-1298, at full severity."""


def look_alike(colors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs whose colours some readers can hardly tell apart, those of full colour vision or of one of three lacks.

    Args:
        colors: `#rrggbb` by name.

    Returns:
        Pairs of names in the order given.
    """
    seen = {name: _seen(color) for name, color in colors.items()}
    return [(one, two) for one, two in combinations(seen, 2) if _difference(seen[one], seen[two]) < CLEAR]


def _difference(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> float:
    """The least CIEDE2000 difference of two colours, both R x 3 (CIELAB as each kind of reader sees them)."""
    return float(deltaE_ciede2000(one, two).min())


def _seen(color: str) -> npt.NDArray[np.float64]:
    """A colour as each kind of reader sees it, R x 3, CIELAB."""
    value = np.array(to_rgb(color))
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip([receptors @ linear for receptors in _RECEPTORS], 0.0, 1.0)
    return np.asarray(rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)))
