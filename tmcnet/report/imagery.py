"""Pictures of test tiles and whole scenes, from the rasters of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import IGNORE, Run
from tmcnet.report.names import Series, labels_text, modality_titles
from tmcnet.report.pictures import (
    Box,
    Ids,
    Rgb,
    data_uri,
    decimate,
    encode,
    limits_of,
    paint_classes,
    paint_confidence,
    paint_errors,
    read_classes,
    read_decimated,
    read_decimated_classes,
    shown_bands,
    shrink,
    stretch,
)
from tmcnet.report.results import Results

SCENE_SIDE_PX, TILE_SIDE_PX, ALIGNMENT_SIDE_PX = 1024, 256, 1300
"""Maximum side of the pictures of whole scenes, of tiles and of alignments."""


@dataclass(frozen=True)
class Place:
    """A tile: its name, its scene and its window there as (row, col, height, width)."""

    tile: str
    scene: str
    box: Box


@dataclass(frozen=True)
class MapSource:
    """The origin of a map: a run of the sweep, or an earlier model (`maps.models`) without scores here."""

    name: str
    run: Run | None = None

    @property
    def label(self) -> str:
        """Name for readers."""
        if self.run is None:
            return f"{self.name}, from elsewhere"
        return f"{Series.of(self.run).label}, {labels_text(self.run.budget)}"


@dataclass(frozen=True)
class Picture:
    """One embedded image.

    Attributes:
        kind: `sensor`, `label`, `map`, `error`, `confidence` or `alignment`.
        uri: The image as a `data:` address.
        width: In pixels.
        height: In pixels.
        photo: Whether it is imagery, not classes.
        facts: What its title and its text for blind readers need: `title`, `name`, `shares`, `right`, `mean`.
    """

    kind: str
    uri: str
    width: int
    height: int
    photo: bool
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """Pictures of one place.

    Attributes:
        name: The tile or the scene.
        pictures: In the order shown.
        first_map: Number, from 0, of the first picture that a model made.
        right: Share of right labelled pixels; NaN where not computed.
    """

    name: str
    pictures: Sequence[Picture]
    first_map: int
    right: float = float("nan")


def places(results: Results, tiles: Iterable[str]) -> list[Place]:
    """Positions of tiles, in the given order, without tiles that are not in the index."""
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
        folder: Folder of the picture files.
        detail: Factor of the maximum side of pictures, in 0..1; less makes a smaller page.
    """

    def __init__(self, results: Results, folder: Path, detail: float = 1.0) -> None:
        self.results = results
        self.folder = folder
        self.detail = detail
        folder.mkdir(parents=True, exist_ok=True)

    def alignment(self, scene: str) -> Picture | None:
        """The picture of the alignment of a scene; None without one."""
        path = self.results.root / "scenes" / scene / "alignment.png"
        if not path.exists():
            return None
        image = shrink(path.read_bytes(), self._side(ALIGNMENT_SIDE_PX))
        return self._picture("alignment", image, photo=True)

    def example(self, place: Place, source: MapSource) -> Gallery | None:
        """One tile: all modalities, label, prediction, error and confidence; None where a file is missing."""
        side = self._side(TILE_SIDE_PX)
        guess = read_classes(self.map_path(place.scene, source), place.box)
        store = self.results.store
        window = store.window(place.tile)
        label = read_classes(store.path("label", place.tile), window)
        if guess is None or label is None or guess.shape != label.shape:
            return None
        file = f"tile_{place.tile}"
        pictures = self._sensors(lambda kind: store.path(kind, place.tile), place.tile, file, side, window)
        pictures.append(self._classes("label", decimate(label, side), f"{file}_label"))
        first_map = len(pictures)
        pictures.append(self._classes("map", decimate(guess, side), f"{file}_prediction"))
        pictures.append(self._errors(decimate(label, side), decimate(guess, side), f"{file}_error"))
        confidence = read_classes(self.map_path(place.scene, source, confidence=True), place.box)
        if confidence is not None:
            pictures.append(self._confidence(decimate(confidence, side), f"{file}_confidence"))
        return Gallery(place.tile, pictures, first_map, _share_right(label, guess))

    def overview(self, scene: str, sources: Sequence[MapSource]) -> Gallery | None:
        """One whole scene: all modalities, label where there is one, and maps; None without maps.

        Args:
            scene: Name of the scene.
            sources: Origins of its maps; error and confidence are those of the first.
        """
        side, file = self._side(SCENE_SIDE_PX), f"scene_{scene}"
        folder = self.results.root / "scenes" / scene
        pictures = self._sensors(lambda kind: folder / f"{kind}.tif", scene, file, side)
        label = read_decimated_classes(folder / "label.tif", side)
        if label is not None:
            pictures.append(self._classes("label", label, f"{file}_label"))
        first_map = len(pictures)
        for source in sources:
            guess = read_decimated_classes(self.map_path(scene, source), side)
            if guess is None:
                continue
            first, name = len(pictures) == first_map, f"{file}_{source.name}"
            pictures.append(self._classes("map", guess, name, source))
            if first and label is not None and label.shape == guess.shape:
                pictures.append(self._errors(label, guess, f"{name}_error", source))
            path = self.map_path(scene, source, confidence=True)
            confidence = read_decimated_classes(path, side) if first else None
            if confidence is not None:
                pictures.append(self._confidence(confidence, f"{name}_confidence", source))
        return Gallery(scene, pictures, first_map) if len(pictures) > first_map else None

    def map_path(self, scene: str, source: MapSource, *, confidence: bool = False) -> Path:
        """The map of a scene."""
        return self.results.root / "maps" / scene / f"{source.name}{'_confidence' if confidence else ''}.tif"

    def _side(self, usual: int) -> int:
        return max(1, round(usual * self.detail))

    def _picture(self, kind: str, image: Rgb, file: str = "", *, photo: bool, **facts: object) -> Picture:
        """Encode an image for the page, and write it as a file where `file` gives a name."""
        content, ending = encode(image, photo=photo)
        if file:
            (self.folder / f"{file}.{ending}").write_bytes(content)
        height, width = image.shape[:2]
        return Picture(kind, data_uri(content, ending), width, height, photo, facts)

    def _sensors(
        self, raster_of: Callable[[str], Path], name: str, file: str, side: int, box: Box | None = None
    ) -> list[Picture]:
        """Pictures of all modalities with a raster.

        Args:
            raster_of: Raster of a modality.
            name: Name of the tile or scene.
            file: Start of the names of the picture files.
            side: Maximum side in pixels.
            box: Window of the rasters; None for all.
        """
        sensors, pictures = self.results.config.sensors, []
        for kind, title in modality_titles(sensors).items():
            path = raster_of(kind)
            if path.exists():
                image = read_decimated(path, side, box)[shown_bands(sensors[kind])]
                shown = stretch(image, limits_of(image))
                pictures.append(self._picture("sensor", shown, f"{file}_{kind}", photo=True, title=title, name=name))
        return pictures

    def _classes(self, kind: str, ids: Ids, file: str, source: MapSource | None = None) -> Picture:
        image = paint_classes(ids, self.results.classes)
        return self._picture(kind, image, file, photo=False, shares=self._shares(ids), source=source)

    def _errors(self, label: Ids, guess: Ids, file: str, source: MapSource | None = None) -> Picture:
        image, right = paint_errors(label, guess), _share_right(label, guess)
        return self._picture("error", image, file, photo=False, right=right, source=source)

    def _confidence(self, percent: Ids, file: str, source: MapSource | None = None) -> Picture:
        known = percent[percent != IGNORE]
        mean = float(known.mean()) if known.size else float("nan")
        return self._picture("confidence", paint_confidence(percent), file, photo=False, mean=mean, source=source)

    def _shares(self, ids: Ids) -> list[tuple[str, float]]:
        """The three most frequent classes of a map and their shares."""
        names = self.results.classes.names
        counts = np.bincount(ids[ids != IGNORE].ravel(), minlength=len(names))
        order = [int(i) for i in np.argsort(-counts)[:3] if i < len(names) and counts[i]]
        return [(names[i], float(counts[i] / counts.sum())) for i in order]


def _share_right(label: Ids, guess: Ids) -> float:
    """Share of right labelled pixels; NaN without labelled pixels."""
    known = (label != IGNORE) & (guess != IGNORE)
    return float((label == guess)[known].mean()) if known.any() else float("nan")
