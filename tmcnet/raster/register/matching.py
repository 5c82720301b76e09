"""Match windows of an optical and a SAR image by oriented gradients.

Optical and SAR brightness are hardly correlated, but edges are in the same places and have the same orientation. So
each pixel is described by the gradient strength along a few orientations, whichever side is brighter, and windows of
descriptors are compared by normalised cross-correlation with FFT, as in Ye et al., "Fast and robust matching for
multimodal remote sensing image registration", IEEE TGRS 2019 (CFOG).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from tmcnet.raster.io.files import BoolArray, FloatArray
from tmcnet.raster.io.windowed import Image, sample_windows

ORIENTATIONS = 8  # gradient orientations, evenly spaced over 180 degrees
GRADIENT_SIGMA_PX = 1.0
"""Width of the derivative filter. Wider filters suppress more speckle, but bias matches towards the brighter side."""
SMOOTHING_SIGMA_PX = 0.8  # width of the spatial smoothing of each orientation
DESCRIPTOR_MARGIN_PX = int(np.ceil(4 * (GRADIENT_SIGMA_PX + SMOOTHING_SIGMA_PX)))
"""Pixels around a window that influence its descriptors."""
LOG_GAIN = 9.0  # logarithmic scaling maps a relative brightness b of 0..1 to log(1 + gain b) / log(1 + gain)
PEAK_RADIUS_PX = 4  # correlations within this distance of the highest one belong to the same peak
BLOCK_PX = 256  # side of the image block whose windows are read and described together
WINDOWS_PER_BATCH = 4
"""Windows correlated at a time; more need memory that is mapped anew for each batch, which takes longer."""
SAMPLES_PER_SIDE, SAMPLE_SIDE_PX = 4, 72
"""Number and size of the windows along each side of an image from which its scaling is estimated."""

Points: TypeAlias = npt.NDArray[np.int64]  # N x 2, x and y in whole pixels
Descriptors: TypeAlias = tuple[FloatArray, BoolArray]
"""ORIENTATIONS x H x W, of length up to 1 per pixel; and where they are valid, H x W."""


@dataclass(frozen=True)
class Window:
    """Side of the windows to match and largest shift to search, in pixels."""

    side: int
    search_radius: int


@dataclass(frozen=True)
class Matches:
    """Matched windows; one entry per window in each array."""

    dx: FloatArray  # displacement in x in pixels; NaN where there is no match
    dy: FloatArray  # displacement in y in pixels
    peak: FloatArray  # correlation at the best shift, -1..1
    # correlation at the best shift over that at the second-best peak, both above the median; at least 1
    ratio: FloatArray


@dataclass(frozen=True)
class Scaling:
    """How the brightness of an image is scaled before its gradients are computed."""

    ranges: FloatArray  # C x 2: 2nd and 98th percentile of each band, so that bands of any units have equal weight
    logarithmic: bool  # whether contrasts count as ratios, as they should where noise grows with brightness
    floor: float  # median gradient strength; weaker gradients get shorter descriptors


def image_scaling(image: Image, sar: bool) -> Scaling:
    """Estimate how to scale the brightness of an image from windows spread over it.

    A SAR image without negative values is not in dB, and its contrasts are taken as ratios: bright sides of edges
    would outweigh the dark ones and bias the match towards them.
    """
    windows = list(sample_windows(image, SAMPLES_PER_SIDE, SAMPLE_SIDE_PX))
    ranges = np.zeros((image.shape[0], 2), dtype=np.float32)
    for number, row in enumerate(ranges):
        band = np.concatenate([window[number][np.isfinite(window[number])] for window in windows])
        if band.size:
            row[:] = np.percentile(band, [2.0, 98.0])
    logarithmic = sar and float(ranges.min()) >= 0.0
    gradients = (_gradients(window, Scaling(ranges, logarithmic, 1.0)) for window in windows)
    lengths = np.concatenate([np.sqrt((channels**2).sum(axis=0))[valid] for channels, valid in gradients])
    return Scaling(ranges, logarithmic, max(float(np.median(lengths)), 1e-9) if lengths.size else 1.0)


def describe(image: FloatArray, scaling: Scaling) -> Descriptors:
    """Compute the descriptors of an image, C x H x W with NaN for no data."""
    channels, valid = _gradients(image, scaling)
    length = np.sqrt((channels**2).sum(axis=0))
    return np.asarray(channels / (length + scaling.floor), dtype=np.float32), valid


def _gradients(image: FloatArray, scaling: Scaling) -> Descriptors:
    """Smoothed gradient strength along each orientation, and where it is valid."""
    valid = np.isfinite(image).all(axis=0)
    angles = np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
    channels = np.zeros((ORIENTATIONS, *valid.shape), dtype=np.float32)
    for band, (low, high) in zip(image, scaling.ranges, strict=True):
        if high <= low:
            continue
        scaled = np.clip((band - low) / (high - low), 0.0, 1.0)
        if scaling.logarithmic:
            scaled = np.log1p(LOG_GAIN * scaled) / np.log1p(LOG_GAIN)
        scaled = np.where(valid, scaled, 0.5)
        gx = ndimage.gaussian_filter(scaled, GRADIENT_SIGMA_PX, order=(0, 1))
        gy = ndimage.gaussian_filter(scaled, GRADIENT_SIGMA_PX, order=(1, 0))
        for channel, angle in zip(channels, angles, strict=True):
            channel += np.abs(np.float32(np.cos(angle)) * gx + np.float32(np.sin(angle)) * gy)
    valid = ndimage.binary_erosion(valid, iterations=2, border_value=1)
    channels *= valid
    channels = ndimage.gaussian_filter(channels, (0.0, SMOOTHING_SIGMA_PX, SMOOTHING_SIGMA_PX))
    return 0.5 * channels + 0.25 * (np.roll(channels, 1, axis=0) + np.roll(channels, -1, axis=0)), valid


def correlate(template: Descriptors, search: Descriptors, min_valid: float = 0.5) -> FloatArray:
    """Correlate windows of descriptors with wider windows at every whole shift; NaN where too few pixels are valid.

    Only pixels valid in both are compared; each channel is taken relative to its mean over the window. Templates are
    P x D x T x T, and P x T x T where they are valid; search windows have sides S, with a margin of r = (S - T) / 2
    on all sides. The result is P x (2r+1) x (2r+1), rows are shifts in y from -r to r.
    """
    side, wide = template[1].shape[-1], search[1].shape[-1]
    shifts = wide - side + 1
    n = fft.next_fast_len(wide, real=True)

    def spectrum(values: FloatArray) -> npt.NDArray[np.complex64]:
        return np.asarray(fft.rfft2(values, s=(n, n)))

    def inverse(product: npt.NDArray[np.complex64]) -> FloatArray:
        return np.asarray(fft.irfft(fft.ifft(product, axis=-2)[..., :shifts, :], n)[..., :shifts])

    first, second = _centred(*template), _centred(*search)
    cross = inverse((np.conj(spectrum(first)) * spectrum(second)).sum(axis=1))
    squared_one, squared_two = (first**2).sum(axis=1), (second**2).sum(axis=1)
    if template[1].all() and search[1].all():
        count = np.array(side * side, np.float32)
        energy_one = squared_one.sum(axis=(1, 2))[:, None, None]
        square = np.tri(wide, shifts, dtype=np.float32) - np.tri(wide, shifts, -side, dtype=np.float32)
        energy_two = square.T @ squared_two @ square  # sums over the window at each shift
    else:
        mask_one = np.conj(spectrum(template[1].astype(np.float32)))
        mask_two = spectrum(search[1].astype(np.float32))
        energy_one = inverse(np.conj(spectrum(squared_one)) * mask_two)
        energy_two = inverse(mask_one * spectrum(squared_two))
        count = inverse(mask_one * mask_two)
    norm = np.sqrt(np.maximum(energy_one, 0.0) * np.maximum(energy_two, 0.0))
    enough = (count > min_valid * side * side) & (norm > 1e-3 * side * side / 64)
    return np.where(enough, cross / np.maximum(norm, 1e-9), np.nan).astype(np.float32)


def _centred(windows: FloatArray, valid: BoolArray) -> FloatArray:
    """Subtract the mean of each channel over the valid pixels; 0 elsewhere."""
    if valid.all():
        return np.asarray(windows - windows.mean(axis=(2, 3), keepdims=True))
    mask = valid.astype(np.float32)
    total = np.einsum("pdij,pij->pd", windows, mask)
    mean = total / np.maximum(mask.sum(axis=(1, 2)), 1.0)[:, None]
    return np.asarray((windows - mean[..., None, None]) * mask[:, None])


def find_peaks(surfaces: FloatArray) -> Matches:
    """Find the best shift in each surface of `correlate`, to a fraction of a pixel; NaN at its edge."""
    n, side = len(surfaces), surfaces.shape[-1]
    radius = side // 2
    filled = np.where(np.isfinite(surfaces), surfaces, -np.inf)
    best = filled.reshape(n, -1).argmax(axis=1)
    row, col = best // side, best % side
    each = np.arange(n)
    peak = filled[each, row, col]
    inside = (row > 0) & (row < side - 1) & (col > 0) & (col < side - 1) & np.isfinite(surfaces).all(axis=(1, 2))
    r, c = np.clip(row, 1, side - 2), np.clip(col, 1, side - 2)
    patch = np.stack([surfaces[each, r + j, c + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=1)
    sub_x, sub_y = _subpixel_offset(np.where(inside[:, None], patch, 0.0))
    yy, xx = np.mgrid[:side, :side]
    distance = np.maximum(np.abs(yy[None] - row[:, None, None]), np.abs(xx[None] - col[:, None, None]))
    usable = np.where(inside[:, None, None], surfaces, 0.0)
    median = np.median(usable.reshape(n, -1), axis=1)
    second = np.where(distance > PEAK_RADIUS_PX, usable, -np.inf).reshape(n, -1).max(axis=1)
    # a search too narrow for a second peak gives no ratio, and passes
    ratio = np.where(np.isfinite(second), (peak - median) / np.maximum(second - median, 1e-3), np.inf)
    dx, dy = (np.where(inside, part, np.nan) for part in (col - radius + sub_x, row - radius + sub_y))
    parts = (dx, dy, peak, np.where(inside, ratio, 0.0))
    return Matches(*(np.asarray(part, dtype=np.float32) for part in parts))


def _subpixel_offset(patch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Maximum of the quadratic surface fitted to 3 x 3 values (P x 9, row by row), relative to the middle one."""
    y, x = (part.ravel() for part in np.mgrid[-1:2, -1:2].astype(np.float64))
    design = np.column_stack([np.ones(9), x, y, x * x, x * y, y * y])
    _, bx, by, axx, axy, ayy = np.linalg.pinv(design) @ patch.T
    det = 4.0 * axx * ayy - axy**2
    is_maximum = (det > 1e-12) & (axx < 0)
    safe = np.where(is_maximum, det, 1.0)
    dx = np.where(is_maximum, (axy * by - 2.0 * ayy * bx) / safe, 0.0)
    dy = np.where(is_maximum, (axy * bx - 2.0 * axx * by) / safe, 0.0)
    return np.clip(dx, -1.0, 1.0).astype(np.float32), np.clip(dy, -1.0, 1.0).astype(np.float32)


