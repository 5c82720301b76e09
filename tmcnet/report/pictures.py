"""Pictures of test tiles and whole scenes: rasters read decimated, coloured, and embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from tmcnet.config import IGNORE, Run, SensorConfig
from tmcnet.errors import InputError
from tmcnet.evaluate.quicklook import NO_DATA, paint_classes
from tmcnet.raster.io.geometry import Box, geocentric, pixel_area, reproject_points, round_length
from tmcnet.raster.io.radiometry import display_range
from tmcnet.raster.io.reader import Raster, read_grid
from tmcnet.raster.io.windowed import decimate, decimate_ids
from tmcnet.report.names import modality_titles, run_label
from tmcnet.report.results import Results

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Picture = dict[str, Any]
"""One embedded image for the templates: its `kind` (`sensor`, `label`, `map`, `error`, `confidence` or `alignment`),
`uri`, `width` and `height`, `photo` for imagery, and what its title and text need."""
Gallery = dict[str, Any]
"""`name` and `pictures` of one tile or scene, of which those from number `first_map` (from 0) on show maps; the share
of `right` pixels of a tile; the `ground` of a scene, None where unknown."""

SCENE_SIDE_PX, TILE_SIDE_PX, ALIGNMENT_SIDE_PX = 1024, 256, 1300
"""Maximum side of the pictures of whole scenes, of tiles and of alignments."""
MAX_SCALE_BAR = 0.3
"""Length of a scale bar, as a share of the width of its picture."""
_HATCH = (60, 60, 60)
_HATCH_LINES = 60
"""Lines of the hatch across a picture."""
RIGHT = (205, 222, 235)
WRONG = (213, 94, 0)
MAX_LEAN = 0.01
"""Largest slope of the columns of a raster, against north, for which an arrow may point up."""


def read_picture(path: Path, max_side: int, box: Box | None = None) -> Floats:
    """Every n-th pixel of a raster or of a window of it, C x H x W with NaN for no data."""
    raster = Raster.of(path)
    return decimate(raster, _step(*(box or raster.shape)[-2:], max_side), box)


def read_classes(path: Path, max_side: int, box: Box | None = None) -> Ids | None:
    """Every n-th pixel (H x W) of a raster of class ids or confidences; None without a readable file."""
    try:
        raster = Raster.of(path)
        return decimate_ids(raster, _step(*(box or raster.shape)[-2:], max_side), box)
    except InputError:
        return None


def _step(height: int, width: int, max_side: int) -> int:
    return -(-max(height, width) // max_side)


def shown_bands(sensor: SensorConfig) -> list[int]:
    """Numbers (from 0) of the bands that pictures of a sensor show: three, or one for grey."""
    if sensor.display:
        return [sensor.bands.index(band) for band in sensor.display]
    return [0, 1, 2] if sensor.kind == "reflectance" and len(sensor.bands) == 3 else [0]


def limits_of(image: Floats) -> tuple[Floats, Floats]:
    """Values of each band (C x H x W) that become black and white; 0 and 1 for bands without data."""
    ranges = [display_range(valid) if len(valid := band[np.isfinite(band)]) else (0.0, 1.0) for band in image]
    bottom, top = np.array(ranges, dtype=np.float32).T
    return bottom, top


def stretch(image: Floats, limits: tuple[Floats, Floats]) -> Rgb:
    """Picture (H x W x 3) of one or three bands (C x H x W); pixels without data become light grey."""
    low, high = (side[:, None, None] for side in limits)
    scaled = np.clip((image - low) / (high - low), 0, 1)
    shown = np.nan_to_num(scaled * 255).astype(np.uint8).transpose(1, 2, 0).repeat(3 // len(image), axis=2)
    shown[~np.isfinite(image).all(axis=0)] = NO_DATA
    return np.ascontiguousarray(shown)


def paint_errors(truth: Ids, guess: Ids) -> Rgb:
    """Picture of right (pale blue) and wrong (orange) pixels; light grey where truth or guess is void."""
    known = (truth != IGNORE) & (guess != IGNORE)
    shown: Rgb = np.full((*truth.shape, 3), NO_DATA, np.uint8)
    shown[known & (truth == guess)] = RIGHT
    shown[known & (truth != guess)] = WRONG
    return shown


def hatch(picture: Rgb, where: Flags) -> Rgb:
    """The picture (H x W x 3) with thin diagonal lines where a mask (H x W) is true."""
    period = max(4, max(where.shape) // _HATCH_LINES)
    row, col = np.indices(where.shape)
    shown = picture.copy()
    shown[where & ((row + col) % period < max(1, period // 8))] = _HATCH
    return shown


def paint_confidence(percent: Ids) -> Rgb:
    """Picture of confidence 0..100 (H x W) in steps of 2 % and the colours of `cividis`; 255 becomes light grey."""
    steps = np.clip(percent, 0, 100) // 2
    values = (colormaps["cividis"](steps / 50)[..., :3] * 255).astype(np.uint8)
    shown: Rgb = np.where((percent == IGNORE)[..., None], np.array(NO_DATA, np.uint8), values)
    return shown


def share_right(truth: Ids, guess: Ids) -> float:
    """Share of right labelled pixels; NaN without labelled pixels."""
    known = (truth != IGNORE) & (guess != IGNORE)
    return float((truth == guess)[known].mean()) if known.any() else float("nan")


def encode(picture: Rgb, *, photo: bool) -> tuple[bytes, str]:
    """File content and ending of a picture: JPEG for imagery, PNG with few colours for maps."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if photo:
        image.save(buffer, "JPEG", quality=85, optimize=True)
        return buffer.getvalue(), "jpg"
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue(), "png"


