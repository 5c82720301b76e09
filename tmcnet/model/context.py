"""Context features of each pixel: its bands and statistics of its surroundings, the input of simple classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ContextConfig

MIN_VARIANCE = 1e-6
"""Smaller variances, of values of order 1, are rounding errors of sums and set to 0."""
MIN_DEVIATION = 0.05
"""Added to the deviation that divides relative bands, so that noise in even areas is not amplified; bands range from
-1 to 1."""


class ContextFeatures(nn.Module):
    """Bands, differences of bands, local means and deviations, and bands relative to their surroundings.

    A pixel that is 0 in all bands of an image has no data there. Statistics leave out such pixels and those beyond
    the border; they are 0 where a window has no data at all. Differences and relative bands are 0 where a pixel has
    no data. `reach` pixels or more away from the border of an image, the features depend on the place only.

    The sums over windows are differences of cumulative sums in double precision, so their time does not depend on the
    size of the windows.

    Args:
        config: Windows, differences and relative window.
    """

    def __init__(self, config: ContextConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def reach(self) -> int:
        """Distance in pixels to the farthest pixel that influences a feature."""
        return self.config.reach

    def count(self, bands: int) -> int:
        """Number of features of a number of bands."""
        pairs = bands * (bands - 1) // 2 if self.config.differences else 0
        relative = 0 if self.config.relative_window is None else bands
        return bands * (1 + 2 * len(self.config.windows)) + pairs + relative

    def forward(self, *images: Tensor) -> Tensor:
        """Features N x F x H x W of images N x C x H x W, one per modality.

        In this order: all bands; the differences of each pair of bands; means and deviations of all bands for each
        window; relative bands.
        """
        if torch.compiler.is_exporting():  # a loop would fix the number of images in the exported graph
            return self._compute(*images)
        tiles = zip(*(torch.split(image, 1) for image in images), strict=True)
        return torch.cat([self._compute(*tile) for tile in tiles])  # one at a time: the sums fit the CPU's cache

    def _compute(self, *images: Tensor) -> Tensor:
        with torch.autocast(images[0].device.type, enabled=False):  # the difference of squares loses digits
            values = torch.cat(images, dim=1).float()
            there = torch.cat([(image != 0).any(dim=1, keepdim=True) for image in images], dim=1)
            owner = [number for number, image in enumerate(images) for _ in range(image.shape[1])]
            parts = [values]
            if self.config.differences and values.shape[1] > 1:  # an empty tensor cannot be exported
                parts.append(_differences(values, there[:, owner]))
            parts += self._statistics(values, there, owner)
            return torch.cat(parts, dim=1).to(images[0].dtype)

    def _statistics(self, values: Tensor, there: Tensor, owner: list[int]) -> list[Tensor]:
        """Means and deviations over each window, and relative bands; N x C x H x W each.

        Args:
            values: N x C x H x W bands of all images.
            there: N x M x H x W, where each of M images has data.
            owner: The image of each band.
        """
        exact, found = values.double(), []
        integral = _integral(torch.cat([there.double(), exact, exact.square()], dim=1))
        sizes = [there.shape[1], *[values.shape[1]] * 2]
        relative = self.config.relative_window
        for window in (*self.config.windows, *(() if relative is None else (relative,))):
            count, total, squares = torch.split(_box_sum(integral, window), sizes, dim=1)
            share = count.clamp(min=1).reciprocal()[:, owner]
            mean = total * share
            variance = (squares * share - mean.square()).float()
            deviation = torch.where(variance > MIN_VARIANCE, variance, 0.0).sqrt()
            found += [mean.float(), deviation]
        if relative is not None:
            mean, deviation = found.pop(-2), found.pop(-1)
            found.append((values - mean) / (deviation + MIN_DEVIATION) * there[:, owner])
        return found


def _differences(values: Tensor, there: Tensor) -> Tensor:
    """Differences of each pair of bands, 0 where one of them has no data; N x C(C-1)/2 x H x W."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], offset=1, device=values.device)
    return (values[:, first] - values[:, second]) * (there[:, first] & there[:, second])


def _integral(x: Tensor) -> Tensor:
    """Sums over all pixels above and to the left of each corner: N x (H+1) x (W+1) x C of N x C x H x W.

    Channels are last, so that rows and columns are selected by copying blocks.
    """
    return F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 0, 1, 0)).cumsum(dim=1).cumsum(dim=2)


def _box_sum(integral: Tensor, window: int) -> Tensor:
    """Sums over square windows of odd side around each pixel, cut off at the border; N x C x H x W."""
    for dim in (1, 2):
        length = integral.shape[dim] - 1
        place = torch.arange(length, device=integral.device)
        stop, start = (place + window // 2 + 1).clamp(max=length), (place - window // 2).clamp(min=0)
        integral = integral.index_select(dim, stop) - integral.index_select(dim, start)
    return integral.permute(0, 3, 1, 2)


def context_reach(network: nn.Module) -> int:
    """Distance in pixels to the farthest pixel that influences a context feature of a network; 0 without features."""
    return max((part.reach for part in network.modules() if isinstance(part, ContextFeatures)), default=0)
