"""Pictures of test tiles and whole scenes, read from the rasters of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tmcnet.config import IGNORE, Run
from tmcnet.report.blocks import Gallery, Picture, labels_text, number_text
from tmcnet.report.palette import Series
from tmcnet.report.pictures import (
    Ids,
    Rgb,
    data_uri,
    encode,
    limits_of,
    paint_classes,
    paint_confidence,
    paint_errors,
    shown_bands,
    shrink,
    stretch,
)
from tmcnet.report.results import Results
from tmcnet.report.thinning import Box, read_classes, read_thinned, read_thinned_classes, thin

SCENE_SIDE, TILE_SIDE, ALIGNMENT_SIDE = 1024, 256, 1300
"""Longest side in pixels of the pictures of whole scenes, of tiles and of alignments."""


@dataclass(frozen=True)
class Place:
    """A tile: its name, its scene and its window there as (row, col, height, width)."""

    tile: str
    scene: str
    box: Box


@dataclass(frozen=True)
class Mapper:
    """What draws maps: a run of the sweep, or a model from elsewhere (`maps.models`), which has no scores here."""

    name: str
    run: Run | None = None

    @property
    def label(self) -> str:
        """Name for readers."""
        if self.run is None:
            return f"{self.name}, from elsewhere"
        label = Series(self.run.network, self.run.variant, self.run.method).label
        return f"{label}, {labels_text(self.run.budget)}"


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
        detail: Share of the usual side that pictures may have, in 0..1; less makes a lighter page.
    """

    def __init__(self, results: Results, folder: Path, detail: float = 1.0) -> None:
        self.results = results
        self.folder = folder
        self.detail = detail
        folder.mkdir(parents=True, exist_ok=True)

    def side(self, usual: int) -> int:
        """Longest side of a picture in pixels, of what it usually is."""
        return max(1, round(usual * self.detail))

    def picture(self, image: Rgb, file: str, title: str, alt: str, *, photo: bool) -> Picture:
        """Write a picture as a file and wrap it for the page."""
        content, ending = encode(image, photo=photo)
        (self.folder / f"{file}.{ending}").write_bytes(content)
        height, width = image.shape[:2]
        return Picture(title, alt, data_uri(content, ending), width, height, smooth=photo)

    def alignment(self, scene: str, title: str, alt: str) -> Picture | None:
        """The picture that the alignment of a scene left behind; None where there is none."""
        path = self.results.root / "scenes" / scene / "alignment.png"
        if not path.exists():
            return None
        content, ending, width, height = shrink(path.read_bytes(), self.side(ALIGNMENT_SIDE))
        return Picture(title, alt, data_uri(content, ending), width, height)

    def sensors(
        self, raster_of: Callable[[str], Path], name: str, file: str, longest: int, box: Box | None = None
    ) -> list[Picture]:
        """Pictures of what there is of all modalities.

        Args:
            raster_of: Where the raster of a sensor lies.
            name: Name of the tile or scene.
            file: How the names of the picture files begin.
            longest: Longest side in pixels.
            box: Window of the rasters; None for all.
        """
        pictures = []
        for kind, title in self.sensor_titles().items():
            path = raster_of(kind)
            if path.exists():
                image = read_thinned(path, longest, box)[shown_bands(self.results.config.sensors[kind])]
                shown = stretch(image, limits_of(image))
                pictures.append(self.picture(shown, f"{file}_{kind}", title, f"{title} image of {name}", photo=True))
        return pictures

    def map_path(self, scene: str, mapper: Mapper, *, confidence: bool = False) -> Path:
        """The map of a scene."""
        return self.results.root / "maps" / scene / f"{mapper.name}{'_confidence' if confidence else ''}.tif"

    def example(self, place: Place, mapper: Mapper, note: str = "") -> Gallery | None:
        """One tile side by side: both sensors, label, prediction, error and confidence; None without its files.

        Args:
            place: The tile.
            mapper: What drew the map.
            note: What else to say of the tile.
        """
        side = self.side(TILE_SIDE)
        guess = read_classes(self.map_path(place.scene, mapper), place.box)
        store = self.results.store
        window = store.window(place.tile)
        label = read_classes(store.path("label", place.tile), window)
        if guess is None or label is None or guess.shape != label.shape:
            return None
        file = f"tile_{place.tile}"
        pictures = self.sensors(lambda kind: store.path(kind, place.tile), place.tile, file, side, window)
        pictures.append(self.classes(thin(label, side), f"{file}_label", "Label"))
        left = len(pictures)
        pictures.append(self.classes(thin(guess, side), f"{file}_prediction", "Prediction"))
        pictures.append(self.errors(thin(label, side), thin(guess, side), f"{file}_error", "Error"))
        sure = read_classes(self.map_path(place.scene, mapper, confidence=True), place.box)
        if sure is not None:
            pictures.append(self.confidence(thin(sure, side), f"{file}_confidence", "Confidence"))
        right = _right(label, guess)
        caption = f"Tile {place.tile}: {number_text(100 * right, 1)} % of the labelled pixels right.{note}"
        return Gallery(caption, pictures, compare=(0, left))

    def overview(self, scene: str, mappers: Sequence[Mapper], *, opened: bool = False) -> Gallery | None:
        """One whole scene: both sensors, label where there is one, and maps; None without maps.

        Args:
            scene: Name of the scene.
            mappers: What drew its maps; error and confidence are shown of the first.
            opened: Lay the pictures over each other without being asked.
        """
        side, file = self.side(SCENE_SIDE), f"scene_{scene}"
        folder = self.results.root / "scenes" / scene
        pictures = self.sensors(lambda kind: folder / f"{kind}.tif", scene, file, side)
        label = read_thinned_classes(folder / "label.tif", side)
        if label is not None:
            pictures.append(self.classes(label, f"{file}_label", "Label"))
        before = len(pictures)
        for mapper in mappers:
            guess = read_thinned_classes(self.map_path(scene, mapper), side)
            if guess is None:
                continue
            first = len(pictures) == before
            pictures.append(self.classes(guess, f"{file}_{mapper.name}", mapper.label))
            if first and label is not None and label.shape == guess.shape:
                title = f"Error: {mapper.label}"
                pictures.append(self.errors(label, guess, f"{file}_{mapper.name}_error", title))
            sure = read_thinned_classes(self.map_path(scene, mapper, confidence=True), side) if first else None
            if sure is not None:
                title = f"Confidence: {mapper.label}"
                pictures.append(self.confidence(sure, f"{file}_{mapper.name}_confidence", title))
        if len(pictures) == before:
            return None
        return Gallery(f"Scene {scene}.", pictures, wide=True, compare=(0, before), open=opened)

    def classes(self, ids: Ids, file: str, title: str) -> Picture:
        """Picture of class ids."""
        image = paint_classes(ids, self.results.classes)
        return self.picture(image, file, title, f"{title}: {self.shares(ids)}", photo=False)

    def errors(self, label: Ids, guess: Ids, file: str, title: str) -> Picture:
        """Picture of right and wrong pixels."""
        alt = f"{title}: {number_text(100 * _right(label, guess), 0)} % of the labelled pixels right"
        return self.picture(paint_errors(label, guess), file, title, alt, photo=False)

    def confidence(self, percent: Ids, file: str, title: str) -> Picture:
        """Picture of confidence."""
        known = percent[percent != IGNORE]
        alt = f"{title}: {number_text(float(known.mean()) if known.size else float('nan'), 0)} % on average"
        return self.picture(paint_confidence(percent), file, title, alt, photo=False)

    def sensor_titles(self) -> dict[str, str]:
        """What the modalities are called on the page."""
        second = {"backscatter": "SAR", "elevation": "Elevation", "reflectance": "Second sensor"}
        sensors = self.results.config.sensors
        further = {name: name.replace("_", " ").capitalize() for name in sensors.others}
        return {"optical": "Optical", "sar": second[sensors["sar"].kind], **further}

    def shares(self, ids: Ids) -> str:
        """The commonest classes of a map in words."""
        counts = np.bincount(ids[ids != IGNORE].ravel(), minlength=len(self.results.classes))
        total = max(int(counts.sum()), 1)
        order = [i for i in np.argsort(-counts)[:3] if i < len(self.results.classes) and counts[i]]
        return (
            ", ".join(f"{self.results.classes.names[i]} {100 * counts[i] / total:.0f} %" for i in order) or "no data"
        )


def _right(label: Ids, guess: Ids) -> float:
    """Share of the labelled pixels that are right; NaN where none is labelled."""
    known = (label != IGNORE) & (guess != IGNORE)
    return float((label == guess)[known].mean()) if known.any() else float("nan")
