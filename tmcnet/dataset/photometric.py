"""Changes of brightness and texture that leave the ground where it is, as each kind of sensor allows.

All work on normalised values: the low percentile of a band at -1, the high one at +1, clipped at +-`clip`.
"""

from __future__ import annotations

from dataclasses import dataclass

import kornia.color
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
    noise: torch.Generator,
    clip: float,
    strength: float = 1.0,
) -> Tensor:
    """Change an image as its kind of sensor may change between two looks at the same ground.

    Reflectance: contrast, brightness, gamma, sometimes a blur or one band at its middle value. Backscatter: a gain
    (an offset in dB) and speckle; no hue, no blur. Elevation: an offset only.

    Args:
        image: C x H x W.
        kind: What the sensor measures.
        rng: Source of all draws but the speckle.
        noise: Source of the speckle.
        clip: Largest absolute value after normalisation.
        strength: Factor on the size of all changes, and on the chance of those that happen or not.

    Returns:
        A new tensor of the same shape.
    """
    offset = strength * rng.uniform(-OFFSET, OFFSET)
    if kind == "backscatter":
        speckle = torch.randn(image.shape, generator=noise, dtype=image.dtype)
        return (image + offset).add_(speckle, alpha=strength * rng.uniform(0, SPECKLE))
    if kind == "reflectance":
        gamma = np.exp(strength * rng.uniform(-GAMMA, GAMMA))
        contrast = np.exp(strength * rng.uniform(-CONTRAST, CONTRAST))
        share = (image + (offset + clip)).mul_(1 / (2 * clip)).clamp_(0, 1)
        # A power by logarithm, several times as fast as torch's own; the logarithm of 0 comes back as 0.
        share.log_().mul_(gamma).exp_()
        image = share.mul_(2 * clip * contrast).sub_(clip * contrast)
        if rng.random() < strength * BLUR_CHANCE:
            image = gaussian_blur(image[None], 5, rng.uniform(0.3, 1.2))[0]
        if rng.random() < strength * DROP_CHANCE and len(image) > 1:
            image[rng.integers(len(image))] = 0
        return image
    return image + offset


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
        """Draw as in reference_spec.md, section 2."""
        shifted = rng.random() < 0.4
        hue, saturation, value = rng.integers(-30, 31) * 2.0, rng.uniform(-5, 5) / 255, rng.uniform(-15, 15) / 255
        channel = int(rng.integers(3)) if rng.random() < 0.1 else None
        blur = int(rng.choice([3, 5, 7])) if rng.random() < 0.5 else 0
        return cls(hue * shifted, saturation * shifted, value * shifted, channel, blur)


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
            hsv = kornia.color.rgb_to_hsv(share[:3])
            hue = (hsv[0] + np.deg2rad(draw.hue)) % (2 * np.pi)
            saturation = (hsv[1] + draw.saturation).clamp(0, 1)
            value = (hsv[2] + draw.value).clamp(0, 1)
            share = torch.cat([kornia.color.hsv_to_rgb(torch.stack([hue, saturation, value])), share[3:]])
        image = share * (2 * clip) - clip
    if draw.channel is not None:
        image = image[draw.channel % len(image)].expand(image.shape)
    if draw.blur:
        # OpenCV's rule for the width where only the number of taps is given.
        image = gaussian_blur(image[None], draw.blur, 0.3 * ((draw.blur - 1) / 2 - 1) + 0.8)[0]
    return image
