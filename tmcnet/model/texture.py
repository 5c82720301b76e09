"""What the surroundings of a pixel look like: means and standard deviations over small windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLAT = 1e-6
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

    def _textures(self, image: Tensor) -> list[Tensor]:
        """Means and standard deviations N x 2C x H x W for each window.

        From means over windows of the values, of their squares, and of what is valid. In single precision even in
        mixed-precision training, since the difference of squares loses digits.
        """
        bands, found = image.shape[1], []
        with torch.autocast(image.device.type, enabled=False):
            values = image.float()
            valid = (values != 0).any(dim=1, keepdim=True).float()
            stacked = torch.cat([valid, values, values.square()], dim=1)
            stacked = stacked.contiguous(memory_format=torch.channels_last)
            for window in self.windows:
                share, mean, squares = torch.split(_box_mean(stacked, window), [1, bands, bands], dim=1)
                there = share * window**2 > 0.5
                mean = torch.where(there, mean / share, 0.0)
                variance = torch.where(there, squares / share, 0.0) - mean.square()
                deviation = torch.where(variance > FLAT, variance, 0.0).sqrt()
                found.append(torch.cat([mean, deviation], dim=1).to(image.dtype))
        return found


def _box_mean(x: Tensor, window: int) -> Tensor:
    """Means over square windows of N x C x H x W, zeros beyond the border; along rows, then along columns."""
    before, after = (window - 1) // 2, window // 2
    taps = x.new_full((x.shape[1], 1, 1, window), 1 / window)
    padded = F.pad(x, (before, after, before, after))
    along_rows = F.conv2d(padded, taps, groups=x.shape[1])
    return F.conv2d(along_rows, taps.transpose(2, 3), groups=x.shape[1])
