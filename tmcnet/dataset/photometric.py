"""Changes of brightness and texture that leave the ground where it is, as each kind of sensor allows.

All work on normalised values: the low percentile of a band at -1, the high one at +1, clipped at +-`clip`.
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

OFFSET = 0.2
"""Largest shift of all values; about 2.5 dB where a SAR band spans 25 dB between its percentiles."""
CONTRAST = 0.22
"""Largest logarithm of the contrast: factors of 0.8 to 1.25."""
GAMMA = 0.22
"""Largest logarithm of the exponent on reflectance."""
SPECKLE = 0.15
"""Largest standard deviation of added speckle. Speckle multiplies the signal, so it adds in dB, where it is close to
normal from a few looks on; 0.15 is about 8 looks over a span of 25 dB."""
_SUMMED = 4
_SUM_MEAN, _SUM_DEVIATION = _SUMMED * 255 / 2, math.sqrt(_SUMMED * (256**2 - 1) / 12)
BLUR_CHANCE = 0.3
DROP_CHANCE = 0.1


def gaussian_blur(x: Tensor, size: int, sigma: float) -> Tensor:
    """Blur N x C x H x W with a Gaussian of `size` x `size` taps, edges mirrored."""
    offsets = np.arange(size) - size // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    half = size // 2
    padded = F.pad(x, (half, half, half, half), mode="reflect").contiguous()
    # A sum of shifted copies: several times as fast on a CPU as convolutions of a single channel. All rows are
    # shifted as one long row, which is fastest; what comes out at the seams of rows lies in the padding and is left
    # out.
    across = _sum_of_shifts(padded.flatten(), taps, padded.stride(3))
    return _sum_of_shifts(across, taps, padded.stride(2)).as_strided(x.shape, padded.stride())


def _sum_of_shifts(x: Tensor, taps: npt.NDArray[np.float64], step: int) -> Tensor:
    length = len(x) - (len(taps) - 1) * step
    total = x[:length] * float(taps[0])
    for shift, tap in enumerate(taps[1:], start=1):
        total.add_(x[shift * step : shift * step + length], alpha=float(tap))
    return total


def corrected(
    image: Tensor,
    kind: SensorKind,
    rng: np.random.Generator,
    clip: float,
    strength: float = 1.0,
    hue: Tensor | None = None,
) -> Tensor:
    """Change an image as its kind of sensor may change between two looks at the same ground.

    Reflectance: hue where the colours of the bands are known, contrast, brightness, gamma, sometimes a blur or one
    band at its middle value. Backscatter: a gain (an offset in dB) and speckle; no blur. Elevation: an offset only.

    Args:
        image: C x H x W.
        kind: What the sensor measures.
        rng: Source of the draws.
        clip: Largest absolute value after normalisation.
        strength: Factor on the size of all changes, and on the chance of those that happen or not.
        hue: C x C, the turn of hue of reflectance, as `hue_turn` gives it; None for none.

    Returns:
        A new tensor of the same shape.
    """
    offset = strength * rng.uniform(-OFFSET, OFFSET)
    if kind == "backscatter":
        size = strength * rng.uniform(0, SPECKLE) / _SUM_DEVIATION
        return (image + (offset - size * _SUM_MEAN)).add_(_sums_of_bytes(rng, image.shape), alpha=size)
    if kind == "reflectance":
        gamma = np.exp(strength * rng.uniform(-GAMMA, GAMMA))
        contrast = np.exp(strength * rng.uniform(-CONTRAST, CONTRAST))
        # ((image + offset + clip) / (2 clip))^gamma, brought to +-clip times the contrast, in few passes over memory:
        # the factor behind the power goes into the one before it, and the turn of hue too; the power by logarithm is
        # several times as fast as torch's own; the logarithm of 0 comes back as 0.
        top = (2 * clip * contrast) ** (1 / gamma)
        factor = top / (2 * clip)
        base = (offset + clip) * factor
        share = torch.rsub(image, base, alpha=-factor) if hue is None else _mixed(image, hue, factor, base)
        image = share.clamp_(0, top).log_().mul_(gamma).exp_().sub_(clip * contrast)
        if rng.random() < strength * BLUR_CHANCE:
            image = gaussian_blur(image[None], 5, rng.uniform(0.3, 1.2))[0]
        if rng.random() < strength * DROP_CHANCE and len(image) > 1:
            image[rng.integers(len(image))] = 0
        return image
    return image + offset


def _sums_of_bytes(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Sums of four random bytes, int16: as close to normal as speckle in dB is, and drawn in half the time."""
    values = math.prod(shape)
    words = rng.integers(2**64 - 1, size=-(-values * _SUMMED // 8), dtype=np.uint64, endpoint=True)
    parts = torch.from_numpy(words.view(np.uint8)[: values * _SUMMED].reshape(_SUMMED, values))
    return parts.sum(0, dtype=torch.int16).view(*shape)


def hue_turn(bands: int, colours: Sequence[int], angle: float) -> Tensor:
    """The matrix that turns the hue of an image, a rotation of its colours about the grey axis.

    Unlike a turn of the H of HSV it is linear, and cheap: it keeps the mean of the three bands and leaves grey pixels
    grey, whatever the range of values. By Rodrigues' formula about (1, 1, 1) / sqrt(3).

    Args:
        bands: Number of bands C; others than the colours stay as they are.
        colours: Places of the red, the green and the blue band.
        angle: Radians; a third of a circle turns red into green, green into blue and blue into red.

    Returns:
        C x C.
    """
    mean, side = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    shares = math.cos(angle) + mean, mean - side, mean + side
    rows = [[float(row == column) for column in range(bands)] for row in range(bands)]
    for i, row in enumerate(colours):
        for j, column in enumerate(colours):
            rows[row][column] = shares[(j - i) % 3]
    return torch.tensor(rows)


def _mixed(image: Tensor, matrix: Tensor, factor: float, base: float) -> Tensor:
    """Bands mixed by a matrix, times a factor, plus a base: one pass over memory."""
    return torch.addmm(torch.ones(1, 1), matrix, image.flatten(1), beta=base, alpha=factor).view(image.shape)


@dataclass(frozen=True)
class PublishedDraw:
    """The published changes of one tile's view 2, the same for both sensors.

    Attributes:
        hue: Shift in degrees; the published +-30 are halves of a degree circle of 180 steps.
        saturation: Shift as a share of the full range.
        value: Shift as a share of the full range.
        channel: Channel copied to all, or None.
        blur: Side of the blur, or 0.
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


def _step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0, in place. Comparisons and choices by masks are many times slower on a CPU."""
    return x.mul_(1e30).clamp_(0, 1)


def _hue(red: Tensor, green: Tensor, blue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of a circle (0..6; 0 for grey), largest and smallest value of three H x W bands.

    The three bands are sorted in two steps, and each swap moves where the circle is counted from.
    """
    high, low = torch.maximum(green, blue), torch.minimum(green, blue)
    middle, largest = torch.minimum(red, high), torch.maximum(red, high)
    smallest = torch.minimum(middle, low)
    blue_leads, red_trails = _step(blue - green), _step(high - red)
    # Green before blue behind red: 0; blue before green behind red: -6; behind them both red: -2 and 4.
    start = red_trails.mul_(blue_leads.mul(12).sub_(2)).sub_(blue_leads, alpha=6)
    chroma = (largest - smallest).clamp_min_(1e-12)
    return middle.sub_(low).div_(chroma).add_(start).abs_(), largest, smallest


def shift_hsv(image: Tensor, hue: float, saturation: float, value: float) -> Tensor:
    """Shift hue, saturation and value of an image (the hexcone of Smith 1978).

    Args:
        image: Red, green and blue, 3 x H x W, 0..1.
        hue: Degrees, which wrap.
        saturation: Added, the sum clipped to 0..1.
        value: Added, the sum clipped to 0..1.

    Returns:
        A new tensor, 3 x H x W, 0..1.
    """
    angle, largest, smallest = _hue(*image)
    angle.add_(hue / 60 % 6)
    angle.sub_(_step(angle - 6), alpha=6)
    strength = (largest - smallest).div_(largest + 1e-8).add_(saturation).clamp_(0, 1)
    largest.add_(value).clamp_(0, 1)
    chroma = strength.mul_(largest)
    largest.sub_(chroma)
    # How far each band reaches from the smallest value to the largest, by its distance from the middle of its reach.
    shares = torch.stack([(angle - 3).abs_().sub_(1), *(2 - (angle - middle).abs_() for middle in (2, 4))])
    return shares.clamp_(0, 1).mul_(chroma).add_(largest)


def published(image: Tensor, draw: PublishedDraw, clip: float) -> Tensor:
    """Apply the published changes to one image, SAR as well as optical.

    The published images have three 8-bit channels. Here the range +-clip stands for 0..255; the colour shift works on
    the first three bands, and where there are fewer it shifts the values alone. Hue wraps at the full circle (the
    published code wraps it in 8 bits, which is a slip of arithmetic).

    Args:
        image: C x H x W.
        draw: What was drawn for the tile.
        clip: Largest absolute value after normalisation.

    Returns:
        A new tensor, or the image itself where nothing was drawn.
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
        # OpenCV's rule for the width where only the number of taps is given.
        image = gaussian_blur(image[None], draw.blur, 0.3 * ((draw.blur - 1) / 2 - 1) + 0.8)[0]
    return image
