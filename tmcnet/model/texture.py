"""What the surroundings of a pixel look like: means and standard deviations over small windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLAT = 1e-9
"""Variances below this, of values of order 1, are taken for the rounding of sums and set to 0."""


class PixelFeatures(nn.Module):
    """The bands of all images, and their mean and standard deviation over square windows around each pixel.

    A pixel that is 0 in all bands of an image holds no data: the statistics of that image leave it out, and likewise
    what lies beyond the border. They are 0 where a window holds no data at all.

    Args:
        windows: Sides of the windows in pixels. The window of an even side reaches one pixel farther down and right.
    """

    def __init__(self, windows: Sequence[int]) -> None:
        super().__init__()
        self.windows = tuple(windows)

    def count(self, bands: int) -> int:
        """Number of features of so many bands."""
        return bands * (1 + 2 * len(self.windows))

    def forward(self, *images: Tensor) -> Tensor:
        """Features N x F x H x W of images N x C x H x W, one a sensor.

        First all bands, then for each window the means and the standard deviations of each image in turn.
        """
        textures = zip(*(self._textures(image) for image in images), strict=True)
        return torch.cat([*images, *(texture for window in textures for texture in window)], dim=1)

    def _textures(self, image: Tensor) -> Iterator[Tensor]:
        """Means and standard deviations N x 2C x H x W for each window.

        From sums over all pixels above and to the left (Crow 1984), whose differences are the sums over windows: the
        time does not grow with the window. In double precision, since differences of squares lose digits.
        """
        bands, reach = image.shape[1], max(self.windows, default=0)
        valid = (image != 0).any(dim=1, keepdim=True)
        stacked = torch.cat([valid, image, image.double().square()], dim=1)
        table = F.pad(stacked, (reach,) * 4).cumsum(dim=3).cumsum(dim=2)
        for window in self.windows:
            count, total, squares = torch.split(_window_sums(table, window, reach), [1, bands, bands], dim=1)
            count = count.round()
            mean = torch.where(count > 0, total / count.clamp_min(1), 0.0)
            variance = squares / count.clamp_min(1) - mean.square()
            deviation = torch.where((count > 0) & (variance > FLAT), variance.clamp_min(0).sqrt(), 0.0)
            yield torch.cat([mean, deviation], dim=1).to(image.dtype)


def _window_sums(table: Tensor, window: int, reach: int) -> Tensor:
    """Sums over windows, N x C x H x W, from a table of sums of an image padded by `reach` on all sides."""
    before = reach - (window - 1) // 2 - 1
    sums = table
    for axis in (2, 3):
        length = table.shape[axis] - 2 * reach
        sums = sums.narrow(axis, before + window, length) - sums.narrow(axis, before, length)
    return sums
