"""How band values become shades of grey."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def display_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The values of a band that are shown black and white.

    Black is the 2nd percentile. White is the 98th, unless a bright minority such as cloud lies far above the rest:
    then it is one and a half times the interquartile range above the upper quartile, so that the land stays visible.

    Args:
        values: Values without NaN; at least one.
    """
    low, lower, upper, high = np.percentile(values, [2, 25, 75, 98])
    high = min(high, upper + 1.5 * (upper - lower)) if upper > lower else high
    return float(low), float(high) if high > low else float(low) + 1.0
