"""Windows that cover a scene, and the weights with which their predictions are blended.

Near the edge of a window a network sees padding instead of the scene. So the outer part of every overlap is read and
predicted, but not used; over the rest the windows fade into each other. Windows start at multiples of a step that is
itself a multiple of the output stride, so that all of them sample the scene at the same pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNUSED_SHARE = 0.375
"""Share of an overlap that is left out at either end of it."""


class Span(NamedTuple):
    """A window along one axis.

    Attributes:
        start: Its first pixel.
        size: Its length.
        first: Whether the scene begins here.
        last: Whether the scene ends here.
    """

    start: int
    size: int
    first: bool
    last: bool

    @property
    def stop(self) -> int:
        """The pixel after its last one."""
        return self.start + self.size


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Windows that cover 0..length-1 along one axis, each overlapping the next by exactly `overlap`.

    The last one ends with the scene and may be shorter than `window`, but is always longer than `overlap`.

    Args:
        length: Pixels of the scene.
        window: Length of a window.
        overlap: Pixels shared by neighbours, at most half a window, so that no pixel is in more than two.

    Raises:
        ValueError: If the overlap is negative or more than half the window.
    """
    if not 0 <= overlap <= window // 2:
        raise ValueError(f"overlap {overlap} must be at least 0 and at most half of the window {window}")
    starts = [0]
    while starts[-1] + window < length:
        starts.append(starts[-1] + window - overlap)
    ends = [*(start + window for start in starts[:-1]), length]
    return [Span(start, end - start, start == 0, end == length) for start, end in zip(starts, ends, strict=True)]


def taper(span: Span, overlap: int) -> NDArray[np.float32]:
    """Weights of a window's pixels along one axis, of shape `size`.

    Over an overlap the weights of two neighbours add up to 1: 0 in its outer quarter, a rise along half a Hann
    window, then 1. At the ends of the scene there is no neighbour and no fall.
    """
    unused = int(overlap * UNUSED_SHARE)
    rising = overlap - 2 * unused
    rise = np.sin(0.5 * np.pi * (np.arange(rising) + 0.5) / max(rising, 1)) ** 2
    ramp = np.concatenate([np.zeros(unused), rise, np.ones(unused)]).astype(np.float32)
    weights = np.ones(span.size, dtype=np.float32)
    if not span.first:
        weights[:overlap] = ramp
    if not span.last:
        weights[span.size - overlap :] *= ramp[::-1]
    return weights
