"""Photometric augmentation: changes of brightness and texture by kind of sensor, and the published ones.

All work on normalised values: the low percentile of a band is -1, the high one +1, and the limit is +-`clip`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config.data import SensorKind

MAX_OFFSET = 0.2
"""Largest shift of all values; about 2.5 dB if a SAR band spans 25 dB between its percentiles."""
MAX_LOG_CONTRAST = 0.22
"""Largest logarithm of the contrast: factors of 0.8 to 1.25."""
MAX_LOG_GAMMA = 0.22
"""Largest logarithm of the exponent on reflectance."""
MAX_SPECKLE_STD = 0.15
"""Largest standard deviation of added speckle. Speckle multiplies the signal, so it adds in dB, where it is close to
normal from a few looks on; 0.15 is about 8 looks over a span of 25 dB."""
BLUR_PROBABILITY, DROP_PROBABILITY = 0.3, 0.1
_SUMMED = 4
_SUM_MEAN, _SUM_STD = _SUMMED * 255 / 2, math.sqrt(_SUMMED * (256**2 - 1) / 12)


def gaussian_blur(x: Tensor, size: int, sigma: float) -> Tensor:
    """Blur N x C x H x W with a Gaussian of `size` x `size` taps, edges mirrored."""
    offsets = np.arange(size) - size // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    half = size // 2
    padded = F.pad(x, (half, half, half, half), mode="reflect").contiguous()
    # A sum of shifted copies is several times as fast on a CPU as convolutions of a single channel, and fastest if
    # all rows are one long row; values at the seams of rows are in the padding and left out.
    across = _sum_of_shifts(padded.flatten(), taps, padded.stride(3))
    return _sum_of_shifts(across, taps, padded.stride(2)).as_strided(x.shape, padded.stride())


def _sum_of_shifts(x: Tensor, taps: npt.NDArray[np.float64], step: int) -> Tensor:
    length = len(x) - (len(taps) - 1) * step
    total = x[:length] * float(taps[0])
    for shift, tap in enumerate(taps[1:], start=1):
        total.add_(x[shift * step : shift * step + length], alpha=float(tap))
    return total


def change_by_sensor(
    image: Tensor,
    kind: SensorKind,
    rng: np.random.Generator,
    clip: float,
    strength: float = 1.0,
    hue: Tensor | None = None,
) -> Tensor:
    """Change an image (C x H x W) as images of its kind of sensor differ between two acquisitions of the same ground.

    Reflectance: hue if the bands have colours, contrast, brightness, gamma, sometimes a blur or one band at its
    middle value. Backscatter: a gain (an offset in dB) and speckle; no blur. Elevation: an offset only.

    `strength` is a factor on the size of all changes, and on the probability of blur and dropped band; `clip` is the
    largest absolute value after normalisation, and `hue` a rotation of `hue_rotation`. The result is a new tensor.
    """
    offset = strength * rng.uniform(-MAX_OFFSET, MAX_OFFSET)
    if kind == "backscatter":
        size = strength * rng.uniform(0, MAX_SPECKLE_STD) / _SUM_STD
        return (image + (offset - size * _SUM_MEAN)).add_(_sums_of_bytes(rng, image.shape), alpha=size)
    if kind == "reflectance":
        gamma = np.exp(strength * rng.uniform(-MAX_LOG_GAMMA, MAX_LOG_GAMMA))
        contrast = np.exp(strength * rng.uniform(-MAX_LOG_CONTRAST, MAX_LOG_CONTRAST))
        # ((image + offset + clip) / (2 clip))^gamma, scaled to +-clip times the contrast, in few passes over memory:
        # the factor after the power is part of the one before it, as is the rotation of hue; the power by logarithm
        # is several times as fast as torch's, and the logarithm of 0 comes back as 0.
        top = (2 * clip * contrast) ** (1 / gamma)
        factor = top / (2 * clip)
        base = (offset + clip) * factor
        share = torch.rsub(image, base, alpha=-factor) if hue is None else _mix_bands(image, hue, factor, base)
        image = share.clamp_(0, top).log_().mul_(gamma).exp_().sub_(clip * contrast)
        if rng.random() < strength * BLUR_PROBABILITY:
            image = gaussian_blur(image[None], 5, rng.uniform(0.3, 1.2))[0]
        if rng.random() < strength * DROP_PROBABILITY and len(image) > 1:
            image[rng.integers(len(image))] = 0
        return image
    return image + offset


def _sums_of_bytes(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Sums of four random bytes, int16: as close to normal as speckle in dB is, and drawn in half the time."""
    values = math.prod(shape)
    words = rng.integers(2**64 - 1, size=-(-values * _SUMMED // 8), dtype=np.uint64, endpoint=True)
    summands = torch.from_numpy(words.view(np.uint8)[: values * _SUMMED].reshape(_SUMMED, values))
    return summands.sum(0, dtype=torch.int16).view(*shape)


def hue_rotation(bands: int, rgb: Sequence[int], angle: float) -> Tensor:
    """Compute the C x C matrix that rotates colours about the grey axis (1, 1, 1) by Rodrigues' formula.

    Unlike a shift of the H of HSV it is linear and cheap. It keeps the mean of the three bands (indices `rgb`), and
    grey pixels stay grey for any range of values; other bands do not change. The angle is in radians; a third of a
    circle turns red into green, green into blue and blue into red.
    """
    mean, side = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    shares = math.cos(angle) + mean, mean - side, mean + side
    rows = [[float(row == column) for column in range(bands)] for row in range(bands)]
    for i, row in enumerate(rgb):
        for j, column in enumerate(rgb):
            rows[row][column] = shares[(j - i) % 3]
    return torch.tensor(rows)


def _mix_bands(image: Tensor, matrix: Tensor, factor: float, base: float) -> Tensor:
    """Mix bands by a matrix, times a factor, plus a base, in one pass over memory."""
    return torch.addmm(torch.ones(1, 1), matrix, image.flatten(1), beta=base, alpha=factor).view(image.shape)


@dataclass(frozen=True)
class PublishedDraw:
    """The published changes of one tile's view 2, the same for all modalities.

    Attributes:
        hue: Shift in degrees; the published +-30 are steps of two degrees.
        saturation: Shift as a share of the full range.
        value: Shift as a share of the full range.
        channel: Channel copied to all, or None.
        blur: Side of the blur in pixels, or 0.
    """

    hue: float
    saturation: float
    value: float
    channel: int | None
    blur: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> PublishedDraw:
        """Draw as published (docs/method.md, section 2)."""
        shifted = rng.random() < 0.4
        hue, saturation, value = rng.integers(-30, 31) * 2.0, rng.uniform(-5, 5) / 255, rng.uniform(-15, 15) / 255
        channel = int(rng.integers(3)) if rng.random() < 0.1 else None
        blur = int(rng.choice([3, 5, 7])) if rng.random() < 0.5 else 0
        return cls(hue * shifted, saturation * shifted, value * shifted, channel, blur)


def shift_hsv(image: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Shift hue, saturation and value of an image (the hexcone of Smith 1978); a new tensor.

    The image is red, green and blue, 3 x H x W, 0..1. Hue is shifted by degrees, which wrap; the sums of the others
    are clipped to 0..1.
    """
    (red, green, blue), largest = image, image.amax(0)
    chroma = largest - image.amin(0)
    sixths = torch.where(green == largest, 2 * chroma + blue - red, 4 * chroma + red - green)
    sixths = torch.where(red == largest, green - blue, sixths) / chroma.clamp_min(1e-12) + hue / 60
    strength = (chroma / (largest + 1e-8) + saturation).clamp(0, 1)
    largest = (largest + value).clamp(0, 1)
    place = (sixths + torch.tensor([5, 3, 1])[:, None, None]) % 6  # from the hue to that of each band
    return largest - largest * strength * torch.minimum(place, 4 - place).clamp(0, 1)


def change_as_published(image: Tensor, draw: PublishedDraw, clip: float) -> Tensor:
    """Apply the published changes to one image, C x H x W, SAR as well as optical (docs/method.md, section 2).

    The published images have three 8-bit channels. Here +-clip is the range 0..255; the colour shift changes the
    first three bands, or with fewer bands the values only. Hue wraps at the full circle; the published code wraps it
    in 8 bits, which is an error. Without changes the image itself is returned.
    """
    if draw.value != 0:
        share = ((image + clip) / (2 * clip)).clamp(0, 1)
        if len(image) < 3:
            share = (share + draw.value).clamp(0, 1)
        else:
            share[:3] = shift_hsv(share[:3], draw.hue, draw.saturation, draw.value)
        image = share * (2 * clip) - clip
    if draw.channel is not None:
        image = image[draw.channel % len(image)].expand(image.shape)
    if draw.blur:
        # OpenCV's rule for the standard deviation if only the number of taps is given.
        image = gaussian_blur(image[None], draw.blur, 0.3 * ((draw.blur - 1) / 2 - 1) + 0.8)[0]
    return image
