"""Context features of each pixel: its bands and statistics of its surroundings, the input of simple classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ContextConfig

COARSE_WINDOW, COARSE_STEP = 15, 4
"""Statistics of windows of at least this side, in pixels, are computed at every fourth pixel."""
MAX_BAND = 64
"""Pixels of an axis whose windows are summed in one product; a multiple of `COARSE_STEP`."""
MIN_VARIANCE = 1e-6
"""Smaller variances, of values of order 1, are rounding errors of sums and set to 0."""
MIN_DEVIATION = 0.05
"""Added to the deviation that divides relative bands, so that noise in even areas is not amplified; bands range from
-1 to 1."""


class ContextFeatures(nn.Module):
    """Bands, differences of bands, local means and deviations, and bands relative to their surroundings.

    A pixel that is 0 in all bands of an image has no data there. Statistics leave out such pixels and those beyond
    the border; they are 0 where a window has no data at all. Differences and relative bands are 0 where a pixel has
    no data. `reach` pixels or more away from the border of an image, the features depend on the place only, if the
    first row and column of the image are multiples of `COARSE_STEP` in the scene.

    Statistics of large windows change little from pixel to pixel: those of `COARSE_WINDOW` pixels or more are
    computed at every fourth pixel and interpolated in between, which is several times as fast.

    Args:
        config: Windows, differences and relative window.
    """

    def __init__(self, config: ContextConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def reach(self) -> int:
        """Distance in pixels to the farthest pixel that influences a feature."""
        return self.config.reach + COARSE_STEP - 1

    def count(self, bands: int) -> int:
        """Number of features of a number of bands."""
        pairs = bands * (bands - 1) // 2 if self.config.differences else 0
        relative = 0 if self.config.relative_window is None else bands
        return bands * (1 + 2 * len(self.config.windows)) + pairs + relative

    def within(self, side: int, bands: int) -> Tensor:
        """F flags of the features of a number of bands that need no window larger than `side`."""
        config = self.config
        pairs = bands * (bands - 1) // 2 if config.differences else 0
        flags = [True] * (bands + pairs)
        for window in sorted(config.windows):
            flags += [window <= side] * 2 * bands
        if config.relative_window is not None:
            flags += [config.relative_window <= side] * bands
        return torch.tensor(flags)

    def forward(self, *images: Tensor) -> Tensor:
        """Features N x F x H x W of images N x C x H x W, one per modality.

        In this order: all bands; the differences of each pair of bands; means and deviations of all bands for each
        window, from the smallest to the largest; relative bands.
        """
        if torch.compiler.is_exporting():  # a loop would fix the number of images in the exported graph
            return self._compute(*images)
        tiles = zip(*(torch.split(image, 1) for image in images), strict=True)
        return torch.cat([self._compute(*tile) for tile in tiles])  # one at a time: the sums fit the CPU's cache

    def _compute(self, *images: Tensor) -> Tensor:
        with torch.autocast(images[0].device.type, enabled=False):  # the difference of squares loses digits
            values = torch.cat(images, dim=1).float()
            masks = torch.cat([(image != 0).any(dim=1, keepdim=True) for image in images], dim=1).float()
            there = masks[:, [number for number, image in enumerate(images) for _ in range(image.shape[1])]]
            parts = [values]
            if self.config.differences and values.shape[1] > 1:  # an empty tensor cannot be exported
                parts.append(_differences(values, there))
            parts += self._statistics(values, there)
            return torch.cat(parts, dim=1).to(images[0].dtype)

    def _statistics(self, values: Tensor, there: Tensor) -> list[Tensor]:
        """Means and deviations over each window, and relative bands; parts N x .. x H x W.

        Args:
            values: N x C x H x W bands of all images.
            there: N x C x H x W, 1 where the image of a band has data, else 0.
        """
        # sums of small numbers have small rounding errors
        centre = values.sum(dim=(2, 3), keepdim=True) / there.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        centred = (values - centre) * there
        sources = torch.cat([there, centred, centred.square()], dim=1)
        relative = self.config.relative_window
        windows = sorted({*self.config.windows, *(() if relative is None else (relative,))})
        fine = [window for window in windows if window < COARSE_WINDOW]
        coarse = windows[len(fine) :]
        found: dict[int, Tensor] = {}
        if fine:
            found |= zip(fine, _means_and_deviations(sources, centre, fine, 1), strict=True)
        if coarse:
            small = torch.cat(_means_and_deviations(sources, centre, coarse, COARSE_STEP), dim=1)
            large = enlarge(small, (values.shape[-2], values.shape[-1]), COARSE_STEP)
            found |= zip(coarse, torch.chunk(large, len(coarse), dim=1), strict=True)
        parts = [found[window] for window in sorted(self.config.windows)]
        if relative is not None:
            mean, deviation = torch.chunk(found[relative], 2, dim=1)
            parts.append((values - mean) / (deviation + MIN_DEVIATION) * there)
        return parts


def _differences(values: Tensor, there: Tensor) -> Tensor:
    """Differences of each pair of bands, 0 where one of them has no data; N x C(C-1)/2 x H x W."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], offset=1, device=values.device)
    return (values[:, first] - values[:, second]) * (there[:, first] * there[:, second])


