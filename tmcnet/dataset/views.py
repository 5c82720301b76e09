"""Two views of each tile for pre-training, and patches on the same ground in both (docs/method.md, 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import PretrainConfig, SensorsConfig
from tmcnet.config.pretraining import VARIANTS
from tmcnet.config.training import Variant
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.photometric import PublishedDraw, change_as_published, change_by_sensor, hue_rotation
from tmcnet.seeding import generator

IntArray = npt.NDArray[np.int64]
Corner = tuple[int, int]
"""First column and row of a patch."""

CROP_TRIES, VIEW_TRIES = 5, 10
"""Crops drawn before the middle square is taken, and pairs of views before view 2 gets the crop of view 1."""
PATCH_CANDIDATES = 32
"""Places drawn for each patch."""
CROP_AREA_SHARE = (0.4, 1.0)
"""Range of the area of a crop as a share of its tile."""
ASPECT_RATIO = (3 / 4, 4 / 3)
"""Range of the width of a crop over its height."""
MIN_ANTIALIAS_REDUCTION = 1.25
"""Reduction from which a crop is smoothed before it is resampled; below it, smoothing costs more than it saves."""
HIDDEN_BLOCK_PX = 32
"""Side of the blocks of a view in which one modality is hidden: two pixels of the deepest map."""
MIN_KNOWN = 0.999
"""Share of a resampled pixel that must have data for its value to be known."""
RGB = ("red", "green", "blue")
"""Names of the bands whose hue may rotate."""
QUARTER_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
"""Rows of the 2 x 2 matrix from (x, y) in an image after 0 to 3 clockwise quarter turns to (x, y) before them."""


class ViewBatch(NamedTuple):
    """Two views of N tiles.

    Attributes:
        names: Names of the tiles.
        views: Views 1 and 2 of each modality, N x C x S x S, all on the same pixels.
        corners: First (x, y) of each patch in view 1 and in view 2, N x P x 2 int64.
        targets: Values to be predicted in views 1 and 2 of each modality, without photometric changes; NaN where
            there are no data or, if parts of the views are hidden, elsewhere. Empty: nothing is predicted.
    """

    names: list[str]
    views: dict[str, tuple[Tensor, Tensor]]
    corners: tuple[Tensor, Tensor]
    targets: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class View:
    """A crop of a tile, resized to a square, flipped, then turned clockwise.

    Attributes:
        top: First row of the crop in the tile.
        left: First column.
        height: Rows of the crop.
        width: Columns of the crop.
        size: Side of the view in pixels.
        flip_x: Left and right are swapped.
        flip_y: Top and bottom are swapped.
        turns: Quarter turns clockwise, 0..3.
    """

    top: int
    left: int
    height: int
    width: int
    size: int
    flip_x: bool = False
    flip_y: bool = False
    turns: int = 0

    @cached_property
    def matrix(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """The 2 x 3 matrix from (x, y) of a view pixel to (x, y) of a tile pixel, pixel centres at whole numbers.

        Plain numbers: for a few points they are many times faster than arrays.
        """
        xx, xy, yx, yy = QUARTER_TURNS[self.turns]
        across = self.width / self.size * (-1 if self.flip_x else 1)
        down = self.height / self.size * (-1 if self.flip_y else 1)
        a, b, c, d = across * xx, across * xy, down * yx, down * yy
        centre = (self.size - 1) / 2
        x = self.left + (self.width - 1) / 2 - (a * centre + b * centre)
        y = self.top + (self.height - 1) / 2 - (c * centre + d * centre)
        return (a, b, x), (c, d, y)

    def point_to_tile(self, x: float, y: float) -> tuple[float, float]:
        """Map a view pixel to a tile pixel."""
        (a, b, left), (c, d, top) = self.matrix
        return a * x + b * y + left, c * x + d * y + top

    def point_from_tile(self, x: float, y: float) -> tuple[float, float]:
        """Map a tile pixel to a view pixel."""
        (a, b, left), (c, d, top) = self.matrix
        if self.turns % 2:
            return (y - top) * (1 / c), (x - left) * (1 / b)
        return (x - left) * (1 / a), (y - top) * (1 / d)

    def cut(self, image: Tensor) -> Tensor:
        """Cut the view out of C x H x W, bilinear and smoothed if it shrinks much, but for `transpose`.

        The result is contiguous in memory, where photometric changes are fastest.
        """
        crop = image[:, self.top : self.top + self.height, self.left : self.left + self.width]
        # Two quarter turns are both flips; one and three are one of them before a transposition. The crop is flipped
        # and not the view, since it has to be copied anyway.
        flips = self.flip_x ^ (self.turns in (2, 3)), self.flip_y ^ (self.turns in (1, 2))
        crop = crop.flip([axis for axis, flip in zip((-1, -2), flips, strict=True) if flip])
        shrinks = max(self.height, self.width) > MIN_ANTIALIAS_REDUCTION * self.size
        # Bands as images of one channel: torch resizes those more than twice as fast on a CPU.
        size = (self.size, self.size)
        return F.interpolate(crop[:, None], size, mode="bilinear", align_corners=False, antialias=shrinks)[:, 0]

    def transpose(self, cut: Tensor) -> Tensor:
        """Finish a cut: an odd number of turns transposes it."""
        return cut.mT if self.turns % 2 else cut


def draw_views(
    rng: np.random.Generator, height: int, width: int, config: PretrainConfig, variant: Variant
) -> tuple[View, View]:
    """Draw two views of a tile, of `height` rows and `width` columns, that share room for the patches.

    View 2 is flipped and turned; in `corrected` view 1 too, so that both have the same distribution. Pairs that share
    too little are drawn again; after some tries view 2 gets the crop of view 1, which always leaves room.
    """
    for _ in range(VIEW_TRIES):
        first = _draw_crop(rng, height, width, config)
        first = first if variant == "reference" else _draw_orientation(rng, first)
        second = _draw_orientation(rng, _draw_crop(rng, height, width, config))
        (left, top), (right, bottom) = patch_range(first, second, config.patch_size)
        if max(right - left + 1, 0) * max(bottom - top + 1, 0) >= config.patches:
            return first, second
    return first, _draw_orientation(rng, first)


def _draw_crop(rng: np.random.Generator, height: int, width: int, config: PretrainConfig) -> View:
    """Draw a random resized crop smaller than the tile; after some tries the middle square."""
    for _ in range(CROP_TRIES):
        area = rng.uniform(*CROP_AREA_SHARE) * height * width
        ratio = rng.uniform(*ASPECT_RATIO)
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if rng.random() < 0.5:
            w, h = h, w
        if 0 < w < width and 0 < h < height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return View(int(top), int(left), h, w, config.crop_size)
    side = min(height, width)
    return View((height - side) // 2, (width - side) // 2, side, side, config.crop_size)


def _draw_orientation(rng: np.random.Generator, crop: View) -> View:
    """Flip (horizontal, vertical, both, or none with twice the probability) and, in four of five cases, turn."""
    flip = int(rng.integers(5))
    turns = int(rng.integers(4)) if rng.random() < 0.8 else 0
    return View(crop.top, crop.left, crop.height, crop.width, crop.size, flip in (0, 2), flip in (1, 2), turns)


def patch_range(first: View, second: View, patch_size: int) -> tuple[Corner, Corner]:
    """Compute where patches may begin in view 1 so that they are inside both views.

    Both views are aligned with the axes of the tile, so the result is a rectangle: lowest and highest (x, y) of a
    patch's first pixel in view 1, both inclusive; empty if lowest > highest.
    """
    half = (patch_size - 1) / 2
    far = second.size - 1 - half
    one, other = (first.point_from_tile(*second.point_to_tile(place, place)) for place in (half, far))
    xs, ys = sorted((one[0], other[0])), sorted((one[1], other[1]))
    # The tolerance keeps the corner of equal views from being lost to rounding.
    lowest = max(math.ceil(xs[0] - half - 1e-6), 0), max(math.ceil(ys[0] - half - 1e-6), 0)
    last = first.size - patch_size
    highest = min(math.floor(xs[1] - half + 1e-6), last), min(math.floor(ys[1] - half + 1e-6), last)
    return lowest, highest


def draw_patches(
    rng: np.random.Generator, first: View, second: View, patch_size: int, count: int
) -> tuple[IntArray, IntArray]:
    """Draw patches whose centres are on the same ground in both views, to within half a pixel of view 2.

    As published, the centre of a later patch is outside earlier patches of view 1 while there is room, and patches
    keep their size in pixels and their axes in each view. Returns the first pixel (x, y) of each patch in view 1 and
    in view 2, each count x 2.

    Raises:
        ValueError: If no patch is inside both views.
    """
    lowest, highest = patch_range(first, second, patch_size)
    if lowest[0] > highest[0] or lowest[1] > highest[1]:
        raise ValueError("no patch is inside both views")
    last = second.size - patch_size
    above = highest[0] + 1, highest[1] + 1
    corners: list[Corner] = []
    for candidates in rng.integers(lowest, above, size=(count, PATCH_CANDIDATES, 2)).tolist():
        corners.append(_first_outside(candidates, corners, patch_size))
    half = (patch_size - 1) / 2
    centres = [second.point_from_tile(*first.point_to_tile(x + half, y + half)) for x, y in corners]
    partners = [[min(max(round(centre - half), 0), last) for centre in point] for point in centres]
    return np.array(corners, np.int64), np.array(partners, np.int64)


def _first_outside(candidates: Sequence[Corner], earlier: Sequence[Corner], patch_size: int) -> Corner:
    """The first candidate whose centre is outside the earlier patches, or else the first."""
    low = -(patch_size // 2)
    high = low + patch_size
    for x, y in candidates:
        if not any(low <= x - left < high and low <= y - top < high for left, top in earlier):
            return x, y
    return candidates[0]


def _pairs(modalities: Iterable[str], batches: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Views 1 and 2 of each modality by name, from a list of views 1 and 2 of each in turn."""
    return dict(zip(modalities, zip(batches[::2], batches[1::2], strict=True), strict=True))


