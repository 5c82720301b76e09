"""Find where a window of one image lies in another one taken by a different kind of sensor.

Optical and SAR brightness have little in common, but edges lie in the same places and run in the same directions.
So images are described, pixel by pixel, by how strong the gradient is along each of a few directions, whichever
side is the brighter one, and windows of these descriptions are compared. The idea of dense oriented-gradient channels
compared by FFT is that of Ye et al., "Fast and robust matching for multimodal remote sensing image registration",
IEEE TGRS 2019 (CFOG).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

DIRECTIONS = 8
"""Number of gradient directions, evenly spaced over half a turn."""
GRADIENT_SIGMA = 1.0
"""Width of the derivative filter in pixels. Wider ones bridge more speckle, but draw matches to the brighter side."""
SMOOTHING_SIGMA = 0.8
"""Width of the spatial smoothing of each direction in pixels."""
REACH = int(np.ceil(4 * (GRADIENT_SIGMA + SMOOTHING_SIGMA)))
"""Pixels around a window that its description depends on."""
CONTRAST = 9.0
"""Where contrasts count as ratios: the bright end of the range is so many times above the dark one, less one."""
NEIGHBOURHOOD = 4
"""Peaks nearer than this to the best one (pixels) belong to it."""


@dataclass(frozen=True)
class Matches:
    """Where windows were found; all arrays have one entry per window.

    Attributes:
        dx: Displacement in x in pixels; NaN where nothing could be compared.
        dy: Displacement in y in pixels.
        peak: Correlation at the best shift, -1..1.
        ratio: Correlation at the best shift over that at the second-best peak, both above the median; at least 1.
        still: Correlation without any shift.
    """

    dx: FloatArray
    dy: FloatArray
    peak: FloatArray
    ratio: FloatArray
    still: FloatArray


@dataclass(frozen=True)
class Tone:
    """How the brightness of an image is scaled before its gradients are taken.

    Attributes:
        ranges: C x 2: 2nd and 98th percentile of each band; all bands weigh alike whatever their units.
        logarithmic: Whether contrasts count as ratios, as they should where noise grows with brightness.
        floor: Typical strength of a gradient; weaker ones count for less.
    """

    ranges: FloatArray
    logarithmic: bool
    floor: float


def tone(windows: Sequence[FloatArray], speckled: bool) -> Tone:
    """Look at windows of an image, C x H x W with NaN for no data, for how to scale it.

    Args:
        windows: Windows spread over the image.
        speckled: Whether this is a SAR image. If it holds no negative values it is not in dB, and contrasts are
            taken as ratios: bright sides of edges would outweigh the dark ones and draw the match to them.
    """
    ranges = np.zeros((len(windows[0]), 2), dtype=np.float32)
    for number, row in enumerate(ranges):
        band = np.concatenate([window[number][np.isfinite(window[number])] for window in windows])
        if band.size:
            row[:] = np.percentile(band, [2.0, 98.0])
    logarithmic = speckled and float(ranges.min()) >= 0.0
    raw = Tone(ranges, logarithmic, 1.0)
    lengths = [np.sqrt((channels**2).sum(axis=0))[valid] for channels, valid in (_gradients(w, raw) for w in windows)]
    together = np.concatenate(lengths)
    return Tone(ranges, logarithmic, max(float(np.median(together)), 1e-9) if together.size else 1.0)


def describe(image: FloatArray, scaling: Tone) -> tuple[FloatArray, BoolArray]:
    """Describe every pixel by the strength of the gradient along each direction.

    Args:
        image: C x H x W with NaN for no data.
        scaling: As `tone` found it.

    Returns:
        Description, DIRECTIONS x H x W, of length up to 1 per pixel; and where it is valid, H x W.
    """
    channels, valid = _gradients(image, scaling)
    length = np.sqrt((channels**2).sum(axis=0))
    return np.asarray(channels / (length + scaling.floor), dtype=np.float32), valid


def _gradients(image: FloatArray, scaling: Tone) -> tuple[FloatArray, BoolArray]:
    """Smoothed strength of the gradient along each direction, DIRECTIONS x H x W, and where it is valid."""
    valid = np.isfinite(image).all(axis=0)
    angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    channels = np.zeros((DIRECTIONS, *valid.shape), dtype=np.float32)
    for band, (low, high) in zip(image, scaling.ranges, strict=True):
        if high <= low:
            continue
        scaled = np.clip((band - low) / (high - low), 0.0, 1.0)
        scaled = np.where(
            valid, np.log1p(CONTRAST * scaled) / np.log1p(CONTRAST) if scaling.logarithmic else scaled, 0.5
        )
        gx = ndimage.gaussian_filter(scaled, GRADIENT_SIGMA, order=(0, 1))
        gy = ndimage.gaussian_filter(scaled, GRADIENT_SIGMA, order=(1, 0))
        for channel, angle in zip(channels, angles, strict=True):
            channel += np.abs(np.float32(np.cos(angle)) * gx + np.float32(np.sin(angle)) * gy)
    valid = ndimage.binary_erosion(valid, iterations=2, border_value=1)
    channels *= valid
    channels = ndimage.gaussian_filter(channels, (0.0, SMOOTHING_SIGMA, SMOOTHING_SIGMA))
    return 0.5 * channels + 0.25 * (np.roll(channels, 1, axis=0) + np.roll(channels, -1, axis=0)), valid


def correlate(
    template: FloatArray,
    template_valid: BoolArray,
    search: FloatArray,
    search_valid: BoolArray,
    min_valid: float = 0.5,
) -> FloatArray:
    """Correlation of described windows with wider windows at every whole shift.

    Only pixels valid in both are compared; each channel is taken relative to its mean over the window.

    Args:
        template: P x D x T x T.
        template_valid: P x T x T.
        search: P x D x S x S, the same places with a margin of r = (S - T) / 2 on all sides.
        search_valid: P x S x S.
        min_valid: Smallest share of a window that must be valid in both images.

    Returns:
        P x (2r+1) x (2r+1), rows are shifts in y from -r to r; NaN where too few pixels can be compared.
    """
    side, wide = template.shape[-1], search.shape[-1]
    shifts = wide - side + 1
    n = fft.next_fast_len(wide, real=True)

    def spectrum(values: FloatArray) -> npt.NDArray[np.complex64]:
        return np.asarray(fft.rfft2(values, s=(n, n)))

    def back(product: npt.NDArray[np.complex64]) -> FloatArray:
        return np.asarray(fft.irfft2(product, s=(n, n))[..., :shifts, :shifts])

    first, second = _centred(template, template_valid), _centred(search, search_valid)
    cross = back((np.conj(spectrum(first)) * spectrum(second)).sum(axis=1))
    mask_one = np.conj(spectrum(template_valid.astype(np.float32)))
    mask_two = spectrum(search_valid.astype(np.float32))
    energy_one = back(np.conj(spectrum((first**2).sum(axis=1))) * mask_two)
    energy_two = back(mask_one * spectrum((second**2).sum(axis=1)))
    count = back(mask_one * mask_two)
    norm = np.sqrt(np.maximum(energy_one, 0.0) * np.maximum(energy_two, 0.0))
    enough = (count > min_valid * side * side) & (norm > 1e-3 * side * side / 64)
    return np.where(enough, cross / np.maximum(norm, 1e-9), np.nan).astype(np.float32)


def _centred(windows: FloatArray, valid: BoolArray) -> FloatArray:
    """Windows less the mean of each channel over the valid pixels, 0 elsewhere."""
    if valid.all():
        return np.asarray(windows - windows.mean(axis=(2, 3), keepdims=True))
    mask = valid.astype(np.float32)
    total = np.einsum("pdij,pij->pd", windows, mask)
    mean = total / np.maximum(mask.sum(axis=(1, 2)), 1.0)[:, None]
    return np.asarray((windows - mean[..., None, None]) * mask[:, None])


def locate(surface: FloatArray) -> Matches:
    """Find the best shift in each correlation surface, to a fraction of a pixel.

    Args:
        surface: P x (2r+1) x (2r+1) as `correlate` gives it.

    Returns:
        The matches; those with the peak at the rim of the surface are NaN.
    """
    n, side = len(surface), surface.shape[-1]
    reach = side // 2
    filled = np.where(np.isfinite(surface), surface, -np.inf)
    best = filled.reshape(n, -1).argmax(axis=1)
    row, col = best // side, best % side
    each = np.arange(n)
    peak = filled[each, row, col]
    inside = (row > 0) & (row < side - 1) & (col > 0) & (col < side - 1) & np.isfinite(surface).all(axis=(1, 2))
    r, c = np.clip(row, 1, side - 2), np.clip(col, 1, side - 2)
    patch = np.stack([surface[each, r + j, c + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=1)
    sub_x, sub_y = _vertex(np.where(inside[:, None], patch, 0.0))
    yy, xx = np.mgrid[:side, :side]
    far = np.maximum(np.abs(yy[None] - row[:, None, None]), np.abs(xx[None] - col[:, None, None])) > NEIGHBOURHOOD
    usable = np.where(inside[:, None, None], surface, 0.0)
    middle = np.median(usable.reshape(n, -1), axis=1)
    second = np.where(far, usable, -np.inf).reshape(n, -1).max(axis=1)
    # in a search too narrow for a second peak the ratio says nothing, and counts as good
    ratio = np.where(np.isfinite(second), (peak - middle) / np.maximum(second - middle, 1e-3), np.inf)
    lost = ~inside
    dx, dy = np.where(lost, np.nan, col - reach + sub_x), np.where(lost, np.nan, row - reach + sub_y)
    still = surface[:, reach, reach]
    return Matches(
        *(np.asarray(part, dtype=np.float32) for part in (dx, dy, peak, np.where(lost, 0.0, ratio), still))
    )


def _vertex(patch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Summit of the quadratic surface fitted to 3 x 3 values by least squares, relative to the middle one.

    Args:
        patch: P x 9, row by row.
    """
    y, x = (part.ravel() for part in np.mgrid[-1:2, -1:2].astype(np.float64))
    design = np.column_stack([np.ones(9), x, y, x * x, x * y, y * y])
    _, bx, by, axx, axy, ayy = np.linalg.pinv(design) @ patch.T
    det = 4.0 * axx * ayy - axy**2
    summit = (det > 1e-12) & (axx < 0)
    safe = np.where(summit, det, 1.0)
    dx = np.where(summit, (axy * by - 2.0 * ayy * bx) / safe, 0.0)
    dy = np.where(summit, (axy * bx - 2.0 * axx * by) / safe, 0.0)
    return np.clip(dx, -1.0, 1.0).astype(np.float32), np.clip(dy, -1.0, 1.0).astype(np.float32)