def _means_and_deviations(sources: Tensor, centre: Tensor, windows: Sequence[int], step: int) -> list[Tensor]:
    """Means and deviations of all bands over each window, at every `step`-th pixel; N x 2 C x h x w for each window.

    Args:
        sources: N x 3 C x H x W: where there is data, the bands minus `centre`, and their squares.
        centre: N x C x 1 x 1.
        windows: Odd sides in pixels.
        step: Distance of the pixels.
    """
    rows, columns = (_in_window(length, windows, step, sources) for length in sources.shape[-2:])
    down = []
    for outputs, inputs in _bands(sources.shape[-2], max(windows), step):
        part = rows[:, outputs, inputs].flatten(0, 1) @ sources[..., inputs, :]  # all windows in one product
        down.append(part.view(*part.shape[:2], len(windows), -1, part.shape[-1]))
    sums, across = torch.cat(down, dim=-2), columns.transpose(1, 2)
    bands = _bands(sources.shape[-1], max(windows), step)
    found = torch.cat([sums[..., inputs] @ across[:, inputs, outputs] for outputs, inputs in bands], dim=-1)
    count, total, squares = torch.chunk(found, 3, dim=1)
    share = count.clamp(min=1).reciprocal()
    mean = total * share
    variance = squares * share - mean.square()
    deviation = torch.where(variance > MIN_VARIANCE, variance, 0.0).sqrt()
    mean = mean + centre[:, :, None] * (count > 0)
    return list(torch.cat([mean, deviation], dim=1).unbind(2))


def _bands(length: int, window: int, step: int) -> list[tuple[slice, slice]]:
    """Parts of an axis for products with `_in_window`: sums over windows, and the pixels that these windows cover.

    Far from its diagonal the matrix is 0, so that the products of a long axis cost little more than its windows.
    """
    if torch.compiler.is_exporting() or length <= 2 * MAX_BAND:  # an exported model takes images of any size
        return [(slice(None), slice(None))]
    reach = window // 2
    return [
        (slice(start // step, (start + MAX_BAND) // step), slice(max(start - reach, 0), start + MAX_BAND + reach))
        for start in range(0, length, MAX_BAND)
    ]


def _in_window(length: int, windows: Sequence[int], step: int, like: Tensor) -> Tensor:
    """1 where a pixel of an axis is in the window around every `step`-th one; windows x ceil(length / step) x length.

    Sums over windows are products with this matrix: exact, without the digits that cumulative sums lose.
    """
    pixels = torch.arange(length, device=like.device)
    distance = (pixels[::step, None] - pixels).abs()
    return torch.stack([distance <= window // 2 for window in windows]).to(like.dtype)


def enlarge(x: Tensor, size: tuple[int, int], factor: int | None) -> Tensor:
    """Enlarge an N x C x h x w map bilinearly.

    Args:
        x: The map.
        size: Rows and columns of the result; with a factor at most `factor` times those of the map.
        factor: Small pixel k is placed at `factor` times k, where the strided convolutions of the encoder have their
            centres, and the last one is repeated beyond. So a place in the image gets the same value in any window.
            None: align the corners of both maps as the published networks do, which stretches a map by an amount that
            depends on its size.
    """
    if factor is None:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    height, width = x.shape[-2] * factor + 1, x.shape[-1] * factor + 1
    larger = F.interpolate(padded, size=(height, width), mode="bilinear", align_corners=True)
    return larger[..., : size[0], : size[1]]


def context_reach(network: nn.Module) -> int:
    """Distance in pixels to the farthest pixel that influences a context feature of a network; 0 without features."""
    return max((part.reach for part in network.modules() if isinstance(part, ContextFeatures)), default=0)
