"""Maps of whole scenes: overlapping windows, blended, written strip by strip as cloud-optimised GeoTIFFs.

Memory grows with the width of a scene, not with its height. Windows are blended by `taper`, whose weights of two
neighbours add up to 1, so that no seams appear.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, ComputeConfig, MapsConfig
from tmcnet.config.base import only_modality
from tmcnet.config.results import UNUSED_OVERLAP_SHARE, Windows
from tmcnet.dataset.normalise import Band
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate import polygons
from tmcnet.evaluate.map_files import MapRecord, MapStyle, list_maps, style_map
from tmcnet.evaluate.trained import Probabilities, Trained, probabilities
from tmcnet.memory import keep_freed_memory, release_freed_memory
from tmcnet.model.context import context_reach
from tmcnet.model.deeplab import deep_context
from tmcnet.model.device import choose_device
from tmcnet.model.model_file import read_test_blocks
from tmcnet.raster.io.blocks import limited_cache, share_logger
from tmcnet.raster.io.gdal_tools import require_tools
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import Raster, read_float, read_grid, read_labels
from tmcnet.raster.io.windowed import sample_windows
from tmcnet.raster.io.writer import Block, RasterProfile, write_blocks

PREDICTION = RasterProfile(2, "uint8", IGNORE, ("class", "confidence in percent"))
"""File of a predicted scene, or of a strip of one."""
_SAMPLED = 4, 64  # windows along each side of a scene and their side, whose values are compared with training
_MIN_RANGE_SHARE = 0.1  # range of a band, in units of that in training, below which it is in another unit
_MIN_OFFSET, _MAX_OFFSET = 700, 1500
"""Numbers of Sentinel-2 by which all bands, and the darkest quarter of them, begin higher where they contain 1000."""
_MIN_BANDS = 3  # in one or two bands another landscape has the same effect
_MAX_REFLECTANCE = 10.0  # larger numbers are stored reflectance, in units of 1 / 10000
_MAX_DARK = 5000  # other products, such as Landsat, begin higher
ROWS_JOINED = 256
"""Rows of pixels that are copied at a time."""


def map_tiles(
    weights: Path,
    scenes: list[SceneImages],
    classes: ClassTable,
    config: MapsConfig,
    compute: ComputeConfig,
    run_name: str,
    maps_root: Path,
    table: Path,
    shown: ClassTable | None = None,
    scores: Path | None = None,
    level: float = 0.95,
) -> None:
    """Write the maps of one network: class ids and confidence as cloud-optimised GeoTIFFs, and a table of them.

    Maps are in one folder per scene of `maps_root`, named after the run or the model in `maps.models`; paths in the
    CSV `table` are relative to it. `classes` are those of the data at hand, which must be those of the network;
    `shown` have the names and colours of the maps (None: those of the network). Areas are corrected by the
    `tiles.npz` of an evaluation (`scores`), else by what the file of the network holds. Polygons, where wanted, need
    a whole map in memory.

    Raises:
        InputError: If the images of a scene differ in size, an image cannot be read, the network was trained on other
            modalities, bands or classes, or GDAL's tools are missing.
    """
    require_tools(["gdal_translate", *(polygons.TOOLS if config.polygons else ())])
    torch.set_num_threads(compute.finetune_threads)
    trained = Trained.read(weights, choose_device(compute))
    require_fit(weights, trained, scenes, classes)
    records, blocks = {}, trained.blocks if scores is None else read_test_blocks(scores)
    style = MapStyle(shown or trained.classes, config, blocks, level)
    for scene in scenes:
        map_file = maps_root / scene.name / f"{run_name}.tif"
        map_file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".map_", dir=map_file.parent) as draft:
            prediction = Path(draft) / "prediction.tif"
            records[scene.name] = write_prediction(trained, scene, config, run_name, prediction)
            style_map(prediction, style, scene.name, map_file)
    list_maps(records, run_name, table, blocks, level)


def map_scene(
    weights: Path,
    scene: SceneImages,
    classes: ClassTable | None,
    config: MapsConfig,
    compute: ComputeConfig,
    run_name: str,
    prediction: Path,
    share: Share | None = None,
) -> MapRecord:
    """Predict one scene: class ids and confidence, of which `style_map` makes the files of the map.

    The GeoTIFF `prediction` has class ids and confidence in percent, 255 for no data. `classes` are those that the
    classes of the network must be; None: any. `share` is the part of the scene that this job maps, for `join_strips`;
    its file is empty if no rows are left for it. None: the whole scene. Raises `InputError` as `map_tiles` does.
    """
    torch.set_num_threads(compute.finetune_threads)
    trained = Trained.read(weights, choose_device(compute))
    require_fit(weights, trained, [scene], classes or trained.classes)
    return write_prediction(trained, scene, config, run_name, prediction, share)


def write_prediction(
    trained: Trained,
    scene: SceneImages,
    config: MapsConfig,
    run_name: str,
    prediction: Path,
    share: Share | None = None,
) -> MapRecord:
    """Write class ids and confidence of one scene, strip by strip; see `map_scene`."""
    began, grid = time.monotonic(), scene.grid
    covering = fit_windows(config, trained.network)
    raised = config.overlap is not None and covering.overlap > config.overlap
    if raised and max(grid.height, grid.width) > config.window:
        print(
            f"{run_name}: windows of {covering.size} pixels that overlap by {covering.overlap} instead of "
            f"{config.window} and {config.overlap}, because its context features need them (model.context)",
            file=sys.stderr,
            flush=True,
        )
    for text in unfamiliar_values(trained, scene) if share is None or share.number == 0 else ():
        print(f"{run_name}: {scene.name}: {text}", file=sys.stderr, flush=True)
    prediction.parent.mkdir(parents=True, exist_ok=True)
    blocks = (strip.block for strip in predict_strips(trained, scene, config, share))
    top, bottom = (share or Share()).pixel_rows(spans(grid.height, *covering))
    if bottom > top:
        place = grid.window((top, 0, bottom - top, grid.width))
        moved = (((box[0] - top, box[1], box[2], box[3]), values) for box, values in blocks)
        with limited_cache():
            write_blocks(prediction, place, PREDICTION, moved)
    else:
        prediction.write_bytes(b"")
    megapixels, seconds = grid.width * (bottom - top) / 1e6, time.monotonic() - began
    print(f"{run_name}: {scene.name}, {megapixels:.2f} megapixels in {seconds:.1f} s", file=sys.stderr, flush=True)
    return MapRecord(megapixels, seconds, trained.classes, trained.blocks)


def join_strips(strips: Sequence[Path], grid: Grid, records: Sequence[MapRecord], prediction: Path) -> MapRecord:
    """Write what `map_scene` writes in one job, from what it wrote and returned in several, from top to bottom.

    Raises:
        InputError: If the strips are not those of this scene.
    """
    filled = [(path, read_grid(path)) for path in strips if path.stat().st_size]
    tops = [0, *accumulate(strip.height for _, strip in filled)]
    if tops[-1] != grid.height or any(strip.width != grid.width for _, strip in filled):
        what = f"have {tops[-1]} rows together; the scene has {grid.height}"
        raise InputError(Problem(", ".join(map(str, strips)), what, "Delete them, so that they are made again."))

    def blocks() -> Iterator[Block]:
        for (path, strip), top in zip(filled, tops, strict=False):
            for row in range(0, strip.height, ROWS_JOINED):
                box = row, 0, min(ROWS_JOINED, strip.height - row), strip.width
                values = np.nan_to_num(read_float(path, box), nan=IGNORE).astype(np.uint8)
                yield (top + row, *box[1:]), values

    write_blocks(prediction, grid, PREDICTION, blocks())
    megapixels, seconds = sum(record.megapixels for record in records), sum(record.seconds for record in records)
    return records[0]._replace(megapixels=megapixels, seconds=seconds)


def unfamiliar_values(trained: Trained, scene: SceneImages) -> Iterator[str]:
    """Describe modalities with values elsewhere than in training, or much closer together, as in another unit."""
    for name, bands in trained.normalisation.items():
        if name not in scene.images:
            continue
        windows = sample_windows(Raster.of(scene.images[name]), *_SAMPLED)
        pixels = np.concatenate([window.reshape(len(window), -1) for window in windows], axis=1)
        begins = []
        for band, values in zip(bands, pixels, strict=True):
            known = values[np.isfinite(values)]
            if not known.size or band.low == band.high:
                continue
            low, middle, high = np.percentile(known, [2, 50, 98])
            begins.append((band, float(low)))
            alike = band.low <= middle <= band.high and high - low >= _MIN_RANGE_SHARE * (band.high - band.low)
            if not alike:
                what = f"{name} band {band.band} is mostly from {low:.4g} to {high:.4g}"
                yield f"{what}, in training from {band.low:.4g} to {band.high:.4g}: check unit, scale and offset"
                break
        else:
            if trained.sensors[name].kind == "reflectance" and (shift := _sentinel_2_offset(begins)):
                side = "higher" if shift > 0 else "lower"
                what = f"all bands of {name} begin {abs(shift):.4g} {side} than in training"
                yield f"{what}: check whether the offset of Sentinel-2 since baseline 04.00 is in the numbers of both"


def _sentinel_2_offset(begins: Sequence[tuple[Band, float]]) -> float:
    """How much higher all bands begin than in training, if that may be the offset of Sentinel-2; else 0."""
    if len(begins) < _MIN_BANDS:
        return 0.0
    unit = 1.0 if max(band.high for band, _ in begins) > _MAX_REFLECTANCE else 1e-4
    shifts = np.array([low - band.low for band, low in begins]) / unit
    least, few = np.abs(shifts).min(), np.percentile(np.abs(shifts), 25)
    same_sign = abs(np.sign(shifts).sum()) == len(shifts)
    dark = max(band.low for band, _ in begins) < _MAX_DARK * unit
    is_offset = same_sign and dark and least >= _MIN_OFFSET and few <= _MAX_OFFSET
    return float(np.median(shifts) * unit) if is_offset else 0.0


def require_fit(weights: Path, trained: Trained, scenes: Sequence[SceneImages], classes: ClassTable) -> None:
    """Check that a network can map scenes.

    Raises:
        InputError: As `map_tiles`.
    """
    problems = [*_size_problems(scenes), *_fit_problems(weights, trained, scenes, classes)]
    if problems:
        raise InputError(problems)


def _size_problems(scenes: Sequence[SceneImages]) -> Iterator[Problem]:
    for scene in scenes:
        grids = [read_grid(path) for path in scene.images.values()]
        if len({(grid.height, grid.width) for grid in grids}) > 1:
            sizes = " and ".join(f"{grid.height} x {grid.width}" for grid in grids)
            yield Problem(f"scene {scene.name}", f"its images differ in size ({sizes})", "Align the scene first.")


def _fit_problems(
    weights: Path, trained: Trained, scenes: Sequence[SceneImages], classes: ClassTable
) -> Iterator[Problem]:
    """Yield the reasons why a network cannot map these scenes; the first scene with a problem is named."""
    if trained.classes.names != classes.names:
        what = f"was trained on the classes {trained.classes.names}; the classes here are {classes.names}"
        yield Problem(str(weights), what, "Use a network that was trained on these classes, in this order.")
    for name, sensor in trained.sensors.items():
        bands = sensor.bands
        for scene in scenes:
            count = Raster.of(scene.images[name]).shape[0] if name in scene.images else 0
            if count != len(bands):
                what = f"was trained on {len(bands)} bands of `{name}` {bands}; scene {scene.name} has {count}"
                yield Problem(str(weights), what, "Use a network that was trained on the bands of these scenes.")
                break


@dataclass(frozen=True)
class SceneImages:
    """The images of a scene, on one grid.

    Attributes:
        name: Name of the scene.
        images: The image of each modality by name.
        area: Raster that is 1 where a map is wanted; None: everywhere.
    """

    name: str
    images: dict[str, Path]
    area: Path | None = None

    @property
    def grid(self) -> Grid:
        """The grid of all images."""
        return read_grid(next(iter(self.images.values())))


@dataclass(frozen=True)
class Strip:
    """Finished rows of a scene.

    Attributes:
        top: First row.
        probabilities: K x rows x W float32.
        valid: rows x W; False where no band used by the network has data. For networks of all modalities, only
            optical and SAR count: a DEM beyond the imagery is too little to map by.
    """

    top: int
    probabilities: Probabilities
    valid: NDArray[np.bool_]

    @property
    def block(self) -> Block:
        """Window and values of the rows in a map: the most likely class and its probability in percent."""
        values = self.probabilities.argmax(axis=0), np.rint(self.probabilities.max(axis=0) * 100).clip(0, 100)
        box = self.top, 0, *self.valid.shape
        return box, np.where(self.valid, np.stack(values), IGNORE).astype(np.uint8)


@dataclass(frozen=True)
class Share:
    """One of several jobs that map a scene together: an equal number of rows of windows each.

    Attributes:
        number: Number of the job, counted from 0.
        count: Number of jobs.
    """

    number: int = 0
    count: int = 1

    def rows(self, down: Sequence[Span]) -> range:
        """Its rows of windows; there may be none if there are more jobs than rows."""
        return range(*(len(down) * number // self.count for number in (self.number, self.number + 1)))

    def pixel_rows(self, down: Sequence[Span]) -> tuple[int, int]:
        """Its first row of pixels and the one after its last."""
        starts = [*(span.start for span in down), down[-1].stop]
        own = self.rows(down)
        return starts[own.start], starts[own.stop]


def predict_strips(
    trained: Trained, scene: SceneImages, config: MapsConfig, share: Share | None = None
) -> Iterator[Strip]:
    """Yield the class probabilities of a scene from top to bottom, in strips without overlap or gap.

    The windows of a row are read, predicted, weighted by `taper` and added to a buffer of one window's height; rows
    that no later window touches are yielded. Jobs that share a scene each predict the row of windows before their own
    as well, which overlaps it, so that they yield exactly what one job yields.
    """
    keep_freed_memory()
    grid, (window_size, overlap) = scene.grid, fit_windows(config, trained.network)
    down, across = spans(grid.height, window_size, overlap), spans(grid.width, window_size, overlap)
    buffer = np.zeros((len(trained.classes), down[0].size, grid.width), np.float32)
    valid = np.zeros((down[0].size, grid.width), bool)
    ends, own = [*(span.start for span in down[1:]), grid.height], (share or Share()).rows(down)
    rows = range(max(own.start - 1, 0), own.stop) if own else range(0)
    log, done_windows, all_windows = share_logger(f"map of {scene.name}"), 0, len(rows) * len(across)
    for index in rows:
        row, following = down[index], ends[index]
        row_weights = taper(row, overlap)[:, None]
        for window, window_probabilities in _predict_row(trained, scene, row, across, config):
            place = slice(row.size), slice(window.span.start, window.span.stop)
            buffer[:, *place] += window_probabilities * (row_weights * taper(window.span, overlap))
            valid[place] = window.valid
            done_windows += 1
            log(done_windows / all_windows)
        release_freed_memory()
        done, left = following - row.start, row.stop - following
        if index in own:
            yield Strip(row.start, buffer[:, :done].copy(), valid[:done].copy())
        buffer[:, :left] = buffer[:, done : row.size].copy()
        buffer[:, left:] = 0


def fit_windows(config: MapsConfig, network: nn.Module) -> Windows:
    """Return window and overlap of a network for maps without seams; see `MapsConfig.fit`."""
    return config.fit(context_reach(network), deep_context(network))


@dataclass(frozen=True, eq=False)
class _Window:
    """A window: normalised bands of all modalities, and where those used by the network have data."""

    span: Span
    images: dict[str, torch.Tensor]
    valid: NDArray[np.bool_]


def _read(trained: Trained, scene: SceneImages, row: Span, span: Span) -> _Window:
    box = (row.start, span.start, row.size, span.size)
    scaling, only = trained.normalisation, only_modality(trained.run.network)
    images = {name: read_float(scene.images[name], box) for name in scaling}
    used = ("optical", "sar") if only is None else (only,)
    valid = np.logical_or.reduce([np.isfinite(images[name]).any(axis=0) for name in used])
    if scene.area is not None:
        valid &= read_labels(scene.area, box) == 1
    scaled = {name: torch.from_numpy(scaling.apply(image, name)) for name, image in images.items()}
    return _Window(span, scaled, valid)


def _predict_row(
    trained: Trained, scene: SceneImages, row: Span, across: Sequence[Span], config: MapsConfig
) -> Iterator[tuple[_Window, Probabilities]]:
    """Yield each window of a row with its probabilities K x h x w; windows of equal width share batches.

    Windows without data are not predicted; their probabilities are 0.
    """
    for _, group in groupby(across, key=lambda span: span.size):
        equal_width = list(group)
        for first in range(0, len(equal_width), config.batch_size):
            windows = [_read(trained, scene, row, span) for span in equal_width[first : first + config.batch_size]]
            wanted = [window for window in windows if window.valid.any()]
            for window in windows:
                if window not in wanted:
                    yield window, np.zeros((len(trained.classes), *window.valid.shape), np.float32)
            if wanted:
                images = {name: torch.stack([w.images[name] for w in wanted]) for name in wanted[0].images}
                predicted = probabilities(trained.network, images, config.test_time)
                yield from zip(wanted, predicted.cpu().numpy(), strict=True)


class Span(NamedTuple):
    """A window along one axis.

    Attributes:
        start: Its first pixel.
        size: Its length.
        first: Whether the scene begins here.
        last: Whether the scene ends here.
    """

    start: int
    size: int
    first: bool
    last: bool

    @property
    def stop(self) -> int:
        """The pixel after its last one."""
        return self.start + self.size


def spans(length: int, window: int, overlap: int) -> list[Span]:
    """Return windows that cover 0..length-1 along one axis, each overlapping the next by exactly `overlap`.

    The last one ends with the scene and may be shorter than `window`, but is always longer than `overlap`, which is
    at most half a window (else ValueError), so that no pixel is in more than two.
    """
    if not 0 <= overlap <= window // 2:
        raise ValueError(f"overlap {overlap} must be at least 0 and at most half of the window {window}")
    starts = [0]
    while starts[-1] + window < length:
        starts.append(starts[-1] + window - overlap)
    ends = [*(start + window for start in starts[:-1]), length]
    return [Span(start, end - start, start == 0, end == length) for start, end in zip(starts, ends, strict=True)]


def taper(span: Span, overlap: int) -> NDArray[np.float32]:
    """Return the blending weights of a window along one axis, of shape `size`.

    Over an overlap the weights of two neighbours add up to 1: 0 in the outer part (`UNUSED_OVERLAP_SHARE`), then a
    rise along half a Hann window, then 1. At the ends of the scene the weights stay 1.
    """
    unused = int(overlap * UNUSED_OVERLAP_SHARE)
    rising = overlap - 2 * unused
    rise = np.sin(0.5 * np.pi * (np.arange(rising) + 0.5) / max(rising, 1)) ** 2
    ramp = np.concatenate([np.zeros(unused), rise, np.ones(unused)]).astype(np.float32)
    weights = np.ones(span.size, dtype=np.float32)
    if not span.first:
        weights[:overlap] = ramp
    if not span.last:
        weights[span.size - overlap :] *= ramp[::-1]
    return weights