@dataclass(frozen=True)
class MapSource:
    """The origin of a map: a run of the sweep, or an earlier model (`maps.models`) without scores here."""

    name: str
    run: Run | None = None

    @property
    def label(self) -> str:
        """Name for readers."""
        return run_label(self.run) if self.run else f"{self.name}, from elsewhere"


@dataclass(frozen=True)
class Ground:
    """The ground that a picture shows.

    Attributes:
        metres: Its width.
        north_up: Whether the columns of the raster run north.
    """

    metres: float
    north_up: bool

    @classmethod
    def of(cls, raster: Path) -> Self | None:
        """The ground of a raster; None without a coordinate reference system."""
        grid = read_grid(raster)
        if pixel_area(grid) is None:
            return None
        x, y = grid.transform @ (np.array([0.0, grid.width]), np.full(2, grid.height / 2))
        ends = geocentric(*reproject_points(grid.crs, "EPSG:4326", x, y))
        metres, at = float(np.linalg.norm(ends[1] - ends[0])), grid.transform
        upright = at.a > 0 > at.e and max(abs(at.b / at.e), abs(at.d / at.a)) < MAX_LEAN
        return cls(metres, upright) if np.isfinite(metres) and metres > 0 else None

    @property
    def bar(self) -> float:
        """Length of the scale bar in metres."""
        return round_length(MAX_SCALE_BAR * self.metres)


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
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((self._side(ALIGNMENT_SIDE_PX),) * 2)
        return self._picture("alignment", np.asarray(small), photo=True)

    def examples(self, tiles: Iterable[str], source: MapSource) -> Iterator[Gallery]:
        """Test tiles of the index with all modalities, label, prediction, error and confidence, made one by one.

        Tiles for which a file is missing are left out.
        """
        index = self.results.index
        rows = {} if index.empty else {str(row["tile"]): row for row in index.to_dict("records")}
        for row in (rows[tile] for tile in tiles if tile in rows):
            box = (int(row["row"]), int(row["col"]), int(row["height"]), int(row["width"]))
            if gallery := self._example(str(row["tile"]), str(row["scene"]), box, source):
                yield gallery

    def _example(self, tile: str, scene: str, box: Box, source: MapSource) -> Gallery | None:
        store, window, whole = self.results.store, self.results.store.window(tile), max(box[2:])
        guess = read_classes(self.map_path(scene, source), whole, box)
        label = read_classes(store.path("label", tile), whole, window)
        if guess is None or label is None or guess.shape != label.shape:
            return None
        side = self._side(TILE_SIDE_PX)
        step, file = _step(len(label), len(label[0]), side), f"tile_{tile}"
        pictures = self._sensors(lambda kind: store.path(kind, tile), tile, file, side, window)
        pictures.append(self._classes("label", label[::step, ::step], f"{file}_label"))
        first_map = len(pictures)
        pictures.append(self._classes("map", guess[::step, ::step], f"{file}_prediction"))
        pictures.append(self._errors(label[::step, ::step], guess[::step, ::step], f"{file}_error"))
        confidence = read_classes(self.map_path(scene, source, confidence=True), side, box)
        if confidence is not None:
            pictures.append(self._confidence(confidence, f"{file}_confidence"))
        right = share_right(label, guess)
        return {"name": tile, "pictures": pictures, "first_map": first_map, "right": right, "ground": None}

    def best(self, scene: str, source: MapSource) -> Gallery | None:
        """The optical image (or the first modality there is), map and confidence of a scene; None without map."""
        whole = self.overview(scene, [source], file="best")
        if whole is None:
            return None
        unnamed = [p | {"source": None} for p in whole["pictures"] if p["kind"] in ("map", "confidence")]
        return whole | {"pictures": [*whole["pictures"][: min(whole["first_map"], 1)], *unnamed], "first_map": 1}

    def overview(self, scene: str, sources: Sequence[MapSource], file: str = "") -> Gallery | None:
        """One whole scene: all modalities, label where there is one, and maps; None without maps.

        Error and confidence are those of the first map. Tiles whose labels its network has seen are hatched in the
        picture of errors, and do not count for its share of right pixels.
        """
        side, file = self._side(SCENE_SIDE_PX), file or f"scene_{scene}"
        folder = self.results.root / "scenes" / scene
        pictures = self._sensors(lambda kind: folder / f"{kind}.tif", scene, file, side)
        label = read_classes(folder / "label.tif", side)
        if label is not None and (label == IGNORE).all():
            label = None
        if label is not None:
            pictures.append(self._classes("label", label, f"{file}_label"))
        first_map = len(pictures)
        for source in sources:
            guess = read_classes(self.map_path(scene, source), side)
            if guess is None:
                continue
            first, name = len(pictures) == first_map, f"{file}_{source.name}"
            pictures.append(self._classes("map", guess, name, source))
            if first and label is not None and label.shape == guess.shape:
                seen = self._trained(scene, source, guess.shape)
                pictures.append(self._errors(label, guess, f"{name}_error", source, seen))
            confidence = read_classes(self.map_path(scene, source, confidence=True), side) if first else None
            if confidence is not None:
                pictures.append(self._confidence(confidence, f"{name}_confidence", source))
        if len(pictures) == first_map:
            return None
        ground = Ground.of(self.map_path(scene, sources[0]))
        return {"name": scene, "pictures": pictures, "first_map": first_map, "ground": ground}

    def _trained(self, scene: str, source: MapSource, shape: tuple[int, ...]) -> Flags:
        """Pixels of the picture of a scene (H x W) in tiles whose labels the network of a map has seen."""
        seen = np.zeros(shape, np.bool_)
        index = self.results.index
        if source.run is None or index.empty:
            return seen
        tiles = index[(index["scene"] == scene) & index["tile"].isin(self.results.labelled_for(source.run))]
        step = _step(*Raster.of(self.map_path(scene, source)).shape[1:], self._side(SCENE_SIDE_PX))
        for top, left, height, width in tiles[["row", "col", "height", "width"]].to_numpy(int):
            seen[-(-top // step) : -(-(top + height) // step), -(-left // step) : -(-(left + width) // step)] = True
        return seen

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
        uri = f"data:image/{'jpeg' if photo else 'png'};base64,{base64.b64encode(content).decode('ascii')}"
        height, width, _ = image.shape
        return {"kind": kind, "uri": uri, "width": width, "height": height, "photo": photo, **facts}

    def _sensors(
        self, raster_of: Callable[[str], Path], name: str, file: str, side: int, box: Box | None = None
    ) -> list[Picture]:
        """Pictures of all modalities of the tile or scene `name` that have a raster."""
        sensors, pictures = self.results.config.sensors, []
        for kind, title in modality_titles(sensors).items():
            path = raster_of(kind)
            if path.exists():
                image = read_picture(path, side, box)[shown_bands(sensors[kind])]
                if not np.isfinite(image).any():
                    continue
                shown = stretch(image, limits_of(image))
                pictures.append(self._picture("sensor", shown, f"{file}_{kind}", photo=True, title=title, name=name))
        return pictures

    def _classes(self, kind: str, ids: Ids, file: str, source: MapSource | None = None) -> Picture:
        """A map or label; its text names the three most frequent classes with their shares."""
        names = self.results.classes.names
        counts = np.bincount(ids[ids != IGNORE].ravel(), minlength=len(names))
        order = [int(i) for i in np.argsort(-counts)[:3] if i < len(names) and counts[i]]
        shares = [(names[i], float(counts[i] / counts.sum())) for i in order]
        image = paint_classes(ids, self.results.classes)
        return self._picture(kind, image, file, photo=False, shares=shares, source=source)

    def _errors(
        self, label: Ids, guess: Ids, file: str, source: MapSource | None = None, seen: Flags | None = None
    ) -> Picture:
        image, hatched = paint_errors(label, guess), seen is not None and bool(seen.any())
        if seen is not None and hatched:
            image, label = hatch(image, seen), np.where(seen, np.uint8(IGNORE), label)
        right = share_right(label, guess)
        return self._picture("error", image, file, photo=False, right=right, hatched=hatched, source=source)

    def _confidence(self, percent: Ids, file: str, source: MapSource | None = None) -> Picture:
        known = percent[percent != IGNORE]
        mean = float(known.mean()) if known.size else float("nan")
        return self._picture("confidence", paint_confidence(percent), file, photo=False, mean=mean, source=source)