def _known_values(cut: Tensor, image: Tensor, view: View) -> Tensor:
    """The cut of a view of an image C x H x W; NaN where there are no data."""
    has_data = (image != 0).any(dim=0, keepdim=True)
    if has_data.all():
        return cut
    return torch.where(view.cut(has_data.to(image.dtype)) >= MIN_KNOWN, cut, torch.nan)


def _hide_blocks(images: Sequence[Tensor], targets: Sequence[Tensor], share: float, rng: np.random.Generator) -> None:
    """Hide a drawn modality in a share of the blocks of a view, in place; without a share all targets stay.

    Images and targets are those of each modality, C x S x S: hidden images are 0, as without data, and what is not
    hidden is no target.
    """
    if share == 0:
        return
    side = images[0].shape[-1]
    blocks = -(-side // HIDDEN_BLOCK_PX)
    drawn = np.where(rng.random((blocks, blocks)) < share, rng.integers(len(images), size=(blocks, blocks)), -1)
    hidden = torch.from_numpy(drawn.repeat(HIDDEN_BLOCK_PX, 0).repeat(HIDDEN_BLOCK_PX, 1)[:side, :side])
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        image[:, hidden == number] = 0
        target[:, hidden != number] = torch.nan


class ViewMaker:
    """Makes the views of a batch; what it draws depends on the seed, the step and each tile's name and slot.

    All modalities share the geometry of a view. The published photometric changes (`reference`) act on view 2 only
    and are the same for all modalities. Those by sensor (`corrected`) change each image of both views separately;
    hue rotates if the optical bands have the names `red`, `green` and `blue`.

    Args:
        config: Sizes and seed.
        sensors: What each sensor measures.
        variant: `reference` or `corrected`.
        clip: Largest absolute value after normalisation.
        photometric_by_sensor: Which photometric changes; None for those of the variant.
        hidden: Share of the blocks of a view in which one modality is hidden; None: nothing is predicted.

    Example:
        >>> make = ViewMaker(config.pretrain, config.sensors, "corrected", normalisation.clip)
        >>> batch = make([tiles[0], tiles[1]], step=0)
        >>> first, second = batch.views["sar"]
    """

    def __init__(
        self,
        config: PretrainConfig,
        sensors: SensorsConfig,
        variant: Variant,
        clip: float,
        photometric_by_sensor: bool | None = None,
        hidden: float | None = None,
    ) -> None:
        self.config, self.sensors, self.variant, self.clip = config, sensors, variant, clip
        default = VARIANTS[variant].photometric_by_sensor
        self.by_sensor = default if photometric_by_sensor is None else photometric_by_sensor
        self.hidden = hidden
        bands = sensors["optical"].bands
        coloured = sensors["optical"].kind == "reflectance" and set(RGB) <= set(bands)
        self.rgb = [bands.index(name) for name in RGB] if coloured else []

    def __call__(self, tiles: Sequence[Tile], step: int, slots: Sequence[int] | None = None) -> ViewBatch:
        """Make the views of a batch, or of a share of it.

        Args:
            tiles: The tiles; a tile that occurs twice in a batch gets different views.
            step: Step, counted from 0.
            slots: Places of the tiles in the batch of the step; None: these tiles are the whole batch.
        """
        side, bands = self.config.crop_size, [len(image) for image in tiles[0].images.values()]
        # Written view by view: memory for all images and then for their batches took more time than the changes.
        views = [torch.empty(len(tiles), count, side, side) for count in bands for _ in range(2)]
        targets = [] if self.hidden is None else [torch.empty_like(batch) for batch in views]
        corners: list[tuple[IntArray, IntArray]] = []
        for row, (slot, tile) in enumerate(zip(slots or range(len(tiles)), tiles, strict=True)):
            rng = generator(self.config.seed, "views", tile.name, step, slot)
            pair = draw_views(rng, *tile.size, self.config, self.variant)
            corners.append(draw_patches(rng, *pair, self.config.patch_size, self.config.patches))
            shown = [(image, view) for image in tile.images.values() for view in pair]
            cuts = [view.cut(image) for image, view in shown]
            changed = self._change_by_sensor(cuts, rng) if self.by_sensor else self._change_as_published(cuts, rng)
            for batch, cut, (_, view) in zip(views, changed, shown, strict=True):
                batch[row] = view.transpose(cut)
            if self.hidden is not None:
                for batch, cut, (image, view) in zip(targets, cuts, shown, strict=True):
                    batch[row] = view.transpose(_known_values(cut, image, view))
                for first in range(2):
                    images, values = ([batch[row] for batch in batches[first::2]] for batches in (views, targets))
                    _hide_blocks(images, values, self.hidden, rng)
        corners1, corners2 = (torch.from_numpy(np.stack(column)) for column in zip(*corners, strict=True))
        names, modalities = [tile.name for tile in tiles], tiles[0].images
        wanted = _pairs(modalities, targets) if targets else {}
        return ViewBatch(names, _pairs(modalities, views), (corners1, corners2), wanted)

    def _change_as_published(self, cuts: Iterable[Tensor], rng: np.random.Generator) -> Iterator[Tensor]:
        """Change view 2 of every modality by the same draw; the cuts are views 1 and 2 of each modality in turn."""
        draw = PublishedDraw.draw(rng)
        for place, cut in enumerate(cuts):
            yield change_as_published(cut, draw, self.clip) if place % 2 else cut

    def _change_by_sensor(self, cuts: Iterable[Tensor], rng: np.random.Generator) -> Iterator[Tensor]:
        """Change each view separately, as its sensor allows; the cuts are views 1 and 2 of each modality in turn."""
        strength, max_angle = self.config.photometric, np.deg2rad(self.config.hue)
        modalities = [modality for modality in self.sensors.items() for _ in range(2)]
        for cut, (name, sensor) in zip(cuts, modalities, strict=True):
            hue = None
            if name == "optical" and self.rgb:
                hue = hue_rotation(len(cut), self.rgb, strength * rng.uniform(-max_angle, max_angle))
            yield change_by_sensor(cut, sensor.kind, rng, self.clip, strength, hue)
