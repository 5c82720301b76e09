"""Pictures of test tiles and whole scenes, read from the rasters of a results folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tmcnet.config import IGNORE, Run
from tmcnet.errors import InputError
from tmcnet.report.blocks import Gallery, Picture, labels_text, number_text
from tmcnet.report.palette import Series
from tmcnet.report.pictures import (
    Ids,
    Limits,
    Rgb,
    data_uri,
    encode,
    limits_of,
    paint_classes,
    paint_confidence,
    paint_errors,
    shown_bands,
    stretch,
)
from tmcnet.report.results import Results

Box = tuple[int, int, int, int]
LONGEST = 700
_TILE_SIDE = 256
_STRIP = 256


@dataclass(frozen=True)
class Place:
    """A tile: its name, its scene and its window there as (row, col, height, width)."""

    tile: str
    scene: str
    box: Box


def places(results: Results, tiles: Iterable[str]) -> list[Place]:
    """Where tiles lie, in the given order; tiles that the index does not know are left out."""
    index = results.index
    if index.empty:
        return []
    rows = {str(r["tile"]): r for r in index.to_dict("records")}
    known = [(tile, rows[tile]) for tile in tiles if tile in rows]
    return [
        Place(t, str(r["scene"]), (int(r["row"]), int(r["col"]), int(r["height"]), int(r["width"]))) for t, r in known
    ]


class Painter:
    """Makes pictures, writes each as a file and embeds it.

    Args:
        results: The results folder.
        folder: Where picture files go.
    """

    def __init__(self, results: Results, folder: Path) -> None:
        self.results = results
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def picture(self, image: Rgb, file: str, title: str, alt: str, *, photo: bool) -> Picture:
        """Write a picture as a file and wrap it for the page."""
        content, ending = encode(image, photo=photo)
        (self.folder / f"{file}.{ending}").write_bytes(content)
        height, width = image.shape[:2]
        return Picture(title, alt, data_uri(content, ending), width, height, smooth=photo)

    def sensor(self, kind: str, path: Path, limits: Limits | None = None) -> tuple[Rgb, Limits] | None:
        """Picture of a sensor's raster, thinned to at most `LONGEST` pixels; None where there is no file."""
        if not path.exists():
            return None
        config = getattr(self.results.config.sensors, kind)
        image = read_thinned(path)[shown_bands(config)]
        used = limits or limits_of(image)
        return stretch(image, used), used

    def map_path(self, scene: str, run: Run, *, confidence: bool = False) -> Path:
        """The map of a scene by a run."""
        return self.results.root / "maps" / scene / f"{run.name}{'_confidence' if confidence else ''}.tif"

    def example(self, place: Place, run: Run) -> Gallery | None:
        """One tile side by side: both sensors, label, prediction, error and confidence; None without its files."""
        root, file = self.results.root / "tiles", f"tile_{place.tile}"
        guess = read_classes(self.map_path(place.scene, run), place.box)
        label = read_classes(root / "label" / f"{place.tile}.tif")
        if guess is None or label is None or guess.shape != label.shape:
            return None
        pictures = []
        for kind, title in self.sensor_titles().items():
            shown = self.sensor(kind, root / kind / f"{place.tile}.tif")
            if shown is not None:
                alt = f"{title} image of tile {place.tile}"
                pictures.append(self.picture(shown[0], f"{file}_{kind}", title, alt, photo=True))
        classes = self.results.classes
        known = (label != IGNORE) & (guess != IGNORE)
        right = float((label == guess)[known].mean()) if known.any() else float("nan")
        maps = {
            "label": (
                "Label",
                thin(paint_classes(label, classes)),
                f"Label of tile {place.tile}: {self.shares(label)}",
            ),
            "prediction": ("Prediction", thin(paint_classes(guess, classes)), f"Prediction: {self.shares(guess)}"),
            "error": (
                "Error",
                thin(paint_errors(label, guess)),
                f"Errors: {number_text(100 * right, 0)} % of the pixels right",
            ),
        }
        sure = read_classes(self.map_path(place.scene, run, confidence=True), place.box)
        if sure is not None:
            mean = float(sure[sure != IGNORE].mean()) if (sure != IGNORE).any() else float("nan")
            alt = f"Confidence, {number_text(mean, 0)} % on average"
            maps["confidence"] = ("Confidence", thin(paint_confidence(sure)), alt)
        for kind, (title, image, alt) in maps.items():
            pictures.append(self.picture(image, f"{file}_{kind}", title, alt, photo=False))
        caption = f"Tile {place.tile}: {number_text(100 * right, 1)} % of the labelled pixels right."
        return Gallery(caption, pictures)

    def overview(self, scene: str, runs: list[Run]) -> Gallery | None:
        """One whole scene: both sensors, label where there is one, and the map of each run; None without maps."""
        pictures = []
        for kind, title in self.sensor_titles().items():
            shown = self.sensor(kind, self.results.root / "scenes" / scene / f"{kind}.tif")
            if shown is not None:
                pictures.append(
                    self.picture(shown[0], f"scene_{scene}_{kind}", title, f"{title} image of {scene}", photo=True)
                )
        paths = [("Label", "label", self.results.root / "scenes" / scene / "label.tif")]
        for run in runs:
            title = f"{Series(run.network, run.variant, run.method).label}, {labels_text(run.budget)}"
            paths.append((title, run.name, self.map_path(scene, run)))
        drawn = 0
        for title, file, path in paths:
            ids = read_thinned_classes(path)
            if ids is not None:
                drawn += file != "label"
                alt = f"{title}, scene {scene}: {self.shares(ids)}"
                image = paint_classes(ids, self.results.classes)
                pictures.append(self.picture(image, f"scene_{scene}_{file}", title, alt, photo=False))
        return Gallery(f"Scene {scene}", pictures, wide=True) if drawn else None

    def sensor_titles(self) -> dict[str, str]:
        """What the two sensors are called on the page."""
        second = {"backscatter": "SAR", "elevation": "Elevation", "reflectance": "Second sensor"}
        return {"optical": "Optical", "sar": second[self.results.config.sensors.sar.kind]}

    def shares(self, ids: Ids) -> str:
        """The commonest classes of a map in words."""
        counts = np.bincount(ids[ids != IGNORE].ravel(), minlength=len(self.results.classes))
        total = max(int(counts.sum()), 1)
        order = [i for i in np.argsort(-counts)[:3] if i < len(self.results.classes) and counts[i]]
        return (
            ", ".join(f"{self.results.classes.names[i]} {100 * counts[i] / total:.0f} %" for i in order) or "no data"
        )


