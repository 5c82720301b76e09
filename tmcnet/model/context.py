"""Context features of each pixel, its bands and statistics of its surroundings, and perceptrons on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ContextConfig, ModelConfig
from tmcnet.config.training import CONTEXT_STEP_PX

COARSE_WINDOW, COARSE_STEP = 15, CONTEXT_STEP_PX
"""Statistics of windows of at least this side, in pixels, are computed at every fourth pixel."""
MAX_BAND = 64
"""Pixels of an axis whose windows are summed in one product; a multiple of `COARSE_STEP`."""
MAX_KEPT = 300
"""Pixels of an axis up to which the matrices of these products are kept for the next image."""
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
        return self.config.reach

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
        """Features N x F x H x W of images N x C x H x W of one size, one per modality.

        In this order: all bands; the differences of each pair of bands; means and deviations of all bands for each
        window, from the smallest to the largest; relative bands.
        """
        if torch.compiler.is_exporting():  # a loop would fix the number of images in the exported graph
            return self._compute(images)
        tiles = zip(*(torch.split(image, 1) for image in images), strict=True)
        return torch.cat([self._compute(tile) for tile in tiles])  # the sums fit the CPU's cache

    def _compute(self, images: Sequence[Tensor]) -> Tensor:
        with torch.autocast(images[0].device.type, enabled=False):  # the difference of squares loses digits
            precise = [image.float() for image in images]
            masks = [(image != 0).any(dim=1, keepdim=True).float() for image in precise]
            values, has_data = torch.cat(precise, dim=1), _per_band(masks, precise)
            features = [values]
            if self.config.differences and values.shape[1] > 1:  # an empty tensor cannot be exported
                features.append(_differences(values, has_data))
            features += self._statistics(precise, masks, values, has_data)
            return torch.cat(features, dim=1).to(images[0].dtype)

    def _statistics(
        self, images: Sequence[Tensor], masks: Sequence[Tensor], values: Tensor, has_data: Tensor
    ) -> list[Tensor]:
        """Means and deviations over each window, and relative bands, N x .. x H x W each.

        Images are N x C x H x W, masks N x 1 x H x W; `values` (bands of all images) and `has_data` have a channel
        for each band. Masks and `has_data` are 1 where an image has data, else 0.
        """
        sums = _Sums(images, masks)
        relative = self.config.relative_window
        windows = sorted({*self.config.windows, *(() if relative is None else (relative,))})
        fine = [window for window in windows if window < COARSE_WINDOW]
        coarse = windows[len(fine) :]
        by_window: dict[int, Tensor] = {}
        if fine:
            by_window |= zip(fine, sums.means_and_deviations(fine, 1), strict=True)
        if coarse:
            small = torch.cat(sums.means_and_deviations(coarse, COARSE_STEP), dim=1)
            large = enlarge(small, (values.shape[-2], values.shape[-1]), COARSE_STEP)
            by_window |= zip(coarse, torch.chunk(large, len(coarse), dim=1), strict=True)
        statistics = [by_window[window] for window in sorted(self.config.windows)]
        if relative is not None:
            mean, deviation = torch.chunk(by_window[relative], 2, dim=1)
            statistics.append((values - mean) / (deviation + MIN_DEVIATION) * has_data)
        return statistics


def _per_band(of_images: Sequence[Tensor], images: Sequence[Tensor]) -> Tensor:
    """Repeat one map of each image, N x 1 x ..., for each of its bands; N x C x ..."""
    pairs = zip(of_images, images, strict=True)
    return torch.cat([one.expand(-1, image.shape[1], *one.shape[2:]) for one, image in pairs], dim=1)


def _differences(values: Tensor, has_data: Tensor) -> Tensor:
    """Differences of each pair of bands, 0 where one of them has no data; N x C(C-1)/2 x H x W."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], offset=1, device=values.device)
    both = has_data.index_select(1, first) * has_data.index_select(1, second)
    return (values.index_select(1, first) - values.index_select(1, second)) * both