def correlation_surfaces(
    reference: Image, moving: Image, points: Points, window: Window, threads: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Correlate windows around `points` (N x 2, x and y) of the reference with the moving image, and the reverse.

    The surfaces, forward and backward, are in the order of the points and do not depend on the number of threads.
    """
    scalings = image_scaling(reference, sar=False), image_scaling(moving, sar=True)
    blocks, number = np.unique(points // BLOCK_PX, axis=0, return_inverse=True)
    members = [np.flatnonzero(number == n) for n in range(len(blocks))]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda m: _correlate_block((reference, moving), scalings, points[m], window), members))
    order = np.argsort(np.concatenate(members))
    forward, backward = (np.concatenate(surfaces)[order] for surfaces in zip(*parts, strict=True))
    return forward, backward


def _correlate_block(
    images: tuple[Image, Image], scalings: tuple[Scaling, Scaling], points: Points, window: Window
) -> tuple[FloatArray, FloatArray]:
    radius, wide = window.search_radius, window.side + 2 * window.search_radius
    margin = window.side // 2 + radius + DESCRIPTOR_MARGIN_PX
    left, top = (points.min(axis=0) - margin).tolist()
    width, height = (np.ptp(points, axis=0) + 2 * margin).tolist()
    described = [
        describe(image.read(top, left, height, width), scaling)
        for image, scaling in zip(images, scalings, strict=True)
    ]
    corners = points - points.min(axis=0) + DESCRIPTOR_MARGIN_PX
    cuts = [(slice(y, y + wide), slice(x, x + wide)) for x, y in corners]
    inner = slice(radius, radius + window.side)
    forward, backward = [], []
    for start in range(0, len(points), WINDOWS_PER_BATCH):
        batch = cuts[start : start + WINDOWS_PER_BATCH]
        one, two = (
            (np.stack([channels[:, r, c] for r, c in batch]), np.stack([valid[r, c] for r, c in batch]))
            for channels, valid in described
        )
        forward.append(correlate((one[0][..., inner, inner], one[1][..., inner, inner]), two))
        backward.append(correlate((two[0][..., inner, inner], two[1][..., inner, inner]), one))
    return np.concatenate(forward), np.concatenate(backward)