def thin(image: Rgb, longest: int = _TILE_SIDE) -> Rgb:
    """Every n-th pixel, so that no side is longer than `longest`."""
    step = -(-max(image.shape[:2]) // longest)
    return image[::step, ::step]


def read_thinned(path: Path, longest: int = LONGEST) -> npt.NDArray[np.float32]:
    """Every n-th pixel of a raster, C x H x W with NaN for no data; read in strips, so it need not fit in memory."""
    from tmcnet.raster.io import read_float, read_grid

    grid = read_grid(path)
    step = -(-max(grid.height, grid.width) // longest)
    strip = max(_STRIP // step, 1) * step
    parts = []
    for row in range(0, grid.height, strip):
        window = (row, 0, min(strip, grid.height - row), grid.width)
        parts.append(read_float(path, window)[:, ::step, ::step])
    return np.concatenate(parts, axis=1)


def read_thinned_classes(path: Path, longest: int = LONGEST) -> Ids | None:
    """Every n-th pixel of a raster of class ids; None where there is no readable file."""
    if not path.exists():
        return None
    try:
        values = read_thinned(path, longest)[0]
    except InputError:
        return None
    return np.where(np.isfinite(values), values, IGNORE).astype(np.uint8)


def read_classes(path: Path, box: Box | None = None) -> Ids | None:
    """Class ids or confidences of a window; None where there is no readable file."""
    from tmcnet.raster.io import read_labels

    if not path.exists():
        return None
    try:
        return read_labels(path, box)
    except InputError:
        return None