class _Sums:
    """Sums of the bands and of their squares over windows, as products with matrices of ones and zeros.

    Images are N x C x H x W, masks N x 1 x H x W, 1 where an image has data.
    """

    def __init__(self, images: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
        self.images = images
        pairs = list(zip(images, masks, strict=True))
        # sums of small numbers have small rounding errors
        self.centres = [
            image.sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(2, 3), keepdim=True).clamp(min=1)
            for image, mask in pairs
        ]
        centred = [(image - centre) * mask for (image, mask), centre in zip(pairs, self.centres, strict=True)]
        self.sources = torch.cat([*masks, *centred, *(image.square() for image in centred)], dim=1)

    def means_and_deviations(self, windows: Sequence[int], step: int) -> list[Tensor]:
        """Means and deviations, N x 2 C x h x w, over each window (odd side in pixels), at every `step`-th pixel."""
        sources, many = self.sources, len(windows)
        height, width = sources.shape[-2:]
        kept = not torch.compiler.is_exporting() and max(height, width) <= MAX_KEPT
        matrix = _in_window_again if kept else _in_window
        rows, columns = (matrix(length, tuple(windows), step, sources.device) for length in (height, width))
        across = []
        for outputs, inputs in _bands(width, max(windows), step):
            sums = sources[..., inputs] @ columns[:, outputs, inputs].flatten(0, 1).T  # all windows in one product
            across.append(sums.view(*sums.shape[:-1], many, -1))
        bands = _bands(height, max(windows), step)
        statistics = []
        for number in range(many):
            wide = torch.cat([sums[..., number, :] for sums in across], dim=-1)
            down = [rows[number, outputs, inputs] @ wide[..., inputs, :] for outputs, inputs in bands]
            statistics.append(self._mean_and_deviation(torch.cat(down, dim=-2)))
        return statistics

    def _mean_and_deviation(self, sums: Tensor) -> Tensor:
        """Means and deviations N x 2 C x h x w of the sums of `sources` over a window."""
        images, bands = len(self.images), sum(image.shape[1] for image in self.images)
        counts = [sums[:, number : number + 1] for number in range(images)]
        share = _per_band([count.clamp(min=1).reciprocal() for count in counts], self.images)
        mean = sums[:, images : images + bands] * share
        variance = sums[:, images + bands :] * share - mean.square()
        centres = [centre * count.clamp(max=1) for centre, count in zip(self.centres, counts, strict=True)]
        deviation = torch.where(variance > MIN_VARIANCE, variance, 0.0).sqrt()
        return torch.cat([mean + torch.cat(centres, dim=1), deviation], dim=1)


def _bands(length: int, window: int, step: int) -> list[tuple[slice, slice]]:
    """Parts of an axis for products with `_in_window`: sums over windows, and the pixels that these windows cover.

    Far from its diagonal the matrix is 0, so that the products of a long axis cost little more than its windows.
    Statistics are wanted at every `step`-th pixel; `window` is the largest.
    """
    if torch.compiler.is_exporting():  # an exported model takes images of any size
        return [(slice(None), slice(None))]
    reach, end = window // 2, -(-length // step)
    size = MAX_BAND // step if length > 2 * MAX_BAND else end
    return [
        (slice(start, stop), slice(max(start * step - reach, 0), (stop - 1) * step + reach + 1))
        for start, stop in ((start, min(start + size, end)) for start in range(0, end, size))
    ]


def _in_window(length: int, windows: Sequence[int], step: int, device: torch.device) -> Tensor:
    """1 where a pixel of an axis is in the window around every `step`-th one; windows x ceil(length / step) x length.

    Sums over windows are products with this matrix: exact, without the digits that cumulative sums lose.
    """
    pixels = torch.arange(length, device=device)
    distance = (pixels[::step, None] - pixels).abs()
    return torch.stack([distance <= window // 2 for window in windows]).float()


_in_window_again = lru_cache(maxsize=64)(_in_window)
"""For axes of up to `MAX_KEPT` pixels, whose matrices are small."""


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
    return max((module.reach for module in network.modules() if isinstance(module, ContextFeatures)), default=0)


class Perceptron(nn.Module):
    """Linear layers with ReLU in between. The last one starts at zero, so that all logits are 0.

    Args:
        inputs: F, the number of features.
        hidden: Units of the hidden layers.
        classes: K.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        units = [inputs, *hidden, classes]
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(units))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Logits ... x K of features ... x F."""
        *hidden, last = self.layers
        for layer in hidden:
            features = torch.relu(layer(features))
        logits: Tensor = last(features)
        return logits


class Detail(nn.Module):
    """Logits from the context features of each pixel at full resolution, added to those of the decoder.

    The decoder works at a quarter of the resolution and loses what is narrower than four pixels: roads, houses, the
    edges of fields. A perceptron on the features of the pixel-wise classifiers restores it. It is fitted to labelled
    pixels before the network is trained (`tmcnet.train.perceptron`) and kept, so that the rest of the network learns
    what single pixels do not show. Not part of the published networks.

    Args:
        bands: Bands of all images.
        classes: K.
        config: `context`, and `detail_channels`; 0 leaves the branch out.
    """

    def __init__(self, bands: int, classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.perceptron: Perceptron | None = None
        if config.detail_channels > 0:
            self.features = ContextFeatures(config.context)
            self.perceptron = Perceptron(self.features.count(bands), [config.detail_channels] * 2, classes)

    def forward(self, *images: Tensor) -> Tensor:
        """Logits N x K x H x W of images N x C x H x W, one per modality; a scalar 0 without channels."""
        if self.perceptron is None:
            return images[0].new_zeros(())
        logits: Tensor = self.perceptron(self.features(*images).permute(0, 2, 3, 1))
        return logits.permute(0, 3, 1, 2)
