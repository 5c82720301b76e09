"""Copies of training tiles under drawn clouds: what other sensors show where an image is covered can be learnt.

With few labels hardly a labelled pixel is under a cloud, so a network of optical and SAR images relies on the optical
one everywhere and takes clouds for land. On the copies the same labels are seen through clouds of all sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config.training import Cover
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.seeding import generator

SHARE = (0.2, 0.9)
"""Range of the share of a tile that is covered."""
SCALE = (0.25, 1.5)
"""Range of the size of the largest clouds, as a share of the side of the tile."""
EDGE = (0.05, 0.3)
"""Range of the width of the edge, in standard deviations of the noise: where a cloud becomes opaque."""
OCTAVES, GAIN = 6, 0.55
"""Scales of the noise, each half as large as the last, and the ratio of their strengths."""
BRIGHTNESS, TEXTURE = (0.7, 1.2), 0.07
"""Range of the mean of a cloud, and standard deviation of its pixels, as shares of the highest value of a band."""
MIN_SCALE_PX = 2.0


class CoveredTiles(TileDataset):
    """Labelled tiles, each followed by its copies. A copy is the same whenever it is read.

    The images of a copy are covered independently, as on different days.

    Args:
        tiles: The tiles.
        copies: How the images are covered in each copy: `clouds` draws clouds, `no_data` removes data as a cloud mask
            does.
        modalities: The images that are covered.
        cache_gib: As for `tiles`, for tiles and copies together.
        seed: Seed of all draws.
    """

    def __init__(
        self, tiles: TileDataset, copies: Sequence[Cover], modalities: Collection[str], cache_gib: float, seed: int
    ) -> None:
        self.tiles, self.copies, self.modalities, self.seed = tiles, tuple(copies), frozenset(modalities), seed
        names = [name for name in tiles.names for _ in range(1 + len(copies))]
        super().__init__(tiles.store, names, tiles.normalisation, tiles.with_labels, cache_gib, tiles.points)

    def _read(self, index: int) -> Tile:
        original, number = divmod(index, 1 + len(self.copies))
        if number == 0:
            return self.tiles[original]
        tile = self[index - number]
        images = dict(tile.images)
        for name in self.modalities & images.keys():
            random = generator(self.seed, "clouds", tile.name, name, number)
            if self.copies[number - 1] == "clouds":
                images[name] = draw_clouds(images[name], random, self.normalisation.clip)
            else:
                images[name] = images[name] * (draw_opacity(tile.size, random) == 0)
        return tile._replace(images=images)


def draw_opacity(size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Draw the opacity of clouds, H x W, from 0 (clear) to 1."""
    field = _noise(size, random.uniform(*SCALE) * min(size), random)
    clear = float(np.quantile(field, 1 - random.uniform(*SHARE)))
    return torch.from_numpy((field - clear) / random.uniform(*EDGE)).clamp(0, 1)


def draw_clouds(image: Tensor, random: np.random.Generator, clip: float) -> Tensor:
    """Draw clouds over a normalised image (C x H x W, -clip..clip); no data (0 in all bands) stays no data."""
    size = image.shape[-2], image.shape[-1]
    opacity = draw_opacity(size, random)
    texture = torch.from_numpy(_noise(size, min(size) / 4, random))
    cloud = clip * (random.uniform(*BRIGHTNESS) + TEXTURE * texture)
    has_data = (image != 0).any(dim=0)
    return (image + (cloud - image) * opacity).clamp(-clip, clip) * has_data


def _noise(size: tuple[int, int], scale: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Noise on several scales, the largest of `scale` pixels; H x W with mean 0 and standard deviation 1."""
    total = np.zeros(size, dtype=np.float32)
    for octave in range(OCTAVES):
        step = max(scale / 2**octave, MIN_SCALE_PX)
        lattice = torch.from_numpy(random.standard_normal([int(side / step) + 3 for side in size], dtype=np.float32))
        fine = F.interpolate(lattice[None, None], scale_factor=step, mode="bicubic")[0, 0]
        top, left = (random.integers(0, have - need + 1) for have, need in zip(fine.shape, size, strict=True))
        total += GAIN**octave * fine[top : top + size[0], left : left + size[1]].numpy()
    return np.asarray((total - total.mean()) / total.std(), dtype=np.float32)
